//! `violetd pin`, `unpin` and `pins`: packages that retention leaves alone.

use std::fmt::Write as _;
use std::process::ExitCode;

use hyper::Method;

use super::output::{self, table};
use super::reach::ask;
use super::{ConfigArgument, Format, Outcome};
use crate::catalog::Catalog;
use crate::daemon;
use crate::http::client;
use crate::http::retain::PinBody;
use crate::retain::plan::Subject;
use crate::retain::{Pin, list_pins};

#[derive(Debug, clap::Args)]
pub(super) struct PinArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// All packages of this name, or of this name and version, or the one with this digest or one that begins so
    #[arg(value_name = "NAME[@VERSION]|DIGEST")]
    package: String,
    /// Why, for those who look at it later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct UnpinArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// As for `pin`
    #[arg(value_name = "NAME[@VERSION]|DIGEST")]
    package: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct PinsArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn pin(arguments: &PinArguments) -> Outcome {
    let config = arguments.config.load()?;
    let reason = arguments.reason.clone();
    let path = pin_path(&arguments.package);
    let body = PinBody {
        reason: reason.clone(),
    };
    let answer = client::call(&config.admin.socket, Method::POST, &path, &body);
    let pins: Vec<Pin> = match ask(answer)? {
        Some(pins) => pins,
        None => daemon::own(&config)?
            .retention
            .planner
            .pin(&arguments.package, reason.as_deref())?,
    };
    for pin in pins {
        output::note(format!("{} is pinned", pin.package));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn unpin(arguments: &UnpinArguments) -> Outcome {
    let config = arguments.config.load()?;
    let path = pin_path(&arguments.package);
    let socket = &config.admin.socket;
    let unpinned: Vec<Subject> = match ask(client::request(socket, Method::DELETE, &path))? {
        Some(answer) => serde_json::from_slice(&answer).map_err(client::Error::from)?,
        None => daemon::own(&config)?
            .retention
            .planner
            .unpin(&arguments.package)?,
    };
    if unpinned.is_empty() {
        output::note("nothing was pinned");
    }
    for package in unpinned {
        output::note(format!("{package} is no longer pinned"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn pins(arguments: &PinsArguments) -> Outcome {
    let config = arguments.config.load()?;
    let pins = match ask(client::get(&config.admin.socket, "/v1/pins"))? {
        Some(pins) => pins,
        None => list_pins(&Catalog::open_read_only(&config.state_dir)?)?,
    };
    match arguments.output {
        Format::Json => output::json(&pins),
        Format::Text => output::data(render(&pins)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the path of a package on the admin API. What a path cannot hold is written as `%` and two digits (RFC 3986, 2.1).
fn pin_path(package: &str) -> String {
    let mut path = "/v1/pins/".to_owned();
    for byte in package.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'@') {
            path.push(char::from(byte));
        } else {
            write!(path, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    path
}

fn render(pins: &[Pin]) -> String {
    let header = ["PACKAGE", "VERSION", "DIGEST", "PINNED", "REASON"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for pin in pins {
        let dash = || "-".to_owned();
        rows.push(vec![
            pin.package.name.to_string(),
            pin.package.version.clone().unwrap_or_else(dash),
            pin.package.digest.short(),
            pin.pinned_at.format("%Y-%m-%d %H:%M:%SZ").to_string(),
            pin.pin_reason.clone().unwrap_or_else(dash),
        ]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_packages_fit_into_a_path() {
        assert_eq!(
            pin_path("redis@v1.0+2/ä"),
            "/v1/pins/redis@v1.0%2B2%2F%C3%A4"
        );
    }
}
