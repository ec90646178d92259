//! What a store or a registry holds, as an inventory for delta packages.
//!
//! Start from [`of_state`] for the state directory of a daemon, which may be running, and from [`of_registry`] for a
//! registry.
//!
//! Only what is *kept* is listed: what the images of packages in the catalog consist of, or what the tags of a registry
//! reach. A blob that nothing names (a package that was refused, one that still waits, an untagged manifest) may be gone
//! tomorrow, and a delta that was made without it would then wait for it.
//!
//! # Invariants
//!
//! A blob of a state directory is listed only if it is in the store with the size that its manifest says, a manifest only
//! if its content was read and has its digest. Blobs of a registry are listed as their manifests name them: registries
//! take a manifest only when its blobs are there, foreign layers aside, which are not listed.
//!
//! # Concurrency
//!
//! Store and catalog are opened for reading and see the state of that moment. What comes in meanwhile may be missing, which
//! makes a larger delta and nothing worse.

mod remote;
mod state;
mod walk;

use thiserror::Error;

pub use self::remote::{Repositories, of_registry};
pub use self::state::{list_repositories, of_state};
use crate::base::{Class, Classified};
use crate::catalog;
use crate::package::{INVENTORY_BLOBS_MAX, Inventory};
use crate::registry;
use crate::store;

/// What is there.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The blobs.
    pub inventory: Inventory,
    /// What should be there and is not, or cannot be read, in words.
    pub skipped: Vec<String>,
}

/// Why it cannot be told what is there.
#[derive(Debug, Error)]
pub enum Error {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The registry cannot be read.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// There is more than an inventory may list.
    #[error("expected at most {INVENTORY_BLOBS_MAX} blobs, found more")]
    TooMany,
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Store(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::TooMany => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::TooMany => Some("name the repositories with --repository".to_owned()),
        }
    }
}
