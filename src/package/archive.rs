//! The entries of a package archive, one pass, nothing buffered.
//!
//! [`Archive`] gives the entries in their order; the content of each is read piece by piece before the next is asked
//! for. Only plain files, directories and symbolic links with harmless names come through, every name once; everything else
//! is an error. Links are given to the caller, who refuses almost all of them.
//!
//! # Invariants
//!
//! - `Ok(None)` from [`Archive::next_entry`] means that the whole input was read: both end-of-archive blocks were
//!   there, nothing but zeros followed, and every checksum of the compression was right. An archive that was cut short
//!   is never taken for a whole one.
//! - Memory is bounded by [`Budget`] and by the bounds on extension headers.

use std::collections::HashMap;
use std::collections::hash_map;
use std::io::BufRead;

use super::header::{self, BLOCK_BYTES, EntryKind, Extensions};
use super::inflate::from_io;
use super::{Error, Limits};
use crate::base::Digest;

/// What one name costs in memory beyond its own bytes, and all that the folder of an entry costs: an entry of a set.
pub(super) const NAME_OVERHEAD_BYTES: u64 = 64;

/// What this file may still ask for, with all archives inside of it: bytes held in memory, and entries.
#[derive(Debug)]
pub(super) struct Budget {
    limit_bytes: u64,
    left_bytes: u64,
    entries_max: u64,
    entries: u64,
}

impl Budget {
    pub(super) const fn new(limits: &Limits) -> Self {
        Self {
            limit_bytes: limits.metadata_total_bytes_max,
            left_bytes: limits.metadata_total_bytes_max,
            entries_max: limits.entries_max,
            entries: 0,
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

    fn count_entry(&mut self) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > self.entries_max {
            return Err(Error::TooManyEntries {
                limit: self.entries_max,
            });
        }
        Ok(())
    }
}

/// What comes next in an archive; directories are left out.
#[derive(Debug)]
pub(super) enum Entry {
    /// A file.
    File(FileEntry),
    /// A symbolic link, whose target was not looked at.
    Link {
        /// Path below the root of the archive.
        path: String,
        /// Where it leads, as it says.
        target: String,
    },
}

/// A file of the archive, whose content is read next.
#[derive(Debug)]
pub(super) struct FileEntry {
    /// Path below the root of the archive, without leading `./`.
    pub(super) path: String,
    /// Size of the content.
    pub(super) size_bytes: u64,
}

/// What there is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// A file or a link.
    File,
    /// A folder.
    Folder,
    /// A folder that is no entry so far, only in the path of one.
    Implied,
}

/// An archive that is being read.
#[derive(Debug)]
pub(super) struct Archive<B> {
    input: B,
    limits: Limits,
    offset_bytes: u64,
    /// What there is at each path, by the digest of the path.
    names: HashMap<Digest, Known>,
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
            names: HashMap::new(),
            content_left_bytes: 0,
            padding_bytes: 0,
            lent_bytes: 0,
        }
    }

    /// Returns the next file or link, or `None` once the whole archive was read. Content that was not read is skipped.
    ///
    /// After an error about the name or the type of one entry the next call goes on behind that entry.
    pub(super) fn next_entry(&mut self, budget: &mut Budget) -> Result<Option<Entry>, Error> {
        loop {
            while !self.content()?.is_empty() {}
            self.skip_padding()?;
            let Some(decoded) = self.next_header(budget)? else {
                return Ok(None);
            };
            self.note_name(&decoded, budget)?;
            match decoded.kind {
                EntryKind::Directory => {}
                EntryKind::File => {
                    return Ok(Some(Entry::File(FileEntry {
                        path: decoded.path,
                        size_bytes: decoded.size_bytes,
                    })));
                }
                EntryKind::Link => {
                    return Ok(Some(Entry::Link {
                        path: decoded.path,
                        target: decoded.link,
                    }));
                }
            }
        }
    }

    /// Returns the next piece of the current file's content; nothing at its end.
    pub(super) fn content(&mut self) -> Result<&[u8], Error> {
        self.settle();
        let length = self.peek_content()?.len();
        self.lent_bytes = length;
        // The same bytes again: nothing was consumed in between.
        self.peek_content()
    }

    /// Returns what is at hand of the current file's content without taking it; nothing at its end.
    pub(super) fn peek_content(&mut self) -> Result<&[u8], Error> {
        if self.content_left_bytes == 0 {
            return Ok(&[]);
        }
        let offset_bytes = self.offset_bytes;
        let piece = self.input.fill_buf().map_err(from_io)?;
        if piece.is_empty() {
            return Err(Error::Truncated { offset_bytes });
        }
        let wanted = usize::try_from(self.content_left_bytes).unwrap_or(usize::MAX);
        Ok(&piece[..piece.len().min(wanted)])
    }

    /// Takes `amount` bytes of what [`peek_content`](Self::peek_content) has returned.
    pub(super) fn take_content(&mut self, amount: usize) {
        self.input.consume(amount);
        self.content_left_bytes -= amount as u64;
        self.offset_bytes += amount as u64;
    }

    /// Gives back what was handed out.
    fn settle(&mut self) {
        let lent_bytes = std::mem::take(&mut self.lent_bytes);
        self.take_content(lent_bytes);
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
    fn next_header(&mut self, budget: &mut Budget) -> Result<Option<header::Decoded>, Error> {
        let mut extensions = Extensions::default();
        let mut is_extended = false;
        for depth in 0..=self.limits.extensions_max {
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
            budget.count_entry()?;
            let header = header::decode(&block, offset_bytes).map_err(|error| {
                let is_start = offset_bytes == 0;
                if is_start && !header::begins_tar(&block) {
                    return Error::NotAnArchive;
                }
                error
            })?;
            let size_bytes = header.entry_size().unwrap_or_default();
            let kind = header.entry_type().as_byte();
            // Some readers take the extension header for one of the global header, or forget it.
            if kind == b'g' && is_extended {
                return Err(Error::HeaderCorrupt {
                    offset_bytes,
                    reason: "a global header between an extension header and its entry",
                });
            }
            is_extended |= matches!(kind, b'L' | b'x' | b'K');
            match kind {
                b'L' => {
                    let name = self.read_extension(size_bytes)?;
                    extensions.set_long_name(&name)?;
                }
                b'x' => {
                    let content = self.read_extension(size_bytes)?;
                    extensions.set_records(&content, offset_bytes)?;
                }
                b'g' => {
                    let content = self.read_extension(size_bytes)?;
                    header::check_global(&content, offset_bytes)?;
                }
                b'K' => {
                    let name = self.read_extension(size_bytes)?;
                    extensions.set_long_link(&name)?;
                }
                _ => {
                    self.set_content(extensions.size_of(header))?;
                    return header::resolve(header, extensions, &self.limits).map(Some);
                }
            }
        }
        Err(Error::TooManyExtensions {
            offset_bytes: self.offset_bytes,
            limit: self.limits.extensions_max,
        })
    }

    /// Reads the content of an extension header and its padding.
    fn read_extension(&mut self, size_bytes: u64) -> Result<Vec<u8>, Error> {
        let limit_bytes = self.limits.extension_bytes_max;
        if size_bytes > limit_bytes {
            return Err(Error::ExtensionTooLarge {
                offset_bytes: self.offset_bytes,
                size_bytes,
                limit_bytes,
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

    /// Refuses a file whose name was there before, and a path that is a file and a folder. A directory may come again.
    fn note_name(&mut self, decoded: &header::Decoded, budget: &mut Budget) -> Result<(), Error> {
        let path = decoded.path.as_bytes();
        let kind = match decoded.kind {
            EntryKind::Directory => Known::Folder,
            EntryKind::File | EntryKind::Link => Known::File,
        };
        let key = Digest::of(path);
        match (self.names.get(&key), kind) {
            (Some(Known::Folder | Known::Implied), Known::Folder) => {}
            (Some(Known::Implied), _) => {
                return Err(Error::NameConflict {
                    entry: header::show(path),
                });
            }
            (Some(_), _) => {
                return Err(Error::NameDuplicate {
                    entry: header::show(path),
                });
            }
            (None, _) => {
                budget.charge(path.len() as u64 + NAME_OVERHEAD_BYTES)?;
                self.note_folders(&decoded.path, budget)?;
            }
        }
        self.names.insert(key, kind);
        Ok(())
    }

    /// Takes note of the folders that `path` lies in, from the innermost up to the first that is known: those above it
    /// were noted with it.
    fn note_folders(&mut self, mut path: &str, budget: &mut Budget) -> Result<(), Error> {
        while let Some((folder, _)) = path.rsplit_once('/') {
            match self.names.entry(Digest::of(folder.as_bytes())) {
                hash_map::Entry::Occupied(known) if *known.get() == Known::File => {
                    return Err(Error::NameConflict {
                        entry: header::show(folder.as_bytes()),
                    });
                }
                hash_map::Entry::Occupied(_) => return Ok(()),
                hash_map::Entry::Vacant(new) => {
                    budget.charge(NAME_OVERHEAD_BYTES)?;
                    new.insert(Known::Implied);
                }
            }
            path = folder;
        }
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
        self.settle();
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
