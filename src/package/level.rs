//! What one archive holds, be it the file itself or one inside of it.

use std::collections::BTreeSet;

use super::chart_file::Chart;
use super::docker_archive::{self, DockerFiles};
use super::header::show;
use super::images::MetadataFile;
use super::layout::Metadata;
use super::{Error, Manifest, manifest};
use crate::base::Digest;

/// What one archive holds.
#[derive(Debug)]
pub(super) struct Level {
    /// Sorted by path once the archive was read.
    pub(super) files: Vec<MetadataFile>,
    /// Whether one of them marks a layout.
    has_layout: bool,
    /// The package manifest among them, once the archive was read.
    manifest: Result<Option<Manifest>, Error>,
    /// Blobs under a name that is their digest.
    pub(super) blobs: BTreeSet<Digest>,
    /// What a docker-archive may refer to.
    pub(super) docker: DockerFiles,
    /// The chart that the archive is.
    pub(super) chart: Option<Chart>,
    /// What that chart consists of.
    pub(super) chart_blobs: Vec<Digest>,
    /// Archives inside of it that may be packages, in the order of entries.
    pub(super) inner: Vec<Inner>,
    /// How many archives are around it.
    pub(super) depth: u32,
    /// The first entry that no package may have.
    flaw: Option<Error>,
    /// The first archive that lies too deep to be opened.
    too_deep: Option<Error>,
}

/// An archive inside of an archive.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) path: String,
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    pub(super) level: Level,
}

impl Level {
    /// Begins an archive that has `depth` archives around it.
    pub(super) fn new(depth: u32) -> Self {
        Self {
            files: Vec::new(),
            has_layout: false,
            manifest: Ok(None),
            blobs: BTreeSet::new(),
            docker: DockerFiles::default(),
            chart: None,
            chart_blobs: Vec::new(),
            inner: Vec::new(),
            depth,
            flaw: None,
            too_deep: None,
        }
    }

    /// Takes a metadata file.
    pub(super) fn add_file(&mut self, file: MetadataFile) {
        self.has_layout = self.has_layout || marks_layout(&file);
        self.files.push(file);
    }

    /// Finds the package manifest, once all files are there.
    pub(super) fn finish_files(&mut self) {
        self.files.sort_by(|one, other| one.path.cmp(&other.path));
        self.manifest = find_manifest(&self.files);
    }

    /// Returns the package manifest, if there is one and nothing is wrong with it.
    pub(super) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref().ok()?.as_ref()
    }

    /// Takes the package manifest, or what is wrong with it.
    pub(super) fn take_manifest(&mut self) -> Result<Option<Manifest>, Error> {
        std::mem::replace(&mut self.manifest, Ok(None))
    }

    /// Returns whether the archive is a package of its own by its layouts or its package manifest.
    pub(super) fn has_own_content(&self) -> bool {
        // A manifest that cannot be read is an error of a package, and no other file.
        self.has_layout || !matches!(self.manifest, Ok(None))
    }

    /// Returns whether there is something that makes no sense outside of a package.
    pub(super) fn must_be_package(&self) -> bool {
        self.has_own_content() || !self.blobs.is_empty() || self.docker.has_links()
    }

    /// Returns whether an entry was no good.
    pub(super) const fn has_flaw(&self) -> bool {
        self.flaw.is_some()
    }

    /// Lists the blobs that came with the archive, those of archives inside of it aside; some may come twice.
    pub(super) fn list_blobs(&self) -> impl Iterator<Item = Digest> {
        let named = self.blobs.iter().copied();
        named
            .chain(self.docker.list_blobs())
            .chain(self.chart_blobs.iter().copied())
    }

    /// Keeps what is wrong with an entry, unless there was something before.
    pub(super) fn set_flaw(&mut self, flaw: Error) {
        self.flaw.get_or_insert(flaw);
    }

    /// Keeps the error for an archive that was not opened, unless there was one before.
    pub(super) fn set_too_deep(&mut self, error: Error) {
        self.too_deep.get_or_insert(error);
    }

    /// Fails if an entry was no good, which matters where the archive is a package.
    pub(super) fn take_flaw(&mut self) -> Result<(), Error> {
        self.flaw.take().map_or(Ok(()), Err)
    }

    /// Fails if an archive was not opened, which matters where it is not a part of a chart.
    pub(super) fn take_too_deep(&mut self) -> Result<(), Error> {
        self.too_deep.take().map_or(Ok(()), Err)
    }

    /// Returns whether the archive may be a package or hold one.
    pub(super) fn is_interesting(&self) -> bool {
        self.chart.is_some()
            || !self.inner.is_empty()
            || self.too_deep.is_some()
            || self.has_own_content()
    }
}

/// Returns whether a file makes an archive a package.
fn marks_layout(file: &MetadataFile) -> bool {
    match file.kind {
        Metadata::LayoutMark | Metadata::TagLink { .. } | Metadata::RevisionLink { .. } => true,
        Metadata::DockerArchive => docker_archive::is_list(&file.content),
        Metadata::LayoutIndex | Metadata::PackageManifest | Metadata::Resources => false,
    }
}

/// Returns the package manifest among `files`, which are sorted by path. A `manifest.yaml` of another kind is some other file,
/// but at the root it must be YAML.
fn find_manifest(files: &[MetadataFile]) -> Result<Option<Manifest>, Error> {
    let mut first: Option<&MetadataFile> = None;
    for file in files
        .iter()
        .filter(|file| file.kind == Metadata::PackageManifest)
    {
        let is_manifest = match manifest::is_package_manifest(&file.path, &file.content) {
            Err(_) if file.path.contains('/') => false,
            outcome => outcome?,
        };
        match first {
            Some(first) if is_manifest => {
                return Err(Error::SeveralManifests {
                    first: show(first.path.as_bytes()),
                    second: show(file.path.as_bytes()),
                });
            }
            None if is_manifest => first = Some(file),
            Some(_) | None => {}
        }
    }
    first
        .map(|file| Manifest::parse(&file.path, &file.content))
        .transpose()
}
