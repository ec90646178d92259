//! Where the blobs of a package go while it is unpacked: a batch of the store.

use std::collections::BTreeMap;
use std::io::Read;

use tokio_util::sync::CancellationToken;

use super::Error;
use super::import::Importer;
use crate::base::Digest;
use crate::package::Sink;
use crate::store::{self, Batch, Writer};

/// Where `package::unpack` puts blobs: a batch of the store.
pub(super) struct BatchSink<'a> {
    importer: &'a Importer,
    pub(super) batch: Batch,
    /// Digests and sizes of this package's blobs: what the store holds besides does not make a package complete.
    received: BTreeMap<Digest, u64>,
    writer: Option<Writer>,
    pub(super) stop: &'a CancellationToken,
}

impl<'a> BatchSink<'a> {
    /// Returns a sink with a new batch. Writing to it fails once `stop` is cancelled.
    pub(super) fn new(importer: &'a Importer, stop: &'a CancellationToken) -> Self {
        Self {
            importer,
            batch: importer.store.begin(),
            received: BTreeMap::new(),
            writer: None,
            stop,
        }
    }
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

    fn find_base(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        // Not the batch: what came with this file was not there before.
        Ok(self.importer.store.find(digest)?)
    }

    fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        Ok(self.batch.read(digest, limit_bytes)?)
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + '_>>, Error> {
        Ok(Some(Box::new(self.batch.open(digest)?.file)))
    }
}
