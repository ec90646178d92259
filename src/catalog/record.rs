//! What the catalog remembers. The JSON form of these types is what rows hold (golden bytes in the tests) and what
//! reports show.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::{
    Class, Description, Digest, ImageReference, PackageKind, PackageName, Platform, Repository,
    Tag, TargetName, Timestamp,
};

/// A package whose whole content is in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRecord {
    /// Digest of the package file: of the whole where it came in parts, of the inner file where it came inside of
    /// another.
    pub digest: Digest,
    /// Name of the file as it was dropped, without its folder; its path in the file that carried it.
    pub file_name: String,
    /// Size of the file, in bytes.
    pub size_bytes: u64,
    /// Name of the package, from its manifest.
    pub name: PackageName,
    /// Version of the package, where its manifest says.
    pub version: Option<String>,
    /// What the package is for.
    pub kind: PackageKind,
    /// What its images run on.
    pub platforms: Vec<Platform>,
    /// The image that the platform installs from, as packaged.
    pub artifact: Option<ImageReference>,
    /// All images, in the order of the package.
    pub images: Vec<ImageRecord>,
    /// Kubernetes objects that were found in the package, as they were written there.
    pub resources: Vec<serde_json::Value>,
    /// Name for people.
    pub display_name: Option<String>,
    /// What its main image or chart says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Manifests that its indexes name and that were left out on purpose, sorted: its indexes are sparse.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub omitted: BTreeSet<Digest>,
    /// Distinct blobs and manifests of all images.
    pub blob_count: u64,
    /// Their size together, in bytes.
    pub blob_bytes: u64,
    /// Blobs that it holds and that its images can do without, with their sizes in bytes: those of a supplement, and foreign
    /// layers whose content came. Together with what the images consist of, base blobs of a delta included, they are what a
    /// ready package keeps in the store.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub blobs: BTreeMap<Digest, u64>,
    /// Digest of the dropped file, where the package came inside of another file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried_by: Option<Digest>,
    /// Why the package is trusted.
    pub provenance: Provenance,
    /// When it became ready.
    pub ready_at: Timestamp,
}

/// What a ready package keeps in the store: manifests and blobs with their sizes in bytes, each once, ordered by digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content(Vec<(Digest, u64)>);

impl Content {
    /// Returns the entries, ordered by digest.
    pub fn entries(&self) -> &[(Digest, u64)] {
        &self.0
    }

    /// Returns the size of all of it, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.0.iter().map(|(_, size_bytes)| size_bytes).sum()
    }
}

impl FromIterator<(Digest, u64)> for Content {
    fn from_iter<I: IntoIterator<Item = (Digest, u64)>>(entries: I) -> Self {
        let mut entries: Vec<(Digest, u64)> = entries.into_iter().collect();
        entries.sort_unstable();
        entries.dedup_by_key(|(digest, _)| *digest);
        Self(entries)
    }
}

/// A package that becomes ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPackage {
    /// What is known of it.
    pub record: PackageRecord,
    /// What it keeps in the store.
    pub content: Content,
}

/// What lists of packages show of each: a few hundred bytes, held in memory. Its JSON form is what the lists print.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageSummary {
    /// Digest of the package file.
    pub digest: Digest,
    /// Name of the package.
    pub name: PackageName,
    /// Version, where the package says.
    pub version: Option<String>,
    /// What the package is for.
    pub kind: PackageKind,
    /// Name of the file as it was dropped.
    pub file_name: String,
    /// Size of the file, in bytes.
    pub size_bytes: u64,
    /// What its images run on.
    pub platforms: Vec<Platform>,
    /// How many images it has.
    pub image_count: usize,
    /// Distinct blobs and manifests of all images.
    pub blob_count: u64,
    /// Their size together, in bytes.
    pub blob_bytes: u64,
    /// Why the package is trusted.
    pub provenance: Provenance,
    /// When it became ready.
    pub ready_at: Timestamp,
}

impl From<&PackageRecord> for PackageSummary {
    fn from(record: &PackageRecord) -> Self {
        Self {
            digest: record.digest,
            name: record.name.clone(),
            version: record.version.clone(),
            kind: record.kind,
            file_name: record.file_name.clone(),
            size_bytes: record.size_bytes,
            platforms: record.platforms.clone(),
            image_count: record.images.len(),
            blob_count: record.blob_count,
            blob_bytes: record.blob_bytes,
            provenance: record.provenance.clone(),
            ready_at: record.ready_at,
        }
    }
}

/// A blob that no package keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CondemnedRecord {
    /// When it was first seen that no package keeps it.
    pub since: Timestamp,
}

/// A package that retention leaves alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRecord {
    /// Digest of the package file: the key.
    pub package: Digest,
    /// Since when.
    pub pinned_at: Timestamp,
    /// Why, in the words of whoever pinned it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Work that is due by a schedule and belongs to no target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// `retention`, `collection` or `scrub`: the key.
    pub name: String,
    /// The due time of the last scheduled run that started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scheduled_at: Option<Timestamp>,
    /// When the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// What the job wants to find again: how far it has come, and what the last run did. Each job has its own form.
    #[serde(default)]
    pub state: serde_json::Value,
}

/// An image of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The name that it has in the package.
    pub reference: ImageReference,
    /// Digest of its manifest or index.
    pub digest: Digest,
    /// Media type of its manifest or index.
    pub media_type: String,
    /// Size of its manifest or index, in bytes.
    pub size_bytes: u64,
    /// Size of everything that it consists of, in bytes: manifest, children and blobs, each counted once.
    pub content_bytes: u64,
}

/// Why a package is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Provenance {
    /// A signature by an allowed key.
    Signature {
        /// Fingerprint of the key, in hex.
        fingerprint: String,
        /// When it was signed.
        signed_at: Timestamp,
        /// Who else has signed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cosigners: Vec<Cosigner>,
    },
    /// A checksum file beside the package.
    Checksum {
        /// Name of the checksum file.
        sidecar: String,
    },
    /// The policy of the drop folder asks for nothing.
    Unchecked,
}

/// A further signer of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cosigner {
    /// Fingerprint of the certificate, in hex.
    pub fingerprint: String,
    /// When it signed.
    pub signed_at: Timestamp,
}

/// A file in a drop folder and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestRecord {
    /// Path of the file: the key. Of a package in parts, the path of its table, even before that is there.
    pub path: String,
    /// Size of the file when it was last looked at, in bytes. Of a package in parts, the size of its table, or of what
    /// is there of it as long as there is no table.
    pub size_bytes: u64,
    /// Modification time of the file when it was last looked at.
    pub modified_at: Timestamp,
    /// Digest of the file, once it was read.
    pub digest: Option<Digest>,
    /// How far it has come.
    pub state: IngestState,
    /// When the state last changed.
    pub updated_at: Timestamp,
}

/// How far a dropped file has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum IngestState {
    /// It is there, and may still be written to.
    Seen,
    /// It rests, and its sidecar is there where one is needed.
    Settled,
    /// It is trusted.
    Verified {
        /// Why it is trusted.
        provenance: Provenance,
    },
    /// Its content is in the store.
    Unpacked,
    /// It is in the catalog.
    Ready {
        /// Digest of the file: the package, if the file is one by itself.
        package: Digest,
        /// Whether the catalog had everything in it before.
        is_repeat: bool,
        /// Packages inside of the file, by the digests of the inner files.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        nested: Vec<Digest>,
    },
    /// It is refused.
    Rejected {
        /// Stable name of the reason.
        code: String,
        /// The reason in words.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// It builds on blobs that are not in the store.
    Waiting {
        /// The blobs, sorted.
        missing: Vec<Digest>,
        /// Their sizes in bytes, in the same order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sizes_bytes: Vec<u64>,
        /// The blobs that it builds on and that were there, sorted.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        present: Vec<Digest>,
    },
}

impl IngestState {
    /// The persisted name of [`Self::Ready`].
    pub(super) const READY: &str = "ready";

    /// Lists the blobs that a file in this state wants to stay in the store: all that a file which waits builds on, those
    /// included that are not there yet, because they may come with a package that goes before the file is looked at again.
    pub fn kept(&self) -> impl Iterator<Item = &Digest> {
        let (present, missing) = match self {
            Self::Waiting {
                missing, present, ..
            } => (present.as_slice(), missing.as_slice()),
            Self::Seen
            | Self::Settled
            | Self::Verified { .. }
            | Self::Unpacked
            | Self::Ready { .. }
            | Self::Rejected { .. } => (&[][..], &[][..]),
        };
        present.iter().chain(missing)
    }
}

/// A tag on a target, as we ourselves put it there last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The target.
    pub target: TargetName,
    /// The repository on the target.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
    /// Digest of the manifest or index that the tag was given.
    pub digest: Digest,
    /// When.
    pub placed_at: Timestamp,
}

/// An upload of a blob to a target that is not finished.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRecord {
    /// The target.
    pub target: TargetName,
    /// The repository on the target.
    pub repository: Repository,
    /// The blob.
    pub digest: Digest,
    /// Where the upload goes. Who has it may be able to upload.
    pub url: String,
    /// What the registry had of the blob for sure when this was written, in bytes.
    pub offset_bytes: u64,
    /// Size of the blob, in bytes.
    pub size_bytes: u64,
    /// When the upload was begun.
    pub begun_at: Timestamp,
}

impl fmt::Debug for UploadRecord {
    /// Says nothing of the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadRecord")
            .field("target", &self.target)
            .field("repository", &self.repository)
            .field("digest", &self.digest)
            .field("offset_bytes", &self.offset_bytes)
            .field("size_bytes", &self.size_bytes)
            .field("begun_at", &self.begun_at)
            .finish_non_exhaustive()
    }
}

/// One replication run to one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The target.
    pub target: TargetName,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Why it ran: `schedule`, `package`, `request`, `retry` or `start`.
    pub reason: String,
    /// How it ended.
    pub outcome: RunOutcome,
    /// How much it did.
    pub counts: RunCounts,
    /// What went wrong.
    pub problems: Vec<Problem>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// The target holds all that it should.
    InSync,
    /// Something is still missing.
    Incomplete,
    /// Nothing could be done.
    Failed,
}

impl RunOutcome {
    /// Returns the stable name, as it is persisted.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InSync => "in_sync",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
        }
    }
}

/// What a run wanted and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCounts {
    /// Images that the target should hold.
    pub images_wanted: u64,
    /// Images that were there already.
    pub images_in_sync: u64,
    /// Images that were pushed.
    pub images_pushed: u64,
    /// Images that could not be pushed.
    pub images_failed: u64,
    /// Resources that the target should hold.
    pub resources_wanted: u64,
    /// Resources that were applied.
    pub resources_applied: u64,
    /// Resources that could not be applied, or that the platform refused.
    pub resources_failed: u64,
    /// Blobs that were uploaded.
    pub blobs_sent: u64,
    /// Blobs that were mounted from another repository of the target.
    pub blobs_mounted: u64,
    /// Blobs that were there already.
    pub blobs_skipped: u64,
    /// Those of [`Self::blobs_sent`] of which a part was there from an earlier upload.
    #[serde(default)]
    pub blobs_resumed: u64,
    /// Bytes of blobs and manifests that were uploaded.
    pub bytes_sent: u64,
    /// Bytes of blobs that were there from an earlier upload, and were not sent again.
    #[serde(default)]
    pub bytes_resumed: u64,
    /// Requests that were sent, retries included.
    pub requests: u64,
    /// Requests that were sent again.
    pub retries: u64,
}

impl RunCounts {
    /// Adds what another run wanted and did.
    pub const fn add(&mut self, other: &Self) {
        self.images_wanted += other.images_wanted;
        self.images_in_sync += other.images_in_sync;
        self.images_pushed += other.images_pushed;
        self.images_failed += other.images_failed;
        self.resources_wanted += other.resources_wanted;
        self.resources_applied += other.resources_applied;
        self.resources_failed += other.resources_failed;
        self.blobs_sent += other.blobs_sent;
        self.blobs_mounted += other.blobs_mounted;
        self.blobs_skipped += other.blobs_skipped;
        self.blobs_resumed += other.blobs_resumed;
        self.bytes_sent += other.bytes_sent;
        self.bytes_resumed += other.bytes_resumed;
        self.requests += other.requests;
        self.retries += other.retries;
    }
}

/// Something that went wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What it is about: an image, a resource, or the target itself.
    pub subject: String,
    /// What kind of failure it is.
    pub class: Class,
    /// The failure with its causes, on one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What is known about a target from its runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRecord {
    /// The target: the key.
    pub target: TargetName,
    /// The due time of the last scheduled run that started.
    pub last_scheduled_at: Option<Timestamp>,
    /// Packages that were seen complete on the target, by the digests of their files.
    pub synced_packages: Vec<Digest>,
    /// The last run.
    pub last_run: Option<RunRecord>,
    /// When the target was last seen in sync.
    pub last_success_at: Option<Timestamp>,
}

impl TargetRecord {
    /// Returns the record of a target that nothing is known about.
    pub const fn new(target: TargetName) -> Self {
        Self {
            target,
            last_scheduled_at: None,
            synced_packages: Vec::new(),
            last_run: None,
            last_success_at: None,
        }
    }
}
