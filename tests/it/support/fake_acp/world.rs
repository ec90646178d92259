//! What the clusters hold, and its history.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::apply::Managed;
use super::schema::Kind;

/// Where an object is: cluster, plural, namespace (empty if it has none), name.
pub(super) type Key = (String, &'static str, String, String);

/// The manager of what the platform's own controllers write.
pub(super) const CONTROLLER: &str = "marketplace-controller";

/// What the platform makes of an `ArtifactVersion` that has an owner and an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ArtifactVerdict {
    /// It becomes `Pending`, then `Present`.
    #[default]
    Present,
    /// It becomes `Failed` with this message.
    Failed(String),
    /// It stays `Pending`.
    Undecided,
}

/// A change of an object.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) version: u64,
    pub(super) key: Key,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(super) kind: &'static str,
    pub(super) object: Value,
}

/// All clusters.
#[derive(Debug)]
pub(super) struct World {
    pub(super) clusters: Vec<String>,
    objects: BTreeMap<Key, Managed>,
    version: u64,
    uids: u64,
    pub(super) events: Vec<Event>,
    /// Watches from before this version are refused.
    pub(super) oldest: u64,
    /// `repository:tag` of what can be pulled; `None` is everything.
    pub(super) images: Option<BTreeSet<String>>,
    pub(super) verdict: ArtifactVerdict,
}

impl World {
    pub(super) fn new(clusters: &[&str]) -> Self {
        Self {
            clusters: clusters.iter().map(|name| (*name).to_owned()).collect(),
            objects: BTreeMap::new(),
            version: 1000,
            uids: 0,
            events: Vec::new(),
            oldest: 0,
            images: None,
            verdict: ArtifactVerdict::default(),
        }
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn find(&self, key: &Key) -> Option<&Managed> {
        self.objects.get(key)
    }

    /// Returns the objects of one kind, in the order of their names.
    pub(super) fn list(&self, cluster: &str, plural: &str) -> Vec<(Key, Managed)> {
        self.objects
            .iter()
            .filter(|(key, _)| key.0 == cluster && key.1 == plural)
            .map(|(key, managed)| (key.clone(), managed.clone()))
            .collect()
    }

    /// Stores what was applied or updated. What changes nothing gets no new version.
    pub(super) fn store(&mut self, key: &Key, mut next: Managed) -> Value {
        let before = self.objects.get(key);
        if before == Some(&next) {
            return next.shown();
        }
        self.version += 1;
        let metadata = &mut next.object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        let kind = if let Some(before) = before {
            let generation = before.object["metadata"]["generation"]
                .as_u64()
                .unwrap_or(1);
            let has_changed = before.object["spec"] != next.object["spec"];
            next.object["metadata"]["generation"] = json!(generation + u64::from(has_changed));
            "MODIFIED"
        } else {
            self.uids += 1;
            metadata["uid"] = json!(format!("00000000-0000-4000-8000-{:012}", self.uids));
            metadata["generation"] = json!(1);
            metadata["creationTimestamp"] = json!("2026-11-20T10:00:00Z");
            "ADDED"
        };
        let shown = next.shown();
        self.objects.insert(key.clone(), next);
        self.record(key, kind, shown.clone());
        shown
    }

    pub(super) fn delete(&mut self, key: &Key) {
        if let Some(managed) = self.objects.remove(key) {
            self.version += 1;
            self.record(key, "DELETED", managed.shown());
        }
    }

    fn record(&mut self, key: &Key, kind: &'static str, object: Value) {
        self.events.push(Event {
            version: self.version,
            key: key.clone(),
            kind,
            object,
        });
    }

    /// Changes an object as `manager`, like a client that reads, changes and writes.
    pub(super) fn update(&mut self, key: &Key, manager: &str, change: impl FnOnce(&mut Value)) {
        let before = self.objects.get(key).cloned().unwrap_or_default();
        let mut object = before.object.clone();
        change(&mut object);
        if object != before.object {
            self.store(key, before.update(&object, manager));
        }
    }

    fn has_image(&self, repository: &str, tag: &str) -> bool {
        self.images
            .as_ref()
            .is_none_or(|images| images.contains(&format!("{repository}:{tag}")))
    }

    /// Lets the platform's controllers look at everything once. Returns whether they changed something.
    pub(super) fn reconcile(&mut self) -> bool {
        let before = self.version;
        for cluster in self.clusters.clone() {
            for (key, artifact) in self.list(&cluster, "artifacts") {
                self.reconcile_artifact(&key, &artifact.object);
            }
            for (key, version) in self.list(&cluster, "artifactversions") {
                self.reconcile_version(&key, &version.object);
            }
            for (key, plugin) in self.list(&cluster, "moduleplugins") {
                self.reconcile_plugin(&key, &plugin.object);
            }
        }
        self.version != before
    }

    /// An Artifact that is not violet's is switched off and loses its versions.
    fn reconcile_artifact(&mut self, key: &Key, artifact: &Value) {
        if artifact["metadata"]["labels"]["cpaas.io/managed-by"] == "violet" {
            return;
        }
        self.update(key, CONTROLLER, |object| {
            object["spec"]["present"] = json!(false);
        });
        let selector = &artifact["spec"]["artifactVersionSelector"]["matchLabels"];
        for (version_key, version) in self.list(&key.0, "artifactversions") {
            let labels = &version.object["metadata"]["labels"];
            let is_selected = selector
                .as_object()
                .is_some_and(|wanted| wanted.iter().all(|(name, value)| labels[name] == *value));
            if is_selected {
                self.delete(&version_key);
            }
        }
    }

    fn reconcile_version(&mut self, key: &Key, version: &Value) {
        let owner = version["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|owner| {
                let name = owner["name"].as_str()?;
                let key = (key.0.clone(), "artifacts", key.2.clone(), name.to_owned());
                let artifact = self.find(&key)?;
                (artifact.object["metadata"]["uid"] == owner["uid"])
                    .then(|| artifact.object.clone())
            });
        let phase = version["status"]["phase"].as_str().unwrap_or_default();
        let tag = version["spec"]["tag"].as_str().unwrap_or_default();
        let status = match (owner, &self.verdict) {
            (None, _) => failed("aritfactVersion not have OwnerReference"),
            (Some(owner), _)
                if !self.has_image(
                    owner["spec"]["repository"].as_str().unwrap_or_default(),
                    tag,
                ) =>
            {
                failed("failed to pull the bundle image: not found")
            }
            (Some(_), ArtifactVerdict::Failed(message)) => failed(message),
            (Some(_), ArtifactVerdict::Present) if matches!(phase, "Pending" | "Present") => {
                json!({
                    "phase": "Present",
                    "reason": "Success",
                    "message": "",
                    "name": version["metadata"]["labels"]["cpaas.io/artifact-version"],
                    "type": "bundle",
                    "version": key.3,
                })
            }
            (Some(_), ArtifactVerdict::Present | ArtifactVerdict::Undecided) => {
                json!({"phase": "Pending", "reason": "", "message": "syncing"})
            }
        };
        self.update(key, CONTROLLER, |object| object["status"] = status);
    }

    /// A plugin whose chart can be pulled gets a `ModuleConfig`, which then becomes ready.
    fn reconcile_plugin(&mut self, key: &Key, plugin: &Value) {
        let chart = plugin["spec"]["mainChart"].as_str().unwrap_or_default();
        let version = plugin["spec"]["version"]
            .as_str()
            .or_else(|| {
                plugin
                    .pointer("/spec/appReleases/0/chartVersions/0/version")?
                    .as_str()
            })
            .unwrap_or_default();
        if !self.has_image(chart, version) {
            let condition = json!([{
                "type": "Ready", "status": "False", "reason": "ChartMissing",
                "message": format!("chart {chart}:{version} not found"),
            }]);
            self.update(key, CONTROLLER, |object| {
                object["status"]["conditions"] = condition;
            });
            return;
        }
        let name = format!("{}-{version}", key.3);
        let config_key = (key.0.clone(), "moduleconfigs", String::new(), name.clone());
        let kind = Kind::named("ModuleConfig");
        let is_new = self.find(&config_key).is_none();
        self.update(&config_key, CONTROLLER, |object| {
            if is_new {
                *object = json!({
                    "apiVersion": kind.api_version,
                    "kind": kind.name,
                    "metadata": {"name": name, "labels": {"cpaas.io/module-version": version}},
                    "spec": plugin["spec"],
                });
            } else {
                object["status"] = json!({"readyForDeploy": true});
            }
        });
        if !is_new {
            let status = json!({
                "latestVersion": version,
                "moduleConfigs": [{"name": name, "version": version, "readyForDeploy": true}],
            });
            self.update(key, CONTROLLER, |object| object["status"] = status);
        }
    }
}

fn failed(message: &str) -> Value {
    json!({"phase": "Failed", "reason": "Failed", "message": message})
}
