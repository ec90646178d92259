//! What the main image of a package says of itself.
//!
//! A package manifest may say little: violet's has no name for people, no channels, no list of what the operator starts.
//! The main image knows: an operator bundle is an image that holds documents, and a plugin is installed from a chart.
//! Start from [`describe`].
//!
//! ```text
//! images ─► main image ─┬─ labels of a bundle ─► layers, topmost wins ─► annotations.yaml, CSV ─┐
//!           (artifact,  │                                                                      ├─► Description
//!            or the one └─ media type of a chart ─► archive ─► Chart.yaml, values.yaml ────────┘
//!            that fits)                                      └► module-plugin.yaml ─► resources
//! ```
//!
//! # Invariants
//!
//! - The package manifest wins wherever both speak; see [`identity`](super::identity).
//! - What an image says is hostile like the rest of the package: what is read of it is bounded by `Limits::bundle_*`, and
//!   texts come out on one line and bounded.
//! - The layers of ordinary images are never read: neither bundles nor charts, by their configuration, or too large.
//!
//! # Failure
//!
//! An image that cannot be described is no reason to refuse the package: [`Described::problem`] says why. Only a sink
//! that fails makes [`describe`] fail.

mod chart;
mod document;
mod error;
mod layer;
mod missing;
mod operator;
mod overlay;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde::Deserialize;
use serde_json::Value;

use self::chart::parse_chart;
pub use self::error::Error;
use self::error::Stopped;
use self::operator::{Bundle, LABEL_PREFIX, Labels, describe_labels};
use super::chart_metadata::MEDIA_TYPE_HELM_CHART;
use super::closure::{MEDIA_TYPE_HELM_CONFIG, is_nowhere};
use super::identity::{find_image, find_plugin};
use super::images::Image;
use super::manifest::Manifest;
use super::{Limits, Sink, UnpackError};
use crate::base::oci::{Descriptor, Manifest as OciManifest};
use crate::base::{Description, Digest, OperatorDescription, PackageKind};

/// What is known of a package when its main image is looked for.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) manifest: Option<&'a Manifest>,
    pub(super) resources: &'a [Value],
    pub(super) images: &'a [Image],
    /// Every blob that is there.
    pub(super) blobs: &'a BTreeMap<Digest, u64>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Described {
    /// The main image.
    pub(super) main: Option<Image>,
    pub(super) description: Option<Description>,
    /// The `ModulePlugin` documents of the chart.
    pub(super) plugins: Vec<Value>,
    /// Why there is no description, or what is missing from it.
    pub(super) problem: Option<Error>,
}

/// Finds the main image of a package and reads what it says of itself.
pub(super) fn describe<S: Sink>(
    subject: &Subject<'_>,
    sink: &S,
    limits: &Limits,
) -> Result<Described, UnpackError<S::Error>> {
    let mut described = Described::default();
    let mut reader = Reader {
        subject,
        sink,
        limits,
        search_left_bytes: limits.metadata_total_bytes_max,
    };
    match reader.describe(&mut described) {
        Ok(()) => {}
        Err(Halt::Content(problem)) => described.problem = Some(problem),
        Err(Halt::Sink(error)) => return Err(error),
    }
    Ok(described)
}

/// Why describing stopped.
enum Halt<E: std::error::Error + 'static> {
    /// The image is at fault.
    Content(Error),
    /// The sink failed.
    Sink(UnpackError<E>),
}

impl<E: std::error::Error> From<Error> for Halt<E> {
    fn from(error: Error) -> Self {
        Self::Content(error)
    }
}

impl<E: std::error::Error> From<Stopped> for Halt<E> {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Content(error) => Self::Content(error),
            Stopped::Read(error) => Self::Sink(UnpackError::Package(super::Error::Read(error))),
        }
    }
}

type Outcome<T, S> = Result<T, Halt<<S as Sink>::Error>>;

/// An image that describes something, by its configuration.
#[derive(Debug)]
struct Candidate<'a> {
    image: &'a Image,
    content: Content,
    layers: Vec<Descriptor>,
}

#[derive(Debug)]
enum Content {
    Bundle(Labels),
    Chart,
}

#[derive(Debug)]
struct Reader<'a, S> {
    subject: &'a Subject<'a>,
    sink: &'a S,
    limits: &'a Limits,
    /// How many bytes of configurations may still be looked at.
    search_left_bytes: u64,
}

impl<'a, S: Sink> Reader<'a, S> {
    fn describe(&mut self, described: &mut Described) -> Outcome<(), S> {
        let artifact = self.subject.manifest.and_then(|it| it.artifact.as_ref());
        let candidate = match artifact {
            Some(artifact) => {
                let Some(image) = find_image(artifact, self.subject.images) else {
                    return Ok(());
                };
                described.main = Some(image.clone());
                let candidate = self.look_at(image)?;
                if candidate.is_none() && self.declared() != Some(PackageKind::Images) {
                    return Err(Halt::Content(Error::NotABundle));
                }
                candidate
            }
            None => self.search()?,
        };
        let Some(candidate) = candidate else {
            return Ok(());
        };
        described.main = Some(candidate.image.clone());
        match &candidate.content {
            Content::Bundle(labels) => {
                let mut description = describe_labels(labels);
                let outcome = self.read_bundle(labels, &candidate.layers, &mut description);
                described.description = Some(Description::Operator(description));
                outcome
            }
            Content::Chart => self.read_chart(&candidate.layers, described),
        }
    }

    /// Returns the type of the package, where it says one.
    fn declared(&self) -> Option<PackageKind> {
        self.subject.manifest?.kind
    }

    /// Returns the only image that can be the main one of this package. A package that is nothing but images has none.
    fn search(&mut self) -> Outcome<Option<Candidate<'a>>, S> {
        let plugin = find_plugin(self.subject.resources);
        let declared = self.declared().or(plugin.map(|_| PackageKind::Plugin));
        let is_more = self.subject.manifest.is_some() || declared.is_some();
        if !is_more || declared == Some(PackageKind::Images) {
            return Ok(None);
        }
        let mut seen = BTreeSet::new();
        let mut candidates: Vec<&'a Image> = Vec::new();
        for image in self.subject.images {
            if !seen.insert(image.descriptor.digest) {
                continue;
            }
            let candidate = self.look_at(image)?;
            if candidate.is_some_and(|candidate| candidate.content.fits(declared)) {
                candidates.push(image);
            }
        }
        let main_chart = plugin.and_then(|plugin| plugin["spec"]["mainChart"].as_str());
        let is_main = |image: &&Image| main_chart == Some(image.reference.repository().as_str());
        if candidates.iter().any(is_main) {
            candidates.retain(is_main);
        }
        match *candidates.as_slice() {
            [] => Ok(None),
            // What it says was not kept: of many hostile candidates that would be much.
            [image] => self.look_at(image),
            [_, _, ..] => Err(Halt::Content(Error::SeveralCandidates {
                count: candidates.len(),
            })),
        }
    }

    /// Returns what an image is by its configuration, if it is a bundle or a chart.
    fn look_at(&mut self, image: &'a Image) -> Outcome<Option<Candidate<'a>>, S> {
        let Some(manifest) = self.first_manifest(&image.descriptor)? else {
            return Ok(None);
        };
        let mut blobs = manifest.blobs().cloned();
        let Some(config) = blobs.next() else {
            return Ok(None);
        };
        let content = if config.media_type == MEDIA_TYPE_HELM_CONFIG {
            Some(Content::Chart)
        } else {
            self.labels(&config)?.map(Content::Bundle)
        };
        Ok(content.map(|content| Candidate {
            image,
            content,
            layers: blobs.collect(),
        }))
    }

    /// Returns the manifest that `descriptor` stands for: of an index, the first one that is there and runs somewhere.
    fn first_manifest(&self, descriptor: &Descriptor) -> Outcome<Option<OciManifest>, S> {
        let mut digest = descriptor.digest;
        for _ in 0..=self.limits.nesting_max {
            let bytes = self.sink.read(&digest, self.limits.manifest_bytes_max);
            let bytes = bytes.map_err(|error| Halt::Sink(UnpackError::Sink(error)))?;
            // Everything below an image was parsed before; what is none now has no say.
            let Ok((manifest, _)) = OciManifest::parse(&bytes) else {
                return Ok(None);
            };
            let OciManifest::Index { entries, .. } = &manifest else {
                return Ok(Some(manifest));
            };
            let is_there = |digest: &Digest| self.subject.blobs.contains_key(digest);
            let child = entries
                .iter()
                .filter(|entry| !entry.platform.as_ref().is_some_and(is_nowhere))
                .map(|entry| entry.descriptor.digest)
                .find(is_there);
            let Some(child) = child else {
                return Ok(None);
            };
            digest = child;
        }
        Ok(None)
    }

    /// Returns the labels of an image, if it is a bundle by them.
    fn labels(&mut self, config: &Descriptor) -> Outcome<Option<Labels>, S> {
        let limit_bytes = self.limits.metadata_total_bytes_max;
        let left_bytes = self.search_left_bytes.checked_sub(config.size_bytes);
        self.search_left_bytes = left_bytes.ok_or(Error::SearchTooLong { limit_bytes })?;
        if config.size_bytes > self.limits.manifest_bytes_max {
            return Ok(None);
        }
        let Some(mut source) = self.open(&config.digest)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).map_err(Stopped::Read)?;
        let config: ImageConfig = serde_json::from_slice(&bytes).unwrap_or_default();
        let labels = config.config.and_then(|config| config.labels);
        let labels: Labels = labels.unwrap_or_default();
        let is_bundle = labels.keys().any(|label| label.starts_with(LABEL_PREFIX));
        Ok(is_bundle.then_some(labels))
    }

    fn read_bundle(
        &self,
        labels: &Labels,
        layers: &[Descriptor],
        description: &mut OperatorDescription,
    ) -> Outcome<(), S> {
        self.check_size(layers)?;
        let mut bundle = Bundle::new(labels, self.limits);
        for layer in layers.iter().rev() {
            bundle.add_layer(self.open_layer(layer)?)?;
        }
        Ok(bundle.finish(description)?)
    }

    fn read_chart(&self, layers: &[Descriptor], described: &mut Described) -> Outcome<(), S> {
        let layer = layers
            .iter()
            .find(|layer| layer.media_type == MEDIA_TYPE_HELM_CHART)
            .ok_or(Error::ChartLayerAbsent)?;
        self.check_size(std::slice::from_ref(layer))?;
        let chart = parse_chart(self.open_layer(layer)?, self.limits)?;
        described.description = Some(Description::Chart(chart.description));
        described.plugins = chart.plugins;
        described.problem = chart.problem;
        Ok(())
    }

    /// Refuses to read layers that are too large for a bundle or chart.
    fn check_size(&self, layers: &[Descriptor]) -> Result<(), Error> {
        let sizes = layers.iter().map(|layer| layer.size_bytes);
        let size_bytes = sizes.fold(0, u64::saturating_add);
        let limit_bytes = self.limits.bundle_bytes_max;
        if size_bytes > limit_bytes {
            return Err(Error::LayersTooLarge {
                size_bytes,
                limit_bytes,
            });
        }
        Ok(())
    }

    fn open_layer(&self, layer: &Descriptor) -> Outcome<Box<dyn Read + 'a>, S> {
        let digest = layer.digest;
        Ok(self.open(&digest)?.ok_or(Error::LayerNotKept { digest })?)
    }

    fn open(&self, digest: &Digest) -> Outcome<Option<Box<dyn Read + 'a>>, S> {
        let opened = self.sink.open(digest);
        opened.map_err(|error| Halt::Sink(UnpackError::Sink(error)))
    }
}

impl Content {
    /// Returns whether a package of this type is installed from such an image.
    const fn fits(&self, declared: Option<PackageKind>) -> bool {
        match declared {
            None => true,
            Some(PackageKind::Operator) => matches!(self, Self::Bundle(_)),
            Some(PackageKind::Plugin | PackageKind::Chart) => matches!(self, Self::Chart),
            Some(PackageKind::Images | PackageKind::Supplement) => false,
        }
    }
}

/// The fields of an image configuration that are looked at.
#[derive(Default, Deserialize)]
struct ImageConfig {
    config: Option<RunConfig>,
}

#[derive(Deserialize)]
struct RunConfig {
    #[serde(rename = "Labels")]
    labels: Option<Labels>,
}
