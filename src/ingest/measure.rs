//! Counts what the store lacks of a package: where estimates say that it does not fit, it may still be a new version of
//! which most is there.

use std::collections::BTreeSet;
use std::io::Read;

use tokio_util::sync::CancellationToken;

use super::Error;
use crate::base::Digest;
use crate::package::{DiscardSink, Sink};
use crate::store::Store;

/// A sink that keeps nothing but a count.
pub(super) struct MeasureSink<'a> {
    inner: DiscardSink,
    store: &'a Store,
    stop: &'a CancellationToken,
    size_bytes: u64,
    counted: BTreeSet<Digest>,
    /// The size of all blobs that the store lacks, each counted once.
    pub(super) new_bytes: u64,
}

impl<'a> MeasureSink<'a> {
    pub(super) fn new(store: &'a Store, stop: &'a CancellationToken) -> Self {
        Self {
            inner: DiscardSink::default(),
            store,
            stop,
            size_bytes: 0,
            counted: BTreeSet::new(),
            new_bytes: 0,
        }
    }
}

impl Sink for MeasureSink<'_> {
    type Error = Error;

    fn begin(&mut self, expected: Option<Digest>, size_bytes: u64) -> Result<(), Error> {
        self.size_bytes = size_bytes;
        discard(self.inner.begin(expected, size_bytes));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        discard(self.inner.write(bytes));
        Ok(())
    }

    fn end(&mut self) -> Result<Digest, Error> {
        let digest = discard(self.inner.end());
        let is_new = self.counted.insert(digest);
        if is_new && self.store.find(&digest)? != Some(self.size_bytes) {
            self.new_bytes = self.new_bytes.saturating_add(self.size_bytes);
        }
        Ok(digest)
    }

    fn find(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(discard(self.inner.find(digest)))
    }

    fn find_base(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.store.find(digest)?)
    }

    fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        match self.inner.read(digest, limit_bytes) {
            Ok(content) => Ok(content),
            Err(_) => Ok(self.store.read(digest, limit_bytes)?),
        }
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + '_>>, Error> {
        Ok(discard(self.inner.open(digest)))
    }
}

/// Returns what a sink that only forgets has done: that cannot fail.
fn discard<T>(result: Result<T, crate::package::DiscardError>) -> T {
    result.expect("only reading what was forgotten fails")
}
