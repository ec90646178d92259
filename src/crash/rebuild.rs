//! The database is damaged, made anew on request, and lost.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Open, Site, names, package_of, words};
use crate::base::Digest;
use crate::catalog::{Catalog, PackageRecord};
use crate::sys::fs as durable;
use crate::sys::trial::{self, Scenario};

const NAMES: [&str; 2] = ["first.tgz", "second.tgz"];

struct Rebuild;

impl Rebuild {
    fn packages() -> [Vec<u8>; 2] {
        [
            package_of("registry.example/a/first:1", &["shared", "one"]),
            package_of("registry.example/a/second:1", &["shared", "two"]),
        ]
    }

    /// Opens what is there. An error says that a package is missing.
    fn open(site: &Site) -> Result<(), String> {
        let Open { catalog, .. } = site.open()?;
        let found = catalog.list_packages().map_err(|error| words(&error))?;
        let expected = Self::packages().map(|content| Digest::of(&content));
        if digests(&found) != BTreeSet::from(expected) {
            return Err(format!("expected both packages, found {found:?}"));
        }
        Ok(())
    }
}

fn digests(packages: &[PackageRecord]) -> BTreeSet<Digest> {
    packages.iter().map(|package| package.digest).collect()
}

impl Scenario for Rebuild {
    /// For about forty failures, half a second each.
    const ONE_OF: usize = 9;

    fn prepare(root: &Path) {
        let [first, second] = Self::packages();
        Site::at(root).prepare_ready(&[(NAMES[0], &first), (NAMES[1], &second)]);
    }

    fn live(root: &Path) -> Result<(), String> {
        let site = Site::at(root);
        let database = Self::database(root);
        let current = database.join("CURRENT");
        durable::ensure_dir_all(&database).map_err(|error| words(&error))?;
        durable::replace_file(&current, b"no name", 0o600).map_err(|error| words(&error))?;
        Self::open(&site)?;
        let rebuilt = Catalog::rebuild(&site.state()).map_err(|error| words(&error))?;
        if rebuilt.packages != 2 || !rebuilt.lost.is_empty() {
            return Err(format!("expected all of two packages, found {rebuilt:?}"));
        }
        Self::open(&site)?;
        durable::remove_dir_all(&database).map_err(|error| words(&error))?;
        Self::open(&site)
    }

    fn check(root: &Path, what: &str) {
        let site = Site::at(root);
        let [first, second] = Self::packages();
        let files = [(NAMES[0], &first[..]), (NAMES[1], &second)];
        let assert_all = || {
            let packages = site.assert_sound(&files, what);
            let expected = files.map(|(_, content)| Digest::of(content));
            assert_eq!(digests(&packages), BTreeSet::from(expected), "{what}");
            // Databases only: no record of a package, and no blob.
            let aside = names(&site.state().join("quarantine"));
            let is_database = |name: &String| name.starts_with("catalog.");
            assert!(aside.iter().all(is_database), "{what}: {aside:?}");
            assert!(!site.state().join("catalog.new").exists(), "{what}");
        };
        assert_all();
        let outcome = Self::live(root);
        assert!(outcome.is_ok(), "{what}: {outcome:?}");
        assert_all();
    }

    fn database(root: &Path) -> PathBuf {
        Site::at(root).state().join("catalog")
    }

    fn is_repetition(root: &Path, path: &Path) -> bool {
        path.parent() == Some(&Site::at(root).state().join("blobs/sha256"))
    }
}

#[test]
fn a_failure_while_the_catalog_is_made_anew_loses_no_package() {
    let count = trial::fail_everywhere::<Rebuild>();
    assert!(count > 30, "{count}");
}

#[test]
fn a_power_cut_while_the_catalog_is_made_anew_loses_no_package() {
    let count = trial::cut_everywhere::<Rebuild>();
    assert!(count > 20, "{count}");
}
