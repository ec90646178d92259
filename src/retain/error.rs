//! What can go wrong with retention, collection and pins.

use thiserror::Error;

use super::plan::PlanId;
use crate::audit;
use crate::base::{Class, Classified};
use crate::catalog;
use crate::store;

/// What can go wrong in this module, scrub and repair apart.
#[derive(Debug, Error)]
pub enum Error {
    /// The catalog cannot be read or written.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A removal cannot be put on the audit record.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// Somebody approved of another plan.
    #[error("expected the plan to be {expected} still, found {found}")]
    PlanChanged {
        /// The plan that was approved.
        expected: PlanId,
        /// The plan now.
        found: PlanId,
    },
    /// Somebody asks for a removal that is not in the plan.
    #[error("expected one package that the plan removes, found {found} for `{text}`")]
    NotPlanned {
        /// What was asked for.
        text: String,
        /// How many fit.
        found: usize,
    },
    /// There is no such package.
    #[error("expected a package in the catalog, found none for `{text}`")]
    NoPackage {
        /// What was asked for.
        text: String,
    },
    /// Several packages fit what can only mean one.
    #[error("expected one package, found {found} whose digests begin with `{text}`")]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// How many fit.
        found: usize,
    },
    /// The work could not be given to a thread.
    #[error("failed to run on a thread of its own")]
    Thread(#[from] tokio::task::JoinError),
    /// The daemon stops.
    #[error("stopped before the end")]
    Stopped,
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Catalog(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Audit(error) => error.class(),
            Self::PlanChanged { .. } | Self::NotPlanned { .. } | Self::NoPackage { .. } => {
                Class::Absent
            }
            Self::Ambiguous { .. } => Class::Usage,
            Self::Thread(_) => Class::Bug,
            Self::Stopped => Class::Transient,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Catalog(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Audit(error) => error.hint(),
            Self::PlanChanged { .. } | Self::NotPlanned { .. } => {
                Some("look at the plan again: `violetd retain plan`".to_owned())
            }
            Self::NoPackage { .. } => Some("see `violetd packages`".to_owned()),
            Self::Ambiguous { .. } => Some("write more digits of the digest".to_owned()),
            Self::Thread(_) | Self::Stopped => None,
        }
    }
}
