//! Cron expressions as sequences of local times, without a time zone.
//!
//! The `cron` crate reads the fields and finds the dates. Three things are done before it sees an expression, because
//! it differs there from crontab(5): days of the week are numbered from 0, five fields mean that seconds are zero, and
//! of a restricted day of the month and a restricted day of the week either one suffices. It is given local times
//! labelled as UTC, because its own treatment of daylight saving skips and reorders runs.

use std::ops::RangeInclusive;
use std::str::FromStr as _;

use chrono::{NaiveDateTime, TimeDelta};
use cron::TimeUnitSpec as _;

use super::Error;

/// The years that the `cron` crate knows.
pub(super) const YEARS: RangeInclusive<i32> = 1970..=2100;

/// Words for whole expressions: crontab(5), and `@midnight` and `@annually` as in cronie.
pub(super) const SHORTHANDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Position, name and allowed values of each of the seven fields.
const FIELDS: [(&str, &str); 7] = [
    ("second", "0-59"),
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of month", "1-31"),
    ("month", "1-12 or JAN-DEC"),
    ("day of week", DAY_OF_WEEK_EXPECTED),
    ("year", "1970-2100"),
];
const DAY_OF_MONTH: usize = 3;
const DAY_OF_WEEK: usize = 5;
const DAY_OF_WEEK_EXPECTED: &str = "0-7 or SUN-SAT";

/// Names of the days of the week, in the order of their numbers.
const DAYS: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];

/// Local times that repeat: the union of one or two expressions of the `cron` crate.
#[derive(Clone, Debug)]
pub(super) struct Times {
    parts: Vec<cron::Schedule>,
}

impl Times {
    /// Parses a crontab expression.
    pub(super) fn parse(expression: &str) -> Result<Self, Error> {
        let expression = expression.trim();
        let fields = seven_fields(expression)?;
        for (index, field) in fields.iter().enumerate() {
            check_field(expression, index, field)?;
        }
        let mut parts = vec![fields.clone()];
        if is_restricted(&fields[DAY_OF_MONTH]) && is_restricted(&fields[DAY_OF_WEEK]) {
            parts = [DAY_OF_MONTH, DAY_OF_WEEK]
                .map(|other| {
                    let mut fields = fields.clone();
                    "*".clone_into(&mut fields[other]);
                    fields
                })
                .to_vec();
        }
        let parts = parts
            .into_iter()
            .map(|mut fields| {
                let day_of_week = day_of_week(&fields[DAY_OF_WEEK])?;
                fields[DAY_OF_WEEK] = day_of_week;
                cron::Schedule::from_str(&fields.join(" ")).ok()
            })
            .collect::<Option<Vec<_>>>()
            .expect("every field was parsed before");
        let times = Self { parts };
        if times
            .from(chrono::DateTime::UNIX_EPOCH.naive_utc())
            .next()
            .is_none()
        {
            return Err(Error::NeverDue {
                expression: expression.to_owned(),
            });
        }
        Ok(times)
    }

    /// Returns whether no hour of the day is left out.
    pub(super) fn is_every_hour(&self) -> bool {
        self.parts.iter().all(|part| part.hours().is_all())
    }

    /// Returns the times after `time`, in order. Whole seconds only.
    pub(super) fn after(&self, time: NaiveDateTime) -> impl Iterator<Item = NaiveDateTime> {
        let mut time = Some(time);
        std::iter::from_fn(move || {
            let start = time?.and_utc();
            time = self
                .parts
                .iter()
                .filter_map(|part| part.after(&start).next())
                .min()
                .map(|time| time.naive_utc());
            time
        })
    }

    /// Returns the times from `time` on, itself included, in order. Whole seconds only.
    pub(super) fn from(&self, time: NaiveDateTime) -> impl Iterator<Item = NaiveDateTime> {
        self.after(time - TimeDelta::seconds(1))
    }

    /// Returns the times before `time`, latest first. Whole seconds only.
    pub(super) fn before(&self, time: NaiveDateTime) -> impl Iterator<Item = NaiveDateTime> {
        let mut time = Some(time);
        std::iter::from_fn(move || {
            let end = time?.and_utc();
            time = self
                .parts
                .iter()
                .filter_map(|part| part.after(&end).next_back())
                .max()
                .map(|time| time.naive_utc());
            time
        })
    }
}

/// Brings an expression to the seven fields of the `cron` crate. The fields themselves stay as they are.
fn seven_fields(expression: &str) -> Result<Vec<String>, Error> {
    let spelled_out = SHORTHANDS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(expression))
        .map_or(expression, |(_, meaning)| meaning);
    let mut fields: Vec<String> = spelled_out.split_whitespace().map(str::to_owned).collect();
    if fields.len() == 5 {
        fields.insert(0, "0".to_owned());
    }
    if fields.len() == 6 {
        fields.push("*".to_owned());
    }
    if fields.len() == FIELDS.len() {
        Ok(fields)
    } else {
        Err(Error::Fields {
            expression: expression.to_owned(),
        })
    }
}

/// Parses one field alone, so that the error can name it.
fn check_field(expression: &str, index: usize, field: &str) -> Result<(), Error> {
    let mut alone = ["*"; FIELDS.len()].map(str::to_owned);
    let translated = if index == DAY_OF_WEEK {
        day_of_week(field)
    } else {
        Some(field.to_owned())
    };
    let is_good = translated.is_some_and(|field| {
        alone[index] = field;
        cron::Schedule::from_str(&alone.join(" ")).is_ok()
    });
    let (name, expected) = FIELDS[index];
    is_good.then_some(()).ok_or_else(|| Error::Field {
        expression: expression.to_owned(),
        field: name,
        expected,
        found: field.to_owned(),
    })
}

/// A field that begins with a star counts as not restricting (crontab(5), "Note").
fn is_restricted(field: &str) -> bool {
    !field.starts_with(['*', '?'])
}

/// Translates a day-of-week field from crontab's numbers to those of the `cron` crate, which counts Sunday as 1.
fn day_of_week(field: &str) -> Option<String> {
    let mut is_wanted = [false; 7];
    for item in field.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<usize>().ok()?)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None if matches!(range, "*" | "?") => (0, 6),
            // A start with a step reaches to the end of the week, as in the other fields.
            None => (day(range)?, if step.is_some() { 6 } else { day(range)? }),
        };
        if step == Some(0) || first > last {
            return None;
        }
        for day in (first..=last).step_by(step.unwrap_or(1)) {
            is_wanted[day % 7] = true;
        }
    }
    let numbers: Vec<String> = (0..7)
        .filter(|day| is_wanted[*day])
        .map(|day| (day + 1).to_string())
        .collect();
    Some(numbers.join(","))
}

/// Parses a day of the week: a number from 0 to 7, or a name of which at least three letters are given.
fn day(text: &str) -> Option<usize> {
    let name = text.to_ascii_lowercase();
    let by_name = DAYS
        .iter()
        .position(|day| name.len() >= 3 && day.starts_with(&name));
    by_name.or_else(|| text.parse().ok().filter(|day| *day <= 7))
}
