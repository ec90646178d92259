//! The sections that concern the daemon as a whole.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::choice::choice;
use super::duration;
use super::error::{Flaw, Problem};
use super::settings::{AdminSettings, DropSettings};
use super::trust::{self, Verify};
use crate::base::{ByteCount, DEPTH_MAX};

/// Most attempts at one request that make sense. Chosen: beyond it the back-off alone takes most of a day.
const ATTEMPTS_MAX: u32 = 100;
/// Most images and blobs in flight for each target that make sense. Chosen: a registry is slower with more.
const CONCURRENCY_MAX: u32 = 64;
/// The most levels of manifests below an image: a package with more would be taken in, and no image of it could be read.
const NESTING_MAX: u32 = 7;
const _: () = assert!(
    NESTING_MAX as usize == DEPTH_MAX - 1,
    "the image is a level too"
);
/// The most levels of archives in archives: each takes a part of the stack and a decompressor. Chosen, not measured.
const ARCHIVES_NESTED_MAX: u32 = 8;

choice! {
    /// How log lines look.
    pub enum LogFormat {
        /// `text` on a terminal, `json` otherwise.
        Auto = "auto",
        /// For people.
        Text = "text",
        /// One object in each line.
        Json = "json",
    }
}

choice! {
    /// What a package needs in order to be trusted.
    pub enum Policy {
        /// A signature by a key of the keyring.
        Signature = "signature",
        /// A signature or a checksum file.
        Checksum = "checksum",
        /// Nothing.
        None = "none",
    }
}

choice! {
    /// What becomes of a package file once its content is stored.
    pub enum AfterReady {
        /// It stays where it is.
        Keep = "keep",
        /// It moves to `done_dir`.
        Move = "move",
        /// It is deleted.
        Delete = "delete",
    }
}

/// `[log]`: what is logged and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Levels in the syntax of `EnvFilter`: `info` or `info,violetd::registry=debug`.
    pub level: String,
    /// The format of a line.
    pub format: LogFormat,
}

/// `[admin]`: where the daemon can be asked and told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Unix socket of the admin API.
    pub socket: PathBuf,
    /// TCP address for `/metrics`, `/healthz` and `/readyz`, and nothing else.
    pub listen: Option<SocketAddr>,
}

/// `[limits]`: how much a package may ask for. What is absent is the default of the package reader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Entries of one archive and of those inside.
    pub entries_max: Option<u64>,
    /// Bytes of one archive once decompressed, with those inside.
    pub unpacked_bytes_max: Option<ByteCount>,
    /// Bytes of one metadata file.
    pub metadata_bytes_max: Option<ByteCount>,
    /// Bytes held in memory for one package: names, metadata, manifests, configurations.
    pub metadata_total_bytes_max: Option<ByteCount>,
    /// Bytes of one image manifest or configuration.
    pub manifest_bytes_max: Option<ByteCount>,
    /// Bytes of one entry name.
    pub path_bytes_max: Option<ByteCount>,
    /// Levels of manifests below an image. 1 to 7.
    pub nesting_max: Option<u32>,
    /// Unpacked bytes for each byte read.
    pub expansion_ratio_max: Option<u64>,
    /// Unpacked bytes below which the ratio is not looked at.
    pub expansion_checked_from_bytes: Option<ByteCount>,
    /// Bytes of one extension header of the archive.
    pub extension_bytes_max: Option<ByteCount>,
    /// Extension headers before one entry.
    pub extensions_max: Option<u32>,
    /// Images of one package.
    pub images_max: Option<u64>,
    /// Kubernetes documents of one package.
    pub resources_max: Option<u64>,
    /// Levels of archives inside of one archive. 1 to 8.
    pub archives_nested_max: Option<u32>,
    /// Bytes of one Helm chart that is packed by itself.
    pub chart_bytes_max: Option<ByteCount>,
    /// Bytes of the window that zstd may ask for.
    pub zstd_window_bytes_max: Option<ByteCount>,
    /// Bytes of the layers of an operator bundle or chart that is looked into.
    pub bundle_bytes_max: Option<ByteCount>,
    /// Bytes of them once decompressed.
    pub bundle_unpacked_bytes_max: Option<ByteCount>,
    /// Entries of them.
    pub bundle_entries_max: Option<u64>,
}

/// `[replicate]`: how targets are brought up to date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replicate {
    /// Attempts at one request, the first included. 1 to 100.
    pub attempts_max: u32,
    /// The most images and blobs in flight for each target. 1 to 64.
    pub concurrency: u32,
    /// How long after a failed run the next one starts. Doubles with each further failure.
    #[serde(with = "duration")]
    pub retry_first: Duration,
    /// The longest such pause.
    #[serde(with = "duration")]
    pub retry_max: Duration,
    /// How long the platform may take to accept a resource.
    #[serde(with = "duration")]
    pub verdict_timeout: Duration,
    /// A connection on which nothing moves for this long is given up.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// How long connecting may take, TLS included.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
}

/// `[[drop]]`: a folder into which packages are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropFolder {
    /// The folder.
    pub path: PathBuf,
    /// What a package in it needs in order to be trusted.
    pub policy: Policy,
    /// Files of OpenPGP certificates, or folders of such files.
    pub keyring: Vec<PathBuf>,
    /// Fingerprints in upper case without spaces. Empty: every certificate of the keyring may sign.
    pub signers: Vec<String>,
    /// How many different signers must have signed.
    pub signatures_min: u32,
    /// How long a file must rest before it counts as complete.
    pub settle: Duration,
    /// How long a file waits for the signature or checksum that the policy asks for, before it is refused.
    pub sidecar_wait: Duration,
    /// What becomes of files whose content is stored.
    pub after_ready: AfterReady,
    /// Where they move, if they do.
    pub done_dir: PathBuf,
    /// Where refused files move.
    pub rejected_dir: PathBuf,
    /// Where it is said which blobs files wait for.
    pub requests_dir: PathBuf,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

impl Default for Replicate {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            // The pace follows what a registry takes; more than this brought nothing on a fast network. Chosen, not measured.
            concurrency: 8,
            retry_first: Duration::from_secs(30),
            retry_max: Duration::from_mins(30),
            verdict_timeout: Duration::from_mins(10),
            idle_timeout: Duration::from_mins(1),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl Log {
    pub(super) fn check(&self) -> Result<(), Flaw> {
        EnvFilter::builder()
            .parse(&self.level)
            .map(drop)
            .map_err(|error| {
                let text = format!(
                    "expected levels such as `info` or `info,violetd::registry=debug`, found `{}` ({error})",
                    self.level
                );
                Flaw::new("log.level", Problem::Value(text))
            })
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<(), Flaw> {
        let amount = |bytes: Option<ByteCount>| bytes.map(|bytes| bytes.0);
        let count = |count: Option<u32>| count.map(u64::from);
        let numbers = [
            ("entries_max", self.entries_max),
            ("unpacked_bytes_max", amount(self.unpacked_bytes_max)),
            ("metadata_bytes_max", amount(self.metadata_bytes_max)),
            (
                "metadata_total_bytes_max",
                amount(self.metadata_total_bytes_max),
            ),
            ("manifest_bytes_max", amount(self.manifest_bytes_max)),
            ("path_bytes_max", amount(self.path_bytes_max)),
            ("nesting_max", count(self.nesting_max)),
            ("expansion_ratio_max", self.expansion_ratio_max),
            ("extension_bytes_max", amount(self.extension_bytes_max)),
            ("extensions_max", count(self.extensions_max)),
            ("images_max", self.images_max),
            ("resources_max", self.resources_max),
            ("archives_nested_max", count(self.archives_nested_max)),
            ("chart_bytes_max", amount(self.chart_bytes_max)),
            ("zstd_window_bytes_max", amount(self.zstd_window_bytes_max)),
            ("bundle_bytes_max", amount(self.bundle_bytes_max)),
            (
                "bundle_unpacked_bytes_max",
                amount(self.bundle_unpacked_bytes_max),
            ),
            ("bundle_entries_max", self.bundle_entries_max),
        ];
        if let Some((key, _)) = numbers.iter().find(|(_, number)| *number == Some(0)) {
            return Err(out_of_range(format!("limits.{key}"), "at least 1", "0"));
        }
        for (key, levels, max) in [
            ("nesting_max", self.nesting_max, NESTING_MAX),
            (
                "archives_nested_max",
                self.archives_nested_max,
                ARCHIVES_NESTED_MAX,
            ),
        ] {
            if let Some(levels) = levels.filter(|levels| *levels > max) {
                let expected = format!("1 to {max}");
                return Err(out_of_range(
                    format!("limits.{key}"),
                    expected,
                    levels.to_string(),
                ));
            }
        }
        Ok(())
    }
}

impl Replicate {
    pub(super) fn check(&self) -> Result<(), Flaw> {
        for (key, number, max) in [
            ("attempts_max", self.attempts_max, ATTEMPTS_MAX),
            ("concurrency", self.concurrency, CONCURRENCY_MAX),
        ] {
            if !(1..=max).contains(&number) {
                let expected = format!("1 to {max}");
                return Err(out_of_range(
                    format!("replicate.{key}"),
                    expected,
                    number.to_string(),
                ));
            }
        }
        for (key, duration) in [
            ("retry_first", self.retry_first),
            ("verdict_timeout", self.verdict_timeout),
            ("idle_timeout", self.idle_timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if duration.is_zero() {
                let key = format!("replicate.{key}");
                return Err(out_of_range(key, "more than nothing", "0s"));
            }
        }
        if self.retry_max < self.retry_first {
            let first = humantime::format_duration(self.retry_first);
            return Err(out_of_range(
                "replicate.retry_max",
                format!("at least `retry_first`, {first}"),
                humantime::format_duration(self.retry_max).to_string(),
            ));
        }
        Ok(())
    }
}

impl Admin {
    pub(super) fn read(settings: AdminSettings) -> Result<Self, Flaw> {
        let listen = match settings.listen.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                let text = format!(
                    "expected an IP address with a port such as `127.0.0.1:9470`, found `{text}`"
                );
                Flaw::new("admin.listen", Problem::Value(text))
            })?),
        };
        Ok(Self {
            socket: absolute("admin.socket", settings.socket)?,
            listen,
        })
    }
}

impl DropFolder {
    pub(super) fn read(
        index: usize,
        settings: DropSettings,
        verify: &Verify,
    ) -> Result<Self, Flaw> {
        let key = |name: &str| format!("drop[{index}].{name}");
        let path = settings
            .path
            .ok_or_else(|| Flaw::new(key("path"), Problem::Missing))?;
        let path = absolute(key("path"), path)?;
        if settings.settle.is_zero() {
            return Err(out_of_range(key("settle"), "more than nothing", "0s"));
        }
        let beside = |name: &str, given: Option<PathBuf>, default: &str| match given {
            Some(given) => absolute(key(name), given),
            None => Ok(path.join(default)),
        };
        let keyring = match settings.keyring {
            Some(paths) => trust::keyring(&key("keyring"), paths)?,
            None => verify.keyring.clone(),
        };
        let signers = match settings.signers {
            Some(texts) => trust::signers(&key("signers"), &texts)?,
            None => verify.signers.clone(),
        };
        let signatures_min =
            trust::signatures_min(&key("signatures_min"), settings.signatures_min, &signers)?;
        Ok(Self {
            policy: settings.policy,
            keyring,
            signers,
            signatures_min,
            settle: settings.settle,
            sidecar_wait: settings.sidecar_wait,
            after_ready: settings.after_ready,
            done_dir: beside("done_dir", settings.done_dir, "done")?,
            rejected_dir: beside("rejected_dir", settings.rejected_dir, "rejected")?,
            requests_dir: beside("requests_dir", settings.requests_dir, "requests")?,
            path,
        })
    }
}

/// Accepts an absolute path whose text says where it leads, and brings it to one form: no `.`, no double slash.
pub(super) fn absolute(key: impl Into<String>, path: PathBuf) -> Result<PathBuf, Flaw> {
    let goes_up = Path::new(&path)
        .components()
        .any(|component| component == Component::ParentDir);
    if path.is_absolute() && !goes_up {
        Ok(path.components().collect())
    } else {
        Err(Flaw::new(key, Problem::Path(path)))
    }
}

pub(super) fn out_of_range(
    key: impl Into<String>,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> Flaw {
    let problem = Problem::Range {
        expected: expected.into(),
        found: found.into(),
    };
    Flaw::new(key, problem)
}
