//! One HTTP request and its answer: time limits, and the one layer that repeats requests.
//!
//! Knows nothing of tokens or Kubernetes.
//!
//! # Failure
//!
//! Every request is repeated that may succeed later: no connection, a cut one, a time-out, 408, 429, 500, 502, 503, 504.
//! All requests but one are safe to repeat, because they read, or apply a whole document. The exception is the one that
//! carries the password: each copy that arrives may count as a failed login, so it is repeated only if it was certainly
//! not processed ([`Repeat::IfUnprocessed`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use crate::base::{Class, Classified as _, Clock, Secret};
use crate::platform::Counters;
use crate::platform::error::Error;
use crate::platform::message::message_of_body;
use crate::platform::options::AcpOptions;
use crate::transport::{Action, CertificateProblem, Cookies, parse_retry_after};

/// The most that is read of one answer. etcd holds objects of at most 1.5 MiB; lists are asked for by name.
pub(super) const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Whether a request that failed may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Doing it twice is the same as doing it once.
    Always,
    /// Only if the server certainly did nothing: no connection, 429, 503.
    IfUnprocessed,
}

/// A request, except for who asks.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) body: Option<(&'static str, Bytes)>,
    pub(super) action: Action,
    pub(super) repeat: Repeat,
}

impl Request {
    /// Returns a request that reads.
    pub(super) const fn get(url: Url, action: Action) -> Self {
        Self {
            method: Method::GET,
            url,
            body: None,
            action,
            repeat: Repeat::Always,
        }
    }
}

/// An answer with any status that is not worth repeating the request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Answer {
    /// Returns whether the body is a JSON object.
    pub(super) fn is_json(&self) -> bool {
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&self.body).is_ok()
    }

    /// Parses the body as JSON.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, action: &Action) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Answer {
            action: action.clone(),
            // Not the library's words, which may quote the body: there are tokens in some.
            reason: format!(
                "expected JSON of another shape, found a difference at line {} column {}",
                error.line(),
                error.column()
            ),
        })
    }
}

/// The live side of [`Counters`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    requests: AtomicU64,
    retries: AtomicU64,
}

impl Tally {
    /// Returns the counts as of now.
    pub(super) fn counters(&self) -> Counters {
        Counters {
            requests: self.requests.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
        }
    }
}

/// Sends requests.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    http: reqwest::Client,
    options: Arc<AcpOptions>,
    clock: Arc<dyn Clock>,
    /// The URL that every request starts from.
    pub(super) base: Url,
    pub(super) tally: Arc<Tally>,
}

impl Wire {
    pub(super) fn new(options: Arc<AcpOptions>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let base = options.base_url()?;
        Ok(Self {
            http: options.client(&base, Cookies::Ignore)?,
            options,
            clock,
            base,
            tally: Arc::default(),
        })
    }

    /// Returns the same with connections of its own and an empty cookie jar: what one login needs.
    pub(super) fn with_cookies(&self) -> Result<Self, Error> {
        Ok(Self {
            http: self.options.client(&self.base, Cookies::Keep)?,
            ..self.clone()
        })
    }

    /// Returns what is done, for messages.
    pub(super) fn action(&self, doing: String) -> Action {
        Action::new(doing, &self.options.address)
    }

    /// Returns a URL of the platform; `segments` are encoded.
    pub(super) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("http and https URLs have paths")
            .clear()
            .extend(segments);
        url
    }

    /// Sends `request` until there is an answer that repetition would not change, or too many attempts failed.
    pub(super) async fn exchange(
        &self,
        request: &Request,
        token: Option<&Secret>,
    ) -> Result<Answer, Error> {
        let mut attempts = self.options.retries.attempts(&self.tally.retries);
        loop {
            match self.attempt(request, token).await {
                Ok(answer) => return Ok(answer),
                Err(error) if !may_repeat(&error, request.repeat) => return Err(error),
                Err(error) => attempts.pause(error, Error::retry_after).await?,
            }
        }
    }

    /// Sends `request` once and reads the whole answer.
    async fn attempt(&self, request: &Request, token: Option<&Secret>) -> Result<Answer, Error> {
        let limit = self.options.timeouts.request;
        let whole = async {
            let response = self.open(request, token).await?;
            self.finish(response, request).await
        };
        tokio::time::timeout(limit, whole)
            .await
            .unwrap_or_else(|_| {
                Err(Error::TimedOut {
                    action: request.action.clone(),
                    limit,
                })
            })
    }

    /// Sends `request` once and returns the answer with its body unread, whatever the status. Never repeats.
    pub(super) async fn open(
        &self,
        request: &Request,
        token: Option<&Secret>,
    ) -> Result<Response, Error> {
        let mut builder = self
            .http
            .request(request.method.clone(), request.url.clone());
        if let Some(token) = token {
            builder = builder.header(AUTHORIZATION, bearer(token)?);
        }
        if let Some((content_type, body)) = &request.body {
            builder = builder
                .header(CONTENT_TYPE, *content_type)
                .body(body.clone());
        }
        self.tally.requests.fetch_add(1, Ordering::Relaxed);
        let sent = builder.send().await;
        sent.map_err(|error| self.explain(error, &request.action))
    }

    /// Reads the rest of an answer; a status that repetition may change is an error.
    pub(super) async fn finish(
        &self,
        mut response: Response,
        request: &Request,
    ) -> Result<Answer, Error> {
        let (status, action) = (response.status(), &request.action);
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| parse_retry_after(value.to_str().ok()?, self.clock.now()));
        let mut body = BytesMut::new();
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|error| self.explain(error, action))?
        {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(Error::Answer {
                    action: action.clone(),
                    reason: format!("expected an answer of at most {ANSWER_BYTES_MAX} bytes"),
                });
            }
            body.extend_from_slice(&piece);
        }
        if is_passing(status, request.repeat) && !is_untypable(&body) {
            return Err(Error::Busy {
                action: action.clone(),
                status: status.as_u16(),
                retry_after,
                message: message_of_body(&body),
            });
        }
        Ok(Answer {
            status,
            body: body.freeze(),
        })
    }

    /// Returns what a failure of the HTTP library means. URLs are taken out: those of the login carry secrets.
    pub(super) fn explain(&self, error: reqwest::Error, action: &Action) -> Error {
        let address = self.options.address.clone();
        let error = error.without_url();
        if let Some(problem) = CertificateProblem::find(&error) {
            return Error::Certificate { address, problem };
        }
        if error.is_connect() {
            return Error::Unreachable {
                address,
                source: error,
            };
        }
        Error::Cut {
            action: action.clone(),
            source: error,
        }
    }
}

/// Returns whether the server says of a document that it does not fit the schema. Kubernetes does so with status 500
/// (kubernetes/kubernetes#139253), which no repetition changes.
fn is_untypable(body: &[u8]) -> bool {
    message_of_body(body)
        .as_str()
        .contains("failed to create typed patch object")
}

/// Returns whether a status says that the server cannot at the moment. 500 to the password is a verdict on the user.
fn is_passing(status: StatusCode, repeat: Repeat) -> bool {
    match status.as_u16() {
        408 | 429 | 502 | 503 | 504 => true,
        500 => repeat == Repeat::Always,
        _ => false,
    }
}

fn may_repeat(error: &Error, repeat: Repeat) -> bool {
    match repeat {
        Repeat::Always => error.class() == Class::Transient,
        Repeat::IfUnprocessed => matches!(
            error,
            Error::Unreachable { .. }
                | Error::Busy {
                    status: 429 | 503,
                    ..
                }
        ),
    }
}

fn bearer(token: &Secret) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| {
        Error::Options {
            name: "token",
            reason: "expected a token without spaces and line breaks".to_owned(),
        }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_sent_again_only_if_nobody_saw_it() {
        let busy = |status| Error::Busy {
            action: Action::new("test".to_owned(), "platform.example"),
            status,
            retry_after: None,
            message: crate::transport::Message::default(),
        };
        for (status, unprocessed) in [
            (429, true),
            (503, true),
            (500, false),
            (502, false),
            (504, false),
        ] {
            assert!(may_repeat(&busy(status), Repeat::Always));
            assert_eq!(
                may_repeat(&busy(status), Repeat::IfUnprocessed),
                unprocessed,
                "{status}"
            );
        }
    }
}
