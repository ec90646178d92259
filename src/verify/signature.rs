//! Detached OpenPGP signatures.
//!
//! A sidecar may hold several signatures, for example by the old and the new key while a key is rotated. One good one by
//! a known signer suffices; one that does not fit the file is always an error.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sequoia_openpgp::cert::amalgamation::ValidAmalgamation as _;
use sequoia_openpgp::cert::amalgamation::key::ValidErasedKeyAmalgamation;
use sequoia_openpgp::packet::Signature;
use sequoia_openpgp::packet::key::PublicParts;
use sequoia_openpgp::parse::Parse as _;
use sequoia_openpgp::parse::stream::{
    DetachedVerifierBuilder, GoodChecksum, MessageLayer, MessageStructure, VerificationError,
    VerificationHelper,
};
use sequoia_openpgp::policy::{HashAlgoSecurity, Policy as _, StandardPolicy};
use sequoia_openpgp::types::RevocationStatus;
use sequoia_openpgp::{Cert, KeyHandle, Packet, PacketPile};

use super::file::read_sidecar;
use super::keyring::one_line;
use super::{Error, Fingerprint, Keyring};
use crate::base::Timestamp;

/// A key that is named by a signature, at the time of that signature.
type SigningKey<'a> = ValidErasedKeyAmalgamation<'a, PublicParts>;

/// Signatures in one sidecar. Two are usual while keys are rotated; chosen, not measured.
const SIGNATURES_MAX: usize = 16;

/// A sidecar that holds signatures and nothing else.
#[derive(Debug)]
pub(super) struct SignatureFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// A good signature.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) fingerprint: Fingerprint,
    pub(super) user_id: Option<String>,
    pub(super) made_at: Timestamp,
    pub(super) sidecar: PathBuf,
}

/// Reads a sidecar and makes sure that it is what its name says.
pub(super) fn read(path: &Path) -> Result<SignatureFile, Error> {
    let bytes = read_sidecar(path)?;
    let malformed = |reason: String| Error::MalformedSignature {
        sidecar: path.to_owned(),
        reason,
    };
    let packets = PacketPile::from_bytes(&bytes).map_err(|error| malformed(one_line(&error)))?;
    let count = packets.children().count();
    if count == 0 || count > SIGNATURES_MAX {
        return Err(malformed(format!(
            "expected 1 to {SIGNATURES_MAX} signatures, found {count}"
        )));
    }
    for packet in packets.children() {
        if let Packet::Unknown(unknown) = packet {
            return Err(malformed(one_line(unknown.error())));
        }
        if !matches!(packet, Packet::Signature(_)) {
            return Err(malformed(format!(
                "expected signatures, found {}",
                packet.tag()
            )));
        }
    }
    Ok(SignatureFile {
        path: path.to_owned(),
        bytes,
    })
}

/// Reads `content` to its end, unless there is nothing to verify, and judges the signatures over it.
pub(super) fn verify(
    file: &SignatureFile,
    content: &mut (impl Read + Send + Sync),
    keyring: &Keyring,
    now: Timestamp,
) -> Result<Signed, Error> {
    let policy = StandardPolicy::at(now);
    let helper = Helper {
        keyring,
        judge: Judge {
            policy: &policy,
            now: now.into(),
            sidecar: &file.path,
        },
        good: Vec::new(),
        faults: Vec::new(),
    };
    let malformed = |error: anyhow::Error| Error::MalformedSignature {
        sidecar: file.path.clone(),
        reason: one_line(&error),
    };
    let mut verifier = DetachedVerifierBuilder::from_bytes(&file.bytes)
        .and_then(|builder| builder.with_policy(&policy, SystemTime::from(now), helper))
        .map_err(malformed)?;
    verifier.verify_reader(content).map_err(malformed)?;
    let helper = verifier.into_helper();
    decide(helper.good, helper.faults).ok_or_else(|| Error::MalformedSignature {
        sidecar: file.path.clone(),
        reason: "expected a signature, found none".to_owned(),
    })?
}

/// Picks the answer: one that does not fit, else a good one, else the most telling fault.
fn decide(mut good: Vec<Signed>, mut faults: Vec<Error>) -> Option<Result<Signed, Error>> {
    faults.sort_by_key(rank);
    if faults.first().is_some_and(|fault| rank(fault) == 0) {
        return faults.into_iter().next().map(Err);
    }
    if good.is_empty() {
        return faults.into_iter().next().map(Err);
    }
    Some(Ok(good.swap_remove(0)))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the rest says something about a known signer and ranks between the two"
)]
const fn rank(fault: &Error) -> u8 {
    match fault {
        Error::BadSignature { .. } => 0,
        Error::UnknownSigner { .. } => 2,
        _ => 1,
    }
}

/// Collects what the library finds.
struct Helper<'a> {
    keyring: &'a Keyring,
    judge: Judge<'a>,
    good: Vec<Signed>,
    faults: Vec<Error>,
}

impl VerificationHelper for Helper<'_> {
    fn get_certs(&mut self, handles: &[KeyHandle]) -> sequoia_openpgp::Result<Vec<Cert>> {
        Ok(self.keyring.find(handles))
    }

    fn check(&mut self, structure: MessageStructure) -> sequoia_openpgp::Result<()> {
        for layer in structure {
            let MessageLayer::SignatureGroup { results } = layer else {
                continue;
            };
            for result in results {
                match result {
                    Ok(good) => match self.judge.accept(&good) {
                        Ok(signed) => self.good.push(signed),
                        Err(fault) => self.faults.push(fault),
                    },
                    Err(error) => self.faults.push(self.judge.explain(&error)),
                }
            }
        }
        Ok(())
    }
}

/// Turns findings of the library into answers.
struct Judge<'a> {
    policy: &'a StandardPolicy<'a>,
    now: SystemTime,
    sidecar: &'a Path,
}

impl Judge<'_> {
    /// Accepts a signature that fits, if its signer is valid now as well.
    fn accept(&self, good: &GoodChecksum<'_>) -> Result<Signed, Error> {
        let certificate = good.ka.cert();
        let signer = Fingerprint(certificate.fingerprint());
        let invalid = |error: &anyhow::Error| Error::InvalidKey {
            sidecar: self.sidecar.to_owned(),
            signer: signer.to_string(),
            reason: one_line(error),
        };
        let valid = certificate
            .with_policy(self.policy, self.now)
            .map_err(|error| invalid(&error))?;
        let key = valid
            .keys()
            .find(|key| key.key().fingerprint() == good.ka.key().fingerprint());
        let is_revoked = is_revoked(&valid.revocation_status())
            || key
                .as_ref()
                .is_some_and(|key| is_revoked(&key.revocation_status()));
        if is_revoked {
            return Err(self.revoked(signer.to_string()));
        }
        let Some(key) = key else {
            return Err(invalid(&anyhow::anyhow!(
                "its signing key is not valid now"
            )));
        };
        if valid.alive().is_err() || key.alive().is_err() {
            return Err(self.expired(signer.to_string()));
        }
        Ok(Signed {
            user_id: valid
                .primary_userid()
                .ok()
                .map(|user_id| String::from_utf8_lossy(user_id.userid().value()).into_owned()),
            fingerprint: signer,
            made_at: good
                .sig
                .signature_creation_time()
                .unwrap_or(self.now)
                .into(),
            sidecar: self.sidecar.to_owned(),
        })
    }

    fn explain(&self, error: &VerificationError<'_>) -> Error {
        let sidecar = self.sidecar.to_owned();
        match error {
            VerificationError::MissingKey { sig } => Error::UnknownSigner {
                sidecar,
                signer: sig
                    .get_issuers()
                    .first()
                    .map_or_else(|| "unnamed".to_owned(), ToString::to_string),
            },
            VerificationError::UnboundKey { cert, error, .. } => Error::InvalidKey {
                sidecar,
                signer: cert.fingerprint().to_hex(),
                reason: one_line(error),
            },
            VerificationError::BadKey { ka, error, .. } => self.explain_key(ka, error),
            VerificationError::BadSignature { sig, ka, error } => {
                self.explain_signature(sig, ka.cert().fingerprint().to_hex(), error)
            }
            VerificationError::MalformedSignature { error, .. } => Error::MalformedSignature {
                sidecar,
                reason: one_line(error),
            },
            VerificationError::UnknownSignature { sig } => Error::MalformedSignature {
                sidecar,
                reason: one_line(sig.error()),
            },
            // The library may learn to tell more; until then it is not a signature that we can accept.
            other => Error::MalformedSignature {
                sidecar,
                reason: other.to_string(),
            },
        }
    }

    /// Says why a known key cannot have made this signature.
    fn explain_key(&self, key: &SigningKey<'_>, error: &anyhow::Error) -> Error {
        let signer = key.cert().fingerprint().to_hex();
        if is_revoked(&key.valid_cert().revocation_status()) || is_revoked(&key.revocation_status())
        {
            self.revoked(signer)
        } else if key.valid_cert().alive().is_err() || key.alive().is_err() {
            self.expired(signer)
        } else {
            Error::InvalidKey {
                sidecar: self.sidecar.to_owned(),
                signer,
                reason: one_line(error),
            }
        }
    }

    /// Says what is wrong with a signature by a valid key.
    fn explain_signature(&self, found: &Signature, signer: String, error: &anyhow::Error) -> Error {
        let sidecar = self.sidecar.to_owned();
        let reason = one_line(error);
        if found.signature_alive(self.now, None).is_err() {
            return Error::SignatureNotAlive {
                sidecar,
                signer,
                reason,
            };
        }
        let strength = self.policy.signature(found, HashAlgoSecurity::default());
        if strength.is_err() {
            return Error::WeakSignature {
                sidecar,
                signer,
                reason,
            };
        }
        Error::BadSignature { sidecar, signer }
    }

    fn revoked(&self, signer: String) -> Error {
        Error::RevokedKey {
            sidecar: self.sidecar.to_owned(),
            signer,
        }
    }

    fn expired(&self, signer: String) -> Error {
        Error::ExpiredKey {
            sidecar: self.sidecar.to_owned(),
            signer,
        }
    }
}

fn is_revoked(status: &RevocationStatus<'_>) -> bool {
    matches!(status, RevocationStatus::Revoked(_))
}
