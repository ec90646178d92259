//! One run: observe, plan, apply, resources, and what is reported of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::apply::{Applied, Executor, observe};
use super::plan::{Found, ImageState, Plan};
use super::resources::{self, WantedResources};
use super::trigger::Reason;
use super::uploads::Ledger;
use super::wanted::{Reference, Wanted, WantedImage, WantedPackage};
use super::{Error, Replicate, problem};
use crate::base::oci::MANIFEST_BYTES_MAX;
use crate::base::{Class, Classified as _, Digest, Repository, Tree, TreeError};
use crate::catalog::{
    Content, PackageRecord, Placement, Problem, RunCounts, RunOutcome, RunRecord,
};
use crate::store::{self, Lease};

/// The most problems that a record of a run keeps. Chosen, not measured.
const PROBLEMS_MAX: usize = 100;

/// A run in progress.
#[derive(Debug)]
pub(super) struct Run<'a> {
    task: &'a Replicate,
    stop: &'a CancellationToken,
    wanted: Wanted,
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
    /// Returns a run that has done nothing yet. `packages` are in the order in which they became ready.
    pub(super) fn new(
        task: &'a Replicate,
        packages: Vec<PackageRecord>,
        stop: &'a CancellationToken,
    ) -> Self {
        Self {
            task,
            stop,
            wanted: Wanted::collect(packages),
            counts: RunCounts::default(),
            lease: task.store.lease(),
            gone: BTreeSet::new(),
            left_out: BTreeSet::new(),
            in_place: BTreeSet::new(),
            image_problems: BTreeMap::new(),
            package_problems: BTreeMap::new(),
        }
    }

    /// Does the run. Returns its record and the packages that are in sync; `None` where that could not be found out.
    pub(super) async fn finish(
        mut self,
        reason: Reason,
    ) -> Result<(RunRecord, Option<Vec<Digest>>), Error> {
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
        Ok((run, synced))
    }

    /// Brings the images in place. Fails where nothing can be done with the registry at all.
    async fn images(&mut self) -> Result<(), Error> {
        self.counts.images_wanted = self.wanted.images.len() as u64;
        let found = self.observe().await?;
        self.counts.images_in_sync = self.in_place.len() as u64;
        if found.len() > self.in_place.len() {
            tokio::task::block_in_place(|| self.hold(&found))?;
            let trees = tokio::task::block_in_place(|| self.read_trees(&found))?;
            self.bring(&found, &trees).await?;
        } else if self.image_problems.is_empty() {
            // What an earlier run has begun is there by now, or wanted no more.
            let uploads = Ledger::open(&self.task.catalog, &self.task.target.name)?;
            let (registry, now) = (&self.task.target.registry, self.task.clock.now());
            uploads.clear(registry, now, |_, _| false).await;
        }
        self.counts.images_failed = self.image_problems.len() as u64;
        self.counts.images_wanted -= self.left_out.len() as u64;
        self.place()
    }

    /// Leases all that packages keep of which an image is not in place, and leaves out what was removed from the catalog
    /// since it was listed. Blocking.
    ///
    /// In this order: what a package keeps that is in the catalog after the lease was taken stays until the run ends.
    fn hold(&mut self, found: &BTreeMap<usize, Option<Digest>>) -> Result<(), Error> {
        let is_behind = |image: &usize| found.contains_key(image) && !self.in_place.contains(image);
        let mut gone = BTreeSet::new();
        for package in &self.wanted.packages {
            if !package.images.iter().any(is_behind) {
                continue;
            }
            let digest = package.record.digest;
            let content = self.task.catalog.find_content(&digest)?;
            for (blob, _) in content.iter().flat_map(Content::entries) {
                self.lease.add(*blob);
            }
            if self.task.catalog.find_package(&digest)?.is_none() {
                gone.insert(digest);
            }
        }
        self.forget(gone);
        Ok(())
    }

    /// Leaves packages out of the run that are no longer in the catalog, and the images that no other package brings.
    fn forget(&mut self, gone: BTreeSet<Digest>) {
        if gone.is_empty() {
            return;
        }
        for digest in &gone {
            tracing::debug!(target = %self.task.target.name, package = %digest, "package was removed, the run goes on without it");
        }
        self.gone.extend(gone);
        let packages = self.wanted.packages.iter();
        let there = packages.filter(|package| !self.gone.contains(&package.record.digest));
        let mut still: BTreeSet<(usize, Digest)> = BTreeSet::new();
        for package in there {
            let brought: BTreeSet<Digest> = package
                .record
                .images
                .iter()
                .map(|image| image.digest)
                .collect();
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
    }

    /// Finds out whether an image cannot be read because its packages were removed from the catalog meanwhile. Then it is
    /// left out.
    fn is_gone(&mut self, index: usize) -> Result<bool, Error> {
        let mut gone = BTreeSet::new();
        let packages = self.wanted.packages.iter();
        for package in packages.filter(|package| package.images.contains(&index)) {
            let digest = package.record.digest;
            if self.task.catalog.find_package(&digest)?.is_none() {
                gone.insert(digest);
            }
        }
        if gone.is_empty() {
            return Ok(false);
        }
        self.in_place.remove(&index);
        self.forget(gone);
        Ok(self.left_out.contains(&index))
    }

    /// Asks the registry what is at each place. Returns what could be seen, by index.
    async fn observe(&mut self) -> Result<BTreeMap<usize, Option<Digest>>, Error> {
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
        let mut found = BTreeMap::new();
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(digest) => {
                    if digest == Some(images[index].root.digest) {
                        self.in_place.insert(index);
                    }
                    found.insert(index, digest);
                }
                Err(error) => {
                    let subject = subject(&images[index]);
                    self.image_problems.insert(index, problem(subject, &error));
                }
            }
        }
        Ok(found)
    }

    /// Reads from the store what each image consists of, those that could not be asked for included: others may be about
    /// them. Blocking.
    fn read_trees(
        &mut self,
        found: &BTreeMap<usize, Option<Digest>>,
    ) -> Result<BTreeMap<usize, Arc<Tree>>, Error> {
        let (store, lease) = (&self.task.store, &self.lease);
        let mut reader = TreeReader::new(|digest: &Digest| {
            lease.add(*digest);
            let content = store.read(digest, MANIFEST_BYTES_MAX);
            content.inspect_err(|error| store.suspect_after(*digest, error))
        });
        let (mut trees, mut unread) = (BTreeMap::new(), Vec::new());
        let unseen = self.image_problems.keys();
        let indexes = found.keys().chain(unseen);
        for index in indexes.filter(|index| !self.left_out.contains(index)) {
            match reader.read(&self.wanted.images[*index]) {
                Ok(tree) => {
                    trees.insert(*index, tree);
                }
                Err(error) if found.contains_key(index) => unread.push((*index, error)),
                // Why it could not be asked for is said already.
                Err(_) => {}
            }
        }
        for (index, error) in unread {
            if is_absent(&error) && self.is_gone(index)? {
                continue;
            }
            let problem = problem(subject(&self.wanted.images[index]), &Error::from(error));
            self.in_place.remove(&index);
            self.image_problems.insert(index, problem);
        }
        Ok(trees)
    }

    /// Plans and applies what is missing.
    async fn bring(
        &mut self,
        found: &BTreeMap<usize, Option<Digest>>,
        trees: &BTreeMap<usize, Arc<Tree>>,
    ) -> Result<(), Error> {
        let unread = self.unread(trees);
        let all: BTreeMap<usize, &Tree> = trees
            .iter()
            .map(|(index, tree)| (*index, &**tree))
            .chain(unread.iter().map(|(index, tree)| (*index, tree)))
            .collect();
        let mut indexes = Vec::with_capacity(all.len());
        let mut states = Vec::with_capacity(all.len());
        for (index, tree) in all {
            let wanted = &self.wanted.images[index];
            let is_known = !self.image_problems.contains_key(&index);
            let found = found.get(&index).filter(|_| is_known);
            indexes.push(index);
            states.push(ImageState {
                wanted,
                found: found.map_or(Found::Unknown, |found| Found::from(*found)),
                placed: self.placed(wanted)?,
                tree,
            });
        }
        let plan = Plan::new(&states);
        tracing::debug!(target = %self.task.target.name, %plan, "plan");
        let uploads = Ledger::open(&self.task.catalog, &self.task.target.name)?;
        let is_wanted = |repository: &Repository, blob: &Digest| {
            let wanted = states
                .iter()
                .filter(|state| state.wanted.place.repository == *repository);
            let mut blobs = wanted.flat_map(|state| &state.tree.blobs);
            blobs.any(|it| it.descriptor.digest == *blob)
        };
        uploads
            .clear(&self.task.target.registry, self.task.clock.now(), is_wanted)
            .await;
        let executor = Executor {
            registry: &self.task.target.registry,
            store: &self.task.store,
            lease: &self.lease,
            uploads: &uploads,
            concurrency: self.task.options.concurrency,
            stop: self.stop,
        };
        let Applied {
            pushed,
            failed,
            blobs,
        } = executor.apply(&plan, &states).await;
        self.counts.blobs_sent += blobs.sent;
        self.counts.blobs_mounted += blobs.mounted;
        self.counts.blobs_skipped += blobs.skipped;
        self.counts.images_pushed += pushed.len() as u64;
        self.in_place.extend(pushed.iter().map(|at| indexes[*at]));
        let failed = failed.into_iter();
        self.image_problems
            .extend(failed.map(|(at, problem)| (indexes[at], problem)));
        for conflict in &plan.conflicts {
            let error = Error::Conflict {
                wanted: conflict.wanted,
                found: conflict.found,
            };
            let problem = problem(format!("image {}", conflict.place), &error);
            self.image_problems.insert(indexes[conflict.index], problem);
        }
        Ok(())
    }

    /// Returns what is known of images with problems that could not be read: their outermost manifests.
    fn unread(&self, trees: &BTreeMap<usize, Arc<Tree>>) -> Vec<(usize, Tree)> {
        let unread = self.image_problems.keys();
        let unread = unread.filter(|index| !trees.contains_key(index));
        unread
            .map(|index| {
                let tree = Tree {
                    manifests: vec![self.wanted.images[*index].root.clone()],
                    blobs: Vec::new(),
                    omitted: BTreeSet::new(),
                    subjects: BTreeSet::new(),
                };
                (*index, tree)
            })
            .collect()
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
            self.has_images(package) && !self.gone.contains(&package.record.digest)
        };
        let collected = WantedResources::collect(target, platform, &self.wanted, is_complete).await;
        self.package_problems = match collected {
            Ok(resources) => {
                let timeout = self.task.options.verdict_timeout;
                resources::apply(platform, &resources, timeout, &mut self.counts).await
            }
            Err(error) => {
                let problem = problem(format!("platform of {}", target.name), &error);
                let packages = self.wanted.packages.iter();
                packages
                    .map(|package| (package.record.digest, problem.clone()))
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
            .map(|package| package.record.digest)
            .filter(|digest| !self.package_problems.contains_key(digest))
            .filter(|digest| !self.gone.contains(digest))
            .collect()
    }
}

/// What was left out of an image, which may differ from package to package, and what the rest consists of.
type Known<'w> = (&'w BTreeSet<Digest>, Arc<Tree>);

/// Reads what images consist of, once for each: thousands of names may stand for one large index.
struct TreeReader<'w, F> {
    read: F,
    known: HashMap<Digest, Vec<Known<'w>>>,
}

impl<'w, F, E> TreeReader<'w, F>
where
    F: FnMut(&Digest) -> Result<Vec<u8>, E>,
    E: std::error::Error + 'static,
{
    fn new(read: F) -> Self {
        Self {
            read,
            known: HashMap::new(),
        }
    }

    fn read(&mut self, image: &'w WantedImage) -> Result<Arc<Tree>, TreeError<E>> {
        let known = self.known.entry(image.root.digest).or_default();
        if let Some((_, tree)) = known.iter().find(|(omitted, _)| **omitted == image.omitted) {
            return Ok(Arc::clone(tree));
        }
        let tree = Tree::read(&image.root, |manifest| {
            if image.omitted.contains(&manifest.digest) {
                return Ok(None);
            }
            (self.read)(&manifest.digest).map(Some)
        })?;
        let tree = Arc::new(tree);
        known.push((&image.omitted, Arc::clone(&tree)));
        Ok(tree)
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
        bytes_sent = counts.bytes_sent,
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

#[cfg(test)]
mod tests {
    use super::super::wanted::Place;
    use super::*;
    use crate::base::oci::Descriptor;

    #[test]
    fn an_image_of_several_names_is_read_once_unless_other_parts_were_left_out() {
        let blob = |content: &str| {
            let (digest, size) = (Digest::of(content.as_bytes()), content.len());
            format!(r#"{{"mediaType":"m","digest":"{digest}","size":{size}}}"#)
        };
        let child = format!(r#"{{"config":{},"layers":[]}}"#, blob("config"));
        let index = format!(r#"{{"manifests":[{}]}}"#, blob(&child));
        let child_digest = Digest::of(child.as_bytes());
        let image = |tag: &str, omitted: BTreeSet<Digest>| WantedImage {
            place: Place {
                repository: "a".parse().unwrap(),
                reference: Reference::Tag(tag.parse().unwrap()),
            },
            root: Descriptor {
                media_type: "m".to_owned(),
                digest: Digest::of(index.as_bytes()),
                size_bytes: index.len() as u64,
            },
            ours: BTreeSet::new(),
            omitted,
        };
        let mut images: Vec<WantedImage> = ["v1", "v2", "v3"]
            .map(|tag| image(tag, BTreeSet::new()))
            .into();
        images.push(image("v4", BTreeSet::from([child_digest])));
        let mut reads = Vec::new();
        let mut reader = TreeReader::new(|digest: &Digest| {
            reads.push(*digest);
            let content = if *digest == child_digest {
                &child
            } else {
                &index
            };
            Ok::<_, std::convert::Infallible>(content.clone().into_bytes())
        });
        let trees: Vec<usize> = images
            .iter()
            .map(|image| reader.read(image).unwrap().manifests.len())
            .collect();
        assert_eq!(trees, [2, 2, 2, 1]);
        let root = images[0].root.digest;
        assert_eq!(reads, [root, child_digest, root]);
    }
}
