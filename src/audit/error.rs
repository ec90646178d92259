//! Why the audit record cannot be written, read or signed.

use std::path::PathBuf;

use thiserror::Error;

use super::line::Head;
use crate::base::{Class, Classified};
use crate::sys::fs as durable;

/// What can go wrong in this module.
#[derive(Debug, Error)]
pub enum Error {
    /// The file system refused.
    #[error("failed to work on the audit record")]
    Fs(#[from] durable::Error),
    /// There is nothing to look at.
    #[error("expected an audit record in `{}`, found none", dir.display())]
    Empty {
        /// The folder.
        dir: PathBuf,
    },
    /// The record is not what was written.
    #[error("expected an unbroken audit record in `{}`, found {count} breaks", dir.display())]
    Broken {
        /// The folder.
        dir: PathBuf,
        /// How many.
        count: u64,
    },
    /// The record does not hold what somebody has noted of it.
    #[error("expected record {noted} in `{}`, found {}", dir.display(), found.map_or_else(|| "none of that number".to_owned(), |found| found.to_string()))]
    NotedAbsent {
        /// The folder.
        dir: PathBuf,
        /// What was noted.
        noted: Head,
        /// What has that number.
        found: Option<Head>,
    },
    /// Nothing on record about a package.
    #[error("expected records of `{selection}` in `{}`, found none", dir.display())]
    Unrecorded {
        /// The folder.
        dir: PathBuf,
        /// The name or digest that was asked for.
        selection: String,
    },
    /// More records than one report holds.
    #[error("expected at most {limit} records of `{selection}`, found more")]
    TooMany {
        /// The name or digest that was asked for.
        selection: String,
        /// The limit.
        limit: usize,
    },
    /// A file that holds no OpenPGP key.
    #[error("expected an OpenPGP secret key in `{}` ({reason})", path.display())]
    KeyInvalid {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// A key that is public, expired, revoked, or not made for signing.
    #[error("expected a secret key that can sign now in `{}`, found {fingerprint} ({reason})", path.display())]
    KeyUnfit {
        /// The file.
        path: PathBuf,
        /// Fingerprint of the certificate.
        fingerprint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key that is protected by a passphrase which was not given, or by another one.
    #[error("expected the passphrase of the key {fingerprint} in `{}`, found {}", path.display(), if *was_given { "another one" } else { "none" })]
    KeyLocked {
        /// The file.
        path: PathBuf,
        /// Fingerprint of the key.
        fingerprint: String,
        /// Whether there was a passphrase.
        was_given: bool,
    },
    /// The OpenPGP library refused.
    #[error("failed to sign the report ({reason})")]
    Signing {
        /// The library's reason.
        reason: String,
    },
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Fs(error) => error.class(),
            Self::Empty { .. } | Self::Unrecorded { .. } => Class::Absent,
            Self::Broken { .. } | Self::NotedAbsent { .. } => Class::Corrupt,
            Self::TooMany { .. } | Self::KeyInvalid { .. } | Self::KeyUnfit { .. } => Class::Usage,
            Self::KeyLocked { .. } => Class::Denied,
            Self::Signing { .. } => Class::Bug,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Fs(error) => return error.hint(),
            Self::Empty { .. } => {
                "name the state directory of the daemon, or a copy of its folder `audit`"
            }
            Self::Broken { .. } => "keep the files as they are and compare them with a backup",
            Self::NotedAbsent { .. } => {
                "the end of the record was cut off or the record was replaced: compare it with a backup"
            }
            Self::Unrecorded { .. } => {
                "name a package, the digest of its file, or the name of the file"
            }
            Self::TooMany { .. } => "name the digest of the file instead",
            Self::KeyInvalid { .. } => "export the key with `gpg --export-secret-keys`",
            Self::KeyUnfit { .. } => {
                "export a key that can sign and is neither expired nor revoked with `gpg --export-secret-keys`"
            }
            Self::KeyLocked { .. } => {
                "put the passphrase into a file and name it with --sign-passphrase-file"
            }
            Self::Signing { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
