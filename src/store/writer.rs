//! Content on its way into a batch.

use std::io::Write as _;

use tempfile::NamedTempFile;

use super::Error;
use crate::base::{Digest, Hasher};
use crate::sys::fs;

/// An unfinished blob, made by [`Batch::writer`](super::Batch::writer) and finished by
/// [`Batch::stage`](super::Batch::stage).
///
/// It borrows nothing, so another thread may fill it. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Writer {
    expected: Option<Digest>,
    /// None where the content is stored or staged already: it is hashed and compared, and not written again.
    temp: Option<NamedTempFile>,
    hasher: Hasher,
    size_bytes: u64,
    limit_bytes: u64,
}

/// What a writer holds in the end.
pub(super) struct Written {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    /// None where nothing was written because the content was known.
    pub(super) temp: Option<NamedTempFile>,
}

impl Writer {
    pub(super) fn new(
        expected: Option<Digest>,
        limit_bytes: u64,
        temp: Option<NamedTempFile>,
    ) -> Self {
        Self {
            expected,
            temp,
            hasher: Hasher::default(),
            size_bytes: 0,
            limit_bytes,
        }
    }

    /// Returns whether the content is there already, so that nothing is written.
    pub const fn is_known(&self) -> bool {
        self.temp.is_none()
    }

    /// Appends `bytes`. Nothing is buffered: give chunks of some ten KiB or more.
    ///
    /// What exceeds the limit is refused before any of `bytes` is written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        if size_bytes > self.limit_bytes {
            return Err(Error::TooLarge {
                limit_bytes: self.limit_bytes,
            });
        }
        if let Some(temp) = &self.temp {
            // Not through `temp` itself, whose errors name the path a second time.
            let mut file = temp.as_file();
            fs::attempt("write to", temp.path(), || file.write_all(bytes))?;
        }
        self.hasher.update(bytes);
        self.size_bytes = size_bytes;
        Ok(())
    }

    /// Returns what was written, if it is what was expected.
    pub(super) fn finish(self) -> Result<Written, Error> {
        let digest = self.hasher.finish();
        match self.expected {
            Some(expected) if expected != digest => Err(Error::DigestMismatch {
                expected,
                found: digest,
            }),
            Some(_) | None => Ok(Written {
                digest,
                size_bytes: self.size_bytes,
                temp: self.temp,
            }),
        }
    }
}
