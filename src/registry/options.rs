//! What a client must be told, with defaults and their reasons.

use std::time::Duration;

use url::Url;

use super::Error;
use super::login::{Credentials, DockerConfig};
use super::pace::PaceOptions;
use crate::transport::{
    CONNECT_TIMEOUT, Connection, Cookies, Identity, Proxies, Retries, Trust, USER_AGENT, is_bare,
};

/// How long a request may make no progress. A registry that hashes or moves a blob of some GB before it answers the
/// last byte stays silent for that long. Chosen, not measured.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
/// The most idle connections that are kept to one server. More requests at once open more; chosen for the concurrency
/// of one target.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// Where a registry is and how to talk to it.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host` or `host:port`; an IPv6 literal in brackets. It is the name for TLS and the `Host` header.
    pub address: String,
    /// Plain HTTP or TLS.
    pub transport: Transport,
    /// A host name, IPv4 or IPv6 literal to dial instead of the host of `address`, whose port and name are kept.
    ///
    /// Needed where one name stands for two registries: both global clusters carry the same platform domain.
    pub connect_to: Option<String>,
    /// Who we are; `None` is what `docker_config` says.
    pub credentials: Option<Credentials>,
    /// Where it says who we are; without, or where nothing is said of this registry, requests are anonymous.
    pub docker_config: Option<DockerConfig>,
    /// Our certificate, for registries that ask for one.
    pub identity: Option<Identity>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// How often and how patiently an operation is tried.
    pub retries: Retries,
    /// How much at once, and how fast.
    pub pace: PaceOptions,
    /// Whether connections go through proxies. They do not by default.
    pub proxies: Proxies,
    /// The `User-Agent` header.
    pub user_agent: String,
}

impl Options {
    /// Returns the options for an anonymous client with default limits: 10 s to connect, 2 min without progress,
    /// 5 attempts with pauses from 0.5 s to 30 s, 8 requests of each kind at once.
    pub fn new(address: String, transport: Transport) -> Self {
        Self {
            address,
            transport,
            connect_to: None,
            credentials: None,
            docker_config: None,
            identity: None,
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            pace: PaceOptions::default(),
            proxies: Proxies::Ignore,
            user_agent: USER_AGENT.to_owned(),
        }
    }

    /// Returns the address as the URL that every request starts from: `https://registry.example:5000/`.
    pub(super) fn base_url(&self) -> Result<Url, Error> {
        let refuse = || Error::Options {
            name: "address",
            reason: format!("expected `host` or `host:port`, found `{}`", self.address),
        };
        let scheme = match self.transport {
            Transport::Http => "http",
            Transport::Https(_) => "https",
        };
        let url = Url::parse(&format!("{scheme}://{}/", self.address)).map_err(|_| refuse())?;
        // A path, query, user or fragment in the address would end up in these.
        let is_host = is_bare(&url) && !self.address.contains(['/', '@', '?', '#', '\\']);
        is_host.then_some(url).ok_or_else(refuse)
    }

    /// Returns the HTTP client for the registry at `base`.
    pub(super) fn client(&self, base: &Url) -> Result<reqwest::Client, Error> {
        let connection = Connection {
            address: &self.address,
            base,
            connect_to: self.connect_to.as_deref(),
            trust: match &self.transport {
                Transport::Http => None,
                Transport::Https(trust) => Some(trust),
            },
            identity: self.identity.as_ref(),
            connect_timeout: self.timeouts.connect,
            idle_connections_max: IDLE_CONNECTIONS_MAX,
            cookies: Cookies::Ignore,
            proxies: &self.proxies,
            user_agent: &self.user_agent,
        };
        Ok(connection.client()?)
    }
}

/// How bytes travel.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https(Trust),
}

/// How long to wait for what. No limit is on the whole of a request: a blob of any size may take its time.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To find, dial and greet the server.
    pub connect: Duration,
    /// Without a byte accepted or delivered. Noticed after one to two times this long.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: CONNECT_TIMEOUT,
            idle: IDLE_TIMEOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(address: &str) -> Options {
        Options::new(address.to_owned(), Transport::Https(Trust::default()))
    }

    #[test]
    fn addresses_are_bare_hosts() {
        for (good, url) in [
            ("registry.example", "https://registry.example/"),
            ("registry.example:11443", "https://registry.example:11443/"),
            ("[::1]:5000", "https://[::1]:5000/"),
        ] {
            assert_eq!(options(good).base_url().unwrap().as_str(), url);
        }
        for bad in [
            "",
            "https://registry.example",
            "registry.example/",
            "registry.example/v2",
            "user@registry.example",
            "registry.example:port",
            "a?b",
            "a#b",
        ] {
            assert!(options(bad).base_url().is_err(), "input: {bad:?}");
        }
    }
}
