//! Who may sign packages.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sequoia_openpgp::cert::CertParser;
use sequoia_openpgp::parse::Parse as _;
use sequoia_openpgp::{Cert, KeyHandle};
use thiserror::Error;

use super::file::read_bounded;
use super::{Error, Limits, Requirements};
use crate::base::shown::one_line;

/// The longest reason of the OpenPGP library, and the longest text of a certificate, that a message carries, in characters.
/// Chosen, not measured.
pub(super) const TEXT_CHARACTERS_MAX: usize = 500;
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
    /// The same certificate in several files is merged, so that an extension or a revocation can lie beside the original.
    pub fn load(
        files: impl IntoIterator<Item = impl AsRef<Path>>,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let mut by_fingerprint: BTreeMap<sequoia_openpgp::Fingerprint, Cert> = BTreeMap::new();
        for path in files {
            for path in list_files(path.as_ref())? {
                for certificate in read_certificates(&path, limits)? {
                    let merged = match by_fingerprint.remove(&certificate.fingerprint()) {
                        Some(known) => known.merge_public(certificate).map_err(|error| {
                            Error::KeyringInvalid {
                                path: path.clone(),
                                reason: reason_of(&error),
                            }
                        })?,
                        None => certificate,
                    };
                    by_fingerprint.insert(merged.fingerprint(), merged);
                }
                if by_fingerprint.len() as u64 > limits.keyring_certificates_max {
                    return Err(Error::TooManyCertificates {
                        path,
                        limit: limits.keyring_certificates_max,
                    });
                }
            }
        }
        Ok(Self {
            certificates: by_fingerprint.into_values().collect(),
        })
    }

    /// Makes sure that signatures can be what is required: the certificate of each allowed signer is here, and there are
    /// as many of them as must sign.
    pub fn check(&self, requirements: &Requirements) -> Result<(), Error> {
        let signers = &requirements.signers;
        for signer in signers {
            if !self.certificates.iter().any(|cert| has_key(cert, signer)) {
                return Err(Error::SignerAbsent {
                    fingerprint: signer.clone(),
                });
            }
        }
        let may_sign =
            |cert: &&Cert| signers.is_empty() || signers.iter().any(|it| has_key(cert, it));
        let found = self.certificates.iter().filter(may_sign).count();
        // One signer is not demanded: an empty keyring knows nobody, and says so for each package.
        let expected = requirements.signatures_min;
        if expected > 1 && (found as u64) < u64::from(expected) {
            return Err(Error::TooFewCertificates { expected, found });
        }
        Ok(())
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

pub(super) fn has_key(certificate: &Cert, fingerprint: &Fingerprint) -> bool {
    certificate
        .keys()
        .any(|key| key.key().fingerprint() == fingerprint.0)
}

/// Returns `path`, or the files in it, sorted, if it is a directory. Hidden files and folders are left out.
///
/// A link that leads nowhere is an error: the file may be the one with a revocation.
pub(super) fn list_files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |path: &Path, source| Error::KeyringRead {
        path: path.to_owned(),
        source,
    };
    let inspect = |path: &Path| std::fs::metadata(path).map_err(|source| failed(path, source));
    if !inspect(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|source| failed(path, source))? {
        let entry = entry.map_err(|source| failed(path, source))?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !is_hidden && !inspect(&entry.path())?.is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn read_certificates(path: &Path, limits: &Limits) -> Result<Vec<Cert>, Error> {
    let invalid = |reason: String| Error::KeyringInvalid {
        path: path.to_owned(),
        reason,
    };
    let bytes = read_bounded(path, limits.keyring_bytes_max)
        .map_err(|source| Error::KeyringRead {
            path: path.to_owned(),
            source,
        })?
        .ok_or_else(|| Error::KeyringTooLarge {
            path: path.to_owned(),
            limit_bytes: limits.keyring_bytes_max,
        })?;
    let mut certificates = Vec::new();
    for block in blocks(&bytes, ARMOR_BEGIN) {
        let parser = CertParser::from_bytes(block).map_err(|error| invalid(reason_of(&error)))?;
        for certificate in parser {
            let certificate = certificate.map_err(|error| invalid(reason_of(&error)))?;
            // Verifying needs no secrets; what is in memory by accident can leak by accident.
            certificates.push(certificate.strip_secret_key_material());
        }
    }
    if certificates.is_empty() {
        return Err(invalid("expected a certificate, found none".to_owned()));
    }
    Ok(certificates)
}

/// Splits a file at the beginnings of armored blocks, which begin with `begin`; everything else is one block.
pub(super) fn blocks<'a>(bytes: &'a [u8], begin: &str) -> Vec<&'a [u8]> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return vec![bytes];
    };
    let starts: Vec<usize> = text.match_indices(begin).map(|(start, _)| start).collect();
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

/// Renders an error of the OpenPGP library with its causes. It may quote what it has read.
pub(super) fn reason_of(error: &anyhow::Error) -> String {
    one_line(&format!("{error:#}"), TEXT_CHARACTERS_MAX)
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
