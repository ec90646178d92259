//! `violetd config`: checks a configuration file without starting anything.

use std::process::ExitCode;

use super::{ConfigArgument, Outcome, output};
use crate::daemon;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say whether the daemon would accept the file
    Check(CheckArguments),
}

#[derive(Debug, clap::Args)]
struct CheckArguments {
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let Command::Check(arguments) = &arguments.command;
    let config = arguments.config.load()?;
    daemon::check(&config)?;
    for risk in config.check_risks() {
        output::note(format!("warning: {risk}"));
    }
    let (drops, targets) = (config.drops.len(), config.targets.len());
    output::note(format!(
        "{}: {drops} drop folders, {targets} targets",
        arguments.config.config.display()
    ));
    Ok(ExitCode::SUCCESS)
}
