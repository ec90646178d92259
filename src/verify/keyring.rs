//! Who may sign packages.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sequoia_openpgp::cert::CertParser;
use sequoia_openpgp::parse::Parse as _;
use sequoia_openpgp::{Cert, KeyHandle};
use thiserror::Error;

use super::Error;
use super::file::read_bounded;

/// The largest file of certificates, in bytes. A certificate has a few KiB, one with many third-party signatures a few
/// hundred; chosen, not measured.
const KEYRING_BYTES_MAX: u64 = 16 << 20;
/// How an armored certificate begins (RFC 9580, section 6.2).
const ARMOR_BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// The fingerprint of an OpenPGP certificate or key, version 4 or 6.
///
/// Written as 40 or 64 hex characters, upper case; spaces, colons, lower case and a leading `0x` are tolerated when
/// reading. Shorter key IDs are not: they can be forged.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub(super) sequoia_openpgp::Fingerprint);

/// A string that is no fingerprint.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("expected a fingerprint of 40 or 64 hex characters")]
pub struct ParseFingerprintError;

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text: String = text
            .chars()
            .filter(|c| !c.is_whitespace() && *c != ':')
            .collect();
        let hex = text.strip_prefix("0x").unwrap_or(&text);
        let is_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex || !matches!(hex.len(), 40 | 64) {
            return Err(ParseFingerprintError);
        }
        sequoia_openpgp::Fingerprint::from_hex(hex)
            .map(Self)
            .map_err(|_| ParseFingerprintError)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The certificates whose signatures count. Empty by default: then every signer is unknown.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    certificates: Vec<Cert>,
}

impl Keyring {
    /// Reads certificates from files, or from all files of directories, binary or armored, several in each.
    ///
    /// With `signers` only those certificates count that have one of the fingerprints, as a whole or on one of their
    /// keys; without, all of them do. The same certificate in several files is merged, so that an extension or a
    /// revocation can lie beside the original.
    pub fn load(
        files: impl IntoIterator<Item = impl AsRef<Path>>,
        signers: &[Fingerprint],
    ) -> Result<Self, Error> {
        let mut by_fingerprint: BTreeMap<sequoia_openpgp::Fingerprint, Cert> = BTreeMap::new();
        for path in files {
            for path in list_files(path.as_ref())? {
                for certificate in read_certificates(&path)? {
                    let merged = match by_fingerprint.remove(&certificate.fingerprint()) {
                        Some(known) => known.merge_public(certificate).map_err(|error| {
                            Error::KeyringInvalid {
                                path: path.clone(),
                                reason: one_line(&error),
                            }
                        })?,
                        None => certificate,
                    };
                    by_fingerprint.insert(merged.fingerprint(), merged);
                }
            }
        }
        for signer in signers {
            if !by_fingerprint.values().any(|cert| has_key(cert, signer)) {
                return Err(Error::SignerAbsent {
                    fingerprint: signer.clone(),
                });
            }
        }
        let is_allowed =
            |cert: &Cert| signers.is_empty() || signers.iter().any(|it| has_key(cert, it));
        Ok(Self {
            certificates: by_fingerprint.into_values().filter(is_allowed).collect(),
        })
    }

    /// Returns the fingerprints of the certificates that count, sorted.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.certificates
            .iter()
            .map(|certificate| Fingerprint(certificate.fingerprint()))
    }

    /// Returns the certificates that hold a key with one of the handles.
    pub(super) fn find(&self, handles: &[KeyHandle]) -> Vec<Cert> {
        let is_meant = |cert: &&Cert| {
            cert.keys().any(|key| {
                let key = key.key().key_handle();
                handles.iter().any(|handle| handle.aliases(&key))
            })
        };
        self.certificates.iter().filter(is_meant).cloned().collect()
    }
}

fn has_key(certificate: &Cert, fingerprint: &Fingerprint) -> bool {
    certificate
        .keys()
        .any(|key| key.key().fingerprint() == fingerprint.0)
}

/// Returns `path`, or the files in it, sorted, if it is a directory. Hidden files are left out.
fn list_files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::KeyringRead {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !is_hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn read_certificates(path: &Path) -> Result<Vec<Cert>, Error> {
    let invalid = |reason: String| Error::KeyringInvalid {
        path: path.to_owned(),
        reason,
    };
    let bytes = read_bounded(path, KEYRING_BYTES_MAX)
        .map_err(|source| Error::KeyringRead {
            path: path.to_owned(),
            source,
        })?
        .ok_or_else(|| invalid(format!("expected at most {KEYRING_BYTES_MAX} bytes")))?;
    let mut certificates = Vec::new();
    for block in blocks(&bytes) {
        let parser = CertParser::from_bytes(block).map_err(|error| invalid(one_line(&error)))?;
        for certificate in parser {
            let certificate = certificate.map_err(|error| invalid(one_line(&error)))?;
            // Verifying needs no secrets; what is in memory by accident can leak by accident.
            certificates.push(certificate.strip_secret_key_material());
        }
    }
    if certificates.is_empty() {
        return Err(invalid("expected a certificate, found none".to_owned()));
    }
    Ok(certificates)
}

/// Splits a file at the beginnings of armored blocks; everything else is one block.
fn blocks(bytes: &[u8]) -> Vec<&[u8]> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return vec![bytes];
    };
    let starts: Vec<usize> = text
        .match_indices(ARMOR_BEGIN)
        .map(|(start, _)| start)
        .collect();
    if starts.is_empty() {
        return vec![bytes];
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| &bytes[*start..end])
        .collect()
}

/// Renders an error of the OpenPGP library with its causes.
pub(super) fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fingerprints_are_read_as_people_write_them() {
        let canonical = "0123456789ABCDEF0123456789ABCDEF01234567";
        for text in [
            canonical,
            "0x0123456789abcdef0123456789abcdef01234567",
            "0123 4567 89AB CDEF 0123  4567 89AB CDEF 0123 4567",
        ] {
            let fingerprint: Fingerprint = text.parse().unwrap();
            assert_eq!(fingerprint.to_string(), canonical);
        }
        for bad in ["", "0123456789ABCDEF", &"x".repeat(40), &"0".repeat(41)] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(ParseFingerprintError));
        }
    }

    proptest! {
        #[test]
        fn fingerprints_round_trip(text in "[0-9A-F]{40}|[0-9A-F]{64}") {
            prop_assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), text);
        }
    }
}
