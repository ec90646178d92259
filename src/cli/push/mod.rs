//! `violetd push`: brings packages and images to a registry and a platform without a daemon, with violet's flags.

mod arguments;
mod progress;
mod secrets;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

pub(super) use self::arguments::Arguments;
use self::progress::{Progress, SHOWN_EVERY};
use super::{Outcome, exit_code, output, runtime};
use crate::base::{ByteCount, Class};
use crate::catalog::{Problem, Provenance};
use crate::daemon::push::{self, FileReport, PushReport, State, Watch};
use crate::sys::signal;

/// How long steps in progress may take to end once somebody wants to stop. What is cut off then goes on from there the next time,
/// as after SIGKILL. Chosen, not measured: longer than most people wait before they press Ctrl-C again.
const STOP_MAX: Duration = Duration::from_secs(3);

pub(super) fn run(arguments: Arguments) -> Outcome {
    arguments.notes().iter().for_each(output::note);
    start_log(&arguments);
    let is_json = arguments.json;
    let is_shown = shows_progress(&arguments);
    let options = arguments.options()?;
    let runtime = runtime()?;
    let report = runtime.block_on(push(options, is_shown));
    runtime.shutdown_background();
    let report = report?;
    if is_json {
        output::json(&report);
    } else {
        output::data(text(&report));
    }
    report.files.iter().for_each(note);
    Ok(match report.failure() {
        None => ExitCode::SUCCESS,
        Some(class) => ExitCode::from(exit_code(class)),
    })
}

/// Pushes, shows how far it is, and stops in an orderly way where a signal says so.
async fn push(options: push::Options, is_shown: bool) -> Result<PushReport, push::Error> {
    let (stop, watch) = (CancellationToken::new(), Watch::default());
    let pushing = push::push(options, watch.clone(), stop.clone());
    tokio::pin!(pushing);
    let signal = signal::shutdown();
    tokio::pin!(signal);
    let mut ticks = tokio::time::interval(SHOWN_EVERY);
    let mut progress = Progress::default();
    loop {
        tokio::select! {
            report = &mut pushing => {
                progress.clear();
                return report;
            }
            name = &mut signal => {
                progress.clear();
                let name = name.unwrap_or("no signals");
                output::note(format!("note: {name}: stops; the same command goes on from here"));
                stop.cancel();
                let ended = tokio::time::timeout(STOP_MAX, pushing).await;
                return ended.unwrap_or(Err(push::Error::Stopped));
            }
            _ = ticks.tick(), if is_shown => progress.show(&watch.sight(), Instant::now()),
        }
    }
}

/// Returns whether there is somebody to look, who wants to.
fn shows_progress(arguments: &Arguments) -> bool {
    let is_terminal = std::io::stderr().is_terminal();
    is_terminal && !arguments.no_progress && !arguments.debug
}

/// Sends log lines to standard error.
fn start_log(arguments: &Arguments) {
    let is_terminal = std::io::stderr().is_terminal();
    let level = match (arguments.debug, shows_progress(arguments)) {
        (true, _) => LevelFilter::DEBUG,
        // Progress says the same.
        (false, true) => LevelFilter::ERROR,
        (false, false) => LevelFilter::INFO,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(is_terminal)
        .with_writer(std::io::stderr)
        .init();
}

/// Says what went wrong with a file.
fn note(file: &FileReport) {
    for Problem {
        subject,
        class,
        message,
        hint,
    } in &file.problems
    {
        // A fault of this program is to be reported as one.
        let what = if *class == Class::Bug { "bug" } else { "error" };
        output::note(format!("{what}: {subject}: {message}"));
        if let Some(hint) = hint {
            output::note(format!("hint: {hint}"));
        }
    }
}

/// Returns the report for people.
fn text(report: &PushReport) -> String {
    let mut rows =
        vec![["PATH", "STATE", "PACKAGE", "VERSION", "IMAGES", "TRUST"].map(str::to_owned)];
    for file in &report.files {
        let path = file.path.display().to_string();
        let state = state(file.state).to_owned();
        if file.packages.is_empty() {
            let rest = ["-", "-", "-", "-"].map(str::to_owned);
            let [name, version, images, trust] = rest;
            rows.push([path, state, name, version, images, trust]);
            continue;
        }
        for package in &file.packages {
            rows.push([
                path.clone(),
                state.clone(),
                package.name.to_string(),
                package.version.clone().unwrap_or_else(|| "-".to_owned()),
                package.images.to_string(),
                trust(&package.provenance).to_owned(),
            ]);
        }
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    format!("{}\n{}", output::table(&rows), totals(report))
}

fn totals(report: &PushReport) -> String {
    let counts = &report.counts;
    let mut text = format!(
        "images: {} pushed, {} there already, {} failed\n\
         blobs: {} sent, {} mounted, {} there already\n",
        counts.images_pushed,
        counts.images_in_sync,
        counts.images_failed,
        counts.blobs_sent,
        counts.blobs_mounted,
        counts.blobs_skipped,
    );
    if counts.resources_wanted > 0 {
        let (wanted, failed) = (counts.resources_wanted, counts.resources_failed);
        let _ = writeln!(
            text,
            "resources: {} of {wanted} applied, {failed} failed",
            counts.resources_applied
        );
    }
    if counts.blobs_resumed > 0 {
        let _ = writeln!(
            text,
            "resumed: {} of the blobs sent, of which {} were there",
            counts.blobs_resumed,
            ByteCount(counts.bytes_resumed)
        );
    }
    let _ = writeln!(
        text,
        "sent {} in {} requests, {} of them again, in {:.1} s",
        ByteCount(counts.bytes_sent),
        counts.requests,
        counts.retries,
        report.seconds
    );
    text
}

const fn state(state: State) -> &'static str {
    match state {
        State::Done => "done",
        State::Incomplete => "incomplete",
        State::Failed => "failed",
    }
}

const fn trust(provenance: &Provenance) -> &'static str {
    match provenance {
        Provenance::Signature { .. } => "signature",
        Provenance::Checksum { .. } => "checksum",
        Provenance::Unchecked => "nothing",
    }
}
