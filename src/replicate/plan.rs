//! The steps between what a target holds and what it should hold: a value that can be printed, counted and compared.
//!
//! [`Plan`] is made by `planner.rs`; `flow.rs` says in which order it is carried out while steps succeed and fail. Each
//! digest is there once, and everything else is a number: making the plan of ten thousand images of twenty layers takes 16 MB where three
//! quarters of the layers are shared and 31 MB where none is, and a second (measured on 2026-11-21).
//!
//! # Order
//!
//! ```text
//! per blob     one repository leads: it mounts the blob from where it is known to be, or else gets it sent,
//!              preferably where an earlier run has begun to; all others that lack it mount it from there
//! blobs        1. those that are only mounted
//!              2. shared ones that are sent, by greedy set cover: the repository goes first whose blobs spare most of what
//!                 others would have to send
//!              3. those of one repository, image by image, the largest first, so that no long transfer is left for the end
//! per image    as soon as its blobs are there: manifests, children before parents and otherwise at the same time, the tag last;
//!              an image before its referrers
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
use std::ops::Range;

use super::wanted::WantedImage;
use crate::base::oci::Descriptor;
use crate::base::{Digest, Repository};

/// What was seen at the place of a wanted image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing is there.
    Nothing,
    /// The image with this digest.
    Image(Digest),
    /// The image that is wanted, without foreign layers that are wanted there, too.
    Incomplete,
    /// It could not be found out, or the image cannot be read from the store: nothing is done with it in this run, and
    /// what is about it waits.
    Unknown,
}

impl From<Option<Digest>> for Found {
    fn from(digest: Option<Digest>) -> Self {
        digest.map_or(Self::Nothing, Self::Image)
    }
}

/// What follows from what was found at the place of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is there.
    InPlace,
    /// It is not there, and may be put there in place of what is.
    Behind {
        /// What it replaces.
        replaces: Option<Digest>,
    },
    /// It is not there any more, although we had put it there: what is known of it is not believed.
    Lost,
    /// Somebody else's image is there.
    Conflict {
        /// That image.
        found: Digest,
    },
    /// Nothing can be done with it in this run.
    Unknown,
}

impl Standing {
    /// Says what to do with an image. `placed` is the digest that we ourselves put there last.
    pub fn new(wanted: &WantedImage, found: Found, placed: Option<Digest>) -> Self {
        match found {
            Found::Unknown => Self::Unknown,
            Found::Nothing | Found::Incomplete => Self::Behind { replaces: None },
            Found::Image(found) if found == wanted.root.digest => Self::InPlace,
            Found::Image(found) if placed == Some(found) || wanted.earlier.contains(&found) => {
                Self::Behind {
                    replaces: Some(found),
                }
            }
            Found::Image(found) => Self::Conflict { found },
        }
    }
}

/// What is known of what a target holds. Wrong answers cost requests, and never an image. It may be asked in any order, and has the
/// answer at hand where digests ascend and, for one digest, repositories.
pub trait Knowledge {
    /// Returns whether a repository holds this so surely that it is not asked.
    fn holds(&mut self, repository: &Repository, digest: &Digest) -> bool;

    /// Returns a repository that may well hold this, to mount it from.
    fn find_holder(&mut self, digest: &Digest) -> Option<Repository>;

    /// Returns a repository to which an upload of this has begun and can go on.
    fn find_begun(&mut self, digest: &Digest) -> Option<Repository>;
}

/// Number of a repository in [`Plan::repositories`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryId(pub(super) u32);

/// Number of a manifest or blob of a plan, see [`Plan::content`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(pub(super) u32);

/// Number of what an image consists of, in a planner and its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeId(pub(super) u32);

impl RepositoryId {
    /// Returns the number as an index.
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

impl ContentId {
    /// Returns the number as an index.
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

/// A manifest or blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    /// Index of its media type.
    pub(super) media_type: u32,
}

/// What an image consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// Children before parents, the image itself last.
    pub(super) manifests: Box<[ContentId]>,
    /// The round in which each of them can be put.
    pub(super) rounds: Box<[u32]>,
    pub(super) blobs: Box<[ContentId]>,
    pub(super) omitted: BTreeSet<Digest>,
    pub(super) subjects: BTreeSet<Digest>,
}

/// The steps that bring a target in sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The repositories that occur.
    pub repositories: Vec<Repository>,
    /// Blobs to bring to repositories, in order.
    pub blobs: Vec<BlobStep>,
    /// Where [`Self::blobs`] have to get, see [`BlobStep::jobs`].
    pub jobs: Vec<Job>,
    /// Images to put together from them. A referrer comes after what it is about.
    pub images: Vec<ImageStep>,
    /// Places that are left alone.
    pub conflicts: Vec<Conflict>,
    pub(super) contents: Vec<Content>,
    pub(super) media_types: Vec<String>,
    pub(super) trees: Vec<Parts>,
}

/// One blob that some repositories lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobStep {
    /// The blob.
    pub blob: ContentId,
    /// Where it may be. Where that is the leader, it is asked whether it has the blob before it gets it sent.
    pub source: Option<RepositoryId>,
    /// The repositories that lack it, as a range of [`Plan::jobs`]. The first one leads: the others mount from it.
    pub jobs: Range<u32>,
}

/// One blob that has to get into one repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// The blob.
    pub blob: ContentId,
    /// Where it has to get.
    pub repository: RepositoryId,
}

/// One image to put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageStep {
    /// Index of the image among those that are wanted.
    pub index: usize,
    /// Where it goes.
    pub repository: RepositoryId,
    /// What it consists of.
    pub(super) tree: TreeId,
    /// Its manifests that are not known to be there, children before parents; the last one goes to the place itself.
    pub manifests: Box<[ContentId]>,
    /// What it waits for, as indexes of [`Plan::jobs`].
    pub jobs: Box<[u32]>,
    /// What it replaces there.
    pub replaces: Option<Digest>,
    /// How many rounds of other images come before.
    pub wave: usize,
    /// The images that it is about and that are not in place yet, as indexes of wanted images: one of them must have got
    /// there before. Empty where it is about none, or one is in place.
    pub after: BTreeSet<usize>,
}

/// A place that holds what we did not put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Index of the image among those that are wanted.
    pub index: usize,
    /// What is there.
    pub found: Digest,
}

impl Plan {
    /// Returns whether there is nothing to do and nothing in the way.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.conflicts.is_empty()
    }

    /// Returns how many manifests and blobs occur: the end of the numbers of contents.
    pub const fn content_count(&self) -> usize {
        self.contents.len()
    }

    /// Returns a repository by its number.
    pub fn repository(&self, id: RepositoryId) -> &Repository {
        &self.repositories[id.at()]
    }

    /// Returns the digest of a manifest or blob.
    pub fn digest(&self, id: ContentId) -> Digest {
        self.contents[id.at()].digest
    }

    /// Returns a manifest or blob.
    pub fn content(&self, id: ContentId) -> Descriptor {
        let content = self.contents[id.at()];
        Descriptor {
            media_type: self.media_types[content.media_type as usize].clone(),
            digest: content.digest,
            size_bytes: content.size_bytes,
        }
    }

    /// Returns the blobs of an image, those included that are known to be there.
    pub fn blobs_of(&self, image: &ImageStep) -> &[ContentId] {
        &self.trees[image.tree.0 as usize].blobs
    }

    /// Returns all manifests of an image, children before parents.
    pub fn manifests_of(&self, image: &ImageStep) -> &[ContentId] {
        &self.trees[image.tree.0 as usize].manifests
    }

    /// Returns these manifests of an image, which are in their order, round by round: those of one round name nothing but manifests
    /// of earlier ones, and can be put at the same time.
    pub fn rounds_of(&self, image: &ImageStep, manifests: &[ContentId]) -> Vec<Vec<ContentId>> {
        let Parts {
            manifests: all,
            rounds,
            ..
        } = &self.trees[image.tree.0 as usize];
        let mut left = manifests.iter().peekable();
        let mut by_round: BTreeMap<u32, Vec<ContentId>> = BTreeMap::new();
        for (manifest, round) in all.iter().zip(rounds) {
            if left.next_if_eq(&manifest).is_some() {
                by_round.entry(*round).or_default().push(*manifest);
            }
        }
        by_round.into_values().collect()
    }

    /// Returns the manifests that were left out of an image.
    pub fn omitted_of(&self, image: &ImageStep) -> &BTreeSet<Digest> {
        &self.trees[image.tree.0 as usize].omitted
    }

    /// Returns whether a step of the plan brings this blob to this repository.
    pub fn wants(&self, repository: &Repository, blob: &Digest) -> bool {
        let mut jobs = self.jobs.iter();
        jobs.any(|job| {
            self.digest(job.blob) == *blob && self.repository(job.repository) == repository
        })
    }

    /// Returns the bytes that are sent if nothing of them turns out to be there.
    pub fn bytes_to_send(&self) -> u64 {
        let sent = self.blobs.iter().filter(|step| step.source.is_none());
        sent.map(|step| self.contents[step.blob.at()].size_bytes)
            .sum()
    }

    /// Returns the plan for people to read, a line per step. `wanted` are the images that it was made for.
    pub const fn display<'a>(&'a self, wanted: &'a [WantedImage]) -> impl fmt::Display + 'a {
        Printed { plan: self, wanted }
    }
}

/// Returns a number as it is kept.
pub(super) fn number(at: usize) -> u32 {
    u32::try_from(at).expect("fewer than four billion things fit into memory")
}

/// A plan with the images that it was made for.
struct Printed<'a> {
    plan: &'a Plan,
    wanted: &'a [WantedImage],
}

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, wanted } = self;
        for step in &plan.blobs {
            let content = plan.contents[step.blob.at()];
            let (digest, bytes) = (content.digest.short(), content.size_bytes);
            let mut source = step.source;
            for job in &plan.jobs[step.jobs.start as usize..step.jobs.end as usize] {
                let repository = plan.repository(job.repository);
                match source {
                    Some(from) if from == job.repository => {
                        writeln!(f, "ask    {digest} of {repository}, {bytes} bytes")?;
                    }
                    None => writeln!(f, "send   {digest} to {repository}, {bytes} bytes")?,
                    Some(from) => {
                        let from = plan.repository(from);
                        writeln!(f, "mount  {digest} to {repository} from {from}")?;
                    }
                }
                source.get_or_insert(job.repository);
            }
        }
        for step in &plan.images {
            let root = step
                .manifests
                .last()
                .map(|root| plan.digest(*root).short())
                .unwrap_or_default();
            write!(f, "put    {} as {root}", wanted[step.index].place)?;
            match step.replaces {
                Some(digest) => writeln!(f, ", replaces {}", digest.short())?,
                None => writeln!(f)?,
            }
        }
        for Conflict { index, found } in &plan.conflicts {
            let WantedImage { place, root, .. } = &wanted[*index];
            writeln!(
                f,
                "leave  {place} with {}, which we did not put there; wanted {}",
                found.short(),
                root.digest.short()
            )?;
        }
        Ok(())
    }
}
