//! From a verified file to the store and the catalog, in one pass over the file.
//!
//! ```text
//! file ─► hash of the file ─► inflate ─┐ own thread
//!                                      ▼
//!                    tar entries ─► hash and write of each blob ─► one sync ─► one catalog batch
//! ```
//!
//! The file is hashed again on the way, and nothing is committed unless it is the file that was verified: one that was
//! swapped in between is caught here.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Error;
use crate::base::oci::MANIFEST_BYTES_MAX;
use crate::base::{Clock, Digest, PackageName, Tree};
use crate::catalog::{Catalog, ImageRecord, PackageRecord, Provenance};
use crate::package::{self, Contents, HashingReader, Limits, Sink};
use crate::store::{self, Batch, Committed, Store, Writer};
use crate::sys::fs::Context as _;
use crate::verify::{PackageFile, Verdict, Verified};

/// What importing needs.
#[derive(Debug)]
pub(super) struct Importer {
    pub(super) store: Store,
    pub(super) catalog: Catalog,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: Limits,
    /// Free space, in bytes, that must remain after each blob.
    pub(super) free_bytes_min: u64,
}

/// What a file turned out to be.
#[derive(Debug)]
pub(super) enum Unpacked {
    /// A package that is in the catalog already.
    Known(Box<PackageRecord>),
    /// A new package. Its blobs are in the store; its record is not yet in the catalog.
    New(Box<PackageRecord>, Committed),
}

impl Importer {
    /// Unpacks a verified file into the store.
    pub(super) fn unpack(
        &self,
        file: &Verified<PackageFile>,
        stop: &CancellationToken,
    ) -> Result<Unpacked, Error> {
        let file = file.get();
        if let Some(known) = self.catalog.find_package(&file.digest)? {
            return Ok(Unpacked::Known(Box::new(known)));
        }
        self.check_space(file.size_bytes)?;
        let opened = File::open(&file.path).context("open", &file.path)?;
        let (reader, digest) = HashingReader::new(opened);
        let mut sink = BatchSink {
            importer: self,
            batch: self.store.begin(),
            received: BTreeMap::new(),
            writer: None,
            stop,
        };
        let contents = package::unpack(reader, &self.limits, &mut sink);
        let contents = contents.map_err(|error| match error {
            package::UnpackError::Package(error) => Error::Package(error),
            package::UnpackError::Sink(error) => error,
        })?;
        if digest.get() != Some(file.digest) {
            return Err(Error::FileChanged {
                path: file.path.clone(),
                verified: file.digest,
            });
        }
        let mut batch = sink.batch;
        batch.retain(|digest| contents.blobs.contains_key(digest));
        let mut record = self.record(file, contents, &batch)?;
        let committed = batch.commit()?;
        record.ready_at = self.clock.now();
        Ok(Unpacked::New(Box::new(record), committed))
    }

    /// Refuses to go on where writing `bytes` would leave too little free space.
    fn check_space(&self, bytes: u64) -> Result<(), Error> {
        let available_bytes = self.store.space()?.available_bytes;
        let needed_bytes = bytes.saturating_add(self.free_bytes_min);
        if available_bytes < needed_bytes {
            return Err(Error::LowSpace {
                available_bytes,
                needed_bytes,
            });
        }
        Ok(())
    }

    fn record(
        &self,
        file: &PackageFile,
        contents: Contents,
        batch: &Batch,
    ) -> Result<PackageRecord, Error> {
        let file_name = file
            .path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let mut images = Vec::with_capacity(contents.images.len());
        for image in contents.images {
            let tree = Tree::read(&image.descriptor, |manifest| {
                batch.read(&manifest.digest, MANIFEST_BYTES_MAX)
            })?;
            let root = tree.manifests.last();
            images.push(ImageRecord {
                reference: image.reference,
                digest: image.descriptor.digest,
                media_type: root
                    .map_or(image.descriptor.media_type, |root| root.media_type.clone()),
                size_bytes: image.descriptor.size_bytes,
                content_bytes: tree.content_bytes(),
            });
        }
        Ok(PackageRecord {
            digest: file.digest,
            size_bytes: file.size_bytes,
            name: contents.name.unwrap_or_else(|| name_from_file(&file_name)),
            file_name,
            version: contents.version,
            kind: contents.kind,
            platforms: contents.platforms,
            artifact: contents.artifact,
            images,
            resources: contents.resources,
            display_name: contents.display_name,
            blob_count: contents.blobs.len() as u64,
            blob_bytes: contents.blobs.values().sum(),
            provenance: provenance(&file.verdict),
            ready_at: self.clock.now(),
        })
    }
}

/// Returns how the catalog remembers a verdict.
pub(super) fn provenance(verdict: &Verdict) -> Provenance {
    match verdict {
        Verdict::Signature {
            fingerprint,
            signed_at,
            ..
        } => Provenance::Signature {
            fingerprint: fingerprint.to_string(),
            signed_at: *signed_at,
        },
        Verdict::Checksum { sidecar } => Provenance::Checksum {
            sidecar: sidecar.display().to_string(),
        },
        Verdict::Unchecked => Provenance::Unchecked,
    }
}

/// A name for a package that does not name itself: its file name up to the first character that names may not have.
fn name_from_file(file_name: &str) -> PackageName {
    let stem = file_name.strip_suffix(".tgz").unwrap_or(file_name);
    let allowed: String = stem
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .collect();
    let trimmed = allowed.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    trimmed
        .parse()
        .unwrap_or_else(|_| "unnamed".parse().expect("a literal that is a name"))
}

/// Where `package::unpack` puts blobs: a batch of the store.
struct BatchSink<'a> {
    importer: &'a Importer,
    batch: Batch,
    /// Digests and sizes of this package's blobs: what the store holds besides does not make a package complete.
    received: BTreeMap<Digest, u64>,
    writer: Option<Writer>,
    stop: &'a CancellationToken,
}

impl Sink for BatchSink<'_> {
    type Error = Error;

    fn begin(&mut self, expected: Option<Digest>, size_bytes: u64) -> Result<(), Error> {
        self.importer.check_space(size_bytes)?;
        self.writer = Some(self.batch.writer(expected, size_bytes)?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        let writer = self.writer.as_mut().expect("write comes after begin");
        Ok(writer.write(bytes)?)
    }

    fn end(&mut self) -> Result<Digest, Error> {
        let writer = self.writer.take().expect("end comes after begin");
        match self.batch.stage(writer) {
            Ok(staged) => {
                self.received.insert(staged.digest, staged.size_bytes);
                Ok(staged.digest)
            }
            // Whoever compares says which entry it was.
            Err(store::Error::DigestMismatch { found, .. }) => Ok(found),
            Err(error) => Err(error.into()),
        }
    }

    fn find(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.received.get(digest).copied())
    }

    fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        Ok(self.batch.read(digest, limit_bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_become_names() {
        for (file_name, name) in [
            ("redis-operator.v1.tgz", "redis-operator.v1"),
            ("a b.tgz", "a"),
            ("--.tgz", "unnamed"),
            ("ä.tgz", "unnamed"),
        ] {
            assert_eq!(name_from_file(file_name).as_str(), name);
        }
    }
}
