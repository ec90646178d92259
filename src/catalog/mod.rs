//! The index: which packages are ready, how far dropped files have come, what targets were given and when.
//!
//! Start from [`Catalog::open`]; what it remembers is in the record types. It does not know the store: whoever commits a
//! package has committed its blobs before.
//!
//! Calls are synchronous. Those that read take well under a millisecond, and those that list packages a few; a synced write
//! takes 0.1 ms on an idle disk (measured on 2026-11-20), a package some ms more for its record file.
//!
//! # Layout
//!
//! A RocksDB database in a directory of its own, with one column per kind of record (`column.rs`, `codec.rs`), and a folder
//! with one record file for each package (`kept.rs`). The record files are the truth about which packages are there, what
//! each keeps in the store, and which are pinned; the database is made anew from them when it is lost. All of it is
//! described byte by byte in `docs/formats/state.md`.
//!
//! # Concurrency
//!
//! One process has it open for writing; RocksDB's own lock refuses a second. Any number of threads share a [`Catalog`].
//! Readers in other processes see it as it was when they opened it.
//!
//! # Durability
//!
//! Each call that changes something is one write batch, which is applied whole or not at all and survives power loss
//! when the call returns; those about uploads survive it some seconds later. What concerns packages is written to their record files before: a crash in between is
//! completed by the next opening (`reconcile.rs`).
//!
//! # Failure
//!
//! On a full disk every write fails with class `full`; reads go on. Some seconds after there is space again writes succeed
//! without anybody doing anything (five were seen on 2026-11-20).
//!
//! A database that is missing or damaged is made anew when it is opened for writing, with a warning, and the damaged one
//! goes to `quarantine/` (`rebuild.rs`); one that is opened for reading is replaced in memory by what the record files
//! say. Only where there never was a folder of record files it is refused, see [`Error::Corrupt`]: there is nothing to
//! make it from. What a newer program has written is always refused, and never replaced.
//!
//! A package whose record file was written and whose rows were not, because the disk was full, is not ready; what it keeps
//! counts as kept, because a restart makes it ready.

mod codec;
mod column;
mod database;
mod error;
mod held;
mod index;
mod kept;
mod packages;
mod rebuild;
mod reconcile;
mod record;
mod report;
mod rows;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::de::DeserializeOwned;

use self::database::{Changes, Database, Start};
use self::index::Index;
use self::kept::Kept;
use crate::base::{Chain, Class, Classified as _, Digest, Repository, Tag, TargetName};

pub use self::column::Column;
pub use self::error::Error;
pub use self::held::{Evidence, HeldReader, HeldRecord};
pub use self::kept::KeptRecord;
pub use self::rebuild::Rebuilt;
pub use self::reconcile::Reconciled;
pub use self::record::{
    CondemnedRecord, Content, Cosigner, ImageRecord, IngestRecord, IngestState, JobRecord,
    NewPackage, PackageRecord, PackageSummary, PinRecord, Placement, Problem, Provenance,
    RunCounts, RunOutcome, RunRecord, TargetRecord, UploadRecord,
};
pub use self::report::{Amount, ImageReport, ImageState, ReportRecord};
pub use self::rows::{Row, Rows, read_record};

/// Where a catalog has what it says from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The database.
    Database,
    /// The record files of the packages, because the database is missing or damaged: only packages and pins are known.
    Records,
}

/// Folder of the database below the state directory.
const DATABASE: &str = "catalog";

/// How many runs are kept of each target: a hundred hourly runs are four days. Chosen, not measured.
pub const RUNS_KEPT: u64 = 100;

/// The open index. A cheap clone.
#[derive(Clone, Debug)]
pub struct Catalog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Database,
    kept: Kept,
    source: Source,
    /// Held while the record files and the rows of packages change, so that they change in the same order.
    changing: Mutex<()>,
    index: Mutex<Index>,
    /// Held while the number of a new run is chosen and used.
    numbering: Mutex<()>,
    /// Packages that became ready since this was opened, in that order. Collection looks again at what came after it had
    /// looked at everything.
    added: Mutex<Vec<Digest>>,
}

impl Catalog {
    /// Opens the catalog in the state directory `root` for writing. Creates what is missing, and makes anew what is damaged.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let kept = Kept::new(root);
        rebuild::resume(root)?;
        let is_new = !rebuild::is_there(root);
        let had_records = kept.is_there();
        let opened = Database::open(&root.join(DATABASE)).and_then(|database| {
            let loaded = Index::load(&database)?;
            Ok((database, loaded))
        });
        let (database, loaded) = match opened {
            Ok(opened) => opened,
            Err(error) if error.class() == Class::Corrupt && had_records => {
                tracing::warn!(reason = %Chain(&error), "catalog is damaged and is made anew from the records of packages");
                let report = rebuild::replace(root, &kept)?;
                tracing::warn!(copied = ?report.copied, lost = report.lost.len(), set_aside = ?report.set_aside, "catalog was made anew");
                let database = Database::open(&root.join(DATABASE))?;
                let loaded = Index::load(&database)?;
                (database, loaded)
            }
            Err(error) => return Err(error),
        };
        rebuild::clear(root)?;
        kept.ensure()?;
        if is_new && had_records {
            tracing::warn!("catalog is missing and is made anew from the records of packages");
        }
        let (index, _) = reconcile::reconcile(&database, &kept, loaded)?;
        Ok(Self::new(database, kept, index, Source::Database))
    }

    /// Opens the catalog in the state directory `root` for reading, as it is at this moment. Changes nothing there.
    ///
    /// Where the database is missing or damaged, packages and pins are those of the record files, and nothing else is known;
    /// see [`Self::source`].
    pub fn open_read_only(root: &Path) -> Result<Self, Error> {
        let kept = Kept::new(root);
        let dir = root.join(DATABASE);
        let opened = Database::open_read_only(&dir).and_then(|database| {
            let (index, _) = Index::load(&database)?;
            Ok((database, index))
        });
        match opened {
            Ok((database, index)) => Ok(Self::new(database, kept, index, Source::Database)),
            Err(error) if is_lost(&error) && kept.is_there() => {
                let database =
                    Database::in_memory(&dir, |database| reconcile::put_readable(database, &kept))?;
                let (index, _) = Index::load(&database)?;
                Ok(Self::new(database, kept, index, Source::Records))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the database in the state directory `root` anew, whether or not it is damaged, and says what came of it. The
    /// old one goes to `quarantine/`.
    ///
    /// The caller makes sure that nobody else has the state directory open.
    pub fn rebuild(root: &Path) -> Result<Rebuilt, Error> {
        let kept = Kept::new(root);
        rebuild::resume(root)?;
        let mut report = if rebuild::is_there(root) {
            rebuild::replace(root, &kept)?
        } else {
            Rebuilt::default()
        };
        let database = Database::open(&root.join(DATABASE))?;
        kept.ensure()?;
        let loaded = Index::load(&database)?;
        let (index, done) = reconcile::reconcile(&database, &kept, loaded)?;
        report.reconciled.add(done);
        report.packages = index.summaries().len() as u64;
        report.without_content = index.without_content().len() as u64;
        Ok(report)
    }

    fn new(database: Database, kept: Kept, index: Index, source: Source) -> Self {
        Self(Arc::new(Inner {
            database,
            kept,
            source,
            changing: Mutex::new(()),
            index: Mutex::new(index),
            numbering: Mutex::new(()),
            added: Mutex::default(),
        }))
    }

    /// Returns where it has what it says from.
    pub fn source(&self) -> Source {
        self.0.source
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.index.lock().expect("no holder of this lock panics")
    }

    /// Lists the blobs that no package keeps as far as that was seen, ordered by digest.
    pub fn list_condemned(&self) -> Result<Vec<(Digest, CondemnedRecord)>, Error> {
        let rows = self.0.database.scan(Column::Condemned, &[], Start::First);
        rows.map(|row| {
            let (key, row) = row?;
            let record = codec::decode(Column::Condemned, &key, &row)?;
            Ok((index::digest_of(Column::Condemned, &key)?, record))
        })
        .collect()
    }

    /// Writes down which blobs no package keeps, and which of those that were written down are kept again or gone: all or
    /// nothing.
    pub fn change_condemned(
        &self,
        put: &[(Digest, CondemnedRecord)],
        remove: &[Digest],
    ) -> Result<(), Error> {
        let mut changes = Changes::default();
        for (digest, record) in put {
            let row = codec::encode(Column::Condemned, record)?;
            changes.put(Column::Condemned, digest.as_bytes().as_slice(), row);
        }
        for digest in remove {
            changes.delete(Column::Condemned, digest.as_bytes().as_slice());
        }
        self.0.database.write(changes)
    }

    /// Returns what is known of a job.
    pub fn find_job(&self, name: &str) -> Result<Option<JobRecord>, Error> {
        self.find(Column::Job, name.as_bytes())
    }

    /// Puts what is known of a job, in place of what was known before.
    pub fn put_job(&self, job: &JobRecord) -> Result<(), Error> {
        let mut changes = Changes::default();
        let row = codec::encode(Column::Job, job)?;
        changes.put(Column::Job, job.name.as_bytes(), row);
        self.0.database.write(changes)
    }

    /// Returns the state of a dropped file.
    pub fn find_ingest(&self, path: &str) -> Result<Option<IngestRecord>, Error> {
        self.find(Column::Ingest, path.as_bytes())
    }

    /// Puts the state of a dropped file, in place of the one before.
    pub fn put_ingest(&self, ingest: &IngestRecord) -> Result<(), Error> {
        let mut changes = Changes::default();
        let row = codec::encode(Column::Ingest, ingest)?;
        changes.put(Column::Ingest, ingest.path.as_str(), row);
        self.0.database.write(changes)?;
        self.index().put_ingest(ingest);
        Ok(())
    }

    /// Forgets a dropped file. That it was not known is a success.
    pub fn remove_ingest(&self, path: &str) -> Result<(), Error> {
        let mut changes = Changes::default();
        changes.delete(Column::Ingest, path);
        self.0.database.write(changes)?;
        self.index().remove_ingest(path);
        Ok(())
    }

    /// Lists the states of all dropped files, ordered by path.
    pub fn list_ingests(&self) -> Result<Vec<IngestRecord>, Error> {
        self.list(Column::Ingest, &[])
    }

    /// Lists the states of the dropped files that are not ready, ordered by path. No row is read.
    pub fn list_unfinished_ingests(&self) -> Vec<IngestRecord> {
        self.index().unfinished().cloned().collect()
    }

    /// Returns what we put last under a tag of a target.
    pub fn find_placement(
        &self,
        target: &TargetName,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<Placement>, Error> {
        let key = column::placement_key(target, repository, tag);
        self.find(Column::Placement, &key)
    }

    /// Puts placements, all or none, in place of earlier ones of the same tags.
    pub fn put_placements(&self, placements: &[Placement]) -> Result<(), Error> {
        let mut changes = Changes::default();
        for placement in placements {
            let Placement {
                target,
                repository,
                tag,
                ..
            } = placement;
            let row = codec::encode(Column::Placement, placement)?;
            let key = column::placement_key(target, repository, tag);
            changes.put(Column::Placement, key, row);
        }
        self.0.database.write(changes)
    }

    /// Lists the placements on a target, ordered by repository, then tag.
    pub fn list_placements(&self, target: &TargetName) -> Result<Vec<Placement>, Error> {
        self.list(Column::Placement, &column::target_prefix(target))
    }

    /// Returns what is known about a target.
    pub fn find_target(&self, target: &TargetName) -> Result<Option<Arc<TargetRecord>>, Error> {
        // Held until the row is there: who writes it meanwhile has it forgotten afterwards.
        let mut index = self.index();
        if let Some(known) = index.target(target) {
            return Ok(Some(Arc::clone(known)));
        }
        let record = self.find(Column::Target, column::target_key(target))?;
        let record = record.map(Arc::new);
        if let Some(record) = &record {
            index.put_target(record);
        }
        Ok(record)
    }

    /// Puts what is known about a target, in place of what was known before.
    pub fn put_target(&self, target: &TargetRecord) -> Result<(), Error> {
        let mut changes = Changes::default();
        let row = codec::encode(Column::Target, target)?;
        changes.put(Column::Target, column::target_key(&target.target), row);
        let written = self.0.database.write(changes);
        self.index().forget_target(&target.target);
        written
    }

    /// Lists the uploads to a target that are not finished, ordered by repository, then digest.
    pub fn list_uploads(&self, target: &TargetName) -> Result<Vec<UploadRecord>, Error> {
        self.list(Column::Upload, &column::target_prefix(target))
    }

    /// Puts an upload that is not finished, in place of what was known of it before. Survives a kill of the process when the
    /// call returns, and power loss some seconds later: a synced write per blob would cost more than what it saves.
    pub fn put_upload(&self, upload: &UploadRecord) -> Result<(), Error> {
        let UploadRecord {
            target,
            repository,
            digest,
            ..
        } = upload;
        let mut changes = Changes::default();
        let row = codec::encode(Column::Upload, upload)?;
        let key = column::upload_key(target, repository, digest);
        changes.put(Column::Upload, key, row);
        self.0.database.write_soon(changes)
    }

    /// Forgets an upload that is finished or given up, with the same durability. That it was not known is a success.
    pub fn remove_upload(
        &self,
        target: &TargetName,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Error> {
        let mut changes = Changes::default();
        let key = column::upload_key(target, repository, digest);
        changes.delete(Column::Upload, key);
        self.0.database.write_soon(changes)
    }

    /// Adds a run to the history of its target, together with what is now known about the target, and forgets what is
    /// older than the last [`RUNS_KEPT`] runs.
    pub fn commit_run(&self, run: &RunRecord, target: &TargetRecord) -> Result<(), Error> {
        let _alone = self
            .0
            .numbering
            .lock()
            .expect("no holder of this lock panics");
        let number = self.next_run_number(&run.target)?;
        let mut changes = Changes::default();
        let row = codec::encode(Column::Run, run)?;
        changes.put(Column::Run, column::run_key(&run.target, number), row);
        let row = codec::encode(Column::Target, target)?;
        changes.put(Column::Target, column::target_key(&target.target), row);
        let prefix = column::target_prefix(&run.target);
        for row in self.0.database.scan(Column::Run, &prefix, Start::First) {
            let (key, _) = row?;
            if column::run_number(&key).is_none_or(|old| number - old < RUNS_KEPT) {
                break;
            }
            changes.delete(Column::Run, key);
        }
        let written = self.0.database.write(changes);
        self.index().forget_target(&target.target);
        written
    }

    /// Lists the last `limit` runs of a target, newest first. The order is that in which they were committed, whatever
    /// the clock did meanwhile.
    pub fn list_runs(&self, target: &TargetName, limit: usize) -> Result<Vec<RunRecord>, Error> {
        let prefix = column::target_prefix(target);
        self.0
            .database
            .scan(Column::Run, &prefix, Start::Last)
            .take(limit)
            .map(|row| row.and_then(|(key, row)| codec::decode(Column::Run, &key, &row)))
            .collect()
    }

    /// Returns the number after that of the newest run of a target. Numbers of one target have no gaps.
    fn next_run_number(&self, target: &TargetName) -> Result<u64, Error> {
        let prefix = column::target_prefix(target);
        let newest = self
            .0
            .database
            .scan(Column::Run, &prefix, Start::Last)
            .next();
        let newest = newest
            .transpose()?
            .and_then(|(key, _)| column::run_number(&key));
        Ok(newest.map_or(0, |newest| newest + 1))
    }

    fn find<T: DeserializeOwned>(&self, column: Column, key: &[u8]) -> Result<Option<T>, Error> {
        find(&self.0.database, column, key)
    }

    fn list<T: DeserializeOwned>(&self, column: Column, prefix: &[u8]) -> Result<Vec<T>, Error> {
        self.0
            .database
            .scan(column, prefix, Start::First)
            .map(|row| row.and_then(|(key, row)| codec::decode(column, &key, &row)))
            .collect()
    }
}

fn find<T: DeserializeOwned>(
    database: &Database,
    column: Column,
    key: &[u8],
) -> Result<Option<T>, Error> {
    let row = database.get(column, key)?;
    row.map(|row| codec::decode(column, key, &row)).transpose()
}

/// Returns whether there is no database that could be read.
fn is_lost(error: &Error) -> bool {
    matches!(error, Error::NoCatalog { .. }) || error.class() == Class::Corrupt
}

#[cfg(test)]
pub(crate) use self::rows::tests as raw;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod reconcile_tests;
#[cfg(test)]
mod tests;
