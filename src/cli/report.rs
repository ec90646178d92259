//! `violetd report`: what the last run of a target did, image by image.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::output::{self, table};
use super::reach::ask;
use super::{ConfigArgument, Failure, Format, Outcome};
use crate::base::{ByteCount, Class, TargetName};
use crate::catalog::{Amount, ImageReport};
use crate::daemon::Stopped;
use crate::http::client;
use crate::http::report::ReportView;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The target
    #[arg(value_name = "TARGET")]
    target: TargetName,
    /// Show images, too, about which there was nothing to do
    #[arg(long)]
    all: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.config.load()?;
    let path = format!("/v1/targets/{}/report", arguments.target);
    let answer = ask(client::get::<ReportView>(&config.admin.socket, &path))?;
    let report = match answer {
        Some(report) => report,
        None => find(&Stopped::open(&config)?, &arguments.target)?,
    };
    match arguments.output {
        Format::Json => output::json(&report),
        Format::Text => output::data(text(&report, arguments.all)),
    }
    Ok(ExitCode::SUCCESS)
}

fn find(stopped: &Stopped<'_>, target: &TargetName) -> Result<ReportView, Failure> {
    stopped.report(target)?.ok_or_else(|| Failure {
        class: Class::Absent,
        error: anyhow::anyhow!("expected a run of target {target}, found none"),
        hint: None,
    })
}

/// Returns the report for people.
fn text(report: &ReportView, is_all: bool) -> String {
    let header = [
        "IMAGE", "STATE", "SENT", "MOUNTED", "SKIPPED", "RESUMED", "REQUESTS", "AGAIN", "MS",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let is_shown = |image: &&ImageReport| is_all || image.requests > 1 || image.problem.is_some();
    rows.extend(report.images.iter().filter(is_shown).map(row));
    let mut text = if rows.len() > 1 {
        table(&rows)
    } else {
        String::new()
    };
    let counts = &report.run.counts;
    let _ = writeln!(
        text,
        "{} at {}: {} images wanted, {} were in place, {} pushed, {} failed; {} sent in {} requests",
        report.run.outcome.name(),
        report.run.finished_at.format("%F %T"),
        counts.images_wanted,
        counts.images_in_sync,
        counts.images_pushed,
        counts.images_failed,
        ByteCount(counts.bytes_sent),
        counts.requests
    );
    for problem in &report.run.problems {
        let _ = writeln!(text, "{}: {}", problem.subject, problem.message);
    }
    text
}

fn row(image: &ImageReport) -> Vec<String> {
    vec![
        image.image.clone(),
        image.state.name().to_owned(),
        amount(image.sent),
        amount(image.mounted),
        amount(image.skipped),
        amount(image.resumed),
        image.requests.to_string(),
        image.retries.to_string(),
        image.milliseconds.to_string(),
    ]
}

fn amount(amount: Amount) -> String {
    match amount.blobs {
        0 => "-".to_owned(),
        blobs => format!("{blobs} ({})", ByteCount(amount.bytes)),
    }
}
