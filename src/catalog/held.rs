//! What targets are known to hold: which repository has which blob or manifest, on what evidence, and since when.
//!
//! One row for each pair of content and repository, found by the content: the question is always who has this blob. 200 000 rows,
//! which are 10 000 images of 20 blobs each, none shared, take 10 MB on disk, 17 MB while they are in the log, and a look-up 1 µs where
//! look-ups come in the order of keys and 5 µs where they do not (measured on 2026-11-21): see [`HeldReader`]. A row for each
//! repository would take less, but would be read and written whole whenever one blob has arrived.
//!
//! # Format
//!
//! After the version of the row, one byte for the evidence (1: confirmed, 2: implied) and seven bytes for the time, in
//! seconds since 1970, big-endian.

use super::column::{self, Column};
use super::database::{Changes, Cursor, Start};
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

/// Answers who holds what on one target, as it was known when this was made. Anything may be asked in any order; where digests
/// ascend and, for one digest, repositories, that takes a fifth of the time. A row that cannot be read is one that is not there: the
/// check of the state directory names it.
#[derive(Debug)]
pub struct HeldReader<'a> {
    cursor: Cursor<'a>,
    target: TargetName,
    /// What was asked for last.
    digest: Option<Digest>,
    /// The first repositories that hold it, ordered by name.
    first: Vec<HeldRecord>,
    /// Whether there may be others.
    has_more: bool,
    /// The one of them that was asked for last.
    other: Option<HeldRecord>,
}

impl HeldReader<'_> {
    /// Returns what is known of `repository` holding some content.
    pub fn find(
        &mut self,
        digest: &Digest,
        repository: &Repository,
    ) -> Result<Option<&HeldRecord>, Error> {
        self.turn_to(digest)?;
        let found = |it: &HeldRecord| it.repository == *repository;
        if let Some(at) = self.first.iter().position(found) {
            return Ok(Some(&self.first[at]));
        }
        if !self.has_more {
            return Ok(None);
        }
        let key = column::held_key(&self.target, digest, repository);
        let row = self.cursor.find(&key)?.filter(|(found, _)| *found == key);
        self.other = row.and_then(|(key, row)| decode(key, row).ok());
        Ok(self.other.as_ref())
    }

    /// Lists some repositories that are known to hold some content, ordered by name.
    pub fn list_holders(&mut self, digest: &Digest) -> Result<&[HeldRecord], Error> {
        self.turn_to(digest)?;
        Ok(&self.first)
    }

    /// Reads the first rows of a digest.
    fn turn_to(&mut self, digest: &Digest) -> Result<(), Error> {
        if self.digest == Some(*digest) {
            return Ok(());
        }
        self.digest = None;
        self.first.clear();
        self.has_more = false;
        let prefix = column::held_prefix(&self.target, digest);
        let mut row = self.cursor.find(&prefix)?;
        while let Some((key, body)) = row.filter(|(key, _)| key.starts_with(&prefix)) {
            if self.first.len() == HOLDERS_MAX {
                self.has_more = true;
                break;
            }
            self.first.extend(decode(key, body).ok());
            row = self.cursor.next()?;
        }
        self.digest = Some(*digest);
        Ok(())
    }
}

impl Catalog {
    /// Returns what answers who holds what on a target.
    pub fn read_held(&self, target: &TargetName) -> Result<HeldReader<'_>, Error> {
        let prefix = column::target_prefix(target);
        Ok(HeldReader {
            cursor: self.0.database.cursor(Column::Held, &prefix)?,
            target: target.clone(),
            digest: None,
            first: Vec::new(),
            has_more: false,
            other: None,
        })
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
    use proptest::prelude::*;

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
        let holders = |target: &TargetName, byte: u8| {
            let mut reader = catalog.read_held(target).unwrap();
            reader.list_holders(&digest(byte)).unwrap().to_vec()
        };
        assert_eq!(holders(&b, 1), known[..2]);
        assert_eq!(holders(&a, 1), []);
        let x: Repository = "x".parse().unwrap();
        let mut reader = catalog.read_held(&b).unwrap();
        let found = reader.find(&digest(2), &x).unwrap();
        assert_eq!(found, Some(&known[2]));

        assert_eq!(catalog.sweep_held(&b, at(4)).unwrap(), 1);
        assert_eq!(holders(&b, 1), known[1..2]);
        catalog
            .change_held(&b, &known[..1], &[(digest(2), x.clone()), (digest(1), x)])
            .unwrap();
        assert_eq!(holders(&b, 2), []);
        assert_eq!(holders(&b, 1), known[..2]);
    }

    proptest! {
        #[test]
        fn a_reader_answers_the_same_in_whichever_order_it_is_asked(
            known in proptest::collection::btree_set((0..6_u8, 0..30_u8), 0..80),
            questions in proptest::collection::vec((0..6_u8, 0..30_u8, any::<bool>()), 1..60),
            is_sorted in any::<bool>(),
        ) {
            let (_dir, catalog) = new_catalog();
            let target: TargetName = "a".parse().unwrap();
            let name = |repository: u8| format!("r{repository:02}");
            let record = |(byte, repository): (u8, u8)| held(byte, &name(repository), 1);
            let rows: Vec<HeldRecord> = known.iter().map(|it| record(*it)).collect();
            catalog.change_held(&target, &rows, &[]).unwrap();
            let mut questions = questions;
            if is_sorted {
                questions.sort_unstable();
            }
            let mut reader = catalog.read_held(&target).unwrap();
            for (byte, repository, is_of_holders) in questions {
                if is_of_holders {
                    let of_digest = known.iter().filter(|(it, _)| *it == byte);
                    let expected: Vec<HeldRecord> =
                        of_digest.take(HOLDERS_MAX).map(|it| record(*it)).collect();
                    prop_assert_eq!(reader.list_holders(&digest(byte)).unwrap(), expected);
                } else {
                    let found = reader.find(&digest(byte), &name(repository).parse().unwrap());
                    let expected = known.get(&(byte, repository)).map(|it| record(*it));
                    prop_assert_eq!(found.unwrap(), expected.as_ref());
                }
            }
        }
    }
}
