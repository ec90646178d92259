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
        omitted: BTreeSet::new(),
        subjects: BTreeSet::new(),
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
        omitted: BTreeSet::new(),
    }
}

fn state<'a>(wanted: &'a WantedImage, tree: &'a Tree, found: Option<&str>) -> ImageState<'a> {
    ImageState {
        wanted,
        tree,
        found: found.map(digest).into(),
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

/// A tree that is about the images named.
fn about(root: &str, subjects: &[&str]) -> Tree {
    Tree {
        subjects: subjects.iter().map(|subject| digest(subject)).collect(),
        ..tree(root, &["base"])
    }
}

/// Returns the waves of the images behind and what each comes after.
fn order(plan: &Plan) -> Vec<(usize, usize, Vec<usize>)> {
    let steps = plan.images.iter();
    steps
        .map(|step| (step.wave, step.index, step.after.iter().copied().collect()))
        .collect()
}

#[test]
fn referrers_come_after_what_they_are_about_in_their_repository() {
    let images = [
        (wanted("a", "countersignature", "s2"), about("s2", &["s1"])),
        (
            wanted("a", "signature", "s1"),
            about("s1", &["image/child"]),
        ),
        (wanted("a", "v1", "image"), tree("image", &["base"])),
        (wanted("b", "v1", "image"), tree("image", &["base"])),
        (
            wanted("b", "signature", "s1"),
            about("s1", &["image/child"]),
        ),
        (wanted("c", "stray", "s3"), about("s3", &["elsewhere"])),
    ];
    let mut states: Vec<ImageState<'_>> = images
        .iter()
        .map(|(wanted, tree)| state(wanted, tree, None))
        .collect();
    assert_eq!(
        order(&Plan::new(&states)),
        [
            (0, 2, vec![]),
            (0, 3, vec![]),
            (0, 5, vec![]),
            (1, 1, vec![2]),
            (1, 4, vec![3]),
            (2, 0, vec![1]),
        ]
    );
    // One in place is waited for no longer; one in conflict will not come.
    states[2].found = Found::Image(digest("image"));
    states[3].found = Found::Image(digest("foreign"));
    let plan = Plan::new(&states);
    assert_eq!(plan.conflicts.len(), 1);
    assert_eq!(
        order(&plan),
        [
            (0, 1, vec![]),
            (0, 4, vec![3]),
            (0, 5, vec![]),
            (1, 0, vec![1])
        ]
    );
    // One of which nothing is known is left alone, and waited for all the same.
    states[2].found = Found::Unknown;
    assert_eq!(
        order(&Plan::new(&states)),
        [
            (0, 1, vec![2]),
            (0, 4, vec![3]),
            (0, 5, vec![]),
            (1, 0, vec![1])
        ]
    );
}

#[test]
fn images_that_are_about_one_another_are_planned_all_the_same() {
    let images = [
        (wanted("a", "x", "x"), about("x", &["y"])),
        (wanted("a", "y", "y"), about("y", &["x/child"])),
        (wanted("a", "z", "z"), about("z", &["x"])),
        (wanted("a", "v1", "image"), tree("image", &["base"])),
    ];
    let states: Vec<ImageState<'_>> = images
        .iter()
        .map(|(wanted, tree)| state(wanted, tree, None))
        .collect();
    let last = WAVES_MAX - 1;
    assert_eq!(
        order(&Plan::new(&states)),
        [
            (0, 3, vec![]),
            (last, 0, vec![]),
            (last, 1, vec![]),
            (last, 2, vec![])
        ]
    );
}

/// Images in a few repositories with layers from a small pool, some of them in sync already, some about another one.
fn images() -> impl Strategy<Value = Vec<(usize, BTreeSet<usize>, bool, Option<usize>)>> {
    proptest::collection::vec(
        (
            0..4_usize,
            proptest::collection::btree_set(0..8_usize, 1..5),
            any::<bool>(),
            proptest::option::of(0..12_usize),
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
            .map(|(number, (repository, layers, is_there, subject))| {
                let root = format!("root{number}");
                // Nothing can be about what comes after it: a digest is known only when all of the content is.
                let subject = subject.filter(|subject| *subject < number);
                let layers: Vec<String> = layers.iter().map(|layer| format!("layer{layer}")).collect();
                let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
                let wanted = wanted(&format!("repo{repository}"), &format!("v{number}"), &root);
                let tree = Tree {
                    subjects: subject.iter().map(|subject| digest(&format!("root{subject}"))).collect(),
                    ..tree(&root, &layers)
                };
                (wanted, tree, is_there)
            })
            .collect();
        let states: Vec<ImageState<'_>> = images
            .iter()
            .map(|(wanted, tree, is_there)| ImageState {
                wanted,
                tree,
                found: is_there.then_some(wanted.root.digest).into(),
                placed: None,
            })
            .collect();
        let plan = Plan::new(&states);

        let mut registry: BTreeMap<Repository, BTreeSet<Digest>> = BTreeMap::new();
        for state in states.iter().filter(|state| state.found != Found::Nothing) {
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
            let state = &states[step.index];
            for other in &states {
                let is_subject = state.tree.subjects.contains(&other.wanted.root.digest)
                    && state.wanted.place.repository == other.wanted.place.repository;
                let held = registry.get(&other.wanted.place.repository);
                let is_held = held.is_some_and(|held| held.contains(&other.wanted.root.digest));
                prop_assert!(!is_subject || is_held, "{} comes before what it is about", step.place);
            }
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
        let behind = states.iter().filter(|state| state.found == Found::Nothing).count();
        prop_assert_eq!(plan.images.len(), behind);
        prop_assert_eq!(plan.is_empty(), behind == 0);
    }
}
