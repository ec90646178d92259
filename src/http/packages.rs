//! `GET /v1/packages` and `GET /v1/packages/{digest}`.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::status::Sources;
use super::{answer, problem};
use crate::base::Digest;

/// Which packages are listed.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    /// Those behind this one, in the order in which they became ready; from the first on, where it is not there.
    after: Option<Digest>,
    /// How many, at most.
    limit: Option<usize>,
}

pub(super) async fn list(State(sources): State<Sources>, Query(page): Query<Page>) -> Response {
    let limit = page.limit.unwrap_or(usize::MAX);
    answer(move || Ok(Json(sources.packages(page.after, limit)?).into_response())).await
}

pub(super) async fn show(State(sources): State<Sources>, Path(digest): Path<String>) -> Response {
    let hint = "`violetd packages --output json` lists the digests";
    let absent = problem(
        StatusCode::NOT_FOUND,
        format!("no package `{digest}`"),
        Some(hint.to_owned()),
    );
    let Ok(digest) = digest.parse::<Digest>() else {
        return absent;
    };
    answer(move || {
        let package = sources.package(&digest)?;
        Ok(package.map_or(absent, |package| Json(package).into_response()))
    })
    .await
}
