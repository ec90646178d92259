//! `violetd limit`: changes how many bytes per second go to a target.

use std::num::NonZeroU64;
use std::process::ExitCode;
use std::str::FromStr;

use hyper::Method;

use super::output;
use super::{ConfigArgument, Format, Outcome, runtime};
use crate::base::{ByteCount, TargetName};
use crate::http::client;
use crate::http::pace::{LimitBody, PaceView};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Uploads that are under way follow at once. The limit is forgotten when the daemon ends: `bandwidth_max` of the \
                  target in the configuration says what holds from then on. `violetd targets` shows it."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The target
    #[arg(value_name = "TARGET")]
    target: TargetName,
    /// Bytes of blobs per second, such as 20MB, or none
    #[arg(value_name = "LIMIT")]
    limit: Limit,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// A limit on bytes per second, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit(Option<NonZeroU64>);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self(None));
        }
        let bytes: ByteCount = text
            .parse()
            .map_err(|error| format!("{error}, or `none`"))?;
        let limit = NonZeroU64::new(bytes.0);
        limit
            .map(|limit| Self(Some(limit)))
            .ok_or_else(|| "expected at least 1 byte per second, or `none`".to_owned())
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.config.load()?;
    let target = &arguments.target;
    let path = format!("/v1/targets/{target}/limit");
    let body = LimitBody {
        bandwidth_max: arguments.limit.0,
    };
    let call = client::call(&config.admin.socket, Method::POST, &path, &body);
    let pace: PaceView = runtime()?.block_on(call)?;
    match arguments.output {
        Format::Json => output::json(&pace),
        Format::Text => output::note(match pace.bandwidth_max {
            Some(limit) => format!("{target}: at most {} per second", ByteCount(limit.get())),
            None => format!("{target}: no limit"),
        }),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_an_amount_or_none() {
        let limit = |bytes| Ok(Limit(NonZeroU64::new(bytes)));
        assert_eq!("20MB".parse(), limit(20_000_000));
        assert_eq!("1".parse(), limit(1));
        assert_eq!("none".parse(), limit(0));
        for bad in ["0", "0MB", "", "fast", "None"] {
            let refused = bad.parse::<Limit>().unwrap_err();
            assert!(refused.ends_with("`none`"), "{bad}: {refused}");
        }
    }
}
