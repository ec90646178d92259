//! What the main image or chart of a package says of itself.

use serde::{Deserialize, Serialize};

/// What was read from inside of a package's main image or chart. The package manifest wins over it wherever both speak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Description {
    /// An operator bundle image.
    Operator(OperatorDescription),
    /// A Helm chart, be it that of a plugin or one by itself.
    Chart(ChartDescription),
}

/// What an operator bundle says of itself: `metadata/annotations.yaml` and the `ClusterServiceVersion` (CSV) among
/// `manifests/` (Operator Framework, "Operator Bundle").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperatorDescription {
    /// Name of the operator's package in a catalogue.
    pub package: Option<String>,
    /// Name of the CSV, such as `redis-operator.v1.2.3`.
    pub csv_name: Option<String>,
    /// Version of the CSV.
    pub version: Option<String>,
    /// Name for people.
    pub display_name: Option<String>,
    /// A sentence for people.
    pub summary: Option<String>,
    /// Channels that the version belongs to.
    pub channels: Vec<String>,
    /// The channel of those who choose none.
    pub default_channel: Option<String>,
    /// Images that the operator says it may start, in its order.
    pub related_images: Vec<String>,
}

/// What a Helm chart says of itself: `Chart.yaml`, `values.yaml`, `scripts/plugin-config.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChartDescription {
    /// Name of the chart.
    pub name: String,
    /// Version of the chart.
    pub version: String,
    /// Version of what the chart installs.
    pub app_version: Option<String>,
    /// A sentence for people.
    pub description: Option<String>,
    /// Images of `global.images` in `values.yaml`, as `repository:tag` without a host, sorted.
    pub images: Vec<String>,
    /// Whether it holds `scripts/plugin-config.yaml`, without which the platform offers no plugin.
    pub has_plugin_config: bool,
}

impl Description {
    /// Returns the name that it is known by to programs: of the operator's package, or of the chart.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Operator(operator) => operator.package.as_deref(),
            Self::Chart(chart) => Some(&chart.name),
        }
    }

    /// Returns the name for people.
    pub fn display_name(&self) -> Option<&str> {
        match self {
            Self::Operator(operator) => operator.display_name.as_deref(),
            Self::Chart(_) => None,
        }
    }

    /// Returns a sentence for people.
    pub fn summary(&self) -> Option<&str> {
        match self {
            Self::Operator(operator) => operator.summary.as_deref(),
            Self::Chart(chart) => chart.description.as_deref(),
        }
    }

    /// Returns the version, where it says one.
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Operator(operator) => operator.version.as_deref(),
            Self::Chart(chart) => {
                Some(chart.version.as_str()).filter(|version| !version.is_empty())
            }
        }
    }
}
