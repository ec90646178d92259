//! Is what is on disk what it should be: every finding with a stable code, a severity and what to do.
//!
//! Start from [`check`]; the list of findings is [`Code`]. It only reads: nothing is locked, changed or repaired. What is
//! to be derived again is derived by [`rebuild`].
//!
//! ```text
//! FORMAT ─► folders and files ─► packages: files = rows ─► rows ─► blobs = what packages keep ─► audit record, disk
//!                                                                     │ --deep
//!                                                                     └─► hash of each blob ─► tree of each image
//! ```
//!
//! The layout is known here once more, on purpose: a check that asks the store where its files are would not see those that
//! the store does not see.
//!
//! # Concurrency
//!
//! Beside a daemon everything moves. Whatever is found at a first look is looked for again, at the catalog as it is then
//! and at the files as they are then, after [`PAUSE`](look::PAUSE); what is found both times is said. What only a stopped store can
//! tell, whether a staged or temporary file is a leftover, is not judged, and that is said, too.
//!
//! # Memory
//!
//! Findings are told as they are made. In memory are 48 bytes for each blob that packages keep, 32 for each package and,
//! beside a daemon, 32 for each finding of the first look; a deep check keeps the digests of damaged blobs. For a million
//! blobs and 20 000 packages that was 108 MiB in all, and 170 MiB where every single blob was damaged (measured on
//! 2026-11-21).

mod audit_record;
mod blobs;
mod code;
mod deep;
mod finding;
mod layout;
mod look;
mod packages;
mod pass;
mod rebuild;
mod records;
mod rows;
mod wanted;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use self::deep::Deep;
use self::look::{Look, Seen};
use crate::audit;
use crate::base::{ByteCount, Chain, Class, Classified, TargetName, Timestamp};
use crate::catalog;
use crate::store::{self, Store};
use crate::sys::disk;
use crate::sys::fs::{self, Context as _};
use crate::sys::lock::{self, Lock, Owner};

pub use self::code::{Code, Severity};
pub use self::finding::{Finding, Observer, Progress};
pub use self::rebuild::rebuild;

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Names, sizes and rows.
    #[default]
    Quick,
    /// The content of every blob and the tree of every image besides.
    Deep,
}

/// What to look at, and what the configuration says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How thoroughly to look.
    pub depth: Depth,
    /// Files and folders that the configuration puts into the state directory: a socket, a drop folder.
    pub known_paths: Vec<PathBuf>,
    /// The targets that are configured, where that is known.
    pub targets: Option<Vec<TargetName>>,
    /// Free space below which there is a warning, in bytes; 0 for none.
    pub disk_low_bytes: u64,
    /// Free space below which nothing is taken in, in bytes; 0 for none.
    pub disk_critical_bytes: u64,
}

/// What a check looked at and how much it found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How thoroughly it looked.
    pub depth: Depth,
    /// The process that owns the state directory, in words.
    pub owner: Option<String>,
    /// Findings of severity `error`.
    pub errors: u64,
    /// Findings of severity `warning`.
    pub warnings: u64,
    /// Findings of severity `info`.
    pub infos: u64,
    /// Packages.
    pub packages: u64,
    /// Blobs in the store.
    pub blobs: u64,
    /// Their size, in bytes.
    pub blob_bytes: u64,
    /// Blobs that no package keeps and no waiting file expects.
    pub unreferenced_blobs: u64,
    /// Their size, in bytes.
    pub unreferenced_bytes: u64,
    /// Those of them that are listed for collection.
    pub condemned_blobs: u64,
    /// Since when the first of them is.
    pub condemned_since: Option<Timestamp>,
    /// Records of the audit record.
    pub audit_records: u64,
    /// Blobs that were hashed.
    pub hashed_blobs: u64,
    /// Bytes that were hashed.
    pub hashed_bytes: u64,
    /// Images whose trees were read.
    pub images: u64,
}

/// Why nothing can be said, or nothing be rebuilt.
#[derive(Debug, Error)]
pub enum Error {
    /// There is nothing to look at.
    #[error("expected a state directory at `{}`, found none", dir.display())]
    NoStateDirectory {
        /// The directory.
        dir: PathBuf,
    },
    /// A process owns the directory, or another user, or the lock cannot be looked at.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The audit record cannot be read.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// The file system refuses.
    #[error(transparent)]
    Fs(#[from] fs::Error),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::NoStateDirectory { .. } => Class::Absent,
            Self::Lock(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Audit(error) => error.class(),
            Self::Fs(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoStateDirectory { dir } => Some(format!(
                "check that `{}` is the state directory, and start the daemon once to create it",
                dir.display()
            )),
            Self::Lock(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Audit(error) => error.hint(),
            Self::Fs(error) => error.hint(),
        }
    }
}

/// Looks at the state directory `root` and tells `observer` what is found. Changes nothing.
pub fn check(root: &Path, options: &Options, observer: &mut dyn Observer) -> Result<Report, Error> {
    check_is_there(root)?;
    let owner = Lock::owner(&root.join("LOCK"));
    check_owned(root, owner, options, observer)
}

/// As [`check`], where it is known who owns the directory.
fn check_owned(
    root: &Path,
    owner: Option<Owner>,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Report, Error> {
    let mut counter = Counter {
        inner: observer,
        report: Report {
            depth: options.depth,
            owner: owner.map(|owner| owner.to_string()),
            ..Report::default()
        },
    };
    if check_format(root, &mut counter)? {
        check_all(root, options, &mut counter)?;
    }
    Ok(counter.report)
}

fn check_all(root: &Path, options: &Options, counter: &mut Counter<'_>) -> Result<(), Error> {
    let is_owned = counter.report.owner.is_some();
    if let Some(owner) = &counter.report.owner {
        let reason =
            format!("{owner} owns the state directory; staged and temporary files are not judged");
        counter.found(Finding::new(Code::DaemonRunning, "LOCK", reason));
    }
    let look = Look {
        root,
        options,
        is_owned,
        meanwhile: &|| std::thread::sleep(look::PAUSE),
    };
    let seen = if is_owned {
        look.twice(counter)?
    } else {
        look.once(&mut |finding| counter.found(finding))?
    };
    counter.report.add(&seen);
    audit_record::check(root, &seen.packages.ready, counter)?;
    check_disk(root, options, counter)?;
    if options.depth == Depth::Deep {
        let mut deep = Deep {
            root,
            is_owned,
            catalog: seen.catalog,
            observer: counter,
            corrupt: BTreeSet::new(),
        };
        let hashed = deep.check_content(seen.blobs)?;
        let images = deep.check_images(&seen.packages.ready)?;
        let report = &mut counter.report;
        (report.hashed_blobs, report.hashed_bytes) = (hashed.blobs, hashed.bytes);
        report.images = images;
    }
    Ok(())
}

/// Looks at the file `FORMAT`. Returns whether the rest can be looked at.
fn check_format(root: &Path, counter: &mut Counter<'_>) -> Result<bool, Error> {
    let mut tell = |code, error: &store::Error| {
        counter.found(Finding::new(code, "FORMAT", Chain(error).to_string()));
    };
    match Store::open_read_only(root) {
        Ok(_) => {}
        Err(store::Error::NoStore { .. }) => {
            let parts = ["blobs", "catalog", "packages"];
            if !parts.iter().any(|part| root.join(part).exists()) {
                return Err(no_state_directory(root));
            }
            let path = root.join("FORMAT");
            tell(Code::FormatMissing, &store::Error::FormatMissing { path });
        }
        Err(error @ store::Error::FormatUnreadable { .. }) => {
            tell(Code::FormatUnreadable, &error);
        }
        Err(error @ (store::Error::FormatNewer { .. } | store::Error::FormatFeature { .. })) => {
            tell(Code::FormatUnknown, &error);
            return Ok(false);
        }
        // A folder of that name is found where the layout is looked at.
        Err(_) if root.join("FORMAT").is_dir() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

/// Returns an error where there is no folder, or none that this user may look into.
fn check_is_there(root: &Path) -> Result<(), Error> {
    match root.metadata().context("inspect", root) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Err(error) if error.class() == Class::Denied => Err(error.into()),
        Ok(_) | Err(_) => Err(no_state_directory(root)),
    }
}

fn no_state_directory(root: &Path) -> Error {
    let dir = root.to_owned();
    Error::NoStateDirectory { dir }
}

/// Looks at the free space.
fn check_disk(root: &Path, options: &Options, counter: &mut Counter<'_>) -> Result<(), Error> {
    let available = disk::space(root)?.available_bytes;
    let (code, mark) = if available < options.disk_critical_bytes {
        (Code::DiskCritical, options.disk_critical_bytes)
    } else if available < options.disk_low_bytes {
        (Code::DiskLow, options.disk_low_bytes)
    } else {
        return Ok(());
    };
    let (expected, found) = (ByteCount(mark), ByteCount(available));
    let reason = format!("expected {expected} of free space, found {found}");
    counter.found(Finding::new(code, ".", reason));
    Ok(())
}

impl Report {
    fn add(&mut self, seen: &Seen) {
        let blobs = seen.blobs;
        self.packages = seen.packages.ready.len() as u64;
        (self.blobs, self.blob_bytes) = (blobs.count, blobs.bytes);
        self.unreferenced_blobs = blobs.unreferenced;
        self.unreferenced_bytes = blobs.unreferenced_bytes;
        self.condemned_blobs = blobs.condemned;
        self.condemned_since = blobs.condemned_since;
    }
}

/// Counts what it hands on.
struct Counter<'a> {
    inner: &'a mut dyn Observer,
    report: Report,
}

impl Observer for Counter<'_> {
    fn found(&mut self, finding: Finding) {
        let count = match finding.code.severity() {
            Severity::Error => &mut self.report.errors,
            Severity::Warning => &mut self.report.warnings,
            Severity::Info => &mut self.report.infos,
        };
        *count += 1;
        self.inner.found(finding);
    }

    fn progress(&mut self, progress: Progress) {
        self.inner.progress(progress);
    }
}

#[cfg(test)]
mod tests;
