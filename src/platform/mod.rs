//! The platform that consumes what is mirrored: publish Kubernetes resources on its clusters and wait for its verdict.
//!
//! Start with [`Platform`]. Build resources with [`operator_resources`] and [`plugin_resource`], which are pure; ask
//! [`Platform::observe`] what a plan needs; carry it out with [`Platform::apply`]; then [`Platform::wait_verdict`].
//!
//! Two kinds of platform have the same methods: [`Acp`], an Alauda Container Platform behind its HTTPS address, and
//! [`Directory`], a folder of YAML files.
//!
//! # Why no Kubernetes client library
//!
//! All requests go through the platform's proxy, `<address>/kubernetes/<cluster>/…`, with a token that its login
//! grants for a day. That takes three things which `kube` does not give or gives only by being taken apart: dialling
//! another host than the name says (both global clusters share one name), logging in again in the middle of a run, and
//! one TLS set-up for the login and the API. What is left of a client library after that is a PATCH and a GET.
//!
//! # Server-side apply
//!
//! Resources are applied whole under the field manager [`FIELD_MANAGER`], with strict field validation. It is never
//! forced by default: our own fields change without force, and a field that somebody else has set otherwise is a
//! [`Error::Conflict`] that names the manager, not something to overwrite in silence. [`Conflicts::TakeOver`] forces,
//! which then takes over exactly the fields in our document.
//!
//! # Layout
//!
//! ```text
//! resource, plugin   what is wanted: pure builders       verdict   what an object says of itself: pure
//! subset             wanted <= found: pure               message   what a server says
//! acp/               wire -> session -> login; objects, watch
//! directory          files
//! ```

pub mod acp;
pub mod directory;
mod error;
mod message;
mod options;
mod plugin;
mod resource;
mod subset;
mod verdict;

use std::time::Duration;

pub use self::acp::Acp;
pub use self::directory::{Directory, DirectoryOptions};
pub use self::error::{Error, LoginProblem};
pub use self::message::FieldConflict;
pub use self::options::{AcpOptions, Auth, Conflicts, Password, Timeouts};
pub use self::plugin::plugin_resource;
pub use self::resource::{NAMESPACE, OperatorInfo, Resource, ResourceKind, operator_resources};
pub use self::subset::is_subset;
pub use crate::base::ClusterName;
pub use crate::transport::{Action, CertificateProblem, Message, Retries, Trust, Verification};

/// The name under which fields are ours in `metadata.managedFields`. Persisted on every cluster: never renamed.
pub const FIELD_MANAGER: &str = "violetd";

/// Something that takes resources. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Platform {
    /// A platform that is reached over the network.
    Acp(Acp),
    /// A folder of files.
    Directory(Directory),
}

/// How an object compares with what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// It is not there.
    Absent,
    /// Every wanted field is there with the wanted value, and we are among its managers.
    Same,
    /// It is there and something is otherwise.
    Different,
}

/// What an apply did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The object was not there.
    Created,
    /// The object was changed.
    Updated,
    /// The object was as wanted.
    Unchanged,
}

/// What the platform made of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can be used.
    Accepted,
    /// It cannot.
    Failed {
        /// Why, in the platform's words.
        message: String,
    },
    /// The platform has not decided in time.
    Pending {
        /// The last state that was seen.
        last: String,
    },
}

/// What a platform's client has done since it was made. A folder counts nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// HTTP requests of every kind, those of logins included.
    pub requests: u64,
    /// Requests that were sent once more.
    pub retries: u64,
}

impl Platform {
    /// Checks that we may log in, that the configured clusters exist and that they take our kinds of resources; or that
    /// the folder exists. Changes nothing.
    pub async fn check(&self) -> Result<(), Error> {
        match self {
            Self::Acp(acp) => acp.check().await,
            Self::Directory(directory) => directory.check().await,
        }
    }

    /// Returns the registry from which the clusters pull, as `host` or `host:port`.
    pub async fn pull_registry(&self) -> Result<String, Error> {
        match self {
            Self::Acp(acp) => acp.pull_registry().await,
            Self::Directory(directory) => Ok(directory.pull_registry()),
        }
    }

    /// Compares an object with what is wanted.
    pub async fn observe(&self, resource: &Resource) -> Result<Observed, Error> {
        match self {
            Self::Acp(acp) => acp.observe(resource).await,
            Self::Directory(directory) => directory.observe(resource).await,
        }
    }

    /// Makes an object as wanted. Idempotent. The owner of an object must be applied first.
    pub async fn apply(&self, resource: &Resource) -> Result<Applied, Error> {
        match self {
            Self::Acp(acp) => acp.apply(resource).await,
            Self::Directory(directory) => directory.apply(resource).await,
        }
    }

    /// Waits until the platform has decided about an object, at most `timeout`. A folder accepts everything at once.
    ///
    /// Dropping the future ends the waiting.
    pub async fn wait_verdict(
        &self,
        resource: &Resource,
        timeout: Duration,
    ) -> Result<Verdict, Error> {
        match self {
            Self::Acp(acp) => acp.wait_verdict(resource, timeout).await,
            Self::Directory(_) => Ok(Verdict::Accepted),
        }
    }

    /// Returns what was done so far.
    pub fn counters(&self) -> Counters {
        match self {
            Self::Acp(acp) => acp.counters(),
            Self::Directory(_) => Counters::default(),
        }
    }
}
