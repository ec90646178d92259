//! From a verified file to the store and the catalog, in one pass over the file.
//!
//! ```text
//! file ─► hash of the file ─► inflate ─┐ own thread
//!                                      ▼
//!                    tar entries ─► hash and write of each blob ─► one sync ─► one catalog batch
//! ```
//!
//! The file is hashed again on the way, and nothing is committed unless it is the file that was verified: one that was
//! swapped in between is caught here. That holds for refusals, too: when content is at fault, it is hashed once more, and
//! what is no longer the verified file is not refused for what somebody else has put in its place.
//!
//! A file may carry several packages, one of which may be the file itself. All of them become ready together, and those
//! that the catalog has already are left as they are, but for blobs of them that were lost: those are stored again, and what
//! they keep is written down where the catalog does not know it. A file that only carries others has no record of its own:
//! when it comes again it is unpacked again, its blobs are compared with those in the store and not written, and a package
//! that was removed meanwhile is ready again.

use std::collections::BTreeSet;
use std::collections::hash_map::{Entry, HashMap};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use super::Error;
use super::measure::MeasureSink;
use super::sink::BatchSink;
use super::space::{self, Budget, Expansion};
use crate::base::oci::{Descriptor, MANIFEST_BYTES_MAX};
use crate::base::{Clock, Digest, Hasher, PackageKind, PackageName, Tree};
use crate::catalog::{
    Catalog, Content, Cosigner, ImageRecord, NewPackage, PackageRecord, Provenance,
};
use crate::package::{self, Contents, HashingReader, Limits, Sink, UnpackError};
use crate::store::{self, Batch, Committed, Lease, Store};
use crate::sys::disk::Alarm;
use crate::sys::fs::Context as _;
use crate::verify::{PackageFile, Source, Verdict, Verified};

/// Bytes that are read at a time where nothing but the hash wants them. As in `verify`.
const BUFFER_BYTES: usize = 256 << 10;

/// What importing needs.
#[derive(Debug)]
pub(super) struct Importer {
    pub(super) store: Store,
    pub(super) catalog: Catalog,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: Limits,
    /// Where the store is: how much free space must remain.
    pub(super) disk: Arc<Alarm>,
    /// What packages take.
    pub(super) expansion: Expansion,
}

/// What became of a file.
#[derive(Debug)]
pub(super) struct Imported {
    /// Packages that the catalog does not have yet. Their blobs are in the store.
    pub(super) packages: Vec<NewPackage>,
    /// Packages inside of the file, known ones included.
    pub(super) nested: Vec<Digest>,
    /// What was committed to the store; nothing where the file was not unpacked, because its package is known.
    pub(super) committed: Option<Committed>,
    /// Keeps the blobs of the packages in the store until the catalog says that they are wanted.
    pub(super) lease: Option<Lease>,
}

/// What the packages in a file say that the catalog does not know.
#[derive(Debug, Default)]
struct Records {
    /// Packages that it does not have.
    new: Vec<NewPackage>,
    /// Packages that it has, and of which it does not know what they keep.
    learned: Vec<(Digest, Content)>,
}

impl Importer {
    /// Unpacks a verified file into the store.
    pub(super) fn unpack(
        &self,
        file: &Verified<PackageFile>,
        stop: &CancellationToken,
    ) -> Result<Imported, Error> {
        let file = file.get();
        if self.catalog.find_package(&file.digest)?.is_some() {
            let known = self.known(&file.digest)?;
            if self.is_whole(&file.digest)? && self.are_whole(&known.nested)? {
                return Ok(known);
            }
            tracing::info!(digest = %file.digest, "known package is unpacked again, because blobs of it are lost");
        }
        let expected_bytes = self.expansion.estimate(file.size_bytes, &self.catalog);
        let unpacked = space::check(&self.disk, 0, expected_bytes);
        match unpacked.and_then(|()| self.unpack_within(file, None, stop)) {
            // As far as that can be estimated.
            Err(Error::LowSpace { .. }) => {
                let total_bytes = self.measure(file, stop)?;
                space::check(&self.disk, 0, total_bytes)?;
                self.unpack_within(file, Some(total_bytes), stop)
            }
            result => result,
        }
    }

    /// Unpacks a file as long as there is space; `total_bytes` is what was counted.
    fn unpack_within(
        &self,
        file: &PackageFile,
        total_bytes: Option<u64>,
        stop: &CancellationToken,
    ) -> Result<Imported, Error> {
        let budget = Budget::new(&self.disk, file.size_bytes, total_bytes);
        let mut sink = BatchSink::new(self, budget, stop);
        let read_bytes = sink.read_bytes();
        let unpacked = self.read(file, &mut sink, read_bytes, stop)?;
        self.expansion.add(file.size_bytes, sink.received_bytes());
        self.store(file, unpacked, sink.batch)
    }

    /// Returns how many bytes the store lacks of a file, as far as it can be read: what is wrong with it is found when it is
    /// unpacked.
    fn measure(&self, file: &PackageFile, stop: &CancellationToken) -> Result<u64, Error> {
        let mut sink = MeasureSink::new(&self.store, stop);
        let result = self.read(file, &mut sink, Arc::default(), stop);
        if let Err(Error::Stopped) = result {
            return Err(Error::Stopped);
        }
        Ok(sink.new_bytes)
    }

    /// Commits what the packages of a file consist of, and nothing else of it, and returns their records.
    fn store(
        &self,
        file: &PackageFile,
        unpacked: package::Unpacked,
        mut batch: Batch,
    ) -> Result<Imported, Error> {
        batch.retain(|digest| contents_of(&unpacked).any(|it| it.blobs.contains_key(digest)));
        for (digest, size_bytes) in contents_of(&unpacked).flat_map(|it| &it.blobs) {
            // A base blob may have been there when it was looked for, and be gone now.
            if batch.hold(digest)? != Some(*size_bytes) {
                return Err(store::Error::Vanished { digest: *digest }.into());
            }
        }
        let nested = unpacked.nested.iter().map(|inner| inner.digest).collect();
        let Records {
            new: mut packages,
            learned,
        } = self.records(file, unpacked, &batch)?;
        let (committed, lease) = batch.commit()?;
        for (package, content) in &learned {
            self.catalog.put_content(package, content)?;
        }
        let now = self.clock.now();
        for package in &mut packages {
            package.record.ready_at = now;
        }
        Ok(Imported {
            packages,
            nested,
            committed: Some(committed),
            lease: Some(lease),
        })
    }

    /// Returns what is to be said of a file whose package is in the catalog already.
    fn known(&self, digest: &Digest) -> Result<Imported, Error> {
        let mut nested = Vec::new();
        self.catalog.for_each_package(|package| {
            if package.carried_by == Some(*digest) {
                nested.push(package.digest);
            }
            Ok::<(), Error>(())
        })?;
        Ok(Imported {
            packages: Vec::new(),
            nested,
            committed: None,
            lease: None,
        })
    }

    fn are_whole(&self, packages: &[Digest]) -> Result<bool, Error> {
        for package in packages {
            if !self.is_whole(package)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether the store has every blob that a package keeps, with the right size. What is in them is the business
    /// of scrub, which puts away what is damaged. Where nobody knows what it keeps, it is not whole: it is to be told.
    fn is_whole(&self, package: &Digest) -> Result<bool, Error> {
        let Some(content) = self.catalog.find_content(package)? else {
            return Ok(false);
        };
        for (digest, size_bytes) in content.entries() {
            if self.store.find(digest)? != Some(*size_bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the file that was verified, and no other.
    fn read(
        &self,
        file: &PackageFile,
        sink: &mut impl Sink<Error = Error>,
        read_bytes: Arc<AtomicU64>,
        stop: &CancellationToken,
    ) -> Result<package::Unpacked, Error> {
        let changed = || Error::FileChanged {
            path: file.source.path().to_owned(),
            verified: file.digest,
        };
        let opened = file.source.open().context("open", file.source.path())?;
        let (reader, digest) = HashingReader::new(opened);
        let reader = Watched {
            inner: reader,
            read_bytes,
            stop: stop.clone(),
        };
        match package::unpack(reader, &self.limits, sink) {
            Err(_) if stop.is_cancelled() => Err(Error::Stopped),
            Ok(_) if digest.get() != Some(file.digest) => Err(changed()),
            Ok(unpacked) if contents_of(&unpacked).next().is_none() => {
                Err(Error::Package(package::Error::Empty))
            }
            Ok(unpacked) => Ok(unpacked),
            Err(UnpackError::Sink(error)) => Err(error),
            // What is wrong with other content than was verified says nothing about the package.
            Err(UnpackError::Package(error)) => match digest_of(&file.source, stop)? {
                Some(found) if found == file.digest => Err(Error::Package(error)),
                Some(_) | None => Err(changed()),
            },
        }
    }

    /// Returns what the packages in a file say that the catalog does not know.
    fn records(
        &self,
        file: &PackageFile,
        unpacked: package::Unpacked,
        batch: &Batch,
    ) -> Result<Records, Error> {
        let outer = unpacked.package.map(|contents| Origin {
            digest: file.digest,
            size_bytes: file.size_bytes,
            file_name: file_name_of(file.source.path()),
            carried_by: None,
            contents,
        });
        let inner = unpacked.nested.into_iter().map(|inner| Origin {
            digest: inner.digest,
            size_bytes: inner.size_bytes,
            file_name: inner.path,
            carried_by: Some(file.digest),
            contents: inner.contents,
        });
        let mut records = Records::default();
        for origin in outer.into_iter().chain(inner) {
            let digest = origin.digest;
            // A file may carry the same package twice.
            if records.new.iter().any(|it| it.record.digest == digest) {
                continue;
            }
            if self.catalog.find_package(&digest)?.is_none() {
                let verdict = provenance(&file.verdict);
                records.new.push(self.record(origin, verdict, batch)?);
            } else if self.catalog.find_content(&digest)?.is_none() {
                let content = content_of(&origin.contents);
                records.learned.push((digest, content));
            }
        }
        Ok(records)
    }

    fn record(
        &self,
        origin: Origin,
        provenance: Provenance,
        batch: &Batch,
    ) -> Result<NewPackage, Error> {
        let Origin {
            digest,
            size_bytes,
            file_name,
            carried_by,
            contents,
        } = origin;
        let content = content_of(&contents);
        if let Some(problem) = &contents.description_problem {
            tracing::warn!(file = file_name, code = problem.code(), reason = %problem, "package is described in part only");
        }
        let mut images = Vec::with_capacity(contents.images.len());
        // Thousands of names may stand for one large index, which is read once.
        let mut trees: HashMap<Digest, (String, u64)> = HashMap::new();
        for image in contents.images {
            let (media_type, content_bytes) = match trees.entry(image.descriptor.digest) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(new) => new
                    .insert(summarize(
                        &image.descriptor,
                        (&contents.omitted, &contents.foreign),
                        batch,
                    )?)
                    .clone(),
            };
            images.push(ImageRecord {
                reference: image.reference,
                digest: image.descriptor.digest,
                media_type,
                size_bytes: image.descriptor.size_bytes,
                content_bytes,
            });
        }
        let record = PackageRecord {
            digest,
            size_bytes,
            name: contents.name.unwrap_or_else(|| name_from_file(&file_name)),
            file_name,
            version: contents.version,
            kind: contents.kind,
            platforms: contents.platforms,
            artifact: contents.artifact,
            images,
            resources: contents.resources,
            display_name: contents.display_name,
            description: contents.description,
            omitted: contents.omitted,
            blob_count: contents.blobs.len() as u64,
            blob_bytes: contents.blobs.values().sum(),
            blobs: match contents.kind {
                PackageKind::Supplement => contents.blobs,
                PackageKind::Operator
                | PackageKind::Plugin
                | PackageKind::Chart
                | PackageKind::Images => {
                    let mut blobs = contents.blobs;
                    blobs.retain(|digest, _| contents.foreign.contains(digest));
                    blobs
                }
            },
            carried_by,
            provenance,
            ready_at: self.clock.now(),
        };
        Ok(NewPackage { record, content })
    }
}

/// A reader that says how far it is, and fails once `stop` is cancelled: the sink sees that only where there are blobs, and
/// of a file of gigabytes none may ever come.
struct Watched<R> {
    inner: R,
    read_bytes: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other(Error::Stopped));
        }
        let count = self.inner.read(into)?;
        self.read_bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// One package of a file.
struct Origin {
    digest: Digest,
    size_bytes: u64,
    file_name: String,
    carried_by: Option<Digest>,
    contents: Contents,
}

/// Returns the media type of an image's outermost manifest, and how many bytes the image has in all: without manifests that
/// were left out, and with the foreign layers that came.
fn summarize(
    image: &Descriptor,
    (omitted, foreign): (&BTreeSet<Digest>, &BTreeSet<Digest>),
    batch: &Batch,
) -> Result<(String, u64), Error> {
    let mut tree = Tree::read(image, |manifest| {
        if omitted.contains(&manifest.digest) {
            return Ok(None);
        }
        batch.read(&manifest.digest, MANIFEST_BYTES_MAX).map(Some)
    })?;
    tree.take_in(|digest| foreign.contains(digest));
    let root = tree.manifests.last();
    let media_type = root.map_or(&image.media_type, |root| &root.media_type);
    Ok((media_type.clone(), tree.content_bytes()))
}

/// Returns what each package of a file holds.
fn contents_of(unpacked: &package::Unpacked) -> impl Iterator<Item = &Contents> {
    let nested = unpacked.nested.iter().map(|inner| &inner.contents);
    unpacked.package.iter().chain(nested)
}

/// Returns what a package keeps in the store.
fn content_of(contents: &Contents) -> Content {
    let blobs = contents.blobs.iter();
    blobs
        .map(|(digest, size_bytes)| (*digest, *size_bytes))
        .collect()
}

/// Returns the digest of what is in a file now; `None` where it cannot be read to its end.
pub(super) fn digest_of(
    source: &Source,
    stop: &CancellationToken,
) -> Result<Option<Digest>, Error> {
    let Ok(mut file) = source.open() else {
        return Ok(None);
    };
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        if stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(hasher.finish())),
            Ok(amount) => hasher.update(&buffer[..amount]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(None),
        }
    }
}

fn file_name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Returns how the catalog remembers a verdict.
pub(super) fn provenance(verdict: &Verdict) -> Provenance {
    match verdict {
        Verdict::Signature { signers } => {
            let mut signers = signers.iter().map(|signer| Cosigner {
                fingerprint: signer.fingerprint.to_string(),
                signed_at: signer.signed_at,
            });
            let Cosigner {
                fingerprint,
                signed_at,
            } = signers.next().expect("a verdict by signature has a signer");
            Provenance::Signature {
                fingerprint,
                signed_at,
                cosigners: signers.collect(),
            }
        }
        Verdict::Checksum { sidecar } => Provenance::Checksum {
            sidecar: sidecar.display().to_string(),
        },
        Verdict::Unchecked => Provenance::Unchecked,
    }
}

/// A name for a package that does not name itself: its file name up to the first character that names may not have.
fn name_from_file(file_name: &str) -> PackageName {
    let last = file_name.rsplit('/').next().unwrap_or(file_name);
    let stem = last.strip_suffix(".tgz").unwrap_or(last);
    let allowed: String = stem
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .collect();
    let trimmed = allowed.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    trimmed
        .parse()
        .unwrap_or_else(|_| "unnamed".parse().expect("a literal that is a name"))
}

#[cfg(test)]
mod tests;
