//! From the configuration to the options of each module. Nothing below this module knows the configuration.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::reach::{concurrency, registry_options, retries, secret, trust};
use super::stopped::role;
use super::timetable::CronTimetable;
use crate::audit;
use crate::base::{ByteCount, ClusterName, SystemClock, TargetName, Timestamp};
use crate::config::{self, Config, Endpoint, PlatformAccess};
use crate::ingest::{self, AfterReady, Folder};
use crate::package::Limits;
use crate::platform::{self, AcpOptions, Auth, Directory, DirectoryOptions, Platform};
use crate::registry::Client;
use crate::replicate::wanted::Filter;
use crate::replicate::{self, Foreign, Others, Target};
use crate::schedule::Schedule;
use crate::sys::backoff;
use crate::sys::disk::{Alarm, Marks};
use crate::sys::fs as durable;
use crate::verify::{self, Fingerprint, KeyringFiles, Policy, Requirements, Validity};

/// How often the drop folders are looked at without being woken: inotify may lose events, and says nothing of changes
/// that other machines make on a network file system. Chosen, not measured.
const RESCAN: Duration = Duration::from_secs(15);

/// Returns what packages of a drop folder must show.
fn requirements(config: &Config, folder: &config::DropFolder) -> Result<Requirements, Error> {
    let policy = match folder.policy {
        config::Policy::Signature => Policy::Signature,
        config::Policy::Checksum => Policy::Checksum,
        config::Policy::None => Policy::None,
    };
    let signers = folder.signers.iter().map(|text| {
        text.parse::<Fingerprint>()
            .map_err(|_| Error::Fingerprint { text: text.clone() })
    });
    Ok(Requirements {
        policy,
        signatures_min: folder.signatures_min,
        signers: signers.collect::<Result<_, _>>()?,
        validity: match config.verify.signer_validity {
            config::SignerValidity::WhenSigned => Validity::WhenSigned,
            config::SignerValidity::Now => Validity::Now,
        },
        limits: verify_limits(&config.verify),
    })
}

fn verify_limits(config: &config::Verify) -> verify::Limits {
    let defaults = verify::Limits::default();
    verify::Limits {
        sidecar_bytes_max: bytes(config.sidecar_bytes_max, defaults.sidecar_bytes_max),
        sidecar_signatures_max: config
            .sidecar_signatures_max
            .unwrap_or(defaults.sidecar_signatures_max),
        sidecar_lines_max: config
            .sidecar_lines_max
            .unwrap_or(defaults.sidecar_lines_max),
        keyring_bytes_max: bytes(config.keyring_bytes_max, defaults.keyring_bytes_max),
        keyring_certificates_max: config
            .keyring_certificates_max
            .unwrap_or(defaults.keyring_certificates_max),
    }
}

fn bytes(configured: Option<ByteCount>, default: u64) -> u64 {
    configured.map_or(default, |bytes| bytes.0)
}

/// Lists the drop folders.
pub(super) fn drop_folders(config: &Config) -> impl Iterator<Item = &Path> {
    config.drops.iter().map(|folder| folder.path.as_path())
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

/// Opens the audit record. Its last line is logged, so that the journal holds it too.
pub(super) fn audit(config: &Config, now: Timestamp) -> Result<audit::Log, Error> {
    let options = audit::Options::new(config.state_dir.join(audit::DIR));
    let log = audit::Log::open(options, now)?;
    if let Some(head) = log.head() {
        tracing::info!(%head, "audit record goes on");
    }
    Ok(log)
}

/// Returns how much a package may ask for: what the configuration says, else what the package reader takes by default.
pub(super) fn package_limits(limits: &config::Limits) -> Limits {
    let defaults = Limits::default();
    Limits {
        entries_max: limits.entries_max.unwrap_or(defaults.entries_max),
        unpacked_bytes_max: bytes(limits.unpacked_bytes_max, defaults.unpacked_bytes_max),
        metadata_bytes_max: bytes(limits.metadata_bytes_max, defaults.metadata_bytes_max),
        metadata_total_bytes_max: bytes(
            limits.metadata_total_bytes_max,
            defaults.metadata_total_bytes_max,
        ),
        manifest_bytes_max: bytes(limits.manifest_bytes_max, defaults.manifest_bytes_max),
        path_bytes_max: bytes(limits.path_bytes_max, defaults.path_bytes_max),
        nesting_max: limits.nesting_max.unwrap_or(defaults.nesting_max),
        expansion_ratio_max: limits
            .expansion_ratio_max
            .unwrap_or(defaults.expansion_ratio_max),
        expansion_checked_from_bytes: bytes(
            limits.expansion_checked_from_bytes,
            defaults.expansion_checked_from_bytes,
        ),
        extension_bytes_max: bytes(limits.extension_bytes_max, defaults.extension_bytes_max),
        extensions_max: limits.extensions_max.unwrap_or(defaults.extensions_max),
        images_max: limits.images_max.unwrap_or(defaults.images_max),
        resources_max: limits.resources_max.unwrap_or(defaults.resources_max),
        archives_nested_max: limits
            .archives_nested_max
            .unwrap_or(defaults.archives_nested_max),
        chart_bytes_max: bytes(limits.chart_bytes_max, defaults.chart_bytes_max),
        zstd_window_bytes_max: bytes(limits.zstd_window_bytes_max, defaults.zstd_window_bytes_max),
        bundle_bytes_max: bytes(limits.bundle_bytes_max, defaults.bundle_bytes_max),
        bundle_unpacked_bytes_max: bytes(
            limits.bundle_unpacked_bytes_max,
            defaults.bundle_unpacked_bytes_max,
        ),
        bundle_entries_max: limits
            .bundle_entries_max
            .unwrap_or(defaults.bundle_entries_max),
    }
}

/// Returns what watches the space of the state directory.
pub(super) fn disk(config: &Config) -> Arc<Alarm> {
    let marks = Marks {
        low_bytes: config.disk.low_bytes.0,
        critical_bytes: config.disk.critical_bytes.0,
    };
    Arc::new(Alarm::new(&config.state_dir, marks))
}

/// Returns how to ingest.
pub(super) fn ingest_options(config: &Config) -> Result<ingest::Options, Error> {
    let folders = config.drops.iter().map(|drop| folder(config, drop));
    Ok(ingest::Options {
        folders: folders.collect::<Result<_, _>>()?,
        limits: package_limits(&config.limits),
        rescan: RESCAN,
    })
}

fn folder(config: &Config, folder: &config::DropFolder) -> Result<Folder, Error> {
    let requirements = requirements(config, folder)?;
    let keyring = KeyringFiles::new(folder.keyring.clone(), requirements.clone());
    // What is wrong with it is said at the start, and not only when a package comes.
    keyring.read()?;
    Ok(Folder {
        path: folder.path.clone(),
        keyring: Arc::new(keyring),
        requirements,
        settle: folder.settle,
        sidecar_wait: folder.sidecar_wait,
        after_ready: match folder.after_ready {
            config::AfterReady::Keep => AfterReady::Keep,
            config::AfterReady::Move => AfterReady::Move,
            config::AfterReady::Delete => AfterReady::Delete,
        },
        done: folder.done_dir.clone(),
        rejected: folder.rejected_dir.clone(),
        requests: folder.requests_dir.clone(),
    })
}

/// Returns when a job is due that belongs to no target. `section` is where the configuration says so.
pub(super) fn job_timetable(
    section: &'static str,
    expression: &str,
    time_zone: &str,
) -> Result<Arc<CronTimetable>, Error> {
    let schedule = Schedule::parse(expression, time_zone)
        .map_err(|source| Error::JobSchedule { section, source })?;
    Ok(Arc::new(CronTimetable::new(schedule, Duration::ZERO, 0)))
}

/// Returns how to replicate.
pub(super) fn replicate_options(config: &Config) -> replicate::Options {
    let options = &config.replicate;
    replicate::Options {
        concurrency: concurrency(config),
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
        role: role(target.role),
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
        others: Others::Keep,
        foreign: match target.registry.nondistributable {
            config::Nondistributable::Skip => Foreign::Skip,
            config::Nondistributable::Push => Foreign::Push,
        },
        image_pull_secrets: Vec::new(),
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

/// Refuses two targets whose registries, or whose platforms, end at the same address.
///
/// The configuration was checked for equal names already; this catches two names of one server, which is what a standby
/// looks like whose name still points to the primary. A name that cannot be resolved now is none of ours: the target
/// says so when it is used.
pub(super) async fn check_shared(config: &Config) -> Result<(), Error> {
    let registries = config
        .targets
        .iter()
        // What a name means beyond a proxy is not known here.
        .filter(|target| target.registry.resolver().is_none())
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
