//! Makes the rows and the record files of packages say the same.
//!
//! ```text
//! record file, no row       ► the row is put: a crash came between the file and the batch, or the database is new
//! record file that was about to change ► the row is put, and the file changed: a crash came between the two
//! row, no record file       ► the file is written: the row is of a version without record files, or the file was lost
//! row, record of a removal  ► the row is deleted: a crash came between the two
//! record file and record of a removal ► the latter is deleted: the package came again
//! record file that is damaged, no row ► the file goes to quarantine; one that was about to change counts as it was before
//! ```
//!
//! Names are compared with keys: where nothing differs, no file is read.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::column::{self, Column};
use super::database::{Changes, Database};
use super::index::{Index, Orphans};
use super::kept::{self, Kept, KeptRecord};
use super::record::{PackageRecord, PinRecord};
use super::{Error, codec, find};
use crate::base::{Chain, Class, Classified as _, Digest};

/// How many packages are put in one batch, or written in one go: a few MB. Chosen, not measured.
const PACKAGES_AT_ONCE: usize = 256;

/// What was done to make rows and record files say the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Packages whose rows were put from their record files.
    pub put: u64,
    /// Packages whose record files were written from their rows.
    pub written: u64,
    /// Packages whose removal was finished.
    pub removed: u64,
    /// Where record files are now that are not what was written.
    pub quarantined: Vec<PathBuf>,
}

/// Makes rows and record files say the same, and returns what is held in memory of the rows then.
pub(super) fn reconcile(
    database: &Database,
    kept: &Kept,
    (mut index, mut orphans): (Index, Orphans),
) -> Result<(Index, Reconciled), Error> {
    let names = kept.list()?;
    let mut done = Reconciled::default();
    kept.forget_removed(names.removed.intersection(&names.ready))?;
    let is_ahead = |it: &&Digest| !index.contains(it) || names.changing.contains(it);
    let ahead: Vec<Digest> = names.ready.iter().filter(is_ahead).copied().collect();
    if !ahead.is_empty() {
        put_records(database, kept, &ahead, &mut done)?;
        for digest in &names.changing {
            kept.finish_next(digest)?;
        }
        (index, orphans) = Index::load(database)?;
    }
    let rows_alone = index.digests().filter(|it| !names.ready.contains(it));
    let (removed, lost): (BTreeSet<Digest>, BTreeSet<Digest>) =
        rows_alone.partition(|it| names.removed.contains(it));
    finish_removals(database, &removed, orphans)?;
    for digest in &removed {
        index.remove_package(digest);
        done.removed += 1;
    }
    let lost: Vec<Digest> = lost.into_iter().collect();
    for digests in lost.chunks(PACKAGES_AT_ONCE) {
        write_records(database, kept, digests)?;
        done.written += digests.len() as u64;
    }
    done.log();
    Ok((index, done))
}

/// Puts the rows of packages from their record files. A file that is not what was written goes to quarantine.
pub(super) fn put_records(
    database: &Database,
    kept: &Kept,
    digests: &[Digest],
    done: &mut Reconciled,
) -> Result<(), Error> {
    for digests in digests.chunks(PACKAGES_AT_ONCE) {
        let mut changes = Changes::default();
        for digest in digests {
            if let Some(record) = read_record(kept, digest, done)? {
                put_record(&mut changes, &record)?;
                done.put += 1;
            }
        }
        database.write(changes)?;
    }
    Ok(())
}

/// Reads the record file of a package. What is not what was written goes to quarantine: first the change that was under way,
/// if that is damaged, and then what it was to change, too.
fn read_record(
    kept: &Kept,
    digest: &Digest,
    done: &mut Reconciled,
) -> Result<Option<KeptRecord>, Error> {
    loop {
        match kept.read(digest) {
            Err(error) if error.class() == Class::Corrupt => {
                let path = kept.quarantine(digest)?;
                tracing::error!(reason = %Chain(&error), path = %path.display(), "moved the damaged record of a package to quarantine");
                done.quarantined.push(path);
            }
            result => return result,
        }
    }
}

/// Puts the rows of all packages whose record files can be read, and changes no file. The others are said.
pub(super) fn put_readable(database: &Database, kept: &Kept) -> Result<(), Error> {
    let digests: Vec<Digest> = kept.list()?.ready.into_iter().collect();
    for digests in digests.chunks(PACKAGES_AT_ONCE) {
        let mut changes = Changes::default();
        for digest in digests {
            match kept.read(digest) {
                Ok(Some(record)) => put_record(&mut changes, &record)?,
                Ok(None) => {}
                Err(error) if error.class() == Class::Corrupt => {
                    tracing::error!(reason = %Chain(&error), "left out a package whose record is damaged");
                }
                Err(error) => return Err(error),
            }
        }
        database.write(changes)?;
    }
    Ok(())
}

/// Adds the rows of a package to `changes`, in place of all that there are of it.
pub(super) fn put_record(changes: &mut Changes, record: &KeptRecord) -> Result<(), Error> {
    let KeptRecord {
        package,
        content,
        pin,
    } = record;
    let key = column::package_key(&package.digest);
    let row = codec::encode(Column::Package, package)?;
    changes.put(Column::Package, key, row);
    match content {
        Some(content) => changes.put(Column::Content, key, codec::encode_content(content)),
        None => changes.delete(Column::Content, key),
    }
    match pin {
        Some(pin) => changes.put(Column::Pin, key, codec::encode(Column::Pin, pin)?),
        None => changes.delete(Column::Pin, key),
    }
    Ok(())
}

/// Adds to `changes` that a package has no row any more.
pub(super) fn delete_record(changes: &mut Changes, digest: &Digest) {
    for column in [Column::Package, Column::Content, Column::Pin] {
        changes.delete(column, column::package_key(digest));
    }
}

/// Deletes the rows of packages that were removed, and those that belong to no package.
fn finish_removals(
    database: &Database,
    removed: &BTreeSet<Digest>,
    orphans: Orphans,
) -> Result<(), Error> {
    let mut changes = Changes::default();
    for digest in removed {
        delete_record(&mut changes, digest);
    }
    for digest in orphans.contents {
        changes.delete(Column::Content, column::package_key(&digest));
    }
    for digest in orphans.pins {
        changes.delete(Column::Pin, column::package_key(&digest));
    }
    if changes.is_empty() {
        return Ok(());
    }
    database.write(changes)
}

/// Writes the record files of packages from their rows.
fn write_records(database: &Database, kept: &Kept, digests: &[Digest]) -> Result<(), Error> {
    let mut files = Vec::with_capacity(digests.len());
    for digest in digests {
        let key = column::package_key(digest);
        let Some(package) = find::<PackageRecord>(database, Column::Package, key)? else {
            continue;
        };
        let content = database.get(Column::Content, key)?;
        let content = content.map(|row| codec::decode_content(key, &row));
        let pin = find::<PinRecord>(database, Column::Pin, key)?;
        let bytes = kept::encode(&package, content.transpose()?.as_ref(), pin.as_ref())?;
        files.push((*digest, bytes));
    }
    kept.write(&files)
}

impl Reconciled {
    pub(super) fn add(&mut self, other: Self) {
        self.put += other.put;
        self.written += other.written;
        self.removed += other.removed;
        self.quarantined.extend(other.quarantined);
    }

    fn log(&self) {
        let Self {
            put,
            written,
            removed,
            quarantined,
        } = self;
        if *put > 0 {
            tracing::warn!(
                packages = put,
                "put packages in the catalog from their records"
            );
        }
        if *written > 0 {
            tracing::info!(
                packages = written,
                "wrote the records of packages from the catalog"
            );
        }
        if *removed > 0 {
            tracing::info!(packages = removed, "finished the removal of packages");
        }
        if !quarantined.is_empty() {
            let records = quarantined.len();
            tracing::error!(
                records,
                "packages are lost whose records are damaged; bring them again"
            );
        }
    }
}
