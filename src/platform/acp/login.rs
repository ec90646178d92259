//! Login by name and password: five requests that share a cookie jar.
//!
//! ```text
//! 1  GET  /console-platform/api/v1/token/login      -> auth_url
//! 2  GET  /dex/api/v1/authorize?<query of auth_url> -> req, and the cookie `cpaas_oidc_auth_flow`
//! 3  GET  /dex/pubkey                               -> ts, pubkey
//! 4  POST /dex/api/v1/authorize/<provider>?req=<req>   {"account", "password": encrypted {"ts", "password"}}
//!                                                   -> redirect_url with code and state
//! 5  GET  /console-platform/api/v1/token/callback?code&state  -> access_token, issued_at, expire_at
//! ```
//!
//! The query of step 2 goes through unchanged: it carries the server's own PKCE challenge. `ts` is good for one attempt.
//! A refusal of step 4 comes with status 500 as well as 4xx, and says why in `reason`.
//!
//! # References
//!
//! The platform's documentation, "Obtain an API Access Token" (release 4.x).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use rsa::pkcs8::DecodePublicKey as _;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::wire::{Answer, Repeat, Request, Wire};
use crate::base::{Clock, Secret, Timestamp};
use crate::platform::error::{Error, LoginProblem};
use crate::platform::message::message_of_body;
use crate::platform::options::Password;

/// The permissions that are asked for, as the platform's documentation has it.
const SCOPE: &str = "openid profile offline_access email groups ext";

/// A token as the platform grants it.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) secret: Secret,
    /// How long it is good, if the platform says so.
    pub(super) lifetime: Option<Duration>,
}

/// Logs one user in.
#[derive(Debug)]
pub(super) struct Login {
    address: String,
    user: Password,
    wire: Wire,
    clock: Arc<dyn Clock>,
}

#[derive(Deserialize)]
struct Metadata {
    auth_url: String,
}

#[derive(Deserialize)]
struct Authorization {
    req: String,
}

#[derive(Deserialize)]
struct PublicKey {
    ts: String,
    pubkey: String,
}

#[derive(Deserialize)]
struct Redirect {
    redirect_url: String,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    id_token: String,
    #[serde(default)]
    issued_at: String,
    #[serde(default)]
    expire_at: String,
}

impl Login {
    pub(super) fn new(address: String, user: Password, wire: Wire, clock: Arc<dyn Clock>) -> Self {
        Self {
            address,
            user,
            wire,
            clock,
        }
    }

    /// Returns the error that says that the platform does not let the user in.
    pub(super) fn refusal(&self, problem: LoginProblem) -> Error {
        Error::Login {
            address: self.address.clone(),
            username: self.user.username.clone(),
            problem,
        }
    }

    /// Goes through the five steps.
    pub(super) async fn run(&self) -> Result<Token, Error> {
        let wire = self.wire.with_cookies()?;
        let req = self.authorize(&wire).await?;
        let encrypted = self.encrypt(&wire).await?;
        let redirect = self.submit(&wire, &req, &encrypted).await?;
        let token = self.redeem(&wire, &redirect).await?;
        tracing::debug!(username = self.user.username, "logged in to the platform");
        Ok(token)
    }

    /// Steps 1 and 2. Returns the id of the login in progress.
    async fn authorize(&self, wire: &Wire) -> Result<String, Error> {
        let mut url = wire.url(&["console-platform", "api", "v1", "token", "login"]);
        let callback = wire.url(&["dex", "callback"]);
        url.query_pairs_mut()
            .append_pair("client_id", &self.user.client_id)
            .append_pair("redirect_uri", callback.as_str())
            .append_pair("response_type", "code")
            .append_pair("scope", SCOPE);
        let metadata: Metadata = self.get(wire, url, "begin the login").await?;

        let auth_url = parse_url(wire, "auth_url", &metadata.auth_url)?;
        let mut url = wire.url(&["dex", "api", "v1", "authorize"]);
        url.set_query(auth_url.query());
        let authorization: Authorization = self.get(wire, url, "begin the login").await?;
        Ok(authorization.req)
    }

    /// Step 3. Returns the password as step 4 wants it.
    async fn encrypt(&self, wire: &Wire) -> Result<String, Error> {
        let doing = "read the key of the login";
        let key: PublicKey = self.get(wire, wire.url(&["dex", "pubkey"]), doing).await?;
        let broken = |reason: &str| Error::Answer {
            action: wire.action(doing.to_owned()),
            reason: reason.to_owned(),
        };
        let public = rsa::RsaPublicKey::from_public_key_pem(&key.pubkey)
            .map_err(|_| broken("expected an RSA public key in PEM"))?;
        let plain =
            Secret::new(json!({"ts": key.ts, "password": self.user.password.expose()}).to_string());
        let encrypted = public
            .encrypt(
                &mut rsa::rand_core::OsRng,
                rsa::Pkcs1v15Encrypt,
                plain.expose().as_bytes(),
            )
            .map_err(|_| broken("expected a key that is long enough for the password"))?;
        Ok(STANDARD.encode(encrypted))
    }

    /// Step 4. Returns where the browser would be sent.
    async fn submit(&self, wire: &Wire, req: &str, encrypted: &str) -> Result<Url, Error> {
        let mut url = wire.url(&[
            "dex",
            "api",
            "v1",
            "authorize",
            &self.user.identity_provider,
        ]);
        url.query_pairs_mut().append_pair("req", req);
        let body = json!({"account": self.user.username, "password": encrypted});
        let request = Request {
            method: Method::POST,
            url,
            body: Some(("application/json", body.to_string().into())),
            action: wire.action(format!("log in as `{}`", self.user.username)),
            repeat: Repeat::IfUnprocessed,
        };
        let answer = wire.exchange(&request, None).await?;
        let message = message_of_body(&answer.body);
        let problem = problem_of(message.as_str());
        match answer.status.as_u16() {
            200 => {}
            // Without a word in JSON it is not the login that failed, but what it runs on.
            500.. if problem.is_none() && !answer.is_json() => {
                return Err(Error::Busy {
                    action: request.action,
                    status: answer.status.as_u16(),
                    retry_after: None,
                    message,
                });
            }
            _ => return Err(self.refusal(problem.unwrap_or(LoginProblem::Refused(message)))),
        }
        let redirect: Redirect = answer.json(&request.action)?;
        parse_url(wire, "redirect_url", &redirect.redirect_url)
    }

    /// Step 5. Exchanges the code for a token.
    async fn redeem(&self, wire: &Wire, redirect: &Url) -> Result<Token, Error> {
        let find = |name: &str| {
            redirect
                .query_pairs()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        let (Some(code), Some(state)) = (find("code"), find("state")) else {
            return Err(Error::Answer {
                action: wire.action("log in".to_owned()),
                reason: "expected `code` and `state` in `redirect_url`".to_owned(),
            });
        };
        let mut url = wire.url(&["console-platform", "api", "v1", "token", "callback"]);
        url.query_pairs_mut()
            .append_pair("code", &code)
            .append_pair("state", &state);
        let tokens: Tokens = self.get(wire, url, "finish the login").await?;
        let lifetime = lifetime(&tokens.issued_at, &tokens.expire_at, self.clock.now());
        // Both are accepted by the platform; `expire_at` is said of the first.
        let text = [tokens.access_token, tokens.id_token]
            .into_iter()
            .find(|text| !text.is_empty())
            .ok_or_else(|| Error::Answer {
                action: wire.action("finish the login".to_owned()),
                reason: "expected an `access_token`".to_owned(),
            })?;
        Ok(Token {
            secret: Secret::new(text),
            lifetime,
        })
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        wire: &Wire,
        url: Url,
        doing: &str,
    ) -> Result<T, Error> {
        let request = Request::get(url, wire.action(doing.to_owned()));
        let answer: Answer = wire.exchange(&request, None).await?;
        if answer.status == StatusCode::OK {
            return answer.json(&request.action);
        }
        let message = message_of_body(&answer.body);
        match problem_of(message.as_str()) {
            Some(problem) => Err(self.refusal(problem)),
            None => Err(Error::Status {
                action: request.action,
                status: answer.status.as_u16(),
                message,
            }),
        }
    }
}

/// Parses a URL of an answer; relative ones are the platform's. It is not shown: there is a code in some.
fn parse_url(wire: &Wire, field: &str, text: &str) -> Result<Url, Error> {
    wire.base.join(text).map_err(|_| Error::Answer {
        action: wire.action("log in".to_owned()),
        reason: format!("expected a URL in `{field}`"),
    })
}

/// Returns what the words of a refusal mean, if they are known.
fn problem_of(words: &str) -> Option<LoginProblem> {
    let lower = words.to_ascii_lowercase();
    let has = |needle: &str| lower.contains(needle);
    if has("firstloginpasswordupdate") {
        Some(LoginProblem::FirstLogin)
    } else if has("passwordexpired") {
        Some(LoginProblem::PasswordExpired)
    } else if has("captcha") {
        Some(LoginProblem::Captcha)
    } else if has("pkce") {
        Some(LoginProblem::Pkce)
    } else {
        None
    }
}

/// Returns how long a token is good from now on. Both moments are the server's, so that its clock need not be right;
/// with the second alone ours has to do.
fn lifetime(issued_at: &str, expire_at: &str, now: Timestamp) -> Option<Duration> {
    let expire_at: Timestamp = expire_at.parse().ok()?;
    let from = issued_at.parse().unwrap_or(now);
    Some((expire_at - from).to_std().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        for (words, problem) in [
            ("FirstLoginPasswordUpdate", Some(LoginProblem::FirstLogin)),
            (
                "reason: PasswordExpired",
                Some(LoginProblem::PasswordExpired),
            ),
            ("InvalidCaptcha", Some(LoginProblem::Captcha)),
            (
                "PKCE code_challenge is required for this client",
                Some(LoginProblem::Pkce),
            ),
            ("password is wrong", None),
            ("", None),
        ] {
            assert_eq!(problem_of(words), problem, "words: {words}");
        }
    }

    #[test]
    fn a_lifetime_needs_no_common_clock() {
        let now = "2026-11-20T10:00:00Z".parse().unwrap();
        for (issued, expires, seconds) in [
            ("2025-01-01T12:00:00Z", "2025-01-02T12:00:00Z", Some(86_400)),
            ("", "2026-11-20T10:01:00Z", Some(60)),
            ("", "2026-11-20T09:00:00+00:00", Some(0)),
            ("2025-01-01T12:00:00Z", "", None),
            ("yesterday", "tomorrow", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(
                lifetime(issued, expires, now),
                expected,
                "{issued} {expires}"
            );
        }
    }
}
