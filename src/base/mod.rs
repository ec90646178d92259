//! Vocabulary: value types shared by every layer. No I/O, no async.

mod amount;
mod clock;
mod description;
mod digest;
mod image;
mod json_keys;
mod name;
pub mod oci;
mod package_kind;
mod pattern;
mod report;
mod secret;
pub mod shown;
mod text;
mod tree;

pub use self::amount::{ByteCount, ParseByteCountError};
pub use self::clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use self::description::{ChartDescription, Description, OperatorDescription};
pub use self::digest::{Digest, Hasher, ParseDigestError};
pub use self::image::{ImageReference, ParseImageError, Platform, Repository, Tag};
pub use self::name::{ClusterName, ObjectName, PackageName, ParseNameError, TargetName};
pub use self::package_kind::{PackageKind, ParsePackageKindError};
pub use self::pattern::{NamePattern, ParseNamePatternError};
pub use self::report::{Chain, Class, Classified};
pub use self::secret::Secret;
pub use self::tree::{Blob, DEPTH_MAX, Tree, TreeError};
