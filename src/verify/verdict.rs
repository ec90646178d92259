//! What came out of verifying a file.

use std::fmt;
use std::path::PathBuf;

use super::{Error, Fingerprint, Source};
use crate::base::{Digest, Timestamp};

/// A package that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFile {
    /// What it was read from.
    pub source: Source,
    /// Digest of its content.
    pub digest: Digest,
    /// Size of its content.
    pub size_bytes: u64,
    /// What vouches for it.
    pub verdict: Verdict,
}

/// What vouches for a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Signatures by as many allowed signers as were asked for, or more.
    Signature {
        /// The signers, each certificate once. At least one.
        signers: Vec<Signer>,
    },
    /// A checksum, which tells damage but not malice.
    Checksum {
        /// The file that holds it; the first where there are several, which all fit.
        sidecar: PathBuf,
    },
    /// Nothing, and the policy was content with that.
    Unchecked,
}

/// Who has signed, and how. `Display` says it on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Fingerprint of the certificate.
    pub fingerprint: Fingerprint,
    /// Fingerprint of the key that signed: the certificate's own, or that of one of its subkeys.
    pub key: Fingerprint,
    /// The primary user ID, where the certificate has one.
    pub user_id: Option<String>,
    /// When the signature was made, as it says itself.
    pub signed_at: Timestamp,
    /// The kind of the key, for example `RSA4096` or `EdDSA`.
    pub key_algorithm: String,
    /// The hash that was signed, for example `SHA512`.
    pub hash_algorithm: String,
    /// The file that holds the signature.
    pub sidecar: PathBuf,
    /// The checksum file that was signed, where it was not the package itself. Its line for the package fits.
    pub list: Option<PathBuf>,
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.user_id.as_deref().unwrap_or("without a user ID");
        write!(
            f,
            "signed by {name} ({}) at {} with {} over {}",
            self.fingerprint,
            format_time(self.signed_at),
            self.key_algorithm,
            self.hash_algorithm
        )?;
        match &self.list {
            Some(list) => write!(f, " of `{}`", list.display()),
            None => Ok(()),
        }
    }
}

/// A value whose provenance was checked. Made only by this module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the checked value.
    pub const fn get(&self) -> &T {
        &self.0
    }

    /// Returns the checked value by itself, which proves nothing any more.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// A file that is not trusted, or of which that could not be found out.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: Box<Error>,
    /// Digest of its content. `None` where the sidecars were enough to refuse it, or reading failed.
    pub digest: Option<Digest>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error: Box::new(error),
            digest: None,
        }
    }
}

/// Renders a time to the second, which is as exact as OpenPGP is.
pub(super) fn format_time(time: Timestamp) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
