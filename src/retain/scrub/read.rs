//! Reads one blob from the disk, as fast as the budget allows.
//!
//! What the system has of it in memory is forgotten before it is read, because memory says nothing of the disk, and
//! after each piece, because a store of terabytes would push everything else out of memory. Direct reading (`O_DIRECT`)
//! would do both, but asks for aligned buffers and is refused by several file systems.

use std::fs::File;
use std::io::{self, Read as _};

use tokio_util::sync::CancellationToken;

use super::Error;
use super::budget::Budget;
use crate::base::{Class, Classified as _, Digest, Hasher};
use crate::store::{self, Store};
use crate::sys::{cache, fs};

/// How much is read at a time, in bytes: what is still read when the daemon is told to stop. Chosen, not measured.
const PIECE_BYTES: u64 = 1 << 20;

/// What a blob costs at least, in bytes: opening one moves the heads of a disk, about 10 ms, in which it could read some
/// hundred KiB. Chosen, not measured.
const BLOB_COST_BYTES: u64 = 64 << 10;

/// Errors of the operating system that say that the disk or the file system is damaged there: `EIO`, and what XFS, ext4
/// and btrfs answer where a checksum of theirs does not fit (`EUCLEAN`, `EBADMSG`, `ENODATA`).
const DAMAGE: [i32; 4] = [
    rustix::io::Errno::IO.raw_os_error(),
    rustix::io::Errno::UCLEAN.raw_os_error(),
    rustix::io::Errno::BADMSG.raw_os_error(),
    rustix::io::Errno::NODATA.raw_os_error(),
];

/// What was found where a blob should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The content that its name promises.
    Whole {
        /// Its size, in bytes.
        size_bytes: u64,
    },
    /// Other content.
    Changed {
        /// What it is.
        digest: Digest,
        /// Its size, in bytes.
        size_bytes: u64,
    },
    /// Something that cannot be read.
    Unreadable {
        /// The size that it says it has, in bytes; `None` where not even that can be read.
        size_bytes: Option<u64>,
        /// What the operating system says.
        reason: String,
    },
    /// Nothing.
    Absent,
    /// Nobody knows: the daemon stops.
    Stopped,
}

/// A blob that is being read.
struct Reading {
    file: File,
    size_bytes: u64,
    hasher: Hasher,
    offset: u64,
    buffer: Vec<u8>,
}

/// What came of reading a piece.
enum Step {
    /// There is more.
    More(Reading),
    /// That was all.
    End(Found),
}

/// Reads a blob and compares its content with its name.
///
/// An error is one that says nothing of the blob, such as too many open files.
pub(super) async fn read_blob(
    store: &Store,
    digest: Digest,
    budget: &mut Budget,
    stop: &CancellationToken,
) -> Result<Found, Error> {
    if !wait(budget, stop).await {
        return Ok(Found::Stopped);
    }
    let mut paid_bytes = 0;
    let opened = store.clone();
    let mut latest = super::blocking(move || match begin(&opened, &digest)? {
        Step::More(reading) => reading.step(digest),
        end @ Step::End(_) => Ok(end),
    })
    .await?;
    loop {
        match latest {
            Step::End(found) => {
                let read_bytes = match found {
                    Found::Whole { size_bytes } | Found::Changed { size_bytes, .. } => size_bytes,
                    Found::Unreadable { .. } | Found::Absent | Found::Stopped => 0,
                };
                let owed = read_bytes.max(BLOB_COST_BYTES).saturating_sub(paid_bytes);
                budget.spend(owed);
                return Ok(found);
            }
            Step::More(reading) => {
                budget.spend(reading.offset - paid_bytes);
                paid_bytes = reading.offset;
                if !wait(budget, stop).await {
                    return Ok(Found::Stopped);
                }
                latest = super::blocking(move || reading.step(digest)).await?;
            }
        }
    }
}

/// Waits for the budget. Returns whether to go on.
async fn wait(budget: &Budget, stop: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        () = budget.settle() => true,
    }
}

fn begin(store: &Store, digest: &Digest) -> Result<Step, Error> {
    // What is no file is not opened: it may have no end.
    let (size_bytes, opened) = match store.find(digest) {
        Ok(Some(size_bytes)) => (Some(size_bytes), store.open_blob(digest)),
        Ok(None) => return Ok(Step::End(Found::Absent)),
        Err(error) => (None, Err(error)),
    };
    match opened {
        Ok(blob) => {
            cache::forget(&blob.file, 0, 0);
            let capacity = blob.size_bytes.clamp(1, PIECE_BYTES);
            let capacity = usize::try_from(capacity).expect("a piece fits into memory");
            Ok(Step::More(Reading {
                file: blob.file,
                size_bytes: blob.size_bytes,
                hasher: Hasher::default(),
                offset: 0,
                buffer: vec![0; capacity],
            }))
        }
        Err(error) if error.class() == Class::Absent => Ok(Step::End(Found::Absent)),
        Err(store::Error::Fs(fs::Error { source, .. })) if is_damage(&source) => {
            Ok(Step::End(unreadable(size_bytes, &source)))
        }
        Err(error) => Err(error.into()),
    }
}

impl Reading {
    /// Reads the next piece.
    fn step(mut self, expected: Digest) -> Result<Step, Error> {
        let amount = match self.file.read(&mut self.buffer) {
            Ok(amount) => amount,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return Ok(Step::More(self));
            }
            Err(error) if is_damage(&error) => {
                return Ok(Step::End(unreadable(Some(self.size_bytes), &error)));
            }
            Err(source) => {
                return Err(Error::Read {
                    digest: expected,
                    source,
                });
            }
        };
        if amount > 0 {
            self.hasher.update(&self.buffer[..amount]);
            cache::forget(&self.file, self.offset, amount as u64);
            self.offset += amount as u64;
            return Ok(Step::More(self));
        }
        let (digest, size_bytes) = (self.hasher.finish(), self.offset);
        Ok(Step::End(if digest == expected {
            Found::Whole { size_bytes }
        } else {
            Found::Changed { digest, size_bytes }
        }))
    }
}

fn unreadable(size_bytes: Option<u64>, error: &io::Error) -> Found {
    Found::Unreadable {
        size_bytes,
        reason: error.to_string(),
    }
}

/// Returns whether an error says that the blob is lost. That it may not be read says nothing of its content.
fn is_damage(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|number| DAMAGE.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_the_disk_are_damage() {
        for number in [5, 117, 74, 61] {
            assert!(is_damage(&io::Error::from_raw_os_error(number)), "{number}");
        }
        // Too many open files, no memory, interrupted, not permitted, denied.
        for number in [24, 23, 12, 4, 1, 13] {
            assert!(
                !is_damage(&io::Error::from_raw_os_error(number)),
                "{number}"
            );
        }
    }
}
