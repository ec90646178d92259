//! The Kubernetes objects that are published, and how an operator package becomes some.
//!
//! # Labels
//!
//! `cpaas.io/managed-by: violet` on an `Artifact` is not decoration: without it the platform's controller sets
//! `spec.present` to false and deletes the versions. The other labels are those found on objects that violet made.
//! The keys `cpaas.io/bundle-version`, `cpaas.io/channels` and `cpaas.io/default-channel` were seen there, too, but
//! neither their values nor whether they are labels or annotations is public, so they are not written.
//!
//! # Ownership
//!
//! An `ArtifactVersion` must name its `Artifact` as owner or the platform fails it. The owner's `uid` exists only on
//! the cluster, so the body built here names the owner without one and `Platform::apply` fills it in.

use serde::Serialize;
use serde_json::{Value, json};

use super::Error;
use crate::base::{ClusterName, ObjectName, PackageName, Repository, Tag};

/// The namespace of everything that is not cluster-scoped.
pub const NAMESPACE: &str = "cpaas-system";

/// The longest label value (Kubernetes, "Labels and Selectors").
const LABEL_BYTES_MAX: usize = 63;

/// What kind of object a [`Resource`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum ResourceKind {
    /// An operator.
    Artifact,
    /// One version of an operator.
    ArtifactVersion,
    /// A cluster plugin, on the global cluster only.
    ModulePlugin,
}

impl ResourceKind {
    /// Returns the kind as Kubernetes writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Artifact => "Artifact",
            Self::ArtifactVersion => "ArtifactVersion",
            Self::ModulePlugin => "ModulePlugin",
        }
    }

    /// Returns the plural that API paths use.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Artifact => "artifacts",
            Self::ArtifactVersion => "artifactversions",
            Self::ModulePlugin => "moduleplugins",
        }
    }

    /// Returns group and version.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Artifact | Self::ArtifactVersion => "app.alauda.io/v1alpha1",
            Self::ModulePlugin => "cluster.alauda.io/v1alpha1",
        }
    }

    /// Returns the namespace, or nothing for what is cluster-scoped.
    pub const fn namespace(self) -> Option<&'static str> {
        match self {
            Self::Artifact | Self::ArtifactVersion => Some(NAMESPACE),
            Self::ModulePlugin => None,
        }
    }
}

/// One object as it is wanted on one cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resource {
    /// The cluster that holds it.
    pub cluster: ClusterName,
    /// What it is.
    pub kind: ResourceKind,
    /// Its name; the same as `body.metadata.name`.
    pub name: ObjectName,
    /// The whole object, without anything that only a server can know.
    pub body: Value,
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} `{}` on cluster `{}`",
            self.kind.name(),
            self.name,
            self.cluster
        )
    }
}

impl Resource {
    /// Returns the name of the `Artifact` that must own this object; `None` for what needs no owner.
    pub fn owner(&self) -> Option<&str> {
        match self.kind {
            ResourceKind::ArtifactVersion => self
                .body
                .pointer("/metadata/ownerReferences/0/name")
                .and_then(Value::as_str),
            ResourceKind::Artifact | ResourceKind::ModulePlugin => None,
        }
    }
}

/// What is to be known of an operator package to publish it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorInfo {
    /// The package, which names the `Artifact`.
    pub name: PackageName,
    /// For people.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// `host` or `host:port` from which the cluster pulls. Not where a standby is pushed to.
    pub registry: String,
    /// The repository of the bundle image.
    pub repository: Repository,
    /// The tag of the bundle image, which is the version.
    pub tag: Tag,
    /// The catalog that lists it: `platform`, `system` or `custom`.
    pub catalog_source: String,
    /// Names of Secrets in the namespace, for pulling the bundle image.
    pub image_pull_secrets: Vec<String>,
}

/// Returns what publishes an operator: on each cluster an `Artifact`, then its `ArtifactVersion`, in this order.
///
/// # Errors
///
/// [`Error::Name`] if the name or the tag cannot be part of a Kubernetes name or label, or the catalog not a label.
pub fn operator_resources(
    info: &OperatorInfo,
    clusters: &[ClusterName],
) -> Result<Vec<Resource>, Error> {
    let artifact = object_name(info.name.as_str())?;
    let version = object_name(&format!("{}.{}", info.name, info.tag))?;
    check_label(info.name.as_str())?;
    check_label(&info.catalog_source)?;
    Ok(clusters
        .iter()
        .flat_map(|cluster| {
            [
                Resource {
                    cluster: cluster.clone(),
                    kind: ResourceKind::Artifact,
                    name: artifact.clone(),
                    body: artifact_body(info),
                },
                Resource {
                    cluster: cluster.clone(),
                    kind: ResourceKind::ArtifactVersion,
                    name: version.clone(),
                    body: version_body(info, &version),
                },
            ]
        })
        .collect())
}

fn artifact_body(info: &OperatorInfo) -> Value {
    let kind = ResourceKind::Artifact;
    let mut labels = labels(info);
    // Operators of the custom catalog say "false", all others seen say "true".
    let is_custom = info.catalog_source == "custom";
    labels["cpaas.io/builtin"] = json!(if is_custom { "false" } else { "true" });
    json!({
        "apiVersion": kind.api_version(),
        "kind": kind.name(),
        "metadata": {
            "name": info.name,
            "namespace": kind.namespace(),
            "labels": labels,
        },
        "spec": {
            "artifactVersionSelector": {
                "matchLabels": {"cpaas.io/artifact-version": info.name},
            },
            "description": info.description,
            "displayName": info.display_name,
            "imagePullSecrets": info.image_pull_secrets,
            "present": true,
            "registry": info.registry,
            "repository": info.repository,
            "type": "bundle",
        },
    })
}

fn version_body(info: &OperatorInfo, name: &ObjectName) -> Value {
    let kind = ResourceKind::ArtifactVersion;
    let mut labels = labels(info);
    labels["cpaas.io/artifact-version"] = json!(info.name);
    json!({
        "apiVersion": kind.api_version(),
        "kind": kind.name(),
        "metadata": {
            "name": name,
            "namespace": kind.namespace(),
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": ResourceKind::Artifact.api_version(),
                "kind": ResourceKind::Artifact.name(),
                "name": info.name,
            }],
        },
        "spec": {"present": true, "tag": info.tag},
    })
}

/// Labels that both objects of an operator carry.
fn labels(info: &OperatorInfo) -> Value {
    json!({
        "cpaas.io/library": info.catalog_source,
        "cpaas.io/managed-by": "violet",
        "cpaas.io/operator": info.name,
        "cpaas.io/present": "true",
        "cpaas.io/type": "bundle",
    })
}

pub(super) fn object_name(text: &str) -> Result<ObjectName, Error> {
    text.parse().map_err(|source| Error::Name {
        name: text.to_owned(),
        source,
    })
}

fn check_label(text: &str) -> Result<(), Error> {
    object_name(text)?;
    if text.len() > LABEL_BYTES_MAX {
        return Err(Error::Label {
            value: text.to_owned(),
            bytes_max: LABEL_BYTES_MAX,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Class, Classified as _};

    fn info() -> OperatorInfo {
        OperatorInfo {
            name: "redis-operator".parse().unwrap(),
            display_name: "Redis".to_owned(),
            description: "Redis operator bundle image".to_owned(),
            registry: "registry.example:11443".to_owned(),
            repository: "middleware/redis-operator-bundle".parse().unwrap(),
            tag: "v4.2.0-rc.1".parse().unwrap(),
            catalog_source: "platform".to_owned(),
            image_pull_secrets: Vec::new(),
        }
    }

    fn clusters(names: &[&str]) -> Vec<ClusterName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn an_operator_becomes_an_artifact_and_its_version() {
        let resources = operator_resources(&info(), &clusters(&["global"])).unwrap();
        assert_eq!(resources[1].owner(), Some("redis-operator"));
        let text = serde_saphyr::to_string_multiple(
            &resources
                .iter()
                .map(|resource| resource.body.clone())
                .collect::<Vec<_>>(),
        )
        .unwrap();
        insta::assert_snapshot!(text, @r#"
        apiVersion: app.alauda.io/v1alpha1
        kind: Artifact
        metadata:
          labels:
            cpaas.io/builtin: "true"
            cpaas.io/library: platform
            cpaas.io/managed-by: violet
            cpaas.io/operator: redis-operator
            cpaas.io/present: "true"
            cpaas.io/type: bundle
          name: redis-operator
          namespace: cpaas-system
        spec:
          artifactVersionSelector:
            matchLabels:
              cpaas.io/artifact-version: redis-operator
          description: Redis operator bundle image
          displayName: Redis
          imagePullSecrets: []
          present: true
          registry: registry.example:11443
          repository: middleware/redis-operator-bundle
          type: bundle
        ---
        apiVersion: app.alauda.io/v1alpha1
        kind: ArtifactVersion
        metadata:
          labels:
            cpaas.io/artifact-version: redis-operator
            cpaas.io/library: platform
            cpaas.io/managed-by: violet
            cpaas.io/operator: redis-operator
            cpaas.io/present: "true"
            cpaas.io/type: bundle
          name: redis-operator.v4.2.0-rc.1
          namespace: cpaas-system
          ownerReferences:
          - apiVersion: app.alauda.io/v1alpha1
            kind: Artifact
            name: redis-operator
        spec:
          present: true
          tag: v4.2.0-rc.1
        "#);
    }

    #[test]
    fn every_cluster_gets_the_artifact_before_the_version() {
        let resources = operator_resources(&info(), &clusters(&["global", "business-1"])).unwrap();
        let found: Vec<String> = resources.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(found.join("\n"), @"
        Artifact `redis-operator` on cluster `global`
        ArtifactVersion `redis-operator.v4.2.0-rc.1` on cluster `global`
        Artifact `redis-operator` on cluster `business-1`
        ArtifactVersion `redis-operator.v4.2.0-rc.1` on cluster `business-1`
        ");
    }

    #[test]
    fn custom_operators_are_not_built_in() {
        let info = OperatorInfo {
            catalog_source: "custom".to_owned(),
            ..info()
        };
        let resources = operator_resources(&info, &clusters(&["global"])).unwrap();
        let labels = &resources[0].body["metadata"]["labels"];
        assert_eq!(labels["cpaas.io/builtin"], "false");
        assert_eq!(labels["cpaas.io/library"], "custom");
    }

    #[test]
    fn names_that_kubernetes_would_refuse_are_refused_here() {
        let with = |name: &str, tag: &str, catalog: &str| {
            let info = OperatorInfo {
                name: name.parse().unwrap(),
                tag: tag.parse().unwrap(),
                catalog_source: catalog.to_owned(),
                ..info()
            };
            operator_resources(&info, &clusters(&["global"]))
        };
        for (name, tag, catalog) in [
            ("Redis", "v1", "platform"),
            ("redis_operator", "v1", "platform"),
            ("redis", "V1_0", "platform"),
            ("redis", "v1", "../platform"),
            ("redis", "v1", ""),
            (&"r".repeat(64), "v1", "platform"),
        ] {
            let error = with(name, tag, catalog).unwrap_err();
            assert_eq!(error.class(), Class::Rejected, "{name} {tag} {catalog}");
        }
    }
}
