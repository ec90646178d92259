//! Documents from inside of images: YAML or JSON, bounded, and texts of them that people may see.

use serde::de::DeserializeOwned;

use super::error::Error;
use crate::base::shown::one_line;
use crate::package::header::show;
use crate::package::manifest;

/// The longest text that is taken over, in characters. A name for people has tens; chosen, not measured.
const TEXT_CHARACTERS_MAX: usize = 1000;

/// Reads a document whose writers have no use for YAML anchors, so that there are none.
pub(super) fn parse<T: DeserializeOwned>(path: &str, text: &[u8]) -> Result<T, Error> {
    if text.trim_ascii_start().starts_with(b"{") {
        return serde_json::from_slice(text).map_err(|error| invalid(path, &error.to_string()));
    }
    serde_saphyr::from_slice_with_options(text, manifest::options())
        .map_err(|error| invalid(path, &error.to_string()))
}

/// Reads a document that people write: anchors are fine, and a key that comes twice is what it is the last time, as
/// Helm takes it. What anchors unfold to is bounded.
pub(super) fn parse_values<T: DeserializeOwned>(path: &str, text: &[u8]) -> Result<T, Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: ALIASES_MAX,
            max_merge_keys: ALIASES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPLAYED_EVENTS_MAX,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
        with_snippet: false,
    };
    serde_saphyr::from_slice_with_options(text, options)
        .map_err(|error| invalid(path, &error.to_string()))
}

/// Aliases in the values of a chart: large public charts have tens. Chosen, not measured.
const ALIASES_MAX: usize = 1000;
/// What they may unfold to, in parser events: below what one file may have by itself. Chosen, not measured.
const REPLAYED_EVENTS_MAX: usize = 100_000;

/// Returns the error for a file with a reason that may quote it: on one line and bounded.
pub(super) fn invalid(path: &str, reason: &str) -> Error {
    Error::FileInvalid {
        path: show(path.as_bytes()),
        reason: show(reason.replace('\n', " ").as_bytes()),
    }
}

/// Returns a text that is there and not empty: on one line, bounded, without control characters.
pub(super) fn text(value: Option<String>) -> Option<String> {
    let value = value?;
    let line = one_line(value.trim(), TEXT_CHARACTERS_MAX);
    Some(line).filter(|line| !line.is_empty())
}
