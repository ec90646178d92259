//! How fast the disk may be read.

use std::time::Duration;

use tokio::time::Instant;

/// How much may be read at once after a pause, as time at the full rate. Chosen, not measured.
const BURST: Duration = Duration::from_secs(1);

/// A bucket of tokens, one for each byte.
///
/// Reading is paid for afterwards: whoever has read waits before reading again until what was read is paid. So one
/// piece of any size passes whatever the rate is, and the rate holds on the average.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_per_second: u64,
    /// When everything that was read is paid for.
    paid_at: Instant,
}

impl Budget {
    /// Returns a budget of so many bytes per second, at least one.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            paid_at: Instant::now(),
        }
    }

    /// Notes that `bytes` were read.
    pub(super) fn spend(&mut self, bytes: u64) {
        let earliest = Instant::now().checked_sub(BURST).unwrap_or(self.paid_at);
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let price = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.paid_at = self.paid_at.max(earliest) + price;
    }

    /// Waits until what was read is paid for.
    pub(super) async fn settle(&self) {
        if self.paid_at > Instant::now() {
            tokio::time::sleep_until(self.paid_at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_on_the_average_and_one_large_piece_passes() {
        let mut budget = Budget::new(1000);
        let start = Instant::now();
        budget.settle().await;
        assert_eq!(start.elapsed(), Duration::ZERO, "nothing was read yet");
        for _ in 0..100 {
            budget.spend(100);
            budget.settle().await;
        }
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        budget.spend(60_000);
        budget.settle().await;
        assert_eq!(start.elapsed(), Duration::from_secs(70));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_made_up_for_by_a_second_at_most() {
        let mut budget = Budget::new(1000);
        tokio::time::sleep(Duration::from_hours(1)).await;
        let start = Instant::now();
        budget.spend(5000);
        budget.settle().await;
        assert_eq!(start.elapsed(), Duration::from_secs(4));
    }
}
