//! What a target should hold: all ready packages that its filter lets through.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::base::oci::Descriptor;
use crate::base::{Digest, NamePattern, PackageName, Repository, Tag, Timestamp};
use crate::catalog::PackageRecord;

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
        for image in packages.iter().flat_map(|package| &package.images) {
            let place = place_of(image);
            let wanted = places.entry(place.clone()).or_insert_with(|| WantedImage {
                place,
                root: descriptor_of(image),
                ours: BTreeSet::new(),
            });
            wanted.root = descriptor_of(image);
            wanted.ours.insert(image.digest);
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

/// Returns the age of the oldest package that is ready and not in sync: the recovery point.
pub fn lag(
    packages: &[PackageRecord],
    synced: &[Digest],
    now: Timestamp,
) -> Option<chrono::TimeDelta> {
    packages
        .iter()
        .filter(|package| !synced.contains(&package.digest))
        .map(|package| now - package.ready_at)
        .max()
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
