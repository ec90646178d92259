//! Names of packages, targets, clusters and Kubernetes objects.

use std::str::FromStr;

use thiserror::Error;

use super::text::text_value;

/// The longest name, in bytes: that of a Kubernetes object (RFC 1123 subdomain), because package names become
/// object names.
const NAME_BYTES_MAX: usize = 253;

/// Why a string is not a name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParseNameError {
    /// Nothing there.
    #[error("expected a name, found nothing")]
    Empty,
    /// Longer than an object name may be.
    #[error("expected at most {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// A character that is not allowed, or one at the wrong place.
    #[error("expected letters, digits, `-`, `_` and `.`, with a letter or digit at both ends")]
    Character,
    /// Good as a package or target name, but not as the name of a Kubernetes object.
    #[error(
        "expected lowercase letters, digits, `-` and `.`, with a letter or digit at both ends of each part between dots"
    )]
    Subdomain,
}

/// The name of a package, as its manifest says: `redis-operator`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageName(String);

/// The name of a target, chosen by the operator in the configuration: `global-b`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetName(String);

/// The name of a cluster, as the platform knows it: `global`, `business-1`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(String);

/// The name of a Kubernetes object: an RFC 1123 subdomain, so it is safe in a URL path and as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName(String);

text_value!(PackageName);
text_value!(TargetName);
text_value!(ClusterName);
text_value!(ObjectName);

impl ClusterName {
    /// Returns the name of the management cluster, which is the same on every platform.
    pub fn global() -> Self {
        Self("global".to_owned())
    }
}

impl FromStr for PackageName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check(text).map(|()| Self(text.to_owned()))
    }
}

impl FromStr for TargetName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check(text).map(|()| Self(text.to_owned()))
    }
}

impl FromStr for ClusterName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check_subdomain(text).map(|()| Self(text.to_owned()))
    }
}

impl FromStr for ObjectName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check_subdomain(text).map(|()| Self(text.to_owned()))
    }
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*`, at most 253 bytes (RFC 1123).
fn check_subdomain(text: &str) -> Result<(), ParseNameError> {
    if text.is_empty() {
        return Err(ParseNameError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(ParseNameError::TooLong);
    }
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(is_inner)
    };
    if text.split('.').all(is_label) {
        Ok(())
    } else {
        Err(ParseNameError::Subdomain)
    }
}

/// Accepts what is safe as a file name, a label value and a part of an object name.
fn check(text: &str) -> Result<(), ParseNameError> {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return Err(ParseNameError::Empty);
    };
    if bytes.len() > NAME_BYTES_MAX {
        return Err(ParseNameError::TooLong);
    }
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !first.is_ascii_alphanumeric() || !last.is_ascii_alphanumeric() || !bytes.iter().all(inner) {
        return Err(ParseNameError::Character);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        for good in ["a", "redis-operator", "global-b", "x_y.z9"] {
            assert_eq!(good.parse::<PackageName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "..", "a/b", "a b", "ä", &"a".repeat(254)] {
            assert!(bad.parse::<TargetName>().is_err(), "input: {bad:?}");
        }
    }
    #[test]
    fn object_names_are_rfc_1123_subdomains() {
        for good in ["a", "global", "redis-operator.v1.2.0-rc.1", "0"] {
            assert_eq!(good.parse::<ObjectName>().unwrap().as_str(), good);
            assert_eq!(good.parse::<ClusterName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            "-a",
            "a-",
            "a.-b",
            "A",
            "a_b",
            "a/b",
            "a ",
            "\u{e4}",
            &"a".repeat(254),
        ] {
            assert!(bad.parse::<ObjectName>().is_err(), "input: {bad:?}");
        }
    }
}
