//! Local times and the moments they name, where clocks are put forward and back.

use chrono::{NaiveDateTime, Offset as _, TimeDelta, TimeZone as _};
use chrono_tz::Tz;

use crate::base::Timestamp;

/// Farther than any local time is from UTC, and than any two offsets are from each other.
const OFFSETS_APART_MAX: TimeDelta = TimeDelta::hours(26);

/// Where a local time that comes twice stands: which time it is, and from when to when clocks repeat themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    /// The first time.
    First {
        /// The first local time that comes twice.
        start: NaiveDateTime,
        /// The first local time after it that comes once.
        end: NaiveDateTime,
    },
    /// The second time.
    Second {
        /// The first local time that comes once again.
        end: NaiveDateTime,
    },
}

/// Returns what clocks in `zone` show at `moment`, and, if they show that twice, which time it is.
pub(super) fn local(zone: Tz, moment: Timestamp) -> (NaiveDateTime, Option<Fold>) {
    let local = naive(zone, moment);
    let mut moments = moments(zone, local);
    let (Some(first), Some(second)) = (moments.next(), moments.next()) else {
        return (local, None);
    };
    let offset = |moment: Timestamp| naive(zone, moment) - moment.naive_utc();
    let before = offset(first);
    let change = first_moment(first, second, |moment| offset(moment) != before);
    let end = change.naive_utc() + before;
    let fold = if moment == first {
        Fold::First {
            start: naive(zone, change),
            end,
        }
    } else {
        Fold::Second { end }
    };
    (local, Some(fold))
}

/// Returns the moments at which clocks in `zone` show `time`: none, one or two, in order.
pub(super) fn moments(zone: Tz, time: NaiveDateTime) -> impl Iterator<Item = Timestamp> {
    let result = zone.offset_from_local_datetime(&time);
    let moment = move |offset: <Tz as chrono::TimeZone>::Offset| (time - offset.fix()).and_utc();
    let (first, second) = (result.earliest(), result.latest());
    let is_doubled = matches!(result, chrono::MappedLocalTime::Ambiguous(..));
    first
        .into_iter()
        .chain(second.filter(|_| is_doubled))
        .map(moment)
}

/// Returns the first moment at which clocks in `zone` show `time`, or, if they skip it, the one at which they do.
pub(super) fn first_or_gap_end(zone: Tz, time: NaiveDateTime) -> Timestamp {
    moments(zone, time).next().unwrap_or_else(|| {
        let around = time.and_utc();
        first_moment(
            around - OFFSETS_APART_MAX,
            around + OFFSETS_APART_MAX,
            |moment| naive(zone, moment) > time,
        )
    })
}

/// Returns the name of the zone that differs least from `name`.
pub(super) fn nearest_name(name: &str) -> String {
    let name = name.to_lowercase();
    chrono_tz::TZ_VARIANTS
        .iter()
        .map(|zone| zone.name())
        .min_by_key(|zone| strsim::damerau_levenshtein(&zone.to_lowercase(), &name))
        .unwrap_or("UTC")
        .to_owned()
}

fn naive(zone: Tz, moment: Timestamp) -> NaiveDateTime {
    zone.from_utc_datetime(&moment.naive_utc()).naive_local()
}

/// Returns the first moment, in whole seconds after `low`, at which `is_past` holds. It does at `high`, and once it
/// does it stays so.
fn first_moment(low: Timestamp, high: Timestamp, is_past: impl Fn(Timestamp) -> bool) -> Timestamp {
    let (mut low, mut high) = (low, high);
    while high - low > TimeDelta::seconds(1) {
        let middle = low + TimeDelta::seconds((high - low).num_seconds() / 2);
        if is_past(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}
