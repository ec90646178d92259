//! `/v1/scrub`: how scrubs go, what they found, and asking for one.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use super::metrics::gauge;
use super::status::Sources;
use crate::base::Digest;
use crate::retain::scrub::{Counts, Damage, Overview, Pass, Request};

/// Answer to `GET /v1/scrub`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScrubView {
    /// What is being done now: `pass`, `repair`, or nothing.
    pub running: Option<What>,
    /// The pass that is under way or was interrupted.
    pub current: Option<PassView>,
    /// The last pass that came to its end.
    pub last: Option<Pass>,
    /// Damaged blobs that are not repaired, ordered by digest.
    pub open: Vec<DamageView>,
    /// How many more are damaged than are listed.
    pub open_unlisted: u64,
    /// Blobs that were repaired lately, oldest first.
    pub repaired: Vec<Damage>,
    /// Counts since the state directory was made.
    pub total: Counts,
}

/// A pass that has not come to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassView {
    /// The pass.
    #[serde(flatten)]
    pub pass: Pass,
    /// How much of all digests it has looked at, in percent.
    pub percent: f64,
}

/// A damaged blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageView {
    /// The damage.
    #[serde(flatten)]
    pub damage: Damage,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A pass over all blobs; the interrupted one, if there is one.
    #[default]
    Pass,
    /// Another attempt to repair what is damaged.
    Repair,
}

/// What stands behind `POST /v1/scrub`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Parameters {
    #[serde(default)]
    what: What,
}

impl From<Overview> for ScrubView {
    fn from(overview: Overview) -> Self {
        let state = overview.state;
        let open = state.open.into_values().map(|damage| DamageView {
            hint: damage.hint(),
            damage,
        });
        Self {
            running: overview.running.map(|running| match running {
                Request::Pass | Request::Resume => What::Pass,
                Request::Repair => What::Repair,
            }),
            current: state.current.map(|pass| PassView {
                percent: percent(pass.position.as_ref()),
                pass,
            }),
            last: state.last,
            open: open.collect(),
            open_unlisted: state.open_unlisted,
            repaired: state.repaired,
            total: state.total,
        }
    }
}

/// Returns how far a pass is: digests are spread evenly, so that the first two bytes tell.
fn percent(position: Option<&Digest>) -> f64 {
    let share = position.map_or(0, |digest| {
        u16::from_be_bytes([digest.as_bytes()[0], digest.as_bytes()[1]])
    });
    f64::from(share) * 100.0 / f64::from(u16::MAX)
}

/// Returns a line about damage for the status, if there is any.
pub(super) fn summary(overview: &Overview) -> Option<String> {
    let state = &overview.state;
    let count = state.open_count();
    if count == 0 {
        return None;
    }
    let mut packages: Vec<&str> = state
        .open
        .values()
        .flat_map(|damage| &damage.packages)
        .map(|package| package.name.as_str())
        .collect();
    packages.sort_unstable();
    packages.dedup();
    let more = packages.len().saturating_sub(PACKAGES_SHOWN);
    packages.truncate(PACKAGES_SHOWN);
    let more = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    let packages = packages.join(", ");
    Some(format!(
        "{count} damaged blobs are not repaired (packages: {packages}{more}); see `violetd scrub`"
    ))
}

/// How many packages the line about damage names. Chosen, not measured.
const PACKAGES_SHOWN: usize = 5;

pub(super) async fn get_scrub(State(sources): State<Sources>) -> Response {
    Json(ScrubView::from(sources.scrub.overview())).into_response()
}

pub(super) async fn post_scrub(
    State(sources): State<Sources>,
    Query(parameters): Query<Parameters>,
) -> Response {
    let request = match parameters.what {
        What::Pass => Request::Pass,
        What::Repair => Request::Repair,
    };
    let accepted = sources.scrub.request(request);
    (StatusCode::ACCEPTED, Json(accepted)).into_response()
}

/// Adds what is known of scrubs to the metrics.
pub(super) fn register(registry: &mut Registry, overview: &Overview) {
    let Overview { running, state } = overview;
    for (name, help, value) in [
        (
            "scrub_blobs",
            "Blobs that were read again",
            state.total.blobs,
        ),
        (
            "scrub_read_bytes",
            "Bytes that were read again",
            state.total.bytes,
        ),
        (
            "scrub_damaged",
            "Blobs that were found damaged or missing",
            state.total.damaged,
        ),
        (
            "scrub_repaired",
            "Blobs that were repaired",
            state.total.repaired,
        ),
    ] {
        registry.register(name, help, ConstCounter::new(value));
    }
    let count = |value: u64| gauge(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(
        "scrub_unrepaired_blobs",
        "Blobs that are damaged or missing and not repaired",
        count(state.open_count()),
    );
    let is_pass = running.is_some_and(|running| running != Request::Repair);
    registry.register(
        "scrub_running",
        "Whether a pass over all blobs is under way",
        gauge(i64::from(is_pass)),
    );
    if let Some(finished_at) = state.last.as_ref().and_then(|last| last.finished_at) {
        registry.register(
            "scrub_last_finished_timestamp_seconds",
            "End of the last pass over all blobs",
            gauge(finished_at.timestamp()),
        );
    }
}
