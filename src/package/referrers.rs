//! Images that have no name of their own: parts of other images, and what is about them.
//!
//! Signatures, attestations and bills of materials may be manifests with a `subject`: referrers. They have no tag, so
//! nothing in a layout or a registry tree names them. One whose subject is a manifest of the package becomes the image
//! `<repository>@<digest>` in every repository that holds its subject, and so does what is about a referrer in turn.
//!
//! # References
//!
//! OCI image-spec v1.1.0 `manifest.md` (`subject`); OCI distribution-spec v1.1.0, "Listing Referrers".

use std::collections::{BTreeMap, BTreeSet};

use super::closure::{Closure, Found};
use super::images::{self, Image, Root, RootName, Target};
use super::sink::Sink;
use super::unpack_error::Outcome;
use super::{Error, UnpackError};
use crate::base::{Digest, ImageReference, Repository};

/// What one manifest in one repository takes in memory, in bytes: two indexes, a digest, and the nodes of the maps that
/// hold them. Estimated.
const PRESENCE_BYTES: u64 = 96;

/// Follows every root and returns the images that they amount to.
///
/// A root without a name is fine where it is a part of an image or a referrer of one. Of the revisions of a registry
/// tree nothing else counts.
pub(super) fn follow_all<S: Sink>(
    roots: Vec<Root>,
    mut closure: Closure<'_, S>,
) -> Outcome<(Vec<Image>, Found), S> {
    let mut images = Vec::new();
    let mut nameless = Vec::new();
    for root in roots {
        let RootName::Known(reference) = root.name else {
            nameless.push(root);
            continue;
        };
        images.push(follow(reference, root.target, &mut closure)?);
    }
    follow_referrers(&mut images, &nameless, &mut closure)?;
    for root in nameless {
        let digest = root.target.digest();
        if root.name == RootName::Unknown && !closure.has_followed(&digest) {
            let entry = root.entry;
            return Err(UnpackError::Package(Error::UnnamedImage { entry, digest }));
        }
    }
    Ok((images::unify(images)?, closure.finish()?))
}

fn follow<S: Sink>(
    reference: ImageReference,
    target: Target,
    closure: &mut Closure<'_, S>,
) -> Outcome<Image, S> {
    let descriptor = match target {
        Target::Descriptor(descriptor) => descriptor,
        Target::Digest(digest) => closure.describe(&reference, digest)?,
    };
    closure.follow(&reference, &descriptor)?;
    Ok(Image {
        reference,
        descriptor,
    })
}

/// Finds the referrers among roots without a name and adds them to the images.
fn follow_referrers<S: Sink>(
    images: &mut Vec<Image>,
    nameless: &[Root],
    closure: &mut Closure<'_, S>,
) -> Outcome<(), S> {
    let mut by_subject: BTreeMap<Digest, BTreeMap<Digest, &Target>> = BTreeMap::new();
    for root in nameless {
        let digest = root.target.digest();
        if let Some(subject) = closure.find_subject(&digest)? {
            let referrers = by_subject.entry(subject).or_default();
            referrers.entry(digest).or_insert(&root.target);
        }
    }
    if by_subject.is_empty() {
        return Ok(());
    }
    let mut presence = Presence::default();
    for image in &*images {
        presence.add(&image.reference, image.descriptor.digest);
    }
    while presence.look(closure)?.is_some() {}
    // What is a part of an image with a name gets to its repository in any case.
    let mut settled = presence.known.clone();
    presence.waiting.extend(&settled);
    while let Some((place, subject)) = presence.look(closure)? {
        for (referrer, target) in by_subject.get(&subject).into_iter().flatten() {
            if settled.insert((place, *referrer)) {
                let reference = presence.pin(place, *referrer);
                closure.charge(reference.encode().len() as u64)?;
                images.push(follow(reference, (*target).clone(), closure)?);
                presence.insert(place, *referrer);
            }
        }
    }
    Ok(())
}

/// Which manifests are in which repositories.
#[derive(Debug, Default)]
struct Presence {
    /// Hosts and paths, by their numbers.
    places: Vec<(String, Repository)>,
    numbers: BTreeMap<(String, Repository), usize>,
    known: BTreeSet<(usize, Digest)>,
    /// What was not looked at yet, of what is known.
    waiting: Vec<(usize, Digest)>,
}

impl Presence {
    fn add(&mut self, image: &ImageReference, digest: Digest) {
        let place = (image.registry().to_owned(), image.repository().clone());
        let places = &mut self.places;
        let number = *self.numbers.entry(place).or_insert_with_key(|place| {
            places.push(place.clone());
            places.len() - 1
        });
        self.insert(number, digest);
    }

    fn insert(&mut self, place: usize, digest: Digest) {
        if self.known.insert((place, digest)) {
            self.waiting.push((place, digest));
        }
    }

    /// Takes one that was not looked at and notes that its children are there as well.
    fn look<S: Sink>(
        &mut self,
        closure: &mut Closure<'_, S>,
    ) -> Result<Option<(usize, Digest)>, Error> {
        let Some((place, digest)) = self.waiting.pop() else {
            return Ok(None);
        };
        closure.charge(PRESENCE_BYTES)?;
        for child in closure.children(&digest) {
            self.insert(place, *child);
        }
        Ok(Some((place, digest)))
    }

    /// Returns the name of an image that has nothing but a digest.
    fn pin(&self, place: usize, digest: Digest) -> ImageReference {
        let (registry, repository) = self.places[place].clone();
        ImageReference::new(registry, repository, None, Some(digest))
    }
}
