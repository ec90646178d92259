//! `violetd retain`: which packages go, and their removal.

use std::fmt::Write as _;
use std::process::ExitCode;

use hyper::Method;
use tokio_util::sync::CancellationToken;

use super::output::{self, span, table};
use super::reach::ask;
use super::{ConfigArgument, Failure, Format, Outcome};
use crate::base::ByteCount;
use crate::config::Config;
use crate::daemon;
use crate::http::client;
use crate::http::retain::ApplyBody;
use crate::retain::plan::{Kept, Subject};
use crate::retain::{Applied, Order, Plan, PlanId};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print which packages would be removed and how many bytes that frees
    #[command(
        after_help = "Changes nothing. Works without a daemon, too. The rules are in [retain] of the configuration."
    )]
    Plan(PlanArguments),
    /// Remove packages as planned
    #[command(
        after_help = "Removes packages from the catalog of the local store and nothing on a target. What a target still has to get, \
                      and what is pinned, is never removed. The space is free after `violetd gc`, which runs by its own \
                      schedule."
    )]
    Apply(ApplyArguments),
}

#[derive(Debug, clap::Args)]
struct PlanArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Say of the other packages, too, what keeps them
    #[arg(long)]
    all: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct ApplyArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Approve: without it, the plan is printed and nothing is removed
    #[arg(long)]
    yes: bool,
    /// Refuse unless this is still the plan
    #[arg(long, value_name = "ID")]
    plan: Option<PlanId>,
    /// Only these packages of the plan, by digest or by how it begins
    #[arg(long, value_name = "DIGEST", num_args = 1..)]
    only: Vec<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Command::Plan(arguments) => plan(arguments),
        Command::Apply(arguments) => apply(arguments),
    }
}

fn plan(arguments: &PlanArguments) -> Outcome {
    let mut plan = fetch_plan(&arguments.config.load()?)?;
    if !arguments.all {
        plan.kept.clear();
    }
    match arguments.output {
        Format::Json => output::json(&plan),
        Format::Text => output::data(render_plan(&plan)),
    }
    Ok(ExitCode::SUCCESS)
}

fn fetch_plan(config: &Config) -> Result<Plan, Failure> {
    match ask(client::get(&config.admin.socket, "/v1/retain/plan"))? {
        Some(plan) => Ok(plan),
        None => Ok(daemon::read_planner(config)?.plan()?),
    }
}

fn apply(arguments: &ApplyArguments) -> Outcome {
    let config = arguments.config.load()?;
    if !arguments.yes {
        let mut plan = fetch_plan(&config)?;
        plan.kept.clear();
        output::data(render_plan(&plan));
        let mut failure = Failure::usage("expected --yes, found no approval: nothing was removed");
        let mut command = format!("violetd retain apply --yes --plan {}", plan.id);
        if !arguments.only.is_empty() {
            command.push_str(" --only ");
            command.push_str(&arguments.only.join(" "));
        }
        failure.hint = Some(command);
        return Err(failure);
    }
    let body = ApplyBody {
        plan: arguments.plan.clone(),
        only: arguments.only.clone(),
    };
    let socket = &config.admin.socket;
    let answer = client::call(socket, Method::POST, "/v1/retain/apply", &body);
    let applied = match ask(answer)? {
        Some(applied) => applied,
        None => daemon::own(&config)?
            .retention
            .apply(&Order::from(&body), &CancellationToken::new())?,
    };
    match arguments.output {
        Format::Json => output::json(&applied),
        Format::Text => output::data(render_applied(&applied)),
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(package: &Subject, plan: &Plan) -> Vec<String> {
    vec![
        package.name.to_string(),
        package.version.clone().unwrap_or_else(|| "-".to_owned()),
        package.digest.short(),
        span(plan.made_at - package.ready_at),
    ]
}

fn render_plan(plan: &Plan) -> String {
    let header = |last: &[&str]| {
        let first = ["PACKAGE", "VERSION", "DIGEST", "AGE"].iter();
        first.chain(last).map(ToString::to_string).collect()
    };
    let mut text = String::new();
    if plan.removals.is_empty() {
        text.push_str("nothing would be removed\n");
    } else {
        let mut rows: Vec<Vec<String>> = vec![header(&["FREES", "RULE"])];
        for removal in &plan.removals {
            let mut row = cells(&removal.package, plan);
            row.push(ByteCount(removal.freed.bytes).to_string());
            row.push(removal.rule.clone());
            rows.push(row);
        }
        text.push_str(&table(&rows));
        let (count, freed) = (plan.removals.len(), plan.freed());
        let (blobs, bytes) = (freed.blobs, ByteCount(freed.bytes));
        let id = &plan.id;
        writeln!(
            text,
            "\nplan {id}: {count} packages would be removed, which frees {bytes} in {blobs} blobs"
        )
        .expect("writing to a String cannot fail");
    }
    if !plan.kept.is_empty() {
        let mut rows: Vec<Vec<String>> = vec![header(&["KEPT BECAUSE"])];
        for kept in &plan.kept {
            let mut row = cells(&kept.package, plan);
            row.push(kept.because.to_string());
            rows.push(row);
        }
        text.push('\n');
        text.push_str(&table(&rows));
    }
    text
}

fn render_applied(applied: &Applied) -> String {
    let mut text = String::new();
    for removal in &applied.removed {
        writeln!(text, "removed {}", removal.package).expect("writing to a String cannot fail");
    }
    for Kept { package, because } in &applied.spared {
        writeln!(text, "spared  {package}: {because}").expect("writing to a String cannot fail");
    }
    writeln!(text, "{applied}").expect("writing to a String cannot fail");
    text
}
