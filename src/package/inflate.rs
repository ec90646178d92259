//! From the bytes of the file to the bytes of the archive.
//!
//! [`open`] looks at the first bytes, decompresses where there is gzip or zstd, and reads ahead on its own thread;
//! [`open_nested`] does the same for an archive inside of the archive, without a thread. Every gzip member and every zstd
//! frame is read to its end, so that each checksum is checked; whatever follows the last one is an error.
//!
//! The bounds on size and expansion are checked here, before the bytes reach anybody. They count for the whole file:
//! what an inner archive unpacks to is added to what the file unpacks to, and both are compared with the bytes read from the
//! file, so that a bomb inside of a bomb is one bomb. Members and frames count by themselves ([`MEMBER_BYTES`]), so that there
//! is no end of empty ones.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::GzDecoder;

use super::capture::Capture;
use super::header::{self, BLOCK_BYTES};
use super::zstd_frames::{self, Frames};
use super::{Error, Limits, ReadAhead};

/// The first two bytes of a gzip member (RFC 1952, section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// What each gzip member and each zstd frame after the first counts for in unpacked bytes, whatever it holds. Without that, a
/// small file of members that hold nothing would be hours of work. Beginning one takes 1 to 2 us, unpacking so many bytes 20
/// to 40 us (measured 2026-11-21 on a busy machine), so that work is bounded as it is for content.
pub(super) const MEMBER_BYTES: u64 = 4 << 10;
/// Bytes read from the file, or from a decompressor of an inner archive, at a time.
const INPUT_BUFFER_BYTES: usize = 128 << 10;

/// The archive's bytes, decompressed, counted and bounded.
pub(super) type Inflated<R> = ReadAhead<Stream<BufReader<Source<R>>>>;

/// The input: the first block, which was looked at, then the rest.
type Input<I> = io::Chain<Cursor<Vec<u8>>, I>;

/// A file that was opened.
#[derive(Debug)]
pub(super) struct Opened<R> {
    /// The bytes of its archive.
    pub(super) inflated: Inflated<R>,
    /// What counts for the whole file.
    pub(super) totals: Totals,
    /// The bytes of the file itself, as long as somebody may want them.
    pub(super) capture: Capture,
}

/// How an archive is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Plain,
    Gzip,
    Zstd,
}

/// Looks at the first block of `input` and starts to decompress the rest on a thread.
pub(super) fn open<R: Read + Send + 'static>(
    input: R,
    limits: &Limits,
) -> Result<Opened<R>, Error> {
    let totals = Totals::default();
    let capture = Capture::new(limits.chart_bytes_max);
    let source = Source {
        inner: input,
        totals: totals.clone(),
        capture: capture.clone(),
    };
    let mut input = BufReader::with_capacity(INPUT_BUFFER_BYTES, source);
    let head = read_head(&mut input)?;
    let container = recognise(&head).ok_or(Error::NotAnArchive)?;
    if container != Container::Gzip {
        capture.discard();
    }
    let stream = Stream::new(container, Cursor::new(head).chain(input), &totals, limits)?;
    Ok(Opened {
        inflated: ReadAhead::start(stream).map_err(Error::Read)?,
        totals,
        capture,
    })
}

/// Looks at the first block of an archive inside of the archive; `None` if it is none by its first bytes.
pub(super) fn open_nested<'i, I: BufRead + 'i>(
    mut input: I,
    totals: &Totals,
    limits: &Limits,
    capture: &Capture,
) -> Result<Option<Box<dyn BufRead + 'i>>, Error> {
    let head = read_head(&mut input)?;
    let Some(container) = recognise(&head) else {
        return Ok(None);
    };
    if container != Container::Gzip {
        capture.discard();
    }
    let stream = Stream::new(container, Cursor::new(head).chain(input), totals, limits)?;
    Ok(Some(Box::new(BufReader::with_capacity(
        INPUT_BUFFER_BYTES,
        stream,
    ))))
}

fn read_head(input: &mut impl BufRead) -> Result<Vec<u8>, Error> {
    let mut head = Vec::with_capacity(BLOCK_BYTES);
    input
        .take(BLOCK_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(from_io)?;
    Ok(head)
}

/// Returns what begins with `head`, a block or less.
fn recognise(head: &[u8]) -> Option<Container> {
    if head.starts_with(&GZIP_MAGIC) {
        Some(Container::Gzip)
    } else if zstd_frames::is_zstd(head) {
        Some(Container::Zstd)
    } else {
        header::begins_tar(head).then_some(Container::Plain)
    }
}

/// What counts for the whole file, at all levels of archives.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    /// Bytes of the file.
    read_bytes: AtomicU64,
    /// Bytes that were decompressed, or read plain, at any level.
    unpacked_bytes: AtomicU64,
}

impl Totals {
    /// Adds to what the whole file unpacks to.
    pub(super) fn charge(&self, bytes: u64, limits: &Limits) -> Result<(), Error> {
        let counters = &self.0;
        let before = counters.unpacked_bytes.fetch_add(bytes, Ordering::Relaxed);
        let unpacked_bytes = before + bytes;
        if unpacked_bytes > limits.unpacked_bytes_max {
            return Err(Error::TooLarge {
                limit_bytes: limits.unpacked_bytes_max,
            });
        }
        let read_bytes = counters.read_bytes.load(Ordering::Relaxed);
        let is_expanding = unpacked_bytes / limits.expansion_ratio_max.max(1) > read_bytes;
        if unpacked_bytes > limits.expansion_checked_from_bytes && is_expanding {
            return Err(Error::ExpansionRatio {
                limit: limits.expansion_ratio_max,
                read_bytes,
                unpacked_bytes,
            });
        }
        Ok(())
    }
}

/// The input, counted, with its errors marked so that they are not taken for faults of the package.
#[derive(Debug)]
pub(super) struct Source<R> {
    inner: R,
    totals: Totals,
    capture: Capture,
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
        // Counters say how far we are; nothing else is ordered by them.
        let counters = &self.totals.0;
        counters
            .read_bytes
            .fetch_add(amount as u64, Ordering::Relaxed);
        self.capture.push(&into[..amount]);
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
pub(super) struct Stream<I> {
    state: State<I>,
    /// What this stream has given.
    unpacked_bytes: u64,
    /// Members or frames that were begun.
    members: u64,
    totals: Totals,
    limits: Limits,
}

#[derive(Debug)]
enum State<I> {
    Plain(Input<I>),
    Gzip(Box<GzDecoder<Input<I>>>),
    Zstd(Box<Frames<Input<I>>>),
    Ended,
}

impl<I: BufRead> Stream<I> {
    fn new(
        container: Container,
        input: Input<I>,
        totals: &Totals,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let state = match container {
            Container::Plain => State::Plain(input),
            Container::Gzip => State::Gzip(Box::new(GzDecoder::new(input))),
            Container::Zstd => {
                let frames = Frames::new(input, limits.zstd_window_bytes_max);
                State::Zstd(Box::new(frames.map_err(Error::Read)?))
            }
        };
        Ok(Self {
            state,
            unpacked_bytes: 0,
            members: 1,
            totals: totals.clone(),
            limits: *limits,
        })
    }

    /// Looks for another member after the one that has ended. All frames of zstd are read by one decoder.
    fn next_member(&mut self) -> io::Result<()> {
        let (mut input, is_gzip) = match std::mem::replace(&mut self.state, State::Ended) {
            State::Plain(_) | State::Ended => return Ok(()),
            State::Gzip(ended) => (ended.into_inner(), true),
            State::Zstd(ended) => (ended.into_inner(), false),
        };
        match input.fill_buf()?.first() {
            None => {}
            Some(&byte) if is_gzip && byte == GZIP_MAGIC[0] => {
                self.state = State::Gzip(Box::new(GzDecoder::new(input)));
                self.count_members(self.members + 1)?;
            }
            Some(_) => {
                return Err(io::Error::other(Error::TrailingBytes {
                    offset_bytes: self.unpacked_bytes,
                }));
            }
        }
        Ok(())
    }

    fn count(&mut self, amount: usize) -> io::Result<()> {
        self.unpacked_bytes += amount as u64;
        let charged = self.totals.charge(amount as u64, &self.limits);
        charged.map_err(io::Error::other)
    }

    /// Takes note that `begun` members or frames were begun.
    fn count_members(&mut self, begun: u64) -> io::Result<()> {
        let new = begun.saturating_sub(self.members);
        self.members += new;
        let charged = self.totals.charge(new * MEMBER_BYTES, &self.limits);
        charged.map_err(io::Error::other)
    }

    /// Says whether compressed data ended too early or is wrong. What the input said stays as it is.
    fn explain(&self, error: io::Error) -> io::Error {
        let is_from_below = error.get_ref().is_some_and(|inner| {
            let inner: &(dyn std::error::Error + 'static) = inner;
            inner.is::<SourceFailed>() || inner.is::<Error>()
        });
        if is_from_below {
            return error;
        }
        io::Error::other(match &self.state {
            _ if error.kind() == io::ErrorKind::UnexpectedEof => Error::Truncated {
                offset_bytes: self.unpacked_bytes,
            },
            State::Zstd(_) if zstd_frames::is_window_too_large(&error) => Error::ZstdWindow {
                limit_bytes: self.limits.zstd_window_bytes_max,
            },
            State::Zstd(_) => Error::ZstdCorrupt(error),
            State::Plain(_) | State::Gzip(_) | State::Ended => Error::GzipCorrupt(error),
        })
    }
}

impl<I: BufRead> Read for Stream<I> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let outcome = match &mut self.state {
                State::Ended => return Ok(0),
                State::Plain(input) => input.read(into).map(some),
                State::Gzip(decoder) => decoder.read(into).map(some),
                State::Zstd(frames) => frames.advance(into),
            };
            let amount = match outcome {
                Ok(amount) => amount,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.explain(error)),
            };
            if let State::Zstd(frames) = &self.state {
                self.count_members(frames.begun())?;
            }
            match amount {
                Some(0) => {}
                Some(amount) => {
                    self.count(amount)?;
                    return Ok(amount);
                }
                None => self.next_member()?,
            }
        }
    }
}

/// Nothing read means that the member has ended.
fn some(amount: usize) -> Option<usize> {
    (amount > 0).then_some(amount)
}
