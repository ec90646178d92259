//! Where a lost blob may be on a registry: in the repositories of the images that consist of it.

use std::collections::{BTreeMap, BTreeSet};

use super::Losses;
use crate::base::oci::{MANIFEST_BYTES_MAX, Manifest};
use crate::base::{Digest, Repository};
use crate::catalog::PackageRecord;
use crate::store::Store;

/// How many repositories are asked for a blob of which nobody knows where it belongs, because a manifest above it is lost
/// too. Chosen, not measured.
const GUESSES_MAX: usize = 64;

/// As what a registry hands out content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// As a manifest or index.
    Manifest,
    /// As a configuration or layer.
    Blob,
}

/// Where content may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Path below the host of a registry, as packaged.
    pub repository: Repository,
    /// As what.
    pub part: Part,
}

/// Where one blob may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidates {
    /// The places, in the order in which they are asked.
    pub(super) places: Vec<Place>,
    /// Whether a manifest says so.
    pub(super) certainty: Certainty,
}

/// How much is known of where a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// A manifest names it.
    Known,
    /// It may be something else, and elsewhere. What a registry answers then says nothing of the registry:
    /// docker-registry 2.8 has an internal error where a layer is asked for as a manifest.
    Guessed,
}

/// Returns where each of `missing` may be, manifests first, since what is below them is known once they are back.
///
/// Blobs of images all of whose manifests can be read are where these say. For the others, every repository of an image is
/// a guess whose manifests cannot all be read.
pub(super) fn collect(
    store: &Store,
    lost: &Losses,
    missing: &BTreeSet<Digest>,
) -> Vec<(Digest, Candidates)> {
    let mut packages: BTreeMap<Digest, &PackageRecord> = BTreeMap::new();
    for digest in missing {
        let concerned = lost[digest].packages.iter();
        packages.extend(concerned.map(|package| (package.digest, package.as_ref())));
    }
    let mut known: BTreeMap<Digest, BTreeSet<Place>> = BTreeMap::new();
    let mut guesses: BTreeMap<Digest, BTreeSet<Repository>> = BTreeMap::new();
    for package in packages.values() {
        let mut seen: BTreeMap<&Repository, BTreeSet<Digest>> = BTreeMap::new();
        for image in &package.images {
            let repository = image.reference.repository();
            let mut walk = Walk {
                store,
                missing,
                repository,
                seen: seen.entry(repository).or_default(),
                known: &mut known,
                is_whole: true,
            };
            walk.visit(image.digest, &package.omitted);
            if !walk.is_whole {
                let repositories = guesses.entry(package.digest).or_default();
                repositories.insert(repository.clone());
            }
        }
    }
    let mut candidates: Vec<(Digest, Candidates)> = missing
        .iter()
        .map(|digest| {
            let candidates = match known.remove(digest) {
                Some(places) => Candidates {
                    places: places.into_iter().collect(),
                    certainty: Certainty::Known,
                },
                None => Candidates {
                    places: guess(&lost[digest].packages, &guesses),
                    certainty: Certainty::Guessed,
                },
            };
            (*digest, candidates)
        })
        .collect();
    candidates.sort_by_key(|(_, candidates)| {
        let is_manifest = |place: &Place| place.part == Part::Manifest;
        !candidates.places.first().is_some_and(is_manifest)
    });
    candidates
}

/// Returns the places at which a blob may be that no readable manifest names.
fn guess(
    packages: &[std::sync::Arc<PackageRecord>],
    guesses: &BTreeMap<Digest, BTreeSet<Repository>>,
) -> Vec<Place> {
    let repositories: BTreeSet<&Repository> = packages
        .iter()
        .filter_map(|package| guesses.get(&package.digest))
        .flatten()
        .collect();
    // Most of what is lost is no manifest.
    [Part::Blob, Part::Manifest]
        .into_iter()
        .flat_map(|part| {
            let repositories = repositories.iter().take(GUESSES_MAX);
            repositories.map(move |repository| Place {
                repository: (*repository).clone(),
                part,
            })
        })
        .collect()
}

/// A walk over the manifests of an image.
struct Walk<'a> {
    store: &'a Store,
    missing: &'a BTreeSet<Digest>,
    repository: &'a Repository,
    /// Manifests of this repository that were read already.
    seen: &'a mut BTreeSet<Digest>,
    known: &'a mut BTreeMap<Digest, BTreeSet<Place>>,
    /// Whether every manifest could be read.
    is_whole: bool,
}

impl Walk<'_> {
    fn visit(&mut self, root: Digest, omitted: &BTreeSet<Digest>) {
        let mut coming = vec![root];
        while let Some(digest) = coming.pop() {
            self.note(digest, Part::Manifest);
            // One that could not be read is looked at again: each image that it belongs to is incomplete.
            if omitted.contains(&digest) || self.seen.contains(&digest) {
                continue;
            }
            let content = self.store.read(&digest, MANIFEST_BYTES_MAX).ok();
            let manifest = content.and_then(|bytes| Manifest::parse(&bytes).ok());
            let Some((manifest, _)) = manifest else {
                self.is_whole = false;
                continue;
            };
            self.seen.insert(digest);
            coming.extend(manifest.children().map(|child| child.digest));
            for blob in manifest.blobs().chain(manifest.foreign_layers()) {
                self.note(blob.digest, Part::Blob);
            }
        }
    }

    fn note(&mut self, digest: Digest, part: Part) {
        if self.missing.contains(&digest) {
            let places = self.known.entry(digest).or_default();
            places.insert(Place {
                repository: self.repository.clone(),
                part,
            });
        }
    }
}
