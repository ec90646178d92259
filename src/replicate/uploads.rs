//! Uploads to one target that are not finished, written down in the catalog.
//!
//! # Durability
//!
//! What a process that was killed has begun is found by the next run: blobs that are still wanted go on where the registry is,
//! what nobody wants any more is cancelled there and forgotten here.
//!
//! # Failure
//!
//! A catalog that cannot be written costs bytes after a crash, never an upload: it is said in the log. An upload that cannot be
//! cancelled now stays written down for the next run.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use chrono::TimeDelta;
use futures_util::StreamExt as _;

use crate::base::{Chain, Digest, Repository, Secret, TargetName, Timestamp};
use crate::catalog::{self, Catalog, UploadRecord};
use crate::registry::{Client, Unfinished, Uploads};

/// How old an upload may be. Distribution's own purge takes them after a week; one that is that old is not worth a question.
const AGE_MAX: TimeDelta = TimeDelta::days(6);
/// How many are cancelled at one time. Few are there in any case: as many as one run sends at one time.
const CONCURRENCY: usize = 4;

type Key = (Repository, Digest);

/// The uploads to one target that are not finished. In memory, too: most blobs have none.
#[derive(Debug)]
pub(super) struct Ledger<'a> {
    catalog: &'a Catalog,
    target: &'a TargetName,
    known: Mutex<BTreeMap<Key, Unfinished>>,
}

impl<'a> Ledger<'a> {
    /// Reads what is written down of `target`. One run of a target has it open at one time.
    pub(super) fn open(
        catalog: &'a Catalog,
        target: &'a TargetName,
    ) -> Result<Self, catalog::Error> {
        let uploads = catalog.list_uploads(target)?.into_iter();
        let known = uploads.map(|upload| {
            let key = (upload.repository, upload.digest);
            let unfinished = Unfinished {
                url: Secret::new(upload.url),
                offset_bytes: upload.offset_bytes,
                size_bytes: upload.size_bytes,
                begun_at: upload.begun_at,
            };
            (key, unfinished)
        });
        Ok(Self {
            catalog,
            target,
            known: Mutex::new(known.collect()),
        })
    }

    /// Returns a repository to which an upload of this blob has begun, the one with most of it.
    pub(super) fn find_begun(&self, digest: &Digest) -> Option<Repository> {
        let known = self.known();
        let begun = known.iter().filter(|((_, blob), _)| blob == digest);
        let most = begun.max_by_key(|(_, upload)| upload.offset_bytes);
        most.map(|((repository, _), _)| repository.clone())
    }

    /// Cancels uploads that are not wanted, or too old for the registry to have kept them, and forgets them.
    pub(super) async fn clear(
        &self,
        registry: &Client,
        now: Timestamp,
        is_wanted: impl Fn(&Repository, &Digest) -> bool,
    ) {
        let out: Vec<(Key, Unfinished)> = self
            .known()
            .iter()
            .filter(|((repository, digest), upload)| {
                now - upload.begun_at > AGE_MAX || !is_wanted(repository, digest)
            })
            .map(|(key, upload)| (key.clone(), upload.clone()))
            .collect();
        futures_util::stream::iter(0..out.len())
            .for_each_concurrent(CONCURRENCY, |at| {
                let ((repository, digest), upload) = &out[at];
                async move {
                    match registry.cancel_upload(repository, upload).await {
                        Ok(()) => {
                            self.remove(repository, digest);
                            tracing::info!(target = %self.target, %repository, %digest, "upload of an earlier run was cancelled");
                        }
                        Err(error) => {
                            tracing::debug!(target = %self.target, %repository, %digest, error = %Chain(&error), "upload of an earlier run was not cancelled");
                        }
                    }
                }
            })
            .await;
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Key, Unfinished>> {
        self.known.lock().expect("no holder of this lock panics")
    }

    fn log(&self, written: Result<(), catalog::Error>) {
        if let Err(error) = written {
            tracing::warn!(target = %self.target, error = %Chain(&error), "upload could not be written down, a crash would begin it anew");
        }
    }
}

impl Uploads for Ledger<'_> {
    fn find(&self, repository: &Repository, digest: &Digest) -> Option<Unfinished> {
        self.known().get(&(repository.clone(), *digest)).cloned()
    }

    fn put(&self, repository: &Repository, digest: &Digest, upload: &Unfinished) {
        let record = UploadRecord {
            target: self.target.clone(),
            repository: repository.clone(),
            digest: *digest,
            url: upload.url.expose().to_owned(),
            offset_bytes: upload.offset_bytes,
            size_bytes: upload.size_bytes,
            begun_at: upload.begun_at,
        };
        self.log(self.catalog.put_upload(&record));
        let key = (repository.clone(), *digest);
        self.known().insert(key, upload.clone());
    }

    fn remove(&self, repository: &Repository, digest: &Digest) {
        let key = (repository.clone(), *digest);
        if self.known().remove(&key).is_some() {
            self.log(self.catalog.remove_upload(self.target, repository, digest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(offset_bytes: u64) -> Unfinished {
        Unfinished {
            url: Secret::new("http://127.0.0.1:1/v2/a/blobs/uploads/7".to_owned()),
            offset_bytes,
            size_bytes: 100,
            begun_at: "2026-11-21T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn what_is_written_down_is_there_for_the_next_run_of_the_same_target() {
        let root = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(root.path()).unwrap();
        let (a, b): (TargetName, TargetName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (repository, digest) = ("x/y".parse().unwrap(), Digest::of(b"1"));
        let other = Digest::of(b"2");
        let ledger = Ledger::open(&catalog, &a).unwrap();
        ledger.put(&repository, &digest, &upload(0));
        ledger.put(&repository, &digest, &upload(64));
        ledger.put(&repository, &other, &upload(0));
        ledger.remove(&repository, &other);
        // One that is not known is no row to be removed.
        ledger.remove(&repository, &Digest::of(b"3"));
        drop(ledger);
        let next = Ledger::open(&catalog, &a).unwrap();
        let found = next.find(&repository, &digest).unwrap();
        assert_eq!((found.offset_bytes, found.size_bytes), (64, 100));
        assert_eq!(found.url.expose(), upload(0).url.expose());
        assert!(next.find(&repository, &other).is_none());
        let elsewhere = Ledger::open(&catalog, &b).unwrap();
        assert!(elsewhere.find(&repository, &digest).is_none());
        assert_eq!(catalog.list_uploads(&a).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_cancelled_now_stays_written_down() {
        let root = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(root.path()).unwrap();
        let target: TargetName = "a".parse().unwrap();
        let (repository, digest) = ("x/y".parse().unwrap(), Digest::of(b"1"));
        let ledger = Ledger::open(&catalog, &target).unwrap();
        ledger.put(&repository, &digest, &upload(0));
        // Nobody listens at port 1.
        let transport = crate::registry::Transport::Http;
        let options = crate::registry::Options::new("127.0.0.1:1".to_owned(), transport);
        let registry = Client::new(options).unwrap();
        let begun_at = upload(0).begun_at;
        ledger.clear(&registry, begun_at, |_, _| true).await;
        assert!(ledger.find(&repository, &digest).is_some());
        ledger.clear(&registry, begun_at, |_, _| false).await;
        assert!(ledger.find(&repository, &digest).is_some());
        let elsewhere = Unfinished {
            url: Secret::new("http://127.0.0.2:1/v2/a/blobs/uploads/7".to_owned()),
            ..upload(0)
        };
        ledger.put(&repository, &digest, &elsewhere);
        let late = begun_at + AGE_MAX + TimeDelta::seconds(1);
        ledger.clear(&registry, late, |_, _| true).await;
        assert!(ledger.find(&repository, &digest).is_none());
        assert_eq!(catalog.list_uploads(&target).unwrap(), []);
    }
}
