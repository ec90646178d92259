//! Helm charts: what an archive says of itself.
//!
//! ```text
//! <chart>/Chart.yaml                    name, version, what it installs
//! <chart>/values.yaml                   global.images.*: {repository, tag}, the images of a plugin chart
//! <chart>/module-plugin.yaml            the ModulePlugin of a plugin chart
//! <chart>/scripts/plugin-config.yaml    what makes the platform offer the plugin
//! ```
//!
//! As Helm does it, the name of the folder means nothing.
//!
//! # References
//!
//! Helm 3, "Charts"; the conventions of plugin charts are those of the platform's plugin guide.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;
use serde_json::Value;

use super::document::{self, invalid, text};
use super::error::{Error, Stopped};
use super::layer::{Allowance, Entries, Kind, Outcome};
use crate::base::ChartDescription;
use crate::package::chart_metadata::{CHART_FILE, ChartMetadata};
use crate::package::{self, Limits, manifest};

const VALUES: &str = "values.yaml";
const MODULE_PLUGIN: &str = "module-plugin.yaml";
const PLUGIN_CONFIG: &str = "scripts/plugin-config.yaml";
/// Images of one chart; real ones have tens. Chosen, not measured.
const IMAGES_MAX: usize = 5000;

/// What a chart says of itself.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::package) struct Chart {
    pub(in crate::package) description: ChartDescription,
    /// The `ModulePlugin` documents of its `module-plugin.yaml`.
    pub(in crate::package) plugins: Vec<Value>,
    /// What beside `Chart.yaml` could not be read.
    pub(in crate::package) problem: Option<Error>,
}

/// Reads a chart: an archive, compressed or not.
pub(in crate::package) fn parse_chart(source: impl Read, limits: &Limits) -> Outcome<Chart> {
    let mut allowance = Allowance::new(limits);
    let files = read_files(source, &mut allowance)?;
    Ok(parse_files(&files)?)
}

/// Returns the files that matter, by their paths below the folder of the chart.
fn read_files(
    source: impl Read,
    allowance: &mut Allowance,
) -> Outcome<BTreeMap<&'static str, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut charts = 0;
    let mut entries = Entries::open(source, allowance)?;
    while let Some(entry) = entries.next_entry()? {
        let path = entry.path.split_once('/').map(|(_, path)| path);
        let wanted = [CHART_FILE, VALUES, MODULE_PLUGIN, PLUGIN_CONFIG];
        let Some(name) = wanted.into_iter().find(|name| path == Some(name)) else {
            continue;
        };
        if entry.kind != Kind::File {
            continue;
        }
        charts += usize::from(name == CHART_FILE);
        let content = entries.content(&entry)?;
        entries.keep(&content)?;
        files.insert(name, content);
    }
    if charts != 1 {
        return Err(Stopped::Content(Error::ChartFile { count: charts }));
    }
    Ok(files)
}

fn parse_files(files: &BTreeMap<&'static str, Vec<u8>>) -> Result<Chart, Error> {
    let file = |name| files.get(name).map_or(&[][..], Vec::as_slice);
    let metadata = ChartMetadata::parse(CHART_FILE, file(CHART_FILE));
    let metadata = metadata.map_err(|error| explain(CHART_FILE, &error))?;
    let (Some(name), Some(version)) = (text(Some(metadata.name)), text(Some(metadata.version)))
    else {
        return Err(invalid(CHART_FILE, "expected `name` and `version`"));
    };
    let mut problem = None;
    let mut note = |error| {
        problem.get_or_insert(error);
    };
    let images = list_images(file(VALUES)).unwrap_or_else(|error| {
        note(error);
        Vec::new()
    });
    let plugins = list_plugins(file(MODULE_PLUGIN)).unwrap_or_else(|error| {
        note(error);
        Vec::new()
    });
    Ok(Chart {
        description: ChartDescription {
            name,
            version,
            app_version: text(metadata.app_version),
            description: text(metadata.description),
            images,
            has_plugin_config: files.contains_key(PLUGIN_CONFIG),
        },
        plugins,
        problem,
    })
}

/// Returns the images of `global.images`, as `repository:tag`, sorted. Values of another shape name no images.
fn list_images(values: &[u8]) -> Result<Vec<String>, Error> {
    if values.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let values: Values = document::parse_values(VALUES, values)?;
    let global = values.global.unwrap_or_default();
    let images = global["images"].as_object().into_iter().flatten();
    let mut images: Vec<String> = images
        .filter_map(|(_, image)| {
            let repository = text(scalar(&image["repository"]))?;
            let tag = text(scalar(&image["tag"]))?;
            Some(format!("{repository}:{tag}"))
        })
        .take(IMAGES_MAX)
        .collect();
    images.sort();
    images.dedup();
    Ok(images)
}

/// Returns a scalar as Helm would write it into a template.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn list_plugins(content: &[u8]) -> Result<Vec<Value>, Error> {
    let documents = manifest::parse_resources(MODULE_PLUGIN, content)
        .map_err(|error| explain(MODULE_PLUGIN, &error))?;
    let is_plugin = |document: &Value| document["kind"] == "ModulePlugin";
    Ok(documents.into_iter().filter(is_plugin).collect())
}

/// Returns what is wrong with a file, as it is said of one inside of an image.
fn explain(path: &str, error: &package::Error) -> Error {
    if let package::Error::MetadataInvalid { reason, .. } = error {
        invalid(path, reason)
    } else {
        invalid(path, &error.to_string())
    }
}

#[derive(Deserialize)]
struct Values {
    global: Option<Value>,
}
