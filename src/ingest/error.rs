//! Why a dropped file is not a package yet, or never will be.

use std::path::PathBuf;

use thiserror::Error;

use crate::audit;
use crate::base::{ByteCount, Class, Classified, Digest, TreeError};
use crate::catalog;
use crate::package;
use crate::store;
use crate::sys::fs as durable;
use crate::verify;

/// The code of [`Error::LowSpace`].
pub(super) const LOW_SPACE: &str = "low-space";

/// What to do where space is short.
pub(super) const MAKE_SPACE: &str = "see what `violetd retain plan` would remove, approve it by `violetd retain apply`, and free what \
     nobody wants by `violetd gc`; or make the file system of the state directory larger; ingest goes on by itself";

/// What can go wrong in this module.
#[derive(Debug, Error)]
pub enum Error {
    /// The file is not what somebody trusted signed.
    #[error(transparent)]
    Verify(#[from] verify::Error),
    /// The content is not a package.
    #[error(transparent)]
    Package(#[from] package::Error),
    /// A manifest that was just unpacked cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError<store::Error>),
    /// The file is not the one that was verified.
    #[error("expected `{}` with {verified}, found other content when it was unpacked", path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
        /// The digest that was verified.
        verified: Digest,
    },
    /// Writing on would leave too little space.
    #[error("expected {} of free space, found {}", ByteCount(*needed_bytes), ByteCount(*available_bytes))]
    LowSpace {
        /// What is free, once nothing of the file is left.
        available_bytes: u64,
        /// What the file is expected to take, and what must be left then.
        needed_bytes: u64,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The catalog refused.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The verdict cannot be put on record.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] durable::Error),
    /// A fault of this program, met while working on the file.
    #[error("found a fault in violetd: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The daemon stops.
    #[error("stopped before the end")]
    Stopped,
}

impl Error {
    /// Returns the stable code of the failure, as in `reason.json` and in the status.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Verify(error) => error.code(),
            Self::Package(error) => error.code(),
            Self::FileChanged { .. } => "file-changed",
            Self::LowSpace { .. } => LOW_SPACE,
            Self::Tree(_) | Self::Store(_) => "store",
            Self::Catalog(_) => "catalog",
            Self::Audit(_) => "audit",
            Self::Fs(_) => "file-system",
            Self::Panicked { .. } => "bug",
            Self::Stopped => "stopped",
        }
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Verify(error) => error.class(),
            Self::Package(error) => error.class(),
            Self::Tree(TreeError::Read { source, .. }) => source.class(),
            Self::Tree(
                TreeError::Parse { .. } | TreeError::TooDeep { .. } | TreeError::RootOmitted { .. },
            ) => Class::Rejected,
            Self::FileChanged { .. } | Self::Stopped => Class::Transient,
            Self::LowSpace { .. } => Class::Full,
            Self::Panicked { .. } => Class::Bug,
            Self::Store(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::Audit(error) => error.class(),
            Self::Fs(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Verify(error) => error.hint(),
            Self::Package(error) => error.hint(),
            Self::FileChanged { .. } => Some(
                "move complete files into the drop folder, do not write them there twice"
                    .to_owned(),
            ),
            Self::LowSpace { .. } => Some(MAKE_SPACE.to_owned()),
            Self::Store(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::Audit(error) => error.hint(),
            Self::Fs(error) => error.hint(),
            Self::Panicked { .. } => Some("report it, with the log and the package".to_owned()),
            Self::Tree(_) | Self::Stopped => None,
        }
    }
}
