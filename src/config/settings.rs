//! The configuration as it is written: every key, with its default.
//!
//! These structs are the list of known keys: [`Settings::sample`] has each of them set, so what it serialises to is the
//! schema that the check of unknown keys and the test of the example file compare with.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::collect::CollectSettings;
use super::disk::Disk;
use super::duration;
use super::registry::Nondistributable;
use super::retain::RetainSettings;
use super::scrub::ScrubSettings;
use super::sections::{AfterReady, Limits, Log, Policy, Replicate};
use super::target::{CatalogSource, PlatformKind, Role};
use super::trust::SignerValidity;
use crate::base::{ByteCount, NamePattern, TargetName};

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) state_dir: PathBuf,
    pub(super) log: Log,
    pub(super) admin: AdminSettings,
    pub(super) verify: VerifySettings,
    pub(super) limits: Limits,
    pub(super) disk: Disk,
    pub(super) drop: Vec<DropSettings>,
    pub(super) replicate: Replicate,
    pub(super) retain: RetainSettings,
    pub(super) collect: CollectSettings,
    pub(super) scrub: ScrubSettings,
    pub(super) target: Vec<TargetSettings>,
}

/// `[admin]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AdminSettings {
    pub(super) socket: PathBuf,
    pub(super) listen: String,
}

/// `[verify]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct VerifySettings {
    pub(super) keyring: Vec<PathBuf>,
    pub(super) signers: Vec<String>,
    pub(super) signer_validity: SignerValidity,
    pub(super) sidecar_bytes_max: Option<ByteCount>,
    pub(super) sidecar_signatures_max: Option<u64>,
    pub(super) sidecar_lines_max: Option<u64>,
    pub(super) keyring_bytes_max: Option<ByteCount>,
    pub(super) keyring_certificates_max: Option<u64>,
}

/// `[[drop]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DropSettings {
    pub(super) path: Option<PathBuf>,
    pub(super) policy: Policy,
    pub(super) keyring: Option<Vec<PathBuf>>,
    pub(super) signers: Option<Vec<String>>,
    pub(super) signatures_min: u32,
    #[serde(with = "duration")]
    pub(super) settle: Duration,
    #[serde(with = "duration")]
    pub(super) sidecar_wait: Duration,
    pub(super) after_ready: AfterReady,
    pub(super) done_dir: Option<PathBuf>,
    pub(super) rejected_dir: Option<PathBuf>,
    pub(super) requests_dir: Option<PathBuf>,
}

/// `[[target]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TargetSettings {
    pub(super) name: Option<TargetName>,
    pub(super) role: Option<Role>,
    pub(super) schedule: String,
    pub(super) time_zone: String,
    pub(super) on_ready: bool,
    pub(super) catch_up: bool,
    #[serde(with = "duration")]
    pub(super) jitter: Duration,
    pub(super) packages: Vec<NamePattern>,
    pub(super) hold_resources: bool,
    pub(super) registry: RegistrySettings,
    pub(super) platform: PlatformSettings,
}

/// `[target.registry]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RegistrySettings {
    pub(super) address: Option<String>,
    pub(super) bandwidth_max: Option<ByteCount>,
    pub(super) nondistributable: Nondistributable,
    pub(super) plain_http: bool,
    pub(super) connect_to: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) insecure_skip_verify: bool,
    pub(super) client_cert_file: Option<PathBuf>,
    pub(super) client_key: Option<SecretSettings>,
    pub(super) proxy: Option<String>,
    pub(super) proxy_username: Option<String>,
    pub(super) proxy_password: Option<SecretSettings>,
    pub(super) no_auth: bool,
    pub(super) username: Option<String>,
    pub(super) password: Option<SecretSettings>,
    pub(super) docker_config: Option<SecretSettings>,
}

/// `[target.platform]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PlatformSettings {
    pub(super) kind: PlatformKind,
    pub(super) address: Option<String>,
    pub(super) connect_to: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) insecure_skip_verify: bool,
    pub(super) username: Option<String>,
    pub(super) password: Option<SecretSettings>,
    pub(super) token: Option<SecretSettings>,
    pub(super) identity_provider: String,
    pub(super) clusters: Vec<String>,
    pub(super) catalog_source: CatalogSource,
    pub(super) pull_registry: Option<String>,
    pub(super) path: Option<PathBuf>,
}

/// `password = { ... }`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SecretSettings {
    pub(super) file: Option<PathBuf>,
    pub(super) credential: Option<String>,
    pub(super) env: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/violetd".into(),
            log: Log::default(),
            admin: AdminSettings::default(),
            verify: VerifySettings::default(),
            limits: Limits::default(),
            disk: Disk::default(),
            drop: Vec::new(),
            replicate: Replicate::default(),
            retain: RetainSettings::default(),
            collect: CollectSettings::default(),
            scrub: ScrubSettings::default(),
            target: Vec::new(),
        }
    }
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            socket: "/run/violetd/admin.sock".into(),
            listen: String::new(),
        }
    }
}

impl Default for VerifySettings {
    fn default() -> Self {
        Self {
            keyring: vec!["/etc/violetd/keys".into()],
            signers: Vec::new(),
            signer_validity: SignerValidity::WhenSigned,
            sidecar_bytes_max: None,
            sidecar_signatures_max: None,
            sidecar_lines_max: None,
            keyring_bytes_max: None,
            keyring_certificates_max: None,
        }
    }
}

impl Default for DropSettings {
    fn default() -> Self {
        Self {
            path: None,
            policy: Policy::Signature,
            keyring: None,
            signers: None,
            signatures_min: 1,
            settle: Duration::from_secs(5),
            sidecar_wait: Duration::from_mins(10),
            after_ready: AfterReady::Move,
            done_dir: None,
            rejected_dir: None,
            requests_dir: None,
        }
    }
}

impl Default for TargetSettings {
    fn default() -> Self {
        Self {
            name: None,
            role: None,
            schedule: "0 2 * * *".to_owned(),
            time_zone: "UTC".to_owned(),
            on_ready: true,
            catch_up: true,
            jitter: Duration::ZERO,
            packages: vec!["*".parse().expect("a star is a pattern")],
            hold_resources: false,
            registry: RegistrySettings::default(),
            platform: PlatformSettings::default(),
        }
    }
}

impl Default for PlatformSettings {
    fn default() -> Self {
        Self {
            kind: PlatformKind::None,
            address: None,
            connect_to: None,
            ca_file: None,
            insecure_skip_verify: false,
            username: None,
            password: None,
            token: None,
            identity_provider: "local".to_owned(),
            clusters: vec!["global".to_owned()],
            catalog_source: CatalogSource::Platform,
            pull_registry: None,
            path: None,
        }
    }
}

impl Settings {
    /// Returns settings in which every key has a value. The values mean nothing.
    #[expect(clippy::too_many_lines, reason = "one line for each key")]
    pub(super) fn sample() -> Self {
        let text = || Some("x".to_owned());
        let path = || Some(PathBuf::from("/x"));
        let secret = || {
            Some(SecretSettings {
                file: path(),
                credential: text(),
                env: text(),
            })
        };
        let mut settings = Self {
            limits: Limits {
                entries_max: Some(1),
                unpacked_bytes_max: Some(ByteCount(1)),
                metadata_bytes_max: Some(ByteCount(1)),
                metadata_total_bytes_max: Some(ByteCount(1)),
                manifest_bytes_max: Some(ByteCount(1)),
                path_bytes_max: Some(ByteCount(1)),
                nesting_max: Some(1),
                expansion_ratio_max: Some(1),
                expansion_checked_from_bytes: Some(ByteCount(1)),
                extension_bytes_max: Some(ByteCount(1)),
                extensions_max: Some(1),
                images_max: Some(1),
                resources_max: Some(1),
                archives_nested_max: Some(1),
                chart_bytes_max: Some(ByteCount(1)),
                zstd_window_bytes_max: Some(ByteCount(1)),
                bundle_bytes_max: Some(ByteCount(1)),
                bundle_unpacked_bytes_max: Some(ByteCount(1)),
                bundle_entries_max: Some(1),
            },
            drop: vec![DropSettings {
                path: path(),
                keyring: Some(vec!["/x".into()]),
                signers: Some(vec!["x".to_owned()]),
                done_dir: path(),
                rejected_dir: path(),
                requests_dir: path(),
                ..DropSettings::default()
            }],
            target: vec![TargetSettings {
                name: Some("x".parse().expect("a letter is a name")),
                role: Some(Role::Primary),
                registry: RegistrySettings {
                    address: text(),
                    bandwidth_max: Some(ByteCount(1)),
                    connect_to: text(),
                    ca_file: path(),
                    client_cert_file: path(),
                    client_key: secret(),
                    proxy: text(),
                    proxy_username: text(),
                    proxy_password: secret(),
                    username: text(),
                    password: secret(),
                    docker_config: secret(),
                    ..RegistrySettings::default()
                },
                platform: PlatformSettings {
                    address: text(),
                    connect_to: text(),
                    ca_file: path(),
                    username: text(),
                    password: secret(),
                    token: secret(),
                    pull_registry: text(),
                    path: path(),
                    ..PlatformSettings::default()
                },
                ..TargetSettings::default()
            }],
            ..Self::default()
        };
        settings.scrub.package_dirs = vec!["/x".into()];
        settings.retain = RetainSettings::sample();
        settings.verify = VerifySettings {
            signers: vec!["x".to_owned()],
            sidecar_bytes_max: Some(ByteCount(1)),
            sidecar_signatures_max: Some(1),
            sidecar_lines_max: Some(1),
            keyring_bytes_max: Some(ByteCount(1)),
            keyring_certificates_max: Some(1),
            ..VerifySettings::default()
        };
        settings
    }
}
