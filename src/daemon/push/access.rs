//! From what the command line says of servers to clients of them.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use super::Error;
use crate::base::{ClusterName, Digest, Secret, SystemClock, TargetName};
use crate::platform::{self, AcpOptions, Auth, Platform};
use crate::registry::{self, Client, DockerConfig, PaceOptions};
use crate::transport::{Trust, Verification};

/// A registry, and how to get at it.
#[derive(Clone, Debug)]
pub struct RegistryAccess {
    /// `host` or `host:port`.
    pub address: String,
    /// `None` for plain HTTP.
    pub trust: Option<Trusted>,
    /// Another host to dial.
    pub connect_to: Option<String>,
    /// Name and password.
    pub credentials: Option<(String, Secret)>,
    /// A `config.json` of docker or an `auth.json` of podman, for want of a name and password; without either we are
    /// anonymous.
    pub docker_config: Option<PathBuf>,
    /// The most requests of one kind in flight at one time.
    pub concurrency_max: usize,
    /// The most bytes of blobs per second.
    pub bandwidth_max: Option<NonZeroU64>,
}

/// A platform, and how to get at it.
#[derive(Clone, Debug)]
pub struct PlatformAccess {
    /// `https://host` or `https://host:port`.
    pub address: String,
    /// Whom to trust.
    pub trust: Trusted,
    /// Another host to dial.
    pub connect_to: Option<String>,
    /// Who we are.
    pub login: Login,
}

/// Whom to trust.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    /// Certificates besides the system's, in PEM.
    pub extra_roots: Vec<Vec<u8>>,
    /// Whether anybody is believed.
    pub is_blind: bool,
}

/// Who we are to a platform.
#[derive(Clone, Debug)]
pub enum Login {
    /// An API token.
    Token(Secret),
    /// A user of the platform itself.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
        /// The OAuth client, where it is not the usual one.
        client_id: Option<String>,
    },
}

impl Trusted {
    fn trust(&self) -> Trust {
        Trust {
            extra_roots: self.extra_roots.clone(),
            verification: if self.is_blind {
                Verification::Skip
            } else {
                Verification::Full
            },
        }
    }
}

impl fmt::Display for PlatformAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl RegistryAccess {
    /// Returns access to a registry without any login.
    pub(super) fn anonymous(address: String) -> Self {
        Self {
            address,
            trust: Some(Trusted::default()),
            connect_to: None,
            credentials: None,
            docker_config: None,
            concurrency_max: 1,
            bandwidth_max: None,
        }
    }

    /// Returns the address.
    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    /// Returns the name under which the cache knows what is there: readable, and another one for each server.
    pub(super) fn target_name(&self) -> TargetName {
        let dialled = self.connect_to.as_deref().unwrap_or_default();
        let identity = Digest::of(format!("{} {dialled}", self.address).as_bytes());
        let allowed = self.address.chars().map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' => c,
            _ => '-',
        });
        // Host names have at most 253 bytes; what is left out here is in the digest.
        let readable: String = allowed.take(60).collect();
        let name = format!("push-{readable}-{}", &identity.hex()[..8]);
        name.parse()
            .expect("letters, digits, dots and dashes are a name")
    }

    /// Returns a client. Nothing is sent yet.
    pub(super) fn client(&self) -> Result<Client, Error> {
        let transport = match &self.trust {
            None => registry::Transport::Http,
            Some(trusted) => registry::Transport::Https(trusted.trust()),
        };
        let credentials = self.credentials.clone();
        let pace = PaceOptions {
            concurrency_max: self.concurrency_max,
            bandwidth_max: self.bandwidth_max,
            ..PaceOptions::default()
        };
        let options = registry::Options {
            connect_to: self.connect_to.clone(),
            credentials: credentials
                .map(|(username, password)| registry::Credentials { username, password }),
            docker_config: self.docker_config.as_deref().map(DockerConfig::of_file),
            pace,
            ..registry::Options::new(self.address.clone(), transport)
        };
        Ok(Client::new(options)?)
    }
}

impl PlatformAccess {
    /// Returns a client. Nothing is sent yet.
    pub(super) fn platform(&self, clusters: &[ClusterName]) -> Result<Platform, Error> {
        let auth = match &self.login {
            Login::Token(token) => Auth::Token(token.clone()),
            Login::Password {
                username,
                password,
                client_id,
            } => {
                let mut login = platform::Password::new(username.clone(), password.clone());
                if let Some(client_id) = client_id {
                    login.client_id.clone_from(client_id);
                }
                Auth::Password(login)
            }
        };
        let options = AcpOptions {
            connect_to: self.connect_to.clone(),
            trust: self.trust.trust(),
            clusters: clusters.to_vec(),
            ..AcpOptions::new(self.address.clone(), auth)
        };
        let acp = platform::Acp::new(options, Arc::new(SystemClock))?;
        Ok(Platform::Acp(acp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_a_name_of_its_own() {
        let name = |address: &str, connect_to: Option<&str>| {
            let access = RegistryAccess {
                connect_to: connect_to.map(str::to_owned),
                ..RegistryAccess::anonymous(address.to_owned())
            };
            access.target_name()
        };
        let primary = name("registry.example:5000", None);
        assert!(
            primary.as_str().starts_with("push-registry.example-5000-"),
            "{primary}"
        );
        assert_eq!(primary, name("registry.example:5000", None));
        for other in [
            name("registry.example-5000", None),
            name("registry.example:5000", Some("192.0.2.7")),
            name("[2001:db8::1]:5000", None),
            name(&"a".repeat(300), None),
        ] {
            assert_ne!(primary, other);
        }
    }
}
