//! When a file is tried again that could not be taken for a reason which may pass.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::error::{LOW_SPACE, MAKE_SPACE};
use super::space::{GROWTH_BYTES, LOOK};
use super::{Error, Ingest, Note, Wait};
use crate::base::{ByteCount, Chain, Class, Classified as _};
use crate::sys::backoff::{self, Backoff};
use crate::sys::disk::State;

/// The longest wait before a file is tried again that failed for a reason which may pass. Chosen, not measured.
const RETRY_MAX: Duration = Duration::from_mins(10);
/// The longest such wait where the disk was full: not all that is freed can be seen as bytes. Chosen, not measured.
const RETRY_FULL_MAX: Duration = Duration::from_mins(1);
/// The first such wait. Chosen, not measured.
const RETRY_FIRST: Duration = Duration::from_secs(5);

/// A file that failed.
#[derive(Debug)]
pub(super) struct Retry {
    backoff: Backoff,
    due: Instant,
    /// With this much free space it is tried at once; `None` where it failed for another reason.
    enough_bytes: Option<u64>,
    /// Where what it needs was counted: how many packages were ready then. As long as none has come since, it needs as much,
    /// and the time that has passed says nothing.
    counted_at: Option<u64>,
}

impl Retry {
    fn new() -> Self {
        Self {
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX),
            due: Instant::now(),
            enough_bytes: None,
            counted_at: None,
        }
    }
}

impl Ingest {
    /// Returns what a file waits for that could be begun now: space, or the time of its next attempt.
    pub(super) fn wait_for_retry(&mut self, path: &Path) -> Result<Option<Wait>, Error> {
        let reading = self.importer.disk.look()?;
        let available_bytes = reading.space.available_bytes;
        if reading.state != State::Ok {
            let enough = self.importer.disk.marks().enough_bytes(reading.state);
            let (enough, available) = (ByteCount(enough), ByteCount(available_bytes));
            return Ok(Some(Wait {
                again_in: LOOK,
                note: Note {
                    code: Some(LOW_SPACE),
                    text: format!(
                        "expected {enough} of free space before a package is begun, found {available}"
                    ),
                    hint: Some(MAKE_SPACE.to_owned()),
                },
            }));
        }
        let ready = self.counters.packages_ready.load(Ordering::Relaxed);
        let Some(retry) = self.retries.get_mut(path) else {
            return Ok(None);
        };
        if retry
            .enough_bytes
            .is_some_and(|enough| available_bytes >= enough)
        {
            retry.backoff.reset();
            return Ok(None);
        }
        let left = retry.due.saturating_duration_since(Instant::now());
        let is_known_to_be_in_vain = retry
            .counted_at
            .is_some_and(|counted_at| ready == counted_at);
        if left.is_zero() && !is_known_to_be_in_vain {
            return Ok(None);
        }
        let again_in = match retry.enough_bytes {
            Some(_) => LOOK,
            None => left,
        };
        let note = self.notes.borrow().get(path).cloned();
        Ok(note.map(|note| Wait { again_in, note }))
    }

    /// Notes a failure that may pass and returns when the file is looked at again.
    pub(super) fn fail(&mut self, path: &Path, error: &Error) -> Duration {
        let ready = self.counters.packages_ready.load(Ordering::Relaxed);
        let (enough_bytes, counted_at) = if let Error::LowSpace { needed_bytes, .. } = error {
            (Some(*needed_bytes), Some(ready))
        } else if error.class() == Class::Full {
            // By all that was known there was enough: a bound that is not visible, or somebody else writes, too.
            let reading = self.importer.disk.look().ok();
            let available = reading.map(|reading| reading.space.available_bytes);
            (available.map(|it| it.saturating_add(GROWTH_BYTES)), None)
        } else {
            (None, None)
        };
        let retry = self
            .retries
            .entry(path.to_owned())
            .or_insert_with(Retry::new);
        let mut retry_in = retry.backoff.fail(backoff::random());
        if error.class() == Class::Full {
            retry_in = retry_in.min(RETRY_FULL_MAX);
        }
        retry.due = Instant::now() + retry_in;
        retry.enough_bytes = enough_bytes;
        retry.counted_at = counted_at;
        let reason = Chain(error).to_string();
        tracing::warn!(path = %path.display(), code = error.code(), %reason, ?retry_in, "package is not ingested yet");
        self.note(
            path,
            Note {
                code: Some(error.code()),
                text: reason,
                hint: error.hint(),
            },
        );
        match enough_bytes {
            Some(_) => retry_in.min(LOOK),
            None => retry_in,
        }
    }
}
