//! An Alauda Container Platform behind its HTTPS address: its login, its cluster proxy and its resources.
//!
//! # Layout
//!
//! ```text
//! wire      one request: time limits, repetition
//! login     five requests that make a token of a password
//! session   the token in use
//! object    Kubernetes paths, answers and refusals
//! verdict   waiting for the platform's controllers
//! ```
//!
//! # Concurrency
//!
//! Any number of requests at once; one login at a time. Nothing is kept but the token and idle connections.
//!
//! # References
//!
//! Kubernetes API concepts: "Server-Side Apply", "Efficient detection of changes"; the platform's custom resource
//! definitions `artifacts` and `artifactversions` (`app.alauda.io`), `moduleplugins` and `moduleconfigs`
//! (`cluster.alauda.io`), `productbases` (`product.alauda.io`).

mod login;
mod object;
mod session;
mod verdict;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use self::object::{PRODUCT_BASES, PUBLIC_CONFIG_MAPS, Place, refusal};
use self::session::Session;
use self::wire::{Answer, Repeat, Request, Wire};
use super::{
    AcpOptions, Applied, Conflicts, Counters, Error, FIELD_MANAGER, Observed, Resource,
    ResourceKind, Verdict, is_subset,
};
use crate::base::{Clock, ClusterName};

/// A client of one platform. Cheap to clone; clones share token, connections and counters.
#[derive(Clone, Debug)]
pub struct Acp(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Arc<AcpOptions>,
    wire: Wire,
    session: Session,
}

#[derive(Deserialize)]
struct ClusterList {
    items: Vec<ClusterEntry>,
}

#[derive(Deserialize)]
struct ClusterEntry {
    metadata: ClusterMetadata,
}

#[derive(Deserialize)]
struct ClusterMetadata {
    name: String,
}

impl Acp {
    /// Returns a client. Nothing is sent before the first method is called.
    pub fn new(options: AcpOptions, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        options.retries.check()?;
        let options = Arc::new(options);
        let wire = Wire::new(Arc::clone(&options), Arc::clone(&clock))?;
        let session = Session::new(&options, wire.clone(), clock);
        Ok(Self(Arc::new(Inner {
            options,
            wire,
            session,
        })))
    }

    /// Returns the names of the platform's clusters, in the platform's order.
    pub async fn list_clusters(&self) -> Result<Vec<String>, Error> {
        let wire = &self.0.wire;
        let request = Request::get(
            wire.url(&["auth", "v1", "clusters"]),
            wire.action("list the clusters".to_owned()),
        );
        let answer = self.call(&request).await?;
        if answer.status != StatusCode::OK {
            return Err(refusal(&answer, request.action));
        }
        let list: ClusterList = answer.json(&request.action)?;
        Ok(list
            .items
            .into_iter()
            .map(|item| item.metadata.name)
            .collect())
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        let known = self.list_clusters().await?;
        for cluster in &self.0.options.clusters {
            if !known.iter().any(|name| name == cluster.as_str()) {
                return Err(Error::ClusterUnknown {
                    address: self.0.options.address.clone(),
                    cluster: cluster.clone(),
                    known,
                });
            }
            let mut kinds = vec![ResourceKind::Artifact];
            if *cluster == ClusterName::global() {
                kinds.push(ResourceKind::ModulePlugin);
            }
            for kind in kinds {
                self.check_kind(cluster, kind).await?;
            }
        }
        Ok(())
    }

    /// Checks that a cluster can be reached through the proxy and serves the API group of `kind`.
    async fn check_kind(&self, cluster: &ClusterName, kind: ResourceKind) -> Result<(), Error> {
        let wire = &self.0.wire;
        let request = Request::get(
            Place::group(cluster, kind.into()).url(wire),
            wire.action(format!("look at the resources of cluster `{cluster}`")),
        );
        let answer = self.call(&request).await?;
        if answer.status == StatusCode::OK {
            Ok(())
        } else {
            Err(refusal(&answer, request.action))
        }
    }

    /// Asks `ProductBase` for the registry's address, and if it has none follows its own preference between the
    /// platform's address and what `kube-public/global-info` says.
    pub(super) async fn pull_registry(&self) -> Result<String, Error> {
        if let Some(registry) = &self.0.options.pull_registry {
            return Ok(registry.clone());
        }
        let global = ClusterName::global();
        let mut base = None;
        for api in PRODUCT_BASES {
            let place = Place::object(&global, api, "base");
            base = self.find_if_served(&place, "ProductBase `base`").await?;
            if base.is_some() {
                break;
            }
        }
        if let Some(registry) = base
            .as_ref()
            .and_then(|base| host_at(base, "/spec/registry/address"))
        {
            return Ok(registry);
        }
        let prefers_url = base
            .as_ref()
            .and_then(|base| base.pointer("/spec/registry/preferPlatformURL"))
            == Some(&Value::Bool(true));
        let platform_url = base
            .as_ref()
            .and_then(|base| host_at(base, "/spec/platformURL"));
        if let Some(host) = platform_url.filter(|_| prefers_url) {
            return Ok(host);
        }
        let place = Place::object(&global, PUBLIC_CONFIG_MAPS, "global-info");
        let info = self
            .find_if_served(&place, "ConfigMap `global-info`")
            .await?;
        info.as_ref()
            .and_then(|info| {
                host_at(info, "/data/registryAddress")
                    .or_else(|| host_at(info, "/data/platformURL"))
            })
            .ok_or_else(|| Error::PullRegistryUnknown {
                address: self.0.options.address.clone(),
            })
    }

    pub(super) async fn observe(&self, resource: &Resource) -> Result<Observed, Error> {
        let Some(found) = self
            .find(&Place::of(resource), &resource.to_string())
            .await?
        else {
            return Ok(Observed::Absent);
        };
        let wanted = match self.complete(resource).await {
            Ok(wanted) => wanted,
            // It cannot be right without its owner.
            Err(Error::OwnerAbsent { .. }) => return Ok(Observed::Different),
            Err(error) => return Err(error),
        };
        let is_going = found.pointer("/metadata/deletionTimestamp").is_some();
        Ok(
            if is_subset(&wanted, &found) && is_ours(&found) && !is_going {
                Observed::Same
            } else {
                Observed::Different
            },
        )
    }

    pub(super) async fn apply(&self, resource: &Resource) -> Result<Applied, Error> {
        let place = Place::of(resource);
        let wanted = self.complete(resource).await?;
        let before = self.find(&place, &resource.to_string()).await?;

        let wire = &self.0.wire;
        let mut url = place.url(wire);
        let force = self.0.options.conflicts == Conflicts::TakeOver;
        url.query_pairs_mut()
            .append_pair("fieldManager", FIELD_MANAGER)
            .append_pair("fieldValidation", "Strict")
            .append_pair("force", if force { "true" } else { "false" });
        let request = Request {
            method: Method::PATCH,
            url,
            // JSON is YAML.
            body: Some(("application/apply-patch+yaml", wanted.to_string().into())),
            action: wire.action(format!("apply {resource}")),
            repeat: Repeat::Always,
        };
        let answer = self.call(&request).await?;
        let applied = match answer.status {
            StatusCode::CREATED => Applied::Created,
            StatusCode::OK => {
                let after: Value = answer.json(&request.action)?;
                let before = before.as_ref().and_then(resource_version);
                if before.is_some() && before == resource_version(&after) {
                    Applied::Unchanged
                } else {
                    Applied::Updated
                }
            }
            _ => return Err(refusal(&answer, request.action)),
        };
        tracing::debug!(%resource, ?applied, "applied");
        Ok(applied)
    }

    pub(super) async fn wait_verdict(
        &self,
        resource: &Resource,
        timeout: Duration,
    ) -> Result<Verdict, Error> {
        verdict::wait(self, resource, timeout).await
    }

    pub(super) fn counters(&self) -> Counters {
        self.0.wire.tally.counters()
    }

    /// Returns the body to apply: that of `resource` with the `uid` of its live owner.
    async fn complete(&self, resource: &Resource) -> Result<Value, Error> {
        let mut body = resource.body.clone();
        let Some(owner) = resource.owner() else {
            return Ok(body);
        };
        let place = Place::object(&resource.cluster, ResourceKind::Artifact.into(), owner);
        let absent = || Error::OwnerAbsent {
            action: self.0.wire.action(format!("apply {resource}")),
            owner: owner.to_owned(),
        };
        let words = format!("Artifact `{owner}` on cluster `{}`", resource.cluster);
        let found = self.find(&place, &words).await?.ok_or_else(absent)?;
        let uid = found.pointer("/metadata/uid").cloned().ok_or_else(absent)?;
        body["metadata"]["ownerReferences"][0]["uid"] = uid;
        Ok(body)
    }

    /// Returns an object, or nothing if the server says that it, and not its kind or cluster, does not exist.
    async fn find(&self, place: &Place, words: &str) -> Result<Option<Value>, Error> {
        let wire = &self.0.wire;
        let request = Request::get(place.url(wire), wire.action(format!("read {words}")));
        let answer = self.call(&request).await?;
        match answer.status {
            StatusCode::OK => answer.json(&request.action).map(Some),
            StatusCode::NOT_FOUND if place.is_missing(&answer) => Ok(None),
            _ => Err(refusal(&answer, request.action)),
        }
    }

    /// The same for an object that some platforms do not have, or do not show to us.
    async fn find_if_served(&self, place: &Place, words: &str) -> Result<Option<Value>, Error> {
        match self.find(place, words).await {
            Err(Error::NotServed { .. } | Error::Forbidden { .. }) => Ok(None),
            other => other,
        }
    }

    /// Sends a request with a token; if that one is refused, once more with a new one.
    async fn call(&self, request: &Request) -> Result<Answer, Error> {
        let Inner { wire, session, .. } = &*self.0;
        let grant = session.token().await?;
        let answer = wire.exchange(request, Some(&grant.token)).await?;
        if answer.status != StatusCode::UNAUTHORIZED || !session.discard(&grant).await {
            return Ok(answer);
        }
        let grant = session.token().await?;
        wire.exchange(request, Some(&grant.token)).await
    }
}

/// Returns whether the object's fields are applied by us, too.
fn is_ours(object: &Value) -> bool {
    object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|entry| entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply")
}

fn resource_version(object: &Value) -> Option<&str> {
    object.pointer("/metadata/resourceVersion")?.as_str()
}

/// Returns the `host[:port]` that a field holds, as such or as a URL; `None` if it is missing or empty.
fn host_at(object: &Value, pointer: &str) -> Option<String> {
    let text = object.pointer(pointer)?.as_str()?.trim();
    if text.contains("://") {
        let url = Url::parse(text).ok()?;
        let host = url.host_str()?;
        return Some(match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        });
    }
    let host = text.trim_end_matches('/');
    (!host.is_empty()).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn registries_are_hosts_however_they_are_written() {
        for (text, host) in [
            ("registry.example:11443", Some("registry.example:11443")),
            (" registry.example/ ", Some("registry.example")),
            ("https://platform.example", Some("platform.example")),
            (
                "https://platform.example:8443/console",
                Some("platform.example:8443"),
            ),
            ("https://[2001:db8::1]:8443", Some("[2001:db8::1]:8443")),
            ("", None),
            ("https://", None),
        ] {
            let found = host_at(&json!({"a": text}), "/a");
            assert_eq!(found.as_deref(), host, "input: {text:?}");
        }
        assert_eq!(host_at(&json!({}), "/a"), None);
    }

    #[test]
    fn only_an_apply_of_ours_makes_an_object_ours() {
        let with = |manager: &str, operation: &str| {
            is_ours(
                &json!({"metadata": {"managedFields": [{"manager": manager, "operation": operation}]}}),
            )
        };
        assert!(with("violetd", "Apply"));
        assert!(!with("violetd", "Update"));
        assert!(!with("kubectl", "Apply"));
        assert!(!is_ours(&json!({})));
    }
}
