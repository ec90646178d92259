//! Where the blobs of a package go while it is unpacked: a batch of the store.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio_util::sync::CancellationToken;

use super::Error;
use super::import::Importer;
use super::space::Budget;
use crate::base::Digest;
use crate::package::Sink;
use crate::store::{self, Batch, Lease, Writer};

/// Where `package::unpack` puts blobs: a batch of the store.
pub(super) struct BatchSink<'a> {
    importer: &'a Importer,
    pub(super) batch: Batch,
    /// On the blobs that the package builds on: what was found there stays until the package is whole.
    base: Lease,
    budget: Budget<'a>,
    /// Digests and sizes of this package's blobs: what the store holds besides does not make a package complete.
    received: BTreeMap<Digest, u64>,
    writer: Option<Writer>,
    pub(super) stop: &'a CancellationToken,
}

impl<'a> BatchSink<'a> {
    /// Returns a sink with a new batch. Writing to it fails once `stop` is cancelled, or the budget says so.
    pub(super) fn new(
        importer: &'a Importer,
        budget: Budget<'a>,
        stop: &'a CancellationToken,
    ) -> Self {
        Self {
            importer,
            batch: importer.store.begin(),
            base: importer.store.lease(),
            budget,
            received: BTreeMap::new(),
            writer: None,
            stop,
        }
    }

    /// Returns the size of all blobs that came with the file, known ones included.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received.values().sum()
    }

    /// Returns where it is to be said how many bytes of the file were read.
    pub(super) fn read_bytes(&self) -> Arc<AtomicU64> {
        self.budget.read_bytes()
    }
}

impl Sink for BatchSink<'_> {
    type Error = Error;

    fn begin(&mut self, expected: Option<Digest>, size_bytes: u64) -> Result<(), Error> {
        let writer = self.batch.writer(expected, size_bytes)?;
        if !writer.is_known() {
            self.budget.begin(size_bytes)?;
        }
        self.writer = Some(writer);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        let writer = self.writer.as_mut().expect("write comes after begin");
        if !writer.is_known() {
            self.budget.write(bytes.len() as u64)?;
        }
        Ok(writer.write(bytes)?)
    }

    fn end(&mut self) -> Result<Digest, Error> {
        let writer = self.writer.take().expect("end comes after begin");
        if !writer.is_known() {
            self.budget.end();
        }
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
        // Before looking: what is found then stays. Not the batch: what came with this file was not there before.
        self.base.add(*digest);
        Ok(self.importer.store.find(digest)?)
    }

    fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        Ok(self.batch.read(digest, limit_bytes)?)
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + '_>>, Error> {
        Ok(Some(Box::new(self.batch.open(digest)?.file)))
    }
}
