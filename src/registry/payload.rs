//! What a request carries: nothing, bytes, or a blob or a part of it straight from its file.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::Error;
use super::wire::Tally;
use crate::base::{Digest, Secret};

/// How much of a blob is read and sent at a time, in bytes. Measured 2026-11-20: 4 KiB gives 128 MB/s, 64 KiB
/// 1.5 GB/s, 1 MiB 3 GB/s.
const PIECE_BYTES: usize = 256 << 10;

/// Opens our copy of a blob, once for each attempt to send it.
pub type BlobSource = Arc<dyn Fn() -> io::Result<File> + Send + Sync>;

/// What a request carries.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Nothing,
    /// What a token server is told: it has a secret in it.
    Form(Secret),
    Bytes(Bytes),
    Blob(Blob),
}

impl Payload {
    /// Returns how much is sent, in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Form(form) => form.expose().len() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(blob) => blob.length_bytes(),
        }
    }
}

/// A blob to be sent, or a part of it.
#[derive(Clone)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    /// Of the whole.
    pub(super) size_bytes: u64,
    source: BlobSource,
    /// What of it is sent, in bytes from its start.
    range: Range<u64>,
    /// How much of it was handed to connections, in all requests with it or a part of it.
    pub(super) handed: Arc<AtomicU64>,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob")
            .field("digest", &self.digest)
            .field("size_bytes", &self.size_bytes)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// Why reading our own copy failed in the middle of a request, if it did. The HTTP library only says that the body
/// broke.
#[derive(Clone, Debug, Default)]
pub(super) struct Fault(Arc<Mutex<Option<io::Error>>>);

impl Fault {
    /// Returns the failure, once.
    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().expect("no holder of this lock panics").take()
    }

    /// Keeps a failure and returns one like it, for the library.
    fn keep(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        *self.0.lock().expect("no holder of this lock panics") = Some(error);
        kind.into()
    }
}

impl Blob {
    /// Returns a whole blob.
    pub(super) fn new(digest: Digest, size_bytes: u64, source: BlobSource) -> Self {
        Self {
            digest,
            size_bytes,
            source,
            range: 0..size_bytes,
            handed: Arc::default(),
        }
    }

    /// Returns a part of it.
    pub(super) fn part(&self, offset_bytes: u64, length_bytes: u64) -> Self {
        Self {
            range: offset_bytes..offset_bytes + length_bytes,
            ..self.clone()
        }
    }

    /// Returns how much of it is sent, in bytes.
    pub(super) fn length_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Opens our copy and returns it as a body, of which `progress` counts the pieces that were taken.
    pub(super) async fn body(
        &self,
        progress: Arc<AtomicU64>,
        tally: Arc<Tally>,
    ) -> Result<(reqwest::Body, Fault), Error> {
        let file = self.open().await?;
        let fault = Fault::default();
        let kept = fault.clone();
        let handed = Arc::clone(&self.handed);
        let reader = tokio::fs::File::from_std(file).take(self.length_bytes());
        let pieces = ReaderStream::with_capacity(reader, PIECE_BYTES)
            .inspect_ok(move |piece| {
                progress.fetch_add(1, Ordering::Relaxed);
                let count = piece.len() as u64;
                handed.fetch_add(count, Ordering::Relaxed);
                tally.bytes_sent.fetch_add(count, Ordering::Relaxed);
            })
            .map_err(move |error| kept.keep(error));
        Ok((reqwest::Body::wrap_stream(pieces), fault))
    }

    async fn open(&self) -> Result<File, Error> {
        let (source, offset_bytes) = (Arc::clone(&self.source), self.range.start);
        let opened = tokio::task::spawn_blocking(move || {
            let mut file = source()?;
            let size_bytes = file.metadata()?.len();
            if offset_bytes > 0 {
                file.seek(SeekFrom::Start(offset_bytes))?;
            }
            Ok((file, size_bytes))
        })
        .await
        .expect("opening a file does not panic");
        let (file, found_bytes) = opened.map_err(|source| Error::Source {
            digest: self.digest,
            source,
        })?;
        if found_bytes != self.size_bytes {
            return Err(Error::SourceSize {
                digest: self.digest,
                expected_bytes: self.size_bytes,
                found_bytes,
            });
        }
        Ok(file)
    }
}
