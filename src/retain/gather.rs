//! From the catalog to a plan: what retention looks at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Error;
use super::blobs::{Blobs, Freed, Gathered};
use super::plan::{Package, Plan, Reason, Removal};
use super::policy::Policy;
use crate::base::{Clock, Digest, NamePattern, PackageName, TargetName};
use crate::catalog::{Catalog, ImageRecord, PackageRecord, Placement};

/// A configured target, as far as retention looks at it.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its name.
    pub name: TargetName,
    /// Names of the packages that are meant for it.
    pub packages: Vec<NamePattern>,
}

/// What plans are made of. Clones share one lock.
#[derive(Clone, Debug)]
pub struct Planner {
    /// The index.
    pub catalog: Catalog,
    /// The rules.
    pub policy: Policy,
    /// All configured targets.
    pub destinations: Vec<Destination>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Held while a package is looked at for the last time and removed, and while pins change.
    pub lock: Arc<Mutex<()>>,
}

/// What a target holds.
struct Holdings<'d> {
    destination: &'d Destination,
    /// Packages that it holds whole.
    synced: Vec<Digest>,
    /// Tags that we put there and what they stand for, hashed.
    placed: Vec<Digest>,
}

impl Destination {
    fn is_meant_for(&self, name: &PackageName) -> bool {
        self.packages.iter().any(|pattern| pattern.matches(name))
    }
}

impl Holdings<'_> {
    fn lacks(&self, package: &Digest, name: &PackageName) -> bool {
        self.destination.is_meant_for(name) && self.synced.binary_search(package).is_err()
    }

    /// Returns whether a package still stands there: an image of it, or all of it where it has none, which nothing replaces.
    fn publishes(&self, package: &PackageRecord) -> bool {
        let mut images = package.images.iter();
        let holds = || self.synced.binary_search(&package.digest).is_ok();
        images.any(|image| self.shows(&package.digest, image))
            || (package.images.is_empty() && holds())
    }

    /// Returns whether the image of a package still stands there. One that has no tag is never replaced.
    fn shows(&self, package: &Digest, image: &ImageRecord) -> bool {
        match image.reference.tag() {
            Some(tag) => {
                let repository = image.reference.repository();
                let place = place_hash(repository.as_str(), tag.as_str(), &image.digest);
                self.placed.binary_search(&place).is_ok()
            }
            None => self.synced.binary_search(package).is_ok(),
        }
    }
}

/// Returns 32 bytes that stand for a tag and what it stands for: there may be a hundred thousand of them.
fn place_hash(repository: &str, tag: &str, digest: &Digest) -> Digest {
    Digest::of(format!("{repository}:{tag}@{digest}").as_bytes())
}

impl Planner {
    /// Returns what would be removed now, and what that frees.
    pub fn plan(&self) -> Result<Plan, Error> {
        let holdings = self.holdings()?;
        let published = self.published(&holdings)?;
        // Ordered by digest.
        let pins: Vec<Digest> = self
            .catalog
            .list_pins()?
            .into_iter()
            .map(|pin| pin.package)
            .collect();
        let packages = self.catalog.summaries().into_iter().map(|package| {
            let digest = package.digest;
            let lacking = holdings.iter().find(|it| it.lacks(&digest, &package.name));
            Package {
                digest,
                name: package.name.clone(),
                version: package.version.clone(),
                kind: package.kind,
                ready_at: package.ready_at,
                is_pinned: pins.binary_search(&digest).is_ok(),
                pending_on: lacking.map(|it| it.destination.name.clone()),
                published_on: published.get(&digest).cloned(),
            }
        });
        let mut plan = Plan::new(&self.policy, packages.collect(), self.clock.now());
        self.weigh(&mut plan.removals)?;
        Ok(plan)
    }

    /// Finds out what removals free, if all other packages stay, as far as it is known what each keeps.
    pub(super) fn weigh(&self, removals: &mut [Removal]) -> Result<(), Error> {
        let positions: BTreeMap<Digest, usize> = removals
            .iter()
            .enumerate()
            .map(|(position, removal)| (removal.package.digest, position))
            .collect();
        if positions.is_empty() {
            return Ok(());
        }
        let kept = kept_blobs(&self.catalog, |package| !positions.contains_key(package))?;
        let mut freed = Freed::new(kept);
        self.catalog.for_each_content(|package, content| {
            if let Some(position) = positions.get(&package) {
                freed.add(*position, &content);
            }
            Ok::<(), Error>(())
        })?;
        let amounts = freed.finish(removals.len());
        for (removal, amount) in removals.iter_mut().zip(amounts) {
            removal.freed = amount;
        }
        Ok(())
    }

    /// Returns what keeps a package at this moment that a plan removes: it was pinned meanwhile, or a target has lost it.
    pub(super) fn recheck(&self, package: &Digest) -> Result<Option<Reason>, Error> {
        if self.catalog.find_pin(package)?.is_some() {
            return Ok(Some(Reason::Pinned));
        }
        let Some(record) = self.catalog.find_package(package)? else {
            return Ok(None);
        };
        for destination in &self.destinations {
            let held = self.catalog.find_target(&destination.name)?;
            let holds = held.is_some_and(|held| held.synced_packages.contains(package));
            if destination.is_meant_for(&record.name) && !holds {
                let target = destination.name.clone();
                return Ok(Some(Reason::Pending { target }));
            }
        }
        Ok(None)
    }

    /// Keeps pins and removals apart.
    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().expect("no holder of this lock panics")
    }

    fn holdings(&self) -> Result<Vec<Holdings<'_>>, Error> {
        let mut holdings = Vec::with_capacity(self.destinations.len());
        for destination in &self.destinations {
            let name = &destination.name;
            let record = self.catalog.find_target(name)?;
            let mut synced = record.map_or_else(Vec::new, |record| record.synced_packages.clone());
            synced.sort_unstable();
            let placements = self.catalog.list_placements(name)?;
            let hash =
                |it: &Placement| place_hash(it.repository.as_str(), it.tag.as_str(), &it.digest);
            let mut placed: Vec<Digest> = placements.iter().map(hash).collect();
            placed.sort_unstable();
            holdings.push(Holdings {
                destination,
                synced,
                placed,
            });
        }
        Ok(holdings)
    }

    /// Returns where packages are published, of those whose rule asks for it.
    fn published(&self, holdings: &[Holdings<'_>]) -> Result<BTreeMap<Digest, TargetName>, Error> {
        let mut published = BTreeMap::new();
        if self.policy.rules.iter().all(|rule| !rule.keeps_published) {
            return Ok(published);
        }
        self.catalog.for_each_package(|package: PackageRecord| {
            let rule = self.policy.find(&package.name, package.kind);
            if rule.is_some_and(|(_, rule)| rule.keeps_published)
                && let Some(place) = holdings.iter().find(|it| it.publishes(&package))
            {
                published.insert(package.digest, place.destination.name.clone());
            }
            Ok::<(), Error>(())
        })?;
        Ok(published)
    }
}

/// Returns the blobs that packages keep which fit, as far as that is known, and those that files wait with.
pub(super) fn kept_blobs(
    catalog: &Catalog,
    fits: impl Fn(&Digest) -> bool,
) -> Result<Blobs, Error> {
    let mut wanted = Gathered::default();
    catalog.for_each_content(|package, content| {
        if fits(&package) {
            wanted.insert_content(&content);
        }
        Ok::<(), Error>(())
    })?;
    for file in catalog.list_unfinished_ingests() {
        wanted.extend(file.state.kept());
    }
    Ok(wanted.finish())
}
