//! Collection: removes the blobs that no package keeps and no file waits with.
//!
//! ```text
//! mark: all that is wanted ─► every blob: wanted ─────────────► pardoned, if it was condemned
//!                                         unwanted, new ──────► condemned: written down with the time
//!                                         unwanted for grace ─► looked at once more ─► removed
//! ```
//!
//! # Invariants
//!
//! - What a ready package keeps is never removed, whenever it became ready: packages that came after the mark are looked at
//!   again before each removal, under the lock of the store in which nobody can lease the blob.
//! - What is leased is never removed.
//! - Nothing is removed where it is not known of every package what it keeps.
//!
//! # Concurrency
//!
//! Beside everything else that the daemon does. A file that begins to wait in the moment in which a blob is removed that it
//! builds on says that the blob is missing, as it would have a moment later.
//!
//! # Durability
//!
//! The grace period is data: since when a blob is unwanted is in the catalog. Removals are made durable shard by shard, and only
//! then forgotten there. Power loss before that brings blobs back, whole, to be removed by the next run.
//!
//! # Failure
//!
//! On a full disk nothing can be written down, and what is due is removed all the same, because that makes space: what is not
//! written down is seen again by the next run. An error comes of it only where nothing could be removed.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::blobs::{Blobs, Gathered};
use super::gather::kept_blobs;
use super::job::Work;
use super::plan::Amount;
use super::{Counters, Error};
use crate::base::{ByteCount, Chain, Class, Classified as _, Clock, Digest, Timestamp};
use crate::catalog::{self, Catalog, CondemnedRecord, JobRecord};
use crate::store::{Removed, Store};

/// The shortest grace period. Leases protect what is in flight; this is for what nobody has thought of.
pub const GRACE_MIN: Duration = Duration::from_secs(1);

/// What collects. A cheap clone.
#[derive(Clone, Debug)]
pub struct Collector {
    /// Where the blobs are.
    pub store: Store,
    /// What says which ones are wanted.
    pub catalog: Catalog,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// How long a blob must have been unwanted. At least [`GRACE_MIN`].
    pub grace: Duration,
    /// What was done since the start.
    pub counters: Arc<Counters>,
}

/// Whether blobs are removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    #[default]
    Remove,
    /// Nothing is changed.
    DryRun,
}

/// What somebody may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Whether blobs are removed.
    pub mode: Mode,
    /// A grace period in place of the configured one. At least [`GRACE_MIN`].
    pub grace: Option<Duration>,
}

/// What was done; of a dry run, what would have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Whether nothing was changed.
    pub is_dry_run: bool,
    /// Blobs that were removed.
    pub removed: Amount,
    /// Blobs that are unwanted since this run.
    pub condemned: Amount,
    /// Blobs that were found unwanted before, and whose grace period is not over.
    pub waiting: Amount,
    /// Blobs that were unwanted and are wanted again.
    pub pardoned: Amount,
    /// Blobs whose grace period is over, and that somebody is about to want.
    pub leased: Amount,
    /// Blobs that are wanted, pardoned ones included.
    pub kept: Amount,
    /// Staged files that belonged to nobody and were removed.
    pub staged_files_removed: u64,
}

impl fmt::Display for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.is_dry_run {
            "would be removed"
        } else {
            "removed"
        };
        let mut parts = Vec::new();
        for (amount, words) in [
            (self.removed, verb),
            (self.condemned, "condemned"),
            (self.waiting, "waiting"),
            (self.pardoned, "pardoned"),
            (self.leased, "leased"),
            (self.kept, "kept"),
        ] {
            let (blobs, bytes) = (amount.blobs, ByteCount(amount.bytes));
            parts.push(format!("{blobs} blobs ({bytes}) {words}"));
        }
        f.write_str(&parts.join(", "))
    }
}

impl Amount {
    const fn add(&mut self, size_bytes: u64) {
        self.blobs += 1;
        self.bytes += size_bytes;
    }
}

/// What is to be written down of the blobs of one shard.
#[derive(Debug, Default)]
struct Shard {
    /// A blob that was removed from it.
    removed: Option<Digest>,
    put: Vec<(Digest, CondemnedRecord)>,
    forget: Vec<Digest>,
}

/// One run.
#[derive(Debug)]
struct Run<'c> {
    collector: &'c Collector,
    mode: Mode,
    now: Timestamp,
    grace: TimeDelta,
    wanted: Blobs,
    late: Late<'c>,
    report: Collected,
    /// Why something could not be written down: the disk is full.
    unwritten: Option<catalog::Error>,
}

/// What packages keep that became ready after the mark.
#[derive(Debug)]
struct Late<'c> {
    catalog: &'c Catalog,
    mark: usize,
    known: RefCell<(usize, Blobs)>,
}

impl Late<'_> {
    /// Returns whether a blob is wanted by a package that was not there at the mark.
    fn is_wanted(&self, digest: &Digest) -> Result<bool, Error> {
        let count = self.catalog.added_count();
        let mut known = self.known.borrow_mut();
        if known.0 != count {
            let mut wanted = Gathered::default();
            for package in self.catalog.list_added(self.mark) {
                // One that was removed again wants nothing.
                if let Some(content) = self.catalog.find_content(&package)? {
                    wanted.insert_content(&content);
                }
            }
            *known = (count, wanted.finish());
        }
        Ok(known.1.contains(digest))
    }
}

impl Collector {
    /// Looks at every blob and removes what is due. Blocking.
    pub fn collect(&self, request: Request, stop: &CancellationToken) -> Result<Collected, Error> {
        let grace = request.grace.unwrap_or(self.grace).max(GRACE_MIN);
        // Before the first look at what is wanted: what comes after this is looked at again.
        let mark = self.catalog.added_count();
        self.catalog.check_contents_known()?;
        let mut run = Run {
            collector: self,
            mode: request.mode,
            now: self.clock.now(),
            grace: TimeDelta::from_std(grace).unwrap_or(TimeDelta::MAX),
            wanted: kept_blobs(&self.catalog, |_| true)?,
            late: Late {
                catalog: &self.catalog,
                mark,
                known: RefCell::new((mark, Blobs::default())),
            },
            report: Collected {
                is_dry_run: request.mode == Mode::DryRun,
                ..Collected::default()
            },
            unwritten: None,
        };
        run.sweep(stop)?;
        if run.mode == Mode::Remove {
            run.report.staged_files_removed = self.store.sweep_staged(run.now)?;
        }
        Ok(run.report)
    }
}

impl Run<'_> {
    /// Looks at every blob, shard by shard.
    fn sweep(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let store = &self.collector.store;
        let condemned = self.collector.catalog.list_condemned()?;
        let mut condemned = condemned.into_iter().peekable();
        let mut shard = Shard::default();
        let mut number = 0;
        for blob in store.list() {
            if stop.is_cancelled() {
                return Err(Error::Stopped);
            }
            let (digest, size_bytes) = blob?;
            if digest.as_bytes()[0] != number {
                number = digest.as_bytes()[0];
                self.finish(&std::mem::take(&mut shard))?;
            }
            // Both lists are ordered by digest: what is passed over is not in the store any more.
            while let Some((gone, _)) = condemned.next_if(|(other, _)| *other < digest) {
                shard.forget.push(gone);
            }
            let since = condemned.next_if(|(other, _)| *other == digest);
            let since = since.map(|(_, record)| record.since);
            self.look(&mut shard, (digest, size_bytes), since)?;
        }
        shard.forget.extend(condemned.map(|(gone, _)| gone));
        self.finish(&shard)?;
        match self.unwritten.take() {
            Some(error) if self.report.removed.blobs == 0 => Err(error.into()),
            Some(error) => {
                tracing::warn!(reason = %Chain(&error), "not all is written down of what was collected");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Decides about one blob, which is unwanted since then as far as that was seen.
    fn look(
        &mut self,
        shard: &mut Shard,
        (digest, size_bytes): (Digest, u64),
        since: Option<Timestamp>,
    ) -> Result<(), Error> {
        match since {
            _ if self.wanted.contains(&digest) => {
                self.report.kept.add(size_bytes);
                if since.is_some() {
                    self.report.pardoned.add(size_bytes);
                    shard.forget.push(digest);
                }
            }
            None => self.condemn(shard, digest, size_bytes),
            // The clock was set back: the grace period would last until it is as late again.
            Some(since) if since > self.now => self.condemn(shard, digest, size_bytes),
            Some(since) if self.now - since < self.grace => {
                self.report.waiting.add(size_bytes);
            }
            Some(_) if self.mode == Mode::DryRun => self.report.removed.add(size_bytes),
            Some(_) => self.remove(shard, digest, size_bytes)?,
        }
        Ok(())
    }

    fn condemn(&mut self, shard: &mut Shard, digest: Digest, size_bytes: u64) {
        self.report.condemned.add(size_bytes);
        let since = self.now;
        shard.put.push((digest, CondemnedRecord { since }));
    }

    fn remove(&mut self, shard: &mut Shard, digest: Digest, size_bytes: u64) -> Result<(), Error> {
        let store = &self.collector.store;
        match store.remove(&digest, || self.late.is_wanted(&digest))? {
            Removed::Gone { size_bytes } => {
                self.report.removed.add(size_bytes);
                let counters = &self.collector.counters;
                counters.blobs_removed.fetch_add(1, Ordering::Relaxed);
                counters
                    .bytes_removed
                    .fetch_add(size_bytes, Ordering::Relaxed);
                shard.removed = Some(digest);
                shard.forget.push(digest);
            }
            Removed::Absent => shard.forget.push(digest),
            Removed::Leased => self.report.leased.add(size_bytes),
            Removed::Wanted => {
                self.report.kept.add(size_bytes);
                self.report.pardoned.add(size_bytes);
                shard.forget.push(digest);
            }
        }
        Ok(())
    }

    /// Makes what was done in a shard durable, then writes it down.
    fn finish(&mut self, shard: &Shard) -> Result<(), Error> {
        if self.mode == Mode::DryRun {
            return Ok(());
        }
        if let Some(digest) = &shard.removed {
            self.collector.store.sync_shard_of(digest)?;
        }
        if !shard.put.is_empty() || !shard.forget.is_empty() {
            let catalog = &self.collector.catalog;
            match catalog.change_condemned(&shard.put, &shard.forget) {
                Err(error) if error.class() == Class::Full => self.unwritten = Some(error),
                result => result?,
            }
        }
        Ok(())
    }
}

impl Work for Collector {
    const NAME: &'static str = "collection";
    type Request = Request;
    type Report = Collected;
    type Error = Error;

    async fn run(
        &mut self,
        request: Request,
        record: &mut JobRecord,
        stop: &CancellationToken,
    ) -> Result<Collected, Error> {
        let (work, stop) = (self.clone(), stop.clone());
        let report = tokio::task::spawn_blocking(move || work.collect(request, &stop)).await??;
        if request.mode == Mode::Remove {
            tracing::info!(
                blobs_removed = report.removed.blobs,
                bytes_removed = report.removed.bytes,
                blobs_condemned = report.condemned.blobs,
                blobs_kept = report.kept.blobs,
                "blobs are collected"
            );
            self.counters.note(&report);
            record.state = serde_json::json!(report);
        }
        Ok(report)
    }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
