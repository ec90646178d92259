//! Whether more uploads at once bring more bytes across.
//!
//! The time of an upload is its size, so that it says nothing by itself. What counts is how many bytes all uploads together
//! bring across, before and after one more of them was allowed.

use std::time::Duration;

/// Uploads below this size, in bytes, are left out: what they take is not their size, but the round trips and the files of the
/// server. Chosen, not measured.
const SIZE_MIN: u64 = 1 << 20;
/// The part of the throughput of before that must be left after one more upload was allowed, in percent. Chosen, not measured:
/// less is no noise any more.
const KEPT_PERCENT: u64 = 75;
/// Uploads that are looked at together: so many for each that is allowed at once. Chosen, not measured.
const ROUNDS: u64 = 2;

/// What is known of the throughput of uploads.
#[derive(Debug, Default)]
pub(super) struct Throughput {
    bytes: u64,
    took: Duration,
    count: u64,
    /// How many were allowed in the last window, and how many bytes per second they brought across together.
    last: Option<(usize, u64)>,
}

impl Throughput {
    /// Notes an upload, of which `allowed` are made at once. Returns whether it ends a window with more uploads at once than
    /// in the one before, and much less throughput.
    pub(super) fn note(&mut self, bytes: u64, took: Duration, allowed: usize) -> bool {
        if bytes < SIZE_MIN {
            return false;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.took += took;
        self.count += 1;
        let allowed_count = allowed as u64;
        if self.count < ROUNDS * allowed_count {
            return false;
        }
        let microseconds = self.took.as_micros().max(1);
        let each = u128::from(self.bytes) * 1_000_000 / microseconds;
        let together = u64::try_from(each * u128::from(allowed_count)).unwrap_or(u64::MAX);
        let is_less = |known: u64| together < known / 100 * KEPT_PERCENT;
        let fell = self
            .last
            .is_some_and(|(before, known)| allowed > before && is_less(known));
        *self = Self {
            last: Some((allowed, together)),
            ..Self::default()
        };
        fell
    }

    /// Forgets everything: uploads were held back for another reason.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SIZE: u64 = 64 << 20;

    /// Notes a whole window in which each upload took so long.
    fn window(throughput: &mut Throughput, allowed: usize, took: Duration) -> bool {
        let count = ROUNDS * allowed as u64;
        (0..count).fold(false, |_, _| throughput.note(SIZE, took, allowed))
    }

    #[test]
    fn a_link_that_is_shared_evenly_is_no_reason_to_send_less_at_once() {
        let mut throughput = Throughput::default();
        for allowed in 1..=16_u32 {
            let fell = window(&mut throughput, allowed as usize, SECOND * allowed);
            assert!(!fell, "{allowed}");
        }
    }

    #[test]
    fn more_at_once_that_brings_less_across_is_noticed_once() {
        let mut throughput = Throughput::default();
        assert!(!window(&mut throughput, 4, SECOND * 4));
        assert!(window(&mut throughput, 5, SECOND * 10));
        assert!(!window(&mut throughput, 5, SECOND * 10));
    }

    #[test]
    fn a_server_that_becomes_slow_by_itself_is_no_reason_to_send_less_at_once() {
        let mut throughput = Throughput::default();
        assert!(!window(&mut throughput, 4, SECOND));
        assert!(!window(&mut throughput, 4, SECOND * 20));
    }

    #[test]
    fn small_uploads_say_nothing() {
        let mut throughput = Throughput::default();
        assert!(!window(&mut throughput, 4, SECOND));
        for _ in 0..100 {
            assert!(!throughput.note(SIZE_MIN - 1, SECOND * 100, 5));
        }
    }
}
