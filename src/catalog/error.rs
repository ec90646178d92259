//! What can go wrong with the catalog.

use std::path::PathBuf;

use thiserror::Error;

use crate::base::{Class, Classified, Digest};
use crate::sys::fs;

/// What can go wrong in this module.
#[derive(Debug, Error)]
pub enum Error {
    /// Another process, or this one, has it open for writing.
    #[error("expected to be the only user of the catalog in `{}`, found it in use", dir.display())]
    Held {
        /// Directory of the catalog.
        dir: PathBuf,
    },
    /// There is nothing to open.
    #[error("expected a catalog in `{}`, found none", dir.display())]
    NoCatalog {
        /// Directory of the catalog.
        dir: PathBuf,
    },
    /// The database is damaged.
    #[error("failed to {verb} the catalog, which is damaged: {message}")]
    Corrupt {
        /// What was tried.
        verb: &'static str,
        /// The database's own description.
        message: String,
    },
    /// The database has a column that this program does not know.
    #[error("expected a catalog without unknown columns, found `{name}`")]
    UnknownColumn {
        /// Name of the column.
        name: String,
    },
    /// A row was written by a newer version.
    #[error("expected rows of version {known} in column `{column}`, found version {found}")]
    Format {
        /// Name of the column.
        column: &'static str,
        /// The newest version that this program knows.
        known: u8,
        /// The version of the row.
        found: u8,
    },
    /// A row has no content.
    #[error("expected a record in the row `{key}` of column `{column}`, found nothing")]
    Empty {
        /// Name of the column.
        column: &'static str,
        /// Key of the row, escaped.
        key: String,
    },
    /// The content of a row in a form of its own is none.
    #[error("expected a record in the row `{key}` of column `{column}`, found something else")]
    Garbled {
        /// Name of the column.
        column: &'static str,
        /// Key of the row, escaped.
        key: String,
    },
    /// The content of a row is no such record.
    #[error("failed to decode the row `{key}` of column `{column}`")]
    Decode {
        /// Name of the column.
        column: &'static str,
        /// Key of the row, escaped.
        key: String,
        /// The reason.
        source: serde_json::Error,
    },
    /// A record that cannot be written, or could not be read back.
    #[error("failed to encode a record for column `{column}`")]
    Encode {
        /// Name of the column.
        column: &'static str,
        /// The reason.
        source: serde_json::Error,
    },
    /// A record that would read back as another one.
    #[error(
        "expected a record for column `{column}` that reads back the same, found one that does not"
    )]
    Unfaithful {
        /// Name of the column.
        column: &'static str,
    },
    /// There is no such package.
    #[error("expected a package that is ready, found none with digest {package}")]
    NoPackage {
        /// The package asked for.
        package: Digest,
    },
    /// What a package keeps in the store is not known, so that nobody can say what no package keeps.
    #[error("expected to know what every package keeps in the store, found {package} without it")]
    ContentUnknown {
        /// The first such package.
        package: Digest,
    },
    /// The record file of a package is not what was written.
    #[error("expected the record of a package in `{}`, found {reason}", path.display())]
    RecordDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The record file of a package was written by a newer version.
    #[error("expected `{}` in format {known} or older, found format {found}", path.display())]
    RecordNewer {
        /// The file.
        path: PathBuf,
        /// The newest format that this program knows.
        known: u32,
        /// The format of the file.
        found: u32,
    },
    /// A catalog that was opened for reading was asked to write.
    #[error("expected a catalog that is open for writing, found one for reading")]
    ReadOnly,
    /// The database refused for another reason.
    #[error("failed to {verb} the catalog: {message}")]
    Database {
        /// What was tried.
        verb: &'static str,
        /// What kind of failure it is.
        class: Class,
        /// The database's own description.
        message: String,
    },
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] fs::Error),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Held { .. }
            | Self::UnknownColumn { .. }
            | Self::Format { .. }
            | Self::RecordNewer { .. } => Class::Usage,
            Self::NoCatalog { .. } | Self::NoPackage { .. } => Class::Absent,
            Self::ContentUnknown { .. }
            | Self::RecordDamaged { .. }
            | Self::Corrupt { .. }
            | Self::Empty { .. }
            | Self::Garbled { .. }
            | Self::Decode { .. } => Class::Corrupt,
            Self::Encode { .. } | Self::Unfaithful { .. } | Self::ReadOnly => Class::Bug,
            Self::Database { class, .. } => *class,
            Self::Fs(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Held { .. } => Some(
                "stop the other process, or talk to it through its socket".to_owned(),
            ),
            Self::UnknownColumn { .. } | Self::Format { .. } | Self::RecordNewer { .. } => Some(
                "install the version of violetd that wrote the catalog, or a newer one".to_owned(),
            ),
            Self::NoCatalog { dir } => Some(format!(
                "check that `{}` belongs to the state directory, and start the daemon once to create it",
                dir.display()
            )),
            Self::Corrupt { .. } | Self::Empty { .. } | Self::Garbled { .. } | Self::Decode { .. } => Some(
                "stop the daemon and run `violetd check --rebuild`: it makes the catalog anew from the records in `packages/`"
                    .to_owned(),
            ),
            Self::ContentUnknown { .. } => Some(
                "bring the package again, or remove it; `violetd check` says which of its manifests cannot be read".to_owned(),
            ),
            Self::RecordDamaged { .. } => Some("bring the package again".to_owned()),
            Self::Database { class: Class::Full, .. } => {
                Some("free space on the file system of the state directory".to_owned())
            }
            Self::Fs(error) => error.hint(),
            Self::NoPackage { .. }
            | Self::Encode { .. }
            | Self::Unfaithful { .. }
            | Self::ReadOnly
            | Self::Database { .. } => None,
        }
    }
}
