//! Pins: packages that retention leaves alone, and how people name packages.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Error;
use super::gather::Planner;
use super::plan::Subject;
use crate::base::{Digest, Timestamp};
use crate::catalog::{Catalog, PackageSummary, PinRecord};

/// How many hex characters of a digest name a package: as many as lists show ([`Digest::short`]).
pub(super) const PREFIX_DIGITS_MIN: usize = 12;

/// A pinned package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The package.
    #[serde(flatten)]
    pub package: Subject,
    /// Since when.
    pub pinned_at: Timestamp,
    /// Why, in the words of whoever pinned it.
    pub pin_reason: Option<String>,
}

impl From<&PackageSummary> for Subject {
    fn from(package: &PackageSummary) -> Self {
        Self {
            digest: package.digest,
            name: package.name.clone(),
            version: package.version.clone(),
            kind: package.kind,
            ready_at: package.ready_at,
        }
    }
}

/// Lists the pinned packages, ordered by name, then by when they became ready.
pub fn list_pins(catalog: &Catalog) -> Result<Vec<Pin>, Error> {
    let mut pins = Vec::new();
    for pin in catalog.list_pins()? {
        // A pin goes with its package; one that is just being removed may be listed without it.
        if let Some(package) = catalog.find_package(&pin.package)? {
            let package = Subject::from(&PackageSummary::from(&package));
            pins.push(Pin {
                package,
                pinned_at: pin.pinned_at,
                pin_reason: pin.reason,
            });
        }
    }
    pins.sort_by(|a, b| {
        (&a.package.name, a.package.ready_at).cmp(&(&b.package.name, b.package.ready_at))
    });
    Ok(pins)
}

impl Planner {
    /// Pins the packages that `text` names: `NAME`, `NAME@VERSION`, or a digest or how it begins. Returns them.
    pub fn pin(&self, text: &str, reason: Option<&str>) -> Result<Vec<Pin>, Error> {
        let _alone = self.alone();
        let mut pins = Vec::new();
        for package in find_packages(&self.catalog, text)? {
            let pin = PinRecord {
                package: package.digest,
                pinned_at: self.clock.now(),
                reason: reason.map(ToOwned::to_owned),
            };
            self.catalog.put_pin(&pin)?;
            tracing::info!(digest = %package.digest, name = %package.name, reason, "package is pinned");
            pins.push(Pin {
                package: package.as_ref().into(),
                pinned_at: pin.pinned_at,
                pin_reason: pin.reason,
            });
        }
        Ok(pins)
    }

    /// Removes the pins of the packages that `text` names. Returns the packages that were pinned.
    pub fn unpin(&self, text: &str) -> Result<Vec<Subject>, Error> {
        let _alone = self.alone();
        let mut unpinned = Vec::new();
        for package in find_packages(&self.catalog, text)? {
            if self.catalog.find_pin(&package.digest)?.is_some() {
                self.catalog.remove_pin(&package.digest)?;
                tracing::info!(digest = %package.digest, name = %package.name, "package is no longer pinned");
                unpinned.push(package.as_ref().into());
            }
        }
        Ok(unpinned)
    }
}

/// Finds the packages that people call so; at least one.
fn find_packages(catalog: &Catalog, text: &str) -> Result<Vec<Arc<PackageSummary>>, Error> {
    let (name, version) = match text.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let has_version =
        |package: &PackageSummary| version.is_none() || package.version.as_deref() == version;
    let mut packages = catalog.summaries();
    let named = |package: &PackageSummary| package.name.as_str() == name && has_version(package);
    if packages.iter().any(|package| named(package)) {
        packages.retain(|package| named(package));
        return Ok(packages);
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if hex.len() >= PREFIX_DIGITS_MIN {
        let begins = |digest: &Digest| digest.hex().starts_with(hex);
        packages.retain(|package| begins(&package.digest));
    } else {
        packages.clear();
    }
    let text = text.to_owned();
    match packages.len() {
        1 => Ok(packages),
        0 => Err(Error::NoPackage { text }),
        found => Err(Error::Ambiguous { text, found }),
    }
}
