//! The folder between the two steps: what [`create`](super::Builder::create) writes and
//! [`package`](super::Builder::package) reads.
//!
//! # Format
//!
//! `sources.yaml` maps the references of the manifest to layouts:
//!
//! ```yaml
//! registry.example/a/b:v1@sha256:<64 hex>:
//!   layout: /images/b
//!   name: v1                  # what the layout calls it; absent where it has one image
//! ```
//!
//! `build.yaml` has what else `create` has decided or found; every key may be absent:
//!
//! ```yaml
//! index: sparse               # what becomes of indexes of which platforms are left out; rewritten by default
//! nondistributable: take      # whether the content of foreign layers is packed where it is there; leave-out by default
//! referrers:                  # signatures and the like, by digest; lines that are removed are not packed
//! - image: registry.example/a/b:sha256-<64 hex>.sig@sha256:<64 hex>
//!   subject: sha256:<64 hex>
//!   layout: /images/b         # absent where it is in a registry
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::platforms::IndexForm;
use super::referrers::Referrer;
use super::{Error, Foreign};
use crate::package::Manifest;
use crate::sys::fs::{self as durable, Context as _};

/// Name of the package manifest.
pub(super) const MANIFEST_FILE: &str = "manifest.yaml";
/// Name of the file that says which images come from layouts.
const SOURCES_FILE: &str = "sources.yaml";
/// Name of the file with everything else.
const BUILD_FILE: &str = "build.yaml";
/// Name of the plugin's document.
const MODULE_PLUGIN_FILE: &str = "moduleplugin.yaml";

/// Which image of which layout an image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LayoutSource {
    pub(super) layout: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
}

/// `sources.yaml`: images by reference.
pub(super) type Sources = BTreeMap<String, LayoutSource>;

/// `build.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Build {
    #[serde(skip_serializing_if = "is_rewritten")]
    pub(super) index: IndexForm,
    #[serde(skip_serializing_if = "is_left_out")]
    pub(super) nondistributable: Foreign,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) referrers: Vec<Referrer>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
const fn is_rewritten(form: &IndexForm) -> bool {
    matches!(form, IndexForm::Rewritten)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
const fn is_left_out(foreign: &Foreign) -> bool {
    matches!(foreign, Foreign::LeaveOut)
}

/// What is in a folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) manifest: Manifest,
    pub(super) sources: Sources,
    pub(super) build: Build,
    /// What goes into the package as it is, by name.
    pub(super) documents: BTreeMap<String, Vec<u8>>,
}

impl Folder {
    /// Reads the folder `path`.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            manifest: read_manifest(path)?,
            sources: read_yaml(&path.join(SOURCES_FILE))?,
            build: read_yaml(&path.join(BUILD_FILE))?,
            documents: read_documents(path)?,
        })
    }

    /// Writes the folder `path`, over an earlier one. Returns where the manifest is.
    pub(super) fn write(&self, path: &Path) -> Result<PathBuf, Error> {
        durable::ensure_dir_all(path)?;
        for (name, bytes) in &self.documents {
            durable::replace_file(&path.join(name), bytes, 0o644)?;
        }
        write_yaml(&path.join(SOURCES_FILE), &self.sources)?;
        write_yaml(&path.join(BUILD_FILE), &self.build)?;
        let manifest = path.join(MANIFEST_FILE);
        durable::replace_file(&manifest, self.manifest.encode().as_bytes(), 0o644)?;
        Ok(manifest)
    }

    /// Adds the document of a plugin.
    pub(super) fn add_module_plugin(&mut self, document: &Path) -> Result<(), Error> {
        let bytes = std::fs::read(document).context("read", document)?;
        self.documents.insert(MODULE_PLUGIN_FILE.to_owned(), bytes);
        Ok(())
    }
}

/// Reads the manifest of a folder.
pub fn read_manifest(folder: &Path) -> Result<Manifest, Error> {
    let path = folder.join(MANIFEST_FILE);
    let bytes = std::fs::read(&path).context("read", &path)?;
    Ok(Manifest::parse(MANIFEST_FILE, &bytes)?)
}

/// Reads a file that need not be there.
fn read_yaml<T: Default + DeserializeOwned>(path: &Path) -> Result<T, Error> {
    if !path.exists() {
        return Ok(T::default());
    }
    let text = std::fs::read_to_string(path).context("read", path)?;
    serde_saphyr::from_str(&text).map_err(|error| Error::Sources {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Writes a file, or none where there is nothing to say.
fn write_yaml<T: Default + PartialEq + Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    if *value == T::default() {
        durable::remove_file(path)?;
        return Ok(());
    }
    // References are long, and nobody reads them better over two lines.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = serde_saphyr::to_string_with_options(value, options)
        .expect("maps and lists of strings can be written as YAML");
    durable::replace_file(path, text.as_bytes(), 0o644)?;
    Ok(())
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;

    #[test]
    fn what_is_written_is_read_back_and_nothing_is_written_for_nothing() {
        let dir = tempfile::TempDir::new().unwrap();
        let image = "registry.example/a/b:sha256-0.sig".parse().unwrap();
        let mut folder = Folder {
            manifest: Manifest::default(),
            sources: Sources::from([(
                "registry.example/a/b:v1".to_owned(),
                LayoutSource {
                    layout: "/images/b".into(),
                    name: None,
                },
            )]),
            build: Build {
                index: IndexForm::Sparse,
                nondistributable: Foreign::Take,
                referrers: vec![Referrer {
                    image,
                    subject: Digest::of(b"image"),
                    layout: Some("/images/b".into()),
                }],
            },
            documents: BTreeMap::new(),
        };
        folder.write(dir.path()).unwrap();
        let read = Folder::read(dir.path()).unwrap();
        assert_eq!(read.manifest, folder.manifest);
        assert_eq!(read.sources, folder.sources);
        assert_eq!(read.build, folder.build);

        folder.sources.clear();
        folder.build = Build::default();
        folder.write(dir.path()).unwrap();
        assert!(!dir.path().join(SOURCES_FILE).exists());
        assert!(!dir.path().join(BUILD_FILE).exists());
        assert_eq!(Folder::read(dir.path()).unwrap().build, Build::default());
    }
}
