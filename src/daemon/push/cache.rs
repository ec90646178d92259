//! The store and the catalog of a user, in which packages are for as long as they are pushed.
//!
//! # Layout
//!
//! A state directory like that of the daemon, without what it has for drop folders. It is a cache: who deletes it loses time
//! and no data.
//!
//! # Concurrency
//!
//! One process uses it at a time. A second one says whom it waits for, and waits.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use chrono::TimeDelta;

use super::Error;
use crate::base::{Digest, Timestamp};
use crate::catalog::Catalog;
use crate::store::{self, Store};
use crate::sys::fs as durable;
use crate::sys::lock::{self, Lock};

/// How long a package stays that was kept, or that could not be pushed whole: long enough for the other global cluster, or for
/// another attempt after a weekend. Chosen, not measured.
pub const KEPT_MAX: Duration = Duration::from_hours(7 * 24);

/// The cache of a user, for this process alone.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) store: Store,
    pub(super) catalog: Catalog,
    _lock: Lock,
}

/// What the cache consists of.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    store: Store,
    catalog: Catalog,
}

impl Cache {
    /// Opens the cache in the directory `dir`, makes it if need be, and removes what has been there for too long. Blocking; waits
    /// for another process that uses it.
    pub(super) fn open(dir: &Path, now: Timestamp) -> Result<Self, Error> {
        durable::ensure_dir_all(dir)?;
        let lock = acquire(&dir.join("LOCK"))?;
        let store = Store::open(dir)?;
        let catalog = Catalog::open(dir)?;
        let cache = Self {
            store,
            catalog,
            _lock: lock,
        };
        cache.parts().expire(now)?;
        Ok(cache)
    }

    pub(super) fn parts(&self) -> Parts {
        Parts {
            store: self.store.clone(),
            catalog: self.catalog.clone(),
        }
    }
}

fn acquire(path: &Path) -> Result<Lock, Error> {
    match Lock::acquire(path) {
        Err(lock::Error::Held { path, owner }) => {
            tracing::warn!(lock = %path.display(), %owner, "waits for another push; use another --store to push at once");
            Ok(Lock::wait(&path)?)
        }
        result => Ok(result?),
    }
}

impl Parts {
    /// Removes the packages that have been here for too long.
    fn expire(&self, now: Timestamp) -> Result<(), Error> {
        let kept_max = TimeDelta::from_std(KEPT_MAX).unwrap_or(TimeDelta::MAX);
        let summaries = self.catalog.summaries();
        let old = summaries
            .iter()
            .filter(|package| now - package.ready_at > kept_max);
        let old: Vec<Digest> = old.map(|package| package.digest).collect();
        if old.is_empty() {
            return Ok(());
        }
        tracing::info!(packages = old.len(), "removed old packages from the cache");
        self.remove(&old)
    }

    /// Removes packages, and every blob that no other package keeps: of these, and what a killed process has left. Nothing may
    /// come in meanwhile.
    pub(super) fn remove(&self, packages: &[Digest]) -> Result<(), Error> {
        for package in packages {
            self.catalog.remove_package(package)?;
        }
        let mut wanted = HashSet::new();
        self.catalog.for_each_content(|_, content| {
            wanted.extend(content.entries().iter().map(|(digest, _)| *digest));
            Ok::<(), Error>(())
        })?;
        for blob in self.store.list() {
            let (digest, _) = blob?;
            let is_wanted = || Ok::<_, store::Error>(wanted.contains(&digest));
            self.store.remove(&digest, is_wanted)?;
        }
        Ok(())
    }
}
