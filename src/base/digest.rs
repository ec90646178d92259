//! Content digests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use thiserror::Error;

/// A SHA-256 content digest, written `sha256:<64 lowercase hex>`.
///
/// Grammar: OCI image-spec v1.1.0, `descriptor.md#digests`, restricted to the one algorithm that is stored.
/// `Display` and `FromStr` round-trip.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Why a string is not a [`Digest`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParseDigestError {
    /// The algorithm prefix is absent or is not one that is stored.
    #[error("expected prefix `sha256:`")]
    Algorithm,
    /// The encoded part is not exactly 64 lowercase hex characters.
    #[error("expected 64 lowercase hex characters")]
    Encoding,
}

impl Digest {
    /// Returns the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Returns the digest with these 32 raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses 64 lowercase hex characters without the algorithm prefix.
    pub fn from_hex(hex: &str) -> Result<Self, ParseDigestError> {
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(ParseDigestError::Encoding),
        };
        if hex.len() != 64 {
            return Err(ParseDigestError::Encoding);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }

    /// Returns the 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the 64 hex characters without the algorithm prefix.
    pub fn hex(&self) -> String {
        // By hand: a status writes some ten thousand of them, and formatting byte by byte shows there.
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            hex.push(digit(byte >> 4));
            hex.push(digit(byte & 15));
        }
        hex
    }

    /// Returns the first twelve hex characters, enough to tell digests apart in words for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text
            .strip_prefix("sha256:")
            .ok_or(ParseDigestError::Algorithm)?;
        Self::from_hex(hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::text::deserialize(deserializer)
    }
}

/// Computes a [`Digest`] incrementally.
#[derive(Clone, Debug, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Feeds `bytes` to the hash.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of everything fed so far.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn display_round_trips(bytes: [u8; 32]) {
            let digest = Digest(bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        }

        #[test]
        fn parse_never_panics(text in ".{0,100}") {
            let _ = text.parse::<Digest>();
        }
    }

    #[test]
    fn rejects() {
        for (text, error) in [
            ("", ParseDigestError::Algorithm),
            ("sha512:00", ParseDigestError::Algorithm),
            ("sha256:00", ParseDigestError::Encoding),
            (
                &format!("sha256:{}", "A".repeat(64)),
                ParseDigestError::Encoding,
            ),
            (
                &format!("sha256:{}/..", "a".repeat(61)),
                ParseDigestError::Encoding,
            ),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(error), "input: {text:?}");
        }
    }

    #[test]
    fn digest_of_nothing_is_the_published_one() {
        assert_eq!(
            Digest::of(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
