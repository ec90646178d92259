//! `violetd package`: makes a package from a folder that `violetd create` wrote.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::create::RegistryArguments;
use super::{Failure, Outcome, output, runtime};
use crate::base::ByteCount;
use crate::build::{self, Builder};
use crate::package::{HashingReader, WriteOptions};
use crate::sys::fs::{self as durable, Context as _};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folder with a manifest.yaml
    #[arg(value_name = "NAME|DIR")]
    folder: PathBuf,
    /// Package file to write; by default NAME-VERSION.tgz in the working directory
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Level of compression, 0 to 9, of what is not compressed already
    #[arg(long, value_name = "LEVEL", default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=9))]
    compression: u32,
    /// Write a checksum file beside the package
    #[arg(long)]
    checksum: bool,
    #[command(flatten)]
    registry: RegistryArguments,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let access = arguments.registry.access()?;
    let path = match &arguments.output {
        Some(path) => path.clone(),
        None => default_output(&arguments.folder)?,
    };
    let runtime = runtime()?;
    let builder = Builder::new(&access, runtime.handle().clone())?;
    let options = WriteOptions {
        compression_level: arguments.compression,
    };
    let packaged = builder.package(&arguments.folder, &path, options)?;
    for (image, old, new) in &packaged.rewritten {
        output::note(format!(
            "note: platforms were left out of {image}: its index digest was {old}, and is {new} in the package"
        ));
    }
    if arguments.checksum {
        write_checksum(&packaged.path)?;
    }
    output::data(packaged.path.display());
    output::note(format!(
        "{} images, {} blobs, {}",
        packaged.images,
        packaged.blobs,
        ByteCount(packaged.size_bytes)
    ));
    Ok(ExitCode::SUCCESS)
}

fn default_output(folder: &Path) -> Result<PathBuf, Failure> {
    let manifest = build::read_manifest(folder)?;
    let name = match manifest.name {
        Some(name) => name.to_string(),
        None => folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .ok_or_else(|| Failure::usage("expected a name in the manifest, or --output"))?,
    };
    Ok(match manifest.version {
        Some(version) => format!("{name}-{version}.tgz").into(),
        None => format!("{name}.tgz").into(),
    })
}

/// Writes `<package>.sha256` in the form of sha256sum.
fn write_checksum(package: &Path) -> Result<(), Failure> {
    let file = std::fs::File::open(package).context("open", package)?;
    let (mut reader, digest) = HashingReader::new(file);
    std::io::copy(&mut reader, &mut std::io::sink()).context("read", package)?;
    let digest = digest.get().expect("the file was read to its end");
    let name = package.file_name().unwrap_or_default();
    let text = format!("{}  {}\n", digest.hex(), name.to_string_lossy());
    let mut sidecar = name.to_owned();
    sidecar.push(".sha256");
    durable::replace_file(&package.with_file_name(sidecar), text.as_bytes(), 0o644)?;
    Ok(())
}
