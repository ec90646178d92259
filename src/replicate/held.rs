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
use crate::catalog::{self, Catalog, Evidence, HeldRecord};

/// How long it is believed that a registry still has what it said it had. Registries lose blobs by hand, by garbage collection
/// and with their disks; a week bounds how long a repository that nobody puts anything to can be wrong unnoticed, and asking costs
/// one request for each blob of an image that is put. Chosen, not measured.
const BELIEVED_FOR: TimeDelta = TimeDelta::days(7);
/// How long it is remembered at all, so that what is known does not grow for ever. Chosen, not measured.
pub(super) const KEPT_FOR: TimeDelta = TimeDelta::days(90);
/// How much is written in one batch: a synced write takes 0.1 ms on an idle disk, a request a millisecond or more.
const BATCH: usize = 256;

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

    /// Returns whether it was ever known that a repository holds this.
    pub(super) fn was_there(&self, repository: &Repository, digest: &Digest) -> bool {
        self.find(repository, digest).is_some()
    }

    /// Notes that the registry said that a repository holds this.
    pub(super) fn confirm(&self, repository: &Repository, digest: Digest) {
        self.add(repository, digest, Evidence::Confirmed);
    }

    /// Notes that a repository holds an image, and so what it consists of.
    pub(super) fn imply(&self, repository: &Repository, tree: &Tree) {
        let manifests = tree.manifests.iter().map(|manifest| manifest.digest);
        let blobs = tree.blobs.iter().map(|blob| blob.descriptor.digest);
        for digest in manifests.chain(blobs) {
            // What is confirmed says more.
            if !self.was_there(repository, &digest) {
                self.add(repository, digest, Evidence::Implied);
            }
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

    fn add(&self, repository: &Repository, digest: Digest, evidence: Evidence) {
        let mut learned = self.learned();
        learned.put.push(HeldRecord {
            digest,
            repository: repository.clone(),
            evidence,
            seen_at: self.now,
        });
        let is_full = learned.put.len() >= BATCH;
        drop(learned);
        if is_full {
            tokio::task::block_in_place(|| self.flush());
        }
    }

    fn find(&self, repository: &Repository, digest: &Digest) -> Option<HeldRecord> {
        if !self.is_known.load(Ordering::Relaxed) {
            return None;
        }
        let found = self.catalog.find_held(self.target, digest, repository);
        // A row that cannot be read is one that is not there; the check of the state directory names it.
        found.unwrap_or_default()
    }

    /// Returns the repository that is most likely to hold this.
    fn find_holder(&self, digest: &Digest) -> Option<Repository> {
        if !self.is_known.load(Ordering::Relaxed) {
            return None;
        }
        let holders = self.catalog.list_holders(self.target, digest);
        let holders = holders.unwrap_or_default();
        let best = holders
            .into_iter()
            .max_by_key(|record| (self.is_believed(record), record.seen_at));
        Some(best?.repository)
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

/// What is known of a target altogether.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// What it holds.
    pub(super) held: &'a Held<'a>,
    /// What is on its way there.
    pub(super) uploads: &'a Ledger<'a>,
}

impl Knowledge for Known<'_> {
    fn holds(&self, repository: &Repository, digest: &Digest) -> bool {
        let found = self.held.find(repository, digest);
        found.is_some_and(|record| self.held.is_believed(&record))
    }

    fn find_holder(&self, digest: &Digest) -> Option<Repository> {
        self.held.find_holder(digest)
    }

    fn find_begun(&self, digest: &Digest) -> Option<Repository> {
        self.uploads.find_begun(digest)
    }
}
