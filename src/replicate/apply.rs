//! Carries out a plan against one registry: bounded, and in the order that `flow.rs` says.
//!
//! # Failure
//!
//! A step that fails takes the images down that need it, and no others. A manifest that the registry refuses because a
//! blob is missing there, although it was known to hold it, is put together again with every blob asked for, once; what was
//! known of it is forgotten. Where what is missing was left out of the package, that would bring nothing: such a registry does
//! not take sparse indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::flow::{BlobJob, Cause, Failures, Flow, ImageJob, Reach, Step};
use super::held::Held;
use super::manifests::{Belief, Manifests};
use super::plan::{ImageStep, Plan};
use super::report::{How, Journal};
use super::uploads::Ledger;
use super::wanted::{Reference, WantedImage};
use super::{Error, problem};
use crate::base::{Class, Classified as _, Digest};
use crate::catalog::{ImageState, Problem, RunCounts};
use crate::registry::{self, BlobSource, Client, ManifestReference, Mount, Uploaded};
use crate::store::{Lease, Store};

/// What applying needs.
#[derive(Debug)]
pub(super) struct Executor<'a> {
    pub(super) registry: &'a Client,
    pub(super) store: &'a Store,
    /// On everything that is pushed: renewed with every step.
    pub(super) lease: &'a Lease,
    /// What the target is known to hold: added to with every step.
    pub(super) held: &'a Held<'a>,
    /// Uploads that are not finished.
    pub(super) uploads: &'a Ledger<'a>,
    /// Is told of every step.
    pub(super) journal: &'a Journal,
    /// Steps under way at one time.
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
    /// Those of the sent ones of which a part was there.
    pub(super) resumed: u64,
    /// How much that was.
    pub(super) resumed_bytes: u64,
}

/// What became of a step.
#[derive(Debug)]
enum Done {
    Blob(BlobJob, Result<How, Error>),
    Image(ImageJob, Result<(), Error>),
}

impl BlobCounts {
    const fn add(&mut self, how: How) {
        match how {
            How::Sent { resumed_bytes, .. } => {
                self.sent += 1;
                if resumed_bytes > 0 {
                    self.resumed += 1;
                    self.resumed_bytes += resumed_bytes;
                }
            }
            How::Mounted => self.mounted += 1,
            How::Skipped => self.skipped += 1,
        }
    }

    /// Adds these to the counts of a run.
    pub(super) const fn add_to(&self, counts: &mut RunCounts) {
        counts.blobs_sent += self.sent;
        counts.blobs_mounted += self.mounted;
        counts.blobs_skipped += self.skipped;
        counts.blobs_resumed += self.resumed;
        counts.bytes_resumed += self.resumed_bytes;
    }
}

impl Executor<'_> {
    /// Carries out `plan`, which was made for `wanted`.
    pub(super) async fn apply(&self, plan: &Plan, wanted: &[WantedImage]) -> Applied {
        let work = Work {
            executor: self,
            plan,
            wanted,
            manifests: Manifests::new(self, plan),
        };
        let (flow, failures) = Flow::new(plan, self.concurrency);
        let mut account = Account {
            work: &work,
            flow,
            applied: Applied::default(),
        };
        account.fail(failures, None);
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.concurrency
                && let Some(step) = account.flow.next()
            {
                running.push(work.run(step));
            }
            match running.next().await {
                Some(Done::Blob(job, result)) => account.end_blob(&job, result),
                Some(Done::Image(job, result)) => account.end_image(job, result),
                None => break,
            }
        }
        self.held.flush();
        account.applied
    }

    pub(super) fn check_stop(&self) -> Result<(), Error> {
        if self.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        Ok(())
    }
}

/// Keeps account of what became of the steps of a plan: every one of them ends here.
struct Account<'a> {
    work: &'a Work<'a>,
    flow: Flow<'a>,
    applied: Applied,
}

impl Account<'_> {
    fn end_blob(&mut self, job: &BlobJob, result: Result<How, Error>) {
        let Work { executor, plan, .. } = self.work;
        let size_bytes = plan.content(job.what.blob).size_bytes;
        let how = result.as_ref().ok().copied();
        executor.journal.end_blob(job.what, size_bytes, how);
        match result {
            Ok(how) => {
                self.applied.blobs.add(how);
                let repository = plan.repository(job.what.repository);
                executor
                    .held
                    .confirm(repository, plan.digest(job.what.blob));
                self.flow.arrived(job);
            }
            Err(error) => {
                let failures = self.flow.failed(job, reach(&error));
                self.fail(failures, Some(&error));
            }
        }
    }

    fn end_image(&mut self, job: ImageJob, result: Result<(), Error>) {
        let Work { executor, plan, .. } = self.work;
        let step = &plan.images[job.at];
        let omitted = plan.omitted_of(step);
        let place = &self.work.wanted[step.index].place;
        match result {
            Ok(()) => {
                self.applied.pushed.insert(step.index);
                executor.journal.end_image(step.index, ImageState::Pushed);
                self.flow.in_place(job);
                let digest = self.work.wanted[step.index].root.digest;
                tracing::info!(
                    registry = executor.registry.address(),
                    image = %place,
                    %digest,
                    "image is in place"
                );
            }
            Err(error) if !job.is_again && self.work.is_lost(&error, step) => {
                tracing::warn!(image = %place, "registry lacks content that it was known to hold, image is sent again");
                self.work.forget(step);
                self.flow.refused(job);
            }
            Err(error) => {
                let error = explain(error, omitted);
                let failures = self.flow.not_in_place(job);
                self.fail(failures, Some(&error));
            }
        }
    }

    /// Writes down why images fail: those that fail by a step by this error.
    fn fail(&mut self, failures: Failures, of_step: Option<&Error>) {
        let Work {
            executor,
            plan,
            wanted,
            ..
        } = self.work;
        for (at, cause) in failures {
            let step = &plan.images[at];
            executor.journal.end_image(step.index, ImageState::Failed);
            let subject = format!("image {}", wanted[step.index].place);
            let problem = match (cause, of_step) {
                (Cause::Step, Some(error)) => problem(subject, error),
                (Cause::Step | Cause::Subject, _) => {
                    let about = step.after.first().map(|index| &wanted[*index].place);
                    let error = Error::SubjectAbsent {
                        subject: about.map(ToString::to_string).unwrap_or_default(),
                    };
                    problem(subject, &error)
                }
            };
            self.applied.failed.insert(step.index, problem);
        }
    }
}

/// Returns how far a failure to bring a blob reaches.
fn reach(error: &Error) -> Reach {
    match error {
        Error::Stopped | Error::Store(_) => Reach::Blob,
        Error::Registry(error) => match error.class() {
            // Damaged content may be damaged here: each try sends all of it.
            Class::Transient | Class::Full | Class::Corrupt => Reach::Passing,
            Class::Usage | Class::Rejected | Class::Absent | Class::Denied | Class::Bug => {
                Reach::Repository
            }
        },
        Error::Platform(_)
        | Error::Catalog(_)
        | Error::Tree(_)
        | Error::Conflict { .. }
        | Error::SparseRefused { .. }
        | Error::SubjectAbsent { .. }
        | Error::ImageAbsent { .. }
        | Error::NoArtifact
        | Error::NoModulePlugin
        | Error::ResourceFailed { .. }
        | Error::ResourcePending { .. } => Reach::Repository,
    }
}

/// Returns whether a registry understood what it was asked for and does not do it.
const fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Registry(
            registry::Error::Forbidden { .. }
                | registry::Error::ReadOnly { .. }
                | registry::Error::Status { .. }
        )
    )
}

/// Does the steps of a plan.
struct Work<'a> {
    executor: &'a Executor<'a>,
    plan: &'a Plan,
    wanted: &'a [WantedImage],
    manifests: Manifests<'a>,
}

impl Work<'_> {
    async fn run(&self, step: Step) -> Done {
        match step {
            Step::Blob(job) => {
                let share = self.executor.journal.begin_blob(job.what);
                Done::Blob(job, share.count(self.move_blob(&job)).await)
            }
            Step::Image(job) => {
                let index = self.plan.images[job.at].index;
                let share = self.executor.journal.begin_image(index);
                Done::Image(job, share.count(self.put_image(job)).await)
            }
        }
    }

    /// Brings one blob to one repository: by mount where it is known from where, otherwise after asking whether it is there.
    async fn move_blob(&self, job: &BlobJob) -> Result<How, Error> {
        self.executor.check_stop()?;
        let Executor {
            registry,
            store,
            lease,
            uploads,
            ..
        } = self.executor;
        lease.renew();
        let repository = self.plan.repository(job.what.repository);
        let blob = self.plan.content(job.what.blob);
        let digest = blob.digest;
        // A blob that the store lacks is found out here, before a session is opened on the registry.
        store
            .open_blob(&digest)
            .inspect_err(|error| store.suspect_after(digest, error))?;
        let content = Store::clone(store);
        let source: BlobSource = Arc::new(move || {
            let blob = content.open_blob(&digest).map_err(std::io::Error::other)?;
            Ok(blob.file)
        });
        let from = job.from.map(|from| self.plan.repository(from));
        // The mount from itself asks and begins in one request.
        let mount = from.map_or(Mount::Itself, Mount::From);
        let uploaded = registry
            .upload_blob(repository, &blob, &source, mount, *uploads)
            .await
            .inspect_err(|error| {
                // Either the content has changed on its way or it is damaged here.
                if error.class() == Class::Corrupt {
                    store.suspect(digest);
                }
            })?;
        Ok(match uploaded {
            Uploaded::Mounted => How::Mounted,
            Uploaded::Present => How::Skipped,
            Uploaded::Sent {
                bytes,
                resumed_bytes,
            } => How::Sent {
                bytes,
                resumed_bytes,
            },
        })
    }

    /// Puts the manifests of one image, children first, its place last.
    async fn put_image(&self, job: ImageJob) -> Result<(), Error> {
        let step = &self.plan.images[job.at];
        self.executor.lease.renew();
        let belief = if job.is_again {
            Belief::Nothing
        } else {
            Belief::Known
        };
        let place = manifest_reference(&self.wanted[step.index].place.reference);
        self.manifests.put_children(step, belief).await?;
        let put = self.manifests.put_root(step, &place).await;
        if put.as_ref().is_err_and(is_refusal) && self.is_there(step, &place).await {
            return Ok(());
        }
        put
    }

    /// Returns whether an image is in place that the registry refuses to take. Tags may be immutable, and somebody else, or a
    /// try of ours whose answer was lost, was there before.
    async fn is_there(&self, step: &ImageStep, place: &ManifestReference) -> bool {
        let Executor { registry, .. } = self.executor;
        let repository = self.plan.repository(step.repository);
        let found = registry.find_manifest(repository, place).await;
        let digest = self.wanted[step.index].root.digest;
        found.is_ok_and(|found| found.is_some_and(|found| found.digest == digest))
    }

    /// Returns whether a registry lacks content that it should hold.
    fn is_lost(&self, error: &Error, step: &ImageStep) -> bool {
        use registry::Error::{ForeignLayers, ManifestBlobUnknown};

        if let Error::Registry(ManifestBlobUnknown { missing, .. }) = error {
            return missing.is_disjoint(self.plan.omitted_of(step));
        }
        // Foreign layers that are not pushed are not there in any case.
        if let Error::Registry(ForeignLayers { missing, .. }) = error {
            let mut blobs = self.plan.blobs_of(step).iter();
            return missing.is_empty()
                || blobs.any(|blob| missing.contains(&self.plan.digest(*blob)));
        }
        false
    }

    /// Forgets that the repository of an image holds what the image consists of.
    fn forget(&self, step: &ImageStep) {
        let blobs = self.plan.blobs_of(step).iter();
        let all = blobs.chain(self.plan.manifests_of(step));
        let all = all.map(|content| self.plan.digest(*content));
        let repository = self.plan.repository(step.repository);
        self.executor.held.forget(repository, all);
        self.manifests.forget(step);
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
        let stopped = explain(Error::Stopped, &sparse);
        assert!(matches!(stopped, Error::Stopped));
    }
}
