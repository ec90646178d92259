//! Leaves platforms out of an image index.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::base::Platform;

/// Annotation by which an entry says to which other entry it belongs: attestations of Docker's builder.
const REFERENCE_ANNOTATION: &str = "vnd.docker.reference.digest";

/// What is left of an index.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// All of it, to the byte.
    Whole,
    /// Some of its entries, in a new document with a new digest.
    Rewritten(Vec<u8>),
    /// Nothing: none of its entries is for a platform that is wanted. What it has instead.
    Nothing(Vec<String>),
}

/// Keeps the entries of an index that run on one of `wanted`, and what belongs to them.
///
/// `index` is an index that was parsed already. No wanted platform means all.
pub(super) fn choose(index: &[u8], wanted: &[Platform]) -> Result<Choice, serde_json::Error> {
    let mut document: Value = serde_json::from_slice(index)?;
    let Some(entries) = document["manifests"].as_array() else {
        return Ok(Choice::Whole);
    };
    if wanted.is_empty() {
        return Ok(Choice::Whole);
    }
    let is_wanted =
        |entry: &Value| platform_of(entry).is_some_and(|platform| matches_any(&platform, wanted));
    let kept: BTreeSet<&str> = entries
        .iter()
        .filter(|entry| is_wanted(entry))
        .filter_map(|entry| entry["digest"].as_str())
        .collect();
    if kept.is_empty() {
        let found = entries.iter().filter_map(platform_of);
        return Ok(Choice::Nothing(
            found.map(|platform| platform.to_string()).collect(),
        ));
    }
    let belongs = |entry: &Value| {
        let owner = entry["annotations"][REFERENCE_ANNOTATION].as_str();
        owner.is_some_and(|owner| kept.contains(owner))
    };
    let left: Vec<Value> = entries
        .iter()
        .filter(|entry| is_wanted(entry) || belongs(entry))
        .cloned()
        .collect();
    if left.len() == entries.len() {
        return Ok(Choice::Whole);
    }
    document["manifests"] = Value::Array(left);
    Ok(Choice::Rewritten(serde_json::to_vec(&document)?))
}

fn platform_of(entry: &Value) -> Option<Platform> {
    let platform = &entry["platform"];
    let part = |name: &str| platform[name].as_str();
    Platform::from_parts(part("os")?, part("architecture")?, part("variant")).ok()
}

/// `linux/arm64` also means `linux/arm64/v8`, as it does for every other tool; `linux/arm` means all its variants.
fn matches_any(platform: &Platform, wanted: &[Platform]) -> bool {
    wanted.iter().any(|wanted| {
        platform == wanted
            || platform
                .as_str()
                .strip_prefix(wanted.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = r#"{"schemaVersion":2,"manifests":[
        {"digest":"a","platform":{"os":"linux","architecture":"amd64"}},
        {"digest":"b","platform":{"os":"linux","architecture":"arm64","variant":"v8"}},
        {"digest":"c","platform":{"os":"unknown","architecture":"unknown"},
         "annotations":{"vnd.docker.reference.digest":"b"}}]}"#;

    fn chosen(wanted: &[&str]) -> Choice {
        let wanted: Vec<Platform> = wanted.iter().map(|text| text.parse().unwrap()).collect();
        choose(INDEX.as_bytes(), &wanted).unwrap()
    }

    #[test]
    fn all_of_an_index_stays_as_it_is() {
        assert_eq!(chosen(&[]), Choice::Whole);
        assert_eq!(chosen(&["linux/amd64", "linux/arm64"]), Choice::Whole);
    }

    #[test]
    fn left_out_platforms_take_their_attestations_along() {
        let Choice::Rewritten(bytes) = chosen(&["linux/amd64"]) else {
            panic!("expected a rewritten index");
        };
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(document["manifests"].as_array().unwrap().len(), 1);
        let Choice::Rewritten(bytes) = chosen(&["linux/arm64"]) else {
            panic!("expected a rewritten index");
        };
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(document["manifests"][1]["digest"], "c");
    }

    #[test]
    fn nothing_left_says_what_there_was() {
        let Choice::Nothing(found) = chosen(&["linux/s390x"]) else {
            panic!("expected nothing");
        };
        assert_eq!(found, ["linux/amd64", "linux/arm64/v8", "unknown/unknown"]);
    }
}
