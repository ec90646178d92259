//! Amounts of bytes that people read and write.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Names of the units and their sizes in bytes, largest first. Decimal names mean powers of ten, as everywhere.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// A number of bytes, written `64MiB`, `1.5GB` or `4096`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteCount(pub u64);

/// Why a string is not a [`ByteCount`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParseByteCountError {
    /// No number at the start.
    #[error("expected a number of bytes such as `64MiB`")]
    Number,
    /// The unit is not one of those known.
    #[error("expected a unit of B, kB, KiB, MB, MiB, GB, GiB, TB or TiB")]
    Unit,
    /// More than 2^64 bytes.
    #[error("expected less than 16 EiB")]
    TooLarge,
}

impl FromStr for ByteCount {
    type Err = ParseByteCountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim();
        let unit_bytes = UNITS
            .iter()
            .find(|(name, _)| unit.is_empty() && *name == "B" || name.eq_ignore_ascii_case(unit))
            .map(|(_, bytes)| *bytes)
            .ok_or(ParseByteCountError::Unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| ParseByteCountError::Number)?;
        let bytes = whole
            .checked_mul(unit_bytes)
            .ok_or(ParseByteCountError::TooLarge)?;
        let fraction_bytes = fraction_of(fraction, unit_bytes)?;
        bytes
            .checked_add(fraction_bytes)
            .map(Self)
            .ok_or(ParseByteCountError::TooLarge)
    }
}

/// Returns `0.<digits>` times `unit_bytes`, rounded down. At most six digits count.
fn fraction_of(digits: &str, unit_bytes: u64) -> Result<u64, ParseByteCountError> {
    let mut bytes = 0_u128;
    let mut scale = 1_u128;
    for digit in digits.chars().take(6) {
        let digit = digit.to_digit(10).ok_or(ParseByteCountError::Number)?;
        bytes = bytes * 10 + u128::from(digit);
        scale *= 10;
    }
    u64::try_from(bytes * u128::from(unit_bytes) / scale).map_err(|_| ParseByteCountError::TooLarge)
}

impl fmt::Display for ByteCount {
    /// Prints with the largest binary unit that gives at least one, and one decimal: `1.5 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, unit_bytes) in UNITS.iter().filter(|(name, _)| name.contains('i')) {
            if self.0 >= *unit_bytes {
                let tenths = u128::from(self.0) * 10 / u128::from(*unit_bytes);
                return write!(f, "{}.{} {name}", tenths / 10, tenths % 10);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl Serialize for ByteCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(bytes) => Ok(Self(bytes)),
            Either::Text(text) => text
                .parse()
                .map_err(|error| serde::de::Error::custom(format_args!("{error}, found `{text}`"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_and_prints() {
        for (text, bytes, printed) in [
            ("0", 0, "0 B"),
            ("4096", 4096, "4.0 KiB"),
            ("64MiB", 64 << 20, "64.0 MiB"),
            ("1.5 GiB", 3 << 29, "1.5 GiB"),
            ("1kb", 1000, "1000 B"),
            ("2TB", 2_000_000_000_000, "1.8 TiB"),
        ] {
            let count: ByteCount = text.parse().unwrap();
            assert_eq!(
                (count.0, count.to_string().as_str()),
                (bytes, printed),
                "input: {text:?}"
            );
        }
        for bad in ["", "MiB", "1XB", "-1", "1.x", "99999999TiB", "1.2.3"] {
            assert!(bad.parse::<ByteCount>().is_err(), "input: {bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_round_trip(bytes: u64) {
            prop_assert_eq!(bytes.to_string().parse(), Ok(ByteCount(bytes)));
        }
    }
}
