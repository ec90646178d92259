//! What a package must show.

use super::{Fingerprint, Limits};

/// What must vouch for a package before it is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Signatures by signers that are allowed.
    Signature,
    /// Signatures as above, or a checksum.
    Checksum,
    /// Nothing. What is there must still be right.
    None,
}

/// When the key of a signer must be valid: neither expired nor revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Validity {
    /// When it signed. A key that expired or was retired later does not take its signatures along.
    WhenSigned,
    /// When it signed, and now.
    Now,
}

/// What a package must show, for example in one drop folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// What must vouch for it.
    pub policy: Policy,
    /// How many different signers must have signed it before signatures vouch for it. At least 1. Signatures by several
    /// keys of one certificate count once.
    pub signatures_min: u32,
    /// Whose signatures count: fingerprints of certificates, or of any key of them. Empty: every certificate of the
    /// keyring.
    pub signers: Vec<Fingerprint>,
    /// When their keys must be valid.
    pub validity: Validity,
    /// Bounds on the sidecars.
    pub limits: Limits,
}

impl Requirements {
    /// Returns what `policy` asks for: one signature by whoever is in the keyring, made with a key that was valid then.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            signatures_min: 1,
            signers: Vec::new(),
            validity: Validity::WhenSigned,
            limits: Limits::default(),
        }
    }
}
