//! Signing a report.
//!
//! The second and last place that uses the OpenPGP library: `verify` judges what comes in, this vouches for what goes out.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use sequoia_openpgp::armor;
use sequoia_openpgp::cert::Cert;
use sequoia_openpgp::cert::amalgamation::key::ValidErasedKeyAmalgamation;
use sequoia_openpgp::crypto::{KeyPair, Password};
use sequoia_openpgp::packet::key::SecretParts;
use sequoia_openpgp::parse::Parse as _;
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::stream::{Armorer, Message, Signer};

use super::Error;
use crate::base::shown::one_line;
use crate::base::{Secret, Timestamp};
use crate::sys::fs::Context as _;

/// The longest reason of the OpenPGP library that a message carries, in characters. Chosen, not measured.
const REASON_CHARACTERS_MAX: usize = 500;

/// A secret key that can sign now.
pub struct SigningKey {
    pair: KeyPair,
    signed_at: SystemTime,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey")
            .field(&self.fingerprint())
            .finish()
    }
}

impl SigningKey {
    /// Reads a key as `gpg --export-secret-keys` writes it, armored or not. `now` becomes the time of the signatures.
    pub fn load(path: &Path, passphrase: Option<&Secret>, now: Timestamp) -> Result<Self, Error> {
        let bytes = std::fs::read(path).context("read", path)?;
        let certificate = Cert::from_bytes(&bytes).map_err(|error| Error::KeyInvalid {
            path: path.to_owned(),
            reason: reason_of(&error),
        })?;
        let fingerprint = certificate.fingerprint().to_hex();
        let unfit = |reason: String| Error::KeyUnfit {
            path: path.to_owned(),
            fingerprint: fingerprint.clone(),
            reason,
        };
        if !certificate.is_tsk() {
            return Err(unfit("it is a public key".to_owned()));
        }
        let policy = StandardPolicy::at(now);
        let signed_at = SystemTime::from(now);
        let valid = certificate
            .with_policy(&policy, signed_at)
            .map_err(|error| unfit(reason_of(&error)))?;
        valid.alive().map_err(|error| unfit(reason_of(&error)))?;
        let keys = valid.keys().secret().alive().revoked(false).supported();
        let mut locked = None;
        for key in keys.for_signing() {
            match unlock(&key, passphrase) {
                Some(pair) => return Ok(Self { pair, signed_at }),
                None => locked = Some(key.key().fingerprint().to_hex()),
            }
        }
        Err(match locked {
            Some(fingerprint) => Error::KeyLocked {
                path: path.to_owned(),
                fingerprint,
                was_given: passphrase.is_some(),
            },
            None => unfit("none of its keys can sign now".to_owned()),
        })
    }

    /// Returns the fingerprint of the key, in upper-case hex.
    pub fn fingerprint(&self) -> String {
        self.pair.public().fingerprint().to_hex()
    }

    /// Returns `text` with a signature in one readable document (RFC 9580, section 7).
    pub fn sign_cleartext(self, text: &str) -> Result<Vec<u8>, Error> {
        let mut signed = Vec::new();
        write_cleartext(self, text, &mut signed).map_err(|error| failed(&error))?;
        Ok(signed)
    }

    /// Returns an armored signature over `bytes`, to be kept beside them.
    pub fn sign_detached(self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut signature = Vec::new();
        write_detached(self, bytes, &mut signature).map_err(|error| failed(&error))?;
        Ok(signature)
    }
}

/// Returns the key ready to sign, if its secret is there and the passphrase is the right one.
fn unlock(
    key: &ValidErasedKeyAmalgamation<'_, SecretParts>,
    passphrase: Option<&Secret>,
) -> Option<KeyPair> {
    let key = key.key().clone();
    let key = if key.has_unencrypted_secret() {
        key
    } else {
        key.decrypt_secret(&Password::from(passphrase?.expose()))
            .ok()?
    };
    key.into_keypair().ok()
}

fn write_cleartext(key: SigningKey, text: &str, to: &mut Vec<u8>) -> sequoia_openpgp::Result<()> {
    let signer = Signer::new(Message::new(to), key.pair)?.creation_time(key.signed_at);
    let mut message = signer.cleartext().build()?;
    message.write_all(text.as_bytes())?;
    message.finalize()
}

fn write_detached(key: SigningKey, bytes: &[u8], to: &mut Vec<u8>) -> sequoia_openpgp::Result<()> {
    let armorer = Armorer::new(Message::new(to)).kind(armor::Kind::Signature);
    let signer = Signer::new(armorer.build()?, key.pair)?.creation_time(key.signed_at);
    let mut message = signer.detached().build()?;
    message.write_all(bytes)?;
    message.finalize()
}

fn failed(error: &anyhow::Error) -> Error {
    Error::Signing {
        reason: reason_of(error),
    }
}

/// Renders an error of the OpenPGP library with its causes.
fn reason_of(error: &anyhow::Error) -> String {
    one_line(&format!("{error:#}"), REASON_CHARACTERS_MAX)
}
