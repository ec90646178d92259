//! What the last run of a target did.

use axum::Json;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};

use super::status::Sources;
use super::{answer, problem};
use crate::base::TargetName;
use crate::catalog::{self, Catalog, ImageReport, RunRecord};

/// What the last run of a target did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportView {
    /// The record of the run.
    #[serde(flatten)]
    pub run: RunRecord,
    /// What was done for each image: first those that failed, last those that were in place.
    pub images: Vec<ImageReport>,
    /// Images that are not listed, because there are too many: all of them were in place, or waited.
    pub images_left_out: u64,
}

/// Returns what the last run of a target did; nothing where there was none.
pub fn find(catalog: &Catalog, target: &TargetName) -> Result<Option<ReportView>, catalog::Error> {
    let record = catalog.find_target(target)?;
    let Some(run) = record.and_then(|record| record.last_run.clone()) else {
        return Ok(None);
    };
    // The report is written after the run: one that is older is of another run.
    let report = catalog.find_report(target)?;
    let report = report.filter(|report| report.started_at == run.started_at);
    let (images, images_left_out) = report.map_or((Vec::new(), 0), |report| {
        (report.images, report.images_left_out)
    });
    Ok(Some(ReportView {
        run,
        images,
        images_left_out,
    }))
}

/// Answers with what the last run of a target did.
pub(super) async fn show(
    State(sources): State<Sources>,
    UrlPath(name): UrlPath<String>,
) -> Response {
    answer(move || {
        let report = match name.parse() {
            Ok(target) => find(&sources.catalog, &target)?,
            Err(_) => None,
        };
        Ok(report.map_or_else(
            || {
                let detail = format!("no run of a target `{name}`");
                let hint = "see `violetd targets`, and `violetd sync` for a run".to_owned();
                problem(StatusCode::NOT_FOUND, detail, Some(hint))
            },
            |report| Json(report).into_response(),
        ))
    })
    .await
}
