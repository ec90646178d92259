//! What the state directory of a daemon holds.

use std::collections::BTreeSet;
use std::path::Path;

use super::walk::Walk;
use super::{Error, Held};
use crate::base::oci::MANIFEST_BYTES_MAX;
use crate::base::{Digest, Repository};
use crate::catalog::{Catalog, PackageRecord};
use crate::store::{self, Store};

/// Lists what the images of all packages in the catalog of `state_dir` consist of, as far as it is whole.
pub fn of_state(state_dir: &Path) -> Result<Held, Error> {
    let store = Store::open_read_only(state_dir)?;
    let catalog = Catalog::open_read_only(state_dir)?;
    let mut walk = Walk::default();
    for package in catalog.list_packages()? {
        for image in &package.images {
            add_tree(&mut walk, &store, &package, image.digest)?;
        }
        for (digest, size_bytes) in &package.blobs {
            add_blob(
                &mut walk,
                &store,
                package.name.as_str(),
                digest,
                *size_bytes,
            )?;
        }
    }
    Ok(walk.held)
}

/// Lists the repositories of the images of all packages in the catalog of `state_dir`, sorted.
pub fn list_repositories(state_dir: &Path) -> Result<Vec<Repository>, Error> {
    let catalog = Catalog::open_read_only(state_dir)?;
    let packages = catalog.list_packages()?;
    let images = packages.iter().flat_map(|package| &package.images);
    let repositories: BTreeSet<Repository> = images
        .map(|image| image.reference.repository().clone())
        .collect();
    Ok(repositories.into_iter().collect())
}

/// Adds a manifest and what is below it. Depth and number are bounded by what was accepted into the catalog.
fn add_tree(
    walk: &mut Walk,
    store: &Store,
    package: &PackageRecord,
    root: Digest,
) -> Result<(), Error> {
    let name = package.name.as_str();
    let mut waiting = vec![root];
    while let Some(digest) = waiting.pop() {
        if !walk.is_new(&digest) {
            continue;
        }
        let bytes = match store.read(&digest, MANIFEST_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(store::Error::NotFound { .. }) if package.omitted.contains(&digest) => continue,
            Err(error @ (store::Error::NotFound { .. } | store::Error::Corrupt { .. })) => {
                walk.skip(format!("{name}: {error}"));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let (children, blobs) = walk.add_manifest(name, digest, &bytes)?;
        waiting.extend(children.iter().map(|child| child.digest));
        for blob in blobs {
            add_blob(walk, store, name, &blob.digest, blob.size_bytes)?;
        }
    }
    Ok(())
}

fn add_blob(
    walk: &mut Walk,
    store: &Store,
    name: &str,
    digest: &Digest,
    size_bytes: u64,
) -> Result<(), Error> {
    if !walk.is_new(digest) {
        return Ok(());
    }
    match store.find(digest)? {
        Some(found) if found == size_bytes => walk.add_blob(*digest, found)?,
        Some(found) => walk.skip(format!(
            "{name}: expected {digest} to have {size_bytes} bytes, found {found}"
        )),
        None => walk.skip(format!("{name}: {digest} is not in the store")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::base::{PackageKind, Timestamp};
    use crate::catalog::{Content, ImageRecord, IngestRecord, IngestState, NewPackage, Provenance};

    fn put(store: &Store, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let mut batch = store.begin();
        let mut writer = batch.writer(Some(digest), content.len() as u64).unwrap();
        writer.write(content).unwrap();
        batch.stage(writer).unwrap();
        batch.commit().unwrap();
        digest
    }

    fn pointer(content: &[u8]) -> serde_json::Value {
        json!({"mediaType": "x", "digest": Digest::of(content), "size": content.len()})
    }

    /// Puts a package of one image into the catalog of a state directory.
    fn commit(dir: &Path, root: Digest, omitted: BTreeSet<Digest>) {
        let package = PackageRecord {
            digest: Digest::of(b"package"),
            file_name: "a.tgz".to_owned(),
            size_bytes: 1,
            name: "a".parse().unwrap(),
            version: None,
            kind: PackageKind::Images,
            platforms: Vec::new(),
            artifact: None,
            images: vec![ImageRecord {
                reference: "registry.example/a/b:v1".parse().unwrap(),
                digest: root,
                media_type: "x".to_owned(),
                size_bytes: 1,
                content_bytes: 1,
            }],
            resources: Vec::new(),
            display_name: None,
            description: None,
            omitted,
            blob_count: 1,
            blob_bytes: 1,
            blobs: BTreeMap::new(),
            carried_by: None,
            provenance: Provenance::Unchecked,
            ready_at: Timestamp::UNIX_EPOCH,
        };
        let ingest = IngestRecord {
            path: "/a.tgz".to_owned(),
            size_bytes: 1,
            modified_at: Timestamp::UNIX_EPOCH,
            digest: Some(package.digest),
            state: IngestState::Ready {
                package: package.digest,
                is_repeat: false,
                nested: Vec::new(),
            },
            updated_at: Timestamp::UNIX_EPOCH,
        };
        let catalog = Catalog::open(dir).unwrap();
        let new = NewPackage {
            record: package,
            content: Content::default(),
        };
        catalog.commit_packages(&[new], &ingest).unwrap();
    }

    #[test]
    fn only_what_packages_of_the_catalog_hold_and_what_is_whole_is_listed() {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let manifest = json!({
            "config": pointer(b"config"),
            "layers": [pointer(b"layer"), pointer(b"lost")],
        });
        let manifest = manifest.to_string();
        let omitted = Digest::of(b"left out on purpose");
        let index = json!({"manifests": [
            pointer(manifest.as_bytes()), pointer(b"left out on purpose"), pointer(b"gone"),
        ]});
        let held = [b"config", &b"layer"[..], manifest.as_bytes()].map(|it| put(&store, it));
        let index = put(&store, index.to_string().as_bytes());
        let orphan = put(&store, b"of a package that was refused");
        commit(dir.path(), index, BTreeSet::from([omitted]));

        let found = of_state(dir.path()).unwrap();
        let expected: BTreeSet<Digest> = held.into_iter().chain([index]).collect();
        let listed: BTreeSet<Digest> = found.inventory.blobs.keys().copied().collect();
        assert_eq!(listed, expected);
        assert!(!listed.contains(&orphan));
        assert_eq!(found.inventory.blobs[&Digest::of(b"layer")], 5);
        let skipped = found.skipped.join("\n");
        assert_eq!(found.skipped.len(), 2, "{skipped}");
        for lost in [b"lost", b"gone"] {
            assert!(skipped.contains(&Digest::of(lost).hex()), "{skipped}");
        }
        assert_eq!(
            list_repositories(dir.path()).unwrap(),
            ["a/b".parse().unwrap()]
        );
    }
}
