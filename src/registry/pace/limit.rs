//! How many requests of one kind may be in flight: one more after each round that went well, half as many after a refusal.
//!
//! Additive increase and multiplicative decrease, as TCP has it, finds what a server takes, shares it evenly with other clients
//! that do the same, and follows when it changes. Pure: time comes from the caller.
//!
//! # States
//!
//! ```text
//! answered, as many in flight as allowed   limit + 1 after as many answers as the limit is
//! 429, 503                                 limit / 2
//! 429, 503, when the limit is 1            twice the time between two begins; each answer takes a part of it back
//! all short requests of a window slow      limit * 4/5
//! one more upload, much less throughput    limit * 4/5, and no increase for a while
//! ```
//!
//! # Invariants
//!
//! - The limit is between 1 and what is configured.
//! - One overload counts once: what was sent before the last decrease does not decrease it again.
//!
//! # References
//!
//! D. Chiu, R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in Computer Networks", 1989.

use std::time::Duration;

use tokio::time::Instant;

use super::latency::Latency;
use super::throughput::Throughput;

/// The first limit, where more is allowed: what was the fixed number before, and no registry refused.
const START: f64 = 4.0;
/// What is left of the limit after a refusal. TCP's factor (RFC 5681, 3.1).
const LEFT_AFTER_REFUSAL: f64 = 0.5;
/// What is left of it when answers become slow. Gentler, because a guess. Chosen, not measured.
const LEFT_AFTER_SLOWNESS: f64 = 0.8;
/// The first time between two begins: a hundred requests per second. Chosen, not measured: the limits on rates that proxies come
/// with are of some ten.
const GAP_FIRST: Duration = Duration::from_millis(10);
/// The longest one. Slower servers are left to the back-off of each operation. Chosen, not measured.
const GAP_MAX: Duration = Duration::from_millis(250);
/// What is left of it after each answer, away from the gap at which a request was refused last,
const GAP_LEFT: f64 = 0.95;
/// and near to that one: then less than one of a hundred requests goes too early. Both chosen, not measured.
const GAP_LEFT_NEAR: f64 = 0.998;
/// What is near, as parts of that gap.
const NEAR: (f64, f64) = (0.9, 1.3);
/// Shorter than this it is nothing.
const GAP_MIN: Duration = Duration::from_millis(1);
/// For how long there is no increase after one that brought less across. Chosen, not measured.
const NO_INCREASE: Duration = Duration::from_secs(30);

/// What the end of a request says about the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// The server had too much to do.
    Refused,
    /// A short request was answered after this time.
    Answered(Duration),
    /// An upload of so many bytes took this time.
    Moved(u64, Duration),
    /// An upload took as long as we let it.
    Throttled,
    /// Nothing.
    Nothing,
}

/// How many requests may be in flight.
#[derive(Debug)]
pub(super) struct Limit {
    /// Between 1 and `max`.
    level: f64,
    max: f64,
    /// When it was decreased last.
    decreased_at: Option<Instant>,
    /// The least time between two begins. Not zero only where the limit is 1: a server that limits the rate refuses single
    /// requests, too, if one follows another at once.
    gap: Duration,
    /// The gap at which a request was refused last.
    gap_refused: Duration,
    /// Until when it is not increased.
    no_increase_until: Option<Instant>,
    latency: Latency,
    throughput: Throughput,
}

impl Limit {
    /// Returns a limit of at most `max`, which is at least 1.
    pub(super) fn new(max: usize, now: Instant) -> Self {
        let max = f64::from(u32::try_from(max).unwrap_or(u32::MAX)).max(1.0);
        Self {
            level: START.min(max),
            max,
            decreased_at: None,
            gap: Duration::ZERO,
            gap_refused: Duration::ZERO,
            no_increase_until: None,
            latency: Latency::new(now),
            throughput: Throughput::default(),
        }
    }

    /// Returns how many requests may be in flight.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and a number that was a u32"
    )]
    pub(super) fn count(&self) -> usize {
        self.level as usize
    }

    /// Returns the least time between two begins.
    pub(super) const fn gap(&self) -> Duration {
        self.gap
    }

    /// Learns from a request that began at `begun_at` and has ended. `is_full` says whether as many were in flight as may be.
    pub(super) fn learn(&mut self, sign: Sign, begun_at: Instant, is_full: bool, now: Instant) {
        if self.decreased_at.is_some_and(|at| begun_at < at) {
            return;
        }
        let went_well = match sign {
            Sign::Refused => {
                if self.level <= 1.0 {
                    self.gap_refused = self.gap;
                    self.gap = (self.gap * 2).clamp(GAP_FIRST, GAP_MAX);
                }
                self.decrease(LEFT_AFTER_REFUSAL, now);
                return;
            }
            Sign::Answered(latency) => !self.latency.note(latency, now),
            Sign::Moved(bytes, took) => {
                let fell = self.throughput.note(bytes, took, self.count());
                if fell {
                    self.no_increase_until = Some(now + NO_INCREASE);
                }
                !fell
            }
            Sign::Throttled => {
                self.throughput.reset();
                return;
            }
            Sign::Nothing => return,
        };
        if !went_well {
            self.decrease(LEFT_AFTER_SLOWNESS, now);
        } else if !self.gap.is_zero() {
            self.shorten_gap();
        } else if is_full && self.no_increase_until.is_none_or(|until| now >= until) {
            // By one after as many answers as the limit is.
            self.level = (self.level + self.level.recip()).min(self.max);
        }
    }

    /// Begins requests a little faster, and slows down doing so where it went wrong before.
    fn shorten_gap(&mut self) {
        let (from, to) = NEAR;
        let is_near =
            self.gap > self.gap_refused.mul_f64(from) && self.gap < self.gap_refused.mul_f64(to);
        let left = if is_near { GAP_LEFT_NEAR } else { GAP_LEFT };
        self.gap = self.gap.mul_f64(left);
        if self.gap < GAP_MIN {
            self.gap = Duration::ZERO;
        }
    }

    fn decrease(&mut self, left: f64, now: Instant) {
        self.level = (self.level * left).max(1.0);
        self.decreased_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUICK: Sign = Sign::Answered(Duration::from_millis(1));

    /// Learns of so many quick answers to requests that began just now.
    fn answer(limit: &mut Limit, count: usize, is_full: bool, now: Instant) {
        for _ in 0..count {
            limit.learn(QUICK, now, is_full, now);
        }
    }

    #[test]
    fn a_limit_grows_by_one_per_round_up_to_what_is_configured() {
        let now = Instant::now();
        let mut limit = Limit::new(8, now);
        assert_eq!(limit.count(), 4);
        answer(&mut limit, 5, true, now);
        assert_eq!(limit.count(), 5);
        answer(&mut limit, 1000, true, now);
        assert_eq!(limit.count(), 8);
        assert_eq!(Limit::new(2, now).count(), 2, "no more than configured");
    }

    #[test]
    fn a_limit_that_is_not_reached_does_not_grow() {
        let now = Instant::now();
        let mut limit = Limit::new(64, now);
        answer(&mut limit, 1000, false, now);
        assert_eq!(limit.count(), 4);
    }

    #[test]
    fn a_refusal_of_many_at_once_halves_once() {
        let begun_at = Instant::now();
        let mut limit = Limit::new(64, begun_at);
        answer(&mut limit, 10_000, true, begun_at);
        assert_eq!(limit.count(), 64);
        let now = begun_at + Duration::from_secs(1);
        for _ in 0..64 {
            limit.learn(Sign::Refused, begun_at, true, now);
        }
        assert_eq!(limit.count(), 32);
        limit.learn(Sign::Refused, now, true, now + Duration::from_secs(1));
        assert_eq!(limit.count(), 16);
    }

    #[test]
    fn slow_answers_decrease_it_and_quick_ones_bring_it_back() {
        let mut now = Instant::now();
        let mut limit = Limit::new(16, now);
        answer(&mut limit, 1000, true, now);
        let slow = Sign::Answered(Duration::from_secs(2));
        for _ in 0..100 {
            now += Duration::from_secs(2);
            limit.learn(slow, now, true, now);
        }
        assert!(limit.count() < 8, "{limit:?}");
        answer(&mut limit, 1000, true, now);
        assert_eq!(limit.count(), 16);
    }

    #[test]
    fn an_upload_more_that_brings_less_across_is_taken_back() {
        let mut now = Instant::now();
        let mut limit = Limit::new(16, now);
        let mut most = 0;
        for _ in 0..1000 {
            // Each further upload halves what all bring across.
            let count = u32::try_from(limit.count()).unwrap();
            let sign = Sign::Moved(64 << 20, Duration::from_secs(1 << count));
            limit.learn(sign, now, true, now);
            now += Duration::from_secs(1);
            most = most.max(count);
        }
        assert!((5..10).contains(&most), "{most}");
    }

    #[test]
    fn uploads_that_we_slow_down_ourselves_say_nothing() {
        let now = Instant::now();
        let mut limit = Limit::new(16, now);
        for _ in 0..1000 {
            limit.learn(Sign::Throttled, now, true, now);
        }
        assert_eq!(limit.count(), 4);
    }

    #[test]
    fn a_server_that_limits_the_rate_refuses_less_and_less() {
        let start = Instant::now();
        let mut now = start;
        let mut limit = Limit::new(8, now);
        let (mut allowed, mut filled_at) = (1.0, start);
        let mut refused = Vec::new();
        for _ in 0..400 {
            let begun_at = now;
            allowed = (allowed + now.duration_since(filled_at).as_secs_f64() * 20.0).min(5.0);
            filled_at = now;
            let is_refused = allowed < 1.0;
            if !is_refused {
                allowed -= 1.0;
            }
            now += Duration::from_millis(1);
            let sign = if is_refused { Sign::Refused } else { QUICK };
            limit.learn(sign, begun_at, true, now);
            refused.push(is_refused);
            now += limit.gap();
        }
        let count = |part: &[bool]| part.iter().filter(|it| **it).count();
        let (early, late) = refused.split_at(50);
        assert!(count(early) * 2 > count(late), "{refused:?}");
        assert!(count(late) * 20 < late.len(), "{refused:?}");
    }

    /// A server that refuses what is more than it takes at once.
    fn settle(takes: usize, max: usize) -> Vec<usize> {
        let mut now = Instant::now();
        let mut limit = Limit::new(max, now);
        let mut refused = Vec::new();
        for _ in 0..200 {
            let count = limit.count();
            let begun_at = now;
            now += Duration::from_millis(10);
            for index in 0..count {
                let sign = if index < takes { QUICK } else { Sign::Refused };
                limit.learn(sign, begun_at, true, now);
            }
            refused.push(count.saturating_sub(takes));
        }
        refused
    }

    proptest! {
        #[test]
        fn a_limit_stays_between_one_and_what_is_configured(
            max in 1_usize..100,
            signs in proptest::collection::vec((0..5_u8, any::<u16>(), any::<bool>()), 0..400),
        ) {
            let mut now = Instant::now();
            let mut limit = Limit::new(max, now);
            for (which, number, is_full) in signs {
                let begun_at = now;
                now += Duration::from_millis(u64::from(number));
                let took = Duration::from_millis(u64::from(number));
                let sign = match which {
                    0 => Sign::Refused,
                    1 => Sign::Answered(took),
                    2 => Sign::Moved(u64::from(number) << 10, took),
                    3 => Sign::Throttled,
                    _ => Sign::Nothing,
                };
                limit.learn(sign, begun_at, is_full, now);
                prop_assert!((1..=max).contains(&limit.count()), "{limit:?}");
            }
        }

        /// Nine of ten requests are taken, however little or much the server takes at once.
        #[test]
        fn a_limit_finds_what_a_server_takes(takes in 1_usize..64) {
            let refused = settle(takes, 64);
            let later: usize = refused[100..].iter().sum();
            prop_assert!(later <= 100 * takes / 10 + 100, "{refused:?}");
        }
    }
}
