//! Paths, headers and answers of the registry.

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// An answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// What a path stands for.
pub(super) enum Route<'a> {
    Version,
    Begin(&'a str),
    Session(&'a str, u64),
    Blob(&'a str, &'a str),
    Manifest(&'a str, &'a str),
}

impl<'a> Route<'a> {
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/v2/")?;
        if rest.is_empty() {
            return Some(Self::Version);
        }
        if let Some((repository, id)) = rest.split_once("/blobs/uploads/") {
            return match id {
                "" => Some(Self::Begin(repository)),
                id => Some(Self::Session(repository, id.parse().ok()?)),
            };
        }
        if let Some((repository, digest)) = rest.split_once("/blobs/") {
            return Some(Self::Blob(repository, digest));
        }
        let (repository, reference) = rest.split_once("/manifests/")?;
        Some(Self::Manifest(repository, reference))
    }
}

pub(super) fn answer(status: u16) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status.try_into().unwrap();
    answer
}

pub(super) fn refusal(status: u16, code: &str) -> Answer {
    let body = serde_json::json!({"errors": [{"code": code}]}).to_string();
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status.try_into().unwrap();
    answer
}

pub(super) fn with(mut answer: Answer, name: &HeaderName, value: &str) -> Answer {
    let value = HeaderValue::try_from(value).unwrap();
    answer.headers_mut().insert(name, value);
    answer
}

pub(super) fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> &'h str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap_or_default())
}

pub(super) fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    text(headers, name).parse().ok()
}
