//! Runs that somebody waits for, without a schedule: of chosen packages, once.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::apply::observe;
use super::resources::{self, WantedResources};
use super::run::Run;
use super::trigger::Reason;
use super::wanted::Wanted;
use super::{Error, Replicate, problem};
use crate::base::Digest;
use crate::catalog::{PackageRecord, Problem, RunCounts, RunOutcome, RunRecord};

/// Which images must be there before resources are published that name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// All of them: the registry is asked.
    Checked,
    /// Whoever asks for it says that they are: the registry is not asked.
    Claimed,
}

impl Replicate {
    /// Brings these packages to the target now, and nothing else. What is not in the catalog is left out.
    pub async fn run_once(
        &mut self,
        packages: &[Digest],
        stop: &CancellationToken,
    ) -> Result<RunRecord, Error> {
        let record = self.record()?;
        let packages = self.find_packages(packages)?;
        let (run, synced) = Run::new(self, Wanted::collect(packages), stop)
            .finish(Reason::Request)
            .await?;
        self.finish(record, &run, synced, None)?;
        Ok(run)
    }

    /// Publishes the resources of these packages now, without bringing an image to the registry.
    pub async fn publish_once(
        &mut self,
        packages: &[Digest],
        presence: Presence,
    ) -> Result<RunRecord, Error> {
        let started_at = self.clock.now();
        let wanted = Wanted::collect(self.find_packages(packages)?);
        let mut counts = RunCounts::default();
        let missing = match presence {
            Presence::Checked => self.find_missing(&wanted, &mut counts).await,
            Presence::Claimed => BTreeMap::new(),
        };
        let is_complete = |package: &super::wanted::WantedPackage| {
            !package
                .images
                .iter()
                .any(|image| missing.contains_key(image))
        };
        let target = &self.target;
        let mut problems: Vec<Problem> = Vec::new();
        if let Some(platform) = &target.platform {
            let collected =
                WantedResources::collect(target, platform, &self.catalog, &wanted, is_complete)
                    .await?;
            let timeout = self.options.verdict_timeout;
            let failed = resources::apply(platform, &collected, timeout, &mut counts).await;
            problems.extend(failed.into_values());
        }
        problems.extend(missing.into_values());
        problems.dedup();
        let outcome = if problems.is_empty() {
            RunOutcome::InSync
        } else {
            RunOutcome::Incomplete
        };
        Ok(RunRecord {
            target: target.name.clone(),
            started_at,
            finished_at: self.clock.now(),
            reason: Reason::Request.name().to_owned(),
            outcome,
            counts,
            problems,
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
