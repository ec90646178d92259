//! A sound state directory, made by the store, the catalog and the audit record themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::audit;
use crate::base::oci::{Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};
use crate::base::{Digest, PackageKind, Timestamp, Tree};
use crate::catalog::{
    Catalog, Content, ImageRecord, IngestRecord, IngestState, NewPackage, PackageRecord, Provenance,
};
use crate::store::Store;

/// A state directory with six packages: one, a delta on it, one with a sparse index, one with a referrer, a supplement, and
/// one that came inside of another file.
#[derive(Debug)]
pub(super) struct State {
    pub(super) root: PathBuf,
    /// The packages by name.
    pub(super) packages: BTreeMap<String, NewPackage>,
    _dir: TempDir,
}

/// What a state is made with.
struct Maker {
    store: Store,
    catalog: Catalog,
    packages: BTreeMap<String, NewPackage>,
}

impl State {
    /// Returns a state of its own for a test.
    pub(super) fn new() -> Self {
        static TEMPLATE: OnceLock<State> = OnceLock::new();
        TEMPLATE.get_or_init(Self::make).copy()
    }

    fn make() -> Self {
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("state");
        let mut maker = Maker {
            store: Store::open(&root).unwrap(),
            catalog: Catalog::open(&root).unwrap(),
            packages: BTreeMap::new(),
        };
        maker.make_packages();
        let options = audit::Options::new(root.join(audit::DIR));
        drop(audit::Log::open(options, Timestamp::UNIX_EPOCH).unwrap());
        let packages = maker.packages;
        Self {
            root,
            packages,
            _dir: dir,
        }
    }

    fn copy(&self) -> Self {
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("state");
        let mut copy = Command::new("cp");
        let copied = copy.arg("-a").arg(&self.root).arg(&root).status();
        assert!(copied.unwrap().success());
        Self {
            root,
            packages: self.packages.clone(),
            _dir: dir,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn catalog(&self) -> Catalog {
        Catalog::open(&self.root).unwrap()
    }

    /// Returns the digest of a package.
    pub(super) fn digest(&self, name: &str) -> Digest {
        self.packages[name].record.digest
    }

    /// Returns the file of a package.
    pub(super) fn record_path(&self, name: &str) -> PathBuf {
        let hex = self.digest(name).hex();
        self.path(&format!("packages/{hex}.json"))
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path(&self.root, digest)
    }

    /// Stores a blob that no package keeps.
    pub(super) fn store_blob(&self, content: &[u8]) -> Digest {
        let store = Store::open(&self.root).unwrap();
        store_blob(&store, "x", content).digest
    }

    /// Changes a package, in the catalog and in its file.
    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut PackageRecord, &mut Entries)) {
        let mut package = self.packages[name].clone();
        let mut entries: Entries = package.content.entries().iter().copied().collect();
        change(&mut package.record, &mut entries);
        package.content = entries.into_iter().collect();
        commit(&self.catalog(), &package);
    }
}

/// What a package keeps, to be changed.
pub(super) type Entries = BTreeMap<Digest, u64>;

impl Maker {
    fn make_packages(&mut self) {
        let (one, child) = self.image(&["base", "one"], &[]);
        self.put("one", PackageKind::Images, &[("app:v1", &one)], &[]);
        let (two, _) = self.image(&["base", "two"], &[]);
        self.put("two", PackageKind::Operator, &[("app:v2", &two)], &[]);
        let left_out = Descriptor::of(MEDIA_TYPE_MANIFEST, b"left out on purpose");
        let (sparse, _) = self.image(&["sparse"], std::slice::from_ref(&left_out));
        let omitted = [left_out.digest];
        self.put(
            "sparse",
            PackageKind::Images,
            &[("sparse:v1", &sparse)],
            &omitted,
        );
        let signature = self.referrer(&child, "signed");
        let (signed, _) = self.image(&["signed"], &[]);
        let by_digest = format!("app@{}", signature.digest);
        let images = [("signed:v1", &signed), (by_digest.as_str(), &signature)];
        self.put("signed", PackageKind::Plugin, &images, &[]);
        self.supplement();
        let (inner, _) = self.image(&["inner"], &[]);
        let mut package = self.package("inner", PackageKind::Images, &[("inner:v1", &inner)], &[]);
        package.record.carried_by = Some(Digest::of(b"carrier"));
        self.commit("inner", package);
    }

    fn supplement(&mut self) {
        let mut package = self.package("supplement", PackageKind::Supplement, &[], &[]);
        let blob = store_blob(&self.store, "x", &layer("supplement"));
        package.content = [(blob.digest, blob.size_bytes)].into_iter().collect();
        package.record.blobs = package.content.entries().iter().copied().collect();
        (package.record.blob_count, package.record.blob_bytes) = (1, blob.size_bytes);
        self.commit("supplement", package);
    }

    /// Makes an index of one manifest with these layers, and of others that are not there. Returns both.
    fn image(&self, layers: &[&str], others: &[Descriptor]) -> (Descriptor, Descriptor) {
        let config = store_blob(&self.store, MEDIA_TYPE_CONFIG, b"{}");
        let layers = layers
            .iter()
            .map(|name| store_blob(&self.store, "layer", &layer(name)));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST,
            "config": config, "layers": layers.collect::<Vec<_>>(),
        });
        let manifest = self.manifest(MEDIA_TYPE_MANIFEST, &manifest);
        let children: Vec<&Descriptor> = [&manifest].into_iter().chain(others).collect();
        let index =
            json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": children});
        (self.manifest(MEDIA_TYPE_INDEX, &index), manifest)
    }

    fn referrer(&self, subject: &Descriptor, name: &str) -> Descriptor {
        let config = store_blob(&self.store, "application/vnd.oci.empty.v1+json", b"{}");
        let layer = store_blob(&self.store, "signature", &layer(&format!("{name}.sig")));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "subject": subject,
            "config": config, "layers": [layer],
        });
        self.manifest(MEDIA_TYPE_MANIFEST, &manifest)
    }

    fn manifest(&self, media_type: &str, manifest: &Value) -> Descriptor {
        store_blob(&self.store, media_type, manifest.to_string().as_bytes())
    }

    fn put(
        &mut self,
        name: &str,
        kind: PackageKind,
        images: &[(&str, &Descriptor)],
        omitted: &[Digest],
    ) {
        let package = self.package(name, kind, images, omitted);
        self.commit(name, package);
    }

    fn package(
        &self,
        name: &str,
        kind: PackageKind,
        images: &[(&str, &Descriptor)],
        omitted: &[Digest],
    ) -> NewPackage {
        let mut entries = Entries::new();
        let images = images.iter().map(|(reference, root)| {
            let tree = self.tree(root, omitted);
            let blobs = tree.blobs.iter().map(|blob| &blob.descriptor);
            let parts = tree.manifests.iter().chain(blobs);
            entries.extend(parts.map(|part| (part.digest, part.size_bytes)));
            ImageRecord {
                reference: format!("registry.example/{reference}").parse().unwrap(),
                digest: root.digest,
                media_type: root.media_type.clone(),
                size_bytes: root.size_bytes,
                content_bytes: tree.content_bytes(),
            }
        });
        let images = images.collect();
        let content: Content = entries.into_iter().collect();
        NewPackage {
            record: PackageRecord {
                digest: Digest::of(name.as_bytes()),
                file_name: format!("{name}.tgz"),
                size_bytes: 1,
                name: name.parse().unwrap(),
                version: Some("v1".to_owned()),
                kind,
                platforms: Vec::new(),
                artifact: None,
                images,
                resources: Vec::new(),
                display_name: None,
                description: None,
                omitted: omitted.iter().copied().collect(),
                blob_count: content.entries().len() as u64,
                blob_bytes: content.size_bytes(),
                blobs: BTreeMap::new(),
                carried_by: None,
                provenance: Provenance::Unchecked,
                ready_at: Timestamp::UNIX_EPOCH,
            },
            content,
        }
    }

    fn tree(&self, root: &Descriptor, omitted: &[Digest]) -> Tree {
        let omitted: BTreeSet<Digest> = omitted.iter().copied().collect();
        let tree = Tree::read(root, |manifest| {
            if omitted.contains(&manifest.digest) {
                return Ok::<_, io::Error>(None);
            }
            Ok(Some(self.store.read(&manifest.digest, 1 << 20).unwrap()))
        });
        tree.unwrap()
    }

    fn commit(&mut self, name: &str, package: NewPackage) {
        commit(&self.catalog, &package);
        self.packages.insert(name.to_owned(), package);
    }
}

/// Returns the digest of a layer: that which only the package of this name has, or `base`, which two have.
pub(super) fn layer_of(name: &str) -> Digest {
    Digest::of(&layer(name))
}

/// Returns the content of a layer: of the same size for each name.
fn layer(name: &str) -> Vec<u8> {
    format!("layer {name:>40}").into_bytes()
}

fn blob_path(root: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    root.join("blobs/sha256").join(&hex[..2]).join(hex)
}

fn store_blob(store: &Store, media_type: &str, content: &[u8]) -> Descriptor {
    let descriptor = Descriptor::of(media_type, content);
    let mut batch = store.begin();
    let mut writer = batch
        .writer(Some(descriptor.digest), content.len() as u64)
        .unwrap();
    writer.write(content).unwrap();
    batch.stage(writer).unwrap();
    batch.commit().unwrap();
    descriptor
}

fn commit(catalog: &Catalog, package: &NewPackage) {
    let digest = package.record.digest;
    let ingest = ingest(
        &format!("/drop/{}", package.record.file_name),
        IngestState::Ready {
            package: digest,
            is_repeat: false,
            nested: Vec::new(),
        },
    );
    catalog
        .commit_packages(std::slice::from_ref(package), &ingest)
        .unwrap();
}

/// Returns the record of a dropped file.
pub(super) fn ingest(path: &str, state: IngestState) -> IngestRecord {
    IngestRecord {
        path: path.to_owned(),
        size_bytes: 1,
        modified_at: Timestamp::UNIX_EPOCH,
        digest: None,
        state,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}
