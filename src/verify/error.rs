//! What can be wrong with a package's provenance.
//!
//! Unsigned, badly signed and signed by somebody unknown are different answers. Codes are persisted in catalogs and
//! reports: they are never renamed, only retired.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::verdict::format_time;
use super::{Checksum, Fingerprint, Signer};
use crate::base::{Class, Classified, Timestamp};
use crate::package::parts;

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
    /// The package is in parts, and the table or a part is not what it should be.
    #[error(transparent)]
    Parts(#[from] parts::Error),
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
    /// The signature is by a certificate of the keyring that may not sign here.
    #[error("expected an allowed signer in `{}`, found {signer}", sidecar.display())]
    SignerNotAllowed {
        /// The sidecar.
        sidecar: PathBuf,
        /// Fingerprint of the certificate.
        signer: String,
    },
    /// Good signatures, by fewer signers than required.
    #[error(
        "expected signatures by {expected} different signers, found {}",
        list_signers(found, faults)
    )]
    TooFewSigners {
        /// How many are required.
        expected: u32,
        /// Who has signed.
        found: Vec<Signer>,
        /// What is wrong with further signatures.
        faults: Vec<Self>,
    },
    /// The signer's key had expired when it had to be valid.
    #[error(
        "expected a key that is valid at {} in `{}`, found {signer}, which expired at {}",
        format_time(*needed_at), sidecar.display(), format_time(*expired_at),
    )]
    ExpiredKey {
        /// The sidecar.
        sidecar: PathBuf,
        /// Fingerprint of the certificate.
        signer: String,
        /// When it had to be valid: when it signed, or now.
        needed_at: Timestamp,
        /// When it expired.
        expired_at: Timestamp,
    },
    /// The signer's key was revoked: because it was compromised, or before it had to be valid.
    #[error(
        "expected a valid key in `{}`, found {signer}, which was revoked at {} ({reason})",
        sidecar.display(), format_time(*revoked_at),
    )]
    RevokedKey {
        /// The sidecar.
        sidecar: PathBuf,
        /// Fingerprint of the certificate.
        signer: String,
        /// When it was revoked.
        revoked_at: Timestamp,
        /// The reason that its owner gave.
        reason: String,
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
    /// The signature says of itself that it has expired.
    #[error(
        "expected a signature that is valid now in `{}`, found one by {signer} that ended at {}",
        sidecar.display(), format_time(*ended_at),
    )]
    SignatureNotAlive {
        /// The sidecar.
        sidecar: PathBuf,
        /// Fingerprint of the certificate.
        signer: String,
        /// When it ended.
        ended_at: Timestamp,
    },
    /// The signature says that it was made later than now.
    #[error(
        "expected a signature made before now, {}, in `{}`, found one by {signer} made at {}",
        format_time(*now), sidecar.display(), format_time(*made_at),
    )]
    SignatureFromFuture {
        /// The sidecar.
        sidecar: PathBuf,
        /// Fingerprint of the certificate.
        signer: String,
        /// When it says that it was made.
        made_at: Timestamp,
        /// What the clock of this machine says.
        now: Timestamp,
    },
    /// More signatures in one sidecar than allowed.
    #[error("expected at most {limit} signatures in `{}`", sidecar.display())]
    TooManySignatures {
        /// The sidecar.
        sidecar: PathBuf,
        /// The limit.
        limit: u64,
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
        expected: Checksum,
        /// What the file has.
        found: Checksum,
    },
    /// Not a checksum file.
    #[error("expected a SHA-256 or SHA-512 checksum on line {line} of `{}`", sidecar.display())]
    MalformedChecksum {
        /// The sidecar.
        sidecar: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A checksum by another algorithm.
    #[error("expected a SHA-256 or SHA-512 checksum in `{}`, found {found}", sidecar.display())]
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
    /// More lines in one checksum file than allowed.
    #[error("expected at most {limit} lines in `{}`", sidecar.display())]
    TooManyChecksums {
        /// The sidecar.
        sidecar: PathBuf,
        /// The limit.
        limit: u64,
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
    /// A file of certificates over its limit.
    #[error("expected at most {limit_bytes} bytes of certificates in `{}`", path.display())]
    KeyringTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// More certificates than allowed.
    #[error("expected at most {limit} certificates in the keyring, found more in `{}`", path.display())]
    TooManyCertificates {
        /// The file with the first that is too much.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// More signers are required than may sign.
    #[error("expected at least {expected} allowed signers in the keyring, found {found}")]
    TooFewCertificates {
        /// How many signers must have signed.
        expected: u32,
        /// How many certificates may.
        found: usize,
    },
}

impl Error {
    /// Returns the stable code of this error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Parts(error) => error.code(),
            Self::Unreadable { .. } => "file-unreadable",
            Self::NotAFile { .. } => "not-a-file",
            Self::Changed { .. } => "file-changed",
            Self::NoSignature { .. } => "no-signature",
            Self::NoChecksum { .. } => "no-checksum",
            Self::SidecarTooLarge { .. } => "sidecar-too-large",
            Self::BadSignature { .. } => "bad-signature",
            Self::UnknownSigner { .. } => "unknown-signer",
            Self::SignerNotAllowed { .. } => "signer-not-allowed",
            Self::TooFewSigners { .. } => "too-few-signers",
            Self::ExpiredKey { .. } => "expired-key",
            Self::RevokedKey { .. } => "revoked-key",
            Self::InvalidKey { .. } => "invalid-key",
            Self::WeakSignature { .. } => "weak-signature",
            Self::SignatureNotAlive { .. } => "signature-not-alive",
            Self::SignatureFromFuture { .. } => "signature-from-future",
            Self::TooManySignatures { .. } => "too-many-signatures",
            Self::MalformedSignature { .. } => "malformed-signature",
            Self::ChecksumMismatch { .. } => "checksum-mismatch",
            Self::MalformedChecksum { .. } => "malformed-checksum",
            Self::UnsupportedChecksum { .. } => "unsupported-checksum",
            Self::ChecksumOfOtherFile { .. } => "checksum-of-other-file",
            Self::ChecksumContradiction { .. } => "checksum-contradiction",
            Self::TooManyChecksums { .. } => "too-many-checksums",
            Self::KeyringRead { .. } => "keyring-unreadable",
            Self::KeyringInvalid { .. } => "keyring-invalid",
            Self::SignerAbsent { .. } => "signer-absent",
            Self::KeyringTooLarge { .. } => "keyring-too-large",
            Self::TooManyCertificates { .. } => "too-many-certificates",
            Self::TooFewCertificates { .. } => "too-few-certificates",
        }
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Unreadable { source, .. } => class_of(source),
            Self::Changed { .. } => Class::Transient,
            Self::Parts(error) => error.class(),
            Self::NotAFile { .. }
            | Self::NoSignature { .. }
            | Self::NoChecksum { .. }
            | Self::SidecarTooLarge { .. }
            | Self::BadSignature { .. }
            | Self::UnknownSigner { .. }
            | Self::SignerNotAllowed { .. }
            | Self::TooFewSigners { .. }
            | Self::ExpiredKey { .. }
            | Self::RevokedKey { .. }
            | Self::InvalidKey { .. }
            | Self::WeakSignature { .. }
            | Self::SignatureNotAlive { .. }
            | Self::SignatureFromFuture { .. }
            | Self::TooManySignatures { .. }
            | Self::MalformedSignature { .. }
            | Self::ChecksumMismatch { .. }
            | Self::MalformedChecksum { .. }
            | Self::UnsupportedChecksum { .. }
            | Self::ChecksumOfOtherFile { .. }
            | Self::ChecksumContradiction { .. }
            | Self::TooManyChecksums { .. } => Class::Rejected,
            Self::KeyringRead { .. }
            | Self::KeyringInvalid { .. }
            | Self::SignerAbsent { .. }
            | Self::KeyringTooLarge { .. }
            | Self::TooManyCertificates { .. }
            | Self::TooFewCertificates { .. } => Class::Usage,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "where nothing is said, nothing but another package helps"
    )]
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Parts(error) => return error.hint(),
            Self::Changed { .. } => "drop packages by renaming them into place",
            Self::NoSignature { .. } => "put the signature beside the package as `<package>.sig`",
            Self::NoChecksum { .. } => {
                "put the signature as `<package>.sig` or the checksum as `<package>.sha256` beside the package"
            }
            Self::UnknownSigner { .. } => {
                "add the signer's certificate to the keyring and its fingerprint to the signers, if you trust it"
            }
            Self::SignerNotAllowed { .. } => {
                "add the fingerprint to the signers of this drop folder, if you trust it"
            }
            Self::TooFewSigners { .. } => {
                "put the further signatures into the sidecar, or beside it as `.sig` and `.asc`"
            }
            Self::ExpiredKey { .. } => {
                "add the signer's extended certificate to the keyring, or ask for a new signature"
            }
            Self::RevokedKey { .. } | Self::InvalidKey { .. } => {
                "ask for a new signature by another key"
            }
            Self::WeakSignature { .. } => {
                "ask for a new signature with SHA-256 or SHA-512 (`gpg --digest-algo SHA512`)"
            }
            Self::BadSignature { .. } | Self::ChecksumMismatch { .. } => {
                "copy the package and its sidecar again"
            }
            Self::MalformedSignature { .. } => {
                "make a detached signature with `gpg --detach-sign`, and copy it in binary"
            }
            Self::UnsupportedChecksum { .. } => "make the checksum with `sha256sum`",
            Self::MalformedChecksum { .. } => {
                "write `<hex>  <name>` on each line, as `sha256sum` does"
            }
            Self::ChecksumOfOtherFile { .. } => {
                "a checksum file names the package as it is called here"
            }
            Self::SignatureNotAlive { .. } => "ask for a new signature",
            Self::SignatureFromFuture { .. } => {
                "check the clock of this machine, and that of the signer"
            }
            Self::SidecarTooLarge { .. } => "raise sidecar_bytes_max of [verify], if it must be",
            Self::TooManySignatures { .. } => {
                "raise sidecar_signatures_max of [verify], if it must be"
            }
            Self::TooManyChecksums { .. } => "raise sidecar_lines_max of [verify], if it must be",
            Self::KeyringTooLarge { .. } => "raise keyring_bytes_max of [verify], if it must be",
            Self::TooManyCertificates { .. } => {
                "raise keyring_certificates_max of [verify], if it must be"
            }
            Self::TooFewCertificates { .. } => {
                "allow more signers, add their certificates, or lower signatures_min"
            }
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

/// Renders who has signed, and why others do not count.
fn list_signers(found: &[Signer], faults: &[Error]) -> String {
    let mut text = format!("{}", found.len());
    for (index, signer) in found.iter().enumerate() {
        text.push_str(if index == 0 { " (" } else { ", " });
        text.push_str(&signer.fingerprint.to_string());
    }
    text.push(')');
    for fault in faults {
        text.push_str("; ");
        text.push_str(&fault.to_string());
    }
    text
}
