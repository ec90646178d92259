//! How the registry of each target is reached, and as whom: from the configuration to the options of a client.

use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use crate::base::{Class, Classified as _, Secret, TargetName};
use crate::config::{self, Config, Credentials, SecretSource, Transport};
use crate::registry::{self, DockerConfig, PaceOptions};
use crate::sys::fs::Context as _;
use crate::transport::{Identity, Proxies, Proxy, ProxyLogin, Retries, Trust, Verification};

/// Returns how the registry of a target is reached.
pub(super) fn registry_options(
    config: &Config,
    target: &config::Target,
) -> Result<registry::Options, Error> {
    let registry = &target.registry;
    let transport = match trust(&target.name, &registry.transport)? {
        None => registry::Transport::Http,
        Some(trust) => registry::Transport::Https(trust),
    };
    let credentials = match &registry.credentials {
        Some(Credentials { username, password }) => Some(registry::Credentials {
            username: username.clone(),
            password: secret(&target.name, password)?,
        }),
        None => None,
    };
    Ok(registry::Options {
        connect_to: registry.connect_to.as_ref().map(ToString::to_string),
        credentials,
        docker_config: match &registry.docker_config {
            Some(source) => Some(docker_config(&target.name, source)?),
            None => None,
        },
        identity: match &registry.identity {
            Some(identity) => Some(Identity {
                certificates: read(&target.name, &identity.certificates)?,
                key: secret(&target.name, &identity.key)?,
            }),
            None => None,
        },
        proxies: match &registry.proxy {
            Some(proxy) => Proxies::Through(through(&target.name, proxy)?),
            None => Proxies::Ignore,
        },
        timeouts: registry::Timeouts {
            connect: config.replicate.connect_timeout,
            idle: config.replicate.idle_timeout,
        },
        retries: retries(config),
        pace: pace(config, registry),
        ..registry::Options::new(registry.address.to_string(), transport)
    })
}

/// Returns how much at once and how fast a registry is asked.
fn pace(config: &Config, registry: &config::Registry) -> PaceOptions {
    PaceOptions {
        concurrency_max: concurrency(config),
        bandwidth_max: registry
            .bandwidth_max
            .and_then(|bytes| NonZeroU64::new(bytes.0)),
        ..PaceOptions::default()
    }
}

pub(super) fn concurrency(config: &Config) -> usize {
    usize::try_from(config.replicate.concurrency)
        .unwrap_or(1)
        .max(1)
}

/// Returns a file of logins. It is read when they are needed; what is wrong with it is said at the start as well.
fn docker_config(target: &TargetName, source: &SecretSource) -> Result<DockerConfig, Error> {
    secret(target, source)?;
    let source = source.clone();
    Ok(DockerConfig {
        place: source.to_string(),
        read: Arc::new(move || {
            resolve(&source).map_err(|error| {
                let kind = match error.class() {
                    Class::Absent => io::ErrorKind::NotFound,
                    Class::Denied => io::ErrorKind::PermissionDenied,
                    Class::Usage
                    | Class::Rejected
                    | Class::Transient
                    | Class::Full
                    | Class::Corrupt
                    | Class::Bug => io::ErrorKind::InvalidInput,
                };
                io::Error::new(kind, error)
            })
        }),
    })
}

fn through(target: &TargetName, proxy: &config::Proxy) -> Result<Proxy, Error> {
    Ok(Proxy {
        url: proxy.url.clone(),
        login: match &proxy.credentials {
            Some(Credentials { username, password }) => Some(ProxyLogin {
                username: username.clone(),
                password: secret(target, password)?,
            }),
            None => None,
        },
    })
}

pub(super) fn secret(target: &TargetName, source: &SecretSource) -> Result<Secret, Error> {
    resolve(source).map_err(|source| Error::Secret {
        target: target.clone(),
        source,
    })
}

fn resolve(source: &SecretSource) -> Result<Secret, config::secret::Error> {
    let credentials_dir = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    source.resolve(credentials_dir.as_deref(), &|name| std::env::var(name).ok())
}

fn read(target: &TargetName, path: &Path) -> Result<Vec<u8>, Error> {
    let content = std::fs::read(path).context("read", path);
    content.map_err(|source| Error::TargetFile {
        target: target.clone(),
        source,
    })
}

pub(super) fn retries(config: &Config) -> Retries {
    Retries {
        attempts_max: config.replicate.attempts_max,
        ..Retries::default()
    }
}

/// Returns whom to trust; nothing for a server without TLS.
pub(super) fn trust(target: &TargetName, transport: &Transport) -> Result<Option<Trust>, Error> {
    let Transport::Tls {
        ca_file,
        verification,
    } = transport
    else {
        return Ok(None);
    };
    let mut extra_roots = Vec::new();
    if let Some(path) = ca_file {
        extra_roots.push(read(target, path)?);
    }
    Ok(Some(Trust {
        extra_roots,
        verification: match verification {
            config::Verification::Full => Verification::Full,
            config::Verification::Skip => Verification::Skip,
        },
    }))
}
