//! Puts the manifests of images: those of one image at the same time as far as they do not name one another, and one that several images
//! have in common once.
//!
//! Start from [`Manifests::put_children`].
//!
//! # Invariants
//!
//! - A manifest is put after everything that it names. Where one of these fails, it is not put.
//! - A manifest is on its way to a repository by its digest once: other images that hold it wait. Where it fails, the next one of
//!   them tries by itself.
//! - Over all images, no more manifests are read and on their way than [`Executor::concurrency`] says: each can have
//!   [`MANIFEST_BYTES_MAX`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OnceCell, Semaphore};

use super::Error;
use super::apply::Executor;
use super::plan::{ContentId, ImageStep, Plan, RepositoryId};
use crate::base::oci::{Descriptor, MANIFEST_BYTES_MAX};
use crate::registry::ManifestReference;

/// Manifests of a plan on their way.
#[derive(Debug)]
pub(super) struct Manifests<'a> {
    executor: &'a Executor<'a>,
    plan: &'a Plan,
    /// What was put by its digest in this run, or is on its way, and where.
    children: Mutex<HashMap<(RepositoryId, ContentId), Child>>,
    room: Semaphore,
}

/// A manifest that is put by its digest.
#[derive(Clone, Debug)]
enum Child {
    OnItsWay(Arc<OnceCell<()>>),
    There,
}

/// What to believe of the manifests below an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belief {
    /// What is known to be there is not put.
    Known,
    /// All of them are put.
    Nothing,
}

impl<'a> Manifests<'a> {
    /// Returns a state in which nothing was put yet.
    pub(super) fn new(executor: &'a Executor<'a>, plan: &'a Plan) -> Self {
        Self {
            executor,
            plan,
            children: Mutex::default(),
            room: Semaphore::new(executor.concurrency),
        }
    }

    /// Puts the manifests below an image.
    pub(super) async fn put_children(&self, step: &ImageStep, belief: Belief) -> Result<(), Error> {
        let manifests = match belief {
            Belief::Known => &step.manifests,
            Belief::Nothing => self.plan.manifests_of(step),
        };
        let (_, children) = manifests.split_last().expect("an image has a manifest");
        for round in self.plan.rounds_of(step, children) {
            self.put_round(step.repository, &round, belief).await?;
        }
        Ok(())
    }

    /// Puts an image to its place, when all that is below it is there.
    pub(super) async fn put_root(
        &self,
        step: &ImageStep,
        place: &ManifestReference,
    ) -> Result<(), Error> {
        let root = step.manifests.last().expect("an image has a manifest");
        self.put_one(step.repository, place, *root).await
    }

    /// Puts manifests that do not name one another. Where one fails, those that are on their way get to their ends and no more are
    /// begun.
    async fn put_round(
        &self,
        repository: RepositoryId,
        round: &[ContentId],
        belief: Belief,
    ) -> Result<(), Error> {
        let mut left = round.iter();
        let mut running = FuturesUnordered::new();
        let mut result = Ok(());
        loop {
            while result.is_ok()
                && running.len() < self.executor.concurrency
                && let Some(child) = left.next()
            {
                running.push(self.put_child(repository, *child, belief));
            }
            match running.next().await {
                Some(ended) => result = result.and(ended),
                None => return result,
            }
        }
    }

    /// Puts a manifest by its digest, or waits until another image has put it.
    async fn put_child(
        &self,
        repository: RepositoryId,
        child: ContentId,
        belief: Belief,
    ) -> Result<(), Error> {
        let key = (repository, child);
        let put = async {
            let by_digest = ManifestReference::Digest(self.plan.digest(child));
            self.put_one(repository, &by_digest, child).await?;
            self.children().insert(key, Child::There);
            Ok(())
        };
        if belief == Belief::Nothing {
            return put.await;
        }
        let known = self.children().entry(key).or_default().clone();
        match known {
            Child::There => Ok(()),
            Child::OnItsWay(flight) => flight.get_or_try_init(|| put).await.copied(),
        }
    }

    async fn put_one(
        &self,
        repository: RepositoryId,
        reference: &ManifestReference,
        manifest: ContentId,
    ) -> Result<(), Error> {
        let Executor {
            registry,
            store,
            held,
            ..
        } = self.executor;
        let room = self.room.acquire().await;
        let _room = room.expect("the semaphore is never closed");
        self.executor.check_stop()?;
        let Descriptor {
            media_type, digest, ..
        } = self.plan.content(manifest);
        let bytes = store
            .read(&digest, MANIFEST_BYTES_MAX)
            .inspect_err(|error| store.suspect_after(digest, error))?;
        let repository = self.plan.repository(repository);
        registry
            .put_manifest(repository, reference, &media_type, Bytes::from(bytes))
            .await?;
        held.confirm(repository, digest);
        Ok(())
    }

    /// Forgets that manifests below an image were put.
    pub(super) fn forget(&self, step: &ImageStep) {
        let mut children = self.children();
        for manifest in self.plan.manifests_of(step) {
            children.remove(&(step.repository, *manifest));
        }
    }

    fn children(&self) -> MutexGuard<'_, HashMap<(RepositoryId, ContentId), Child>> {
        self.children.lock().expect("no holder of this lock panics")
    }
}

impl Default for Child {
    fn default() -> Self {
        Self::OnItsWay(Arc::default())
    }
}
