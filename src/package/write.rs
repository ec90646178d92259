//! Writing packages: the same images and the same manifest give the same bytes, on any machine, at any time.
//!
//! Across releases that holds for the archive inside; the compressed bytes may change with the compressor.
//!
//! # Format
//!
//! Gzip members with fixed headers around a ustar archive with these entries, in this order; `docs/formats/package.md`
//! has the details:
//!
//! ```text
//! manifest.yaml  oci-layout  index.json  documents  blobs/sha256/<hex> ascending
//! ```
//!
//! Every entry has mode 0644, owner 0, no owner names and time 0.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};

use flate2::Compression;
use serde::Serialize;

use super::images::unify;
use super::members::{MAGIC_BYTES, Members, is_compressed};
use super::{Error, Image, Limits, Manifest};
use crate::base::oci::{ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, MEDIA_TYPE_INDEX};
use crate::base::{Digest, Hasher};

/// The mark of an OCI layout (OCI image-spec v1.1.0, `image-layout.md`), byte for byte.
const LAYOUT_MARK: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Name of the package manifest.
const MANIFEST: &str = "manifest.yaml";

/// Choices of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Level of compression, 0 (none) to 9, of what is not compressed already. Default 6, which is gzip's own.
    pub compression_level: u32,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            compression_level: 6,
        }
    }
}

/// A package that is being written.
///
/// ```text
/// create ──► add_blob* (ascending by digest) ──► finish
/// ```
pub struct Writer<W: Write> {
    archive: tar::Builder<Members<W>>,
    level: Compression,
    /// Digests of the images, descending, of which the blobs are still to come.
    awaited: Vec<Digest>,
    last: Option<Digest>,
}

impl<W: Write> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("awaited", &self.awaited)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Index<'a> {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: &'a str,
    manifests: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    descriptor: &'a Descriptor,
    annotations: BTreeMap<&'static str, String>,
}

impl<W: Write> Writer<W> {
    /// Starts a package with its metadata. The order of `images` plays no part.
    ///
    /// What the manifest expects to be there already is no part of the package. Fails if the manifest is larger than what
    /// the reader takes by default, which is about 40 000 expected blobs.
    pub fn create(
        output: W,
        manifest: &Manifest,
        images: &[Image],
        options: WriteOptions,
    ) -> Result<Self, Error> {
        let images = unify(images.to_vec())?;
        let roots = images.iter().map(|image| image.descriptor.digest);
        let mut awaited: Vec<Digest> = roots
            .filter(|root| !manifest.expects.contains_key(root))
            .collect();
        awaited.sort_by(|one, other| other.cmp(one));
        awaited.dedup();
        let level = Compression::new(options.compression_level.min(9));
        let mut writer = Self {
            archive: tar::Builder::new(Members::new(output, level)),
            level,
            awaited,
            last: None,
        };
        let text = manifest.encode();
        let (size_bytes, limit_bytes) = (text.len() as u64, Limits::default().metadata_bytes_max);
        if size_bytes > limit_bytes {
            return Err(Error::MetadataTooLarge {
                entry: MANIFEST.to_owned(),
                size_bytes,
                limit_bytes,
            });
        }
        writer.add_file(MANIFEST, text.as_bytes())?;
        writer.add_file("oci-layout", LAYOUT_MARK)?;
        writer.add_file("index.json", &encode_index(&images))?;
        Ok(writer)
    }

    /// Adds a file that goes in as it is, before the first blob: `moduleplugin.yaml`.
    pub fn add_document(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.add_file(name, bytes)
    }

    /// Adds a blob: a manifest, configuration or layer. Each digest must be greater than the one before.
    ///
    /// Fails if `content` is not exactly `size_bytes` bytes with that digest; the output is then worthless.
    pub fn add_blob(
        &mut self,
        digest: &Digest,
        size_bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(), Error> {
        if self.last.is_some_and(|last| last >= *digest) {
            return Err(Error::BlobOrder { digest: *digest });
        }
        if self.awaited.last().is_some_and(|awaited| awaited < digest) {
            return self.check_awaited();
        }
        let first = first_bytes(content)?;
        let level = if is_compressed(&first) {
            Compression::none()
        } else {
            self.level
        };
        self.archive
            .get_mut()
            .set_level(level)
            .map_err(Error::Write)?;
        let mut checked = Checked {
            inner: &mut first.as_slice().chain(content),
            hasher: Hasher::default(),
            read_bytes: 0,
            left_bytes: size_bytes,
            failure: None,
        };
        let path = format!("blobs/sha256/{}", digest.hex());
        let appended = self
            .archive
            .append(&header(&path, size_bytes), &mut checked);
        // One byte more than promised is as wrong as one less.
        checked.left_bytes = 1;
        let copied = appended.and_then(|()| io::copy(&mut checked, &mut io::sink()));
        if let Some(failure) = checked.failure {
            return Err(Error::Read(failure));
        }
        copied.map_err(Error::Write)?;
        let (found_bytes, found) = (checked.read_bytes, checked.hasher.finish());
        if found != *digest || found_bytes != size_bytes {
            return Err(Error::BlobContent {
                digest: *digest,
                size_bytes,
                found,
                found_bytes,
            });
        }
        self.awaited.pop_if(|awaited| *awaited == *digest);
        self.last = Some(*digest);
        Ok(())
    }

    /// Ends the package and returns the output, to which everything was written, but which was not flushed.
    ///
    /// Fails if the manifest of an image was not among the blobs. Whether its children were is the caller's care.
    pub fn finish(self) -> Result<W, Error> {
        self.check_awaited()?;
        let members = self.archive.into_inner().map_err(Error::Write)?;
        members.finish().map_err(Error::Write)
    }

    fn check_awaited(&self) -> Result<(), Error> {
        match self.awaited.last() {
            Some(digest) => Err(Error::BlobNotWritten { digest: *digest }),
            None => Ok(()),
        }
    }

    fn add_file(&mut self, path: &str, content: &[u8]) -> Result<(), Error> {
        self.archive
            .append(&header(path, content.len() as u64), content)
            .map_err(Error::Write)
    }
}

/// Reads what tells whether content is compressed.
fn first_bytes(content: &mut dyn Read) -> Result<Vec<u8>, Error> {
    let mut first = Vec::with_capacity(MAGIC_BYTES);
    content
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut first)
        .map_err(Error::Read)?;
    Ok(first)
}

fn header(path: &str, size_bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header
        .set_path(path)
        .expect("names that the writer makes fit into a header");
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size_bytes);
    header.set_cksum();
    header
}

fn encode_index(images: &[Image]) -> Vec<u8> {
    let entry = |image: &Image| {
        let mut annotations = BTreeMap::new();
        annotations.insert(ANNOTATION_IMAGE_NAME, image.reference.encode());
        if let Some(tag) = image.reference.tag() {
            annotations.insert(ANNOTATION_REF_NAME, tag.to_string());
        }
        annotations
    };
    let index = Index {
        schema_version: 2,
        media_type: MEDIA_TYPE_INDEX,
        manifests: images
            .iter()
            .map(|image| Entry {
                descriptor: &image.descriptor,
                annotations: entry(image),
            })
            .collect(),
    };
    serde_json::to_vec(&index).expect("a document of strings and numbers can be written as JSON")
}

/// Reads at most so many bytes and hashes them.
struct Checked<'a> {
    inner: &'a mut dyn Read,
    hasher: Hasher,
    read_bytes: u64,
    left_bytes: u64,
    /// Why the content could not be read, so that it is not taken for a fault of the output.
    failure: Option<io::Error>,
}

impl Read for Checked<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
        let length = into.len().min(wanted);
        let amount = match self.inner.read(&mut into[..length]) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let kind = error.kind();
                self.failure = Some(error);
                return Err(kind.into());
            }
            outcome => outcome?,
        };
        self.hasher.update(&into[..amount]);
        self.read_bytes += amount as u64;
        self.left_bytes -= amount as u64;
        Ok(amount)
    }
}
