//! A few files of an image, as a container would see them.
//!
//! Layers are given from the top down. What a layer has hides what the layers below have at the same path, and so do its
//! whiteouts:
//!
//! ```text
//! a/.wh.b           hides a/b and everything below it
//! a/.wh..wh..opq    hides everything below a
//! ```
//!
//! # References
//!
//! OCI image-spec v1.1.0 `layer.md`, "Whiteouts".

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::layer::{Allowance, Entries, Kind, Outcome};

/// What the names of whiteouts begin with.
const WHITEOUT: &str = ".wh.";
/// The name of the whiteout for a whole folder.
const OPAQUE: &str = ".wh..wh..opq";

/// Files of an image that are being collected.
#[derive(Debug)]
pub(super) struct Overlay {
    /// The folders that are looked into; the rest of the image is passed over.
    folders: Vec<String>,
    /// What lower layers have here, or below here, does not count.
    hidden: BTreeSet<String>,
    /// What lower layers have below here does not count.
    opaque: BTreeSet<String>,
    files: BTreeMap<String, Vec<u8>>,
}

/// Whether a file is worth its memory: by its path before it is read, and by its content after that.
pub(super) trait Choice {
    fn wants(&self, path: &str) -> bool;
    fn keeps(&self, path: &str, content: &[u8]) -> bool;
}

impl Overlay {
    /// Starts with an image without layers.
    pub(super) fn new(folders: impl IntoIterator<Item = String>) -> Self {
        Self {
            folders: folders.into_iter().collect(),
            hidden: BTreeSet::new(),
            opaque: BTreeSet::new(),
            files: BTreeMap::new(),
        }
    }

    /// Takes the files of the next lower layer.
    pub(super) fn add_layer(
        &mut self,
        source: impl Read,
        choice: &impl Choice,
        allowance: &mut Allowance,
    ) -> Outcome<()> {
        let mut entries = Entries::open(source, allowance)?;
        let mut layer = Self::new(self.folders.clone());
        while let Some(entry) = entries.next_entry()? {
            let (folder, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
            if name == OPAQUE {
                layer.opaque.insert(folder.to_owned());
            } else if let Some(name) = name.strip_prefix(WHITEOUT) {
                let path = [folder, name].join("/");
                layer.hide(path.trim_start_matches('/'));
            } else if !self.hides(&entry.path) {
                // A name that comes twice in one layer stands for the later file.
                layer.files.remove(&entry.path);
                if entry.kind == Kind::File && choice.wants(&entry.path) {
                    let content = entries.content(&entry)?;
                    if choice.keeps(&entry.path, &content) {
                        entries.keep(&content)?;
                        layer.files.insert(entry.path.clone(), content);
                    }
                }
                if entry.kind != Kind::Directory {
                    layer.hide(&entry.path);
                }
            }
        }
        self.hidden.append(&mut layer.hidden);
        self.opaque.append(&mut layer.opaque);
        self.files.append(&mut layer.files);
        Ok(())
    }

    /// Returns the files that were kept, by path.
    pub(super) fn finish(self) -> BTreeMap<String, Vec<u8>> {
        self.files
    }

    /// Remembers a path that hides something, if it is above, at or below one of the folders.
    fn hide(&mut self, path: &str) {
        let is_near = |folder: &String| is_within(path, folder) || is_within(folder, path);
        if self.folders.iter().any(is_near) {
            self.hidden.insert(path.to_owned());
        }
    }

    /// Returns whether a layer above hides what this one has at `path`.
    fn hides(&self, path: &str) -> bool {
        let folders = path.match_indices('/').map(|(end, _)| &path[..end]);
        let mut folders = std::iter::once("").chain(folders);
        self.hidden.contains(path)
            || folders.any(|folder| self.hidden.contains(folder) || self.opaque.contains(folder))
    }
}

/// Returns whether `path` is `folder` or below it. Everything is below the empty folder.
fn is_within(path: &str, folder: &str) -> bool {
    folder.is_empty()
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
