//! `violetd show`: what a package file contains, in violet's words.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::{Failure, Format, Outcome, output};
use crate::base::shown::one_line;
use crate::base::{Class, Description, Digest, PackageKind, PackageName, Platform};
use crate::package::{self, Contents, DiscardSink, Limits, Nested, UnpackError, Unpacked};
use crate::sys::fs::Context as _;
use crate::verify::Source;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Package file, or the table of a package in parts
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also list the artifact, all images, and what the main image or chart says of itself
    #[arg(long)]
    all: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// What is printed for programs. Of a file that only carries packages there is `nested` and nothing else.
#[derive(Serialize)]
struct FileView<'a> {
    #[serde(flatten)]
    package: Option<View<'a>>,
    nested: Vec<NestedView<'a>>,
}

/// A package in a file inside of the file.
#[derive(Serialize)]
struct NestedView<'a> {
    path: &'a str,
    digest: Digest,
    size_bytes: u64,
    #[serde(flatten)]
    package: View<'a>,
}

/// One package.
#[derive(Serialize)]
struct View<'a> {
    name: Option<&'a str>,
    #[serde(rename = "type")]
    kind: PackageKind,
    platforms: Vec<&'a str>,
    version: Option<&'a str>,
    display_name: Option<&'a str>,
    artifact: Option<String>,
    images: Vec<ImageView>,
    blobs: usize,
    blob_bytes: u64,
    /// What the main image or chart says of itself.
    description: Option<&'a Description>,
    /// Why there is no such description, or what is missing from it.
    description_problem: Option<ProblemView>,
    /// Images that the main image or chart names and that are not in the package.
    missing_related_images: Vec<&'a str>,
}

#[derive(Serialize)]
struct ProblemView {
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
struct ImageView {
    reference: String,
    digest: Digest,
    media_type: String,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let source = Source::of(&arguments.file)?;
    let file = source.open().context("open", &arguments.file)?;
    let mut sink = DiscardSink::default();
    let contents =
        package::unpack(file, &Limits::default(), &mut sink).map_err(|error| match error {
            UnpackError::Package(error) => Failure::from(error),
            UnpackError::Sink(error) => Failure {
                class: Class::Rejected,
                error: anyhow::Error::new(error),
                hint: None,
            },
        });
    let unpacked = contents.map_err(|failure| Failure {
        error: failure
            .error
            .context(format!("failed to read `{}`", arguments.file.display())),
        ..failure
    })?;
    match arguments.output {
        Format::Json => output::json(&file_view(&unpacked)),
        Format::Text => {
            output::data(text(&unpacked, arguments));
            let nested = unpacked.nested.iter().map(|nested| &nested.contents);
            for contents in unpacked.package.iter().chain(nested) {
                if let Some(problem) = &contents.description_problem {
                    output::note(format!("note: {problem}"));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The lines for the package and for each one nested in it, with an empty line between them.
fn text(unpacked: &Unpacked, arguments: &Arguments) -> String {
    let lines = |contents: &Contents| {
        let details = arguments
            .all
            .then(|| details(contents) + &describe(contents));
        summary(contents) + &details.unwrap_or_default()
    };
    let nested = unpacked.nested.iter().map(|nested| {
        let file = arguments.all.then(|| format!("File: {}\n", nested.path));
        lines(&nested.contents) + &file.unwrap_or_default()
    });
    let all: Vec<String> = unpacked.package.iter().map(lines).chain(nested).collect();
    all.join("\n")
}

fn file_view(unpacked: &Unpacked) -> FileView<'_> {
    FileView {
        package: unpacked.package.as_ref().map(view),
        nested: unpacked.nested.iter().map(nested_view).collect(),
    }
}

fn nested_view(nested: &Nested) -> NestedView<'_> {
    NestedView {
        path: &nested.path,
        digest: nested.digest,
        size_bytes: nested.size_bytes,
        package: view(&nested.contents),
    }
}

fn view(contents: &Contents) -> View<'_> {
    View {
        name: contents.name.as_ref().map(PackageName::as_str),
        kind: contents.kind,
        platforms: contents.platforms.iter().map(Platform::as_str).collect(),
        version: contents.version.as_deref(),
        display_name: contents.display_name.as_deref(),
        artifact: contents.artifact.as_ref().map(ToString::to_string),
        images: contents
            .images
            .iter()
            .map(|image| ImageView {
                reference: image.reference.to_string(),
                digest: image.descriptor.digest,
                media_type: image.descriptor.media_type.clone(),
            })
            .collect(),
        blobs: contents.blobs.len(),
        blob_bytes: contents.blobs.values().sum(),
        description: contents.description.as_ref(),
        description_problem: contents
            .description_problem
            .as_ref()
            .map(|problem| ProblemView {
                code: problem.code(),
                message: problem.to_string(),
            }),
        missing_related_images: contents.list_missing_images(),
    }
}

/// The four lines that violet prints.
fn summary(contents: &Contents) -> String {
    let platforms: Vec<&str> = contents.platforms.iter().map(Platform::as_str).collect();
    let name = contents.name.as_ref().map_or("", |name| name.as_str());
    let version = contents.version.as_deref().unwrap_or("");
    format!(
        "Name: {name}\nType: {}\nArch: [{}]\nVersion: {version}\n",
        violet_type(contents.kind),
        platforms.join(" "),
    )
}

/// The two lines that violet adds with `--all`: images as a list that Go prints.
fn details(contents: &Contents) -> String {
    let mut text = String::new();
    let artifact = contents.artifact.as_ref();
    let artifact = artifact.map(|artifact| artifact.by_tag().to_string());
    let is_artifact = |reference: &str| artifact.as_deref() == Some(reference);
    let images = contents
        .images
        .iter()
        .map(|image| image.reference.to_string());
    let related: Vec<String> = images.filter(|reference| !is_artifact(reference)).collect();
    writeln!(text, "Artifact: {}", artifact.as_deref().unwrap_or(""))
        .expect("writing to a String cannot fail");
    writeln!(text, "RelateImages: [{}]", related.join(" "))
        .expect("writing to a String cannot fail");
    text
}

/// What is known besides, a line for each fact: with `--all`, below what violet prints.
fn describe(contents: &Contents) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            let value = one_line(value, usize::MAX);
            writeln!(text, "{key}: {value}").expect("writing to a String cannot fail");
        }
    };
    let list = |items: &[&str]| (!items.is_empty()).then(|| format!("[{}]", items.join(" ")));
    line("DisplayName", contents.display_name.as_deref());
    match &contents.description {
        Some(Description::Operator(operator)) => {
            let channels: Vec<&str> = operator.channels.iter().map(String::as_str).collect();
            line("Summary", operator.summary.as_deref());
            line("CSV", operator.csv_name.as_deref());
            line("Channels", list(&channels).as_deref());
            line("DefaultChannel", operator.default_channel.as_deref());
        }
        Some(Description::Chart(chart)) => {
            line("Summary", chart.description.as_deref());
            line("Chart", Some(&format!("{} {}", chart.name, chart.version)));
            line("AppVersion", chart.app_version.as_deref());
            line("PluginConfig", chart.has_plugin_config.then_some("true"));
        }
        None => {}
    }
    let missing = contents.list_missing_images();
    line("MissingImages", list(&missing).as_deref());
    text
}

/// Violet's own name for a type.
const fn violet_type(kind: PackageKind) -> &'static str {
    match kind {
        PackageKind::Operator => "bundle",
        PackageKind::Plugin => "plugin",
        PackageKind::Chart => "chart",
        PackageKind::Images => "images",
        PackageKind::Supplement => "supplement",
    }
}
