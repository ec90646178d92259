//! `violetd create`: writes the folder from which a package is made.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::{Failure, Format, Outcome, output, runtime};
use crate::base::{Digest, ImageReference, PackageKind, PackageName, Platform, Secret};
use crate::build::{
    AbsentLayer, Access, Builder, Created, Foreign, Form, ImageSource, IndexForm, PackedImage,
    Recipe, Referrers, Transport,
};

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
    /// What becomes of an index of which platforms are left out
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    index: IndexChoice,
    /// Leave out signatures, attestations and bills of materials that refer to the images
    #[arg(long)]
    no_referrers: bool,
    /// Pack the content of foreign (non-distributable) layers, too, where the source has it: whether they may be passed on is
    /// for you to know
    #[arg(long)]
    allow_nondistributable_artifacts: bool,
    /// Catalogue that the operator is published in
    #[arg(long = "default-catalog-source", value_name = "NAME")]
    catalog_source: Option<String>,
    /// File with the `ModulePlugin` of a cluster plugin
    #[arg(long, value_name = "FILE")]
    module_plugin: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// What becomes of an index of which platforms are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum IndexChoice {
    /// It keeps its digest, and some of its manifests are not there: not every registry takes that
    Sparse,
    /// It is made anew, with another digest: signatures of it do not hold
    #[default]
    Rewritten,
}

impl From<IndexChoice> for IndexForm {
    fn from(choice: IndexChoice) -> Self {
        match choice {
            IndexChoice::Sparse => Self::Sparse,
            IndexChoice::Rewritten => Self::Rewritten,
        }
    }
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
    /// File as `docker login` or `podman login --authfile` writes it, with the logins for registries
    #[arg(
        long,
        value_name = "FILE",
        visible_alias = "authfile",
        conflicts_with = "username"
    )]
    docker_config: Option<PathBuf>,
    /// Use no credentials
    #[arg(long, conflicts_with_all = ["username", "docker_config"])]
    no_auth: bool,
    /// Speak HTTP instead of HTTPS
    #[arg(long)]
    plain: bool,
    /// File with certificates, in PEM, to trust besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl RegistryArguments {
    /// Returns whether nothing was said.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            username,
            password,
            password_stdin,
            docker_config,
            no_auth,
            plain,
            ca_file,
        } = self;
        let has_credentials =
            username.is_some() || password.is_some() || *password_stdin || docker_config.is_some();
        !(has_credentials || *no_auth || *plain || ca_file.is_some())
    }

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
            docker_config: self.docker_config.clone(),
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
    let (folder, format) = (arguments.folder.clone(), arguments.output);
    let has_choice = !arguments.platforms.is_empty();
    let recipe = recipe(arguments)?;
    let runtime = runtime()?;
    let builder = Builder::new(&access, runtime.handle().clone())?;
    let created = builder.create(recipe, &folder)?;
    match format {
        Format::Json => output::json(&View::new(&created)),
        Format::Text => output::data(created.manifest.display()),
    }
    if has_choice {
        created.images.iter().for_each(note_form);
    }
    note_left_out(&created.left_out);
    note_absent_layers(&created.absent_layers);
    for image in &created.absent {
        output::note(format!(
            "note: {image} is listed as referring to another image, and is not there"
        ));
    }
    output::note(format!(
        "{} images, {} referrers; look at the manifest, then run: violetd package {}",
        created.images.len(),
        created.referrers,
        folder.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn recipe(arguments: Arguments) -> Result<Recipe, Failure> {
    if arguments.kind == Some(PackageKind::Supplement) {
        return Err(Failure::usage(
            "expected a type with images, found `supplement`, which `violetd package --for` makes",
        ));
    }
    let name = match arguments.name {
        Some(name) => name,
        None => name_of(&arguments.folder)?,
    };
    Ok(Recipe {
        name,
        kind: arguments.kind,
        version: arguments.version,
        display_name: arguments.display_name,
        artifact: arguments.artifact,
        images: arguments.images,
        platforms: arguments.platforms,
        index: arguments.index.into(),
        referrers: if arguments.no_referrers {
            Referrers::LeaveOut
        } else {
            Referrers::Take
        },
        foreign: if arguments.allow_nondistributable_artifacts {
            Foreign::Take
        } else {
            Foreign::LeaveOut
        },
        catalog_source: arguments.catalog_source,
        module_plugin: arguments.module_plugin,
    })
}

/// What is printed for programs.
#[derive(Serialize)]
struct View<'a> {
    manifest: &'a Path,
    images: Vec<ImageView<'a>>,
    referrers: usize,
    referrers_left_out: &'a [ImageReference],
    referrers_absent: &'a [ImageReference],
    nondistributable_absent: &'a [AbsentLayer],
}

impl<'a> View<'a> {
    fn new(created: &'a Created) -> Self {
        Self {
            manifest: &created.manifest,
            images: created.images.iter().map(ImageView::new).collect(),
            referrers: created.referrers,
            referrers_left_out: &created.left_out,
            referrers_absent: &created.absent,
            nondistributable_absent: &created.absent_layers,
        }
    }
}

/// What becomes of an image, for programs.
#[derive(Serialize)]
pub(super) struct ImageView<'a> {
    reference: String,
    /// `whole`, `sparse` or `rewritten`.
    form: &'static str,
    /// Where it comes from.
    source_digest: Digest,
    /// In the package.
    digest: Digest,
    /// Manifests that a sparse index names and that are left out.
    omitted: Vec<&'a Digest>,
}

impl<'a> ImageView<'a> {
    pub(super) fn new(image: &'a PackedImage) -> Self {
        let (form, source_digest, omitted) = match &image.form {
            Form::Whole => ("whole", image.digest, Vec::new()),
            Form::Sparse { omitted } => ("sparse", image.digest, omitted.iter().collect()),
            Form::Rewritten { from } => ("rewritten", *from, Vec::new()),
        };
        Self {
            reference: image.reference.to_string(),
            form,
            source_digest,
            digest: image.digest,
            omitted,
        }
    }
}

/// Says what becomes of an image of which platforms might be left out.
pub(super) fn note_form(image: &PackedImage) {
    let PackedImage {
        reference, digest, ..
    } = image;
    output::note(match &image.form {
        Form::Whole => format!("note: {reference} is whole: its digest stays {digest}"),
        Form::Sparse { omitted } => format!(
            "note: platforms were left out of {reference}: its index is sparse, without {} of its manifests, and its digest stays {digest}",
            omitted.len()
        ),
        Form::Rewritten { from } => format!(
            "note: platforms were left out of {reference}: its index is rewritten, its digest was {from}, and is {digest} in the package"
        ),
    });
}

/// Says which referrers do not go along.
pub(super) fn note_left_out(left_out: &[ImageReference]) {
    for image in left_out {
        output::note(format!(
            "note: {image} is left out: it refers to, and may be the signature of, an index that is rewritten, or of something else that is not in the package"
        ));
    }
    if !left_out.is_empty() {
        output::note(
            "hint: take all platforms, or use `violetd create --index sparse`, to keep signatures of indexes",
        );
    }
}

/// Says which foreign layers are not there although they should go along.
pub(super) fn note_absent_layers(absent: &[AbsentLayer]) {
    for AbsentLayer { image, digest } in absent {
        output::note(format!(
            "warning: foreign layer {digest} of {image} is left out: its content is not where the image comes from"
        ));
    }
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
