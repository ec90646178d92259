//! How far a push is, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::registry::Client;
use crate::replicate::Journal;

/// How far a push is with what it brings at the moment: all layouts, or one package file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Images that are to be put in place.
    pub images: u64,
    /// Those of them about which nothing more is to be done.
    pub images_done: u64,
    /// Bytes of blobs that were not known to be there.
    pub bytes: u64,
    /// Those of them that are there now, or on their way.
    pub bytes_done: u64,
    /// Bytes that were sent since the push began.
    pub bytes_sent: u64,
}

/// Looks at a push. A cheap clone.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// None as long as there is nothing to look at.
    parts: OnceLock<(Journal, Client)>,
    /// What had been sent when the run began.
    sent_before: AtomicU64,
}

impl Watch {
    /// Follows a task that pushes through this client.
    pub(super) fn follow(&self, journal: Journal, registry: Client) {
        // A watch follows one push.
        let _ = self.0.parts.set((journal, registry));
    }

    /// Notes that a run begins.
    pub(super) fn begin(&self) {
        if let Some((_, registry)) = self.0.parts.get() {
            let sent = registry.counters().bytes_sent;
            self.0.sent_before.store(sent, Ordering::Relaxed);
        }
    }

    /// Returns how far it is.
    pub fn sight(&self) -> Sight {
        let Some((journal, registry)) = self.0.parts.get() else {
            return Sight::default();
        };
        let run = journal.sight();
        let bytes_sent = registry.counters().bytes_sent;
        let sent_now = bytes_sent.saturating_sub(self.0.sent_before.load(Ordering::Relaxed));
        Sight {
            images: run.images,
            images_done: run.images_done,
            bytes: run.bytes,
            bytes_done: run.bytes_done.max(sent_now.min(run.bytes)),
            bytes_sent,
        }
    }
}
