//! From the folder to the package: whole, as a delta, or as the answer to a request.
//!
//! A delta has the images of the folder without the blobs that whoever gets it has already; it lists them in its manifest.
//! A supplement has no images, only the blobs that a request names. Both are as reproducible as a whole package: the same
//! folder and the same list give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::path::Path;

use super::folder::{Build, Folder};
use super::gather::{Gathered, Origin, Wanted};
use super::output::{self, Output, Written};
use super::referrers::{Referrer, fallback_tag};
use super::{AbsentLayer, Builder, Error, Form, PackedImage};
use crate::base::{Digest, ImageReference, PackageKind};
use crate::package::{Image, Manifest, Request, WriteOptions, Writer};

/// How a package is made.
#[derive(Clone, Debug, Default)]
pub struct PackageOptions {
    /// Choices of the writer.
    pub write: WriteOptions,
    /// What goes in.
    pub content: Content,
    /// How many bytes a part may have; one file where nothing is said.
    pub part_bytes: Option<NonZeroU64>,
}

/// What goes into a package.
#[derive(Clone, Debug, Default)]
pub enum Content {
    /// All images with all that they consist of.
    #[default]
    Whole,
    /// All images without these blobs, given with their sizes in bytes: a delta. If the images have none of them, the
    /// package is whole.
    Without(BTreeMap<Digest, u64>),
    /// Only what a request asks for: a supplement.
    Answer(Request, Completeness),
}

/// What is to be done about a request that the folder cannot answer in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Nothing: whoever carries the answer would carry it in vain.
    Complete,
    /// It is answered in part: somebody else has the rest.
    Partial,
}

/// What a delta leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spared {
    /// How many blobs.
    pub blobs: usize,
    /// Their size together, in bytes.
    pub bytes: u64,
}

/// What [`Builder::package`] wrote.
#[derive(Clone, Debug)]
pub struct Packaged {
    /// What was written.
    pub written: Written,
    /// The images that it holds, without referrers.
    pub images: Vec<PackedImage>,
    /// How many entries for referrers it holds: cosign tags, manifests with a subject, fallback tags.
    pub referrers: usize,
    /// How many distinct blobs and manifests it holds.
    pub blobs: usize,
    /// What it leaves out because whoever gets it has it.
    pub spared: Spared,
    /// What was requested and is not in the images.
    pub unanswered: Vec<Digest>,
    /// What refers to something that is not in the package, and so is not there either.
    pub left_out: Vec<ImageReference>,
    /// Foreign layers of the images that should be there and are not.
    pub absent_layers: Vec<AbsentLayer>,
}

/// Images and what refers to them.
struct Gathering {
    images: Vec<Gathered>,
    referrers: Vec<Gathered>,
    left_out: Vec<ImageReference>,
}

/// What is written.
struct Selection<'a> {
    manifest: Manifest,
    images: Vec<PackedImage>,
    referrers: usize,
    entries: Vec<Image>,
    documents: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<Digest, (u64, Origin<'a>)>,
    unanswered: Vec<Digest>,
}

impl Builder {
    /// Makes the package that the folder `path` describes and publishes it at `output`, or in parts beside it.
    pub fn package(
        &self,
        path: &Path,
        output: &Path,
        options: &PackageOptions,
    ) -> Result<Packaged, Error> {
        let folder = Folder::read(path)?;
        let gathering = self.gather(&folder)?;
        let selection = gathering.select(folder, &options.content)?;
        let written = self.write(&selection, output, options)?;
        let spared = &selection.manifest.expects;
        Ok(Packaged {
            written,
            images: selection.images,
            referrers: selection.referrers,
            blobs: selection.blobs.len(),
            spared: Spared {
                blobs: spared.len(),
                bytes: spared.values().sum(),
            },
            unanswered: selection.unanswered,
            left_out: gathering.left_out.clone(),
            absent_layers: gathering.all().flat_map(Gathered::absent).collect(),
        })
    }

    /// Reads the manifests of everything that the folder names.
    fn gather(&self, folder: &Folder) -> Result<Gathering, Error> {
        let wanted = Wanted {
            platforms: &folder.manifest.platforms,
            form: folder.build.index,
            foreign: folder.build.nondistributable,
        };
        let images: Vec<Gathered> = folder
            .manifest
            .images()
            .map(|image| Gathered::image(&self.places, image, &folder.sources, wanted))
            .collect::<Result<_, _>>()?;
        if images.is_empty() {
            return Err(Error::NoImages);
        }
        let mut gathering = Gathering {
            images,
            referrers: Vec::new(),
            left_out: Vec::new(),
        };
        self.gather_referrers(&folder.build, &mut gathering)?;
        Ok(gathering)
    }

    /// Adds the referrers of what is packed, in as many rounds as they refer to each other.
    fn gather_referrers(&self, build: &Build, gathering: &mut Gathering) -> Result<(), Error> {
        let manifests = gathering.images.iter().flat_map(|image| &image.manifests);
        let mut packed: BTreeSet<Digest> = manifests.map(|(digest, _)| *digest).collect();
        let mut by_subject: BTreeMap<_, Vec<Gathered>> = BTreeMap::new();
        let mut waiting: Vec<&Referrer> = build.referrers.iter().collect();
        loop {
            let (now, later): (Vec<&Referrer>, Vec<&Referrer>) = waiting
                .into_iter()
                .partition(|referrer| packed.contains(&referrer.subject));
            waiting = later;
            if now.is_empty() {
                break;
            }
            for referrer in now {
                let gathered = Gathered::referrer(&self.places, referrer, build.nondistributable)?;
                packed.extend(gathered.manifests.keys());
                let repository = gathered.reference.repository().clone();
                let of_subject = by_subject.entry((repository, referrer.subject));
                of_subject.or_default().push(gathered);
            }
        }
        for ((_, subject), mut referrers) in by_subject {
            referrers.extend(missing_fallback(&subject, &referrers));
            gathering.referrers.extend(referrers);
        }
        let left_out = waiting.into_iter().map(|referrer| referrer.image.clone());
        gathering.left_out.extend(left_out);
        Ok(())
    }

    /// Writes the package.
    fn write(
        &self,
        selection: &Selection<'_>,
        output: &Path,
        options: &PackageOptions,
    ) -> Result<Written, Error> {
        let output = Output::create(output, options.part_bytes)?;
        let (manifest, entries) = (&selection.manifest, &selection.entries);
        let created = Writer::create(output, manifest, entries, options.write);
        let mut writer = created.map_err(output::explain)?;
        for (name, bytes) in &selection.documents {
            writer.add_document(name, bytes).map_err(output::explain)?;
        }
        for (digest, (size_bytes, origin)) in &selection.blobs {
            writer
                .add_blob(digest, *size_bytes, &mut *origin.open(&self.places.remote)?)
                .map_err(output::explain)?;
        }
        writer.finish().map_err(output::explain)?.publish()
    }
}

/// Makes the index under the fallback tag for targets without the referrers API, where the source has none.
fn missing_fallback(subject: &Digest, referrers: &[Gathered]) -> Option<Gathered> {
    let tag = fallback_tag(subject);
    let has_it = referrers
        .iter()
        .any(|referrer| referrer.reference.tag() == Some(&tag));
    let untagged: Vec<&Gathered> = referrers
        .iter()
        .filter(|referrer| referrer.reference.tag().is_none())
        .collect();
    if has_it {
        return None;
    }
    Gathered::fallback(subject, &untagged)
}

impl Gathering {
    /// Returns the images, then what refers to them.
    fn all(&self) -> impl Iterator<Item = &Gathered> + Clone {
        self.images.iter().chain(&self.referrers)
    }

    /// Decides what goes in.
    fn select(&self, folder: Folder, content: &Content) -> Result<Selection<'_>, Error> {
        let all = self.all();
        let blobs: BTreeMap<_, _> = all.clone().flat_map(Gathered::contents).collect();
        let mut selection = Selection {
            manifest: self.describe(folder.manifest, &blobs),
            images: self.images.iter().map(Gathered::packed).collect(),
            referrers: self.referrers.len(),
            entries: all.map(Gathered::entry).collect(),
            documents: folder.documents,
            blobs,
            unanswered: Vec::new(),
        };
        match content {
            Content::Whole => {}
            Content::Without(base) => selection.leave_out(base)?,
            Content::Answer(request, completeness) => {
                selection.restrict_to(&request.missing, *completeness)?;
            }
        }
        Ok(selection)
    }

    /// Says in the manifest what the images are now.
    fn describe(
        &self,
        mut manifest: Manifest,
        packed: &BTreeMap<Digest, (u64, Origin<'_>)>,
    ) -> Manifest {
        let references = manifest.artifact.iter_mut();
        let references = references.chain(&mut manifest.related_images);
        for (reference, image) in references.zip(&self.images) {
            *reference = super::sibling(reference, reference.tag().cloned(), image.root.digest);
        }
        manifest.expects = BTreeMap::new();
        // What one image leaves out may be a part of another one.
        manifest.omitted = self
            .images
            .iter()
            .filter_map(|image| match &image.form {
                Form::Sparse { omitted } => Some(omitted),
                Form::Whole | Form::Rewritten { .. } => None,
            })
            .flatten()
            .filter(|digest| !packed.contains_key(digest))
            .copied()
            .collect();
        manifest
    }
}

impl Selection<'_> {
    /// Leaves out what is in `base`, and says so in the manifest.
    fn leave_out(&mut self, base: &BTreeMap<Digest, u64>) -> Result<(), Error> {
        for (digest, (size_bytes, _)) in &self.blobs {
            if let Some(listed_bytes) = base.get(digest) {
                check_size(*digest, *size_bytes, *listed_bytes)?;
                self.manifest.expects.insert(*digest, *size_bytes);
            }
        }
        let expects = &self.manifest.expects;
        self.blobs.retain(|digest, _| !expects.contains_key(digest));
        Ok(())
    }

    /// Leaves out everything but `wanted`, images included.
    fn restrict_to(
        &mut self,
        wanted: &BTreeMap<Digest, u64>,
        completeness: Completeness,
    ) -> Result<(), Error> {
        if wanted.is_empty() {
            return Err(Error::EmptyRequest);
        }
        for (digest, listed_bytes) in wanted {
            match self.blobs.get(digest) {
                Some((size_bytes, _)) => check_size(*digest, *size_bytes, *listed_bytes)?,
                None => self.unanswered.push(*digest),
            }
        }
        self.blobs.retain(|digest, _| wanted.contains_key(digest));
        let is_complete = self.unanswered.is_empty() || completeness == Completeness::Partial;
        if self.blobs.is_empty() || !is_complete {
            return Err(Error::Unanswered {
                requested: wanted.len(),
                absent: std::mem::take(&mut self.unanswered),
            });
        }
        self.manifest = Manifest {
            name: self.manifest.name.take(),
            version: self.manifest.version.take(),
            kind: Some(PackageKind::Supplement),
            ..Manifest::default()
        };
        self.images.clear();
        self.referrers = 0;
        self.entries.clear();
        self.documents.clear();
        Ok(())
    }
}

/// A digest stands for one content, which has one size: a list that says otherwise is wrong, whatever else it says.
fn check_size(digest: Digest, size_bytes: u64, listed_bytes: u64) -> Result<(), Error> {
    if size_bytes == listed_bytes {
        Ok(())
    } else {
        Err(Error::ListedSize {
            digest,
            size_bytes,
            listed_bytes,
        })
    }
}
