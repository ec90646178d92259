//! One run: observe, plan, apply, resources, and what is reported of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::apply::{Applied, Executor, observe};
use super::held::{Held, Known};
use super::plan::{Found, Plan};
use super::resources::{self, WantedResources};
use super::survey::{Survey, is_incomplete};
use super::trigger::Reason;
use super::uploads::Ledger;
use super::wanted::{Reference, Wanted, WantedImage, WantedPackage};
use super::{Error, Foreign, Others, Replicate, problem};
use crate::base::{Class, Classified as _, Digest, Repository, TreeError};
use crate::catalog::{Content, ImageReport, Placement, Problem, RunCounts, RunOutcome, RunRecord};
use crate::store::{self, Lease};

/// The most problems that a record of a run keeps. Chosen, not measured.
const PROBLEMS_MAX: usize = 100;

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its record.
    pub(super) run: RunRecord,
    /// The packages that are in sync; `None` where that could not be found out.
    pub(super) synced: Option<Vec<Digest>>,
    /// What was done for each image.
    pub(super) images: Vec<ImageReport>,
}

/// A run in progress.
#[derive(Debug)]
pub(super) struct Run<'a> {
    task: &'a Replicate,
    stop: &'a CancellationToken,
    wanted: Arc<Wanted>,
    counts: RunCounts,
    /// On everything that the run may push.
    lease: Lease,
    /// Packages that were removed from the catalog since the run began.
    gone: BTreeSet<Digest>,
    /// Images that only such packages bring, by index.
    left_out: BTreeSet<usize>,
    /// Images that are where they should be, by index.
    in_place: BTreeSet<usize>,
    /// Images that are not, by index.
    image_problems: BTreeMap<usize, Problem>,
    /// Packages whose resources are not as they should be.
    package_problems: BTreeMap<Digest, Problem>,
}

impl<'a> Run<'a> {
    /// Returns a run that has done nothing yet.
    pub(super) fn new(task: &'a Replicate, wanted: Wanted, stop: &'a CancellationToken) -> Self {
        Self {
            task,
            stop,
            wanted: Arc::new(wanted),
            counts: RunCounts::default(),
            lease: task.store.lease(),
            gone: BTreeSet::new(),
            left_out: BTreeSet::new(),
            in_place: BTreeSet::new(),
            image_problems: BTreeMap::new(),
            package_problems: BTreeMap::new(),
        }
    }

    /// Does the run.
    pub(super) async fn finish(mut self, reason: Reason) -> Result<Ended, Error> {
        let started_at = self.task.clock.now();
        let (name, registry) = (&self.task.target.name, &self.task.target.registry);
        let packages = self.wanted.packages.len();
        tracing::info!(target = %name, reason = reason.name(), packages, "run starts");
        let before = registry.counters();
        let mut problems = Vec::new();
        if let Err(error) = self.images().await {
            let subject = format!("registry {}", registry.address());
            problems.push(problem(subject, &error));
        } else {
            self.publish().await;
        }
        if self.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        let synced = problems.is_empty().then(|| self.list_synced());
        let images = self.task.journal.finish(&self.image_problems);
        problems.extend(self.image_problems.into_values());
        problems.extend(self.package_problems.into_values());
        let after = registry.counters();
        self.counts.requests = after.requests - before.requests;
        self.counts.bytes_sent = after.bytes_sent - before.bytes_sent;
        self.counts.retries = after.retries - before.retries;
        // A place of a package may wait for the next run without any problem: it was wanted for another one that is gone now.
        let outcome = match &synced {
            Some(synced) if problems.is_empty() && synced.len() + self.gone.len() == packages => {
                RunOutcome::InSync
            }
            Some(synced) if problems.is_empty() || !synced.is_empty() => RunOutcome::Incomplete,
            Some(_) | None => RunOutcome::Failed,
        };
        let run = RunRecord {
            target: name.clone(),
            started_at,
            finished_at: self.task.clock.now(),
            reason: reason.name().to_owned(),
            outcome,
            counts: self.counts,
            problems: bounded(problems),
        };
        log(&run);
        Ok(Ended {
            run,
            synced,
            images,
        })
    }

    /// Brings the images in place. Fails where nothing can be done with the registry at all.
    async fn images(&mut self) -> Result<(), Error> {
        self.counts.images_wanted = self.wanted.images.len() as u64;
        let mut found = self.observe().await?;
        let Replicate {
            catalog,
            target,
            clock,
            ..
        } = self.task;
        let held = Held::new(catalog, &target.name, clock.now())?;
        let uploads = Ledger::open(catalog, &target.name)?;
        if target.foreign == Foreign::Push {
            let (held, uploads) = (held.recall(), &uploads);
            tokio::task::block_in_place(|| {
                self.note_incomplete(&mut found, &mut Known { held, uploads });
            });
        }
        self.counts.images_in_sync = self.in_place.len() as u64;
        self.task.journal.begin(&self.wanted.images, &found);
        if found.iter().enumerate().any(|it| self.is_behind(it)) {
            let plan = tokio::task::block_in_place(|| {
                self.hold(&found)?;
                self.plan(&found, &held, &uploads)
            })?;
            self.bring(&plan, &held, &uploads).await;
        } else if self.image_problems.is_empty() {
            // What an earlier run has begun is there by now, or wanted no more.
            let now = clock.now();
            uploads.clear(&target.registry, now, |_, _| false).await;
        }
        self.counts.images_failed = self.image_problems.len() as u64;
        self.counts.images_wanted -= self.left_out.len() as u64;
        self.place()
    }

    /// Leases all that packages keep of which an image is not in place, and leaves out what was removed from the catalog
    /// since it was listed. Blocking.
    ///
    /// In this order: what a package keeps that is in the catalog after the lease was taken stays until the run ends.
    fn hold(&mut self, found: &[Found]) -> Result<(), Error> {
        let is_behind = |image: &usize| self.is_behind((*image, &found[*image]));
        let mut gone = BTreeSet::new();
        for package in &self.wanted.packages {
            if !package.images.iter().any(is_behind) {
                continue;
            }
            let digest = package.digest;
            let content = self.task.catalog.find_content(&digest)?;
            for (blob, _) in content.iter().flat_map(Content::entries) {
                self.lease.add(*blob);
            }
            if self.task.catalog.find_package(&digest)?.is_none() {
                gone.insert(digest);
            }
        }
        self.forget(gone)
    }

    /// Leaves packages out of the run that are no longer in the catalog, and the images that no other package brings.
    fn forget(&mut self, gone: BTreeSet<Digest>) -> Result<(), Error> {
        if gone.is_empty() {
            return Ok(());
        }
        for digest in &gone {
            tracing::debug!(target = %self.task.target.name, package = %digest, "package was removed, the run goes on without it");
        }
        self.gone.extend(gone);
        let packages = self.wanted.packages.iter();
        let there = packages.filter(|package| !self.gone.contains(&package.digest));
        let mut still: BTreeSet<(usize, Digest)> = BTreeSet::new();
        for package in there {
            let Some(record) = self.task.catalog.find_package(&package.digest)? else {
                continue;
            };
            let brought: BTreeSet<Digest> = record.images.iter().map(|it| it.digest).collect();
            let images = package
                .images
                .iter()
                .map(|image| (*image, self.wanted.images[*image].root.digest));
            still.extend(images.filter(|(_, root)| brought.contains(root)));
        }
        let all = self.wanted.images.iter().enumerate();
        let out = all.filter(|(index, image)| !still.contains(&(*index, image.root.digest)));
        self.left_out = out
            .map(|(index, _)| index)
            .filter(|index| !self.in_place.contains(index))
            .collect();
        Ok(())
    }

    /// Finds out whether an image cannot be read because its packages were removed from the catalog meanwhile. Then it is
    /// left out.
    fn is_gone(&mut self, index: usize) -> Result<bool, Error> {
        let mut gone = BTreeSet::new();
        let packages = self.wanted.packages.iter();
        for package in packages.filter(|package| package.images.contains(&index)) {
            let digest = package.digest;
            if self.task.catalog.find_package(&digest)?.is_none() {
                gone.insert(digest);
            }
        }
        if gone.is_empty() {
            return Ok(false);
        }
        self.in_place.remove(&index);
        self.forget(gone)?;
        Ok(self.left_out.contains(&index))
    }

    /// Returns whether something is to be done about an image that was found so.
    fn is_behind(&self, (index, found): (usize, &Found)) -> bool {
        *found != Found::Unknown && !self.in_place.contains(&index)
    }

    /// Asks the registry what is at each place. Returns what could be seen, by index.
    async fn observe(&mut self) -> Result<Vec<Found>, Error> {
        let registry = &self.task.target.registry;
        let images = &self.wanted.images;
        let concurrency = self.task.options.concurrency;
        // The first image is asked for alone: a registry that cannot be reached, or that refuses us, is found out once
        // and not once per image.
        let (first, rest) = images.split_at(images.len().min(1));
        let mut answers = observe(registry, first, concurrency).await;
        if let Some(Err(error)) = answers.pop_if(|answer| answer.is_err()) {
            tracing::debug!(
                class = error.class().name(),
                "first image cannot be observed"
            );
            return Err(error);
        }
        answers.extend(observe(registry, rest, concurrency).await);
        let mut found = Vec::with_capacity(answers.len());
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(digest) => {
                    if digest == Some(images[index].root.digest) {
                        self.in_place.insert(index);
                    }
                    found.push(Found::from(digest));
                }
                Err(error) => {
                    let subject = subject(&images[index]);
                    self.image_problems.insert(index, problem(subject, &error));
                    found.push(Found::Unknown);
                }
            }
        }
        Ok(found)
    }

    /// Notes which images in place lack foreign layers. Blocking.
    fn note_incomplete(&mut self, found: &mut [Found], known: &mut Known<'_>) {
        let content = (&self.task.store, &self.lease);
        let (in_place, images) = (&mut self.in_place, &self.wanted.images);
        in_place.retain(|index| {
            let is_incomplete = is_incomplete(&images[*index], content, known);
            if is_incomplete {
                found[*index] = Found::Incomplete;
            }
            !is_incomplete
        });
    }

    /// Plans what is missing. Blocking.
    fn plan(
        &mut self,
        found: &[Found],
        held: &Held<'_>,
        uploads: &Ledger<'_>,
    ) -> Result<Plan, Error> {
        let wanted = Arc::clone(&self.wanted);
        let placed = |image: &WantedImage, found: &Found| match (self.task.target.others, found) {
            // Whatever is there counts as ours.
            (Others::Replace, Found::Image(there)) => Ok(Some(*there)),
            _ => self.placed(image),
        };
        let mut survey = Survey::new(&wanted.images, held, found, placed)?;
        let store = &self.task.store;
        for (index, error) in survey.add_behind(store, &self.lease, &self.left_out) {
            if is_absent(&error) && self.is_gone(index)? {
                continue;
            }
            let problem = problem(subject(&wanted.images[index]), &Error::from(error));
            self.image_problems.insert(index, problem);
        }
        Ok(survey.finish((store, &self.lease), uploads, &self.left_out))
    }

    /// Carries out a plan.
    async fn bring(&mut self, plan: &Plan, held: &Held<'_>, uploads: &Ledger<'_>) {
        let images = &self.wanted.images;
        tracing::debug!(target = %self.task.target.name, plan = %plan.display(images), "plan");
        self.task.journal.plan(plan);
        // Of an image that could not be looked at, nobody knows what it still wants.
        let is_all_known = self.image_problems.is_empty();
        let is_wanted =
            |repository: &Repository, blob: &Digest| !is_all_known || plan.wants(repository, blob);
        uploads
            .clear(&self.task.target.registry, self.task.clock.now(), is_wanted)
            .await;
        let executor = Executor {
            registry: &self.task.target.registry,
            store: &self.task.store,
            lease: &self.lease,
            held,
            uploads,
            journal: &self.task.journal,
            concurrency: self.task.options.concurrency,
            stop: self.stop,
        };
        let Applied {
            pushed,
            failed,
            blobs,
        } = executor.apply(plan, images).await;
        blobs.add_to(&mut self.counts);
        self.counts.images_pushed += pushed.len() as u64;
        self.in_place.extend(pushed);
        self.image_problems.extend(failed);
        for conflict in &plan.conflicts {
            let image = &images[conflict.index];
            let error = Error::Conflict {
                wanted: image.root.digest,
                found: conflict.found,
            };
            let problem = problem(subject(image), &error);
            self.image_problems.insert(conflict.index, problem);
        }
    }

    /// Returns the digest that we put to the place of an image last.
    fn placed(&self, image: &WantedImage) -> Result<Option<Digest>, Error> {
        let Reference::Tag(tag) = &image.place.reference else {
            return Ok(None);
        };
        let (target, repository) = (&self.task.target.name, &image.place.repository);
        let placement = self.task.catalog.find_placement(target, repository, tag)?;
        Ok(placement.map(|placement| placement.digest))
    }

    /// Writes down what is at its place now, where the catalog does not know it yet.
    fn place(&self) -> Result<(), Error> {
        let mut placements = Vec::new();
        for index in &self.in_place {
            let image = &self.wanted.images[*index];
            let Reference::Tag(tag) = &image.place.reference else {
                continue;
            };
            if self.placed(image)? != Some(image.root.digest) {
                placements.push(Placement {
                    target: self.task.target.name.clone(),
                    repository: image.place.repository.clone(),
                    tag: tag.clone(),
                    digest: image.root.digest,
                    placed_at: self.task.clock.now(),
                });
            }
        }
        Ok(self.task.catalog.put_placements(&placements)?)
    }

    /// Publishes the resources of the packages whose images are in place.
    async fn publish(&mut self) {
        let target = &self.task.target;
        let platform = target.platform.as_ref();
        let Some(platform) = platform.filter(|_| !target.holds_resources) else {
            return;
        };
        let is_complete = |package: &WantedPackage| {
            self.has_images(package) && !self.gone.contains(&package.digest)
        };
        let collected = WantedResources::collect(
            target,
            platform,
            &self.task.catalog,
            &self.wanted,
            is_complete,
        )
        .await;
        self.package_problems = match collected {
            Ok(resources) => {
                let timeout = self.task.options.verdict_timeout;
                resources::apply(platform, &resources, timeout, &mut self.counts).await
            }
            Err(error) => {
                let problem = problem(format!("platform of {}", target.name), &error);
                let packages = self.wanted.packages.iter();
                packages
                    .map(|package| (package.digest, problem.clone()))
                    .collect()
            }
        };
    }

    fn has_images(&self, package: &WantedPackage) -> bool {
        let mut images = package.images.iter();
        images.all(|image| self.in_place.contains(image))
    }

    /// Lists the packages of which everything is in place.
    fn list_synced(&self) -> Vec<Digest> {
        let packages = self.wanted.packages.iter();
        packages
            .filter(|package| self.has_images(package))
            .map(|package| package.digest)
            .filter(|digest| !self.package_problems.contains_key(digest))
            .filter(|digest| !self.gone.contains(digest))
            .collect()
    }
}

/// Returns whether a manifest cannot be read because it is not there.
fn is_absent(error: &TreeError<store::Error>) -> bool {
    matches!(error, TreeError::Read { source, .. } if source.class() == Class::Absent)
}

fn subject(image: &WantedImage) -> String {
    format!("image {}", image.place)
}

/// Keeps the first [`PROBLEMS_MAX`] problems, each once.
fn bounded(problems: Vec<Problem>) -> Vec<Problem> {
    let mut kept: Vec<Problem> = Vec::new();
    for problem in problems {
        if kept.len() < PROBLEMS_MAX && !kept.contains(&problem) {
            kept.push(problem);
        }
    }
    kept
}

/// Returns a run in one line.
pub(super) fn summary(run: &RunRecord) -> String {
    let RunCounts {
        images_wanted,
        images_in_sync,
        images_pushed,
        images_failed,
        ..
    } = run.counts;
    format!(
        "{}: {images_wanted} images wanted, {images_in_sync} were in place, {images_pushed} pushed, {images_failed} failed",
        run.outcome.name()
    )
}

fn log(run: &RunRecord) {
    let counts = &run.counts;
    tracing::info!(
        target = %run.target,
        outcome = run.outcome.name(),
        images_wanted = counts.images_wanted,
        images_pushed = counts.images_pushed,
        images_failed = counts.images_failed,
        resources_applied = counts.resources_applied,
        blobs_sent = counts.blobs_sent,
        blobs_mounted = counts.blobs_mounted,
        blobs_resumed = counts.blobs_resumed,
        bytes_sent = counts.bytes_sent,
        bytes_resumed = counts.bytes_resumed,
        requests = counts.requests,
        retries = counts.retries,
        "run ends"
    );
    for problem in &run.problems {
        tracing::warn!(
            target = %run.target,
            subject = problem.subject,
            class = problem.class.name(),
            hint = problem.hint,
            "{}",
            problem.message
        );
    }
}
