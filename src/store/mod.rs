//! Content-addressed blobs on the local disk.
//!
//! A blob is a sequence of bytes known by its SHA-256 digest: layer, configuration or manifest alike. The store does
//! not know why a blob is wanted. Start from [`Store::open`]; content comes in through [`Store::begin`], [`Batch`] and
//! [`Writer`], and goes out through [`Store::open_blob`]. What only passes through is lent to it ([`Store::lend`]).
//!
//! # Layout
//!
//! ```text
//! <root>/
//! ├── FORMAT              version and feature sets; written last when the store is created
//! ├── ingest/             staged blobs under random names; emptied when the store is opened for writing
//! ├── quarantine/         corrupt blobs, `<64 hex>.<n>`; never deleted by this program
//! └── blobs/sha256/
//!     └── ab/abcdef…      one immutable file per digest, mode 0444
//! ```
//!
//! All 256 shards are made with the store, so that a commit never has to make a directory durable on its way.
//!
//! # States
//!
//! ```text
//! Store::begin ──► Batch ──writer──► Writer ──write*──► Batch::stage ──► Batch::commit ──► blobs
//!                    └─────────────────┴──────drop───────────┴──────► nothing
//! ```
//!
//! # Invariants
//!
//! - A file under `blobs/` had the digest that its name says when it appeared there. [`Batch::commit`] is the only
//!   code that makes one, and [`Batch::stage`] the only one that lets it.
//! - A blob is never modified in place and never written again while it is there.
//!
//! # Concurrency
//!
//! One process opens the store for writing and is the only one (the caller holds the lock of the directory); any
//! number may read. Within it, any number of readers and batches. Two batches that stage the same digest race
//! harmlessly: both hold the same bytes, and the rename is atomic.
//!
//! # Durability
//!
//! SIGKILL at any moment leaves whole blobs, and staged files that the next open removes. When [`Batch::commit`]
//! returns, all blobs of the batch survive power loss, those that were stored before included: first the content of
//! all staged files is synced ([`crate::sys::sync`] has the measurement), then they are renamed, then each shard that
//! was renamed into is synced once. A shard counts as unsynced from before the rename until after its sync, and in
//! full when the store is opened, since the last owner may have died in between; each commit syncs all unsynced
//! shards, whoever left them.
//!
//! # Failure
//!
//! A commit that fails half-way may leave some of its blobs in the store: whole, durable at the latest with the next
//! commit, and wanted by nobody yet. Repeating it is a success.

mod batch;
mod format;
mod lease;
mod lent;
mod suspects;
mod sweep;
mod writer;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use thiserror::Error;

use self::format::Format;
use crate::base::{Class, Classified, Digest};
use crate::sys::disk::{self, Space};
use crate::sys::fs::{self, Context as _};

pub use self::batch::{Batch, Committed, Staged};
pub use self::lease::Lease;
use self::lease::Leases;
use self::lent::Lent;
use self::suspects::Suspects;
pub use self::writer::Writer;

const BLOBS: &str = "blobs";
const SHARDS: &str = "blobs/sha256";
const INGEST: &str = "ingest";
const QUARANTINE: &str = "quarantine";

/// The blobs below one state directory. A cheap clone.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    access: Access,
    /// Shards that hold renamed blobs whose names may not be durable yet. Held during the renames of a commit.
    unsynced: Mutex<BTreeSet<u8>>,
    /// Blobs that somebody is about to want. Held while a blob is removed.
    leases: Mutex<Leases>,
    /// Blobs that somebody found damaged or missing.
    suspects: Suspects,
    /// Folders of blobs that lie elsewhere.
    lent: Lent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// A blob, open for reading.
#[derive(Debug)]
pub struct Blob {
    /// The content. Its position is the start.
    pub file: File,
    /// Size of the content, in bytes.
    pub size_bytes: u64,
}

/// What became of a blob that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It was removed.
    Gone {
        /// Size of its content, in bytes.
        size_bytes: u64,
    },
    /// It was not there.
    Absent,
    /// It stays: somebody is about to want it.
    Leased,
    /// It stays: the caller's last look says that it is wanted.
    Wanted,
}

/// What can go wrong in this module.
#[derive(Debug, Error)]
pub enum Error {
    /// The bytes written do not have the digest that was expected.
    #[error("expected content {expected}, found {found}")]
    DigestMismatch {
        /// The digest asked for.
        expected: Digest,
        /// The digest of the bytes received.
        found: Digest,
    },
    /// There are more bytes than the caller allows.
    #[error("expected content of at most {limit_bytes} bytes")]
    TooLarge {
        /// The limit that the caller gave.
        limit_bytes: u64,
    },
    /// There is no such blob.
    #[error("expected a blob in the store, found none with digest {digest}")]
    NotFound {
        /// The blob asked for.
        digest: Digest,
    },
    /// A blob that was there when it was staged is gone.
    #[error(
        "expected a blob to stay in the store until it is committed, found it removed: {digest}"
    )]
    Vanished {
        /// The blob.
        digest: Digest,
    },
    /// The content of a blob is no longer what was stored.
    #[error("expected stored content {expected}, found {found}")]
    Corrupt {
        /// The digest under which it is stored.
        expected: Digest,
        /// The digest that it has.
        found: Digest,
    },
    /// There is nothing to open.
    #[error("expected a state directory at `{}`, found none", root.display())]
    NoStore {
        /// The directory.
        root: PathBuf,
    },
    /// The directory holds blobs and does not say in which format.
    #[error("expected the file `{}`, found blobs without it", path.display())]
    FormatMissing {
        /// The file.
        path: PathBuf,
    },
    /// The file that says the format cannot be understood.
    #[error("failed to read the format of the state directory from `{}`", path.display())]
    FormatUnreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// The directory was written by a newer version.
    #[error("expected a state directory of format {known} or older, found {found}")]
    FormatNewer {
        /// The newest version that this program knows.
        known: u32,
        /// The version of the directory.
        found: u32,
    },
    /// The directory uses a feature that this program does not know.
    #[error("expected a state directory without unknown features, found `{feature}`")]
    FormatFeature {
        /// The feature.
        feature: String,
    },
    /// A store that was opened for reading was asked to write.
    #[error("expected a store that is open for writing, found one for reading")]
    ReadOnly,
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] fs::Error),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::DigestMismatch { .. } | Self::TooLarge { .. } => Class::Rejected,
            Self::NotFound { .. } | Self::NoStore { .. } => Class::Absent,
            Self::Vanished { .. } => Class::Transient,
            Self::Corrupt { .. } | Self::FormatMissing { .. } | Self::FormatUnreadable { .. } => {
                Class::Corrupt
            }
            Self::FormatNewer { .. } | Self::FormatFeature { .. } => Class::Usage,
            Self::ReadOnly => Class::Bug,
            Self::Fs(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::FormatNewer { .. } | Self::FormatFeature { .. } => Some(
                "install the version of violetd that wrote the state directory, or a newer one"
                    .to_owned(),
            ),
            Self::FormatMissing { path } | Self::FormatUnreadable { path, .. } => {
                Some(format!("restore `{}` from a backup", path.display()))
            }
            Self::NoStore { root } => Some(format!(
                "check that `{}` is the state directory, and start the daemon once to create it",
                root.display()
            )),
            Self::Corrupt { .. } => Some("bring a package that holds the content again".to_owned()),
            Self::Fs(error) => error.hint(),
            Self::DigestMismatch { .. }
            | Self::TooLarge { .. }
            | Self::NotFound { .. }
            | Self::Vanished { .. }
            | Self::ReadOnly => None,
        }
    }
}

impl Store {
    /// Opens the store in the directory `root` for writing.
    ///
    /// Creates what is missing, the directory itself included, and removes what an earlier process had staged. The
    /// caller makes sure that no other process has it open for writing.
    pub fn open(root: &Path) -> Result<Self, Error> {
        fs::ensure_dir_all(root)?;
        let store = Self::new(root, Access::Write);
        let format = Format::find(root)?;
        if let Some(format) = &format {
            format.check(Access::Write)?;
        }
        store.ensure_layout()?;
        if format.is_none() {
            if store.list().next().transpose()?.is_some() {
                let path = Format::path(root);
                return Err(Error::FormatMissing { path });
            }
            Format::current().write(root)?;
        }
        fs::empty_dir(&root.join(INGEST))?;
        Ok(store)
    }

    /// Opens the store in the directory `root` for reading. Changes nothing there.
    pub fn open_read_only(root: &Path) -> Result<Self, Error> {
        let format = Format::find(root)?.ok_or_else(|| Error::NoStore {
            root: root.to_owned(),
        })?;
        format.check(Access::Read)?;
        Ok(Self::new(root, Access::Read))
    }

    fn new(root: &Path, access: Access) -> Self {
        Self(Arc::new(Inner {
            root: root.to_owned(),
            access,
            unsynced: Mutex::new((0..=u8::MAX).collect()),
            leases: Mutex::default(),
            suspects: Suspects::default(),
            lent: Lent::default(),
        }))
    }

    fn ensure_layout(&self) -> Result<(), Error> {
        for part in [INGEST, QUARANTINE, BLOBS, SHARDS] {
            fs::ensure_dir(&self.0.root.join(part))?;
        }
        let shards = (0..=u8::MAX).map(|shard| format!("{shard:02x}"));
        fs::ensure_dirs(&self.0.root.join(SHARDS), shards)?;
        Ok(())
    }

    /// Begins a unit of durability: all blobs of one package. Blobs of a batch become visible together with its
    /// commit.
    pub fn begin(&self) -> Batch {
        Batch::new(self.clone())
    }

    /// Returns a lease on no blob yet: those that are added to it are not removed while it is fresh.
    pub fn lease(&self) -> Lease {
        Lease::new(self.clone())
    }

    /// Returns the size of a blob in bytes, if it is stored or lent.
    pub fn find(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        match self.find_own(digest)? {
            Some(size_bytes) => Ok(Some(size_bytes)),
            None => self.find_lent(digest),
        }
    }

    /// Returns the size of a blob in bytes, if it is stored.
    fn find_own(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let path = self.blob_path(digest);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("inspect", &path)?,
        }
    }

    /// Opens a blob for reading. The content is not checked on the way; see [`Self::read`].
    pub fn open_blob(&self, digest: &Digest) -> Result<Blob, Error> {
        Ok(self.open_any(digest)?.1)
    }

    /// Reads a small blob (a manifest, a configuration) of at most `limit_bytes` bytes, and checks its digest.
    pub fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let (path, blob) = self.open_any(digest)?;
        read_blob(blob, &path, digest, limit_bytes)
    }

    /// Lists all blobs with their sizes in bytes, ordered by digest.
    ///
    /// Blobs that come or go meanwhile may or may not be listed. A file that is no blob is logged and left out.
    pub fn list(&self) -> impl Iterator<Item = Result<(Digest, u64), Error>> + use<> {
        let store = self.clone();
        (0..=u8::MAX).flat_map(move |shard| match store.list_shard(shard) {
            Ok(blobs) => blobs.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    fn list_shard(&self, shard: u8) -> Result<Vec<(Digest, u64)>, Error> {
        let dir = self.shard_path(shard);
        let mut blobs = Vec::new();
        for entry in std::fs::read_dir(&dir).context("read", &dir)? {
            let entry = entry.context("read", &dir)?;
            let path = entry.path();
            let digest = entry.file_name().to_str().and_then(|name| {
                let digest = Digest::from_hex(name).ok()?;
                (digest.as_bytes()[0] == shard).then_some(digest)
            });
            match (digest, entry.metadata()) {
                (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                (_, Err(error)) => Err(error).context("inspect", &path)?,
                (Some(digest), Ok(metadata)) if metadata.is_file() => {
                    blobs.push((digest, metadata.len()));
                }
                (_, Ok(_)) => {
                    tracing::warn!(path = %path.display(), "found a file that is no blob");
                }
            }
        }
        blobs.sort_unstable();
        Ok(blobs)
    }

    /// Lists the blobs whose digests begin with the byte `shard`, ordered by digest. Nothing but names is read: a million
    /// blobs are a million `stat` calls otherwise. A file that is no blob is left out.
    pub fn list_names(&self, shard: u8) -> Result<Vec<Digest>, Error> {
        let dir = self.shard_path(shard);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&dir).context("read", &dir)? {
            let entry = entry.context("read", &dir)?;
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| Digest::from_hex(name).ok());
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            names.extend(digest.filter(|digest| is_file && shard_of(digest) == shard));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Moves a corrupt blob out of the way, so that the content can be stored again. Returns where it is now; nothing where
    /// there is nothing, or something else than was found: then a batch has put the content there since.
    ///
    /// `found_bytes` is the size that was found; `None` where that was no file. A batch replaces only what has another size
    /// than its content, so that the size tells. That the blob is gone survives power loss.
    pub fn quarantine(
        &self,
        digest: &Digest,
        found_bytes: Option<u64>,
    ) -> Result<Option<PathBuf>, Error> {
        self.check_writable()?;
        // Two callers that choose the same number would replace each other's file, and a commit renames under it.
        let _alone = self.unsynced();
        // What cannot even be inspected is none that came since.
        if self.find(digest).is_ok_and(|there| there != found_bytes) {
            return Ok(None);
        }
        match self.quarantine_alone(digest) {
            Err(Error::NotFound { .. }) => Ok(None),
            result => result.map(Some),
        }
    }

    fn quarantine_alone(&self, digest: &Digest) -> Result<PathBuf, Error> {
        let dir = self.0.root.join(QUARANTINE);
        // Whoever has looked at what was put aside may have removed the folder with it.
        fs::ensure_dir(&dir)?;
        let target = (0..=u32::MAX)
            .map(|number| dir.join(format!("{}.{number}", digest.hex())))
            .find(|target| target.symlink_metadata().is_err())
            .expect("a folder holds fewer files than there are numbers");
        let path = self.blob_path(digest);
        match fs::move_file(&path, &target) {
            Err(error) if error.class() == Class::Absent => {
                Err(Error::NotFound { digest: *digest })
            }
            result => {
                result?;
                tracing::error!(%digest, path = %target.display(), "moved a corrupt blob to quarantine");
                Ok(target)
            }
        }
    }

    /// Removes a blob unless it is leased or `is_wanted` says that it must stay. Nobody can lease it in between.
    ///
    /// That it is gone may be undone by power loss: it is then there again, whole and wanted by nobody.
    pub fn remove<E: From<Error>>(
        &self,
        digest: &Digest,
        is_wanted: impl FnOnce() -> Result<bool, E>,
    ) -> Result<Removed, E> {
        self.check_writable()?;
        let leases = self.leases();
        if leases.holds(digest) {
            return Ok(Removed::Leased);
        }
        if is_wanted()? {
            return Ok(Removed::Wanted);
        }
        let Some(size_bytes) = self.find_own(digest)? else {
            return Ok(Removed::Absent);
        };
        fs::remove_unsynced(&self.blob_path(digest)).map_err(Error::from)?;
        Ok(Removed::Gone { size_bytes })
    }

    /// Returns the space on the file system that holds the blobs.
    pub fn space(&self) -> Result<Space, Error> {
        Ok(disk::space(&self.0.root)?)
    }

    fn check_writable(&self) -> Result<(), Error> {
        match self.0.access {
            Access::Read => Err(Error::ReadOnly),
            Access::Write => Ok(()),
        }
    }

    fn unsynced(&self) -> MutexGuard<'_, BTreeSet<u8>> {
        self.0
            .unsynced
            .lock()
            .expect("no holder of this lock panics")
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.0.leases.lock().expect("no holder of this lock panics")
    }

    fn ingest_path(&self) -> PathBuf {
        self.0.root.join(INGEST)
    }

    fn shard_path(&self, shard: u8) -> PathBuf {
        self.0.root.join(SHARDS).join(format!("{shard:02x}"))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.shard_path(shard_of(digest)).join(digest.hex())
    }
}

const fn shard_of(digest: &Digest) -> u8 {
    digest.as_bytes()[0]
}

fn open_file(path: &Path, digest: &Digest) -> Result<Blob, Error> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NotFound { digest: *digest });
        }
        result => result.context("open", path)?,
    };
    let size_bytes = file.metadata().context("inspect", path)?.len();
    Ok(Blob { file, size_bytes })
}

/// Reads a blob that was opened, of at most `limit_bytes` bytes, and checks its digest.
fn read_blob(blob: Blob, path: &Path, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Error> {
    if blob.size_bytes > limit_bytes {
        return Err(Error::TooLarge { limit_bytes });
    }
    let mut bytes = Vec::new();
    blob.file
        .take(blob.size_bytes)
        .read_to_end(&mut bytes)
        .context("read", path)?;
    let found = Digest::of(&bytes);
    if found != *digest {
        return Err(Error::Corrupt {
            expected: *digest,
            found,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
