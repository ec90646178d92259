//! One look at everything but content, audit record and disk, or two of them beside a daemon.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use super::blobs::Blobs;
use super::finding::{Finding, Observer as _};
use super::packages::Packages;
use super::pass::Pass;
use super::rows::Uses;
use super::{Counter, Error, Options};
use crate::base::{Class, Classified as _};
use crate::catalog::Rows;

/// How long after the first look the second one comes, beside a daemon. What passes is over then: a daemon takes
/// milliseconds from the file of a package to its row, a second on a slow disk. Chosen, not measured.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// How often a look beside a daemon is begun again because files of the database have been replaced under it.
const LOOKS_MAX: u32 = 5;

/// What one look has seen.
pub(super) struct Seen {
    pub(super) packages: Packages,
    pub(super) blobs: Blobs,
    pub(super) catalog: Option<Rows>,
}

/// How to look at everything but content, audit record and disk.
pub(super) struct Look<'a> {
    pub(super) root: &'a Path,
    pub(super) options: &'a Options,
    pub(super) is_owned: bool,
    /// What comes between two looks.
    pub(super) meanwhile: &'a dyn Fn(),
}

impl Look<'_> {
    /// Looks once.
    pub(super) fn once(&self, observer: &mut dyn FnMut(Finding)) -> Result<Seen, Error> {
        let owner = self.root.join("LOCK").metadata();
        let mut pass = Pass {
            root: self.root,
            options: self.options,
            is_owned: self.is_owned,
            owner_uid: owner.ok().map(|metadata| metadata.uid()),
            observer,
        };
        let names = pass.check_layout()?;
        let catalog = pass.open_catalog()?;
        let packages = pass.check_packages(&names, catalog.as_ref())?;
        let uses = match &catalog {
            Some(catalog) => pass.check_rows(&names, &packages, catalog)?,
            None => Uses::default(),
        };
        let blobs = pass.check_blobs(&packages, &uses)?;
        Ok(Seen {
            packages,
            blobs,
            catalog,
        })
    }

    /// Looks twice, and tells what was found both times.
    pub(super) fn twice(&self, counter: &mut Counter<'_>) -> Result<Seen, Error> {
        let mut first = HashSet::new();
        let seen = self.again(&mut |finding| {
            first.insert(finding.key());
        })?;
        if first.is_empty() {
            return Ok(seen);
        }
        drop(seen);
        (self.meanwhile)();
        // A look that is begun again finds the same again: each is told once.
        self.again(&mut |finding| {
            if first.remove(&finding.key()) {
                counter.found(finding);
            }
        })
    }

    /// Looks, again where the daemon has replaced a file of the database meanwhile.
    fn again(&self, observer: &mut dyn FnMut(Finding)) -> Result<Seen, Error> {
        for _ in 1..LOOKS_MAX {
            match self.once(observer) {
                Err(Error::Catalog(error)) if error.class() == Class::Transient => {}
                result => return result,
            }
        }
        self.once(observer)
    }
}
