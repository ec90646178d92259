//! Is it time for a run, and why. Pure.

use std::time::Duration;

use crate::base::Timestamp;

/// Why a run started. The names are persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody asked for it.
    Request,
    /// The schedule says so, perhaps because a run was missed while the daemon was down.
    Schedule,
    /// A package is ready and was not brought here yet.
    Package,
    /// The last run left something undone.
    Retry,
}

impl Reason {
    /// Returns the stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Schedule => "schedule",
            Self::Package => "package",
            Self::Retry => "retry",
        }
    }
}

/// What the decision depends on.
#[derive(Clone, Debug)]
pub(super) struct Situation {
    /// The present moment.
    pub(super) now: Timestamp,
    /// Whether somebody asked for a run.
    pub(super) is_requested: bool,
    /// The last due moment of the schedule.
    pub(super) latest_due: Option<Timestamp>,
    /// The due moment that was last followed, or the first start of the daemon.
    pub(super) followed: Option<Timestamp>,
    /// Whether a package is ready that no run since the start of the daemon has seen, and may start one.
    pub(super) has_new_package: bool,
    /// When the last run is to be repeated, if it left something undone.
    pub(super) retry_at: Option<Timestamp>,
}

impl Situation {
    /// Returns why a run should start now, if one should.
    pub(super) fn decide(&self) -> Option<Reason> {
        if self.is_requested {
            return Some(Reason::Request);
        }
        if self.latest_due > self.followed {
            return Some(Reason::Schedule);
        }
        if self.has_new_package {
            return Some(Reason::Package);
        }
        let is_retry_due = self.retry_at.is_some_and(|retry_at| retry_at <= self.now);
        is_retry_due.then_some(Reason::Retry)
    }
}

/// Returns how long it is from `now` to the first of some moments, at most `max`.
pub(super) fn until_first(
    now: Timestamp,
    moments: [Option<Timestamp>; 2],
    max: Duration,
) -> Duration {
    let first = moments.into_iter().flatten().min();
    let wait = first.map(|at| (at - now).to_std().unwrap_or(Duration::ZERO));
    wait.map_or(max, |wait| wait.min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn quiet() -> Situation {
        Situation {
            now: at(100),
            is_requested: false,
            latest_due: Some(at(50)),
            followed: Some(at(50)),
            has_new_package: false,
            retry_at: None,
        }
    }

    #[test]
    fn reasons_in_their_order() {
        assert_eq!(quiet().decide(), None);
        let retry = Situation {
            retry_at: Some(at(100)),
            ..quiet()
        };
        assert_eq!(retry.decide(), Some(Reason::Retry));
        let early = Situation {
            retry_at: Some(at(101)),
            ..quiet()
        };
        assert_eq!(early.decide(), None);
        let package = Situation {
            has_new_package: true,
            ..retry
        };
        assert_eq!(package.decide(), Some(Reason::Package));
        let missed = Situation {
            latest_due: Some(at(60)),
            ..package
        };
        assert_eq!(missed.decide(), Some(Reason::Schedule));
        let asked = Situation {
            is_requested: true,
            ..missed
        };
        assert_eq!(asked.decide(), Some(Reason::Request));
    }

    #[test]
    fn waits_for_whatever_comes_first() {
        let hour = Duration::from_hours(1);
        let until = |due, retry| until_first(at(100), [due, retry], hour);
        assert_eq!(until(None, None), hour);
        assert_eq!(until(Some(at(130)), None), Duration::from_secs(30));
        assert_eq!(until(Some(at(130)), Some(at(110))), Duration::from_secs(10));
        assert_eq!(until(Some(at(90)), None), Duration::ZERO);
    }
}
