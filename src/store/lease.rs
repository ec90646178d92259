//! Blobs in flight: what must not be removed although nothing in the catalog names it yet, or any more.
//!
//! Leases live in memory: with the process that holds one ends whatever it was for. A lease that is not renewed for
//! [`LEASE_MAX`] protects nothing, so that work which hangs does not keep blobs for ever. Whoever holds one and is slower
//! than that finds blobs gone, which is an error that passes, and never a package without its content: a commit looks at
//! every blob once more.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use super::Store;
use crate::base::{Clock as _, Digest, SystemClock};

/// How long a lease protects without being renewed. Batches renew at every blob, runs at every image; the longest step
/// in between is one layer of some GB over a slow line. Chosen, not measured.
const LEASE_MAX: Duration = Duration::from_hours(6);

/// All leases on one store.
#[derive(Debug, Default)]
pub(super) struct Leases {
    next: u64,
    held: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    blobs: HashSet<Digest>,
    begun_at: SystemTime,
    until: Instant,
}

/// Keeps blobs from being removed until it is dropped. Made by [`Store::lease`].
#[derive(Debug)]
pub struct Lease {
    store: Store,
    number: u64,
}

impl Leases {
    /// Returns whether a fresh lease holds the blob.
    pub(super) fn holds(&self, digest: &Digest) -> bool {
        let now = Instant::now();
        let mut held = self.held.values();
        held.any(|held| held.until > now && held.blobs.contains(digest))
    }

    /// Returns when the oldest lease began that was not dropped, fresh or not.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        self.held.values().map(|held| held.begun_at).min()
    }
}

impl Lease {
    pub(super) fn new(store: Store) -> Self {
        let mut leases = store.leases();
        let number = leases.next;
        leases.next += 1;
        let held = Held {
            blobs: HashSet::new(),
            begun_at: SystemClock.now().into(),
            until: Instant::now() + LEASE_MAX,
        };
        leases.held.insert(number, held);
        drop(leases);
        Self { store, number }
    }

    /// Adds a blob, whether or not it is there. What is there when this returns stays. Renews the lease.
    pub fn add(&self, digest: Digest) {
        self.change(|held| {
            held.blobs.insert(digest);
        });
    }

    /// Makes the lease fresh.
    pub fn renew(&self) {
        self.change(|_| {});
    }

    fn change(&self, change: impl FnOnce(&mut Held)) {
        let mut leases = self.store.leases();
        if let Some(held) = leases.held.get_mut(&self.number) {
            change(held);
            held.until = Instant::now() + LEASE_MAX;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.leases().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{new_store, store_all};
    use super::super::{Error, Removed};
    use super::*;

    fn remove(store: &Store, content: &[u8], is_wanted: bool) -> Removed {
        let removed: Result<_, Error> = store.remove(&Digest::of(content), || Ok(is_wanted));
        removed.unwrap()
    }

    #[test]
    fn a_leased_blob_is_not_removed_until_the_lease_ends() {
        let (_root, store) = new_store();
        store_all(&store, &[b"abc", b"def"]).unwrap();
        let lease = store.lease();
        lease.add(Digest::of(b"abc"));
        assert_eq!(remove(&store, b"abc", false), Removed::Leased);
        assert_eq!(remove(&store, b"def", true), Removed::Wanted);
        assert_eq!(
            remove(&store, b"def", false),
            Removed::Gone { size_bytes: 3 }
        );
        assert_eq!(remove(&store, b"def", false), Removed::Absent);
        drop(lease);
        assert_eq!(
            remove(&store, b"abc", false),
            Removed::Gone { size_bytes: 3 }
        );
        assert_eq!(store.list().count(), 0);
    }

    #[test]
    fn a_batch_holds_what_it_found_and_what_it_adds_until_its_lease_is_dropped() {
        let (_root, store) = new_store();
        store_all(&store, &[b"known", b"base"]).unwrap();
        let mut batch = store.begin();
        for content in [b"known".as_slice(), b"new"] {
            super::super::tests::stage(&mut batch, content).unwrap();
        }
        assert_eq!(batch.hold(&Digest::of(b"base")).unwrap(), Some(4));
        let all: [&[u8]; 3] = [b"known", b"base", b"new"];
        let held = |content: &&[u8]| remove(&store, content, false) == Removed::Leased;
        assert!(all.iter().all(held));
        let (_, lease) = batch.commit().unwrap();
        assert!(all.iter().all(held));
        drop(lease);
        assert!(!all.iter().any(held));
    }

    #[test]
    fn a_lease_that_nobody_renews_protects_nothing() {
        let (_root, store) = new_store();
        store_all(&store, &[b"abc"]).unwrap();
        let lease = store.lease();
        lease.add(Digest::of(b"abc"));
        store.leases().held.get_mut(&lease.number).unwrap().until = Instant::now();
        assert_eq!(remove(&store, b"abc", true), Removed::Wanted);
        lease.renew();
        assert_eq!(remove(&store, b"abc", false), Removed::Leased);
        store.leases().held.get_mut(&lease.number).unwrap().until = Instant::now();
        assert_eq!(
            remove(&store, b"abc", false),
            Removed::Gone { size_bytes: 3 }
        );
    }
}
