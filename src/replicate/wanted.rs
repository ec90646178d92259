//! What a target should hold: all ready packages that its filter lets through.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use super::Foreign;
use crate::base::oci::Descriptor;
use crate::base::{Digest, NamePattern, PackageKind, PackageName, Repository, Tag, Timestamp};
use crate::catalog::{ImageRecord, PackageRecord, PackageSummary};

/// Where an image lives on a target. The host is the target's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Path below the host, as packaged.
    pub repository: Repository,
    /// The tag, or the digest of an image that is only known by it.
    pub reference: Reference,
}

/// By what an image is asked for in its repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// What other packages of ours have brought to this place: what may be replaced there.
    pub earlier: Vec<Digest>,
    /// Manifests that its indexes name and that every package which brings it has left out.
    pub omitted: BTreeSet<Digest>,
    /// Foreign layers that are to be there, besides what it needs: among them are those of its own whose content some package
    /// brings. Empty where they are left to their URLs. The images of a package share it.
    pub foreign: Arc<BTreeSet<Digest>>,
}

/// A package that a target should hold.
#[derive(Clone, Debug)]
pub struct WantedPackage {
    /// Digest of its file.
    pub digest: Digest,
    /// What it is for.
    pub kind: PackageKind,
    /// Its images, as indexes into [`Wanted::images`], each once.
    pub images: Box<[usize]>,
}

/// What a target should hold. Of packages only what planning needs is in memory: their records are read one after the other.
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
    /// one after the other. `foreign` says whether foreign layers are wanted, too.
    pub fn collect(packages: impl IntoIterator<Item = PackageRecord>, foreign: Foreign) -> Self {
        let mut wanted = Self::default();
        let mut places: HashMap<Place, usize> = HashMap::new();
        for package in packages {
            let images = package.images.iter();
            let carried = match foreign {
                Foreign::Push => package.blobs.keys().copied().collect(),
                Foreign::Skip => BTreeSet::new(),
            };
            let carried = Arc::new(carried);
            let brings = (&package.omitted, &carried);
            let images = images.map(|image| wanted.add(&mut places, image, brings));
            let images: BTreeSet<usize> = images.collect();
            wanted.packages.push(WantedPackage {
                digest: package.digest,
                kind: package.kind,
                images: images.into_iter().collect(),
            });
        }
        drop(places);
        // They stay for the whole run.
        wanted.images.shrink_to_fit();
        wanted.sort();
        wanted
    }

    /// Adds an image of a package that leaves these out, and brings these foreign layers. Returns its index.
    fn add(
        &mut self,
        places: &mut HashMap<Place, usize>,
        image: &ImageRecord,
        (omitted, foreign): (&BTreeSet<Digest>, &Arc<BTreeSet<Digest>>),
    ) -> usize {
        let place = place_of(image);
        let Some(index) = places.get(&place) else {
            let index = self.images.len();
            self.images.push(WantedImage {
                place: place.clone(),
                root: descriptor_of(image),
                earlier: Vec::new(),
                omitted: omitted.clone(),
                foreign: Arc::clone(foreign),
            });
            places.insert(place, index);
            return index;
        };
        let wanted = &mut self.images[*index];
        if wanted.root.digest == image.digest {
            // What one package leaves out another one may bring.
            wanted.omitted.retain(|it| omitted.contains(it));
            if !foreign.is_subset(&wanted.foreign) {
                Arc::make_mut(&mut wanted.foreign).extend(foreign.iter());
            }
        } else {
            let before = wanted.root.digest;
            wanted.earlier.retain(|it| *it != image.digest);
            wanted.earlier.push(before);
            wanted.omitted.clone_from(omitted);
            wanted.foreign = Arc::clone(foreign);
        }
        wanted.root = descriptor_of(image);
        *index
    }

    /// Orders the images by place.
    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.images.len()).collect();
        order
            .sort_unstable_by(|one, other| self.images[*one].place.cmp(&self.images[*other].place));
        let mut rank = vec![0; order.len()];
        for (at, index) in order.into_iter().enumerate() {
            rank[index] = at;
        }
        self.images
            .sort_unstable_by(|one, other| one.place.cmp(&other.place));
        for package in &mut self.packages {
            for image in &mut package.images {
                *image = rank[*image];
            }
            package.images.sort_unstable();
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

pub(super) fn place_of(image: &ImageRecord) -> Place {
    let reference = match (image.reference.digest(), image.reference.tag()) {
        (_, Some(tag)) => Reference::Tag(tag.clone()),
        (_, None) => Reference::Digest(image.digest),
    };
    Place {
        repository: image.reference.repository().clone(),
        reference,
    }
}

fn descriptor_of(image: &ImageRecord) -> Descriptor {
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::Provenance;

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
            let mut wanted = Wanted::collect(packages, Foreign::Skip);
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

    #[test]
    fn foreign_layers_are_wanted_that_some_package_brings_and_only_where_they_are_pushed() {
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let carries = |image: &[u8], layers: &[Digest]| {
            let mut package = package(image, &[]);
            package.blobs = layers.iter().map(|layer| (*layer, 1)).collect();
            package
        };
        let foreign = |packages: Vec<PackageRecord>, foreign| {
            let mut wanted = Wanted::collect(packages, foreign);
            let foreign = wanted.images.remove(0).foreign;
            Arc::unwrap_or_clone(foreign)
        };
        let both = || vec![carries(b"image", &[one]), carries(b"image", &[two])];
        assert_eq!(foreign(both(), Foreign::Push), BTreeSet::from([one, two]));
        assert!(foreign(both(), Foreign::Skip).is_empty());
        // Another image at the same place starts anew.
        let newer = vec![carries(b"image", &[one]), carries(b"newer", &[two])];
        assert_eq!(foreign(newer, Foreign::Push), BTreeSet::from([two]));
    }

    #[test]
    fn what_an_earlier_package_has_brought_to_a_place_may_be_replaced() {
        let images: [&[u8]; 4] = [b"one", b"two", b"three", b"two"];
        let wanted = Wanted::collect(images.map(|image| package(image, &[])), Foreign::Skip);
        assert_eq!(wanted.images[0].root.digest, Digest::of(b"two"));
        let earlier = [Digest::of(b"one"), Digest::of(b"three")];
        assert_eq!(wanted.images[0].earlier, earlier);
    }

    #[test]
    fn packages_know_their_images_whatever_the_order_of_places() {
        let mut several = package(b"image", &[]);
        let image = several.images.remove(0);
        for name in ["z/z:1", "a/b:1", "m/n:1", "a/b:1"] {
            let reference = format!("registry.example/{name}").parse().unwrap();
            several.images.push(ImageRecord {
                reference,
                ..image.clone()
            });
        }
        let wanted = Wanted::collect([several, package(b"image", &[])], Foreign::Skip);
        let places: Vec<String> = wanted
            .images
            .iter()
            .map(|it| it.place.to_string())
            .collect();
        assert_eq!(places, ["a/b:1", "m/n:1", "z/z:1"]);
        assert_eq!(*wanted.packages[0].images, [0, 1, 2]);
        assert_eq!(*wanted.packages[1].images, [0]);
    }
}
