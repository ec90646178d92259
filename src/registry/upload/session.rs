//! What is said to a registry about one upload: begin, send a part, where are you, done, forget it.
//!
//! # Failure
//!
//! Nothing here is repeated. Every answer may name another place where the upload goes on: distribution signs into it how much it
//! has, so that only the latest one is any good.

use std::fmt;

use reqwest::Method;
use reqwest::header::{CONNECTION, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use url::Url;

use super::super::exchange::Operation;
use super::super::link;
use super::super::payload::{Blob, Payload};
use super::super::scope::Scopes;
use super::super::wire::{Answer, Request};
use super::chunk::Chunk;
use super::mount::Mount;
use super::range::{self, content_range};
use super::{CANCEL_TIMEOUT, Client, Error, Unfinished};
use crate::base::{Digest, Repository, Secret, Timestamp};

/// The least that a registry wants in each chunk but the last (OCI distribution-spec v1.1.0, "Pushing a blob in chunks").
const OCI_CHUNK_MIN_LENGTH: &str = "oci-chunk-min-length";

/// An upload that the registry expects.
#[derive(Clone)]
pub(super) struct Session {
    url: Url,
    /// What the registry has for sure, in bytes.
    pub(super) offset_bytes: u64,
    /// The least that it wants in each chunk but the last, in bytes.
    pub(super) chunk_bytes_min: u64,
    pub(super) begun_at: Timestamp,
}

impl fmt::Debug for Session {
    /// Says nothing of the URL: who has it may be able to upload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("offset_bytes", &self.offset_bytes)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Returns what is written down of it, for a blob of this size.
    pub(super) fn unfinished(&self, size_bytes: u64) -> Unfinished {
        Unfinished {
            url: Secret::new(self.url.as_str().to_owned()),
            offset_bytes: self.offset_bytes,
            size_bytes,
            begun_at: self.begun_at,
        }
    }
}

impl Client {
    /// Begins an upload, with a mount where that is asked for. `None` where the blob is there.
    pub(super) async fn begin_session(
        &self,
        repository: &Repository,
        digest: &Digest,
        mount: Mount<'_>,
    ) -> Result<Option<Session>, Error> {
        let exchange = self.exchange();
        let mut url = exchange.url(&format!("v2/{repository}/blobs/uploads/"));
        let mut scopes = Scopes::push(repository);
        let mut doing = format!("begin an upload to {repository}");
        let from = match mount {
            Mount::From(from) => Some(from),
            Mount::Itself => Some(repository),
            Mount::No => None,
        };
        if let Some(from) = from {
            url.query_pairs_mut()
                .append_pair("mount", &digest.to_string())
                .append_pair("from", from.as_str());
            scopes = scopes.and_pull(from);
            doing = format!("mount blob {digest} of {from} to {repository}");
        }
        let operation = Operation {
            request: Request::new(Method::POST, url, exchange.action(doing)),
            scopes,
            expected: if from.is_some() { &[201, 202] } else { &[202] },
        };
        let answer = exchange.run_once(&operation).await?;
        if answer.status() == 201 {
            return Ok(None);
        }
        let chunk_bytes_min = answer
            .header(OCI_CHUNK_MIN_LENGTH)
            .and_then(|text| text.trim().parse().ok());
        Ok(Some(Session {
            url: exchange.location(&answer, &operation.request.url)?.url,
            offset_bytes: 0,
            chunk_bytes_min: chunk_bytes_min.unwrap_or(0),
            begun_at: self.learned().clock.now(),
        }))
    }

    /// Returns the session that was written down; `None` where that is none of this registry: its address may have been changed
    /// since, and the blob is not to end at the former one.
    pub(super) fn known_session(&self, upload: &Unfinished) -> Option<Session> {
        Some(Session {
            url: self.session_url(upload)?,
            offset_bytes: upload.offset_bytes,
            chunk_bytes_min: 0,
            begun_at: upload.begun_at,
        })
    }

    pub(super) fn session_url(&self, upload: &Unfinished) -> Option<Url> {
        let base = &self.exchange().wire().base;
        let place = link::resolve(base, base, upload.url.expose()).ok()?;
        place.is_ours.then_some(place.url)
    }

    /// Asks how much the registry has, and puts the session there.
    pub(super) async fn ask_session(
        &self,
        repository: &Repository,
        session: &mut Session,
        size_bytes: u64,
    ) -> Result<(), Error> {
        let exchange = self.exchange();
        let operation = Operation {
            request: Request::new(
                Method::GET,
                session.url.clone(),
                exchange.action(format!("ask for the state of an upload to {repository}")),
            ),
            scopes: Scopes::push(repository),
            // 204 by the specification; GitLab's and older ones say 202.
            expected: &[200, 202, 204],
        };
        let answer = exchange.run_once(&operation).await?;
        let text = answer.header(RANGE.as_str()).unwrap_or_default();
        let Some(offset_bytes) = range::parse(text) else {
            return Err(answer.broken(format!(
                "expected a range from 0 on, found `{}`",
                text.escape_debug()
            )));
        };
        self.move_session(session, &answer, offset_bytes, size_bytes)
    }

    /// Sends one chunk of `blob`, from where the session is.
    pub(super) async fn patch_session(
        &self,
        repository: &Repository,
        session: &mut Session,
        blob: &Blob,
        chunk: Chunk,
    ) -> Result<(), Error> {
        let exchange = self.exchange();
        let (offset_bytes, size_bytes) = (session.offset_bytes, blob.size_bytes);
        let range = content_range(offset_bytes, chunk.bytes);
        let doing = format!(
            "upload bytes {range} of blob {} to {repository}",
            blob.digest
        );
        let mut request = Request::new(Method::PATCH, session.url.clone(), exchange.action(doing));
        put_octet_stream(&mut request);
        let range = HeaderValue::try_from(range).expect("digits and a hyphen");
        request.headers.insert(CONTENT_RANGE, range);
        if chunk.is_alone {
            let close = HeaderValue::from_static("close");
            request.headers.insert(CONNECTION, close);
        }
        request.payload = Payload::Blob(blob.part(offset_bytes, chunk.bytes));
        let operation = Operation {
            request,
            scopes: Scopes::push(repository),
            // 202 by the specification, 204 by some.
            expected: &[202, 204],
        };
        let answer = exchange.run_once(&operation).await?;
        let sent_bytes = offset_bytes + chunk.bytes;
        let text = answer.header(RANGE.as_str());
        let offset_bytes = text
            .and_then(|text| range::parse_after(text, sent_bytes))
            .unwrap_or(sent_bytes);
        if offset_bytes <= session.offset_bytes {
            return Err(answer.broken(format!(
                "expected the registry to have more than {} bytes, found {offset_bytes}",
                session.offset_bytes
            )));
        }
        self.move_session(session, &answer, offset_bytes, size_bytes)
    }

    /// Ends an upload, with all of `blob` where the registry has nothing of it yet.
    pub(super) async fn put_session(
        &self,
        repository: &Repository,
        session: &Session,
        blob: &Blob,
    ) -> Result<(), Error> {
        let exchange = self.exchange();
        let mut url = session.url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &blob.digest.to_string());
        let doing = format!("upload blob {} to {repository}", blob.digest);
        let mut request = Request::new(Method::PUT, url, exchange.action(doing));
        put_octet_stream(&mut request);
        if session.offset_bytes < blob.size_bytes {
            request.payload = Payload::Blob(blob.part(0, blob.size_bytes));
        }
        let operation = Operation {
            request,
            scopes: Scopes::push(repository),
            expected: &[201, 204],
        };
        exchange.run_once(&operation).await.map(drop)
    }

    /// Gives up a session. That it is not known is a success.
    pub(super) async fn delete_session(
        &self,
        repository: &Repository,
        url: Url,
    ) -> Result<(), Error> {
        let exchange = self.exchange();
        let action = exchange.action(format!("cancel an upload to {repository}"));
        let operation = Operation {
            request: Request::new(Method::DELETE, url, action.clone()),
            scopes: Scopes::push(repository),
            expected: &[200, 202, 204, 404],
        };
        let deleting = exchange.run_once(&operation);
        match tokio::time::timeout(CANCEL_TIMEOUT, deleting).await {
            Ok(deleted) => deleted.map(drop),
            Err(_) => Err(Error::Stalled {
                action,
                idle: CANCEL_TIMEOUT,
            }),
        }
    }

    /// Gives up a session that this process has begun.
    pub(super) async fn cancel_session(
        &self,
        repository: &Repository,
        session: Session,
    ) -> Result<(), Error> {
        self.delete_session(repository, session.url).await
    }

    /// Takes from an answer where the upload goes on, and how much the registry has.
    fn move_session(
        &self,
        session: &mut Session,
        answer: &Answer,
        offset_bytes: u64,
        size_bytes: u64,
    ) -> Result<(), Error> {
        if offset_bytes > size_bytes {
            return Err(answer.broken(format!(
                "expected at most {size_bytes} bytes, found {offset_bytes}"
            )));
        }
        // By the specification it is there; one that goes on at the same place may leave it out.
        if answer.header(LOCATION.as_str()).is_some() {
            session.url = self.exchange().location(answer, &session.url)?.url;
        }
        session.offset_bytes = offset_bytes;
        Ok(())
    }
}

/// docker-registry 2.8 answers 500 to a PATCH with another type or none.
fn put_octet_stream(request: &mut Request) {
    let value = HeaderValue::from_static("application/octet-stream");
    request.headers.insert(CONTENT_TYPE, value);
}
