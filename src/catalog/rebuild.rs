//! Makes the database anew where it is lost or damaged.
//!
//! Packages, what they keep and their pins come from the record files. Everything else is copied from the old database as
//! far as that can be read: dropped files, placements, targets, runs, the report of the last one, blobs that nobody keeps, jobs, unfinished uploads,
//! what targets hold. Packages are copied,
//! too, so that one whose record file is lost is not lost with it. What cannot be read again is history: a target is
//! looked at anew, and a file that is dropped again is known by its package.
//!
//! # Durability
//!
//! The new database is made in `catalog.new`. When it is complete, the old one moves to `quarantine/catalog.<n>`, and the
//! new one to its place. A crash before that leaves the old one; one in between leaves no `catalog` and a complete
//! `catalog.new`, which the next opening takes.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::column::Column;
use super::database::{self, Changes, Database, Start};
use super::kept::{self, Kept};
use super::reconcile::{self, Reconciled};
use super::record::{
    CondemnedRecord, IngestRecord, JobRecord, PackageRecord, PinRecord, Placement, RunRecord,
    TargetRecord, UploadRecord,
};
use super::report::ReportRecord;
use super::{DATABASE, Error, codec, held};
use crate::base::{Chain, Class, Classified as _, Digest};
use crate::sys::fs;

/// Folder below the state directory in which the new database is made.
const NEW: &str = "catalog.new";
/// How many rows are copied in one batch. Chosen, not measured.
const ROWS_AT_ONCE: usize = 1024;

/// What making the database anew has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Packages that are in the catalog now.
    pub packages: u64,
    /// Packages of which nobody knows what they keep in the store: that is to be derived from their manifests.
    pub without_content: u64,
    /// What was done to make rows and record files say the same.
    pub reconciled: Reconciled,
    /// Rows of other kinds that were copied from the old database: name of the column, and how many.
    pub copied: Vec<(&'static str, u64)>,
    /// What could not be read of the old database, in words.
    pub lost: Vec<String>,
    /// Where the old database is now, if there was one.
    pub set_aside: Option<PathBuf>,
}

/// Returns whether there is a database in the state directory `root`, or what is left of one.
pub(super) fn is_there(root: &Path) -> bool {
    let dir = root.join(DATABASE);
    dir.join(database::CURRENT).exists()
        || std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

/// Takes the new database that a process which died had completed, if there is one.
pub(super) fn resume(root: &Path) -> Result<(), Error> {
    let (dir, new) = (root.join(DATABASE), root.join(NEW));
    if new.is_dir() && dir.symlink_metadata().is_err() {
        fs::move_file(&new, &dir)?;
        tracing::warn!("took the catalog that was made anew before a crash");
    }
    Ok(())
}

/// Removes a new database that a process which died had not completed.
pub(super) fn clear(root: &Path) -> Result<(), Error> {
    let new = root.join(NEW);
    if new.is_dir() {
        fs::remove_dir_all(&new)?;
    }
    Ok(())
}

/// Puts a new database in place of the one in the state directory `root`. The caller makes sure that nobody has it open.
pub(super) fn replace(root: &Path, kept: &Kept) -> Result<Rebuilt, Error> {
    let (dir, new) = (root.join(DATABASE), root.join(NEW));
    let mut report = Rebuilt::default();
    clear(root)?;
    let database = Database::open(&new)?;
    match open_old(&dir)? {
        Ok(old) => copy(&old, &database, &mut report)?,
        Err(error) => report.lost.push(Chain(&error).to_string()),
    }
    let names: Vec<Digest> = kept.list()?.ready.into_iter().collect();
    reconcile::put_records(&database, kept, &names, &mut report.reconciled)?;
    drop(database);
    report.set_aside = Some(kept::set_aside(root, &dir, DATABASE)?);
    fs::move_file(&new, &dir)?;
    Ok(report)
}

/// Opens a database that may be damaged. The inner error says why it cannot be read at all; the outer one is none of
/// damage: somebody has it open, or a newer program has written it.
fn open_old(dir: &Path) -> Result<Result<Database, Error>, Error> {
    let opened = Database::open(dir).or_else(|error| {
        if error.class() == Class::Corrupt {
            return Database::open_read_only(dir);
        }
        Err(error)
    });
    match opened {
        Err(error) if is_damage(&error) => Ok(Err(error)),
        Err(error) => Err(error),
        Ok(database) => Ok(Ok(database)),
    }
}

/// Returns whether it is the database itself that cannot be read.
fn is_damage(error: &Error) -> bool {
    let is_missing = matches!(error, Error::NoCatalog { .. });
    // For a reader a missing file may come back, and so it is said to pass; nobody writes here.
    let passes = matches!(
        error,
        Error::Database {
            class: Class::Transient,
            ..
        }
    );
    error.class() == Class::Corrupt || is_missing || passes
}

/// Copies all rows that can be read.
fn copy(old: &Database, new: &Database, report: &mut Rebuilt) -> Result<(), Error> {
    for column in Column::ALL {
        let mut copied = 0;
        let mut changes = Changes::default();
        for row in old.scan(column, &[], Start::First) {
            let row = row.and_then(|(key, row)| {
                check_row(column, &key, &row)?;
                Ok((key, row))
            });
            match row {
                Ok((key, row)) => {
                    changes.put(column, key, row.into_vec());
                    copied += 1;
                }
                Err(error) if is_damage(&error) => report.lost.push(Chain(&error).to_string()),
                Err(error) => return Err(error),
            }
            if changes.len() == ROWS_AT_ONCE {
                new.write(std::mem::take(&mut changes))?;
            }
        }
        new.write(changes)?;
        let is_derived = matches!(column, Column::Package | Column::Content | Column::Pin);
        if !is_derived {
            report.copied.push((column.name(), copied));
        }
    }
    Ok(())
}

/// Returns an error unless the row can be read.
fn check_row(column: Column, key: &[u8], row: &[u8]) -> Result<(), Error> {
    fn decode<T: DeserializeOwned>(column: Column, key: &[u8], row: &[u8]) -> Result<(), Error> {
        codec::decode::<T>(column, key, row).map(drop)
    }
    match column {
        Column::Package => decode::<PackageRecord>(column, key, row),
        Column::Ingest => decode::<IngestRecord>(column, key, row),
        Column::Placement => decode::<Placement>(column, key, row),
        Column::Target => decode::<TargetRecord>(column, key, row),
        Column::Run => decode::<RunRecord>(column, key, row),
        Column::Report => decode::<ReportRecord>(column, key, row),
        Column::Content => codec::decode_content(key, row).map(drop),
        Column::Condemned => decode::<CondemnedRecord>(column, key, row),
        Column::Pin => decode::<PinRecord>(column, key, row),
        Column::Job => decode::<JobRecord>(column, key, row),
        Column::Upload => decode::<UploadRecord>(column, key, row),
        Column::Held => held::decode(key, row).map(drop),
    }
}
