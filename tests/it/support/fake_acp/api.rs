//! The Kubernetes API behind the proxy: read, list, watch, apply. As strict as the real one, and stricter where that
//! finds faults.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::schema::{KINDS, Kind, Scope};
use super::world::{Event, Key};
use super::{Shared, Watches};

type Parameters = BTreeMap<String, String>;

/// What a path is about.
struct Target {
    cluster: String,
    kind: Kind,
    namespace: String,
    name: Option<String>,
}

impl Target {
    fn key(&self) -> Key {
        let name = self.name.clone().unwrap_or_default();
        (
            self.cluster.clone(),
            self.kind.plural,
            self.namespace.clone(),
            name,
        )
    }
}

/// Lists the clusters.
pub(super) async fn clusters(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if !shared.logins.lock().unwrap().is_good(&headers) {
        return unauthorized();
    }
    let names = shared.world.lock().unwrap().clusters.clone();
    let items: Vec<Value> = names
        .iter()
        .map(|name| json!({"metadata": {"name": name}, "spec": {}, "status": {}}))
        .collect();
    Json(json!({"apiVersion": "clusterregistry.k8s.io/v1alpha1", "kind": "ClusterList", "items": items}))
        .into_response()
}

/// Everything under `/kubernetes/<cluster>/`.
#[expect(
    clippy::too_many_arguments,
    reason = "one for each part of a request that axum takes out"
)]
pub(super) async fn proxy(
    State(shared): State<Arc<Shared>>,
    Path((cluster, path)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !shared.logins.lock().unwrap().is_good(&headers) {
        return unauthorized();
    }
    if !shared.world.lock().unwrap().clusters.contains(&cluster) {
        return status(
            StatusCode::NOT_FOUND,
            "NotFound",
            &format!("cluster {cluster} not found"),
            json!({}),
        );
    }
    let segments: Vec<&str> = path.split('/').collect();
    if let Some(response) = discover(&cluster, &segments, &method) {
        return response;
    }
    let Some(target) = resolve(&cluster, &segments) else {
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    };
    match (&method, &target.name) {
        (&Method::GET, Some(_)) => read(&shared, &target),
        (&Method::GET, None) if parameters.get("watch").is_some_and(|watch| watch == "true") => {
            watch(&shared, &target, &parameters)
        }
        (&Method::GET, None) => list(&shared, &target, &parameters),
        (&Method::PATCH, Some(_)) => apply(&shared, &target, &parameters, &headers, &body),
        _ => status(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "not supported",
            json!({}),
        ),
    }
}

fn is_served(cluster: &str, kind: Kind) -> bool {
    kind.scope == Scope::Namespace || cluster == "global"
}

/// Answers for a group: `apis/<group>/<version>`.
fn discover(cluster: &str, segments: &[&str], method: &Method) -> Option<Response> {
    let ["apis", group, version] = segments else {
        return None;
    };
    let api_version = format!("{group}/{version}");
    let resources: Vec<Value> = KINDS
        .iter()
        .filter(|kind| kind.api_version == api_version && is_served(cluster, **kind))
        .map(|kind| json!({"name": kind.plural, "kind": kind.name, "namespaced": kind.scope == Scope::Namespace}))
        .collect();
    (*method == Method::GET && !resources.is_empty())
        .then(|| Json(json!({"kind": "APIResourceList", "resources": resources})).into_response())
}

fn resolve(cluster: &str, segments: &[&str]) -> Option<Target> {
    let (api_version, rest) = match segments {
        ["api", version, rest @ ..] => ((*version).to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] => ((*namespace).to_owned(), rest),
        rest => (String::new(), rest),
    };
    let (plural, name) = match rest {
        [plural] => (*plural, None),
        [plural, name] => (*plural, Some((*name).to_owned())),
        _ => return None,
    };
    let kind = *KINDS
        .iter()
        .find(|kind| kind.plural == plural && kind.api_version == api_version)?;
    (is_served(cluster, kind) && (kind.scope == Scope::Namespace) != namespace.is_empty())
        .then_some(Target {
            cluster: cluster.to_owned(),
            kind,
            namespace,
            name,
        })
}

fn read(shared: &Shared, target: &Target) -> Response {
    let world = shared.world.lock().unwrap();
    if let Some(managed) = world.find(&target.key()) {
        return Json(managed.shown()).into_response();
    }
    let name = target.name.as_deref().unwrap_or_default();
    status(
        StatusCode::NOT_FOUND,
        "NotFound",
        &format!("{} \"{name}\" not found", target.kind.plural),
        json!({"name": name, "kind": target.kind.plural}),
    )
}

/// Returns the name in `fieldSelector=metadata.name=<name>`, the only selector that is known.
fn selected(parameters: &Parameters) -> Option<&str> {
    parameters
        .get("fieldSelector")?
        .strip_prefix("metadata.name=")
}

fn list(shared: &Shared, target: &Target, parameters: &Parameters) -> Response {
    let world = shared.world.lock().unwrap();
    let items: Vec<Value> = world
        .list(&target.cluster, target.kind.plural)
        .into_iter()
        .filter(|(key, _)| selected(parameters).is_none_or(|name| name == key.3))
        .map(|(_, managed)| managed.shown())
        .collect();
    Json(json!({
        "apiVersion": target.kind.api_version,
        "kind": format!("{}List", target.kind.name),
        "metadata": {"resourceVersion": world.version().to_string()},
        "items": items,
    }))
    .into_response()
}

fn watch(shared: &Arc<Shared>, target: &Target, parameters: &Parameters) -> Response {
    let from: u64 = parameters
        .get("resourceVersion")
        .and_then(|version| version.parse().ok())
        .unwrap_or_default();
    let watches = *shared.watches.lock().unwrap();
    if watches == Watches::Refused {
        return status(
            StatusCode::FORBIDDEN,
            "Forbidden",
            "cannot watch",
            json!({}),
        );
    }
    let is_expired = from < shared.world.lock().unwrap().oldest;
    if watches == Watches::Closed || is_expired {
        let gone = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}});
        return format!("{gone}\n").into_response();
    }
    let (cluster, plural) = (target.cluster.clone(), target.kind.plural);
    let name = selected(parameters).map(str::to_owned);
    let is_wanted = move |event: &Event| {
        event.key.0 == cluster
            && event.key.1 == plural
            && name.as_ref().is_none_or(|name| *name == event.key.3)
    };
    let changes = shared.changes.subscribe();
    let guard = shared.watcher();
    let start = (Arc::clone(shared), changes, from, guard);
    let lines = stream::unfold(start, move |(shared, mut changes, from, guard)| {
        let is_wanted = is_wanted.clone();
        async move {
            loop {
                changes.borrow_and_update();
                let (text, version) = {
                    let world = shared.world.lock().unwrap();
                    let lines: Vec<String> = world
                        .events
                        .iter()
                        .filter(|event| event.version > from && is_wanted(event))
                        .map(|event| {
                            format!("{}\n", json!({"type": event.kind, "object": event.object}))
                        })
                        .collect();
                    (lines.concat(), world.version())
                };
                if !text.is_empty() {
                    let state = (shared, changes, version, guard);
                    return Some((Ok::<_, std::convert::Infallible>(text), state));
                }
                changes.changed().await.ok()?;
            }
        }
    });
    (
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(lines),
    )
        .into_response()
}

fn apply(
    shared: &Shared,
    target: &Target,
    parameters: &Parameters,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    if content_type != Some("application/apply-patch+yaml") {
        return status(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            "only application/apply-patch+yaml is taken here",
            json!({}),
        );
    }
    let Some(manager) = parameters
        .get("fieldManager")
        .filter(|manager| !manager.is_empty())
    else {
        return status(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            json!({}),
        );
    };
    if parameters.get("fieldValidation").map(String::as_str) != Some("Strict") {
        return status(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "this server wants fieldValidation=Strict",
            json!({}),
        );
    }
    let Some(wanted) = std::str::from_utf8(body)
        .ok()
        .and_then(|text| serde_saphyr::from_str::<Value>(text).ok())
    else {
        return status(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "error decoding YAML",
            json!({}),
        );
    };
    if let Err(response) = check(target, &wanted) {
        return *response;
    }
    let force = parameters.get("force").is_some_and(|force| force == "true");
    let response = store(shared, target, &wanted, (manager, force));
    shared.notify();
    response
}

/// Checks a document by itself.
fn check(target: &Target, wanted: &Value) -> Result<(), Box<Response>> {
    let bad = |message: &str| {
        Err(Box::new(status(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            message,
            json!({}),
        )))
    };
    let kind = target.kind;
    if wanted["apiVersion"] != kind.api_version || wanted["kind"] != kind.name {
        return bad("apiVersion and kind must be set, and those of the path");
    }
    if wanted["metadata"]["name"].as_str() != target.name.as_deref() {
        return bad("the name of the object does not match the name on the URL");
    }
    if kind.scope == Scope::Namespace
        && wanted["metadata"]["namespace"] != target.namespace.as_str()
    {
        return bad("the namespace of the object does not match the namespace on the URL");
    }
    if !wanted["metadata"]["managedFields"].is_null() {
        return bad("metadata.managedFields must be nil");
    }
    let missing = kind.missing(wanted);
    if let Some(path) = missing
        .iter()
        .find(|path| path.starts_with("metadata.ownerReferences"))
    {
        let message = format!("{path}: Required value");
        return Err(Box::new(status(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            &message,
            json!({}),
        )));
    }
    let faults = kind.type_faults(wanted);
    if !faults.is_empty() {
        let message = format!(
            "failed to create typed patch object ({}; {}, Kind={}): {}",
            target.name.as_deref().unwrap_or_default(),
            kind.api_version,
            kind.name,
            faults.join(", ")
        );
        return Err(Box::new(status(
            StatusCode::INTERNAL_SERVER_ERROR,
            "",
            &message,
            json!({}),
        )));
    }
    Ok(())
}

fn store(
    shared: &Shared,
    target: &Target,
    wanted: &Value,
    (manager, force): (&str, bool),
) -> Response {
    let mut world = shared.world.lock().unwrap();
    let key = target.key();
    let before = world.find(&key).cloned();
    let details = json!({"name": target.name, "kind": target.kind.plural});
    for field in ["resourceVersion", "uid"] {
        let expected = &wanted["metadata"][field];
        let found = before
            .as_ref()
            .map_or(&Value::Null, |before| &before.object["metadata"][field]);
        if !expected.is_null() && expected != found {
            let message = format!("the object has been modified: {field}");
            return status(StatusCode::CONFLICT, "Conflict", &message, details);
        }
    }
    let is_new = before.is_none();
    let mut base = before.unwrap_or_default();
    if is_new {
        base.object = json!({"metadata": {"name": target.name}});
        if target.kind.scope == Scope::Namespace {
            base.object["metadata"]["namespace"] = json!(target.namespace);
        }
    }
    let next = match base.apply(wanted, manager, force) {
        Ok(next) => next,
        Err(conflicts) => {
            let causes: Vec<Value> = conflicts
                .iter()
                .map(|(manager, field)| {
                    json!({
                        "reason": "FieldManagerConflict",
                        "message": format!("conflict with \"{manager}\" using {}", target.kind.api_version),
                        "field": field,
                    })
                })
                .collect();
            let message = format!("Apply failed with {} conflicts", causes.len());
            let mut details = details;
            details["causes"] = Value::from(causes);
            return status(StatusCode::CONFLICT, "Conflict", &message, details);
        }
    };
    let missing = target.kind.missing(&next.object);
    if !missing.is_empty() {
        let message = format!(
            "{} is invalid: {}: Required value",
            target.kind.name,
            missing.join(", ")
        );
        return status(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            &message,
            details,
        );
    }
    let code = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    (code, Json(world.store(&key, next))).into_response()
}

fn unauthorized() -> Response {
    status(
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        "Unauthorized",
        json!({}),
    )
}

/// Returns a Kubernetes `Status`.
#[expect(clippy::needless_pass_by_value, reason = "callers build it in place")]
pub(super) fn status(code: StatusCode, reason: &str, message: &str, details: Value) -> Response {
    let body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": details,
        "code": code.as_u16(),
    });
    (code, Json(body)).into_response()
}
