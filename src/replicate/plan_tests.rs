//! Tests of the planner: golden text, and invariants over random inputs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::wanted::Reference;
use super::*;
use crate::base::Blob;

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn descriptor(name: &str, size_bytes: u64) -> Descriptor {
    Descriptor {
        media_type: "x".to_owned(),
        digest: digest(name),
        size_bytes,
    }
}

/// An image `root` with one manifest below its index and the layers named.
fn tree(root: &str, layers: &[&str]) -> Tree {
    let child = format!("{root}/child");
    Tree {
        blobs: layers
            .iter()
            .map(|layer| Blob {
                descriptor: descriptor(layer, 100),
                parent: digest(&child),
            })
            .collect(),
        manifests: vec![descriptor(&child, 10), descriptor(root, 20)],
    }
}

fn wanted(repository: &str, tag: &str, root: &str) -> WantedImage {
    WantedImage {
        place: Place {
            repository: repository.parse().unwrap(),
            reference: Reference::Tag(tag.parse().unwrap()),
        },
        root: descriptor(root, 20),
        ours: BTreeSet::from([digest(root)]),
    }
}

fn state<'a>(wanted: &'a WantedImage, tree: &'a Tree, found: Option<&str>) -> ImageState<'a> {
    ImageState {
        wanted,
        tree,
        found: found.map(digest),
        placed: None,
    }
}

#[test]
fn shared_blob_is_sent_once_and_mounted_from_there() {
    let (one, two) = (wanted("a/one", "v1", "one"), wanted("b/two", "v1", "two"));
    let (tree_one, tree_two) = (
        tree("one", &["base", "own1"]),
        tree("two", &["base", "own2"]),
    );
    let plan = Plan::new(&[state(&one, &tree_one, None), state(&two, &tree_two, None)]);
    insta::assert_snapshot!(plan, @r"
    send   cae662172fd4 to a/one, 100 bytes
    send   4dad097bed42 to b/two, 100 bytes
    send   4dfed5abfe76 to a/one, 100 bytes
    mount  cae662172fd4 to b/two from a/one
    put    a/one:v1 as 7692c3ad3540
    put    b/two:v1 as 3fc4ccfe7458
    ");
    assert_eq!(plan.bytes_to_send(), 300);
}

#[test]
fn blobs_of_images_in_sync_are_mounted_or_known() {
    let (old, new, other) = (
        wanted("a/one", "v1", "one"),
        wanted("a/one", "v2", "two"),
        wanted("b/three", "v1", "three"),
    );
    let (tree_old, tree_new, tree_other) = (
        tree("one", &["base", "own1"]),
        tree("two", &["base", "own2"]),
        tree("three", &["base"]),
    );
    let plan = Plan::new(&[
        state(&old, &tree_old, Some("one")),
        state(&new, &tree_new, None),
        state(&other, &tree_other, None),
    ]);
    insta::assert_snapshot!(plan, @r"
    send   4dad097bed42 to a/one, 100 bytes
    mount  cae662172fd4 to b/three from a/one
    put    a/one:v2 as 3fc4ccfe7458
    put    b/three:v1 as 8b5b9db0c13d
    ");
}

#[test]
fn foreign_content_is_left_alone_and_our_own_is_replaced() {
    let image = wanted("a/one", "v1", "one");
    let tree_one = tree("one", &["base"]);
    let plan = Plan::new(&[state(&image, &tree_one, Some("foreign"))]);
    insta::assert_snapshot!(plan, @"leave  a/one:v1 with 656771905e1e, which we did not put there; wanted 7692c3ad3540");
    assert!(!plan.is_empty());

    let mut placed = state(&image, &tree_one, Some("foreign"));
    placed.placed = Some(digest("foreign"));
    assert!(Plan::new(&[placed]).conflicts.is_empty());

    let mut image = image;
    image.ours.insert(digest("foreign"));
    let plan = Plan::new(&[state(&image, &tree_one, Some("foreign"))]);
    insta::assert_snapshot!(plan, @r"
    send   cae662172fd4 to a/one, 100 bytes
    put    a/one:v1 as 7692c3ad3540, replaces 656771905e1e
    ");
}

#[test]
fn in_sync_means_that_the_plan_is_empty() {
    let image = wanted("a/one", "v1", "one");
    let tree_one = tree("one", &["base"]);
    let plan = Plan::new(&[state(&image, &tree_one, Some("one"))]);
    assert!(plan.is_empty());
    assert_eq!(plan, Plan::default());
}

/// Images in a few repositories with layers from a small pool, some of them in sync already.
fn images() -> impl Strategy<Value = Vec<(usize, BTreeSet<usize>, bool)>> {
    proptest::collection::vec(
        (
            0..4_usize,
            proptest::collection::btree_set(0..8_usize, 1..5),
            any::<bool>(),
        ),
        1..12,
    )
}

proptest! {
    /// A registry that does exactly what the plan says ends with every image complete, every blob sent at most once,
    /// and nothing mounted from where it is not.
    #[test]
    fn following_the_plan_completes_every_image(images in images()) {
        let images: Vec<(WantedImage, Tree, bool)> = images
            .into_iter()
            .enumerate()
            .map(|(number, (repository, layers, is_there))| {
                let root = format!("root{number}");
                let layers: Vec<String> = layers.iter().map(|layer| format!("layer{layer}")).collect();
                let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
                let wanted = wanted(&format!("repo{repository}"), &format!("v{number}"), &root);
                (wanted, tree(&root, &layers), is_there)
            })
            .collect();
        let states: Vec<ImageState<'_>> = images
            .iter()
            .map(|(wanted, tree, is_there)| ImageState {
                wanted,
                tree,
                found: is_there.then_some(wanted.root.digest),
                placed: None,
            })
            .collect();
        let plan = Plan::new(&states);

        let mut registry: BTreeMap<Repository, BTreeSet<Digest>> = BTreeMap::new();
        for state in states.iter().filter(|state| state.found.is_some()) {
            let held = registry.entry(state.wanted.place.repository.clone()).or_default();
            held.extend(state.tree.blobs.iter().map(|blob| blob.descriptor.digest));
            held.extend(state.tree.manifests.iter().map(|manifest| manifest.digest));
        }
        let mut sent = BTreeSet::new();
        for step in &plan.blobs {
            let digest = step.blob.digest;
            match &step.how {
                How::Send => {
                    let is_anywhere = registry.values().any(|held| held.contains(&digest));
                    prop_assert!(!is_anywhere && sent.insert(digest), "sent twice: {digest}");
                }
                How::Mount { from, .. } => prop_assert!(registry[from].contains(&digest)),
            }
            registry.entry(step.repository.clone()).or_default().insert(digest);
        }
        for step in &plan.images {
            let held = registry.entry(step.place.repository.clone()).or_default();
            for blob in &states[step.index].tree.blobs {
                prop_assert!(held.contains(&blob.descriptor.digest), "{} is incomplete", step.place);
            }
            for manifest in &step.manifests {
                held.insert(manifest.digest);
            }
            for manifest in &states[step.index].tree.manifests {
                prop_assert!(held.contains(&manifest.digest), "{} lacks a manifest", step.place);
            }
            prop_assert_eq!(step.manifests.last().unwrap().digest, states[step.index].wanted.root.digest);
        }
        let behind = states.iter().filter(|state| state.found.is_none()).count();
        prop_assert_eq!(plan.images.len(), behind);
        prop_assert_eq!(plan.is_empty(), behind == 0);
    }
}
