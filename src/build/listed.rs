//! What an OCI layout holds, for whoever passes its images on without packing them.
//!
//! The images are those of a package that is made of the layout, under the same names: every named entry, and what refers to
//! one of them, in its repository. Manifests are read, and no layer, so that a layout of thousands of images is listed in a
//! moment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Error;
use super::layout::Layout;
use super::referrers::{LEVELS_MAX, fallback_index, fallback_tag, sibling, subject_of_tag};
use crate::base::oci::{Descriptor, IndexEntry, MEDIA_TYPE_INDEX, Manifest};
use crate::base::{Digest, ImageReference, Repository, Tag, Tree};

/// What an OCI layout holds.
#[derive(Debug)]
pub struct Listed {
    /// Its images, and what refers to them.
    pub images: Vec<ListedImage>,
    /// Manifests and blobs that they consist of, with their sizes in bytes as their manifests say.
    pub blobs: BTreeMap<Digest, u64>,
    /// Which of them are foreign layers: those that the layout has.
    pub foreign: BTreeSet<Digest>,
    /// The folder with all of them but those that were made.
    pub dir: PathBuf,
    /// Manifests that the layout does not have: the indexes of referrers that registries without the referrers API want.
    pub made: BTreeMap<Digest, Vec<u8>>,
}

/// An image of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedImage {
    /// Its name; without a host where the layout gives none.
    pub reference: ImageReference,
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// The size of everything that it consists of, in bytes: manifest, children and blobs, each counted once.
    pub content_bytes: u64,
}

impl Listed {
    /// Lists the layout in the folder `path`. What it names by a tag alone is in `repository`, by default that of the name of
    /// the folder.
    pub fn read(path: &Path, repository: Option<&Repository>) -> Result<Self, Error> {
        let layout = Layout::open(path)?;
        let mut lister = Lister {
            listed: Self {
                images: Vec::new(),
                blobs: BTreeMap::new(),
                foreign: BTreeSet::new(),
                dir: layout.blobs_dir(),
                made: BTreeMap::new(),
            },
            owners: BTreeMap::new(),
            layout: &layout,
        };
        let mut claims = Vec::new();
        for entry in layout.entries() {
            if let Some(more) = layout.claims_of(entry)? {
                claims.extend(more);
                continue;
            }
            let reference = layout.name_image(entry, repository)?;
            lister.add(&reference, &entry.descriptor)?;
        }
        lister.add_referrers(claims)?;
        Ok(lister.listed)
    }
}

/// A manifest that refers to another one.
struct Claim {
    descriptor: Descriptor,
    subject: Digest,
    /// The tag that says so; none where the manifest does.
    tag: Option<Tag>,
}

impl Layout {
    /// Returns what an entry says of referrers; nothing where it is an image of its own.
    ///
    /// The index under a fallback tag stands for what it lists and is here. It is made anew, because one that names what is
    /// not here cannot be passed on.
    fn claims_of(&self, entry: &IndexEntry) -> Result<Option<Vec<Claim>>, Error> {
        let descriptor = entry.descriptor.clone();
        let name = entry.name.as_deref().unwrap_or_default();
        let tag = name.rsplit_once(':').map_or(name, |(_, tag)| tag);
        let tagged = subject_of_tag(name).filter(|subject| self.holds(subject));
        if let (Some(subject), Ok(tag)) = (tagged, tag.parse::<Tag>()) {
            if tag != fallback_tag(&subject) {
                let tag = Some(tag);
                return Ok(Some(vec![Claim {
                    descriptor,
                    subject,
                    tag,
                }]));
            }
            let bytes = self.read_manifest(&descriptor.digest)?;
            let listed = Manifest::parse(&bytes).map_or_else(
                |_| Vec::new(),
                |(index, _)| index.children().cloned().collect(),
            );
            let held = listed.into_iter().filter(|it| self.holds(&it.digest));
            let claims = held.map(|descriptor| Claim {
                descriptor,
                subject,
                tag: None,
            });
            return Ok(Some(claims.collect()));
        }
        let subject = self.subject_of(&descriptor)?;
        Ok(subject.map(|subject| {
            vec![Claim {
                descriptor,
                subject,
                tag: None,
            }]
        }))
    }
}

/// A list that grows.
struct Lister<'l> {
    listed: Listed,
    /// The repositories, by one of their images, that hold a manifest.
    owners: BTreeMap<Digest, BTreeSet<ImageReference>>,
    layout: &'l Layout,
}

impl Lister<'_> {
    /// Adds an image with all that it consists of.
    fn add(&mut self, reference: &ImageReference, root: &Descriptor) -> Result<(), Error> {
        let tree = Tree::read(root, |manifest| {
            self.layout.read_manifest(&manifest.digest).map(Some)
        });
        let mut tree = tree.map_err(|source| Error::Tree {
            image: Box::new(reference.clone()),
            source: Box::new(source),
        })?;
        let foreign = tree.foreign.keys().filter(|it| self.layout.holds(it));
        self.listed.foreign.extend(foreign);
        tree.take_in(|digest| self.listed.foreign.contains(digest));
        let repository = sibling(reference, None, root.digest);
        for manifest in &tree.manifests {
            let owners = self.owners.entry(manifest.digest).or_default();
            let is_same = |other: &&ImageReference| {
                (other.registry(), other.repository())
                    == (repository.registry(), repository.repository())
            };
            if !owners.iter().any(|other| is_same(&other)) {
                owners.insert(repository.clone());
            }
        }
        let blobs = tree.blobs.iter().map(|blob| &blob.descriptor);
        let all = tree.manifests.iter().chain(blobs);
        self.listed
            .blobs
            .extend(all.map(|it| (it.digest, it.size_bytes)));
        let descriptor = tree.manifests.last().unwrap_or(root).clone();
        self.listed.images.push(ListedImage {
            reference: reference.by_tag(),
            descriptor,
            content_bytes: tree.content_bytes(),
        });
        Ok(())
    }

    /// Adds what refers to images that are listed, in as many rounds as they refer to each other.
    fn add_referrers(&mut self, mut waiting: Vec<Claim>) -> Result<(), Error> {
        let mut untagged: BTreeMap<(ImageReference, Digest), BTreeMap<Digest, Descriptor>> =
            BTreeMap::new();
        for _ in 0..LEVELS_MAX {
            let (now, later): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|claim| self.owners.contains_key(&claim.subject));
            waiting = later;
            if now.is_empty() {
                break;
            }
            for claim in now {
                let (subject, digest) = (claim.subject, claim.descriptor.digest);
                for owner in self.owners[&subject].clone() {
                    if claim.tag.is_none() {
                        let key = (sibling(&owner, None, subject), subject);
                        let of_subject = untagged.entry(key).or_default();
                        let descriptor = claim.descriptor.clone();
                        if of_subject.insert(digest, descriptor).is_some() {
                            continue;
                        }
                    }
                    let reference = sibling(&owner, claim.tag.clone(), digest);
                    self.add(&reference, &claim.descriptor)?;
                }
            }
        }
        for ((owner, subject), referrers) in untagged {
            self.add_fallback(&owner, subject, referrers.values())?;
        }
        Ok(())
    }

    /// Adds the index under the fallback tag of `subject`.
    fn add_fallback<'d>(
        &mut self,
        owner: &ImageReference,
        subject: Digest,
        referrers: impl Iterator<Item = &'d Descriptor>,
    ) -> Result<(), Error> {
        let mut contents = Vec::new();
        for referrer in referrers {
            let bytes = self.layout.read_manifest(&referrer.digest)?;
            let media_type = Manifest::parse(&bytes).map_or_else(
                |_| referrer.media_type.clone(),
                |(_, media_type)| media_type,
            );
            contents.push((Descriptor::of(&media_type, &bytes), bytes));
        }
        let entries = contents.iter();
        let entries = entries.map(|(referrer, bytes)| (referrer.digest, (referrer, &bytes[..])));
        let bytes = fallback_index(&entries.collect());
        let descriptor = Descriptor::of(MEDIA_TYPE_INDEX, &bytes);
        let (digest, size_bytes) = (descriptor.digest, descriptor.size_bytes);
        self.listed.blobs.insert(digest, size_bytes);
        if !self.layout.holds(&digest) {
            self.listed.made.insert(digest, bytes);
        }
        self.listed.images.push(ListedImage {
            reference: sibling(owner, Some(fallback_tag(&subject)), digest).by_tag(),
            descriptor,
            content_bytes: size_bytes,
        });
        Ok(())
    }
}
