//! The entries of a package archive, one pass, nothing buffered.
//!
//! [`Archive`] gives the entries in their order; the content of each is read piece by piece before the next is asked
//! for. Only plain files and directories with harmless names come through, every name once; everything else is an error.
//!
//! # Invariants
//!
//! - `Ok(None)` from [`Archive::next_entry`] means that the whole input was read: both end-of-archive blocks were
//!   there, nothing but zeros followed, and every checksum of the compression was right. An archive that was cut short
//!   is never taken for a whole one.
//! - Memory is bounded by [`Budget`] and by the bounds on extension headers.

use std::collections::HashMap;
use std::io::BufRead;

use super::header::{self, BLOCK_BYTES, EntryKind, Extensions};
use super::inflate::from_io;
use super::{Error, Limits};

/// The largest extension header, in bytes; it holds a name and a few numbers. Chosen, not measured.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;
/// Extension headers before one entry: a long name, a long link name, pax records, global records. Chosen.
const EXTENSIONS_MAX: usize = 8;
/// What one name costs in memory beyond its own bytes: an entry of the set and a string's header.
const NAME_OVERHEAD_BYTES: u64 = 64;

/// How much may still be held in memory for this package.
#[derive(Debug)]
pub(super) struct Budget {
    limit_bytes: u64,
    left_bytes: u64,
}

impl Budget {
    pub(super) const fn new(limits: &Limits) -> Self {
        Self {
            limit_bytes: limits.metadata_total_bytes_max,
            left_bytes: limits.metadata_total_bytes_max,
        }
    }

    /// Takes `bytes` from what is left.
    pub(super) fn charge(&mut self, bytes: u64) -> Result<(), Error> {
        self.left_bytes = self
            .left_bytes
            .checked_sub(bytes)
            .ok_or(Error::MemoryExceeded {
                limit_bytes: self.limit_bytes,
            })?;
        Ok(())
    }
}

/// A file of the archive, whose content is read next.
#[derive(Debug)]
pub(super) struct FileEntry {
    /// Path below the root of the archive, without leading `./`.
    pub(super) path: String,
    /// Size of the content.
    pub(super) size_bytes: u64,
}

/// An archive that is being read.
#[derive(Debug)]
pub(super) struct Archive<B> {
    input: B,
    limits: Limits,
    offset_bytes: u64,
    entries: u64,
    names: HashMap<String, EntryKind>,
    /// Content of the current entry that was not read yet.
    content_left_bytes: u64,
    /// Zeros after the content of the current entry.
    padding_bytes: u64,
    /// Bytes of the input that were handed out and are given back at the next call.
    lent_bytes: usize,
}

impl<B: BufRead> Archive<B> {
    pub(super) fn new(input: B, limits: &Limits) -> Self {
        Self {
            input,
            limits: *limits,
            offset_bytes: 0,
            entries: 0,
            names: HashMap::new(),
            content_left_bytes: 0,
            padding_bytes: 0,
            lent_bytes: 0,
        }
    }

    /// Returns the next file, or `None` once the whole archive was read. Content that was not read is skipped.
    pub(super) fn next_file(&mut self, budget: &mut Budget) -> Result<Option<FileEntry>, Error> {
        loop {
            while !self.content()?.is_empty() {}
            self.skip_padding()?;
            let Some(decoded) = self.next_entry()? else {
                return Ok(None);
            };
            self.set_content(decoded.size_bytes)?;
            self.note_name(&decoded, budget)?;
            if decoded.kind == EntryKind::File {
                return Ok(Some(FileEntry {
                    path: decoded.path,
                    size_bytes: decoded.size_bytes,
                }));
            }
        }
    }

    /// Returns the next piece of the current file's content; nothing at its end.
    pub(super) fn content(&mut self) -> Result<&[u8], Error> {
        self.input.consume(std::mem::take(&mut self.lent_bytes));
        if self.content_left_bytes == 0 {
            return Ok(&[]);
        }
        let offset_bytes = self.offset_bytes;
        let piece = self.input.fill_buf().map_err(from_io)?;
        if piece.is_empty() {
            return Err(Error::Truncated { offset_bytes });
        }
        let wanted = usize::try_from(self.content_left_bytes).unwrap_or(usize::MAX);
        let piece = &piece[..piece.len().min(wanted)];
        self.content_left_bytes -= piece.len() as u64;
        self.offset_bytes += piece.len() as u64;
        self.lent_bytes = piece.len();
        Ok(piece)
    }

    /// Reads the whole content of the current file into memory.
    pub(super) fn content_to_vec(&mut self, size_bytes: u64) -> Result<Vec<u8>, Error> {
        let mut content = Vec::with_capacity(usize::try_from(size_bytes).unwrap_or_default());
        loop {
            let piece = self.content()?;
            if piece.is_empty() {
                return Ok(content);
            }
            content.extend_from_slice(piece);
        }
    }

    /// Returns the next entry with what its extension headers say, or `None` after the end mark.
    fn next_entry(&mut self) -> Result<Option<header::Decoded>, Error> {
        let mut extensions = Extensions::default();
        for depth in 0..=EXTENSIONS_MAX {
            let offset_bytes = self.offset_bytes;
            let block = self.read_block()?;
            if block.iter().all(|byte| *byte == 0) {
                if depth > 0 {
                    return Err(Error::HeaderCorrupt {
                        offset_bytes,
                        reason: "the end after an extension header",
                    });
                }
                self.read_end()?;
                return Ok(None);
            }
            self.count_entry()?;
            let header =
                header::decode(&block, offset_bytes).map_err(|error| match offset_bytes {
                    0 => Error::NotAnArchive,
                    _ => error,
                })?;
            let size_bytes = header.entry_size().unwrap_or_default();
            match header.entry_type().as_byte() {
                b'L' => {
                    let name = self.read_extension(size_bytes, EXTENSION_BYTES_MAX)?;
                    extensions.set_long_name(&name)?;
                }
                b'x' => {
                    let content = self.read_extension(size_bytes, EXTENSION_BYTES_MAX)?;
                    extensions.set_records(&content, offset_bytes)?;
                }
                b'g' => {
                    let content = self.read_extension(size_bytes, EXTENSION_BYTES_MAX)?;
                    header::check_global(&content, offset_bytes)?;
                }
                // The target of a link; the link itself comes next and is refused.
                b'K' => {
                    self.read_extension(size_bytes, EXTENSION_BYTES_MAX)?;
                }
                _ => return header::resolve(header, extensions, &self.limits).map(Some),
            }
        }
        Err(Error::HeaderCorrupt {
            offset_bytes: self.offset_bytes,
            reason: "too many extension headers for one entry",
        })
    }

    /// Reads the content of an extension header and its padding.
    fn read_extension(&mut self, size_bytes: u64, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        if size_bytes > limit_bytes {
            return Err(Error::HeaderCorrupt {
                offset_bytes: self.offset_bytes,
                reason: "an extension header over its limit",
            });
        }
        self.set_content(size_bytes)?;
        let content = self.content_to_vec(size_bytes)?;
        self.skip_padding()?;
        Ok(content)
    }

    fn set_content(&mut self, size_bytes: u64) -> Result<(), Error> {
        if size_bytes > self.limits.unpacked_bytes_max {
            return Err(Error::TooLarge {
                limit_bytes: self.limits.unpacked_bytes_max,
            });
        }
        self.content_left_bytes = size_bytes;
        self.padding_bytes = size_bytes.next_multiple_of(BLOCK_BYTES as u64) - size_bytes;
        Ok(())
    }

    fn count_entry(&mut self) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > self.limits.entries_max {
            return Err(Error::TooManyEntries {
                limit: self.limits.entries_max,
            });
        }
        Ok(())
    }

    /// Refuses a file whose name was there before. A directory may come again.
    fn note_name(&mut self, decoded: &header::Decoded, budget: &mut Budget) -> Result<(), Error> {
        match self.names.get(&decoded.path) {
            Some(EntryKind::Directory) if decoded.kind == EntryKind::Directory => return Ok(()),
            Some(_) => {
                return Err(Error::NameDuplicate {
                    entry: header::show(decoded.path.as_bytes()),
                });
            }
            None => {}
        }
        budget.charge(decoded.path.len() as u64 + NAME_OVERHEAD_BYTES)?;
        self.names.insert(decoded.path.clone(), decoded.kind);
        Ok(())
    }

    /// Reads what follows the first zero block: the second, then nothing but zeros to the end of the input.
    fn read_end(&mut self) -> Result<(), Error> {
        let offset_bytes = self.offset_bytes;
        if self.read_block()?.iter().any(|byte| *byte != 0) {
            return Err(Error::HeaderCorrupt {
                offset_bytes,
                reason: "one zero block where the end has two",
            });
        }
        loop {
            let piece = self.input.fill_buf().map_err(from_io)?;
            if piece.is_empty() {
                return Ok(());
            }
            if piece.iter().any(|byte| *byte != 0) {
                return Err(Error::TrailingBytes {
                    offset_bytes: self.offset_bytes,
                });
            }
            let length = piece.len();
            self.input.consume(length);
            self.offset_bytes += length as u64;
        }
    }

    fn read_block(&mut self) -> Result<[u8; BLOCK_BYTES], Error> {
        let mut block = [0; BLOCK_BYTES];
        self.read_exact(&mut block)?;
        Ok(block)
    }

    fn skip_padding(&mut self) -> Result<(), Error> {
        let mut padding = [0; BLOCK_BYTES];
        let length = usize::try_from(std::mem::take(&mut self.padding_bytes))
            .expect("padding is shorter than a block");
        self.read_exact(&mut padding[..length])
    }

    fn read_exact(&mut self, mut into: &mut [u8]) -> Result<(), Error> {
        self.input.consume(std::mem::take(&mut self.lent_bytes));
        while !into.is_empty() {
            let piece = self.input.fill_buf().map_err(from_io)?;
            if piece.is_empty() {
                return Err(Error::Truncated {
                    offset_bytes: self.offset_bytes,
                });
            }
            let length = piece.len().min(into.len());
            into[..length].copy_from_slice(&piece[..length]);
            self.input.consume(length);
            self.offset_bytes += length as u64;
            into = &mut into[length..];
        }
        Ok(())
    }
}
