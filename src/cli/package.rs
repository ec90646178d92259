//! `violetd package`: makes a package from a folder that `violetd create` wrote.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::create::{ImageView, RegistryArguments, note_absent_layers, note_form, note_left_out};
use super::{Failure, Format, Outcome, output, runtime};
use crate::base::{ByteCount, Classified as _, Digest, ImageReference, ParseByteCountError};
use crate::build::{
    self, AbsentLayer, Builder, Completeness, Content, Form, PackageOptions, Packaged,
};
use crate::package::{Inventory, ParseInventoryError, Request, WriteOptions};
use crate::sys::fs::{self as durable, Context as _};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folder with a manifest.yaml
    #[arg(value_name = "NAME|DIR")]
    folder: PathBuf,
    /// Package file to write; by default NAME-VERSION.tgz in the working directory, with `-delta` or `-supplement` before
    /// the dot
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Level of compression, 0 to 9, of what is not compressed already
    #[arg(long, value_name = "LEVEL", default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=9))]
    compression: u32,
    /// Write the package in parts of at most this size, such as 4GiB, with a table of contents beside them
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    split: Option<NonZeroU64>,
    /// Write a checksum file beside the package
    #[arg(long)]
    checksum: bool,
    /// Leave out the blobs that this inventory has; may be repeated
    #[arg(long = "base", value_name = "INVENTORY", conflicts_with = "request")]
    bases: Vec<PathBuf>,
    /// Write a supplement instead, with exactly the blobs that this request asks for
    #[arg(long = "for", value_name = "REQUEST", id = "request")]
    request: Option<PathBuf>,
    /// Answer the request even if the folder has only some of its blobs
    #[arg(long, requires = "request")]
    partial: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// What is printed for programs.
#[derive(Serialize)]
struct View<'a> {
    /// The package; the table, where it was split.
    path: &'a Path,
    size_bytes: u64,
    digest: Digest,
    parts: usize,
    images: Vec<ImageView<'a>>,
    referrers: usize,
    referrers_left_out: &'a [ImageReference],
    nondistributable_absent: &'a [AbsentLayer],
    blobs: usize,
    /// Blobs that a base has.
    spared_blobs: usize,
    spared_bytes: u64,
    /// Blobs that were requested and are not in the images.
    unanswered: &'a [Digest],
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let access = arguments.registry.access()?;
    let path = match &arguments.output {
        Some(path) => path.clone(),
        None => default_output(arguments)?,
    };
    let options = PackageOptions {
        write: WriteOptions {
            compression_level: arguments.compression,
        },
        content: content(arguments)?,
        part_bytes: arguments.split,
    };
    let runtime = runtime()?;
    let builder = Builder::new(&access, runtime.handle().clone())?;
    let packaged = builder.package(&arguments.folder, &path, &options)?;
    if arguments.checksum {
        write_checksum(&path, &packaged.written.digest)?;
    }
    match arguments.format {
        Format::Json => output::json(&view(&packaged)),
        Format::Text => output::data(packaged.written.path.display()),
    }
    note(&packaged, &options.content);
    Ok(ExitCode::SUCCESS)
}

/// Reads what is to be left out, or what is asked for.
fn content(arguments: &Arguments) -> Result<Content, Failure> {
    if let Some(path) = &arguments.request {
        let request = read_list(path, Request::parse)?;
        let completeness = if arguments.partial {
            Completeness::Partial
        } else {
            Completeness::Complete
        };
        return Ok(Content::Answer(request, completeness));
    }
    if arguments.bases.is_empty() {
        return Ok(Content::Whole);
    }
    let mut blobs = BTreeMap::new();
    for path in &arguments.bases {
        blobs.extend(read_list(path, Inventory::parse)?.blobs);
    }
    Ok(Content::Without(blobs))
}

fn read_list<T>(
    path: &Path,
    parse: impl Fn(BufReader<File>) -> Result<T, ParseInventoryError>,
) -> Result<T, Failure> {
    let file = File::open(path).context("open", path)?;
    parse(BufReader::new(file)).map_err(|error| Failure {
        class: error.class(),
        hint: error.hint(),
        error: anyhow::Error::new(error).context(format!("failed to read `{}`", path.display())),
    })
}

fn view(packaged: &Packaged) -> View<'_> {
    View {
        path: &packaged.written.path,
        size_bytes: packaged.written.size_bytes,
        digest: packaged.written.digest,
        parts: packaged.written.parts,
        images: packaged.images.iter().map(ImageView::new).collect(),
        referrers: packaged.referrers,
        referrers_left_out: &packaged.left_out,
        nondistributable_absent: &packaged.absent_layers,
        blobs: packaged.blobs,
        spared_blobs: packaged.spared.blobs,
        spared_bytes: packaged.spared.bytes,
        unanswered: &packaged.unanswered,
    }
}

/// Says what was made.
fn note(packaged: &Packaged, content: &Content) {
    let is_cut = |image: &build::PackedImage| image.form != Form::Whole;
    if packaged.images.iter().any(is_cut) {
        packaged.images.iter().for_each(note_form);
    }
    note_left_out(&packaged.left_out);
    note_absent_layers(&packaged.absent_layers);
    match content {
        Content::Whole | Content::Answer(..) => {}
        Content::Without(_) if packaged.spared.blobs == 0 => {
            output::note("note: the base has nothing of these images: the package is whole");
        }
        Content::Without(_) => output::note(format!(
            "note: a delta: {} blobs are left out, {}, which must be there where it arrives",
            packaged.spared.blobs,
            ByteCount(packaged.spared.bytes)
        )),
    }
    for digest in &packaged.unanswered {
        output::note(format!("note: {digest} is not in these images"));
    }
    output::note(format!(
        "{} images, {} referrers, {} blobs, {}",
        packaged.images.len(),
        packaged.referrers,
        packaged.blobs,
        ByteCount(packaged.written.size_bytes)
    ));
    if packaged.written.parts > 0 {
        output::note(format!("{} parts", packaged.written.parts));
    }
}

fn parse_size(text: &str) -> Result<NonZeroU64, String> {
    let size: ByteCount = text
        .parse()
        .map_err(|error: ParseByteCountError| error.to_string())?;
    NonZeroU64::new(size.0).ok_or_else(|| "expected at least one byte".to_owned())
}

fn default_output(arguments: &Arguments) -> Result<PathBuf, Failure> {
    let manifest = build::read_manifest(&arguments.folder)?;
    let name = match manifest.name {
        Some(name) => name.to_string(),
        None => arguments
            .folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .ok_or_else(|| Failure::usage("expected a name in the manifest, or --output"))?,
    };
    // What is not whole must not take the place of a whole package by accident.
    let suffix = match (&arguments.request, arguments.bases.is_empty()) {
        (Some(_), _) => "-supplement",
        (None, false) => "-delta",
        (None, true) => "",
    };
    Ok(match manifest.version {
        Some(version) => format!("{name}-{version}{suffix}.tgz").into(),
        None => format!("{name}{suffix}.tgz").into(),
    })
}

/// Writes `<package>.sha256` in the form of sha256sum. For a package in parts it is that of the whole.
fn write_checksum(package: &Path, digest: &Digest) -> Result<(), Failure> {
    let name = package.file_name().unwrap_or_default();
    let text = format!("{}  {}\n", digest.hex(), name.to_string_lossy());
    let mut sidecar = name.to_owned();
    sidecar.push(".sha256");
    durable::replace_file(&package.with_file_name(sidecar), text.as_bytes(), 0o644)?;
    Ok(())
}
