//! Everything that the images of a package need, and whether it is there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::archive::Budget;
use super::sink::Sink;
use super::{Error, Limits, UnpackError};
use crate::base::oci::{
    Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_DOCKER_CONFIG, Manifest as OciManifest,
};
use crate::base::{Digest, ImageReference, Platform};

/// Media type of the configuration of a Helm chart (Helm 3, "Use OCI-based registries").
const MEDIA_TYPE_HELM_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
/// What tools write as the platform of things that run nowhere, such as attestations.
const PLATFORM_UNKNOWN: &str = "unknown";

/// Follows images to their last layer. Each manifest is read once, however many images share it.
#[derive(Debug)]
pub(super) struct Closure<'a, S> {
    sink: &'a S,
    limits: &'a Limits,
    budget: &'a mut Budget,
    /// Manifests that were followed: levels below each, and its media type.
    manifests: HashMap<Digest, Followed>,
    blobs: BTreeMap<Digest, u64>,
    platforms: BTreeSet<Platform>,
    charts: BTreeSet<Digest>,
}

#[derive(Clone, Debug)]
struct Followed {
    levels_below: u32,
    media_type: String,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Every manifest, configuration and layer with its size.
    pub(super) blobs: BTreeMap<Digest, u64>,
    /// Every manifest.
    pub(super) manifests: BTreeSet<Digest>,
    /// What the images run on.
    pub(super) platforms: BTreeSet<Platform>,
    /// Manifests of Helm charts.
    pub(super) charts: BTreeSet<Digest>,
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

type Outcome<T, S> = Result<T, UnpackError<<S as Sink>::Error>>;

impl<'a, S: Sink> Closure<'a, S> {
    pub(super) fn new(sink: &'a S, limits: &'a Limits, budget: &'a mut Budget) -> Self {
        Self {
            sink,
            limits,
            budget,
            manifests: HashMap::new(),
            blobs: BTreeMap::new(),
            platforms: BTreeSet::new(),
            charts: BTreeSet::new(),
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

    pub(super) fn finish(self) -> Found {
        Found {
            blobs: self.blobs,
            manifests: self.manifests.into_keys().collect(),
            platforms: self.platforms,
            charts: self.charts,
        }
    }

    /// Returns how many levels of manifests are below this one.
    fn follow_manifest(&mut self, step: Step<'_>) -> Outcome<u32, S> {
        let digest = step.descriptor.digest;
        self.check_blob(step)?;
        let known = self.manifests.get(&digest).cloned();
        let deepest = step.depth + known.as_ref().map_or(0, |known| known.levels_below);
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
        let levels_below = match &manifest {
            OciManifest::Index { .. } => self.follow_index(step, &manifest)?,
            OciManifest::Image { config, .. } => {
                for blob in manifest.blobs() {
                    self.check_blob(Step {
                        descriptor: blob,
                        parent: Some(digest),
                        ..step
                    })?;
                }
                self.note_config(step, config)?;
                0
            }
        };
        self.manifests.insert(
            digest,
            Followed {
                levels_below,
                media_type,
            },
        );
        Ok(levels_below)
    }

    fn follow_index(&mut self, step: Step<'_>, manifest: &OciManifest) -> Outcome<u32, S> {
        let OciManifest::Index { entries } = manifest else {
            return Ok(0);
        };
        let mut levels_below = 0;
        for entry in entries {
            self.note_platform(entry.platform.as_ref());
            let below = self.follow_manifest(Step {
                descriptor: &entry.descriptor,
                parent: Some(step.descriptor.digest),
                platform: entry.platform.as_ref(),
                depth: step.depth + 1,
                ..step
            })?;
            levels_below = levels_below.max(below + 1);
        }
        Ok(levels_below)
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
        let known = platform.filter(|platform| {
            !platform
                .as_str()
                .split('/')
                .any(|part| part == PLATFORM_UNKNOWN)
        });
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

    fn find(&self, digest: &Digest) -> Outcome<Option<u64>, S> {
        self.sink.find(digest).map_err(UnpackError::Sink)
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
        self.budget.charge(size_bytes)?;
        self.sink
            .read(digest, limit_bytes)
            .map_err(UnpackError::Sink)
    }
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
