//! What a target is known to hold, while a run uses and adds to it.
//!
//! A registry that was told or asked about a blob need not be asked again soon. What it said is kept in the catalog with the
//! time, for two purposes: a repository that surely holds a blob is not asked, and one that may hold it is mounted from. A wrong
//! belief costs requests: a mount that fails begins an upload, and a manifest that is refused brings out what is missing,
//! which is then forgotten and sent in the same run.
//!
//! | known | a repository is not asked | others mount from it |
//! |---|---|---|
//! | confirmed, at most [`BELIEVED_FOR`] ago | yes | yes |
//! | confirmed before that | no: the mount from itself is the question | yes |
//! | implied by a manifest that is there | no | yes |
//! | nothing for [`KEPT_FOR`] | no | no |
//!
//! Foreign layers are implied by nothing: registries take manifests without them. Where they are wanted, and are no longer believed to
//! be there, the image is put once more, which asks for them.
//!
//! # Durability
//!
//! Written in batches: what a killed process had not written yet is asked for again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use chrono::TimeDelta;

use super::plan::Knowledge;
use super::uploads::Ledger;
use crate::base::{Chain, Digest, Repository, TargetName, Timestamp, Tree};
use crate::catalog::{self, Catalog, Evidence, HeldReader, HeldRecord};

/// How long it is believed that a registry still has what it said it had. Registries lose blobs by hand, by garbage collection
/// and with their disks; a week bounds how long a repository that nobody puts anything to can be wrong unnoticed, and asking costs
/// one request for each blob of an image that is put. Chosen, not measured.
const BELIEVED_FOR: TimeDelta = TimeDelta::days(7);
/// How long it is remembered at all, so that what is known does not grow for ever. Chosen, not measured.
pub(super) const KEPT_FOR: TimeDelta = TimeDelta::days(90);
/// How much is written in one batch: a synced write takes 0.1 ms on an idle disk, a request a millisecond or more.
const BATCH: usize = 256;
/// How much is looked up and written at once of what images that are in place consist of. Each batch goes through all rows in their
/// order, and takes half a kilobyte for each of its own. Chosen, not measured.
const IMPLIED_BATCH: usize = 4096;

/// What one target holds.
#[derive(Debug)]
pub(super) struct Held<'a> {
    catalog: &'a Catalog,
    target: &'a TargetName,
    now: Timestamp,
    /// Whether anything is known: look-ups are spared otherwise.
    is_known: AtomicBool,
    learned: Mutex<Learned>,
}

/// What was not written yet.
#[derive(Debug, Default)]
struct Learned {
    put: Vec<HeldRecord>,
    forget: Vec<(Digest, Repository)>,
}

impl<'a> Held<'a> {
    /// Returns what is known of `target` now.
    pub(super) fn new(
        catalog: &'a Catalog,
        target: &'a TargetName,
        now: Timestamp,
    ) -> Result<Self, catalog::Error> {
        Ok(Self {
            is_known: AtomicBool::new(catalog.has_held(target)?),
            catalog,
            target,
            now,
            learned: Mutex::default(),
        })
    }

    /// Returns what answers who holds what, as it is written down now.
    pub(super) fn recall(&self) -> Recall<'_> {
        let is_known = self.is_known.load(Ordering::Relaxed);
        let reader = is_known.then(|| self.catalog.read_held(self.target));
        Recall {
            held: self,
            reader: reader.and_then(|reader| self.readable(reader)),
        }
    }

    /// Notes that the registry said that a repository holds this.
    pub(super) fn confirm(&self, repository: &Repository, digest: Digest) {
        let mut learned = self.learned();
        learned.put.push(HeldRecord {
            digest,
            repository: repository.clone(),
            evidence: Evidence::Confirmed,
            seen_at: self.now,
        });
        let is_full = learned.put.len() >= BATCH;
        drop(learned);
        if is_full {
            tokio::task::block_in_place(|| self.flush());
        }
    }

    /// Begins to note what repositories hold because images are there.
    pub(super) fn imply(&self) -> Implied<'_> {
        Implied {
            held: self,
            pairs: Vec::new(),
        }
    }

    /// Forgets that a repository holds these.
    pub(super) fn forget(
        &self,
        repository: &Repository,
        digests: impl IntoIterator<Item = Digest>,
    ) {
        let mut learned = self.learned();
        for digest in digests {
            let is_it =
                |record: &HeldRecord| record.digest == digest && record.repository == *repository;
            learned.put.retain(|record| !is_it(record));
            learned.forget.push((digest, repository.clone()));
        }
    }

    /// Writes down what was learned. A failure is said in the log: what is not known is asked for.
    pub(super) fn flush(&self) {
        let Learned { put, forget } = std::mem::take(&mut *self.learned());
        if !put.is_empty() {
            self.is_known.store(true, Ordering::Relaxed);
        }
        if let Err(error) = self.catalog.change_held(self.target, &put, &forget) {
            tracing::warn!(
                target = %self.target,
                reason = %Chain(&error),
                "what the target holds could not be written down"
            );
        }
    }

    /// Returns what could be read. A catalog that cannot be read makes nothing known: it is asked for.
    fn readable<T>(&self, found: Result<T, catalog::Error>) -> Option<T> {
        found
            .inspect_err(|error| {
                tracing::debug!(
                    target = %self.target,
                    reason = %Chain(error),
                    "what the target holds could not be read"
                );
            })
            .ok()
    }

    fn is_believed(&self, record: &HeldRecord) -> bool {
        let age = self.now - record.seen_at;
        // One that comes from the future is of a clock that was wrong.
        record.evidence == Evidence::Confirmed && TimeDelta::zero() <= age && age <= BELIEVED_FOR
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().expect("no holder of this lock panics")
    }
}

/// Answers who holds what, see [`HeldReader`] for the order in which to ask.
#[derive(Debug)]
pub(super) struct Recall<'a> {
    held: &'a Held<'a>,
    /// None where nothing is known: look-ups are spared.
    reader: Option<HeldReader<'a>>,
}

impl Recall<'_> {
    /// Returns whether it was ever known that a repository holds this.
    pub(super) fn was_there(&mut self, repository: &Repository, digest: &Digest) -> bool {
        self.find(repository, digest).is_some()
    }

    fn find(&mut self, repository: &Repository, digest: &Digest) -> Option<&HeldRecord> {
        let found = self.reader.as_mut()?.find(digest, repository);
        self.held.readable(found)?
    }

    /// Returns the repository that is most likely to hold this.
    fn find_holder(&mut self, digest: &Digest) -> Option<Repository> {
        let holders = self.reader.as_mut()?.list_holders(digest);
        let holders = self.held.readable(holders)?.iter();
        let best = holders.max_by_key(|record| (self.held.is_believed(record), record.seen_at));
        Some(best?.repository.clone())
    }
}

/// What repositories hold because images are there, as long as it was not looked at what is known of it already.
#[derive(Debug)]
pub(super) struct Implied<'a> {
    held: &'a Held<'a>,
    pairs: Vec<(Digest, Repository)>,
}

impl Implied<'_> {
    /// Notes that a repository holds an image, and so what it consists of.
    pub(super) fn add(&mut self, repository: &Repository, tree: &Tree) {
        let manifests = tree.manifests.iter().map(|manifest| manifest.digest);
        let blobs = tree.blobs.iter().map(|blob| blob.descriptor.digest);
        for digest in manifests.chain(blobs) {
            self.pairs.push((digest, repository.clone()));
        }
        if self.pairs.len() >= IMPLIED_BATCH {
            self.write();
        }
    }

    /// Writes down what was not known: what is confirmed says more. Blocking.
    pub(super) fn write(&mut self) {
        let Self { held, pairs } = self;
        pairs.sort_unstable();
        pairs.dedup();
        let mut recall = held.recall();
        pairs.retain(|(digest, repository)| !recall.was_there(repository, digest));
        drop(recall);
        let records = pairs.drain(..).map(|(digest, repository)| HeldRecord {
            digest,
            repository,
            evidence: Evidence::Implied,
            seen_at: held.now,
        });
        held.learned().put.extend(records);
        held.flush();
    }
}

/// What is known of a target altogether.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// What it holds.
    pub(super) held: Recall<'a>,
    /// What is on its way there.
    pub(super) uploads: &'a Ledger<'a>,
}

impl Knowledge for Known<'_> {
    fn holds(&mut self, repository: &Repository, digest: &Digest) -> bool {
        let held = self.held.held;
        let found = self.held.find(repository, digest);
        found.is_some_and(|record| held.is_believed(record))
    }

    fn find_holder(&mut self, digest: &Digest) -> Option<Repository> {
        self.held.find_holder(digest)
    }

    fn find_begun(&mut self, digest: &Digest) -> Option<Repository> {
        self.uploads.find_begun(digest)
    }
}
