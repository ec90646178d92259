//! Tests of the planner: golden text, and invariants over random inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::plan::Found;
use super::super::wanted::{Place, Reference};
use super::*;
use crate::base::Blob;

pub(in super::super) fn digest(name: &str) -> Digest {
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
pub(in super::super) fn tree(root: &str, layers: &[&str]) -> Tree {
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
        rounds: vec![0, 1],
        omitted: BTreeSet::new(),
        foreign: BTreeMap::new(),
        subjects: BTreeSet::new(),
    }
}

pub(in super::super) fn wanted(repository: &str, tag: &str, root: &str) -> WantedImage {
    WantedImage {
        place: Place {
            repository: repository.parse().unwrap(),
            reference: Reference::Tag(tag.parse().unwrap()),
        },
        root: descriptor(root, 20),
        earlier: Vec::new(),
        omitted: BTreeSet::new(),
        foreign: Arc::default(),
    }
}

/// What a target is known to hold: content by repository, and whether that is believed.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Known(pub(in super::super) BTreeMap<(Digest, Repository), bool>);

impl Knowledge for Known {
    fn holds(&mut self, repository: &Repository, digest: &Digest) -> bool {
        self.0.get(&(*digest, repository.clone())) == Some(&true)
    }

    fn find_holder(&mut self, digest: &Digest) -> Option<Repository> {
        let mut all = self.0.keys();
        all.find(|(it, _)| it == digest)
            .map(|(_, repository)| repository.clone())
    }

    fn find_begun(&mut self, _: &Digest) -> Option<Repository> {
        None
    }
}

/// A wanted image, what it consists of and what was found at its place.
pub(in super::super) struct State {
    pub(in super::super) wanted: WantedImage,
    pub(in super::super) tree: Tree,
    pub(in super::super) found: Found,
    pub(in super::super) placed: Option<Digest>,
}

pub(in super::super) fn state(wanted: WantedImage, tree: Tree, found: Option<&str>) -> State {
    State {
        wanted,
        tree,
        found: found.map(digest).into(),
        placed: None,
    }
}

/// Plans as a run does. What is in place is known, too.
pub(in super::super) fn plan_with(states: &[State], mut known: Known) -> Plan {
    let mut planner = Planner::default();
    let standing = |state: &State| Standing::new(&state.wanted, state.found, state.placed);
    for (index, state) in states.iter().enumerate() {
        match standing(state) {
            Standing::Behind { replaces } => {
                let tree = planner.add_tree(&state.tree);
                planner.add_behind(index, &state.wanted, tree, replaces);
            }
            Standing::Conflict { found } => planner.add_conflict(Conflict { index, found }),
            Standing::InPlace => {
                let blobs = state.tree.blobs.iter().map(|blob| &blob.descriptor);
                for content in state.tree.manifests.iter().chain(blobs) {
                    let repository = state.wanted.place.repository.clone();
                    known.0.insert((content.digest, repository), true);
                }
            }
            Standing::Lost | Standing::Unknown => {}
        }
    }
    for (index, state) in states.iter().enumerate() {
        if !matches!(standing(state), Standing::Behind { .. }) {
            let manifests = state.tree.manifests.iter().map(|it| &it.digest);
            planner.add_bystander(index, &state.wanted, manifests, standing(state));
        }
    }
    planner.finish(&mut known)
}

fn plan(states: &[State]) -> Plan {
    plan_with(states, Known::default())
}

fn printed(plan: &Plan, states: &[State]) -> String {
    let wanted: Vec<WantedImage> = states.iter().map(|state| state.wanted.clone()).collect();
    plan.display(&wanted).to_string()
}

#[test]
fn shared_blob_is_sent_once_and_mounted_from_there() {
    let states = [
        state(
            wanted("a/one", "v1", "one"),
            tree("one", &["base", "own1"]),
            None,
        ),
        state(
            wanted("b/two", "v1", "two"),
            tree("two", &["base", "own2"]),
            None,
        ),
    ];
    let plan = plan(&states);
    insta::assert_snapshot!(printed(&plan, &states), @r"
    send   cae662172fd4 to a/one, 100 bytes
    mount  cae662172fd4 to b/two from a/one
    send   4dfed5abfe76 to a/one, 100 bytes
    send   4dad097bed42 to b/two, 100 bytes
    put    a/one:v1 as 7692c3ad3540
    put    b/two:v1 as 3fc4ccfe7458
    ");
    assert_eq!(plan.bytes_to_send(), 300);
}

#[test]
fn blobs_of_images_in_sync_are_mounted_or_known() {
    let states = [
        state(
            wanted("a/one", "v1", "one"),
            tree("one", &["base", "own1"]),
            Some("one"),
        ),
        state(
            wanted("a/one", "v2", "two"),
            tree("two", &["base", "own2"]),
            None,
        ),
        state(
            wanted("b/three", "v1", "three"),
            tree("three", &["base"]),
            None,
        ),
    ];
    insta::assert_snapshot!(printed(&plan(&states), &states), @r"
    mount  cae662172fd4 to b/three from a/one
    send   4dad097bed42 to a/one, 100 bytes
    put    a/one:v2 as 3fc4ccfe7458
    put    b/three:v1 as 8b5b9db0c13d
    ");
}

#[test]
fn what_is_not_believed_is_asked_for_where_it_should_be_and_mounted_from_there() {
    let states = [
        state(wanted("a/one", "v1", "one"), tree("one", &["base"]), None),
        state(wanted("b/two", "v1", "two"), tree("two", &["base"]), None),
    ];
    let known = |repository: &str| {
        let repository = repository.parse().unwrap();
        Known([((digest("base"), repository), false)].into())
    };
    insta::assert_snapshot!(printed(&plan_with(&states, known("b/two")), &states), @r"
    ask    cae662172fd4 of b/two, 100 bytes
    mount  cae662172fd4 to a/one from b/two
    put    a/one:v1 as 7692c3ad3540
    put    b/two:v1 as 3fc4ccfe7458
    ");
    insta::assert_snapshot!(printed(&plan_with(&states, known("elsewhere")), &states), @r"
    mount  cae662172fd4 to a/one from elsewhere
    mount  cae662172fd4 to b/two from elsewhere
    put    a/one:v1 as 7692c3ad3540
    put    b/two:v1 as 3fc4ccfe7458
    ");
    assert_eq!(plan_with(&states, known("b/two")).bytes_to_send(), 0);
}

#[test]
fn the_repository_that_spares_most_leads_and_its_blobs_go_first() {
    // `c` shares two blobs, each of the others one with it.
    let states = [
        state(wanted("a", "v1", "a"), tree("a", &["x", "own"]), None),
        state(wanted("b", "v1", "b"), tree("b", &["y"]), None),
        state(wanted("c", "v1", "c"), tree("c", &["x", "y"]), None),
    ];
    insta::assert_snapshot!(printed(&plan(&states), &states), @r"
    send   2d711642b726 to c, 100 bytes
    mount  2d711642b726 to a from c
    send   a1fce4363854 to c, 100 bytes
    mount  a1fce4363854 to b from c
    send   5b3975651c3c to a, 100 bytes
    put    a:v1 as ca978112ca1b
    put    b:v1 as 3e23e8160039
    put    c:v1 as 2e7d2c03a950
    ");
}

#[test]
fn foreign_content_is_left_alone_and_our_own_is_replaced() {
    let foreign = || {
        state(
            wanted("a/one", "v1", "one"),
            tree("one", &["base"]),
            Some("foreign"),
        )
    };
    let states = [foreign()];
    insta::assert_snapshot!(printed(&plan(&states), &states), @"leave  a/one:v1 with 656771905e1e, which we did not put there; wanted 7692c3ad3540");
    assert!(!plan(&states).is_empty());

    let mut placed = foreign();
    placed.placed = Some(digest("foreign"));
    assert!(plan(&[placed]).conflicts.is_empty());

    let mut ours = foreign();
    ours.wanted.earlier.push(digest("foreign"));
    let states = [ours];
    insta::assert_snapshot!(printed(&plan(&states), &states), @r"
    send   cae662172fd4 to a/one, 100 bytes
    put    a/one:v1 as 7692c3ad3540, replaces 656771905e1e
    ");
}

#[test]
fn in_sync_means_that_the_plan_is_empty() {
    let states = [state(
        wanted("a/one", "v1", "one"),
        tree("one", &["base"]),
        Some("one"),
    )];
    assert!(plan(&states).is_empty());
    assert_eq!(plan(&states), Plan::default());
}

#[test]
fn a_manifest_keeps_its_media_type_where_another_image_has_it_as_a_layer() {
    let mut planner = Planner::default();
    // The layer comes first.
    let carrier = planner.add_tree(&tree("carrier", &["image"]));
    let mut image = tree("image", &["base"]);
    image.manifests[1].media_type = "index".to_owned();
    let image = planner.add_tree(&image);
    planner.add_behind(0, &wanted("a", "carrier", "carrier"), carrier, None);
    planner.add_behind(1, &wanted("a", "image", "image"), image, None);
    let plan = planner.finish(&mut Known::default());
    let media_types = plan.images.iter().map(|step| {
        let root = *step.manifests.last().unwrap();
        plan.content(root).media_type
    });
    assert_eq!(media_types.collect::<Vec<_>>(), ["x", "index"]);
    let blobs = plan.blobs.iter().map(|step| plan.content(step.blob));
    assert!(blobs.into_iter().all(|blob| blob.media_type == "x"));
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
    let mut states: Vec<State> = images
        .into_iter()
        .map(|(wanted, tree)| state(wanted, tree, None))
        .collect();
    assert_eq!(
        order(&plan(&states)),
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
    let planned = plan(&states);
    assert_eq!(planned.conflicts.len(), 1);
    assert_eq!(
        order(&planned),
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
        order(&plan(&states)),
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
    let states = [
        (wanted("a", "x", "x"), about("x", &["y"])),
        (wanted("a", "y", "y"), about("y", &["x/child"])),
        (wanted("a", "z", "z"), about("z", &["x"])),
        (wanted("a", "v1", "image"), tree("image", &["base"])),
    ]
    .map(|(wanted, tree)| state(wanted, tree, None));
    let last = WAVES_MAX - 1;
    assert_eq!(
        order(&plan(&states)),
        [
            (0, 3, vec![]),
            (last, 0, vec![]),
            (last, 1, vec![]),
            (last, 2, vec![])
        ]
    );
}

/// Images in a few repositories with layers from a small pool, some of them in sync already, some about another one.
pub(in super::super) fn states() -> impl Strategy<Value = Vec<State>> {
    let image = (
        0..4_usize,
        proptest::collection::btree_set(0..8_usize, 1..5),
        any::<bool>(),
        proptest::option::of(0..12_usize),
    );
    proptest::collection::vec(image, 1..12).prop_map(|images| {
        let state = |(number, (repository, layers, is_there, subject)): (
            usize,
            (usize, BTreeSet<usize>, bool, Option<usize>),
        )| {
            let root = format!("root{number}");
            // Nothing can be about what comes after it: a digest is known only when all of the content is.
            let subject = subject.filter(|subject| *subject < number);
            let layers: Vec<String> = layers.iter().map(|layer| format!("layer{layer}")).collect();
            let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
            let tree = Tree {
                subjects: subject
                    .iter()
                    .map(|it| digest(&format!("root{it}")))
                    .collect(),
                ..tree(&root, &layers)
            };
            let wanted = wanted(&format!("repo{repository}"), &format!("v{number}"), &root);
            state(wanted, tree, is_there.then_some(&root))
        };
        images.into_iter().enumerate().map(state).collect()
    })
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.wanted.place, self.tree)
    }
}

proptest! {
    /// A registry that does exactly what the plan says, blobs first, ends with every image complete, every blob sent at most
    /// once, and nothing mounted from where it is not.
    #[test]
    fn following_the_plan_completes_every_image(states in states()) {
        let plan = plan(&states);
        let mut registry: BTreeMap<Repository, BTreeSet<Digest>> = BTreeMap::new();
        for state in states.iter().filter(|state| state.found != Found::Nothing) {
            let held = registry.entry(state.wanted.place.repository.clone()).or_default();
            held.extend(state.tree.blobs.iter().map(|blob| blob.descriptor.digest));
            held.extend(state.tree.manifests.iter().map(|manifest| manifest.digest));
        }
        let mut sent = BTreeSet::new();
        for step in &plan.blobs {
            let digest = plan.digest(step.blob);
            let mut source = step.source;
            for job in &plan.jobs[step.jobs.start as usize..step.jobs.end as usize] {
                prop_assert_eq!(job.blob, step.blob);
                match source {
                    None => {
                        let is_anywhere = registry.values().any(|held| held.contains(&digest));
                        prop_assert!(!is_anywhere && sent.insert(digest), "sent twice: {digest}");
                    }
                    Some(from) => prop_assert!(registry[plan.repository(from)].contains(&digest)),
                }
                source.get_or_insert(job.repository);
                let held = registry.entry(plan.repository(job.repository).clone()).or_default();
                prop_assert!(held.insert(digest), "brought although it was there");
            }
        }
        for step in &plan.images {
            let state = &states[step.index];
            prop_assert_eq!(plan.repository(step.repository), &state.wanted.place.repository);
            for other in &states {
                let is_subject = state.tree.subjects.contains(&other.wanted.root.digest)
                    && state.wanted.place.repository == other.wanted.place.repository;
                let held = registry.get(&other.wanted.place.repository);
                let is_held = held.is_some_and(|held| held.contains(&other.wanted.root.digest));
                prop_assert!(!is_subject || is_held, "{} comes before what it is about", state.wanted.place);
            }
            let held = registry.entry(state.wanted.place.repository.clone()).or_default();
            for blob in &state.tree.blobs {
                prop_assert!(held.contains(&blob.descriptor.digest), "{} is incomplete", state.wanted.place);
            }
            held.extend(step.manifests.iter().map(|manifest| plan.digest(*manifest)));
            for manifest in &state.tree.manifests {
                prop_assert!(held.contains(&manifest.digest), "{} lacks a manifest", state.wanted.place);
            }
            let root = plan.digest(*step.manifests.last().unwrap());
            prop_assert_eq!(root, state.wanted.root.digest);
        }
        let behind = states.iter().filter(|state| state.found == Found::Nothing).count();
        prop_assert_eq!(plan.images.len(), behind);
        prop_assert_eq!(plan.is_empty(), behind == 0);
    }
}
