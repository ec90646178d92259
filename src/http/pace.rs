//! How fast and how much at once registries are asked: what is said of it, and changing the limit on bytes per second.

use std::num::NonZeroU64;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use super::find_target;
use super::status::Sources;
use crate::base::{ByteCount, Timestamp};
use crate::replicate::{BreakerState, KindState, PaceState};

/// How fast and how much at once a registry is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaceView {
    /// The most bytes of blobs that are sent per second; none is without limit.
    pub bandwidth_max: Option<NonZeroU64>,
    /// Bytes of blobs that were sent since the daemon started.
    pub passed_bytes: u64,
    /// Whether the registry is there.
    pub breaker: BreakerName,
    /// Until when it is left alone, because it is gone.
    pub resting_until: Option<Timestamp>,
    /// Until when it wants no request (`Retry-After`).
    pub held_until: Option<Timestamp>,
    /// The requests of each kind.
    pub kinds: Vec<KindView>,
}

/// Whether a registry is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerName {
    /// As far as is known.
    Closed,
    /// It is not, and is left alone for a while.
    Open,
    /// One request finds out.
    Probing,
}

/// The requests of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindView {
    /// `reads`, `uploads` or `manifests`.
    pub kind: String,
    /// How many may be in flight now.
    pub limit: usize,
    /// How many may be at the most.
    pub limit_max: usize,
    /// How many are.
    pub in_flight: usize,
    /// How many wait for their turn.
    pub waiting: usize,
    /// How many were answered with 429 or 503 since the daemon started.
    pub refused: u64,
}

impl From<PaceState> for PaceView {
    fn from(state: PaceState) -> Self {
        let (breaker, resting_until) = match state.breaker {
            BreakerState::Closed => (BreakerName::Closed, None),
            BreakerState::Resting(until) => (BreakerName::Open, Some(until)),
            BreakerState::Probing => (BreakerName::Probing, None),
        };
        Self {
            bandwidth_max: state.bandwidth_max,
            passed_bytes: state.passed_bytes,
            breaker,
            resting_until,
            held_until: state.held_until,
            kinds: state.kinds.into_iter().map(KindView::from).collect(),
        }
    }
}

impl From<KindState> for KindView {
    fn from(state: KindState) -> Self {
        Self {
            kind: state.kind.name().to_owned(),
            limit: state.limit,
            limit_max: state.limit_max,
            in_flight: state.in_flight,
            waiting: state.waiting,
            refused: state.refused,
        }
    }
}

/// What `POST /v1/targets/{name}/limit` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitBody {
    /// Bytes per second; none is without limit.
    pub bandwidth_max: Option<NonZeroU64>,
}

/// Changes the limit of a target. Answers with what holds now.
pub(super) async fn post_limit(
    State(sources): State<Sources>,
    Path(name): Path<String>,
    Json(body): Json<LimitBody>,
) -> Response {
    let target = match find_target(&sources, &name) {
        Ok(target) => target,
        Err(refusal) => return *refusal,
    };
    target.handle.set_bandwidth(body.bandwidth_max);
    let limit = body.bandwidth_max.map(|limit| ByteCount(limit.get()));
    let limit = limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
    tracing::info!(target = %target.name, %limit, "bandwidth was changed until the daemon ends");
    let view = PaceView::from(target.handle.pace());
    (StatusCode::OK, Json(view)).into_response()
}

/// Labels of what is counted per target and kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    target: String,
    role: String,
    kind: String,
}

/// Labels of what is counted per target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    target: String,
    role: String,
}

/// The metrics of all targets.
#[derive(Debug, Default)]
struct Families {
    limit: Family<KindLabels, Gauge>,
    in_flight: Family<KindLabels, Gauge>,
    waiting: Family<KindLabels, Gauge>,
    refused: Family<KindLabels, Counter>,
    breaker: Family<TargetLabels, Gauge>,
    bandwidth: Family<TargetLabels, Gauge>,
    passed: Family<TargetLabels, Counter>,
}

impl Families {
    fn put(&self, target: &str, role: &str, pace: &PaceView) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for kind in &pace.kinds {
            let labels = KindLabels {
                target: target.to_owned(),
                role: role.to_owned(),
                kind: kind.kind.clone(),
            };
            for (family, value) in [
                (&self.limit, kind.limit),
                (&self.in_flight, kind.in_flight),
                (&self.waiting, kind.waiting),
            ] {
                family.get_or_create(&labels).set(gauge(value as u64));
            }
            self.refused.get_or_create(&labels).inc_by(kind.refused);
        }
        let labels = TargetLabels {
            target: target.to_owned(),
            role: role.to_owned(),
        };
        let breaker = match pace.breaker {
            BreakerName::Closed => 0,
            BreakerName::Probing => 1,
            BreakerName::Open => 2,
        };
        self.breaker.get_or_create(&labels).set(breaker);
        let bandwidth = pace.bandwidth_max.map_or(0, NonZeroU64::get);
        self.bandwidth.get_or_create(&labels).set(gauge(bandwidth));
        self.passed.get_or_create(&labels).inc_by(pace.passed_bytes);
    }
}

/// Adds what is known of the pace at all targets to the metrics.
pub(super) fn register(registry: &mut Registry, sources: &Sources) {
    let families = Families::default();
    for target in &sources.targets {
        let pace = PaceView::from(target.handle.pace());
        families.put(target.name.as_str(), target.role.name(), &pace);
    }
    registry.register(
        "target_concurrency_limit",
        "Requests of a kind that may be in flight",
        families.limit,
    );
    registry.register(
        "target_requests_in_flight",
        "Requests of a kind that are in flight",
        families.in_flight,
    );
    registry.register(
        "target_requests_waiting",
        "Requests of a kind that wait for their turn",
        families.waiting,
    );
    registry.register(
        "target_requests_refused",
        "Requests of a kind that were answered with 429 or 503",
        families.refused,
    );
    registry.register(
        "target_breaker_state",
        "Whether the registry is there: 0 yes, 1 one request finds out, 2 no, it is left alone",
        families.breaker,
    );
    registry.register(
        "target_bandwidth_max_bytes",
        "The most bytes of blobs that are sent per second, 0 is without limit",
        families.bandwidth,
    );
    registry.register(
        "target_sent_bytes",
        "Bytes of blobs that were sent",
        families.passed,
    );
}
