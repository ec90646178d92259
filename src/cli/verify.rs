//! `violetd verify`: signatures and checksums of package files, with violet's summary.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::{EXIT_NO, Failure, Format, Outcome, output};
use crate::base::{Chain, Class, Classified as _, Clock as _, Digest, SystemClock, Timestamp};
use crate::verify::{
    self, Checked, Depth, Fingerprint, Keyring, Policy, Requirements, Signer, Summary, Validity,
    Verdict, summarize,
};

/// Where certificates are looked for if no place is given: the default of the configuration.
const KEYRING_DEFAULT: &str = "/etc/violetd/keys";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Standard output has the summary, standard error who has signed and what is wrong. Ends with 0 where a \
                  signature or a checksum vouches for every package, with 1 where not."
)]
pub(super) struct Arguments {
    /// Package file, table of a package in parts, or folder of those
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// Look into folders below the folder, too
    #[arg(long)]
    recursive: bool,
    /// File or folder with the OpenPGP certificates of allowed signers; may be repeated; by default
    /// `/etc/violetd/keys`, if it is there
    #[arg(long, value_name = "FILE|DIR")]
    keyring: Vec<PathBuf>,
    /// Fingerprint of an allowed signer; may be repeated; by default every certificate of the keyring is one
    #[arg(long, value_name = "FINGERPRINT")]
    signer: Vec<Fingerprint>,
    /// How many different signers must have signed each package that is signed
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    signatures_min: u32,
    /// When the key of a signer must be valid
    #[arg(long, value_enum, default_value_t = SignerValidity::WhenSigned)]
    signer_validity: SignerValidity,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SignerValidity {
    /// When it signed
    WhenSigned,
    /// When it signed, and now
    Now,
}

/// What is printed for programs.
#[derive(Serialize)]
struct View {
    path: String,
    files: Vec<FileView>,
}

#[derive(Serialize)]
struct FileView {
    path: String,
    /// `signature`, `checksum`, `failed` or `unverified`.
    verdict: &'static str,
    /// Where it failed.
    code: Option<&'static str>,
    reason: Option<String>,
    hint: Option<String>,
    signers: Vec<SignerView>,
    /// Of the content, if that was read.
    digest: Option<Digest>,
    size_bytes: Option<u64>,
    sidecars: Vec<String>,
}

#[derive(Serialize)]
struct SignerView {
    fingerprint: String,
    key: String,
    user_id: Option<String>,
    signed_at: Timestamp,
    key_algorithm: String,
    hash_algorithm: String,
    sidecar: String,
    list: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    if !arguments.path.exists() {
        return Err(Failure {
            class: Class::Absent,
            error: anyhow::anyhow!("failed to find `{}`", arguments.path.display()),
            hint: None,
        });
    }
    let requirements = Requirements {
        signers: arguments.signer.clone(),
        signatures_min: arguments.signatures_min,
        validity: match arguments.signer_validity {
            SignerValidity::WhenSigned => Validity::WhenSigned,
            SignerValidity::Now => Validity::Now,
        },
        ..Requirements::new(Policy::Signature)
    };
    let keyring = Keyring::load(keyring_files(&arguments.keyring), &requirements.limits)?;
    keyring.check(&requirements)?;
    let depth = if arguments.recursive {
        Depth::Tree
    } else {
        Depth::Folder
    };
    let now = SystemClock.now();
    let summary = summarize(&arguments.path, depth, &requirements, &keyring, now)?;
    match arguments.output {
        Format::Json => output::json(&View::new(&summary)),
        Format::Text => output::data(&summary),
    }
    summary.packages.iter().for_each(note);
    Ok(if summary.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_NO)
    })
}

/// Returns where certificates are. The default place may be absent: checksums need none, and a signature is then one by
/// nobody known.
fn keyring_files(given: &[PathBuf]) -> Vec<PathBuf> {
    let default = PathBuf::from(KEYRING_DEFAULT);
    if given.is_empty() && default.exists() {
        vec![default]
    } else {
        given.to_vec()
    }
}

/// Says who has signed a package, or what is wrong with it.
fn note(package: &Checked) {
    let path = package.path.display();
    match &package.outcome {
        verify::Outcome::Good(file) => {
            if let Verdict::Signature { signers } = &file.verdict {
                for signer in signers {
                    output::note(format!("{path}: {signer}"));
                }
            }
        }
        verify::Outcome::Failed(failure) => {
            output::note(format!("{path}: {}", Chain(failure.error.as_ref())));
            if let Some(hint) = failure.error.hint() {
                output::note(format!("hint: {hint}"));
            }
        }
        verify::Outcome::Unverified => {}
    }
}

impl View {
    fn new(summary: &Summary) -> Self {
        Self {
            path: summary.path.display().to_string(),
            files: summary.packages.iter().map(FileView::new).collect(),
        }
    }
}

impl FileView {
    fn new(package: &Checked) -> Self {
        let mut view = Self {
            path: package.path.display().to_string(),
            verdict: "unverified",
            code: None,
            reason: None,
            hint: None,
            signers: Vec::new(),
            digest: None,
            size_bytes: None,
            sidecars: package
                .sidecars
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
        };
        match &package.outcome {
            verify::Outcome::Unverified => {}
            verify::Outcome::Failed(failure) => {
                view.verdict = "failed";
                view.code = Some(failure.error.code());
                view.reason = Some(Chain(failure.error.as_ref()).to_string());
                view.hint = failure.error.hint();
                view.digest = failure.digest;
            }
            verify::Outcome::Good(file) => {
                view.digest = Some(file.digest);
                view.size_bytes = Some(file.size_bytes);
                match &file.verdict {
                    Verdict::Signature { signers } => {
                        view.verdict = "signature";
                        view.signers = signers.iter().map(SignerView::new).collect();
                    }
                    Verdict::Checksum { .. } => view.verdict = "checksum",
                    Verdict::Unchecked => {}
                }
            }
        }
        view
    }
}

impl SignerView {
    fn new(signer: &Signer) -> Self {
        Self {
            fingerprint: signer.fingerprint.to_string(),
            key: signer.key.to_string(),
            user_id: signer.user_id.clone(),
            signed_at: signer.signed_at,
            key_algorithm: signer.key_algorithm.clone(),
            hash_algorithm: signer.hash_algorithm.clone(),
            sidecar: signer.sidecar.display().to_string(),
            list: signer.list.as_ref().map(|path| path.display().to_string()),
        }
    }
}
