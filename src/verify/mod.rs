//! Whether a package is what its sender made, before anything of it is parsed.
//!
//! [`verify_file`] reads a [`Source`] once, which feeds SHA-256, SHA-512 where a sidecar has one, and the OpenPGP verifier
//! alike; compares the result with all sidecars beside the file; weighs that against the [`Requirements`] of the drop
//! folder, and gives a [`Verified`] value, which nothing else can make. Functions that take `Verified<PackageFile>` cannot be
//! handed a file that nobody looked at.
//!
//! ```text
//! x.tgz ──┬─► SHA-256, SHA-512 ──► every checksum file and list   ◄── signatures over those
//!         └─► OpenPGP ───────────► every signature                     │
//!                                      │                               │
//!                                      └──► signers, each certificate once ──► as many as required?
//! ```
//!
//! A package in parts is verified as the one file that it was: the sidecars are those of the whole. Its table of parts is
//! not trusted; it only gives damage a name, and a part that is not what the table says is an error by itself.
//!
//! Names and forms of sidecars are in `sidecar.rs` and `checksum.rs`; `docs/formats/sidecars.md` is for users.
//!
//! # Invariants
//!
//! - A sidecar that is there and wrong is an error under every [`Policy`]: a package that somebody bothered to sign and
//!   whose signature does not fit is worse than one without a signature. Several sidecars do not make up for each other.
//! - The only exceptions say nothing about the file: a signer that nobody knows, one that is not allowed, and fewer signers
//!   than required. They are errors where the policy needs the signature.
//! - Beside enough good signatures, one by a key that is no longer good does no harm: that is how keys are rotated. One
//!   that does not fit the content does.
//! - A verdict is about the bytes with [`PackageFile::digest`]. Whoever reads the file again compares, for example with
//!   [`HashingReader`](crate::package::HashingReader).
//!
//! # Time
//!
//! A key must be valid when it signed ([`Validity::WhenSigned`]). Were it to be valid on arrival, a mirror would refuse, from
//! the day a key expires, what it accepted the day before, and packages travel for weeks. The price is that whoever still
//! has an expired key can date a signature back; against that there are revocations. Therefore:
//!
//! - Revoked because it was compromised, or for no reason given: no signature counts, whatever date it bears.
//! - Revoked as superseded or retired: signatures until then count.
//! - Who does not want to rely on revocations arriving asks for [`Validity::Now`]: valid when it signed, and still.
//! - A certificate that was extended may say nothing any more of the time before (GnuPG replaces the older statement): then
//!   what it says now counts for its whole life.
//! - A signature from the future is refused, but for half an hour by which clocks may differ (the tolerance of the OpenPGP
//!   library).
//! - Revocations by somebody else whom the owner designated are not followed.
//!
//! # Signed lists
//!
//! A good signature over a checksum file, with a line for the package that fits, counts as a signature over the package:
//! it promises the same digest, by the same key. Whoever signed the list chose to sign these very names; a package
//! under another name is not vouched for. [`Signer::list`] keeps the difference.
//!
//! # References
//!
//! RFC 9580 (OpenPGP); `sha256sum` of GNU coreutils and `shasum`, `md5 -r` style of BSD for the lines of checksum files.

mod checksum;
mod error;
mod file;
mod findings;
mod judge;
mod keyring;
mod keyring_files;
mod limits;
mod requirements;
mod sidecar;
mod signature;
mod source;
mod summary;
mod verdict;

pub use self::checksum::{Checksum, Scope};
pub use self::error::Error;
pub use self::file::{read_sidecar, verify_file};
pub use self::keyring::{Fingerprint, Keyring, ParseFingerprintError};
pub use self::keyring_files::KeyringFiles;
pub use self::limits::Limits;
pub use self::requirements::{Policy, Requirements, Validity};
pub use self::sidecar::{ChecksumFile, Sidecars, is_sidecar};
pub use self::source::{Parts, Source, open_file};
pub use self::summary::{Checked, Depth, Outcome, Summary, list_packages, summarize};
pub use self::verdict::{Failure, PackageFile, Signer, Verdict, Verified};

#[cfg(test)]
mod tests;
