//! The example configuration against the modules whose defaults it shows.

use std::path::Path;

use violetd::config::Config;
use violetd::package::Limits;

const EXAMPLE: &str = include_str!("../../config.example.toml");

#[test]
fn limits_of_the_example_are_those_of_the_package_reader() {
    let text: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.contains("_max = ") && !key.starts_with(' ') => format!("{key}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    let shown = Config::parse(Path::new("config.example.toml"), &text, std::iter::empty())
        .unwrap()
        .limits;
    let limits = Limits::default();
    assert_eq!(shown.entries_max, Some(limits.entries_max));
    assert_eq!(shown.expansion_ratio_max, Some(limits.expansion_ratio_max));
    let bytes = |count: Option<violetd::base::ByteCount>| count.map(|count| count.0);
    assert_eq!(
        bytes(shown.unpacked_bytes_max),
        Some(limits.unpacked_bytes_max)
    );
    assert_eq!(
        bytes(shown.metadata_bytes_max),
        Some(limits.metadata_bytes_max)
    );
}

#[test]
fn schedules_of_the_example_are_understood() {
    let config = Config::parse(
        Path::new("config.example.toml"),
        EXAMPLE,
        std::iter::empty(),
    )
    .unwrap();
    for target in &config.targets {
        violetd::schedule::Schedule::parse(&target.schedule, &target.time_zone).unwrap();
    }
}
