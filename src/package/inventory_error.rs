//! What can be wrong with a list of blobs.
//!
//! Codes are shown to programs: they are never renamed, only retired.

use std::io;

use thiserror::Error;

use super::inventory::{INVENTORY_BLOBS_MAX, LINE_BYTES_MAX};
use crate::base::{Class, Classified, Digest, ParseDigestError, ParseNameError};

/// Why a text is no inventory, or no request. Lines count from 1.
#[derive(Debug, Error)]
pub enum ParseInventoryError {
    /// The input failed; says nothing about the text.
    #[error("failed to read line {line}")]
    Read {
        /// The line.
        line: u64,
        /// What the input says.
        source: io::Error,
    },
    /// The first line is another one.
    #[error("expected `{expected}` in line 1, found `{found}`")]
    Header {
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The end comes in the middle of a line: an interrupted copy.
    #[error("expected a line feed at the end of line {line}, found the end of the file")]
    Cut {
        /// The line.
        line: u64,
    },
    /// A line that is longer than any can be.
    #[error("expected at most {LINE_BYTES_MAX} bytes in line {line}")]
    LineTooLong {
        /// The line.
        line: u64,
    },
    /// A line that is not text.
    #[error("expected UTF-8 in line {line}")]
    NotText {
        /// The line.
        line: u64,
    },
    /// A line with more or fewer words.
    #[error("expected `{expected}` in line {line}, found `{found}`")]
    Shape {
        /// The line.
        line: u64,
        /// What it must look like.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A malformed digest.
    #[error("failed to read `{found}` in line {line} as a digest")]
    Digest {
        /// The line.
        line: u64,
        /// What there is.
        found: String,
        /// What is wrong with it.
        source: ParseDigestError,
    },
    /// A malformed size.
    #[error("expected a size in bytes in line {line}, found `{found}`")]
    Size {
        /// The line.
        line: u64,
        /// What there is.
        found: String,
    },
    /// A digest that is not greater than the one before.
    #[error("expected a digest greater than {last} in line {line}, found {found}")]
    Order {
        /// The line.
        line: u64,
        /// The digest before.
        last: Digest,
        /// This one.
        found: Digest,
    },
    /// More blobs than a list may have.
    #[error("expected at most {INVENTORY_BLOBS_MAX} blobs, found more in line {line}")]
    TooMany {
        /// The line.
        line: u64,
    },
    /// A malformed package name.
    #[error("failed to read `{found}` in line {line} as the name of a package")]
    Name {
        /// The line.
        line: u64,
        /// What there is.
        found: String,
        /// What is wrong with it.
        source: ParseNameError,
    },
    /// A malformed version.
    #[error("expected a version in line {line}, found `{found}`")]
    Version {
        /// The line.
        line: u64,
        /// What there is.
        found: String,
    },
}

impl ParseInventoryError {
    /// Returns the stable code of the violation.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "inventory-read-failed",
            Self::Header { .. } => "inventory-header",
            Self::Cut { .. } => "inventory-cut",
            Self::LineTooLong { .. } => "inventory-line-too-long",
            Self::NotText { .. } => "inventory-not-text",
            Self::Shape { .. } => "inventory-shape",
            Self::Digest { .. } => "inventory-digest",
            Self::Size { .. } => "inventory-size",
            Self::Order { .. } => "inventory-order",
            Self::TooMany { .. } => "inventory-too-many",
            Self::Name { .. } => "inventory-name",
            Self::Version { .. } => "inventory-version",
        }
    }
}

impl Classified for ParseInventoryError {
    fn class(&self) -> Class {
        match self {
            Self::Read { .. } => Class::Transient,
            Self::Header { .. }
            | Self::Cut { .. }
            | Self::LineTooLong { .. }
            | Self::NotText { .. }
            | Self::Shape { .. }
            | Self::Digest { .. }
            | Self::Size { .. }
            | Self::Order { .. }
            | Self::TooMany { .. }
            | Self::Name { .. }
            | Self::Version { .. } => Class::Rejected,
        }
    }
}
