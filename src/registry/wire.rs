//! One HTTP request and its answer: connections, TLS, progress, and what broken connections mean.
//!
//! Knows nothing of repositories, tokens or repetition.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use http_body_util::BodyDataStream;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::error::{Error, User};
use super::options::Options;
use super::pace::{Pace, Permit};
use super::payload::{Fault, Payload};
use super::refusal::{BODY_BYTES_MAX, Refusal};
use crate::base::Timestamp;
use crate::transport::{
    Action, CertificateProblem, Proxies, Share, find_refused_identity, find_source,
    parse_retry_after,
};

/// What a client has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// HTTP requests of every kind, those for tokens included.
    pub requests: u64,
    /// Bytes of blobs and manifests that were handed to a connection, those of failed attempts included.
    pub bytes_sent: u64,
    /// Bytes of blobs that registries had from uploads of earlier processes, and that were not sent again.
    pub bytes_resumed: u64,
    /// Operations that were tried once more.
    pub retries: u64,
    /// Tokens that were granted.
    pub tokens: u64,
}

/// The live side of [`Counters`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) requests: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) bytes_resumed: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) tokens: AtomicU64,
}

impl Tally {
    /// Returns the counts as of now.
    pub(super) fn counters(&self) -> Counters {
        Counters {
            requests: self.requests.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            bytes_resumed: self.bytes_resumed.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            tokens: self.tokens.load(Ordering::Relaxed),
        }
    }
}

/// A request, except for who asks.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) payload: Payload,
    pub(super) action: Action,
}

impl Request {
    /// Returns a request without headers and payload.
    pub(super) fn new(method: Method, url: Url, action: Action) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            payload: Payload::Nothing,
            action,
        }
    }
}

/// What becomes of a body while it goes out.
#[derive(Debug, Default)]
struct Outflow {
    /// Moves as long as something goes out, or waits for the bandwidth.
    progress: Arc<AtomicU64>,
    /// Bytes that the connection was given.
    handed: Arc<AtomicU64>,
    /// Why the content could not be read.
    fault: Fault,
}

/// Sends requests.
#[derive(Debug)]
pub(super) struct Wire {
    http: reqwest::Client,
    /// The registry, as the options name it.
    pub(super) address: String,
    /// The URL that every request to the registry starts from.
    pub(super) base: Url,
    /// The proxy that every connection goes through.
    proxy: Option<String>,
    /// The proxy that answers in place of a server without TLS, for messages.
    answering_proxy: Option<String>,
    pub(super) tally: Arc<Tally>,
    /// Who may ask, and how fast blobs go.
    pub(super) pace: Arc<Pace>,
    idle: Duration,
    /// How long the first byte may take: a connection may have to be made first.
    first: Duration,
}

impl Wire {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let base = options.base_url()?;
        Ok(Self {
            http: options.client(&base)?,
            address: options.address.clone(),
            base,
            proxy: match &options.proxies {
                Proxies::Through(proxy) => Some(proxy.to_string()),
                Proxies::Ignore | Proxies::Environment => None,
            },
            answering_proxy: match &options.proxies {
                Proxies::Through(proxy) => Some(proxy.to_string()),
                Proxies::Environment => Some("that the environment names".to_owned()),
                Proxies::Ignore => None,
            },
            tally: Arc::default(),
            pace: Arc::new(Pace::new(options.pace, options.timeouts.idle)),
            idle: options.timeouts.idle,
            first: options.timeouts.idle.max(options.timeouts.connect),
        })
    }

    /// Returns whether a URL is the registry's own: only there may credentials go.
    pub(super) fn is_ours(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Sends `request` once. Any status is an answer.
    pub(super) async fn send(
        &self,
        request: &Request,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, Error> {
        let mut outflow = Outflow::default();
        let mut prepared = self.prepare(request, &mut outflow).await?;
        if let Some(mut value) = authorization {
            value.set_sensitive(true);
            prepared = prepared.header(AUTHORIZATION, value);
        }
        self.tally.requests.fetch_add(1, Ordering::Relaxed);
        Share::note_request();
        let begun_at = Instant::now();
        let outcome = self.watch(&outflow.progress, prepared.send()).await;
        let blob = match &request.payload {
            Payload::Blob(blob) => Some(blob),
            Payload::Nothing | Payload::Form(_) | Payload::Bytes(_) => None,
        };
        if let (Some(source), Some(blob)) = (outflow.fault.take(), blob) {
            return Err(Error::Source {
                digest: blob.digest,
                source,
            });
        }
        match outcome {
            Some(Ok(response)) => self.check_proxy(request, &response).map(|()| Answer {
                response,
                action: request.action.clone(),
                idle: self.idle,
                took: begun_at.elapsed(),
                blob_bytes: blob.map(|_| outflow.handed.load(Ordering::Relaxed)),
                permit: None,
            }),
            Some(Err(error)) => Err(self.explain(request, error)),
            None => Err(Error::Stalled {
                action: request.action.clone(),
                idle: self.idle,
            }),
        }
    }

    /// Puts a request together for the library.
    async fn prepare(
        &self,
        request: &Request,
        outflow: &mut Outflow,
    ) -> Result<RequestBuilder, Error> {
        let builder = self
            .http
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers.clone());
        Ok(match &request.payload {
            Payload::Nothing if matches!(request.method, Method::POST | Method::PUT) => {
                builder.header(CONTENT_LENGTH, 0)
            }
            Payload::Nothing => builder,
            Payload::Form(form) => builder.body(form.expose().to_owned()),
            Payload::Bytes(bytes) => {
                let count = bytes.len() as u64;
                self.tally.bytes_sent.fetch_add(count, Ordering::Relaxed);
                builder.body(bytes.clone())
            }
            Payload::Blob(blob) => {
                let progress = Arc::clone(&outflow.progress);
                let (body, fault) = blob.body(progress, Arc::clone(&self.tally)).await?;
                outflow.fault = fault;
                builder
                    .header(CONTENT_LENGTH, blob.length_bytes())
                    .body(self.throttle(body, &outflow.progress, &outflow.handed))
            }
        })
    }

    /// Refuses what a proxy says that wants to know first who we are: a tunnel would not have come about.
    fn check_proxy(&self, request: &Request, response: &Response) -> Result<(), Error> {
        let Some(proxy) = &self.answering_proxy else {
            return Ok(());
        };
        let is_of_proxy = response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
            && request.url.scheme() == "http";
        match response.error_for_status_ref() {
            Err(source) if is_of_proxy => Err(Error::Proxy {
                address: self.address_for(request),
                proxy: proxy.clone(),
                source: source.without_url(),
            }),
            _ => Ok(()),
        }
    }

    /// Returns the server that a request goes to, for messages.
    fn address_for(&self, request: &Request) -> String {
        if self.is_ours(&request.url) {
            self.address.clone()
        } else {
            request.url.authority().to_owned()
        }
    }

    /// Lets a body through as fast as the bandwidth allows, and counts the bytes. Waiting for that is progress.
    fn throttle(&self, body: Body, progress: &Arc<AtomicU64>, handed: &Arc<AtomicU64>) -> Body {
        let handed = Arc::clone(handed);
        let pieces = self
            .pace
            .throttle(BodyDataStream::new(body), Arc::clone(progress));
        Body::wrap_stream(pieces.inspect_ok(move |piece| {
            handed.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }))
    }

    /// Awaits `future` as long as `progress` moves; `None` when it stood still.
    async fn watch<T>(&self, progress: &AtomicU64, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        let mut seen = progress.load(Ordering::Relaxed);
        let mut limit = self.first;
        loop {
            if let Ok(value) = tokio::time::timeout(limit, &mut future).await {
                return Some(value);
            }
            let now = progress.load(Ordering::Relaxed);
            if now == seen {
                return None;
            }
            seen = now;
            limit = self.idle;
        }
    }

    /// Says what a failed exchange means.
    fn explain(&self, request: &Request, error: reqwest::Error) -> Error {
        let error = error.without_url();
        let address = self.address_for(request);
        if let Some(problem) = CertificateProblem::find(&error) {
            return Error::Certificate { address, problem };
        }
        if let Some(problem) = find_refused_identity(&error) {
            return Error::Identity { address, problem };
        }
        let tls = find_source::<rustls::Error>(&error);
        if let Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) = tls
        {
            return Error::PlainServer { address };
        }
        let is_gibberish = find_source::<hyper::Error>(&error).is_some_and(hyper::Error::is_parse);
        if is_gibberish && request.url.scheme() == "http" {
            return Error::TlsServer { address };
        }
        if let (Some(proxy), true) = (&self.proxy, error.is_connect()) {
            return Error::Proxy {
                address,
                proxy: proxy.clone(),
                source: error,
            };
        }
        if tls.is_some() || error.is_connect() {
            return Error::Unreachable {
                address,
                source: error,
            };
        }
        Error::Cut {
            action: request.action.clone(),
            source: error,
        }
    }
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub(super) struct Answer {
    response: Response,
    action: Action,
    idle: Duration,
    /// From the begin of the request to the end of the headers.
    took: Duration,
    /// How much of a blob the request carried, if it did.
    blob_bytes: Option<u64>,
    /// Given back with the last piece of the body.
    permit: Option<Permit>,
}

impl Answer {
    /// Returns the HTTP status.
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Returns how long it took until the answer came, without its body.
    pub(super) const fn took(&self) -> Duration {
        self.took
    }

    /// Returns how many bytes of a blob the request carried, if it did.
    pub(super) const fn blob_bytes(&self) -> Option<u64> {
        self.blob_bytes
    }

    /// Keeps the permit of the request until the body was read.
    pub(super) fn keep(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Returns all headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Returns the first header of this name, where it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Returns the next piece of the body.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let outcome = tokio::time::timeout(self.idle, self.response.chunk()).await;
        if !matches!(outcome, Ok(Ok(Some(_)))) {
            self.permit = None;
        }
        match outcome {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(Error::Cut {
                action: self.action.clone(),
                source: error.without_url(),
            }),
            Err(_) => Err(Error::Stalled {
                action: self.action.clone(),
                idle: self.idle,
            }),
        }
    }

    /// Reads the whole body, which must not be longer than `bytes_max`.
    pub(super) async fn body(mut self, bytes_max: usize) -> Result<Bytes, Error> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > bytes_max {
                return Err(self.broken(format!("expected at most {bytes_max} bytes, found more")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Returns the error for an answer that breaks the protocol.
    pub(super) fn broken(&self, reason: String) -> Error {
        Error::Answer {
            action: self.action.clone(),
            reason,
        }
    }

    /// Reads the answer as a refusal of `user`.
    pub(super) async fn into_error(mut self, user: User, now: Timestamp) -> Error {
        let retry_after = self
            .header(RETRY_AFTER.as_str())
            .and_then(|text| parse_retry_after(text, now));
        let status = self.status();
        let mut body = BytesMut::new();
        // A body that is cut or too long is still the best explanation there is.
        while let Ok(Some(chunk)) = self.chunk().await {
            let room = BODY_BYTES_MAX - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() >= room {
                break;
            }
        }
        Refusal::parse(&body).into_error(self.action, status, user, retry_after)
    }
}
