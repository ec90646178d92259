//! `violetd inventory`: lists the blobs that are here, for packages that leave them out.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::create::RegistryArguments;
use super::{ConfigArgument, Failure, Outcome, output, runtime};
use crate::base::{ByteCount, Class, Repository, TargetName};
use crate::daemon;
use crate::holdings::{self, Held, Repositories};
use crate::package::Inventory;
use crate::sys::fs::{self as durable, Context as _};

/// How many things that are not listed are named. The rest is only counted.
const SKIPPED_SHOWN_MAX: usize = 20;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --target and --registry, lists what the packages in the state directory consist of: what a daemon \
                  finds when a delta arrives. Works while the daemon runs."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// State directory to look at, instead of that of the configuration
    #[arg(long, value_name = "DIR", conflicts_with_all = ["target", "registry"])]
    state_dir: Option<PathBuf>,
    /// List what the registry of this target of the configuration holds instead
    #[arg(long, value_name = "NAME", conflicts_with = "registry")]
    target: Option<TargetName>,
    /// List what this registry holds instead (host or host:port)
    #[arg(long = "registry", value_name = "HOST", id = "registry")]
    host: Option<String>,
    /// Repository to look at; may be repeated. By default those of all packages for a target, and all that it tells us of
    /// for a registry
    #[arg(long = "repository", value_name = "REPOSITORY")]
    repositories: Vec<Repository>,
    /// File to write, instead of standard output
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    #[command(flatten)]
    access: RegistryArguments,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    if arguments.host.is_none() && !arguments.access.is_empty() {
        let message = "expected --registry with --username, --docker-config, --no-auth, --plain and --ca-file";
        return Err(Failure::usage(message));
    }
    let held = match (&arguments.target, &arguments.host) {
        (Some(target), _) => of_target(arguments, target)?,
        (None, Some(host)) => of_registry(arguments, host)?,
        (None, None) if !arguments.repositories.is_empty() => {
            let message = "expected --target or --registry with --repository";
            return Err(Failure::usage(message));
        }
        (None, None) => holdings::of_state(&state_dir(arguments)?)?,
    };
    write(&held.inventory, arguments.output_file.as_deref())?;
    note(&held);
    Ok(ExitCode::SUCCESS)
}

fn state_dir(arguments: &Arguments) -> Result<PathBuf, Failure> {
    match &arguments.state_dir {
        Some(state_dir) => Ok(state_dir.clone()),
        None => Ok(arguments.config.load()?.state_dir),
    }
}

fn of_target(arguments: &Arguments, name: &TargetName) -> Result<Held, Failure> {
    let config = arguments.config.load()?;
    let target = config.targets.iter().find(|target| target.name == *name);
    let target = target.ok_or_else(|| {
        let names = config.targets.iter().map(|target| target.name.to_string());
        Failure {
            class: Class::Absent,
            error: anyhow::anyhow!("no target `{name}`"),
            hint: Some(format!(
                "use one of: {}",
                names.collect::<Vec<_>>().join(", ")
            )),
        }
    })?;
    let repositories = match &arguments.repositories[..] {
        [] => holdings::list_repositories(&config.state_dir)?,
        named => named.to_vec(),
    };
    let options = daemon::target_registry(&config, target)?;
    let held = holdings::of_registry(options, Repositories::These(repositories));
    Ok(runtime()?.block_on(held)?)
}

fn of_registry(arguments: &Arguments, host: &str) -> Result<Held, Failure> {
    let options = arguments.access.access()?.registry(host);
    let repositories = match &arguments.repositories[..] {
        [] => Repositories::All,
        named => Repositories::These(named.to_vec()),
    };
    Ok(runtime()?.block_on(holdings::of_registry(options, repositories))?)
}

fn write(inventory: &Inventory, path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path else {
        return output::stream(|output| inventory.write(output)).map_err(|error| Failure {
            class: Class::Transient,
            error: anyhow::Error::new(error).context("failed to write to standard output"),
            hint: None,
        });
    };
    let temp = durable::create_temp(durable::parent_of(path), 0o644)?;
    let mut output = BufWriter::new(temp.as_file());
    inventory.write(&mut output).context("write to", path)?;
    output.flush().context("write to", path)?;
    drop(output);
    durable::publish(temp, path)?;
    Ok(())
}

fn note(held: &Held) {
    for what in held.skipped.iter().take(SKIPPED_SHOWN_MAX) {
        output::note(format!("note: not listed: {what}"));
    }
    if held.skipped.len() > SKIPPED_SHOWN_MAX {
        let more = held.skipped.len() - SKIPPED_SHOWN_MAX;
        output::note(format!("note: {more} more are not listed"));
    }
    let blobs = &held.inventory.blobs;
    let bytes = blobs
        .values()
        .fold(0, |sum: u64, size| sum.saturating_add(*size));
    output::note(format!("{} blobs, {}", blobs.len(), ByteCount(bytes)));
}
