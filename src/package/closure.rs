//! Everything that the images of a package need, and whether it is there.
//!
//! Two things may be missing because the package manifest says so, and nothing else: blobs that a delta builds on
//! (`spec.expects`), which must have been there before, and manifests that indexes name and that were left out
//! (`spec.omitted`). Both lists are to be used up: an entry that no image has any use for is a fault of the package,
//! because it would make the package wait for nothing, or is not about this package at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::archive::Budget;
use super::manifest::Manifest;
use super::sink::Sink;
use super::unpack_error::Outcome;
use super::{Error, Limits, UnpackError};
use crate::base::oci::{
    Descriptor, IndexEntry, MEDIA_TYPE_CONFIG, MEDIA_TYPE_DOCKER_CONFIG, Manifest as OciManifest,
};
use crate::base::{Digest, ImageReference, Platform};

/// Media type of the configuration of a Helm chart (Helm 3, "Use OCI-based registries").
pub(super) const MEDIA_TYPE_HELM_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
/// What tools write as the platform of things that run nowhere.
const PLATFORM_UNKNOWN: &str = "unknown";

/// Follows images to their last layer. Each manifest is read once, however many images share it.
#[derive(Debug)]
pub(super) struct Closure<'a, S> {
    sink: &'a S,
    /// What may be missing.
    leave: Leave<'a>,
    limits: &'a Limits,
    budget: &'a mut Budget,
    /// Manifests that were followed: levels below each, and its media type.
    manifests: HashMap<Digest, Followed>,
    blobs: BTreeMap<Digest, u64>,
    platforms: BTreeSet<Platform>,
    charts: BTreeSet<Digest>,
    /// Manifests that were left out, of those that may be.
    omitted: BTreeSet<Digest>,
    /// Manifests that indexes name, of those that may be left out.
    named: BTreeSet<Digest>,
    /// Foreign layers that are there.
    foreign: BTreeSet<Digest>,
}

/// What the package manifest allows to be missing.
#[derive(Clone, Copy, Debug)]
struct Leave<'a> {
    /// Because it was there before. With sizes in bytes.
    expects: &'a BTreeMap<Digest, u64>,
    /// Because it was left out on purpose.
    omitted: &'a BTreeSet<Digest>,
}

static NOTHING_EXPECTED: BTreeMap<Digest, u64> = BTreeMap::new();
static NOTHING_OMITTED: BTreeSet<Digest> = BTreeSet::new();

impl<'a> Leave<'a> {
    fn new(manifest: Option<&'a Manifest>) -> Self {
        Self {
            expects: manifest.map_or(&NOTHING_EXPECTED, |manifest| &manifest.expects),
            omitted: manifest.map_or(&NOTHING_OMITTED, |manifest| &manifest.omitted),
        }
    }
}

/// A manifest that was followed.
#[derive(Debug)]
struct Followed {
    levels_below: u32,
    media_type: String,
    subject: Option<Digest>,
    /// The manifests that it names and that are there.
    children: Vec<Digest>,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Every manifest, configuration and layer with its size, and foreign layers that are there.
    pub(super) blobs: BTreeMap<Digest, u64>,
    /// Every manifest.
    pub(super) manifests: BTreeSet<Digest>,
    /// What the images run on.
    pub(super) platforms: BTreeSet<Platform>,
    /// Manifests of Helm charts.
    pub(super) charts: BTreeSet<Digest>,
    /// Manifests that indexes name and that were left out on purpose.
    pub(super) omitted: BTreeSet<Digest>,
    /// Which of the blobs are foreign layers.
    pub(super) foreign: BTreeSet<Digest>,
}

/// A pointer that is being followed.
#[derive(Clone, Copy)]
struct Step<'s> {
    image: &'s ImageReference,
    descriptor: &'s Descriptor,
    parent: Option<Digest>,
    /// What the parent says that it runs on.
    platform: Option<&'s Platform>,
    depth: u32,
}

impl<'a, S: Sink> Closure<'a, S> {
    /// `manifest` says what may be missing.
    pub(super) fn new(
        sink: &'a S,
        limits: &'a Limits,
        budget: &'a mut Budget,
        manifest: Option<&'a Manifest>,
    ) -> Self {
        Self {
            sink,
            leave: Leave::new(manifest),
            limits,
            budget,
            manifests: HashMap::new(),
            blobs: BTreeMap::new(),
            platforms: BTreeSet::new(),
            charts: BTreeSet::new(),
            omitted: BTreeSet::new(),
            named: BTreeSet::new(),
            foreign: BTreeSet::new(),
        }
    }

    /// Returns the descriptor of an image of which only the digest is known.
    pub(super) fn describe(
        &mut self,
        image: &ImageReference,
        digest: Digest,
    ) -> Outcome<Descriptor, S> {
        let missing = Error::MissingBlob {
            image: Box::new(image.clone()),
            digest,
            parent: None,
        };
        let size_bytes = self.find(&digest)?.ok_or(missing)?;
        let bytes = self.read(image, &digest, size_bytes)?;
        let (_, media_type) = parse(image, digest, &bytes)?;
        Ok(Descriptor {
            media_type,
            digest,
            size_bytes,
        })
    }

    /// Follows `descriptor`, the image called `image`.
    pub(super) fn follow(
        &mut self,
        image: &ImageReference,
        descriptor: &Descriptor,
    ) -> Outcome<(), S> {
        self.follow_manifest(Step {
            image,
            descriptor,
            parent: None,
            platform: None,
            depth: 0,
        })?;
        Ok(())
    }

    /// Returns whether `digest` is a manifest that was followed.
    pub(super) fn has_followed(&self, digest: &Digest) -> bool {
        self.manifests.contains_key(digest)
    }

    /// Returns the manifests that a manifest names, if it was followed, without those that were left out.
    pub(super) fn children(&self, digest: &Digest) -> &[Digest] {
        self.manifests
            .get(digest)
            .map_or(&[], |followed| &followed.children)
    }

    /// Returns what the manifest `digest` is about. `None` where it names nothing, is not there or is no manifest.
    pub(super) fn find_subject(&mut self, digest: &Digest) -> Outcome<Option<Digest>, S> {
        if let Some(followed) = self.manifests.get(digest) {
            return Ok(followed.subject);
        }
        let size_bytes = self.find(digest)?;
        let Some(size_bytes) = size_bytes.filter(|it| *it <= self.limits.manifest_bytes_max) else {
            return Ok(None);
        };
        let bytes = self.read_bytes(digest, size_bytes)?;
        let manifest = OciManifest::parse(&bytes).ok();
        Ok(manifest.and_then(|(manifest, _)| Some(manifest.subject()?.digest)))
    }

    /// Takes `bytes` from what may be held in memory for one package.
    pub(super) fn charge(&mut self, bytes: u64) -> Result<(), Error> {
        self.budget.charge(bytes)
    }

    /// Ends the search, once all images were followed.
    ///
    /// Fails if the package manifest allows something to be missing that no image has any use for.
    pub(super) fn finish(self) -> Result<Found, Error> {
        let is_unneeded = |digest: &&Digest| !self.blobs.contains_key(*digest);
        if let Some(digest) = self.leave.expects.keys().find(is_unneeded) {
            return Err(Error::BaseUnneeded { digest: *digest });
        }
        if let Some(digest) = self.leave.omitted.difference(&self.named).next() {
            return Err(Error::OmittedUnnamed { digest: *digest });
        }
        Ok(Found {
            blobs: self.blobs,
            manifests: self.manifests.into_keys().collect(),
            platforms: self.platforms,
            charts: self.charts,
            omitted: self.omitted,
            foreign: self.foreign,
        })
    }

    /// Returns how many levels of manifests are below this one.
    fn follow_manifest(&mut self, step: Step<'_>) -> Outcome<u32, S> {
        let digest = step.descriptor.digest;
        self.check_blob(step)?;
        let known = self.manifests.get(&digest);
        let deepest = step.depth + known.map_or(0, |known| known.levels_below);
        if deepest > self.limits.nesting_max {
            return Err(UnpackError::Package(Error::NestingTooDeep {
                image: Box::new(step.image.clone()),
                limit: self.limits.nesting_max,
            }));
        }
        if let Some(known) = known {
            check_media_type(step, &known.media_type)?;
            return Ok(known.levels_below);
        }
        let bytes = self.read(step.image, &digest, step.descriptor.size_bytes)?;
        let (manifest, media_type) = parse(step.image, digest, &bytes)?;
        check_media_type(step, &media_type)?;
        let (levels_below, children) = match &manifest {
            OciManifest::Index { entries, .. } => self.follow_index(step, entries)?,
            OciManifest::Image { config, .. } => {
                for blob in manifest.blobs() {
                    self.check_blob(Step {
                        descriptor: blob,
                        parent: Some(digest),
                        ..step
                    })?;
                }
                for layer in manifest.foreign_layers() {
                    self.check_foreign(Step {
                        descriptor: layer,
                        parent: Some(digest),
                        ..step
                    })?;
                }
                self.note_config(step, config)?;
                (0, Vec::new())
            }
        };
        self.manifests.insert(
            digest,
            Followed {
                levels_below,
                media_type,
                subject: manifest.subject().map(|subject| subject.digest),
                children,
            },
        );
        Ok(levels_below)
    }

    /// Returns how many levels of manifests are below this index, and which it names that are there.
    fn follow_index(
        &mut self,
        step: Step<'_>,
        entries: &[IndexEntry],
    ) -> Outcome<(u32, Vec<Digest>), S> {
        let mut levels_below = 0;
        let mut children = Vec::new();
        for entry in entries {
            if self.is_left_out(&entry.descriptor.digest)? {
                continue;
            }
            self.note_platform(entry.platform.as_ref());
            let below = self.follow_manifest(Step {
                descriptor: &entry.descriptor,
                parent: Some(step.descriptor.digest),
                platform: entry.platform.as_ref(),
                depth: step.depth + 1,
                ..step
            })?;
            levels_below = levels_below.max(below + 1);
            children.push(entry.descriptor.digest);
        }
        Ok((levels_below, children))
    }

    /// Returns whether a manifest that an index names was left out on purpose.
    fn is_left_out(&mut self, digest: &Digest) -> Outcome<bool, S> {
        if !self.leave.omitted.contains(digest) {
            return Ok(false);
        }
        self.named.insert(*digest);
        let is_left_out = self.find(digest)?.is_none();
        if is_left_out {
            self.omitted.insert(*digest);
        }
        Ok(is_left_out)
    }

    /// Learns from the configuration what an image is and, where its parent does not say, what it runs on.
    fn note_config(&mut self, step: Step<'_>, config: &Descriptor) -> Outcome<(), S> {
        if config.media_type == MEDIA_TYPE_HELM_CONFIG {
            self.charts.insert(step.descriptor.digest);
        }
        let is_image = matches!(
            config.media_type.as_str(),
            MEDIA_TYPE_CONFIG | MEDIA_TYPE_DOCKER_CONFIG
        );
        if !is_image || step.platform.is_some() {
            return Ok(());
        }
        let bytes = self.read(step.image, &config.digest, config.size_bytes)?;
        // A configuration that says nothing about its platform is not our business.
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if let (Some(os), Some(architecture)) =
            (value["os"].as_str(), value["architecture"].as_str())
        {
            let platform = Platform::from_parts(os, architecture, value["variant"].as_str());
            self.note_platform(platform.as_ref().ok());
        }
        Ok(())
    }

    fn note_platform(&mut self, platform: Option<&Platform>) {
        let known = platform.filter(|platform| !is_nowhere(platform));
        self.platforms.extend(known.cloned());
    }

    /// Checks that what the descriptor points to is there, with the right size.
    fn check_blob(&mut self, step: Step<'_>) -> Outcome<(), S> {
        let Descriptor {
            digest, size_bytes, ..
        } = *step.descriptor;
        let found_bytes = match self.blobs.get(&digest) {
            Some(found_bytes) => Some(*found_bytes),
            None => self.find(&digest)?,
        };
        let found_bytes = found_bytes.ok_or_else(|| Error::MissingBlob {
            image: Box::new(step.image.clone()),
            digest,
            parent: step.parent,
        })?;
        if found_bytes != size_bytes {
            return Err(UnpackError::Package(Error::SizeMismatch {
                image: Box::new(step.image.clone()),
                digest,
                expected_bytes: size_bytes,
                found_bytes,
            }));
        }
        self.blobs.insert(digest, size_bytes);
        Ok(())
    }

    /// Checks a foreign layer where the package brings it or builds on it. Otherwise it is fetched from elsewhere.
    fn check_foreign(&mut self, step: Step<'_>) -> Outcome<(), S> {
        let digest = &step.descriptor.digest;
        let found = self.sink.find(digest).map_err(UnpackError::Sink)?;
        if found.is_some() || self.leave.expects.contains_key(digest) {
            self.foreign.insert(*digest);
            self.check_blob(step)?;
        }
        Ok(())
    }

    /// Returns the size of a blob that came with the package, or that it builds on.
    fn find(&self, digest: &Digest) -> Outcome<Option<u64>, S> {
        let found = self.sink.find(digest).map_err(UnpackError::Sink)?;
        if found.is_none() && self.leave.expects.contains_key(digest) {
            return self.sink.find_base(digest).map_err(UnpackError::Sink);
        }
        Ok(found)
    }

    fn read(
        &mut self,
        image: &ImageReference,
        digest: &Digest,
        size_bytes: u64,
    ) -> Outcome<Vec<u8>, S> {
        let limit_bytes = self.limits.manifest_bytes_max;
        if size_bytes > limit_bytes {
            return Err(UnpackError::Package(Error::ManifestTooLarge {
                image: Box::new(image.clone()),
                digest: *digest,
                limit_bytes,
            }));
        }
        self.read_bytes(digest, size_bytes)
    }

    fn read_bytes(&mut self, digest: &Digest, size_bytes: u64) -> Outcome<Vec<u8>, S> {
        self.budget.charge(size_bytes)?;
        self.sink
            .read(digest, self.limits.manifest_bytes_max)
            .map_err(UnpackError::Sink)
    }
}

/// Returns whether a platform is that of something that runs nowhere, such as an attestation.
pub(super) fn is_nowhere(platform: &Platform) -> bool {
    let mut parts = platform.as_str().split('/');
    parts.any(|part| part == PLATFORM_UNKNOWN)
}

fn parse(
    image: &ImageReference,
    digest: Digest,
    bytes: &[u8],
) -> Result<(OciManifest, String), Error> {
    OciManifest::parse(bytes).map_err(|source| Error::ManifestInvalid {
        image: Box::new(image.clone()),
        digest,
        source,
    })
}

fn check_media_type(step: Step<'_>, found: &str) -> Result<(), Error> {
    let expected = &step.descriptor.media_type;
    if expected != found {
        return Err(Error::MediaTypeMismatch {
            image: Box::new(step.image.clone()),
            digest: step.descriptor.digest,
            expected: expected.clone(),
            found: found.to_owned(),
        });
    }
    Ok(())
}
