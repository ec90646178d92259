//! When something is due: cron expressions in a time zone. Pure; whoever asks says what time it is.
//!
//! Start from [`Schedule::parse`]; a driver then asks [`Schedule::due`] with the moment it last served.
//!
//! # Format
//!
//! Five fields as in crontab(5), six with seconds in front, seven with a year behind, or one of `@hourly`, `@daily`,
//! `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually`. Days of the week are numbered as in crontab(5): 0 and 7
//! are Sunday. Where both the day of the month and the day of the week are restricted, either one suffices, as there.
//!
//! # Daylight saving
//!
//! As in cron(8). A schedule of certain hours never loses and never doubles a run: a time that the clock skips is due
//! at the end of the gap, and of a time that comes twice only the first one is due. A schedule of every hour follows
//! the clock instead: nothing is due in the hour that is skipped, and the hour that comes twice has its runs twice.

mod expression;
mod zone;

use std::fmt;
use std::time::Duration;

use chrono::{Datelike as _, Timelike as _};
use chrono_tz::Tz;
use thiserror::Error;

use self::expression::Times;
use self::zone::Fold;
use crate::base::{Class, Classified, Timestamp};

/// Moments that repeat.
#[derive(Clone, Debug)]
pub struct Schedule {
    times: Times,
    zone: Tz,
    expression: String,
}

/// Why a schedule cannot be understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// Too few or too many fields, or an unknown `@` word.
    #[error(
        "expected a cron expression of 5, 6 or 7 fields or one of {}, found `{expression}`",
        expression::SHORTHANDS.map(|(name, _)| name).join(" ")
    )]
    Fields {
        /// The whole expression.
        expression: String,
    },
    /// One field does not follow the grammar or leaves its range.
    #[error("expected {expected} as {field} of `{expression}`, found `{found}`")]
    Field {
        /// The whole expression.
        expression: String,
        /// What the field is called.
        field: &'static str,
        /// What may stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// No date ever fits: 30 February.
    #[error("expected a cron expression that some date fits, found `{expression}`")]
    NeverDue {
        /// The whole expression.
        expression: String,
    },
    /// Not in the time zone database.
    #[error("expected a time zone such as `UTC` or `Europe/Berlin`, found `{found}`")]
    TimeZone {
        /// What stands there.
        found: String,
        /// The name that differs least.
        nearest: String,
    },
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Fields { .. }
            | Self::Field { .. }
            | Self::NeverDue { .. }
            | Self::TimeZone { .. } => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Fields { .. } => Some(
                "write `minute hour day-of-month month day-of-week`, for example `0 2 * * *` for every night at two"
                    .to_owned(),
            ),
            Self::TimeZone { nearest, .. } => Some(format!("did you mean `{nearest}`?")),
            Self::Field { .. } | Self::NeverDue { .. } => None,
        }
    }
}

/// What a driver is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Run at once. However many moments were missed, one run serves them all.
    Now {
        /// The first moment since the last run at which it was due.
        missed_since: Timestamp,
    },
    /// Run at this moment, which is in the future.
    At(Timestamp),
    /// Nothing is due any more: the expression names years, and they are over.
    Never,
}

impl Schedule {
    /// Parses a cron expression whose times are those of `time_zone`, a name of the IANA time zone database.
    pub fn parse(expression: &str, time_zone: &str) -> Result<Self, Error> {
        let zone = time_zone.parse().map_err(|_| Error::TimeZone {
            found: time_zone.to_owned(),
            nearest: zone::nearest_name(time_zone),
        })?;
        Ok(Self {
            times: Times::parse(expression)?,
            zone,
            expression: expression.trim().to_owned(),
        })
    }

    /// Returns the first moment after `after`, or nothing if there is none before the end of the year 2100.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        if !expression::YEARS.contains(&after.year()) {
            return None;
        }
        // Moments are whole seconds, so the fraction is beside the point.
        let after = after.with_nanosecond(0)?;
        let (local, fold) = zone::local(self.zone, after);
        let first_here = |from, map: &dyn Fn(_) -> Option<Timestamp>| {
            self.times
                .after(from)
                .find_map(|time| map(time).filter(|moment| *moment > after))
        };
        if !self.times.is_every_hour() {
            return first_here(local, &|time| Some(zone::first_or_gap_end(self.zone, time)));
        }
        let following = first_here(local, &|time| {
            zone::moments(self.zone, time).find(|moment| *moment > after)
        });
        // While a doubled hour passes for the first time, its earlier minutes are still to come again.
        let again = match fold {
            Some(Fold::First { start, end }) => self
                .times
                .from(start)
                .next()
                .filter(|time| *time < end)
                .and_then(|time| zone::moments(self.zone, time).last()),
            Some(Fold::Second { .. }) | None => None,
        };
        following.into_iter().chain(again).min()
    }

    /// Returns the last moment before `before`, or nothing if there is none since the beginning of 1970.
    pub fn latest_before(&self, before: Timestamp) -> Option<Timestamp> {
        if !expression::YEARS.contains(&before.year()) {
            return None;
        }
        let whole = before.with_nanosecond(0)?;
        let before = if whole < before {
            whole + chrono::TimeDelta::seconds(1)
        } else {
            whole
        };
        let (local, fold) = zone::local(self.zone, before);
        let last_here = |until, map: &dyn Fn(_) -> Option<Timestamp>| {
            self.times
                .before(until)
                .find_map(|time| map(time).filter(|moment| *moment < before))
        };
        if !self.times.is_every_hour() {
            let until = match fold {
                Some(Fold::Second { end }) => end,
                Some(Fold::First { .. }) | None => local,
            };
            return last_here(until, &|time| Some(zone::first_or_gap_end(self.zone, time)));
        }
        let preceding = last_here(local, &|time| {
            zone::moments(self.zone, time)
                .filter(|moment| *moment < before)
                .last()
        });
        // While a doubled hour passes for the second time, its later minutes have already been once.
        let once = match fold {
            Some(Fold::Second { end }) => self
                .times
                .before(end)
                .next()
                .filter(|time| *time >= local)
                .and_then(|time| zone::moments(self.zone, time).next())
                .filter(|moment| *moment < before),
            Some(Fold::First { .. }) | None => None,
        };
        preceding.into_iter().chain(once).max()
    }

    /// Returns what is due at `now` when everything up to `last_due` has been served.
    ///
    /// Without `last_due` nothing was missed. One in the future, left by a clock that was wrong, counts as `now`, so
    /// that it cannot hold up the schedule.
    pub fn due(&self, last_due: Option<Timestamp>, now: Timestamp) -> Due {
        let served = last_due.map_or(now, |last_due| last_due.min(now));
        match self.next_after(served) {
            Some(moment) if moment <= now => Due::Now {
                missed_since: moment,
            },
            Some(moment) => Due::At(moment),
            None => Due::Never,
        }
    }

    /// Returns the name of the time zone.
    pub fn time_zone(&self) -> &'static str {
        self.zone.name()
    }
}

impl fmt::Display for Schedule {
    /// Prints the expression and the zone: `0 2 * * * (Europe/Berlin)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.expression, self.zone.name())
    }
}

/// Returns a delay from zero up to, but not including, `max`, proportional to `random`.
///
/// Spreads runs that are due at the same moment, so that several daemons do not start on one server together.
pub fn jitter(max: Duration, random: u32) -> Duration {
    // 2^32 times the longest Duration fits into 128 bits.
    let nanos = (max.as_nanos() * u128::from(random)) >> u32::BITS;
    let seconds = u64::try_from(nanos / 1_000_000_000).expect("no more seconds than in max");
    let rest = u32::try_from(nanos % 1_000_000_000).expect("a remainder is less than its divisor");
    Duration::new(seconds, rest)
}

#[cfg(test)]
mod tests;
