//! What retention would remove, and what keeps the rest. Pure.
//!
//! # Invariants
//!
//! - Every package is either removed or kept, and has one reason for it.
//! - What is pinned, what a target still has to get, and the last versions are never removed.
//! - A plan has an identity: two plans that would remove the same packages have the same one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::policy::{Policy, ranks};
use crate::base::{Digest, PackageKind, PackageName, TargetName, Timestamp};

/// Hex characters of the identity of a plan: it tells plans of one catalog apart, and protects from no adversary.
const ID_DIGITS: usize = 16;

/// A package, as far as retention looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Digest of the package file.
    pub digest: Digest,
    /// Name.
    pub name: PackageName,
    /// Version, where it says.
    pub version: Option<String>,
    /// Type.
    pub kind: PackageKind,
    /// When it became ready.
    pub ready_at: Timestamp,
    /// Whether somebody has pinned it.
    pub is_pinned: bool,
    /// A target that it is meant for and that does not hold all of it.
    pub pending_on: Option<TargetName>,
    /// A target on which a tag that we put there stands for an image of it, or that holds it, where it has no images.
    pub published_on: Option<TargetName>,
}

/// What people call a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Digest of the package file.
    pub digest: Digest,
    /// Name.
    pub name: PackageName,
    /// Version, where it says.
    pub version: Option<String>,
    /// Type.
    pub kind: PackageKind,
    /// When it became ready.
    pub ready_at: Timestamp,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.as_deref().unwrap_or("-");
        write!(f, "{} {version} ({})", self.name, self.digest.short())
    }
}

impl From<Package> for Subject {
    fn from(package: Package) -> Self {
        Self {
            digest: package.digest,
            name: package.name,
            version: package.version,
            kind: package.kind,
            ready_at: package.ready_at,
        }
    }
}

/// What collection could remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Blobs and manifests.
    pub blobs: u64,
    /// Their size together, in bytes.
    pub bytes: u64,
}

/// A package that would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The package.
    #[serde(flatten)]
    pub package: Subject,
    /// The rule that lets it go: its number, from 1, and what it keeps.
    pub rule: String,
    /// What nothing keeps any more once this package and those before it in the plan are gone.
    pub freed: Amount,
}

/// A package that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The package.
    #[serde(flatten)]
    pub package: Subject,
    /// Why it stays.
    pub because: Reason,
}

/// What keeps a package. The first that holds is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// Somebody has pinned it.
    Pinned,
    /// No rule is about it.
    NoRule,
    /// A target that it is meant for does not hold all of it.
    Pending {
        /// The target.
        target: TargetName,
    },
    /// It is among the last versions.
    Last {
        /// Number of the rule.
        rule: usize,
        /// How many versions the rule keeps.
        keep_last: usize,
    },
    /// It is young.
    Young {
        /// Number of the rule.
        rule: usize,
    },
    /// A tag that we put on a target stands for an image of it.
    Published {
        /// Number of the rule.
        rule: usize,
        /// The target.
        target: TargetName,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("pinned"),
            Self::NoRule => f.write_str("no rule is about it"),
            Self::Pending { target } => write!(f, "not in sync on {target}"),
            Self::Last { rule, keep_last } => {
                write!(f, "one of the last {keep_last}, rule {rule}")
            }
            Self::Young { rule } => write!(f, "young, rule {rule}"),
            Self::Published { rule, target } => write!(f, "published on {target}, rule {rule}"),
        }
    }
}

/// What tells a plan from another: 16 hex characters that depend on what it would remove.
#[derive(Clone, PartialEq, Eq)]
pub struct PlanId(String);

/// A string that is no identity of a plan.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("expected {ID_DIGITS} lowercase hex characters, as `violetd retain plan` prints")]
pub struct ParsePlanIdError;

impl PlanId {
    /// Returns the identity of the plan that removes these packages.
    fn of(removals: &[Removal]) -> Self {
        let mut digests: Vec<Digest> = removals.iter().map(|it| it.package.digest).collect();
        digests.sort_unstable();
        let bytes: Vec<u8> = digests.iter().flat_map(|it| *it.as_bytes()).collect();
        Self(Digest::of(&bytes).hex()[..ID_DIGITS].to_owned())
    }
}

impl FromStr for PlanId {
    type Err = ParsePlanIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_good = text.len() == ID_DIGITS && text.bytes().all(is_hex);
        is_good
            .then(|| Self(text.to_owned()))
            .ok_or(ParsePlanIdError)
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for PlanId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PlanId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What would be removed and what keeps the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What tells it from others.
    pub id: PlanId,
    /// The moment at which age is measured.
    pub made_at: Timestamp,
    /// Packages that would go, in the order in which they would: by name and type, oldest version first.
    pub removals: Vec<Removal>,
    /// Packages that stay, in the same order.
    pub kept: Vec<Kept>,
}

impl Plan {
    /// Decides about every package. What would be freed is not known yet.
    pub fn new(policy: &Policy, packages: Vec<Package>, now: Timestamp) -> Self {
        let mut groups: BTreeMap<(PackageName, PackageKind), Vec<Package>> = BTreeMap::new();
        for package in packages {
            let key = (package.name.clone(), package.kind);
            groups.entry(key).or_default().push(package);
        }
        let (mut removals, mut kept) = (Vec::new(), Vec::new());
        for group in groups.into_values() {
            let ranks = ranks(&group.iter().collect::<Vec<_>>());
            let mut ranked: Vec<(usize, Package)> = ranks.into_iter().zip(group).collect();
            ranked.sort_by(|(a, one), (b, other)| (b, one.digest).cmp(&(a, other.digest)));
            for (rank, package) in ranked {
                match decide(policy, &package, rank, now) {
                    Ok(because) => kept.push(Kept {
                        package: package.into(),
                        because,
                    }),
                    Err(rule) => removals.push(Removal {
                        package: package.into(),
                        rule,
                        freed: Amount::default(),
                    }),
                }
            }
        }
        Self {
            id: PlanId::of(&removals),
            made_at: now,
            removals,
            kept,
        }
    }

    /// Returns what would be freed in all.
    pub fn freed(&self) -> Amount {
        total(&self.removals)
    }
}

/// Returns what removals free together.
pub(super) fn total(removals: &[Removal]) -> Amount {
    let amounts = removals.iter().map(|removal| removal.freed);
    amounts.fold(Amount::default(), |sum, amount| Amount {
        blobs: sum.blobs + amount.blobs,
        bytes: sum.bytes + amount.bytes,
    })
}

/// Returns what keeps a package, or else the rule that lets it go. `rank` is the number of newer versions.
fn decide(
    policy: &Policy,
    package: &Package,
    rank: usize,
    now: Timestamp,
) -> Result<Reason, String> {
    if package.is_pinned {
        return Ok(Reason::Pinned);
    }
    let Some((number, rule)) = policy.find(&package.name, package.kind) else {
        return Ok(Reason::NoRule);
    };
    if let Some(target) = &package.pending_on {
        let target = target.clone();
        return Ok(Reason::Pending { target });
    }
    if rank < rule.keep_last {
        let keep_last = rule.keep_last;
        return Ok(Reason::Last {
            rule: number,
            keep_last,
        });
    }
    if rule.is_young(package.ready_at, now) {
        return Ok(Reason::Young { rule: number });
    }
    match &package.published_on {
        Some(target) if rule.keeps_published => Ok(Reason::Published {
            rule: number,
            target: target.clone(),
        }),
        Some(_) | None => Err(format!("{number}: {rule}")),
    }
}

impl fmt::Display for Plan {
    /// Prints the plan for people, a line per package.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Removal {
            package,
            rule,
            freed,
        } in &self.removals
        {
            let days = (self.made_at - package.ready_at).num_days();
            let Amount { blobs, bytes } = freed;
            writeln!(
                f,
                "remove {package}, {days} days, frees {bytes} bytes in {blobs} blobs; rule {rule}"
            )?;
        }
        for Kept { package, because } in &self.kept {
            writeln!(f, "keep   {package}: {because}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
