//! Sets of blobs, and what would be freed. Pure.
//!
//! There may be a million blobs: sets are sorted lists of 32 bytes each, which are brought in order whenever they have doubled.

use super::plan::Amount;
use crate::base::Digest;
use crate::catalog::Content;

/// How many entries are gathered before the first time that they are brought in order: 2 MB of digests.
const UNSORTED_MIN: usize = 1 << 16;

/// A set of blobs that is asked once all are in it.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    digests: Vec<Digest>,
    /// How many of them are in order, each once.
    ordered: usize,
}

/// A set of blobs.
#[derive(Debug, Default)]
pub(super) struct Blobs(Vec<Digest>);

impl Gathered {
    pub(super) fn insert(&mut self, digest: Digest) {
        self.digests.push(digest);
        if self.digests.len() >= 2 * self.ordered + UNSORTED_MIN {
            self.order();
        }
    }

    pub(super) fn extend<'d>(&mut self, digests: impl IntoIterator<Item = &'d Digest>) {
        digests.into_iter().for_each(|digest| self.insert(*digest));
    }

    /// Adds what a package keeps.
    pub(super) fn insert_content(&mut self, content: &Content) {
        self.extend(content.entries().iter().map(|(digest, _)| digest));
    }

    pub(super) fn finish(mut self) -> Blobs {
        self.order();
        Blobs(self.digests)
    }

    fn order(&mut self) {
        self.digests.sort_unstable();
        self.digests.dedup();
        self.ordered = self.digests.len();
    }
}

impl Blobs {
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.0.binary_search(digest).is_ok()
    }
}

/// A blob of a package that goes.
#[derive(Debug)]
struct Going {
    digest: Digest,
    /// Position of the package in the plan.
    removal: u32,
    size_bytes: u64,
}

/// Counts what is freed by the removal of packages, one after the other.
#[derive(Debug)]
pub(super) struct Freed {
    kept: Blobs,
    going: Vec<Going>,
    ordered: usize,
}

impl Freed {
    /// Begins to count; `kept` is what stays in any case.
    pub(super) const fn new(kept: Blobs) -> Self {
        Self {
            kept,
            going: Vec::new(),
            ordered: 0,
        }
    }

    /// Adds the package at this position of the plan.
    pub(super) fn add(&mut self, removal: usize, content: &Content) {
        let removal = u32::try_from(removal).expect("memory holds fewer packages than that");
        for (digest, size_bytes) in content.entries() {
            if !self.kept.contains(digest) {
                self.going.push(Going {
                    digest: *digest,
                    removal,
                    size_bytes: *size_bytes,
                });
            }
        }
        if self.going.len() >= 2 * self.ordered + UNSORTED_MIN {
            self.order();
        }
    }

    /// Returns what each of `count` removals frees. A blob that several share is freed by the last of them.
    pub(super) fn finish(mut self, count: usize) -> Vec<Amount> {
        self.order();
        let mut amounts = vec![Amount::default(); count];
        for going in self.going {
            let amount = &mut amounts[going.removal as usize];
            amount.blobs += 1;
            amount.bytes += going.size_bytes;
        }
        amounts
    }

    fn order(&mut self) {
        self.going
            .sort_unstable_by(|a, b| (a.digest, b.removal).cmp(&(b.digest, a.removal)));
        self.going.dedup_by_key(|going| going.digest);
        self.ordered = self.going.len();
    }
}
