//! Who we are, in the way the registry wants it: not at all, Basic, or Bearer with a token from its token server.
//!
//! Whoever has a login asks `GET /v2/` first which way it is. Waiting for a refusal instead would not do: some registries
//! answer an anonymous question with an empty list. Whoever has none just asks; only where the answer looks as if
//! there were no registry is `GET /v2/` asked, too. A later refusal can change the way.
//!
//! # Invariants
//!
//! - Credentials and tokens go to the registry's own scheme, host and port; credentials also to the token server that
//!   it names, and there without TLS only if the registry itself is used without.
//! - A request that is refused is repeated once, with a new token or another login, never with the same one.
//! - A token is replaced before it ends, and before a transfer that it would not outlive: some servers look at it only
//!   once the whole body is there.
//!
//! # References
//!
//! Distribution project, "Token Authentication Specification"; RFC 7617 (Basic), RFC 6750 (Bearer).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use reqwest::Method;
use reqwest::header::HeaderValue;
use url::Url;

use super::challenge::{Challenge, challenges_of};
use super::error::{Error, User};
use super::login::{Credentials, Login, Logins};
use super::options::Options;
use super::realm::Realm;
use super::scope::Scopes;
use super::token::{Token, TokenCache};
use super::wire::{Answer, Request, Wire};
use crate::base::Clock;
use crate::transport::{Action, Message};

/// The longest answer of a token server, in bytes. Tokens with a chain of certificates in them have some KiB.
const TOKEN_ANSWER_BYTES_MAX: usize = 256 << 10;
/// How fast a body is expected to travel at least, in bytes per second, when it is to be told whether a token outlives it: a
/// line of 40 Mbit/s. Chosen; on a slower one a token may end in between, which costs one more only where the server
/// looks at it late.
const TRANSFER_BYTES_PER_SECOND: u64 = 5_000_000;
/// How much of what is said here is shown, in characters.
const MESSAGE_CHARACTERS_MAX: usize = 200;

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scheme {
    Open,
    Basic,
    Bearer(Realm),
}

/// What goes along with a request.
#[derive(Clone, Debug)]
pub(super) enum Authorization {
    None,
    Basic(Arc<Login>),
    Bearer(Arc<Token>),
}

/// Gets requests authorised.
#[derive(Debug)]
pub(super) struct Authenticator {
    wire: Arc<Wire>,
    logins: Logins,
    clock: Arc<dyn Clock>,
    tokens: TokenCache,
    /// `None` until it is known. Locked while the registry is asked, so that it is asked once.
    scheme: tokio::sync::Mutex<Option<Scheme>>,
}

impl Authenticator {
    pub(super) fn new(wire: Arc<Wire>, options: &Options, clock: Arc<dyn Clock>) -> Self {
        Self {
            logins: Logins::new(
                wire.base.clone(),
                options.credentials.clone(),
                options.docker_config.clone(),
                Arc::clone(&clock),
            ),
            wire,
            tokens: TokenCache::new(Arc::clone(&clock)),
            clock,
            scheme: tokio::sync::Mutex::default(),
        }
    }

    /// Returns who asks, for messages.
    pub(super) fn user(&self) -> User {
        User(self.logins.username())
    }

    /// Returns what goes along with a request that needs `scopes` and sends a body of `body_bytes`.
    pub(super) async fn authorize(
        &self,
        scopes: &Scopes,
        body_bytes: u64,
    ) -> Result<Authorization, Error> {
        let known = self.scheme.lock().await.clone();
        let scheme = match known {
            Some(scheme) => scheme,
            // Without scopes it is the question itself whether there is a registry.
            None if *scopes != Scopes::none() && self.logins.current().await?.is_none() => {
                return Ok(Authorization::None);
            }
            None => self.scheme().await?,
        };
        match scheme {
            Scheme::Open => Ok(Authorization::None),
            Scheme::Basic => match self.logins.current().await? {
                Some(login) => self.basic(login),
                None => Err(self.denied(Message::default())),
            },
            Scheme::Bearer(realm) => {
                let transfer = Duration::from_secs(body_bytes / TRANSFER_BYTES_PER_SECOND);
                let fetch = |scopes| self.fetch_token(&realm, scopes);
                let token = self.tokens.get(scopes, transfer, fetch).await?;
                Ok(Authorization::Bearer(token))
            }
        }
    }

    /// Returns whether an answer counts: it is not a refusal, and there is a registry.
    pub(super) async fn accept(&self, answer: &Answer) -> Result<bool, Error> {
        let status = answer.status();
        if status == 401 {
            return Ok(false);
        }
        {
            let mut scheme = self.scheme.lock().await;
            if scheme.is_some() {
                return Ok(true);
            }
            if !is_doubtful(status) || is_of_registry(answer) {
                if (200..=499).contains(&status) && status != 429 {
                    *scheme = Some(Scheme::Open);
                }
                return Ok(true);
            }
        }
        self.scheme().await.map(|scheme| scheme == Scheme::Open)
    }

    /// Returns what goes along with a request whose answer to `used` does not count; `None` where there is nothing else
    /// to try.
    pub(super) async fn authorize_again(
        &self,
        refusal: &Answer,
        scopes: &Scopes,
        used: &Authorization,
    ) -> Result<Option<Authorization>, Error> {
        if refusal.status() != 401 {
            return self.authorize(scopes, 0).await.map(Some);
        }
        let challenges = challenges_of(refusal.headers());
        let scheme = self.choose(&challenges)?;
        *self.scheme.lock().await = Some(scheme.clone());
        match (scheme, used) {
            (Scheme::Open, _) => Ok(None),
            (Scheme::Basic, Authorization::Basic(refused)) => {
                let other = self.logins.renew(Some(refused)).await?;
                other.map(|login| self.basic(login)).transpose()
            }
            (Scheme::Basic, Authorization::None | Authorization::Bearer(_)) => {
                let login = match self.logins.current().await? {
                    Some(login) => Some(login),
                    None => self.logins.renew(None).await?,
                };
                login.map(|login| self.basic(login)).transpose()
            }
            (Scheme::Bearer(realm), used) => {
                if let Authorization::Bearer(token) = used {
                    self.tokens.forget(token);
                }
                let mut scopes = scopes.clone();
                for challenge in &challenges {
                    scopes.merge(challenge.parameter("scope").unwrap_or_default());
                }
                let fetch = |scopes| self.fetch_token(&realm, scopes);
                let token = self.tokens.fetch(&scopes, fetch).await?;
                Ok(Some(Authorization::Bearer(token)))
            }
        }
    }

    /// Forgets the token of a request whose connection broke under its body: a server that refuses a token does not wait
    /// for the body, and its answer may be lost with the connection.
    pub(super) fn doubt(&self, used: &Authorization) {
        if let Authorization::Bearer(token) = used {
            self.tokens.forget(token);
        }
    }

    /// Returns the `Authorization` header.
    pub(super) fn header(authorization: &Authorization) -> Result<Option<HeaderValue>, Error> {
        let text = match authorization {
            Authorization::None => return Ok(None),
            Authorization::Basic(login) => match &**login {
                Login::Password(credentials) => basic(credentials),
                Login::IdentityToken(_) => return Ok(None),
            },
            Authorization::Bearer(token) => format!("Bearer {}", token.secret().expose()),
        };
        HeaderValue::try_from(text)
            .map(Some)
            .map_err(|_| Error::Options {
                name: "credentials",
                reason: "expected characters that fit into a header".to_owned(),
            })
    }

    fn basic(&self, login: Arc<Login>) -> Result<Authorization, Error> {
        match &*login {
            Login::Password(_) => Ok(Authorization::Basic(login)),
            Login::IdentityToken(_) => {
                let text = "it wants a password, and there is an identity token only";
                Err(self.denied(Message::new(text, MESSAGE_CHARACTERS_MAX)))
            }
        }
    }

    async fn scheme(&self) -> Result<Scheme, Error> {
        let mut scheme = self.scheme.lock().await;
        if let Some(scheme) = &*scheme {
            return Ok(scheme.clone());
        }
        let found = self.discover().await?;
        *scheme = Some(found.clone());
        Ok(found)
    }

    /// Asks the registry how it wants to be told who asks.
    async fn discover(&self) -> Result<Scheme, Error> {
        let request = Request::new(
            Method::GET,
            version_url(&self.wire.base),
            Action::new("greet the registry".to_owned(), &self.wire.address),
        );
        let answer = self.wire.send(&request, None).await?;
        match answer.status() {
            200 => Ok(Scheme::Open),
            401 => self.choose(&challenges_of(answer.headers())),
            status if is_doubtful(status) => {
                Err(self.not_a_registry(&request.url, &answer, status))
            }
            _ => Err(answer.into_error(self.user(), self.clock.now()).await),
        }
    }

    fn not_a_registry(&self, url: &Url, answer: &Answer, status: u16) -> Error {
        let address = self.wire.address.clone();
        let leads_to_tls = answer
            .header("location")
            .and_then(|location| url.join(location).ok())
            .is_some_and(|to| {
                url.scheme() == "http" && to.scheme() == "https" && to.host() == url.host()
            });
        if leads_to_tls {
            Error::TlsServer { address }
        } else {
            Error::NotRegistry { address, status }
        }
    }

    /// Picks the best of the offered ways: Bearer before Basic, because a password should travel rarely.
    fn choose(&self, challenges: &[Challenge]) -> Result<Scheme, Error> {
        let refuse = |found: String| Error::Scheme {
            address: self.wire.address.clone(),
            found,
        };
        let find = |scheme: &str| challenges.iter().find(|offer| offer.scheme == scheme);
        if let Some(offer) = find("bearer")
            && let Some(realm) = offer.parameter("realm")
        {
            let realm = Realm::new(&self.wire.base, realm, offer.parameter("service"))
                .ok_or_else(|| refuse(format!("the realm `{}`", realm.escape_debug())))?;
            return Ok(Scheme::Bearer(realm));
        }
        if find("basic").is_some() {
            return Ok(Scheme::Basic);
        }
        let schemes: Vec<&str> = challenges
            .iter()
            .map(|offer| offer.scheme.as_str())
            .collect();
        Err(refuse(if schemes.is_empty() {
            "nothing".to_owned()
        } else {
            schemes.join(", ")
        }))
    }

    /// Asks for a token; with another login, if there is one by now, where ours is refused.
    async fn fetch_token(&self, realm: &Realm, scopes: Scopes) -> Result<Token, Error> {
        let login = self.logins.current().await?;
        let error = match self.fetch_token_as(realm, &scopes, login.as_ref()).await {
            Err(error @ Error::Denied { .. }) => error,
            outcome => return outcome,
        };
        match self.logins.renew(login.as_ref()).await? {
            Some(other) => self.fetch_token_as(realm, &scopes, Some(&other)).await,
            None => Err(error),
        }
    }

    async fn fetch_token_as(
        &self,
        realm: &Realm,
        scopes: &Scopes,
        login: Option<&Arc<Login>>,
    ) -> Result<Token, Error> {
        let authorization = match login {
            Some(_) if !realm.is_trusted => {
                return Err(Error::InsecureRealm {
                    address: self.wire.address.clone(),
                    realm: realm.url.to_string(),
                });
            }
            Some(login) => Authorization::Basic(Arc::clone(login)),
            None => Authorization::None,
        };
        let request = realm.request(scopes, login.map(|login| &**login), &self.wire.address);
        let asked_at = self.clock.now();
        let answer = self
            .wire
            .send(&request, Self::header(&authorization)?)
            .await?;
        let status = answer.status();
        if status != 200 {
            // RFC 6749, 5.2: a form that is refused is a bad request.
            let is_denied =
                matches!(status, 401 | 403) || (status == 400 && request.method == Method::POST);
            let error = answer.into_error(self.user(), asked_at).await;
            if is_denied
                && let Error::Forbidden { message, .. } | Error::Status { message, .. } = error
            {
                return Err(self.denied(message));
            }
            return Err(error);
        }
        let body = answer.body(TOKEN_ANSWER_BYTES_MAX).await?;
        let token = Token::parse(&body, asked_at).map_err(|reason| Error::Answer {
            action: request.action,
            reason: reason.to_owned(),
        })?;
        self.wire.tally.tokens.fetch_add(1, Ordering::Relaxed);
        Ok(token)
    }

    fn denied(&self, message: Message) -> Error {
        Error::Denied {
            address: self.wire.address.clone(),
            user: self.user(),
            message,
        }
    }
}

/// Returns whether a server that is no registry would answer so.
const fn is_doubtful(status: u16) -> bool {
    matches!(status, 300..=399 | 404 | 405 | 410)
}

/// Returns whether an answer can only be of a registry: it has the header that distribution has introduced (distribution-spec
/// v1.1.0, "Legacy Docker support HTTP headers"), or an error message in JSON.
fn is_of_registry(answer: &Answer) -> bool {
    answer.header("docker-distribution-api-version").is_some()
        || answer
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/json"))
}

/// Returns the URL that tells whether there is a registry.
pub(super) fn version_url(base: &Url) -> Url {
    base.join("v2/").expect("the base takes any path")
}

fn basic(credentials: &Credentials) -> String {
    let pair = format!("{}:{}", credentials.username, credentials.password.expose());
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    format!("Basic {encoded}")
}
