//! Why the daemon does not start.

use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::audit;
use crate::base::{Class, Classified, ParseNameError, TargetName};
use crate::catalog;
use crate::config;
use crate::http;
use crate::platform;
use crate::registry;
use crate::schedule;
use crate::store;
use crate::sys;
use crate::verify;

/// What can go wrong in this module.
#[derive(Debug, Error)]
pub enum Error {
    /// Another process owns the state directory.
    #[error(transparent)]
    Lock(#[from] sys::lock::Error),
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] sys::fs::Error),
    /// A drop folder cannot be watched.
    #[error(transparent)]
    Watch(#[from] sys::watch::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The catalog cannot be opened.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The audit record cannot be opened.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// The keys cannot be read.
    #[error(transparent)]
    Keyring(#[from] verify::Error),
    /// The admin API cannot be offered.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The status cannot be put together.
    #[error(transparent)]
    Status(#[from] http::status::Error),
    /// A target's schedule makes no sense.
    #[error("failed to read the schedule of target {target}")]
    Schedule {
        /// The target.
        target: TargetName,
        /// What is wrong with it.
        source: schedule::Error,
    },
    /// The schedule of a job that belongs to no target makes no sense.
    #[error("failed to read the schedule in [{section}]")]
    JobSchedule {
        /// The section of the configuration.
        section: &'static str,
        /// What is wrong with it.
        source: schedule::Error,
    },
    /// A target's secret cannot be had.
    #[error("failed to get a secret of target {target}")]
    Secret {
        /// The target.
        target: TargetName,
        /// Why.
        source: config::secret::Error,
    },
    /// A target's file cannot be read.
    #[error("failed to read a file of target {target}")]
    TargetFile {
        /// The target.
        target: TargetName,
        /// Why.
        source: sys::fs::Error,
    },
    /// A target's registry client cannot be made.
    #[error("failed to set up the registry of target {target}")]
    Registry {
        /// The target.
        target: TargetName,
        /// Why.
        source: registry::Error,
    },
    /// A target's platform client cannot be made.
    #[error("failed to set up the platform of target {target}")]
    Platform {
        /// The target.
        target: TargetName,
        /// Why.
        source: platform::Error,
    },
    /// Two targets end at the same server.
    #[error("expected targets {one} and {other} to have a {server} each, found {address} for both")]
    Shared {
        /// A target.
        one: TargetName,
        /// The other.
        other: TargetName,
        /// `registry` or `platform`.
        server: &'static str,
        /// Where both end.
        address: SocketAddr,
    },
    /// A fingerprint of an allowed signer is malformed.
    #[error("failed to read `{text}` as a fingerprint")]
    Fingerprint {
        /// The text.
        text: String,
    },
    /// A target names a cluster that cannot exist.
    #[error("failed to read `{text}` as the name of a cluster of target {target}")]
    Cluster {
        /// The target.
        target: TargetName,
        /// The name.
        text: String,
        /// What is wrong with it.
        source: ParseNameError,
    },
    /// A drop folder does not exist and cannot be made.
    #[error("failed to open drop folder `{}`", path.display())]
    Drop {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: sys::fs::Error,
    },
    /// The operating system refused to install signal handlers.
    #[error("failed to wait for signals")]
    Signal(#[source] std::io::Error),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Lock(error) => error.class(),
            Self::Fs(error) => error.class(),
            Self::Watch(_) | Self::Http(_) | Self::Signal(_) => Class::Transient,
            Self::Store(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::Status(error) => error.class(),
            Self::Audit(error) => error.class(),
            Self::Keyring(error) => error.class(),
            Self::Secret { source, .. } => source.class(),
            Self::TargetFile { source, .. } | Self::Drop { source, .. } => source.class(),
            Self::Schedule { .. }
            | Self::JobSchedule { .. }
            | Self::Registry { .. }
            | Self::Platform { .. }
            | Self::Shared { .. }
            | Self::Cluster { .. }
            | Self::Fingerprint { .. } => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Lock(error) => error.hint(),
            Self::Fs(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::Status(error) => error.hint(),
            Self::Audit(error) => error.hint(),
            Self::Keyring(error) => error.hint(),
            Self::Schedule { source, .. } | Self::JobSchedule { source, .. } => source.hint(),
            Self::Secret { source, .. } => source.hint(),
            Self::TargetFile { source, .. } | Self::Drop { source, .. } => source.hint(),
            Self::Registry { source, .. } => source.hint(),
            Self::Platform { source, .. } => source.hint(),
            Self::Shared { .. } => Some(
                "give the standby its own address (its VIP), and connect_to where both carry one name".to_owned(),
            ),
            Self::Fingerprint { .. } => Some("write the 40 hexadecimal digits that `gpg --fingerprint` prints".to_owned()),
            Self::Watch(_) => Some("raise fs.inotify.max_user_watches, or watch fewer folders".to_owned()),
            Self::Http(_) | Self::Cluster { .. } | Self::Signal(_) => None,
        }
    }
}
