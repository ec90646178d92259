//! Indexes of which platforms are left out: as they were, or rewritten.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::json;
use violetd::base::Digest;

use super::{Origin, names_of};
use crate::support::{digest_of_manifest, run};

#[test]
fn a_sparse_index_keeps_its_digest_and_its_signatures() {
    let origin = Origin::signed().with_fallback_tags();
    origin.push();
    let source = digest_of_manifest(&format!("docker://{}", origin.image()));
    let (created, words) = origin.create(&["--platforms", "linux/amd64", "--index", "sparse"]);
    let arm64 = origin.app.manifests[1].digest;
    let said = &created["images"][0];
    assert_eq!(said["form"], "sparse", "{created:#}");
    assert_eq!(said["digest"], source.to_string());
    assert_eq!(said["omitted"], json!([arm64]));
    assert!(words.contains("is sparse"), "{words}");

    let (packed, view, words) = origin.package("one.tgz", &[]);
    assert_eq!(view["images"], created["images"]);
    assert!(words.contains("is sparse"), "{words}");
    assert_eq!(packed.images(), names_of(&origin), "all referrers hold");
    assert_eq!(packed.manifest().omitted, BTreeSet::from([arm64]));
    assert!(!packed.blobs().contains(&arm64));
    assert!(packed.blobs().contains(&origin.app.manifests[0].digest));

    let folder = origin.dir.path().join("unpacked");
    violetd::sys::fs::ensure_dir_all(&folder).unwrap();
    let mut tar = Command::new("tar");
    run(
        "tar",
        tar.arg("-xzf")
            .arg(origin.path("one.tgz"))
            .arg("-C")
            .arg(&folder),
    );
    let unpacked = digest_of_manifest(&format!("oci:{}:v1", folder.display()));
    assert_eq!(unpacked, source);
}

#[test]
fn a_rewritten_index_has_another_digest_and_its_signatures_stay_behind() {
    let origin = Origin::signed().with_fallback_tags();
    origin.push();
    let source = digest_of_manifest(&format!("docker://{}", origin.image()));
    let (created, words) = origin.create(&["--platforms", "linux/amd64"]);
    let said = &created["images"][0];
    assert_eq!(said["form"], "rewritten", "{created:#}");
    assert_eq!(said["source_digest"], source.to_string());
    let new: Digest = said["digest"].as_str().unwrap().parse().unwrap();
    assert_ne!(new, source);
    for text in [
        "is rewritten",
        &source.to_string(),
        &new.to_string(),
        "--index sparse",
    ] {
        assert!(words.contains(text), "expected {text} in: {words}");
    }

    let (packed, view, words) = origin.package("one.tgz", &[]);
    assert_eq!(view["images"], created["images"]);
    assert_eq!(view["referrers_left_out"], created["referrers_left_out"]);
    assert!(words.contains("is left out"), "{words}");
    let attestation = format!(":sha256-{}.att", origin.app.manifests[0].digest.hex());
    let expected = [
        (":v1", new),
        (&attestation, origin.tagged[&attestation[1..]].digest),
    ];
    let expected = expected.map(|(name, digest)| (name.to_owned(), digest));
    assert_eq!(packed.images(), BTreeMap::from(expected));
    assert!(packed.manifest().omitted.is_empty());
}
