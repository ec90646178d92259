//! The example configuration against the modules whose defaults it shows.

use std::path::Path;

use violetd::config::Config;
use violetd::package::Limits;

const EXAMPLE: &str = include_str!("../../config.example.toml");

#[test]
fn limits_of_the_example_are_those_of_the_package_reader() {
    let text: String = EXAMPLE
        .lines()
        .scan("", |section, line| {
            if line.starts_with('[') {
                *section = line;
            }
            let is_shown = *section == "[limits]" && line.contains(" = ");
            let key = line.strip_prefix('#').filter(|_| is_shown);
            Some(format!("{}\n", key.unwrap_or(line)))
        })
        .collect();
    let shown = Config::parse(Path::new("config.example.toml"), &text, std::iter::empty())
        .unwrap()
        .limits;
    let limits = Limits::default();
    let bytes = |count: Option<violetd::base::ByteCount>| count.map(|count| count.0);
    assert_eq!(shown.entries_max, Some(limits.entries_max));
    assert_eq!(
        bytes(shown.unpacked_bytes_max),
        Some(limits.unpacked_bytes_max)
    );
    assert_eq!(
        bytes(shown.metadata_bytes_max),
        Some(limits.metadata_bytes_max)
    );
    assert_eq!(
        bytes(shown.metadata_total_bytes_max),
        Some(limits.metadata_total_bytes_max)
    );
    assert_eq!(
        bytes(shown.manifest_bytes_max),
        Some(limits.manifest_bytes_max)
    );
    assert_eq!(bytes(shown.path_bytes_max), Some(limits.path_bytes_max));
    assert_eq!(shown.nesting_max, Some(limits.nesting_max));
    assert_eq!(shown.expansion_ratio_max, Some(limits.expansion_ratio_max));
    assert_eq!(
        bytes(shown.expansion_checked_from_bytes),
        Some(limits.expansion_checked_from_bytes)
    );
    assert_eq!(
        bytes(shown.extension_bytes_max),
        Some(limits.extension_bytes_max)
    );
    assert_eq!(shown.extensions_max, Some(limits.extensions_max));
    assert_eq!(shown.images_max, Some(limits.images_max));
    assert_eq!(shown.resources_max, Some(limits.resources_max));
    assert_eq!(shown.archives_nested_max, Some(limits.archives_nested_max));
    assert_eq!(bytes(shown.chart_bytes_max), Some(limits.chart_bytes_max));
    assert_eq!(
        bytes(shown.zstd_window_bytes_max),
        Some(limits.zstd_window_bytes_max)
    );
    assert_eq!(bytes(shown.bundle_bytes_max), Some(limits.bundle_bytes_max));
    assert_eq!(
        bytes(shown.bundle_unpacked_bytes_max),
        Some(limits.bundle_unpacked_bytes_max)
    );
    assert_eq!(shown.bundle_entries_max, Some(limits.bundle_entries_max));
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
