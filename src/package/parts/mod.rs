//! Packages in parts, for media that are smaller than the package.
//!
//! A package that was split consists of numbered files and a table of contents that names them all. [`Splitter`] writes
//! the parts, [`Table`] is the document, and [`Joined`] reads the parts as the one stream that they were, without anybody
//! having to join them on disk.
//!
//! # Format
//!
//! ```text
//! x.tgz.parts      the table: JSON, written last
//! x.tgz.001        the first part
//! x.tgz.002 ...    the others, at most 999
//! x.tgz.sig        sidecars are those of the whole: they vouch for the joined stream
//! ```
//!
//! `docs/formats/parts.md` has every field. Nothing in the table is trusted: it says what to expect, so that damage has a
//! name, and what vouches for the package are the sidecars and the digest of the whole.
//!
//! # Invariants
//!
//! A [`Table`] names only files whose names follow from its own, so that it cannot make anybody read another file; its
//! sizes add up; it has at most [`PARTS_MAX`] parts, none of them empty.

mod error;
mod join;
mod split;

use serde::{Deserialize, Serialize};

pub use self::error::Error;
pub use self::join::Joined;
pub use self::split::{PartFiles, Splitter};
use crate::base::Digest;
use crate::base::shown::escape;
use crate::package::ARCHIVE_ENDS;

/// The largest number of parts: what three digits can say. Parts of a CD each carry 600 GB.
pub const PARTS_MAX: usize = 999;
/// The largest table, in bytes: [`PARTS_MAX`] parts with names of the 255 bytes that file systems allow, each with about
/// 150 bytes of its own, are below 400 KiB.
pub const TABLE_BYTES_MAX: u64 = 512 << 10;
/// What follows the name of the package in the name of its table.
pub const TABLE_SUFFIX: &str = ".parts";

/// What the table says of itself.
const FORMAT: &str = "violetd parts";
/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// The table of contents of a package in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    name: String,
    size_bytes: u64,
    digest: Digest,
    parts: Vec<Part>,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Name of the file beside the table.
    pub name: String,
    /// Size, in bytes. At least one.
    pub size_bytes: u64,
    /// Digest of the content.
    pub digest: Digest,
}

/// What the name of a file says about its place in a package in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member<'a> {
    /// It is the table of the package of this name.
    Table(&'a str),
    /// It is a part of the package of this name.
    Part(&'a str),
}

/// The table as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u32,
    name: String,
    size_bytes: u64,
    digest: Digest,
    parts: Vec<Part>,
}

/// What is read first, whatever else a later version may say.
#[derive(Deserialize)]
struct Mark {
    format: String,
    version: u32,
}

impl Table {
    /// Returns a table of `parts`, which make up `size_bytes` bytes with this digest.
    pub(super) fn new(
        name: String,
        size_bytes: u64,
        digest: Digest,
        parts: Vec<Part>,
    ) -> Result<Self, Error> {
        check_name(&name)?;
        if parts.is_empty() || parts.len() > PARTS_MAX {
            return Err(Error::Count { found: parts.len() });
        }
        let mut total_bytes = 0_u64;
        for (index, part) in parts.iter().enumerate() {
            let expected = part_name(&name, index + 1);
            if part.name != expected {
                return Err(Error::PartName {
                    expected,
                    found: show(&part.name),
                });
            }
            if part.size_bytes == 0 {
                return Err(Error::EmptyPart { part: expected });
            }
            total_bytes = total_bytes.saturating_add(part.size_bytes);
        }
        if total_bytes != size_bytes || total_bytes == u64::MAX {
            return Err(Error::Size {
                size_bytes,
                total_bytes,
            });
        }
        Ok(Self {
            name,
            size_bytes,
            digest,
            parts,
        })
    }

    /// Reads a table from the content of the file `file_name`.
    ///
    /// A table under another name than its own is refused: somebody has renamed the table and may have forgotten the
    /// parts.
    pub fn parse(file_name: &str, content: &[u8]) -> Result<Self, Error> {
        if content.len() as u64 > TABLE_BYTES_MAX {
            return Err(Error::TooLarge {
                limit_bytes: TABLE_BYTES_MAX,
            });
        }
        let malformed = |error: serde_json::Error| Error::Malformed {
            reason: show(&error.to_string()),
        };
        let mark: Mark = serde_json::from_slice(content).map_err(malformed)?;
        if mark.format != FORMAT {
            return Err(Error::Malformed {
                reason: format!("expected format `{FORMAT}`, found `{}`", show(&mark.format)),
            });
        }
        if mark.version != VERSION {
            return Err(Error::Version {
                known: VERSION,
                found: mark.version,
            });
        }
        let document: Document = serde_json::from_slice(content).map_err(malformed)?;
        let expected = file_name.strip_suffix(TABLE_SUFFIX).unwrap_or(file_name);
        if document.name != expected {
            return Err(Error::Name {
                expected: show(expected),
                found: show(&document.name),
            });
        }
        Self::new(
            document.name,
            document.size_bytes,
            document.digest,
            document.parts,
        )
    }

    /// Returns the content of the table's file.
    pub fn encode(&self) -> Vec<u8> {
        let document = Document {
            format: FORMAT.to_owned(),
            version: VERSION,
            name: self.name.clone(),
            size_bytes: self.size_bytes,
            digest: self.digest,
            parts: self.parts.clone(),
        };
        let mut bytes = serde_json::to_vec_pretty(&document)
            .expect("a document of strings and numbers can be written as JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Returns the name that the package has as one file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the size of the whole, in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns the digest of the whole.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the parts, in their order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl<'a> Member<'a> {
    /// Returns what a file of this name is, if it belongs to a package in parts.
    pub fn of(file_name: &'a str) -> Option<Self> {
        if let Some(whole) = file_name.strip_suffix(TABLE_SUFFIX) {
            return check_name(whole).is_ok().then_some(Self::Table(whole));
        }
        let (whole, number) = file_name.rsplit_once('.')?;
        let is_number = number.len() == 3
            && number != "000"
            && number.bytes().all(|byte| byte.is_ascii_digit());
        (is_number && check_name(whole).is_ok()).then_some(Self::Part(whole))
    }

    /// Returns the name of the package as one file.
    pub const fn whole(self) -> &'a str {
        match self {
            Self::Table(whole) | Self::Part(whole) => whole,
        }
    }
}

/// Accepts a name of a package that can be split. How it ends tells `x.tgz.001` from a file whose version ends like that.
pub fn check_name(name: &str) -> Result<(), Error> {
    let is_good = !name.starts_with('.')
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control)
        && ARCHIVE_ENDS
            .iter()
            .any(|end| name.len() > end.len() && name.ends_with(end));
    if is_good {
        Ok(())
    } else {
        Err(Error::PackageName { found: show(name) })
    }
}

/// Returns the name of a part, numbered from 1.
fn part_name(whole: &str, number: usize) -> String {
    format!("{whole}.{number:03}")
}

/// Returns text from a table so that it can be shown: escaped, and not longer than a file name.
fn show(text: &str) -> String {
    escape(text, 255)
}

#[cfg(test)]
mod tests;
