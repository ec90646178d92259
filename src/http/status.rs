//! Puts together what the status says, from the catalog and from what the tasks are doing.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::view::{DiskView, FileView, PackageView, RunningView, StatusView, TargetView};
use crate::base::{Clock, Digest, TargetName, Timestamp};
use crate::catalog::{self, Catalog, IngestRecord, IngestState, PackageRecord, TargetRecord};
use crate::ingest::{self, Note, Notes};
use crate::replicate::wanted::{Filter, lag};
use crate::replicate::{self, Role};
use crate::store::{self, Store};
use crate::task;

/// What the admin API looks at.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The index.
    pub catalog: Catalog,
    /// The blobs; only its disk space is looked at.
    pub store: Store,
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
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Sources {
    /// Returns the whole status.
    pub fn status(&self) -> Result<StatusView, Error> {
        let now = self.clock.now();
        let packages = self.catalog.list_packages()?;
        let mut targets = Vec::with_capacity(self.targets.len());
        let mut synced: Vec<(TargetName, Vec<Digest>)> = Vec::new();
        for target in &self.targets {
            let record = self.catalog.find_target(&target.name)?;
            let held = record
                .as_ref()
                .map(|record| record.synced_packages.clone())
                .unwrap_or_default();
            targets.push(target.view(&packages, record, now));
            synced.push((target.name.clone(), held));
        }
        let space = self.store.space()?;
        let packages = packages.into_iter().map(|package| {
            let holders = synced
                .iter()
                .filter(|(_, held)| held.contains(&package.digest));
            let in_sync_on = holders.map(|(name, _)| name.clone()).collect();
            PackageView::new(package, in_sync_on)
        });
        Ok(StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            now,
            is_in_sync: targets.iter().all(|target| target.is_in_sync),
            disk: DiskView {
                available_bytes: space.available_bytes,
                total_bytes: space.total_bytes,
            },
            packages: packages.collect(),
            files: self.files()?,
            targets,
            ingest_problem: self.ingest.borrow().last.clone().and_then(Result::err),
        })
    }

    fn files(&self) -> Result<Vec<FileView>, Error> {
        let notes = self.notes.borrow().clone();
        let records = self.catalog.list_ingests()?;
        let files = records
            .into_iter()
            .filter(|record| !matches!(record.state, IngestState::Ready { .. }))
            .map(|record| {
                let note = notes.get(Path::new(&record.path));
                file_view(record, note)
            });
        Ok(files.collect())
    }
}

impl TargetSource {
    fn view(
        &self,
        packages: &[PackageRecord],
        record: Option<TargetRecord>,
        now: Timestamp,
    ) -> TargetView {
        let wanted: Vec<PackageRecord> = packages
            .iter()
            .filter(|package| self.filter.matches(&package.name))
            .cloned()
            .collect();
        let (held, last_run, last_success_at) = match record {
            Some(record) => (
                record.synced_packages,
                record.last_run,
                record.last_success_at,
            ),
            None => (Vec::new(), None, None),
        };
        let in_sync = wanted
            .iter()
            .filter(|package| held.contains(&package.digest));
        let in_sync = in_sync.count();
        let progress = self.handle.progress();
        TargetView {
            name: self.name.clone(),
            role: self.role.name().to_owned(),
            registry: self.registry.clone(),
            is_in_sync: in_sync == wanted.len(),
            packages_wanted: wanted.len(),
            packages_in_sync: in_sync,
            lag_seconds: lag(&wanted, &held, now).map(|lag| lag.num_seconds()),
            running: progress.running.map(|(reason, started_at)| RunningView {
                reason: reason.name().to_owned(),
                started_at,
            }),
            last_run,
            last_success_at,
            next_run_at: progress.next_scheduled_at,
            retry_at: progress.retry_at,
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
