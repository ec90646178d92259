//! Images in an OCI image layout on disk.
//!
//! Entries that refer to others (signatures, attestations, bills of materials) are no images of their own here: they go
//! with the image that they refer to.
//!
//! # References
//!
//! OCI image-spec v1.1.0 `image-layout.md`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Error;
use super::referrers::{subject_of, subject_of_tag};
use crate::base::oci::{Descriptor, IndexEntry, MANIFEST_BYTES_MAX, Manifest};
use crate::base::{Digest, ImageReference, Repository};
use crate::sys::fs::Context as _;

/// The entries that refer to others, by what they refer to.
type Referrers = BTreeMap<Digest, Vec<Descriptor>>;

/// Layouts, each of which is opened once: thousands of images may come from one, and its index lists all of them.
#[derive(Debug, Default)]
pub(super) struct Layouts(Mutex<BTreeMap<PathBuf, Arc<Layout>>>);

impl Layouts {
    /// Returns the layout in the folder `path`.
    pub(super) fn open(&self, path: &Path) -> Result<Arc<Layout>, Error> {
        let mut layouts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = layouts.get(path) {
            return Ok(Arc::clone(layout));
        }
        let layout = Arc::new(Layout::open(path)?);
        layouts.insert(path.to_owned(), Arc::clone(&layout));
        Ok(layout)
    }
}

/// An OCI image layout, as it was when it was opened.
#[derive(Debug)]
pub(super) struct Layout {
    path: PathBuf,
    entries: Vec<IndexEntry>,
    /// Positions in `entries`, by the name in full and by its tag alone: of several the first one.
    names: HashMap<String, usize>,
    /// Found when somebody asks: every manifest is read for it.
    referrers: OnceLock<Referrers>,
}

impl Layout {
    /// Opens the layout in the folder `path`.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let index = path.join("index.json");
        let bytes = read_bounded(&index, MANIFEST_BYTES_MAX)?;
        let (manifest, _) = Manifest::parse(&bytes).map_err(|source| Error::Layout {
            path: path.to_owned(),
            source,
        })?;
        let Manifest::Index { entries, .. } = manifest else {
            return Err(Error::EmptyLayout {
                path: path.to_owned(),
            });
        };
        if entries.is_empty() {
            return Err(Error::EmptyLayout {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            names: positions_by_name(&entries),
            entries,
            referrers: OnceLock::new(),
        })
    }

    /// Returns the folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Finds the image that the layout names `name`; without a name the only one.
    pub(super) fn find(&self, name: Option<&str>) -> Result<&Descriptor, Error> {
        let found = match name {
            Some(name) => self.find_entry(name),
            None => match self.independent_entries()?[..] {
                [entry] => Some(entry),
                _ => None,
            },
        };
        found
            .map(|entry| &entry.descriptor)
            .ok_or_else(|| Error::NotInLayout {
                path: self.path.clone(),
                name: name.map(str::to_owned),
                names: self
                    .entries
                    .iter()
                    .filter_map(|entry| entry.name.clone())
                    .collect(),
            })
    }

    /// Finds what the layout has under a tag of any repository.
    pub(super) fn find_tag(&self, tag: &str) -> Option<&Descriptor> {
        self.find_entry(tag).map(|entry| &entry.descriptor)
    }

    fn find_entry(&self, name: &str) -> Option<&IndexEntry> {
        self.names
            .get(name)
            .map(|position| &self.entries[*position])
    }

    /// Returns the entries that refer to others, by what they refer to.
    pub(super) fn referrers(&self) -> Result<&Referrers, Error> {
        if let Some(known) = self.referrers.get() {
            return Ok(known);
        }
        let found = self.find_referrers()?;
        Ok(self.referrers.get_or_init(|| found))
    }

    fn find_referrers(&self) -> Result<Referrers, Error> {
        let mut referrers = Referrers::new();
        for entry in &self.entries {
            if let Some(subject) = self.subject_of(&entry.descriptor)? {
                let of_subject = referrers.entry(subject).or_default();
                of_subject.push(entry.descriptor.clone());
            }
        }
        Ok(referrers)
    }

    /// Returns what the manifest of an entry says that it refers to.
    pub(super) fn subject_of(&self, manifest: &Descriptor) -> Result<Option<Digest>, Error> {
        if !self.holds(&manifest.digest) {
            return Ok(None);
        }
        Ok(subject_of(&self.read_manifest(&manifest.digest)?))
    }

    /// Returns the entries that refer to no other.
    fn independent_entries(&self) -> Result<Vec<&IndexEntry>, Error> {
        let mut entries = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            // A signature of something that is not here has nothing else to go with.
            let tagged = entry.name.as_deref().and_then(subject_of_tag);
            let goes_along = tagged.is_some_and(|subject| self.holds(&subject))
                || self.subject_of(&entry.descriptor)?.is_some();
            if !goes_along {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// Returns whether the layout has this blob.
    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Lists all images that refer to no other, with the references under which they can be packaged.
    pub(super) fn list_images(&self) -> Result<Vec<(ImageReference, String)>, Error> {
        let entries = self.independent_entries()?;
        let mut images = Vec::with_capacity(entries.len());
        for entry in entries {
            let reference = self.name_image(entry, None)?;
            images.push((reference, entry.name.clone().unwrap_or_default()));
        }
        Ok(images)
    }

    /// Returns the reference under which an image can be packaged.
    ///
    /// A name that is a whole reference is taken as it is; one that is only a tag gets `repository`, by default the name of
    /// the folder.
    pub(super) fn name_image(
        &self,
        entry: &IndexEntry,
        repository: Option<&Repository>,
    ) -> Result<ImageReference, Error> {
        let name = entry.name.as_ref().ok_or_else(|| Error::Unnamed {
            path: self.path.clone(),
            digest: entry.descriptor.digest,
        })?;
        let reference = if name.contains('/') {
            name.parse()
        } else {
            let repository =
                repository.map_or_else(|| self.folder_name().parse(), |it| Ok(it.clone()));
            repository.and_then(|repository| {
                let tag = Some(name.parse()?);
                Ok(ImageReference::new(String::new(), repository, tag, None))
            })
        };
        reference.map_err(|source| Error::Reference {
            text: name.clone(),
            source,
        })
    }

    /// Returns the name of the folder, as far as a repository may have it.
    fn folder_name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().to_lowercase()
    }

    /// Returns all entries.
    pub(super) fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Returns the folder in which a blob is a file whose name is the hex of its digest.
    pub(super) fn blobs_dir(&self) -> PathBuf {
        self.path.join("blobs/sha256")
    }

    /// Opens a blob.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.blob_path(digest);
        Ok(File::open(&path).context("open", &path)?)
    }

    /// Reads a manifest, which must have the digest that it is called by.
    pub(super) fn read_manifest(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let path = self.blob_path(digest);
        let bytes = read_bounded(&path, MANIFEST_BYTES_MAX)?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::Damaged {
                path,
                digest: *digest,
                found,
            });
        }
        Ok(bytes)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_dir().join(digest.hex())
    }
}

fn positions_by_name(entries: &[IndexEntry]) -> HashMap<String, usize> {
    let mut positions = HashMap::with_capacity(entries.len());
    for (position, entry) in entries.iter().enumerate() {
        let Some(full) = &entry.name else { continue };
        let tag = full.rsplit_once(':').map(|(_, tag)| tag);
        for name in [Some(full.as_str()), tag].into_iter().flatten() {
            positions.entry(name.to_owned()).or_insert(position);
        }
    }
    positions
}

fn read_bounded(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, Error> {
    let file = File::open(path).context("open", path)?;
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1)
        .read_to_end(&mut bytes)
        .context("read", path)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            limit_bytes,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::oci::ANNOTATION_REF_NAME;
    use crate::sys::fs as durable;

    #[test]
    fn a_damaged_manifest_is_not_taken_for_the_one_that_the_layout_names() {
        let dir = tempfile::TempDir::new().unwrap();
        let manifest = br#"{"config":{"mediaType":"c","digest":"","size":1},"layers":[]}"#;
        let digest = Digest::of(manifest);
        let index = format!(
            r#"{{"manifests":[{{"mediaType":"m","digest":"{digest}","size":{}}}]}}"#,
            manifest.len()
        );
        let blob = dir.path().join("blobs/sha256").join(digest.hex());
        durable::ensure_dir_all(blob.parent().unwrap()).unwrap();
        durable::replace_file(&dir.path().join("index.json"), index.as_bytes(), 0o644).unwrap();
        durable::replace_file(&blob, manifest, 0o644).unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        assert_eq!(layout.find(None).unwrap().digest, digest);
        assert_eq!(layout.read_manifest(&digest).unwrap(), manifest);

        durable::replace_file(&blob, b"{}", 0o644).unwrap();
        let error = layout.read_manifest(&digest).unwrap_err();
        assert!(
            matches!(error, Error::Damaged { found, .. } if found == Digest::of(b"{}")),
            "{error:?}"
        );
    }

    #[test]
    fn a_layout_is_opened_once_and_of_entries_with_the_same_name_the_first_one_counts() {
        let dir = tempfile::TempDir::new().unwrap();
        let names = ["b/c:v1", "v1", "a/b:v2", "b/c:v1"];
        let digests = names.map(|name| Digest::of(name.as_bytes()));
        let entry = |name: &str| {
            let digest = Digest::of(name.as_bytes());
            format!(
                r#"{{"mediaType":"m","digest":"{digest}","size":1,"annotations":{{"{ANNOTATION_REF_NAME}":"{name}"}}}}"#
            )
        };
        let index = format!(r#"{{"manifests":[{}]}}"#, names.map(entry).join(","));
        let path = dir.path().join("index.json");
        durable::replace_file(&path, index.as_bytes(), 0o644).unwrap();
        let layouts = Layouts::default();
        let layout = layouts.open(dir.path()).unwrap();
        for (name, position) in [("v1", 0), ("b/c:v1", 0), ("v2", 2), ("a/b:v2", 2)] {
            assert_eq!(
                layout.find(Some(name)).unwrap().digest,
                digests[position],
                "{name}"
            );
        }
        assert!(layout.find(Some("b")).is_err());
        durable::remove_file(&path).unwrap();
        assert!(Arc::ptr_eq(&layout, &layouts.open(dir.path()).unwrap()));
    }
}
