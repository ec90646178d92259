//! Every row as it lies there: for whoever looks at all of them and goes on behind one that is damaged.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::column::{self, Column};
use super::database::{Database, Start};
use super::held::{self, HeldRecord};
use super::index::{digest_of, garbled};
use super::kept::{Kept, KeptRecord};
use super::record::{
    CondemnedRecord, Content, IngestRecord, JobRecord, PackageRecord, PinRecord, Placement,
    RunRecord, TargetRecord, UploadRecord,
};
use super::report::ReportRecord;
use super::{DATABASE, Error, codec};
use crate::base::Digest;

/// What a row holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A package that is ready.
    Package(Box<PackageRecord>),
    /// A file in a drop folder.
    Ingest(Box<IngestRecord>),
    /// A tag that we put on a target.
    Placement(Placement),
    /// A target.
    Target(Box<TargetRecord>),
    /// A run.
    Run(Box<RunRecord>),
    /// What the last run of a target did for each image.
    Report(Box<ReportRecord>),
    /// What a package, by the digest of its file, keeps in the store.
    Content(Digest, Content),
    /// A blob that no package keeps.
    Condemned(Digest, CondemnedRecord),
    /// A package that retention leaves alone.
    Pin(PinRecord),
    /// Work that is due by a schedule.
    Job(JobRecord),
    /// An upload that is not finished.
    Upload(Box<UploadRecord>),
    /// What a target holds.
    Held(HeldRecord),
}

/// The rows of a database as they are at the moment when it is opened. Nothing of it is in memory.
#[derive(Debug)]
pub struct Rows(Database);

impl Rows {
    /// Opens the database in the state directory `root` for reading. Changes nothing there.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Database::open_read_only(&root.join(DATABASE)).map(Self)
    }

    /// Calls `see` with every row of a column, ordered by key: its key in words, and what it holds or why it holds nothing
    /// that can be used. A record that lies under the key of another one is damaged, too. Only one is in memory at a time.
    pub fn for_each<E: From<Error>>(
        &self,
        column: Column,
        mut see: impl FnMut(&str, Result<Row, Error>) -> Result<(), E>,
    ) -> Result<(), E> {
        for row in self.0.scan(column, &[], Start::First) {
            let (key, row) = row?;
            see(&in_words(&key), decode(column, &key, &row))?;
        }
        Ok(())
    }

    /// Returns the package whose file has this digest.
    pub fn find_package(&self, digest: &Digest) -> Result<Option<PackageRecord>, Error> {
        let key = column::package_key(digest);
        let row = self.0.get(Column::Package, key)?;
        row.map(|row| codec::decode(Column::Package, key, &row))
            .transpose()
    }

    /// Returns what a package keeps in the store.
    pub fn find_content(&self, package: &Digest) -> Result<Option<Content>, Error> {
        let key = column::package_key(package);
        let row = self.0.get(Column::Content, key)?;
        row.map(|row| codec::decode_content(key, &row)).transpose()
    }
}

/// Reads the record file of a package in the state directory `root`, if there is one.
pub fn read_record(root: &Path, package: &Digest) -> Result<Option<KeptRecord>, Error> {
    Kept::new(root).read(package)
}

fn decode(column: Column, key: &[u8], row: &[u8]) -> Result<Row, Error> {
    match column {
        Column::Package => {
            let record: Box<PackageRecord> = decode_json(column, key, row)?;
            check_key(column, key, record.digest.as_bytes()).map(|()| Row::Package(record))
        }
        Column::Ingest => {
            let record: Box<IngestRecord> = decode_json(column, key, row)?;
            check_key(column, key, record.path.as_bytes()).map(|()| Row::Ingest(record))
        }
        Column::Placement => {
            let record: Placement = decode_json(column, key, row)?;
            let expected = column::placement_key(&record.target, &record.repository, &record.tag);
            check_key(column, key, &expected).map(|()| Row::Placement(record))
        }
        Column::Target => {
            let record: Box<TargetRecord> = decode_json(column, key, row)?;
            let expected = column::target_key(&record.target).to_vec();
            check_key(column, key, &expected).map(|()| Row::Target(record))
        }
        Column::Run => {
            let record: Box<RunRecord> = decode_json(column, key, row)?;
            let number = column::run_number(key).unwrap_or_default();
            let expected = column::run_key(&record.target, number);
            check_key(column, key, &expected).map(|()| Row::Run(record))
        }
        Column::Report => {
            let record: Box<ReportRecord> = decode_json(column, key, row)?;
            let expected = column::target_key(&record.target).to_vec();
            check_key(column, key, &expected).map(|()| Row::Report(record))
        }
        Column::Content => {
            let content = codec::decode_content(key, row)?;
            Ok(Row::Content(digest_of(column, key)?, content))
        }
        Column::Condemned => {
            let record = decode_json(column, key, row)?;
            Ok(Row::Condemned(digest_of(column, key)?, record))
        }
        Column::Pin => {
            let record: PinRecord = decode_json(column, key, row)?;
            check_key(column, key, record.package.as_bytes()).map(|()| Row::Pin(record))
        }
        Column::Job => {
            let record: JobRecord = decode_json(column, key, row)?;
            check_key(column, key, record.name.as_bytes()).map(|()| Row::Job(record))
        }
        Column::Upload => {
            let record: Box<UploadRecord> = decode_json(column, key, row)?;
            let expected = column::upload_key(&record.target, &record.repository, &record.digest);
            check_key(column, key, &expected).map(|()| Row::Upload(record))
        }
        Column::Held => held::decode(key, row).map(Row::Held),
    }
}

fn decode_json<T: DeserializeOwned>(column: Column, key: &[u8], row: &[u8]) -> Result<T, Error> {
    codec::decode(column, key, row)
}

/// Returns an error where a record lies under another key than its own.
fn check_key(column: Column, key: &[u8], expected: &[u8]) -> Result<(), Error> {
    if key == expected {
        return Ok(());
    }
    Err(garbled(column, key))
}

/// Returns a key as people write it: a digest in hex, a text as it is.
fn in_words(key: &[u8]) -> String {
    let is_text = |key: &str| !key.chars().any(char::is_control);
    match (column::digest_of_key(key), std::str::from_utf8(key)) {
        (_, Ok(text)) if is_text(text) => text.to_owned(),
        (Some(digest), _) => digest.to_string(),
        (None, _) => codec::printable(key),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::database::{Changes, tests::create_column};
    use super::*;

    /// Puts a row as it is, or removes it, in a state directory that nobody has open.
    pub(crate) fn put_raw(root: &Path, column: Column, key: &[u8], row: Option<Vec<u8>>) {
        let database = Database::open(&root.join(DATABASE)).unwrap();
        let mut changes = Changes::default();
        match row {
            Some(row) => changes.put(column, key, row),
            None => changes.delete(column, key),
        }
        database.write(changes).unwrap();
    }

    /// Puts what a package keeps, and nothing else of it.
    pub(crate) fn put_content(root: &Path, package: &Digest, content: &Content) {
        let row = codec::encode_content(content);
        put_raw(
            root,
            Column::Content,
            column::package_key(package),
            Some(row),
        );
    }

    /// Adds a column that no version of this program knows.
    pub(crate) fn put_column(root: &Path) {
        create_column(&root.join(DATABASE), "of_the_future");
    }

    #[test]
    fn every_row_is_seen_and_damaged_ones_say_why() {
        let root = tempfile::tempdir().unwrap();
        let good = b"\x01{\"name\":\"scrub\",\"state\":null}".to_vec();
        put_raw(root.path(), Column::Job, b"scrub", Some(good.clone()));
        put_raw(root.path(), Column::Job, b"under another name", Some(good));
        put_raw(root.path(), Column::Job, b"zero", Some(Vec::new()));
        let mut seen = Vec::new();
        let rows = Rows::open(root.path()).unwrap();
        let scanned: Result<(), Error> = rows.for_each(Column::Job, |key, row| {
            seen.push((key.to_owned(), row.is_ok()));
            Ok(())
        });
        scanned.unwrap();
        let expected = [
            ("scrub", true),
            ("under another name", false),
            ("zero", false),
        ];
        assert_eq!(seen, expected.map(|(key, is_ok)| (key.to_owned(), is_ok)));
    }
}
