//! Which images a package holds, and what they are called.
//!
//! An OCI layout names its images in `index.json`: in full by containerd's annotation, or by the OCI one, which may hold
//! a bare tag. A registry tree names them by path. What lacks a host or a repository is looked up in the package
//! manifest, which names all images in full. What has no name at all may be a part of an image or a referrer of one; the
//! module `referrers` finds that out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use super::header::show;
use super::layout::{Metadata, file_name_of, folder_of};
use super::manifest::Manifest;
use super::{Error, Limits};
use crate::base::oci::{Descriptor, IndexEntry, Manifest as OciManifest};
use crate::base::{Digest, ImageReference, Repository, Tag};

/// An image of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its name as packaged; without a host where the package gives none.
    pub reference: ImageReference,
    /// Its manifest or index.
    pub descriptor: Descriptor,
}

/// A metadata file of the archive.
#[derive(Debug)]
pub(super) struct MetadataFile {
    pub(super) path: String,
    pub(super) kind: Metadata,
    pub(super) content: Vec<u8>,
}

/// A root of the image graph, before anything of it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// The file that names it.
    pub(super) entry: String,
    pub(super) name: RootName,
    pub(super) target: Target,
}

/// What a root is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RootName {
    /// Its name.
    Known(ImageReference),
    /// None: a child of another image, a referrer of one, or a fault of the package.
    Unknown,
    /// None, and none needed: a revision of a registry tree, which keeps those that no tag points to any more.
    Revision,
}

/// What a root points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// An entry of an index, which says what it is.
    Descriptor(Descriptor),
    /// A tag, which says the digest only.
    Digest(Digest),
}

impl Target {
    pub(super) const fn digest(&self) -> Digest {
        match self {
            Self::Descriptor(descriptor) => descriptor.digest,
            Self::Digest(digest) => *digest,
        }
    }
}

/// The images that a package manifest names, by what a layout may know of them.
///
/// Where several images share a key, it stands for none of them: no name is better than a wrong one.
#[derive(Debug, Default)]
struct Names<'m> {
    pinned: HashMap<Digest, &'m ImageReference>,
    tags: HashMap<&'m Tag, Option<&'m ImageReference>>,
    ends: HashMap<(&'m Tag, &'m str), Option<&'m ImageReference>>,
    /// With the repository as the manifest has it, and with the host in front.
    paths: HashMap<(&'m Tag, String), Option<&'m ImageReference>>,
}

impl<'m> Names<'m> {
    fn new(manifest: Option<&'m Manifest>) -> Self {
        let mut names = Self::default();
        for image in manifest.into_iter().flat_map(Manifest::images) {
            let repository = image.repository().as_str();
            if let Some(digest) = image.digest() {
                names.pinned.entry(*digest).or_insert(image);
            } else if let Some(tag) = image.tag() {
                let hosted = format!("{}/{repository}", image.registry());
                note(&mut names.tags, tag, image);
                let last = file_name_of(repository);
                note(&mut names.ends, (tag, last), image);
                note(&mut names.paths, (tag, repository.to_owned()), image);
                note(&mut names.paths, (tag, hosted), image);
            }
        }
        names
    }

    /// Returns the image with this tag, of several the one whose repository ends like the folder.
    fn find_by_tag(&self, tag: &Tag, folder: &str) -> Option<ImageReference> {
        let image = match self.tags.get(tag)? {
            Some(image) => image,
            None => (*self.ends.get(&(tag, folder))?)?,
        };
        Some(image.clone())
    }
}

fn note<'m, K: Eq + Hash>(
    map: &mut HashMap<K, Option<&'m ImageReference>>,
    key: K,
    image: &'m ImageReference,
) {
    map.entry(key)
        .and_modify(|known| *known = known.filter(|known| *known == image))
        .or_insert(Some(image));
}

/// Returns the roots in all layouts of the package, in the order of their files' paths.
///
/// `files` are sorted by path.
pub(super) fn list_roots(
    files: &[MetadataFile],
    manifest: Option<&Manifest>,
    limits: &Limits,
) -> Result<Vec<Root>, Error> {
    let names = Names::new(manifest);
    let layouts = check_layouts(files)?;
    let mut roots = Vec::new();
    for file in files {
        match &file.kind {
            Metadata::LayoutIndex if layouts.contains(folder_of(&file.path)) => {
                read_index(file, &names, &mut roots)?;
            }
            Metadata::TagLink { repository, tag } => {
                roots.push(read_link(file, repository, tag, &names)?);
            }
            Metadata::RevisionLink { digest } => roots.push(read_revision(file, *digest)?),
            // An `index.json` without the mark of a layout is some other file.
            Metadata::LayoutMark
            | Metadata::LayoutIndex
            | Metadata::DockerArchive
            | Metadata::PackageManifest
            | Metadata::Resources => {}
        }
        check_count(&roots, limits)?;
    }
    Ok(roots)
}

/// Refuses more images than a package may have. Asked while roots are listed, because one takes more memory than what names
/// it.
pub(super) fn check_count(roots: &[Root], limits: &Limits) -> Result<(), Error> {
    let found = roots.len() as u64;
    let limit = limits.images_max;
    if found > limit {
        return Err(Error::TooManyImages { limit, found });
    }
    Ok(())
}

/// Returns the folders that are OCI layouts; refuses those of another version and those without an index.
fn check_layouts(files: &[MetadataFile]) -> Result<BTreeSet<&str>, Error> {
    let folders_with = |kind: &Metadata| -> BTreeSet<&str> {
        files
            .iter()
            .filter(|file| file.kind == *kind)
            .map(|file| folder_of(&file.path))
            .collect()
    };
    for mark in files
        .iter()
        .filter(|file| file.kind == Metadata::LayoutMark)
    {
        let version = serde_json::from_slice::<serde_json::Value>(&mark.content)
            .ok()
            .and_then(|value| Some(value["imageLayoutVersion"].as_str()?.to_owned()));
        if !version.is_some_and(|version| version.starts_with("1.")) {
            return Err(Error::LayoutVersion {
                entry: show(mark.path.as_bytes()),
            });
        }
    }
    let layouts = folders_with(&Metadata::LayoutMark);
    if let Some(folder) = layouts
        .difference(&folders_with(&Metadata::LayoutIndex))
        .next()
    {
        return Err(Error::IndexAbsent {
            folder: show(folder.as_bytes()),
        });
    }
    Ok(layouts)
}

fn read_index(file: &MetadataFile, names: &Names<'_>, roots: &mut Vec<Root>) -> Result<(), Error> {
    let entry = show(file.path.as_bytes());
    let index = OciManifest::parse(&file.content).and_then(|(index, _)| match index {
        OciManifest::Index { entries, .. } => Ok(entries),
        OciManifest::Image { .. } => Err(crate::base::oci::ParseManifestError::Shape),
    });
    let entries = index.map_err(|source| Error::IndexInvalid {
        entry: entry.clone(),
        source,
    })?;
    for item in entries {
        let name = name_entry(file, &item, names)?;
        roots.push(Root {
            entry: entry.clone(),
            name: name.map_or(RootName::Unknown, RootName::Known),
            target: Target::Descriptor(item.descriptor),
        });
    }
    Ok(())
}

/// Returns the name of an index entry: what it says, completed by the package manifest, else by the layout's folder.
fn name_entry(
    file: &MetadataFile,
    item: &IndexEntry,
    names: &Names<'_>,
) -> Result<Option<ImageReference>, Error> {
    let wrong = |name: &str, source| Error::ImageName {
        entry: show(file.path.as_bytes()),
        name: show(name.as_bytes()),
        source,
    };
    let pinned = names.pinned.get(&item.descriptor.digest).copied().cloned();
    let Some(name) = &item.name else {
        return Ok(pinned);
    };
    if name.contains(['/', ':', '@']) {
        let parsed = name.parse().map_err(|source| wrong(name, source));
        return parsed.map(Some);
    }
    let tag: Tag = name.parse().map_err(|source| wrong(name, source))?;
    let folder = file_name_of(folder_of(&file.path));
    if let Some(image) = pinned.or_else(|| names.find_by_tag(&tag, folder)) {
        return Ok(Some(image));
    }
    let repository = folder.parse::<Repository>().ok();
    Ok(
        repository
            .map(|repository| ImageReference::new(String::new(), repository, Some(tag), None)),
    )
}

fn read_link(
    file: &MetadataFile,
    repository: &Repository,
    tag: &Tag,
    names: &Names<'_>,
) -> Result<Root, Error> {
    let entry = show(file.path.as_bytes());
    let digest = linked_digest(file).ok_or_else(|| Error::TagLink {
        entry: entry.clone(),
    })?;
    let known = names
        .paths
        .get(&(tag, repository.as_str().to_owned()))
        .copied()
        .flatten();
    let name = known.cloned().unwrap_or_else(|| {
        ImageReference::new(String::new(), repository.clone(), Some(tag.clone()), None)
    });
    Ok(Root {
        entry,
        name: RootName::Known(name),
        target: Target::Digest(digest),
    })
}

fn read_revision(file: &MetadataFile, digest: Digest) -> Result<Root, Error> {
    let entry = show(file.path.as_bytes());
    if linked_digest(file) != Some(digest) {
        return Err(Error::RevisionLink { entry });
    }
    Ok(Root {
        entry,
        name: RootName::Revision,
        target: Target::Digest(digest),
    })
}

/// Returns what a link of a registry tree points to.
fn linked_digest(file: &MetadataFile) -> Option<Digest> {
    let text = std::str::from_utf8(&file.content).ok()?;
    text.trim_end().parse().ok()
}

/// Returns the images sorted by name, each once, and refuses names that stand for two images or pin another digest.
///
/// Names that differ only by their host stand for one place on a target, which replaces the host.
pub(super) fn unify(images: Vec<Image>) -> Result<Vec<Image>, Error> {
    let mut by_name: BTreeMap<ImageReference, Image> = BTreeMap::new();
    let mut by_place: HashMap<(Repository, Tag), Digest> = HashMap::new();
    for image in images {
        let found = image.descriptor.digest;
        if image
            .reference
            .digest()
            .is_some_and(|digest| *digest != found)
        {
            return Err(Error::PinnedDigest {
                image: Box::new(image.reference),
                found,
            });
        }
        if let Some(tag) = image.reference.tag() {
            let place = (image.reference.repository().clone(), tag.clone());
            let first = *by_place.entry(place).or_insert(found);
            if first != found {
                return Err(Error::ConflictingImages {
                    image: Box::new(image.reference),
                    first,
                    second: found,
                });
            }
        }
        by_name.entry(image.reference.clone()).or_insert(image);
    }
    Ok(by_name.into_values().collect())
}
