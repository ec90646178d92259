//! Brings one blob to one repository: which request comes next, and what follows from its answer.
//!
//! # Failure
//!
//! A transfer that failed asks the registry how far it has come before it sends anything again, and its attempts are counted anew
//! as long as the registry has more each time. What it refused for want of time (429) it has not taken: that is sent again as it
//! was, because every question more would be refused as well. Content that does not have its digest at the end of a session that was cut in between
//! may have been joined wrongly: it is sent once more from the start before the blob is said to be damaged.

use std::sync::atomic::Ordering;

use super::super::payload::{Blob, BlobSource};
use super::chunk::{AfterCut, CHUNK_BYTES};
use super::mount::Seen;
use super::session::Session;
use super::{Client, Error, Mount, Uploaded, Uploads};
use crate::base::oci::Descriptor;
use crate::base::{Chain, Class, Classified as _, Repository};
use crate::transport::RetryAfter;

/// By how much a registry must have more after a failure for the attempts to be counted anew, in bytes. With less than that per
/// attempt a blob is not worth the noise. Chosen, not measured.
const PROGRESS_BYTES_MIN: u64 = 1 << 20;

/// How often a blob that goes in one request may be answered by 500 until it goes by `PATCH`, which is how docker and skopeo send
/// everything, and all that some registries take. Twice: the first time may be chance.
const WHOLE_FAILURES_MAX: u32 = 2;

/// One blob on its way.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    client: &'a Client,
    repository: &'a Repository,
    blob: Blob,
    uploads: &'a dyn Uploads,
    stage: Stage,
    /// Whether a session of an earlier process was looked for.
    has_looked_back: bool,
    /// Whether an upload may have ended although its answer did not arrive.
    may_be_there: bool,
    /// How often the blob was cut as a whole.
    cuts: u32,
    /// How often the registry failed when it was to take the blob as a whole.
    whole_failures: u32,
    resumed_bytes: u64,
}

/// Where a transfer stands.
#[derive(Debug)]
enum Stage {
    /// There is no session.
    Outside,
    /// There is one, and it is where we think it is.
    Inside(Inside),
    /// The last request to it failed.
    InDoubt {
        inside: Inside,
        /// What that request sent, if it was a chunk.
        cut: Option<Cut>,
    },
}

#[derive(Debug)]
struct Inside {
    session: Session,
    /// Whether a failure lies between its begin and now.
    is_joined: bool,
    /// What it says it has kept of a chunk that was cut. It may not have noticed yet that the sender is gone: only a chunk that
    /// follows proves it.
    unproven: Option<Kept>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    cut: Cut,
    more_bytes: u64,
}

/// The answer to a mount.
#[derive(Debug)]
enum Begun {
    /// The blob is there now.
    Granted,
    /// It is to be sent.
    Session(Session),
    /// We may not read the other repository, or the registry cannot mount.
    Refused,
}

/// A chunk of which nobody knows what arrived.
#[derive(Clone, Copy, Debug)]
struct Cut {
    body_bytes: u64,
    handed_bytes: u64,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        client: &'a Client,
        repository: &'a Repository,
        blob: &Descriptor,
        source: &BlobSource,
        uploads: &'a dyn Uploads,
    ) -> Self {
        Self {
            client,
            repository,
            blob: Blob::new(blob.digest, blob.size_bytes, BlobSource::clone(source)),
            uploads,
            stage: Stage::Outside,
            has_looked_back: false,
            may_be_there: false,
            cuts: 0,
            whole_failures: 0,
            resumed_bytes: 0,
        }
    }

    /// Does it, as often as it takes and is allowed.
    pub(super) async fn run(mut self, mount: Mount<'_>) -> Result<Uploaded, Error> {
        let mut attempts = self.client.exchange().attempts();
        let mut reached_bytes = 0;
        loop {
            let error = match self.attempt(mount).await {
                Ok(uploaded) => {
                    self.uploads.remove(self.repository, &self.blob.digest);
                    return Ok(uploaded);
                }
                Err(error) => error,
            };
            let offset_bytes = self.offset_bytes();
            if offset_bytes >= reached_bytes + PROGRESS_BYTES_MIN {
                reached_bytes = offset_bytes;
                attempts = self.client.exchange().attempts();
            }
            if let Err(error) = attempts.pause(error, Error::retry_after).await {
                self.leave(&error).await;
                return Err(error);
            }
        }
    }

    /// Goes on from where the last attempt has come.
    async fn attempt(&mut self, mount: Mount<'_>) -> Result<Uploaded, Error> {
        if self.may_be_there {
            let found = self
                .client
                .look_for_blob(self.repository, &self.blob.digest);
            if found.await? == Some(self.blob.size_bytes) {
                return Ok(self.sent());
            }
            self.may_be_there = false;
        }
        self.settle_doubt().await?;
        if matches!(self.stage, Stage::Outside)
            && let Some(uploaded) = self.begin(mount).await?
        {
            return Ok(uploaded);
        }
        self.send().await?;
        Ok(self.sent())
    }

    fn sent(&self) -> Uploaded {
        Uploaded::Sent {
            bytes: self.blob.handed.load(Ordering::Relaxed),
            resumed_bytes: self.resumed_bytes,
        }
    }

    /// Returns what the registry has for sure, in bytes.
    fn offset_bytes(&self) -> u64 {
        match &self.stage {
            Stage::Outside => 0,
            Stage::Inside(inside) | Stage::InDoubt { inside, .. } => inside.session.offset_bytes,
        }
    }

    /// Gets a session. Returns how the blob got there where it needs none.
    async fn begin(&mut self, mount: Mount<'_>) -> Result<Option<Uploaded>, Error> {
        // What is mounted needs no bytes at all, so that comes before what is left to send.
        if !matches!(mount, Mount::From(_)) && self.look_back().await? {
            return Ok(None);
        }
        let digest = self.blob.digest;
        let mut session = None;
        if self.client.learned().mounts.asks(mount) {
            match self.begin_by_mount(mount).await? {
                Begun::Granted => {
                    self.forget_earlier().await;
                    return Ok(Some(match mount {
                        Mount::Itself => Uploaded::Present,
                        Mount::From(_) | Mount::No => Uploaded::Mounted,
                    }));
                }
                Begun::Session(begun) => session = Some(begun),
                Begun::Refused => {}
            }
        }
        if session.is_none() && mount == Mount::Itself {
            let found = self.client.look_for_blob(self.repository, &digest).await?;
            if found == Some(self.blob.size_bytes) {
                self.forget_earlier().await;
                return Ok(Some(Uploaded::Present));
            }
        }
        let looked = self.look_back().await;
        if !matches!(looked, Ok(false)) {
            if let Some(session) = session {
                self.cancel(session).await;
            }
            return looked.map(|_| None);
        }
        let session = match session {
            Some(session) => session,
            None => self
                .client
                .begin_session(self.repository, &digest, Mount::No)
                .await?
                .expect("only a mount is answered with a blob that is there"),
        };
        self.enter(session, false);
        Ok(None)
    }

    /// Asks for a mount.
    async fn begin_by_mount(&self, mount: Mount<'_>) -> Result<Begun, Error> {
        let mounts = &self.client.learned().mounts;
        let asking = self
            .client
            .begin_session(self.repository, &self.blob.digest, mount);
        match asking.await {
            Ok(None) => {
                mounts.learn(mount, Seen::Granted);
                Ok(Begun::Granted)
            }
            Ok(Some(session)) => {
                mounts.learn(mount, Seen::Session);
                Ok(Begun::Session(session))
            }
            Err(
                error @ (Error::Denied { .. }
                | Error::Forbidden { .. }
                | Error::ReadOnly { .. }
                | Error::RepositoryUnknown { .. }
                | Error::Absent { .. }
                | Error::Status { .. }),
            ) => {
                tracing::debug!(error = %Chain(&error), "mount was refused, uploading instead");
                mounts.learn(mount, Seen::Refused);
                Ok(Begun::Refused)
            }
            Err(error) => Err(error),
        }
    }

    /// Goes on with the session of an earlier process, once. Returns whether there is one.
    async fn look_back(&mut self) -> Result<bool, Error> {
        if self.has_looked_back {
            return Ok(false);
        }
        let left = self.uploads.find(self.repository, &self.blob.digest);
        let session = left
            .filter(|left| left.size_bytes == self.blob.size_bytes)
            .and_then(|left| self.client.known_session(&left));
        let Some(mut session) = session else {
            self.has_looked_back = true;
            return Ok(false);
        };
        let known_bytes = session.offset_bytes;
        let asked = self
            .client
            .ask_session(self.repository, &mut session, self.blob.size_bytes)
            .await;
        if let Err(error) = asked {
            self.check_refusal(error, session).await?;
            self.has_looked_back = true;
            return Ok(false);
        }
        self.has_looked_back = true;
        self.resumed_bytes = session.offset_bytes;
        let tally = &self.client.exchange().wire().tally;
        tally
            .bytes_resumed
            .fetch_add(session.offset_bytes, Ordering::Relaxed);
        tracing::debug!(
            repository = %self.repository,
            digest = %self.blob.digest,
            offset_bytes = session.offset_bytes,
            "upload of an earlier process goes on"
        );
        let more_bytes = session.offset_bytes.saturating_sub(known_bytes);
        let cut = Cut {
            body_bytes: CHUNK_BYTES,
            handed_bytes: 0,
        };
        self.enter(session, true);
        self.wait_for_proof(cut, more_bytes);
        Ok(true)
    }

    /// Finds out where a session is after a failure.
    async fn settle_doubt(&mut self) -> Result<(), Error> {
        let Stage::InDoubt { inside, cut } = &self.stage else {
            return Ok(());
        };
        let (cut, unproven) = (*cut, inside.unproven);
        let before_bytes = inside.session.offset_bytes;
        let mut session = inside.session.clone();
        let chunks = &self.client.learned().chunks;
        let asked = self
            .client
            .ask_session(self.repository, &mut session, self.blob.size_bytes)
            .await;
        if let Err(error) = asked {
            self.check_refusal(error, session).await?;
            if let Some(cut) = cut.or(unproven.map(|kept| kept.cut)) {
                chunks.learn_cut(cut.body_bytes, cut.handed_bytes, AfterCut::Lost);
            }
            self.stage = Stage::Outside;
            return Ok(());
        }
        let more_bytes = session.offset_bytes.saturating_sub(before_bytes);
        self.enter(session, true);
        match (cut, unproven) {
            (Some(cut), _) if more_bytes == 0 => {
                chunks.learn_cut(cut.body_bytes, cut.handed_bytes, AfterCut::Kept(0));
                if self.cuts > 0 {
                    chunks.learn_cut_whole(cut.body_bytes);
                }
            }
            (Some(cut), _) => self.wait_for_proof(cut, more_bytes),
            (None, Some(kept)) => self.wait_for_proof(kept.cut, kept.more_bytes + more_bytes),
            (None, None) => {}
        }
        Ok(())
    }

    /// Remembers what a session says it has kept of a chunk, until another one has followed.
    fn wait_for_proof(&mut self, cut: Cut, more_bytes: u64) {
        if let Stage::Inside(inside) = &mut self.stage
            && more_bytes > 0
        {
            inside.unproven = Some(Kept { cut, more_bytes });
        }
    }

    /// Tells whether the question where a session is was refused in a way that says it is of no use any more. It is given up
    /// then. Otherwise returns the error.
    async fn check_refusal(&self, error: Error, session: Session) -> Result<(), Error> {
        let is_gone = matches!(
            error,
            Error::SessionLost { .. } | Error::Absent { .. } | Error::RepositoryUnknown { .. }
        );
        let cannot_say = matches!(
            error,
            Error::ReadOnly { .. } | Error::Status { .. } | Error::Answer { .. }
        );
        if !is_gone && !cannot_say {
            return Err(error);
        }
        tracing::debug!(error = %Chain(&error), "upload cannot be resumed, begins anew");
        if cannot_say {
            self.give_up(session).await;
        } else {
            self.uploads.remove(self.repository, &self.blob.digest);
        }
        Ok(())
    }

    /// Takes a session and writes it down.
    fn enter(&mut self, session: Session, is_joined: bool) {
        self.note(&session);
        self.stage = Stage::Inside(Inside {
            session,
            is_joined,
            unproven: None,
        });
    }

    fn note(&self, session: &Session) {
        let upload = session.unfinished(self.blob.size_bytes);
        self.uploads
            .put(self.repository, &self.blob.digest, &upload);
    }

    /// Sends what the registry does not have.
    async fn send(&mut self) -> Result<(), Error> {
        let chunks = &self.client.learned().chunks;
        let takes_parts_only = self.whole_failures >= WHOLE_FAILURES_MAX;
        // What was cut can go on where it goes by PATCH.
        let may_go_whole = self.cuts == 0 && !takes_parts_only;
        if may_go_whole && self.offset_bytes() == 0 && chunks.takes_whole(self.blob.size_bytes) {
            match self.send_whole().await {
                Err(error @ Error::TooLarge { .. }) => {
                    let bytes_min = self.chunk_bytes_min();
                    if !chunks.learn_refused(self.blob.size_bytes, bytes_min) {
                        return Err(error);
                    }
                    tracing::debug!(error = %Chain(&error), "blob goes in smaller parts");
                }
                sent => return sent,
            }
        }
        self.send_chunks().await?;
        self.finish().await?;
        chunks.learn_done();
        if takes_parts_only {
            chunks.learn_parts_only();
        }
        Ok(())
    }

    /// Sends the blob in one request.
    async fn send_whole(&mut self) -> Result<(), Error> {
        let Stage::Inside(inside) = &self.stage else {
            unreachable!("a session is entered before anything is sent");
        };
        let session = inside.session.clone();
        let putting = self
            .client
            .put_session(self.repository, &session, &self.blob);
        let Err(error) = putting.await else {
            return Ok(());
        };
        if matches!(error, Error::TooLarge { .. }) || was_not_taken(&error) {
            return Err(error);
        }
        self.whole_failures += u32::from(matches!(error, Error::Busy { status: 500, .. }));
        if matches!(error, Error::Cut { .. } | Error::Stalled { .. }) {
            self.cuts += 1;
        }
        // Registries differ in what they kept of it, and it is not much.
        self.stage = Stage::Outside;
        self.give_up(session).await;
        self.may_be_there = error.class() == Class::Transient;
        Err(error)
    }

    async fn send_chunks(&mut self) -> Result<(), Error> {
        let chunks = &self.client.learned().chunks;
        loop {
            let rest_bytes = self.blob.size_bytes - self.offset_bytes();
            if rest_bytes == 0 {
                return Ok(());
            }
            let bytes_min = self.chunk_bytes_min();
            let chunk = chunks.next(rest_bytes, bytes_min);
            let before_bytes = self.blob.handed.load(Ordering::Relaxed);
            let Stage::Inside(inside) = &mut self.stage else {
                unreachable!("a session is entered before anything is sent");
            };
            let patching =
                self.client
                    .patch_session(self.repository, &mut inside.session, &self.blob, chunk);
            match patching.await {
                Ok(()) => {
                    if let Some(Kept { cut, more_bytes }) = inside.unproven.take() {
                        let kept = AfterCut::Kept(more_bytes);
                        chunks.learn_cut(cut.body_bytes, cut.handed_bytes, kept);
                    }
                    let session = inside.session.clone();
                    self.note(&session);
                }
                Err(error @ Error::TooLarge { .. }) => {
                    if !chunks.learn_refused(chunk.bytes, bytes_min) {
                        return Err(error);
                    }
                    tracing::debug!(error = %Chain(&error), "blob goes in smaller parts");
                }
                Err(error) if was_not_taken(&error) => return Err(error),
                Err(error) => {
                    let is_cut = matches!(error, Error::Cut { .. } | Error::Stalled { .. });
                    let handed_bytes = self.blob.handed.load(Ordering::Relaxed) - before_bytes;
                    self.doubt(is_cut.then_some(Cut {
                        body_bytes: chunk.bytes,
                        handed_bytes,
                    }));
                    return Err(error);
                }
            }
        }
    }

    /// Tells the registry that it has everything.
    async fn finish(&mut self) -> Result<(), Error> {
        let Stage::Inside(inside) = &self.stage else {
            unreachable!("a session is entered before anything is sent");
        };
        let (session, is_joined) = (inside.session.clone(), inside.is_joined);
        let putting = self
            .client
            .put_session(self.repository, &session, &self.blob);
        match putting.await {
            Ok(()) => Ok(()),
            Err(Error::DigestRefused { action, message }) if is_joined => {
                tracing::warn!(
                    repository = %self.repository,
                    digest = %self.blob.digest,
                    "registry has joined the parts of a blob wrongly, it is sent once more"
                );
                self.stage = Stage::Outside;
                self.give_up(session).await;
                Err(Error::SessionLost { action, message })
            }
            Err(error) if was_not_taken(&error) => Err(error),
            Err(error) => {
                self.may_be_there = true;
                self.doubt(None);
                Err(error)
            }
        }
    }

    fn doubt(&mut self, cut: Option<Cut>) {
        if let Stage::Inside(inside) = std::mem::replace(&mut self.stage, Stage::Outside) {
            self.stage = Stage::InDoubt { inside, cut };
        }
    }

    fn chunk_bytes_min(&self) -> u64 {
        match &self.stage {
            Stage::Inside(inside) => inside.session.chunk_bytes_min,
            Stage::Outside | Stage::InDoubt { .. } => 0,
        }
    }

    /// Ends without having brought the blob there: the session stays where it is written down and something may come of it.
    async fn leave(&mut self, error: &Error) {
        let (Stage::Inside(inside) | Stage::InDoubt { inside, .. }) =
            std::mem::replace(&mut self.stage, Stage::Outside)
        else {
            return;
        };
        let is_kept = self
            .uploads
            .find(self.repository, &self.blob.digest)
            .is_some();
        if is_kept && error.class() == Class::Transient && inside.session.offset_bytes > 0 {
            return;
        }
        self.give_up(inside.session).await;
    }

    /// Gives up the session that is written down. Where the registry cannot be asked, it stays written down, to be given up
    /// later.
    async fn give_up(&self, session: Session) {
        if self.cancel(session).await {
            self.uploads.remove(self.repository, &self.blob.digest);
        }
    }

    /// Gives up a session. Best effort; returns whether the registry has said that it is gone.
    async fn cancel(&self, session: Session) -> bool {
        let canceled = self.client.cancel_session(self.repository, session).await;
        if let Err(error) = &canceled {
            tracing::debug!(error = %Chain(error), "upload session was not given up");
        }
        canceled.is_ok()
    }

    /// Gives up the session of an earlier process for a blob that is there.
    async fn forget_earlier(&self) {
        let left = self.uploads.find(self.repository, &self.blob.digest);
        if let Some(session) = left.and_then(|left| self.client.known_session(&left)) {
            self.give_up(session).await;
        }
    }
}

/// Returns whether the registry has refused a request before it took anything of it: it wants fewer requests.
const fn was_not_taken(error: &Error) -> bool {
    matches!(error.retry_after(), RetryAfter::Refused(_))
}
