//! Who we are, in the way the registry wants it: not at all, Basic, or Bearer with a token from its token server.
//!
//! The first use asks `GET /v2/` which way it is. Waiting for a refusal instead would not do: some registries answer
//! an anonymous question with an empty list. A later refusal can change the way.
//!
//! # Invariants
//!
//! - Credentials and tokens go to the registry's own scheme, host and port; credentials also to the token server that
//!   it names, and there without TLS only if the registry itself is used without.
//! - A request that is refused is repeated once, with a new token, never with the same one.
//!
//! # References
//!
//! Distribution project, "Token Authentication Specification"; RFC 7617 (Basic), RFC 6750 (Bearer).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use reqwest::Method;
use reqwest::header::HeaderValue;
use url::Url;

use super::challenge::{Challenge, challenges_of};
use super::error::{Error, User};
use super::link;
use super::options::Credentials;
use super::scope::Scopes;
use super::token::{Token, TokenCache};
use super::wire::{Answer, Request, Wire};
use crate::base::Clock;
use crate::transport::{Action, Message};

/// The longest answer of a token server, in bytes. Tokens with a chain of certificates in them have some KiB.
const TOKEN_ANSWER_BYTES_MAX: usize = 256 << 10;

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scheme {
    Open,
    Basic,
    Bearer(Realm),
}

/// A token server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Realm {
    url: Url,
    service: Option<String>,
    /// Whether it may see the credentials.
    is_trusted: bool,
}

/// What goes along with a request.
#[derive(Clone, Debug)]
pub(super) enum Authorization {
    None,
    Basic,
    Bearer(Arc<Token>),
}

/// Gets requests authorised.
#[derive(Debug)]
pub(super) struct Authenticator {
    wire: Arc<Wire>,
    credentials: Option<Credentials>,
    clock: Arc<dyn Clock>,
    tokens: TokenCache,
    /// `None` until the registry was asked. Locked while it is asked, so that it is asked once.
    scheme: tokio::sync::Mutex<Option<Scheme>>,
}

impl Authenticator {
    pub(super) fn new(
        wire: Arc<Wire>,
        credentials: Option<Credentials>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            wire,
            credentials,
            tokens: TokenCache::new(Arc::clone(&clock)),
            clock,
            scheme: tokio::sync::Mutex::default(),
        }
    }

    /// Returns who asks, for messages.
    pub(super) fn user(&self) -> User {
        User(
            self.credentials
                .as_ref()
                .map(|credentials| credentials.username.clone()),
        )
    }

    /// Returns what goes along with a request that needs `scopes`.
    pub(super) async fn authorize(&self, scopes: &Scopes) -> Result<Authorization, Error> {
        match self.scheme().await? {
            Scheme::Open => Ok(Authorization::None),
            Scheme::Basic if self.credentials.is_some() => Ok(Authorization::Basic),
            Scheme::Basic => Err(self.denied(Message::default())),
            Scheme::Bearer(realm) => {
                let fetch = self.fetch_token(&realm, scopes);
                let token = self.tokens.get(scopes, fetch).await?;
                Ok(Authorization::Bearer(token))
            }
        }
    }

    /// Returns what goes along with a request that was refused with `used`; `None` where there is nothing else to try.
    pub(super) async fn authorize_again(
        &self,
        refusal: &Answer,
        scopes: &Scopes,
        used: &Authorization,
    ) -> Result<Option<Authorization>, Error> {
        let challenges = challenges_of(refusal.headers());
        let scheme = self.choose(&challenges)?;
        *self.scheme.lock().await = Some(scheme.clone());
        match (scheme, used) {
            (Scheme::Basic, Authorization::None | Authorization::Bearer(_))
                if self.credentials.is_some() =>
            {
                Ok(Some(Authorization::Basic))
            }
            (Scheme::Open | Scheme::Basic, _) => Ok(None),
            (Scheme::Bearer(realm), used) => {
                if let Authorization::Bearer(token) = used {
                    self.tokens.forget(token);
                }
                let mut scopes = scopes.clone();
                for challenge in &challenges {
                    scopes.merge(challenge.parameter("scope").unwrap_or_default());
                }
                let fetch = self.fetch_token(&realm, &scopes);
                let token = self.tokens.fetch(&scopes, fetch).await?;
                Ok(Some(Authorization::Bearer(token)))
            }
        }
    }

    /// Returns the `Authorization` header.
    pub(super) fn header(
        &self,
        authorization: &Authorization,
    ) -> Result<Option<HeaderValue>, Error> {
        let text = match (authorization, &self.credentials) {
            (Authorization::None, _) | (Authorization::Basic, None) => return Ok(None),
            (Authorization::Basic, Some(credentials)) => basic(credentials),
            (Authorization::Bearer(token), _) => format!("Bearer {}", token.secret().expose()),
        };
        HeaderValue::try_from(text)
            .map(Some)
            .map_err(|_| Error::Options {
                name: "credentials",
                reason: "expected characters that fit into a header".to_owned(),
            })
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
            status @ (300..=399 | 404 | 405 | 410) => {
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
            let realm = self
                .realm(realm, offer.parameter("service"))
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

    fn realm(&self, text: &str, service: Option<&str>) -> Option<Realm> {
        let base = &self.wire.base;
        let (url, is_trusted) = match link::resolve(base, base, text) {
            Ok(place) => (place.url, true),
            Err(link::Refusal::Downgrade) => (base.join(text).ok()?, false),
            Err(link::Refusal::Malformed) => return None,
        };
        Some(Realm {
            url,
            service: service.map(str::to_owned),
            is_trusted,
        })
    }

    async fn fetch_token(&self, realm: &Realm, scopes: &Scopes) -> Result<Token, Error> {
        let authorization = match &self.credentials {
            Some(_) if !realm.is_trusted => {
                return Err(Error::InsecureRealm {
                    address: self.wire.address.clone(),
                    realm: realm.url.to_string(),
                });
            }
            Some(_) => Authorization::Basic,
            None => Authorization::None,
        };
        let request = self.token_request(realm, scopes);
        let asked_at = self.clock.now();
        let answer = self
            .wire
            .send(&request, self.header(&authorization)?)
            .await?;
        match answer.status() {
            200 => {}
            401 | 403 => {
                let error = answer.into_error(self.user(), asked_at).await;
                return Err(if let Error::Forbidden { message, .. } = error {
                    self.denied(message)
                } else {
                    error
                });
            }
            _ => return Err(answer.into_error(self.user(), asked_at).await),
        }
        let body = answer.body(TOKEN_ANSWER_BYTES_MAX).await?;
        let token = Token::parse(&body, asked_at).map_err(|reason| Error::Answer {
            action: request.action,
            reason: reason.to_owned(),
        })?;
        self.wire.tally.tokens.fetch_add(1, Ordering::Relaxed);
        Ok(token)
    }

    fn token_request(&self, realm: &Realm, scopes: &Scopes) -> Request {
        let mut url = realm.url.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &realm.service {
                query.append_pair("service", service);
            }
            for scope in scopes.iter() {
                query.append_pair("scope", &scope);
            }
            if let Some(credentials) = &self.credentials {
                query.append_pair("account", &credentials.username);
            }
        }
        let doing = format!(
            "get a token from {}{}",
            realm.url.authority(),
            realm.url.path()
        );
        Request::new(Method::GET, url, Action::new(doing, &self.wire.address))
    }

    fn denied(&self, message: Message) -> Error {
        Error::Denied {
            address: self.wire.address.clone(),
            user: self.user(),
            message,
        }
    }
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
