//! Makes a large store of tiny blobs for `benches/scale`: `scale-store STATE_DIR PACKAGES`.
//!
//! Each package has five images of one manifest, one configuration and eight layers of its own, which are fifty blobs, and
//! two layers more in each image that belong to the package before. All are what they say they are: digests match, and
//! manifests name what is there. Blobs are written in the layout of the store and not synced; packages go through the
//! catalog, many at a time.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use violetd::base::oci::{Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST};
use violetd::base::{Digest, PackageKind, Timestamp};
use violetd::catalog::{
    Catalog, Content, ImageRecord, IngestRecord, IngestState, NewPackage, PackageRecord,
    Provenance, TargetRecord,
};
use violetd::store::Store;

const MEDIA_TYPE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Images of a package, and layers of an image that are in no other.
const IMAGES: usize = 5;
const OWN_LAYERS: usize = 8;
/// Layers of an image that are those of the package before.
const SHARED_LAYERS: usize = 2;
/// Versions of each package name.
const VERSIONS: usize = 20;
/// The target of `harness.py`, which holds every package.
const TARGET: &str = "bench";
/// Packages of one write to the catalog. One batch of two hundred is some ten MB of rows.
const BATCH: usize = 200;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "expected STATE_DIR PACKAGES";
    let state_dir = PathBuf::from(arguments.next().context(usage)?);
    let count: usize = arguments.next().context(usage)?.parse()?;
    // Makes the folders and says the format.
    drop(Store::open(&state_dir)?);
    let catalog = Catalog::open(&state_dir)?;
    let mut packages = Vec::with_capacity(BATCH);
    let mut target = TargetRecord::new(TARGET.parse()?);
    for number in 0..count {
        let package = make(&state_dir, number)?;
        target.synced_packages.push(package.record.digest);
        packages.push(package);
        if packages.len() == BATCH || number + 1 == count {
            catalog.commit_packages(&packages, &ingest_record(number))?;
            packages.clear();
        }
    }
    catalog.put_target(&target)?;
    Ok(())
}

/// Writes the blobs of a package and returns its record.
fn make(state_dir: &Path, number: usize) -> Result<NewPackage> {
    let (name, version) = (number / VERSIONS, number % VERSIONS);
    let mut content: Vec<(Digest, u64)> = Vec::new();
    let mut images = Vec::new();
    for image in 0..IMAGES {
        let own = (0..OWN_LAYERS).map(|layer| layer_text(number, image, layer));
        let before = number.saturating_sub(1);
        let shared = (0..SHARED_LAYERS).map(|layer| layer_text(before, image, layer));
        let mut layers = Vec::new();
        for text in own.chain(shared) {
            layers.push(put(state_dir, MEDIA_TYPE_LAYER, &text)?);
        }
        let config = serde_json::json!({
            "os": "linux", "architecture": "amd64", "config": {"Labels": {"own": format!("{number}/{image}")}},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let config = put(state_dir, MEDIA_TYPE_CONFIG, &config.to_string())?;
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": config, "layers": layers,
        });
        let manifest = put(state_dir, MEDIA_TYPE_MANIFEST, &manifest.to_string())?;
        let parts = layers.iter().chain([&config, &manifest]);
        let parts: Vec<(Digest, u64)> = parts.map(|part| (part.digest, part.size_bytes)).collect();
        images.push(ImageRecord {
            reference: format!("registry.example/scale/app-{name}-{image}:v1.{version}.0")
                .parse()?,
            digest: manifest.digest,
            media_type: MEDIA_TYPE_MANIFEST.to_owned(),
            size_bytes: manifest.size_bytes,
            content_bytes: parts.iter().map(|(_, size_bytes)| size_bytes).sum(),
        });
        content.extend(parts);
    }
    let content: Content = content.into_iter().collect();
    let file_name = format!("scale-{name}.v1.{version}.0.tgz");
    let record = PackageRecord {
        digest: Digest::of(file_name.as_bytes()),
        file_name,
        size_bytes: content.size_bytes(),
        name: format!("scale-{name}").parse()?,
        version: Some(format!("v1.{version}.0")),
        kind: PackageKind::Images,
        platforms: Vec::new(),
        artifact: None,
        images,
        resources: Vec::new(),
        display_name: None,
        description: None,
        omitted: std::collections::BTreeSet::new(),
        blob_count: content.entries().len() as u64,
        blob_bytes: content.size_bytes(),
        blobs: std::collections::BTreeMap::new(),
        carried_by: None,
        provenance: Provenance::Unchecked,
        ready_at: Timestamp::UNIX_EPOCH,
    };
    Ok(NewPackage { record, content })
}

fn layer_text(package: usize, image: usize, layer: usize) -> String {
    format!("layer {layer} of image {image} of package {package}")
}

/// Writes a blob unless it is there, and returns the pointer to it.
fn put(state_dir: &Path, media_type: &str, text: &str) -> Result<Descriptor> {
    let descriptor = Descriptor::of(media_type, text.as_bytes());
    let hex = descriptor.digest.hex();
    let path = state_dir.join("blobs/sha256").join(&hex[..2]).join(&hex);
    match File::create_new(&path) {
        Ok(mut file) => file.write_all(text.as_bytes())?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(error).with_context(|| format!("failed to create {}", path.display()));
        }
    }
    Ok(descriptor)
}

/// Returns the record of the file that has brought a batch of packages.
fn ingest_record(number: usize) -> IngestRecord {
    IngestRecord {
        path: format!("/drop/scale-{number}.tar"),
        size_bytes: 0,
        modified_at: Timestamp::UNIX_EPOCH,
        digest: None,
        state: IngestState::Unpacked,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}
