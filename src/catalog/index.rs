//! What is held in memory of the rows: what lists of packages show, which files are not ready, and what targets hold.
//!
//! A status names every package, and may be asked for every second: reading and decoding 20 000 rows of some KB each for it
//! would take the better part of a second. So the rows are read once, when the catalog is opened, and only what is shown
//! of them is decoded: summaries take some 600 bytes each.
//!
//! # Invariants
//!
//! It says what the rows say: whoever changes a row changes it here once the row is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::column::{self, Column};
use super::database::{Database, Start};
use super::record::{
    Content, IngestRecord, IngestState, PackageRecord, PackageSummary, Provenance, TargetRecord,
};
use super::{Error, codec};
use crate::base::{Digest, PackageKind, PackageName, Platform, TargetName, Timestamp};

/// What is held in memory.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The packages, in the order in which they became ready.
    summaries: BTreeMap<(Timestamp, Digest), Arc<PackageSummary>>,
    ready_at: HashMap<Digest, Timestamp>,
    /// Packages of which nobody knows what they keep.
    without_content: BTreeSet<Digest>,
    /// Files that are not ready, by path.
    unfinished: BTreeMap<String, IngestRecord>,
    /// Targets that were asked for since their rows were written. A row names every package that the target holds.
    targets: HashMap<TargetName, Arc<TargetRecord>>,
    /// What is kept by packages whose record file is, or may be, there, and whose rows are not: their commit is under way,
    /// or failed. After a restart they may be ready.
    pub(super) unsettled: BTreeMap<Digest, Content>,
}

/// Rows that say something about a package that has no row.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Orphans {
    pub(super) contents: Vec<Digest>,
    pub(super) pins: Vec<Digest>,
}

/// The part of a row of `package` that is shown.
#[derive(Deserialize)]
struct Shown {
    digest: Digest,
    name: PackageName,
    version: Option<String>,
    kind: PackageKind,
    file_name: String,
    size_bytes: u64,
    platforms: Vec<Platform>,
    images: Count,
    blob_count: u64,
    blob_bytes: u64,
    provenance: Provenance,
    ready_at: Timestamp,
}

/// The part of a row of `ingest` that says whether the file is ready.
#[derive(Deserialize)]
struct Unfinished {
    state: StateName,
}

#[derive(Deserialize)]
struct StateName {
    name: String,
}

/// How many elements a list has.
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_seq(Counter)
    }
}

impl Index {
    /// Reads what is held of all rows. Returns, too, which rows say something about a package that is not there.
    ///
    /// Every row of packages, contents, pins and files is read, so that damage to them is found here.
    pub(super) fn load(database: &Database) -> Result<(Self, Orphans), Error> {
        let mut index = Self::default();
        for row in rows::<Shown>(database, Column::Package) {
            let (key, shown) = row?;
            if column::digest_of_key(&key) != Some(shown.digest) {
                return Err(garbled(Column::Package, &key));
            }
            index.without_content.insert(shown.digest);
            index.put_summary(shown.into());
        }
        let mut orphans = Orphans::default();
        for row in database.scan(Column::Content, &[], Start::First) {
            let (key, _) = row?;
            let digest = digest_of(Column::Content, &key)?;
            if !index.without_content.remove(&digest) {
                orphans.contents.push(digest);
            }
        }
        for row in database.scan(Column::Pin, &[], Start::First) {
            let (key, _) = row?;
            let digest = digest_of(Column::Pin, &key)?;
            if !index.contains(&digest) {
                orphans.pins.push(digest);
            }
        }
        for row in database.scan(Column::Ingest, &[], Start::First) {
            let (key, row) = row?;
            let part: Unfinished = codec::decode(Column::Ingest, &key, &row)?;
            if part.state.name != IngestState::READY {
                index.put_ingest(&codec::decode(Column::Ingest, &key, &row)?);
            }
        }
        Ok((index, orphans))
    }

    /// Returns the packages, in the order in which they became ready.
    pub(super) fn summaries(&self) -> impl ExactSizeIterator<Item = &Arc<PackageSummary>> {
        self.summaries.values()
    }

    pub(super) fn contains(&self, package: &Digest) -> bool {
        self.ready_at.contains_key(package)
    }

    /// Returns the packages that are there.
    pub(super) fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.ready_at.keys()
    }

    pub(super) const fn without_content(&self) -> &BTreeSet<Digest> {
        &self.without_content
    }

    /// Returns the files that are not ready, ordered by path.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = &IngestRecord> {
        self.unfinished.values()
    }

    /// Puts a package whose content is known.
    pub(super) fn put_package(&mut self, package: &PackageRecord) {
        self.unsettled.remove(&package.digest);
        self.without_content.remove(&package.digest);
        self.put_summary(PackageSummary::from(package));
    }

    fn put_summary(&mut self, summary: PackageSummary) {
        let (digest, ready_at) = (summary.digest, summary.ready_at);
        if let Some(before) = self.ready_at.insert(digest, ready_at) {
            self.summaries.remove(&(before, digest));
        }
        self.summaries.insert((ready_at, digest), Arc::new(summary));
    }

    pub(super) fn put_content(&mut self, package: &Digest) {
        self.without_content.remove(package);
    }

    pub(super) fn remove_package(&mut self, package: &Digest) {
        self.unsettled.remove(package);
        self.without_content.remove(package);
        if let Some(ready_at) = self.ready_at.remove(package) {
            self.summaries.remove(&(ready_at, *package));
        }
    }

    pub(super) fn put_ingest(&mut self, ingest: &IngestRecord) {
        if matches!(ingest.state, IngestState::Ready { .. }) {
            self.unfinished.remove(&ingest.path);
        } else {
            self.unfinished.insert(ingest.path.clone(), ingest.clone());
        }
    }

    pub(super) fn remove_ingest(&mut self, path: &str) {
        self.unfinished.remove(path);
    }

    pub(super) fn target(&self, name: &TargetName) -> Option<&Arc<TargetRecord>> {
        self.targets.get(name)
    }

    pub(super) fn put_target(&mut self, target: &Arc<TargetRecord>) {
        self.targets
            .insert(target.target.clone(), Arc::clone(target));
    }

    /// Has a target read again, the next time it is asked for.
    pub(super) fn forget_target(&mut self, name: &TargetName) {
        self.targets.remove(name);
    }
}

impl From<Shown> for PackageSummary {
    fn from(shown: Shown) -> Self {
        let Count(image_count) = shown.images;
        Self {
            digest: shown.digest,
            name: shown.name,
            version: shown.version,
            kind: shown.kind,
            file_name: shown.file_name,
            size_bytes: shown.size_bytes,
            platforms: shown.platforms,
            image_count,
            blob_count: shown.blob_count,
            blob_bytes: shown.blob_bytes,
            provenance: shown.provenance,
            ready_at: shown.ready_at,
        }
    }
}

fn rows<T: DeserializeOwned>(
    database: &Database,
    column: Column,
) -> impl Iterator<Item = Result<(Box<[u8]>, T), Error>> {
    database.scan(column, &[], Start::First).map(move |row| {
        let (key, row) = row?;
        let record = codec::decode(column, &key, &row)?;
        Ok((key, record))
    })
}

/// Returns the digest that is the key of a row.
pub(super) fn digest_of(column: Column, key: &[u8]) -> Result<Digest, Error> {
    column::digest_of_key(key).ok_or_else(|| garbled(column, key))
}

pub(super) fn garbled(column: Column, key: &[u8]) -> Error {
    Error::Garbled {
        column: column.name(),
        key: codec::printable(key),
    }
}
