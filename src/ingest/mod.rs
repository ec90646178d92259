//! From the drop folder to the catalog.
//!
//! [`Ingest`] is a background task: each run looks at the drop folders and takes every file as far as it goes. inotify
//! only wakes it. Start from [`Ingest::new`].
//!
//! # States
//!
//! See [`state::next`]. Every transition is written to the catalog before the next step begins.
//!
//! # Durability
//!
//! Blobs are durable before the package's record is, and the record before the file moves away. A process that dies in
//! between begins again with the file, which is still in the drop folder; blobs that are in the store already are
//! hashed and not written again. A power cut has the same effect.
//!
//! # Failure
//!
//! A file that can never become a package (class `rejected`) moves to `rejected/` with a reason. Everything else (no
//! space, an unreadable file) leaves it where it is; it is tried again with back-off, and other files go on.

mod error;
mod folder;
mod import;
mod settle;
pub mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::error::Error;
use self::folder::Candidate;
pub use self::folder::{AfterReady, Folder};
use self::import::{Importer, Unpacked};
use self::settle::{Settler, Stamp};
use self::state::Event;
use crate::base::{Chain, Class, Classified, Clock, Timestamp};
use crate::catalog::{Catalog, IngestRecord, IngestState};
use crate::package::Limits;
use crate::store::Store;
use crate::sys::backoff::{self, Backoff};
use crate::task::{Activator, Finished, Task};
use crate::verify::{self, Keyring};

/// The longest wait before a file is tried again that failed for a reason which may pass. Chosen, not measured.
const RETRY_MAX: Duration = Duration::from_mins(10);
/// The first such wait. Chosen, not measured.
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// How many refused files that are gone from the drop folder stay on record, for the status. Chosen, not measured.
const REFUSED_KEPT: usize = 500;

/// How to ingest.
#[derive(Clone, Debug)]
pub struct Options {
    /// The drop folders.
    pub folders: Vec<Folder>,
    /// Bounds on what a package may contain.
    pub limits: Limits,
    /// Free space, in bytes, that ingest leaves.
    pub free_bytes_min: u64,
    /// How often the folders are looked at without being woken.
    pub rescan: Duration,
}

/// What ingest has done since the daemon started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packages that became ready.
    pub packages_ready: AtomicU64,
    /// Files that turned out to be packages known already.
    pub packages_repeated: AtomicU64,
    /// Files that were rejected.
    pub packages_rejected: AtomicU64,
    /// Bytes of blobs written to the store.
    pub bytes_written: AtomicU64,
    /// Bytes of blobs that were in the store already.
    pub bytes_known: AtomicU64,
}

/// What a file waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The stable code of what went wrong; `None` where nothing did.
    pub code: Option<&'static str>,
    /// What it waits for, or what went wrong, in words.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What files wait for, by path.
pub type Notes = BTreeMap<PathBuf, Note>;

/// The background task that takes files from the drop folders to the catalog.
#[derive(Debug)]
pub struct Ingest {
    options: Options,
    importer: Arc<Importer>,
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    settler: Settler,
    /// Files that failed for a reason which may pass, and when they are tried again.
    retries: BTreeMap<PathBuf, (Backoff, Instant)>,
    /// Files in a final state that could not be moved away: said once, not at every run.
    stuck: BTreeSet<PathBuf>,
    notes: watch::Sender<Notes>,
    counters: Arc<Counters>,
    /// Whom a package that became ready wakes.
    on_ready: Vec<Activator>,
}

/// What [`Ingest`] works on.
#[derive(Debug)]
pub struct Parts {
    /// Where blobs go.
    pub store: Store,
    /// Where packages are listed.
    pub catalog: Catalog,
    /// Whose signatures count.
    pub keyring: Arc<Keyring>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Whom a package that became ready wakes.
    pub on_ready: Vec<Activator>,
}

impl Ingest {
    /// Returns the task with what it reports while it runs.
    pub fn new(options: Options, parts: Parts) -> (Self, watch::Receiver<Notes>, Arc<Counters>) {
        let (notes, receiver) = watch::channel(Notes::new());
        let counters = Arc::new(Counters::default());
        let importer = Importer {
            store: parts.store,
            catalog: parts.catalog,
            clock: Arc::clone(&parts.clock),
            limits: options.limits,
            free_bytes_min: options.free_bytes_min,
        };
        let ingest = Self {
            options,
            importer: Arc::new(importer),
            keyring: parts.keyring,
            clock: parts.clock,
            settler: Settler::default(),
            retries: BTreeMap::new(),
            stuck: BTreeSet::new(),
            notes,
            counters: Arc::clone(&counters),
            on_ready: parts.on_ready,
        };
        (ingest, receiver, counters)
    }

    /// Takes every file of one folder as far as it goes. Returns the soonest moment at which there is more to do.
    async fn scan(&mut self, folder: &Folder, stop: &CancellationToken) -> Result<Scan, Error> {
        let candidates = folder.list_candidates()?;
        let mut scan = Scan {
            again_in: self.options.rescan,
            present: candidates
                .iter()
                .map(|candidate| candidate.path.clone())
                .collect(),
        };
        for candidate in candidates {
            if stop.is_cancelled() {
                break;
            }
            let path = candidate.path.clone();
            match self.advance(folder, candidate, stop).await {
                Ok(None) => self.clear(&path),
                Ok(Some(Wait { again_in, note })) => {
                    scan.again_in = scan.again_in.min(again_in);
                    self.note(&path, note);
                }
                Err(Error::Stopped) => break,
                Err(error) => {
                    let again_in = self.fail(&path, &error);
                    scan.again_in = scan.again_in.min(again_in);
                }
            }
        }
        Ok(scan)
    }

    /// Takes one file as far as it goes.
    async fn advance(
        &mut self,
        folder: &Folder,
        candidate: Candidate,
        stop: &CancellationToken,
    ) -> Result<Option<Wait>, Error> {
        let Candidate { path, stamp } = candidate;
        let mut record = self.record_of(&path, stamp)?;
        if state::is_final(&record.state) {
            self.clear_away(folder, &path, &record);
            return Ok(None);
        }
        if let Some(wait) = self.wait_for_rest(folder, &path, stamp) {
            return Ok(Some(wait));
        }
        if let Some(wait) = self.wait_for_retry(&path) {
            return Ok(Some(wait));
        }
        self.transition(&mut record, Event::Settled)?;
        match self.process(folder, &mut record, &path, stop).await {
            Ok(()) => {}
            Err(error) if error.class() == Class::Rejected => {
                tracing::warn!(path = %path.display(), code = error.code(), reason = %Chain(&error), "package rejected");
                self.counters
                    .packages_rejected
                    .fetch_add(1, Ordering::Relaxed);
                let refused = Event::Refused {
                    code: error.code().to_owned(),
                    reason: Chain(&error).to_string(),
                    hint: error.hint(),
                };
                self.transition(&mut record, refused)?;
            }
            Err(error) => return Err(error),
        }
        self.clear_away(folder, &path, &record);
        Ok(None)
    }

    /// Verifies, unpacks and commits one file.
    async fn process(
        &self,
        folder: &Folder,
        record: &mut IngestRecord,
        path: &Path,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let verified = {
            let (path, policy) = (path.to_owned(), folder.policy);
            let (keyring, now) = (Arc::clone(&self.keyring), self.clock.now());
            blocking(move || Ok(verify::verify_file(&path, policy, &keyring, now)?)).await?
        };
        record.digest = Some(verified.get().digest);
        let provenance = import::provenance(&verified.get().verdict);
        self.transition(record, Event::Verified(provenance))?;
        let unpacked = {
            let (importer, stop) = (Arc::clone(&self.importer), stop.clone());
            blocking(move || importer.unpack(&verified, &stop)).await?
        };
        match unpacked {
            Unpacked::Known(package) => {
                self.counters
                    .packages_repeated
                    .fetch_add(1, Ordering::Relaxed);
                tracing::info!(package = %package.name, digest = %package.digest, "package is known already");
                let (package, is_repeat) = (package.digest, true);
                self.transition(record, Event::Committed { package, is_repeat })
            }
            Unpacked::New(package, committed) => {
                self.transition(record, Event::Unpacked)?;
                let event = Event::Committed {
                    package: package.digest,
                    is_repeat: false,
                };
                self.apply(record, event);
                self.importer.catalog.commit_package(&package, record)?;
                let counters = &self.counters;
                counters.packages_ready.fetch_add(1, Ordering::Relaxed);
                counters
                    .bytes_written
                    .fetch_add(committed.new_bytes, Ordering::Relaxed);
                counters
                    .bytes_known
                    .fetch_add(committed.known_bytes, Ordering::Relaxed);
                tracing::info!(
                    package = %package.name,
                    version = package.version.as_deref().unwrap_or("-"),
                    digest = %package.digest,
                    images = package.images.len(),
                    new_blobs = committed.new_blobs,
                    new_bytes = committed.new_bytes,
                    known_bytes = committed.known_bytes,
                    "package is ready"
                );
                self.on_ready.iter().for_each(Activator::activate);
                Ok(())
            }
        }
    }

    /// Returns what the catalog knows of a file, or a new record where the file is new or was replaced.
    fn record_of(&self, path: &Path, stamp: Stamp) -> Result<IngestRecord, Error> {
        let key = path.display().to_string();
        let known = self.importer.catalog.find_ingest(&key)?;
        let is_same = |record: &IngestRecord| {
            record.size_bytes == stamp.size_bytes && record.modified_at == stamp.modified_at
        };
        if let Some(record) = known.filter(is_same) {
            return Ok(record);
        }
        let mut record = IngestRecord {
            path: key,
            size_bytes: stamp.size_bytes,
            modified_at: stamp.modified_at,
            digest: None,
            state: IngestState::Seen,
            updated_at: self.clock.now(),
        };
        self.transition(&mut record, Event::Appeared)?;
        Ok(record)
    }

    /// Moves a record to its next state, durably.
    fn transition(&self, record: &mut IngestRecord, event: Event) -> Result<(), Error> {
        self.apply(record, event);
        Ok(self.importer.catalog.put_ingest(record)?)
    }

    fn apply(&self, record: &mut IngestRecord, event: Event) {
        record.state = state::next(Some(&record.state), event)
            .expect("process() and record_of() follow the state diagram");
        record.updated_at = self.clock.now();
    }

    /// Returns how long the file and its sidecars must still rest, or still may wait for a sidecar.
    fn wait_for_rest(&mut self, folder: &Folder, path: &Path, stamp: Stamp) -> Option<Wait> {
        let now = Instant::now();
        let rest = self.settler.observe(path, stamp, now);
        let mut shortest = rest;
        for sidecar in folder::sidecars_of(path) {
            if let Some(stamp) = stamp_of(&sidecar) {
                shortest = shortest.min(self.settler.observe(&sidecar, stamp, now));
            }
        }
        let missing = folder.missing_sidecar(path);
        if shortest < folder.settle {
            return Some(Wait {
                again_in: folder.settle.saturating_sub(shortest),
                note: waits_for("it to rest"),
            });
        }
        match missing {
            Some(what) if rest < folder.sidecar_wait => Some(Wait {
                again_in: folder.sidecar_wait.saturating_sub(rest),
                note: waits_for(what),
            }),
            Some(_) | None => None,
        }
    }

    fn wait_for_retry(&self, path: &Path) -> Option<Wait> {
        let (_, due) = self.retries.get(path)?;
        let again_in = due.saturating_duration_since(Instant::now());
        let note = self.notes.borrow().get(path).cloned()?;
        (!again_in.is_zero()).then_some(Wait { again_in, note })
    }

    /// Notes a failure that may pass and returns when the file is tried again.
    fn fail(&mut self, path: &Path, error: &Error) -> Duration {
        let (backoff, due) = self
            .retries
            .entry(path.to_owned())
            .or_insert_with(|| (Backoff::new(RETRY_FIRST, RETRY_MAX), Instant::now()));
        let again_in = backoff.fail(backoff::random());
        *due = Instant::now() + again_in;
        let reason = Chain(error).to_string();
        tracing::warn!(path = %path.display(), code = error.code(), %reason, retry_in = ?again_in, "package is not ingested yet");
        self.note(
            path,
            Note {
                code: Some(error.code()),
                text: reason,
                hint: error.hint(),
            },
        );
        again_in
    }

    /// Does with a file in a final state what is configured. A failure is said once and changes nothing else.
    fn clear_away(&mut self, folder: &Folder, path: &Path, record: &IngestRecord) {
        let moved = match &record.state {
            IngestState::Rejected { code, reason, hint } => folder.reject(
                path,
                &serde_json::json!({
                    "code": code, "reason": reason, "hint": hint, "file": record.path, "digest": record.digest,
                    "size_bytes": record.size_bytes, "rejected_at": record.updated_at,
                }),
            ),
            IngestState::Ready { .. } => folder.finish(path),
            IngestState::Seen
            | IngestState::Settled
            | IngestState::Verified { .. }
            | IngestState::Unpacked
            | IngestState::Waiting { .. } => Ok(()),
        };
        if let Err(error) = moved
            && self.stuck.insert(path.to_owned())
        {
            tracing::warn!(path = %path.display(), reason = %Chain(&error), "file stays in the drop folder");
        }
    }

    fn note(&self, path: &Path, note: Note) {
        self.notes
            .send_if_modified(|notes| notes.insert(path.to_owned(), note.clone()) != Some(note));
    }

    fn clear(&mut self, path: &Path) {
        self.retries.remove(path);
        self.notes
            .send_if_modified(|notes| notes.remove(path).is_some());
    }

    /// Forgets files that are gone. Of those that were refused, the last [`REFUSED_KEPT`] stay on record.
    fn forget(&mut self, present: &BTreeSet<PathBuf>) -> Result<(), Error> {
        let catalog = &self.importer.catalog;
        let records = catalog.list_ingests()?.into_iter();
        let gone = records.filter(|record| !present.contains(Path::new(&record.path)));
        let (mut refused, others): (Vec<_>, Vec<_>) =
            gone.partition(|record| matches!(record.state, IngestState::Rejected { .. }));
        refused.sort_by_key(|record| std::cmp::Reverse(record.updated_at));
        for record in others.iter().chain(refused.iter().skip(REFUSED_KEPT)) {
            catalog.remove_ingest(&record.path)?;
        }
        self.settler.retain(Path::exists);
        self.stuck.retain(|path| present.contains(path));
        self.retries.retain(|path, _| present.contains(path));
        self.notes.send_if_modified(|notes| {
            let before = notes.len();
            notes.retain(|path, _| present.contains(path));
            notes.len() != before
        });
        Ok(())
    }
}

/// What one look at a folder found.
struct Scan {
    again_in: Duration,
    present: BTreeSet<PathBuf>,
}

/// A file that cannot go on yet.
struct Wait {
    again_in: Duration,
    note: Note,
}

fn waits_for(what: &str) -> Note {
    Note {
        code: None,
        text: format!("waits for {what}"),
        hint: None,
    }
}

impl Task for Ingest {
    async fn run(&mut self, stop: &CancellationToken) -> Finished {
        let mut again_in = self.options.rescan;
        let mut present = BTreeSet::new();
        let mut problems = Vec::new();
        for folder in self.options.folders.clone() {
            match self.scan(&folder, stop).await {
                Ok(scan) => {
                    again_in = again_in.min(scan.again_in);
                    present.extend(scan.present);
                }
                Err(error) => {
                    tracing::warn!(folder = %folder.path.display(), reason = %Chain(&error), "drop folder cannot be read");
                    problems.push(Chain(&error).to_string());
                }
            }
        }
        // A folder that could not be read says nothing about its files.
        if problems.is_empty()
            && !stop.is_cancelled()
            && let Err(error) = self.forget(&present)
        {
            problems.push(Chain(&error).to_string());
        }
        let outcome = if problems.is_empty() {
            Ok(format!("{} files in the drop folders", present.len()))
        } else {
            Err(problems.join("; "))
        };
        Finished { outcome, again_in }
    }
}

/// Returns size and modification time of a file, if it is there.
fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = path.metadata().ok()?;
    Some(Stamp {
        size_bytes: metadata.len(),
        modified_at: Timestamp::from(metadata.modified().ok()?),
    })
}

/// Runs blocking work on the thread pool. A panic there, which a package may have found a way to cause, is an error of
/// that file and does not keep others from being taken in.
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
