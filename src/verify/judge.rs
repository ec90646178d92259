//! Judging one signature.
//!
//! The OpenPGP library says whether a signature fits and whether its key was valid when it was made. This module adds
//! what the requirements ask besides, and says in our words what is wrong.

use std::path::Path;
use std::time::SystemTime;

use sequoia_openpgp::cert::amalgamation::ValidAmalgamation as _;
use sequoia_openpgp::cert::amalgamation::key::ValidErasedKeyAmalgamation;
use sequoia_openpgp::crypto::mpi::PublicKey;
use sequoia_openpgp::packet::Signature;
use sequoia_openpgp::packet::key::PublicParts;
use sequoia_openpgp::packet::signature::subpacket::CLOCK_SKEW_TOLERANCE;
use sequoia_openpgp::parse::stream::{VerificationError, VerificationResult};
use sequoia_openpgp::policy::{HashAlgoSecurity, Policy as _, StandardPolicy};
use sequoia_openpgp::types::{RevocationStatus, RevocationType};
use sequoia_openpgp::{Cert, KeyHandle};

use super::keyring::{TEXT_CHARACTERS_MAX, has_key, reason_of};
use super::requirements::Validity;
use super::{Error, Fingerprint, Keyring, Limits, Requirements, Signer};
use crate::base::Timestamp;
use crate::base::shown::one_line;

/// A key that is named by a signature, at a certain time.
type SigningKey<'a> = ValidErasedKeyAmalgamation<'a, PublicParts>;

/// Turns findings of the library into answers.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    keyring: &'a Keyring,
    requirements: &'a Requirements,
    policy: StandardPolicy<'a>,
    now: Timestamp,
}

/// One signature and where it is from.
#[derive(Clone, Copy)]
struct Case<'a> {
    signature: &'a Signature,
    /// When it was made, as it says.
    made_at: Timestamp,
    sidecar: &'a Path,
    /// The checksum file that was signed, if it is not the package itself.
    list: Option<&'a Path>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        keyring: &'a Keyring,
        requirements: &'a Requirements,
        now: Timestamp,
    ) -> Self {
        Self {
            keyring,
            requirements,
            policy: StandardPolicy::at(SystemTime::from(now)),
            now,
        }
    }

    pub(super) const fn keyring(&self) -> &Keyring {
        self.keyring
    }

    pub(super) const fn policy(&self) -> &StandardPolicy<'a> {
        &self.policy
    }

    pub(super) const fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.requirements.limits
    }

    /// Returns who has signed, or what is wrong with the signature.
    pub(super) fn judge(
        &self,
        result: VerificationResult<'_>,
        sidecar: &Path,
        list: Option<&Path>,
    ) -> Result<Signer, Error> {
        let malformed = |reason: String| Error::MalformedSignature {
            sidecar: sidecar.to_owned(),
            reason,
        };
        let signature = match &result {
            Ok(good) => good.sig,
            Err(error) => signature_of(error).ok_or_else(|| malformed(error.to_string()))?,
        };
        let made_at = signature.signature_creation_time();
        let case = Case {
            signature,
            made_at: made_at
                .ok_or_else(|| malformed("it does not say when it was made".to_owned()))?
                .into(),
            sidecar,
            list,
        };
        match result {
            Err(VerificationError::UnboundKey { cert, .. }) if self.is_from_future(case) => {
                Err(self.future_fault(case, cert))
            }
            Err(
                VerificationError::BadKey { ka, .. } | VerificationError::BadSignature { ka, .. },
            ) if self.is_from_future(case) => Err(self.future_fault(case, ka.cert())),
            Ok(good) => self.accept(case, &good.ka),
            Err(VerificationError::MissingKey { .. }) => Err(Error::UnknownSigner {
                sidecar: sidecar.to_owned(),
                signer: issuer(signature),
            }),
            Err(VerificationError::UnboundKey { cert, error, .. }) => {
                self.judge_unbound(case, cert, &error)
            }
            Err(VerificationError::BadKey { ka, error, .. }) => {
                Err(self.explain_key(case, &ka, &error))
            }
            Err(VerificationError::BadSignature { ka, error, .. }) => {
                Err(self.explain_signature(case, ka.cert(), &error))
            }
            // The library may learn to tell more; until then it is not a signature that we can accept.
            Err(other) => Err(malformed(other.to_string())),
        }
    }

    /// Accepts a signature that fits, if the requirements do not ask for more.
    fn accept(&self, case: Case<'_>, key: &SigningKey<'_>) -> Result<Signer, Error> {
        let certificate = key.cert();
        let signers = &self.requirements.signers;
        if !signers.is_empty() && !signers.iter().any(|it| has_key(certificate, it)) {
            return Err(Error::SignerNotAllowed {
                sidecar: case.sidecar.to_owned(),
                signer: certificate.fingerprint().to_hex(),
            });
        }
        if self.requirements.validity == Validity::Now {
            self.check_now(case, key)?;
        }
        let user_id = key.valid_cert().primary_userid().ok();
        Ok(Signer {
            fingerprint: Fingerprint(certificate.fingerprint()),
            key: Fingerprint(key.key().fingerprint()),
            user_id: user_id.map(|it| text_of(it.userid().value())),
            signed_at: case.made_at,
            key_algorithm: key_algorithm(key),
            hash_algorithm: case.signature.hash_algo().to_string(),
            sidecar: case.sidecar.to_owned(),
            list: case.list.map(Path::to_owned),
        })
    }

    /// Refuses a key that is not valid any more.
    fn check_now(&self, case: Case<'_>, key: &SigningKey<'_>) -> Result<(), Error> {
        let refuse = |error: &anyhow::Error| invalid(case, key.cert(), reason_of(error));
        let valid = key
            .cert()
            .with_policy(&self.policy, SystemTime::from(self.now));
        let valid = valid.map_err(|error| refuse(&error))?;
        let fingerprint = key.key().fingerprint();
        let key = valid
            .keys()
            .find(|key| key.key().fingerprint() == fingerprint);
        let key =
            key.ok_or_else(|| refuse(&anyhow::anyhow!("its signing key is not valid now")))?;
        match self.find_flaw(case, &key, self.now) {
            Some(flaw) => Err(flaw),
            None => Ok(()),
        }
    }

    /// Judges a signature by a key that nothing bound to its certificate at that time.
    ///
    /// GnuPG replaces the statements of a certificate about itself when it is extended: what is left is younger than the
    /// signatures that were made before. What the owner says now of the whole life of the key counts then, as it does for
    /// GnuPG. Revocations count as of the time of the signature.
    fn judge_unbound(
        &self,
        case: Case<'_>,
        certificate: &Cert,
        error: &anyhow::Error,
    ) -> Result<Signer, Error> {
        let unbound = || invalid(case, certificate, reason_of(error));
        let valid = certificate
            .with_policy(&self.policy, SystemTime::from(self.now))
            .map_err(|_| unbound())?;
        let issuers = case.signature.get_issuers();
        let key = valid
            .keys()
            .find(|key| is_issuer(&issuers, &key.key().key_handle()))
            .ok_or_else(unbound)?;
        self.check_fit(case, certificate, &key)?;
        if case.made_at < Timestamp::from(key.key().creation_time()) || !key.for_signing() {
            return Err(unbound());
        }
        match self.find_flaw(case, &key, case.made_at) {
            Some(flaw) => Err(flaw),
            None => self.accept(case, &key),
        }
    }

    /// Says why a known key cannot have made this signature.
    fn explain_key(&self, case: Case<'_>, key: &SigningKey<'_>, error: &anyhow::Error) -> Error {
        // Whose signature does not even fit tries something, whatever became of the key.
        if let Err(error) = self.check_fit(case, key.cert(), key) {
            return error;
        }
        self.find_flaw(case, key, case.made_at)
            .unwrap_or_else(|| invalid(case, key.cert(), reason_of(error)))
    }

    /// Makes sure that a key has signed the content, with an algorithm that protects.
    fn check_fit(
        &self,
        case: Case<'_>,
        certificate: &Cert,
        key: &SigningKey<'_>,
    ) -> Result<(), Error> {
        case.signature
            .verify_document(key.key())
            .and_then(|()| {
                self.policy
                    .signature(case.signature, HashAlgoSecurity::default())
            })
            .map_err(|error| self.explain_signature(case, certificate, &error))
    }

    /// Returns what speaks against a key at a time: its end, or a revocation.
    fn find_flaw(&self, case: Case<'_>, key: &SigningKey<'_>, at: Timestamp) -> Option<Error> {
        let signer = key.cert().fingerprint().to_hex();
        let sidecar = case.sidecar.to_owned();
        let time = SystemTime::from(at);
        let of_certificate = key.cert().revocation_status(&self.policy, time);
        let mut subkeys = key.cert().keys().subkeys();
        let subkey = subkeys.find(|it| it.key().fingerprint() == key.key().fingerprint());
        let of_subkey = subkey
            .as_ref()
            .and_then(|subkey| revocation(&subkey.revocation_status(&self.policy, time)));
        if let Some((revoked_at, reason)) = revocation(&of_certificate).or(of_subkey) {
            return Some(Error::RevokedKey {
                sidecar,
                signer,
                revoked_at,
                reason,
            });
        }
        let expired_at = expiry(key).filter(|expired_at| *expired_at <= at)?;
        Some(Error::ExpiredKey {
            sidecar,
            signer,
            needed_at: at,
            expired_at,
        })
    }

    /// Says what is wrong with a signature by a valid key.
    fn explain_signature(
        &self,
        case: Case<'_>,
        certificate: &Cert,
        error: &anyhow::Error,
    ) -> Error {
        let sidecar = case.sidecar.to_owned();
        let signer = certificate.fingerprint().to_hex();
        let reason = reason_of(error);
        let strength = self
            .policy
            .signature(case.signature, HashAlgoSecurity::default());
        if strength.is_err() {
            return Error::WeakSignature {
                sidecar,
                signer,
                reason,
            };
        }
        let ends_at = case.signature.signature_expiration_time();
        if let Some(ends_at) = ends_at.map(Timestamp::from)
            && ends_at <= self.now
        {
            return Error::SignatureNotAlive {
                sidecar,
                signer,
                ended_at: ends_at,
            };
        }
        if case.signature.computed_digest().is_none() {
            return Error::MalformedSignature { sidecar, reason };
        }
        Error::BadSignature { sidecar, signer }
    }

    fn is_from_future(&self, case: Case<'_>) -> bool {
        case.made_at > latest(self.now)
    }

    fn future_fault(&self, case: Case<'_>, certificate: &Cert) -> Error {
        Error::SignatureFromFuture {
            sidecar: case.sidecar.to_owned(),
            signer: certificate.fingerprint().to_hex(),
            made_at: case.made_at,
            now: self.now,
        }
    }
}

fn invalid(case: Case<'_>, certificate: &Cert, reason: String) -> Error {
    Error::InvalidKey {
        sidecar: case.sidecar.to_owned(),
        signer: certificate.fingerprint().to_hex(),
        reason,
    }
}

/// Returns the signature that an error is about, where the library could read it.
pub(super) const fn signature_of<'a>(error: &VerificationError<'a>) -> Option<&'a Signature> {
    match error {
        VerificationError::MissingKey { sig }
        | VerificationError::UnboundKey { sig, .. }
        | VerificationError::BadKey { sig, .. }
        | VerificationError::BadSignature { sig, .. }
        | VerificationError::MalformedSignature { sig, .. } => Some(sig),
        VerificationError::UnknownSignature { .. } | _ => None,
    }
}

/// Returns the latest moment that a signature may name: clocks differ a little.
pub(super) fn latest(now: Timestamp) -> Timestamp {
    now + CLOCK_SKEW_TOLERANCE
}

fn is_issuer(issuers: &[KeyHandle], key: &KeyHandle) -> bool {
    issuers.iter().any(|issuer| issuer.aliases(key))
}

/// Returns who has made a signature, as it says: a fingerprint if it has one.
fn issuer(signature: &Signature) -> String {
    let fingerprint = signature.issuer_fingerprints().next();
    fingerprint
        .map(ToString::to_string)
        .or_else(|| signature.issuers().next().map(ToString::to_string))
        .unwrap_or_else(|| "nobody named".to_owned())
}

/// Returns when a key was revoked and why. One that was compromised was so before anybody noticed: that counts first.
fn revocation(status: &RevocationStatus<'_>) -> Option<(Timestamp, String)> {
    let RevocationStatus::Revoked(revocations) = status else {
        return None;
    };
    let is_hard = |it: &&&Signature| {
        it.reason_for_revocation()
            .is_none_or(|(reason, _)| reason.revocation_type() == RevocationType::Hard)
    };
    let telling = revocations.iter().find(is_hard).or(revocations.first())?;
    let reason = match telling.reason_for_revocation() {
        None => "no reason given".to_owned(),
        Some((reason, [])) => reason.to_string(),
        Some((reason, text)) => format!("{reason}: {}", text_of(text)),
    };
    let at = telling.signature_creation_time();
    Some((at.unwrap_or(SystemTime::UNIX_EPOCH).into(), reason))
}

/// Returns when a key ends: with its certificate, or before.
fn expiry(key: &SigningKey<'_>) -> Option<Timestamp> {
    let of_certificate = key.valid_cert().primary_key().key_expiration_time();
    let ends = [key.key_expiration_time(), of_certificate];
    ends.into_iter().flatten().min().map(Timestamp::from)
}

/// Names the kind of a key with its size, where keys of the kind differ in it.
fn key_algorithm(key: &SigningKey<'_>) -> String {
    let algorithm = key.key().pk_algo();
    match (key.key().mpis(), key.key().mpis().bits()) {
        (PublicKey::ECDSA { curve, .. } | PublicKey::EdDSA { curve, .. }, _) => {
            format!("{algorithm} on {curve}")
        }
        (PublicKey::RSA { .. } | PublicKey::DSA { .. }, Some(bits)) => {
            format!("{algorithm}, {bits} bits")
        }
        _ => algorithm.to_string(),
    }
}

/// Returns a text of a certificate in a form that can be shown.
fn text_of(text: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(text), TEXT_CHARACTERS_MAX)
}
