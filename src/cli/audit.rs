//! `violetd audit`: checks the audit record and says what it holds about one package.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::{ConfigArgument, Failure, Format, Outcome, output};
use crate::audit::{self, Error, Finding, Findings, Head, Report, SigningKey};
use crate::base::{Clock as _, Secret, SystemClock, Timestamp};
use crate::sys::fs::{self as durable, Context as _};

/// Who may read a report that is written to a file: it names paths and persons.
const FILE_MODE: u32 = 0o640;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Look for every break in the record
    Verify(VerifyArguments),
    /// Print number and hash of the last record, to be noted elsewhere
    Head(HeadArguments),
    /// Report what is on record about one package
    Export(ExportArguments),
}

/// Where the record is.
#[derive(Debug, clap::Args)]
struct Place {
    #[command(flatten)]
    config: ConfigArgument,
    /// State directory, in place of a configuration
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    state_dir: Option<PathBuf>,
    /// Folder with the files of the record, for example a copy
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct VerifyArguments {
    #[command(flatten)]
    place: Place,
    /// A head that was noted earlier: the record must still hold it; may be repeated
    #[arg(long, value_name = "SEQUENCE:HASH")]
    expect: Vec<Head>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct HeadArguments {
    #[command(flatten)]
    place: Place,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct ExportArguments {
    #[command(flatten)]
    place: Place,
    /// Name of a package, digest of its file, or name of the file; also of a file that carried packages
    #[arg(value_name = "PACKAGE|DIGEST|FILE")]
    package: String,
    /// Where to write the report, instead of to standard output
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// OpenPGP secret key to sign with: text is signed in place, JSON by a file beside it that ends with `.asc`
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// File with the passphrase of that key
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    sign_passphrase_file: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// What is printed for programs.
#[derive(Serialize)]
struct View<'a> {
    files: u64,
    records: u64,
    first_time: Option<Timestamp>,
    last_time: Option<Timestamp>,
    head: Option<Head>,
    breaks_total: u64,
    breaks: &'a [Finding],
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Command::Verify(arguments) => verify(arguments),
        Command::Head(arguments) => head(arguments),
        Command::Export(arguments) => export(arguments),
    }
}

impl Place {
    fn dir(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.from {
            return Ok(dir.clone());
        }
        if let Some(state_dir) = &self.state_dir {
            return Ok(state_dir.join(audit::DIR));
        }
        Ok(self.config.load()?.state_dir.join(audit::DIR))
    }
}

fn verify(arguments: &VerifyArguments) -> Outcome {
    let dir = arguments.place.dir()?;
    let mut found = vec![None; arguments.expect.len()];
    let findings = audit::check(&dir, |line, entry| {
        for (noted, found) in arguments.expect.iter().zip(&mut found) {
            if noted.sequence == entry.sequence && *found != Some(*noted) {
                *found = Some(Head {
                    sequence: entry.sequence,
                    hash: line.hash,
                });
            }
        }
    })?;
    match arguments.output {
        Format::Json => output::json(&view(&findings)),
        Format::Text => output::data(summary(&findings)),
    }
    check_unbroken(&dir, findings.breaks_total)?;
    for (noted, found) in arguments.expect.iter().zip(found) {
        if found != Some(*noted) {
            let noted = *noted;
            return Err(Error::NotedAbsent { dir, noted, found }.into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check_unbroken(dir: &Path, count: u64) -> Result<(), Failure> {
    if count == 0 {
        return Ok(());
    }
    let dir = dir.to_owned();
    Err(Error::Broken { dir, count }.into())
}

fn view(findings: &Findings) -> View<'_> {
    View {
        files: findings.files,
        records: findings.records,
        first_time: findings.first_time,
        last_time: findings.last_time,
        head: findings.head,
        breaks_total: findings.breaks_total,
        breaks: &findings.breaks,
    }
}

fn summary(findings: &Findings) -> String {
    let (records, files) = (findings.records, findings.files);
    let mut lines = vec![format!("records: {records} in {files} files")];
    if let Some((first, last)) = findings.first_time.zip(findings.last_time) {
        lines.push(format!("first:   {}", first.to_rfc3339()));
        lines.push(format!("last:    {}", last.to_rfc3339()));
    }
    if let Some(head) = findings.head {
        lines.push(format!("head:    {head}"));
    }
    for finding in &findings.breaks {
        lines.push(format!("break:   {finding}"));
    }
    lines.join("\n")
}

fn head(arguments: &HeadArguments) -> Outcome {
    let dir = arguments.place.dir()?;
    let findings = audit::check(&dir, |_, _| {})?;
    // A head of a broken record is worth nothing: it would vouch for the break.
    check_unbroken(&dir, findings.breaks_total)?;
    let head = findings.head.ok_or(Error::Empty { dir })?;
    match arguments.output {
        Format::Json => output::json(&head),
        Format::Text => output::data(head),
    }
    Ok(ExitCode::SUCCESS)
}

fn export(arguments: &ExportArguments) -> Outcome {
    let dir = arguments.place.dir()?;
    let now = SystemClock.now();
    let is_json = arguments.output == Format::Json;
    if is_json && arguments.sign_key.is_some() && arguments.output_file.is_none() {
        return Err(Failure::usage(
            "expected --output-file for a signed report in JSON: its signature goes beside it",
        ));
    }
    let key = signing_key(arguments, now)?;
    let report = Report::make(&dir, &arguments.package, now)?;
    if is_json {
        let text = output::json_text(&report);
        if let Some((key, file)) = key.zip(arguments.output_file.as_deref()) {
            let signature = key.sign_detached(text.as_bytes())?;
            durable::replace_file(&beside(file), &signature, FILE_MODE)?;
        }
        deliver(arguments, text.as_bytes())?;
    } else {
        let text = report.to_string();
        match key {
            Some(key) => deliver(arguments, &key.sign_cleartext(&text)?)?,
            None => deliver(arguments, text.as_bytes())?,
        }
    }
    check_unbroken(&dir, report.breaks_total)?;
    Ok(ExitCode::SUCCESS)
}

fn deliver(arguments: &ExportArguments, bytes: &[u8]) -> Result<(), Failure> {
    if let Some(file) = &arguments.output_file {
        durable::replace_file(file, bytes, FILE_MODE)?;
    } else {
        output::bytes(bytes);
    }
    Ok(())
}

/// Returns the path of the signature of a report.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".asc");
    PathBuf::from(name)
}

/// Reads the key before the record, which may be long.
fn signing_key(arguments: &ExportArguments, now: Timestamp) -> Result<Option<SigningKey>, Failure> {
    let Some(path) = &arguments.sign_key else {
        return Ok(None);
    };
    let passphrase = match &arguments.sign_passphrase_file {
        Some(file) => {
            let text = std::fs::read_to_string(file).context("read", file)?;
            // An editor's line feed is no part of it.
            Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
        None => None,
    };
    Ok(Some(SigningKey::load(path, passphrase.as_ref(), now)?))
}
