//! What can be on record.
//!
//! A later program may write events that this one does not know: the chain is checked without knowing them. Fields may be
//! added to an event if they have a default. Names are never changed, only retired.

use serde::{Deserialize, Serialize};

use crate::base::{Digest, PackageKind, PackageName, Timestamp};

/// Bytes of a text in a record, beyond which it is cut: reasons quote what packages contain, and a line has a bound.
/// Longer than any path of Linux (4096 bytes).
const TEXT_BYTES_MAX: usize = 8 << 10;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", content = "fields", rename_all = "snake_case")]
pub enum Event {
    /// A dropped file was judged.
    Package(Box<PackageVerdict>),
    /// A package is removed from the catalog.
    Removed(Removed),
    /// An incomplete line was found at the end of a file. It stays where it is, as evidence.
    Recovered(Recovered),
    /// The record before this line is damaged. It stays as it is, as evidence.
    Broken(Broken),
}

impl Event {
    /// Reads an event; `None` for one that this program does not know.
    pub(super) fn read(name: &str, fields: &serde_json::Value) -> Option<Self> {
        serde_json::from_value(serde_json::json!({"event": name, "fields": fields})).ok()
    }

    /// Returns the stable name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Package(_) => "package",
            Self::Removed(_) => "removed",
            Self::Recovered(_) => "recovered",
            Self::Broken(_) => "broken",
        }
    }
}

/// What was decided about a dropped file, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageVerdict {
    /// The decision.
    pub verdict: Verdict,
    /// Path of the file in its drop folder.
    pub path: String,
    /// Name of the file, without its folder; of a package inside of it, its path there.
    pub file_name: String,
    /// Digest of the package file; absent where it could not be read to its end.
    pub digest: Option<Digest>,
    /// Size of the package file, in bytes.
    pub size_bytes: u64,
    /// Digest of the dropped file, where the package came inside of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried_by: Option<Digest>,
    /// What the drop folder asks of its files.
    pub policy: Policy,
    /// What vouches for the file; absent where it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_by: Option<Trust>,
    /// Whose signatures were accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<Signer>,
    /// Signatures and checksums beside the file, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sidecars: Vec<Sidecar>,
    /// What the file turned out to be, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// Why it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// How many blobs it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_blobs: Option<u64>,
}

/// What was decided about a dropped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Its package is taken into the catalog.
    Accepted,
    /// It is refused.
    Refused,
    /// It is trusted, and its package is in the catalog already.
    Repeated,
    /// It is trusted, and builds on blobs that are not there yet.
    Waiting,
}

impl Verdict {
    /// Returns the stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Repeated => "repeated",
            Self::Waiting => "waiting",
        }
    }
}

/// What a drop folder asks of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `signature`, `checksum` or `none`.
    pub name: String,
    /// How many signatures by different signers it wants.
    pub signatures_min: u32,
}

/// What vouches for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Signatures by known signers.
    Signature,
    /// A checksum, which tells damage but not malice.
    Checksum,
    /// Nothing, and the policy was content with that.
    Nothing,
}

impl Trust {
    /// Returns the stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Checksum => "checksum",
            Self::Nothing => "nothing",
        }
    }
}

/// Who signed a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// Fingerprint of the certificate, in upper-case hex.
    pub fingerprint: String,
    /// Its primary user ID, where it has one.
    pub user_id: Option<String>,
    /// When the signature was made, as it says itself.
    pub signed_at: Timestamp,
}

/// A file beside the package that vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// Its name, without its folder.
    pub file_name: String,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Digest of its content.
    pub digest: Digest,
}

/// What a file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// The name.
    pub name: PackageName,
    /// The version, where it says.
    pub version: Option<String>,
    /// What it is for.
    pub kind: PackageKind,
}

/// Why a file is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The stable code.
    pub code: String,
    /// The reason in words.
    pub reason: String,
}

/// The removal of a package from the catalog, and who wanted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Digest of the package file.
    pub digest: Digest,
    /// What it was.
    pub package: Package,
    /// `request` or `schedule`.
    pub approved_by: String,
    /// The rule that let it go: its number, from 1, and what it keeps.
    pub rule: String,
}

/// An incomplete line: what a crash in the middle of writing leaves. It was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// The file that ends with it.
    pub file: String,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// Their digest.
    pub digest: Digest,
}

/// A damaged record, as it was found before the next line was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The file where the damage begins.
    pub file: String,
    /// The line there, from 1; absent where it is about the file as a whole.
    pub line: Option<u64>,
    /// The stable code of the damage.
    pub code: String,
    /// What was expected and what was found.
    pub reason: String,
}

/// Returns `text`, cut where it is longer than a record may hold.
pub fn clip(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    format!("{}...", &text[..end])
}
