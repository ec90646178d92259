//! Whether the server is there at all. One that is not is left alone for a while, instead of being asked for each of thousands
//! of images.
//!
//! # States
//!
//! ```text
//! closed --operations fail, different ones, none succeeds for a while--> open
//! open --rest is over--> probing: one request goes, the others wait for its end
//!                           |--it succeeds--> closed
//!                           `--it fails-----> open, for twice as long
//! ```
//!
//! # Invariants
//!
//! - One operation alone never opens it, however often it is repeated: a blob that the server cannot store is no outage.
//! - Neither does a server that starts again within [`BreakerOptions::silence_min`].
//! - Any success closes it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// When a server counts as gone, and for how long it is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// How many different operations must have failed since the last success. At least 1.
    pub operations_min: usize,
    /// How long before that the first of them must have failed.
    pub silence_min: Duration,
    /// How long the server is left alone the first time. Doubles with each failed probe.
    pub rest_first: Duration,
    /// The longest such rest.
    pub rest_max: Duration,
}

impl Default for BreakerOptions {
    /// Returns 5 operations, 10 s without success, rests from 15 s to 5 min.
    ///
    /// Chosen, not measured: 10 s is longer than a registry takes to start and than an operation with its five attempts takes to
    /// fail; the first rest is over before the run that left something undone is repeated.
    fn default() -> Self {
        Self {
            operations_min: 5,
            silence_min: Duration::from_secs(10),
            rest_first: Duration::from_secs(15),
            rest_max: Duration::from_mins(5),
        }
    }
}

/// What is done about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes.
    Go,
    /// It goes, and decides for all.
    Probe,
    /// It waits until the probe has ended.
    Wait,
    /// It fails: nothing is sent before this moment.
    Fail(Instant),
}

/// Watches whether a server is there.
#[derive(Debug)]
pub(super) struct Breaker {
    options: BreakerOptions,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed {
        /// The operations that failed since the last success.
        failed: BTreeSet<u64>,
        /// When the first of them did.
        since: Option<Instant>,
    },
    Open {
        until: Instant,
        rest: Duration,
    },
    Probing {
        rest: Duration,
    },
}

/// What it is like for those who look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakerPhase {
    Closed,
    Open(Instant),
    Probing,
}

impl State {
    const CLOSED: Self = Self::Closed {
        failed: BTreeSet::new(),
        since: None,
    };
}

impl Breaker {
    pub(super) const fn new(options: BreakerOptions) -> Self {
        Self {
            options,
            state: State::CLOSED,
        }
    }

    /// Decides about a request that is about to start. After [`Verdict::Probe`] one of [`Breaker::succeed`],
    /// [`Breaker::fail`] and [`Breaker::give_back`] must follow.
    pub(super) fn admit(&mut self, now: Instant) -> Verdict {
        match self.state {
            State::Closed { .. } => Verdict::Go,
            State::Open { until, .. } if now < until => Verdict::Fail(until),
            State::Open { rest, .. } => {
                self.state = State::Probing { rest };
                Verdict::Probe
            }
            State::Probing { .. } => Verdict::Wait,
        }
    }

    /// Returns until when nothing is sent, if that is so.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } if now < until => Some(until),
            State::Open { .. } | State::Closed { .. } | State::Probing { .. } => None,
        }
    }

    pub(super) fn phase(&self) -> BreakerPhase {
        match self.state {
            State::Closed { .. } => BreakerPhase::Closed,
            State::Open { until, .. } => BreakerPhase::Open(until),
            State::Probing { .. } => BreakerPhase::Probing,
        }
    }

    /// Notes that the server has answered. Returns whether that changes what others may do.
    pub(super) fn succeed(&mut self) -> bool {
        let was_closed = matches!(self.state, State::Closed { .. });
        self.state = State::CLOSED;
        !was_closed
    }

    /// Notes that an operation found no server. Returns whether that changes what others may do.
    pub(super) fn fail(&mut self, operation: u64, is_probe: bool, now: Instant) -> bool {
        match &mut self.state {
            State::Closed { failed, since } => {
                let since = *since.get_or_insert(now);
                if failed.len() < self.options.operations_min {
                    failed.insert(operation);
                }
                let is_gone = failed.len() >= self.options.operations_min
                    && now.duration_since(since) >= self.options.silence_min;
                if is_gone {
                    self.open(self.options.rest_first, now);
                }
                is_gone
            }
            State::Probing { rest } if is_probe => {
                let rest = rest.saturating_mul(2).min(self.options.rest_max);
                self.open(rest, now);
                true
            }
            // What was under way when it opened says nothing new.
            State::Open { .. } | State::Probing { .. } => false,
        }
    }

    /// Notes that the probe has ended without saying anything.
    pub(super) fn give_back(&mut self, now: Instant) {
        if let State::Probing { rest } = self.state {
            self.state = State::Open { until: now, rest };
        }
    }

    fn open(&mut self, rest: Duration, now: Instant) {
        let until = now + rest;
        self.state = State::Open { until, rest };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPTIONS: BreakerOptions = BreakerOptions {
        operations_min: 3,
        silence_min: Duration::from_secs(10),
        rest_first: Duration::from_secs(15),
        rest_max: Duration::from_secs(40),
    };
    const SECOND: Duration = Duration::from_secs(1);

    /// Returns a breaker that has just opened, and when.
    fn opened() -> (Breaker, Instant) {
        let start = Instant::now();
        let mut breaker = Breaker::new(OPTIONS);
        for operation in 0..3 {
            assert!(!breaker.fail(operation, false, start));
        }
        let now = start + OPTIONS.silence_min;
        assert!(breaker.fail(0, false, now));
        (breaker, now)
    }

    #[test]
    fn one_operation_never_opens_it() {
        let mut breaker = Breaker::new(OPTIONS);
        let mut now = Instant::now();
        for _ in 0..1000 {
            now += SECOND;
            assert!(!breaker.fail(7, false, now));
            assert_eq!(breaker.admit(now), Verdict::Go);
        }
    }

    #[test]
    fn a_server_that_answers_in_between_is_there() {
        let mut breaker = Breaker::new(OPTIONS);
        let mut now = Instant::now();
        for operation in 0..1000 {
            now += OPTIONS.silence_min;
            assert!(!breaker.fail(operation, false, now));
            assert!(!breaker.fail(operation + 1, false, now));
            breaker.succeed();
        }
    }

    #[test]
    fn a_server_that_is_away_for_a_moment_is_not_left_alone() {
        let mut breaker = Breaker::new(OPTIONS);
        let start = Instant::now();
        for operation in 0..1000 {
            assert!(!breaker.fail(operation, false, start + SECOND * 9));
        }
        assert_eq!(breaker.admit(start + SECOND * 9), Verdict::Go);
    }

    #[test]
    fn a_server_that_is_gone_is_left_alone_and_one_request_finds_it_again() {
        let (mut breaker, now) = opened();
        let until = now + OPTIONS.rest_first;
        assert_eq!(breaker.admit(now), Verdict::Fail(until));
        assert_eq!(breaker.admit(until), Verdict::Probe);
        assert_eq!(breaker.admit(until), Verdict::Wait);
        assert!(breaker.succeed());
        assert_eq!(breaker.admit(until), Verdict::Go);
        assert!(!breaker.fail(1, false, until), "the count starts again");
    }

    #[test]
    fn each_failed_probe_doubles_the_rest_up_to_a_limit() {
        let (mut breaker, _) = opened();
        for rest in [15, 30, 40, 40] {
            let Verdict::Fail(until) = breaker.admit(Instant::now()) else {
                panic!("expected a rest of {rest} s, found {breaker:?}");
            };
            assert_eq!(breaker.admit(until), Verdict::Probe, "after {rest} s");
            // What was sent before it opened decides nothing.
            assert!(!breaker.fail(8, false, until));
            assert!(breaker.fail(9, true, until));
            let expected = until + SECOND * if rest == 15 { 30 } else { 40 };
            assert_eq!(breaker.admit(until), Verdict::Fail(expected));
        }
    }

    #[test]
    fn a_probe_that_is_given_up_lets_the_next_one_go() {
        let (mut breaker, now) = opened();
        let until = now + OPTIONS.rest_first;
        assert_eq!(breaker.admit(until), Verdict::Probe);
        breaker.give_back(until);
        assert_eq!(breaker.admit(until), Verdict::Probe);
    }

    proptest! {
        /// At most one probe is under way, nothing is refused longer than the longest rest, and a success opens every way.
        #[test]
        fn it_never_shuts_for_good(steps in proptest::collection::vec((0..5_u8, any::<u8>()), 0..300)) {
            let mut breaker = Breaker::new(OPTIONS);
            let mut now = Instant::now();
            let mut is_probing = false;
            for (what, number) in steps {
                now += Duration::from_secs(u64::from(number) / 8);
                match what {
                    0 | 1 => match breaker.admit(now) {
                        Verdict::Probe => {
                            prop_assert!(!is_probing);
                            is_probing = true;
                        }
                        Verdict::Wait => prop_assert!(is_probing),
                        Verdict::Fail(until) => prop_assert!(until <= now + OPTIONS.rest_max),
                        Verdict::Go => prop_assert!(!is_probing),
                    },
                    2 => { breaker.fail(u64::from(number), false, now); }
                    3 if is_probing => { breaker.fail(1, true, now); is_probing = false; }
                    4 if is_probing => { breaker.give_back(now); is_probing = false; }
                    4 => { breaker.succeed(); }
                    _ => {}
                }
            }
            breaker.succeed();
            prop_assert_eq!(breaker.admit(now), Verdict::Go);
        }
    }
}
