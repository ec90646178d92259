//! Why something cannot be pushed.

use std::path::PathBuf;

use thiserror::Error;

use crate::base::{Class, Classified};
use crate::build;
use crate::catalog;
use crate::ingest;
use crate::package;
use crate::platform;
use crate::registry;
use crate::replicate;
use crate::store;
use crate::sys;
use crate::verify;

/// What can go wrong in this module.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody says where to push.
    #[error("expected a registry or a platform, found neither")]
    NoDestination,
    /// A folder has neither packages nor an OCI layout.
    #[error("expected packages or an OCI image layout in `{}`, found none", path.display())]
    NoPackages {
        /// The folder.
        path: PathBuf,
    },
    /// A path cannot be looked at.
    #[error("failed to read `{}`", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A chart cannot be published.
    #[error("expected a package whose resources can be published, found a chart")]
    Chart,
    /// Somebody wanted to stop.
    #[error("stopped before the end")]
    Stopped,
    /// The cache cannot be locked.
    #[error(transparent)]
    Lock(#[from] sys::lock::Error),
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] sys::fs::Error),
    /// The store of the cache cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The catalog of the cache cannot be used.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// Keys or sidecars do not fit.
    #[error(transparent)]
    Verify(#[from] verify::Error),
    /// A package is refused.
    #[error(transparent)]
    Ingest(#[from] ingest::Error),
    /// A layout cannot be read.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// The client of the registry cannot be made.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The platform cannot be used.
    #[error(transparent)]
    Platform(#[from] platform::Error),
    /// The run could not be done.
    #[error(transparent)]
    Replicate(#[from] replicate::Error),
}

impl Error {
    /// Returns the stable code, as reports show it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Verify(error) => error.code(),
            Self::Ingest(error) => error.code(),
            Self::NoDestination => "no-destination",
            Self::NoPackages { .. } => "no-packages",
            Self::Unreadable { .. } | Self::Fs(_) => "file-system",
            Self::Chart => "chart",
            Self::Stopped => "stopped",
            Self::Lock(_) => "lock",
            Self::Store(_) => "store",
            Self::Catalog(_) => "catalog",
            Self::Build(_) => "layout",
            Self::Registry(_) => "registry",
            Self::Platform(_) => "platform",
            Self::Replicate(_) => "run",
        }
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::NoDestination | Self::Chart => Class::Usage,
            Self::NoPackages { .. } => Class::Absent,
            Self::Stopped => Class::Transient,
            Self::Unreadable { source, .. } => sys::fs::class_of(source),
            Self::Lock(error) => error.class(),
            Self::Fs(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::Verify(error) => error.class(),
            Self::Ingest(error) => error.class(),
            Self::Build(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::Platform(error) => error.class(),
            Self::Replicate(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoDestination => Some("say where to push with --dest-repo".to_owned()),
            Self::NoPackages { .. } => Some(
                "packages are files whose names end in .tgz; an OCI image layout has an index.json"
                    .to_owned(),
            ),
            Self::Chart => Some(
                "charts are not uploaded to a chart repository; push their images with --skip-crs"
                    .to_owned(),
            ),
            Self::Ingest(ingest::Error::Package(package::Error::BaseMissing { .. })) => Some(
                "push what it builds on first, with --keep, so that it is in the cache".to_owned(),
            ),
            Self::Stopped => Some("run the same command again to go on".to_owned()),
            Self::Unreadable { .. } => None,
            Self::Lock(error) => error.hint(),
            Self::Fs(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::Verify(error) => error.hint(),
            Self::Ingest(error) => error.hint(),
            Self::Build(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Platform(error) => error.hint(),
            Self::Replicate(error) => error.hint(),
        }
    }
}
