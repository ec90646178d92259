//! The rules of retention, and in which order the versions of a package follow one another. Pure.
//!
//! # Order of versions
//!
//! Where every version of a package is a semantic one (with or without a `v` in front), they follow one another as
//! <https://semver.org> says, and what is left equal by the time of readiness. Where one of them is none, all of them are
//! ordered by the time of readiness: a mixed order would not be one, because A may come before B by version, B before C and C
//! before A by time.
//!
//! Packages of one version, such as one for each platform, are one version. A package that says no version is one by itself.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use chrono::TimeDelta;

use super::plan::Package;
use crate::base::{Digest, NamePattern, PackageKind, PackageName, Timestamp};

/// What is kept of the packages that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Names of packages that it is about.
    pub names: Vec<NamePattern>,
    /// Types of packages that it is about; all if empty.
    pub kinds: Vec<PackageKind>,
    /// How many versions of each name and type are kept. At least 1.
    pub keep_last: usize,
    /// What is younger than this is kept.
    pub keep_younger: Duration,
    /// Whether packages are kept of which an image still stands on a target under a tag that we put there, and those without
    /// images that a target holds.
    pub keeps_published: bool,
}

impl Rule {
    /// Returns whether the rule is about packages of this name and type.
    pub fn fits(&self, name: &PackageName, kind: PackageKind) -> bool {
        let has_kind = self.kinds.is_empty() || self.kinds.contains(&kind);
        has_kind && self.names.iter().any(|pattern| pattern.matches(name))
    }

    /// Returns whether a package that became ready then is younger than what the rule lets go.
    pub fn is_young(&self, ready_at: Timestamp, now: Timestamp) -> bool {
        TimeDelta::from_std(self.keep_younger).map_or(true, |young| now - ready_at < young)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names.iter().map(NamePattern::as_str).collect();
        f.write_str(&names.join(" "))?;
        if !self.kinds.is_empty() {
            let kinds: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
            write!(f, " ({})", kinds.join(" "))?;
        }
        write!(f, ": last {}", self.keep_last)?;
        if !self.keep_younger.is_zero() {
            let young = humantime::format_duration(self.keep_younger);
            write!(f, ", younger than {young}")?;
        }
        if self.keeps_published {
            f.write_str(", published")?;
        }
        Ok(())
    }
}

/// The rules, of which the first that fits a package decides. What no rule fits is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The rules, in the order of the configuration.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// Returns the number, from 1, and the rule that decides about packages of this name and type.
    pub fn find(&self, name: &PackageName, kind: PackageKind) -> Option<(usize, &Rule)> {
        let mut rules = (1..).zip(&self.rules);
        rules.find(|(_, rule)| rule.fits(name, kind))
    }
}

/// One version of a package: all files of it.
struct Release<'p> {
    version: Option<&'p str>,
    /// The semantic version, where it is one.
    parsed: Option<semver::Version>,
    /// When the last of its packages became ready.
    ready_at: Timestamp,
    digest: Digest,
    /// Positions of its packages.
    members: Vec<usize>,
}

/// Returns for each of the packages, which have one name and type, how many newer versions there are.
pub(super) fn ranks(packages: &[&Package]) -> Vec<usize> {
    let mut releases: Vec<Release<'_>> = Vec::new();
    let mut positions: Vec<usize> = (0..packages.len()).collect();
    positions.sort_by_key(|position| &packages[*position].version);
    for position in positions {
        let package = packages[position];
        let version = package.version.as_deref();
        match releases.last_mut() {
            Some(last) if version.is_some() && last.version == version => {
                last.ready_at = last.ready_at.max(package.ready_at);
                last.digest = last.digest.max(package.digest);
                last.members.push(position);
            }
            Some(_) | None => releases.push(Release {
                version,
                parsed: version.and_then(parse),
                ready_at: package.ready_at,
                digest: package.digest,
                members: vec![position],
            }),
        }
    }
    let is_semantic = releases.iter().all(|release| release.parsed.is_some());
    releases.sort_by(|a, b| {
        let by_version = match (&a.parsed, &b.parsed) {
            (Some(a), Some(b)) if is_semantic => a.cmp_precedence(b),
            _ => Ordering::Equal,
        };
        let by_time = || (a.ready_at, a.digest).cmp(&(b.ready_at, b.digest));
        by_version.then_with(by_time).reverse()
    });
    let mut ranks = vec![0; packages.len()];
    for (rank, release) in releases.iter().enumerate() {
        for position in &release.members {
            ranks[*position] = rank;
        }
    }
    ranks
}

fn parse(version: &str) -> Option<semver::Version> {
    let version = version.strip_prefix('v').unwrap_or(version);
    semver::Version::parse(version).ok()
}
