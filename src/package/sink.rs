//! Where the blobs of a package go.

use std::collections::{BTreeSet, HashMap};

use thiserror::Error;

use crate::base::oci::MANIFEST_BYTES_MAX;
use crate::base::{Class, Classified, Digest, Hasher};

/// Receives the blobs of one package, one after the other.
///
/// ```text
/// begin ──► write* ──► end        a blob was received
///   └───────────────► begin, drop the blob before was cut off and must be forgotten
/// ```
///
/// Each digest is given at most once.
pub trait Sink {
    /// What can go wrong in the sink.
    type Error: std::error::Error + 'static;

    /// Starts a blob of exactly `size_bytes` bytes; `expected` is the digest that its name promises.
    fn begin(&mut self, expected: Option<Digest>, size_bytes: u64) -> Result<(), Self::Error>;

    /// Appends to the blob that was started.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Ends the blob and returns the digest of its content, or fails if that is not the expected one.
    fn end(&mut self) -> Result<Digest, Self::Error>;

    /// Returns the size of a blob that was received, or that is there already where packages may build on others.
    fn find(&self, digest: &Digest) -> Result<Option<u64>, Self::Error>;

    /// Returns the content of a blob that [`find`](Self::find) finds, if it has at most `limit_bytes` bytes.
    fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Self::Error>;
}

/// How many bytes [`DiscardSink`] keeps: what `Limits::metadata_total_bytes_max` allows by default.
const KEPT_BYTES_MAX: u64 = 64 << 20;

/// A sink that hashes and forgets, for looking at a package without storing it.
///
/// Blobs that may be manifests (small, and starting like JSON) are kept in memory, because the images cannot be
/// followed without them, at most 64 MiB in all. Beyond that the largest go first: manifests and configurations have a
/// few KiB, and what is larger is most likely a bill of materials in a layer.
#[derive(Debug)]
pub struct DiscardSink {
    sizes: HashMap<Digest, u64>,
    kept: HashMap<Digest, Vec<u8>>,
    kept_by_size: BTreeSet<(u64, Digest)>,
    kept_bytes: u64,
    kept_bytes_max: u64,
    hasher: Hasher,
    size_bytes: u64,
    /// Content so far of a blob that may be a manifest.
    candidate: Option<Vec<u8>>,
}

impl Default for DiscardSink {
    fn default() -> Self {
        Self::with_limit(KEPT_BYTES_MAX)
    }
}

impl DiscardSink {
    fn with_limit(kept_bytes_max: u64) -> Self {
        Self {
            sizes: HashMap::new(),
            kept: HashMap::new(),
            kept_by_size: BTreeSet::new(),
            kept_bytes: 0,
            kept_bytes_max,
            hasher: Hasher::default(),
            size_bytes: 0,
            candidate: None,
        }
    }

    fn keep(&mut self, digest: Digest, content: Vec<u8>) {
        let size_bytes = content.len() as u64;
        if self.kept.insert(digest, content).is_none() {
            self.kept_bytes += size_bytes;
            self.kept_by_size.insert((size_bytes, digest));
        }
        while self.kept_bytes > self.kept_bytes_max {
            let Some((size_bytes, largest)) = self.kept_by_size.pop_last() else {
                return;
            };
            self.kept.remove(&largest);
            self.kept_bytes -= size_bytes;
        }
    }
}

/// Why [`DiscardSink`] cannot give a blob back.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DiscardError {
    /// The blob did not look like a manifest, was too large or was never received, or too much else was larger.
    #[error("expected {0} to be a small manifest or configuration in JSON")]
    NotKept(Digest),
}

impl Classified for DiscardError {
    fn class(&self) -> Class {
        match self {
            Self::NotKept(_) => Class::Rejected,
        }
    }
}

impl Sink for DiscardSink {
    type Error = DiscardError;

    fn begin(&mut self, _expected: Option<Digest>, size_bytes: u64) -> Result<(), DiscardError> {
        self.hasher = Hasher::default();
        self.size_bytes = size_bytes;
        self.candidate = (size_bytes <= MANIFEST_BYTES_MAX).then(Vec::new);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DiscardError> {
        self.hasher.update(bytes);
        if let Some(candidate) = &mut self.candidate {
            candidate.extend_from_slice(bytes);
            let first = candidate.iter().find(|byte| !byte.is_ascii_whitespace());
            if first.is_some_and(|byte| *byte != b'{') {
                self.candidate = None;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Digest, DiscardError> {
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some(content) = self.candidate.take() {
            self.keep(digest, content);
        }
        self.sizes.insert(digest, self.size_bytes);
        Ok(digest)
    }

    fn find(&self, digest: &Digest) -> Result<Option<u64>, DiscardError> {
        Ok(self.sizes.get(digest).copied())
    }

    fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, DiscardError> {
        self.kept
            .get(digest)
            .filter(|content| content.len() as u64 <= limit_bytes)
            .cloned()
            .ok_or(DiscardError::NotKept(*digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_the_largest_are_forgotten_first() {
        let mut sink = DiscardSink::with_limit(100);
        let mut put = |length: usize| {
            let content = format!("{{{}", " ".repeat(length - 1));
            sink.begin(None, length as u64).unwrap();
            sink.write(content.as_bytes()).unwrap();
            sink.end().unwrap()
        };
        let digests = [put(30), put(60), put(20), put(40), put(10)];
        let kept = digests.map(|digest| sink.read(&digest, 100).is_ok());
        assert_eq!(kept, [true, false, true, true, true]);
    }

    #[test]
    fn what_looks_like_json_is_kept_and_the_rest_is_only_counted() {
        let mut sink = DiscardSink::default();
        let mut put = |content: &[u8]| {
            sink.begin(None, content.len() as u64).unwrap();
            for piece in content.chunks(3) {
                sink.write(piece).unwrap();
            }
            sink.end().unwrap()
        };
        let json = put(b" \n  {\"a\":1}");
        let layer = put(b"\x1f\x8b something else");
        assert_eq!(json, Digest::of(b" \n  {\"a\":1}"));
        assert_eq!(sink.find(&json), Ok(Some(11)));
        assert_eq!(sink.find(&layer), Ok(Some(17)));
        assert_eq!(sink.read(&json, 11).unwrap(), b" \n  {\"a\":1}");
        assert_eq!(sink.read(&json, 10), Err(DiscardError::NotKept(json)));
        assert_eq!(sink.read(&layer, 100), Err(DiscardError::NotKept(layer)));
    }
}
