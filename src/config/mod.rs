//! The configuration: TOML and environment in, typed and checked values out.
//!
//! Start from [`Config::load`]. What it returns is complete: defaults are applied, durations and paths are parsed, and
//! what contradicts itself was refused with the file, the line, the key and a hint. Every key is described in
//! `config.example.toml`, which a test holds against the code.
//!
//! # Environment
//!
//! `VIOLETD_LOG__LEVEL` sets `log.level`: two underscores stand between section and key. Elements of lists are separated
//! by commas. Drop folders and targets are set in the file only. Variables of other names, without two underscores, are
//! left to the command line and to secrets.
//!
//! # Invariants
//!
//! - No secret stands in the configuration, only where it is ([`SecretSource`]), so all of it may be logged.
//! - No two targets dial the same registry or platform by the same host and port. Host names are compared as text here;
//!   whoever starts the daemon resolves them and compares again ([`Registry::effective_address`]).
//! - `schedule` and `time_zone` of a target are not parsed here: what they mean is the business of `schedule`.

mod address;
mod check;
mod choice;
mod collect;
mod disk;
mod document;
mod duration;
mod error;
mod registry;
mod retain;
mod scrub;
pub mod secret;
mod sections;
mod settings;
mod target;
mod trust;

use std::path::{Path, PathBuf};

pub use self::address::{Address, Endpoint, Host, ParseAddressError};
pub use self::check::Risk;
pub use self::collect::Collect;
pub use self::disk::Disk;
pub use self::error::{Error, Place, Problem};
pub use self::registry::{Identity, Nondistributable, Proxy, Registry};
pub use self::retain::{Retain, RetainRule};
pub use self::scrub::Scrub;
pub use self::secret::SecretSource;
pub use self::sections::{
    Admin, AfterReady, DropFolder, Limits, Log, LogFormat, Policy, Replicate,
};
pub use self::target::{
    Acp, CatalogSource, Credentials, Directory, Platform, PlatformAccess, PlatformKind, Role,
    Target, Transport, Verification,
};
pub use self::trust::{SignerValidity, Verify};

use self::document::Document;
use self::error::Flaw;
use self::settings::Settings;

/// The configuration of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where everything is kept.
    pub state_dir: PathBuf,
    /// What is logged and how.
    pub log: Log,
    /// Where the daemon can be asked and told.
    pub admin: Admin,
    /// Whose signatures are trusted.
    pub verify: Verify,
    /// How much a package may ask for.
    pub limits: Limits,
    /// How much space is left free.
    pub disk: Disk,
    /// The folders into which packages are dropped. At least one.
    pub drops: Vec<DropFolder>,
    /// How targets are brought up to date.
    pub replicate: Replicate,
    /// Which packages go.
    pub retain: Retain,
    /// How blobs go that no package keeps.
    pub collect: Collect,
    /// How stored blobs are checked and repaired.
    pub scrub: Scrub,
    /// The targets. At least one, each with its own name.
    pub targets: Vec<Target>,
}

impl Config {
    /// Reads the file at `path`, if one is given, and the environment, which wins.
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path).map_err(|source| Error::Read {
                path: path.to_owned(),
                source,
            })?,
            None => String::new(),
        };
        Self::read(path, &text, env)
    }

    /// Reads `text` as the content of `path`, which is not opened, and the environment, which wins.
    pub fn parse(
        path: &Path,
        text: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        Self::read(Some(path), text, env)
    }

    /// Lists what is allowed but should have been decided knowingly.
    pub fn check_risks(&self) -> Vec<Risk> {
        check::check_risks(self)
    }

    fn read(
        path: Option<&Path>,
        text: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let (settings, document) = Document::read(path, text, env)?;
        let config = Self::from_settings(settings).map_err(|flaw| document.locate(flaw))?;
        check::check(&config).map_err(|flaw| document.locate(flaw))?;
        Ok(config)
    }

    fn from_settings(settings: Settings) -> Result<Self, Flaw> {
        settings.log.check()?;
        settings.limits.check()?;
        settings.disk.check()?;
        settings.replicate.check()?;
        let verify = Verify::read(settings.verify)?;
        Ok(Self {
            state_dir: sections::absolute("state_dir", settings.state_dir)?,
            log: settings.log,
            admin: Admin::read(settings.admin)?,
            limits: settings.limits,
            disk: settings.disk,
            drops: settings
                .drop
                .into_iter()
                .enumerate()
                .map(|(index, settings)| DropFolder::read(index, settings, &verify))
                .collect::<Result<_, _>>()?,
            verify,
            replicate: settings.replicate,
            retain: Retain::read(settings.retain)?,
            collect: Collect::read(settings.collect)?,
            scrub: Scrub::read(settings.scrub)?,
            targets: settings
                .target
                .into_iter()
                .enumerate()
                .map(|(index, settings)| Target::read(index, settings))
                .collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod example_tests;
#[cfg(test)]
mod tests;
