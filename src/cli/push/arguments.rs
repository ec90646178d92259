//! The arguments of `violetd push`: those of violet under the same names, and ours.

use std::num::NonZeroU64;
use std::path::PathBuf;

use super::super::Failure;
use super::secrets::{PLATFORM_PASSWORD, PLATFORM_TOKEN, REGISTRY_PASSWORD, Secrets};
use crate::base::{ByteCount, ClusterName, ParseByteCountError, Repository, Secret};
use crate::daemon::push::{
    Foreign, Keeping, Login, Options, Others, PlatformAccess, RegistryAccess, Trusted, Work,
};
use crate::sys::fs::Context as _;
use crate::verify::{Fingerprint, Policy, Requirements};

/// Where certificates are looked for if no place is given: the default of the configuration.
const KEYRING_DEFAULT: &str = "/etc/violetd/keys";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Passwords are visible to others on this machine where they are on the command line. They can be in a file, on \
                  standard input, or in the environment: VIOLETD_PUSH_PASSWORD, VIOLETD_PUSH_PLATFORM_PASSWORD, \
                  VIOLETD_PUSH_PLATFORM_TOKEN.\n\n\
                  A push that was interrupted goes on when the same command is run again."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line, and clap checks which go together"
)]
pub(in crate::cli) struct Arguments {
    /// Package file, folder of package files, or folder of an OCI image layout; several are pushed one after the other
    #[arg(value_name = "FILE|DIR", required = true)]
    paths: Vec<PathBuf>,

    /// Registry to push to
    #[arg(long, visible_alias = "dst-repo", value_name = "HOST[:PORT]")]
    dest_repo: Option<String>,
    /// User name for the registry
    #[arg(long, value_name = "NAME", requires = "dest_repo")]
    username: Option<String>,
    /// Password for the registry; visible to others on this machine
    #[arg(
        long,
        value_name = "TEXT",
        requires = "username",
        group = "registry_password"
    )]
    password: Option<String>,
    /// Read the password for the registry from standard input
    #[arg(long, requires = "username", group = "registry_password")]
    password_stdin: bool,
    /// Read the password for the registry from a file
    #[arg(
        long,
        value_name = "FILE",
        requires = "username",
        group = "registry_password"
    )]
    password_file: Option<PathBuf>,
    /// File as `docker login` or `podman login --authfile` writes it, with the login for the registry
    #[arg(
        long,
        value_name = "FILE",
        visible_alias = "authfile",
        requires = "dest_repo",
        conflicts_with = "username"
    )]
    docker_config: Option<PathBuf>,
    /// Use no credentials for the registry
    #[arg(long, conflicts_with_all = ["username", "docker_config"])]
    no_auth: bool,
    /// Speak HTTP to the registry instead of HTTPS
    #[arg(long)]
    plain: bool,
    /// Dial this host instead of the one in --dest-repo, whose port and name are kept
    #[arg(long, value_name = "HOST", requires = "dest_repo")]
    connect_to: Option<String>,

    /// Platform to publish resources on
    #[arg(long, value_name = "URL")]
    platform_address: Option<String>,
    /// User name for the platform
    #[arg(long, value_name = "NAME", requires = "platform_address")]
    platform_username: Option<String>,
    /// Password for the platform; visible to others on this machine
    #[arg(
        long,
        value_name = "TEXT",
        requires = "platform_username",
        group = "platform_login"
    )]
    platform_password: Option<String>,
    /// Read the password for the platform from a file
    #[arg(
        long,
        value_name = "FILE",
        requires = "platform_username",
        group = "platform_login"
    )]
    platform_password_file: Option<PathBuf>,
    /// API token for the platform; visible to others on this machine
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "platform_username",
        group = "platform_login"
    )]
    platform_token: Option<String>,
    /// Read the API token for the platform from a file
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "platform_username",
        group = "platform_login"
    )]
    platform_token_file: Option<PathBuf>,
    /// OAuth client of the platform's login, where it is not `alauda-auth`
    #[arg(long, value_name = "ID", requires = "platform_username")]
    client_id: Option<String>,
    /// Dial this host instead of the one in --platform-address
    #[arg(long, value_name = "HOST", requires = "platform_address")]
    platform_connect_to: Option<String>,

    /// Clusters to publish operators on; plugins are always published on `global`
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_values_t = [ClusterName::global()])]
    clusters: Vec<ClusterName>,
    /// Catalogue to publish operators in
    #[arg(long, value_name = "NAME", default_value = "platform")]
    target_catalog_source: String,
    /// Secret with which clusters pull bundle images; may be repeated
    #[arg(long, value_name = "NAME")]
    image_pull_secret: Vec<String>,
    /// Chart repository; charts are not uploaded, see --skip-crs
    #[arg(long, value_name = "NAME")]
    target_chartrepo: Option<String>,
    /// Push images only
    #[arg(long, conflicts_with = "skip_push")]
    skip_crs: bool,
    /// Publish resources only. Images must be in the registry, which is checked where --dest-repo is given
    #[arg(long)]
    skip_push: bool,
    /// Replace images that others have put under the same names
    #[arg(long)]
    force: bool,
    /// Push foreign (non-distributable) layers, too, where a package or layout has their content; see docs/push.md
    #[arg(long)]
    allow_nondistributable_artifacts: bool,
    /// Only for the command lines of violet, see docs/push.md
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", hide = true)]
    reset_bundle_version: Option<bool>,

    /// Repository for images that a layout names by a tag alone; by default the name of its folder
    #[arg(long, value_name = "PATH")]
    repository: Option<Repository>,
    /// What must vouch for a package; by default `signature` with --keyring or --signer, otherwise `none`. What lies beside
    /// a package and does not fit is an error in any case
    #[arg(long, value_name = "POLICY", value_enum)]
    policy: Option<PolicyChoice>,
    /// File or folder with the OpenPGP certificates of allowed signers; may be repeated; by default
    /// `/etc/violetd/keys`, if it is there
    #[arg(long, value_name = "FILE|DIR")]
    keyring: Vec<PathBuf>,
    /// Fingerprint of an allowed signer; may be repeated; by default every certificate of the keyring is one
    #[arg(long, value_name = "FINGERPRINT")]
    signer: Vec<Fingerprint>,

    /// File with certificates, in PEM, to trust besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Believe any certificate: whoever is in between can read and change everything
    #[arg(long)]
    insecure_skip_tls_verify: bool,
    /// The most bytes of blobs per second, such as 20MB
    #[arg(long, value_name = "SIZE", value_parser = parse_bandwidth)]
    bandwidth: Option<NonZeroU64>,
    /// The most requests of one kind in flight at one time
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    concurrency: u16,
    /// Where packages are unpacked; by default `violetd` in the user's cache folder
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Keep unpacked packages for a week, for the next push of the same
    #[arg(long)]
    keep: bool,
    /// Print a report for programs
    #[arg(long)]
    pub(super) json: bool,
    /// Show no progress on a terminal
    #[arg(long)]
    pub(super) no_progress: bool,
    /// Say more of what is done
    #[arg(long)]
    pub(super) debug: bool,
}

/// What must vouch for a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PolicyChoice {
    /// Signatures by allowed signers
    Signature,
    /// Signatures as above, or a checksum
    Checksum,
    /// Nothing
    None,
}

impl Arguments {
    /// Says what is answered otherwise than violet would.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.reset_bundle_version == Some(true) {
            notes.push("note: --reset-bundle-version has no effect: violetd leaves versions to the bundle, and writes no annotations about them".to_owned());
        }
        if let Some(name) = &self.target_chartrepo {
            notes.push(format!(
                "note: --target-chartrepo {name} has no effect: charts are not uploaded to a chart repository"
            ));
        }
        notes
    }

    /// Returns what to push, and where.
    pub(super) fn options(self) -> Result<Options, Failure> {
        let work = match (self.skip_crs, self.skip_push) {
            (true, _) => Work::Images,
            (false, true) => Work::Resources,
            (false, false) => Work::All,
        };
        self.check(work)?;
        let secrets = Secrets::default();
        let trusted = self.trusted()?;
        let registry = self.registry(&trusted, &secrets)?;
        let platform = match work {
            Work::Images => None,
            Work::All | Work::Resources => self.platform(trusted, &secrets)?,
        };
        let store = self.store.clone();
        Ok(Options {
            requirements: Requirements {
                signers: self.signer.clone(),
                ..Requirements::new(self.policy())
            },
            keyring: self.keyring(),
            cache_dir: store.map_or_else(default_store, Ok)?,
            sources: self.paths,
            repository: self.repository,
            registry,
            platform,
            work,
            clusters: self.clusters,
            catalog_source: self.target_catalog_source,
            image_pull_secrets: self.image_pull_secret,
            others: if self.force {
                Others::Replace
            } else {
                Others::Keep
            },
            foreign: if self.allow_nondistributable_artifacts {
                Foreign::Push
            } else {
                Foreign::Skip
            },
            keeping: if self.keep {
                Keeping::Pushed
            } else {
                Keeping::Nothing
            },
            concurrency: self.concurrency.into(),
        })
    }

    /// Refuses what makes no sense together.
    fn check(&self, work: Work) -> Result<(), Failure> {
        if self.dest_repo.is_none() && work != Work::Resources {
            return Err(Failure::usage(
                "expected --dest-repo: where images go is not taken from the platform, because on a standby that is the registry of the primary",
            ));
        }
        if work == Work::Resources && self.platform_address.is_none() {
            return Err(Failure::usage(
                "expected --platform-address with --skip-push: there is nothing else to do",
            ));
        }
        let has_login = self.username.is_some() || self.docker_config.is_some();
        if self.dest_repo.is_some() && !has_login && !self.no_auth {
            return Err(Failure::usage(
                "when --dest-repo is specified, either the authentication info of the image registry (--username with --password-stdin, --password-file or --password, or --docker-config) or --no-auth must be provided",
            ));
        }
        Ok(())
    }

    fn policy(&self) -> Policy {
        let is_strict = !(self.keyring.is_empty() && self.signer.is_empty());
        match self.policy {
            Some(PolicyChoice::Signature) => Policy::Signature,
            None if is_strict => Policy::Signature,
            Some(PolicyChoice::Checksum) => Policy::Checksum,
            Some(PolicyChoice::None) | None => Policy::None,
        }
    }

    /// Returns where certificates are. The default place may be absent.
    fn keyring(&self) -> Vec<PathBuf> {
        let default = PathBuf::from(KEYRING_DEFAULT);
        if self.keyring.is_empty() && default.exists() {
            vec![default]
        } else {
            self.keyring.clone()
        }
    }

    fn trusted(&self) -> Result<Trusted, Failure> {
        let mut extra_roots = Vec::new();
        if let Some(path) = &self.ca_file {
            extra_roots.push(std::fs::read(path).context("read", path)?);
        }
        Ok(Trusted {
            extra_roots,
            is_blind: self.insecure_skip_tls_verify,
        })
    }

    fn registry(
        &self,
        trusted: &Trusted,
        secrets: &Secrets,
    ) -> Result<Option<RegistryAccess>, Failure> {
        let Some(address) = self.dest_repo.clone() else {
            return Ok(None);
        };
        let credentials = match &self.username {
            None => None,
            Some(username) => {
                let password = if self.password_stdin {
                    Secrets::from_stdin()?
                } else {
                    let (given, file) = (self.password.as_deref(), self.password_file.as_deref());
                    secrets.require(&REGISTRY_PASSWORD, given, file)?
                };
                Some((username.clone(), password))
            }
        };
        Ok(Some(RegistryAccess {
            address,
            trust: (!self.plain).then(|| trusted.clone()),
            connect_to: self.connect_to.clone(),
            credentials,
            docker_config: self.docker_config.clone(),
            concurrency_max: self.concurrency.into(),
            bandwidth_max: self.bandwidth,
        }))
    }

    fn platform(
        &self,
        trust: Trusted,
        secrets: &Secrets,
    ) -> Result<Option<PlatformAccess>, Failure> {
        let Some(address) = self.platform_address.clone() else {
            return Ok(None);
        };
        Ok(Some(PlatformAccess {
            address,
            trust,
            connect_to: self.platform_connect_to.clone(),
            login: self.login(secrets)?,
        }))
    }

    fn login(&self, secrets: &Secrets) -> Result<Login, Failure> {
        let Some(username) = self.platform_username.clone() else {
            let (given, file) = (
                self.platform_token.as_deref(),
                self.platform_token_file.as_deref(),
            );
            let token: Secret = secrets.require(&PLATFORM_TOKEN, given, file)?;
            return Ok(Login::Token(token));
        };
        let (given, file) = (
            self.platform_password.as_deref(),
            self.platform_password_file.as_deref(),
        );
        Ok(Login::Password {
            username,
            password: secrets.require(&PLATFORM_PASSWORD, given, file)?,
            client_id: self.client_id.clone(),
        })
    }
}

fn parse_bandwidth(text: &str) -> Result<NonZeroU64, String> {
    let bytes: ByteCount = text
        .parse()
        .map_err(|error: ParseByteCountError| error.to_string())?;
    NonZeroU64::new(bytes.0).ok_or_else(|| "expected at least 1 byte per second".to_owned())
}

/// Returns where packages are unpacked (XDG Base Directory Specification 0.8: relative paths are to be ignored).
fn default_store() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .ok_or_else(|| {
            Failure::usage("expected --store, or HOME or XDG_CACHE_HOME in the environment")
        })?;
    Ok(cache.join("violetd"))
}
