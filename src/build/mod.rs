//! Makes packages, on the connected side of the air gap.
//!
//! In two steps, as violet does it, so that people can look at the result of the first one and change it:
//!
//! ```text
//! create:  images by name ─► resolve to digests ─► <folder>/manifest.yaml, sources.yaml
//! package: that folder ─► manifests, blobs ─► one .tgz, reproducible
//! ```
//!
//! # Layout
//!
//! ```text
//! <folder>/
//! ├── manifest.yaml       the package manifest; every image with the digest that it had at that time
//! ├── sources.yaml        which images come from OCI layouts; absent where all come from registries
//! └── moduleplugin.yaml   the ModulePlugin of a plugin package; absent in others
//! ```
//!
//! # Durability
//!
//! The package appears under its name only when it is whole and durable.

mod error;
mod layout;
mod platforms;
mod remote;
mod source;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

pub use self::error::Error;
use self::layout::Layout;
use self::platforms::Choice;
use self::remote::Remote;
pub use self::source::{ImageSource, ParseSourceError};
use crate::base::oci::{Descriptor, Manifest as ImageManifest};
use crate::base::{Digest, ImageReference, PackageKind, PackageName, Platform, Secret, Tree};
use crate::package::{Image, Manifest, WriteOptions, Writer};
use crate::sys::fs::{self as durable, Context as _};

/// Name of the package manifest in a folder.
const MANIFEST_FILE: &str = "manifest.yaml";
/// Name of the file that says which images come from layouts.
const SOURCES_FILE: &str = "sources.yaml";
/// Name of the plugin's document.
const MODULE_PLUGIN_FILE: &str = "moduleplugin.yaml";

/// How registries are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTPS.
    Https,
    /// HTTP.
    Http,
}

/// How to get at the images of registries.
#[derive(Clone, Debug)]
pub struct Access {
    /// HTTP or HTTPS.
    pub transport: Transport,
    /// User name and password; anonymous where there are none.
    pub credentials: Option<(String, Secret)>,
    /// Certificates, in PEM, to trust besides the system's.
    pub extra_roots: Vec<Vec<u8>>,
}

/// What to make a package of.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Name of the package.
    pub name: PackageName,
    /// Type, where it cannot be told from the rest.
    pub kind: Option<PackageKind>,
    /// Version; by default the tag of the artifact.
    pub version: Option<String>,
    /// Name for people.
    pub display_name: Option<String>,
    /// The main image: operator bundle or chart.
    pub artifact: Option<ImageSource>,
    /// All other images.
    pub images: Vec<ImageSource>,
    /// The platforms to keep; none means all.
    pub platforms: Vec<Platform>,
    /// The catalogue that the operator is published in.
    pub catalog_source: Option<String>,
    /// The document of a plugin.
    pub module_plugin: Option<PathBuf>,
}

/// Which image of which layout an image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutSource {
    layout: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// `sources.yaml`: images by reference.
type Sources = BTreeMap<String, LayoutSource>;

/// What [`Builder::create`] wrote.
#[derive(Clone, Debug)]
pub struct Created {
    /// The package manifest.
    pub manifest: PathBuf,
    /// How many images it names.
    pub images: usize,
}

/// What [`Builder::package`] wrote.
#[derive(Clone, Debug)]
pub struct Packaged {
    /// The package.
    pub path: PathBuf,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// How many images it holds.
    pub images: usize,
    /// How many distinct blobs and manifests.
    pub blobs: usize,
    /// Images whose index was rewritten because platforms were left out: old digest, new digest.
    pub rewritten: Vec<(ImageReference, Digest, Digest)>,
}

/// Makes packages. Blocking: to be used off the async threads of `runtime`.
#[derive(Debug)]
pub struct Builder {
    remote: Remote,
}

impl Builder {
    /// Returns a builder that pulls with `access`.
    pub fn new(access: &Access, runtime: Handle) -> Result<Self, Error> {
        Ok(Self {
            remote: Remote::new(access, runtime)?,
        })
    }

    /// Writes the folder from which a package is made, with every image pinned to the digest that it has now.
    pub fn create(&self, recipe: Recipe, folder: &Path) -> Result<Created, Error> {
        let mut sources = Sources::new();
        let artifact = match &recipe.artifact {
            Some(source) => self.pin(source, &mut sources)?.into_iter().next(),
            None => None,
        };
        let mut related = Vec::new();
        for source in &recipe.images {
            related.extend(self.pin(source, &mut sources)?);
        }
        let images = related.len() + usize::from(artifact.is_some());
        if images == 0 {
            return Err(Error::NoImages);
        }
        let tag = artifact.as_ref().and_then(|artifact| artifact.tag());
        let mut manifest = Manifest {
            name: Some(recipe.name),
            kind: recipe.kind,
            display_name: recipe.display_name,
            version: recipe.version.or_else(|| tag.map(ToString::to_string)),
            artifact,
            platforms: recipe.platforms,
            related_images: related,
            ..Manifest::default()
        };
        if let Some(catalog_source) = recipe.catalog_source {
            manifest.catalog_source = catalog_source;
        }
        durable::ensure_dir_all(folder)?;
        let path = folder.join(MANIFEST_FILE);
        if let Some(document) = &recipe.module_plugin {
            let bytes = std::fs::read(document).context("read", document)?;
            durable::replace_file(&folder.join(MODULE_PLUGIN_FILE), &bytes, 0o644)?;
        }
        if sources.is_empty() {
            durable::remove_file(&folder.join(SOURCES_FILE))?;
        } else {
            let text =
                serde_saphyr::to_string(&sources).expect("a map of strings can be written as YAML");
            durable::replace_file(&folder.join(SOURCES_FILE), text.as_bytes(), 0o644)?;
        }
        durable::replace_file(&path, manifest.encode().as_bytes(), 0o644)?;
        Ok(Created {
            manifest: path,
            images,
        })
    }

    /// Resolves a source to references with digests, and notes which come from layouts.
    fn pin(
        &self,
        source: &ImageSource,
        sources: &mut Sources,
    ) -> Result<Vec<ImageReference>, Error> {
        let (path, images) = match source {
            ImageSource::Registry(reference) => {
                let (descriptor, _) = self.remote.resolve(reference)?;
                return Ok(vec![pinned(reference, descriptor.digest)]);
            }
            ImageSource::Layout {
                reference,
                path,
                name,
            } => (path, vec![(reference.clone(), name.clone())]),
            ImageSource::WholeLayout { path } => {
                let images = Layout::open(path)?.list_images()?.into_iter();
                (
                    path,
                    images
                        .map(|(reference, name)| (reference, Some(name)))
                        .collect(),
                )
            }
        };
        let path = path.canonicalize().context("find", path)?;
        let layout = Layout::open(&path)?;
        let mut references = Vec::with_capacity(images.len());
        for (reference, name) in images {
            let digest = layout.find(name.as_deref())?.digest;
            let reference = pinned(&reference, digest);
            let layout = path.clone();
            sources.insert(reference.encode(), LayoutSource { layout, name });
            references.push(reference);
        }
        Ok(references)
    }

    /// Makes the package that `folder` describes and publishes it at `output`.
    pub fn package(
        &self,
        folder: &Path,
        output: &Path,
        options: WriteOptions,
    ) -> Result<Packaged, Error> {
        let mut manifest = read_manifest(folder)?;
        let sources = read_sources(folder)?;
        let mut images = Vec::new();
        for reference in manifest
            .artifact
            .iter_mut()
            .chain(&mut manifest.related_images)
        {
            let image = self.gather(reference, &manifest.platforms, &sources)?;
            *reference = pinned(reference, image.root.digest);
            images.push(image);
        }
        if images.is_empty() {
            return Err(Error::NoImages);
        }
        let list: Vec<Image> = images.iter().map(Gathered::image).collect();
        let parent = output
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let temp = durable::create_temp(parent.unwrap_or(Path::new(".")), 0o644)?;
        let file = temp.as_file().try_clone().context("open", output)?;
        let buffered = BufWriter::with_capacity(1 << 20, file);
        let documents = read_documents(folder)?;
        let mut writer = Writer::create(buffered, &manifest, &list, options)?;
        for (name, bytes) in &documents {
            writer.add_document(name, bytes)?;
        }
        let mut blobs = BTreeMap::new();
        for image in &images {
            blobs.extend(image.contents());
        }
        for (digest, (size_bytes, origin)) in &blobs {
            writer.add_blob(digest, *size_bytes, &mut *self.open(origin)?)?;
        }
        let mut buffered = writer.finish()?;
        buffered.flush().context("write to", output)?;
        drop(buffered);
        let size_bytes = temp.as_file().metadata().context("inspect", output)?.len();
        durable::publish(temp, output)?;
        let rewritten = images.iter().filter_map(|image| {
            image
                .rewritten_from
                .map(|old| (image.reference.clone(), old, image.root.digest))
        });
        Ok(Packaged {
            path: output.to_owned(),
            size_bytes,
            images: list.len(),
            blobs: blobs.len(),
            rewritten: rewritten.collect(),
        })
    }

    /// Reads the manifests of one image and leaves out what is not wanted of it.
    fn gather(
        &self,
        reference: &ImageReference,
        platforms: &[Platform],
        sources: &Sources,
    ) -> Result<Gathered, Error> {
        let source = sources.get(&reference.encode());
        let layout = source
            .map(|source| Layout::open(&source.layout))
            .transpose()?;
        let (mut root, mut bytes) = match (&layout, source) {
            (Some(layout), Some(source)) => {
                let found = layout.find(source.name.as_deref())?.clone();
                check_pin(reference, found.digest)?;
                let bytes = layout.read_manifest(&found.digest)?;
                (found, bytes)
            }
            (None, _) | (_, None) => self.remote.resolve(reference)?,
        };
        let rewritten_from = match platforms::choose(&bytes, platforms) {
            Ok(Choice::Whole) => None,
            Ok(Choice::Rewritten(chosen)) => {
                let old = root.digest;
                bytes = chosen;
                root.digest = Digest::of(&bytes);
                root.size_bytes = bytes.len() as u64;
                Some(old)
            }
            Ok(Choice::Nothing(found)) => {
                let image = Box::new(reference.clone());
                return Err(Error::NoPlatform { image, found });
            }
            Err(source) => {
                return Err(Error::Manifest {
                    image: Box::new(reference.clone()),
                    digest: root.digest,
                    source: source.into(),
                });
            }
        };
        let (_, media_type) = ImageManifest::parse(&bytes).map_err(|source| Error::Manifest {
            image: Box::new(reference.clone()),
            digest: root.digest,
            source,
        })?;
        root.media_type = media_type;
        let mut manifests = BTreeMap::from([(root.digest, bytes)]);
        let tree = Tree::read(&root, |manifest| {
            if let Some(bytes) = manifests.get(&manifest.digest) {
                return Ok(bytes.clone());
            }
            let bytes = match &layout {
                Some(layout) => layout.read_manifest(&manifest.digest)?,
                None => self.remote.read_manifest(reference, &manifest.digest)?,
            };
            manifests.insert(manifest.digest, bytes.clone());
            Ok(bytes)
        });
        let tree = tree.map_err(|source| Error::Tree {
            image: Box::new(reference.clone()),
            source: Box::new(source),
        })?;
        Ok(Gathered {
            reference: reference.clone(),
            root,
            manifests,
            tree,
            layout,
            rewritten_from,
        })
    }

    fn open<'a>(&self, origin: &Origin<'a>) -> Result<Box<dyn Read + 'a>, Error> {
        Ok(match origin {
            Origin::Manifest(bytes) => Box::new(*bytes),
            Origin::Layout(layout, digest) => Box::new(layout.open_blob(digest)?),
            Origin::Registry(reference, blob) => Box::new(self.remote.open_blob(reference, blob)),
        })
    }
}

/// One image with its manifests in hand.
struct Gathered {
    reference: ImageReference,
    root: Descriptor,
    manifests: BTreeMap<Digest, Vec<u8>>,
    tree: Tree,
    layout: Option<Layout>,
    rewritten_from: Option<Digest>,
}

/// Where the bytes of a blob are.
enum Origin<'a> {
    Manifest(&'a [u8]),
    Layout(&'a Layout, Digest),
    Registry(&'a ImageReference, &'a Descriptor),
}

impl Gathered {
    fn image(&self) -> Image {
        Image {
            reference: self.reference.by_tag(),
            descriptor: self.root.clone(),
        }
    }

    /// Returns everything that the image consists of, with sizes in bytes.
    fn contents(&self) -> impl Iterator<Item = (Digest, (u64, Origin<'_>))> {
        let manifests = self
            .manifests
            .iter()
            .map(|(digest, bytes)| (*digest, (bytes.len() as u64, Origin::Manifest(bytes))));
        let blobs = self.tree.blobs.iter().map(|blob| {
            let descriptor = &blob.descriptor;
            let origin = match &self.layout {
                Some(layout) => Origin::Layout(layout, descriptor.digest),
                None => Origin::Registry(&self.reference, descriptor),
            };
            (descriptor.digest, (descriptor.size_bytes, origin))
        });
        manifests.chain(blobs)
    }
}

fn check_pin(reference: &ImageReference, found: Digest) -> Result<(), Error> {
    match reference.digest() {
        Some(pinned) if *pinned != found => Err(Error::Moved {
            image: Box::new(reference.clone()),
            pinned: *pinned,
            found,
        }),
        Some(_) | None => Ok(()),
    }
}

fn pinned(reference: &ImageReference, digest: Digest) -> ImageReference {
    ImageReference::new(
        reference.registry().to_owned(),
        reference.repository().clone(),
        reference.tag().cloned(),
        Some(digest),
    )
}

/// Reads the manifest of a folder.
pub fn read_manifest(folder: &Path) -> Result<Manifest, Error> {
    let path = folder.join(MANIFEST_FILE);
    let bytes = std::fs::read(&path).context("read", &path)?;
    Ok(Manifest::parse(MANIFEST_FILE, &bytes)?)
}

fn read_sources(folder: &Path) -> Result<Sources, Error> {
    let path = folder.join(SOURCES_FILE);
    if !path.exists() {
        return Ok(Sources::new());
    }
    let text = std::fs::read_to_string(&path).context("read", &path)?;
    serde_saphyr::from_str(&text).map_err(|error| Error::Sources {
        path,
        reason: error.to_string(),
    })
}

/// Reads the documents that go into the package as they are, by name.
fn read_documents(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let path = folder.join(MODULE_PLUGIN_FILE);
    match File::open(&path) {
        Ok(mut file) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).context("read", &path)?;
            Ok(BTreeMap::from([(MODULE_PLUGIN_FILE.to_owned(), bytes)]))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).context("open", &path)?,
    }
}
