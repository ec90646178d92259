//! Why a package cannot be made.

use std::path::PathBuf;

use oci_client::errors::{OciDistributionError, OciErrorCode};
use thiserror::Error;

use crate::base::oci::ParseManifestError;
use crate::base::{Class, Classified, Digest, ImageReference, ParseImageError, TreeError};
use crate::package;
use crate::registry;
use crate::sys::fs as durable;

/// What can go wrong in this module.
#[derive(Debug, Error)]
pub enum Error {
    /// The folder holds no readable OCI layout.
    #[error("failed to read `{}` as an OCI image layout", path.display())]
    Layout {
        /// The folder.
        path: PathBuf,
        /// What is wrong with its index.
        source: ParseManifestError,
    },
    /// The layout holds no image.
    #[error("expected images in the OCI image layout `{}`, found none", path.display())]
    EmptyLayout {
        /// The folder.
        path: PathBuf,
    },
    /// The layout has no image of that name, or several and no name was given.
    #[error("expected {} in the OCI image layout `{}`, found {}", wanted(name.as_deref()), path.display(), names.join(", "))]
    NotInLayout {
        /// The folder.
        path: PathBuf,
        /// The name asked for.
        name: Option<String>,
        /// The names that there are.
        names: Vec<String>,
    },
    /// An image of a layout has no name.
    #[error("expected a name for {digest} in the OCI image layout `{}`", path.display())]
    Unnamed {
        /// The folder.
        path: PathBuf,
        /// The image.
        digest: Digest,
    },
    /// A name is no reference.
    #[error("failed to read `{text}` as an image reference")]
    Reference {
        /// The name.
        text: String,
        /// What is wrong with it.
        source: ParseImageError,
    },
    /// A file is larger than it may be.
    #[error("expected at most {limit_bytes} bytes in `{}`", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit_bytes: u64,
    },
    /// A manifest of a layout is not what its name says.
    #[error("expected {digest} in `{}`, found {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its name.
        digest: Digest,
        /// What is in it.
        found: Digest,
    },
    /// The client for registries cannot be made.
    #[error("failed to set up the registry client")]
    Client(#[source] Box<OciDistributionError>),
    /// The registry refuses or cannot be reached.
    #[error("failed to pull `{image}`")]
    Pull {
        /// The image.
        image: Box<ImageReference>,
        /// What the client says.
        source: Box<OciDistributionError>,
    },
    /// What was pulled is no manifest.
    #[error("failed to read manifest {digest} of `{image}`")]
    Manifest {
        /// The image.
        image: Box<ImageReference>,
        /// The manifest.
        digest: Digest,
        /// What is wrong with it.
        source: ParseManifestError,
    },
    /// The tag points elsewhere than when the manifest was written.
    #[error("expected `{image}` to be {pinned}, found {found}")]
    Moved {
        /// The image.
        image: Box<ImageReference>,
        /// What the manifest says.
        pinned: Digest,
        /// What is there.
        found: Digest,
    },
    /// An image runs on none of the chosen platforms.
    #[error("expected `{image}` for one of the chosen platforms, found {}", found.join(", "))]
    NoPlatform {
        /// The image.
        image: Box<ImageReference>,
        /// What it runs on.
        found: Vec<String>,
    },
    /// A tree cannot be read.
    #[error("failed to read what `{image}` consists of")]
    Tree {
        /// The image.
        image: Box<ImageReference>,
        /// What is wrong.
        source: Box<TreeError<Error>>,
    },
    /// Nothing to package.
    #[error("expected at least one image")]
    NoImages,
    /// The file that says where images come from is malformed.
    #[error("failed to read `{}`: {reason}", path.display())]
    Sources {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry cannot be asked what refers to an image.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// What refers to an image cannot be taken along.
    #[error("failed to find what refers to `{image}`: {reason}")]
    Referrers {
        /// The image.
        image: Box<ImageReference>,
        /// What is wrong with it.
        reason: String,
    },
    /// An inventory or a request is wrong about a blob of the images.
    #[error("expected {digest} to have {size_bytes} bytes, found {listed_bytes} in the list")]
    ListedSize {
        /// The blob.
        digest: Digest,
        /// Its size, in bytes.
        size_bytes: u64,
        /// What the list says, in bytes.
        listed_bytes: u64,
    },
    /// There is nothing to answer.
    #[error("expected blobs in the request, found none")]
    EmptyRequest,
    /// A request cannot be answered, or not in full.
    #[error(
        "expected all {requested} requested blobs in the images of the folder, found all but {}",
        list(absent)
    )]
    Unanswered {
        /// How many blobs were requested.
        requested: usize,
        /// Those of them that are not in the images.
        absent: Vec<Digest>,
    },
    /// The package cannot be written.
    #[error(transparent)]
    Package(#[from] package::Error),
    /// The package cannot be split like this.
    #[error(transparent)]
    Parts(#[from] package::parts::Error),
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] durable::Error),
}

/// Returns what follows from the answer of a registry.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's list is long; what is not named may pass by itself"
)]
fn class_of_pull(error: &OciDistributionError) -> Class {
    use OciDistributionError as E;

    match error {
        E::AuthenticationFailure(_) | E::UnauthorizedError { .. } => Class::Denied,
        E::ImageManifestNotFoundError(_) => Class::Absent,
        E::RegistryError { envelope, .. } => {
            let code = envelope.errors.first().map(|error| &error.code);
            match code {
                Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => Class::Denied,
                Some(
                    OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::BlobUnknown
                    | OciErrorCode::NotFound,
                ) => Class::Absent,
                Some(_) | None => Class::Transient,
            }
        }
        E::UnsupportedMediaTypeError(_)
        | E::UnsupportedSchemaVersionError(_)
        | E::ManifestParsingError(_)
        | E::VersionedParsingError(_)
        | E::DigestError(_) => Class::Rejected,
        _ => Class::Transient,
    }
}

fn list(digests: &[Digest]) -> String {
    let digests: Vec<String> = digests.iter().map(ToString::to_string).collect();
    digests.join(", ")
}

fn wanted(name: Option<&str>) -> String {
    name.map_or_else(|| "one image".to_owned(), |name| format!("`{name}`"))
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Layout { .. }
            | Self::EmptyLayout { .. }
            | Self::Unnamed { .. }
            | Self::TooLarge { .. }
            | Self::Manifest { .. }
            | Self::Referrers { .. }
            | Self::ListedSize { .. }
            | Self::Moved { .. } => Class::Rejected,
            Self::Damaged { .. } => Class::Corrupt,
            Self::NotInLayout { .. } | Self::NoPlatform { .. } | Self::Unanswered { .. } => {
                Class::Absent
            }
            Self::Reference { .. }
            | Self::NoImages
            | Self::EmptyRequest
            | Self::Sources { .. }
            | Self::Client(_)
            // Another name, or another size, is needed.
            | Self::Parts(_) => Class::Usage,
            Self::Pull { source, .. } => class_of_pull(source),
            Self::Tree { source, .. } => match source.as_ref() {
                TreeError::Read { source, .. } => source.class(),
                TreeError::Parse { .. }
                | TreeError::TooDeep { .. }
                | TreeError::RootOmitted { .. } => Class::Rejected,
            },
            Self::Registry(error) => error.class(),
            Self::Package(error) => error.class(),
            Self::Fs(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotInLayout { .. } => {
                Some("write REFERENCE=oci:DIR:NAME with one of these names".to_owned())
            }
            Self::Moved { .. } => {
                Some("run `violetd create` again to take what is there now".to_owned())
            }
            Self::Damaged { .. } => Some("copy the images to the layout again".to_owned()),
            Self::Pull { .. } => Some(
                "check name, credentials (--username, --password-stdin), --plain and --ca-file"
                    .to_owned(),
            ),
            Self::NoImages => Some("name images with --artifact or --image".to_owned()),
            Self::Referrers { .. } => {
                Some("leave them out with `violetd create --no-referrers`".to_owned())
            }
            Self::ListedSize { .. } => Some(
                "make the inventory or request again, and look for damage where it was made"
                    .to_owned(),
            ),
            Self::Unanswered { .. } => Some(
                "use the folder that the waiting package was made of, or --partial if another folder has the rest"
                    .to_owned(),
            ),
            Self::Registry(error) => error.hint(),
            Self::Package(error) => error.hint(),
            Self::Parts(error) => error.hint(),
            Self::Fs(error) => error.hint(),
            Self::Layout { .. }
            | Self::EmptyLayout { .. }
            | Self::Unnamed { .. }
            | Self::Reference { .. }
            | Self::TooLarge { .. }
            | Self::Client(_)
            | Self::Manifest { .. }
            | Self::NoPlatform { .. }
            | Self::Tree { .. }
            | Self::EmptyRequest
            | Self::Sources { .. } => None,
        }
    }
}
