//! `violetd scrub`: how the check of all blobs goes, and what it found.

use std::fmt::Write as _;
use std::process::ExitCode;

use hyper::Method;

use super::output::{self, span};
use super::{ConfigArgument, EXIT_NO, Format, Outcome, runtime};
use crate::base::{ByteCount, Clock as _, SystemClock, Timestamp};
use crate::http::client;
use crate::http::scrub::{DamageView, ScrubView, What};
use crate::retain::scrub::{Accepted, Damage, Pass};

/// How many blobs that were repaired are shown. Chosen, not measured.
const REPAIRED_SHOWN: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    /// Read all blobs now, or go on with the pass that was interrupted
    #[arg(long, conflicts_with = "repair")]
    now: bool,
    /// Try again now to repair what is damaged
    #[arg(long)]
    repair: bool,
    /// Exit with 1 if a blob is damaged and not repaired
    #[arg(long)]
    check: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.config.load()?;
    let socket = &config.admin.socket;
    let runtime = runtime()?;
    let what = match (arguments.now, arguments.repair) {
        (true, _) => Some(What::Pass),
        (false, true) => Some(What::Repair),
        (false, false) => None,
    };
    if let Some(what) = what {
        let path = match what {
            What::Pass => "/v1/scrub?what=pass",
            What::Repair => "/v1/scrub?what=repair",
        };
        let accepted = runtime.block_on(client::request(socket, Method::POST, path))?;
        let accepted: Accepted = serde_json::from_slice(&accepted).map_err(client::Error::from)?;
        output::note(match (accepted, what) {
            (Accepted::RunsAlready, _) => "a scrub runs already",
            (Accepted::Started, What::Pass) => "scrub of all blobs requested",
            (Accepted::Started, What::Repair) => "repair of damaged blobs requested",
        });
        return Ok(ExitCode::SUCCESS);
    }
    let view: ScrubView = runtime.block_on(client::get(socket, "/v1/scrub"))?;
    match arguments.output {
        Format::Json => output::json(&view),
        Format::Text => output::data(render(&view, SystemClock.now())),
    }
    let is_damaged = !view.open.is_empty() || view.open_unlisted > 0;
    if arguments.check && is_damaged {
        return Ok(ExitCode::from(EXIT_NO));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("writing to a String cannot fail");
}

fn render(view: &ScrubView, now: Timestamp) -> String {
    let mut text = String::new();
    match &view.current {
        Some(current) => {
            let state = match view.running {
                Some(What::Pass) => "runs",
                Some(What::Repair) | None => "is interrupted",
            };
            let (number, percent) = (current.pass.number, current.percent);
            let since = span(now - current.pass.started_at);
            let counts = current.pass.counts;
            line(
                &mut text,
                format_args!("pass {number} {state}, {percent:.1} % after {since}: {counts}"),
            );
        }
        None => line(&mut text, format_args!("no pass runs")),
    }
    match &view.last {
        Some(last) => text.push_str(&render_last(last, now)),
        None => line(&mut text, format_args!("no pass has ended yet")),
    }
    if view.open.is_empty() {
        line(&mut text, format_args!("no blob is known to be damaged"));
    } else {
        let count = view.open.len() as u64 + view.open_unlisted;
        line(&mut text, format_args!("\nDAMAGED, not repaired: {count}"));
        for damage in &view.open {
            text.push_str(&render_open(damage));
        }
    }
    if !view.repaired.is_empty() {
        line(&mut text, format_args!("\nrepaired lately:"));
        for damage in view.repaired.iter().rev().take(REPAIRED_SHOWN) {
            text.push_str(&render_repaired(damage, now));
        }
    }
    text
}

fn render_last(last: &Pass, now: Timestamp) -> String {
    let (number, counts) = (last.number, last.counts);
    let ago = last.finished_at.map(|at| span(now - at));
    let ago = ago.unwrap_or_else(|| "-".to_owned());
    format!("pass {number} ended {ago} ago: {counts}\n")
}

fn render_open(DamageView { damage, hint }: &DamageView) -> String {
    let mut text = String::new();
    let (digest, kind) = (damage.digest, damage.kind.name());
    let size = damage.size_bytes.map(|bytes| ByteCount(bytes).to_string());
    let size = size.map(|size| format!(" ({size})")).unwrap_or_default();
    let found = &damage.found;
    line(
        &mut text,
        format_args!("{digest}{size} {kind}: found {found}"),
    );
    let names: Vec<&str> = damage.packages.iter().map(|it| it.name.as_str()).collect();
    let (names, count) = (names.join(", "), damage.package_count);
    line(&mut text, format_args!("  packages ({count}): {names}"));
    if let Some(place) = &damage.quarantined_to {
        line(&mut text, format_args!("  what was found is in {place}"));
    }
    if let Some(problem) = &damage.problem {
        line(&mut text, format_args!("  not repaired: {problem}"));
    }
    if let Some(hint) = hint {
        line(&mut text, format_args!("  hint: {hint}"));
    }
    text
}

fn render_repaired(damage: &Damage, now: Timestamp) -> String {
    let (digest, kind) = (damage.digest, damage.kind.name());
    let repaired = damage.repaired.as_ref();
    let how = repaired.map(|it| format!("from {}, {} ago", it.from, span(now - it.at)));
    let how = how.unwrap_or_default();
    format!("{digest} {kind}, {how}\n")
}
