//! What targets are known to hold: which repository has which blob or manifest, on what evidence, and since when.
//!
//! One row for each pair of content and repository, found by the content: the question is always who has this blob. 200 000 rows,
//! which are 10 000 images of 20 blobs each, none shared, take 10 MB on disk, 17 MB while they are in the log, and a look-up 40 µs
//! (measured on a loaded machine, 2026-11-21). A row for each repository would take less, but would be read and written whole
//! whenever one blob has arrived.
//!
//! # Format
//!
//! After the version of the row, one byte for the evidence (1: confirmed, 2: implied) and seven bytes for the time, in
//! seconds since 1970, big-endian.

use super::column::{self, Column};
use super::database::{Changes, Start};
use super::{Catalog, Error, codec};
use crate::base::{Digest, Repository, TargetName, Timestamp};

/// The most repositories that are said to hold one blob: enough to find one that still does. Chosen, not measured.
const HOLDERS_MAX: usize = 8;
/// Bytes of a row without its version.
const BODY_BYTES: usize = 8;

/// Why content is thought to be somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// The registry said so of this very content: it took it, or was asked for it.
    Confirmed,
    /// A manifest is there that names it.
    Implied,
}

/// That a repository of a target holds some content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRecord {
    /// The blob or manifest.
    pub digest: Digest,
    /// Where it is.
    pub repository: Repository,
    /// Why that is thought.
    pub evidence: Evidence,
    /// Since when, in whole seconds.
    pub seen_at: Timestamp,
}

impl Catalog {
    /// Returns whether `repository` of a target is known to hold some content.
    pub fn find_held(
        &self,
        target: &TargetName,
        digest: &Digest,
        repository: &Repository,
    ) -> Result<Option<HeldRecord>, Error> {
        let key = column::held_key(target, digest, repository);
        let row = self.0.database.get(Column::Held, &key)?;
        row.map(|row| decode(&key, &row)).transpose()
    }

    /// Lists some repositories of a target that are known to hold some content, ordered by name.
    pub fn list_holders(
        &self,
        target: &TargetName,
        digest: &Digest,
    ) -> Result<Vec<HeldRecord>, Error> {
        let prefix = column::held_prefix(target, digest);
        let rows = self.0.database.scan(Column::Held, &prefix, Start::First);
        rows.take(HOLDERS_MAX)
            .map(|row| row.and_then(|(key, row)| decode(&key, &row)))
            .collect()
    }

    /// Returns whether anything is known of what a target holds.
    pub fn has_held(&self, target: &TargetName) -> Result<bool, Error> {
        let prefix = column::target_prefix(target);
        let first = self
            .0
            .database
            .scan(Column::Held, &prefix, Start::First)
            .next();
        first.transpose().map(|row| row.is_some())
    }

    /// Writes down what a target holds now, and forgets what it was thought to hold: all or nothing. What is in both is
    /// known afterwards.
    pub fn change_held(
        &self,
        target: &TargetName,
        put: &[HeldRecord],
        forget: &[(Digest, Repository)],
    ) -> Result<(), Error> {
        let mut changes = Changes::default();
        for (digest, repository) in forget {
            let key = column::held_key(target, digest, repository);
            changes.delete(Column::Held, key);
        }
        for record in put {
            let key = column::held_key(target, &record.digest, &record.repository);
            changes.put(Column::Held, key, encode(record));
        }
        self.write_held(changes)
    }

    /// Forgets what a target was last seen to hold before `oldest`. Returns how much that was.
    pub fn sweep_held(&self, target: &TargetName, oldest: Timestamp) -> Result<usize, Error> {
        let prefix = column::target_prefix(target);
        let mut changes = Changes::default();
        for row in self.0.database.scan(Column::Held, &prefix, Start::First) {
            let (key, row) = row?;
            // What cannot be read is forgotten, too: it is asked for again.
            if decode(&key, &row).map_or(true, |record| record.seen_at < oldest) {
                changes.delete(Column::Held, key);
            }
        }
        let swept = changes.len();
        self.write_held(changes)?;
        Ok(swept)
    }

    fn write_held(&self, changes: Changes) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.0.database.write(changes)
    }
}

fn encode(record: &HeldRecord) -> Vec<u8> {
    let seconds = u64::try_from(record.seen_at.timestamp()).unwrap_or_default();
    let mut row = vec![Column::Held.version()];
    row.push(match record.evidence {
        Evidence::Confirmed => 1,
        Evidence::Implied => 2,
    });
    // Seven bytes hold the seconds of two billion years.
    row.extend_from_slice(&seconds.to_be_bytes()[1..]);
    row
}

/// Decodes a row that is stored under `key`.
pub(super) fn decode(key: &[u8], row: &[u8]) -> Result<HeldRecord, Error> {
    let garbled = || Error::Garbled {
        column: Column::Held.name(),
        key: codec::printable(key),
    };
    let (digest, repository) = column::held_of_key(key).ok_or_else(garbled)?;
    let body: [u8; BODY_BYTES] = codec::body_of(Column::Held, key, row)?
        .try_into()
        .map_err(|_| garbled())?;
    let evidence = match body[0] {
        1 => Evidence::Confirmed,
        2 => Evidence::Implied,
        _ => return Err(garbled()),
    };
    let mut seconds = body;
    seconds[0] = 0;
    let seconds = i64::try_from(u64::from_be_bytes(seconds)).map_err(|_| garbled())?;
    Ok(HeldRecord {
        digest,
        repository,
        evidence,
        seen_at: Timestamp::from_timestamp(seconds, 0).ok_or_else(garbled)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, digest, new_catalog};
    use super::*;

    fn held(byte: u8, repository: &str, second: u32) -> HeldRecord {
        HeldRecord {
            digest: digest(byte),
            repository: repository.parse().unwrap(),
            evidence: Evidence::Confirmed,
            seen_at: Timestamp::from_timestamp(at(second).timestamp(), 0).unwrap(),
        }
    }

    #[test]
    fn golden_held() {
        let mut record = held(7, "x/y", 1);
        assert_eq!(encode(&record), b"\x01\x01\0\0\0\x69\x55\xb9\x01");
        record.evidence = Evidence::Implied;
        assert_eq!(encode(&record), b"\x01\x02\0\0\0\x69\x55\xb9\x01");
        let key = column::held_key(&"a-b".parse().unwrap(), &record.digest, &record.repository);
        assert_eq!(decode(&key, &encode(&record)).unwrap(), record);
        let row = |row: &[u8]| decode(&key, row).unwrap_err().to_string();
        assert!(row(b"\x01\x01").contains("held"));
        assert!(row(b"\x01\x03\0\0\0\0\0\0\0").contains("held"));
        assert!(row(b"\x02\x01\0\0\0\0\0\0\0").contains("version 2"));
    }

    #[test]
    fn knowledge_of_one_target_is_not_that_of_another_and_ages() {
        let (_dir, catalog) = new_catalog();
        let (a, b): (TargetName, TargetName) = ("a".parse().unwrap(), "a-b".parse().unwrap());
        assert!(!catalog.has_held(&a).unwrap());
        let known = [held(1, "x", 3), held(1, "y/z", 5), held(2, "x", 5)];
        catalog.change_held(&b, &known, &[]).unwrap();
        assert!(!catalog.has_held(&a).unwrap() && catalog.has_held(&b).unwrap());
        assert_eq!(catalog.list_holders(&b, &digest(1)).unwrap(), known[..2]);
        assert_eq!(catalog.list_holders(&a, &digest(1)).unwrap(), []);
        let x: Repository = "x".parse().unwrap();
        let found = catalog.find_held(&b, &digest(2), &x).unwrap();
        assert_eq!(found.as_ref(), Some(&known[2]));

        assert_eq!(catalog.sweep_held(&b, at(4)).unwrap(), 1);
        assert_eq!(catalog.list_holders(&b, &digest(1)).unwrap(), known[1..2]);
        catalog
            .change_held(&b, &known[..1], &[(digest(2), x.clone()), (digest(1), x)])
            .unwrap();
        assert_eq!(catalog.list_holders(&b, &digest(2)).unwrap(), []);
        assert_eq!(catalog.list_holders(&b, &digest(1)).unwrap(), known[..2]);
    }
}
