//! Operator bundles: what an image says that describes an operator instead of running one.
//!
//! ```text
//! configuration       Labels: operators.operatorframework.io.bundle.package.v1 and their like
//! /metadata/          annotations.yaml: the same again
//! /manifests/         one ClusterServiceVersion (CSV), and more documents of the operator
//! ```
//!
//! Where `annotations.yaml` and the labels contradict each other, the file is right: it is what catalogues are built from.
//!
//! # References
//!
//! Operator Framework, "Operator Bundle"; kind `ClusterServiceVersion` of `operators.coreos.com/v1alpha1`.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;

use super::document::{self, text};
use super::error::Error;
use super::layer::{Allowance, Outcome, normalise};
use super::overlay::{Choice, Overlay};
use crate::base::OperatorDescription;
use crate::package::Limits;

/// What all labels of a bundle begin with.
pub(super) const LABEL_PREFIX: &str = "operators.operatorframework.io.bundle.";
const LABEL_PACKAGE: &str = "operators.operatorframework.io.bundle.package.v1";
const LABEL_CHANNELS: &str = "operators.operatorframework.io.bundle.channels.v1";
const LABEL_DEFAULT_CHANNEL: &str = "operators.operatorframework.io.bundle.channel.default.v1";
const LABEL_MANIFESTS: &str = "operators.operatorframework.io.bundle.manifests.v1";
const LABEL_METADATA: &str = "operators.operatorframework.io.bundle.metadata.v1";

/// The file that says what the labels say.
const ANNOTATIONS_FILE: &str = "annotations.yaml";
/// What a CSV says that it is.
const CSV_KIND: &str = "ClusterServiceVersion";
/// Where a CSV keeps a sentence for people; `spec.description` holds pages. Operator SDK, "CSV fields".
const ANNOTATION_SUMMARY: &str = "description";
/// Channels and related images of one operator; real ones have tens. Chosen, not measured.
const LIST_MAX: usize = 5000;

/// Labels of an image, or annotations that repeat them.
pub(super) type Labels = BTreeMap<String, String>;

/// The folders of a bundle, by its labels.
#[derive(Debug)]
struct Folders {
    manifests: String,
    metadata: String,
}

impl Folders {
    fn new(labels: &Labels) -> Self {
        let folder = |label: &str, usual: &str| {
            let said = labels.get(label).map_or(usual, String::as_str);
            normalise(said.as_bytes()).unwrap_or_else(|| usual.to_owned())
        };
        Self {
            manifests: folder(LABEL_MANIFESTS, "manifests"),
            metadata: folder(LABEL_METADATA, "metadata"),
        }
    }

    fn annotations_path(&self) -> String {
        join(&self.metadata, ANNOTATIONS_FILE)
    }

    /// Returns whether a file may be a CSV by its path: catalogues take the files of the folder, and not those below.
    fn is_document(&self, path: &str) -> bool {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let extension = name.rsplit_once('.').map(|(_, extension)| extension);
        folder == self.manifests && matches!(extension, Some("yaml" | "yml" | "json"))
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

impl Choice for Folders {
    fn wants(&self, path: &str) -> bool {
        path == self.annotations_path() || self.is_document(path)
    }

    /// Of the documents, which may be many, only those count that may be CSVs.
    fn keeps(&self, path: &str, content: &[u8]) -> bool {
        let kind = CSV_KIND.as_bytes();
        path == self.annotations_path() || content.windows(kind.len()).any(|part| part == kind)
    }
}

/// Returns what the labels alone say.
pub(super) fn describe_labels(labels: &Labels) -> OperatorDescription {
    let list = labels.get(LABEL_CHANNELS).map_or("", String::as_str);
    OperatorDescription {
        package: text(labels.get(LABEL_PACKAGE).cloned()),
        channels: list
            .split(',')
            .filter_map(|channel| text(Some(channel.to_owned())))
            .take(LIST_MAX)
            .collect(),
        default_channel: text(labels.get(LABEL_DEFAULT_CHANNEL).cloned()),
        ..OperatorDescription::default()
    }
}

/// A bundle whose layers are being read, from the top down.
#[derive(Debug)]
pub(super) struct Bundle<'a> {
    labels: &'a Labels,
    folders: Folders,
    overlay: Overlay,
    allowance: Allowance,
}

impl<'a> Bundle<'a> {
    pub(super) fn new(labels: &'a Labels, limits: &Limits) -> Self {
        let folders = Folders::new(labels);
        Self {
            labels,
            overlay: Overlay::new([folders.manifests.clone(), folders.metadata.clone()]),
            folders,
            allowance: Allowance::new(limits),
        }
    }

    /// Takes the files of the next lower layer.
    pub(super) fn add_layer(&mut self, source: impl Read) -> Outcome<()> {
        self.overlay
            .add_layer(source, &self.folders, &mut self.allowance)
    }

    /// Adds what the files say to what the labels say. Of files that cannot be read, those before them still count.
    pub(super) fn finish(self, description: &mut OperatorDescription) -> Result<(), Error> {
        let files = self.overlay.finish();
        let path = self.folders.annotations_path();
        if let Some(content) = files.get(&path) {
            *description = describe_labels(&read_annotations(&path, content, self.labels)?);
        }
        let csv = find_csv(&self.folders, &files)?;
        let metadata = csv.metadata.unwrap_or_default();
        let spec = csv.spec.unwrap_or_default();
        let related = spec.related_images.unwrap_or_default();
        let mut annotations = metadata.annotations.unwrap_or_default();
        description.csv_name = text(metadata.name);
        description.version = text(spec.version);
        description.display_name = text(spec.display_name);
        description.summary = text(annotations.remove(ANNOTATION_SUMMARY).flatten());
        description.related_images = related
            .into_iter()
            .filter_map(|related| text(related.image))
            .take(LIST_MAX)
            .collect();
        Ok(())
    }
}

/// Returns the labels as `annotations.yaml` corrects them.
fn read_annotations(path: &str, content: &[u8], labels: &Labels) -> Result<Labels, Error> {
    let file: AnnotationsFile = document::parse(path, content)?;
    let annotations = file.annotations.unwrap_or_default().into_iter();
    let mut corrected = labels.clone();
    corrected.extend(annotations.filter_map(|(name, value)| Some((name, value?))));
    Ok(corrected)
}

/// Returns the CSV among the documents. One that cannot be read is of interest only if there is no other.
fn find_csv(folders: &Folders, files: &BTreeMap<String, Vec<u8>>) -> Result<Csv, Error> {
    let mut first: Option<(&String, Csv)> = None;
    let mut fault = None;
    for (path, content) in files.iter().filter(|(path, _)| folders.is_document(path)) {
        let csv = match document::parse::<Probe>(path, content) {
            Ok(probe) if probe.kind.as_deref() == Some(CSV_KIND) => document::parse(path, content)?,
            Ok(_) => continue,
            Err(error) => {
                fault.get_or_insert(error);
                continue;
            }
        };
        if let Some((first, _)) = first {
            return Err(Error::SeveralCsvs {
                first: first.clone(),
                second: path.clone(),
            });
        }
        first = Some((path, csv));
    }
    let absent = Error::CsvAbsent {
        folder: folders.manifests.clone(),
    };
    first
        .map(|(_, csv)| csv)
        .ok_or_else(|| fault.unwrap_or(absent))
}

#[derive(Deserialize)]
struct AnnotationsFile {
    annotations: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Deserialize)]
struct Probe {
    kind: Option<String>,
}

/// The fields of a CSV that are looked at. All may be absent or null.
#[derive(Default, Deserialize)]
struct Csv {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    name: Option<String>,
    annotations: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    display_name: Option<String>,
    version: Option<String>,
    related_images: Option<Vec<RelatedImage>>,
}

#[derive(Deserialize)]
struct RelatedImage {
    image: Option<String>,
}
