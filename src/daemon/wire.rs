//! From the configuration to the options of each module. Nothing below this module knows the configuration.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::timetable::CronTimetable;
use crate::base::{ClusterName, Secret, SystemClock, TargetName};
use crate::config::{self, Config, Credentials, Endpoint, PlatformAccess, SecretSource, Transport};
use crate::ingest::{self, AfterReady, Folder};
use crate::package::Limits;
use crate::platform::{self, AcpOptions, Auth, Directory, DirectoryOptions, Platform};
use crate::registry::{self, Client};
use crate::replicate::wanted::Filter;
use crate::replicate::{self, Role, Target};
use crate::schedule::Schedule;
use crate::sys::backoff;
use crate::sys::fs::{self as durable, Context as _};
use crate::transport::{Retries, Trust, Verification};
use crate::verify::{Fingerprint, Keyring, Policy};

/// How often the drop folders are looked at without being woken: inotify may lose events, and says nothing of changes
/// that other machines make on a network file system. Chosen, not measured.
const RESCAN: Duration = Duration::from_secs(15);

/// Reads the keys of allowed signers. A folder that needs none may go without.
pub(super) fn keyring(config: &Config) -> Result<Keyring, Error> {
    let needs_keys = config
        .drops
        .iter()
        .any(|folder| folder.policy == config::Policy::Signature);
    let is_there = |path: &&PathBuf| needs_keys || path.exists();
    let signers = config.verify.signers.iter().map(|text| {
        text.parse::<Fingerprint>()
            .map_err(|_| Error::Fingerprint { text: text.clone() })
    });
    let signers: Vec<Fingerprint> = signers.collect::<Result<_, _>>()?;
    let files = config.verify.keyring.iter().filter(is_there);
    Ok(Keyring::load(files, &signers)?)
}

/// Makes the folders that the daemon writes to.
pub(super) fn prepare(config: &Config) -> Result<(), Error> {
    for folder in &config.drops {
        durable::ensure_dir_all(&folder.path).map_err(|source| Error::Drop {
            path: folder.path.clone(),
            source,
        })?;
    }
    for target in &config.targets {
        if let config::Platform::Directory(directory) = &target.platform {
            durable::ensure_dir_all(&directory.path).map_err(|source| Error::TargetFile {
                target: target.name.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

/// Returns how to ingest.
pub(super) fn ingest_options(config: &Config) -> ingest::Options {
    let defaults = Limits::default();
    let limits = &config.limits;
    let bytes = |configured: Option<crate::base::ByteCount>, default: u64| {
        configured.map_or(default, |bytes| bytes.0)
    };
    ingest::Options {
        folders: config.drops.iter().map(folder).collect(),
        limits: Limits {
            entries_max: limits.entries_max.unwrap_or(defaults.entries_max),
            unpacked_bytes_max: bytes(limits.unpacked_bytes_max, defaults.unpacked_bytes_max),
            metadata_bytes_max: bytes(limits.metadata_bytes_max, defaults.metadata_bytes_max),
            expansion_ratio_max: limits
                .expansion_ratio_max
                .unwrap_or(defaults.expansion_ratio_max),
            ..defaults
        },
        free_bytes_min: limits.free_bytes_min.0,
        rescan: RESCAN,
    }
}

fn folder(folder: &config::DropFolder) -> Folder {
    Folder {
        path: folder.path.clone(),
        policy: match folder.policy {
            config::Policy::Signature => Policy::Signature,
            config::Policy::Checksum => Policy::Checksum,
            config::Policy::None => Policy::None,
        },
        settle: folder.settle,
        sidecar_wait: folder.sidecar_wait,
        after_ready: match folder.after_ready {
            config::AfterReady::Keep => AfterReady::Keep,
            config::AfterReady::Move => AfterReady::Move,
            config::AfterReady::Delete => AfterReady::Delete,
        },
        done: folder.done_dir.clone(),
        rejected: folder.rejected_dir.clone(),
    }
}

/// Returns how to replicate.
pub(super) fn replicate_options(config: &Config) -> replicate::Options {
    let options = &config.replicate;
    replicate::Options {
        concurrency: usize::try_from(options.concurrency).unwrap_or(1).max(1),
        retry_first: options.retry_first,
        retry_max: options.retry_max,
        verdict_timeout: options.verdict_timeout,
    }
}

/// Sets up one target.
pub(super) fn target(config: &Config, target: &config::Target) -> Result<Target, Error> {
    let name = &target.name;
    let schedule =
        Schedule::parse(&target.schedule, &target.time_zone).map_err(|source| Error::Schedule {
            target: name.clone(),
            source,
        })?;
    let options = registry_options(config, target)?;
    let registry = Client::new(options).map_err(|source| Error::Registry {
        target: name.clone(),
        source,
    })?;
    let (clusters, catalog_source): (&[String], _) = match &target.platform {
        config::Platform::None => (&[], config::CatalogSource::Platform),
        config::Platform::Acp(acp) => (&acp.clusters, acp.catalog_source),
        config::Platform::Directory(directory) => (&directory.clusters, directory.catalog_source),
    };
    let clusters = cluster_names(name, clusters)?;
    Ok(Target {
        name: name.clone(),
        role: match target.role {
            config::Role::Primary => Role::Primary,
            config::Role::Standby => Role::Standby,
        },
        registry,
        platform: platform(config, target, &clusters)?,
        clusters,
        catalog_source: catalog_source.name().to_owned(),
        filter: Filter::new(target.packages.clone()),
        timetable: Arc::new(CronTimetable::new(
            schedule,
            target.jitter,
            backoff::random(),
        )),
        runs_on_ready: target.on_ready,
        catches_up: target.catch_up,
        holds_resources: target.hold_resources,
    })
}

fn cluster_names(target: &TargetName, clusters: &[String]) -> Result<Vec<ClusterName>, Error> {
    let parse = |text: &String| {
        text.parse::<ClusterName>()
            .map_err(|source| Error::Cluster {
                target: target.clone(),
                text: text.clone(),
                source,
            })
    };
    clusters.iter().map(parse).collect()
}

fn registry_options(config: &Config, target: &config::Target) -> Result<registry::Options, Error> {
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
        timeouts: registry::Timeouts {
            connect: config.replicate.connect_timeout,
            idle: config.replicate.idle_timeout,
        },
        retries: retries(config),
        ..registry::Options::new(registry.address.to_string(), transport)
    })
}

fn platform(
    config: &Config,
    target: &config::Target,
    clusters: &[ClusterName],
) -> Result<Option<Platform>, Error> {
    match &target.platform {
        config::Platform::None => Ok(None),
        config::Platform::Directory(directory) => {
            let options = DirectoryOptions {
                path: directory.path.clone(),
                pull_registry: directory.pull_registry.to_string(),
            };
            Ok(Some(Platform::Directory(Directory::new(options))))
        }
        config::Platform::Acp(acp) => {
            let mut options = AcpOptions {
                connect_to: acp.connect_to.as_ref().map(ToString::to_string),
                clusters: clusters.to_vec(),
                pull_registry: acp.pull_registry.as_ref().map(ToString::to_string),
                retries: retries(config),
                ..AcpOptions::new(acp.address.to_string(), auth(&target.name, &acp.access)?)
            };
            options.timeouts.connect = config.replicate.connect_timeout;
            options.trust = trust(&target.name, &acp.transport)?.unwrap_or_default();
            let acp = platform::Acp::new(options, Arc::new(SystemClock)).map_err(|source| {
                Error::Platform {
                    target: target.name.clone(),
                    source,
                }
            })?;
            Ok(Some(Platform::Acp(acp)))
        }
    }
}

fn auth(target: &TargetName, access: &PlatformAccess) -> Result<Auth, Error> {
    match access {
        PlatformAccess::Token(source) => Ok(Auth::Token(secret(target, source)?)),
        PlatformAccess::Password {
            credentials,
            identity_provider,
        } => {
            let password = secret(target, &credentials.password)?;
            Ok(Auth::Password(platform::Password {
                identity_provider: identity_provider.clone(),
                ..platform::Password::new(credentials.username.clone(), password)
            }))
        }
    }
}

fn secret(target: &TargetName, source: &SecretSource) -> Result<Secret, Error> {
    let credentials_dir = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let lookup = |name: &str| std::env::var(name).ok();
    source
        .resolve(credentials_dir.as_deref(), &lookup)
        .map_err(|source| Error::Secret {
            target: target.clone(),
            source,
        })
}

fn retries(config: &Config) -> Retries {
    Retries {
        attempts_max: config.replicate.attempts_max,
        ..Retries::default()
    }
}

/// Returns whom to trust; nothing for a server without TLS.
fn trust(target: &TargetName, transport: &Transport) -> Result<Option<Trust>, Error> {
    let Transport::Tls {
        ca_file,
        verification,
    } = transport
    else {
        return Ok(None);
    };
    let mut extra_roots = Vec::new();
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).context("read", path);
        extra_roots.push(pem.map_err(|source| Error::TargetFile {
            target: target.clone(),
            source,
        })?);
    }
    Ok(Some(Trust {
        extra_roots,
        verification: match verification {
            config::Verification::Full => Verification::Full,
            config::Verification::Skip => Verification::Skip,
        },
    }))
}

/// Refuses two targets whose registries, or whose platforms, end at the same address.
///
/// The configuration was checked for equal names already; this catches two names of one server, which is what a standby
/// looks like whose name still points to the primary. A name that cannot be resolved now is none of ours: the target
/// says so when it is used.
pub(super) async fn check_shared(config: &Config) -> Result<(), Error> {
    let registries = config
        .targets
        .iter()
        .map(|target| (&target.name, target.registry.effective_address()));
    check_distinct("registry", registries.collect()).await?;
    let platforms = config
        .targets
        .iter()
        .filter_map(|target| match &target.platform {
            config::Platform::Acp(acp) => Some((&target.name, acp.effective_address())),
            config::Platform::None | config::Platform::Directory(_) => None,
        });
    check_distinct("platform", platforms.collect()).await
}

async fn check_distinct(
    server: &'static str,
    endpoints: Vec<(&TargetName, Endpoint)>,
) -> Result<(), Error> {
    let mut resolved: Vec<(&TargetName, BTreeSet<SocketAddr>)> = Vec::new();
    for (name, endpoint) in endpoints {
        let addresses = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await;
        let addresses: BTreeSet<SocketAddr> = match addresses {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                tracing::warn!(target = %name, server, host = %endpoint.host, %error, "name cannot be resolved now");
                continue;
            }
        };
        for (other, known) in &resolved {
            if let Some(address) = known.intersection(&addresses).next() {
                return Err(Error::Shared {
                    one: (*other).clone(),
                    other: name.clone(),
                    server,
                    address: *address,
                });
            }
        }
        resolved.push((name, addresses));
    }
    Ok(())
}
