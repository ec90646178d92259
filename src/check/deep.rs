//! The content of all blobs, and what images consist of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::blobs::Blobs;
use super::finding::{Finding, Progress, below};
use super::packages::{is_damage, shown};
use super::{Code, Error, Observer, pass, records};
use crate::base::oci::{Descriptor, MANIFEST_BYTES_MAX};
use crate::base::{Chain, Class, Classified as _, Digest, Hasher, Tree, TreeError};
use crate::catalog::{Content, ImageRecord, PackageRecord, Rows};
use crate::sys::fs::{self, Context as _};

/// Bytes that are read at a time. As in `verify`.
const BUFFER_BYTES: usize = 256 << 10;

/// A deep look.
pub(super) struct Deep<'a> {
    pub(super) root: &'a Path,
    /// Whether a process owns the directory.
    pub(super) is_owned: bool,
    pub(super) catalog: Option<Rows>,
    pub(super) observer: &'a mut dyn Observer,
    /// Blobs that do not have the content that they should.
    pub(super) corrupt: BTreeSet<Digest>,
}

/// Why a manifest is not read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// It is missing or damaged, which is said elsewhere.
    #[error("known")]
    Known,
    /// It is not there, and the package does not keep it.
    #[error("not kept")]
    NotKept,
    /// It is too long for a manifest.
    #[error("expected a manifest of at most {MANIFEST_BYTES_MAX} bytes")]
    TooLarge,
}

impl Deep<'_> {
    /// Hashes all blobs. Returns how many and how many bytes.
    pub(super) fn check_content(&mut self, blobs: Blobs) -> Result<Progress, Error> {
        let mut progress = Progress {
            blobs_total: blobs.count,
            bytes_total: blobs.bytes,
            ..Progress::default()
        };
        let mut buffer = vec![0; BUFFER_BYTES];
        for shard in 0..=u8::MAX {
            let dir = self.root.join("blobs/sha256").join(format!("{shard:02x}"));
            for path in list_blobs(&dir, shard)? {
                let is_read = self.check_blob(&path, &mut buffer, &mut progress)?;
                progress.blobs += u64::from(is_read);
                self.observer.progress(progress);
            }
        }
        Ok(progress)
    }

    /// Hashes a blob; twice where it is wrong and a daemon may just have repaired it. Returns whether it could be read.
    fn check_blob(
        &mut self,
        (path, expected): &(PathBuf, Digest),
        buffer: &mut [u8],
        progress: &mut Progress,
    ) -> Result<bool, Error> {
        let looks = if self.is_owned { 2 } else { 1 };
        let mut found = None;
        for _ in 0..looks {
            let hashed = hash(path, buffer, |bytes| {
                progress.bytes += bytes;
                self.observer.progress(*progress);
            });
            found = match hashed {
                Ok(found) => found,
                Err(error) if error.class() == Class::Denied => return Err(error.into()),
                Err(error) => {
                    self.corrupt.insert(*expected);
                    let subject = below(self.root, path);
                    let reason = Chain(&error).to_string();
                    self.tell(Finding::new(Code::Unreadable, subject, reason));
                    return Ok(false);
                }
            };
            // It is sound, or it is gone.
            if found.is_none_or(|found| found == *expected) {
                return Ok(found.is_some());
            }
        }
        if let Some(found) = found {
            self.corrupt.insert(*expected);
            let reason = format!("expected content {expected}, found {found}");
            self.tell(Finding::new(
                Code::BlobCorrupt,
                expected.to_string(),
                reason,
            ));
        }
        Ok(true)
    }

    /// Compares what the images of packages consist of with what the packages keep and say. Returns how many images.
    pub(super) fn check_images(&mut self, packages: &[Digest]) -> Result<u64, Error> {
        let mut images = 0;
        for digest in packages {
            let Some((record, content)) = self.load(digest)? else {
                continue;
            };
            images += record.images.len() as u64;
            let mut findings = self.check_package(&record, &content)?;
            if !findings.is_empty() && self.is_owned {
                // It may have been removed meanwhile, and its blobs with it.
                self.catalog = Some(Rows::open(self.root)?);
                findings = match self.load(digest)? {
                    Some((record, content)) => self.check_package(&record, &content)?,
                    None => Vec::new(),
                };
            }
            for finding in findings {
                self.tell(finding);
            }
        }
        Ok(images)
    }

    fn tell(&mut self, finding: Finding) {
        self.observer.found(finding);
    }

    /// Returns a package and what it keeps, as the catalog says or else its file.
    fn load(&mut self, digest: &Digest) -> Result<Option<(PackageRecord, Content)>, Error> {
        match self.load_row(digest) {
            // The daemon has replaced a file of the database: it is looked at as it is now.
            Err(Error::Catalog(error)) if self.is_owned && error.class() == Class::Transient => {
                self.catalog = Some(Rows::open(self.root)?);
                self.load_row(digest)
            }
            result => result,
        }
    }

    fn load_row(&self, digest: &Digest) -> Result<Option<(PackageRecord, Content)>, Error> {
        if let Some(catalog) = &self.catalog {
            match (catalog.find_package(digest), catalog.find_content(digest)) {
                (Ok(record), Ok(content)) => {
                    if let Some(found) = record.zip(content) {
                        return Ok(Some(found));
                    }
                }
                (Err(error), _) | (_, Err(error)) if !is_damage(&error) => return Err(error.into()),
                (Err(_), _) | (_, Err(_)) => {}
            }
        }
        let file = records::read(self.root, digest).ok().flatten();
        Ok(file.and_then(|file| Some((file.package, file.content?))))
    }

    fn check_package(
        &self,
        record: &PackageRecord,
        content: &Content,
    ) -> Result<Vec<Finding>, Error> {
        let mut images = Images {
            root: self.root,
            corrupt: &self.corrupt,
            record,
            kept: content.entries().iter().copied().collect(),
            reached: BTreeSet::new(),
            omitted: BTreeSet::new(),
            is_whole: true,
            findings: Vec::new(),
        };
        let mut seen = BTreeSet::new();
        for image in &record.images {
            if seen.insert(image.digest) {
                images.check(image)?;
            }
        }
        for (digest, size_bytes) in &record.blobs {
            images.reach(*digest, *size_bytes);
        }
        Ok(images.finish())
    }
}

/// The images of one package.
struct Images<'a> {
    root: &'a Path,
    corrupt: &'a BTreeSet<Digest>,
    record: &'a PackageRecord,
    kept: BTreeMap<Digest, u64>,
    /// What they consist of.
    reached: BTreeSet<Digest>,
    omitted: BTreeSet<Digest>,
    /// Whether all manifests could be read.
    is_whole: bool,
    findings: Vec<Finding>,
}

impl Images<'_> {
    fn check(&mut self, image: &ImageRecord) -> Result<(), Error> {
        let root = Descriptor {
            media_type: image.media_type.clone(),
            digest: image.digest,
            size_bytes: image.size_bytes,
        };
        let mut failure = None;
        let tree = Tree::read(&root, |manifest| {
            if self.record.omitted.contains(&manifest.digest) {
                return Ok(None);
            }
            self.read(&manifest.digest)
                .unwrap_or_else(|error| {
                    failure = Some(error);
                    Err(ReadError::Known)
                })
                .map(Some)
        });
        if let Some(error) = failure {
            return Err(error.into());
        }
        match tree {
            Ok(mut tree) => {
                tree.take_in(|digest| self.record.blobs.contains_key(digest));
                self.compare(image, &tree);
            }
            Err(TreeError::Read {
                source: ReadError::Known,
                ..
            }) => self.is_whole = false,
            Err(TreeError::Read {
                digest,
                source: ReadError::NotKept,
            }) => {
                self.is_whole = false;
                self.tell_not_kept(digest);
            }
            Err(error) => {
                self.is_whole = false;
                let reason = format!("{}: {}", image.reference, Chain(&error));
                self.tell(Code::ImageUnreadable, &reason);
            }
        }
        Ok(())
    }

    /// Reads a manifest. The outer error means that nothing can be said.
    fn read(&self, digest: &Digest) -> Result<Result<Vec<u8>, ReadError>, fs::Error> {
        if self.corrupt.contains(digest) {
            return Ok(Err(ReadError::Known));
        }
        let shard = format!("{:02x}", digest.as_bytes()[0]);
        let dir = self.root.join("blobs/sha256").join(shard);
        let path = dir.join(digest.hex());
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            let file = File::open(&path)?;
            file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) if bytes.len() as u64 > MANIFEST_BYTES_MAX => Ok(Err(ReadError::TooLarge)),
            Ok(bytes) => Ok(Ok(bytes)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(error).context("read", &path)
            }
            Err(_) if self.kept.contains_key(digest) => Ok(Err(ReadError::Known)),
            Err(_) => Ok(Err(ReadError::NotKept)),
        }
    }

    fn compare(&mut self, image: &ImageRecord, tree: &Tree) {
        let media_type = tree.manifests.last().map(|root| &root.media_type);
        if media_type != Some(&image.media_type) {
            let found = media_type.map_or("none", String::as_str);
            let (name, expected) = (&image.reference, &image.media_type);
            let reason = format!("{name}: expected media type `{expected}`, found `{found}`");
            self.tell(Code::ImageDiffers, &reason);
        }
        let (expected, found) = (image.content_bytes, tree.content_bytes());
        if expected != found {
            let name = &image.reference;
            let reason = format!("{name}: expected {expected} bytes in all, found {found}");
            self.tell(Code::ImageDiffers, &reason);
        }
        let blobs = tree.blobs.iter().map(|blob| &blob.descriptor);
        for descriptor in tree.manifests.iter().chain(blobs) {
            self.reach(descriptor.digest, descriptor.size_bytes);
        }
        self.omitted.extend(&tree.omitted);
    }

    /// Takes note of something that the package needs.
    fn reach(&mut self, digest: Digest, size_bytes: u64) {
        if !self.reached.insert(digest) {
            return;
        }
        match self.kept.get(&digest) {
            None => self.tell_not_kept(digest),
            Some(kept) if *kept != size_bytes => {
                let reason =
                    format!("expected {digest} to have {size_bytes} bytes, found {kept} noted");
                self.tell(Code::ImageDiffers, &reason);
            }
            Some(_) => {}
        }
    }

    fn tell_not_kept(&mut self, digest: Digest) {
        let reason =
            format!("expected it to keep {digest}, which it needs, found that it does not");
        self.tell(Code::ContentIncomplete, &reason);
    }

    fn tell(&mut self, code: Code, reason: &str) {
        let subject = self.record.digest.to_string();
        let reason = format!("{}: {reason}", shown(self.record));
        self.findings.push(Finding::new(code, subject, reason));
    }

    fn finish(mut self) -> Vec<Finding> {
        if !self.is_whole {
            return self.findings;
        }
        let surplus = self.kept.keys().filter(|it| !self.reached.contains(*it));
        let surplus = surplus.count();
        if surplus > 0 {
            let reason = format!("expected to keep what it needs, found {surplus} blobs more");
            self.tell(Code::ContentSurplus, &reason);
        }
        if self.omitted != self.record.omitted {
            let (expected, found) = (self.record.omitted.len(), self.omitted.len());
            let reason = format!("expected {expected} manifests left out, found {found}");
            self.tell(Code::OmittedDiffers, &reason);
        }
        self.findings
    }
}

/// Lists the blobs of one folder. What else is there was said before.
fn list_blobs(dir: &Path, shard: u8) -> Result<Vec<(PathBuf, Digest)>, Error> {
    let entries = match pass::list(dir) {
        Err(error) if error.class() == Class::Denied => return Err(error.into()),
        Err(_) => return Ok(Vec::new()),
        Ok(entries) => entries,
    };
    let blobs = entries.into_iter().filter_map(|entry| {
        let digest = Digest::from_hex(entry.text()).ok()?;
        let is_blob = digest.as_bytes()[0] == shard && entry.metadata.is_file();
        is_blob.then_some((entry.path, digest))
    });
    Ok(blobs.collect())
}

/// Returns the digest of a file, or nothing if it is gone. Calls `read` with the number of bytes of each step.
fn hash(
    path: &Path,
    buffer: &mut [u8],
    mut read: impl FnMut(u64),
) -> Result<Option<Digest>, fs::Error> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.context("open", path)?,
    };
    let mut hasher = Hasher::default();
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(Some(hasher.finish())),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                read(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("read", path),
        }
    }
}
