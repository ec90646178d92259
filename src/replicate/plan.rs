//! From what a target should hold and what it holds to the steps in between. Pure.
//!
//! # Order
//!
//! ```text
//! 1. blobs that no repository of the target is known to hold (shared ones first), and mounts of blobs that one holds
//! 2. mounts of blobs from where step 1 has put them
//! 3. per image: manifests, children before parents, the tag last; an image before its referrers
//! ```
//!
//! # Invariants
//!
//! - In sync means: the plan is empty.
//! - A blob is sent at most once per target, however many images and repositories want it.
//! - A manifest comes after everything that it names, children left out apart.
//! - A referrer (signature, attestation) comes after the image that it is about, so that nobody ever sees a signature of
//!   what is not there.
//! - A tag that points to something which no package of ours has put there is a conflict and is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::wanted::{Place, WantedImage};
use crate::base::oci::Descriptor;
use crate::base::{Digest, Repository, Tree};

/// The most rounds in which images are put in place. A countersignature of a signature of an image takes three; what a
/// hostile package stacks beyond that is put without an order. Chosen, not measured.
const WAVES_MAX: usize = 16;

/// What was seen at the place of a wanted image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing is there.
    Nothing,
    /// The image with this digest.
    Image(Digest),
    /// It could not be found out, or the image cannot be read from the store: nothing is done with it in this run, and
    /// what is about it waits.
    Unknown,
}

impl From<Option<Digest>> for Found {
    fn from(digest: Option<Digest>) -> Self {
        digest.map_or(Self::Nothing, Self::Image)
    }
}

/// What a target was seen to hold at the place of one wanted image, and what the image consists of.
#[derive(Clone, Debug)]
pub struct ImageState<'a> {
    /// The image.
    pub wanted: &'a WantedImage,
    /// What is at its place.
    pub found: Found,
    /// The digest that we ourselves put there last.
    pub placed: Option<Digest>,
    /// Its manifests and blobs.
    pub tree: &'a Tree,
}

/// The steps that bring a target in sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Blobs to bring to repositories, in order.
    pub blobs: Vec<BlobStep>,
    /// Images to put together from them, in order.
    pub images: Vec<ImageStep>,
    /// Places that are left alone.
    pub conflicts: Vec<Conflict>,
}

/// One blob that has to get into one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobStep {
    /// The blob.
    pub blob: Descriptor,
    /// Where it has to get.
    pub repository: Repository,
    /// How.
    pub how: How,
    /// The images that cannot be put together without it, as indexes into the planned images' [`ImageStep::index`].
    pub needed_by: BTreeSet<usize>,
}

/// How a blob gets into a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Its bytes are sent, unless it turns out to be there.
    Send,
    /// From another repository of the same registry, which is known to hold it.
    Mount {
        /// That repository.
        from: Repository,
        /// Whether it gets there only by an earlier step of this plan.
        is_second_wave: bool,
    },
}

/// One image to put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageStep {
    /// Index of the image in the list that was planned.
    pub index: usize,
    /// Where it goes.
    pub place: Place,
    /// Its manifests, children before parents; the last one goes to the place itself.
    pub manifests: Vec<Descriptor>,
    /// What it replaces there.
    pub replaces: Option<Digest>,
    /// How many rounds of other images come before.
    pub wave: usize,
    /// The images that it is about and that are not in place yet, as indexes: one of them must have got there before.
    /// Empty where it is about none, or one is in place.
    pub after: BTreeSet<usize>,
}

/// A place that holds what we did not put there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Index of the image in the list that was planned.
    pub index: usize,
    /// The place.
    pub place: Place,
    /// What we want there.
    pub wanted: Digest,
    /// What is there.
    pub found: Digest,
}

impl Plan {
    /// Returns whether there is nothing to do and nothing in the way.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.conflicts.is_empty()
    }

    /// Plans the way from what was found to what is wanted.
    pub fn new(states: &[ImageState<'_>]) -> Self {
        let mut plan = Self::default();
        let mut holders = Holders::default();
        let mut behind = Vec::new();
        for (index, state) in states.iter().enumerate() {
            let wanted = state.wanted.root.digest;
            match state.found {
                Found::Unknown => {}
                Found::Image(found) if found == wanted => holders.add(state),
                Found::Image(found)
                    if state.placed != Some(found) && !state.wanted.ours.contains(&found) =>
                {
                    plan.conflicts.push(Conflict {
                        index,
                        place: state.wanted.place.clone(),
                        wanted,
                        found,
                    });
                }
                Found::Image(_) | Found::Nothing => behind.push((index, state)),
            }
        }
        plan.blobs = plan_blobs(&behind, &holders);
        let mut after = find_subjects(states, &behind, &holders);
        let waves = plan_waves(&behind, &mut after);
        plan.images = behind
            .into_iter()
            .zip(after)
            .map(|((index, state), after)| ImageStep {
                index,
                place: state.wanted.place.clone(),
                manifests: holders.missing_manifests(state),
                replaces: match state.found {
                    Found::Image(found) => Some(found),
                    Found::Nothing | Found::Unknown => None,
                },
                wave: waves[&index],
                after,
            })
            .collect();
        plan.images.sort_by_key(|step| (step.wave, step.index));
        plan
    }

    /// Returns the bytes that are sent if nothing of them turns out to be there.
    pub fn bytes_to_send(&self) -> u64 {
        self.blobs
            .iter()
            .filter(|step| step.how == How::Send)
            .map(|step| step.blob.size_bytes)
            .sum()
    }
}

/// Which repositories of the target hold what, as follows from the images that are in sync there.
#[derive(Default)]
struct Holders<'a> {
    /// Digests of manifests and blobs, with the repositories that hold them.
    repositories: BTreeMap<Digest, BTreeSet<&'a Repository>>,
}

impl<'a> Holders<'a> {
    fn add(&mut self, state: &ImageState<'a>) {
        let repository = &state.wanted.place.repository;
        let blobs = state.tree.blobs.iter().map(|blob| &blob.descriptor);
        for descriptor in state.tree.manifests.iter().chain(blobs) {
            self.repositories
                .entry(descriptor.digest)
                .or_default()
                .insert(repository);
        }
    }

    fn holds(&self, repository: &Repository, digest: &Digest) -> bool {
        self.repositories
            .get(digest)
            .is_some_and(|repositories| repositories.contains(repository))
    }

    fn any(&self, digest: &Digest) -> Option<&'a Repository> {
        self.repositories.get(digest)?.first().copied()
    }

    /// Returns the manifests of an image that its repository is not known to hold, and the outermost in any case.
    fn missing_manifests(&self, state: &ImageState<'_>) -> Vec<Descriptor> {
        let repository = &state.wanted.place.repository;
        let root = state.wanted.root.digest;
        state
            .tree
            .manifests
            .iter()
            .filter(|manifest| manifest.digest == root || !self.holds(repository, &manifest.digest))
            .cloned()
            .collect()
    }
}

fn plan_blobs(behind: &[(usize, &ImageState<'_>)], holders: &Holders<'_>) -> Vec<BlobStep> {
    // Per blob: the descriptor, and per repository that lacks it the images that need it there.
    let mut needs: BTreeMap<Digest, (&Descriptor, BTreeMap<&Repository, BTreeSet<usize>>)> =
        BTreeMap::new();
    for (index, state) in behind {
        let repository = &state.wanted.place.repository;
        for blob in &state.tree.blobs {
            let descriptor = &blob.descriptor;
            if holders.holds(repository, &descriptor.digest) {
                continue;
            }
            let (_, repositories) = needs
                .entry(descriptor.digest)
                .or_insert_with(|| (descriptor, BTreeMap::new()));
            repositories.entry(repository).or_default().insert(*index);
        }
    }
    let mut steps = Vec::new();
    for (descriptor, repositories) in needs.into_values() {
        let holder = holders.any(&descriptor.digest);
        let mut first = None;
        for (repository, needed_by) in repositories {
            let how = match (holder, first) {
                (Some(from), _) => How::Mount {
                    from: from.clone(),
                    is_second_wave: false,
                },
                (None, Some(from)) => How::Mount {
                    from: Repository::clone(from),
                    is_second_wave: true,
                },
                (None, None) => {
                    first = Some(repository);
                    How::Send
                }
            };
            steps.push(BlobStep {
                blob: descriptor.clone(),
                repository: repository.clone(),
                how,
                needed_by,
            });
        }
    }
    // What most images wait for goes first; of equals the largest, so that no long transfer is left for the end.
    let demand = demand(&steps);
    steps.sort_by_key(|step| {
        let BlobStep {
            blob,
            how,
            repository,
            ..
        } = step;
        let is_second_wave = matches!(
            how,
            How::Mount {
                is_second_wave: true,
                ..
            }
        );
        let wanted_by = demand[&blob.digest];
        (
            is_second_wave,
            std::cmp::Reverse((wanted_by, blob.size_bytes)),
            blob.digest,
            repository.clone(),
        )
    });
    steps
}

/// Returns for each image that is behind those that it is about, unless one of them is in place already.
fn find_subjects(
    states: &[ImageState<'_>],
    behind: &[(usize, &ImageState<'_>)],
    holders: &Holders<'_>,
) -> Vec<BTreeSet<usize>> {
    let sought: BTreeSet<Digest> = behind
        .iter()
        .flat_map(|(_, state)| state.tree.subjects.iter().copied())
        .collect();
    let mut parts: BTreeMap<(&Repository, Digest), BTreeSet<usize>> = BTreeMap::new();
    for (index, state) in states.iter().enumerate() {
        for manifest in &state.tree.manifests {
            if sought.contains(&manifest.digest) {
                let key = (&state.wanted.place.repository, manifest.digest);
                parts.entry(key).or_default().insert(index);
            }
        }
    }
    let find = |(index, state): &(usize, &ImageState<'_>)| {
        let repository = &state.wanted.place.repository;
        let mut after = BTreeSet::new();
        for subject in &state.tree.subjects {
            if !holders.holds(repository, subject) {
                after.extend(parts.get(&(repository, *subject)).into_iter().flatten());
            }
        }
        after.remove(index);
        after
    };
    behind.iter().map(find).collect()
}

/// Returns for each image that is behind how many rounds of others come before it.
///
/// Images that are about one another, which only a hostile package can hold, or that are stacked beyond [`WAVES_MAX`],
/// all go in the last round and come after nothing.
fn plan_waves(
    behind: &[(usize, &ImageState<'_>)],
    after: &mut [BTreeSet<usize>],
) -> BTreeMap<usize, usize> {
    let mut waiting: BTreeMap<usize, &mut BTreeSet<usize>> =
        behind.iter().map(|(index, _)| *index).zip(after).collect();
    let mut waves = BTreeMap::new();
    for wave in 1..WAVES_MAX {
        let is_free = |after: &BTreeSet<usize>| !after.iter().any(|it| waiting.contains_key(it));
        let free: Vec<usize> = waiting
            .iter()
            .filter(|(_, after)| is_free(after))
            .map(|(index, _)| *index)
            .collect();
        if free.is_empty() {
            break;
        }
        for index in free {
            waiting.remove(&index);
            waves.insert(index, wave - 1);
        }
    }
    for (index, after) in waiting {
        after.clear();
        waves.insert(index, WAVES_MAX - 1);
    }
    waves
}

/// Returns how many images need each blob.
fn demand(steps: &[BlobStep]) -> BTreeMap<Digest, usize> {
    let mut demand = BTreeMap::new();
    for step in steps {
        *demand.entry(step.blob.digest).or_default() += step.needed_by.len();
    }
    demand
}

impl fmt::Display for Plan {
    /// Prints the plan for people, a line per step.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for BlobStep {
            blob,
            repository,
            how,
            ..
        } in &self.blobs
        {
            let (digest, bytes) = (blob.digest.short(), blob.size_bytes);
            match how {
                How::Send => writeln!(f, "send   {digest} to {repository}, {bytes} bytes")?,
                How::Mount { from, .. } => {
                    writeln!(f, "mount  {digest} to {repository} from {from}")?;
                }
            }
        }
        for ImageStep {
            place,
            manifests,
            replaces,
            ..
        } in &self.images
        {
            let root = manifests.last().map(|manifest| manifest.digest.short());
            write!(f, "put    {place} as {}", root.unwrap_or_default())?;
            match replaces {
                Some(digest) => writeln!(f, ", replaces {}", digest.short())?,
                None => writeln!(f)?,
            }
        }
        for Conflict {
            place,
            wanted,
            found,
            ..
        } in &self.conflicts
        {
            writeln!(
                f,
                "leave  {place} with {}, which we did not put there; wanted {}",
                found.short(),
                wanted.short()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
