//! Makes plans: pure.
//!
//! Images are told to a [`Planner`] one after the other, so that what each consists of can be let go. Start from
//! [`Planner::default`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::cover::{self, Group, Need};
use super::plan::{
    Conflict, Content, ContentId, ImageStep, Knowledge, Parts, Plan, RepositoryId, Standing,
    TreeId, number,
};
use super::wanted::WantedImage;
use crate::base::oci::Descriptor;
use crate::base::{Digest, Repository, Tree};

/// The most rounds in which images are put in place. A countersignature of a signature of an image takes three; what a
/// hostile package stacks beyond that is put without an order. Chosen, not measured.
const WAVES_MAX: usize = 16;

/// An image that is behind.
#[derive(Clone, Copy, Debug)]
struct Behind {
    index: usize,
    repository: RepositoryId,
    tree: TreeId,
    replaces: Option<Digest>,
}

/// Collects what is to be planned.
#[derive(Debug, Default)]
pub struct Planner {
    repositories: Vec<Repository>,
    repository_ids: BTreeMap<Repository, RepositoryId>,
    contents: Vec<Content>,
    /// Apart from one another: what is a manifest of one image may be a layer of another, under another media type.
    manifest_ids: HashMap<Digest, ContentId>,
    blob_ids: HashMap<Digest, ContentId>,
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
        let manifests = tree.manifests.iter();
        let manifests = manifests.map(|it| self.manifest_id(it)).collect();
        let blobs = tree.blobs.iter();
        let blobs = blobs.map(|it| self.blob_id(&it.descriptor)).collect();
        self.trees.push(Parts {
            manifests,
            rounds: tree.rounds.as_slice().into(),
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
    pub fn finish(mut self, knowledge: &mut impl Knowledge) -> Plan {
        // Nothing is added any more, and for 200 000 contents this is ten megabytes.
        self.manifest_ids = HashMap::new();
        self.blob_ids = HashMap::new();
        self.add_behind_subjects();
        let by_digest = sort_by_digest(&self.contents);
        let missing = self.list_missing_manifests(&by_digest, knowledge);
        let mut needs = self.list_needs(|parts| &parts.blobs);
        let groups = self.group(&mut needs, &by_digest, knowledge);
        drop(by_digest);
        let size_of = |blob: ContentId| self.contents[blob.at()].size_bytes;
        let cover::Arranged {
            blobs,
            jobs,
            waits_for,
        } = cover::arrange(&needs, &groups, size_of, self.behind.len());
        let images = self.list_images(waits_for, &missing);
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

    /// Lists the images that are behind, in order, with the jobs that each waits for and the manifests below them that are missing.
    fn list_images(&self, waits_for: Vec<Vec<u32>>, missing: &[Need]) -> Vec<ImageStep> {
        let (waves, after) = plan_waves(&self.behind, self.find_subjects());
        let mut images: Vec<ImageStep> = Vec::with_capacity(self.behind.len());
        let all = self.behind.iter().zip(after).zip(waits_for);
        for (at, ((behind, after), jobs)) in all.enumerate() {
            images.push(ImageStep {
                index: behind.index,
                repository: behind.repository,
                tree: behind.tree,
                manifests: self.missing_manifests(behind, number(at), missing),
                jobs: jobs.into(),
                replaces: behind.replaces,
                wave: waves[&behind.index],
                after,
            });
        }
        images.sort_by_key(|step| (step.wave, step.index));
        images
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

    fn manifest_id(&mut self, descriptor: &Descriptor) -> ContentId {
        if let Some(id) = self.manifest_ids.get(&descriptor.digest) {
            return *id;
        }
        let id = self.add_content(descriptor);
        self.manifest_ids.insert(descriptor.digest, id);
        id
    }

    fn blob_id(&mut self, descriptor: &Descriptor) -> ContentId {
        if let Some(id) = self.blob_ids.get(&descriptor.digest) {
            return *id;
        }
        let id = self.add_content(descriptor);
        self.blob_ids.insert(descriptor.digest, id);
        id
    }

    fn add_content(&mut self, descriptor: &Descriptor) -> ContentId {
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

    /// Returns what of the `parts` of images is needed where and by which image that is behind, by its position: ordered, each once.
    fn list_needs(&self, parts: impl Fn(&Parts) -> &[ContentId]) -> Vec<Need> {
        let mut needs = Vec::new();
        for (at, behind) in self.behind.iter().enumerate() {
            let parts = parts(&self.trees[behind.tree.0 as usize]).iter();
            needs.extend(parts.map(|part| (*part, behind.repository, number(at))));
        }
        needs.sort_unstable();
        needs.dedup();
        needs
    }

    /// Groups what is needed and not held by blob, and looks where each may be.
    fn group(
        &mut self,
        needs: &mut [Need],
        by_digest: &[ContentId],
        knowledge: &mut impl Knowledge,
    ) -> Vec<Group> {
        let starts = find_starts(needs, self.contents.len());
        let mut groups = Vec::new();
        for blob in by_digest {
            let (start, end) = (starts[blob.at()], starts[blob.at() + 1]);
            let of_blob = &mut needs[start as usize..end as usize];
            let lacking = number(self.keep_lacking(of_blob, knowledge));
            if lacking == 0 {
                continue;
            }
            let digest = self.contents[blob.at()].digest;
            let source = knowledge.find_holder(&digest);
            let begun = knowledge.find_begun(&digest);
            groups.push(Group {
                needs: start..start + lacking,
                source: source.map(|repository| self.repository_id(&repository)),
                begun: begun.map(|repository| self.repository_id(&repository)),
            });
        }
        groups.sort_unstable_by_key(|group| group.needs.start);
        groups
    }

    /// Moves those needs of one manifest or blob to the start, in their order, that are not known to be held. Returns how many they are.
    fn keep_lacking(&self, needs: &mut [Need], knowledge: &mut impl Knowledge) -> usize {
        let Some((content, _, _)) = needs.first() else {
            return 0;
        };
        let digest = &self.contents[content.at()].digest;
        let of_repository = needs.chunk_by(|one, other| one.1 == other.1);
        let mut held: Vec<RepositoryId> = of_repository.map(|needs| needs[0].1).collect();
        held.sort_unstable_by_key(|repository| &self.repositories[repository.at()]);
        held.retain(|repository| knowledge.holds(&self.repositories[repository.at()], digest));
        held.sort_unstable();
        let mut kept = 0;
        for at in 0..needs.len() {
            if held.binary_search(&needs[at].1).is_err() {
                needs[kept] = needs[at];
                kept += 1;
            }
        }
        kept
    }

    /// Returns which manifests below images that are behind their repositories are not known to hold: ordered.
    fn list_missing_manifests(
        &self,
        by_digest: &[ContentId],
        knowledge: &mut impl Knowledge,
    ) -> Vec<Need> {
        let mut needs = self.list_needs(|parts| {
            let (_, children) = parts
                .manifests
                .split_last()
                .expect("an image has a manifest");
            children
        });
        let starts = find_starts(&needs, self.contents.len());
        let mut missing = Vec::new();
        for child in by_digest {
            let (start, end) = (starts[child.at()], starts[child.at() + 1]);
            let of_child = &mut needs[start as usize..end as usize];
            let lacking = self.keep_lacking(of_child, knowledge);
            missing.extend_from_slice(&of_child[..lacking]);
        }
        missing.sort_unstable();
        missing
    }

    /// Returns the manifests of an image that its repository is not known to hold, and the outermost in any case.
    fn missing_manifests(&self, behind: &Behind, at: u32, missing: &[Need]) -> Box<[ContentId]> {
        let manifests = &self.trees[behind.tree.0 as usize].manifests;
        let (root, children) = manifests.split_last().expect("an image has a manifest");
        let is_missing = |child: &&ContentId| {
            let need = (**child, behind.repository, at);
            missing.binary_search(&need).is_ok()
        };
        let missing = children.iter().filter(is_missing).chain([root]);
        missing.copied().collect()
    }
}

/// Returns all contents in the order of their digests, in which knowledge is asked.
fn sort_by_digest(contents: &[Content]) -> Vec<ContentId> {
    // Most comparisons are decided by what lies beside the number.
    let start = |content: &Content| {
        let start = content.digest.as_bytes().first_chunk();
        u64::from_be_bytes(*start.expect("a digest has more than eight bytes"))
    };
    let numbered = contents.iter().enumerate();
    let mut sorted: Vec<(u64, ContentId)> = numbered
        .map(|(at, content)| (start(content), ContentId(number(at))))
        .collect();
    sorted.sort_unstable_by(|(start, one), (other_start, other)| {
        let digest = |id: &ContentId| contents[id.at()].digest;
        let by_start = start.cmp(other_start);
        by_start.then_with(|| digest(one).cmp(&digest(other)))
    });
    sorted.into_iter().map(|(_, id)| id).collect()
}

/// Returns where the needs of each of so many contents begin. One more follows, with the end of all.
fn find_starts(needs: &[Need], contents: usize) -> Vec<u32> {
    let mut starts = vec![0; contents + 1];
    for (content, _, _) in needs {
        starts[content.at() + 1] += 1;
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    starts
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

#[cfg(test)]
#[path = "planner_tests.rs"]
pub(super) mod tests;
