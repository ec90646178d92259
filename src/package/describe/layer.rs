//! The entries of a layer, whatever it holds.
//!
//! Layers are file systems: links, devices and odd names are in their place there, so they are skipped and not refused as
//! they are in the archive of a package. Nothing is ever written to disk.
//!
//! # Invariants
//!
//! What a layer costs is bounded by its [`Allowance`], which all layers of one image share, and memory besides by
//! [`EXTENSION_BYTES_MAX`] and [`ZSTD_WINDOW_LOG_MAX`].
//!
//! # References
//!
//! OCI image-spec v1.1.0 `layer.md`; RFC 1952 (gzip), RFC 8878 (zstd).

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use super::error::{Error, Stopped};
use crate::package::Limits;
use crate::package::header::{self, BLOCK_BYTES, Extensions, show};

/// The largest extension header, in bytes, as in the archive of a package; it holds a name and attributes of a file.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;
/// The largest zstd window: 8 MiB, which is what decoders should support (RFC 8878, section 3.1.1.1.2).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Files held in memory for one image: four of the largest; a real bundle has two that matter.
const KEPT_FILES_MAX: u64 = 4;
/// Bytes read from where the layer is kept at one time. Chosen, not measured.
const INPUT_BUFFER_BYTES: usize = 64 << 10;
/// Bytes skipped at one time. Chosen, not measured.
const SKIPPED_BYTES: usize = 16 << 10;
/// First bytes of compressed layers (RFC 1952, section 2.3.1; RFC 8878, section 3.1.1).
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
const ZSTD_MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";

pub(super) type Outcome<T> = Result<T, Stopped>;

/// How much may still be read of one image.
#[derive(Debug)]
pub(super) struct Allowance {
    limits: Limits,
    unpacked_bytes: u64,
    entries: u64,
    kept_bytes: u64,
}

impl Allowance {
    pub(super) const fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            unpacked_bytes: limits.bundle_unpacked_bytes_max,
            entries: limits.bundle_entries_max,
            kept_bytes: KEPT_FILES_MAX * limits.metadata_bytes_max,
        }
    }

    fn unpack(&mut self, bytes: u64) -> Result<(), Error> {
        let left = self.unpacked_bytes.checked_sub(bytes);
        self.unpacked_bytes = left.ok_or(Error::UnpackedTooLarge {
            limit_bytes: self.limits.bundle_unpacked_bytes_max,
        })?;
        Ok(())
    }

    fn count_entry(&mut self) -> Result<(), Error> {
        let left = self.entries.checked_sub(1);
        self.entries = left.ok_or(Error::TooManyEntries {
            limit: self.limits.bundle_entries_max,
        })?;
        Ok(())
    }

    /// Takes the bytes of a file that stays in memory.
    pub(super) fn keep(&mut self, bytes: u64) -> Result<(), Error> {
        let left = self.kept_bytes.checked_sub(bytes);
        self.kept_bytes = left.ok_or(Error::FilesTooLarge {
            limit_bytes: KEPT_FILES_MAX * self.limits.metadata_bytes_max,
        })?;
        Ok(())
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    /// A link, device or the like, whose content is of no use.
    Other,
}

/// An entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Path below the root, without leading `./` or `/`.
    pub(super) path: String,
    pub(super) kind: Kind,
    size_bytes: u64,
}

/// A layer that is being read.
pub(super) struct Entries<'r, 'a> {
    input: Box<dyn Read + 'r>,
    allowance: &'a mut Allowance,
    /// What was not read yet of the current entry, without and with the zeros after it.
    content_bytes: u64,
    padding_bytes: u64,
    offset_bytes: u64,
}

impl<'r, 'a> Entries<'r, 'a> {
    /// Starts to read a layer, decompressing it by its first bytes.
    pub(super) fn open(source: impl Read + 'r, allowance: &'a mut Allowance) -> Outcome<Self> {
        Ok(Self {
            input: decompress(source)?,
            allowance,
            content_bytes: 0,
            padding_bytes: 0,
            offset_bytes: 0,
        })
    }

    /// Returns the next entry whose name makes sense. Content that was not read is skipped.
    pub(super) fn next_entry(&mut self) -> Outcome<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let Some(block) = self.read_block()? else {
                return Ok(None);
            };
            self.allowance.count_entry()?;
            let header =
                header::decode(&block, self.offset_bytes).map_err(|error| corrupt(&error))?;
            let kind = header.entry_type().as_byte();
            self.set_content(header.entry_size().unwrap_or_default());
            match kind {
                b'L' => {
                    let name = self.extension()?;
                    extensions
                        .set_long_name(&name)
                        .map_err(|error| corrupt(&error))?;
                }
                b'x' => {
                    let content = self.extension()?;
                    let offset_bytes = self.offset_bytes;
                    extensions
                        .set_records(&content, offset_bytes)
                        .map_err(|error| corrupt(&error))?;
                }
                b'K' | b'g' => {}
                _ => {
                    let said = std::mem::take(&mut extensions).into_said();
                    let name = said
                        .path
                        .unwrap_or_else(|| header.path_bytes().into_owned());
                    let size_bytes = said.size_bytes.unwrap_or(self.content_bytes);
                    if said.is_sparse || kind == b'S' {
                        return Err(corrupt(&format!("sparse file `{}`", show(&name))));
                    }
                    if let Some(entry) = self.entry(&name, kind, size_bytes) {
                        return Ok(Some(entry));
                    }
                }
            }
        }
    }

    /// Reads the content of the current file into memory.
    pub(super) fn content(&mut self, entry: &Entry) -> Outcome<Vec<u8>> {
        let limit_bytes = self.allowance.limits.metadata_bytes_max;
        if entry.size_bytes > limit_bytes {
            return Err(Stopped::Content(Error::FileTooLarge {
                path: show(entry.path.as_bytes()),
                size_bytes: entry.size_bytes,
                limit_bytes,
            }));
        }
        self.read_content()
    }

    /// Takes the bytes of a file that stays in memory.
    pub(super) fn keep(&mut self, content: &[u8]) -> Outcome<()> {
        Ok(self.allowance.keep(content.len() as u64)?)
    }

    /// Starts an entry; `None` for one whose name no reader could look for.
    fn entry(&mut self, name: &[u8], kind: u8, size_bytes: u64) -> Option<Entry> {
        // Links, devices, directories and pipes are headers only, whatever size they say.
        let has_content = !matches!(kind, b'1'..=b'6');
        self.set_content(if has_content { size_bytes } else { 0 });
        let kind = match kind {
            b'0' | b'\0' | b'7' => Kind::File,
            b'5' => Kind::Directory,
            _ => Kind::Other,
        };
        let is_long = name.len() as u64 > self.allowance.limits.path_bytes_max;
        let path = normalise(name).filter(|_| !is_long)?;
        Some(Entry {
            path,
            kind,
            size_bytes,
        })
    }

    fn set_content(&mut self, size_bytes: u64) {
        self.content_bytes = size_bytes;
        self.padding_bytes = size_bytes.wrapping_neg() % BLOCK_BYTES as u64;
    }

    fn extension(&mut self) -> Outcome<Vec<u8>> {
        if self.content_bytes > EXTENSION_BYTES_MAX {
            return Err(corrupt("an extension header over its limit"));
        }
        self.read_content()
    }

    fn read_content(&mut self) -> Outcome<Vec<u8>> {
        let length = std::mem::take(&mut self.content_bytes);
        let mut content = vec![0; usize::try_from(length).expect("limits fit into memory")];
        if self.fill(&mut content)? < content.len() {
            return Err(corrupt("the end in the middle of an entry"));
        }
        Ok(content)
    }

    /// Skips what is left of the current entry. The zeros after the last one may be missing: umoci 0.4 leaves them out.
    fn skip_rest(&mut self) -> Outcome<()> {
        let content_bytes = std::mem::take(&mut self.content_bytes);
        if self.skip(content_bytes)? < content_bytes {
            return Err(corrupt("the end in the middle of an entry"));
        }
        let padding_bytes = std::mem::take(&mut self.padding_bytes);
        self.skip(padding_bytes)?;
        Ok(())
    }

    /// Skips this many bytes, or as many as there are; returns how many.
    fn skip(&mut self, bytes: u64) -> Outcome<u64> {
        let mut scratch = [0; SKIPPED_BYTES];
        let mut skipped = 0;
        while skipped < bytes {
            let wanted = usize::try_from(bytes - skipped).unwrap_or(usize::MAX);
            let amount = self.fill(&mut scratch[..wanted.min(SKIPPED_BYTES)])?;
            if amount == 0 {
                break;
            }
            skipped += amount as u64;
        }
        Ok(skipped)
    }

    /// Returns the next header; `None` at the end, with or without its mark: some writers leave it out.
    fn read_block(&mut self) -> Outcome<Option<[u8; BLOCK_BYTES]>> {
        let mut block = [0; BLOCK_BYTES];
        match self.fill(&mut block)? {
            0 => Ok(None),
            BLOCK_BYTES if block.iter().all(|byte| *byte == 0) => Ok(None),
            BLOCK_BYTES => Ok(Some(block)),
            _ => Err(corrupt("the end in the middle of a header")),
        }
    }

    /// Reads until `into` is full or the layer ends; returns how much there was.
    fn fill(&mut self, into: &mut [u8]) -> Outcome<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.input.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(amount) => {
                    self.allowance.unpack(amount as u64)?;
                    self.offset_bytes += amount as u64;
                    filled += amount;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(explain(error)),
            }
        }
        Ok(filled)
    }
}

/// Returns the path below the root; `None` for one that is not text or leaves the root.
pub(super) fn normalise(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    (!parts.contains(&"..")).then(|| parts.join("/"))
}

/// Returns the layer's archive, decompressed according to its first bytes.
fn decompress<'r>(source: impl Read + 'r) -> Outcome<Box<dyn Read + 'r>> {
    let mut source = Source(source);
    let mut head = Vec::with_capacity(ZSTD_MAGIC.len());
    (&mut source)
        .take(ZSTD_MAGIC.len() as u64)
        .read_to_end(&mut head)
        .map_err(explain)?;
    let is_gzip = head.starts_with(GZIP_MAGIC);
    let is_zstd = head.starts_with(ZSTD_MAGIC);
    let input = BufReader::with_capacity(INPUT_BUFFER_BYTES, Cursor::new(head).chain(source));
    Ok(if is_gzip {
        Box::new(MultiGzDecoder::new(input))
    } else if is_zstd {
        Box::new(zstd_decoder(input).map_err(explain)?)
    } else {
        Box::new(input)
    })
}

fn zstd_decoder<'r, B: BufRead + 'r>(input: B) -> io::Result<impl Read + 'r> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// Where the layer is kept, with its errors marked so that they are not taken for faults of the layer.
struct Source<R>(R);

/// An error of the place where the layer is kept.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct SourceFailed(io::Error);

impl<R: Read> Read for Source<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0
            .read(into)
            .map_err(|error| io::Error::new(error.kind(), SourceFailed(error)))
    }
}

/// Tells a fault of the layer from one of the place where it is kept.
fn explain(error: io::Error) -> Stopped {
    match error.downcast::<SourceFailed>() {
        Ok(SourceFailed(error)) => Stopped::Read(error),
        Err(error) => corrupt(&error),
    }
}

fn corrupt(reason: &(impl ToString + ?Sized)) -> Stopped {
    Stopped::Content(Error::LayerCorrupt {
        reason: show(reason.to_string().as_bytes()),
    })
}
