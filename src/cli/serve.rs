//! `violetd serve`: runs the daemon.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use super::{ConfigArgument, Failure, Outcome, runtime};
use crate::config::{Config, LogFormat};
use crate::daemon;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.config.load()?;
    start_log(&config)?;
    for risk in config.check_risks() {
        tracing::warn!("{risk}");
    }
    let runtime = runtime()?;
    runtime.block_on(daemon::run(config))?;
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// Sends log lines to standard error: for systemd's journal as JSON, for a terminal as text.
fn start_log(config: &Config) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.log.level).map_err(|error| {
        Failure::usage(format!(
            "failed to read log.level `{}`: {error}",
            config.log.level
        ))
    })?;
    let is_terminal = std::io::stderr().is_terminal();
    let is_text = match config.log.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // `target` is a word of ours: the module that logs would be a second field of that name.
        .with_target(false)
        .with_writer(std::io::stderr);
    if is_text {
        lines.with_ansi(is_terminal).init();
    } else {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            // The module would get the key `target`, which is that of the fields that name a target.
            .with_target(false)
            .init();
    }
    Ok(())
}
