//! The sections that concern the daemon as a whole.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::choice::choice;
use super::duration;
use super::error::{Flaw, Problem};
use super::settings::{AdminSettings, DropSettings, VerifySettings};
use crate::base::ByteCount;

/// Most attempts at one request that make sense. Chosen: beyond it the back-off alone takes most of a day.
const ATTEMPTS_MAX: u32 = 100;
/// Most images and blobs in flight for each target that make sense. Chosen: a registry is slower with more.
const CONCURRENCY_MAX: u32 = 64;
/// Hex digits of an OpenPGP fingerprint: version 4 (RFC 4880) and version 6 (RFC 9580).
const FINGERPRINT_DIGITS: [usize; 2] = [40, 64];

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

/// `[verify]`: whose signatures are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    /// Files of OpenPGP certificates, or folders of such files.
    pub keyring: Vec<PathBuf>,
    /// Fingerprints in upper case without spaces. Empty: every certificate of the keyring may sign.
    pub signers: Vec<String>,
}

/// `[limits]`: how much a package may ask for. What is absent is the default of the package reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Entries of one archive.
    pub entries_max: Option<u64>,
    /// Bytes of one archive once decompressed.
    pub unpacked_bytes_max: Option<ByteCount>,
    /// Bytes of one metadata file.
    pub metadata_bytes_max: Option<ByteCount>,
    /// Unpacked bytes for each byte read.
    pub expansion_ratio_max: Option<u64>,
    /// Ingest pauses while the state directory has less free space than this.
    pub free_bytes_min: ByteCount,
}

/// `[replicate]`: how targets are brought up to date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replicate {
    /// Attempts at one request, the first included. 1 to 100.
    pub attempts_max: u32,
    /// Images and blobs in flight for each target. 1 to 64.
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
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries_max: None,
            unpacked_bytes_max: None,
            metadata_bytes_max: None,
            expansion_ratio_max: None,
            free_bytes_min: ByteCount(1 << 30),
        }
    }
}

impl Default for Replicate {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            concurrency: 4,
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
        let is_zero = [
            ("entries_max", self.entries_max == Some(0)),
            (
                "unpacked_bytes_max",
                self.unpacked_bytes_max == Some(ByteCount(0)),
            ),
            (
                "metadata_bytes_max",
                self.metadata_bytes_max == Some(ByteCount(0)),
            ),
            ("expansion_ratio_max", self.expansion_ratio_max == Some(0)),
        ];
        match is_zero.iter().find(|(_, is_zero)| *is_zero) {
            Some((key, _)) => Err(out_of_range(format!("limits.{key}"), "at least 1", "0")),
            None => Ok(()),
        }
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

impl Verify {
    pub(super) fn read(settings: VerifySettings) -> Result<Self, Flaw> {
        let keyring = settings
            .keyring
            .into_iter()
            .enumerate()
            .map(|(index, path)| absolute(format!("verify.keyring[{index}]"), path))
            .collect::<Result<_, _>>()?;
        let signers = settings
            .signers
            .iter()
            .enumerate()
            .map(|(index, text)| {
                fingerprint(text).ok_or_else(|| {
                    let text = format!(
                        "expected a whole fingerprint, 40 or 64 hex digits, found `{text}`"
                    );
                    Flaw::new(format!("verify.signers[{index}]"), Problem::Value(text))
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { keyring, signers })
    }
}

impl DropFolder {
    pub(super) fn read(index: usize, settings: DropSettings) -> Result<Self, Flaw> {
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
        Ok(Self {
            policy: settings.policy,
            settle: settings.settle,
            sidecar_wait: settings.sidecar_wait,
            after_ready: settings.after_ready,
            done_dir: beside("done_dir", settings.done_dir, "done")?,
            rejected_dir: beside("rejected_dir", settings.rejected_dir, "rejected")?,
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

fn out_of_range(
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

/// Returns a fingerprint in upper case without spaces. Short key ids are no fingerprints: others can make a key with
/// the same one.
fn fingerprint(text: &str) -> Option<String> {
    let digits: String = text.split_whitespace().collect();
    let digits = digits.strip_prefix("0x").unwrap_or(&digits);
    let is_good = FINGERPRINT_DIGITS.contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_good.then(|| digits.to_ascii_uppercase())
}
