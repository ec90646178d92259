//! `[retain]`: which packages go.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use super::error::{Flaw, Problem};
use super::sections::out_of_range;
use crate::base::{NamePattern, PackageKind};

/// `[retain]`, as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RetainSettings {
    schedule: String,
    time_zone: String,
    rule: Option<Vec<RuleSettings>>,
}

/// `[[retain.rule]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleSettings {
    names: Vec<NamePattern>,
    kinds: Option<Vec<PackageKind>>,
    keep_last: Option<u32>,
    #[serde(with = "duration")]
    keep_younger: Duration,
    keep_published: bool,
}

/// Which packages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retain {
    /// When packages are removed without anybody asking, as a cron expression; none if only on request.
    pub schedule: Option<String>,
    /// The time zone of the schedule.
    pub time_zone: String,
    /// The rules, of which the first that fits decides.
    pub rules: Vec<RetainRule>,
}

/// What is kept of some packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainRule {
    /// Names of the packages. At least one pattern.
    pub names: Vec<NamePattern>,
    /// Their types; all if empty.
    pub kinds: Vec<PackageKind>,
    /// How many versions of each name and type are kept. At least 1.
    pub keep_last: u32,
    /// What is younger is kept.
    pub keep_younger: Duration,
    /// Whether what is still published on a target is kept.
    pub keep_published: bool,
}

impl Default for RetainSettings {
    fn default() -> Self {
        Self {
            schedule: String::new(),
            time_zone: "UTC".to_owned(),
            rule: None,
        }
    }
}

impl Default for RuleSettings {
    fn default() -> Self {
        Self {
            names: vec!["*".parse().expect("a star is a pattern")],
            kinds: None,
            keep_last: None,
            keep_younger: Duration::ZERO,
            keep_published: true,
        }
    }
}

impl RetainSettings {
    /// Returns settings in which every key has a value. The values mean nothing.
    pub(super) fn sample() -> Self {
        Self {
            rule: Some(vec![RuleSettings {
                kinds: Some(vec![PackageKind::Operator]),
                keep_last: Some(1),
                ..RuleSettings::default()
            }]),
            ..Self::default()
        }
    }
}

impl Retain {
    pub(super) fn read(settings: RetainSettings) -> Result<Self, Flaw> {
        let rules = settings.rule.unwrap_or_default().into_iter().enumerate();
        Ok(Self {
            schedule: Some(settings.schedule).filter(|schedule| !schedule.is_empty()),
            time_zone: settings.time_zone,
            rules: rules
                .map(|(index, rule)| RetainRule::read(index, rule))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl RetainRule {
    fn read(index: usize, settings: RuleSettings) -> Result<Self, Flaw> {
        let key = |name: &str| format!("retain.rule[{index}].{name}");
        if settings.names.is_empty() {
            return Err(out_of_range(key("names"), "at least one pattern", "none"));
        }
        let keep_last = settings
            .keep_last
            .ok_or_else(|| Flaw::new(key("keep_last"), Problem::Missing))?;
        if keep_last == 0 {
            return Err(out_of_range(key("keep_last"), "at least 1", "0"));
        }
        Ok(Self {
            names: settings.names,
            kinds: settings.kinds.unwrap_or_default(),
            keep_last,
            keep_younger: settings.keep_younger,
            keep_published: settings.keep_published,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;
    use crate::base::Chain;

    const MINIMAL: &str = "[[drop]]\npath = \"/drop\"\n[[target]]\nname = \"a\"\nrole = \"primary\"\n\
         registry.address = \"registry-a.example\"\n";

    fn parse(text: &str) -> Result<Retain, String> {
        let text = format!("{text}\n{MINIMAL}");
        let config = Config::parse(Path::new("/v.toml"), &text, std::iter::empty());
        config
            .map(|config| config.retain)
            .map_err(|error| Chain(&error).to_string())
    }

    #[test]
    fn without_rules_nothing_goes_and_without_a_schedule_only_on_request() {
        let retain = parse("").unwrap();
        assert_eq!((retain.schedule, retain.rules), (None, Vec::new()));
    }

    #[test]
    fn rules_have_their_defaults_and_keep_their_order() {
        let retain = parse(
            "[retain]\nschedule = '@weekly'\n[[retain.rule]]\nnames = ['redis-*']\nkinds = ['operator']\n\
             keep_last = 2\nkeep_younger = '30d'\nkeep_published = false\n[[retain.rule]]\nkeep_last = 5",
        );
        let retain = retain.unwrap();
        assert_eq!(retain.schedule.as_deref(), Some("@weekly"));
        let rule = &retain.rules[0];
        assert_eq!(rule.kinds, [PackageKind::Operator]);
        assert_eq!(rule.keep_younger, Duration::from_hours(30 * 24));
        assert!(!rule.keep_published);
        let rule = &retain.rules[1];
        assert_eq!((rule.names[0].as_str(), rule.keep_last), ("*", 5));
        assert!(rule.kinds.is_empty() && rule.keep_younger.is_zero() && rule.keep_published);
    }

    #[test]
    fn rules_that_keep_nothing_or_fit_nothing_are_refused() {
        let shown = |rule: &str| parse(&format!("[[retain.rule]]\n{rule}")).unwrap_err();
        insta::assert_snapshot!(shown("keep_last = 0"), @"/v.toml:2: `retain.rule[0].keep_last`: expected at least 1, found 0");
        insta::assert_snapshot!(shown("names = ['*']"), @"/v.toml:1: `retain.rule[0].keep_last`: expected a value, found none");
        insta::assert_snapshot!(shown("keep_last = 1\nnames = []"), @"/v.toml:3: `retain.rule[0].names`: expected at least one pattern, found none");
    }
}
