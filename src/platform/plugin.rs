//! How the `moduleplugin.yaml` of a plugin package becomes a `ModulePlugin`.
//!
//! The document is published as its authors wrote it; only what a server fills in is taken out. It is checked first,
//! because violet's users learn of a bad one after hours, when every image has been uploaded. The server checks again
//! and more: fields that are unknown here are not an error, since the schema grows with the platform.
//!
//! # References
//!
//! The platform's custom resource definition `moduleplugins.cluster.alauda.io`, v1alpha1.

use serde_json::{Map, Value};

use super::Error;
use super::resource::{Resource, ResourceKind, object_name};
use crate::base::ClusterName;

/// What a field must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text,
    Flag,
    Object,
    List,
}

/// Whether a field may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Required,
    Optional,
}

/// The fields that are checked, outermost first; `*` stands for every element of a list. A field is looked for only
/// where its parent exists.
const FIELDS: &[(&str, Shape, Need)] = &[
    ("metadata/labels", Shape::Object, Need::Optional),
    ("metadata/annotations", Shape::Object, Need::Optional),
    ("spec", Shape::Object, Need::Required),
    ("spec/name", Shape::Text, Need::Required),
    ("spec/logo", Shape::Text, Need::Required),
    ("spec/deleteable", Shape::Flag, Need::Required),
    ("spec/description", Shape::Object, Need::Required),
    ("spec/description/en", Shape::Text, Need::Optional),
    ("spec/description/zh", Shape::Text, Need::Optional),
    ("spec/mainChart", Shape::Text, Need::Optional),
    ("spec/version", Shape::Text, Need::Optional),
    ("spec/appReleases", Shape::List, Need::Optional),
    ("spec/appReleases/*", Shape::Object, Need::Required),
    ("spec/appReleases/*/name", Shape::Text, Need::Required),
    (
        "spec/appReleases/*/chartVersions",
        Shape::List,
        Need::Required,
    ),
    (
        "spec/appReleases/*/chartVersions/*",
        Shape::Object,
        Need::Required,
    ),
    (
        "spec/appReleases/*/chartVersions/*/name",
        Shape::Text,
        Need::Required,
    ),
    (
        "spec/appReleases/*/chartVersions/*/releaseName",
        Shape::Text,
        Need::Required,
    ),
    (
        "spec/appReleases/*/chartVersions/*/version",
        Shape::Text,
        Need::Required,
    ),
    ("spec/dependencies", Shape::List, Need::Optional),
    ("spec/dependencies/*", Shape::Object, Need::Required),
    (
        "spec/dependencies/*/moduleName",
        Shape::Text,
        Need::Required,
    ),
    ("spec/valuesTemplates", Shape::Object, Need::Optional),
    ("spec/targetClusterVersions", Shape::List, Need::Optional),
    ("spec/targetClusterVersions/*", Shape::Text, Need::Required),
];

/// Returns what publishes a cluster plugin: a `ModulePlugin` on the global cluster, the only one where the platform
/// looks for it.
///
/// # Errors
///
/// [`Error::Document`] names the first field that is not as the platform wants it; [`Error::Name`] if the name is none.
pub fn plugin_resource(document: &Value) -> Result<Resource, Error> {
    let kind = ResourceKind::ModulePlugin;
    for (field, wanted) in [("apiVersion", kind.api_version()), ("kind", kind.name())] {
        if document.get(field).and_then(Value::as_str) != Some(wanted) {
            return Err(refuse(field, &format!("`{wanted}`"), document.get(field)));
        }
    }
    for (path, shape, need) in FIELDS {
        let segments: Vec<&str> = path.split('/').collect();
        check(document, &segments, *shape, *need)
            .map_err(|fault| refuse(&fault.path.join("."), fault.expected, fault.found.as_ref()))?;
    }
    let name = document
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .ok_or_else(|| {
            refuse(
                "metadata.name",
                "a text",
                document.pointer("/metadata/name"),
            )
        })?;
    let name = object_name(name)?;
    let version = plugin_version(document).ok_or_else(|| {
        refuse(
            "spec.version",
            "a version here or in `spec.appReleases`",
            None,
        )
    })?;
    object_name(&config_name(name.as_str(), version))?;
    Ok(Resource {
        cluster: ClusterName::global(),
        kind,
        name,
        body: cleaned(document),
    })
}

/// Returns the version that a `ModulePlugin` publishes: its own, or else that of its main chart, or else that of its
/// first chart.
pub(super) fn plugin_version(document: &Value) -> Option<&str> {
    let spec = document.get("spec")?;
    if let Some(version) = spec.get("version").and_then(Value::as_str) {
        return Some(version);
    }
    let charts: Vec<&Value> = spec
        .get("appReleases")?
        .as_array()?
        .iter()
        .filter_map(|release| release.get("chartVersions")?.as_array())
        .flatten()
        .collect();
    let main = spec.get("mainChart");
    charts
        .iter()
        .find(|chart| main.is_some() && chart.get("name") == main)
        .or(charts.first())?
        .get("version")?
        .as_str()
}

/// Returns the name of the `ModuleConfig` that the platform makes of a version of a plugin.
pub(super) fn config_name(plugin: &str, version: &str) -> String {
    format!("{plugin}-{version}")
}

/// A field that is not as it should be.
struct Fault {
    path: Vec<String>,
    expected: &'static str,
    found: Option<Value>,
}

impl Fault {
    fn new(expected: &'static str, found: Option<&Value>) -> Self {
        Self {
            path: Vec::new(),
            expected,
            found: found.cloned(),
        }
    }

    fn below(mut self, segment: &str) -> Self {
        self.path.insert(0, segment.to_owned());
        self
    }
}

fn check(value: &Value, path: &[&str], shape: Shape, need: Need) -> Result<(), Fault> {
    let Some((segment, rest)) = path.split_first() else {
        let is_good = match shape {
            Shape::Text => value.is_string(),
            Shape::Flag => value.is_boolean(),
            Shape::Object => value.is_object(),
            Shape::List => value.is_array(),
        };
        return if is_good {
            Ok(())
        } else {
            Err(Fault::new(shape.words(), Some(value)))
        };
    };
    if *segment == "*" {
        return value
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .try_for_each(|(index, item)| {
                check(item, rest, shape, need).map_err(|fault| fault.below(&index.to_string()))
            });
    }
    match value.get(segment).filter(|value| !value.is_null()) {
        Some(value) => check(value, rest, shape, need).map_err(|fault| fault.below(segment)),
        // That a parent is missing is the business of the parent's own line.
        None if rest.is_empty() && need == Need::Required => {
            Err(Fault::new(shape.words(), None).below(segment))
        }
        None => Ok(()),
    }
}

impl Shape {
    const fn words(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Flag => "true or false",
            Self::Object => "an object",
            Self::List => "a list",
        }
    }
}

fn refuse(field: &str, expected: &str, found: Option<&Value>) -> Error {
    let found = match found {
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(Value::Object(_)) => "an object".to_owned(),
        Some(Value::Array(_)) => "a list".to_owned(),
        // As JSON, so that the text "true" is not taken for the flag.
        Some(scalar @ (Value::Bool(_) | Value::Number(_) | Value::String(_))) => {
            format!("`{scalar}`")
        }
    };
    Error::Document {
        field: field.to_owned(),
        expected: expected.to_owned(),
        found,
    }
}

/// Returns the document without status and without the metadata that belongs to one server.
fn cleaned(document: &Value) -> Value {
    let keep = |object: &Value, keys: &[&str]| -> Map<String, Value> {
        keys.iter()
            .filter_map(|key| Some(((*key).to_owned(), object.get(key)?.clone())))
            .filter(|(_, value)| !value.is_null())
            .collect()
    };
    let mut body = keep(document, &["apiVersion", "kind", "spec"]);
    let metadata = keep(&document["metadata"], &["name", "labels", "annotations"]);
    body.insert("metadata".to_owned(), Value::Object(metadata));
    Value::Object(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::base::{Chain, Class, Classified as _};

    fn document() -> Value {
        json!({
            "apiVersion": "cluster.alauda.io/v1alpha1",
            "kind": "ModulePlugin",
            "metadata": {
                "name": "test-plugin",
                "labels": {"cpaas.io/module-name": "test-plugin", "cpaas.io/module-type": "plugin"},
                "annotations": {"cpaas.io/built-in-plugin": "false"},
                "uid": "from another cluster",
                "resourceVersion": "7",
                "managedFields": [],
            },
            "spec": {
                "name": "test-plugin",
                "logo": "data:image/svg+xml;base64,xxx",
                "deleteable": true,
                "description": {"en": "Plugin demo", "zh": "Demo"},
                "mainChart": "ait/test-plugin",
                "appReleases": [{
                    "name": "test-plugin",
                    "chartVersions": [
                        {"name": "ait/other", "releaseName": "other", "version": "v9.0.0"},
                        {"name": "ait/test-plugin", "releaseName": "test-plugin", "version": "v0.0.1"},
                    ],
                }],
            },
            "status": {"latestVersion": "v0.0.1"},
        })
    }

    #[test]
    fn a_document_becomes_a_resource_of_the_global_cluster() {
        let resource = plugin_resource(&document()).unwrap();
        assert_eq!(resource.cluster, ClusterName::global());
        assert_eq!(resource.owner(), None);
        insta::assert_snapshot!(serde_saphyr::to_string(&resource.body).unwrap(), @r#"
        apiVersion: cluster.alauda.io/v1alpha1
        kind: ModulePlugin
        metadata:
          annotations:
            cpaas.io/built-in-plugin: "false"
          labels:
            cpaas.io/module-name: test-plugin
            cpaas.io/module-type: plugin
          name: test-plugin
        spec:
          appReleases:
          - chartVersions:
            - name: ait/other
              releaseName: other
              version: v9.0.0
            - name: ait/test-plugin
              releaseName: test-plugin
              version: v0.0.1
            name: test-plugin
          deleteable: true
          description:
            en: Plugin demo
            zh: Demo
          logo: data:image/svg+xml;base64,xxx
          mainChart: ait/test-plugin
          name: test-plugin
        "#);
    }

    #[test]
    fn the_version_is_its_own_or_that_of_the_main_chart() {
        let mut document = document();
        assert_eq!(plugin_version(&document), Some("v0.0.1"));
        document["spec"]["mainChart"] = json!("ait/unknown");
        assert_eq!(plugin_version(&document), Some("v9.0.0"));
        document["spec"]["version"] = json!("v1.0.0");
        assert_eq!(plugin_version(&document), Some("v1.0.0"));
        assert_eq!(plugin_version(&json!({"spec": {}})), None);
    }

    #[test]
    fn a_bad_document_is_refused_with_the_field() {
        let broken = |pointer: &str, value: Value| {
            let mut document = document();
            *document.pointer_mut(pointer).unwrap() = value;
            let error = plugin_resource(&document).unwrap_err();
            assert_eq!(error.class(), Class::Rejected);
            Chain(&error).to_string()
        };
        let found = [
            broken("/kind", json!("ModuleConfig")),
            broken("/apiVersion", json!(null)),
            broken("/metadata/name", json!("Test_Plugin")),
            broken("/metadata/name", json!(1)),
            broken("/spec", json!([])),
            broken("/spec/name", json!(null)),
            broken("/spec/logo", json!(false)),
            broken("/spec/deleteable", json!("true")),
            broken("/spec/description", json!("Plugin demo")),
            broken("/spec/description/en", json!(["x"])),
            broken("/spec/appReleases/0/chartVersions", json!(null)),
            broken("/spec/appReleases/0/chartVersions/1/version", json!(1.5)),
            broken("/spec/appReleases", json!([])),
        ];
        insta::assert_snapshot!(found.join("\n"), @r#"
        invalid ModulePlugin: expected `ModulePlugin` at `kind`, found `"ModuleConfig"`
        invalid ModulePlugin: expected `cluster.alauda.io/v1alpha1` at `apiVersion`, found nothing
        expected the name of a Kubernetes object, found `Test_Plugin`: expected lowercase letters, digits, `-` and `.`, with a letter or digit at both ends of each part between dots
        invalid ModulePlugin: expected a text at `metadata.name`, found `1`
        invalid ModulePlugin: expected an object at `spec`, found a list
        invalid ModulePlugin: expected a text at `spec.name`, found nothing
        invalid ModulePlugin: expected a text at `spec.logo`, found `false`
        invalid ModulePlugin: expected true or false at `spec.deleteable`, found `"true"`
        invalid ModulePlugin: expected an object at `spec.description`, found `"Plugin demo"`
        invalid ModulePlugin: expected a text at `spec.description.en`, found a list
        invalid ModulePlugin: expected a list at `spec.appReleases.0.chartVersions`, found nothing
        invalid ModulePlugin: expected a text at `spec.appReleases.0.chartVersions.1.version`, found `1.5`
        invalid ModulePlugin: expected a version here or in `spec.appReleases` at `spec.version`, found nothing
        "#);
    }

    #[test]
    fn every_required_field_is_missed() {
        for (path, ..) in FIELDS.iter().filter(|(path, _, need)| {
            *need == Need::Required && !path.ends_with('*') && !path.contains("dependencies")
        }) {
            let mut document = document();
            let pointer = format!("/{}", path.replace('*', "0"));
            *document.pointer_mut(&pointer).expect(path) = Value::Null;
            assert!(plugin_resource(&document).is_err(), "without {path}");
        }
    }

    proptest! {
        #[test]
        fn documents_of_any_shape_never_panic(
            pointer in prop::sample::select(vec!["/kind", "/metadata", "/metadata/name", "/spec", "/spec/appReleases",
                "/spec/appReleases/0", "/spec/appReleases/0/chartVersions/0", "/spec/description"]),
            value in prop_oneof![Just(json!(null)), Just(json!([])), Just(json!({})), Just(json!([[], {}])),
                Just(json!(1)), ".{0,8}".prop_map(Value::from)],
        ) {
            let mut document = document();
            *document.pointer_mut(pointer).unwrap() = value;
            let _ = plugin_resource(&document);
            let _ = plugin_version(&document);
        }
    }
}
