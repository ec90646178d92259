//! Whether a package file is what its sender made, before anything of it is parsed.
//!
//! [`verify_file`] reads a file once, which feeds SHA-256 and the OpenPGP verifier alike, compares the result with the
//! sidecars beside the file, and gives a [`Verified`] value, which nothing else can make. Functions that take
//! `Verified<PackageFile>` cannot be handed a file that nobody looked at.
//!
//! ```text
//! x.tgz ──┬─► SHA-256 ──► compare with x.tgz.sha256, x.sha256, x.tgz.checksum
//!         └─► OpenPGP ──► compare with x.tgz.sig, x.tgz.asc, x.sig, x.asc
//! ```
//!
//! # Invariants
//!
//! - A sidecar that is there and wrong is an error under every [`Policy`]: a package that somebody bothered to sign and
//!   whose signature does not fit is worse than one without a signature.
//! - The only exception is a signer that nobody knows, which says nothing about the file; it is an error where the
//!   policy needs the signature.
//! - A signer counts if its certificate was valid when the signature was made and is valid now: not expired, not revoked,
//!   whatever the reason. Somebody who got hold of an old key could sign with any date. Keys are renewed by adding the
//!   extended certificate to the keyring.
//! - A verdict is about the bytes with [`PackageFile::digest`]. Whoever reads the file again compares, for example with
//!   [`HashingReader`](crate::package::HashingReader).
//!
//! # References
//!
//! RFC 9580 (OpenPGP); `sha256sum` of GNU coreutils and `shasum`, `md5 -r` style of BSD for the lines of checksum files.

mod checksum;
mod error;
mod file;
mod keyring;
mod sidecar;
mod signature;
mod summary;

pub use self::error::Error;
pub use self::file::{PackageFile, Policy, Verdict, Verified, verify_file};
pub use self::keyring::{Fingerprint, Keyring, ParseFingerprintError};
pub use self::sidecar::{Sidecars, is_sidecar};
pub use self::summary::{Summary, summarize};

#[cfg(test)]
mod tests;
