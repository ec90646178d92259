//! A file of the archive that is read as an archive itself.

use std::io::{self, BufRead, Read};

use super::Error;
use super::archive::Archive;
use super::capture::Capture;
use crate::base::{Digest, Hasher};

/// Reads the content of the current file of an archive, and hashes what is taken.
#[derive(Debug)]
pub(super) struct InnerFile<'a, B> {
    archive: &'a mut Archive<B>,
    hasher: Hasher,
    capture: Capture,
}

impl<'a, B: BufRead> InnerFile<'a, B> {
    /// Reads the current file of `archive`, of which nothing was read yet; `capture` gets its bytes.
    pub(super) fn new(archive: &'a mut Archive<B>, capture: Capture) -> Self {
        Self {
            archive,
            hasher: Hasher::default(),
            capture,
        }
    }

    /// Reads what is left of the file and returns the digest of the whole.
    pub(super) fn finish(mut self) -> Result<Digest, Error> {
        loop {
            let length = self.archive.peek_content()?.len();
            if length == 0 {
                return Ok(self.hasher.finish());
            }
            self.consume(length);
        }
    }
}

impl<B: BufRead> BufRead for InnerFile<'_, B> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.archive.peek_content().map_err(io::Error::other)
    }

    fn consume(&mut self, amount: usize) {
        if amount == 0 {
            return;
        }
        let piece = self
            .archive
            .peek_content()
            .expect("what is consumed was looked at before");
        let piece = &piece[..amount];
        self.hasher.update(piece);
        self.capture.push(piece);
        self.archive.take_content(amount);
    }
}

impl<B: BufRead> Read for InnerFile<'_, B> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let amount = self.fill_buf()?.read(into)?;
        self.consume(amount);
        Ok(amount)
    }
}
