//! Reading a package: one pass for the content, then the question whether it is whole.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;

use super::archive::{Archive, Budget, FileEntry};
use super::closure::{Closure, Found};
use super::header::show;
use super::images::{self, Image, MetadataFile, Root, RootName, Target};
use super::inflate::{self, Unpacked};
use super::layout::{self, Metadata, Role};
use super::manifest::{self, Manifest};
use super::{Error, Limits, Sink, UnpackError};
use crate::base::{Digest, Hasher, ImageReference, PackageKind, PackageName, Platform};

/// What a package holds. Independent of the order of its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The package manifest, if there is one.
    pub manifest: Option<Manifest>,
    /// What the manifest says; else plugin where there is a `ModulePlugin`, chart where the artifact is one, operator
    /// where any artifact is named, images otherwise.
    pub kind: PackageKind,
    /// What the manifest says; else the name of the `ModulePlugin`, else the last part of the artifact's repository
    /// without `-bundle`.
    pub name: Option<PackageName>,
    /// What the manifest says.
    pub version: Option<String>,
    /// The main image.
    pub artifact: Option<ImageReference>,
    /// All images, sorted by name.
    pub images: Vec<Image>,
    /// What the images run on, sorted; what the manifest says where there are no images.
    pub platforms: Vec<Platform>,
    /// Kubernetes documents, in the order of their files' paths, each once.
    pub resources: Vec<serde_json::Value>,
    /// Every manifest, configuration and layer that the images need, with its size in bytes. What else the package
    /// brought belongs to no image.
    pub blobs: BTreeMap<Digest, u64>,
    /// Name for people.
    pub display_name: Option<String>,
}

type Outcome<T, S> = Result<T, UnpackError<<S as Sink>::Error>>;

/// Reads a whole package: blobs go to `sink`, what it is comes back.
///
/// Inflating runs on a thread of its own; `input` is read to its end and dropped there. A failure may leave blobs in the
/// sink, of which nothing may be made.
pub fn unpack<R, S>(input: R, limits: &Limits, sink: &mut S) -> Outcome<Contents, S>
where
    R: Read + Send + 'static,
    S: Sink,
{
    let mut budget = Budget::new(limits);
    let mut receiver = Receiver {
        archive: Archive::new(inflate::open(input, limits)?, limits),
        limits,
        sink: &mut *sink,
        received: BTreeSet::new(),
        files: Vec::new(),
    };
    while let Some(file) = receiver.archive.next_file(&mut budget)? {
        receiver.receive(file, &mut budget)?;
    }
    let Receiver {
        received, files, ..
    } = receiver;
    finish(received.len() as u64, files, sink, limits, &mut budget)
}

/// The first half: files are sorted into blobs and metadata as they come.
struct Receiver<'a, R, S> {
    archive: Archive<Unpacked<R>>,
    limits: &'a Limits,
    sink: &'a mut S,
    received: BTreeSet<Digest>,
    files: Vec<MetadataFile>,
}

impl<R, S: Sink> Receiver<'_, R, S> {
    fn receive(&mut self, file: FileEntry, budget: &mut Budget) -> Outcome<(), S> {
        match layout::classify(&file.path)? {
            Role::Other => Ok(()),
            Role::Blob(digest) if self.received.contains(&digest) => {
                self.hash_again(&file, digest).map_err(UnpackError::Package)
            }
            Role::Blob(digest) => {
                self.receive_blob(&file, digest)?;
                self.received.insert(digest);
                Ok(())
            }
            Role::Metadata(kind) => {
                let limit_bytes = self.limits.metadata_bytes_max;
                if file.size_bytes > limit_bytes {
                    return Err(UnpackError::Package(Error::MetadataTooLarge {
                        entry: show(file.path.as_bytes()),
                        size_bytes: file.size_bytes,
                        limit_bytes,
                    }));
                }
                budget.charge(file.size_bytes)?;
                self.files.push(MetadataFile {
                    content: self.archive.content_to_vec(file.size_bytes)?,
                    path: file.path,
                    kind,
                });
                Ok(())
            }
        }
    }

    fn receive_blob(&mut self, file: &FileEntry, expected: Digest) -> Outcome<(), S> {
        self.sink
            .begin(Some(expected), file.size_bytes)
            .map_err(UnpackError::Sink)?;
        loop {
            let piece = self.archive.content()?;
            if piece.is_empty() {
                break;
            }
            self.sink.write(piece).map_err(UnpackError::Sink)?;
        }
        let found = self.sink.end().map_err(UnpackError::Sink)?;
        check_digest(file, expected, found).map_err(UnpackError::Package)
    }

    /// Checks another copy of a blob, from a second layout in the same package, without storing it again.
    fn hash_again(&mut self, file: &FileEntry, expected: Digest) -> Result<(), Error> {
        let mut hasher = Hasher::default();
        loop {
            let piece = self.archive.content()?;
            if piece.is_empty() {
                return check_digest(file, expected, hasher.finish());
            }
            hasher.update(piece);
        }
    }
}

fn check_digest(file: &FileEntry, expected: Digest, found: Digest) -> Result<(), Error> {
    if expected != found {
        return Err(Error::DigestMismatch {
            entry: show(file.path.as_bytes()),
            expected,
            found,
        });
    }
    Ok(())
}

/// The second half: everything was received, what does it amount to?
fn finish<S: Sink>(
    blob_count: u64,
    mut files: Vec<MetadataFile>,
    sink: &S,
    limits: &Limits,
    budget: &mut Budget,
) -> Outcome<Contents, S> {
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let manifest = find_manifest(&files)?;
    let resources = read_resources(&files)?;
    let roots = images::list_roots(&files, manifest.as_ref())?;
    let has_roots = !roots.is_empty();
    let (images, found) = follow_all(roots, Closure::new(sink, limits, budget))?;
    let kind = kind_of(manifest.as_ref(), &resources, &images, &found);
    if !has_roots {
        check_light(&files, blob_count, manifest.as_ref(), kind)?;
    } else if let Some(manifest) = &manifest {
        check_included(manifest, &images, &found)?;
    }
    let platforms = match &manifest {
        Some(manifest) if !has_roots => manifest.platforms.iter().cloned().collect(),
        Some(_) | None => found.platforms,
    };
    Ok(Contents {
        kind,
        name: name_of(manifest.as_ref(), &resources),
        version: manifest.as_ref().and_then(|it| it.version.clone()),
        artifact: manifest.as_ref().and_then(|it| it.artifact.clone()),
        display_name: manifest.as_ref().and_then(|it| it.display_name.clone()),
        manifest,
        images,
        platforms: platforms.into_iter().collect(),
        resources,
        blobs: found.blobs,
    })
}

/// Returns the package manifest. A `manifest.yaml` of another kind is some other file, but at the root it must be YAML.
fn find_manifest(files: &[MetadataFile]) -> Result<Option<Manifest>, Error> {
    let mut first: Option<&MetadataFile> = None;
    for file in files
        .iter()
        .filter(|file| file.kind == Metadata::PackageManifest)
    {
        let is_manifest = match manifest::is_package_manifest(&file.path, &file.content) {
            Err(_) if file.path.contains('/') => false,
            outcome => outcome?,
        };
        match first {
            Some(first) if is_manifest => {
                return Err(Error::SeveralManifests {
                    first: show(first.path.as_bytes()),
                    second: show(file.path.as_bytes()),
                });
            }
            None if is_manifest => first = Some(file),
            Some(_) | None => {}
        }
    }
    first
        .map(|file| Manifest::parse(&file.path, &file.content))
        .transpose()
}

fn read_resources(files: &[MetadataFile]) -> Result<Vec<serde_json::Value>, Error> {
    let mut resources = Vec::new();
    for file in files.iter().filter(|file| file.kind == Metadata::Resources) {
        for document in manifest::parse_resources(&file.path, &file.content)? {
            if !resources.contains(&document) {
                resources.push(document);
            }
        }
    }
    Ok(resources)
}

/// Follows every root. One without a name is fine where it is a part of another image.
fn follow_all<S: Sink>(
    roots: Vec<Root>,
    mut closure: Closure<'_, S>,
) -> Outcome<(Vec<Image>, Found), S> {
    let mut images = Vec::new();
    let mut nameless = Vec::new();
    for root in roots {
        let reference = match root.name {
            RootName::Known(reference) => reference,
            RootName::Unknown => {
                nameless.push((root.entry, root.target.digest()));
                continue;
            }
        };
        let descriptor = match root.target {
            Target::Descriptor(descriptor) => descriptor,
            Target::Digest(digest) => closure.describe(&reference, digest)?,
        };
        closure.follow(&reference, &descriptor)?;
        images.push(Image {
            reference,
            descriptor,
        });
    }
    for (entry, digest) in nameless {
        if !closure.has_followed(&digest) {
            return Err(UnpackError::Package(Error::UnnamedImage { entry, digest }));
        }
    }
    Ok((images::unify(images)?, closure.finish()))
}

/// Accepts a package without images if it was meant to have none.
fn check_light(
    files: &[MetadataFile],
    blob_count: u64,
    manifest: Option<&Manifest>,
    kind: PackageKind,
) -> Result<(), Error> {
    let docker_archive = files
        .iter()
        .find(|file| file.kind == Metadata::DockerArchive && is_docker_archive(&file.content));
    if let Some(file) = docker_archive {
        return Err(Error::UnsupportedLayout {
            entry: show(file.path.as_bytes()),
        });
    }
    if blob_count > 0 {
        return Err(Error::Unindexed { count: blob_count });
    }
    match kind {
        PackageKind::Operator | PackageKind::Plugin | PackageKind::Chart if manifest.is_some() => {
            Ok(())
        }
        PackageKind::Operator | PackageKind::Plugin | PackageKind::Chart | PackageKind::Images => {
            Err(Error::Empty)
        }
    }
}

/// Returns whether `content` is the list of a docker-archive: `[{"Config": ..., "Layers": [...]}]`.
fn is_docker_archive(content: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(content)
        .is_ok_and(|value| value[0]["Config"].is_string() && value[0]["Layers"].is_array())
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

/// Returns the image that `wanted` means.
fn find_image<'i>(wanted: &ImageReference, images: &'i [Image]) -> Option<&'i Image> {
    images.iter().find(|image| {
        let digest = image.descriptor.digest;
        match wanted.digest() {
            Some(wanted) => *wanted == digest,
            None => {
                image.reference.repository() == wanted.repository()
                    && image.reference.tag() == wanted.tag()
            }
        }
    })
}

fn kind_of(
    manifest: Option<&Manifest>,
    resources: &[serde_json::Value],
    images: &[Image],
    found: &Found,
) -> PackageKind {
    if let Some(kind) = manifest.and_then(|manifest| manifest.kind) {
        return kind;
    }
    if find_plugin(resources).is_some() {
        return PackageKind::Plugin;
    }
    match manifest.and_then(|manifest| manifest.artifact.as_ref()) {
        Some(artifact) => {
            let image = find_image(artifact, images);
            let is_chart =
                image.is_some_and(|image| found.charts.contains(&image.descriptor.digest));
            if is_chart {
                PackageKind::Chart
            } else {
                PackageKind::Operator
            }
        }
        None => PackageKind::Images,
    }
}

fn name_of(manifest: Option<&Manifest>, resources: &[serde_json::Value]) -> Option<PackageName> {
    if let Some(name) = manifest.and_then(|manifest| manifest.name.clone()) {
        return Some(name);
    }
    if let Some(name) = find_plugin(resources).and_then(|it| it["metadata"]["name"].as_str()) {
        return name.parse().ok();
    }
    let artifact = manifest?.artifact.as_ref()?;
    let last = layout::file_name_of(artifact.repository().as_str());
    last.strip_suffix("-bundle").unwrap_or(last).parse().ok()
}

fn find_plugin(resources: &[serde_json::Value]) -> Option<&serde_json::Value> {
    resources
        .iter()
        .find(|document| document["kind"] == "ModulePlugin")
}
