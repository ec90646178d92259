//! What is pushed: package files and OCI layouts, and how they get into the cache.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::cache::Cache;
use super::{Error, Options};
use crate::base::{Clock, Digest, PackageKind, PackageName, Repository};
use crate::build::{Listed, ListedImage};
use crate::catalog::{Catalog, ImageRecord, NewPackage, PackageRecord, Provenance};
use crate::ingest::{self, Intake};
use crate::store::{Committed, Lease, Store};
use crate::sys::disk::{Alarm, Marks};
use crate::verify::{self, Depth, Keyring, Requirements, Source};

/// What stays free on the file system of the cache. A home directory is not to be filled up; chosen, not measured.
const FREE_BYTES_MIN: u64 = 512 << 20;

/// Something to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A package file, or the table of a package in parts.
    File(PathBuf),
    /// The folder of an OCI layout.
    Layout(PathBuf),
}

impl Origin {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Layout(path) => path,
        }
    }
}

/// Lists what the paths on the command line mean: a folder with an OCI layout is one, another folder stands for the packages in
/// it, anything else is a package.
pub(super) fn list(paths: &[PathBuf]) -> Result<Vec<Origin>, Error> {
    let mut origins = Vec::new();
    for path in paths {
        if path.join("oci-layout").is_file() || path.join("index.json").is_file() {
            origins.push(Origin::Layout(path.clone()));
            continue;
        }
        let found = verify::list_packages(path, Depth::Folder)?;
        if found.is_empty() {
            let path = path.clone();
            return Err(Error::NoPackages { path });
        }
        origins.extend(found.into_iter().map(Origin::File));
    }
    Ok(origins)
}

/// What was taken in.
#[derive(Debug)]
pub(super) struct Taken {
    /// The packages, all of them in the catalog.
    pub(super) records: Vec<PackageRecord>,
    /// What was written to the store.
    pub(super) committed: Committed,
}

/// Takes packages and layouts in.
#[derive(Debug)]
pub(super) struct Taker {
    intake: Intake,
    store: Store,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    requirements: Requirements,
    keyring: Keyring,
    repository: Option<Repository>,
    stop: CancellationToken,
}

impl Taker {
    /// Returns what takes files into this cache. Fails where the keyring cannot be used.
    pub(super) fn new(
        cache: &Cache,
        options: &Options,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let requirements = options.requirements.clone();
        let keyring = Keyring::load(&options.keyring, &requirements.limits)?;
        keyring.check(&requirements)?;
        let marks = Marks {
            low_bytes: FREE_BYTES_MIN,
            critical_bytes: FREE_BYTES_MIN,
        };
        let disk = Arc::new(Alarm::new(&options.cache_dir, marks));
        let (store, catalog) = (cache.store.clone(), cache.catalog.clone());
        Ok(Self {
            intake: Intake::new(store.clone(), catalog.clone(), disk, Arc::clone(&clock)),
            store,
            catalog,
            clock,
            requirements,
            keyring,
            repository: options.repository.clone(),
            stop,
        })
    }

    /// Takes a package or a layout in. Blocking.
    pub(super) fn take(&self, origin: &Origin) -> Result<Taken, Error> {
        match origin {
            Origin::File(path) => self.take_file(path),
            Origin::Layout(path) => self.take_layout(path),
        }
    }

    fn take_file(&self, path: &Path) -> Result<Taken, Error> {
        tracing::debug!(path = %path.display(), "verifying");
        let source = Source::of(path)?;
        let taken = self
            .intake
            .take(&source, &self.requirements, &self.keyring, &self.stop)?;
        let mut records = Vec::with_capacity(taken.packages.len());
        for digest in &taken.packages {
            records.extend(self.catalog.find_package(digest)?);
        }
        tracing::info!(path = %path.display(), packages = records.len(), new_bytes = taken.committed.new_bytes, "package is ready");
        Ok(Taken {
            records,
            committed: taken.committed,
        })
    }

    /// Lends the blobs of a layout to the store, and puts its images into the catalog as a package.
    fn take_layout(&self, path: &Path) -> Result<Taken, Error> {
        let path = path.canonicalize().map_err(|source| Error::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let listed = Listed::read(&path, self.repository.as_ref())?;
        self.store.lend(listed.dir.clone());
        let made = self.store_made(&listed)?;
        let record = self.record(&path, &listed);
        tracing::info!(path = %path.display(), images = record.images.len(), "layout is read");
        let package = NewPackage {
            content: listed
                .blobs
                .iter()
                .map(|(digest, size)| (*digest, *size))
                .collect(),
            record: record.clone(),
        };
        let now = self.clock.now();
        ingest::commit(&self.catalog, std::slice::from_ref(&package), &path, now)?;
        let committed = made.map(|(committed, _lease)| committed);
        Ok(Taken {
            records: vec![record],
            committed: committed.unwrap_or_default(),
        })
    }

    /// Stores what the layout does not have itself, if there is anything: a commit syncs every folder of the store.
    fn store_made(&self, listed: &Listed) -> Result<Option<(Committed, Lease)>, Error> {
        if listed.made.is_empty() {
            return Ok(None);
        }
        let mut batch = self.store.begin();
        for (digest, bytes) in &listed.made {
            let mut writer = batch.writer(Some(*digest), bytes.len() as u64)?;
            writer.write(bytes)?;
            batch.stage(writer)?;
        }
        Ok(Some(batch.commit()?))
    }

    /// Describes a layout as a package.
    fn record(&self, path: &Path, listed: &Listed) -> PackageRecord {
        let images: Vec<ImageRecord> = listed.images.iter().map(image_record).collect();
        let names: Vec<String> = images
            .iter()
            .map(|image| format!("{} {}\n", image.reference.encode(), image.digest))
            .collect();
        let file_name = path.file_name().unwrap_or_default();
        let file_name = file_name.to_string_lossy().into_owned();
        let blob_bytes = listed
            .blobs
            .values()
            .fold(0, |sum: u64, it| sum.saturating_add(*it));
        PackageRecord {
            // A layout is no file: it is known by what it holds.
            digest: Digest::of(names.concat().as_bytes()),
            size_bytes: blob_bytes,
            name: name_of(&file_name),
            file_name,
            version: None,
            kind: PackageKind::Images,
            platforms: Vec::new(),
            artifact: None,
            images,
            resources: Vec::new(),
            display_name: None,
            description: None,
            omitted: BTreeSet::new(),
            blob_count: listed.blobs.len() as u64,
            blob_bytes,
            blobs: listed
                .foreign
                .iter()
                .map(|digest| (*digest, listed.blobs[digest]))
                .collect(),
            carried_by: None,
            provenance: Provenance::Unchecked,
            ready_at: self.clock.now(),
        }
    }
}

fn image_record(image: &ListedImage) -> ImageRecord {
    ImageRecord {
        reference: image.reference.clone(),
        digest: image.descriptor.digest,
        media_type: image.descriptor.media_type.clone(),
        size_bytes: image.descriptor.size_bytes,
        content_bytes: image.content_bytes,
    }
}

/// A name for what a folder holds.
fn name_of(folder: &str) -> PackageName {
    folder
        .parse()
        .unwrap_or_else(|_| "layout".parse().expect("a literal that is a name"))
}
