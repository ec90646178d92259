//! Puts together what the status says, from the catalog and from what the tasks are doing.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::view::{
    DiskView, FileView, PackageDetailView, PackageView, RunningView, StatusView, TargetView,
};
use crate::base::{Class, Classified, Clock, Digest, TargetName, Timestamp};
use crate::catalog::{self, Catalog, IngestRecord, IngestState, PackageSummary, TargetRecord};
use crate::ingest::{self, Note, Notes};
use crate::replicate::wanted::{Filter, lag};
use crate::replicate::{self, Role};
use crate::retain::scrub;
use crate::sys::disk::Alarm;
use crate::sys::fs;
use crate::task;

/// What the admin API looks at.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The index.
    pub catalog: Catalog,
    /// How much space there is for blobs.
    pub disk: Arc<Alarm>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Since when the daemon runs.
    pub started_at: Timestamp,
    /// What files in the drop folders wait for.
    pub notes: watch::Receiver<Notes>,
    /// The state of the ingest task.
    pub ingest: watch::Receiver<task::Status>,
    /// What ingest has done.
    pub ingest_counters: Arc<ingest::Counters>,
    /// What is known of retention and collection.
    pub retain: super::retain::Control,
    /// What is known of scrubs.
    pub scrub: scrub::Control,
    /// The targets, in the order of the configuration.
    pub targets: Vec<TargetSource>,
}

/// What is known of one target.
#[derive(Clone, Debug)]
pub struct TargetSource {
    /// Its name.
    pub name: TargetName,
    /// Its part.
    pub role: Role,
    /// Address of its registry.
    pub registry: String,
    /// Which packages are meant for it.
    pub filter: Filter,
    /// Its task.
    pub handle: replicate::Handle,
}

/// Why the status cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The free space cannot be read.
    #[error(transparent)]
    Disk(#[from] fs::Error),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Catalog(error) => error.class(),
            Self::Disk(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Catalog(error) => error.hint(),
            Self::Disk(error) => error.hint(),
        }
    }
}

/// A target as the configuration has it.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// Its name.
    pub name: &'a TargetName,
    /// Its part.
    pub role: Role,
    /// Address of its registry.
    pub registry: &'a str,
    /// Which packages are meant for it.
    pub filter: &'a Filter,
}

/// What targets hold.
struct Targets {
    views: Vec<TargetView>,
    held: Vec<(TargetName, HashSet<Digest>)>,
}

impl Sources {
    /// Returns the whole status.
    pub fn status(&self) -> Result<StatusView, Error> {
        let now = self.clock.now();
        let packages = self.catalog.summaries();
        let targets = self.look_at_targets(&packages, now)?;
        Ok(StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_running: true,
            started_at: Some(self.started_at),
            now,
            is_in_sync: targets.are_in_sync(),
            disk: self.disk()?,
            packages: targets.package_views(&packages),
            files: self.files(),
            targets: targets.views,
            damage: super::scrub::summary(&self.scrub.overview()),
            ingest_problem: self.ingest.borrow().last.clone().and_then(Result::err),
        })
    }

    /// Returns `limit` of the packages, in the order in which they became ready, from the one behind `after` on.
    pub fn packages(&self, after: Option<Digest>, limit: usize) -> Result<Vec<PackageView>, Error> {
        let packages = self.catalog.summaries();
        let after = packages.iter().position(|it| Some(it.digest) == after);
        let first = after.map_or(0, |index| index + 1);
        let end = first.saturating_add(limit).min(packages.len());
        let targets = self.look_at_targets(&packages, self.clock.now())?;
        Ok(targets.package_views(&packages[first..end]))
    }

    /// Returns all that is known of a package.
    pub fn package(&self, digest: &Digest) -> Result<Option<PackageDetailView>, Error> {
        let Some(package) = self.catalog.find_package(digest)? else {
            return Ok(None);
        };
        let targets = self.look_at_targets(&[], self.clock.now())?;
        Ok(Some(PackageDetailView {
            in_sync_on: targets.holders(digest),
            pin: self.catalog.find_pin(digest)?,
            package,
        }))
    }

    /// Returns what is known of the targets.
    pub fn targets(&self) -> Result<Vec<TargetView>, Error> {
        let packages = self.catalog.summaries();
        Ok(self.look_at_targets(&packages, self.clock.now())?.views)
    }

    /// Returns the space there is.
    pub fn disk(&self) -> Result<DiskView, Error> {
        Ok(DiskView::new(self.disk.look()?, self.disk.marks()))
    }

    /// Returns the files that are not ready.
    pub fn files(&self) -> Vec<FileView> {
        files(&self.catalog, &self.notes.borrow())
    }

    /// Returns an error unless the file system of the store and the catalog can be read.
    pub fn check_readable(&self) -> Result<(), Error> {
        self.disk.look()?;
        // No package has this digest; looking for it reads what looking for any reads.
        self.catalog.find_package(&Digest::of(b""))?;
        Ok(())
    }

    fn look_at_targets(
        &self,
        packages: &[Arc<PackageSummary>],
        now: Timestamp,
    ) -> Result<Targets, Error> {
        let described = self.targets.iter().map(|target| {
            let described = Described {
                name: &target.name,
                role: target.role,
                registry: &target.registry,
                filter: &target.filter,
            };
            (described, target.handle.progress())
        });
        let mut looked = Targets::look(&self.catalog, packages, described, now)?;
        for (view, target) in looked.views.iter_mut().zip(&self.targets) {
            view.pace = Some(target.handle.pace().into());
        }
        Ok(looked)
    }
}

/// Returns the status where no daemon runs: what its catalog knows.
pub fn stopped(
    catalog: &Catalog,
    disk: DiskView,
    targets: &[Described<'_>],
    now: Timestamp,
) -> Result<StatusView, Error> {
    let packages = catalog.summaries();
    let described = targets
        .iter()
        .map(|target| (*target, replicate::Progress::default()));
    let targets = Targets::look(catalog, &packages, described, now)?;
    Ok(StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        is_running: false,
        started_at: None,
        now,
        is_in_sync: targets.are_in_sync(),
        disk,
        packages: targets.package_views(&packages),
        files: files(catalog, &Notes::default()),
        targets: targets.views,
        damage: None,
        ingest_problem: None,
    })
}

fn files(catalog: &Catalog, notes: &Notes) -> Vec<FileView> {
    let records = catalog.list_unfinished_ingests().into_iter();
    let files = records.map(|record| {
        let note = notes.get(Path::new(&record.path));
        file_view(record, note)
    });
    files.collect()
}

impl Targets {
    /// Looks at what the catalog knows of targets, each with what its task is doing.
    fn look<'a>(
        catalog: &Catalog,
        packages: &[Arc<PackageSummary>],
        targets: impl Iterator<Item = (Described<'a>, replicate::Progress)>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let mut all = Self {
            views: Vec::new(),
            held: Vec::new(),
        };
        for (target, progress) in targets {
            let record = catalog.find_target(target.name)?;
            let record = record.unwrap_or_else(|| Arc::new(TargetRecord::new(target.name.clone())));
            let held: HashSet<Digest> = record.synced_packages.iter().copied().collect();
            let wanted = packages
                .iter()
                .filter(|package| target.filter.matches(&package.name));
            let wanted: Vec<&PackageSummary> = wanted.map(AsRef::as_ref).collect();
            all.views
                .push(target.view(&wanted, &held, (&record, progress), now));
            all.held.push((target.name.clone(), held));
        }
        Ok(all)
    }

    fn are_in_sync(&self) -> bool {
        self.views.iter().all(|target| target.is_in_sync)
    }

    fn holders(&self, package: &Digest) -> Vec<TargetName> {
        let holders = self.held.iter().filter(|(_, held)| held.contains(package));
        holders.map(|(name, _)| name.clone()).collect()
    }

    fn package_views(&self, packages: &[Arc<PackageSummary>]) -> Vec<PackageView> {
        let views = packages.iter().map(|package| PackageView {
            package: PackageSummary::clone(package),
            in_sync_on: self.holders(&package.digest),
        });
        views.collect()
    }
}

impl Described<'_> {
    /// Describes the target, given what is meant for it, what it holds, and what is known of it and its task.
    fn view(
        &self,
        wanted: &[&PackageSummary],
        held: &HashSet<Digest>,
        (record, progress): (&TargetRecord, replicate::Progress),
        now: Timestamp,
    ) -> TargetView {
        let missing = wanted
            .iter()
            .filter(|package| !held.contains(&package.digest));
        let missing: Vec<&PackageSummary> = missing.copied().collect();
        let in_sync = wanted.len() - missing.len();
        let lag = lag(missing, now);
        TargetView {
            name: self.name.clone(),
            role: self.role.name().to_owned(),
            registry: self.registry.to_owned(),
            is_in_sync: in_sync == wanted.len(),
            packages_wanted: wanted.len(),
            packages_in_sync: in_sync,
            lag_seconds: lag.map(|lag| lag.num_seconds()),
            running: progress.running.map(|(reason, started_at)| RunningView {
                reason: reason.name().to_owned(),
                started_at,
            }),
            last_run: record.last_run.clone(),
            last_success_at: record.last_success_at,
            next_run_at: progress.next_scheduled_at,
            retry_at: progress.retry_at,
            pace: None,
        }
    }
}

fn file_view(record: IngestRecord, note: Option<&Note>) -> FileView {
    let noted = |state| match note.cloned() {
        Some(Note { code, text, hint }) => (state, Some(text), code.map(str::to_owned), hint),
        None => (state, None, None, None),
    };
    let (state, reason, code, hint) = match record.state {
        IngestState::Seen => noted("seen"),
        IngestState::Settled => noted("settled"),
        IngestState::Verified { .. } => noted("verified"),
        IngestState::Unpacked => noted("unpacked"),
        IngestState::Ready { .. } => ("ready", None, None, None),
        IngestState::Rejected { code, reason, hint } => {
            ("rejected", Some(reason), Some(code), hint)
        }
        IngestState::Waiting { .. } => noted("waiting"),
    };
    FileView {
        path: record.path,
        size_bytes: record.size_bytes,
        state: state.to_owned(),
        reason,
        code,
        hint,
        updated_at: record.updated_at,
    }
}
