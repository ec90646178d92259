//! The digest of a file that somebody else reads.
//!
//! [`unpack`](super::unpack) takes its input to another thread and drops it there. [`HashingReader`] goes with it, and the
//! [`InputDigest`] that stays behind says afterwards what was read: the way to make sure that the file unpacked is the
//! file that was verified.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use crate::base::{Digest, Hasher};

/// A reader that hashes what passes through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    digest: Arc<OnceLock<Digest>>,
}

/// What a [`HashingReader`] has read.
#[derive(Clone, Debug)]
pub struct InputDigest(Arc<OnceLock<Digest>>);

impl<R: Read> HashingReader<R> {
    /// Returns a reader of `inner` and what will tell its digest.
    pub fn new(inner: R) -> (Self, InputDigest) {
        let digest = Arc::new(OnceLock::new());
        let reader = Self {
            inner,
            hasher: Hasher::default(),
            digest: Arc::clone(&digest),
        };
        (reader, InputDigest(digest))
    }
}

impl InputDigest {
    /// Returns the digest of the whole input; `None` if it was not read to its end.
    ///
    /// After a successful [`unpack`](super::unpack) it is always there.
    pub fn get(&self) -> Option<Digest> {
        self.0.get().copied()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let amount = self.inner.read(into)?;
        if amount > 0 {
            self.hasher.update(&into[..amount]);
        } else if !into.is_empty() {
            // The first end counts: a file that grows afterwards is not what was read.
            self.digest.get_or_init(|| self.hasher.clone().finish());
        }
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_there_once_the_end_was_seen() {
        let (mut reader, digest) = HashingReader::new(&b"abc"[..]);
        assert_eq!(reader.read(&mut []).unwrap(), 0);
        let mut bytes = [0; 3];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(digest.get(), None);
        assert_eq!(reader.read(&mut bytes).unwrap(), 0);
        assert_eq!(digest.get(), Some(Digest::of(b"abc")));
    }
}
