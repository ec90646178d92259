//! Where the blobs of a package go.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;

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
/// Each digest is expected at most once. A blob of which nothing is expected may be one that was received already.
pub trait Sink {
    /// What can go wrong in the sink.
    type Error: std::error::Error + 'static;

    /// Starts a blob of exactly `size_bytes` bytes; `expected` is the digest that its name promises.
    fn begin(&mut self, expected: Option<Digest>, size_bytes: u64) -> Result<(), Self::Error>;

    /// Appends to the blob that was started.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Ends the blob and returns the digest of its content, or fails if that is not the expected one.
    fn end(&mut self) -> Result<Digest, Self::Error>;

    /// Returns the size of a blob that was received with this package.
    fn find(&self, digest: &Digest) -> Result<Option<u64>, Self::Error>;

    /// Returns the size of a blob that was there before: what a delta package may build on.
    fn find_base(&self, digest: &Digest) -> Result<Option<u64>, Self::Error>;

    /// Returns the content of a blob that was received or was there before, if it has at most `limit_bytes` bytes.
    fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Self::Error>;

    /// Opens a blob that was received or was there before, to be read from its start; `None` where the sink does not keep
    /// such blobs.
    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + '_>>, Self::Error>;
}

/// How many bytes of manifests [`DiscardSink`] keeps: what `Limits::metadata_total_bytes_max` allows by default.
const MANIFESTS_BYTES_MAX: u64 = 64 << 20;
/// How many bytes of layers [`DiscardSink`] keeps. Bundles and charts have far below 1 MiB. Chosen, not measured.
const LAYERS_BYTES_MAX: u64 = 32 << 20;
/// The largest layer that [`DiscardSink`] keeps, in bytes. Chosen, not measured.
const LAYER_BYTES_MAX: u64 = 8 << 20;
/// First bytes of layers: gzip, zstd (RFC 1952, section 2.3.1; RFC 8878, section 3.1.1).
const LAYER_MAGICS: [&[u8]; 2] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd"];
/// Where plain tar says what it is (POSIX.1-2017 `pax`, "ustar Interchange Format").
const TAR_MAGIC: &[u8] = b"ustar";
const TAR_MAGIC_OFFSET: usize = 257;

/// A sink that hashes and forgets, for looking at a package without storing it.
///
/// Blobs that may be manifests (small, and starting like JSON) are kept in memory, because the images cannot be
/// followed without them, at most 64 MiB in all. Beyond that the largest go first: manifests and configurations have a
/// few KiB, and what is larger is most likely a bill of materials in a layer. Layers that may be those of a bundle or
/// chart (small, and starting like an archive) are kept in the same way beside them, at most 32 MiB, because without
/// them the package cannot be described.
#[derive(Debug)]
pub struct DiscardSink {
    sizes: HashMap<Digest, u64>,
    manifests: Kept,
    layers: Kept,
    hasher: Hasher,
    size_bytes: u64,
    /// Content so far of a blob that may be worth keeping.
    candidate: Option<Vec<u8>>,
}

impl Default for DiscardSink {
    fn default() -> Self {
        Self::with_limits(MANIFESTS_BYTES_MAX, LAYERS_BYTES_MAX)
    }
}

impl DiscardSink {
    fn with_limits(manifests_bytes_max: u64, layers_bytes_max: u64) -> Self {
        Self {
            sizes: HashMap::new(),
            manifests: Kept::new(manifests_bytes_max),
            layers: Kept::new(layers_bytes_max),
            hasher: Hasher::default(),
            size_bytes: 0,
            candidate: None,
        }
    }

    /// Returns what keeps blobs that begin with `content`, if there is any such.
    fn kept_for(&mut self, content: &[u8]) -> Option<&mut Kept> {
        let first = content.iter().find(|byte| !byte.is_ascii_whitespace());
        if first == Some(&b'{') {
            return (self.size_bytes <= MANIFEST_BYTES_MAX).then_some(&mut self.manifests);
        }
        let is_tar = content
            .get(TAR_MAGIC_OFFSET..)
            .is_some_and(|rest| rest.starts_with(TAR_MAGIC));
        let is_layer = is_tar || LAYER_MAGICS.iter().any(|magic| content.starts_with(magic));
        (is_layer && self.size_bytes <= LAYER_BYTES_MAX).then_some(&mut self.layers)
    }

    fn content(&self, digest: &Digest) -> Option<&[u8]> {
        let manifest = self.manifests.contents.get(digest);
        let content = manifest.or_else(|| self.layers.contents.get(digest))?;
        Some(content)
    }
}

/// Blobs in memory, of which the largest are forgotten where there are too many.
#[derive(Debug)]
struct Kept {
    contents: HashMap<Digest, Vec<u8>>,
    by_size: BTreeSet<(u64, Digest)>,
    bytes: u64,
    bytes_max: u64,
}

impl Kept {
    fn new(bytes_max: u64) -> Self {
        Self {
            contents: HashMap::new(),
            by_size: BTreeSet::new(),
            bytes: 0,
            bytes_max,
        }
    }

    fn add(&mut self, digest: Digest, content: Vec<u8>) {
        let size_bytes = content.len() as u64;
        if self.contents.insert(digest, content).is_none() {
            self.bytes += size_bytes;
            self.by_size.insert((size_bytes, digest));
        }
        while self.bytes > self.bytes_max {
            let Some((size_bytes, largest)) = self.by_size.pop_last() else {
                return;
            };
            self.contents.remove(&largest);
            self.bytes -= size_bytes;
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
        self.candidate = (size_bytes <= LAYER_BYTES_MAX).then(Vec::new);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DiscardError> {
        self.hasher.update(bytes);
        let Some(mut candidate) = self.candidate.take() else {
            return Ok(());
        };
        candidate.extend_from_slice(bytes);
        // Before that nothing can be told of a plain tar archive.
        let is_early = candidate.len() < TAR_MAGIC_OFFSET + TAR_MAGIC.len();
        if is_early || self.kept_for(&candidate).is_some() {
            self.candidate = Some(candidate);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Digest, DiscardError> {
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some(content) = self.candidate.take()
            && let Some(kept) = self.kept_for(&content)
        {
            kept.add(digest, content);
        }
        self.sizes.insert(digest, self.size_bytes);
        Ok(digest)
    }

    /// Nothing was there before: a delta package cannot be looked at without its base.
    fn find_base(&self, _: &Digest) -> Result<Option<u64>, DiscardError> {
        Ok(None)
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + '_>>, DiscardError> {
        let content = self.content(digest);
        Ok(content.map(|content| Box::new(content) as Box<dyn Read>))
    }

    fn find(&self, digest: &Digest) -> Result<Option<u64>, DiscardError> {
        Ok(self.sizes.get(digest).copied())
    }

    fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, DiscardError> {
        self.content(digest)
            .filter(|content| content.len() as u64 <= limit_bytes)
            .map(<[u8]>::to_vec)
            .ok_or(DiscardError::NotKept(*digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_the_largest_are_forgotten_first() {
        let mut sink = DiscardSink::with_limits(100, 0);
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
    fn what_looks_like_a_manifest_or_a_small_layer_is_kept_and_the_rest_is_only_counted() {
        let mut sink = DiscardSink::default();
        let mut put = |content: &[u8]| {
            sink.begin(None, content.len() as u64).unwrap();
            for piece in content.chunks(300_001) {
                sink.write(piece).unwrap();
            }
            sink.end().unwrap()
        };
        let json = put(b" \n  {\"a\":1}");
        let layer = put(b"\x1f\x8b something else");
        let tar = put(&[&[b'x'; TAR_MAGIC_OFFSET][..], TAR_MAGIC, b"..."].concat());
        let other = put(b"something else");
        let large = put(&[&b"\x1f\x8b"[..], &vec![0; 8 << 20]].concat());
        let large_json = put(&[&b"{"[..], &vec![b' '; 4 << 20]].concat());
        assert_eq!(json, Digest::of(b" \n  {\"a\":1}"));
        assert_eq!(sink.find(&json), Ok(Some(11)));
        assert_eq!(sink.find(&large), Ok(Some((8 << 20) + 2)));
        assert_eq!(sink.read(&json, 11).unwrap(), b" \n  {\"a\":1}");
        assert_eq!(sink.read(&json, 10), Err(DiscardError::NotKept(json)));
        assert_eq!(sink.read(&other, 100), Err(DiscardError::NotKept(other)));
        let kept = [json, layer, tar, other, large, large_json];
        let kept = kept.map(|digest| sink.open(&digest).unwrap().is_some());
        assert_eq!(kept, [true, true, true, false, false, false]);
    }
}
