//! The admin API, on a unix socket, and metrics.
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /v1/status` | everything: packages, files, targets ([`view::StatusView`]) |
//! | `GET /v1/packages` | the packages; `?after=<digest>&limit=<number>` for some of them |
//! | `GET /v1/packages/{digest}` | all that is known of one ([`view::PackageDetailView`]) |
//! | `GET /v1/targets` | the targets |
//! | `GET /v1/targets/{name}/report` | what its last run did, image by image ([`report::ReportView`]) |
//! | `POST /v1/targets/{name}/sync` | asks for a run now; 202, or 404 |
//! | `POST /v1/targets/{name}/limit` | changes the limit on bytes per second, until the daemon ends ([`pace::LimitBody`]) |
//! | `GET /v1/scrub` | how scrubs go and what they found ([`scrub::ScrubView`]) |
//! | `POST /v1/scrub?what=pass` or `repair` | asks for one; 202 |
//! | `GET /v1/retain/plan` | what retention would remove, and what keeps the rest ([`crate::retain::Plan`]) |
//! | `POST /v1/retain/apply` | removes it ([`retain::ApplyBody`]) |
//! | `GET /v1/pins` | pinned packages |
//! | `POST /v1/pins/{package}`, `DELETE` | pins, or no longer: `NAME`, `NAME@VERSION`, or a digest ([`retain::PinBody`]) |
//! | `POST /v1/collect` | removes blobs that no package keeps ([`retain::CollectBody`]) |
//! | `GET /metrics` | Prometheus text |
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200 while store and catalog can be read, else 503 |
//!
//! The socket is protected by its file mode: who may open it may do everything here. Over TCP only `/metrics`,
//! `/healthz` and `/readyz` are served.

pub mod client;
mod metrics;
pub mod pace;
mod packages;
pub mod report;
pub mod retain;
pub mod scrub;
pub mod status;
pub mod view;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::extract::{Path as UrlPath, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use self::status::{Sources, TargetSource};
use self::view::ProblemView;
use crate::base::{Chain, Class, Classified, TargetName};
use crate::sys::fs as durable;

/// Why the API cannot be offered.
#[derive(Debug, Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("failed to listen on `{address}`")]
    Listen {
        /// Path or address.
        address: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// What was left at the socket's path cannot be removed.
    #[error(transparent)]
    Fs(#[from] durable::Error),
}

/// Listens on a unix socket that its owner and group may use, replacing one that a dead process left behind.
pub fn listen_unix(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen {
        address: path.display().to_string(),
        source,
    };
    if let Some(parent) = path.parent() {
        durable::ensure_dir_all(parent)?;
    }
    durable::remove_file(path)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

/// Listens on a TCP address, for metrics and health only.
pub async fn listen_tcp(address: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen {
            address: address.to_owned(),
            source,
        })
}

/// Serves the whole API until `stop` is cancelled.
pub async fn serve_unix(listener: UnixListener, sources: Sources, stop: CancellationToken) {
    let router = health_router()
        .route("/v1/status", get(get_status))
        .route("/v1/packages", get(packages::list))
        .route("/v1/packages/{digest}", get(packages::show))
        .route("/v1/targets", get(get_targets))
        .route("/v1/targets/{name}/report", get(report::show))
        .route("/v1/scrub", get(scrub::get_scrub).post(scrub::post_scrub))
        .route("/v1/retain/plan", get(retain::get_plan))
        .route("/v1/retain/apply", post(retain::post_apply))
        .route("/v1/pins", get(retain::get_pins))
        .route(
            "/v1/pins/{package}",
            post(retain::post_pin).delete(retain::delete_pin),
        )
        .route("/v1/collect", post(retain::post_collect))
        .route("/v1/targets/{name}/sync", post(post_sync))
        .route("/v1/targets/{name}/limit", post(pace::post_limit))
        .with_state(sources);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "admin API has ended");
    }
}

/// Serves metrics and health until `stop` is cancelled.
pub async fn serve_tcp(listener: TcpListener, sources: Sources, stop: CancellationToken) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "metrics and health are served");
    }
    let router = health_router().with_state(sources);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "metrics endpoint has ended");
    }
}

fn health_router() -> Router<Sources> {
    Router::new()
        .route("/metrics", get(get_metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(get_ready))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "no such path".to_owned(), None) })
}

async fn get_status(State(sources): State<Sources>) -> Response {
    answer(move || Ok(Json(sources.status()?).into_response())).await
}

async fn get_targets(State(sources): State<Sources>) -> Response {
    answer(move || Ok(Json(sources.targets()?).into_response())).await
}

async fn get_metrics(State(sources): State<Sources>) -> Response {
    answer(move || {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let text = metrics::render(&sources)?;
        Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
    })
    .await
}

async fn get_ready(State(sources): State<Sources>) -> Response {
    answer(move || {
        sources.check_readable()?;
        Ok("ready\n".into_response())
    })
    .await
}

async fn post_sync(State(sources): State<Sources>, UrlPath(name): UrlPath<String>) -> Response {
    match find_target(&sources, &name) {
        Ok(target) => {
            target.handle.request();
            StatusCode::ACCEPTED.into_response()
        }
        Err(refusal) => *refusal,
    }
}

/// Returns a target, or the answer that there is none of this name.
fn find_target<'a>(sources: &'a Sources, name: &str) -> Result<&'a TargetSource, Box<Response>> {
    let parsed = name.parse::<TargetName>().ok();
    let mut targets = sources.targets.iter();
    targets
        .find(|target| Some(&target.name) == parsed.as_ref())
        .ok_or_else(|| {
            let names = sources.targets.iter().map(|target| target.name.to_string());
            let hint = format!("use one of: {}", names.collect::<Vec<_>>().join(", "));
            let detail = format!("no target `{name}`");
            Box::new(problem(StatusCode::NOT_FOUND, detail, Some(hint)))
        })
}

/// Puts an answer together off the async threads.
async fn answer(
    collect: impl FnOnce() -> Result<Response, status::Error> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(collect).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            let detail = Chain(&error).to_string();
            problem(StatusCode::SERVICE_UNAVAILABLE, detail, None)
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), None),
    }
}

/// Answers with why something failed.
fn refuse(error: &impl Classified) -> Response {
    let class = error.class();
    let status = match class {
        Class::Usage => StatusCode::BAD_REQUEST,
        Class::Rejected => StatusCode::UNPROCESSABLE_ENTITY,
        Class::Absent => StatusCode::NOT_FOUND,
        Class::Denied => StatusCode::FORBIDDEN,
        Class::Full => StatusCode::INSUFFICIENT_STORAGE,
        Class::Transient => StatusCode::SERVICE_UNAVAILABLE,
        Class::Corrupt | Class::Bug => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let view = ProblemView {
        class: Some(class),
        ..describe(status, Chain(error).to_string(), error.hint())
    };
    respond(status, view)
}

fn problem(status: StatusCode, detail: String, hint: Option<String>) -> Response {
    respond(status, describe(status, detail, hint))
}

fn describe(status: StatusCode, detail: String, hint: Option<String>) -> ProblemView {
    ProblemView {
        title: status.canonical_reason().unwrap_or("error").to_owned(),
        status: status.as_u16(),
        detail,
        hint,
        class: None,
    }
}

fn respond(status: StatusCode, view: ProblemView) -> Response {
    let mut response = (status, Json(view)).into_response();
    let kind = header::HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
