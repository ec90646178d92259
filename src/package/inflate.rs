//! From the bytes of the file to the bytes of the archive.
//!
//! [`open`] looks at the first bytes, decompresses where there is gzip, and reads ahead on its own thread. Every gzip
//! member is read to its end, so that each checksum is checked; whatever follows the last one is an error.
//!
//! The bounds on size and expansion are checked here, before the bytes reach anybody.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::GzDecoder;

use super::limits::EXPANSION_CHECKED_FROM_BYTES;
use super::{Error, Limits, ReadAhead};

/// The first two bytes of a gzip member (RFC 1952, section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Where a tar header says what it is (POSIX.1-2017 `pax`, "ustar Interchange Format"), and what GNU tar writes there
/// begins alike.
const TAR_MAGIC_OFFSET: usize = 257;
const TAR_MAGIC: &[u8] = b"ustar";
/// Bytes read from the file at a time.
const INPUT_BUFFER_BYTES: usize = 128 << 10;

/// The archive's bytes, decompressed, counted and bounded.
pub(super) type Unpacked<R> = ReadAhead<Stream<R>>;

/// The file: the first block, which was looked at, then the rest.
type Input<R> = BufReader<io::Chain<Cursor<Vec<u8>>, Source<R>>>;

/// Looks at the first block of `input` and starts to decompress the rest on a thread.
pub(super) fn open<R: Read + Send + 'static>(
    input: R,
    limits: &Limits,
) -> Result<Unpacked<R>, Error> {
    let mut source = Source {
        inner: input,
        read_bytes: 0,
    };
    let mut head = Vec::with_capacity(tar_block());
    (&mut source)
        .take(tar_block() as u64)
        .read_to_end(&mut head)
        .map_err(from_io)?;
    let is_gzip = head.starts_with(&GZIP_MAGIC);
    let is_tar = head
        .get(TAR_MAGIC_OFFSET..)
        .is_some_and(|rest| rest.starts_with(TAR_MAGIC));
    if !is_gzip && !is_tar {
        return Err(Error::NotAnArchive);
    }
    let input = BufReader::with_capacity(INPUT_BUFFER_BYTES, Cursor::new(head).chain(source));
    let stream = Stream {
        state: if is_gzip {
            State::Member(Box::new(GzDecoder::new(input)))
        } else {
            State::Plain(input)
        },
        unpacked_bytes: 0,
        limits: *limits,
    };
    ReadAhead::start(stream).map_err(Error::Read)
}

const fn tar_block() -> usize {
    512
}

/// The input, counted, with its errors marked so that they are not taken for faults of the package.
#[derive(Debug)]
pub(super) struct Source<R> {
    inner: R,
    read_bytes: u64,
}

/// An error of the input.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct SourceFailed(io::Error);

impl<R: Read> Read for Source<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let amount = self
            .inner
            .read(into)
            .map_err(|error| io::Error::new(error.kind(), SourceFailed(error)))?;
        self.read_bytes += amount as u64;
        Ok(amount)
    }
}

/// Recovers what an [`io::Error`] from this module's readers means.
pub(super) fn from_io(error: io::Error) -> Error {
    let kind = error.kind();
    let message = error.to_string();
    let Some(inner) = error.into_inner() else {
        return Error::Read(io::Error::new(kind, message));
    };
    match inner
        .downcast::<Error>()
        .map_err(<dyn std::error::Error + Send + Sync>::downcast::<SourceFailed>)
    {
        Ok(fault) => *fault,
        Err(Ok(failed)) => Error::Read(failed.0),
        Err(Err(other)) => Error::Read(io::Error::new(kind, other)),
    }
}

/// Decompresses. Errors carry an [`enum@Error`], to be recovered by [`from_io`].
#[derive(Debug)]
pub(super) struct Stream<R> {
    state: State<R>,
    unpacked_bytes: u64,
    limits: Limits,
}

#[derive(Debug)]
enum State<R> {
    Plain(Input<R>),
    Member(Box<GzDecoder<Input<R>>>),
    Ended,
}

impl<R: Read> Stream<R> {
    /// Looks for another member after the one that has ended.
    fn next_member(&mut self) -> io::Result<()> {
        let State::Member(ended) = std::mem::replace(&mut self.state, State::Ended) else {
            return Ok(());
        };
        let mut input = ended.into_inner();
        match input.fill_buf()?.first() {
            None => {}
            Some(&byte) if byte == GZIP_MAGIC[0] => {
                self.state = State::Member(Box::new(GzDecoder::new(input)));
            }
            Some(_) => {
                return Err(io::Error::other(Error::TrailingBytes {
                    offset_bytes: self.unpacked_bytes,
                }));
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> io::Result<()> {
        let read_bytes = match &self.state {
            State::Plain(input) => input.get_ref().get_ref().1.read_bytes,
            State::Member(decoder) => decoder.get_ref().get_ref().get_ref().1.read_bytes,
            State::Ended => return Ok(()),
        };
        if self.unpacked_bytes > self.limits.unpacked_bytes_max {
            return Err(io::Error::other(Error::TooLarge {
                limit_bytes: self.limits.unpacked_bytes_max,
            }));
        }
        let is_expanding =
            self.unpacked_bytes / self.limits.expansion_ratio_max.max(1) > read_bytes;
        if self.unpacked_bytes > EXPANSION_CHECKED_FROM_BYTES && is_expanding {
            return Err(io::Error::other(Error::ExpansionRatio {
                limit: self.limits.expansion_ratio_max,
                read_bytes,
                unpacked_bytes: self.unpacked_bytes,
            }));
        }
        Ok(())
    }

    /// Says whether compressed data ended too early or is wrong. What the source said stays as it is.
    fn explain(&self, error: io::Error) -> io::Error {
        if error
            .get_ref()
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<SourceFailed>)
        {
            return error;
        }
        io::Error::other(if error.kind() == io::ErrorKind::UnexpectedEof {
            Error::Truncated {
                offset_bytes: self.unpacked_bytes,
            }
        } else {
            Error::GzipCorrupt(error)
        })
    }
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let outcome = match &mut self.state {
                State::Ended => return Ok(0),
                State::Plain(input) => input.read(into),
                State::Member(decoder) => decoder.read(into),
            };
            let amount = match outcome {
                Ok(amount) => amount,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.explain(error)),
            };
            if amount > 0 {
                self.unpacked_bytes += amount as u64;
                self.check_limits()?;
                return Ok(amount);
            }
            match &self.state {
                State::Plain(_) => self.state = State::Ended,
                State::Member(_) | State::Ended => self.next_member()?,
            }
        }
    }
}
