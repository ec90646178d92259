//! Blobs that somebody found damaged or missing while using them, for whoever repairs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::{Error, Store};
use crate::base::Digest;

/// How many are remembered. Whoever finds a damaged blob finds it again. Chosen, not measured.
const SUSPECTS_MAX: usize = 1000;

/// What was reported and not looked at yet.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    blobs: Mutex<BTreeSet<Digest>>,
    added: Arc<Notify>,
}

impl Suspects {
    fn blobs(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.blobs.lock().expect("no holder of this lock panics")
    }
}

impl Store {
    /// Reports a blob that is wanted and seems to be damaged or missing.
    pub fn suspect(&self, digest: Digest) {
        let mut blobs = self.0.suspects.blobs();
        if blobs.len() < SUSPECTS_MAX && blobs.insert(digest) {
            drop(blobs);
            self.0.suspects.added.notify_one();
        }
    }

    /// Reports a wanted blob if `error`, which came of using it, says that it is damaged or missing.
    pub fn suspect_after(&self, digest: Digest, error: &Error) {
        if matches!(error, Error::Corrupt { .. } | Error::NotFound { .. }) {
            self.suspect(digest);
        }
    }

    /// Returns whether there are reports that nobody has looked at.
    pub fn has_suspects(&self) -> bool {
        !self.0.suspects.blobs().is_empty()
    }

    /// Takes the reports, ordered by digest.
    pub fn take_suspects(&self) -> BTreeSet<Digest> {
        std::mem::take(&mut *self.0.suspects.blobs())
    }

    /// Returns what is notified of reports.
    pub fn suspected(&self) -> Arc<Notify> {
        Arc::clone(&self.0.suspects.added)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::new_store;
    use super::*;

    #[test]
    fn reports_are_taken_once_and_bounded() {
        let (_root, store) = new_store();
        assert!(!store.has_suspects());
        let absent = Digest::of(b"absent");
        let error = store.read(&absent, 10).unwrap_err();
        store.suspect_after(absent, &error);
        store.suspect_after(Digest::of(b"other"), &Error::ReadOnly);
        assert_eq!(store.take_suspects(), [absent].into());
        for number in 0..SUSPECTS_MAX as u64 + 7 {
            store.suspect(Digest::of(&number.to_be_bytes()));
        }
        assert_eq!(store.take_suspects().len(), SUSPECTS_MAX);
        assert!(!store.has_suspects());
    }
}
