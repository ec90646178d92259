//! `violetd check`: is what is on disk what it should be?

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::output;
use super::{ConfigArgument, Failure, Format, Outcome, exit_code};
use crate::base::{ByteCount, Class};
use crate::catalog::{Catalog, Rebuilt};
use crate::check::{self, Depth, Finding, Observer, Options, Progress, Report};
use crate::config::{self, Config};

/// How often progress is shown: more often nobody can read.
const SHOWN_EVERY: Duration = Duration::from_millis(250);
/// How the document for programs begins.
const OPEN: &str = "{\n  \"findings\": [";
/// How many things that could not be read of an old catalog are named. The rest is only counted.
const LOST_SHOWN_MAX: usize = 20;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Reads only, and works beside a running daemon. Exits with 0 without errors, whatever the warnings, and with 74 \
                  where there are errors. docs/check.md lists all findings and what to do."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// State directory to look at, instead of that of a configuration
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Read every blob and every row as well
    #[arg(long)]
    deep: bool,
    /// Make the catalog again from `packages/` first; the daemon must not run
    #[arg(long)]
    rebuild: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let (state_dir, options) = place(arguments)?;
    if arguments.rebuild {
        let rebuilt = check::rebuild(&state_dir, Catalog::rebuild)?;
        note_rebuilt(&rebuilt);
    }
    let mut printer = Printer::new(arguments.output);
    let report = check::check(&state_dir, &options, &mut printer);
    printer.end_progress();
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            printer.fail();
            return Err(error.into());
        }
    };
    printer.finish(&report);
    if report.errors > 0 {
        return Ok(ExitCode::from(exit_code(Class::Corrupt)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what making the catalog again has done.
fn note_rebuilt(rebuilt: &Rebuilt) {
    let packages = rebuilt.packages;
    output::note(format_args!("catalog made again: {packages} packages"));
    for (column, count) in rebuilt.copied.iter().filter(|(_, count)| *count > 0) {
        output::note(format_args!(
            "copied from the old one: {count} rows of `{column}`"
        ));
    }
    for reason in rebuilt.lost.iter().take(LOST_SHOWN_MAX) {
        output::note(format_args!("lost: {reason}"));
    }
    if rebuilt.lost.len() > LOST_SHOWN_MAX {
        let more = rebuilt.lost.len() - LOST_SHOWN_MAX;
        output::note(format_args!("lost: {more} more"));
    }
    for path in rebuilt
        .set_aside
        .iter()
        .chain(&rebuilt.reconciled.quarantined)
    {
        output::note(format_args!("put aside: `{}`", path.display()));
    }
}

/// Returns what to look at and how.
fn place(arguments: &Arguments) -> Result<(PathBuf, Options), Failure> {
    let depth = if arguments.deep {
        Depth::Deep
    } else {
        Depth::Quick
    };
    if let Some(state_dir) = &arguments.state_dir {
        let options = Options {
            depth,
            ..Options::default()
        };
        return Ok((state_dir.clone(), options));
    }
    let config = arguments.config.load()?;
    let options = Options {
        depth,
        known_paths: known_paths(&config),
        targets: Some(config.targets.iter().map(|it| it.name.clone()).collect()),
        disk_low_bytes: config.disk.low_bytes.0,
        disk_critical_bytes: config.disk.critical_bytes.0,
    };
    Ok((config.state_dir, options))
}

/// Returns what the configuration may have put into the state directory.
fn known_paths(config: &Config) -> Vec<PathBuf> {
    let drops = config.drops.iter().flat_map(|drop| {
        [
            &drop.path,
            &drop.done_dir,
            &drop.rejected_dir,
            &drop.requests_dir,
        ]
    });
    let socket = &config.admin.socket;
    let platforms = config.targets.iter().filter_map(|it| match &it.platform {
        config::Platform::Directory(directory) => Some(&directory.path),
        config::Platform::None | config::Platform::Acp(_) => None,
    });
    let keyrings = config.drops.iter().flat_map(|drop| &drop.keyring);
    let paths = drops.chain([socket]).chain(keyrings).chain(platforms);
    paths.cloned().collect()
}

/// Prints findings as they are made.
struct Printer {
    format: Format,
    /// Whether there was a finding: the document for programs has begun then.
    has_findings: bool,
    /// Where progress is shown, if there is somebody to look.
    terminal: Option<Terminal>,
}

/// What is shown of progress.
#[derive(Default)]
struct Terminal {
    /// When it was shown last; none as long as nothing is shown.
    shown_at: Option<Instant>,
}

impl Terminal {
    /// Removes what is shown.
    fn clear(&mut self) {
        if self.shown_at.take().is_some() {
            output::progress("");
        }
    }
}

impl Printer {
    fn new(format: Format) -> Self {
        Self {
            format,
            has_findings: false,
            terminal: io::stderr().is_terminal().then(Terminal::default),
        }
    }

    /// Removes the line that shows progress.
    fn end_progress(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.clear();
        }
    }

    /// Ends what was begun where nothing more can be said: programs find no report.
    fn fail(&self) {
        if self.format == Format::Json && self.has_findings {
            self.end_document("null");
        }
    }

    fn end_document(&self, report: &str) {
        let (open, close) = if self.has_findings {
            ("", "\n  ")
        } else {
            (OPEN, "")
        };
        let report = report.trim_end().replace('\n', "\n  ");
        output::bytes(format!("{open}{close}],\n  \"report\": {report}\n}}\n").as_bytes());
    }

    fn finish(&self, report: &Report) {
        if self.format == Format::Json {
            return self.end_document(&output::json_text(report));
        }
        output::data(summary(report));
    }
}

impl Observer for Printer {
    fn found(&mut self, finding: Finding) {
        self.end_progress();
        if self.format == Format::Json {
            let before = if self.has_findings { "," } else { OPEN };
            let text = output::json_line(&finding);
            output::bytes(format!("{before}\n    {text}").as_bytes());
        } else {
            let (code, subject, reason) = (finding.code, &finding.subject, &finding.reason);
            let severity = code.severity().name();
            let one_line = |text: &str| text.replace('\n', " ");
            output::data(format_args!(
                "{severity}: {}: {}: {}\n  hint: {}",
                code.name(),
                one_line(subject),
                one_line(reason),
                code.advice()
            ));
        }
        self.has_findings = true;
    }

    fn progress(&mut self, progress: Progress) {
        let Some(terminal) = &mut self.terminal else {
            return;
        };
        let shown_at = terminal.shown_at;
        if shown_at.is_some_and(|at| at.elapsed() < SHOWN_EVERY) {
            return;
        }
        terminal.shown_at = Some(Instant::now());
        let (done, total) = (ByteCount(progress.bytes), ByteCount(progress.bytes_total));
        let (blobs, blobs_total) = (progress.blobs, progress.blobs_total);
        output::progress(&format!(
            "{done} of {total}, {blobs} of {blobs_total} blobs"
        ));
    }
}

/// Returns the last line for people.
fn summary(report: &Report) -> String {
    let depth = match report.depth {
        Depth::Quick => "quick",
        Depth::Deep => "deep",
    };
    format!(
        "{} errors, {} warnings, {} infos; {} packages, {} blobs ({}); {depth} check",
        report.errors,
        report.warnings,
        report.infos,
        report.packages,
        report.blobs,
        ByteCount(report.blob_bytes)
    )
}
