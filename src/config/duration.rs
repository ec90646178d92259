//! Durations in the configuration: `30s`, `10m`, `1h 30m`.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, Serializer};

/// Writes a duration as people do.
pub(super) fn serialize<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// Reads a duration with its unit.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        serde::de::Error::custom(format_args!(
            "expected a duration such as `30s` or `10m`, found `{text}`"
        ))
    })
}
