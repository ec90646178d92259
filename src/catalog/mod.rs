//! The index: which packages are ready, how far dropped files have come, what targets were given and when.
//!
//! Start from [`Catalog::open`]; what it remembers is in the record types. Everything in it can be rebuilt from the
//! store and the packages, apart from the history of runs and the placements. It does not know the store: whoever
//! commits a package has committed its blobs before.
//!
//! Calls are synchronous and mostly take well under a millisecond (0.1 ms for a synced write on an idle disk, measured
//! on 2026-11-20).
//!
//! # Layout
//!
//! A RocksDB database in a directory of its own, with one column per kind of record; columns, keys and rows are described
//! where they are defined, in `column.rs` and `codec.rs`.
//!
//! # Concurrency
//!
//! One process has it open for writing; RocksDB's own lock refuses a second. Any number of threads share a [`Catalog`].
//! Readers in other processes see it as it was when they opened it.
//!
//! # Durability
//!
//! Each call that changes something is one write batch, which is applied whole or not at all and survives power loss
//! when the call returns.
//!
//! # Failure
//!
//! On a full disk every write fails with class `full`; reads go on. Some seconds after there is space again writes succeed
//! without anybody doing anything (five were seen on 2026-11-20). A damaged directory is never started over: see
//! [`Error::Corrupt`].

mod codec;
mod column;
mod database;
mod record;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::de::DeserializeOwned;
use thiserror::Error;

use self::column::Column;
use self::database::{Changes, Database, Start};
use crate::base::{Class, Classified, Digest, Repository, Tag, TargetName};
use crate::sys::fs;

pub use self::record::{
    Cosigner, ImageRecord, IngestRecord, IngestState, PackageRecord, Placement, Problem,
    Provenance, RunCounts, RunOutcome, RunRecord, TargetRecord,
};

/// Folder of the catalog below the state directory.
pub const DIR: &str = "catalog";
/// How many runs are kept of each target: a hundred hourly runs are four days. Chosen, not measured.
pub const RUNS_KEPT: u64 = 100;

/// The open index. A cheap clone.
#[derive(Clone, Debug)]
pub struct Catalog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Database,
    /// Held while the number of a new run is chosen and used.
    numbering: Mutex<()>,
}

/// What can go wrong in this module.
#[derive(Debug, Error)]
pub enum Error {
    /// Another process, or this one, has it open for writing.
    #[error("expected to be the only user of the catalog in `{}`, found it in use", dir.display())]
    Held {
        /// Directory of the catalog.
        dir: PathBuf,
    },
    /// There is nothing to open.
    #[error("expected a catalog in `{}`, found none", dir.display())]
    NoCatalog {
        /// Directory of the catalog.
        dir: PathBuf,
    },
    /// The database is damaged.
    #[error("failed to {verb} the catalog, which is damaged: {message}")]
    Corrupt {
        /// What was tried.
        verb: &'static str,
        /// The database's own description.
        message: String,
    },
    /// The database has a column that this program does not know.
    #[error("expected a catalog without unknown columns, found `{name}`")]
    UnknownColumn {
        /// Name of the column.
        name: String,
    },
    /// A row was written by a newer version.
    #[error("expected rows of version {known} in column `{column}`, found version {found}")]
    Format {
        /// Name of the column.
        column: &'static str,
        /// The newest version that this program knows.
        known: u8,
        /// The version of the row.
        found: u8,
    },
    /// A row has no content.
    #[error("expected a record in the row `{key}` of column `{column}`, found nothing")]
    Empty {
        /// Name of the column.
        column: &'static str,
        /// Key of the row, escaped.
        key: String,
    },
    /// The content of a row is no such record.
    #[error("failed to decode the row `{key}` of column `{column}`")]
    Decode {
        /// Name of the column.
        column: &'static str,
        /// Key of the row, escaped.
        key: String,
        /// The reason.
        source: serde_json::Error,
    },
    /// A record that cannot be written, or could not be read back.
    #[error("failed to encode a record for column `{column}`")]
    Encode {
        /// Name of the column.
        column: &'static str,
        /// The reason.
        source: serde_json::Error,
    },
    /// A record that would read back as another one.
    #[error(
        "expected a record for column `{column}` that reads back the same, found one that does not"
    )]
    Unfaithful {
        /// Name of the column.
        column: &'static str,
    },
    /// A catalog that was opened for reading was asked to write.
    #[error("expected a catalog that is open for writing, found one for reading")]
    ReadOnly,
    /// The database refused for another reason.
    #[error("failed to {verb} the catalog: {message}")]
    Database {
        /// What was tried.
        verb: &'static str,
        /// What kind of failure it is.
        class: Class,
        /// The database's own description.
        message: String,
    },
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] fs::Error),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Held { .. } | Self::UnknownColumn { .. } | Self::Format { .. } => Class::Usage,
            Self::NoCatalog { .. } => Class::Absent,
            Self::Corrupt { .. } | Self::Empty { .. } | Self::Decode { .. } => Class::Corrupt,
            Self::Encode { .. } | Self::Unfaithful { .. } | Self::ReadOnly => Class::Bug,
            Self::Database { class, .. } => *class,
            Self::Fs(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Held { .. } => Some(
                "stop the other process, or talk to it through its socket".to_owned(),
            ),
            Self::UnknownColumn { .. } | Self::Format { .. } => Some(
                "install the version of violetd that wrote the catalog, or a newer one".to_owned(),
            ),
            Self::NoCatalog { dir } => Some(format!(
                "check that `{}` belongs to the state directory, and start the daemon once to create it",
                dir.display()
            )),
            Self::Corrupt { .. } | Self::Empty { .. } | Self::Decode { .. } => Some(
                "stop the daemon, move the directory of the catalog away, start again and drop the packages again; \
                 their content is still in the store"
                    .to_owned(),
            ),
            Self::Database { class: Class::Full, .. } => {
                Some("free space on the file system of the state directory".to_owned())
            }
            Self::Fs(error) => error.hint(),
            Self::Encode { .. }
            | Self::Unfaithful { .. }
            | Self::ReadOnly
            | Self::Database { .. } => None,
        }
    }
}

impl Catalog {
    /// Opens the catalog in the directory `dir` for writing. Creates what is missing.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Database::open(dir).map(Self::new)
    }

    /// Opens the catalog in the directory `dir` for reading, as it is at this moment. Changes nothing there.
    pub fn open_read_only(dir: &Path) -> Result<Self, Error> {
        Database::open_read_only(dir).map(Self::new)
    }

    fn new(database: Database) -> Self {
        Self(Arc::new(Inner {
            database,
            numbering: Mutex::new(()),
        }))
    }

    /// Returns the package whose file has this digest.
    pub fn find_package(&self, digest: &Digest) -> Result<Option<PackageRecord>, Error> {
        self.find(Column::Package, column::package_key(digest))
    }

    /// Lists all packages, ordered by the time at which they became ready, then by digest.
    pub fn list_packages(&self) -> Result<Vec<PackageRecord>, Error> {
        let mut packages: Vec<PackageRecord> = self.list(Column::Package, &[])?;
        packages.sort_by_key(|package| (package.ready_at, package.digest));
        Ok(packages)
    }

    /// Puts packages, together with the state of the file that brought them: all or nothing.
    pub fn commit_packages(
        &self,
        packages: &[PackageRecord],
        ingest: &IngestRecord,
    ) -> Result<(), Error> {
        let mut changes = Changes::default();
        for package in packages {
            let row = codec::encode(Column::Package, package)?;
            changes.put(Column::Package, column::package_key(&package.digest), row);
        }
        let row = codec::encode(Column::Ingest, ingest)?;
        changes.put(Column::Ingest, ingest.path.as_str(), row);
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
        self.0.database.write(changes)
    }

    /// Forgets a dropped file. That it was not known is a success.
    pub fn remove_ingest(&self, path: &str) -> Result<(), Error> {
        let mut changes = Changes::default();
        changes.delete(Column::Ingest, path);
        self.0.database.write(changes)
    }

    /// Lists the states of all dropped files, ordered by path.
    pub fn list_ingests(&self) -> Result<Vec<IngestRecord>, Error> {
        self.list(Column::Ingest, &[])
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
    pub fn find_target(&self, target: &TargetName) -> Result<Option<TargetRecord>, Error> {
        self.find(Column::Target, column::target_key(target))
    }

    /// Puts what is known about a target, in place of what was known before.
    pub fn put_target(&self, target: &TargetRecord) -> Result<(), Error> {
        let mut changes = Changes::default();
        let row = codec::encode(Column::Target, target)?;
        changes.put(Column::Target, column::target_key(&target.target), row);
        self.0.database.write(changes)
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
        self.0.database.write(changes)
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
        let row = self.0.database.get(column, key)?;
        row.map(|row| codec::decode(column, key, &row)).transpose()
    }

    fn list<T: DeserializeOwned>(&self, column: Column, prefix: &[u8]) -> Result<Vec<T>, Error> {
        self.0
            .database
            .scan(column, prefix, Start::First)
            .map(|row| row.and_then(|(key, row)| codec::decode(column, &key, &row)))
            .collect()
    }
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod tests;
