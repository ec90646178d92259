//! Whether there is space for a package: before it, and while it is unpacked.
//!
//! ```text
//! before   size of the file × expansion of the last packages ─┐ too little: the file is read once more, and what the
//! during   what is written + this blob + estimate of the rest ┴ store lacks of it is counted (`measure.rs`)
//! ```
//!
//! Estimates may be wrong in both directions, so that nothing waits because of one alone: a file waits only if there is too
//! little space for what was counted, or for the blob that comes next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Error;
use crate::catalog::Catalog;
use crate::sys::disk::Alarm;

/// How often space is looked at while a file waits for it: one system call and one look at the drop folders. Bounds how soon
/// ingest goes on. Chosen, not measured.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// How many bytes more must be free for a file to be tried again at once that found the disk full, although there was enough
/// space by all that was known. Chosen, not measured.
pub(super) const GROWTH_BYTES: u64 = 1 << 20;
/// How many bytes of one blob are written between two looks. At 1 GB/s that is 60 looks a second, which cost nothing.
const LOOK_EVERY_BYTES: u64 = 16 << 20;
/// How many packages the expansion is taken from. Odd, so that one is in the middle. Chosen, not measured.
const PACKAGES_KEPT: usize = 63;
/// Expansions are kept in thousandths.
const WHOLE: u64 = 1000;
/// The part of a file that must have been read before the rest is taken for alike: one eighth. Chosen, not measured.
const SAMPLE_PART: u64 = 8;

/// How much more packages have taken in the store than as files.
///
/// The middle of the last packages counts: deltas, of which the catalog does not say how much they brought themselves, and
/// single packages of another kind do not move it.
#[derive(Debug, Default)]
pub(super) struct Expansion(Mutex<Option<VecDeque<u64>>>);

impl Expansion {
    /// Returns how many bytes a file of this size is expected to take; at least its size.
    pub(super) fn estimate(&self, file_bytes: u64, catalog: &Catalog) -> u64 {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_with(|| of_catalog(catalog));
        let mut sorted: Vec<u64> = known.iter().copied().collect();
        sorted.sort_unstable();
        let middle = sorted.get(sorted.len() / 2).copied().unwrap_or(WHOLE);
        expanded(file_bytes, middle.max(WHOLE))
    }

    /// Counts a package that was unpacked.
    pub(super) fn add(&self, file_bytes: u64, unpacked_bytes: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(known), Some(ratio)) = (known.as_mut(), ratio(file_bytes, unpacked_bytes)) {
            push(known, ratio);
        }
    }
}

/// Returns the expansion of the last packages in the catalog.
fn of_catalog(catalog: &Catalog) -> VecDeque<u64> {
    let mut known = VecDeque::new();
    for package in catalog.summaries() {
        if let Some(ratio) = ratio(package.size_bytes, package.blob_bytes) {
            push(&mut known, ratio);
        }
    }
    known
}

fn push(known: &mut VecDeque<u64>, ratio: u64) {
    if known.len() == PACKAGES_KEPT {
        known.pop_front();
    }
    known.push_back(ratio);
}

/// Returns an expansion in thousandths, if the file has any bytes.
fn ratio(file_bytes: u64, unpacked_bytes: u64) -> Option<u64> {
    let ratio = (u128::from(unpacked_bytes) * u128::from(WHOLE)).checked_div(file_bytes.into())?;
    Some(u64::try_from(ratio).unwrap_or(u64::MAX))
}

fn expanded(bytes: u64, ratio: u64) -> u64 {
    let expanded = (u128::from(bytes) * u128::from(ratio)).div_ceil(WHOLE.into());
    u64::try_from(expanded).unwrap_or(u64::MAX)
}

/// Refuses to go on where what is still to be written would leave less free space than the critical mark.
///
/// What was written already is free again once it is dropped, so that the error counts it on both sides.
pub(super) fn check(disk: &Alarm, written_bytes: u64, coming_bytes: u64) -> Result<(), Error> {
    let available_bytes = disk.look()?.space.available_bytes;
    let reserve_bytes = disk.marks().critical_bytes;
    if available_bytes >= coming_bytes.saturating_add(reserve_bytes) {
        return Ok(());
    }
    Err(Error::LowSpace {
        available_bytes: available_bytes.saturating_add(written_bytes),
        needed_bytes: coming_bytes
            .saturating_add(reserve_bytes)
            .saturating_add(written_bytes),
    })
}

/// What one package takes while it is unpacked. Blobs that were there before take nothing.
#[derive(Debug)]
pub(super) struct Budget<'a> {
    disk: &'a Alarm,
    file_bytes: u64,
    /// How far the file was read.
    read_bytes: Arc<AtomicU64>,
    /// What it takes in all, where that was counted.
    total_bytes: Option<u64>,
    /// Blobs that were finished.
    done_bytes: u64,
    /// The blob that was begun: its size, and how much of it was written.
    size_bytes: u64,
    written_bytes: u64,
}

impl<'a> Budget<'a> {
    /// Returns the budget of a file of this size; `total_bytes` is what was counted.
    pub(super) fn new(disk: &'a Alarm, file_bytes: u64, total_bytes: Option<u64>) -> Self {
        Self {
            disk,
            file_bytes,
            read_bytes: Arc::default(),
            total_bytes,
            done_bytes: 0,
            size_bytes: 0,
            written_bytes: 0,
        }
    }

    /// Returns where it is to be said how many bytes of the file were read.
    pub(super) fn read_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read_bytes)
    }

    /// Checks that there is space for a blob of this size, and for what is expected after it.
    pub(super) fn begin(&mut self, size_bytes: u64) -> Result<(), Error> {
        self.size_bytes = size_bytes;
        self.written_bytes = 0;
        self.look()
    }

    /// Counts what was written of the blob, and looks again now and then.
    pub(super) fn write(&mut self, bytes: u64) -> Result<(), Error> {
        let looks = self.written_bytes / LOOK_EVERY_BYTES;
        self.written_bytes = self.written_bytes.saturating_add(bytes);
        if self.written_bytes / LOOK_EVERY_BYTES > looks {
            self.look()?;
        }
        Ok(())
    }

    /// Counts the blob as finished.
    pub(super) fn end(&mut self) {
        self.done_bytes = self.done_bytes.saturating_add(self.written_bytes);
        self.size_bytes = 0;
        self.written_bytes = 0;
    }

    fn look(&self) -> Result<(), Error> {
        let written = self.done_bytes.saturating_add(self.written_bytes);
        let blob = self.size_bytes.saturating_sub(self.written_bytes);
        let coming = match self.total_bytes {
            Some(total) => total.saturating_sub(written).max(blob),
            None => blob.max(self.rest(written)),
        };
        check(self.disk, written, coming)
    }

    /// Returns how much is expected to be written of the rest of the file, the current blob included: as much for each byte
    /// as so far.
    fn rest(&self, written_bytes: u64) -> u64 {
        let read = self.read_bytes.load(Ordering::Relaxed);
        if read < self.file_bytes / SAMPLE_PART {
            return 0;
        }
        let left = self.file_bytes.saturating_sub(read);
        ratio(read, written_bytes).map_or(0, |ratio| expanded(left, ratio))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::sys::disk::Marks;

    #[test]
    fn the_middle_of_the_last_packages_is_expected_and_never_less_than_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path()).unwrap();
        let expansion = Expansion::default();
        let estimate = |bytes| expansion.estimate(bytes, &catalog);
        assert_eq!(estimate(1000), 1000, "nothing is known yet");
        expansion.add(0, 5);
        expansion.add(100, 50);
        assert_eq!(estimate(1000), 1000, "smaller than the file");
        expansion.add(100, 250);
        expansion.add(7, u64::MAX);
        assert_eq!(estimate(1001), 2503, "rounded up");
        for _ in 0..PACKAGES_KEPT {
            expansion.add(2, 6);
        }
        assert_eq!(estimate(1000), 3000, "the first ones are forgotten");
        assert_eq!(estimate(u64::MAX), u64::MAX);
    }

    /// Returns a budget on a disk of which so much must stay free that `free_bytes` are left to write, more or less.
    fn alarm(free_bytes: u64) -> Alarm {
        let open = Alarm::new(
            Path::new("/"),
            Marks {
                low_bytes: 0,
                critical_bytes: 0,
            },
        );
        let available = open.look().unwrap().space.available_bytes;
        let critical_bytes = available - free_bytes;
        Alarm::new(
            Path::new("/"),
            Marks {
                low_bytes: u64::MAX,
                critical_bytes,
            },
        )
    }

    #[test]
    fn a_package_stops_for_its_next_blob_or_for_what_the_rest_is_expected_to_take() {
        const GIB: u64 = 1 << 30;
        let alarm = alarm(2 * GIB);
        let needed = |result: Result<(), Error>| match result {
            Ok(()) => None,
            Err(Error::LowSpace { needed_bytes, .. }) => {
                Some((needed_bytes - alarm.marks().critical_bytes) / GIB)
            }
            Err(error) => panic!("{error}"),
        };
        let mut budget = Budget::new(&alarm, 8 * GIB, None);
        assert_eq!(needed(budget.begin(GIB)), None);
        assert_eq!(needed(budget.begin(3 * GIB)), Some(3), "the blob");
        // One byte of eight is no sample; of the second one on, half as much is written as was read.
        budget.begin(GIB / 2).unwrap();
        budget.write(GIB / 2).unwrap();
        budget.end();
        let read = budget.read_bytes();
        read.store(GIB - 1, Ordering::Relaxed);
        assert_eq!(needed(budget.begin(1)), None);
        read.store(GIB, Ordering::Relaxed);
        assert_eq!(
            needed(budget.begin(1)),
            Some(4),
            "half of 7 and what was written"
        );
        // What was counted counts.
        let mut budget = Budget::new(&alarm, 8 * GIB, Some(GIB));
        budget.read_bytes().store(GIB, Ordering::Relaxed);
        assert_eq!(needed(budget.begin(GIB / 2)), None);
        assert_eq!(needed(budget.write(GIB / 2)), None);
        let mut budget = Budget::new(&alarm, 8 * GIB, Some(5 * GIB));
        assert_eq!(needed(budget.begin(1)), Some(5));
    }
}
