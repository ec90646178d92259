//! Leaves platforms out of an image index.
//!
//! In one of two forms: *rewritten*, a new document without their entries and so with a new digest; or *sparse*, the same
//! document, whose entries then point to manifests that are not there. What names the image by its digest, and what signs
//! it, holds only for the second; many registries, docker-registry 2.8 among them, take only the first, because they want
//! every child of an index to be there. So *rewritten* is what is done unless somebody asks for the other.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::{Digest, Platform};

/// Annotation by which an entry says to which other entry it belongs: attestations of Docker's builder.
const REFERENCE_ANNOTATION: &str = "vnd.docker.reference.digest";

/// What becomes of an index of which platforms are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexForm {
    /// A new document with a new digest, which every registry takes.
    #[default]
    Rewritten,
    /// The same document with the same digest, some of whose children are not there.
    Sparse,
}

/// What is left of an index.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// All of it, to the byte.
    Whole,
    /// Some of its entries.
    Part {
        /// They alone, in a new document.
        rewritten: Vec<u8>,
        /// The manifests of all others.
        omitted: BTreeSet<Digest>,
    },
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
    let (left, others): (Vec<Value>, Vec<Value>) = entries
        .iter()
        .cloned()
        .partition(|entry| is_wanted(entry) || belongs(entry));
    if others.is_empty() {
        return Ok(Choice::Whole);
    }
    let digests = |entries: &[Value]| -> BTreeSet<Digest> {
        let digests = entries.iter().filter_map(|entry| entry["digest"].as_str());
        digests.filter_map(|digest| digest.parse().ok()).collect()
    };
    // One manifest may stand for two platforms.
    let omitted = &digests(&others) - &digests(&left);
    document["manifests"] = Value::Array(left);
    Ok(Choice::Part {
        rewritten: serde_json::to_vec(&document)?,
        omitted,
    })
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

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn chosen(wanted: &[&str]) -> Choice {
        let [a, b, c] = ["a", "b", "c"].map(digest);
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[
            {{"digest":"{a}","platform":{{"os":"linux","architecture":"amd64"}}}},
            {{"digest":"{b}","platform":{{"os":"linux","architecture":"arm64","variant":"v8"}}}},
            {{"digest":"{c}","platform":{{"os":"unknown","architecture":"unknown"}},
              "annotations":{{"vnd.docker.reference.digest":"{b}"}}}}]}}"#
        );
        let wanted: Vec<Platform> = wanted.iter().map(|text| text.parse().unwrap()).collect();
        choose(index.as_bytes(), &wanted).unwrap()
    }

    /// Returns the entries that are kept, and the manifests that are not.
    fn part(wanted: &[&str]) -> (Vec<Value>, BTreeSet<Digest>) {
        let Choice::Part { rewritten, omitted } = chosen(wanted) else {
            panic!("expected a part of the index");
        };
        let document: Value = serde_json::from_slice(&rewritten).unwrap();
        (document["manifests"].as_array().unwrap().clone(), omitted)
    }

    #[test]
    fn all_of_an_index_stays_as_it_is() {
        assert_eq!(chosen(&[]), Choice::Whole);
        assert_eq!(chosen(&["linux/amd64", "linux/arm64"]), Choice::Whole);
    }

    #[test]
    fn left_out_platforms_take_their_attestations_along() {
        let (kept, omitted) = part(&["linux/amd64"]);
        assert_eq!(kept.len(), 1);
        assert_eq!(omitted, BTreeSet::from([digest("b"), digest("c")]));
        let (kept, omitted) = part(&["linux/arm64"]);
        assert_eq!(kept[1]["digest"], digest("c").to_string());
        assert_eq!(omitted, BTreeSet::from([digest("a")]));
    }

    #[test]
    fn nothing_left_says_what_there_was() {
        let Choice::Nothing(found) = chosen(&["linux/s390x"]) else {
            panic!("expected nothing");
        };
        assert_eq!(found, ["linux/amd64", "linux/arm64/v8", "unknown/unknown"]);
    }
}
