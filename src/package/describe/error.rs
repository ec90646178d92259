//! Why the main image of a package cannot be described, or not in full.

use std::io;

use thiserror::Error;

use crate::base::Digest;

/// Why the main image of a package cannot be described, or not in full. No reason to refuse the package: its images are as
/// they should be.
///
/// Codes are shown and logged: they are never renamed, only retired.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// No image stands out as the main one.
    #[error("expected one operator bundle or chart to be the main image, found {count}")]
    SeveralCandidates {
        /// How many there are.
        count: usize,
    },
    /// The configurations of all images together are over the limit.
    #[error(
        "expected the main image among configurations of at most {limit_bytes} bytes (`metadata_total_bytes_max`)"
    )]
    SearchTooLong {
        /// The limit.
        limit_bytes: u64,
    },
    /// The main image is neither an operator bundle nor a chart, by its configuration.
    #[error("expected an operator bundle or a chart as the main image, found no label of either")]
    NotABundle,
    /// A chart without its layer.
    #[error("expected a layer with the chart in the main image")]
    ChartLayerAbsent,
    /// The layers are larger than those of bundles and charts.
    #[error(
        "expected at most {limit_bytes} bytes (`bundle_bytes_max`) in the layers of the main image, found {size_bytes}"
    )]
    LayersTooLarge {
        /// Their size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A layer that was only counted.
    #[error(
        "expected layer {digest} of the main image to be an archive that is small enough to be kept in memory"
    )]
    LayerNotKept {
        /// The layer.
        digest: Digest,
    },
    /// A layer that is no archive, or a damaged one.
    #[error("failed to read a layer of the main image ({reason})")]
    LayerCorrupt {
        /// What is wrong with it, on one line.
        reason: String,
    },
    /// A decompression bomb.
    #[error(
        "expected at most {limit_bytes} unpacked bytes (`bundle_unpacked_bytes_max`) in the layers of the main image"
    )]
    UnpackedTooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// More entries than allowed.
    #[error(
        "expected at most {limit} entries (`bundle_entries_max`) in the layers of the main image"
    )]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// A file over its limit.
    #[error(
        "expected at most {limit_bytes} bytes (`metadata_bytes_max`) in `{path}`, found {size_bytes}"
    )]
    FileTooLarge {
        /// Its path in the image.
        path: String,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The files that describe the image are over their limit together.
    #[error("expected at most {limit_bytes} bytes of descriptive files in the main image")]
    FilesTooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// A file that is not what its name says.
    #[error("failed to read `{path}` of the main image ({reason})")]
    FileInvalid {
        /// Its path in the image.
        path: String,
        /// The parser's reason, on one line.
        reason: String,
    },
    /// An operator bundle that describes no operator.
    #[error("expected a ClusterServiceVersion in folder `{folder}` of the main image")]
    CsvAbsent {
        /// The folder.
        folder: String,
    },
    /// An operator bundle that describes several operators.
    #[error("expected one ClusterServiceVersion, found `{first}` and `{second}`")]
    SeveralCsvs {
        /// One of them.
        first: String,
        /// Another.
        second: String,
    },
    /// A chart without its description.
    #[error("expected one `Chart.yaml` in the folder of the chart, found {count}")]
    ChartFile {
        /// How many there are.
        count: usize,
    },
}

impl Error {
    /// Returns the stable code of this error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SeveralCandidates { .. } => "several-candidates",
            Self::SearchTooLong { .. } => "search-too-long",
            Self::NotABundle => "not-a-bundle",
            Self::ChartLayerAbsent => "chart-layer-absent",
            Self::LayersTooLarge { .. } => "layers-too-large",
            Self::LayerNotKept { .. } => "layer-not-kept",
            Self::LayerCorrupt { .. } => "layer-corrupt",
            Self::UnpackedTooLarge { .. } => "layers-unpacked-too-large",
            Self::TooManyEntries { .. } => "layer-entries",
            Self::FileTooLarge { .. } => "file-too-large",
            Self::FilesTooLarge { .. } => "files-too-large",
            Self::FileInvalid { .. } => "file-invalid",
            Self::CsvAbsent { .. } => "csv-absent",
            Self::SeveralCsvs { .. } => "several-csvs",
            Self::ChartFile { .. } => "chart-file",
        }
    }
}

/// Why reading from inside of an image stopped.
#[derive(Debug)]
pub(in crate::package) enum Stopped {
    /// Its content is at fault.
    Content(Error),
    /// Where it is kept failed, which says nothing about it.
    Read(io::Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Content(error)
    }
}
