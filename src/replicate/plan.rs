//! From what a target should hold and what it holds to the steps in between. Pure.
//!
//! Images are told to a [`Planner`] one after the other, so that what each consists of can be let go: ten thousand images of
//! twenty layers are planned in some tens of megabytes. [`Plan`] is what comes out; `flow.rs` says in which order it is
//! carried out while steps succeed and fail.
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
//! per image    as soon as its blobs are there: manifests, children before parents, the tag last;
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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;

use super::cover::{self, Group, Need};
use super::wanted::WantedImage;
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
            Found::Nothing => Self::Behind { replaces: None },
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

/// What is known of what a target holds. Wrong answers cost requests, and never an image.
pub trait Knowledge {
    /// Returns whether a repository holds this so surely that it is not asked.
    fn holds(&self, repository: &Repository, digest: &Digest) -> bool;

    /// Returns a repository that may well hold this, to mount it from.
    fn find_holder(&self, digest: &Digest) -> Option<Repository>;

    /// Returns a repository to which an upload of this has begun and can go on.
    fn find_begun(&self, digest: &Digest) -> Option<Repository>;
}

/// Number of a repository in [`Plan::repositories`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryId(u32);

/// Number of a manifest or blob of a plan, see [`Plan::content`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(u32);

/// Number of what an image consists of, in a planner and its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeId(u32);

impl RepositoryId {
    #[cfg(test)]
    pub(super) fn new(at: usize) -> Self {
        Self(number(at))
    }

    /// Returns the number as an index.
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

impl ContentId {
    #[cfg(test)]
    pub(super) fn new(at: usize) -> Self {
        Self(number(at))
    }

    /// Returns the number as an index.
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

/// A manifest or blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    digest: Digest,
    size_bytes: u64,
    /// Index of its media type.
    media_type: u32,
}

/// What an image consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parts {
    /// Children before parents, the image itself last.
    manifests: Box<[ContentId]>,
    blobs: Box<[ContentId]>,
    omitted: BTreeSet<Digest>,
    subjects: BTreeSet<Digest>,
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
    contents: Vec<Content>,
    media_types: Vec<String>,
    trees: Vec<Parts>,
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
    tree: TreeId,
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

/// An image that is behind.
#[derive(Clone, Copy, Debug)]
struct Behind {
    index: usize,
    repository: RepositoryId,
    tree: TreeId,
    replaces: Option<Digest>,
}

/// Collects what is to be planned. Start from [`Planner::default`].
#[derive(Debug, Default)]
pub struct Planner {
    repositories: Vec<Repository>,
    repository_ids: BTreeMap<Repository, RepositoryId>,
    contents: Vec<Content>,
    content_ids: HashMap<Digest, ContentId>,
    media_types: Vec<String>,
    trees: Vec<Parts>,
    behind: Vec<Behind>,
    conflicts: Vec<Conflict>,
    /// Which wanted images hold a manifest in a repository: only what others are about.
    subjects: HashMap<(RepositoryId, Digest), Subject>,
}

/// What is known of a manifest that images are about.
#[derive(Debug, Default)]
struct Subject {
    is_in_place: bool,
    /// Images that hold it.
    images: BTreeSet<usize>,
}

impl Planner {
    /// Adds what one image or several consist of.
    pub fn add_tree(&mut self, tree: &Tree) -> TreeId {
        let id = TreeId(number(self.trees.len()));
        let manifests = tree.manifests.iter().map(|it| self.content_id(it));
        let manifests = manifests.collect();
        let blobs = tree.blobs.iter();
        let blobs = blobs.map(|it| self.content_id(&it.descriptor)).collect();
        self.trees.push(Parts {
            manifests,
            blobs,
            omitted: tree.omitted.clone(),
            subjects: tree.subjects.clone(),
        });
        id
    }

    /// Adds an image that is to be put in place.
    pub fn add_behind(
        &mut self,
        index: usize,
        wanted: &WantedImage,
        tree: TreeId,
        replaces: Option<Digest>,
    ) {
        let repository = self.repository_id(&wanted.place.repository);
        for subject in &self.trees[tree.0 as usize].subjects {
            self.subjects.entry((repository, *subject)).or_default();
        }
        self.behind.push(Behind {
            index,
            repository,
            tree,
            replaces,
        });
    }

    /// Adds an image whose place is left alone.
    pub fn add_conflict(&mut self, conflict: Conflict) {
        self.conflicts.push(conflict);
    }

    /// Returns the digests of all manifests and blobs of a tree.
    pub fn digests_of(&self, tree: TreeId) -> Vec<Digest> {
        let Parts {
            manifests, blobs, ..
        } = &self.trees[tree.0 as usize];
        let all = manifests.iter().chain(blobs);
        all.map(|content| self.contents[content.at()].digest)
            .collect()
    }

    /// Returns the repositories in which an image is about something that is not known to be in place. To be asked when all
    /// images that are behind were added.
    pub fn seeking(&self) -> BTreeSet<Repository> {
        let subjects = self.subjects.iter();
        let open = subjects.filter(|(_, subject)| !subject.is_in_place);
        open.map(|((repository, _), _)| self.repositories[repository.at()].clone())
            .collect()
    }

    /// Adds the manifests of an image that is not behind: others may be about them. To be called when all images that are
    /// behind were added.
    pub fn add_bystander<'d>(
        &mut self,
        index: usize,
        wanted: &WantedImage,
        manifests: impl IntoIterator<Item = &'d Digest>,
        standing: Standing,
    ) {
        let Some(repository) = self.repository_ids.get(&wanted.place.repository) else {
            return;
        };
        for digest in manifests {
            if let Some(subject) = self.subjects.get_mut(&(*repository, *digest)) {
                subject.is_in_place |= standing == Standing::InPlace;
                subject.images.insert(index);
            }
        }
    }

    /// Plans the way from what was found to what is wanted.
    pub fn finish(mut self, knowledge: &impl Knowledge) -> Plan {
        // Nothing is added any more, and for a million contents this is tens of megabytes.
        self.content_ids = HashMap::new();
        self.add_behind_subjects();
        let (waves, after) = plan_waves(&self.behind, self.find_subjects());
        let needs = self.list_needs(knowledge);
        let groups = self.group(&needs, knowledge);
        let size_of = |blob: ContentId| self.contents[blob.at()].size_bytes;
        let cover::Arranged {
            blobs,
            jobs,
            mut waits_for,
        } = cover::arrange(&needs, &groups, size_of, self.behind.len());
        let mut images: Vec<ImageStep> = Vec::with_capacity(self.behind.len());
        for (at, (behind, after)) in self.behind.iter().zip(after).enumerate() {
            images.push(ImageStep {
                index: behind.index,
                repository: behind.repository,
                tree: behind.tree,
                manifests: self.missing_manifests(behind, knowledge),
                jobs: std::mem::take(&mut waits_for[at]).into(),
                replaces: behind.replaces,
                wave: waves[&behind.index],
                after,
            });
        }
        images.sort_by_key(|step| (step.wave, step.index));
        self.conflicts.sort_by_key(|conflict| conflict.index);
        Plan {
            repositories: self.repositories,
            blobs,
            jobs,
            images,
            conflicts: self.conflicts,
            contents: self.contents,
            media_types: self.media_types,
            trees: self.trees,
        }
    }

    fn repository_id(&mut self, repository: &Repository) -> RepositoryId {
        if let Some(id) = self.repository_ids.get(repository) {
            return *id;
        }
        let id = RepositoryId(number(self.repositories.len()));
        self.repositories.push(repository.clone());
        self.repository_ids.insert(repository.clone(), id);
        id
    }

    fn content_id(&mut self, descriptor: &Descriptor) -> ContentId {
        if let Some(id) = self.content_ids.get(&descriptor.digest) {
            return *id;
        }
        let mut known = self.media_types.iter();
        let media_type = known.position(|it| *it == descriptor.media_type);
        let media_type = media_type.unwrap_or_else(|| {
            self.media_types.push(descriptor.media_type.clone());
            self.media_types.len() - 1
        });
        let id = ContentId(number(self.contents.len()));
        self.contents.push(Content {
            digest: descriptor.digest,
            size_bytes: descriptor.size_bytes,
            media_type: number(media_type),
        });
        self.content_ids.insert(descriptor.digest, id);
        id
    }

    /// Adds the manifests of the images that are behind to what others are about.
    fn add_behind_subjects(&mut self) {
        for behind in &self.behind {
            for manifest in &self.trees[behind.tree.0 as usize].manifests {
                let key = (behind.repository, self.contents[manifest.at()].digest);
                if let Some(subject) = self.subjects.get_mut(&key) {
                    subject.images.insert(behind.index);
                }
            }
        }
    }

    /// Returns for each image that is behind those that it is about, unless one of them is in place already.
    fn find_subjects(&self) -> Vec<BTreeSet<usize>> {
        let find = |behind: &Behind| {
            let mut after = BTreeSet::new();
            for digest in &self.trees[behind.tree.0 as usize].subjects {
                let subject = &self.subjects[&(behind.repository, *digest)];
                if !subject.is_in_place {
                    after.extend(&subject.images);
                }
            }
            after.remove(&behind.index);
            after
        };
        self.behind.iter().map(find).collect()
    }

    /// Returns which blobs are needed where and by which image that is behind, by its position: ordered, each once.
    fn list_needs(&self, knowledge: &impl Knowledge) -> Vec<Need> {
        let mut needs = Vec::new();
        for (at, behind) in self.behind.iter().enumerate() {
            let blobs = &self.trees[behind.tree.0 as usize].blobs;
            needs.extend(
                blobs
                    .iter()
                    .map(|blob| (*blob, behind.repository, number(at))),
            );
        }
        needs.sort_unstable();
        needs.dedup();
        let mut last = None;
        needs.retain(|(blob, repository, _)| {
            let (pair, known) = match last {
                Some((pair, known)) if pair == (*blob, *repository) => (pair, known),
                _ => {
                    let digest = &self.contents[blob.at()].digest;
                    let repository_name = &self.repositories[repository.at()];
                    let known = knowledge.holds(repository_name, digest);
                    ((*blob, *repository), known)
                }
            };
            last = Some((pair, known));
            !known
        });
        needs
    }

    /// Groups what is needed by blob, and looks where each may be.
    fn group(&mut self, needs: &[Need], knowledge: &impl Knowledge) -> Vec<Group> {
        let mut groups = Vec::new();
        let mut start = 0;
        for of_blob in needs.chunk_by(|one, other| one.0 == other.0) {
            let digest = self.contents[of_blob[0].0.at()].digest;
            let source = knowledge.find_holder(&digest);
            let begun = knowledge.find_begun(&digest);
            let end = start + number(of_blob.len());
            groups.push(Group {
                needs: start..end,
                source: source.map(|repository| self.repository_id(&repository)),
                begun: begun.map(|repository| self.repository_id(&repository)),
            });
            start = end;
        }
        groups
    }

    /// Returns the manifests of an image that its repository is not known to hold, and the outermost in any case.
    fn missing_manifests(&self, behind: &Behind, knowledge: &impl Knowledge) -> Box<[ContentId]> {
        let manifests = &self.trees[behind.tree.0 as usize].manifests;
        let repository = &self.repositories[behind.repository.at()];
        let (root, children) = manifests.split_last().expect("an image has a manifest");
        let is_missing = |child: &&ContentId| {
            let digest = &self.contents[child.at()].digest;
            !knowledge.holds(repository, digest)
        };
        let missing = children.iter().filter(is_missing).chain([root]);
        missing.copied().collect()
    }
}

/// Returns a number as it is kept.
pub(super) fn number(at: usize) -> u32 {
    u32::try_from(at).expect("fewer than four billion things fit into memory")
}

/// Returns for each image that is behind how many rounds of others come before it, and what it comes after.
///
/// Images that are about one another, which only a hostile package can hold, or that are stacked beyond [`WAVES_MAX`],
/// all go in the last round and come after nothing.
fn plan_waves(
    behind: &[Behind],
    mut after: Vec<BTreeSet<usize>>,
) -> (HashMap<usize, usize>, Vec<BTreeSet<usize>>) {
    let indexes = behind.iter().map(|behind| behind.index);
    let mut waves: HashMap<usize, usize> = HashMap::with_capacity(behind.len());
    let mut waiting: BTreeMap<usize, &mut BTreeSet<usize>> = indexes.zip(&mut after).collect();
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
    (waves, after)
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

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(super) mod tests;
