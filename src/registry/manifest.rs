//! Manifests.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::exchange::Operation;
use super::payload::Payload;
use super::scope::Scopes;
use super::wire::Request;
use super::{Client, Error};
use crate::base::oci::{
    Descriptor, MANIFEST_BYTES_MAX, MEDIA_TYPE_DOCKER_LIST, MEDIA_TYPE_DOCKER_MANIFEST,
    MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST, Manifest,
};
use crate::base::{Digest, Repository, Tag};

/// Header with the digest of what is answered or was taken (OCI distribution-spec v1.1.0, "Pulling manifests").
const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ManifestReference {
    /// By a name that can move.
    Tag(Tag),
    /// By its content.
    Digest(Digest),
}

impl ManifestReference {
    const fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Digest(digest) => Some(digest),
            Self::Tag(_) => None,
        }
    }

    /// Returns the character that people put before it.
    const fn separator(&self) -> char {
        match self {
            Self::Digest(_) => '@',
            Self::Tag(_) => ':',
        }
    }
}

impl fmt::Display for ManifestReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => fmt::Display::fmt(tag, f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

impl Client {
    /// Returns what is under a reference, or `None`. One `HEAD` where the registry tells the digest and the size,
    /// otherwise the manifest is read and hashed.
    pub async fn find_manifest(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
    ) -> Result<Option<Descriptor>, Error> {
        let mut operation = self.manifest_operation("find", repository, reference);
        operation.request.method = Method::HEAD;
        operation.request.headers = accept_manifests();
        operation.expected = &[200, 404];
        let answer = self.exchange().run(&operation).await?;
        if answer.status() == 404 {
            return Ok(None);
        }
        let Some(descriptor) = descriptor_of(answer.headers()) else {
            return match self.get_manifest(repository, reference).await {
                Ok((descriptor, _)) => Ok(Some(descriptor)),
                // Deleted in between.
                Err(Error::Absent { .. } | Error::RepositoryUnknown { .. }) => Ok(None),
                Err(error) => Err(error),
            };
        };
        check_digest(&operation, reference.digest(), descriptor.digest)?;
        Ok(Some(descriptor))
    }

    /// Returns a manifest, byte for byte, whose digest is the one asked for and the one announced.
    pub async fn get_manifest(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
    ) -> Result<(Descriptor, Bytes), Error> {
        let mut operation = self.manifest_operation("read", repository, reference);
        operation.request.headers = accept_manifests();
        let bytes_max = usize::try_from(MANIFEST_BYTES_MAX).expect("a few MiB fit");
        let whole = self.exchange().run_whole(&operation, bytes_max).await?;
        let (headers, bytes) = (whole.headers, whole.body);
        let digest = Digest::of(&bytes);
        check_digest(&operation, reference.digest(), digest)?;
        check_digest(&operation, announced_digest(&headers).as_ref(), digest)?;
        let media_type = match media_type(&headers) {
            Some(media_type) => media_type,
            None => Manifest::parse(&bytes)
                .map(|(_, media_type)| media_type)
                .map_err(|error| Error::Answer {
                    action: operation.request.action,
                    reason: format!("{error}, found something else"),
                })?,
        };
        let descriptor = Descriptor {
            media_type,
            digest,
            size_bytes: bytes.len() as u64,
        };
        Ok((descriptor, bytes))
    }

    /// Puts a manifest under a reference. What it points to must be there already.
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), Error> {
        let mut operation = self.manifest_operation("write", repository, reference);
        let digest = Digest::of(&bytes);
        check_digest(&operation, reference.digest(), digest)?;
        let media_type = HeaderValue::from_str(media_type).map_err(|_| Error::Answer {
            action: operation.request.action.clone(),
            reason: format!(
                "expected a media type, found `{}`",
                media_type.escape_debug()
            ),
        })?;
        operation.request.method = Method::PUT;
        operation.request.headers.insert(CONTENT_TYPE, media_type);
        operation.request.payload = Payload::Bytes(bytes.clone());
        operation.scopes = Scopes::push(repository);
        operation.expected = &[200, 201];
        let running = self.exchange().run(&operation).await;
        let answer = running.map_err(|error| name_foreign_layers(error, &bytes))?;
        match announced_digest(answer.headers()) {
            Some(announced) => check_digest(&operation, Some(&digest), announced),
            None => Ok(()),
        }
    }

    fn manifest_operation(
        &self,
        verb: &str,
        repository: &Repository,
        reference: &ManifestReference,
    ) -> Operation {
        let separator = reference.separator();
        Operation {
            request: Request::new(
                Method::GET,
                self.exchange()
                    .url(&format!("v2/{repository}/manifests/{reference}")),
                self.exchange().action(format!(
                    "{verb} manifest {repository}{separator}{reference}"
                )),
            ),
            scopes: Scopes::pull(repository),
            expected: &[200],
        }
    }
}

/// Tells content that is missing from layers that the registry does not want to know elsewhere.
fn name_foreign_layers(error: Error, manifest: &[u8]) -> Error {
    if let Error::ManifestBlobUnknown {
        action,
        message,
        missing,
    } = &error
        && lists_foreign(manifest, missing)
    {
        return Error::ForeignLayers {
            action: action.clone(),
            message: message.clone(),
            missing: missing.clone(),
        };
    }
    error
}

/// Returns whether one of these digests is a layer for which the manifest names URLs; where there are none, because the
/// registry does not say what is missing, whether it has such a layer.
fn lists_foreign(manifest: &[u8], digests: &BTreeSet<Digest>) -> bool {
    let document: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
    let layers = document["layers"].as_array().into_iter().flatten();
    let mut foreign =
        layers.filter(|layer| layer["urls"].as_array().is_some_and(|it| !it.is_empty()));
    foreign.any(|layer| {
        let digest = layer["digest"].as_str().and_then(|text| text.parse().ok());
        digests.is_empty() || digest.is_some_and(|digest| digests.contains(&digest))
    })
}

fn check_digest(
    operation: &Operation,
    expected: Option<&Digest>,
    found: Digest,
) -> Result<(), Error> {
    match expected {
        Some(expected) if *expected != found => Err(Error::DigestMismatch {
            action: operation.request.action.clone(),
            expected: *expected,
            found,
        }),
        Some(_) | None => Ok(()),
    }
}

/// Accepts every kind of manifest: a registry may convert, or refuse, what is not named.
fn accept_manifests() -> HeaderMap {
    let all = [
        MEDIA_TYPE_INDEX,
        MEDIA_TYPE_MANIFEST,
        MEDIA_TYPE_DOCKER_LIST,
        MEDIA_TYPE_DOCKER_MANIFEST,
    ];
    let mut headers = HeaderMap::new();
    for media_type in all {
        headers.append(ACCEPT, HeaderValue::from_static(media_type));
    }
    headers
}

/// Returns the digest that the registry announces, where it is one that we can compare.
fn announced_digest(headers: &HeaderMap) -> Option<Digest> {
    headers
        .get(DOCKER_CONTENT_DIGEST)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Returns the `Content-Type` without parameters.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = text.split(';').next()?.trim();
    (!media_type.is_empty()).then(|| media_type.to_owned())
}

/// Returns what the headers of an answer to `HEAD` say, if they say all of it.
fn descriptor_of(headers: &HeaderMap) -> Option<Descriptor> {
    Some(Descriptor {
        media_type: media_type(headers)?,
        digest: announced_digest(headers)?,
        size_bytes: content_length(headers)?,
    })
}

/// Returns the size that the headers of an answer to `HEAD` announce.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
