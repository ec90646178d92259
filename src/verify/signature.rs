//! Detached OpenPGP signatures.
//!
//! A sidecar holds one or several signatures, binary or armored: packets one after the other, or armored blocks one after
//! the other. What a file is called says nothing about its form. All sidecars of one content are verified in one read.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sequoia_openpgp::packet::Signature;
use sequoia_openpgp::parse::Parse as _;
use sequoia_openpgp::parse::stream::{
    DetachedVerifierBuilder, MessageLayer, MessageStructure, VerificationHelper,
};
use sequoia_openpgp::serialize::Marshal as _;
use sequoia_openpgp::{Cert, KeyHandle, Packet, PacketPile};

use super::file::read_sidecar;
use super::findings::Findings;
use super::judge::{self, Judge, latest};
use super::keyring::{blocks, reason_of};
use super::{Error, Limits};
use crate::base::Timestamp;

/// How an armored signature begins (RFC 9580, section 6.2).
const ARMOR_BEGIN: &str = "-----BEGIN PGP SIGNATURE-----";
/// How a text with its signature in one file begins (RFC 9580, section 7).
const CLEARTEXT_BEGIN: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";

/// The signatures of all sidecars of one content, each with the sidecar that holds it.
#[derive(Debug, Default)]
pub(super) struct Signatures(Vec<(Signature, PathBuf)>);

impl Signatures {
    /// Returns the sidecar that holds a signature.
    pub(super) fn sidecar_of(&self, signature: &Signature) -> PathBuf {
        // The library may add to the part of a signature that is not signed.
        let known = self.0.iter().find(|(it, _)| it.normalized_eq(signature));
        known
            .or(self.0.first())
            .map(|(_, path)| path.clone())
            .unwrap_or_default()
    }

    /// Returns the moment at which the library shall think to be: now, or a little later where the signer's clock is ahead
    /// of ours. With a moment given, the library tolerates no difference by itself.
    fn reference(&self, now: Timestamp) -> SystemTime {
        let made_at = self
            .0
            .iter()
            .filter_map(|(it, _)| it.signature_creation_time());
        let latest = SystemTime::from(latest(now));
        made_at
            .filter(|made_at| *made_at <= latest)
            .fold(SystemTime::from(now), SystemTime::max)
    }

    /// Returns how many different keys have made them, as they say themselves.
    pub(super) fn count_issuers(&self) -> usize {
        let mut issuers: Vec<KeyHandle> = Vec::new();
        for issuer in self.0.iter().filter_map(|(it, _)| it.get_issuers().pop()) {
            if !issuers.iter().any(|known| known.aliases(&issuer)) {
                issuers.push(issuer);
            }
        }
        issuers.len()
    }
}

/// Reads sidecars and makes sure that they are what their names say.
pub(super) fn read(paths: &[PathBuf], limits: &Limits) -> Result<Signatures, Error> {
    let mut signatures = Signatures::default();
    for path in paths {
        for signature in read_one(path, limits)? {
            signatures.0.push((signature, path.clone()));
        }
    }
    Ok(signatures)
}

fn read_one(path: &Path, limits: &Limits) -> Result<Vec<Signature>, Error> {
    let bytes = read_sidecar(path, limits)?;
    if bytes.trim_ascii_start().starts_with(CLEARTEXT_BEGIN) {
        return Err(malformed(
            path,
            "a detached signature is needed, not a text that is signed in itself",
        ));
    }
    let mut signatures = Vec::new();
    for block in blocks(&bytes, ARMOR_BEGIN) {
        let packets =
            PacketPile::from_bytes(block).map_err(|error| malformed(path, reason_of(&error)))?;
        let before = signatures.len();
        for packet in packets.into_children() {
            signatures.push(expect_signature(packet).map_err(|reason| malformed(path, reason))?);
        }
        if signatures.len() == before {
            return Err(malformed(path, "it is empty"));
        }
        if signatures.len() as u64 > limits.sidecar_signatures_max {
            return Err(Error::TooManySignatures {
                sidecar: path.to_owned(),
                limit: limits.sidecar_signatures_max,
            });
        }
    }
    Ok(signatures)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the many kinds of packets only one belongs here"
)]
fn expect_signature(packet: Packet) -> Result<Signature, String> {
    match packet {
        Packet::Signature(signature) => Ok(signature),
        Packet::Unknown(unknown) => Err(reason_of(unknown.error())),
        other => Err(format!("expected signatures, found {}", other.tag())),
    }
}

/// Reads `content` to its end, unless there is nothing to verify, and judges the signatures over it.
///
/// `list` is the checksum file that the content is, if it is not the package itself.
pub(super) fn verify(
    signatures: &Signatures,
    list: Option<&Path>,
    content: impl Read + Send + Sync,
    judge: &Judge<'_>,
) -> Result<Findings, Error> {
    let Some((_, first)) = signatures.0.first() else {
        return Ok(Findings::default());
    };
    let failed = |error: anyhow::Error| malformed(first, reason_of(&error));
    let mut bytes = Vec::new();
    for (signature, _) in &signatures.0 {
        let packet = Packet::from(signature.clone());
        packet.serialize(&mut bytes).map_err(failed)?;
    }
    let helper = Helper {
        signatures,
        list,
        judge,
        found: Findings::default(),
    };
    let mut verifier = DetachedVerifierBuilder::from_bytes(&bytes)
        .and_then(|builder| {
            builder.with_policy(judge.policy(), signatures.reference(judge.now()), helper)
        })
        .map_err(failed)?;
    verifier.verify_reader(content).map_err(failed)?;
    Ok(verifier.into_helper().found)
}

fn malformed(path: &Path, reason: impl Into<String>) -> Error {
    Error::MalformedSignature {
        sidecar: path.to_owned(),
        reason: reason.into(),
    }
}

/// Collects what the library finds.
struct Helper<'a> {
    signatures: &'a Signatures,
    list: Option<&'a Path>,
    judge: &'a Judge<'a>,
    found: Findings,
}

impl VerificationHelper for Helper<'_> {
    fn get_certs(&mut self, handles: &[KeyHandle]) -> sequoia_openpgp::Result<Vec<Cert>> {
        Ok(self.judge.keyring().find(handles))
    }

    fn check(&mut self, structure: MessageStructure) -> sequoia_openpgp::Result<()> {
        for layer in structure {
            let MessageLayer::SignatureGroup { results } = layer else {
                continue;
            };
            for result in results {
                let signature = match &result {
                    Ok(good) => Some(good.sig),
                    Err(error) => judge::signature_of(error),
                };
                let sidecar =
                    signature.map_or_else(PathBuf::new, |it| self.signatures.sidecar_of(it));
                self.found
                    .push(self.judge.judge(result, &sidecar, self.list));
            }
        }
        Ok(())
    }
}
