//! What can be wrong with a package's provenance.
//!
//! Unsigned, badly signed and signed by somebody unknown are different answers. Codes are persisted in catalogs and
//! reports: they are never renamed, only retired.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::Fingerprint;
use crate::base::{Class, Classified, Digest};

/// Why a file is not trusted, or why that could not be found out.
#[derive(Debug, Error)]
pub enum Error {
    /// The package, a sidecar or a folder cannot be read.
    #[error("failed to read `{}`", path.display())]
    Unreadable {
        /// What was to be read.
        path: PathBuf,
        /// Why it could not be.
        source: io::Error,
    },
    /// A directory, pipe or device.
    #[error("expected a file, found something else at `{}`", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
    },
    /// The file changed while it was read.
    #[error("expected `{}` to rest, found it changed while it was read", path.display())]
    Changed {
        /// The package.
        path: PathBuf,
    },
    /// The policy needs a signature and there is none.
    #[error("expected a signature beside `{}`, found none", path.display())]
    NoSignature {
        /// The package.
        path: PathBuf,
    },
    /// The policy needs a signature or a checksum and there is neither.
    #[error("expected a signature or a checksum beside `{}`, found none", path.display())]
    NoChecksum {
        /// The package.
        path: PathBuf,
    },
    /// A sidecar over its limit.
    #[error("expected at most {limit_bytes} bytes in `{}`", sidecar.display())]
    SidecarTooLarge {
        /// The sidecar.
        sidecar: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// The signature is not one over this content.
    #[error("expected a signature over the package in `{}`, found one by {signer} over something else", sidecar.display())]
    BadSignature {
        /// The sidecar.
        sidecar: PathBuf,
        /// Fingerprint of the certificate.
        signer: String,
    },
    /// The signature is by a key that is not in the keyring or not among the allowed signers.
    #[error("expected a known signer in `{}`, found {signer}", sidecar.display())]
    UnknownSigner {
        /// The sidecar.
        sidecar: PathBuf,
        /// Fingerprint or key ID, as the signature says.
        signer: String,
    },
    /// The signer's key has expired, now or when it signed.
    #[error("expected a valid key in `{}`, found the expired {signer}", sidecar.display())]
    ExpiredKey {
        /// The sidecar.
        sidecar: PathBuf,
        /// Fingerprint of the certificate.
        signer: String,
    },
    /// The signer's key was revoked.
    #[error("expected a valid key in `{}`, found the revoked {signer}", sidecar.display())]
    RevokedKey {
        /// The sidecar.
        sidecar: PathBuf,
        /// Fingerprint of the certificate.
        signer: String,
    },
    /// The signer's key cannot make signatures that count, for another reason.
    #[error("expected a valid key in `{}`, found {signer} ({reason})", sidecar.display())]
    InvalidKey {
        /// The sidecar.
        sidecar: PathBuf,
        /// Fingerprint of the certificate.
        signer: String,
        /// The library's reason.
        reason: String,
    },
    /// The signature uses an algorithm that does not protect any more.
    #[error("expected a strong signature in `{}`, found a weak one by {signer} ({reason})", sidecar.display())]
    WeakSignature {
        /// The sidecar.
        sidecar: PathBuf,
        /// Fingerprint of the certificate.
        signer: String,
        /// The library's reason.
        reason: String,
    },
    /// The signature says of itself that it has expired, or it is from the future.
    #[error("expected a signature that is valid now in `{}`, found one by {signer} ({reason})", sidecar.display())]
    SignatureNotAlive {
        /// The sidecar.
        sidecar: PathBuf,
        /// Fingerprint of the certificate.
        signer: String,
        /// The library's reason.
        reason: String,
    },
    /// Not a signature at all, or a damaged one.
    #[error("expected an OpenPGP signature in `{}` ({reason})", sidecar.display())]
    MalformedSignature {
        /// The sidecar.
        sidecar: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// The checksum does not fit.
    #[error("expected content {expected} as `{}` says, found {found}", sidecar.display())]
    ChecksumMismatch {
        /// The sidecar.
        sidecar: PathBuf,
        /// What it promises.
        expected: Digest,
        /// What the file has.
        found: Digest,
    },
    /// Not a checksum file.
    #[error("expected a SHA-256 checksum on line {line} of `{}`", sidecar.display())]
    MalformedChecksum {
        /// The sidecar.
        sidecar: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A checksum by another algorithm.
    #[error("expected a SHA-256 checksum in `{}`, found {found}", sidecar.display())]
    UnsupportedChecksum {
        /// The sidecar.
        sidecar: PathBuf,
        /// The algorithm.
        found: String,
    },
    /// A checksum file for another package.
    #[error("expected a checksum of `{expected}` in `{}`, found one of `{found}`", sidecar.display())]
    ChecksumOfOtherFile {
        /// The sidecar.
        sidecar: PathBuf,
        /// Name of the package.
        expected: String,
        /// A name in the file.
        found: String,
    },
    /// Two different checksums for one package.
    #[error("expected one checksum in `{}`, found two that differ", sidecar.display())]
    ChecksumContradiction {
        /// The sidecar.
        sidecar: PathBuf,
    },
    /// A file of certificates cannot be read.
    #[error("failed to read keyring `{}`", path.display())]
    KeyringRead {
        /// The file or directory.
        path: PathBuf,
        /// Why it could not be.
        source: io::Error,
    },
    /// A file of certificates holds something else.
    #[error("expected OpenPGP certificates in `{}` ({reason})", path.display())]
    KeyringInvalid {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// A signer is allowed whose certificate nobody gave.
    #[error("expected a certificate for signer {fingerprint} in the keyring, found none")]
    SignerAbsent {
        /// The signer.
        fingerprint: Fingerprint,
    },
}

impl Error {
    /// Returns the stable code of this error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "file-unreadable",
            Self::NotAFile { .. } => "not-a-file",
            Self::Changed { .. } => "file-changed",
            Self::NoSignature { .. } => "no-signature",
            Self::NoChecksum { .. } => "no-checksum",
            Self::SidecarTooLarge { .. } => "sidecar-too-large",
            Self::BadSignature { .. } => "bad-signature",
            Self::UnknownSigner { .. } => "unknown-signer",
            Self::ExpiredKey { .. } => "expired-key",
            Self::RevokedKey { .. } => "revoked-key",
            Self::InvalidKey { .. } => "invalid-key",
            Self::WeakSignature { .. } => "weak-signature",
            Self::SignatureNotAlive { .. } => "signature-not-alive",
            Self::MalformedSignature { .. } => "malformed-signature",
            Self::ChecksumMismatch { .. } => "checksum-mismatch",
            Self::MalformedChecksum { .. } => "malformed-checksum",
            Self::UnsupportedChecksum { .. } => "unsupported-checksum",
            Self::ChecksumOfOtherFile { .. } => "checksum-of-other-file",
            Self::ChecksumContradiction { .. } => "checksum-contradiction",
            Self::KeyringRead { .. } => "keyring-unreadable",
            Self::KeyringInvalid { .. } => "keyring-invalid",
            Self::SignerAbsent { .. } => "signer-absent",
        }
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Unreadable { source, .. } => class_of(source),
            Self::Changed { .. } => Class::Transient,
            Self::NotAFile { .. }
            | Self::NoSignature { .. }
            | Self::NoChecksum { .. }
            | Self::SidecarTooLarge { .. }
            | Self::BadSignature { .. }
            | Self::UnknownSigner { .. }
            | Self::ExpiredKey { .. }
            | Self::RevokedKey { .. }
            | Self::InvalidKey { .. }
            | Self::WeakSignature { .. }
            | Self::SignatureNotAlive { .. }
            | Self::MalformedSignature { .. }
            | Self::ChecksumMismatch { .. }
            | Self::MalformedChecksum { .. }
            | Self::UnsupportedChecksum { .. }
            | Self::ChecksumOfOtherFile { .. }
            | Self::ChecksumContradiction { .. } => Class::Rejected,
            Self::KeyringRead { .. } | Self::KeyringInvalid { .. } | Self::SignerAbsent { .. } => {
                Class::Usage
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "where nothing is said, nothing but another package helps"
    )]
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Changed { .. } => "drop packages by renaming them into place",
            Self::NoSignature { .. } => "put the signature beside the package as `<package>.sig`",
            Self::NoChecksum { .. } => {
                "put the signature as `<package>.sig` or the checksum as `<package>.sha256` beside the package"
            }
            Self::UnknownSigner { .. } => {
                "add the signer's certificate to the keyring and its fingerprint to the signers, if you trust it"
            }
            Self::ExpiredKey { .. } => {
                "add the signer's extended certificate to the keyring, or ask for a new signature"
            }
            Self::RevokedKey { .. } | Self::WeakSignature { .. } => "ask for a new signature",
            Self::BadSignature { .. } | Self::ChecksumMismatch { .. } => {
                "copy the package and its sidecar again"
            }
            Self::UnsupportedChecksum { .. } => "make the checksum with `sha256sum`",
            Self::SignatureNotAlive { .. } => "check the clock of this machine",
            Self::KeyringInvalid { .. } => "export the certificate with `gpg --export`",
            Self::SignerAbsent { .. } => {
                "add the certificate to the keyring, or correct the signers"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Returns the class of a failed read. What is not named may pass by itself.
fn class_of(error: &io::Error) -> Class {
    if error.kind() == io::ErrorKind::NotFound {
        Class::Absent
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        Class::Denied
    } else {
        Class::Transient
    }
}
