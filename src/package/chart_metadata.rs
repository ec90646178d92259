//! `Chart.yaml`: what a Helm chart says of itself, however it came.
//!
//! # References
//!
//! Helm 3, "Charts", "The Chart.yaml File".

use serde::Deserialize;

use super::Error;
use super::header::show;
use super::manifest::parse_document;

/// Media type of the layer that is a packed chart (Helm 3, "Use OCI-based registries").
pub(super) const MEDIA_TYPE_HELM_CHART: &str =
    "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
/// The file that makes a folder a chart.
pub(super) const CHART_FILE: &str = "Chart.yaml";

/// What must be known of `Chart.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChartMetadata {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) app_version: Option<String>,
    pub(super) description: Option<String>,
}

/// What is there of it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Fields {
    name: Option<String>,
    version: Option<String>,
    app_version: Option<String>,
    description: Option<String>,
}

impl ChartMetadata {
    /// Reads `Chart.yaml`, which is the entry `path`. Texts that look like numbers are texts.
    pub(super) fn parse(path: &str, text: &[u8]) -> Result<Self, Error> {
        let fields: Fields = parse_document(path, text)?;
        let (Some(name), Some(version)) = (fields.name, fields.version) else {
            return Err(Error::MetadataInvalid {
                entry: show(path.as_bytes()),
                reason: "expected `name` and `version`".to_owned(),
            });
        };
        Ok(Self {
            name,
            version,
            app_version: fields.app_version,
            description: fields.description,
        })
    }
}
