//! In which order blobs go to a target, and which repository gets each of them first. Pure.
//!
//! A blob that several repositories lack is sent to one of them, which leads, and mounted by the others. Leaders are
//! elected by greedy set cover: the repository goes first whose blobs spare most bytes to others, then the one that spares most
//! of what is left. So shared blobs gather in few repositories, which are complete early, and mounts need leave to read from
//! few repositories.
//!
//! # References
//!
//! Chvátal, "A Greedy Heuristic for the Set-Covering Problem", 1979. Gains only shrink, so that one which was computed before is
//! a bound and need not be computed again until it is the largest (Minoux, "Accelerated Greedy Algorithms", 1978).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;

use super::plan::{BlobStep, ContentId, Job, RepositoryId, number};

/// That an image needs a blob in a repository: the image by its position among those that are behind.
pub(super) type Need = (ContentId, RepositoryId, u32);

/// Needs of one blob, as a range of all needs, where it may be, and where it is on its way.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) needs: Range<u32>,
    pub(super) source: Option<RepositoryId>,
    pub(super) begun: Option<RepositoryId>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Arranged {
    /// The blobs, in order.
    pub(super) blobs: Vec<BlobStep>,
    /// Where they have to get.
    pub(super) jobs: Vec<Job>,
    /// What each image waits for, as indexes of `jobs`.
    pub(super) waits_for: Vec<Vec<u32>>,
}

/// Where a blob goes first, and after how many elections that was settled.
#[derive(Clone, Copy, Debug)]
struct Election {
    round: u32,
    leader: RepositoryId,
}

/// What decides on the place of a blob: what is smaller goes first.
type Rank = (u8, Reverse<u64>, u32, Reverse<u64>, ContentId);

/// Puts blobs in order. `needs` are ordered and each once, `groups` say by blob which of them count; `size_of` returns the size of
/// a blob in bytes.
pub(super) fn arrange(
    needs: &[Need],
    groups: &[Group],
    size_of: impl Fn(ContentId) -> u64,
    image_count: usize,
) -> Arranged {
    let elections = elect(needs, groups, &size_of);
    let ranks = rank(needs, groups, &elections, &size_of, image_count);
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_unstable_by_key(|at| ranks[*at]);
    drop(ranks);
    let mut arranged = Arranged {
        blobs: Vec::with_capacity(groups.len()),
        jobs: Vec::new(),
        waits_for: vec![Vec::new(); image_count],
    };
    for at in order {
        let group = &groups[at];
        let of_blob = slice(needs, group);
        let elected = elections.get(&at).map(|election| election.leader);
        let is_wanted = |begun: &RepositoryId| repositories(of_blob).any(|it| it == *begun);
        let begun = group.begun.filter(is_wanted);
        let leader = group.source.or(begun).or(elected);
        arranged.add(of_blob, group.source, leader);
    }
    arranged
}

impl Arranged {
    /// Adds the jobs of one blob: that of `leader` first, if it is among them.
    fn add(
        &mut self,
        of_blob: &[Need],
        source: Option<RepositoryId>,
        leader: Option<RepositoryId>,
    ) {
        let blob = of_blob[0].0;
        let first = self.jobs.len();
        for is_turn_of_leader in [true, false] {
            for of_repository in of_blob.chunk_by(|one, other| one.1 == other.1) {
                let repository = of_repository[0].1;
                if (Some(repository) == leader) != is_turn_of_leader {
                    continue;
                }
                let job = number(self.jobs.len());
                self.jobs.push(Job { blob, repository });
                for (_, _, image) in of_repository {
                    self.waits_for[*image as usize].push(job);
                }
            }
        }
        self.blobs.push(BlobStep {
            blob,
            source,
            jobs: number(first)..number(self.jobs.len()),
        });
    }
}

fn slice<'n>(needs: &'n [Need], group: &Group) -> &'n [Need] {
    &needs[group.needs.start as usize..group.needs.end as usize]
}

fn repositories(of_blob: &[Need]) -> impl Iterator<Item = RepositoryId> {
    of_blob
        .chunk_by(|one, other| one.1 == other.1)
        .map(|of_repository| of_repository[0].1)
}

/// Elects leaders for the blobs that are nowhere and that several repositories lack, by their positions.
fn elect(
    needs: &[Need],
    groups: &[Group],
    size_of: &impl Fn(ContentId) -> u64,
) -> HashMap<usize, Election> {
    let mut sets: HashMap<RepositoryId, Vec<usize>> = HashMap::new();
    let mut spared: HashMap<usize, u64> = HashMap::new();
    for (at, group) in groups.iter().enumerate() {
        let of_blob = slice(needs, group);
        let count = repositories(of_blob).count() as u64;
        if group.source.is_some() || count < 2 {
            continue;
        }
        // A blob of no bytes spares a request all the same.
        let size_bytes = size_of(of_blob[0].0).max(1);
        spared.insert(at, size_bytes.saturating_mul(count - 1));
        for repository in repositories(of_blob) {
            sets.entry(repository).or_default().push(at);
        }
    }
    let gain = |set: &[usize], elections: &HashMap<usize, Election>| {
        let open = set.iter().filter(|at| !elections.contains_key(at));
        open.fold(0_u64, |gain, at| gain.saturating_add(spared[at]))
    };
    let mut elections = HashMap::with_capacity(spared.len());
    let mut heap: BinaryHeap<(u64, Reverse<RepositoryId>)> = sets
        .iter()
        .map(|(repository, set)| (gain(set, &elections), Reverse(*repository)))
        .collect();
    let mut round = 0;
    while let Some((bound, Reverse(leader))) = heap.pop() {
        let set = &sets[&leader];
        let gain = gain(set, &elections);
        if gain == 0 {
            continue;
        }
        if gain < bound {
            heap.push((gain, Reverse(leader)));
            continue;
        }
        for at in set {
            elections.entry(*at).or_insert(Election { round, leader });
        }
        round += 1;
    }
    elections
}

/// Ranks blobs: what is only mounted, then what is shared, then what is not.
fn rank(
    needs: &[Need],
    groups: &[Group],
    elections: &HashMap<usize, Election>,
    size_of: &impl Fn(ContentId) -> u64,
    image_count: usize,
) -> Vec<Rank> {
    let is_own = |at: usize, group: &Group| group.source.is_none() && !elections.contains_key(&at);
    // What of each image only one repository lacks, by the first image that needs it.
    let mut own_bytes = vec![0_u64; image_count];
    for (at, group) in groups.iter().enumerate() {
        if is_own(at, group) {
            let (blob, _, image) = slice(needs, group)[0];
            let bytes = &mut own_bytes[image as usize];
            *bytes = bytes.saturating_add(size_of(blob));
        }
    }
    let rank = |(at, group): (usize, &Group)| {
        let (blob, _, image) = slice(needs, group)[0];
        let largest_first = Reverse(size_of(blob));
        match (group.source, elections.get(&at)) {
            (Some(_), _) => (0, Reverse(0), 0, largest_first, blob),
            (None, Some(election)) => (1, Reverse(0), election.round, largest_first, blob),
            (None, None) => {
                let bytes = own_bytes[image as usize];
                (2, Reverse(bytes), image, largest_first, blob)
            }
        }
    };
    groups.iter().enumerate().map(rank).collect()
}
