//! What a target should hold: all ready packages that its filter lets through.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::base::oci::Descriptor;
use crate::base::{Digest, NamePattern, PackageName, Repository, Tag, Timestamp};
use crate::catalog::{PackageRecord, PackageSummary};

/// Where an image lives on a target. The host is the target's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Path below the host, as packaged.
    pub repository: Repository,
    /// The tag, or the digest of an image that is only known by it.
    pub reference: Reference,
}

/// By what an image is asked for in its repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// A tag: may point elsewhere tomorrow.
    Tag(Tag),
    /// A digest: always the same image.
    Digest(Digest),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reference {
            Reference::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            Reference::Digest(digest) => write!(f, "{}@{digest}", self.repository),
        }
    }
}

/// An image that a target should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedImage {
    /// Where.
    pub place: Place,
    /// Its outermost manifest.
    pub root: Descriptor,
    /// What packages of ours have brought to this place, this image included: what may be replaced there.
    pub ours: BTreeSet<Digest>,
    /// Manifests that its indexes name and that every package which brings it has left out.
    pub omitted: BTreeSet<Digest>,
}

/// A package that a target should hold.
#[derive(Clone, Debug)]
pub struct WantedPackage {
    /// The package.
    pub record: PackageRecord,
    /// Its images, as indexes into [`Wanted::images`].
    pub images: Vec<usize>,
}

/// What a target should hold.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The packages, in the order in which they became ready.
    pub packages: Vec<WantedPackage>,
    /// The images, by place; each place once.
    pub images: Vec<WantedImage>,
}

impl Wanted {
    /// Collects what `packages`, in the order in which they became ready, want together.
    ///
    /// Where two packages bring different images to one place, the later one wins, as it would if they had been pushed
    /// one after the other.
    pub fn collect(packages: Vec<PackageRecord>) -> Self {
        let mut places: BTreeMap<Place, WantedImage> = BTreeMap::new();
        for package in &packages {
            for image in &package.images {
                let place = place_of(image);
                let wanted = places.entry(place.clone()).or_insert_with(|| WantedImage {
                    place,
                    root: descriptor_of(image),
                    ours: BTreeSet::new(),
                    omitted: package.omitted.clone(),
                });
                if wanted.root.digest == image.digest {
                    // What one package leaves out another one may bring.
                    wanted.omitted.retain(|it| package.omitted.contains(it));
                } else {
                    wanted.omitted.clone_from(&package.omitted);
                }
                wanted.root = descriptor_of(image);
                wanted.ours.insert(image.digest);
            }
        }
        let index: BTreeMap<Place, usize> = places
            .keys()
            .enumerate()
            .map(|(index, place)| (place.clone(), index))
            .collect();
        let packages = packages
            .into_iter()
            .map(|record| {
                let images = record.images.iter().map(|image| index[&place_of(image)]);
                let images: BTreeSet<usize> = images.collect();
                WantedPackage {
                    images: images.into_iter().collect(),
                    record,
                }
            })
            .collect();
        Self {
            packages,
            images: places.into_values().collect(),
        }
    }
}

/// Returns the age of the oldest of the packages that are ready and `missing` on a target: the recovery point.
pub fn lag<'p>(
    missing: impl IntoIterator<Item = &'p PackageSummary>,
    now: Timestamp,
) -> Option<chrono::TimeDelta> {
    let ages = missing.into_iter().map(|package| now - package.ready_at);
    ages.max()
}

fn place_of(image: &crate::catalog::ImageRecord) -> Place {
    let reference = match (image.reference.digest(), image.reference.tag()) {
        (_, Some(tag)) => Reference::Tag(tag.clone()),
        (_, None) => Reference::Digest(image.digest),
    };
    Place {
        repository: image.reference.repository().clone(),
        reference,
    }
}

fn descriptor_of(image: &crate::catalog::ImageRecord) -> Descriptor {
    Descriptor {
        media_type: image.media_type.clone(),
        digest: image.digest,
        size_bytes: image.size_bytes,
    }
}

/// Whether a package is meant for a target, by its name.
#[derive(Clone, Debug)]
pub struct Filter(Vec<NamePattern>);

impl Filter {
    /// Returns a filter that lets through what fits one of the patterns.
    pub const fn new(patterns: Vec<NamePattern>) -> Self {
        Self(patterns)
    }

    /// Returns whether the package is meant for the target.
    pub fn matches(&self, name: &PackageName) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PackageKind;
    use crate::catalog::{ImageRecord, Provenance};

    /// A package with one image at `a/b:1` that leaves these out.
    fn package(image: &[u8], omitted: &[Digest]) -> PackageRecord {
        let (digest, size_bytes) = (Digest::of(image), image.len() as u64);
        PackageRecord {
            digest: Digest::of(b"file"),
            file_name: "x.tgz".to_owned(),
            size_bytes: 1,
            name: "x".parse().unwrap(),
            version: None,
            kind: PackageKind::Images,
            platforms: Vec::new(),
            artifact: None,
            images: vec![ImageRecord {
                reference: "registry.example/a/b:1".parse().unwrap(),
                digest,
                media_type: "x".to_owned(),
                size_bytes,
                content_bytes: size_bytes,
            }],
            resources: Vec::new(),
            display_name: None,
            description: None,
            omitted: omitted.iter().copied().collect(),
            blob_count: 1,
            blob_bytes: size_bytes,
            blobs: BTreeMap::new(),
            carried_by: None,
            provenance: Provenance::Unchecked,
            ready_at: "2026-11-21T10:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn what_one_package_leaves_out_another_one_may_bring() {
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let omitted = |packages: Vec<PackageRecord>| {
            let mut wanted = Wanted::collect(packages);
            assert_eq!(wanted.images.len(), 1);
            wanted.images.remove(0).omitted
        };
        let sparse = || package(b"image", &[one, two]);
        let whole = || package(b"image", &[]);
        let half = || package(b"image", &[two]);
        assert_eq!(omitted(vec![sparse()]), BTreeSet::from([one, two]));
        assert_eq!(omitted(vec![sparse(), half()]), BTreeSet::from([two]));
        assert!(omitted(vec![sparse(), whole()]).is_empty());
        assert!(omitted(vec![whole(), sparse()]).is_empty());
        // Another image at the same place starts anew.
        let newer = package(b"newer", &[one]);
        assert_eq!(omitted(vec![whole(), newer]), BTreeSet::from([one]));
    }
}
