//! A target's schedule, as the replication task asks for it.

use std::time::Duration;

use chrono::{TimeDelta, Timelike as _};

use crate::base::Timestamp;
use crate::schedule::{Schedule, jitter};
use crate::task::Timetable;

/// A cron schedule whose moments are all shifted by one random delay, drawn once.
#[derive(Debug)]
pub(super) struct CronTimetable {
    schedule: Schedule,
    delay: TimeDelta,
}

impl CronTimetable {
    /// Returns a timetable whose runs start up to `jitter_max` late; `random` is uniform.
    pub(super) fn new(schedule: Schedule, jitter_max: Duration, random: u32) -> Self {
        let delay = TimeDelta::from_std(jitter(jitter_max, random)).unwrap_or_default();
        Self { schedule, delay }
    }
}

impl Timetable for CronTimetable {
    fn latest_due(&self, now: Timestamp) -> Option<Timestamp> {
        // Moments are whole seconds: the last one up to now is the last one before the next whole second.
        let second = (now - self.delay).with_nanosecond(0)?;
        let due = self
            .schedule
            .latest_before(second + TimeDelta::seconds(1))?;
        Some(due + self.delay)
    }

    fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        Some(self.schedule.next_after(now - self.delay)? + self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn due_at_the_moment_itself() {
        let schedule = Schedule::parse("0 2 * * *", "UTC").unwrap();
        let timetable = CronTimetable::new(schedule, Duration::ZERO, 0);
        let two = at("2026-01-02T02:00:00Z");
        assert_eq!(timetable.latest_due(two), Some(two));
        assert_eq!(
            timetable.latest_due(at("2026-01-02T02:00:00.5Z")),
            Some(two)
        );
        assert_eq!(timetable.latest_due(at("2026-01-03T01:59:59Z")), Some(two));
        assert_eq!(
            timetable.latest_due(at("2026-01-03T01:59:59.5Z")),
            Some(two)
        );
        assert_eq!(timetable.next_due(at("2026-01-02T01:59:59Z")), Some(two));
        assert_eq!(timetable.next_due(two), Some(at("2026-01-03T02:00:00Z")));
    }

    #[test]
    fn jitter_delays_every_moment_alike() {
        let schedule = Schedule::parse("0 2 * * *", "UTC").unwrap();
        let timetable = CronTimetable::new(schedule, Duration::from_mins(10), 1 << 31);
        let due = at("2026-01-02T02:05:00Z");
        assert_eq!(timetable.latest_due(at("2026-01-03T02:04:59Z")), Some(due));
        assert_eq!(timetable.next_due(at("2026-01-02T02:00:00Z")), Some(due));
    }
}
