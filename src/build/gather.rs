//! Reads the manifests of images and leaves out what is not wanted of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use super::folder::Sources;
use super::layout::{Layout, Layouts};
use super::platforms::{self, Choice, IndexForm};
use super::referrers::{Place, Referrer, fallback_index, fallback_tag, sibling};
use super::remote::Remote;
use super::{AbsentLayer, Error, Foreign, Form, PackedImage};
use crate::base::oci::{Descriptor, MEDIA_TYPE_INDEX, Manifest};
use crate::base::{Digest, ImageReference, Platform, Tree};
use crate::package::Image;

/// What is wanted of images for several platforms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// The platforms; none means all.
    pub(super) platforms: &'a [Platform],
    /// What becomes of an index of which some are left out.
    pub(super) form: IndexForm,
    /// Whether the content of foreign layers goes along.
    pub(super) foreign: Foreign,
}

/// One image with its manifests in hand.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Its name, by the digest that it has where it comes from.
    pub(super) reference: ImageReference,
    /// What is packed.
    pub(super) root: Descriptor,
    /// All its manifests that are packed, with their content.
    pub(super) manifests: BTreeMap<Digest, Vec<u8>>,
    /// What became of its index.
    pub(super) form: Form,
    /// Foreign layers that should go along and whose content is not there.
    absent: Vec<Digest>,
    blobs: Vec<Descriptor>,
    layout: Option<Arc<Layout>>,
}

/// The manifest or index of an image.
struct Top {
    form: Form,
    /// As it is packed.
    packed: Vec<u8>,
}

impl Top {
    fn whole(bytes: Vec<u8>) -> Self {
        Self {
            form: Form::Whole,
            packed: bytes,
        }
    }

    fn choose(
        reference: &ImageReference,
        bytes: Vec<u8>,
        wanted: Wanted<'_>,
    ) -> Result<Self, Error> {
        let image = || Box::new(reference.clone());
        let from = Digest::of(&bytes);
        let choice =
            platforms::choose(&bytes, wanted.platforms).map_err(|source| Error::Manifest {
                image: image(),
                digest: from,
                source: source.into(),
            })?;
        match choice {
            Choice::Whole => Ok(Self::whole(bytes)),
            Choice::Part { rewritten, omitted } => Ok(match wanted.form {
                IndexForm::Rewritten => Self {
                    form: Form::Rewritten { from },
                    packed: rewritten,
                },
                IndexForm::Sparse => Self {
                    form: Form::Sparse { omitted },
                    packed: bytes,
                },
            }),
            Choice::Nothing(found) => Err(Error::NoPlatform {
                image: image(),
                found,
            }),
        }
    }
}

/// The places that images come from.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) remote: Remote,
    pub(super) layouts: Layouts,
}

/// Where the bytes of a blob are.
pub(super) enum Origin<'a> {
    Manifest(&'a [u8]),
    Layout(&'a Layout, Digest),
    Registry(&'a ImageReference, &'a Descriptor),
}

impl Origin<'_> {
    pub(super) fn open<'a>(&'a self, remote: &'a Remote) -> Result<Box<dyn Read + 'a>, Error> {
        Ok(match self {
            Self::Manifest(bytes) => Box::new(*bytes),
            Self::Layout(layout, digest) => Box::new(layout.open_blob(digest)?),
            Self::Registry(reference, blob) => Box::new(remote.open_blob(reference, blob)),
        })
    }
}

impl Gathered {
    /// Gathers an image of a manifest.
    pub(super) fn image(
        places: &Places,
        reference: &ImageReference,
        sources: &Sources,
        wanted: Wanted<'_>,
    ) -> Result<Self, Error> {
        let source = sources.get(&reference.encode());
        let layout = source
            .map(|source| places.layouts.open(&source.layout))
            .transpose()?;
        let bytes = match (&layout, source) {
            (Some(layout), Some(source)) => {
                layout.read_manifest(&layout.find(source.name.as_deref())?.digest)?
            }
            (None, _) | (_, None) => places.remote.resolve(reference)?,
        };
        let digest = Digest::of(&bytes);
        check_pin(reference, digest)?;
        let reference = sibling(reference, reference.tag().cloned(), digest);
        let top = Top::choose(&reference, bytes, wanted)?;
        Self::follow(places, (reference, layout), top, wanted.foreign)
    }

    /// Gathers a referrer, by its digest.
    pub(super) fn referrer(
        places: &Places,
        referrer: &Referrer,
        foreign: Foreign,
    ) -> Result<Self, Error> {
        let layout = referrer.layout.as_deref();
        let layout = layout.map(|path| places.layouts.open(path)).transpose()?;
        let digest = referrer.image.digest().ok_or_else(|| Error::Referrers {
            image: Box::new(referrer.image.clone()),
            reason: "expected a digest, found none".to_owned(),
        })?;
        let place = place(&places.remote, &referrer.image, layout.as_deref());
        let bytes = place.read_manifest(digest)?;
        check_pin(&referrer.image, Digest::of(&bytes))?;
        let top = Top::whole(bytes);
        Self::follow(places, (referrer.image.clone(), layout), top, foreign)
    }

    /// Makes the index under the fallback tag of `subject`, of referrers that were gathered.
    pub(super) fn fallback(subject: &Digest, referrers: &[&Self]) -> Option<Self> {
        let first = referrers.first()?;
        let entries = referrers.iter().map(|referrer| {
            let bytes = referrer.manifests[&referrer.root.digest].as_slice();
            (referrer.root.digest, (&referrer.root, bytes))
        });
        let bytes = fallback_index(&entries.collect());
        let root = Descriptor::of(MEDIA_TYPE_INDEX, &bytes);
        Some(Self {
            reference: sibling(&first.reference, Some(fallback_tag(subject)), root.digest),
            manifests: BTreeMap::from([(root.digest, bytes)]),
            root,
            form: Form::Whole,
            absent: Vec::new(),
            blobs: Vec::new(),
            layout: None,
        })
    }

    /// Reads all that is wanted below `top`.
    fn follow(
        places: &Places,
        (reference, layout): (ImageReference, Option<Arc<Layout>>),
        top: Top,
        foreign: Foreign,
    ) -> Result<Self, Error> {
        let Top { form, packed } = top;
        let image = || Box::new(reference.clone());
        let digest = Digest::of(&packed);
        let (_, media_type) = Manifest::parse(&packed).map_err(|source| Error::Manifest {
            image: image(),
            digest,
            source,
        })?;
        let root = Descriptor::of(&media_type, &packed);
        let mut manifests = BTreeMap::from([(root.digest, packed)]);
        let place = place(&places.remote, &reference, layout.as_deref());
        let tree = Tree::read(&root, |manifest| {
            let is_left_out = match &form {
                Form::Sparse { omitted } => omitted.contains(&manifest.digest),
                Form::Whole | Form::Rewritten { .. } => false,
            };
            if is_left_out {
                return Ok(None);
            }
            if let Some(bytes) = manifests.get(&manifest.digest) {
                return Ok(Some(bytes.clone()));
            }
            let bytes = place.read_manifest(&manifest.digest)?;
            manifests.insert(manifest.digest, bytes.clone());
            Ok(Some(bytes))
        });
        let mut tree = tree.map_err(|source| Error::Tree {
            image: image(),
            source: Box::new(source),
        })?;
        let absent = take_foreign(foreign, &mut tree, place)?;
        let blobs = tree.blobs.into_iter().map(|blob| blob.descriptor).collect();
        Ok(Self {
            reference,
            root,
            manifests,
            form,
            absent,
            blobs,
            layout,
        })
    }

    /// Returns where the image comes from.
    pub(super) fn place<'a>(&'a self, remote: &'a Remote) -> Place<'a> {
        place(remote, &self.reference, self.layout.as_deref())
    }

    /// Returns the manifests to which something may refer that belongs to this image: those that are packed, and the
    /// index as it was.
    pub(super) fn subjects(&self) -> BTreeSet<Digest> {
        let mut subjects: BTreeSet<Digest> = self.manifests.keys().copied().collect();
        if let Form::Rewritten { from } = self.form {
            subjects.insert(from);
            // It was made just now: nothing can refer to it.
            subjects.remove(&self.root.digest);
        }
        subjects
    }

    /// Returns the foreign layers that should go along and whose content is not where the image comes from.
    pub(super) fn absent(&self) -> impl Iterator<Item = AbsentLayer> {
        self.absent.iter().map(|digest| AbsentLayer {
            image: self.reference.by_tag(),
            digest: *digest,
        })
    }

    pub(super) fn packed(&self) -> PackedImage {
        PackedImage {
            reference: self.reference.by_tag(),
            digest: self.root.digest,
            form: self.form.clone(),
        }
    }

    /// Returns the image for the package.
    pub(super) fn entry(&self) -> Image {
        Image {
            reference: self.reference.by_tag(),
            descriptor: self.root.clone(),
        }
    }

    /// Returns everything that the image consists of, with sizes in bytes.
    pub(super) fn contents(&self) -> impl Iterator<Item = (Digest, (u64, Origin<'_>))> {
        let manifests = self
            .manifests
            .iter()
            .map(|(digest, bytes)| (*digest, (bytes.len() as u64, Origin::Manifest(bytes))));
        let blobs = self.blobs.iter().map(|blob| {
            let origin = match &self.layout {
                Some(layout) => Origin::Layout(layout, blob.digest),
                None => Origin::Registry(&self.reference, blob),
            };
            (blob.digest, (blob.size_bytes, origin))
        });
        manifests.chain(blobs)
    }
}

/// Makes foreign layers a part of the tree whose content is there, if they are to go along. Returns the others then.
fn take_foreign(foreign: Foreign, tree: &mut Tree, place: Place<'_>) -> Result<Vec<Digest>, Error> {
    if foreign == Foreign::LeaveOut {
        return Ok(Vec::new());
    }
    let mut there = BTreeSet::new();
    for digest in tree.foreign.keys() {
        if place.holds_blob(digest)? {
            there.insert(*digest);
        }
    }
    tree.take_in(|digest| there.contains(digest));
    Ok(tree.foreign.keys().copied().collect())
}

fn place<'a>(
    remote: &'a Remote,
    reference: &'a ImageReference,
    layout: Option<&'a Layout>,
) -> Place<'a> {
    match layout {
        Some(layout) => Place::Layout(layout),
        None => Place::Registry(remote, reference),
    }
}

fn check_pin(reference: &ImageReference, found: Digest) -> Result<(), Error> {
    match reference.digest() {
        Some(pinned) if *pinned != found => Err(Error::Moved {
            image: Box::new(reference.clone()),
            pinned: *pinned,
            found,
        }),
        Some(_) | None => Ok(()),
    }
}
