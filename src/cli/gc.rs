//! `violetd gc`: removes blobs that no package keeps.

use std::process::ExitCode;

use hyper::Method;
use tokio_util::sync::CancellationToken;

use super::output;
use super::reach::ask;
use super::{ConfigArgument, Failure, Format, Outcome};
use crate::daemon;
use crate::http::client;
use crate::http::retain::CollectBody;
use crate::retain::Mode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Collects the local store. Deletes nothing on a target: `gc` of violet does, and that is another thing.\n\n\
                  A blob that no package keeps is condemned by the first run that sees it, and removed by the first run after \
                  `grace` of [collect] is over, unless a package wants it again. The daemon does this by a schedule. A dry run \
                  works without a daemon, too; so does the other, if no daemon uses the state directory."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Say what would be removed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Grace period, in place of the configured one; at least 1s
    #[arg(long, value_name = "DURATION")]
    grace: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let body = CollectBody {
        dry_run: arguments.dry_run,
        grace: arguments.grace.clone(),
    };
    let Some(request) = body.request() else {
        let found = body.grace.unwrap_or_default();
        let message = format!("expected a grace period of at least 1s, found `{found}`");
        return Err(Failure::usage(message));
    };
    let config = arguments.config.load()?;
    let answer = client::call(&config.admin.socket, Method::POST, "/v1/collect", &body);
    let stop = CancellationToken::new();
    let collected = match (ask(answer)?, request.mode) {
        (Some(collected), _) => collected,
        (None, Mode::DryRun) => daemon::read_collector(&config)?.collect(request, &stop)?,
        (None, Mode::Remove) => daemon::own(&config)?.collector.collect(request, &stop)?,
    };
    match arguments.output {
        Format::Json => output::json(&collected),
        Format::Text => output::data(collected.to_string().replace(", ", "\n")),
    }
    Ok(ExitCode::SUCCESS)
}
