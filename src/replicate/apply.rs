//! Carries out a plan against one registry: plain and bounded.
//!
//! # Failure
//!
//! A step that fails takes the images down that need it, and no others. A manifest that the registry refuses because a
//! blob is missing there, although it was known to hold it, is put together again with every blob asked for, once. Where
//! what is missing was left out of the package, that would bring nothing: such a registry does not take sparse indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::plan::{BlobStep, How, ImageState, ImageStep, Plan};
use super::uploads::Ledger;
use super::wanted::{Reference, WantedImage};
use super::{Error, problem};
use crate::base::oci::{Descriptor, MANIFEST_BYTES_MAX};
use crate::base::{Class, Classified as _, Digest, Repository};
use crate::catalog::Problem;
use crate::registry::{self, BlobSource, Client, ManifestReference, Mount, Uploaded};
use crate::store::{Lease, Store};

/// What applying needs.
#[derive(Debug)]
pub(super) struct Executor<'a> {
    pub(super) registry: &'a Client,
    pub(super) store: &'a Store,
    /// On everything that is pushed: renewed with every step.
    pub(super) lease: &'a Lease,
    /// Uploads that are not finished.
    pub(super) uploads: &'a Ledger<'a>,
    /// Requests that move content, in flight at one time.
    pub(super) concurrency: usize,
    pub(super) stop: &'a CancellationToken,
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Images that are now at their places, by index.
    pub(super) pushed: BTreeSet<usize>,
    /// Images that are not, with the reason, by index.
    pub(super) failed: BTreeMap<usize, Problem>,
    pub(super) blobs: BlobCounts,
}

/// How many blobs got to the target in which way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BlobCounts {
    pub(super) sent: u64,
    pub(super) mounted: u64,
    pub(super) skipped: u64,
}

/// How one blob got to its repository.
#[derive(Clone, Copy, Debug)]
enum Moved {
    Sent,
    Mounted,
    /// It was there.
    Skipped,
}

impl BlobCounts {
    const fn add(&mut self, moved: Moved) {
        match moved {
            Moved::Sent => self.sent += 1,
            Moved::Mounted => self.mounted += 1,
            Moved::Skipped => self.skipped += 1,
        }
    }

    const fn add_all(&mut self, other: Self) {
        self.sent += other.sent;
        self.mounted += other.mounted;
        self.skipped += other.skipped;
    }
}

impl Executor<'_> {
    /// Carries out `plan`, which was made from `states`.
    pub(super) async fn apply(&self, plan: &Plan, states: &[ImageState<'_>]) -> Applied {
        let mut applied = Applied::default();
        let is_second = |step: &&BlobStep| {
            matches!(
                step.how,
                How::Mount {
                    is_second_wave: true,
                    ..
                }
            )
        };
        let first: Vec<&BlobStep> = plan.blobs.iter().filter(|step| !is_second(step)).collect();
        let second: Vec<&BlobStep> = plan.blobs.iter().filter(is_second).collect();
        for wave in [first, second] {
            self.move_blobs(&wave, states, &mut applied).await;
        }
        let mut images = plan.images.as_slice();
        while let Some(first) = images.first() {
            let (wave, rest) = images.split_at(images.partition_point(|it| it.wave <= first.wave));
            self.put_images(wave, states, &mut applied).await;
            images = rest;
        }
        applied
    }

    /// Puts the images of one round in place, those whose blobs and subjects are there.
    async fn put_images(
        &self,
        wave: &[ImageStep],
        states: &[ImageState<'_>],
        applied: &mut Applied,
    ) {
        let mut ready: Vec<&ImageStep> = Vec::with_capacity(wave.len());
        for step in wave {
            if applied.failed.contains_key(&step.index) {
                continue;
            }
            let is_there = |it: &usize| applied.pushed.contains(it);
            if step.after.is_empty() || step.after.iter().any(is_there) {
                ready.push(step);
                continue;
            }
            let subject = step
                .after
                .first()
                .map(|it| states[*it].wanted.place.clone());
            let error = Error::SubjectAbsent {
                subject: subject.map(|it| it.to_string()).unwrap_or_default(),
            };
            let problem = problem(format!("image {}", step.place), &error);
            applied.failed.insert(step.index, problem);
        }
        let ready = &ready;
        let results = futures_util::stream::iter(0..ready.len())
            .map(|at| async move {
                (
                    at,
                    self.put_image(ready[at], &states[ready[at].index]).await,
                )
            })
            .buffer_unordered(self.concurrency);
        futures_util::pin_mut!(results);
        while let Some((at, result)) = results.next().await {
            let step = ready[at];
            match result {
                Ok(counts) => {
                    applied.blobs.add_all(counts);
                    applied.pushed.insert(step.index);
                    let digest = step.manifests.last().map(|manifest| manifest.digest);
                    tracing::info!(
                        registry = self.registry.address(),
                        image = %step.place,
                        digest = digest.map(tracing::field::display),
                        "image is in place"
                    );
                }
                Err(error) => {
                    let problem = problem(format!("image {}", step.place), &error);
                    applied.failed.insert(step.index, problem);
                }
            }
        }
    }

    async fn move_blobs(
        &self,
        wave: &[&BlobStep],
        states: &[ImageState<'_>],
        applied: &mut Applied,
    ) {
        // Positions, not steps, go through the stream: a closure over references would not be general enough for a
        // future that moves between threads.
        let results = futures_util::stream::iter(0..wave.len())
            .map(|at| async move {
                let step = wave[at];
                let from = match &step.how {
                    How::Send => None,
                    How::Mount { from, .. } => Some(from),
                };
                (at, self.move_blob(&step.repository, &step.blob, from).await)
            })
            .buffer_unordered(self.concurrency);
        futures_util::pin_mut!(results);
        while let Some((at, result)) = results.next().await {
            let step = wave[at];
            match result {
                Ok(moved) => applied.blobs.add(moved),
                Err(error) => {
                    for index in &step.needed_by {
                        let place = &states[*index].wanted.place;
                        applied
                            .failed
                            .entry(*index)
                            .or_insert_with(|| problem(format!("image {place}"), &error));
                    }
                }
            }
        }
    }

    /// Brings one blob to one repository, by mount where `from` is given.
    async fn move_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        from: Option<&Repository>,
    ) -> Result<Moved, Error> {
        self.check_stop()?;
        self.lease.renew();
        let (store, digest) = (self.store.clone(), blob.digest);
        // A blob that the store lacks is found out here, before a session is opened on the registry.
        store
            .open_blob(&digest)
            .inspect_err(|error| self.store.suspect_after(digest, error))?;
        let source: BlobSource = Arc::new(move || {
            let blob = store.open_blob(&digest).map_err(std::io::Error::other)?;
            Ok(blob.file)
        });
        let mount = from.map_or(Mount::Itself, Mount::From);
        let uploaded = self
            .registry
            .upload_blob(repository, blob, &source, mount, self.uploads)
            .await
            .inspect_err(|error| {
                // Either the content has changed on its way or it is damaged here.
                if error.class() == Class::Corrupt {
                    self.store.suspect(digest);
                }
            })?;
        Ok(match uploaded {
            Uploaded::Mounted => Moved::Mounted,
            Uploaded::Present => Moved::Skipped,
            Uploaded::Sent { .. } => Moved::Sent,
        })
    }

    /// Puts the manifests of one image, children first, its place last.
    async fn put_image(
        &self,
        step: &ImageStep,
        state: &ImageState<'_>,
    ) -> Result<BlobCounts, Error> {
        let omitted = &state.tree.omitted;
        self.lease.renew();
        match self.put_manifests(step, &step.manifests).await {
            Err(Error::Registry(registry::Error::ManifestBlobUnknown { missing, .. }))
                if missing.is_disjoint(omitted) =>
            {
                tracing::warn!(image = %step.place, "registry lacks content that it was known to hold, image is sent again");
                let counts = self.heal(&step.place.repository, state).await?;
                let again = self.put_manifests(step, &state.tree.manifests).await;
                again.map_err(|error| explain(error, omitted))?;
                Ok(counts)
            }
            result => result
                .map(|()| BlobCounts::default())
                .map_err(|error| explain(error, omitted)),
        }
    }

    async fn put_manifests(&self, step: &ImageStep, manifests: &[Descriptor]) -> Result<(), Error> {
        let repository = &step.place.repository;
        let (root, children) = manifests.split_last().expect("an image has a manifest");
        for child in children {
            let by_digest = ManifestReference::Digest(child.digest);
            self.put_manifest(repository, &by_digest, child).await?;
        }
        let reference = manifest_reference(&step.place.reference);
        self.put_manifest(repository, &reference, root).await
    }

    async fn put_manifest(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
        manifest: &Descriptor,
    ) -> Result<(), Error> {
        self.check_stop()?;
        let digest = manifest.digest;
        let bytes = self
            .store
            .read(&digest, MANIFEST_BYTES_MAX)
            .inspect_err(|error| self.store.suspect_after(digest, error))?;
        let media_type = &manifest.media_type;
        self.registry
            .put_manifest(repository, reference, media_type, Bytes::from(bytes))
            .await?;
        Ok(())
    }

    /// Asks for every blob of an image and sends what is not there.
    async fn heal(
        &self,
        repository: &Repository,
        state: &ImageState<'_>,
    ) -> Result<BlobCounts, Error> {
        let mut counts = BlobCounts::default();
        for blob in &state.tree.blobs {
            counts.add(self.move_blob(repository, &blob.descriptor, None).await?);
        }
        Ok(counts)
    }

    fn check_stop(&self) -> Result<(), Error> {
        if self.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        Ok(())
    }
}

/// Says what is behind it when a registry misses content of an image of which something was left out.
fn explain(error: Error, omitted: &BTreeSet<Digest>) -> Error {
    let Error::Registry(source) = error else {
        return error;
    };
    if is_gap(&source, omitted) {
        let omitted = omitted.len();
        return Error::SparseRefused { omitted, source };
    }
    Error::Registry(source)
}

/// Returns whether a registry misses what was left out, or misses something and does not say what.
fn is_gap(error: &registry::Error, omitted: &BTreeSet<Digest>) -> bool {
    if let registry::Error::ManifestBlobUnknown { missing, .. } = error
        && !missing.is_empty()
    {
        return !missing.is_disjoint(omitted);
    }
    let is_missing = matches!(
        error,
        registry::Error::ManifestBlobUnknown { .. } | registry::Error::Absent { .. }
    );
    is_missing && !omitted.is_empty()
}

/// Returns the digest at the place of each image, asking the registry once per image.
pub(super) async fn observe(
    registry: &Client,
    images: &[WantedImage],
    concurrency: usize,
) -> Vec<Result<Option<Digest>, Error>> {
    futures_util::stream::iter(0..images.len())
        .map(|at| async move {
            let place = &images[at].place;
            let reference = manifest_reference(&place.reference);
            let found = registry
                .find_manifest(&place.repository, &reference)
                .await?;
            Ok(found.map(|descriptor| descriptor.digest))
        })
        .buffered(concurrency)
        .collect()
        .await
}

fn manifest_reference(reference: &Reference) -> ManifestReference {
    match reference {
        Reference::Tag(tag) => ManifestReference::Tag(tag.clone()),
        Reference::Digest(digest) => ManifestReference::Digest(*digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Action, Message};

    fn unknown(missing: &[Digest]) -> Error {
        Error::Registry(registry::Error::ManifestBlobUnknown {
            action: Action::new("write manifest".to_owned(), "registry.example"),
            message: Message::default(),
            missing: missing.iter().copied().collect(),
        })
    }

    #[test]
    fn only_what_was_left_out_makes_a_registry_one_that_wants_whole_indexes() {
        let (left_out, lost) = (Digest::of(b"left out"), Digest::of(b"lost"));
        let sparse = BTreeSet::from([left_out]);
        for (missing, omitted, is_sparse) in [
            (vec![left_out], &sparse, true),
            (vec![lost, left_out], &sparse, true),
            (vec![], &sparse, true),
            (vec![lost], &sparse, false),
            (vec![lost], &BTreeSet::new(), false),
            (vec![], &BTreeSet::new(), false),
        ] {
            let error = explain(unknown(&missing), omitted);
            let found = matches!(error, Error::SparseRefused { .. });
            assert_eq!(found, is_sparse, "{missing:?} {omitted:?}");
        }
        let error = explain(unknown(&[]), &sparse);
        assert_eq!(error.class(), Class::Rejected);
        assert!(error.hint().unwrap().contains("rewritten"));
        assert!(matches!(explain(Error::Stopped, &sparse), Error::Stopped));
    }
}
