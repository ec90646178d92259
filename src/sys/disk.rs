//! Space on the file system that holds a directory, and the alarm when it gets short.
//!
//! # States
//!
//! ```text
//!         below `low_bytes`          below `critical_bytes`
//!      ok ────────────────────► low ────────────────────► critical
//!       ▲                      │   ▲                      │
//!       └──────────────────────┘   └──────────────────────┘
//!         10 % above `low_bytes`     10 % above `critical_bytes`
//! ```
//!
//! A state is left a little above the mark at which it was entered, so that it does not change with every file that comes
//! and goes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::fs::{Context as _, Error};
use crate::base::ByteCount;

/// The part of a mark that must be free above it before a state is left: one tenth. Chosen, not measured.
const HYSTERESIS_PART: u64 = 10;

/// Space on one file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What a process without privileges may still write.
    pub available_bytes: u64,
    /// The size of the file system.
    pub total_bytes: u64,
}

/// How short space is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// There is enough.
    #[default]
    Ok,
    /// Nothing that needs much is begun.
    Low,
    /// What needs much stops.
    Critical,
}

impl State {
    /// Returns the stable name, as reports show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Low => "low",
            Self::Critical => "critical",
        }
    }
}

/// Where states begin, in bytes that are available. The alarm of a mark of 0 never comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Below this, space is low.
    pub low_bytes: u64,
    /// Below this, it is critical. At most `low_bytes`.
    pub critical_bytes: u64,
}

impl Marks {
    /// Returns the state after `state` where this much is available.
    pub const fn next(&self, state: State, available_bytes: u64) -> State {
        let critical_bytes = match state {
            State::Critical => above(self.critical_bytes),
            State::Ok | State::Low => self.critical_bytes,
        };
        let low_bytes = match state {
            State::Low | State::Critical => above(self.low_bytes),
            State::Ok => self.low_bytes,
        };
        if available_bytes < critical_bytes {
            State::Critical
        } else if available_bytes < low_bytes {
            State::Low
        } else {
            State::Ok
        }
    }

    /// Returns how much must be available for `state` to become ok, or to stay so.
    pub const fn enough_bytes(&self, state: State) -> u64 {
        match state {
            State::Ok => self.low_bytes,
            State::Low | State::Critical => above(self.low_bytes),
        }
    }
}

/// Returns a mark with what must be free above it.
const fn above(mark_bytes: u64) -> u64 {
    mark_bytes.saturating_add(mark_bytes / HYSTERESIS_PART)
}

/// What one look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The space there is.
    pub space: Space,
    /// How short it is.
    pub state: State,
}

/// Watches the space of one directory, and says in the log when its state changes: once for each change, whoever looks.
#[derive(Debug)]
pub struct Alarm {
    dir: PathBuf,
    marks: Marks,
    state: Mutex<State>,
}

impl Alarm {
    /// Returns an alarm for the file system that holds `dir`. Until the first look all is well.
    pub fn new(dir: &Path, marks: Marks) -> Self {
        Self {
            dir: dir.to_owned(),
            marks,
            state: Mutex::default(),
        }
    }

    /// Returns where states begin.
    pub const fn marks(&self) -> Marks {
        self.marks
    }

    /// Looks at the space: one system call.
    pub fn look(&self) -> Result<Reading, Error> {
        let space = space(&self.dir)?;
        // A state is a plain value: a panic elsewhere leaves none half written.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.marks.next(*state, space.available_bytes);
        if next != *state {
            *state = next;
            self.say(next, space);
        }
        Ok(Reading { space, state: next })
    }

    fn say(&self, state: State, space: Space) {
        let dir = self.dir.display();
        let available = ByteCount(space.available_bytes);
        let (low, critical) = (
            ByteCount(self.marks.low_bytes),
            ByteCount(self.marks.critical_bytes),
        );
        match state {
            State::Ok => {
                tracing::info!(%dir, %available, "disk space is sufficient again, ingest goes on");
            }
            State::Low => {
                tracing::warn!(%dir, %available, %low, "disk space is low, ingest begins no package");
            }
            State::Critical => {
                tracing::error!(%dir, %available, %critical, "disk space is critical, ingest stops");
            }
        }
    }
}

/// Returns the space on the file system that holds `dir`.
pub fn space(dir: &Path) -> Result<Space, Error> {
    let stat = rustix::fs::statvfs(dir)
        .map_err(io::Error::from)
        .context("read the free space of", dir)?;
    Ok(Space {
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARKS: Marks = Marks {
        low_bytes: 500,
        critical_bytes: 100,
    };

    #[test]
    fn available_is_at_most_total() {
        let space = space(Path::new("/")).unwrap();
        assert!(space.available_bytes <= space.total_bytes);
        assert!(space.total_bytes > 0);
    }

    #[test]
    fn a_state_is_entered_below_its_mark_and_left_a_tenth_above_it() {
        let mut state = State::Ok;
        let found = [
            501, 500, 499, 549, 550, 499, 100, 99, 109, 110, 549, 99, 600, 0,
        ]
        .map(|available| {
            state = MARKS.next(state, available);
            (available, state.name())
        });
        let expected = [
            (501, "ok"),
            (500, "ok"),
            (499, "low"),
            (549, "low"),
            (550, "ok"),
            (499, "low"),
            (100, "low"),
            (99, "critical"),
            (109, "critical"),
            (110, "low"),
            (549, "low"),
            (99, "critical"),
            (600, "ok"),
            (0, "critical"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn marks_of_zero_never_raise_an_alarm() {
        let marks = Marks {
            low_bytes: 0,
            critical_bytes: 0,
        };
        for state in [State::Ok, State::Low, State::Critical] {
            assert_eq!(marks.next(state, 0), State::Ok);
        }
    }

    #[test]
    fn an_alarm_looks_at_the_real_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks {
            low_bytes: u64::MAX,
            critical_bytes: 0,
        };
        let alarm = Alarm::new(dir.path(), marks);
        for _ in 0..2 {
            assert_eq!(alarm.look().unwrap().state, State::Low);
        }
        let error = Alarm::new(&dir.path().join("gone"), marks).look();
        assert!(error.is_err());
    }

    proptest! {
        /// Whatever comes before: with enough space it is ok, and small changes around a mark change the state once.
        #[test]
        fn no_state_flaps(low in 0_u64..1 << 50, part in 0_u64..=100, walk in prop::collection::vec(0_u64..1 << 51, 1..50)) {
            let marks = Marks { low_bytes: low, critical_bytes: low / 100 * part };
            let mut state = State::Ok;
            for available in walk {
                state = marks.next(state, available);
                prop_assert_eq!(marks.next(state, available), state, "a second look changes nothing");
                prop_assert!(available < marks.enough_bytes(state) || state == State::Ok);
                prop_assert!(available >= marks.critical_bytes || state == State::Critical);
                prop_assert_eq!(marks.next(state, above(low)), State::Ok);
            }
        }
    }
}
