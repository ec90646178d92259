//! The sections that concern one target. That of its registry is read by `registry`.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::address::{self, Address, Endpoint, Host};
use super::choice::choice;
use super::error::{Flaw, Problem};
use super::registry::Registry;
use super::secret::SecretSource;
use super::sections::absolute;
use super::settings::{PlatformSettings, SecretSettings, TargetSettings};
use crate::base::{NamePattern, TargetName};

/// Ports that are dialled where an address names none.
pub(super) const HTTPS_PORT: u16 = 443;
pub(super) const HTTP_PORT: u16 = 80;

choice! {
    /// What a global cluster is in a disaster recovery pair.
    pub enum Role {
        /// The one in use.
        Primary = "primary",
        /// One that takes over when the primary is lost. Nothing about it is inferred.
        Standby = "standby",
    }
}

choice! {
    /// What a target's resources are published to.
    pub enum PlatformKind {
        /// Nothing: the target gets images only.
        None = "none",
        /// Alauda Container Platform.
        Acp = "acp",
        /// A folder of YAML files, for other tools to apply.
        Directory = "directory",
    }
}

choice! {
    /// In which catalogue of the platform operators appear (`spec.catalogSource` of an Artifact).
    pub enum CatalogSource {
        /// The one of the platform's vendor.
        Platform = "platform",
        /// The one of the system.
        System = "system",
        /// The one of the customer.
        Custom = "custom",
    }
}

/// `[[target]]`: one global cluster with its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name in commands, reports and metrics.
    pub name: TargetName,
    /// Its role.
    pub role: Role,
    /// When it is compared and brought up to date: a cron expression, not yet parsed.
    pub schedule: String,
    /// The time zone of the expression, not yet parsed.
    pub time_zone: String,
    /// Whether a package that becomes ready starts a run at once.
    pub on_ready: bool,
    /// Whether a run that was due while the daemon was down starts when it is up again.
    pub catch_up: bool,
    /// The longest random delay of a scheduled run.
    pub jitter: Duration,
    /// Which packages belong there. A package does if one pattern fits.
    pub packages: Vec<NamePattern>,
    /// Whether resources wait until somebody releases them.
    pub hold_resources: bool,
    /// Where images go.
    pub registry: Registry,
    /// Where resources go.
    pub platform: Platform,
}

/// How a server is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP.
    Plain,
    /// HTTPS.
    Tls {
        /// Certificate authorities in PEM that are trusted besides those of the system.
        ca_file: Option<PathBuf>,
        /// Whether the server's certificate counts.
        verification: Verification,
    },
}

/// Whether the certificate of a server counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// It must be valid and trusted.
    Full,
    /// Anybody may answer.
    Skip,
}

/// A user name and where its password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The place of the password.
    pub password: SecretSource,
}

/// `[target.platform]`: where a target's resources go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Nowhere.
    None,
    /// To Alauda Container Platform.
    Acp(Box<Acp>),
    /// Into a folder.
    Directory(Directory),
}

/// An Alauda Container Platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acp {
    /// Its address, without path.
    pub address: Url,
    /// The host that is dialled instead.
    pub connect_to: Option<Host>,
    /// How it is spoken to.
    pub transport: Transport,
    /// Who we are there.
    pub access: PlatformAccess,
    /// The clusters that get operators. Plugins go to `global` only.
    pub clusters: Vec<String>,
    /// In which catalogue operators appear.
    pub catalog_source: CatalogSource,
    /// The address from which clusters pull, instead of the one that the platform names.
    pub pull_registry: Option<Address>,
}

/// Who we are at a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlatformAccess {
    /// The bearer of this token.
    Token(SecretSource),
    /// A user who logs in.
    Password {
        /// User name and password.
        credentials: Credentials,
        /// The identity provider that knows the user.
        identity_provider: String,
    },
}

/// A folder of resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The folder.
    pub path: PathBuf,
    /// The address from which clusters pull.
    pub pull_registry: Address,
    /// The clusters that get operators. Plugins go to `global` only.
    pub clusters: Vec<String>,
    /// In which catalogue operators appear.
    pub catalog_source: CatalogSource,
}

impl Acp {
    /// Returns what is dialled. Two targets for which it is equal, also after name resolution, share a platform.
    pub fn effective_address(&self) -> Endpoint {
        let own = || address::host_of(&self.address).expect("the host was parsed with the address");
        Endpoint {
            host: self.connect_to.clone().unwrap_or_else(own),
            port: self.address.port_or_known_default().unwrap_or(HTTPS_PORT),
        }
    }
}

impl Target {
    pub(super) fn read(index: usize, settings: TargetSettings) -> Result<Self, Flaw> {
        let section = Section(format!("target[{index}]"));
        let name = section.required("name", settings.name)?;
        let role = section.required("role", settings.role)?;
        if settings.packages.is_empty() {
            let text = "expected at least one pattern, found none".to_owned();
            return Err(section.flaw("packages", Problem::Value(text)));
        }
        Ok(Self {
            name,
            role,
            schedule: settings.schedule,
            time_zone: settings.time_zone,
            on_ready: settings.on_ready,
            catch_up: settings.catch_up,
            jitter: settings.jitter,
            packages: settings.packages,
            hold_resources: settings.hold_resources,
            registry: section
                .below("registry")
                .registry(role, settings.registry)?,
            platform: section
                .below("platform")
                .platform(role, settings.platform)?,
        })
    }
}

/// The section that is being read, for the keys of its flaws.
pub(super) struct Section(pub(super) String);

impl Section {
    fn below(&self, name: &str) -> Self {
        Self(self.key(name))
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.0)
    }

    pub(super) fn flaw(&self, name: &str, problem: Problem) -> Flaw {
        Flaw::new(self.key(name), problem)
    }

    fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, Flaw> {
        value.ok_or_else(|| self.flaw(name, Problem::Missing))
    }

    fn platform(&self, role: Role, settings: PlatformSettings) -> Result<Platform, Flaw> {
        self.check_keys_of_kind(&settings)?;
        for (index, cluster) in settings.clusters.iter().enumerate() {
            // A name is safe in a URL and as a file name.
            if let Err(error) = cluster.parse::<TargetName>() {
                let text = format!("{error}, found `{cluster}`");
                return Err(self.flaw(&format!("clusters[{index}]"), Problem::Value(text)));
            }
        }
        if settings.clusters.is_empty() {
            let text = "expected at least one cluster, found none".to_owned();
            return Err(self.flaw("clusters", Problem::Value(text)));
        }
        match settings.kind {
            PlatformKind::None => Ok(Platform::None),
            PlatformKind::Acp => self.acp(role, settings).map(Box::new).map(Platform::Acp),
            PlatformKind::Directory => self.directory(settings).map(Platform::Directory),
        }
    }

    /// Finds keys without default that mean nothing for the kind of platform. Most often `kind` was forgotten.
    fn check_keys_of_kind(&self, settings: &PlatformSettings) -> Result<(), Flaw> {
        use PlatformKind::{Acp, Directory};

        let keys: [(&str, bool, &[PlatformKind]); 9] = [
            ("address", settings.address.is_some(), &[Acp]),
            ("connect_to", settings.connect_to.is_some(), &[Acp]),
            ("ca_file", settings.ca_file.is_some(), &[Acp]),
            (
                "insecure_skip_verify",
                settings.insecure_skip_verify,
                &[Acp],
            ),
            ("username", settings.username.is_some(), &[Acp]),
            ("password", settings.password.is_some(), &[Acp]),
            ("token", settings.token.is_some(), &[Acp]),
            (
                "pull_registry",
                settings.pull_registry.is_some(),
                &[Acp, Directory],
            ),
            ("path", settings.path.is_some(), &[Directory]),
        ];
        keys.iter()
            .find(|(_, is_set, kinds)| *is_set && !kinds.contains(&settings.kind))
            .map_or(Ok(()), |(name, ..)| {
                Err(self.flaw(name, Problem::ForeignKey(settings.kind)))
            })
    }

    fn acp(&self, role: Role, settings: PlatformSettings) -> Result<Acp, Flaw> {
        let address = settings
            .address
            .as_deref()
            .ok_or_else(|| self.flaw("address", Problem::NoPlatformAddress(role)))?;
        let address = address::parse_platform(address)
            .map_err(|error| self.flaw("address", Problem::Value(error.to_string())))?;
        let tls = Tls {
            ca_file: settings.ca_file,
            insecure_skip_verify: settings.insecure_skip_verify,
        };
        let transport = if address.scheme() == "http" {
            self.plain("address", &tls)?
        } else {
            self.tls(tls)?
        };
        let credentials = self.credentials(LOGIN, settings.username, settings.password)?;
        let access = match (settings.token, credentials) {
            (Some(_), Some(_)) => return Err(self.flaw("token", Problem::Conflict("username"))),
            (Some(token), None) => PlatformAccess::Token(self.secret("token", token)?),
            (None, Some(credentials)) => PlatformAccess::Password {
                credentials,
                identity_provider: settings.identity_provider,
            },
            (None, None) => return Err(Flaw::new(self.0.as_str(), Problem::NoPlatformAccess)),
        };
        let pull_registry = settings.pull_registry.as_deref();
        Ok(Acp {
            address,
            connect_to: self.connect_to(settings.connect_to)?,
            transport,
            access,
            clusters: settings.clusters,
            catalog_source: settings.catalog_source,
            pull_registry: pull_registry
                .map(|text| self.address("pull_registry", text))
                .transpose()?,
        })
    }

    fn directory(&self, settings: PlatformSettings) -> Result<Directory, Flaw> {
        let path = self.required("path", settings.path)?;
        let pull_registry = self.required("pull_registry", settings.pull_registry)?;
        Ok(Directory {
            path: absolute(self.key("path"), path)?,
            pull_registry: self.address("pull_registry", &pull_registry)?,
            clusters: settings.clusters,
            catalog_source: settings.catalog_source,
        })
    }

    pub(super) fn address(&self, name: &str, text: &str) -> Result<Address, Flaw> {
        text.parse().map_err(|error: address::ParseAddressError| {
            self.flaw(name, Problem::Value(error.to_string()))
        })
    }

    pub(super) fn connect_to(&self, text: Option<String>) -> Result<Option<Host>, Flaw> {
        let Some(text) = text else {
            return Ok(None);
        };
        let address = self.address("connect_to", &text)?;
        match address.port {
            Some(_) => Err(self.flaw("connect_to", Problem::Port(text))),
            None => Ok(Some(address.host)),
        }
    }

    /// `key` is the one that asks for HTTP.
    pub(super) fn plain(&self, key: &str, tls: &Tls) -> Result<Transport, Flaw> {
        if tls.ca_file.is_some() {
            return Err(self.flaw(key, Problem::Conflict("ca_file")));
        }
        if tls.insecure_skip_verify {
            return Err(self.flaw(key, Problem::Conflict("insecure_skip_verify")));
        }
        Ok(Transport::Plain)
    }

    pub(super) fn tls(&self, tls: Tls) -> Result<Transport, Flaw> {
        if tls.insecure_skip_verify && tls.ca_file.is_some() {
            return Err(self.flaw("insecure_skip_verify", Problem::Conflict("ca_file")));
        }
        Ok(Transport::Tls {
            ca_file: tls
                .ca_file
                .map(|path| absolute(self.key("ca_file"), path))
                .transpose()?,
            verification: if tls.insecure_skip_verify {
                Verification::Skip
            } else {
                Verification::Full
            },
        })
    }

    /// Reads a user name and its password, which stand under `keys`.
    pub(super) fn credentials(
        &self,
        keys: LoginKeys,
        username: Option<String>,
        password: Option<SecretSettings>,
    ) -> Result<Option<Credentials>, Flaw> {
        match (username, password) {
            (None, None) => Ok(None),
            (Some(_), None) => {
                Err(self.flaw(keys.username, Problem::HalfCredentials(keys.password)))
            }
            (None, Some(_)) => {
                Err(self.flaw(keys.password, Problem::HalfCredentials(keys.username)))
            }
            (Some(username), Some(_)) if username.is_empty() => {
                let text = "expected a user name, found nothing".to_owned();
                Err(self.flaw(keys.username, Problem::Value(text)))
            }
            (Some(username), Some(password)) => Ok(Some(Credentials {
                username,
                password: self.secret(keys.password, password)?,
            })),
        }
    }

    pub(super) fn secret(
        &self,
        name: &str,
        settings: SecretSettings,
    ) -> Result<SecretSource, Flaw> {
        let key = self.key(name);
        match (settings.file, settings.credential, settings.env) {
            (Some(path), None, None) => {
                absolute(format!("{key}.file"), path).map(SecretSource::File)
            }
            (None, Some(name), None) => {
                // It becomes a file name below systemd's folder of credentials.
                if name.is_empty() || name.contains('/') || matches!(name.as_str(), "." | "..") {
                    let text = format!("expected the name of a credential, found `{name}`");
                    return Err(Flaw::new(format!("{key}.credential"), Problem::Value(text)));
                }
                Ok(SecretSource::Credential(name))
            }
            (None, None, Some(name)) if !name.is_empty() => Ok(SecretSource::Env(name)),
            _ => Err(Flaw::new(key, Problem::SecretSource)),
        }
    }
}

/// Under which keys a login stands.
#[derive(Clone, Copy)]
pub(super) struct LoginKeys {
    pub(super) username: &'static str,
    pub(super) password: &'static str,
}

/// The login at a registry or platform.
pub(super) const LOGIN: LoginKeys = LoginKeys {
    username: "username",
    password: "password",
};

/// The keys about TLS, which registries and platforms share.
pub(super) struct Tls {
    pub(super) ca_file: Option<PathBuf>,
    pub(super) insecure_skip_verify: bool,
}
