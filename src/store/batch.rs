//! Many blobs made durable together.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::writer::Written;
use super::{Blob, Error, Lease, Store, Writer, open_file, read_blob, shard_of};
use crate::base::Digest;
use crate::sys::fs;
use crate::sys::sync::{self, Syncing};

/// How many staged files wait to be synced. As many again may be being synced. Bounds the descriptors of a batch: a
/// service may have 1024 open by default, and a package may hold more blobs than that. Chosen, not measured.
const OPEN_FILES_MAX: usize = 64;

/// How many staged bytes wait to be synced. So the disk writes while the next blobs come in, instead of all at the
/// commit, and a large package does not fill the memory with what is not written yet.
const UNSYNCED_BYTES_MAX: u64 = 64 << 20;

/// Mode of a blob: nobody writes to it, not even its owner.
const BLOB_MODE: u32 = 0o444;

/// Blobs that become visible and durable together: a unit of durability.
///
/// Dropping it instead of committing leaves nothing behind.
#[derive(Debug)]
pub struct Batch {
    store: Store,
    /// On everything that the batch relies on, and on what it will commit.
    lease: Lease,
    staged: BTreeMap<Digest, Entry>,
    /// Staged files that are not synced yet, through the descriptor that wrote them.
    open_files: BTreeMap<Digest, File>,
    /// The bytes in them.
    unsynced_bytes: u64,
    /// Staged files that are being synced.
    syncing: Option<Syncing>,
}

#[derive(Debug)]
struct Entry {
    size_bytes: u64,
    /// None where the store has the blob already.
    temp: Option<TempPath>,
}

/// One blob in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content, in bytes.
    pub size_bytes: u64,
    /// Whether neither the store nor the batch had it before.
    pub is_new: bool,
}

/// What a commit did. Known blobs are those of the batch that the store had already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Blobs that were added to the store.
    pub new_blobs: u64,
    /// Their size together, in bytes.
    pub new_bytes: u64,
    /// Blobs that were in the store already.
    pub known_blobs: u64,
    /// Their size together, in bytes.
    pub known_bytes: u64,
}

impl Batch {
    pub(super) fn new(store: Store) -> Self {
        Self {
            lease: store.lease(),
            store,
            staged: BTreeMap::new(),
            open_files: BTreeMap::new(),
            unsynced_bytes: 0,
            syncing: None,
        }
    }

    /// Starts a blob of at most `limit_bytes` bytes.
    ///
    /// Where `expected` is staged, or stored with exactly `limit_bytes` bytes, the content is hashed and compared, and
    /// not written. Without `expected` any content is accepted.
    pub fn writer(&self, expected: Option<Digest>, limit_bytes: u64) -> Result<Writer, Error> {
        self.store.check_writable()?;
        self.lease.renew();
        let is_known = match &expected {
            Some(digest) => {
                self.staged.contains_key(digest)
                    || self.store.find_own(digest)? == Some(limit_bytes)
            }
            None => false,
        };
        let temp = if is_known {
            None
        } else {
            Some(fs::create_temp(&self.store.ingest_path(), BLOB_MODE)?)
        };
        Ok(Writer::new(expected, limit_bytes, temp))
    }

    /// Takes finished content into the batch, if it has the digest that was expected of it.
    ///
    /// Staging what the batch or the store has already is a success.
    pub fn stage(&mut self, writer: Writer) -> Result<Staged, Error> {
        let Written {
            digest,
            size_bytes,
            temp,
        } = writer.finish()?;
        let staged = |is_new| Staged {
            digest,
            size_bytes,
            is_new,
        };
        if self.staged.contains_key(&digest) {
            return Ok(staged(false));
        }
        // Before looking: what is found then stays until the commit.
        self.lease.add(digest);
        if self.store.find_own(&digest)? == Some(size_bytes) {
            let temp = None;
            self.staged.insert(digest, Entry { size_bytes, temp });
            return Ok(staged(false));
        }
        let (file, path) = temp.ok_or(Error::Vanished { digest })?.into_parts();
        let temp = Some(path);
        self.staged.insert(digest, Entry { size_bytes, temp });
        self.open_files.insert(digest, file);
        self.unsynced_bytes += size_bytes;
        let is_enough = self.unsynced_bytes >= UNSYNCED_BYTES_MAX;
        if is_enough || self.open_files.len() >= OPEN_FILES_MAX {
            self.start_sync()?;
        }
        Ok(staged(true))
    }

    /// Returns the size of a blob in bytes, if it is staged or stored.
    pub fn find(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        match self.staged.get(digest) {
            Some(entry) => Ok(Some(entry.size_bytes)),
            None => self.store.find_own(digest),
        }
    }

    /// Returns the size of a blob in bytes, if it is staged or stored, and keeps it from being removed until the lease that
    /// the commit returns is dropped.
    pub fn hold(&mut self, digest: &Digest) -> Result<Option<u64>, Error> {
        self.lease.add(*digest);
        self.find(digest)
    }

    /// Reads a small blob of at most `limit_bytes` bytes, staged or stored, and checks its digest.
    pub fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        match self.staged_path(digest) {
            Some(path) => read_blob(open_file(path, digest)?, path, digest, limit_bytes),
            None => self.store.read(digest, limit_bytes),
        }
    }

    /// Opens a blob for reading, staged or stored. The content is not checked on the way.
    pub fn open(&self, digest: &Digest) -> Result<Blob, Error> {
        match self.staged_path(digest) {
            Some(path) => open_file(path, digest),
            None => self.store.open_blob(digest),
        }
    }

    /// Forgets staged blobs that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&Digest) -> bool) {
        self.staged.retain(|digest, _| keep(digest));
        self.open_files.retain(|digest, _| keep(digest));
    }

    /// Makes all staged blobs durable, then visible. Returns what it did, and the lease on them: it is to be dropped once
    /// something says that they are wanted.
    ///
    /// On success all of them survive power loss, and so does everything else that this batch may have seen in the
    /// store.
    pub fn commit(mut self) -> Result<(Committed, Lease), Error> {
        self.store.check_writable()?;
        self.sync_staged()?;
        // Before the first look: what is found below stays, also where the lease had run out.
        self.lease.renew();
        let mut committed = Committed::default();
        let mut unsynced = self.store.unsynced();
        for (digest, entry) in std::mem::take(&mut self.staged) {
            let found = self.store.find_own(&digest)?;
            if found == Some(entry.size_bytes) {
                committed.known_blobs += 1;
                committed.known_bytes += entry.size_bytes;
                continue;
            }
            let temp = entry.temp.ok_or(Error::Vanished { digest })?;
            if found.is_some() {
                self.store.quarantine_alone(&digest)?;
            }
            unsynced.insert(shard_of(&digest));
            fs::publish_closed(temp, &self.store.blob_path(&digest))?;
            committed.new_blobs += 1;
            committed.new_bytes += entry.size_bytes;
        }
        let shards: Vec<PathBuf> = unsynced
            .iter()
            .map(|shard| self.store.shard_path(*shard))
            .collect();
        sync::sync_dirs(&shards)?;
        unsynced.clear();
        drop(unsynced);
        self.lease.renew();
        Ok((committed, self.lease))
    }

    /// Makes the content of all staged files durable and closes them.
    fn sync_staged(&mut self) -> Result<(), Error> {
        self.start_sync()?;
        if let Some(syncing) = self.syncing.take() {
            syncing.wait()?;
        }
        Ok(())
    }

    /// Begins to sync the open files, once those before them are done.
    fn start_sync(&mut self) -> Result<(), Error> {
        if let Some(syncing) = self.syncing.take() {
            syncing.wait()?;
        }
        self.unsynced_bytes = 0;
        let files: Vec<(File, PathBuf)> = std::mem::take(&mut self.open_files)
            .into_iter()
            .filter_map(|(digest, file)| Some((file, self.staged_path(&digest)?.to_owned())))
            .collect();
        if !files.is_empty() {
            self.syncing = Syncing::start(files)?;
        }
        Ok(())
    }

    fn staged_path(&self, digest: &Digest) -> Option<&Path> {
        self.staged.get(digest)?.temp.as_deref()
    }
}
