//! A Helm chart that is packed by itself, as `helm package` does it.
//!
//! It becomes what `helm push` makes of it: an OCI image whose only layer is the file, byte for byte, and whose
//! configuration is `Chart.yaml` as JSON. Helm adds the time of the push; we do not, so that the same chart always gives
//! the same manifest.
//!
//! # References
//!
//! Helm 3, "Use OCI-based registries"; HIP-0006 "OCI Support".

use serde_json::{Value, json};

use super::capture::{Capture, Kept};
use super::chart_metadata::{CHART_FILE, ChartMetadata, MEDIA_TYPE_HELM_CHART};
use super::closure::MEDIA_TYPE_HELM_CONFIG;
use super::header::show;
use super::images::{Root, RootName, Target};
use super::manifest::{Manifest, parse_document};
use super::{Error, Limits};
use crate::base::oci::{Descriptor, MEDIA_TYPE_MANIFEST};
use crate::base::{ImageReference, Repository, Tag};

/// Annotations that `helm push` writes (OCI image-spec v1.1.0, `annotations.md`).
const ANNOTATION_TITLE: &str = "org.opencontainers.image.title";
const ANNOTATION_VERSION: &str = "org.opencontainers.image.version";

/// An archive that may turn out to be a chart: so far all its files lie in one folder.
#[derive(Debug)]
pub(super) struct Candidate {
    capture: Capture,
    /// The one folder; `None` before the first file.
    folder: Option<String>,
    /// Path and content of its `Chart.yaml`.
    chart_file: Option<(String, Vec<u8>)>,
    is_possible: bool,
}

impl Candidate {
    /// `capture` has the bytes of the archive.
    pub(super) const fn new(capture: Capture) -> Self {
        Self {
            capture,
            folder: None,
            chart_file: None,
            is_possible: true,
        }
    }

    /// Takes note of a file; returns whether it is the one that makes a chart.
    pub(super) fn note(&mut self, path: &str) -> bool {
        if !self.is_possible {
            return false;
        }
        let Some((folder, rest)) = path.split_once('/') else {
            self.give_up();
            return false;
        };
        match &self.folder {
            Some(known) if known != folder => self.give_up(),
            Some(_) => {}
            None => self.folder = Some(folder.to_owned()),
        }
        self.is_possible && rest == CHART_FILE
    }

    /// Takes the content of the file for which [`note`](Self::note) returned true.
    pub(super) fn set_chart_file(&mut self, path: String, content: Vec<u8>) {
        self.chart_file = Some((path, content));
    }

    /// Frees the memory: it is no chart.
    pub(super) fn give_up(&mut self) {
        self.is_possible = false;
        self.capture.discard();
    }

    /// Returns the chart that the archive is, after its last file.
    pub(super) fn finish(&mut self, limits: &Limits) -> Result<Option<Packed>, Error> {
        let Some((path, content)) = self.chart_file.take().filter(|_| self.is_possible) else {
            self.give_up();
            return Ok(None);
        };
        match self.capture.take() {
            Kept::Bytes(bytes) => Packed::new(&path, &content, bytes).map(Some),
            Kept::TooMuch => Err(Error::ChartTooLarge {
                limit_bytes: limits.chart_bytes_max,
            }),
            // Only what is compressed by gzip has a media type for charts.
            Kept::Nothing => Ok(None),
        }
    }
}

/// The three blobs of a chart.
#[derive(Debug)]
pub(super) struct Packed {
    /// Configuration, layer and manifest.
    pub(super) blobs: [Vec<u8>; 3],
    pub(super) chart: Chart,
}

/// A chart whose blobs were received.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// Path of its `Chart.yaml`.
    entry: String,
    name: String,
    version: String,
    repository: Repository,
    tag: Tag,
    manifest: Descriptor,
}

impl Packed {
    fn new(path: &str, chart_file: &[u8], layer: Vec<u8>) -> Result<Self, Error> {
        let invalid = |reason: String| Error::MetadataInvalid {
            entry: show(path.as_bytes()),
            reason,
        };
        let ChartMetadata {
            name,
            version,
            app_version,
            ..
        } = ChartMetadata::parse(path, chart_file)?;
        let repository = name
            .parse()
            .map_err(|error| invalid(format!("{error}, found `{}`", show(name.as_bytes()))))?;
        // A tag cannot hold a plus sign; this is how helm writes it.
        let tag = version
            .replace('+', "_")
            .parse()
            .map_err(|error| invalid(format!("{error}, found `{}`", show(version.as_bytes()))))?;
        let mut config: Value = parse_document(path, chart_file)?;
        // Texts that look like numbers are texts all the same.
        config["name"] = json!(name);
        config["version"] = json!(version);
        if let Some(app_version) = app_version {
            config["appVersion"] = json!(app_version);
        }
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE_MANIFEST,
            "config": Descriptor::of(MEDIA_TYPE_HELM_CONFIG, &config),
            "layers": [Descriptor::of(MEDIA_TYPE_HELM_CHART, &layer)],
            "annotations": {ANNOTATION_TITLE: name, ANNOTATION_VERSION: version},
        });
        let manifest = manifest.to_string().into_bytes();
        Ok(Self {
            chart: Chart {
                entry: show(path.as_bytes()),
                name,
                version,
                repository,
                tag,
                manifest: Descriptor::of(MEDIA_TYPE_MANIFEST, &manifest),
            },
            blobs: [config, layer, manifest],
        })
    }
}

impl Chart {
    /// Returns what a package manifest of a package of this chart alone would say.
    pub(super) fn implied_manifest(&self) -> Manifest {
        Manifest {
            name: self.name.parse().ok(),
            version: Some(self.version.clone()),
            artifact: Some(self.reference()),
            ..Manifest::default()
        }
    }

    /// Returns the chart as an image of a package: under the name that the package manifest has for it, else under its own.
    pub(super) fn root(&self, manifest: Option<&Manifest>) -> Root {
        let mut named = manifest
            .into_iter()
            .flat_map(Manifest::images)
            .filter(|it| {
                let last = it.repository().as_str().rsplit('/').next();
                it.tag() == Some(&self.tag) && it.digest().is_none() && last == Some(&self.name)
            });
        let name = match (named.next(), named.next()) {
            (Some(name), None) => name.clone(),
            (Some(_) | None, _) => self.reference(),
        };
        Root {
            entry: self.entry.clone(),
            name: RootName::Known(name),
            target: Target::Descriptor(self.manifest.clone()),
        }
    }

    fn reference(&self) -> ImageReference {
        let (repository, tag) = (self.repository.clone(), self.tag.clone());
        ImageReference::new(String::new(), repository, Some(tag), None)
    }
}
