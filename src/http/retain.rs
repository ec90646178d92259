//! `/v1/retain`, `/v1/pins` and `/v1/collect`: what goes and what stays.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use super::metrics::gauge;
use super::status::Sources;
use super::{problem, refuse};
use crate::retain::job::{Handle, RequestError};
use crate::retain::{
    Approval, Collector, Counters, Error, GRACE_MIN, Mode, Order, PlanId, Planner, Request,
    Retention, list_pins,
};

/// What is known of retention and collection, and who does it.
#[derive(Clone, Debug)]
pub struct Control {
    /// Makes plans and changes pins.
    pub planner: Planner,
    /// Removes packages.
    pub retention: Handle<Retention>,
    /// Removes blobs.
    pub collection: Handle<Collector>,
    /// What was removed.
    pub counters: Arc<Counters>,
}

/// Body of `POST /v1/retain/apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyBody {
    /// The plan that is approved, where only that one may be carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanId>,
    /// Only these packages of the plan, by their digests or how those begin; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
}

/// Body of `POST /v1/pins/{package}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinBody {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `POST /v1/collect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectBody {
    /// Whether nothing is changed.
    #[serde(default)]
    pub dry_run: bool,
    /// A grace period in place of the configured one, such as `1h`. At least a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<String>,
}

impl From<&ApplyBody> for Order {
    fn from(body: &ApplyBody) -> Self {
        Self {
            approval: Approval::Request,
            plan: body.plan.clone(),
            only: body.only.clone(),
        }
    }
}

impl CollectBody {
    /// Reads what is asked for; nothing where the grace period is none.
    pub fn request(&self) -> Option<Request> {
        let grace = match &self.grace {
            Some(text) => Some(parse_grace(text)?),
            None => None,
        };
        let mode = if self.dry_run {
            Mode::DryRun
        } else {
            Mode::Remove
        };
        Some(Request { mode, grace })
    }
}

fn parse_grace(text: &str) -> Option<Duration> {
    let grace = humantime::parse_duration(text).ok()?;
    (grace >= GRACE_MIN).then_some(grace)
}

/// Says what retention would do.
pub(super) async fn get_plan(State(sources): State<Sources>) -> Response {
    let planner = sources.retain.planner;
    blocking(move || planner.plan()).await
}

/// Does it.
pub(super) async fn post_apply(
    State(sources): State<Sources>,
    Json(body): Json<ApplyBody>,
) -> Response {
    respond(sources.retain.retention.request(Order::from(&body)).await)
}

/// Lists the pins.
pub(super) async fn get_pins(State(sources): State<Sources>) -> Response {
    blocking(move || list_pins(&sources.catalog)).await
}

/// Pins the packages that are called so.
pub(super) async fn post_pin(
    State(sources): State<Sources>,
    UrlPath(package): UrlPath<String>,
    Json(body): Json<PinBody>,
) -> Response {
    let planner = sources.retain.planner;
    blocking(move || planner.pin(&package, body.reason.as_deref())).await
}

/// Removes the pins of the packages that are called so.
pub(super) async fn delete_pin(
    State(sources): State<Sources>,
    UrlPath(package): UrlPath<String>,
) -> Response {
    let planner = sources.retain.planner;
    blocking(move || planner.unpin(&package)).await
}

/// Collects.
pub(super) async fn post_collect(
    State(sources): State<Sources>,
    Json(body): Json<CollectBody>,
) -> Response {
    let Some(request) = body.request() else {
        let found = body.grace.unwrap_or_default();
        let detail = format!("expected a grace period of at least 1s, found `{found}`");
        return problem(StatusCode::BAD_REQUEST, detail, None);
    };
    respond(sources.retain.collection.request(request).await)
}

/// Works off the async threads and answers with what came of it.
async fn blocking<T: Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(error)) => refuse(&error),
        Err(error) => refuse(&Error::Thread(error)),
    }
}

fn respond<T: Serialize>(result: Result<T, RequestError<Error>>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(RequestError::Failed(error)) => refuse(&error),
        Err(error @ RequestError::Busy) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), None)
        }
    }
}

/// Adds the metrics.
pub(super) fn register(registry: &mut Registry, counters: &Counters) {
    for (name, help, value) in [
        (
            "retention_packages_removed",
            "Packages that retention has removed since the start",
            &counters.packages_removed,
        ),
        (
            "collection_blobs_removed",
            "Blobs that collection has removed since the start",
            &counters.blobs_removed,
        ),
        (
            "collection_removed_bytes",
            "Bytes of blobs that collection has removed since the start",
            &counters.bytes_removed,
        ),
    ] {
        registry.register(name, help, ConstCounter::new(value.load(Ordering::Relaxed)));
    }
    let Some(last) = counters.last_collected() else {
        return;
    };
    let unwanted_blobs = last.condemned.blobs + last.waiting.blobs + last.leased.blobs;
    let unwanted_bytes = last.condemned.bytes + last.waiting.bytes + last.leased.bytes;
    for (name, help, value) in [
        (
            "collection_unwanted_blobs",
            "Blobs that no package keeps and that the last collection has left",
            unwanted_blobs,
        ),
        (
            "collection_unwanted_bytes",
            "Bytes of blobs that no package keeps and that the last collection has left",
            unwanted_bytes,
        ),
        (
            "collection_kept_blobs",
            "Blobs that are wanted, as the last collection has seen it",
            last.kept.blobs,
        ),
        (
            "collection_kept_bytes",
            "Bytes of blobs that are wanted, as the last collection has seen it",
            last.kept.bytes,
        ),
    ] {
        registry.register(name, help, gauge(i64::try_from(value).unwrap_or(i64::MAX)));
    }
}
