//! What is written down of an upload that is not finished, and where.

use std::fmt;

use crate::base::{Digest, Repository, Secret, Timestamp};

/// An upload that a registry expects, as far as it was known when it was written down.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// Where it goes, as an absolute URL. Who has it may be able to upload.
    pub url: Secret,
    /// What the registry had of the blob for sure, in bytes.
    pub offset_bytes: u64,
    /// Size of the blob, in bytes.
    pub size_bytes: u64,
    /// When it was begun.
    pub begun_at: Timestamp,
}

/// Where unfinished uploads are written down, by repository and blob.
///
/// Nothing here fails: what cannot be written down costs bytes after a crash, and must not cost the upload.
pub trait Uploads: fmt::Debug + Send + Sync {
    /// Returns what was written down last.
    fn find(&self, repository: &Repository, digest: &Digest) -> Option<Unfinished>;

    /// Writes an upload down, in place of what was there. Called before bytes are sent, and between requests.
    fn put(&self, repository: &Repository, digest: &Digest, upload: &Unfinished);

    /// Forgets an upload that is finished or given up.
    fn remove(&self, repository: &Repository, digest: &Digest);
}

/// For those who do not go on after a crash: nothing is written down.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoUploads;

impl Uploads for NoUploads {
    fn find(&self, _: &Repository, _: &Digest) -> Option<Unfinished> {
        None
    }

    fn put(&self, _: &Repository, _: &Digest, _: &Unfinished) {}

    fn remove(&self, _: &Repository, _: &Digest) {}
}
