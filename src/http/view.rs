//! What the admin API says, as types. The command line reads them back.

use serde::{Deserialize, Serialize};

use super::pace::PaceView;
use crate::base::{Class, TargetName, Timestamp};
use crate::catalog::{PackageRecord, PackageSummary, PinRecord, RunRecord};
use crate::sys::disk::{Marks, Reading, State};

/// Answer to `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// Version of the daemon.
    pub version: String,
    /// Whether it runs. If not, this is what its catalog knows.
    pub is_running: bool,
    /// Since when it runs.
    pub started_at: Option<Timestamp>,
    /// When this was said.
    pub now: Timestamp,
    /// Whether every target holds every package.
    pub is_in_sync: bool,
    /// Space on the file system of the store.
    pub disk: DiskView,
    /// The packages, in the order in which they became ready.
    pub packages: Vec<PackageView>,
    /// Files in the drop folders that are not ready, and refused ones.
    pub files: Vec<FileView>,
    /// The targets, in the order of the configuration.
    pub targets: Vec<TargetView>,
    /// What is wrong with ingest as a whole, if anything.
    pub ingest_problem: Option<String>,
    /// Stored blobs that are damaged and not repaired, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// Space on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskView {
    /// What may still be written.
    pub available_bytes: u64,
    /// The size of the file system.
    pub total_bytes: u64,
    /// How short space is.
    pub state: DiskState,
    /// Below this it is low.
    pub low_bytes: u64,
    /// Below this it is critical.
    pub critical_bytes: u64,
}

/// How short space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// There is enough.
    Ok,
    /// Ingest begins no package.
    Low,
    /// Ingest stops.
    Critical,
}

impl DiskView {
    /// Returns what is said of a look at the space.
    pub fn new(reading: Reading, marks: Marks) -> Self {
        Self {
            available_bytes: reading.space.available_bytes,
            total_bytes: reading.space.total_bytes,
            state: match reading.state {
                State::Ok => DiskState::Ok,
                State::Low => DiskState::Low,
                State::Critical => DiskState::Critical,
            },
            low_bytes: marks.low_bytes,
            critical_bytes: marks.critical_bytes,
        }
    }
}

/// A package that is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PackageView {
    /// What lists show of it.
    #[serde(flatten)]
    pub package: PackageSummary,
    /// The targets that hold all of it.
    pub in_sync_on: Vec<TargetName>,
}

/// Answer to `GET /v1/packages/{digest}`: all that is known of a package.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PackageDetailView {
    /// The package, as the catalog has it.
    #[serde(flatten)]
    pub package: PackageRecord,
    /// The targets that hold all of it.
    pub in_sync_on: Vec<TargetName>,
    /// Its pin, if it has one.
    pub pin: Option<PinRecord>,
}

/// A file that is not a ready package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileView {
    /// Where it was dropped.
    pub path: String,
    /// Size, in bytes.
    pub size_bytes: u64,
    /// Name of its state: `seen`, `settled`, `verified`, `unpacked`, `waiting`, `rejected`.
    pub state: String,
    /// What it waits for, or why it was refused.
    pub reason: Option<String>,
    /// Stable code of what went wrong.
    pub code: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Since when it is in this state.
    pub updated_at: Timestamp,
}

/// A target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetView {
    /// Name.
    pub name: TargetName,
    /// `primary` or `standby`.
    pub role: String,
    /// Address of the registry.
    pub registry: String,
    /// Whether it holds every package that is meant for it.
    pub is_in_sync: bool,
    /// How many packages are meant for it.
    pub packages_wanted: usize,
    /// How many of them it holds.
    pub packages_in_sync: usize,
    /// Age of the oldest package that it does not hold, in seconds: the recovery point.
    pub lag_seconds: Option<i64>,
    /// Why and since when a run is in progress.
    pub running: Option<RunningView>,
    /// The last run that ended.
    pub last_run: Option<RunRecord>,
    /// When a run last left nothing undone.
    pub last_success_at: Option<Timestamp>,
    /// When the next scheduled run is due.
    pub next_run_at: Option<Timestamp>,
    /// When the last run is repeated, if it left something undone.
    pub retry_at: Option<Timestamp>,
    /// How fast and how much at once its registry is asked. Nothing where no daemon runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<PaceView>,
}

/// A run in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningView {
    /// Why it started.
    pub reason: String,
    /// Since when.
    pub started_at: Timestamp,
}

/// An error as the API says it (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemView {
    /// The class in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What kind of failure it is, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
}
