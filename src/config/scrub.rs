//! `[scrub]`: how stored blobs are checked and repaired.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::Flaw;
use super::sections::{absolute, out_of_range};
use crate::base::ByteCount;

/// `[scrub]`, as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ScrubSettings {
    pub(super) schedule: String,
    pub(super) time_zone: String,
    pub(super) bytes_per_second: ByteCount,
    pub(super) repair: bool,
    pub(super) package_dirs: Vec<PathBuf>,
}

/// How stored blobs are checked and repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// When a pass begins, as a cron expression; none if only on request.
    pub schedule: Option<String>,
    /// The time zone of the schedule.
    pub time_zone: String,
    /// Bytes read per second, on the average. At least 1.
    pub bytes_per_second: ByteCount,
    /// Whether what is damaged is brought back.
    pub repair: bool,
    /// Folders with package files, besides those that the daemon uses anyway.
    pub package_dirs: Vec<PathBuf>,
}

impl Default for ScrubSettings {
    fn default() -> Self {
        Self {
            schedule: "@weekly".to_owned(),
            time_zone: "UTC".to_owned(),
            // A third of what one hard disk reads in sequence; 1 TB in under six hours. Chosen, not measured.
            bytes_per_second: ByteCount(50_000_000),
            repair: true,
            package_dirs: Vec::new(),
        }
    }
}

impl Scrub {
    pub(super) fn read(settings: ScrubSettings) -> Result<Self, Flaw> {
        if settings.bytes_per_second.0 == 0 {
            return Err(out_of_range("scrub.bytes_per_second", "at least 1", "0"));
        }
        let dirs = settings.package_dirs.into_iter().enumerate();
        Ok(Self {
            schedule: Some(settings.schedule).filter(|schedule| !schedule.is_empty()),
            time_zone: settings.time_zone,
            bytes_per_second: settings.bytes_per_second,
            repair: settings.repair,
            package_dirs: dirs
                .map(|(index, dir)| absolute(format!("scrub.package_dirs[{index}]"), dir))
                .collect::<Result<_, _>>()?,
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

    fn parse(text: &str) -> Result<Scrub, String> {
        let text = format!("[scrub]\n{text}\n{MINIMAL}");
        let config = Config::parse(Path::new("/v.toml"), &text, std::iter::empty());
        config
            .map(|config| config.scrub)
            .map_err(|error| Chain(&error).to_string())
    }

    #[test]
    fn everything_set_is_read() {
        let scrub = parse(
            "schedule = \"\"\nbytes_per_second = \"1MiB\"\nrepair = false\npackage_dirs = [\"/a/\"]",
        );
        let scrub = scrub.unwrap();
        assert_eq!((scrub.schedule, scrub.repair), (None, false));
        assert_eq!(scrub.bytes_per_second, ByteCount(1 << 20));
        assert_eq!(scrub.package_dirs, [Path::new("/a")]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_key() {
        insta::assert_snapshot!(parse("bytes_per_second = 0").unwrap_err(), @"/v.toml:2: `scrub.bytes_per_second`: expected at least 1, found 0");
        insta::assert_snapshot!(parse("package_dirs = [\"a\"]").unwrap_err(), @"/v.toml:2: `scrub.package_dirs[0]`: expected an absolute path without `..`, found `a`");
    }
}
