//! From the drop folder to the catalog.
//!
//! [`Ingest`] is a background task: each run looks at the drop folders and the folders in them and takes every file as far
//! as it goes. inotify only wakes it. Start from [`Ingest::new`].
//!
//! ```text
//! listing ─► candidates ─► waiting ─► advance ─► import ─► record ─► folder
//!            (a file, or   (rest,     (verify,   (store)   (audit)   (done, rejected, deleted)
//!            a table with  parts,      state)
//!            its parts)    base)
//! ```
//!
//! # States
//!
//! See [`state::next`]. Every transition is written to the catalog before the next step begins.
//!
//! # Waiting
//!
//! A package in parts waits for its table and all parts, a delta for the blobs that it builds on. Neither has an end: the
//! next medium may come in a month. What they wait for is in the status, and blobs also in a request file that can be
//! carried back. As long as a blob is missing nothing of the file is read again; whenever a package has become ready, the
//! files that wait are looked at once more, so that the order in which files arrive does not matter.
//!
//! # Durability
//!
//! Blobs are durable before the verdict is on the audit record, the verdict before the package's record is in the catalog, and
//! that before the file moves away. A process that dies in between begins again with the file, which is still in the drop
//! folder; blobs that are in the store already are hashed and not written again, and the verdict is on the audit record
//! twice. A power cut has the same effect.
//!
//! # Space
//!
//! While the disk is low (see [`crate::sys::disk`]) no file is begun; what is in progress goes on until it is critical. A file
//! for which there is not enough waits, with what it needs in the status, and smaller ones go on. As long as one waits, space
//! is looked at every five seconds, so that ingest goes on that soon after there is enough; a write to the catalog may fail for
//! some seconds more, see there, and is repeated after five.
//!
//! # Failure
//!
//! A file that can never become a package (class `rejected`) moves to `rejected/` with a reason. Everything else (an
//! unreadable file, a broken keyring) leaves it where it is; it is tried again with back-off, and other files go on. All files of a
//! package in parts share its fate.

mod advance;
mod direct;
mod error;
mod folder;
mod import;
mod listing;
mod measure;
mod record;
mod retry;
mod settle;
mod sink;
mod space;
pub mod state;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::direct::{Intake, Taken, commit};
pub use self::error::Error;
pub use self::folder::{AfterReady, Folder};
use self::import::Importer;
pub use self::listing::FOLDER_DEPTH_MAX;
use self::listing::{Apart, Listing};
use self::record::Recorder;
use self::retry::Retry;
use self::settle::Settler;
use self::space::Expansion;
use crate::audit::Log;
use crate::base::{Chain, Clock};
use crate::catalog::{Catalog, IngestState};
use crate::package::Limits;
use crate::store::Store;
use crate::sys::disk::Alarm;
use crate::sys::watch::Watcher;
use crate::task::{Activator, Finished, Task};

/// How many refused files that are gone from the drop folder stay on record, for the status. Chosen, not measured.
const REFUSED_KEPT: usize = 500;

/// How to ingest.
#[derive(Clone, Debug)]
pub struct Options {
    /// The drop folders.
    pub folders: Vec<Folder>,
    /// Bounds on what a package may contain.
    pub limits: Limits,
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
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    settler: Settler,
    /// Files that failed for a reason which may pass, and when they are tried again.
    retries: BTreeMap<PathBuf, Retry>,
    /// Files in a final state that could not be moved away: said once, not at every run.
    stuck: BTreeSet<PathBuf>,
    /// What is not looked at, and why: said once, too.
    skipped: BTreeMap<PathBuf, String>,
    watcher: Watcher,
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
    /// Where verdicts are put on record.
    pub audit: Log,
    /// How much space there is for blobs.
    pub disk: Arc<Alarm>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Wakes the task. Folders below the drop folders are added as they are found.
    pub watcher: Watcher,
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
            disk: parts.disk,
            expansion: Expansion::default(),
        };
        let ingest = Self {
            options,
            importer: Arc::new(importer),
            recorder: Recorder {
                log: parts.audit,
                clock: Arc::clone(&parts.clock),
            },
            clock: parts.clock,
            settler: Settler::default(),
            retries: BTreeMap::new(),
            stuck: BTreeSet::new(),
            skipped: BTreeMap::new(),
            watcher: parts.watcher,
            notes,
            counters: Arc::clone(&counters),
            on_ready: parts.on_ready,
        };
        (ingest, receiver, counters)
    }

    /// Takes every file of one folder as far as it goes.
    async fn scan(
        &mut self,
        folder: &Folder,
        apart: &Apart,
        stop: &CancellationToken,
    ) -> Result<Scan, Error> {
        let Listing {
            candidates,
            folders,
            skipped,
        } = folder.list(apart)?;
        let mut scan = Scan {
            again_in: self.options.rescan,
            present: candidates
                .iter()
                .map(|candidate| candidate.path.clone())
                .collect(),
            folders,
            skipped,
        };
        for candidate in candidates {
            if stop.is_cancelled() {
                break;
            }
            match self.advance(folder, &candidate, stop).await {
                Ok(None) => self.clear(&candidate.path),
                Ok(Some(Wait { again_in, note })) => {
                    scan.again_in = scan.again_in.min(again_in);
                    self.note(&candidate.path, note);
                }
                Err(Error::Stopped) => break,
                Err(error) => {
                    let again_in = self.fail(&candidate.path, &error);
                    scan.again_in = scan.again_in.min(again_in);
                }
            }
        }
        Ok(scan)
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
        let is_gone = |path: &Path| {
            // What is in a folder that could not be read is not known to be gone.
            let is_skipped = path.ancestors().any(|dir| self.skipped.contains_key(dir));
            !present.contains(path) && !is_skipped
        };
        let gone = records.filter(|record| is_gone(Path::new(&record.path)));
        let (mut refused, others): (Vec<_>, Vec<_>) =
            gone.partition(|record| matches!(record.state, IngestState::Rejected { .. }));
        refused.sort_by_key(|record| std::cmp::Reverse(record.updated_at));
        for record in others.iter().chain(refused.iter().skip(REFUSED_KEPT)) {
            if matches!(record.state, IngestState::Waiting { .. }) {
                self.withdraw_request(Path::new(&record.path));
            }
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

    /// Says what is not looked at, unless that was said before.
    fn say_skipped(&mut self, skipped: BTreeMap<PathBuf, String>) {
        for (path, reason) in &skipped {
            if self.skipped.get(path) != Some(reason) {
                tracing::warn!(path = %path.display(), %reason, "not looked at");
            }
        }
        self.skipped = skipped;
    }
}

/// What one look at a folder found.
#[derive(Debug, Default)]
struct Scan {
    again_in: Duration,
    present: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    skipped: BTreeMap<PathBuf, String>,
}

/// A file that cannot go on yet.
struct Wait {
    again_in: Duration,
    note: Note,
}

impl Task for Ingest {
    async fn run(&mut self, stop: &CancellationToken) -> Finished {
        let mut all = Scan {
            again_in: self.options.rescan,
            ..Scan::default()
        };
        let mut problems = Vec::new();
        // Not only where a file comes: the alarm is for those who look at an idle daemon, too.
        if let Err(error) = self.importer.disk.look() {
            problems.push(Chain(&error).to_string());
        }
        let ready_before = self.counters.packages_ready.load(Ordering::Relaxed);
        let apart = Apart::find(&self.options.folders);
        for folder in self.options.folders.clone() {
            match self.scan(&folder, &apart, stop).await {
                Ok(scan) => {
                    all.again_in = all.again_in.min(scan.again_in);
                    all.present.extend(scan.present);
                    all.folders.extend(scan.folders);
                    all.skipped.extend(scan.skipped);
                }
                Err(error) => {
                    tracing::warn!(folder = %folder.path.display(), reason = %Chain(&error), "drop folder cannot be read");
                    problems.push(Chain(&error).to_string());
                }
            }
        }
        self.say_skipped(all.skipped);
        // A folder that could not be read says nothing about its files.
        if problems.is_empty()
            && !stop.is_cancelled()
            && let Err(error) = self.forget(&all.present)
        {
            problems.push(Chain(&error).to_string());
        }
        let has_new_folders = self.watcher.follow(&all.folders);
        let has_new_blobs = self.counters.packages_ready.load(Ordering::Relaxed) > ready_before;
        // What came into a folder before it was watched, and files that wait for what has just come, are looked at now.
        if has_new_folders || has_new_blobs {
            all.again_in = Duration::ZERO;
        }
        let outcome = if problems.is_empty() {
            Ok(format!("{} files in the drop folders", all.present.len()))
        } else {
            Err(problems.join("; "))
        };
        Finished {
            outcome,
            again_in: all.again_in,
        }
    }
}
