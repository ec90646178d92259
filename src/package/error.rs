//! What can be wrong with a package.
//!
//! Every violation is its own variant with its own code, because operators, reports and tests tell them apart. Codes are
//! persisted in catalogs and reports: they are never renamed, only retired.

use std::io;

use thiserror::Error;

use crate::base::oci::ParseManifestError;
use crate::base::{Class, Classified, Digest, ImageReference, ParseImageError};

/// Why a package is refused, or why reading or writing one failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The input failed; says nothing about the package.
    #[error("failed to read the package")]
    Read(#[source] io::Error),
    /// Neither gzip nor tar by its first bytes.
    #[error("expected a tar archive, plain or gzip-compressed")]
    NotAnArchive,
    /// The compressed data is damaged or its checksum does not match.
    #[error("failed to decompress the package")]
    GzipCorrupt(#[source] io::Error),
    /// The archive ends before its end mark: an interrupted copy.
    #[error(
        "expected the end-of-archive mark, found the end of the file after {offset_bytes} unpacked bytes"
    )]
    Truncated {
        /// Where it ends, in unpacked bytes.
        offset_bytes: u64,
    },
    /// Something follows the end of the archive.
    #[error("expected nothing after the archive, found bytes after {offset_bytes} unpacked bytes")]
    TrailingBytes {
        /// Where they begin, in unpacked bytes.
        offset_bytes: u64,
    },
    /// An entry header that cannot be right.
    #[error("expected an entry header at offset {offset_bytes}, found {reason}")]
    HeaderCorrupt {
        /// Where the header is, in unpacked bytes.
        offset_bytes: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name that starts at the root.
    #[error("expected a relative entry name, found `{entry}`")]
    NameAbsolute {
        /// The entry.
        entry: String,
    },
    /// A name that leaves its folder.
    #[error("expected an entry name without `..`, found `{entry}`")]
    NameParent {
        /// The entry.
        entry: String,
    },
    /// A name that is not text.
    #[error("expected an entry name in UTF-8, found `{entry}`")]
    NameNotUtf8 {
        /// The entry.
        entry: String,
    },
    /// A name with a backslash, NUL or another control character.
    #[error("expected an entry name without backslash and control characters, found `{entry}`")]
    NameCharacter {
        /// The entry.
        entry: String,
    },
    /// An empty name, or one with an empty component.
    #[error("expected an entry name without empty components, found `{entry}`")]
    NameEmpty {
        /// The entry.
        entry: String,
    },
    /// Two extension headers name one entry: two readers may see two names.
    #[error("expected one long name for entry `{entry}`, found several")]
    NameAmbiguous {
        /// The entry.
        entry: String,
    },
    /// A name over its limit.
    #[error("expected at most {limit_bytes} bytes in an entry name, found `{entry}`")]
    NameTooLong {
        /// The entry.
        entry: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// Two files of one name, or a file and a folder of one name.
    #[error("expected each entry name once, found `{entry}` again")]
    NameDuplicate {
        /// The entry.
        entry: String,
    },
    /// A symbolic link.
    #[error("expected files and directories, found symbolic link `{entry}`")]
    SymbolicLink {
        /// The entry.
        entry: String,
    },
    /// A hard link.
    #[error("expected files and directories, found hard link `{entry}`")]
    HardLink {
        /// The entry.
        entry: String,
    },
    /// A character or block device.
    #[error("expected files and directories, found device `{entry}`")]
    Device {
        /// The entry.
        entry: String,
    },
    /// A named pipe.
    #[error("expected files and directories, found named pipe `{entry}`")]
    Fifo {
        /// The entry.
        entry: String,
    },
    /// A sparse file in one of GNU tar's formats.
    #[error("expected files and directories, found sparse file `{entry}`")]
    Sparse {
        /// The entry.
        entry: String,
    },
    /// Any other kind of entry.
    #[error("expected files and directories, found type {found:#04x} for `{entry}`")]
    EntryType {
        /// The entry.
        entry: String,
        /// The type byte.
        found: u8,
    },
    /// More entries than allowed.
    #[error("expected at most {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// More unpacked bytes than allowed.
    #[error("expected at most {limit_bytes} unpacked bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// A decompression bomb.
    #[error(
        "expected at most {limit} unpacked bytes for each byte, found {unpacked_bytes} from {read_bytes}"
    )]
    ExpansionRatio {
        /// The limit.
        limit: u64,
        /// Bytes read until then.
        read_bytes: u64,
        /// Bytes they gave.
        unpacked_bytes: u64,
    },
    /// A metadata file over its limit.
    #[error("expected at most {limit_bytes} bytes in metadata file `{entry}`, found {size_bytes}")]
    MetadataTooLarge {
        /// The entry.
        entry: String,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// Everything that is held in memory, together, is over its limit.
    #[error("expected at most {limit_bytes} bytes of names, metadata and manifests")]
    MemoryExceeded {
        /// The limit.
        limit_bytes: u64,
    },
    /// A file among the blobs that is not named by a SHA-256 digest.
    #[error("expected 64 lowercase hex characters as the name of blob `{entry}`")]
    BlobName {
        /// The entry.
        entry: String,
    },
    /// The content of a blob is not what its name says.
    #[error("expected content {expected} in `{entry}`, found {found}")]
    DigestMismatch {
        /// The entry.
        entry: String,
        /// The digest that its name promises.
        expected: Digest,
        /// The digest of its content.
        found: Digest,
    },
    /// An OCI layout of another version, or a damaged mark.
    #[error("expected image layout version 1 in `{entry}`")]
    LayoutVersion {
        /// The entry.
        entry: String,
    },
    /// An OCI layout without its index.
    #[error("expected `index.json` beside `oci-layout` in folder `{folder}`")]
    IndexAbsent {
        /// The folder of the layout; empty for the root.
        folder: String,
    },
    /// `index.json` is not an index.
    #[error("failed to read image index `{entry}`")]
    IndexInvalid {
        /// The entry.
        entry: String,
        /// Why.
        source: ParseManifestError,
    },
    /// A tag of a registry tree that points nowhere or has no valid name.
    #[error("expected a repository, a tag and a SHA-256 digest in `{entry}`")]
    TagLink {
        /// The entry.
        entry: String,
    },
    /// Images in the format of `docker save` before version 25, which cannot be moved byte for byte.
    #[error("expected an OCI layout or a registry tree, found a docker-archive (`{entry}`)")]
    UnsupportedLayout {
        /// The entry.
        entry: String,
    },
    /// An image name that follows no grammar.
    #[error("failed to read image name `{name}` in `{entry}`")]
    ImageName {
        /// The entry.
        entry: String,
        /// The name found.
        name: String,
        /// Why.
        source: ParseImageError,
    },
    /// An image for which no repository can be found.
    #[error("expected a name for image {digest} in `{entry}`")]
    UnnamedImage {
        /// The entry.
        entry: String,
        /// Its digest.
        digest: Digest,
    },
    /// One name, two images.
    #[error("expected one image named `{image}`, found {first} and {second}")]
    ConflictingImages {
        /// The name.
        image: Box<ImageReference>,
        /// One digest.
        first: Digest,
        /// The other.
        second: Digest,
    },
    /// A name that pins a digest other than that of the image it is on.
    #[error("expected the digest that `{image}` names, found {found}")]
    PinnedDigest {
        /// The name with its digest.
        image: Box<ImageReference>,
        /// The digest of the image.
        found: Digest,
    },
    /// Content that an image needs is not in the package.
    #[error("expected blob {digest} of image `{image}`, found none")]
    MissingBlob {
        /// The image that needs it.
        image: Box<ImageReference>,
        /// What is missing.
        digest: Digest,
        /// The manifest that names it; none for the image itself.
        parent: Option<Digest>,
    },
    /// A blob is not as large as the manifest says.
    #[error(
        "expected {expected_bytes} bytes in blob {digest} of image `{image}`, found {found_bytes}"
    )]
    SizeMismatch {
        /// The image that needs it.
        image: Box<ImageReference>,
        /// The blob.
        digest: Digest,
        /// The size that the manifest promises.
        expected_bytes: u64,
        /// The size found.
        found_bytes: u64,
    },
    /// A manifest or configuration over its limit.
    #[error("expected at most {limit_bytes} bytes in manifest {digest} of image `{image}`")]
    ManifestTooLarge {
        /// The image it belongs to.
        image: Box<ImageReference>,
        /// The manifest or configuration.
        digest: Digest,
        /// The limit.
        limit_bytes: u64,
    },
    /// A manifest that cannot be read.
    #[error("failed to read manifest {digest} of image `{image}`")]
    ManifestInvalid {
        /// The image it belongs to.
        image: Box<ImageReference>,
        /// The manifest.
        digest: Digest,
        /// Why.
        source: ParseManifestError,
    },
    /// A manifest is not of the type that its parent says (CVE-2021-41190).
    #[error(
        "expected media type `{expected}` in manifest {digest} of image `{image}`, found `{found}`"
    )]
    MediaTypeMismatch {
        /// The image it belongs to.
        image: Box<ImageReference>,
        /// The manifest.
        digest: Digest,
        /// What points to it says.
        expected: String,
        /// What it says of itself.
        found: String,
    },
    /// Indexes of indexes beyond the limit.
    #[error("expected at most {limit} levels of manifests in image `{image}`")]
    NestingTooDeep {
        /// The image.
        image: Box<ImageReference>,
        /// The limit.
        limit: u32,
    },
    /// A metadata file that is not what its name says.
    #[error("failed to read `{entry}` ({reason})")]
    MetadataInvalid {
        /// The entry.
        entry: String,
        /// The parser's reason, on one line.
        reason: String,
    },
    /// More than one package in one archive.
    #[error("expected one package manifest, found `{first}` and `{second}`")]
    SeveralManifests {
        /// One of them.
        first: String,
        /// Another.
        second: String,
    },
    /// The package manifest names an image that is not there.
    #[error(
        "expected image `{image}`, which the package manifest names, among the images of the package"
    )]
    ImageNotIncluded {
        /// The image.
        image: Box<ImageReference>,
    },
    /// Blobs without any image.
    #[error("expected an image for {count} blobs, found neither an index nor a tag")]
    Unindexed {
        /// How many.
        count: u64,
    },
    /// Neither an image nor a manifest that makes sense without one.
    #[error("expected at least one image")]
    Empty,
    /// The output failed.
    #[error("failed to write the package")]
    Write(#[source] io::Error),
    /// A caller of the writer gave blobs in another order.
    #[error("expected blobs in ascending order, found {digest}")]
    BlobOrder {
        /// The blob that came too late.
        digest: Digest,
    },
    /// A caller of the writer left out a blob.
    #[error("expected image {digest} among the blobs written")]
    BlobNotWritten {
        /// The blob.
        digest: Digest,
    },
    /// Content given to the writer is not what it should be.
    #[error("expected {size_bytes} bytes of {digest} to write, found {found_bytes} of {found}")]
    BlobContent {
        /// What was asked for.
        digest: Digest,
        /// Its size.
        size_bytes: u64,
        /// What was read.
        found: Digest,
        /// How much was read.
        found_bytes: u64,
    },
}

impl Error {
    /// Returns the stable code of this error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Read(_) => "read-failed",
            Self::NotAnArchive => "not-an-archive",
            Self::GzipCorrupt(_) => "gzip-corrupt",
            Self::Truncated { .. } => "truncated",
            Self::TrailingBytes { .. } => "trailing-bytes",
            Self::HeaderCorrupt { .. } => "header-corrupt",
            Self::NameAbsolute { .. } => "name-absolute",
            Self::NameParent { .. } => "name-parent",
            Self::NameNotUtf8 { .. } => "name-not-utf8",
            Self::NameCharacter { .. } => "name-character",
            Self::NameEmpty { .. } => "name-empty",
            Self::NameAmbiguous { .. } => "name-ambiguous",
            Self::NameTooLong { .. } => "name-too-long",
            Self::NameDuplicate { .. } => "name-duplicate",
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
            Self::UnsupportedLayout { .. } => "unsupported-layout",
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
            Self::Unindexed { .. } => "unindexed-blobs",
            Self::Empty => "empty",
            Self::Write(_) => "write-failed",
            Self::BlobOrder { .. } => "blob-order",
            Self::BlobNotWritten { .. } => "blob-not-written",
            Self::BlobContent { .. } => "blob-content",
        }
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Read(error) | Self::Write(error) => class_of(error),
            Self::BlobOrder { .. } | Self::BlobNotWritten { .. } => Class::Bug,
            Self::BlobContent { .. } => Class::Corrupt,
            Self::NotAnArchive
            | Self::GzipCorrupt(_)
            | Self::Truncated { .. }
            | Self::TrailingBytes { .. }
            | Self::HeaderCorrupt { .. }
            | Self::NameAbsolute { .. }
            | Self::NameParent { .. }
            | Self::NameNotUtf8 { .. }
            | Self::NameCharacter { .. }
            | Self::NameEmpty { .. }
            | Self::NameAmbiguous { .. }
            | Self::NameTooLong { .. }
            | Self::NameDuplicate { .. }
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
            | Self::UnsupportedLayout { .. }
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
        let hint = match self {
            Self::Truncated { .. } => "copy the package again and compare sizes",
            Self::GzipCorrupt(_) => "copy the package again and compare checksums",
            Self::DigestMismatch { .. } => "copy or build the package again",
            Self::UnsupportedLayout { .. } => {
                "build the package from an OCI layout, for example with `skopeo copy docker-archive:FILE oci-archive:FILE`"
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
            Self::TooManyEntries { .. }
            | Self::TooLarge { .. }
            | Self::ExpansionRatio { .. }
            | Self::MetadataTooLarge { .. }
            | Self::MemoryExceeded { .. }
            | Self::NestingTooDeep { .. }
            | Self::ManifestTooLarge { .. }
            | Self::NameTooLong { .. } => {
                "raise the limit in the configuration if the package can be trusted"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Returns the class of a failed read or write. What is not named may pass by itself.
fn class_of(error: &io::Error) -> Class {
    if matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    ) {
        Class::Full
    } else {
        Class::Transient
    }
}

/// Why unpacking failed: the package is at fault, or the place where it goes.
#[derive(Debug, Error)]
pub enum UnpackError<E: std::error::Error + 'static> {
    /// The package is refused, or could not be read.
    #[error(transparent)]
    Package(#[from] Error),
    /// The sink failed.
    #[error(transparent)]
    Sink(E),
}

impl<E: Classified + 'static> Classified for UnpackError<E> {
    fn class(&self) -> Class {
        match self {
            Self::Package(error) => error.class(),
            Self::Sink(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Package(error) => error.hint(),
            Self::Sink(error) => error.hint(),
        }
    }
}
