//! Uploads of blobs: from the file to the registry, in as few requests and as few bytes as the registry lets us.
//!
//! Start from [`Client::upload_blob`].
//!
//! # States
//!
//! ```text
//!             ┌─ known from an earlier process ── status ──┬─► at the offset that the registry names ─┐
//! upload ─────┤                                  refused ──┴─┐                                        │
//!             └─ begin (with a mount) ──201──► there         │                                        │
//!                  └──202──► session ◄─────────── begin ◄────┘                                        │
//!                               │ below 64 MiB, not cut yet: one PUT ────────────────► there          │
//!                               └ else: PATCH, PATCH, ... ◄───────────────────────────────────────────┘
//!                                         │  └──► empty PUT ─────────────────────────► there
//!                                     failure: status, and on from where the registry is
//! ```
//!
//! `transfer` decides, `session` speaks, `chunk` and `mount` remember for the life of the client what the registry was seen
//! to do, `range` reads what it says it has, `unfinished` is what is written down.
//!
//! # Sizes
//!
//! How much goes into one request depends on what registries keep of one that was cut (seen on 2026-11-20 and -21):
//!
//! | registry | cut in the middle of a PATCH | between two of them |
//! |---|---|---|
//! | distribution 3 | keeps what came; the status tells how much | keeps |
//! | docker-registry 2.8 (2.8.2, 2.8.3) | keeps nothing that could be used: from then on every request to the session is answered by 404, that to delete it included | keeps |
//! | zot | keeps nothing | keeps |
//! | any, behind a proxy that passes on only whole requests (nginx as it comes) | the registry has not seen it: keeps what was before | keeps |
//!
//! So the first requests have 64 MiB ([`chunk::CHUNK_BYTES`]), which is what is lost at most in the last row; a registry that was
//! seen to keep what was cut gets the rest of the blob in one request; one that was seen to lose the session gets smaller ones, on
//! connections of their own, because a proxy that cuts connections mostly does it by bytes or by time.
//!
//! Some take a blob only as docker sends it, by PATCH and an empty PUT: container-registry 0.3.1 answers 500 to a PUT with a body, or
//! closes the connection before it has read it (seen on 2026-11-21). So a blob that was cut goes by PATCH the next time, and one that
//! was answered by 500 twice as well; if that went well, all that follow go that way at once.
//!
//! # Durability
//!
//! A session is written down ([`Uploads`]) before the first byte goes into it, and after each request where it stands. A process
//! that is killed leaves at the registry what its next start finds, goes on with, or deletes. Exception: docker-registry 2.8
//! deletes no session that was cut in the middle of a request; its own purge does (after a week, unless configured otherwise).
//!
//! # Zero copy
//!
//! There is none: reqwest and hyper take bodies as buffers and own the socket, and with TLS there is nothing to gain. Nor is there
//! much without: 1 GiB from file to loopback takes 0.15 s of CPU by `sendfile` and 0.26 s in pieces of 256 KiB (medians of four on
//! 2026-11-21, machine shared), while docker-registry takes 3.5 s of CPU to receive it.
//!
//! # References
//!
//! OCI distribution-spec v1.1.0, "Pushing blobs"; distribution project, "HTTP API V2", "Resumable push".

mod chunk;
mod mount;
mod range;
mod session;
mod transfer;
mod unfinished;

use std::sync::Arc;
use std::time::Duration;

use self::chunk::Chunks;
pub use self::mount::Mount;
use self::mount::Mounts;
use self::transfer::Transfer;
pub use self::unfinished::{NoUploads, Unfinished, Uploads};
use super::payload::BlobSource;
use super::{Client, Error};
use crate::base::oci::Descriptor;
use crate::base::{Clock, Repository};

/// How long giving up a session may take. It is a courtesy: registries expire sessions.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// How a blob got to where it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// From another repository of the registry, without sending it.
    Mounted,
    /// It was there.
    Present,
    /// By sending it.
    Sent {
        /// What this call has handed to connections, in bytes: more than the blob where some of it was sent again, less where
        /// an earlier process had begun.
        bytes: u64,
        /// What the registry had of it from an earlier process, in bytes.
        resumed_bytes: u64,
    },
}

/// What a client remembers of how its registry takes uploads.
#[derive(Debug)]
pub(super) struct Learned {
    mounts: Mounts,
    chunks: Chunks,
    clock: Arc<dyn Clock>,
}

impl Learned {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            mounts: Mounts::default(),
            chunks: Chunks::default(),
            clock,
        }
    }
}

impl Client {
    /// Brings a blob into a repository: by mounting it where `mount` says so and the registry does it, otherwise by sending what
    /// the registry does not have of it yet. Repeated on failures, and as long as each failure finds the registry with more of
    /// the blob than the one before.
    ///
    /// `uploads` is where sessions are written down. Where an error may pass by itself and the registry keeps what it has, the
    /// session stays there for the next call; in all other cases it is given up.
    #[expect(
        clippy::too_many_arguments,
        reason = "what goes where, from where, and where that is written down: each of another type, none with a default"
    )]
    pub async fn upload_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        source: &BlobSource,
        mount: Mount<'_>,
        uploads: &dyn Uploads,
    ) -> Result<Uploaded, Error> {
        Transfer::new(self, repository, blob, source, uploads)
            .run(mount)
            .await
    }

    /// Gives up an upload that was written down, so that the registry can forget what it has of it. Takes 5 s at most.
    ///
    /// Succeeds, too, where there is nothing that could be done: the registry does not know it any more, or never will let go of it
    /// (docker-registry 2.8 answers 404 for a session that was cut in the middle of a request), or it went to another address.
    pub async fn cancel_upload(
        &self,
        repository: &Repository,
        upload: &Unfinished,
    ) -> Result<(), Error> {
        let Some(url) = self.session_url(upload) else {
            return Ok(());
        };
        self.delete_session(repository, url).await
    }
}
