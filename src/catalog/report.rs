//! What the last run of each target did, image by image.

use serde::{Deserialize, Serialize};

use super::database::Changes;
use super::record::Problem;
use super::{Catalog, Column, Error, codec, column};
use crate::base::{Digest, TargetName, Timestamp};

/// What the last run of a target did, image by image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRecord {
    /// The target: the key.
    pub target: TargetName,
    /// When the run started: that of the record of the run.
    pub started_at: Timestamp,
    /// The images, those first of which there is something to say.
    pub images: Vec<ImageReport>,
    /// Images that the run wanted and that are not among them: all the others were in place.
    #[serde(default)]
    pub images_left_out: u64,
}

/// What a run did for one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReport {
    /// Its place: repository and tag, or digest.
    pub image: String,
    /// Its manifest or index.
    pub digest: Digest,
    /// What became of it.
    pub state: ImageState,
    /// Blobs that its repository was not known to hold.
    #[serde(default, skip_serializing_if = "Amount::is_zero")]
    pub planned: Amount,
    /// Blobs that were sent; of one that was resumed, all of it.
    #[serde(default, skip_serializing_if = "Amount::is_zero")]
    pub sent: Amount,
    /// Blobs that were mounted from another repository.
    #[serde(default, skip_serializing_if = "Amount::is_zero")]
    pub mounted: Amount,
    /// Blobs that turned out to be there.
    #[serde(default, skip_serializing_if = "Amount::is_zero")]
    pub skipped: Amount,
    /// Blobs of which a part was there from an earlier upload, and how much.
    #[serde(default, skip_serializing_if = "Amount::is_zero")]
    pub resumed: Amount,
    /// Bytes of blobs that went over the line, those included that were sent again.
    pub bytes: u64,
    /// Requests, those included that were sent again.
    pub requests: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// From its first step to its last one. Other images may have had their turn in between.
    pub milliseconds: u64,
    /// Why it is not in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What became of an image. Ordered by how much there is to say.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// It could not be put in its place, or its place not be looked at.
    Failed,
    /// It was put in its place.
    Pushed,
    /// The run has ended before its turn.
    #[default]
    Waiting,
    /// It was in its place.
    InPlace,
}

impl ImageState {
    /// Returns the stable name, as it is persisted.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Pushed => "pushed",
            Self::Waiting => "waiting",
            Self::InPlace => "in_place",
        }
    }
}

/// A number of blobs and their size together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// How many.
    pub blobs: u64,
    /// Their size, in bytes.
    pub bytes: u64,
}

impl Amount {
    /// Adds a blob of this size.
    pub const fn add(&mut self, size_bytes: u64) {
        self.blobs += 1;
        self.bytes += size_bytes;
    }

    /// Returns whether there are no blobs.
    pub const fn is_zero(&self) -> bool {
        self.blobs == 0
    }
}

impl Catalog {
    /// Returns what the last run of a target did.
    pub fn find_report(&self, target: &TargetName) -> Result<Option<ReportRecord>, Error> {
        self.find(Column::Report, column::target_key(target))
    }

    /// Puts what the last run of a target did, in place of the one before.
    pub fn put_report(&self, report: &ReportRecord) -> Result<(), Error> {
        let mut changes = Changes::default();
        let row = codec::encode(Column::Report, report)?;
        changes.put(Column::Report, column::target_key(&report.target), row);
        self.0.database.write(changes)
    }
}
