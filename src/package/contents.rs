//! What a package holds, put together from everything that was received: its images, followed to their last layer, its
//! documents, and what it is.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::archive::Budget;
use super::closure::{Closure, Found};
use super::describe::{self, Error as DescribeError, Subject};
use super::identity::{self, Sources};
use super::images::{Image, MetadataFile, Root};
use super::layout::Metadata;
use super::unpack_error::Outcome;
use super::{Error, Limits, Manifest, Sink, UnpackError, manifest, referrers};
use crate::base::{Description, Digest, ImageReference, PackageKind, PackageName, Platform};

/// What a package holds. Independent of the order of its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The package manifest, if there is one.
    pub manifest: Option<Manifest>,
    /// What the manifest says; else plugin where there is a `ModulePlugin`, chart where the artifact is one, operator
    /// where there is any artifact, images otherwise.
    pub kind: PackageKind,
    /// What the manifest says; else the name of the `ModulePlugin`, else that of the operator's package or of the chart,
    /// else the last part of the artifact's repository without `-bundle`.
    pub name: Option<PackageName>,
    /// What the manifest says, else the main image.
    pub version: Option<String>,
    /// The main image: what the manifest says, else the only operator bundle or chart.
    pub artifact: Option<ImageReference>,
    /// All images, sorted by name.
    pub images: Vec<Image>,
    /// What the images run on, sorted; what the manifest says where there are no images.
    pub platforms: Vec<Platform>,
    /// Kubernetes documents, in the order of their files' paths, each once; then the `ModulePlugin` of the main chart, where
    /// there is no other.
    pub resources: Vec<serde_json::Value>,
    /// Every manifest, configuration and layer that the images need, with its size in bytes, and the foreign layers that
    /// came with it. What else the package brought belongs to no image.
    pub blobs: BTreeMap<Digest, u64>,
    /// Which of the blobs are foreign layers.
    pub foreign: BTreeSet<Digest>,
    /// Name for people: what the manifest says, else the `ModulePlugin`, else the main image.
    pub display_name: Option<String>,
    /// What its main image or chart says of itself.
    pub description: Option<Description>,
    /// Why the main image cannot be described, or what is missing from its description. No fault of the images.
    pub description_problem: Option<DescribeError>,
    /// Manifests that its indexes name and that were left out on purpose.
    pub omitted: BTreeSet<Digest>,
}

/// What a value of a document costs in memory beyond its text, which was counted when it was read: itself and, in an object,
/// the header of its key. `[0,0,0]` has sixteen times the size of its text.
const VALUE_BYTES: u64 = 64;

/// What a package is made of.
#[derive(Default)]
pub(super) struct Parts {
    /// Blobs that came under their digest.
    pub(super) received: BTreeSet<Digest>,
    /// Sorted by path.
    pub(super) files: Vec<MetadataFile>,
    pub(super) manifest: Option<Manifest>,
    pub(super) roots: Vec<Root>,
}

/// Follows the images of a package and says what it is.
pub(super) fn finish<S: Sink>(
    parts: Parts,
    sink: &S,
    limits: &Limits,
    budget: &mut Budget,
) -> Outcome<Contents, S> {
    let Parts {
        received,
        files,
        manifest,
        roots,
    } = parts;
    let mut resources = read_resources(&files, limits, budget)?;
    check_supplement(manifest.as_ref(), &roots)?;
    let closure = Closure::new(sink, limits, budget, manifest.as_ref());
    let (images, mut found) = referrers::follow_all(roots, closure)?;
    let has_images = !images.is_empty();
    let subject = Subject {
        manifest: manifest.as_ref(),
        resources: &resources,
        images: &images,
        blobs: &found.blobs,
    };
    let mut described = describe::describe(&subject, sink, limits)?;
    if identity::find_plugin(&resources).is_none() {
        resources.append(&mut described.plugins);
    }
    let sources = Sources {
        manifest: manifest.as_ref(),
        resources: &resources,
        described: &described,
        found: &found,
    };
    let identity = sources.identify();
    if identity.kind == PackageKind::Supplement {
        found.blobs = list_received(&received, sink)?;
    } else if !has_images {
        check_light(received.len() as u64, manifest.as_ref(), identity.kind)?;
    } else if let Some(manifest) = &manifest {
        check_included(manifest, &images, &found)?;
    }
    let platforms = match &manifest {
        Some(manifest) if !has_images => manifest.platforms.iter().cloned().collect(),
        Some(_) | None => found.platforms,
    };
    Ok(Contents {
        kind: identity.kind,
        name: identity.name,
        version: identity.version,
        artifact: identity.artifact,
        display_name: identity.display_name,
        description: described.description,
        description_problem: described.problem,
        omitted: found.omitted,
        manifest,
        images,
        platforms: platforms.into_iter().collect(),
        resources,
        blobs: found.blobs,
        foreign: found.foreign,
    })
}

fn read_resources(
    files: &[MetadataFile],
    limits: &Limits,
    budget: &mut Budget,
) -> Result<Vec<serde_json::Value>, Error> {
    let mut resources = Vec::new();
    let mut seen = HashSet::new();
    for file in files.iter().filter(|file| file.kind == Metadata::Resources) {
        for document in manifest::parse_resources(&file.path, &file.content)? {
            budget.charge(count_values(&document) * VALUE_BYTES)?;
            // Keys are sorted, so equal documents have equal texts.
            if seen.insert(Digest::of(document.to_string().as_bytes())) {
                resources.push(document);
            }
            // Here and not at the end, because each document is compared with all before it.
            if resources.len() as u64 > limits.resources_max {
                return Err(Error::TooManyResources {
                    limit: limits.resources_max,
                });
            }
        }
    }
    Ok(resources)
}

/// Returns how many values a document consists of. The parser bounds how deep they nest.
fn count_values(value: &serde_json::Value) -> u64 {
    match value {
        serde_json::Value::Array(values) => 1 + values.iter().map(count_values).sum::<u64>(),
        serde_json::Value::Object(values) => 1 + values.values().map(count_values).sum::<u64>(),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => 1,
    }
}

/// A supplement brings blobs that others wait for, and no images of its own.
fn check_supplement(manifest: Option<&Manifest>, roots: &[Root]) -> Result<(), Error> {
    let is_supplement = manifest.is_some_and(|it| it.kind == Some(PackageKind::Supplement));
    match roots.first() {
        Some(root) if is_supplement => Err(Error::SupplementImages {
            entry: root.entry.clone(),
            digest: root.target.digest(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Returns every blob that was received, which is what a supplement is there for.
fn list_received<S: Sink>(
    received: &BTreeSet<Digest>,
    sink: &S,
) -> Outcome<BTreeMap<Digest, u64>, S> {
    let mut blobs = BTreeMap::new();
    for digest in received {
        if let Some(size_bytes) = sink.find(digest).map_err(UnpackError::Sink)? {
            blobs.insert(*digest, size_bytes);
        }
    }
    if blobs.is_empty() {
        return Err(UnpackError::Package(Error::Empty));
    }
    Ok(blobs)
}

/// Accepts a package without images if it was meant to have none.
fn check_light(
    blob_count: u64,
    manifest: Option<&Manifest>,
    kind: PackageKind,
) -> Result<(), Error> {
    if blob_count > 0 {
        return Err(Error::Unindexed { count: blob_count });
    }
    match kind {
        PackageKind::Operator | PackageKind::Plugin | PackageKind::Chart if manifest.is_some() => {
            Ok(())
        }
        PackageKind::Operator
        | PackageKind::Plugin
        | PackageKind::Chart
        | PackageKind::Images
        | PackageKind::Supplement => Err(Error::Empty),
    }
}

/// Every image that the manifest names must be there: under the same repository and tag, or with the pinned digest. The
/// host plays no part: it is replaced on the way to a target.
fn check_included(manifest: &Manifest, images: &[Image], found: &Found) -> Result<(), Error> {
    let names: HashSet<_> = images
        .iter()
        .map(|image| (image.reference.repository(), image.reference.tag()))
        .collect();
    for wanted in manifest.images() {
        let is_included = match wanted.digest() {
            Some(digest) => found.manifests.contains(digest),
            None => names.contains(&(wanted.repository(), wanted.tag())),
        };
        if !is_included {
            return Err(Error::ImageNotIncluded {
                image: Box::new(wanted.clone()),
            });
        }
    }
    Ok(())
}
