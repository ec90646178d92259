//! Whether a registry mounts, learned from its answers.
//!
//! A mount that is not granted is answered with a session, so that asking is free, unless the registry refuses the question:
//! then it costs a request. What learning saves is those requests, and tokens for two repositories. What it protects from is
//! taking "here is a session" for "I do not have it": a registry that never mounts says that of every blob.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::Repository;

/// How many mounts in a row may fail before the registry is not asked again. One or two can be knowledge that was out of date.
/// Chosen, not measured.
const MISSES_MAX: u32 = 3;

/// Whether a blob can be had without sending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mount<'a> {
    /// From another repository of the registry, which has it.
    From(&'a Repository),
    /// If this very repository has it: the mount from itself is question and begin in one request.
    Itself,
    /// No: it is not there.
    No,
}

/// What was seen of mounts since the client was made.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// Mounts from other repositories in a row that were not granted.
    misses: AtomicU32,
    /// Mounts from the repository itself in a row that were refused. That one is not granted says nothing: the blob may not
    /// be there.
    refusals: AtomicU32,
}

/// An answer to a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// 201.
    Granted,
    /// 202: here is a session.
    Session,
    /// Anything else.
    Refused,
}

impl Mounts {
    /// Returns whether asking for this mount may bring something.
    pub(super) fn asks(&self, mount: Mount<'_>) -> bool {
        let mounts = self.misses.load(Ordering::Relaxed) < MISSES_MAX;
        match mount {
            Mount::From(_) => mounts,
            // Who does not mount what is there for sure does not say whether it is there.
            Mount::Itself => mounts && self.refusals.load(Ordering::Relaxed) < MISSES_MAX,
            Mount::No => false,
        }
    }

    /// Learns from an answer.
    pub(super) fn learn(&self, mount: Mount<'_>, seen: Seen) {
        match (mount, seen) {
            (Mount::No, _) => {}
            (Mount::From(_), Seen::Granted) => self.misses.store(0, Ordering::Relaxed),
            (Mount::Itself, Seen::Granted) => {
                self.misses.store(0, Ordering::Relaxed);
                self.refusals.store(0, Ordering::Relaxed);
            }
            (Mount::From(_), Seen::Session | Seen::Refused) => add(&self.misses),
            (Mount::Itself, Seen::Session) => self.refusals.store(0, Ordering::Relaxed),
            (Mount::Itself, Seen::Refused) => add(&self.refusals),
        }
    }
}

fn add(count: &AtomicU32) {
    // Saturates far below its end: nobody is asked any more by then.
    count.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_never_mounts_is_not_asked_for_ever() {
        let from = "b".parse().unwrap();
        let from = Mount::From(&from);
        let mounts = Mounts::default();
        for _ in 0..2 {
            mounts.learn(from, Seen::Session);
        }
        assert!(mounts.asks(from));
        mounts.learn(from, Seen::Granted);
        for seen in [Seen::Session, Seen::Refused, Seen::Session] {
            assert!(mounts.asks(from) && mounts.asks(Mount::Itself));
            mounts.learn(from, seen);
        }
        assert!(!mounts.asks(from) && !mounts.asks(Mount::Itself));
        // One that was under way.
        mounts.learn(from, Seen::Granted);
        assert!(mounts.asks(from) && mounts.asks(Mount::Itself));
    }

    #[test]
    fn a_blob_that_is_not_there_says_nothing_about_the_registry() {
        let from = "b".parse().unwrap();
        let mounts = Mounts::default();
        for _ in 0..100 {
            mounts.learn(Mount::Itself, Seen::Session);
            mounts.learn(Mount::No, Seen::Session);
        }
        assert!(mounts.asks(Mount::Itself) && mounts.asks(Mount::From(&from)));
        for _ in 0..3 {
            mounts.learn(Mount::Itself, Seen::Refused);
        }
        assert!(!mounts.asks(Mount::Itself));
        assert!(mounts.asks(Mount::From(&from)));
        assert!(!mounts.asks(Mount::No));
    }
}
