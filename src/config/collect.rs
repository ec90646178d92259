//! `[collect]`: how blobs go that no package keeps.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use super::error::Flaw;
use super::sections::out_of_range;

/// The shortest grace period that makes sense: leases protect what is in flight.
const GRACE_MIN: Duration = Duration::from_secs(1);

/// `[collect]`, as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CollectSettings {
    schedule: String,
    time_zone: String,
    #[serde(with = "duration")]
    grace: Duration,
}

/// How blobs go that no package keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collect {
    /// When blobs are looked at, as a cron expression; none if only on request.
    pub schedule: Option<String>,
    /// The time zone of the schedule.
    pub time_zone: String,
    /// How long no package must have kept a blob before it goes. At least a second.
    pub grace: Duration,
}

impl Default for CollectSettings {
    fn default() -> Self {
        Self {
            // After the default schedule of targets, at two.
            schedule: "0 4 * * *".to_owned(),
            time_zone: "UTC".to_owned(),
            grace: Duration::from_hours(24),
        }
    }
}

impl Collect {
    pub(super) fn read(settings: CollectSettings) -> Result<Self, Flaw> {
        if settings.grace < GRACE_MIN {
            let found = humantime::format_duration(settings.grace).to_string();
            return Err(out_of_range("collect.grace", "at least 1s", found));
        }
        Ok(Self {
            schedule: Some(settings.schedule).filter(|schedule| !schedule.is_empty()),
            time_zone: settings.time_zone,
            grace: settings.grace,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;
    use crate::base::Chain;

    fn parse(text: &str) -> Result<Collect, String> {
        let text = format!(
            "[collect]\n{text}\n[[drop]]\npath = \"/drop\"\n[[target]]\nname = \"a\"\nrole = \"primary\"\n\
             registry.address = \"registry-a.example\"\n"
        );
        let config = Config::parse(Path::new("/v.toml"), &text, std::iter::empty());
        config
            .map(|config| config.collect)
            .map_err(|error| Chain(&error).to_string())
    }

    #[test]
    fn daily_after_a_day_unless_said_otherwise() {
        let collect = parse("").unwrap();
        assert_eq!(collect.schedule.as_deref(), Some("0 4 * * *"));
        assert_eq!(collect.grace, Duration::from_hours(24));
        let collect = parse("schedule = ''\ngrace = '1s'").unwrap();
        assert_eq!((collect.schedule, collect.grace), (None, GRACE_MIN));
    }

    #[test]
    fn a_grace_period_has_at_least_a_second() {
        insta::assert_snapshot!(parse("grace = '999ms'").unwrap_err(), @"/v.toml:2: `collect.grace`: expected at least 1s, found 999ms");
    }
}
