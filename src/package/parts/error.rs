//! What can be wrong with a package in parts.
//!
//! Codes are persisted in catalogs and reports: they are never renamed, only retired.

use std::fmt;
use std::io;

use thiserror::Error;

use crate::base::{Class, Classified, Digest};

/// Why parts are refused, or cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The table is over its limit.
    #[error("expected at most {limit_bytes} bytes in the table of parts")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The table is no such document.
    #[error("failed to read the table of parts ({reason})")]
    Malformed {
        /// The parser's reason, on one line.
        reason: String,
    },
    /// The table was written by a newer program.
    #[error("expected a table of parts of version {known}, found {found}")]
    Version {
        /// The version that this program knows.
        known: u32,
        /// The version found.
        found: u32,
    },
    /// The table is that of another package, or was renamed.
    #[error("expected the table of parts of `{expected}`, found that of `{found}`")]
    Name {
        /// What the name of the file says.
        expected: String,
        /// What the table says.
        found: String,
    },
    /// The name is none of a package that can be split.
    #[error(
        "expected the name of a package, without folders, that ends with `.tgz`, `.tar.gz`, `.tar.zst` or `.tar`, found `{found}`"
    )]
    PackageName {
        /// The name found.
        found: String,
    },
    /// The table names a file that is not the part that comes next: another file, or a part twice.
    #[error("expected part `{expected}` in the table of parts, found `{found}`")]
    PartName {
        /// The only name that the part may have.
        expected: String,
        /// The name found.
        found: String,
    },
    /// No parts, or too many.
    #[error("expected 1 to {} parts, found {found}", super::PARTS_MAX)]
    Count {
        /// How many there are.
        found: usize,
    },
    /// A part of nothing.
    #[error("expected content in part `{part}`, found none")]
    EmptyPart {
        /// The part.
        part: String,
    },
    /// The sizes of the parts do not add up to that of the whole.
    #[error("expected parts of {size_bytes} bytes together, found {total_bytes}")]
    Size {
        /// What the table says of the whole.
        size_bytes: u64,
        /// What it says of the parts, together.
        total_bytes: u64,
    },
    /// Parts are not what the table says, or are not there.
    #[error("expected {expected} parts as the table says, found {}", Found { damaged, missing })]
    Damaged {
        /// How many parts there should be.
        expected: usize,
        /// The parts with other content or another size, in their order.
        damaged: Vec<String>,
        /// The parts that are not there, in their order.
        missing: Vec<String>,
    },
    /// Every part is what the table says, but the whole is not.
    #[error("expected {expected} of all parts together as the table says, found {found}")]
    WholeDigest {
        /// What the table says.
        expected: Digest,
        /// What the parts amount to.
        found: Digest,
    },
    /// A part cannot be read.
    #[error("failed to read part `{part}`")]
    Unreadable {
        /// The part.
        part: String,
        /// What kind of failure it is.
        #[source]
        kind: ReadFailure,
    },
}

/// Why a part cannot be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ReadFailure(pub io::ErrorKind);

impl Error {
    /// Returns the stable code of this error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "parts-table-too-large",
            Self::Malformed { .. } => "parts-table-malformed",
            Self::Version { .. } => "parts-table-version",
            Self::Name { .. } => "parts-table-of-other-package",
            Self::PackageName { .. } => "parts-package-name",
            Self::PartName { .. } => "parts-part-name",
            Self::Count { .. } => "parts-count",
            Self::EmptyPart { .. } => "parts-empty-part",
            Self::Size { .. } => "parts-size",
            Self::Damaged { damaged, .. } if damaged.is_empty() => "part-missing",
            Self::Damaged { .. } => "part-damaged",
            Self::WholeDigest { .. } => "parts-whole-digest",
            Self::Unreadable { .. } => "part-unreadable",
        }
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Damaged { damaged, .. } if damaged.is_empty() => Class::Absent,
            Self::Unreadable { kind, .. } if kind.0 == io::ErrorKind::PermissionDenied => {
                Class::Denied
            }
            Self::Unreadable { .. } => Class::Transient,
            Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Version { .. }
            | Self::Name { .. }
            | Self::PackageName { .. }
            | Self::PartName { .. }
            | Self::Count { .. }
            | Self::EmptyPart { .. }
            | Self::Size { .. }
            | Self::Damaged { .. }
            | Self::WholeDigest { .. } => Class::Rejected,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Version { .. } => {
                "install the version of violetd that wrote the parts, or a newer one"
            }
            Self::Name { .. } => "give table and parts back the names that they had",
            Self::Damaged { damaged, .. } if damaged.is_empty() => "bring the missing parts",
            Self::Damaged { .. } => {
                "copy these parts again, and drop them together with the table and the other parts"
            }
            Self::TooLarge { .. } | Self::Malformed { .. } => "copy the table again",
            Self::Count { .. } => "choose larger parts",
            Self::PackageName { .. } => "choose another name with `--output`",
            Self::PartName { .. }
            | Self::EmptyPart { .. }
            | Self::Size { .. }
            | Self::WholeDigest { .. }
            | Self::Unreadable { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<Error> for io::Error {
    /// Carries an error through [`Read`](io::Read) and [`Write`](io::Write), which know no other.
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Unreadable { kind, .. } => kind.0,
            Error::TooLarge { .. }
            | Error::Malformed { .. }
            | Error::Version { .. }
            | Error::Name { .. }
            | Error::PackageName { .. }
            | Error::PartName { .. }
            | Error::Count { .. }
            | Error::EmptyPart { .. }
            | Error::Size { .. }
            | Error::Damaged { .. }
            | Error::WholeDigest { .. } => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Names every part at fault.
struct Found<'a> {
    damaged: &'a [String],
    missing: &'a [String],
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (names, what) in [(self.damaged, "damaged"), (self.missing, "missing")] {
            if !names.is_empty() {
                write!(
                    f,
                    "{separator}{} {what}: `{}`",
                    names.len(),
                    names.join("`, `")
                )?;
                separator = "; ";
            }
        }
        Ok(())
    }
}
