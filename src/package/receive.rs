//! The first half of reading: one pass over the entries, in which files are sorted into blobs, metadata and archives.
//!
//! What comes out is a [`Level`] for the file and one for each archive inside of it that may be a package. Blobs are in the
//! sink by then; nothing else was decided.
//!
//! # Archives inside of archives
//!
//! They are read where they lie, without a copy: [`InnerFile`] gives the content of the entry, which is decompressed on
//! the way. An inner archive that turns out to be no package is no fault, whatever names and links it holds: it is somebody's
//! data. So what is wrong with one of its entries is kept in [`Level::flaw`] until that is known. A damaged one is refused
//! at once: nobody can tell what it was meant to be.

use std::collections::BTreeSet;
use std::io::BufRead;

use super::archive::{Archive, Budget, Entry, FileEntry};
use super::capture::Capture;
use super::chart_file::{Candidate, Packed};
use super::delta;
use super::header::show;
use super::images::MetadataFile;
use super::inflate::{self, Totals};
use super::inner_file::InnerFile;
use super::layer_content::LayerContent;
use super::layout::{self, Role};
use super::level::{Inner, Level};
use super::manifest::{self, Manifest};
use super::unpack_error::Outcome;
use super::{Error, Limits, Sink, UnpackError};
use crate::base::{Digest, Hasher};

/// Where our writer puts the package manifest: before everything else.
const ROOT_MANIFEST: &str = "manifest.yaml";
/// What an image that a package manifest names costs in memory beyond its text, in bytes: itself, and its places in the
/// indexes by which it is found. Estimated.
const NAMED_IMAGE_BYTES: u64 = 256;

/// What is the same for all levels of one file.
#[derive(Debug)]
pub(super) struct Receiver<'a, S> {
    pub(super) limits: &'a Limits,
    pub(super) budget: Budget,
    pub(super) totals: Totals,
    pub(super) sink: &'a mut S,
    /// What the sink was given.
    pub(super) received: BTreeSet<Digest>,
}

impl<S: Sink> Receiver<'_, S> {
    /// Reads the archive of the file, whose own bytes are in `capture`, to its end.
    pub(super) fn receive<B: BufRead>(
        &mut self,
        mut archive: Archive<B>,
        capture: Capture,
    ) -> Outcome<Level, S> {
        let mut level = Level::new(0);
        let mut chart = Candidate::new(capture);
        while let Some(entry) = archive.next_entry(&mut self.budget)? {
            self.receive_entry(entry, &mut archive, &mut level, &mut chart)?;
        }
        self.seal(&mut level, &mut chart)?;
        Ok(level)
    }

    /// Reads an archive that lies `depth` levels deep.
    fn receive_inner(
        &mut self,
        input: Box<dyn BufRead + '_>,
        capture: Capture,
        depth: u32,
    ) -> Outcome<Level, S> {
        let mut archive = Archive::new(input, self.limits);
        let mut level = Level::new(depth);
        let mut chart = Candidate::new(capture);
        loop {
            let entry = match archive.next_entry(&mut self.budget) {
                Ok(None) => break,
                Ok(Some(entry)) => entry,
                Err(error) => {
                    note_flaw(UnpackError::Package(error), &mut level)?;
                    continue;
                }
            };
            self.receive_entry(entry, &mut archive, &mut level, &mut chart)
                .or_else(|error| note_flaw(error, &mut level))?;
        }
        self.seal(&mut level, &mut chart)?;
        Ok(level)
    }

    fn receive_entry<B: BufRead>(
        &mut self,
        entry: Entry,
        archive: &mut Archive<B>,
        level: &mut Level,
        chart: &mut Candidate,
    ) -> Outcome<(), S> {
        let file = match entry {
            Entry::File(file) => file,
            Entry::Link { path, target } => {
                chart.give_up();
                let budget = &mut self.budget;
                return Ok(level.docker.add_link(path, &target, budget)?);
            }
        };
        if chart.note(&file.path) {
            let content = self.read_metadata(&file, archive)?;
            chart.set_chart_file(file.path, content);
            return Ok(());
        }
        match layout::classify(&file.path)? {
            Role::Other => {}
            Role::Archive => self.look_into(&file, archive, level)?,
            Role::DockerFile => {
                let digest = self.receive_unnamed(&file, archive)?;
                level.docker.add(file, digest, None, &mut self.budget)?;
            }
            Role::DockerLayer => {
                let (digest, content) = self.receive_layer(&file, archive)?;
                level.docker.add(file, digest, content, &mut self.budget)?;
            }
            Role::Blob(digest) => {
                level.blobs.insert(digest);
                if self.received.contains(&digest) {
                    hash_again(&file, archive, digest)?;
                } else {
                    self.receive_blob(&file, archive, digest)?;
                }
            }
            Role::Metadata(kind) => {
                let file = MetadataFile {
                    content: self.read_metadata(&file, archive)?,
                    path: file.path,
                    kind,
                };
                if file.path == ROOT_MANIFEST && level.depth == 0 {
                    self.check_base(&file)?;
                }
                level.add_file(file);
            }
        }
        Ok(())
    }

    /// Says before gigabytes are read that what a delta builds on is not there.
    fn check_base(&self, file: &MetadataFile) -> Outcome<(), S> {
        if manifest::is_package_manifest(&file.path, &file.content)? {
            let manifest = Manifest::parse(&file.path, &file.content)?;
            delta::check_early(&manifest, self.sink)?;
        }
        Ok(())
    }

    fn read_metadata<B: BufRead>(
        &mut self,
        file: &FileEntry,
        archive: &mut Archive<B>,
    ) -> Outcome<Vec<u8>, S> {
        let limit_bytes = self.limits.metadata_bytes_max;
        if file.size_bytes > limit_bytes {
            return Err(UnpackError::Package(Error::MetadataTooLarge {
                entry: show(file.path.as_bytes()),
                size_bytes: file.size_bytes,
                limit_bytes,
            }));
        }
        self.budget.charge(file.size_bytes)?;
        Ok(archive.content_to_vec(file.size_bytes)?)
    }

    fn receive_blob<B: BufRead>(
        &mut self,
        file: &FileEntry,
        archive: &mut Archive<B>,
        expected: Digest,
    ) -> Outcome<(), S> {
        let found = self.write_blob(file, archive, Some(expected))?;
        check_digest(file, expected, found)?;
        self.received.insert(expected);
        Ok(())
    }

    /// Receives a file whose name does not say what it hashes to.
    fn receive_unnamed<B: BufRead>(
        &mut self,
        file: &FileEntry,
        archive: &mut Archive<B>,
    ) -> Outcome<Digest, S> {
        let digest = self.write_blob(file, archive, None)?;
        self.received.insert(digest);
        Ok(digest)
    }

    /// Receives a layer that may be compressed; returns the digest of its content, too, if it is.
    fn receive_layer<B: BufRead>(
        &mut self,
        file: &FileEntry,
        archive: &mut Archive<B>,
    ) -> Outcome<(Digest, Option<Digest>), S> {
        let mut content = LayerContent::new(&self.totals, self.limits);
        self.sink
            .begin(None, file.size_bytes)
            .map_err(UnpackError::Sink)?;
        loop {
            let piece = archive.content()?;
            if piece.is_empty() {
                break;
            }
            content
                .write(piece)
                .map_err(|error| within(&file.path, error))?;
            self.sink.write(piece).map_err(UnpackError::Sink)?;
        }
        let digest = self.sink.end().map_err(UnpackError::Sink)?;
        self.received.insert(digest);
        let content = content
            .finish()
            .map_err(|error| within(&file.path, error))?;
        Ok((digest, content))
    }

    fn write_blob<B: BufRead>(
        &mut self,
        file: &FileEntry,
        archive: &mut Archive<B>,
        expected: Option<Digest>,
    ) -> Outcome<Digest, S> {
        self.sink
            .begin(expected, file.size_bytes)
            .map_err(UnpackError::Sink)?;
        loop {
            let piece = archive.content()?;
            if piece.is_empty() {
                return self.sink.end().map_err(UnpackError::Sink);
            }
            self.sink.write(piece).map_err(UnpackError::Sink)?;
        }
    }

    /// Reads a file that is called like an archive, if it is one.
    fn look_into<B: BufRead>(
        &mut self,
        file: &FileEntry,
        archive: &mut Archive<B>,
        level: &mut Level,
    ) -> Outcome<(), S> {
        let within = |error| within(&file.path, error);
        let capture = Capture::new(self.limits.chart_bytes_max);
        let mut content = InnerFile::new(archive, capture.clone());
        let opened = inflate::open_nested(&mut content, &self.totals, self.limits, &capture);
        let Some(input) = opened.map_err(within)? else {
            return Ok(());
        };
        if level.depth >= self.limits.archives_nested_max {
            level.set_too_deep(Error::ArchivesTooDeep {
                entry: show(file.path.as_bytes()),
                limit: self.limits.archives_nested_max,
            });
            return Ok(());
        }
        let inner = match self.receive_inner(input, capture, level.depth + 1) {
            Ok(inner) => inner,
            // Compressed, but not an archive.
            Err(UnpackError::Package(Error::NotAnArchive)) => return Ok(()),
            Err(error) => return Err(error.map_package(within)),
        };
        let digest = content.finish()?;
        if inner.is_interesting() {
            level.inner.push(Inner {
                path: file.path.clone(),
                digest,
                size_bytes: file.size_bytes,
                level: inner,
            });
        }
        Ok(())
    }

    /// Ends an archive, and gives the blobs of a chart to the sink, if that is what it is.
    fn seal(&mut self, level: &mut Level, candidate: &mut Candidate) -> Outcome<(), S> {
        level.finish_files();
        if let Some(manifest) = level.manifest() {
            let images = manifest.images().count() as u64;
            self.budget.charge(images * NAMED_IMAGE_BYTES)?;
        }
        if level.has_own_content() {
            candidate.give_up();
        }
        let Some(packed) = candidate.finish(self.limits)? else {
            return Ok(());
        };
        let Packed { blobs, chart } = packed;
        for blob in &blobs {
            let digest = give(self.sink, &mut self.received, blob)?;
            level.chart_blobs.push(digest);
        }
        level.chart = Some(chart);
        Ok(())
    }
}

/// Gives a blob that is in memory to the sink, unless it has it.
pub(super) fn give<S: Sink>(
    sink: &mut S,
    received: &mut BTreeSet<Digest>,
    content: &[u8],
) -> Outcome<Digest, S> {
    let digest = Digest::of(content);
    if received.insert(digest) {
        sink.begin(Some(digest), content.len() as u64)
            .and_then(|()| sink.write(content))
            .and_then(|()| sink.end())
            .map_err(UnpackError::Sink)?;
    }
    Ok(digest)
}

/// Checks another copy of a blob, from a second layout in the same file, without storing it again.
fn hash_again<B: BufRead>(
    file: &FileEntry,
    archive: &mut Archive<B>,
    expected: Digest,
) -> Result<(), Error> {
    let mut hasher = Hasher::default();
    loop {
        let piece = archive.content()?;
        if piece.is_empty() {
            return check_digest(file, expected, hasher.finish());
        }
        hasher.update(piece);
    }
}

fn check_digest(file: &FileEntry, expected: Digest, found: Digest) -> Result<(), Error> {
    if expected != found {
        return Err(Error::DigestMismatch {
            entry: show(file.path.as_bytes()),
            expected,
            found,
        });
    }
    Ok(())
}

/// Says in which inner archive something is wrong. That the file cannot be read, or that the base of a delta is missing,
/// is nothing wrong with it.
pub(super) fn within(path: &str, error: Error) -> Error {
    if matches!(error, Error::Read(_) | Error::BaseMissing { .. }) {
        return error;
    }
    Error::Nested {
        entry: show(path.as_bytes()),
        source: Box::new(error),
    }
}

/// Keeps what is wrong with one entry of an inner archive, if the archive can be read on behind it.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only what is listed is about one entry and nothing else"
)]
fn note_flaw<E: std::error::Error + 'static>(
    error: UnpackError<E>,
    level: &mut Level,
) -> Result<(), UnpackError<E>> {
    let UnpackError::Package(error) = error else {
        return Err(error);
    };
    match error {
        Error::NameAbsolute { .. }
        | Error::NameParent { .. }
        | Error::NameNotUtf8 { .. }
        | Error::NameCharacter { .. }
        | Error::NameEmpty { .. }
        | Error::NameTooLong { .. }
        | Error::NameDuplicate { .. }
        | Error::NameConflict { .. }
        | Error::SymbolicLink { .. }
        | Error::HardLink { .. }
        | Error::Device { .. }
        | Error::Fifo { .. }
        | Error::EntryType { .. }
        | Error::MetadataTooLarge { .. }
        | Error::BlobName { .. }
        | Error::DigestMismatch { .. }
        | Error::TagLink { .. }
        | Error::RevisionLink { .. } => {
            level.set_flaw(error);
            Ok(())
        }
        error => Err(UnpackError::Package(error)),
    }
}
