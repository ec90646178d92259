//! `violetd show`: what a package file contains, in violet's words.

use std::fmt::Write as _;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::{Failure, Format, Outcome, output};
use crate::base::{Class, Digest, PackageKind, PackageName, Platform};
use crate::package::{self, Contents, DiscardSink, Limits, UnpackError};
use crate::sys::fs::Context as _;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Package file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also list the artifact and all images
    #[arg(long)]
    all: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// What is printed for programs.
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
}

#[derive(Serialize)]
struct ImageView {
    reference: String,
    digest: Digest,
    media_type: String,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let file = File::open(&arguments.file).context("open", &arguments.file)?;
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
    let contents = contents.map_err(|failure| Failure {
        error: failure
            .error
            .context(format!("failed to read `{}`", arguments.file.display())),
        ..failure
    })?;
    match arguments.output {
        Format::Json => output::json(&view(&contents)),
        Format::Text if arguments.all => output::data(summary(&contents) + &details(&contents)),
        Format::Text => output::data(summary(&contents)),
    }
    Ok(ExitCode::SUCCESS)
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

/// Violet's own name for a type.
const fn violet_type(kind: PackageKind) -> &'static str {
    match kind {
        PackageKind::Operator => "bundle",
        PackageKind::Plugin => "plugin",
        PackageKind::Chart => "chart",
        PackageKind::Images => "images",
    }
}
