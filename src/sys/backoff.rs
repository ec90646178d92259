//! How long to wait before trying again.

use std::time::Duration;

/// Exponential back-off with a cap and full jitter.
///
/// The n-th delay lies between half of and the whole of `first * 2^n`, at most `max`. Jitter keeps many clients that
/// failed together from coming back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Returns a back-off that starts at `first` and never exceeds `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            failures: 0,
        }
    }

    /// Counts a failure and returns how long to wait. `random` is uniform in `0..=u32::MAX`.
    pub fn fail(&mut self, random: u32) -> Duration {
        let whole = self
            .first
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(self.max);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Forgets the failures: the next delay is the first one again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Returns how many failures were counted since the last reset.
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

/// Returns a random number for [`Backoff::fail`], from the randomly keyed hasher of the standard library.
pub fn random() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _};

    let bits = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    u32::try_from(bits >> 32).expect("the upper half fits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn delays_grow_and_stay_below_the_cap(randoms in proptest::collection::vec(any::<u32>(), 1..80)) {
            let (first, max) = (Duration::from_millis(100), Duration::from_mins(1));
            let mut backoff = Backoff::new(first, max);
            for (n, random) in randoms.into_iter().enumerate() {
                let delay = backoff.fail(random);
                let whole = first.saturating_mul(1 << n.min(20)).min(max);
                prop_assert!(delay >= whole / 2 && delay <= whole, "delay {delay:?} of {whole:?}");
            }
            backoff.reset();
            prop_assert!(backoff.fail(0) <= first);
        }
    }
}
