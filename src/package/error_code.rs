//! What the errors of packages are called for programs, and what follows from each.

use super::Error;
use super::unpack_error::class_of;
use crate::base::{Class, Classified};

impl Error {
    /// Returns the stable code of this error; of one in an inner archive, the code of what is wrong there.
    #[expect(clippy::too_many_lines, reason = "one line for each error")]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Read(_) => "read-failed",
            Self::NotAnArchive => "not-an-archive",
            Self::Nested { source, .. } => source.code(),
            Self::ArchivesTooDeep { .. } => "archives-too-deep",
            Self::GzipCorrupt(_) => "gzip-corrupt",
            Self::ZstdCorrupt(_) => "zstd-corrupt",
            Self::ZstdWindow { .. } => "zstd-window-too-large",
            Self::Truncated { .. } => "truncated",
            Self::TrailingBytes { .. } => "trailing-bytes",
            Self::HeaderCorrupt { .. } => "header-corrupt",
            Self::ExtensionTooLarge { .. } => "extension-too-large",
            Self::TooManyExtensions { .. } => "too-many-extensions",
            Self::NameAbsolute { .. } => "name-absolute",
            Self::NameParent { .. } => "name-parent",
            Self::NameNotUtf8 { .. } => "name-not-utf8",
            Self::NameCharacter { .. } => "name-character",
            Self::NameEmpty { .. } => "name-empty",
            Self::NameAmbiguous { .. } => "name-ambiguous",
            Self::NameTooLong { .. } => "name-too-long",
            Self::NameDuplicate { .. } => "name-duplicate",
            Self::NameConflict { .. } => "name-conflict",
            Self::SymbolicLink { .. } => "symbolic-link",
            Self::HardLink { .. } => "hard-link",
            Self::Device { .. } => "device",
            Self::Fifo { .. } => "fifo",
            Self::Sparse { .. } => "sparse-file",
            Self::EntryType { .. } => "entry-type",
            Self::TooManyEntries { .. } => "too-many-entries",
            Self::TooLarge { .. } => "too-large",
            Self::ExpansionRatio { .. } => "expansion-ratio",
            Self::MetadataTooLarge { .. } => "metadata-too-large",
            Self::MemoryExceeded { .. } => "metadata-total-too-large",
            Self::BlobName { .. } => "blob-name",
            Self::DigestMismatch { .. } => "digest-mismatch",
            Self::LayoutVersion { .. } => "layout-version",
            Self::IndexAbsent { .. } => "index-absent",
            Self::IndexInvalid { .. } => "index-invalid",
            Self::TagLink { .. } => "tag-link",
            Self::RevisionLink { .. } => "revision-link",
            Self::DockerFileAbsent { .. } => "docker-file-absent",
            Self::LayerCount { .. } => "layer-count",
            Self::DiffId { .. } => "diff-id-mismatch",
            Self::ConfigTooLarge { .. } => "config-too-large",
            Self::ChartTooLarge { .. } => "chart-too-large",
            Self::TooManyImages { .. } => "too-many-images",
            Self::TooManyResources { .. } => "too-many-resources",
            Self::ImageName { .. } => "image-name",
            Self::UnnamedImage { .. } => "unnamed-image",
            Self::ConflictingImages { .. } => "conflicting-images",
            Self::PinnedDigest { .. } => "pinned-digest",
            Self::MissingBlob { .. } => "missing-blob",
            Self::SizeMismatch { .. } => "size-mismatch",
            Self::ManifestTooLarge { .. } => "manifest-too-large",
            Self::ManifestInvalid { .. } => "manifest-invalid",
            Self::MediaTypeMismatch { .. } => "media-type-mismatch",
            Self::NestingTooDeep { .. } => "nesting-too-deep",
            Self::MetadataInvalid { .. } => "metadata-invalid",
            Self::SeveralManifests { .. } => "several-manifests",
            Self::ImageNotIncluded { .. } => "image-not-included",
            Self::BaseMissing { .. } => "base-missing",
            Self::BaseSize { .. } => "base-size-mismatch",
            Self::BaseUnneeded { .. } => "base-unneeded",
            Self::OmittedUnnamed { .. } => "omitted-unnamed",
            Self::SupplementImages { .. } => "supplement-images",
            Self::Unindexed { .. } => "unindexed-blobs",
            Self::Empty => "empty",
            Self::Write(_) => "write-failed",
            Self::BlobOrder { .. } => "blob-order",
            Self::BlobNotWritten { .. } => "blob-not-written",
            Self::BlobContent { .. } => "blob-content",
        }
    }
}

impl Error {
    /// Returns the key of `[limits]` in the configuration that was exceeded, if one was.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most violations exceed no limit"
    )]
    const fn limit_key(&self) -> Option<&'static str> {
        let key = match self {
            Self::TooManyEntries { .. } => "entries_max",
            Self::TooLarge { .. } => "unpacked_bytes_max",
            Self::ExpansionRatio { .. } => "expansion_ratio_max",
            Self::MetadataTooLarge { .. } => "metadata_bytes_max",
            Self::MemoryExceeded { .. } => "metadata_total_bytes_max",
            Self::NestingTooDeep { .. } => "nesting_max",
            Self::ManifestTooLarge { .. } | Self::ConfigTooLarge { .. } => "manifest_bytes_max",
            Self::NameTooLong { .. } => "path_bytes_max",
            Self::ExtensionTooLarge { .. } => "extension_bytes_max",
            Self::TooManyExtensions { .. } => "extensions_max",
            Self::TooManyImages { .. } => "images_max",
            Self::TooManyResources { .. } => "resources_max",
            Self::ArchivesTooDeep { .. } => "archives_nested_max",
            Self::ChartTooLarge { .. } => "chart_bytes_max",
            Self::ZstdWindow { .. } => "zstd_window_bytes_max",
            _ => return None,
        };
        Some(key)
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Read(error) | Self::Write(error) => class_of(error),
            Self::BlobOrder { .. } | Self::BlobNotWritten { .. } => Class::Bug,
            Self::BlobContent { .. } => Class::Corrupt,
            Self::BaseMissing { .. } => Class::Absent,
            Self::Nested { source, .. } => source.class(),
            Self::NotAnArchive
            | Self::ArchivesTooDeep { .. }
            | Self::GzipCorrupt(_)
            | Self::ZstdCorrupt(_)
            | Self::ZstdWindow { .. }
            | Self::Truncated { .. }
            | Self::TrailingBytes { .. }
            | Self::HeaderCorrupt { .. }
            | Self::ExtensionTooLarge { .. }
            | Self::TooManyExtensions { .. }
            | Self::NameAbsolute { .. }
            | Self::NameParent { .. }
            | Self::NameNotUtf8 { .. }
            | Self::NameCharacter { .. }
            | Self::NameEmpty { .. }
            | Self::NameAmbiguous { .. }
            | Self::NameTooLong { .. }
            | Self::NameDuplicate { .. }
            | Self::NameConflict { .. }
            | Self::SymbolicLink { .. }
            | Self::HardLink { .. }
            | Self::Device { .. }
            | Self::Fifo { .. }
            | Self::Sparse { .. }
            | Self::EntryType { .. }
            | Self::TooManyEntries { .. }
            | Self::TooLarge { .. }
            | Self::ExpansionRatio { .. }
            | Self::MetadataTooLarge { .. }
            | Self::MemoryExceeded { .. }
            | Self::BlobName { .. }
            | Self::DigestMismatch { .. }
            | Self::LayoutVersion { .. }
            | Self::IndexAbsent { .. }
            | Self::IndexInvalid { .. }
            | Self::TagLink { .. }
            | Self::RevisionLink { .. }
            | Self::BaseSize { .. }
            | Self::BaseUnneeded { .. }
            | Self::OmittedUnnamed { .. }
            | Self::SupplementImages { .. }
            | Self::DockerFileAbsent { .. }
            | Self::LayerCount { .. }
            | Self::DiffId { .. }
            | Self::ConfigTooLarge { .. }
            | Self::ChartTooLarge { .. }
            | Self::TooManyImages { .. }
            | Self::TooManyResources { .. }
            | Self::ImageName { .. }
            | Self::UnnamedImage { .. }
            | Self::ConflictingImages { .. }
            | Self::PinnedDigest { .. }
            | Self::MissingBlob { .. }
            | Self::SizeMismatch { .. }
            | Self::ManifestTooLarge { .. }
            | Self::ManifestInvalid { .. }
            | Self::MediaTypeMismatch { .. }
            | Self::NestingTooDeep { .. }
            | Self::MetadataInvalid { .. }
            | Self::SeveralManifests { .. }
            | Self::ImageNotIncluded { .. }
            | Self::Unindexed { .. }
            | Self::Empty => Class::Rejected,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most violations have no remedy but another package"
    )]
    fn hint(&self) -> Option<String> {
        if let Some(key) = self.limit_key() {
            return Some(format!(
                "raise `limits.{key}` in the configuration if the package can be trusted"
            ));
        }
        let hint = match self {
            Self::Nested { source, .. } => return source.hint(),
            Self::Truncated { .. } => "copy the package again and compare sizes",
            Self::GzipCorrupt(_) | Self::ZstdCorrupt(_) => {
                "copy the package again and compare checksums"
            }
            Self::DigestMismatch { .. } => "copy or build the package again",
            Self::DockerFileAbsent { .. } => {
                "write the images again as an OCI layout, for example with `skopeo copy docker-archive:FILE oci-archive:FILE`"
            }
            Self::UnnamedImage { .. } => {
                "name the image in full in annotation `io.containerd.image.name` of `index.json`, or list it in `manifest.yaml`"
            }
            Self::MissingBlob { .. } => {
                "build the package again with all platforms and layers of its images"
            }
            Self::ImageNotIncluded { .. } => {
                "build the package with its images, or correct `manifest.yaml`"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
