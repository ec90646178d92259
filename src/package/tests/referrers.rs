//! Signatures and attestations: as tags, as untagged manifests with a subject, as children of an index.

use proptest::prelude::*;
use serde_json::json;

use super::builder::{Builder, MEDIA_TYPE_LAYER, Raw, code_of, code_with, file, read, tgz_of};
use crate::base::Digest;
use crate::base::oci::{Descriptor, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};
use crate::package::{Contents, Limits};

const MEDIA_TYPE_EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Adds an artifact that is about `subject`.
fn about(builder: &mut Builder, subject: &Descriptor, content: &str) -> Descriptor {
    let config = builder.blob(MEDIA_TYPE_EMPTY, "{}");
    let layer = builder.blob(MEDIA_TYPE_LAYER, content);
    let manifest = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "artifactType": "text/spdx",
                          "config": config, "layers": [layer], "subject": subject});
    builder.json(MEDIA_TYPE_MANIFEST, &manifest)
}

/// Returns the file of a registry tree that knows a manifest without a tag.
fn revision(repository: &str, digest: Digest) -> Raw {
    let hex = digest.hex();
    let path = format!(
        "docker/registry/v2/repositories/{repository}/_manifests/revisions/sha256/{hex}/link"
    );
    file(&path, digest.to_string())
}

fn names(contents: &Contents) -> Vec<String> {
    let images = contents.images.iter();
    images.map(|image| image.reference.to_string()).collect()
}

fn pinned(repository: &str, descriptor: &Descriptor) -> String {
    format!("{repository}@{}", descriptor.digest)
}

#[test]
fn an_untagged_manifest_about_an_image_becomes_one_in_each_repository_of_that_image() {
    let mut builder = Builder::default();
    let image = builder.multi("x");
    let child = builder.image("x", "arm64");
    let on_index = about(&mut builder, &image, "bill of materials");
    let on_child = about(&mut builder, &child, "signature");
    let on_signature = about(&mut builder, &on_child, "countersignature");
    let other = builder.image("other", "amd64");
    let roots = [
        // A chain is found whichever end comes first.
        (None, &on_signature),
        (None, &on_child),
        (None, &on_index),
        (None, &on_index),
        (Some("registry.example/a/one:1"), &image),
        (Some("registry.example/a/one:latest"), &image),
        (Some("mirror.example/a/two:1"), &image),
        (Some("mirror.example/b/other:1"), &other),
    ];
    let contents = read(&tgz_of(&builder.layout("", &roots))).unwrap();
    let mut expected = vec![
        "registry.example/a/one:1".to_owned(),
        "registry.example/a/one:latest".to_owned(),
        "mirror.example/a/two:1".to_owned(),
        "mirror.example/b/other:1".to_owned(),
    ];
    for repository in ["registry.example/a/one", "mirror.example/a/two"] {
        for referrer in [&on_index, &on_child, &on_signature] {
            expected.push(pinned(repository, referrer));
        }
    }
    let mut found = names(&contents);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(contents.blobs.len(), builder.blobs.len());
}

#[test]
fn what_is_about_nothing_in_the_package_stays_without_a_name() {
    let mut builder = Builder::default();
    let image = builder.image("x", "amd64");
    let elsewhere = Builder::default().image("elsewhere", "amd64");
    let stray = about(&mut builder, &elsewhere, "signature");
    let layout = |nameless: &Descriptor| {
        let roots = [(Some("a/b:1"), &image), (None, nameless)];
        code_of(&tgz_of(&builder.layout("", &roots)))
    };
    assert_eq!(layout(&stray), "unnamed-image");
    let absent = Descriptor {
        digest: Digest::of(b"absent"),
        ..stray.clone()
    };
    assert_eq!(layout(&absent), "unnamed-image");
    // Two that are only about one another's like are about nothing in the package.
    let chained = about(&mut builder, &stray, "countersignature");
    let roots = [(Some("a/b:1"), &image), (None, &stray), (None, &chained)];
    assert_eq!(
        code_of(&tgz_of(&builder.layout("", &roots))),
        "unnamed-image"
    );
    // A subject that an index left out is not in the package either.
    let manifest = format!(
        "kind: PackageManifest\nspec: {{omitted: ['{}']}}",
        elsewhere.digest
    );
    let index = builder.index(&[(image.clone(), "amd64"), (elsewhere, "arm64")]);
    let mut files = builder.layout("", &[(Some("a/b:1"), &index), (None, &stray)]);
    files.push(file("manifest.yaml", manifest));
    assert_eq!(code_of(&tgz_of(&files)), "unnamed-image");
}

#[test]
fn a_referrer_must_be_whole_like_any_image() {
    let mut builder = Builder::default();
    let image = builder.image("x", "amd64");
    let referrer = about(&mut builder, &image, "signature");
    let layer = Digest::of(b"signature");
    builder.blobs.remove(&layer);
    let files = builder.layout("", &[(Some("a/b:1"), &image), (None, &referrer)]);
    assert_eq!(code_of(&tgz_of(&files)), "missing-blob");
    let mut files = builder.tree("", &[("a/b", "1", &image)]);
    files.push(revision("a/b", referrer.digest));
    assert_eq!(code_of(&tgz_of(&files)), "missing-blob");
}

#[test]
fn of_the_untagged_revisions_of_a_registry_tree_only_referrers_count() {
    let mut builder = Builder::default();
    let image = builder.multi("x");
    let old = builder.image("old", "amd64");
    let signature = about(&mut builder, &image, "signature");
    let of_old = about(&mut builder, &old, "signature of what is gone");
    let broken = builder.blob(MEDIA_TYPE_MANIFEST, "{\"no\": \"manifest\"}");
    let mut files = builder.tree("", &[("a/b", "1", &image)]);
    let children = [
        image.digest,
        signature.digest,
        old.digest,
        of_old.digest,
        broken.digest,
    ];
    files.extend(children.map(|digest| revision("a/b", digest)));
    // Swept from the disk: the link stays behind.
    files.push(revision("a/b", Digest::of(b"swept")));
    files.dedup_by(|one, other| one.name == other.name);
    let mut seen = std::collections::BTreeSet::new();
    files.retain(|file| seen.insert(file.name.clone()));
    let contents = read(&tgz_of(&files)).unwrap();
    assert_eq!(
        names(&contents),
        [pinned("a/b", &signature), "a/b:1".to_owned()]
    );
    for absent in [&old, &of_old, &broken] {
        assert!(!contents.blobs.contains_key(&absent.digest));
    }
    // Revisions alone are no images.
    let mut files = builder.tree("", &[]);
    files.push(revision("a/b", old.digest));
    assert_eq!(code_of(&tgz_of(&files)), "unindexed-blobs");
    let mut wrong = revision("a/b", image.digest);
    wrong.content = old.digest.to_string().into_bytes();
    assert_eq!(code_of(&tgz_of(&[wrong])), "revision-link");
}

#[test]
fn what_comes_with_an_image_of_its_name_needs_no_other_one() {
    let mut builder = Builder::default();
    let image = builder.image("x", "amd64");
    let (one, two) = (
        about(&mut builder, &image, "signature"),
        about(&mut builder, &image, "attestation"),
    );
    let fallback =
        json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": [one, two]});
    let fallback = builder.json(MEDIA_TYPE_INDEX, &fallback);
    let tag = format!("sha256-{}", image.digest.hex());
    let cosign = builder.image("cosign", "amd64");
    let names_of = [
        "a/b:1".to_owned(),
        format!("a/b:{tag}"),
        format!("a/b:{tag}.sig"),
    ];
    let roots = [
        (Some(names_of[0].as_str()), &image),
        (Some(names_of[1].as_str()), &fallback),
        (Some(names_of[2].as_str()), &cosign),
        (None, &one),
    ];
    let contents = read(&tgz_of(&builder.layout("", &roots))).unwrap();
    let found = names(&contents);
    assert_eq!(found.len(), 3, "{found:?}");
    for name in &names_of {
        assert!(found.iter().any(|found| found.ends_with(name)), "{name}");
    }
    assert!(
        contents.blobs.contains_key(&two.digest),
        "through the index of the tag"
    );
}

#[test]
fn one_referrer_in_very_many_repositories_is_bounded() {
    let mut builder = Builder::default();
    let image = builder.image("x", "amd64");
    let names: Vec<String> = (0..300).map(|number| format!("a/b{number}:1")).collect();
    let mut roots: Vec<_> = names
        .iter()
        .map(|name| (Some(name.as_str()), &image))
        .collect();
    let signatures: Vec<Descriptor> = (0..100)
        .map(|number| about(&mut builder, &image, &format!("signature {number}")))
        .collect();
    roots.extend(signatures.iter().map(|signature| (None, signature)));
    let bytes = tgz_of(&builder.layout("", &roots));
    let contents = read(&bytes).unwrap();
    assert_eq!(contents.images.len(), 300 + 300 * 100);
    let limits = Limits {
        metadata_total_bytes_max: 2 << 20,
        ..Limits::default()
    };
    assert_eq!(code_with(&bytes, &limits), "metadata-total-too-large");
}

proptest! {
    /// Whatever is about what: an untagged manifest is an image exactly where a chain of subjects leads to one with a
    /// name, and the order in which a layout lists them plays no part.
    #[test]
    fn chains_lead_to_names_in_any_order(
        subjects in proptest::collection::vec(proptest::option::of(0..8_usize), 1..8),
        order in any::<[u8; 9]>(),
    ) {
        let mut builder = Builder::default();
        let image = builder.image("x", "amd64");
        let elsewhere = Builder::default().image("elsewhere", "amd64");
        let mut nodes: Vec<(Descriptor, bool)> = vec![(image.clone(), true)];
        for (number, subject) in subjects.iter().enumerate() {
            // Only what is there already can be a subject; `None` is elsewhere.
            let subject = subject.filter(|subject| *subject < nodes.len());
            let (target, is_named) = subject.map_or((&elsewhere, false), |subject| {
                let (node, is_named) = &nodes[subject];
                (node, *is_named)
            });
            let target = target.clone();
            let node = about(&mut builder, &target, &format!("about {number}"));
            nodes.push((node, is_named));
        }
        let mut roots: Vec<_> = nodes.iter().enumerate().map(|(number, (node, _))| {
            ((number == 0).then_some("registry.example/a/b:1"), node)
        }).collect();
        roots.sort_by_key(|(_, node)| order[nodes.iter().position(|(it, _)| it == *node).unwrap()]);
        let outcome = read(&tgz_of(&builder.layout("", &roots)));
        if nodes.iter().all(|(_, is_named)| *is_named) {
            prop_assert_eq!(outcome.unwrap().images.len(), nodes.len());
        } else {
            prop_assert_eq!(code_of(&tgz_of(&builder.layout("", &roots))), "unnamed-image");
        }
    }
}
