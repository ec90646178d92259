//! What a scrub has found and how far it has come: what it writes down, and what is shown of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::{ByteCount, Chain, Digest, Timestamp};
use crate::catalog::JobRecord;

/// How many damaged blobs are remembered that are not repaired. Each takes about 1 KiB. What is beyond is counted, and
/// found again by the next pass. Chosen, not measured.
pub(super) const OPEN_MAX: usize = 1000;

/// How many repaired blobs are remembered. Chosen, not measured.
const REPAIRED_KEPT: usize = 100;

/// How many packages are named for each damaged blob. Chosen, not measured.
pub(super) const PACKAGES_NAMED: usize = 20;

/// Everything that scrub remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The pass that was begun last and has not come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Pass>,
    /// The last pass that came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Pass>,
    /// Damaged blobs that are not repaired.
    #[serde(default)]
    pub open: BTreeMap<Digest, Damage>,
    /// Damaged blobs beyond those in `open`.
    #[serde(default)]
    pub open_unlisted: u64,
    /// Blobs that were repaired lately, oldest first.
    #[serde(default)]
    pub repaired: Vec<Damage>,
    /// Counts since the state directory was made.
    #[serde(default)]
    pub total: Counts,
}

/// One look at all blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Its number, from 1.
    pub number: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// When it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The last blob that it has looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Digest>,
    /// What it has done so far.
    pub counts: Counts,
}

/// What was read and found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Blobs that were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that are damaged or missing.
    pub damaged: u64,
    /// Blobs that were repaired.
    pub repaired: u64,
}

/// What is wrong with a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It has as many bytes as it should, and others.
    OtherContent,
    /// It has more or fewer bytes than it should.
    OtherSize,
    /// It cannot be read.
    Unreadable,
    /// It is not there although a package keeps it.
    Missing,
}

impl Kind {
    /// Returns the stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtherContent => "other-content",
            Self::OtherSize => "other-size",
            Self::Unreadable => "unreadable",
            Self::Missing => "missing",
        }
    }
}

/// A damaged blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The blob.
    pub digest: Digest,
    /// The size that packages say it has, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// What is wrong with it.
    pub kind: Kind,
    /// What was found in its place, in words.
    pub found: String,
    /// When.
    pub found_at: Timestamp,
    /// Where the damaged bytes are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined_to: Option<String>,
    /// Packages that keep it: the first ones.
    #[serde(default)]
    pub packages: Vec<Concerned>,
    /// How many packages keep it.
    #[serde(default)]
    pub package_count: u64,
    /// How it was repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Repaired>,
    /// Why it is not repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A package that keeps a damaged blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concerned {
    /// Digest of the package file.
    pub digest: Digest,
    /// Name of the package, with its version where it has one.
    pub name: String,
    /// Name of the file as it was dropped.
    pub file_name: String,
}

/// How a blob was repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    /// When.
    pub at: Timestamp,
    /// Where the content came from, in words.
    pub from: String,
}

impl State {
    /// Reads what a record holds. What cannot be read is said and not used: all of it is found again by the next pass.
    pub fn read(record: &JobRecord) -> Self {
        if record.state.is_null() {
            return Self::default();
        }
        serde_json::from_value(record.state.clone()).unwrap_or_else(|error| {
            tracing::warn!(reason = %Chain(&error), "report of the last scrub cannot be read");
            Self::default()
        })
    }

    /// Writes it to a record.
    pub(super) fn write(&self, record: &mut JobRecord) {
        record.state = serde_json::to_value(self).expect("the state is plain data");
    }

    /// Returns how many blobs are damaged and not repaired.
    pub fn open_count(&self) -> u64 {
        self.open.len() as u64 + self.open_unlisted
    }

    /// Begins a pass.
    pub(super) fn begin(&mut self, now: Timestamp) {
        let number = self.last.as_ref().map_or(1, |last| last.number + 1);
        // What is beyond the bound is found again and counted anew.
        self.open_unlisted = 0;
        self.current = Some(Pass {
            number,
            started_at: now,
            finished_at: None,
            position: None,
            counts: Counts::default(),
        });
    }

    /// Ends the pass.
    pub(super) fn end(&mut self, now: Timestamp) {
        if let Some(mut pass) = self.current.take() {
            pass.finished_at = Some(now);
            self.last = Some(pass);
        }
    }

    /// Changes the counts of the pass, and those since ever.
    pub(super) fn count(&mut self, change: impl Fn(&mut Counts)) {
        change(&mut self.total);
        if let Some(pass) = &mut self.current {
            change(&mut pass.counts);
        }
    }

    /// Remembers a damaged blob.
    pub(super) fn add(&mut self, damage: Damage) {
        if self.open.len() < OPEN_MAX || self.open.contains_key(&damage.digest) {
            self.open.insert(damage.digest, damage);
        } else {
            self.open_unlisted += 1;
        }
    }

    /// Notes that a damaged blob is repaired.
    pub(super) fn repair(&mut self, digest: &Digest, repaired: Repaired) {
        self.count(|counts| counts.repaired += 1);
        let Some(mut damage) = self.open.remove(digest) else {
            self.open_unlisted = self.open_unlisted.saturating_sub(1);
            return;
        };
        damage.problem = None;
        damage.repaired = Some(repaired);
        self.repaired.push(damage);
        let surplus = self.repaired.len().saturating_sub(REPAIRED_KEPT);
        self.repaired.drain(..surplus);
    }
}

impl Damage {
    /// Returns what an operator can do, as long as it is not repaired.
    pub fn hint(&self) -> Option<String> {
        if self.repaired.is_some() {
            return None;
        }
        let package = self.packages.first()?;
        Some(format!(
            "drop the package {} again (file `{}`, {})",
            package.name, package.file_name, package.digest
        ))
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            blobs,
            bytes,
            damaged,
            repaired,
        } = self;
        let bytes = ByteCount(*bytes);
        write!(
            f,
            "{blobs} blobs with {bytes} read, {damaged} damaged, {repaired} repaired"
        )
    }
}
