//! Where an image is: repository, tag, reference, platform.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::Digest;
use super::text::text_value;

/// The longest repository name, in bytes, that registries accept together with a host (distribution reference grammar).
const REPOSITORY_BYTES_MAX: usize = 255;
/// The longest tag, in bytes (OCI distribution-spec v1.1.0, "Pulling manifests").
const TAG_BYTES_MAX: usize = 128;
/// Stands for the missing host while a reference without one is parsed (RFC 2606: never a real name).
const PLACEHOLDER_REGISTRY: &str = "registry.invalid";

/// A repository path without a registry host: `3rdparty/redis`.
///
/// Grammar: OCI distribution-spec v1.1.0, "Pulling manifests", `<name>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(String);

/// A tag: `v1.2.3`. Grammar: OCI distribution-spec v1.1.0, "Pulling manifests", `<reference>` as a tag.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

text_value!(Repository);
text_value!(Tag);

/// Why a string is not a repository, tag, reference or platform.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParseImageError {
    /// The repository does not follow the grammar.
    #[error(
        "expected a repository of lowercase letters, digits, `.`, `_`, `-` and `/`, at most {REPOSITORY_BYTES_MAX} bytes"
    )]
    Repository,
    /// The tag does not follow the grammar.
    #[error("expected a tag of letters, digits, `.`, `_` and `-`, at most {TAG_BYTES_MAX} bytes")]
    Tag,
    /// The whole does not follow the grammar of references; the reason is the parser's.
    #[error("expected an image reference ({0})")]
    Reference(String),
    /// A digest that is not SHA-256.
    #[error("expected a SHA-256 digest")]
    Digest,
    /// Not `os/architecture` or `os/architecture/variant`.
    #[error("expected `os/architecture` or `os/architecture/variant`")]
    Platform,
}

impl FromStr for Repository {
    type Err = ParseImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_good = text.len() <= REPOSITORY_BYTES_MAX && text.split('/').all(is_path_component);
        is_good
            .then(|| Self(text.to_owned()))
            .ok_or(ParseImageError::Repository)
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(text: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !is_alphanumeric(first) || !is_alphanumeric(last) {
        return false;
    }
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .filter(|separator| !separator.is_empty())
        .all(|separator| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

impl FromStr for Tag {
    type Err = ParseImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_good = bytes.first().is_some_and(|&byte| is_word(byte))
            && bytes.len() <= TAG_BYTES_MAX
            && bytes
                .iter()
                .all(|&byte| is_word(byte) || matches!(byte, b'.' | b'-'));
        is_good
            .then(|| Self(text.to_owned()))
            .ok_or(ParseImageError::Tag)
    }
}

/// An image as people write it: `[host[:port]/]repository[:tag][@digest]`.
///
/// Parsed by `oci-client`, so that short names get the same host and path as everywhere else: `busybox` is
/// `library/busybox:latest` at the usual public registry.
///
/// A reference without a host, as a registry's file tree gives it, has an empty registry. `Display` prints it without
/// one (`3rdparty/redis:7`), which reads back as an image of the default host; [`encode`](Self::encode) and
/// serialisation mark it with a leading slash (`/3rdparty/redis:7`), which `FromStr` understands, so they round-trip.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageReference {
    registry: String,
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// Returns a reference from parts that were parsed already.
    pub const fn new(
        registry: String,
        repository: Repository,
        tag: Option<Tag>,
        digest: Option<Digest>,
    ) -> Self {
        Self {
            registry,
            repository,
            tag,
            digest,
        }
    }

    /// Returns the registry host with its port; empty where the reference has no host.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the repository path below the host.
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns the tag; `latest` where neither tag nor digest was written.
    pub const fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// Returns the digest that the reference pins.
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the reference by its tag alone; one without a tag keeps its digest.
    #[must_use]
    pub fn by_tag(&self) -> Self {
        let mut reference = self.clone();
        if reference.tag.is_some() {
            reference.digest = None;
        }
        reference
    }

    /// Returns the text that parses back to exactly this reference: as displayed, and with a leading slash where
    /// there is no host.
    pub fn encode(&self) -> String {
        if self.registry.is_empty() {
            format!("/{self}")
        } else {
            self.to_string()
        }
    }
}

impl FromStr for ImageReference {
    type Err = ParseImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(reference) = Self::from_whole(text) {
            return Ok(reference);
        }
        if let Some(rest) = text.strip_prefix('/') {
            // The parser needs a host to tell it from the first component of the path.
            let hosted = Self::from_any(&format!("{PLACEHOLDER_REGISTRY}/{rest}"))?;
            return Ok(Self {
                registry: String::new(),
                ..hosted
            });
        }
        Self::from_any(text)
    }
}

impl ImageReference {
    /// Parses a reference that leaves nothing out and that nothing is added to, as we write them; `None` for any other text.
    ///
    /// The grammar of the library is one regular expression. To make it takes 20 ms, and with what it needs to match, 8 MB
    /// (seen on 2026-11-21): most of the time that a command with little to do takes, and most of the memory of a large plan.
    fn from_whole(text: &str) -> Option<Self> {
        let (registry, rest) = text.split_once('/')?;
        if !registry.is_empty() && !is_plain_host(registry) {
            return None;
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().ok()?)),
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.parse().ok()?)),
            None => (rest, None),
        };
        if tag.is_none() && digest.is_none() {
            return None;
        }
        Some(Self {
            registry: registry.to_owned(),
            repository: repository.parse().ok()?,
            tag,
            digest,
        })
    }

    /// Parses a reference as people write it.
    fn from_any(text: &str) -> Result<Self, ParseImageError> {
        let parsed: oci_client::Reference =
            text.parse().map_err(|error: oci_client::ParseError| {
                ParseImageError::Reference(error.to_string())
            })?;
        Ok(Self {
            registry: parsed.registry().to_owned(),
            repository: parsed.repository().parse()?,
            tag: parsed.tag().map(Tag::from_str).transpose()?,
            digest: parsed
                .digest()
                .map(|digest| digest.parse().map_err(|_| ParseImageError::Digest))
                .transpose()?,
        })
    }
}

/// Returns whether the first part of a reference is a host, surely, and one that is taken as it is.
fn is_plain_host(text: &str) -> bool {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| match label.as_bytes() {
        [] => false,
        bytes @ [first, ..] => {
            let is_inner = |byte: &u8| is_alphanumeric(byte) || *byte == b'-';
            is_alphanumeric(first)
                && bytes.last().is_some_and(is_alphanumeric)
                && bytes.iter().all(is_inner)
        }
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit());
    // The usual public registry has several names, and images without a folder.
    let is_usual = name == "docker.io" || name.ends_with(".docker.io");
    name.split('.').all(is_label)
        && port.is_none_or(is_port)
        && (name.contains('.') || port.is_some() || name == "localhost")
        && !is_usual
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.registry.is_empty() {
            write!(f, "{}/", self.registry)?;
        }
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ImageReference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.encode())
    }
}

impl<'de> Deserialize<'de> for ImageReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::text::deserialize(deserializer)
    }
}

/// What an image runs on: `linux/amd64`, `linux/arm/v7`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform(String);

text_value!(Platform);

impl Platform {
    /// Returns the platform of an image configuration or an index entry.
    pub fn from_parts(
        os: &str,
        architecture: &str,
        variant: Option<&str>,
    ) -> Result<Self, ParseImageError> {
        match variant {
            Some(variant) if !variant.is_empty() => {
                format!("{os}/{architecture}/{variant}").parse()
            }
            Some(_) | None => format!("{os}/{architecture}").parse(),
        }
    }
}

impl FromStr for Platform {
    type Err = ParseImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        let is_good = matches!(parts.len(), 2 | 3) && parts.iter().all(|part| is_word(part));
        is_good
            .then(|| Self(text.to_owned()))
            .ok_or(ParseImageError::Platform)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_names_are_completed_as_everywhere_else() {
        for (text, expected) in [
            // The host is the library's default.
            ("busybox", "/library/busybox:latest"),
            ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b:v1"),
            (
                "registry.example:11443/3rdparty/redis:7",
                "registry.example:11443/3rdparty/redis:7",
            ),
        ] {
            let parsed = text.parse::<ImageReference>().unwrap().to_string();
            assert!(parsed.ends_with(expected), "found {parsed}");
        }
    }

    #[test]
    fn a_reference_without_a_host_prints_without_one_and_round_trips_encoded() {
        let reference = ImageReference::new(
            String::new(),
            "3rdparty/redis".parse().unwrap(),
            Some("7".parse().unwrap()),
            None,
        );
        assert_eq!(reference.to_string(), "3rdparty/redis:7");
        assert_eq!(reference.encode(), "/3rdparty/redis:7");
        assert_eq!(reference.encode().parse(), Ok(reference.clone()));
        let json = serde_json::to_string(&reference).unwrap();
        assert_eq!(
            serde_json::from_str::<ImageReference>(&json).unwrap(),
            reference
        );
        assert!("//a".parse::<ImageReference>().is_err());
        assert!("/".parse::<ImageReference>().is_err());
    }

    #[test]
    fn what_is_written_out_is_understood_without_the_library() {
        let digest = Digest::of(b"image");
        for text in [
            "/3rdparty/redis:7".to_owned(),
            "localhost/a:v1".to_owned(),
            "127.0.0.1:5000/a/b:v1".to_owned(),
            format!("registry.example:11443/3rdparty/redis:7@{digest}"),
            format!("registry.example/a@{digest}"),
        ] {
            let reference = ImageReference::from_whole(&text);
            assert_eq!(reference.map(|it| it.encode()), Some(text));
        }
        for text in ["a:v1", "a/b:v1", "docker.io/a:v1", "registry.example/a"] {
            assert_eq!(ImageReference::from_whole(text), None, "input: {text}");
        }
    }

    #[test]
    fn repository_follows_the_specification() {
        for good in ["a", "a/b", "a__b", "a--b/c.d", "library/busybox"] {
            assert!(good.parse::<Repository>().is_ok(), "input: {good:?}");
        }
        for bad in [
            "", "A", "a//b", "/a", "a/", "..", "a/../b", "a._b", "-a", "a___b",
        ] {
            assert!(bad.parse::<Repository>().is_err(), "input: {bad:?}");
        }
    }

    #[test]
    fn platforms() {
        assert!("linux/amd64".parse::<Platform>().is_ok());
        assert!("linux/arm/v7".parse::<Platform>().is_ok());
        for bad in ["linux", "linux/", "/amd64", "a/b/c/d", "linux/a b"] {
            assert!(bad.parse::<Platform>().is_err(), "input: {bad:?}");
        }
    }

    proptest! {
        #[test]
        fn tags_round_trip(text in "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}") {
            prop_assert_eq!(text.parse::<Tag>().unwrap().to_string(), text);
        }

        #[test]
        fn what_is_written_out_means_to_us_what_it_means_to_the_library(
            host in "(|localhost|[a-zA-Z0-9.-]{1,12}|([a-z0-9]{1,3}[.-]?){1,3}|(index\\.)?docker\\.io)(:[0-9]{0,5})?",
            path in "[a-z0-9]{1,4}([._/-]{1,2}[a-zA-Z0-9]{1,3}){0,3}",
            tag in "(:[A-Za-z0-9_.-]{0,6})?",
            digest in "(@sha256:([0-9a-f]{64}|[0-9a-fA-F]{62,65}))?",
        ) {
            let text = format!("{host}/{path}{tag}{digest}");
            if let Some(ours) = ImageReference::from_whole(&text) {
                let hosted = if host.is_empty() {
                    format!("{PLACEHOLDER_REGISTRY}{text}")
                } else {
                    text.clone()
                };
                let theirs = ImageReference::from_any(&hosted).unwrap();
                prop_assert_eq!(&ours.registry, if host.is_empty() { "" } else { &theirs.registry });
                prop_assert_eq!(ours.repository, theirs.repository);
                prop_assert_eq!((ours.tag, ours.digest), (theirs.tag, theirs.digest));
            }
        }

        #[test]
        fn parse_never_panics(text in ".{0,300}") {
            let _ = text.parse::<ImageReference>();
            let _ = text.parse::<Repository>();
        }
    }
}
