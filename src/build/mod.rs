//! Makes packages, on the connected side of the air gap.
//!
//! In two steps, as violet does it, so that people can look at the result of the first one and change it:
//!
//! ```text
//! create:  images by name ─► resolve to digests ─► find what refers to them ─► <folder>/manifest.yaml, ...
//! package: that folder ─► manifests, blobs ─► leave out what is not wanted or is there already ─► one .tgz, reproducible
//! ```
//!
//! # Layout
//!
//! ```text
//! <folder>/
//! ├── manifest.yaml       the package manifest; every image with the digest that it had at that time
//! ├── sources.yaml        which images come from OCI layouts; absent where all come from registries
//! ├── build.yaml          how indexes are cut, and signatures and the like; absent where there is nothing to say
//! └── moduleplugin.yaml   the ModulePlugin of a plugin package; absent in others
//! ```
//!
//! # Durability
//!
//! The package appears under its name only when it is whole and durable; see `output.rs`.

mod error;
mod folder;
mod gather;
mod layout;
mod listed;
mod output;
mod pack;
mod platforms;
mod referrers;
mod remote;
mod source;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

pub use self::error::Error;
pub use self::folder::read_manifest;
use self::folder::{Build, Folder, LayoutSource, Sources};
use self::gather::{Gathered, Places, Wanted};
use self::layout::{Layout, Layouts};
pub use self::listed::{Listed, ListedImage};
pub use self::output::Written;
pub use self::pack::{Completeness, Content, PackageOptions, Packaged, Spared};
pub use self::platforms::IndexForm;
use self::referrers::{Referrer, search, sibling};
use self::remote::Remote;
pub use self::source::{ImageSource, ParseSourceError};
use crate::base::{Digest, ImageReference, PackageKind, PackageName, Platform, Secret};
use crate::package::Manifest;
use crate::registry::{self, DockerConfig};
use crate::sys::fs::Context as _;
use crate::transport::{Proxies, Trust};

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
    /// User name and password for all registries.
    pub credentials: Option<(String, Secret)>,
    /// A `config.json` of docker or an `auth.json` of podman, where they are looked up if none are given. Without either,
    /// requests are anonymous.
    pub docker_config: Option<PathBuf>,
    /// Certificates, in PEM, to trust besides the system's.
    pub extra_roots: Vec<Vec<u8>>,
}

impl Access {
    /// Returns the options of a client for the registry at `address`.
    pub fn registry(&self, address: &str) -> registry::Options {
        let transport = match self.transport {
            Transport::Http => registry::Transport::Http,
            Transport::Https => registry::Transport::Https(Trust {
                extra_roots: self.extra_roots.clone(),
                ..Trust::default()
            }),
        };
        let credentials = self.credentials.as_ref();
        registry::Options {
            credentials: credentials.map(|(username, password)| registry::Credentials {
                username: username.clone(),
                password: password.clone(),
            }),
            docker_config: self.docker_config.as_deref().map(DockerConfig::of_file),
            // As `oci-client` does for the pulls.
            proxies: Proxies::Environment,
            ..registry::Options::new(address.to_owned(), transport)
        }
    }
}

/// Whether signatures, attestations and bills of materials go along with their images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Referrers {
    /// They do.
    #[default]
    Take,
    /// They do not.
    LeaveOut,
}

/// Whether the content of foreign layers goes along: of those that are not to be passed on, for which manifests name URLs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Foreign {
    /// It does not.
    #[default]
    LeaveOut,
    /// It does, where it is there.
    Take,
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
    /// What becomes of an index of which platforms are left out.
    pub index: IndexForm,
    /// Whether what refers to the images goes along.
    pub referrers: Referrers,
    /// Whether the content of foreign layers goes along.
    pub foreign: Foreign,
    /// The catalogue that the operator is published in.
    pub catalog_source: Option<String>,
    /// The document of a plugin.
    pub module_plugin: Option<PathBuf>,
}

/// What becomes of an image in a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// All of it goes in.
    Whole,
    /// Its index goes in as it is, and some of its manifests do not.
    Sparse {
        /// The manifests that do not.
        omitted: BTreeSet<Digest>,
    },
    /// A new index goes in, without some of the manifests.
    Rewritten {
        /// The digest of the index where it comes from.
        from: Digest,
    },
}

/// An image of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedImage {
    /// Its name in the package.
    pub reference: ImageReference,
    /// Its digest in the package.
    pub digest: Digest,
    /// What became of it.
    pub form: Form,
}

/// A foreign layer that should go along, and whose content is not where its image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AbsentLayer {
    /// The image.
    pub image: ImageReference,
    /// The layer.
    pub digest: Digest,
}

/// What [`Builder::create`] wrote.
#[derive(Clone, Debug)]
pub struct Created {
    /// The package manifest.
    pub manifest: PathBuf,
    /// The images that it names, as they will be packed.
    pub images: Vec<PackedImage>,
    /// How many manifests that refer to them go along.
    pub referrers: usize,
    /// What refers to something that will not be packed, and so does not go along either.
    pub left_out: Vec<ImageReference>,
    /// What is listed as referring to an image, and is not there.
    pub absent: Vec<ImageReference>,
    /// Foreign layers of the images that will be missing.
    pub absent_layers: Vec<AbsentLayer>,
}

/// Makes packages. Blocking: to be used off the async threads of `runtime`.
#[derive(Debug)]
pub struct Builder {
    places: Places,
}

impl Builder {
    /// Returns a builder that pulls with `access`.
    pub fn new(access: &Access, runtime: Handle) -> Result<Self, Error> {
        Ok(Self {
            places: Places {
                remote: Remote::new(access, runtime)?,
                layouts: Layouts::default(),
            },
        })
    }

    /// Writes the folder from which a package is made, with every image pinned to the digest that it has now.
    pub fn create(&self, recipe: Recipe, path: &Path) -> Result<Created, Error> {
        let mut sources = Sources::new();
        let artifact = match &recipe.artifact {
            Some(source) => self.pin(source, &mut sources)?.into_iter().next(),
            None => None,
        };
        let mut references: Vec<ImageReference> = artifact.iter().cloned().collect();
        for source in &recipe.images {
            references.extend(self.pin(source, &mut sources)?);
        }
        if references.is_empty() {
            return Err(Error::NoImages);
        }
        let wanted = Wanted {
            platforms: &recipe.platforms,
            form: recipe.index,
            foreign: recipe.foreign,
        };
        let gather = |image| Gathered::image(&self.places, image, &sources, wanted);
        let images: Vec<Gathered> = references.iter().map(gather).collect::<Result<_, _>>()?;
        let found = match recipe.referrers {
            Referrers::Take => self.find_referrers(&images)?,
            Referrers::LeaveOut => FoundReferrers::default(),
        };
        let packed = images.iter().map(Gathered::packed).collect();
        let absent_layers = images.iter().flat_map(Gathered::absent).collect();
        let referrers = found.referrers.len() - found.left_out.len();
        let mut pinned = images.into_iter().map(|image| image.reference);
        let artifact = artifact.and_then(|_| pinned.next());
        let module_plugin = recipe.module_plugin.clone();
        let mut folder = Folder {
            build: Build {
                index: recipe.index,
                nondistributable: recipe.foreign,
                referrers: found.referrers,
            },
            manifest: manifest(recipe, artifact, pinned.collect()),
            sources,
            documents: BTreeMap::new(),
        };
        if let Some(document) = module_plugin {
            folder.add_module_plugin(&document)?;
        }
        Ok(Created {
            manifest: folder.write(path)?,
            images: packed,
            referrers,
            left_out: found.left_out,
            absent: found.absent,
            absent_layers,
        })
    }

    /// Finds what refers to these images, each referrer once.
    fn find_referrers(&self, images: &[Gathered]) -> Result<FoundReferrers, Error> {
        let mut all = FoundReferrers::default();
        let mut seen = HashSet::new();
        let mut lost: BTreeSet<Digest> = images
            .iter()
            .filter_map(|image| match image.form {
                Form::Rewritten { from } => Some(from),
                Form::Whole | Form::Sparse { .. } => None,
            })
            .collect();
        for image in images {
            let place = image.place(&self.places.remote);
            let found = search(place, &image.reference, image.subjects())?;
            for referrer in found.referrers {
                if !seen.insert(referrer.clone()) {
                    continue;
                }
                if lost.contains(&referrer.subject) {
                    lost.extend(referrer.image.digest());
                    all.left_out.push(referrer.image.clone());
                }
                all.referrers.push(referrer);
            }
            all.absent.extend(found.absent);
        }
        Ok(all)
    }

    /// Returns the images of a source, those of layouts with their digests, and notes which come from layouts.
    fn pin(
        &self,
        source: &ImageSource,
        sources: &mut Sources,
    ) -> Result<Vec<ImageReference>, Error> {
        let (path, images) = match source {
            ImageSource::Registry(reference) => return Ok(vec![reference.clone()]),
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
        let layout = self.places.layouts.open(&path)?;
        let mut references = Vec::with_capacity(images.len());
        for (reference, name) in images {
            let digest = layout.find(name.as_deref())?.digest;
            let reference = sibling(&reference, reference.tag().cloned(), digest);
            let layout = path.clone();
            sources.insert(reference.encode(), LayoutSource { layout, name });
            references.push(reference);
        }
        Ok(references)
    }
}

/// What refers to the images of a package.
#[derive(Debug, Default)]
struct FoundReferrers {
    referrers: Vec<Referrer>,
    /// Those of them that refer to an index that is rewritten.
    left_out: Vec<ImageReference>,
    absent: Vec<ImageReference>,
}

fn manifest(
    recipe: Recipe,
    artifact: Option<ImageReference>,
    related_images: Vec<ImageReference>,
) -> Manifest {
    let tag = artifact.as_ref().and_then(|artifact| artifact.tag());
    let mut manifest = Manifest {
        name: Some(recipe.name),
        kind: recipe.kind,
        display_name: recipe.display_name,
        version: recipe.version.or_else(|| tag.map(ToString::to_string)),
        artifact,
        platforms: recipe.platforms,
        related_images,
        ..Manifest::default()
    };
    if let Some(catalog_source) = recipe.catalog_source {
        manifest.catalog_source = catalog_source;
    }
    manifest
}
