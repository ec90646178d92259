//! `violetd status`, `packages`, `targets` and `sync`: questions to the running daemon. All but the last are answered from
//! its state directory where it does not run, which is then said.

use std::fmt::Write as _;
use std::process::ExitCode;

use hyper::Method;

use super::output::{self, span, table};
use super::{ConfigArgument, EXIT_NO, Failure, Format, Outcome, runtime};
use crate::base::{ByteCount, Digest, Platform, TargetName, Timestamp};
use crate::catalog::{RunOutcome, Source};
use crate::config::Config;
use crate::daemon::Stopped;
use crate::http::client;
use crate::http::view::{
    DiskState, DiskView, FileView, PackageDetailView, PackageView, StatusView, TargetView,
};
use crate::sys::lock::Lock;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    /// Exit with 1 unless the daemon runs and every target holds every package
    #[arg(long)]
    check: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct PackagesArguments {
    #[command(flatten)]
    common: Arguments,
    /// Show all that is known of this package
    #[arg(value_name = "DIGEST")]
    package: Option<Digest>,
}

#[derive(Debug, clap::Args)]
pub(super) struct SyncArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Targets to bring in sync; all if none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let status = fetch(arguments)?;
    match arguments.output {
        Format::Json => output::json(&status),
        Format::Text => output::data(render(&status)),
    }
    Ok(code(arguments, &status))
}

pub(super) fn packages(arguments: &PackagesArguments) -> Outcome {
    if let Some(digest) = &arguments.package {
        return package(&arguments.common, digest);
    }
    let arguments = &arguments.common;
    let status = fetch(arguments)?;
    match arguments.output {
        Format::Json => output::json(&status.packages),
        Format::Text => output::data(render_packages(&status.packages, status.targets.len())),
    }
    Ok(code(arguments, &status))
}

fn package(arguments: &Arguments, digest: &Digest) -> Outcome {
    let config = arguments.config.load()?;
    let path = format!("/v1/packages/{digest}");
    let answer = client::get::<PackageDetailView>(&config.admin.socket, &path);
    let package = match runtime()?.block_on(answer) {
        Err(error) if error.is_nobody() => {
            say_stopped(&config);
            Stopped::open(&config)?.package(digest)?
        }
        answer => answer?,
    };
    match arguments.output {
        Format::Json => output::json(&package),
        Format::Text => output::data(render_package(&package)),
    }
    if arguments.check && package.in_sync_on.len() < config.targets.len() {
        return Ok(ExitCode::from(EXIT_NO));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn targets(arguments: &Arguments) -> Outcome {
    let status = fetch(arguments)?;
    match arguments.output {
        Format::Json => output::json(&status.targets),
        Format::Text => output::data(render_targets(&status.targets, status.now)),
    }
    Ok(code(arguments, &status))
}

pub(super) fn sync(arguments: &SyncArguments) -> Outcome {
    let config = arguments.config.load()?;
    let socket = &config.admin.socket;
    let runtime = runtime()?;
    let mut names = arguments.targets.clone();
    if names.is_empty() {
        let targets: Vec<TargetView> = runtime.block_on(client::get(socket, "/v1/targets"))?;
        names = targets
            .iter()
            .map(|target| target.name.to_string())
            .collect();
    }
    for name in names {
        let path = format!("/v1/targets/{name}/sync");
        runtime.block_on(client::request(socket, Method::POST, &path))?;
        output::note(format!("run of {name} requested"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the daemon; where none runs, the state directory.
fn fetch(arguments: &Arguments) -> Result<StatusView, Failure> {
    let config = arguments.config.load()?;
    let status = client::get(&config.admin.socket, "/v1/status");
    match runtime()?.block_on(status) {
        Err(error) if error.is_nobody() => {
            say_stopped(&config);
            let stopped = Stopped::open(&config)?;
            if stopped.source() == Source::Records {
                output::note(
                    "the catalog is missing or damaged: this is what the records of the packages say; the daemon makes it \
                     anew when it starts",
                );
            }
            Ok(stopped.status()?)
        }
        status => Ok(status?),
    }
}

fn say_stopped(config: &Config) {
    let socket = config.admin.socket.display();
    let lock = config.state_dir.join("LOCK");
    let runs = match Lock::owner(&lock) {
        None => "is not running".to_owned(),
        Some(owner) => format!("does not answer, and {owner} has its state directory"),
    };
    output::note(format!(
        "the daemon {runs}: nobody listens at `{socket}`; this is what its state directory holds"
    ));
}

fn code(arguments: &Arguments, status: &StatusView) -> ExitCode {
    if arguments.check && !(status.is_running && status.is_in_sync) {
        return ExitCode::from(EXIT_NO);
    }
    ExitCode::SUCCESS
}

fn render(status: &StatusView) -> String {
    let mut text = String::new();
    let in_sync = if status.is_in_sync {
        "in sync"
    } else {
        "NOT in sync"
    };
    let available = ByteCount(status.disk.available_bytes);
    let version = &status.version;
    let runs = match status.started_at {
        Some(started_at) => format!("up {}", span(status.now - started_at)),
        None => "NOT running".to_owned(),
    };
    line(
        &mut text,
        format_args!("{in_sync}; violetd {version}, {runs}, {available} free"),
    );
    if let Some(alarm) = render_alarm(&status.disk) {
        line(&mut text, format_args!("{alarm}"));
    }
    if let Some(problem) = &status.ingest_problem {
        line(&mut text, format_args!("ingest: {problem}"));
    }
    if let Some(damage) = &status.damage {
        line(&mut text, format_args!("scrub: {damage}"));
    }
    text.push('\n');
    text.push_str(&render_targets(&status.targets, status.now));
    text.push('\n');
    text.push_str(&render_packages(&status.packages, status.targets.len()));
    if !status.files.is_empty() {
        text.push('\n');
        text.push_str(&render_files(&status.files, status.now));
    }
    text
}

/// Says that space is short and what that means, if it is.
fn render_alarm(disk: &DiskView) -> Option<String> {
    let available = ByteCount(disk.available_bytes);
    let (what, mark_bytes) = match disk.state {
        DiskState::Ok => return None,
        DiskState::Low => (
            "disk space is LOW: ingest begins no package",
            disk.low_bytes,
        ),
        DiskState::Critical => (
            "disk space is CRITICAL: ingest has stopped",
            disk.critical_bytes,
        ),
    };
    let mark = ByteCount(mark_bytes);
    Some(format!(
        "{what}, replication goes on; {available} free, the mark is {mark}\n  hint: `violetd retain plan` shows what could \
         be removed, `violetd gc` frees what nobody wants"
    ))
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("writing to a String cannot fail");
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

fn render_targets(targets: &[TargetView], now: Timestamp) -> String {
    let mut rows = vec![row([
        "TARGET", "ROLE", "STATE", "PACKAGES", "LAG", "LAST RUN", "SENT", "NEXT RUN", "REGISTRY",
    ])];
    for target in targets {
        let state = match (&target.running, target.is_in_sync) {
            (Some(_), _) => "running",
            (None, true) => "in sync",
            (None, false) => "behind",
        };
        let lag = target
            .lag_seconds
            .map(|seconds| span(chrono::TimeDelta::seconds(seconds)));
        let last = target.last_run.as_ref().map(|run| {
            let ago = span(now - run.finished_at);
            format!("{}, {ago} ago", outcome(run.outcome))
        });
        let sent = target.last_run.as_ref();
        let sent = sent.map(|run| ByteCount(run.counts.bytes_sent).to_string());
        let next = [target.next_run_at, target.retry_at]
            .into_iter()
            .flatten()
            .min();
        let next = next.map(|at| format!("in {}", span(at - now)));
        let packages = format!("{}/{}", target.packages_in_sync, target.packages_wanted);
        let dash = || "-".to_owned();
        rows.push(vec![
            target.name.to_string(),
            target.role.clone(),
            state.to_owned(),
            packages,
            lag.unwrap_or_else(dash),
            last.unwrap_or_else(dash),
            sent.unwrap_or_else(dash),
            next.unwrap_or_else(dash),
            target.registry.clone(),
        ]);
    }
    let mut text = table(&rows);
    for target in targets {
        text.push_str(&render_pace(target));
        let problems = target.last_run.iter().flat_map(|run| &run.problems);
        for problem in problems.filter(|_| target.running.is_none()) {
            let (name, subject, message) = (&target.name, &problem.subject, &problem.message);
            line(&mut text, format_args!("{name}: {subject}: {message}"));
            if let Some(hint) = &problem.hint {
                line(&mut text, format_args!("  hint: {hint}"));
            }
        }
    }
    text
}

/// Says what holds a target back, if anything does.
fn render_pace(target: &TargetView) -> String {
    let mut text = String::new();
    let (name, registry) = (&target.name, &target.registry);
    let Some(pace) = &target.pace else {
        return text;
    };
    if let Some(limit) = pace.bandwidth_max {
        let limit = ByteCount(limit.get());
        line(
            &mut text,
            format_args!("{name}: at most {limit} per second"),
        );
    }
    let time = |at: Timestamp| at.format("%H:%M:%SZ").to_string();
    if let Some(until) = pace.resting_until.map(time) {
        line(
            &mut text,
            format_args!("{name}: {registry} does not answer, it is asked again after {until}"),
        );
    }
    if let Some(until) = pace.held_until.map(time) {
        line(
            &mut text,
            format_args!("{name}: {registry} has too much to do, it is asked again after {until}"),
        );
    }
    text
}

const fn outcome(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::InSync => "ok",
        RunOutcome::Incomplete => "incomplete",
        RunOutcome::Failed => "failed",
    }
}

fn render_packages(packages: &[PackageView], targets: usize) -> String {
    let mut rows = vec![row([
        "PACKAGE",
        "VERSION",
        "TYPE",
        "PLATFORMS",
        "IMAGES",
        "SIZE",
        "READY",
        "IN SYNC ON",
    ])];
    for view in packages {
        let package = &view.package;
        let platforms: Vec<&str> = package.platforms.iter().map(Platform::as_str).collect();
        let holders: Vec<&str> = view.in_sync_on.iter().map(TargetName::as_str).collect();
        let holders = match holders.len() {
            0 => "none".to_owned(),
            count if count == targets => format!("all: {}", holders.join(", ")),
            _ => holders.join(", "),
        };
        rows.push(vec![
            package.name.to_string(),
            package.version.clone().unwrap_or_else(|| "-".to_owned()),
            package.kind.to_string(),
            platforms.join(","),
            package.image_count.to_string(),
            ByteCount(package.size_bytes).to_string(),
            package.ready_at.format("%Y-%m-%d %H:%M:%SZ").to_string(),
            holders,
        ]);
    }
    table(&rows)
}

fn render_package(view: &PackageDetailView) -> String {
    let package = &view.package;
    let (name, digest) = (&package.name, package.digest);
    let version = package.version.as_deref().unwrap_or("-");
    let mut text = format!("{name} {version} ({})\n", package.kind);
    let ready_at = package.ready_at.format("%Y-%m-%d %H:%M:%SZ");
    line(&mut text, format_args!("digest: {digest}"));
    let size = ByteCount(package.size_bytes);
    line(
        &mut text,
        format_args!("file: {}, {size}", package.file_name),
    );
    let (count, bytes) = (package.blob_count, ByteCount(package.blob_bytes));
    line(
        &mut text,
        format_args!("ready: {ready_at}, {count} blobs, {bytes}"),
    );
    let holders: Vec<&str> = view.in_sync_on.iter().map(TargetName::as_str).collect();
    line(
        &mut text,
        format_args!("in sync on: {}", or_none(&holders.join(", "))),
    );
    if let Some(pin) = &view.pin {
        let at = pin.pinned_at.format("%Y-%m-%d %H:%M:%SZ");
        let reason = pin.reason.as_deref().unwrap_or_default();
        line(&mut text, format_args!("pinned: {at} {reason}"));
    }
    let mut rows = vec![row(["IMAGE", "DIGEST", "SIZE"])];
    for image in &package.images {
        rows.push(vec![
            image.reference.to_string(),
            image.digest.to_string(),
            ByteCount(image.content_bytes).to_string(),
        ]);
    }
    text + "\n" + &table(&rows)
}

const fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

fn render_files(files: &[FileView], now: Timestamp) -> String {
    let mut rows = vec![row(["FILE", "STATE", "SINCE", "REASON"])];
    for file in files {
        let code = file.code.as_ref().map(|code| format!("{code}: "));
        let reason = file.reason.clone().unwrap_or_default();
        rows.push(vec![
            file.path.clone(),
            file.state.clone(),
            span(now - file.updated_at),
            format!("{}{reason}", code.unwrap_or_default()),
        ]);
        if let Some(hint) = &file.hint {
            rows.push(vec![
                String::new(),
                String::new(),
                String::new(),
                format!("hint: {hint}"),
            ]);
        }
    }
    table(&rows)
}
