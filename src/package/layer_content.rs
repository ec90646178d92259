//! The digest of what a compressed layer holds, while the layer itself passes by.
//!
//! In a docker-archive the configuration of an image names its layers by the digest of their content (`diff_id`), whether
//! they are compressed or not. [`LayerContent`] is given the bytes as they are and decompresses a copy of them, of which
//! nothing is kept but the digest.

use std::io::{self, Write};

use flate2::write::GzDecoder;

use super::inflate::{MEMBER_BYTES, Totals, from_io};
use super::{Error, Limits};
use crate::base::{Digest, Hasher};

/// First bytes of gzip (RFC 1952, section 2.3.1).
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";

/// Hashes the content of one layer.
#[derive(Debug)]
pub(super) struct LayerContent<'a> {
    totals: &'a Totals,
    limits: &'a Limits,
    state: State<'a>,
}

#[derive(Debug)]
enum State<'a> {
    /// Nothing was given so far.
    New,
    Gzip(Box<GzDecoder<Counted<'a>>>),
    /// Not compressed by gzip: what it is otherwise is nothing that such an archive holds.
    Other,
}

/// Hashes what was decompressed, within the limits of the whole file.
#[derive(Debug)]
struct Counted<'a> {
    hasher: Hasher,
    totals: &'a Totals,
    limits: &'a Limits,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let charged = self.totals.charge(bytes.len() as u64, self.limits);
        charged.map_err(io::Error::other)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> LayerContent<'a> {
    pub(super) const fn new(totals: &'a Totals, limits: &'a Limits) -> Self {
        Self {
            totals,
            limits,
            state: State::New,
        }
    }

    /// Takes the next bytes of the layer.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        if matches!(self.state, State::New) {
            self.state = if bytes.starts_with(GZIP_MAGIC) {
                State::Gzip(Box::new(GzDecoder::new(Counted {
                    hasher: Hasher::default(),
                    totals: self.totals,
                    limits: self.limits,
                })))
            } else {
                State::Other
            };
        }
        while let State::Gzip(decoder) = &mut self.state
            && !bytes.is_empty()
        {
            let amount = decoder.write(bytes).map_err(explain)?;
            bytes = &bytes[amount..];
            if amount == 0 {
                self.next_member()?;
            }
        }
        Ok(())
    }

    /// Begins the member after the one that has ended.
    fn next_member(&mut self) -> Result<(), Error> {
        if let State::Gzip(ended) = std::mem::replace(&mut self.state, State::Other) {
            let counted = ended.finish().map_err(explain)?;
            self.totals.charge(MEMBER_BYTES, self.limits)?;
            self.state = State::Gzip(Box::new(GzDecoder::new(counted)));
        }
        Ok(())
    }

    /// Returns the digest of the content, if the layer was compressed.
    pub(super) fn finish(self) -> Result<Option<Digest>, Error> {
        match self.state {
            State::Gzip(decoder) => {
                let counted = decoder.finish().map_err(explain)?;
                Ok(Some(counted.hasher.finish()))
            }
            State::New | State::Other => Ok(None),
        }
    }
}

/// Tells a limit of the file from damage of the layer.
fn explain(error: io::Error) -> Error {
    if error
        .get_ref()
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>)
    {
        return from_io(error);
    }
    Error::GzipCorrupt(error)
}
