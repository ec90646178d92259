//! A state directory of an older version, in which nobody has written down what packages keep.

use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::base::{PackageKind, Timestamp};
use crate::catalog::{ImageRecord, IngestRecord, IngestState, NewPackage, Provenance};
use crate::sys::fs;

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

fn package(image: &[u8], omitted: &[u8]) -> PackageRecord {
    PackageRecord {
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
            digest: Digest::of(image),
            media_type: "x".to_owned(),
            size_bytes: image.len() as u64,
            content_bytes: 1,
        }],
        resources: Vec::new(),
        display_name: None,
        description: None,
        omitted: [Digest::of(omitted)].into(),
        blob_count: 1,
        blob_bytes: 1,
        blobs: [(Digest::of(b"supplement"), 10)].into(),
        carried_by: None,
        provenance: Provenance::Unchecked,
        ready_at: Timestamp::UNIX_EPOCH,
    }
}

/// Puts the package into the catalog of `dir` as a version did that did not write down what it keeps.
fn commit_without_content(dir: &Path, package: PackageRecord) {
    let ingest = IngestRecord {
        path: "/a.tgz".to_owned(),
        size_bytes: 1,
        modified_at: Timestamp::UNIX_EPOCH,
        digest: Some(package.digest),
        state: IngestState::Seen,
        updated_at: Timestamp::UNIX_EPOCH,
    };
    let path: PathBuf = dir.join(format!("packages/{}.json", package.digest.hex()));
    let catalog = Catalog::open(dir).unwrap();
    let content = Content::default();
    let new = NewPackage {
        record: package,
        content,
    };
    catalog.commit_packages(&[new], &ingest).unwrap();
    drop(catalog);
    // The record without its content, and a database made from it.
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, _) = text.split_once(r#","content":[]"#).unwrap();
    let text = format!("{head},\"check\":\"{}\"}}\n", Digest::of(head.as_bytes()));
    fs::replace_file(&path, text.as_bytes(), 0o640).unwrap();
    fs::remove_dir_all(&dir.join("catalog")).unwrap();
}

#[test]
fn what_a_package_keeps_is_derived_from_its_manifests_once_they_can_be_read() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let omitted = b"left out on purpose";
    let manifest = json!({"config": pointer(b"config"), "layers": [pointer(b"layer")]}).to_string();
    let index = json!({"manifests": [pointer(manifest.as_bytes()), pointer(omitted)]}).to_string();
    put(&store, index.as_bytes());
    let package = package(index.as_bytes(), omitted);
    commit_without_content(dir.path(), package.clone());

    let catalog = Catalog::open(dir.path()).unwrap();
    assert_eq!(derive_contents(&store, &catalog).unwrap(), 1);
    assert_eq!(catalog.list_without_content(), [package.digest]);
    assert!(matches!(
        catalog.check_contents_known().unwrap_err(),
        catalog::Error::ContentUnknown { .. }
    ));
    assert_eq!(
        store.take_suspects(),
        [Digest::of(manifest.as_bytes())].into(),
        "scrub looks at what cannot be read"
    );
    // The manifest comes back: with the package, or from a registry.
    put(&store, manifest.as_bytes());
    assert_eq!(derive_contents(&store, &catalog).unwrap(), 0);
    let parts: [&[u8]; 5] = [
        index.as_bytes(),
        manifest.as_bytes(),
        b"config",
        b"layer",
        b"supplement",
    ];
    let expected = parts.map(|part| (Digest::of(part), part.len() as u64));
    let content = catalog.find_content(&package.digest).unwrap();
    assert_eq!(content, Some(expected.into_iter().collect()));
    drop(catalog);
    let catalog = Catalog::open(dir.path()).unwrap();
    assert!(catalog.list_without_content().is_empty());
}
