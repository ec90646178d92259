//! `[target.registry]`: where a target's images go, who we are there, and what is on the way.

use std::path::PathBuf;

use url::Url;

use super::address::{Address, Endpoint, Host};
use super::choice::choice;
use super::error::{Flaw, Problem};
use super::secret::SecretSource;
use super::sections::{absolute, out_of_range};
use super::settings::RegistrySettings;
use super::target::{
    Credentials, HTTP_PORT, HTTPS_PORT, LOGIN, LoginKeys, Role, Section, Tls, Transport,
};
use crate::base::ByteCount;

/// The kinds of proxies.
const PROXY_SCHEMES: [&str; 4] = ["http", "https", "socks5", "socks5h"];
/// The only one of them that is told an address instead of a name, so that `connect_to` can be obeyed.
const SCHEME_WITHOUT_NAMES: &str = "socks5";

choice! {
    /// What becomes of foreign (non-distributable) layers whose content packages bring.
    #[derive(Default)]
    pub enum Nondistributable {
        /// They are left to the URLs that their manifests name.
        #[default]
        Skip = "skip",
        /// They are pushed like all others.
        Push = "push",
    }
}

/// `[target.registry]`: where a target's images go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Its name, to which certificates are compared.
    pub address: Address,
    /// The host that is dialled instead.
    pub connect_to: Option<Host>,
    /// How it is spoken to.
    pub transport: Transport,
    /// User name and password.
    pub credentials: Option<Credentials>,
    /// A file of logins as docker and podman write it, which counts where there are no credentials. Without either,
    /// requests are anonymous.
    pub docker_config: Option<SecretSource>,
    /// Our certificate, for registries that ask for one.
    pub identity: Option<Identity>,
    /// The proxy on the way.
    pub proxy: Option<Proxy>,
    /// The most bytes of blobs that are sent per second. At least 1; none is without limit.
    pub bandwidth_max: Option<ByteCount>,
    /// What becomes of foreign layers whose content packages bring.
    pub nondistributable: Nondistributable,
}

/// A certificate and where its key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate in PEM, followed by those that lead to its authority.
    pub certificates: PathBuf,
    /// The place of the key, in PEM.
    pub key: SecretSource,
}

/// A proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `http`, `https`, `socks5` or `socks5h`, with host and port and nothing else.
    pub url: Url,
    /// Who we are there.
    pub credentials: Option<Credentials>,
}

impl Registry {
    /// Returns what is dialled. Two targets for which it is equal, also after name resolution, share a registry, unless
    /// the name is resolved elsewhere, see [`Registry::resolver`].
    pub fn effective_address(&self) -> Endpoint {
        let default_port = match self.transport {
            Transport::Plain => HTTP_PORT,
            Transport::Tls { .. } => HTTPS_PORT,
        };
        Endpoint {
            host: self
                .connect_to
                .as_ref()
                .unwrap_or(&self.address.host)
                .clone(),
            port: self.address.port.unwrap_or(default_port),
        }
    }

    /// Returns the proxy that finds out where names lead, if there is one: what a name means here says nothing then.
    pub fn resolver(&self) -> Option<&Url> {
        let proxy = self.proxy.as_ref().map(|proxy| &proxy.url);
        proxy.filter(|url| url.scheme() != SCHEME_WITHOUT_NAMES)
    }
}

impl Section {
    pub(super) fn registry(
        &self,
        role: Role,
        settings: RegistrySettings,
    ) -> Result<Registry, Flaw> {
        let address = settings
            .address
            .as_deref()
            .ok_or_else(|| self.flaw("address", Problem::NoRegistryAddress(role)))?;
        let address = self.address("address", address)?;
        let proxy = self.proxy(&settings)?;
        let identity = self.identity(&settings)?;
        let tls = Tls {
            ca_file: settings.ca_file,
            insecure_skip_verify: settings.insecure_skip_verify,
        };
        let transport = if settings.plain_http {
            if identity.is_some() {
                return Err(self.flaw("plain_http", Problem::Conflict("client_cert_file")));
            }
            self.plain("plain_http", &tls)?
        } else {
            self.tls(tls)?
        };
        let credentials = self.credentials(LOGIN, settings.username, settings.password)?;
        let docker_config = settings
            .docker_config
            .map(|source| self.secret("docker_config", source))
            .transpose()?;
        if docker_config.is_some() && credentials.is_some() {
            return Err(self.flaw("docker_config", Problem::Conflict("username")));
        }
        let has_login = credentials.is_some() || docker_config.is_some();
        if settings.no_auth && has_login {
            let other = if credentials.is_some() {
                "username"
            } else {
                "docker_config"
            };
            return Err(self.flaw("no_auth", Problem::Conflict(other)));
        }
        if role == Role::Standby && !settings.no_auth && !has_login {
            return Err(Flaw::new(self.0.as_str(), Problem::StandbyWithoutAccess));
        }
        if settings.bandwidth_max == Some(ByteCount(0)) {
            return Err(out_of_range(self.key("bandwidth_max"), "at least 1", "0"));
        }
        let registry = Registry {
            address,
            connect_to: self.connect_to(settings.connect_to)?,
            transport,
            credentials,
            docker_config,
            identity,
            proxy,
            bandwidth_max: settings.bandwidth_max,
            nondistributable: settings.nondistributable,
        };
        match (&registry.connect_to, registry.resolver()) {
            (Some(_), Some(url)) => {
                let scheme = url.scheme().to_owned();
                Err(self.flaw("connect_to", Problem::ProxyResolves(scheme)))
            }
            _ => Ok(registry),
        }
    }

    fn identity(&self, settings: &RegistrySettings) -> Result<Option<Identity>, Flaw> {
        match (&settings.client_cert_file, &settings.client_key) {
            (None, None) => Ok(None),
            (Some(_), None) => {
                Err(self.flaw("client_cert_file", Problem::HalfCredentials("client_key")))
            }
            (None, Some(_)) => {
                Err(self.flaw("client_key", Problem::HalfCredentials("client_cert_file")))
            }
            (Some(path), Some(key)) => Ok(Some(Identity {
                certificates: absolute(self.key("client_cert_file"), path.clone())?,
                key: self.secret("client_key", key.clone())?,
            })),
        }
    }

    fn proxy(&self, settings: &RegistrySettings) -> Result<Option<Proxy>, Flaw> {
        let keys = LoginKeys {
            username: "proxy_username",
            password: "proxy_password",
        };
        let credentials = self.credentials(
            keys,
            settings.proxy_username.clone(),
            settings.proxy_password.clone(),
        )?;
        match (&settings.proxy, credentials) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(self.flaw(keys.username, Problem::HalfCredentials("proxy"))),
            (Some(text), credentials) => {
                let url = parse_proxy(text).map_err(|problem| self.flaw("proxy", problem))?;
                Ok(Some(Proxy { url, credentials }))
            }
        }
    }
}

/// Parses `scheme://host` or `scheme://host:port`.
fn parse_proxy(text: &str) -> Result<Url, Problem> {
    if text.contains('@') {
        // It is not repeated: a password may stand before it.
        return Err(Problem::ProxyLogin);
    }
    let refused = || {
        let text = format!(
            "expected `scheme://host:port` with {} as scheme, found `{text}`",
            PROXY_SCHEMES.join(", ")
        );
        Problem::Value(text)
    };
    let (scheme, place) = text.split_once("://").ok_or_else(refused)?;
    let address: Address = place
        .strip_suffix('/')
        .unwrap_or(place)
        .parse()
        .map_err(|_| refused())?;
    if !PROXY_SCHEMES.contains(&scheme) {
        return Err(refused());
    }
    Url::parse(&format!("{scheme}://{address}")).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn proxies_are_schemes_and_hosts() {
        for (text, printed) in [
            ("http://Proxy.example:3128", "http://proxy.example:3128/"),
            ("https://proxy.example/", "https://proxy.example/"),
            ("socks5://[::1]:1080", "socks5://[::1]:1080"),
            ("socks5h://192.0.2.1", "socks5h://192.0.2.1"),
        ] {
            assert_eq!(parse_proxy(text).unwrap().as_str(), printed, "{text}");
        }
        for bad in [
            "",
            "proxy.example:3128",
            "socks4://a",
            "HTTP://a",
            "http://",
            "http://a/b",
            "http://a:0",
            "http://a?b",
        ] {
            assert!(matches!(parse_proxy(bad), Err(Problem::Value(_))), "{bad}");
        }
        for bad in ["http://u:p@a", "http://a@", "@"] {
            assert_eq!(parse_proxy(bad), Err(Problem::ProxyLogin), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(http|socks5)?(://)?[a-z0-9.:/@\\[\\]-]{0,30}") {
            drop(parse_proxy(&text));
        }
    }
}
