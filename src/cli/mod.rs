//! Commands, output and exit codes. The only module that prints.
//!
//! Standard output is data, standard error is words. `--output json` gives the data for programs.
//!
//! # Exit codes
//!
//! They follow `sysexits.h` and never change:
//!
//! | code | class | meaning |
//! |---:|---|---|
//! | 0 | | done |
//! | 1 | | done, and the answer is no: not in sync, not verified |
//! | 64 | usage | the command or the configuration makes no sense |
//! | 65 | rejected | a package is refused |
//! | 66 | absent | something that was named is not there |
//! | 70 | bug | a fault of this program |
//! | 73 | full | no space left |
//! | 74 | corrupt | stored data is damaged |
//! | 75 | transient | try again later |
//! | 77 | denied | credentials or permissions are missing |

mod audit;
mod check;
mod config;
mod create;
mod gc;
mod inventory;
mod limit;
mod output;
mod package;
mod pin;
mod push;
mod reach;
mod report;
mod retain;
mod scrub;
mod serve;
mod show;
mod status;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::base::{Class, Classified};
use crate::config::Config;

/// Exit code of a command that worked and whose answer is no.
const EXIT_NO: u8 = 1;

/// Offline mirror and registry sync daemon for Kubernetes extension packages
#[derive(Debug, Parser)]
#[command(name = "violetd", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: watch the drop folders and keep all targets in sync
    Serve(serve::Arguments),
    /// Show packages, files and targets
    Status(status::Arguments),
    /// List the packages that are ready, or show one
    Packages(status::PackagesArguments),
    /// List the targets
    Targets(status::Arguments),
    /// Bring packages or images to a registry and a platform now, without a daemon
    Push(Box<push::Arguments>),
    /// Show what the last run of a target did, image by image
    Report(report::Arguments),
    /// Ask the running daemon to bring targets in sync now
    Sync(status::SyncArguments),
    /// Limit how many bytes per second go to a target, until the daemon is started again
    Limit(limit::Arguments),
    /// Show damaged blobs and how the check of all blobs goes, or ask for one
    Scrub(scrub::Arguments),
    /// Print which packages would go by the configured rules, or remove them
    Retain(retain::Arguments),
    /// Keep a package whatever the rules say
    Pin(pin::PinArguments),
    /// Leave a package to the rules again
    Unpin(pin::UnpinArguments),
    /// List the pinned packages
    Pins(pin::PinsArguments),
    /// Remove blobs from the local store that no package keeps; deletes nothing on a target
    Gc(gc::Arguments),
    /// Write the folder from which a package is made
    Create(Box<create::Arguments>),
    /// Make a package from a folder that `create` wrote
    Package(package::Arguments),
    /// List the blobs that are here, so that `package --base` can leave them out
    Inventory(inventory::Arguments),
    /// Show what a package file contains
    Show(show::Arguments),
    /// Check signatures and checksums of package files
    Verify(verify::Arguments),
    /// Check the audit record, and report what it holds about a package
    Audit(audit::Arguments),
    /// Check the state directory: is what is on disk what it should be?
    Check(check::Arguments),
    /// Check a configuration file
    Config(config::Arguments),
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// Configuration file
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/violetd/violetd.toml",
        env = "VIOLETD_CONFIG"
    )]
    config: PathBuf,
}

impl ConfigArgument {
    /// Reads the configuration, with what the environment says.
    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(Some(&self.config), std::env::vars())?)
    }
}

/// Runs the program with `arguments`, the first of which is its own name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let result = match cli.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Packages(arguments) => status::packages(&arguments),
        Command::Targets(arguments) => status::targets(&arguments),
        Command::Push(arguments) => push::run(*arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Sync(arguments) => status::sync(&arguments),
        Command::Limit(arguments) => limit::run(&arguments),
        Command::Scrub(arguments) => scrub::run(&arguments),
        Command::Retain(arguments) => retain::run(&arguments),
        Command::Pin(arguments) => pin::pin(&arguments),
        Command::Unpin(arguments) => pin::unpin(&arguments),
        Command::Pins(arguments) => pin::pins(&arguments),
        Command::Gc(arguments) => gc::run(&arguments),
        Command::Create(arguments) => create::run(*arguments),
        Command::Package(arguments) => package::run(&arguments),
        Command::Inventory(arguments) => inventory::run(&arguments),
        Command::Show(arguments) => show::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            output::failure(&failure);
            ExitCode::from(exit_code(failure.class))
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
struct Failure {
    class: Class,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    fn usage(message: impl Into<String>) -> Self {
        Self {
            class: Class::Usage,
            error: anyhow::Error::msg(message.into()),
            hint: None,
        }
    }
}

impl<E: Classified + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            class: error.class(),
            hint: error.hint(),
            error: anyhow::Error::new(error),
        }
    }
}

/// What a command gives: an exit code, or why it failed.
type Outcome = Result<ExitCode, Failure>;

const fn exit_code(class: Class) -> u8 {
    match class {
        Class::Usage => 64,
        Class::Rejected => 65,
        Class::Absent => 66,
        Class::Bug => 70,
        Class::Full => 73,
        Class::Corrupt => 74,
        Class::Transient => 75,
        Class::Denied => 77,
    }
}

/// Returns a runtime for commands that talk to others.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure {
            class: Class::Transient,
            error: anyhow::Error::new(error).context("failed to start the runtime"),
            hint: None,
        })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
