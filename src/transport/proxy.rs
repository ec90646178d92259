//! Proxies between us and a server.
//!
//! HTTP proxies are asked for a tunnel (`CONNECT`) to a server with TLS, and for each single request to a server without;
//! SOCKS5 proxies for a connection. Where a name leads is found out by HTTP proxies and by `socks5h`, and by ourselves for
//! `socks5`: only with the latter can `connect_to` be obeyed.
//!
//! # References
//!
//! RFC 9110, 9.3.6 (CONNECT); RFC 1928 (SOCKS 5), RFC 1929 (its user names and passwords).

use std::fmt;

use url::Url;

use super::Error;
use crate::base::Secret;

/// The longest user name and password of SOCKS5, in bytes: their lengths are sent in one byte (RFC 1929, 2).
const SOCKS_WORD_BYTES_MAX: usize = 255;

/// Whether a client goes through proxies, and through which.
#[derive(Clone, Debug, Default)]
pub enum Proxies {
    /// It does not: targets are in the same network, and where they are is in the configuration.
    #[default]
    Ignore,
    /// It goes through those that the environment names (`HTTPS_PROXY`, `NO_PROXY` and so on), as people expect of
    /// commands that reach out into the world.
    Environment,
    /// It goes through this one and no other, whatever the environment says.
    Through(Proxy),
}

/// One proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// `http`, `https`, `socks5` or `socks5h`, with host and port and nothing else.
    pub url: Url,
    /// Who we are there.
    pub login: Option<ProxyLogin>,
}

/// Who we are at a proxy.
#[derive(Clone, Debug)]
pub struct ProxyLogin {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

impl Proxy {
    /// Returns whether the proxy finds out where names lead, so that we cannot say so.
    pub fn resolves_names(&self) -> bool {
        self.url.scheme() != "socks5"
    }

    /// Returns whether it speaks SOCKS.
    pub(super) fn is_socks(&self) -> bool {
        matches!(self.url.scheme(), "socks5" | "socks5h")
    }

    /// Returns the proxy in the form of the HTTP library.
    pub(super) fn setting(&self) -> Result<reqwest::Proxy, Error> {
        let refuse = |reason: String| Error::Option {
            name: "proxy",
            reason,
        };
        let is_socks = match self.url.scheme() {
            "http" | "https" => false,
            "socks5" | "socks5h" => true,
            other => {
                return Err(refuse(format!(
                    "expected http, https, socks5 or socks5h, found {other}"
                )));
            }
        };
        let mut url = self.url.clone();
        if let Some(login) = &self.login {
            let password = login.password.expose();
            let fits = |word: &str| (1..=SOCKS_WORD_BYTES_MAX).contains(&word.len());
            if is_socks && !(fits(&login.username) && fits(password)) {
                return Err(refuse(format!(
                    "expected a user name and a password of 1 to {SOCKS_WORD_BYTES_MAX} bytes for a SOCKS proxy"
                )));
            }
            // The library takes them from the URL and decodes them. All but the percent sign is encoded here.
            let has_host = url
                .set_username(&login.username.replace('%', "%25"))
                .is_ok()
                && url
                    .set_password(Some(&password.replace('%', "%25")))
                    .is_ok();
            if !has_host {
                return Err(refuse(self.unusable()));
            }
        }
        // The library's error would quote the URL.
        reqwest::Proxy::all(url).map_err(|_| refuse(self.unusable()))
    }

    fn unusable(&self) -> String {
        format!("expected `scheme://host:port`, found `{self}`")
    }
}

impl fmt::Display for Proxy {
    /// Prints the URL, never the login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.url.authority();
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        write!(f, "{}://{host}", self.url.scheme())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, login: Option<(&str, &str)>) -> Proxy {
        Proxy {
            url: url.parse().unwrap(),
            login: login.map(|(username, password)| ProxyLogin {
                username: username.to_owned(),
                password: Secret::new(password.to_owned()),
            }),
        }
    }

    #[test]
    fn every_kind_of_proxy_can_be_set_up() {
        for url in [
            "http://proxy.example:3128",
            "https://proxy.example",
            "socks5://[::1]:1080",
            "socks5h://192.0.2.1",
        ] {
            for login in [None, Some(("us er", "p@ss:/?#%41ü"))] {
                let proxy = proxy(url, login);
                proxy.setting().unwrap();
                assert_eq!(proxy.to_string(), url);
            }
        }
        assert!(proxy("ftp://proxy.example", None).setting().is_err());
    }

    #[test]
    fn no_message_has_the_password() {
        let long = "hunter2".repeat(40);
        for url in ["socks5://proxy.example", "ftp://proxy.example"] {
            let proxy = proxy(url, Some(("u", &long)));
            let error = proxy.setting().unwrap_err();
            let shown = format!("{error} {error:?} {proxy} {proxy:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn who_finds_out_where_a_name_leads() {
        for (url, expected) in [
            ("socks5://a", false),
            ("socks5h://a", true),
            ("http://a", true),
            ("https://a", true),
        ] {
            assert_eq!(proxy(url, None).resolves_names(), expected, "{url}");
        }
    }
}
