//! Which fields the kinds have, in a compact form, and the checks that a Kubernetes server makes with them.
//!
//! # Format
//!
//! One field per line: its path, with `[]` for the elements of a list, its type, and `!` if it is required where its
//! parent exists. Types: `object`, `text`, `flag`, `int`, `list`, `texts` (an object of texts), `any` (nothing is
//! checked), `int-or-text`.
//!
//! Transcribed from the custom resource definitions `artifacts.app.alauda.io`, `artifactversions.app.alauda.io`,
//! `moduleplugins.cluster.alauda.io` and `moduleconfigs.cluster.alauda.io`, all v1alpha1, without status.

use std::collections::BTreeMap;

use serde_json::Value;

const METADATA: &str = "
metadata                                            object!
metadata.name                                       text!
metadata.namespace                                  text
metadata.uid                                        text
metadata.resourceVersion                            text
metadata.labels                                     texts
metadata.annotations                                texts
metadata.finalizers                                 list
metadata.finalizers[]                               text
metadata.ownerReferences                            list
metadata.ownerReferences[]                          object
metadata.ownerReferences[].apiVersion               text!
metadata.ownerReferences[].kind                     text!
metadata.ownerReferences[].name                     text!
metadata.ownerReferences[].uid                      text!
metadata.ownerReferences[].controller               flag
metadata.ownerReferences[].blockOwnerDeletion       flag
apiVersion                                          text!
kind                                                text!
";

const ARTIFACT: &str = "
spec                                                object
spec.artifactVersionSelector                        object!
spec.artifactVersionSelector.matchLabels            texts
spec.artifactVersionSelector.matchExpressions       list
spec.artifactVersionSelector.matchExpressions[]     any
spec.description                                    text
spec.displayName                                    text
spec.imagePullSecrets                               list
spec.imagePullSecrets[]                             text
spec.present                                        flag!
spec.registry                                       text!
spec.repository                                     text!
spec.tagPatterns                                    list
spec.tagPatterns[]                                  object
spec.tagPatterns[].maxQuantity                      int-or-text!
spec.tagPatterns[].name                             text!
spec.tagPatterns[].regex                            text!
spec.type                                           text!
";

const ARTIFACT_VERSION: &str = "
spec                                                object
spec.present                                        flag!
spec.tag                                            text!
";

const PLUGIN: &str = "
spec                                                object
spec.affinity                                       object
spec.affinity.clusterAffinity                       object
spec.affinity.clusterAffinity.matchLabels           texts
spec.affinity.clusterAffinity.matchExpressions      list
spec.affinity.clusterAffinity.matchExpressions[]    any
spec.affinity.clusterAntiAffinity                   object
spec.affinity.clusterAntiAffinity.matchLabels       texts
spec.affinity.clusterAntiAffinity.matchExpressions  list
spec.affinity.clusterAntiAffinity.matchExpressions[] any
spec.affinity.pluginAntiAffinity                    list
spec.affinity.pluginAntiAffinity[]                  text
spec.appReleases                                    list
spec.appReleases[]                                  object
spec.appReleases[].chartVersions                    list!
spec.appReleases[].chartVersions[]                  object
spec.appReleases[].chartVersions[].name             text!
spec.appReleases[].chartVersions[].releaseName      text!
spec.appReleases[].chartVersions[].version          text!
spec.appReleases[].installCondition                 text
spec.appReleases[].name                             text!
spec.appReleases[].namespace                        text
spec.cfgFilename                                    text
spec.config                                         any
spec.crossClusterDependencies                       list
spec.crossClusterDependencies[]                     text
spec.deleteBlockDescription                         text
spec.deleteBlockDescriptionEn                       text
spec.deleteRiskDescription                          text
spec.deleteRiskDescriptionEn                        text
spec.deleteable                                     flag!
spec.dependencies                                   list
spec.dependencies[]                                 object
spec.dependencies[].instanceName                    text
spec.dependencies[].moduleName                      text!
spec.dependencies[].versionsMatch                   list
spec.dependencies[].versionsMatch[]                 text
spec.deployDescriptors                              list
spec.deployDescriptors[]                            any
spec.description                                    object!
spec.description.en                                 text
spec.description.zh                                 text
spec.editDescriptors                                list
spec.editDescriptors[]                              any
spec.entrypointTemplate                             text
spec.labelCluster                                   text
spec.logo                                           text!
spec.mainChart                                      text
spec.mustUpgrade                                    flag
spec.name                                           text!
spec.pluginDependencies                             any
spec.resourcesBlockRemove                           list
spec.resourcesBlockRemove[]                         any
spec.skipPlatformConfig                             flag
spec.supportedUpgradeVersions                       text
spec.targetClusterVersions                          list
spec.targetClusterVersions[]                        text
spec.transitTimeout                                 int
spec.uiContext                                      any
spec.upgradeBefore                                  list
spec.upgradeBefore[]                                object
spec.upgradeBefore[].moduleName                     text!
spec.upgradeDescriptors                             list
spec.upgradeDescriptors[]                           any
spec.upgradeRiskDescription                         text
spec.upgradeRiskDescriptionEn                       text
spec.upgradeRiskLevel                               text
spec.valuesTemplates                                texts
spec.version                                        text
";

/// Where objects of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// In namespaces of every cluster.
    Namespace,
    /// In no namespace, and on the global cluster only.
    GlobalCluster,
}

/// A kind of object that the clusters serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) api_version: &'static str,
    pub(super) name: &'static str,
    pub(super) plural: &'static str,
    pub(super) scope: Scope,
    /// Empty for kinds that nobody applies here.
    fields: &'static str,
}

/// Everything that is served.
pub(super) const KINDS: [Kind; 6] = [
    Kind {
        api_version: "app.alauda.io/v1alpha1",
        name: "Artifact",
        plural: "artifacts",
        scope: Scope::Namespace,
        fields: ARTIFACT,
    },
    Kind {
        api_version: "app.alauda.io/v1alpha1",
        name: "ArtifactVersion",
        plural: "artifactversions",
        scope: Scope::Namespace,
        fields: ARTIFACT_VERSION,
    },
    Kind {
        api_version: "cluster.alauda.io/v1alpha1",
        name: "ModulePlugin",
        plural: "moduleplugins",
        scope: Scope::GlobalCluster,
        fields: PLUGIN,
    },
    Kind {
        api_version: "cluster.alauda.io/v1alpha1",
        name: "ModuleConfig",
        plural: "moduleconfigs",
        scope: Scope::GlobalCluster,
        fields: PLUGIN,
    },
    Kind {
        api_version: "product.alauda.io/v1alpha2",
        name: "ProductBase",
        plural: "productbases",
        scope: Scope::GlobalCluster,
        fields: "",
    },
    Kind {
        api_version: "v1",
        name: "ConfigMap",
        plural: "configmaps",
        scope: Scope::Namespace,
        fields: "",
    },
];

impl Kind {
    pub(super) fn named(name: &str) -> Self {
        *KINDS.iter().find(|kind| kind.name == name).expect(name)
    }

    fn table(self) -> BTreeMap<&'static str, &'static str> {
        METADATA
            .lines()
            .chain(self.fields.lines())
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?, words.next()?))
            })
            .collect()
    }

    /// Returns what makes `object` untypable: fields that the kind does not have and values of another type.
    pub(super) fn type_faults(self, object: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        walk(&self.table(), "", object, &mut faults);
        faults
    }

    /// Returns the paths of required fields that `object` lacks.
    pub(super) fn missing(self, object: &Value) -> Vec<String> {
        let table = self.table();
        table
            .iter()
            .filter(|(_, shape)| shape.ends_with('!'))
            .filter(|(path, _)| {
                let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
                select(object, parent)
                    .into_iter()
                    .any(|parent| parent.get(name).is_none_or(Value::is_null))
            })
            .map(|(path, _)| (*path).to_owned())
            .collect()
    }
}

/// Returns every value at a path with `[]` in it.
fn select<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![object];
    for segment in path.split('.').filter(|segment| !segment.is_empty()) {
        let (name, is_list) = match segment.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (segment, false),
        };
        found = found
            .into_iter()
            .filter_map(|value| value.get(name))
            .flat_map(|value| match value.as_array() {
                Some(items) if is_list => items.iter().collect(),
                _ => vec![value],
            })
            .collect();
    }
    found
}

fn walk(
    table: &BTreeMap<&'static str, &'static str>,
    path: &str,
    value: &Value,
    faults: &mut Vec<String>,
) {
    let shape = table.get(path).map(|shape| shape.trim_end_matches('!'));
    if value.is_null() {
        return;
    }
    let is_good = match shape {
        // The root.
        None if path.is_empty() => true,
        None => {
            faults.push(format!(".{path}: field not declared in schema"));
            return;
        }
        Some("any") => return,
        Some("object") => value.is_object(),
        Some("list") => value.is_array(),
        Some("text") => value.is_string(),
        Some("flag") => value.is_boolean(),
        Some("int") => value.is_i64(),
        Some("int-or-text") => value.is_i64() || value.is_string(),
        Some("texts") => {
            let texts = value.as_object();
            if texts.is_none_or(|texts| !texts.values().all(Value::is_string)) {
                faults.push(format!(".{path}: expected map of strings, got {value}"));
            }
            return;
        }
        Some(other) => panic!("unknown type `{other}` in the table"),
    };
    if !is_good {
        faults.push(format!(
            ".{path}: expected {}, got {value}",
            shape.unwrap_or("object")
        ));
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let below = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                walk(table, &below, value, faults);
            }
        }
        Value::Array(items) => {
            for item in items {
                walk(table, &format!("{path}[]"), item, faults);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
