//! Is what a state directory holds whole? Looked at from outside, while no daemon runs on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use violetd::base::Digest;
use violetd::catalog::Catalog;
use violetd::store::Store;

use super::Setup;

/// Fails the test unless every blob has the digest that its name says, and every package of the catalog is there with all
/// that it keeps. Returns the packages. `what` says what has happened to the directory.
///
/// A directory that a daemon was just about to make holds nothing.
pub(crate) fn assert_whole(state_dir: &Path, what: &str) -> BTreeSet<Digest> {
    let Ok(store) = Store::open_read_only(state_dir) else {
        assert!(!state_dir.join("FORMAT").exists(), "{what}: no store");
        return BTreeSet::new();
    };
    let mut blobs = BTreeMap::new();
    for blob in store.list() {
        let (digest, size_bytes) = blob.unwrap();
        let read = store.read(&digest, size_bytes);
        assert!(read.is_ok(), "{what}: blob {digest}: {:?}", read.err());
        blobs.insert(digest, size_bytes);
    }
    if !state_dir.join("catalog/CURRENT").exists() {
        return BTreeSet::new();
    }
    let catalog = Catalog::open_read_only(state_dir).unwrap();
    let packages = catalog.list_packages().unwrap();
    for package in &packages {
        let name = &package.file_name;
        let content = catalog.find_content(&package.digest).unwrap();
        let content = content.unwrap_or_else(|| panic!("{what}: {name} keeps nothing"));
        for (digest, size_bytes) in content.entries() {
            let found = blobs.get(digest);
            assert_eq!(found, Some(size_bytes), "{what}: {digest} of {name}");
        }
    }
    packages.iter().map(|package| package.digest).collect()
}

/// Fails the test unless `violetd check --deep` finds no error.
pub(crate) fn assert_checked(setup: &Setup, what: &str) {
    let output = setup.run(&["check", "--deep"]);
    assert!(output.status.success(), "{what}: {output:?}");
}
