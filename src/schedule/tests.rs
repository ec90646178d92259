//! Tests of schedules, against a search that looks at every minute.

use chrono::{NaiveDateTime, TimeDelta, TimeZone as _};
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn berlin(expression: &str) -> Schedule {
    Schedule::parse(expression, "Europe/Berlin").unwrap()
}

/// The moments in `[from, until)`, found forwards.
fn between(schedule: &Schedule, from: &str, until: &str) -> Vec<String> {
    let until = at(until);
    let mut moments = Vec::new();
    let mut moment = at(from) - TimeDelta::seconds(1);
    while let Some(next) = schedule.next_after(moment).filter(|next| *next < until) {
        moments.push(next.format("%dT%H:%M").to_string());
        moment = next;
    }
    moments
}

#[test]
fn fields_mean_what_they_mean_in_a_crontab() {
    // 2026-11-20 is a Friday.
    for (expression, next) in [
        ("0 2 * * *", "2026-11-21T02:00:00Z"),
        ("*/20 * * * *", "2026-11-20T12:20:00Z"),
        ("30 1 1 * *", "2026-12-01T01:30:00Z"),
        ("0 0 * * 0", "2026-11-22T00:00:00Z"),
        ("0 0 * * 7", "2026-11-22T00:00:00Z"),
        ("0 0 * * sun", "2026-11-22T00:00:00Z"),
        ("0 0 * * 6", "2026-11-21T00:00:00Z"),
        ("0 0 * * 1-5", "2026-11-23T00:00:00Z"),
        ("0 0 * * MON-fri", "2026-11-23T00:00:00Z"),
        ("0 0 * * 5-7", "2026-11-21T00:00:00Z"),
        ("0 0 * * 2/2", "2026-11-21T00:00:00Z"),
        ("0 0 * * Tuesday,3", "2026-11-24T00:00:00Z"),
        ("0 0 ? * ?", "2026-11-21T00:00:00Z"),
        ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        // Either day suffices where both are restricted, and a star with a step does not restrict.
        ("0 0 1 * 3", "2026-11-25T00:00:00Z"),
        ("0 0 22 * 3", "2026-11-22T00:00:00Z"),
        ("0 0 */2 * 3", "2026-11-25T00:00:00Z"),
        ("15 0 2 * * *", "2026-11-21T02:00:15Z"),
        ("15 0 2 * * * 2027", "2027-01-01T02:00:15Z"),
        ("@hourly", "2026-11-20T13:00:00Z"),
        ("@DAILY", "2026-11-21T00:00:00Z"),
        ("@weekly", "2026-11-22T00:00:00Z"),
        ("@monthly", "2026-12-01T00:00:00Z"),
        ("@annually", "2027-01-01T00:00:00Z"),
    ] {
        let schedule = Schedule::parse(expression, "UTC").unwrap();
        let found = schedule.next_after(at("2026-11-20T12:00:00Z"));
        assert_eq!(found, Some(at(next)), "expression: {expression}");
    }
}

#[test]
fn errors_name_the_field() {
    for (expression, error) in [
        (
            "0 24 * * *",
            "expected 0-23 as hour of `0 24 * * *`, found `24`",
        ),
        (
            "61 * * * *",
            "expected 0-59 as minute of `61 * * * *`, found `61`",
        ),
        (
            "*/0 * * * *",
            "expected 0-59 as minute of `*/0 * * * *`, found `*/0`",
        ),
        (
            "0 0 * * 8",
            "expected 0-7 or SUN-SAT as day of week of `0 0 * * 8`, found `8`",
        ),
        (
            "0 0 * * 5-1",
            "expected 0-7 or SUN-SAT as day of week of `0 0 * * 5-1`, found `5-1`",
        ),
        (
            "0 0 31 2 *",
            "expected a cron expression that some date fits, found `0 0 31 2 *`",
        ),
        (
            "@never",
            "expected a cron expression of 5, 6 or 7 fields or one of @hourly @daily @midnight @weekly @monthly @yearly \
             @annually, found `@never`",
        ),
    ] {
        let found = Schedule::parse(expression, "UTC").unwrap_err();
        assert_eq!(found.to_string(), error, "expression: {expression}");
    }
    let error = Schedule::parse("@daily", "Europe/Belrin").unwrap_err();
    assert_eq!(error.hint().unwrap(), "did you mean `Europe/Berlin`?");
}

#[test]
fn display_says_which_zone() {
    assert_eq!(
        berlin(" 0 2 * * *").to_string(),
        "0 2 * * * (Europe/Berlin)"
    );
}

// In Berlin clocks go from 02:00 to 03:00 at 2026-03-29T01:00Z and from 03:00 to 02:00 at 2026-10-25T01:00Z.

#[test]
fn a_time_that_is_skipped_is_due_when_the_gap_ends() {
    let march = |expression| {
        between(
            &berlin(expression),
            "2026-03-27T23:00:00Z",
            "2026-03-30T22:00:00Z",
        )
    };
    assert_eq!(march("30 2 * * *"), ["28T01:30", "29T01:00", "30T00:30"]);
    assert_eq!(march("*/20 2 29 * *"), ["29T01:00"]);
    assert_eq!(march("0 3 * * *"), ["28T02:00", "29T01:00", "30T01:00"]);
}

#[test]
fn a_time_that_comes_twice_is_due_once() {
    let october = |expression| {
        between(
            &berlin(expression),
            "2026-10-23T22:00:00Z",
            "2026-10-26T23:00:00Z",
        )
    };
    assert_eq!(october("30 2 * * *"), ["24T00:30", "25T00:30", "26T01:30"]);
    assert_eq!(
        october("*/30 2,3 25 * *"),
        ["25T00:00", "25T00:30", "25T02:00", "25T02:30"]
    );
}

#[test]
fn every_hour_follows_the_clock() {
    let schedule = berlin("15,45 * * * *");
    assert_eq!(
        between(&schedule, "2026-03-29T00:30:00Z", "2026-03-29T02:00:00Z"),
        ["29T00:45", "29T01:15", "29T01:45"]
    );
    assert_eq!(
        between(&schedule, "2026-10-25T00:00:00Z", "2026-10-25T02:30:00Z"),
        ["25T00:15", "25T00:45", "25T01:15", "25T01:45", "25T02:15"]
    );
}

#[test]
fn several_missed_runs_count_as_one() {
    let schedule = Schedule::parse("0 2 * * *", "UTC").unwrap();
    let now = at("2026-11-20T12:00:00Z");
    let next = Due::At(at("2026-11-21T02:00:00Z"));
    assert_eq!(schedule.due(None, now), next, "first start");
    assert_eq!(
        schedule.due(Some(at("2026-11-17T02:00:00Z")), now),
        Due::Now {
            missed_since: at("2026-11-18T02:00:00Z")
        }
    );
    assert_eq!(schedule.due(Some(now), now), next, "just served");
    let exact = at("2026-11-21T02:00:00Z");
    assert_eq!(
        schedule.due(Some(now), exact),
        Due::Now {
            missed_since: exact
        }
    );
    let wrong = at("2077-01-01T00:00:00Z");
    assert_eq!(schedule.due(Some(wrong), now), next, "clock was wrong");
    let over = Schedule::parse("0 0 2 * * * 2020", "UTC").unwrap();
    assert_eq!(over.due(None, now), Due::Never);
}

#[test]
fn jitter_covers_its_range() {
    let max = Duration::from_secs(100);
    assert_eq!(jitter(max, 0), Duration::ZERO);
    assert_eq!(jitter(max, 1 << 31), Duration::from_secs(50));
    assert!(jitter(max, u32::MAX) < max);
    assert!(jitter(Duration::MAX, u32::MAX) < Duration::MAX);
    assert_eq!(jitter(Duration::ZERO, u32::MAX), Duration::ZERO);
}

/// Zones and days on which their clocks change: by an hour, by half an hour, by a whole day, at midnight, and not.
const CHANGES: [(&str, &str); 8] = [
    ("Europe/Berlin", "2026-03-29T00:00:00Z"),
    ("Europe/Berlin", "2026-10-25T00:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-05T00:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-04T00:00:00Z"),
    ("Pacific/Apia", "2011-12-30T00:00:00Z"),
    ("America/Havana", "2026-03-08T00:00:00Z"),
    ("America/Havana", "2026-11-01T00:00:00Z"),
    ("UTC", "2026-01-01T00:00:00Z"),
];

/// A zone and a moment within a day and a half of one of its changes.
fn moment_near_a_change() -> impl Strategy<Value = (&'static str, Timestamp)> {
    (
        prop::sample::select(&CHANGES[..]),
        -36 * 3600_i64..36 * 3600,
    )
        .prop_map(|((zone, day), seconds)| (zone, at(day) + TimeDelta::seconds(seconds)))
}

/// An expression that is due often enough for a search by the minute: minutes and hours, or every hour.
fn expression() -> impl Strategy<Value = (Vec<u32>, Vec<u32>)> {
    let minutes = prop::collection::btree_set(0..60_u32, 1..4);
    let hours = prop_oneof![
        Just((0..24).collect()),
        prop::collection::btree_set(0..24_u32, 1..24)
    ];
    (minutes, hours)
        .prop_map(|(minutes, hours)| (minutes.into_iter().collect(), hours.into_iter().collect()))
}

/// What is due in the week around `middle`, found by looking at every minute.
fn search(zone: &str, minutes: &[u32], hours: &[u32], middle: Timestamp) -> Vec<Timestamp> {
    let zone: Tz = zone.parse().unwrap();
    let fits =
        |time: NaiveDateTime| minutes.contains(&time.minute()) && hours.contains(&time.hour());
    let start = middle.with_second(0).unwrap() - TimeDelta::days(4);
    let week = (0..8 * 24 * 60).map(|minute| start + TimeDelta::minutes(minute));
    let shown = |moment: Timestamp| zone.from_utc_datetime(&moment.naive_utc()).naive_local();
    if hours.len() == 24 {
        return week.filter(|moment| fits(shown(*moment))).collect();
    }
    let mut due = Vec::new();
    // Local times count once the clock has reached or passed them, and none counts twice.
    let mut reached = shown(start);
    for moment in week.skip(1) {
        let mut is_due = false;
        while reached < shown(moment) {
            reached += TimeDelta::minutes(1);
            is_due |= fits(reached);
        }
        if is_due {
            due.push(moment);
        }
    }
    due
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn both_directions_agree_with_a_search_of_every_minute(
        (zone, moment) in moment_near_a_change(),
        (minutes, hours) in expression(),
    ) {
        let list = |numbers: &[u32]| {
            numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
        };
        let text = format!("{} {} * * *", list(&minutes), list(&hours));
        let schedule = Schedule::parse(&text, zone).unwrap();
        let due = search(zone, &minutes, &hours, moment);
        let next = due.iter().find(|due| **due > moment).copied();
        let latest = due.iter().rev().find(|due| **due < moment).copied();
        prop_assert_eq!(schedule.next_after(moment), next, "{} after {}", schedule, moment);
        prop_assert_eq!(schedule.latest_before(moment), latest, "{} before {}", schedule, moment);
    }

    #[test]
    fn next_and_latest_are_inverse(
        (zone, moment) in moment_near_a_change(),
        nanos in 0..1_000_000_000_i64,
        expression in prop::sample::select(vec![
            "* * * * * *", "*/7 1 2 * * *", "0 2 * * *", "30 * * * *", "0 0 1 * 1", "@monthly",
        ]),
    ) {
        let moment = moment + TimeDelta::nanoseconds(nanos);
        let schedule = Schedule::parse(expression, zone).unwrap();
        let next = schedule.next_after(moment).unwrap();
        prop_assert!(next > moment);
        let latest = schedule.latest_before(next);
        prop_assert!(latest.is_none_or(|latest| latest <= moment), "{:?}", latest);
        prop_assert_eq!(schedule.next_after(latest.unwrap()), Some(next));
    }

    #[test]
    fn parse_never_panics(text in "[0-9*/,?@A-Za-z -]{0,40}", zone in "[A-Za-z/_]{0,20}") {
        let _ = Schedule::parse(&text, &zone);
        let _ = Schedule::parse(&text, "UTC");
    }

    #[test]
    fn no_moment_panics(seconds in -8_000_000_000_000_i64..8_000_000_000_000) {
        let moment = chrono::Utc.timestamp_opt(seconds, 0).unwrap();
        let schedule = berlin("0 2 * * *");
        let _ = (schedule.next_after(moment), schedule.latest_before(moment));
    }
}
