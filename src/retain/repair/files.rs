//! Kept package files: which one holds what is lost, and reading it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::{self, Read};
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::{Error, Repair};
use crate::base::{Digest, Hasher};
use crate::package::{self, DiscardError, DiscardSink, HashingReader, Sink, UnpackError};
use crate::store::{self, Batch, Store, Writer};

/// Bytes that are read at a time where nothing but the hash wants them. As in `verify`.
const BUFFER_BYTES: usize = 256 << 10;

/// A file that may be a package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptFile {
    /// Where it is; of a package in parts, its table.
    pub path: PathBuf,
    /// The name that it has as one file.
    pub name: String,
    /// Its size as one file, in bytes.
    pub size_bytes: u64,
}

/// Package files that were kept: in drop folders, where done files go, and where else the operator says.
pub trait PackageFiles: Debug + Send + Sync {
    /// Lists them. What cannot be read is left out.
    fn list(&self) -> Vec<KeptFile>;

    /// Opens one, from its first byte. Of a package in parts, all of them one after the other.
    fn open(&self, file: &KeptFile) -> io::Result<Box<dyn Read + Send + Sync>>;
}

/// A file that would help.
#[derive(Debug, Default)]
struct Sought {
    /// Name and size that it had when it was dropped; unknown of files that only carried packages.
    seen_as: Option<(String, u64)>,
    /// What is in it.
    lost: BTreeMap<Digest, u64>,
}

impl Repair<'_> {
    /// Reads kept files of the packages whose blobs are not back yet.
    pub(super) fn read_files(&mut self) {
        let mut sought: BTreeMap<Digest, Sought> = BTreeMap::new();
        for digest in self.missing() {
            let lost = &self.lost[&digest];
            for package in &lost.packages {
                let file = package.carried_by.unwrap_or(package.digest);
                let entry = sought.entry(file).or_default();
                entry.lost.insert(digest, lost.size_bytes);
                if package.carried_by.is_none() {
                    entry.seen_as = Some((package.file_name.clone(), package.size_bytes));
                }
            }
        }
        if sought.is_empty() || self.stop.is_cancelled() {
            return;
        }
        let mut search = Search {
            files: tokio::task::block_in_place(|| self.repairer.files.list()),
            known: BTreeMap::new(),
        };
        for (file, mut sought) in sought {
            sought
                .lost
                .retain(|digest, _| !self.back.contains_key(digest));
            if sought.lost.is_empty() || self.stop.is_cancelled() {
                continue;
            }
            tokio::task::block_in_place(|| self.read_file(&mut search, file, &sought));
        }
    }

    /// Looks for one file and takes from it what is lost. Blocking.
    fn read_file(&mut self, search: &mut Search, digest: Digest, sought: &Sought) {
        let files = self.repairer.files.as_ref();
        let Some(file) = search.find(files, digest, sought, self.stop) else {
            let reason = Error::Absent;
            for lost in sought.lost.keys() {
                self.explain(*lost, "kept files of its packages", &reason);
            }
            return;
        };
        let from = format!("kept file {}", file.path.display());
        match self.unpack(&file, digest, &sought.lost) {
            Ok(back) => {
                for lost in sought.lost.keys() {
                    if back.contains(lost) {
                        self.back.insert(*lost, from.clone());
                    } else {
                        self.explain(*lost, &from, &Error::NotInFile);
                    }
                }
            }
            Err(error) => {
                for lost in sought.lost.keys() {
                    self.explain(*lost, &from, &error);
                }
            }
        }
    }

    /// Reads a package once more and stores what is lost. Returns what is back.
    fn unpack(
        &self,
        file: &KeptFile,
        digest: Digest,
        lost: &BTreeMap<Digest, u64>,
    ) -> Result<BTreeSet<Digest>, Error> {
        let opened = self.repairer.files.open(file).map_err(Error::Read)?;
        let (reader, found) = HashingReader::new(Stoppable {
            inner: opened,
            stop: self.stop.clone(),
        });
        let mut sink = LostSink {
            store: &self.repairer.store,
            others: DiscardSink::default(),
            batch: self.repairer.store.begin(),
            lost,
            writer: None,
            back: BTreeSet::new(),
        };
        let unpacked = package::unpack(reader, &self.repairer.limits, &mut sink);
        if self.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        // A failure after everything was read takes nothing from what was read: that a package lacks what it builds on is
        // why this is done. The digest says whether it was the right file.
        match (found.get(), unpacked) {
            (Some(found), _) if found == digest => {}
            (None, Err(UnpackError::Package(error))) => return Err(Error::Package(error)),
            (None, Err(UnpackError::Sink(SinkError::Store(error)))) => return Err(error.into()),
            (Some(_) | None, _) => return Err(Error::FileChanged),
        }
        let LostSink { batch, back, .. } = sink;
        batch.commit()?;
        Ok(back)
    }
}

/// Which kept file has which digest, as far as that was looked at.
struct Search {
    files: Vec<KeptFile>,
    known: BTreeMap<PathBuf, Option<Digest>>,
}

impl Search {
    /// Finds the file with a digest. What has the right name and size is hashed first, then what has the right size; what
    /// has another size is not, where the size is known.
    fn find(
        &mut self,
        files: &dyn PackageFiles,
        digest: Digest,
        sought: &Sought,
        stop: &CancellationToken,
    ) -> Option<KeptFile> {
        let mut candidates = self.files.clone();
        if let Some((name, size_bytes)) = &sought.seen_as {
            candidates.retain(|file| file.size_bytes == *size_bytes);
            candidates.sort_by_key(|file| file.name != *name);
        }
        candidates.into_iter().find(|file| {
            if stop.is_cancelled() {
                return false;
            }
            let known = self.known.entry(file.path.clone());
            *known.or_insert_with(|| digest_of(files, file, stop)) == Some(digest)
        })
    }
}

/// Returns the digest of a file; `None` where it cannot be read to its end.
fn digest_of(
    files: &dyn PackageFiles,
    file: &KeptFile,
    stop: &CancellationToken,
) -> Option<Digest> {
    let inner = files.open(file).ok()?;
    let mut reader = Stoppable {
        inner,
        stop: stop.clone(),
    };
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Some(hasher.finish()),
            Ok(amount) => hasher.update(&buffer[..amount]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// A reader that fails once `stop` is cancelled.
struct Stoppable<R> {
    inner: R,
    stop: CancellationToken,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other(Error::Stopped));
        }
        self.inner.read(into)
    }
}

/// Why a blob of a kept file cannot be taken or given back.
#[derive(Debug, thiserror::Error)]
enum SinkError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Discarded(#[from] DiscardError),
}

/// Keeps what is lost, and of everything else only what is needed to read the package.
struct LostSink<'a> {
    store: &'a Store,
    others: DiscardSink,
    batch: Batch,
    lost: &'a BTreeMap<Digest, u64>,
    writer: Option<Writer>,
    back: BTreeSet<Digest>,
}

impl Sink for LostSink<'_> {
    type Error = SinkError;

    fn begin(&mut self, expected: Option<Digest>, size_bytes: u64) -> Result<(), SinkError> {
        self.others.begin(expected, size_bytes)?;
        // Older archives name their blobs otherwise: there, every blob of the right size may be the one.
        let may_be_lost = match expected {
            Some(digest) => self.lost.contains_key(&digest),
            None => self.lost.values().any(|lost| *lost == size_bytes),
        };
        self.writer = if may_be_lost {
            Some(self.batch.writer(None, size_bytes)?)
        } else {
            None
        };
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.others.write(bytes)?;
        if let Some(writer) = &mut self.writer {
            writer.write(bytes)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Digest, SinkError> {
        let digest = self.others.end()?;
        if let Some(writer) = self.writer.take()
            && self.lost.contains_key(&digest)
        {
            self.batch.stage(writer)?;
            self.back.insert(digest);
        }
        Ok(digest)
    }

    fn find(&self, digest: &Digest) -> Result<Option<u64>, SinkError> {
        Ok(self.others.find(digest)?)
    }

    fn find_base(&self, digest: &Digest) -> Result<Option<u64>, SinkError> {
        Ok(self.store.find(digest)?)
    }

    fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, SinkError> {
        match self.others.read(digest, limit_bytes) {
            Ok(content) => Ok(content),
            Err(DiscardError::NotKept(_)) => Ok(self.batch.read(digest, limit_bytes)?),
        }
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + '_>>, SinkError> {
        Ok(self.others.open(digest)?)
    }
}
