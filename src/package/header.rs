//! Headers of tar entries: decoded strictly, so that no two readers can see two different archives.
//!
//! # References
//!
//! POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format". The
//! fields of a block are decoded by the `tar` crate; which headers belong together is decided here, because extension
//! headers must be bounded and contradictions between them refused.

use tar::Header;

use super::{Error, Limits};
use crate::base::shown::escape;

/// Size of a tar block, in bytes.
pub(super) const BLOCK_BYTES: usize = 512;
/// Where a header says what it is (POSIX.1-2017 `pax`, "ustar Interchange Format"); what GNU tar writes there begins alike.
const MAGIC_OFFSET: usize = 257;
const MAGIC: &[u8] = b"ustar";
/// Where a header has the size of the content (POSIX.1-2017 `pax`, "ustar Interchange Format").
const SIZE_FIELD: std::ops::Range<usize> = 124..136;
/// The longest name that an error message carries, in characters.
const SHOWN_CHARACTERS_MAX: usize = 200;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Directory,
    /// A symbolic link. Hardly ever allowed, but that is decided by whoever knows what the archive is.
    Link,
}

/// What extension headers say about the entry that follows them.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size_bytes: Option<u64>,
    is_sparse: bool,
}

impl Extensions {
    /// Takes a GNU long name: the name, ended by NUL.
    pub(super) fn set_long_name(&mut self, content: &[u8]) -> Result<(), Error> {
        let name = content.strip_suffix(b"\0").unwrap_or(content);
        self.set_path(name)
    }

    /// Returns what the headers said, for readers with rules of their own about what an entry may be.
    pub(super) fn into_said(self) -> Said {
        Said {
            path: self.path,
            size_bytes: self.size_bytes,
            is_sparse: self.is_sparse,
        }
    }

    /// Takes a GNU long link name: the name, ended by NUL.
    pub(super) fn set_long_link(&mut self, content: &[u8]) -> Result<(), Error> {
        let name = content.strip_suffix(b"\0").unwrap_or(content);
        self.set_link(name)
    }

    fn set_link(&mut self, name: &[u8]) -> Result<(), Error> {
        if self.link.is_some() {
            return Err(Error::NameAmbiguous { entry: show(name) });
        }
        self.link = Some(name.to_owned());
        Ok(())
    }

    /// Returns how much content follows `header`.
    pub(super) fn size_of(&self, header: &Header) -> u64 {
        self.size_bytes
            .map_or_else(|| header.entry_size().ok(), Some)
            .unwrap_or_default()
    }

    fn set_path(&mut self, name: &[u8]) -> Result<(), Error> {
        if self.path.is_some() {
            return Err(Error::NameAmbiguous { entry: show(name) });
        }
        self.path = Some(name.to_owned());
        Ok(())
    }

    /// Takes the records of a pax extended header for the next entry.
    pub(super) fn set_records(&mut self, content: &[u8], offset_bytes: u64) -> Result<(), Error> {
        for record in records(content) {
            let (key, value) = record.ok_or(bad_records(offset_bytes))?;
            match key {
                b"path" => self.set_path(value)?,
                b"linkpath" => self.set_link(value)?,
                b"size" => {
                    let size_bytes = std::str::from_utf8(value)
                        .ok()
                        .and_then(|text| text.parse().ok())
                        .filter(|_| self.size_bytes.is_none());
                    self.size_bytes = Some(size_bytes.ok_or(bad_records(offset_bytes))?);
                }
                key if key.starts_with(b"GNU.sparse.") => self.is_sparse = true,
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the extension headers of one entry said together.
#[derive(Debug)]
pub(super) struct Said {
    /// The name, if it is not that of the header.
    pub(super) path: Option<Vec<u8>>,
    /// The size, if it is not that of the header.
    pub(super) size_bytes: Option<u64>,
    /// Whether the content is not what the file holds.
    pub(super) is_sparse: bool,
}

/// Refuses a pax global header that would change every entry after it. Comments, as git writes them, are fine.
pub(super) fn check_global(content: &[u8], offset_bytes: u64) -> Result<(), Error> {
    for record in records(content) {
        let (key, _) = record.ok_or(bad_records(offset_bytes))?;
        if matches!(key, b"path" | b"size" | b"linkpath") || key.starts_with(b"GNU.sparse.") {
            return Err(Error::HeaderCorrupt {
                offset_bytes,
                reason: "a name or size for all entries",
            });
        }
    }
    Ok(())
}

const fn bad_records(offset_bytes: u64) -> Error {
    Error::HeaderCorrupt {
        offset_bytes,
        reason: "malformed pax records",
    }
}

/// Splits `LENGTH KEY=VALUE\n` records; `None` for one that is malformed, after which nothing follows.
fn records(mut content: &[u8]) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
    std::iter::from_fn(move || {
        if content.is_empty() {
            return None;
        }
        let record = split_record(content);
        content = record.map_or(&[], |(_, _, rest)| rest);
        Some(record.map(|(key, value, _)| (key, value)))
    })
}

/// Returns the key and value of the first record, and what follows it.
fn split_record(content: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = content.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&content[..space]).ok()?.parse().ok()?;
    let record = content.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &content[length..]))
}

/// Returns whether all readers take a number for the same: octal digits, or binary of at most 64 bits and not negative. The
/// library takes signs and leaves out what is above 64 bits.
fn is_unambiguous(field: &[u8]) -> bool {
    match field {
        [0x80, high @ .., _, _, _, _, _, _, _, _] => high.iter().all(|byte| *byte == 0),
        octal => octal
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'7' | b' ' | 0)),
    }
}

/// Returns whether the header is of the time before `ustar`: it has no magic, only a checksum.
fn is_old(header: &Header) -> bool {
    header.as_ustar().is_none() && header.as_gnu().is_none()
}

/// Returns the header in `block`, if it is one: with the magic of ustar or without any, but always with the right checksum.
pub(super) fn decode(block: &[u8; BLOCK_BYTES], offset_bytes: u64) -> Result<&Header, Error> {
    let corrupt = |reason| Error::HeaderCorrupt {
        offset_bytes,
        reason,
    };
    let header = Header::from_byte_slice(block);
    // Sum of all bytes, with those of the sum itself taken as spaces.
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(index, byte)| match index {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        })
        .sum();
    if header.cksum().ok() != Some(sum) {
        return Err(corrupt(if is_old(header) {
            "no tar magic"
        } else {
            "a wrong checksum"
        }));
    }
    if header.entry_size().is_err() || !is_unambiguous(&block[SIZE_FIELD]) {
        return Err(corrupt("a malformed size"));
    }
    Ok(header)
}

/// Returns whether an archive may begin with `head`, a block or less. One that is shorter or damaged is still taken for an
/// archive if it has the magic, so that it is called damaged.
pub(super) fn begins_tar(head: &[u8]) -> bool {
    let has_magic = head
        .get(MAGIC_OFFSET..)
        .is_some_and(|rest| rest.starts_with(MAGIC));
    let block = <&[u8; BLOCK_BYTES]>::try_from(head);
    has_magic || block.is_ok_and(|block| decode(block, 0).is_ok())
}

/// An entry, decoded.
#[derive(Debug)]
pub(super) struct Decoded {
    /// Path below the root of the archive, without leading `./`; empty for the root itself.
    pub(super) path: String,
    pub(super) kind: EntryKind,
    pub(super) size_bytes: u64,
    /// Where a link leads, as it says; empty for everything else.
    pub(super) link: String,
}

/// Combines a header with what extension headers said, and refuses what is no plain file, directory or symbolic link.
pub(super) fn resolve(
    header: &Header,
    extensions: Extensions,
    limits: &Limits,
) -> Result<Decoded, Error> {
    let size_bytes = extensions.size_of(header);
    let name = extensions
        .path
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let entry = show(&name);
    // Before ustar a directory was a file whose name ends in a slash.
    let is_old_directory = is_old(header) && name.ends_with(b"/") && size_bytes == 0;
    let kind = match header.entry_type().as_byte() {
        _ if extensions.is_sparse => return Err(Error::Sparse { entry }),
        b'0' | b'\0' if is_old_directory => EntryKind::Directory,
        b'0' | b'\0' => EntryKind::File,
        b'5' if size_bytes == 0 => EntryKind::Directory,
        b'1' => return Err(Error::HardLink { entry }),
        b'2' if size_bytes == 0 => EntryKind::Link,
        b'2' => return Err(Error::SymbolicLink { entry }),
        b'3' | b'4' => return Err(Error::Device { entry }),
        b'6' => return Err(Error::Fifo { entry }),
        b'S' => return Err(Error::Sparse { entry }),
        found => return Err(Error::EntryType { entry, found }),
    };
    let link = match kind {
        EntryKind::Link => extensions
            .link
            .or_else(|| Some(header.link_name_bytes()?.into_owned()))
            .and_then(|target| String::from_utf8(target).ok())
            .ok_or(Error::SymbolicLink { entry })?,
        EntryKind::File | EntryKind::Directory => String::new(),
    };
    Ok(Decoded {
        path: check_name(&name, kind, limits)?,
        kind,
        size_bytes,
        link,
    })
}

/// Returns the name without `.` components, if it is one that stays below the root.
fn check_name(name: &[u8], kind: EntryKind, limits: &Limits) -> Result<String, Error> {
    let entry = show(name);
    if name.len() as u64 > limits.path_bytes_max {
        return Err(Error::NameTooLong {
            entry,
            limit_bytes: limits.path_bytes_max,
        });
    }
    let Ok(text) = std::str::from_utf8(name) else {
        return Err(Error::NameNotUtf8 { entry });
    };
    if text.contains(|c: char| c == '\\' || c.is_control()) {
        return Err(Error::NameCharacter { entry });
    }
    if text.starts_with('/') {
        return Err(Error::NameAbsolute { entry });
    }
    let text = match kind {
        EntryKind::Directory => text.strip_suffix('/').unwrap_or(text),
        EntryKind::File | EntryKind::Link => text,
    };
    let mut path = String::with_capacity(text.len());
    for component in text.split('/') {
        match component {
            "" => return Err(Error::NameEmpty { entry }),
            ".." => return Err(Error::NameParent { entry }),
            "." => {}
            component => {
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(component);
            }
        }
    }
    if path.is_empty() && kind != EntryKind::Directory {
        return Err(Error::NameEmpty { entry });
    }
    Ok(path)
}

/// Returns a name as an error message may carry it: bounded, without control characters.
pub(super) fn show(name: &[u8]) -> String {
    // Four bytes are the most that one character takes.
    let bounded = &name[..name.len().min(4 * SHOWN_CHARACTERS_MAX)];
    escape(&String::from_utf8_lossy(bounded), SHOWN_CHARACTERS_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(name: &[u8], kind: EntryKind) -> Result<String, &'static str> {
        check_name(name, kind, &Limits::default()).map_err(|error| error.code())
    }

    #[test]
    fn names_are_normalised_or_refused() {
        for (name, path) in [("a", "a"), ("./a/./b", "a/b"), ("a/b.c", "a/b.c")] {
            assert_eq!(check(name.as_bytes(), EntryKind::File).unwrap(), path);
        }
        assert_eq!(check(b"./", EntryKind::Directory).unwrap(), "");
        assert_eq!(check(b"a/b/", EntryKind::Directory).unwrap(), "a/b");
        for (name, code) in [
            (&b"/a"[..], "name-absolute"),
            (b"a/../b", "name-parent"),
            (b"..", "name-parent"),
            (b"a//b", "name-empty"),
            (b"a/", "name-empty"),
            (b".", "name-empty"),
            (b"", "name-empty"),
            (b"a\\b", "name-character"),
            (b"a\0b", "name-character"),
            (b"a\x1b[31m", "name-character"),
            (b"\xff", "name-not-utf8"),
            (&[b'a'; 1025], "name-too-long"),
        ] {
            assert_eq!(check(name, EntryKind::File), Err(code), "name: {name:?}");
        }
    }

    #[test]
    fn pax_records_may_hold_line_feeds_and_must_be_whole() {
        let content = b"11 path=a\n\n15 size=12345\n";
        // `11 path=a\n\n` holds a value that ends in a line feed.
        let found: Vec<_> = records(content).collect();
        assert_eq!(found, [Some((&b"path"[..], &b"a\n"[..])), None,]);
        let found: Vec<_> = records(b"14 size=12345\n").collect();
        assert_eq!(found, [Some((&b"size"[..], &b"12345"[..]))]);
    }

    proptest! {
        #[test]
        fn records_never_panic_and_end(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(records(&content).count() <= content.len());
        }

        #[test]
        fn accepted_names_stay_below_the_root(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(path) = check(&name, EntryKind::File) {
                prop_assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
