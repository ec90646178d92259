//! The HTTP library, set up: TLS, trust, pool, and where a name leads.

use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::Error;
use super::proxy::Proxies;
use crate::base::Secret;

/// How long to wait for a connection, by default: name, TCP and TLS. Chosen, not measured.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The `User-Agent` header, by default.
pub const USER_AGENT: &str = concat!("violetd/", env!("CARGO_PKG_VERSION"));
/// How long an idle connection is kept. Shorter than what servers allow (nginx: 75 s), so that a request rarely meets
/// a connection that is being closed.
const IDLE_CONNECTION_LIFETIME: Duration = Duration::from_secs(30);

/// Whom to trust as a server with TLS: by default, what the operating system trusts.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Certificates in PEM that are trusted besides those of the operating system.
    pub extra_roots: Vec<Vec<u8>>,
    /// Whether the server must prove who it is.
    pub verification: Verification,
}

impl Trust {
    fn certificates(&self) -> Result<Vec<reqwest::Certificate>, Error> {
        let mut certificates = Vec::new();
        for pem in &self.extra_roots {
            let bundle = reqwest::Certificate::from_pem_bundle(pem)
                .ok()
                .filter(|bundle| !bundle.is_empty())
                .ok_or_else(|| Error::Option {
                    name: "ca_file",
                    reason: "expected certificates in PEM".to_owned(),
                })?;
            certificates.extend(bundle);
        }
        Ok(certificates)
    }
}

/// Whether a server must prove who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// Its certificate must be valid, trusted, and for the name of the address.
    #[default]
    Full,
    /// Any certificate will do. Somebody in between can read and change everything, passwords and tokens included.
    Skip,
}

/// Whether a client keeps the cookies that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookies {
    /// As a browser does, in the client's own memory.
    Keep,
    /// It does not.
    Ignore,
}

/// Who we are to servers that ask for a certificate (mutual TLS).
#[derive(Clone, Debug)]
pub struct Identity {
    /// Our certificate in PEM, followed by those that lead to the authority.
    pub certificates: Vec<u8>,
    /// Its private key in PEM, not encrypted: PKCS #8, PKCS #1 or SEC 1.
    pub key: Secret,
}

impl Identity {
    fn setting(&self) -> Result<reqwest::Identity, Error> {
        let refuse = |name, reason: &str| Error::Option {
            name,
            reason: reason.to_owned(),
        };
        let has_certificates = reqwest::Certificate::from_pem_bundle(&self.certificates)
            .is_ok_and(|bundle| !bundle.is_empty());
        if !has_certificates {
            return Err(refuse("client_cert_file", "expected certificates in PEM"));
        }
        let pem = [
            &self.certificates,
            b"\n".as_slice(),
            self.key.expose().as_bytes(),
        ]
        .concat();
        // What the library says of it is not repeated: it may quote the key.
        reqwest::Identity::from_pem(&pem).map_err(|_| {
            refuse(
                "client_key",
                "expected a private key in PEM that is not encrypted",
            )
        })
    }
}

/// A server, and how connections to it are made.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// The server, as the options name it: for errors.
    pub address: &'a str,
    /// The URL that every request starts from. Its host is the name for TLS and the `Host` header.
    pub base: &'a Url,
    /// A host name, IPv4 or IPv6 literal to dial instead of the host of `base`, whose port and name are kept.
    pub connect_to: Option<&'a str>,
    /// Whom to trust; `None` for a server without TLS.
    pub trust: Option<&'a Trust>,
    /// Who we are, where the server asks for a certificate.
    pub identity: Option<&'a Identity>,
    /// To find, dial and greet the server.
    pub connect_timeout: Duration,
    /// The most idle connections that are kept. More requests at once open more.
    pub idle_connections_max: usize,
    /// Whether cookies are kept.
    pub cookies: Cookies,
    /// Whether connections go through proxies.
    pub proxies: &'a Proxies,
    /// The `User-Agent` header.
    pub user_agent: &'a str,
}

impl Connection<'_> {
    /// Returns an HTTP client with connections of its own, none of them made yet.
    pub fn client(&self) -> Result<reqwest::Client, Error> {
        ensure_crypto_provider();
        let client = match self.trust {
            // The server needs no trust, only one that it sends us to might: a machine without any authorities will do.
            None => match self.builder()?.build() {
                Ok(client) => Ok(client),
                Err(_) => self.builder()?.tls_certs_only([]).build(),
            },
            Some(trust) => self
                .builder()?
                .tls_certs_merge(trust.certificates()?)
                .tls_danger_accept_invalid_certs(trust.verification == Verification::Skip)
                .build(),
        };
        client.map_err(|source| Error::Setup {
            address: self.address.to_owned(),
            source,
        })
    }

    fn builder(&self) -> Result<reqwest::ClientBuilder, Error> {
        self.check_name_for_tls()?;
        let builder = reqwest::Client::builder()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .cookie_store(self.cookies == Cookies::Keep)
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(IDLE_CONNECTION_LIFETIME)
            .pool_max_idle_per_host(self.idle_connections_max)
            .user_agent(self.user_agent);
        let builder = match self.proxies {
            Proxies::Ignore => builder.no_proxy(),
            Proxies::Environment => builder,
            // The environment's are left out as soon as one is named.
            Proxies::Through(proxy) => builder.proxy(proxy.setting()?),
        };
        let builder = match self.identity {
            Some(identity) => builder.identity(identity.setting()?),
            None => builder,
        };
        Ok(match (self.signpost()?, self.proxies) {
            (Some(signpost), _) => builder.dns_resolver(signpost),
            (None, Proxies::Through(proxy)) if proxy.is_socks() => {
                builder.dns_resolver(Signpost::default())
            }
            (None, _) => builder,
        })
    }

    /// Refuses what the library cannot do: through a SOCKS proxy, it takes the brackets of an IPv6 literal for a part of the name that
    /// the certificate must have (reqwest 0.13.5, `connect_socks`).
    fn check_name_for_tls(&self) -> Result<(), Error> {
        let Proxies::Through(proxy) = self.proxies else {
            return Ok(());
        };
        let has_name = !matches!(self.base.host(), Some(Host::Ipv6(_)));
        if has_name || self.trust.is_none() || !proxy.is_socks() {
            return Ok(());
        }
        Err(Error::Option {
            name: "proxy",
            reason: format!(
                "expected an HTTP proxy, or a host name as the address and `connect_to` with `{}`, because TLS with an address of IPv6 does not work through a SOCKS proxy, found `{proxy}`",
                self.base.host_str().unwrap_or_default()
            ),
        })
    }

    /// Returns where the name of the server leads, if `connect_to` is set.
    fn signpost(&self) -> Result<Option<Signpost>, Error> {
        let Some(connect_to) = self.connect_to else {
            return Ok(None);
        };
        let refuse = |reason: String| Error::Option {
            name: "connect_to",
            reason,
        };
        if let Proxies::Through(proxy) = self.proxies
            && proxy.resolves_names()
        {
            return Err(refuse(format!(
                "expected a `socks5` proxy, because others find out themselves where a name leads, found `{proxy}`"
            )));
        }
        let Some(Host::Domain(name)) = self.base.host() else {
            return Err(refuse(format!(
                "expected an address with a host name, found `{}`",
                self.address
            )));
        };
        let dial = without_brackets(connect_to);
        let is_host = dial.parse::<std::net::IpAddr>().is_ok()
            || (!dial.is_empty() && !dial.contains([':', '/', '@', ' ']));
        if !is_host {
            return Err(refuse(format!(
                "expected a host without a port, found `{connect_to}`"
            )));
        }
        Ok(Some(Signpost {
            turn: Some(Turn {
                name: name.to_owned(),
                dial: dial.into(),
            }),
        }))
    }
}

/// Resolves one name to the addresses of another host, and every other name as usual. IPv6 literals may have their brackets, with which
/// the library asks for them where there is a SOCKS proxy.
#[derive(Debug, Default, PartialEq, Eq)]
struct Signpost {
    turn: Option<Turn>,
}

/// Where one name leads instead.
#[derive(Debug, PartialEq, Eq)]
struct Turn {
    name: String,
    /// A host name or an IP literal without brackets.
    dial: Arc<str>,
}

impl Resolve for Signpost {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str();
        let turn = self.turn.as_ref();
        let host: Arc<str> = match turn.filter(|turn| name.eq_ignore_ascii_case(&turn.name)) {
            Some(turn) => Arc::clone(&turn.dial),
            None => without_brackets(name).into(),
        };
        Box::pin(async move {
            // Port 0 is replaced by that of the URL.
            let addresses: Vec<_> = tokio::net::lookup_host((&*host, 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host)
}

/// Returns whether a URL is nothing but scheme, host and port.
pub fn is_bare(url: &Url) -> bool {
    url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

/// Makes ring the crypto provider of this process, unless there is one. To be called before a TLS client is made.
pub fn ensure_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_a_certificate_and_its_key() {
        let pem = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let problem = |certificates: &str, key: &str| {
            let identity = Identity {
                certificates: certificates.as_bytes().to_vec(),
                key: Secret::new(key.to_owned()),
            };
            match identity.setting() {
                Err(Error::Option { name, .. }) => Some(name),
                Err(error) => panic!("{error:?}"),
                Ok(_) => None,
            }
        };
        let certificate = pem("CERTIFICATE");
        assert_eq!(problem(&certificate, &pem("PRIVATE KEY")), None);
        assert_eq!(problem("", &pem("PRIVATE KEY")), Some("client_cert_file"));
        for key in ["", "hunter2", &pem("ENCRYPTED PRIVATE KEY"), &certificate] {
            assert_eq!(problem(&certificate, key), Some("client_key"), "{key}");
        }
    }

    #[test]
    fn connect_to_is_a_host_and_needs_a_name_to_replace() {
        let signpost = |base: &str, connect_to: &str| {
            let connection = Connection {
                address: base,
                base: &base.parse().unwrap(),
                connect_to: Some(connect_to),
                trust: None,
                identity: None,
                connect_timeout: CONNECT_TIMEOUT,
                idle_connections_max: 1,
                cookies: Cookies::Ignore,
                proxies: &Proxies::Ignore,
                user_agent: USER_AGENT,
            };
            connection.signpost()
        };
        for (connect_to, dial) in [
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("standby.example", "standby.example"),
        ] {
            for base in ["https://platform.example", "http://platform.example:5000"] {
                let turn = Turn {
                    name: "platform.example".to_owned(),
                    dial: dial.into(),
                };
                let expected = Signpost { turn: Some(turn) };
                assert_eq!(signpost(base, connect_to).unwrap(), Some(expected));
            }
        }
        for bad in ["", "192.0.2.7:443", "standby.example:5000", "a/b"] {
            let found = signpost("https://platform.example", bad);
            assert!(found.is_err(), "input: {bad:?}");
        }
        assert!(signpost("https://192.0.2.1:5000", "192.0.2.7").is_err());
    }
}
