//! What the fuzz targets share.
//!
//! - [`limits`]: bounds so small that thousands of inputs a second pass through and that every bound is met.
//! - [`unpack`]: reads a package into a [`MemorySink`], which remembers what it was given and checks the sink's contract.
//! - [`Archive`]: writes tar archives whose checksums are right, so that a fuzzed field gets past them.
//! - [`check_message`]: what must hold for every message that leaves the program.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Display;
use std::io::{Cursor, Read, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use violetd::base::{Chain, Digest};
use violetd::package::{self, Limits, Sink, UnpackError, Unpacked};

/// Size of a tar block, in bytes.
pub const BLOCK_BYTES: usize = 512;

/// Returns bounds that inputs of a few KiB can meet.
pub fn limits() -> Limits {
    Limits {
        entries_max: 100,
        unpacked_bytes_max: 1 << 20,
        metadata_bytes_max: 32 << 10,
        metadata_total_bytes_max: 128 << 10,
        manifest_bytes_max: 32 << 10,
        path_bytes_max: 256,
        nesting_max: 3,
        images_max: 50,
        resources_max: 50,
        chart_bytes_max: 64 << 10,
        zstd_window_bytes_max: 1 << 20,
        bundle_bytes_max: 64 << 10,
        bundle_unpacked_bytes_max: 256 << 10,
        bundle_entries_max: 50,
        ..Limits::default()
    }
}

/// Reads a package; `step` bytes at most are given at a time. Every error must have a message that can be shown.
pub fn unpack(
    bytes: &[u8],
    step: usize,
) -> (Result<Unpacked, UnpackError<Infallible>>, MemorySink) {
    let mut sink = MemorySink::default();
    let input = Pieces {
        bytes: Cursor::new(bytes.to_vec()),
        step,
    };
    let outcome = package::unpack(input, &limits(), &mut sink);
    if let Err(error) = &outcome {
        check_message(&Chain(error));
    }
    (outcome, sink)
}

/// A message goes to terminals and logs: it has one line, no control characters and a bounded length.
pub fn check_message(message: &impl Display) {
    let text = message.to_string();
    assert!(!text.is_empty(), "a message that says nothing");
    assert!(
        !text.chars().any(char::is_control),
        "control characters in {text:?}"
    );
    assert!(
        text.len() < 16 << 10,
        "a message of {} bytes: {text:.200}",
        text.len()
    );
}

/// A reader that gives a few bytes at a time.
#[derive(Debug)]
struct Pieces {
    bytes: Cursor<Vec<u8>>,
    step: usize,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let step = into.len().min(self.step.max(1));
        self.bytes.read(&mut into[..step])
    }
}

/// A sink that keeps everything.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MemorySink {
    /// What was received.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// Those whose digest was promised by a name.
    pub promised: BTreeMap<Digest, Vec<u8>>,
    current: Vec<u8>,
    expected: Option<Digest>,
    size_bytes: u64,
}

impl Sink for MemorySink {
    type Error = Infallible;

    fn begin(&mut self, expected: Option<Digest>, size_bytes: u64) -> Result<(), Infallible> {
        self.current.clear();
        self.expected = expected;
        self.size_bytes = size_bytes;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.current.extend_from_slice(bytes);
        assert!(
            self.current.len() as u64 <= self.size_bytes,
            "more content than announced"
        );
        Ok(())
    }

    fn end(&mut self) -> Result<Digest, Infallible> {
        assert_eq!(self.current.len() as u64, self.size_bytes);
        let digest = Digest::of(&self.current);
        if self.expected == Some(digest) {
            let again = self.promised.insert(digest, self.current.clone());
            assert!(again.is_none(), "each digest is given at most once");
        }
        self.blobs.insert(digest, std::mem::take(&mut self.current));
        Ok(digest)
    }

    fn find(&self, digest: &Digest) -> Result<Option<u64>, Infallible> {
        Ok(self.blobs.get(digest).map(|blob| blob.len() as u64))
    }

    fn find_base(&self, _: &Digest) -> Result<Option<u64>, Infallible> {
        Ok(None)
    }

    fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Infallible> {
        let blob = self.blobs.get(digest).expect("only what was found is read");
        assert!(
            blob.len() as u64 <= limit_bytes,
            "only what is small is read"
        );
        Ok(blob.clone())
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + '_>>, Infallible> {
        let blob = self
            .blobs
            .get(digest)
            .expect("only what was found is opened");
        Ok(Some(Box::new(blob.as_slice())))
    }
}

/// A tar archive that is being written.
#[derive(Debug, Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    /// Adds a file under a name, with a long-name header where it needs one.
    pub fn file(&mut self, name: &[u8], content: &[u8]) {
        if name.len() > 100 {
            self.raw(header(b'L', b"././@LongLink", name.len() as u64), name);
        }
        let short = &name[..name.len().min(100)];
        self.raw(header(b'0', short, content.len() as u64), content);
    }

    /// Adds a header as it is and its content, padded.
    pub fn raw(&mut self, header: [u8; BLOCK_BYTES], content: &[u8]) {
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK_BYTES), 0);
    }

    /// Adds anything.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Returns the archive with its end mark.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK_BYTES]);
        self.0
    }

    /// Returns the archive as it is.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Returns a ustar header with a valid checksum.
pub fn header(kind: u8, name: &[u8], size_bytes: u64) -> [u8; BLOCK_BYTES] {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(size_bytes);
    let block = header.as_mut_bytes();
    block[..name.len()].copy_from_slice(name);
    block[156] = kind;
    seal(block);
    *block
}

/// Writes the checksum of a header.
pub fn seal(block: &mut [u8; BLOCK_BYTES]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Returns one gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .expect("writing to memory does not fail")
}

/// Returns one zstd frame.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("writing to memory does not fail")
}
