//! Runs that somebody waits for, without a schedule: of chosen packages, once.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::apply::observe;
use super::resources::{self, WantedResources};
use super::run::Run;
use super::trigger::Reason;
use super::wanted::{Wanted, WantedPackage};
use super::{Error, Foreign, Replicate, problem};
use crate::base::Digest;
use crate::catalog::{ImageReport, PackageRecord, Problem, RunCounts, RunOutcome, RunRecord};

/// Which images must be there before resources are published that name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// All of them: the registry is asked.
    Checked,
    /// Whoever asks for it says that they are: the registry is not asked.
    Claimed,
}

/// What became of packages that were brought to a target.
#[derive(Debug)]
pub struct Brought {
    /// The record of the run.
    pub run: RunRecord,
    /// What was done for each image.
    pub images: Vec<ImageReport>,
    /// The packages of which everything is in place.
    pub in_sync: Vec<Digest>,
}

impl Replicate {
    /// Brings these packages to the target now, and nothing else. What is not in the catalog is left out.
    pub async fn run_once(
        &mut self,
        packages: &[Digest],
        stop: &CancellationToken,
    ) -> Result<Brought, Error> {
        let record = self.record()?;
        let packages = self.find_packages(packages)?;
        let ended = Run::new(self, Wanted::collect(packages, self.target.foreign), stop)
            .finish(Reason::Request)
            .await?;
        self.finish(record, &ended, None)?;
        Ok(Brought {
            run: ended.run,
            images: ended.images,
            in_sync: ended.synced.unwrap_or_default(),
        })
    }

    /// Publishes the resources of these packages now, without bringing an image to the registry.
    pub async fn publish_once(
        &self,
        packages: &[Digest],
        presence: Presence,
    ) -> Result<Brought, Error> {
        let started_at = self.clock.now();
        let wanted = Wanted::collect(self.find_packages(packages)?, Foreign::Skip);
        let mut counts = RunCounts::default();
        let missing = match presence {
            Presence::Checked => self.find_missing(&wanted, &mut counts).await,
            Presence::Claimed => BTreeMap::new(),
        };
        let is_complete = |package: &WantedPackage| {
            !package
                .images
                .iter()
                .any(|image| missing.contains_key(image))
        };
        let target = &self.target;
        let mut failed = BTreeMap::new();
        if let Some(platform) = &target.platform {
            let collected =
                WantedResources::collect(target, platform, &self.catalog, &wanted, &is_complete)
                    .await?;
            let timeout = self.options.verdict_timeout;
            failed = resources::apply(platform, &collected, timeout, &mut counts).await;
        }
        let packages = wanted.packages.iter();
        let in_sync = packages
            .filter(|package| is_complete(package) && !failed.contains_key(&package.digest))
            .map(|package| package.digest)
            .collect();
        let mut problems: Vec<Problem> =
            failed.into_values().chain(missing.into_values()).collect();
        problems.dedup();
        let outcome = if problems.is_empty() {
            RunOutcome::InSync
        } else {
            RunOutcome::Incomplete
        };
        let run = RunRecord {
            target: target.name.clone(),
            started_at,
            finished_at: self.clock.now(),
            reason: Reason::Request.name().to_owned(),
            outcome,
            counts,
            problems,
        };
        Ok(Brought {
            run,
            images: Vec::new(),
            in_sync,
        })
    }

    /// Asks the registry for every image. Returns why those are not in place that are not, by index.
    async fn find_missing(
        &self,
        wanted: &Wanted,
        counts: &mut RunCounts,
    ) -> BTreeMap<usize, Problem> {
        let registry = &self.target.registry;
        let before = registry.counters();
        let found = observe(registry, &wanted.images, self.options.concurrency).await;
        let mut missing = BTreeMap::new();
        for (index, (image, found)) in wanted.images.iter().zip(found).enumerate() {
            let error = match found {
                Ok(Some(digest)) if digest == image.root.digest => continue,
                Ok(found) => Error::ImageAbsent {
                    wanted: image.root.digest,
                    found,
                },
                Err(error) => error,
            };
            missing.insert(index, problem(format!("image {}", image.place), &error));
        }
        let after = registry.counters();
        counts.images_wanted = wanted.images.len() as u64;
        counts.images_failed = missing.len() as u64;
        counts.images_in_sync = counts.images_wanted - counts.images_failed;
        counts.requests = after.requests - before.requests;
        counts.retries = after.retries - before.retries;
        missing
    }

    /// Returns the records of these packages, in the order in which they became ready.
    fn find_packages(&self, digests: &[Digest]) -> Result<Vec<PackageRecord>, Error> {
        let mut packages = Vec::with_capacity(digests.len());
        for digest in digests {
            packages.extend(self.catalog.find_package(digest)?);
        }
        packages.sort_by_key(|package| package.ready_at);
        Ok(packages)
    }
}
