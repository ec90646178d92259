//! A store with packages, a registry and kept files that are lists in memory, and damage.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::repair::{Error, KeptFile, Origin, PackageFiles, Part, Place, Repairer};
use crate::base::oci::{Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};
use crate::base::{Digest, ImageReference, PackageKind, Repository, SystemClock};
use crate::catalog::{
    Catalog, Column, Content, ImageRecord, IngestRecord, IngestState, NewPackage, PackageRecord,
    Provenance, raw,
};
use crate::package::{Image, Limits, Manifest, WriteOptions, Writer as PackageWriter};
use crate::store::{Store, Writer};
use crate::sys::fs as durable;

/// A store and a catalog with packages.
pub(super) struct World {
    pub(super) dir: TempDir,
    pub(super) store: Store,
    pub(super) catalog: Catalog,
    pub(super) packages: Vec<Stored>,
}

/// A package of one image for two platforms, and what it consists of.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) record: PackageRecord,
    pub(super) repository: Repository,
    /// By what a registry hands them out as.
    pub(super) blobs: BTreeMap<Digest, (Part, Vec<u8>)>,
    pub(super) file: Vec<u8>,
}

impl World {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(dir.path()).unwrap(),
            catalog: Catalog::open(dir.path()).unwrap(),
            dir,
            packages: Vec::new(),
        }
    }

    /// Adds a package with layers of its own, so long.
    pub(super) fn add(&mut self, name: &str, layer_bytes: usize) -> Stored {
        let stored = Stored::new(name, layer_bytes);
        let mut batch = self.store.begin();
        for (digest, (_, content)) in &stored.blobs {
            let mut writer = batch.writer(Some(*digest), content.len() as u64).unwrap();
            writer.write(content).unwrap();
            batch.stage(writer).unwrap();
        }
        batch.commit().unwrap();
        let sizes = stored.blobs.iter();
        let content: Content = sizes
            .map(|(digest, (_, content))| (*digest, content.len() as u64))
            .collect();
        let package = NewPackage {
            record: stored.record.clone(),
            content,
        };
        let ingest = IngestRecord {
            path: name.to_owned(),
            size_bytes: 0,
            modified_at: stored.record.ready_at,
            digest: None,
            state: IngestState::Seen,
            updated_at: stored.record.ready_at,
        };
        self.catalog.commit_packages(&[package], &ingest).unwrap();
        self.packages.push(stored.clone());
        stored
    }

    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let shards = self.dir.path().join("blobs/sha256");
        shards.join(&hex[..2]).join(hex)
    }

    /// Changes the content of a stored blob behind everybody's back.
    pub(super) fn damage(&self, digest: &Digest, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let path = self.path(digest);
        let mut content = std::fs::read(&path).unwrap();
        change(&mut content);
        durable::replace_file(&path, &content, 0o444).unwrap();
        content
    }

    /// Returns the world in which the catalog does not say what a package keeps: a version that is older has left it so.
    pub(super) fn without_content(self, package: &Stored) -> Self {
        let Self {
            dir,
            store,
            catalog,
            packages,
        } = self;
        drop(catalog);
        let key = package.record.digest;
        raw::put_raw(dir.path(), Column::Content, key.as_bytes(), None);
        Self {
            catalog: Catalog::open(dir.path()).unwrap(),
            dir,
            store,
            packages,
        }
    }

    pub(super) fn lose(&self, digest: &Digest) {
        durable::remove_file(&self.path(digest)).unwrap();
    }

    /// Fails the test unless the store holds every blob of every package, with the content that its name says.
    pub(super) fn assert_whole(&self) {
        for (digest, (_, content)) in self.packages.iter().flat_map(|it| &it.blobs) {
            let path = self.path(digest);
            assert_eq!(&std::fs::read(&path).unwrap(), content, "{digest}");
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o444, "{digest}");
        }
    }

    pub(super) fn quarantined(&self) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(self.dir.path().join("quarantine")).unwrap();
        let mut found: Vec<(String, Vec<u8>)> = entries
            .map(|entry| {
                let entry = entry.unwrap();
                let content = std::fs::read(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), content)
            })
            .collect();
        found.sort();
        found
    }

    pub(super) fn repairer(&self, origins: Vec<Arc<dyn Origin>>, files: Kept) -> Repairer {
        Repairer {
            store: self.store.clone(),
            origins,
            files: Arc::new(files),
            limits: Limits::default(),
        }
    }
}

impl Stored {
    fn new(name: &str, layer_bytes: usize) -> Self {
        let mut blobs = BTreeMap::new();
        let mut put = |part: Part, media_type: &str, content: Vec<u8>| {
            let descriptor = Descriptor::of(media_type, &content);
            blobs.insert(descriptor.digest, (part, content));
            descriptor
        };
        let mut manifests = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let mut layer = format!("{name} on {architecture} ").into_bytes();
            layer.resize(layer_bytes.max(layer.len()), b'.');
            let layer = put(Part::Blob, "application/vnd.oci.image.layer.v1.tar", layer);
            let config = json!({"os": "linux", "architecture": architecture, "author": name,
                "rootfs": {"type": "layers", "diff_ids": []}});
            let config = put(Part::Blob, MEDIA_TYPE_CONFIG, config.to_string().into());
            let manifest = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST,
                "config": config, "layers": [layer]});
            let manifest = manifest.to_string().into();
            manifests.push(put(Part::Manifest, MEDIA_TYPE_MANIFEST, manifest));
        }
        let index =
            json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": manifests});
        let root = put(Part::Manifest, MEDIA_TYPE_INDEX, index.to_string().into());
        let reference: ImageReference = format!("registry.example/demo/{name}:v1").parse().unwrap();
        let file = packed(&reference, &root, &blobs);
        let image = ImageRecord {
            reference: reference.clone(),
            digest: root.digest,
            media_type: root.media_type,
            size_bytes: root.size_bytes,
            content_bytes: 0,
        };
        Self {
            record: record(name, &file, image),
            repository: reference.repository().clone(),
            blobs,
            file,
        }
    }

    pub(super) fn root(&self) -> Digest {
        self.record.images[0].digest
    }

    /// Returns the blobs that are handed out as this, ordered by digest.
    pub(super) fn list(&self, part: Part) -> Vec<Digest> {
        let blobs = self.blobs.iter().filter(|(_, (is, _))| *is == part);
        blobs.map(|(digest, _)| *digest).collect()
    }
}

fn packed(
    reference: &ImageReference,
    root: &Descriptor,
    blobs: &BTreeMap<Digest, (Part, Vec<u8>)>,
) -> Vec<u8> {
    let image = Image {
        reference: reference.clone(),
        descriptor: root.clone(),
    };
    let (manifest, options) = (Manifest::default(), WriteOptions::default());
    let mut writer = PackageWriter::create(Vec::new(), &manifest, &[image], options).unwrap();
    for (digest, (_, content)) in blobs {
        let size_bytes = content.len() as u64;
        let mut content = content.as_slice();
        writer.add_blob(digest, size_bytes, &mut content).unwrap();
    }
    writer.finish().unwrap()
}

fn record(name: &str, file: &[u8], image: ImageRecord) -> PackageRecord {
    use crate::base::Clock as _;
    PackageRecord {
        digest: Digest::of(file),
        file_name: format!("{name}.tgz"),
        size_bytes: file.len() as u64,
        name: name.parse().unwrap(),
        version: Some("v1".to_owned()),
        kind: PackageKind::Images,
        platforms: Vec::new(),
        artifact: None,
        images: vec![image],
        resources: Vec::new(),
        display_name: None,
        description: None,
        omitted: BTreeSet::new(),
        blob_count: 0,
        blob_bytes: 0,
        blobs: BTreeMap::new(),
        carried_by: None,
        provenance: Provenance::Unchecked,
        ready_at: SystemClock.now(),
    }
}

/// A registry as strict as a real one: what is a manifest is handed out as a manifest only, what is a blob as a blob only,
/// each in its repository.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) name: &'static str,
    pub(super) content: Mutex<BTreeMap<(Place, Digest), Vec<u8>>>,
    pub(super) asked: Mutex<Vec<(Place, Digest)>>,
    /// Cancelled when it is asked for anything.
    pub(super) stops: Option<CancellationToken>,
    /// Whether it cannot be reached.
    pub(super) is_down: bool,
}

impl Registry {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    pub(super) fn put(&self, package: &Stored) {
        let mut all = self.content.lock().unwrap();
        for (digest, (part, content)) in &package.blobs {
            let place = Place {
                repository: package.repository.clone(),
                part: *part,
            };
            all.insert((place, *digest), content.clone());
        }
    }

    /// Replaces what is handed out under a digest.
    pub(super) fn spoil(&self, digest: &Digest) {
        let mut all = self.content.lock().unwrap();
        let found = all.iter_mut().filter(|((_, found), _)| found == digest);
        found.for_each(|(_, content)| content[0] ^= 1);
    }

    pub(super) fn asked(&self) -> Vec<(Place, Digest)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Origin for Registry {
    fn name(&self) -> &str {
        self.name
    }

    fn fetch<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        mut writer: Writer,
    ) -> BoxFuture<'a, Result<Writer, Error>> {
        let key = (place.clone(), *digest);
        self.asked.lock().unwrap().push(key.clone());
        if let Some(stop) = &self.stops {
            stop.cancel();
        }
        Box::pin(async move {
            if self.is_down {
                return Err(unreachable().await);
            }
            let (content, is_elsewhere) = {
                let all = self.content.lock().unwrap();
                let mut keys = all.keys();
                let is_elsewhere = keys.any(|(_, found)| found == digest);
                (all.get(&key).cloned(), is_elsewhere)
            };
            let Some(content) = content else {
                // As docker-registry 2.8 does, which looks for manifests in all repositories and takes a layer for one.
                return Err(if is_elsewhere && place.part == Part::Manifest {
                    internal_error(self.name)
                } else {
                    Error::Absent
                });
            };
            writer.write(&content)?;
            Ok(writer)
        })
    }
}

/// Returns the error of a client whose registry answers with status 500.
fn internal_error(address: &str) -> Error {
    use crate::registry;
    Error::Registry(registry::Error::Busy {
        action: registry::Action::new("read manifest".to_owned(), address),
        status: 500,
        retry_after: None,
        message: registry::Message::default(),
    })
}

/// Returns the error of a client whose registry is not there: nobody listens at the discard port.
async fn unreachable() -> Error {
    use crate::registry::{Client, Options, Retries, Transport};
    let options = Options {
        retries: Retries {
            attempts_max: 1,
            ..Retries::default()
        },
        ..Options::new("127.0.0.1:9".to_owned(), Transport::Http)
    };
    let client = Client::new(options).unwrap();
    Error::Registry(client.check().await.unwrap_err())
}

/// Kept files by name.
#[derive(Debug, Default)]
pub(super) struct Kept(pub(super) BTreeMap<String, Vec<u8>>);

impl PackageFiles for Kept {
    fn list(&self) -> Vec<KeptFile> {
        let files = self.0.iter().map(|(name, content)| KeptFile {
            path: PathBuf::from("/kept").join(name),
            name: name.clone(),
            size_bytes: content.len() as u64,
        });
        files.collect()
    }

    fn open(&self, file: &KeptFile) -> io::Result<Box<dyn Read + Send + Sync>> {
        Ok(Box::new(io::Cursor::new(self.0[&file.name].clone())))
    }
}
