//! What the client of a platform must be told, with defaults and their reasons.

use std::time::Duration;

use url::Url;

use super::Error;
use crate::base::{ClusterName, Secret};
use crate::transport::{
    CONNECT_TIMEOUT, Connection, Cookies, Proxies, Retries, Trust, USER_AGENT, is_bare,
};

/// How long one request may take, its body included; Kubernetes itself gives up after 60 s (`--request-timeout`).
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// The most idle connections that are kept. More requests at once open more; chosen, not measured.
const IDLE_CONNECTIONS_MAX: usize = 8;
/// How long one watch lasts before everything is looked at anew; shorter than the idle limits of usual proxies
/// (nginx: 60 s).
const WATCH_MAX: Duration = Duration::from_secs(50);
/// The pause between two looks where a watch is not to be had.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How long a `Failed` that was there from the start may be a leftover: the platform's controller looks at every
/// object each 30 s (`REGISTRY_SYNCER_INTERVAL`).
const FAILED_GRACE: Duration = Duration::from_secs(35);
/// How long a refused password is not tried again, so that many requests do not lock the account. Chosen, not measured.
const LOGIN_PAUSE: Duration = Duration::from_mins(1);

/// Where a platform is and how to talk to it.
#[derive(Clone, Debug)]
pub struct AcpOptions {
    /// `https://platform.example`, with a port if need be; `http` is for tests and laboratories.
    pub address: String,
    /// A host name, IPv4 or IPv6 literal to dial instead of the host of `address`, whose port and name are kept.
    ///
    /// Needed where one name stands for two platforms: both global clusters carry the same domain and certificate.
    pub connect_to: Option<String>,
    /// Whom to trust, where the address begins with `https`.
    pub trust: Trust,
    /// Who we are.
    pub auth: Auth,
    /// From where the clusters pull, if the platform is not to be asked.
    pub pull_registry: Option<String>,
    /// The clusters that a check of the platform looks at. `global` by default.
    pub clusters: Vec<ClusterName>,
    /// What to do about fields that somebody else manages.
    pub conflicts: Conflicts,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// How often and how patiently a request is tried.
    pub retries: Retries,
    /// The `User-Agent` header.
    pub user_agent: String,
}

impl AcpOptions {
    /// Returns the options with default limits: 10 s to connect, 1 min for a request, 5 attempts with pauses from
    /// 0.5 s to 30 s.
    pub fn new(address: String, auth: Auth) -> Self {
        Self {
            address,
            connect_to: None,
            trust: Trust::default(),
            auth,
            pull_registry: None,
            clusters: vec![ClusterName::global()],
            conflicts: Conflicts::Report,
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            user_agent: USER_AGENT.to_owned(),
        }
    }

    /// Returns the URL that every request starts from: `https://platform.example/`.
    pub(super) fn base_url(&self) -> Result<Url, Error> {
        let refuse = || Error::Options {
            name: "address",
            reason: format!(
                "expected `https://host` or `https://host:port`, found `{}`",
                self.address
            ),
        };
        let url = Url::parse(&self.address).map_err(|_| refuse())?;
        let is_web = is_bare(&url) && matches!(url.scheme(), "http" | "https");
        is_web.then_some(url).ok_or_else(refuse)
    }

    /// Returns an HTTP client for the platform at `base`.
    pub(super) fn client(&self, base: &Url, cookies: Cookies) -> Result<reqwest::Client, Error> {
        let connection = Connection {
            address: &self.address,
            base,
            connect_to: self.connect_to.as_deref(),
            trust: (base.scheme() == "https").then_some(&self.trust),
            identity: None,
            connect_timeout: self.timeouts.connect,
            idle_connections_max: IDLE_CONNECTIONS_MAX,
            cookies,
            proxies: &Proxies::Ignore,
            user_agent: &self.user_agent,
        };
        Ok(connection.client()?)
    }
}

/// What to do about fields that somebody else manages and that we want otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflicts {
    /// Change nothing and say who manages them.
    Report,
    /// Take them over. The other manager is not told, and its next apply runs into the same conflict.
    TakeOver,
}

/// Who we are.
#[derive(Clone, Debug)]
pub enum Auth {
    /// An API token, the only way for users of an identity provider. It is used as it is until the platform refuses it.
    Token(Secret),
    /// A user who logs in by name and password.
    Password(Password),
}

/// A user who logs in by name and password.
#[derive(Clone, Debug)]
pub struct Password {
    /// The account.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// The connector of the platform's login that knows the user; `local` for the platform's own users.
    pub identity_provider: String,
    /// The OAuth client; `alauda-auth` on every platform seen so far.
    pub client_id: String,
}

impl Password {
    /// Returns a user of the platform itself, for its default client.
    pub fn new(username: String, password: Secret) -> Self {
        Self {
            username,
            password,
            identity_provider: "local".to_owned(),
            client_id: "alauda-auth".to_owned(),
        }
    }
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To find, dial and greet the server.
    pub connect: Duration,
    /// For one request and its whole answer. Watches are not requests in this sense.
    pub request: Duration,
    /// How long one watch lasts before everything is looked at anew.
    pub watch: Duration,
    /// Between two looks where a watch is not to be had.
    pub poll: Duration,
    /// How long a failure that was there from the start may be a leftover of what was there before.
    pub failed_grace: Duration,
    /// How long a refused password is not tried again.
    pub login_pause: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: CONNECT_TIMEOUT,
            request: REQUEST_TIMEOUT,
            watch: WATCH_MAX,
            poll: POLL_INTERVAL,
            failed_grace: FAILED_GRACE,
            login_pause: LOGIN_PAUSE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(address: &str) -> AcpOptions {
        AcpOptions::new(address.to_owned(), Auth::Token(Secret::new("t".to_owned())))
    }

    #[test]
    fn addresses_are_bare_urls() {
        for (good, url) in [
            ("https://platform.example", "https://platform.example/"),
            (
                "https://platform.example:8443/",
                "https://platform.example:8443/",
            ),
            ("https://[2001:db8::1]", "https://[2001:db8::1]/"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
        ] {
            assert_eq!(options(good).base_url().unwrap().as_str(), url);
        }
        for bad in [
            "",
            "platform.example",
            "ftp://platform.example",
            "https://platform.example/console",
            "https://user@platform.example",
            "https://platform.example?a",
            "https://platform.example#a",
        ] {
            assert!(options(bad).base_url().is_err(), "input: {bad:?}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let auth = Auth::Password(Password::new(
            "admin".to_owned(),
            Secret::new("hunter2".to_owned()),
        ));
        assert!(!format!("{auth:?}").contains("hunter2"));
    }
}
