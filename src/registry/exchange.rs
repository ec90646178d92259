//! One operation: authorised, redirected, repeated.
//!
//! # States
//!
//! ```text
//! attempt: permit -> authorise -> send -+-> 401: authorise again -> send, once
//!                                       +-> redirection (GET and HEAD): send there, at most five times
//!                                       +-> expected status: done
//!                                       `-> anything else: error; a transient one starts the next attempt
//! ```

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{HeaderMap, LOCATION};
use tokio::time::Instant;
use url::Url;

use super::auth::{Authenticator, Authorization};
use super::error::Error;
use super::link::{self, Place};
use super::options::Options;
use super::pace::{Kind, Report, Resting};
use super::payload::Payload;
use super::scope::Scopes;
use super::wire::{Answer, Request, Wire};
use crate::base::Clock;
use crate::transport::{Action, Attempts, Retries};

/// The most redirections that are followed. Storage behind a registry is one or two away.
const REDIRECTIONS_MAX: u32 = 5;

/// Carries out requests to one registry.
#[derive(Debug)]
pub(super) struct Exchange {
    wire: Arc<Wire>,
    auth: Authenticator,
    retries: Retries,
    clock: Arc<dyn Clock>,
}

/// A request and what it needs.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) request: Request,
    /// What a token must allow.
    pub(super) scopes: Scopes,
    /// The statuses that are not errors.
    pub(super) expected: &'static [u16],
}

/// An answer that has come in as a whole.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Exchange {
    pub(super) fn new(options: &Options, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        options.retries.check()?;
        let wire = Arc::new(Wire::new(options)?);
        Ok(Self {
            auth: Authenticator::new(Arc::clone(&wire), options, Arc::clone(&clock)),
            retries: options.retries,
            wire,
            clock,
        })
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Returns a description for errors.
    pub(super) fn action(&self, doing: String) -> Action {
        Action::new(doing, &self.wire.address)
    }

    /// Returns the URL of `path`, which has no leading slash and is made of parsed parts.
    pub(super) fn url(&self, path: &str) -> Url {
        self.wire
            .base
            .join(path)
            .expect("repositories, tags and digests are made of characters that a path may have")
    }

    /// Starts the count of attempts of an operation.
    pub(super) fn attempts(&self) -> Attempts<'_> {
        self.retries.attempts(&self.wire.tally.retries)
    }

    /// Carries out an operation, as often as it takes and is allowed.
    pub(super) async fn run(&self, operation: &Operation) -> Result<Answer, Error> {
        let mut attempts = self.attempts();
        loop {
            match self.run_once(operation).await {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.pause(error, Error::retry_after).await?,
            }
        }
    }

    /// Like [`Exchange::run`], with the whole body, so that a body that is cut is asked for again.
    pub(super) async fn run_whole(
        &self,
        operation: &Operation,
        bytes_max: usize,
    ) -> Result<Whole, Error> {
        let mut attempts = self.attempts();
        loop {
            match self.run_whole_once(operation, bytes_max).await {
                Ok(whole) => return Ok(whole),
                Err(error) => attempts.pause(error, Error::retry_after).await?,
            }
        }
    }

    async fn run_whole_once(
        &self,
        operation: &Operation,
        bytes_max: usize,
    ) -> Result<Whole, Error> {
        let answer = self.run_once(operation).await?;
        Ok(Whole {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: answer.body(bytes_max).await?,
        })
    }

    /// Carries out an operation once, when its turn has come.
    pub(super) async fn run_once(&self, operation: &Operation) -> Result<Answer, Error> {
        let request = &operation.request;
        let Some(kind) = Kind::of(request) else {
            return Box::pin(self.run_now(operation)).await;
        };
        let entering = self.wire.pace.enter(kind, identity(request));
        let mut permit = entering.await.map_err(|resting| self.resting(resting))?;
        let has_blob = matches!(request.payload, Payload::Blob(_));
        // Boxed, so that the futures of operations, which contain several of these, stay small.
        let mut outcome = Box::pin(self.run_now(operation)).await;
        permit.settle(match &outcome {
            Ok(answer) => Report::of_answer(answer.took(), answer.blob_bytes()),
            Err(error) => Report::of_error(error, has_blob),
        });
        // Of other answers nobody reads the body, and some keep them while they ask for more.
        if let Ok(answer) = &mut outcome
            && request.method == Method::GET
        {
            answer.keep(permit);
        }
        outcome
    }

    fn resting(&self, resting: Resting) -> Error {
        let rest = resting.until.saturating_duration_since(Instant::now());
        Error::Resting {
            address: self.wire.address.clone(),
            until: self.clock.now() + rest,
        }
    }

    async fn run_now(&self, operation: &Operation) -> Result<Answer, Error> {
        let mut request = operation.request.clone();
        let mut redirections = 0;
        loop {
            let answer = self.send(&request, &operation.scopes).await?;
            let status = answer.status();
            if operation.expected.contains(&status) {
                return Ok(answer);
            }
            let is_redirection = matches!(status, 301 | 302 | 303 | 307 | 308)
                && matches!(request.method, Method::GET | Method::HEAD);
            if !is_redirection {
                return Err(answer.into_error(self.auth.user(), self.clock.now()).await);
            }
            redirections += 1;
            if redirections > REDIRECTIONS_MAX {
                return Err(answer.broken(format!(
                    "expected at most {REDIRECTIONS_MAX} redirections, found more"
                )));
            }
            request.url = self.location(&answer, &request.url)?.url;
        }
    }

    /// Sends a request with what it needs to be let in, where it may have that.
    async fn send(&self, request: &Request, scopes: &Scopes) -> Result<Answer, Error> {
        if !self.wire.is_ours(&request.url) {
            return self.wire.send(request, None).await;
        }
        let body_bytes = request.payload.size_bytes();
        let used = self.auth.authorize(scopes, body_bytes).await?;
        let sent = self.send_as(request, &used).await;
        if body_bytes > 0 && matches!(sent, Err(Error::Cut { .. })) {
            self.auth.doubt(&used);
        }
        let answer = sent?;
        if self.auth.accept(&answer).await? {
            return Ok(answer);
        }
        match self.auth.authorize_again(&answer, scopes, &used).await? {
            Some(other) => self.send_as(request, &other).await,
            None => Ok(answer),
        }
    }

    async fn send_as(
        &self,
        request: &Request,
        authorization: &Authorization,
    ) -> Result<Answer, Error> {
        let header = Authenticator::header(authorization)?;
        self.wire.send(request, header).await
    }

    /// Returns where the `Location` header of the answer to a request to `url` leads.
    pub(super) fn location(&self, answer: &Answer, url: &Url) -> Result<Place, Error> {
        let location = answer
            .header(LOCATION.as_str())
            .ok_or_else(|| answer.broken("expected a `Location` header, found none".to_owned()))?;
        link::resolve(&self.wire.base, url, location).map_err(|refusal| {
            answer.broken(match refusal {
                link::Refusal::Malformed => {
                    format!("expected a URL, found `{}`", location.escape_debug())
                }
                link::Refusal::Downgrade => {
                    "expected a location with TLS, found one without".to_owned()
                }
            })
        })
    }
}

/// Returns what tells operations apart, so that one that is repeated is known as one.
fn identity(request: &Request) -> u64 {
    let mut hasher = DefaultHasher::new();
    request.method.hash(&mut hasher);
    request.url.path().hash(&mut hasher);
    hasher.finish()
}
