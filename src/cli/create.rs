//! `violetd create`: writes the folder from which a package is made.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Failure, Outcome, output, runtime};
use crate::base::{PackageKind, PackageName, Platform, Secret};
use crate::build::{Access, Builder, ImageSource, Recipe, Transport};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Name of the package, or the folder to write; its last part is then the name
    #[arg(value_name = "NAME|DIR")]
    folder: PathBuf,
    /// Main image: operator bundle or chart (IMAGE, or IMAGE=oci:DIR[:NAME] from an OCI layout)
    #[arg(long, value_name = "IMAGE")]
    artifact: Option<ImageSource>,
    /// Other image; may be repeated (IMAGE, IMAGE=oci:DIR[:NAME], or oci:DIR for all images of a layout)
    #[arg(long = "image", value_name = "IMAGE")]
    images: Vec<ImageSource>,
    /// Name of the package, where it is not that of the folder
    #[arg(long, value_name = "NAME")]
    name: Option<PackageName>,
    /// Type: operator, plugin, chart or images; by default operator where an artifact is named
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<PackageKind>,
    /// Version; by default the tag of the artifact
    #[arg(long = "package-version", value_name = "VERSION")]
    version: Option<String>,
    /// Name for people
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// Platforms to keep of multi-platform images, separated by commas; by default all
    #[arg(long, value_name = "OS/ARCH,...", value_delimiter = ',')]
    platforms: Vec<Platform>,
    /// Catalogue that the operator is published in
    #[arg(long = "default-catalog-source", value_name = "NAME")]
    catalog_source: Option<String>,
    /// File with the `ModulePlugin` of a cluster plugin
    #[arg(long, value_name = "FILE")]
    module_plugin: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// How to get at the registries that images come from.
#[derive(Debug, clap::Args)]
pub(super) struct RegistryArguments {
    /// User name for the registry
    #[arg(long, value_name = "NAME", requires = "credentials")]
    username: Option<String>,
    /// Password for the registry; visible to others on this machine, see --password-stdin
    #[arg(
        long,
        value_name = "TEXT",
        group = "credentials",
        requires = "username"
    )]
    password: Option<String>,
    /// Read the password for the registry from standard input
    #[arg(long, group = "credentials", requires = "username")]
    password_stdin: bool,
    /// Use no credentials
    #[arg(long, conflicts_with = "username")]
    no_auth: bool,
    /// Speak HTTP instead of HTTPS
    #[arg(long)]
    plain: bool,
    /// File with certificates, in PEM, to trust besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl RegistryArguments {
    pub(super) fn access(&self) -> Result<Access, Failure> {
        let password = match (&self.password, self.password_stdin) {
            (Some(password), _) => Some(Secret::new(password.clone())),
            (None, true) => Some(password_from_stdin()?),
            (None, false) => None,
        };
        let extra_roots = match &self.ca_file {
            Some(path) => vec![read(path)?],
            None => Vec::new(),
        };
        Ok(Access {
            transport: if self.plain {
                Transport::Http
            } else {
                Transport::Https
            },
            credentials: self.username.clone().zip(password),
            extra_roots,
        })
    }
}

fn password_from_stdin() -> Result<Secret, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| {
            Failure::usage(format!(
                "failed to read the password from standard input: {error}"
            ))
        })?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::usage(
            "expected a password on standard input, found nothing",
        ));
    }
    Ok(Secret::new(password.to_owned()))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    use crate::sys::fs::Context as _;

    Ok(std::fs::read(path).context("read", path)?)
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let access = arguments.registry.access()?;
    let name = match arguments.name {
        Some(name) => name,
        None => name_of(&arguments.folder)?,
    };
    let recipe = Recipe {
        name,
        kind: arguments.kind,
        version: arguments.version,
        display_name: arguments.display_name,
        artifact: arguments.artifact,
        images: arguments.images,
        platforms: arguments.platforms,
        catalog_source: arguments.catalog_source,
        module_plugin: arguments.module_plugin,
    };
    let runtime = runtime()?;
    let builder = Builder::new(&access, runtime.handle().clone())?;
    let created = builder.create(recipe, &arguments.folder)?;
    let folder = arguments.folder.display();
    output::data(created.manifest.display());
    output::note(format!(
        "{} images; look at the manifest, then run: violetd package {folder}",
        created.images
    ));
    Ok(ExitCode::SUCCESS)
}

/// Returns the name of the package that a folder is for.
fn name_of(folder: &Path) -> Result<PackageName, Failure> {
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    name.parse().map_err(|error| {
        Failure::usage(format!(
            "failed to use `{name}` as the name of a package: {error}"
        ))
    })
}
