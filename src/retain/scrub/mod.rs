//! Reads every blob again, puts aside what is damaged, and has it brought back.
//!
//! [`Scrub`] is the work of a [`Job`](super::job::Job). Start from [`Scrub::new`]; [`Control`] asks for runs and says what
//! they found.
//!
//! ```text
//! for each sixteenth of all digests:    what packages keep there (from the catalog)
//!   for each shard in it:               the names there, merged with what is kept, in digest order
//!     each blob ─► read, hash ─┬─ whole
//!                              └─ damaged or missing ─► written down ─► quarantine ─► repair ─► report
//! ```
//!
//! A blob is damaged if its content is not what its name says (a second reading must agree, so that a fault of memory puts
//! nothing aside), if it cannot be read, or if it is missing although a package keeps it.
//!
//! Besides passes over everything there are short runs that look once more at what was damaged and is not repaired:
//! when the daemon starts, every [`REPAIR_AGAIN`], and on request. They look, too, at what others have found damaged or missing
//! when they wanted to use it ([`Store::suspect`]); a pass does both between two
//! blobs.
//!
//! # Memory
//!
//! One shard's names and a sixteenth of what packages keep: with a million blobs, 4 000 names and 63 000 entries. The
//! price is that the catalog is read sixteen times in a pass, below a second each for a million entries.
//!
//! # Durability
//!
//! How far a pass has come is written down every [`SAVE_EVERY`] or [`SAVE_BYTES`]; after a stop or a kill it goes on there,
//! under the same number, with the counts of before. Damage is written down before the blob is put aside. A blob that was
//! read and not yet written down is read twice.
//!
//! # Failure
//!
//! An error that says nothing of a blob, such as too many open files, ends the run; the next one goes on where it was. That a
//! blob may not be read is such an error: a store that was restored for another user is whole, and would be put aside blob by
//! blob. Where it is not known what a package keeps, it is left out: the rest is looked at, and brought back.

mod budget;
mod control;
mod read;
mod settle;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::budget::Budget;
use self::read::{Found, read_blob};
use super::job::Work;
use super::repair::Repairer;
use crate::base::{Class, Classified, Clock, Digest};
use crate::catalog::{self, Catalog, JobRecord};
use crate::store::{self, Store};

pub use self::control::{Accepted, Control, Overview};
pub use self::state::{Concerned, Counts, Damage, Kind, Pass, Repaired, State};

/// How often a pass writes down how far it has come. Chosen, not measured.
pub const SAVE_EVERY: Duration = Duration::from_secs(10);
/// After how many bytes it does so, too. Chosen, not measured.
pub const SAVE_BYTES: u64 = 1 << 30;
/// How often it is tried to repair what is damaged. Chosen, not measured: registries are back in minutes, and asking
/// for one blob costs nothing.
pub const REPAIR_AGAIN: Duration = Duration::from_mins(10);

/// The digests are divided by their first four bits: into so many parts of so many shards.
const PARTS: u8 = 16;
const SHARDS_OF_PART: u8 = 16;

/// How to scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many bytes are read from the disk per second, on the average.
    pub bytes_per_second: u64,
    /// Whether damaged blobs are brought back.
    pub repair: Repairs,
}

/// Whether damaged blobs are brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repairs {
    /// From targets and kept files.
    On,
    /// Not by us.
    Off,
}

/// What a run is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Request {
    /// Look at everything: go on with the pass that was interrupted, else begin one.
    #[default]
    Pass,
    /// Go on with the pass that was interrupted, if one was, and look again at what is damaged.
    Resume,
    /// Look again at what is damaged.
    Repair,
}

/// What a run has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The pass that the run has worked on, if it did.
    pub pass: Option<Pass>,
    /// Blobs that are damaged and not repaired.
    pub open: u64,
}

/// What can go wrong in this module.
#[derive(Debug, Error)]
pub enum Error {
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The catalog cannot be read or written.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// A blob cannot be read for a reason that is not its own.
    #[error("failed to read blob {digest}")]
    Read {
        /// The blob.
        digest: Digest,
        /// What the operating system says.
        source: io::Error,
    },
    /// Work on another thread has panicked.
    #[error("a scrub panicked: {message}")]
    Panicked {
        /// What the runtime says.
        message: String,
    },
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Store(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::Read { source, .. } => crate::sys::fs::class_of(source),
            Self::Panicked { .. } => Class::Bug,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::Read { .. } if self.class() == Class::Denied => {
                Some("let the user of the daemon read all files in `blobs/`".to_owned())
            }
            Self::Read { .. } | Self::Panicked { .. } => None,
        }
    }
}

/// The work.
#[derive(Debug)]
pub struct Scrub {
    options: Options,
    store: Store,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    repairer: Repairer,
    budget: Budget,
    overview: watch::Sender<Overview>,
}

/// What [`Scrub`] works on.
#[derive(Debug)]
pub struct Parts {
    /// The index.
    pub catalog: Catalog,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Who brings damaged blobs back; its store is the one that is read.
    pub repairer: Repairer,
}

/// A run in progress.
struct Run<'a> {
    scrub: &'a mut Scrub,
    record: &'a mut JobRecord,
    stop: &'a CancellationToken,
    state: State,
    /// Damaged blobs that nobody has tried to repair in this run.
    pending: Vec<Digest>,
    saved_at: Instant,
    unsaved_bytes: u64,
    /// When it was looked last at what was damaged before.
    looked_again_at: Instant,
}

impl Scrub {
    /// Returns the work, and what tells how it goes.
    pub fn new(
        options: Options,
        parts: Parts,
    ) -> Result<(Self, watch::Receiver<Overview>), catalog::Error> {
        let record = parts.catalog.find_job(Self::NAME)?;
        let state = record.as_ref().map(State::read).unwrap_or_default();
        let (overview, receiver) = watch::channel(Overview {
            running: None,
            state,
        });
        let scrub = Self {
            options,
            store: parts.repairer.store.clone(),
            catalog: parts.catalog,
            clock: parts.clock,
            repairer: parts.repairer,
            budget: Budget::new(options.bytes_per_second),
            overview,
        };
        Ok((scrub, receiver))
    }
}

impl Work for Scrub {
    const NAME: &'static str = "scrub";
    type Request = Request;
    type Report = Report;
    type Error = Error;

    async fn run(
        &mut self,
        request: Request,
        record: &mut JobRecord,
        stop: &CancellationToken,
    ) -> Result<Report, Error> {
        let state = State::read(record);
        let mut run = Run {
            scrub: self,
            record,
            stop,
            state,
            pending: Vec::new(),
            saved_at: Instant::now(),
            unsaved_bytes: 0,
            looked_again_at: Instant::now(),
        };
        run.scrub
            .overview
            .send_modify(|overview| overview.running = Some(request));
        let result = run.serve(request).await;
        let saved = run.save();
        run.scrub
            .overview
            .send_modify(|overview| overview.running = None);
        saved?;
        result
    }
}

impl Run<'_> {
    async fn serve(&mut self, request: Request) -> Result<Report, Error> {
        self.look_at_suspects().await?;
        self.look_again().await?;
        let is_pass = match request {
            Request::Pass => true,
            Request::Resume => self.state.current.is_some(),
            Request::Repair => false,
        };
        if !is_pass || self.stop.is_cancelled() {
            return Ok(self.report(None));
        }
        if self.state.current.is_none() {
            self.state.begin(self.scrub.clock.now());
        }
        self.save()?;
        if let Some(pass) = &self.state.current {
            let from = pass.position.map(|position| position.to_string());
            tracing::info!(pass = pass.number, from, "scrub pass runs");
        }
        self.walk().await?;
        if self.stop.is_cancelled() {
            return Ok(self.report(self.state.current.clone()));
        }
        self.state.end(self.scrub.clock.now());
        Ok(self.report(self.state.last.clone()))
    }

    fn report(&self, pass: Option<Pass>) -> Report {
        Report {
            pass,
            open: self.state.open_count(),
        }
    }

    /// Looks at every blob after the position of the pass.
    async fn walk(&mut self) -> Result<(), Error> {
        let position = self.state.current.as_ref().and_then(|pass| pass.position);
        let first = position.map_or(0, |position| position.as_bytes()[0]);
        for part in first / SHARDS_OF_PART..PARTS {
            let kept = self.list_kept(part).await?;
            let shards = (0..SHARDS_OF_PART).map(|shard| part * SHARDS_OF_PART + shard);
            for shard in shards.filter(|shard| *shard >= first) {
                let store = self.scrub.store.clone();
                let names = blocking(move || Ok(store.list_names(shard)?)).await?;
                for (digest, kept_bytes) in merge(names, &kept, shard) {
                    if position.is_some_and(|position| digest <= position) {
                        continue;
                    }
                    if !self.look(digest, kept_bytes).await? {
                        return Ok(());
                    }
                }
                self.settle(settle::Novelty::New).await?;
            }
        }
        Ok(())
    }

    /// Returns what packages keep in one part of the digests, with sizes in bytes.
    async fn list_kept(&self, part: u8) -> Result<BTreeMap<Digest, u64>, Error> {
        let catalog = self.scrub.catalog.clone();
        blocking(move || {
            let mut kept = BTreeMap::new();
            let part_of = |digest: &Digest| digest.as_bytes()[0] / SHARDS_OF_PART;
            catalog.for_each_content(|_, content| {
                let entries = content.entries();
                let start = entries.partition_point(|(digest, _)| part_of(digest) < part);
                let entries = entries[start..].iter().copied();
                kept.extend(entries.take_while(|(digest, _)| part_of(digest) == part));
                Ok::<_, Error>(())
            })?;
            Ok(kept)
        })
        .await
    }

    /// Looks at one blob. Returns whether to go on.
    async fn look(&mut self, digest: Digest, kept_bytes: Option<u64>) -> Result<bool, Error> {
        if self.scrub.store.has_suspects() {
            self.look_at_suspects().await?;
        }
        if self.looked_again_at.elapsed() >= REPAIR_AGAIN {
            self.look_again().await?;
        }
        let found = self.read(digest).await?;
        let read_bytes = match &found {
            Found::Stopped => return Ok(false),
            Found::Whole { size_bytes } | Found::Changed { size_bytes, .. } => *size_bytes,
            Found::Unreadable { .. } | Found::Absent => 0,
        };
        self.find_damage(digest, kept_bytes, found)?;
        self.state.count(|counts| {
            counts.blobs += 1;
            counts.bytes += read_bytes;
        });
        if let Some(pass) = &mut self.state.current {
            pass.position = Some(digest);
        }
        self.unsaved_bytes += read_bytes;
        if self.saved_at.elapsed() >= SAVE_EVERY || self.unsaved_bytes >= SAVE_BYTES {
            self.settle(settle::Novelty::New).await?;
            self.save()?;
        }
        Ok(true)
    }

    /// Reads a blob; twice where its content is not what its name says.
    async fn read(&mut self, digest: Digest) -> Result<Found, Error> {
        let Scrub { store, budget, .. } = &mut *self.scrub;
        let found = read_blob(store, digest, budget, self.stop).await?;
        if !matches!(found, Found::Changed { .. }) {
            return Ok(found);
        }
        let again = read_blob(store, digest, budget, self.stop).await?;
        if matches!(again, Found::Whole { .. }) {
            tracing::warn!(%digest, ?found, "blob was read wrongly once: memory, bus or disk may fail");
        }
        Ok(again)
    }

    /// Writes down how far the run has come.
    fn save(&mut self) -> Result<(), Error> {
        self.state.write(self.record);
        let (catalog, record) = (&self.scrub.catalog, &*self.record);
        tokio::task::block_in_place(|| catalog.put_job(record))?;
        let state = self.state.clone();
        self.scrub
            .overview
            .send_modify(|overview| overview.state = state);
        self.saved_at = Instant::now();
        self.unsaved_bytes = 0;
        Ok(())
    }
}

/// Returns the blobs of a shard that are there or kept, ordered by digest, with the size that packages say.
fn merge(
    names: Vec<Digest>,
    kept: &BTreeMap<Digest, u64>,
    shard: u8,
) -> impl Iterator<Item = (Digest, Option<u64>)> + use<> {
    let bound = |fill: u8| {
        let mut bytes = [fill; 32];
        bytes[0] = shard;
        Digest::from_bytes(bytes)
    };
    let there = names.into_iter().map(|digest| (digest, None));
    let mut all: BTreeMap<Digest, Option<u64>> = there.collect();
    let kept = kept.range(bound(0)..=bound(u8::MAX));
    all.extend(kept.map(|(digest, size_bytes)| (*digest, Some(*size_bytes))));
    all.into_iter()
}

/// Runs blocking work on the thread pool.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Panicked {
            message: error.to_string(),
        }),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pass) = &self.pass {
            let end = if pass.finished_at.is_some() {
                "ended"
            } else {
                "goes on later"
            };
            write!(f, "pass {} {end}: {}; ", pass.number, pass.counts)?;
        }
        write!(f, "{} blobs are damaged and not repaired", self.open)
    }
}

#[cfg(test)]
mod tests;
