//! `violetd verify`: signatures and checksums of package files, with violet's summary.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::{EXIT_NO, Failure, Format, Outcome, output};
use crate::base::{Chain, Class, Classified as _, Clock as _, SystemClock};
use crate::verify::{Fingerprint, Keyring, Summary, summarize};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Package file, or folder of package files
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// File or folder with the OpenPGP certificates of allowed signers; may be repeated
    #[arg(long, value_name = "FILE|DIR", default_value = "/etc/violetd/keys")]
    keyring: Vec<PathBuf>,
    /// Fingerprint of an allowed signer; may be repeated; by default every certificate of the keyring is one
    #[arg(long, value_name = "FINGERPRINT")]
    signer: Vec<Fingerprint>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// What is printed for programs.
#[derive(Serialize)]
struct View<'a> {
    path: String,
    signed: Vec<String>,
    checksummed: Vec<String>,
    failed: Vec<FailedView<'a>>,
    unverified: Vec<String>,
}

#[derive(Serialize)]
struct FailedView<'a> {
    path: String,
    code: &'a str,
    reason: String,
    hint: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    // The default keyring may be absent: checksums need none, and a signature is then one by nobody known.
    let files = arguments.keyring.iter().filter(|path| path.exists());
    let keyring = Keyring::load(files, &arguments.signer)?;
    if !arguments.path.exists() {
        return Err(Failure {
            class: Class::Absent,
            error: anyhow::anyhow!("failed to find `{}`", arguments.path.display()),
            hint: None,
        });
    }
    let summary = summarize(&arguments.path, &keyring, SystemClock.now())?;
    match arguments.output {
        Format::Json => output::json(&view(&summary)),
        Format::Text => output::data(&summary),
    }
    for (path, error) in &summary.failed {
        output::note(format!("{}: {}", path.display(), Chain(error)));
        if let Some(hint) = error.hint() {
            output::note(format!("hint: {hint}"));
        }
    }
    let is_good = summary.failed.is_empty() && summary.unverified.is_empty();
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_NO)
    })
}

fn view(summary: &Summary) -> View<'_> {
    let names = |paths: &[PathBuf]| {
        paths
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    };
    View {
        path: summary.path.display().to_string(),
        signed: names(&summary.signed),
        checksummed: names(&summary.checksummed),
        failed: summary
            .failed
            .iter()
            .map(|(path, error)| FailedView {
                path: path.display().to_string(),
                code: error.code(),
                reason: Chain(error).to_string(),
                hint: error.hint(),
            })
            .collect(),
        unverified: names(&summary.unverified),
    }
}
