//! What a package is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The type of a package. Decides which resources are published for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageKind {
    /// An operator bundle: `Artifact` and `ArtifactVersion` on every chosen cluster. violet calls it `bundle`.
    Operator,
    /// A cluster plugin: `ModulePlugin` on the global cluster.
    Plugin,
    /// A Helm chart for the platform's chart repository.
    Chart,
    /// Images and nothing else.
    Images,
    /// Blobs without images, which other packages build on: the answer to a request.
    Supplement,
}

/// A string that is no package type.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("expected `operator`, `plugin`, `chart`, `images` or `supplement`")]
pub struct ParsePackageKindError;

impl PackageKind {
    /// Returns the stable name, as in the configuration and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Plugin => "plugin",
            Self::Chart => "chart",
            Self::Images => "images",
            Self::Supplement => "supplement",
        }
    }
}

impl fmt::Display for PackageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PackageKind {
    type Err = ParsePackageKindError;

    /// Parses the stable name, or violet's own names for the same thing.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "operator" | "bundle" | "OperatorBundle" => Ok(Self::Operator),
            "plugin" | "ModulePlugin" => Ok(Self::Plugin),
            "chart" | "Chart" => Ok(Self::Chart),
            "images" => Ok(Self::Images),
            "supplement" => Ok(Self::Supplement),
            _ => Err(ParsePackageKindError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_violets_are_understood() {
        for kind in [
            PackageKind::Operator,
            PackageKind::Plugin,
            PackageKind::Chart,
            PackageKind::Images,
            PackageKind::Supplement,
        ] {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert_eq!("bundle".parse(), Ok(PackageKind::Operator));
        assert_eq!("".parse::<PackageKind>(), Err(ParsePackageKindError));
    }
}
