//! What can be wrong with a package.
//!
//! Every violation is its own variant with its own code, because operators, reports and tests tell them apart. Codes are
//! persisted in catalogs and reports: they are never renamed, only retired.
//!
//! What each is called for programs, and what follows from it, is in [`error_code`](super::error_code).
//!
//! # Retired codes
//!
//! Never used again for something else:
//!
//! - `unsupported-layout`: a docker-archive, before those were read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use thiserror::Error;

use crate::base::oci::ParseManifestError;
use crate::base::{Digest, ImageReference, ParseImageError};

/// Why a package is refused, or why reading or writing one failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The input failed; says nothing about the package.
    #[error("failed to read the package")]
    Read(#[source] io::Error),
    /// Neither gzip, zstd nor tar by its first bytes.
    #[error("expected a tar archive, plain or compressed by gzip or zstd")]
    NotAnArchive,
    /// A violation inside of an archive that lies in the archive.
    #[error("failed to read archive `{entry}` inside of the package")]
    Nested {
        /// The inner archive.
        entry: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// Archives in archives in archives.
    #[error(
        "expected at most {limit} levels of archives inside of the package, found one more in `{entry}`"
    )]
    ArchivesTooDeep {
        /// The archive that was not opened.
        entry: String,
        /// The limit.
        limit: u32,
    },
    /// The compressed data is damaged or its checksum does not match.
    #[error("failed to decompress the package")]
    GzipCorrupt(#[source] io::Error),
    /// The compressed data is damaged or its checksum does not match.
    #[error("failed to decompress the package")]
    ZstdCorrupt(#[source] io::Error),
    /// A zstd frame that asks for more memory than allowed.
    #[error("expected a zstd window of at most {limit_bytes} bytes")]
    ZstdWindow {
        /// The limit.
        limit_bytes: u64,
    },
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
    /// An extension header over its limit.
    #[error(
        "expected at most {limit_bytes} bytes in the extension header before offset {offset_bytes}, found {size_bytes}"
    )]
    ExtensionTooLarge {
        /// Where its content begins, in unpacked bytes.
        offset_bytes: u64,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// More extension headers before one entry than allowed.
    #[error("expected at most {limit} extension headers before the entry at offset {offset_bytes}")]
    TooManyExtensions {
        /// Where they end, in unpacked bytes.
        offset_bytes: u64,
        /// The limit.
        limit: u32,
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
    /// A file at a path below which other entries lie: which of them counts depends on the reader.
    #[error("expected a file or a folder at `{entry}`, found both")]
    NameConflict {
        /// The path.
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
    /// A revision of a registry tree that is not the one that its folder says.
    #[error("expected the digest of its folder in `{entry}`")]
    RevisionLink {
        /// The entry.
        entry: String,
    },
    /// A docker-archive names a file that is not there, or not under a name by which such files are known.
    #[error("expected file `{file}` of docker-archive `{entry}`, found none")]
    DockerFileAbsent {
        /// The list of the docker-archive.
        entry: String,
        /// The file that it names.
        file: String,
    },
    /// A docker-archive has more or fewer layers than the configuration of its image.
    #[error(
        "expected {expected} layers of image `{config}` in docker-archive `{entry}`, found {found}"
    )]
    LayerCount {
        /// The list of the docker-archive.
        entry: String,
        /// The configuration.
        config: String,
        /// How many the configuration has.
        expected: usize,
        /// How many the list has.
        found: usize,
    },
    /// A layer of a docker-archive is not the one that the configuration of its image names.
    #[error("expected layer {expected} in `{entry}`, found {found}")]
    DiffId {
        /// The layer.
        entry: String,
        /// What the configuration names.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// A configuration of a docker-archive over its limit.
    #[error("expected at most {limit_bytes} bytes in configuration `{entry}`, found {size_bytes}")]
    ConfigTooLarge {
        /// The file.
        entry: String,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A Helm chart over its limit.
    #[error("expected at most {limit_bytes} bytes in a Helm chart")]
    ChartTooLarge {
        /// The limit.
        limit_bytes: u64,
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
    /// More images than allowed.
    #[error("expected at most {limit} images, found {found}")]
    TooManyImages {
        /// The limit.
        limit: u64,
        /// How many there are.
        found: u64,
    },
    /// More Kubernetes documents than allowed.
    #[error("expected at most {limit} Kubernetes documents")]
    TooManyResources {
        /// The limit.
        limit: u64,
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
    /// A delta package builds on blobs that are not there yet.
    #[error("expected {} blobs that the package builds on, found {} of them missing", expected.len(), missing.len())]
    BaseMissing {
        /// All that it builds on, as far as it was read.
        expected: BTreeSet<Digest>,
        /// Which of them are not there, with their sizes in bytes.
        missing: BTreeMap<Digest, u64>,
    },
    /// A blob that a delta package builds on has another size than the package says.
    #[error(
        "expected {expected_bytes} bytes in blob {digest} that the package builds on, found {found_bytes}"
    )]
    BaseSize {
        /// The blob.
        digest: Digest,
        /// The size that the package manifest promises.
        expected_bytes: u64,
        /// The size found.
        found_bytes: u64,
    },
    /// A delta package claims to build on what none of its images needs: it would wait for nothing.
    #[error("expected an image that needs blob {digest}, which the package builds on")]
    BaseUnneeded {
        /// The blob.
        digest: Digest,
    },
    /// A manifest that the package manifest calls left out belongs to no index.
    #[error("expected an index that names manifest {digest}, which the package leaves out")]
    OmittedUnnamed {
        /// The manifest.
        digest: Digest,
    },
    /// A package that answers a request for blobs names images.
    #[error("expected a supplement without images, found {digest} in `{entry}`")]
    SupplementImages {
        /// The entry that names an image.
        entry: String,
        /// Its digest.
        digest: Digest,
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
