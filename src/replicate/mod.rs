//! From the catalog to one target: what it should hold, what it holds, the plan in between, and its execution.
//!
//! [`Replicate`] is a background task, one per target, so that a target that is slow or down never delays another.
//! Start from [`Replicate::new`].
//!
//! ```text
//! catalog ─► wanted ─┐
//! target ─► found ───┼─► survey ─► plan (pure) ─► flow (pure) ◄─► apply ─► resources ─► record of the run
//! what is known ─────┘              what               when        how
//!      ▲                                                            │
//!      └────────────────────── what was seen ───────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - A package's resources are touched only after all its images are in place on that target.
//! - A referrer is put only where an image that it is about is in place.
//! - Nothing is deleted on a target.
//!
//! # Durability
//!
//! A run is recorded when it ends. One that is killed leaves no record, so it is due again after a restart, and what it
//! has brought to the target is found there; uploads that it had begun go on (`uploads.rs`).
//!
//! # Concurrency
//!
//! Packages may be removed and their blobs collected while a run is in progress. A run leases what it may push before it reads
//! it, and looks after that whether its packages are still there: what is, stays to its end; what is not, is left out.
//!
//! # Failure
//!
//! A run that leaves something undone is repeated with back-off; the next scheduled run comes in any case.

mod apply;
mod cover;
mod flow;
mod held;
mod manifests;
mod once;
pub mod plan;
pub mod planner;
mod report;
mod resources;
mod run;
mod survey;
mod trigger;
mod uploads;
pub mod wanted;

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::held::KEPT_FOR;
pub use self::once::{Brought, Presence};
pub use self::report::{Journal, Sight};
use self::run::{Ended, Run};
pub use self::trigger::Reason;
use self::trigger::{Situation, until_first};
use self::wanted::{Filter, Wanted};
use crate::base::{Chain, Class, Classified, Clock, Digest, TargetName, Timestamp, TreeError};
use crate::catalog::{self, Catalog, Problem, RunOutcome, RunRecord, TargetRecord};
use crate::platform::{self, ClusterName, Platform};
use crate::registry::{self, Client};
pub use crate::registry::{BreakerState, KindState, PaceState};
use crate::store::{self, Store};
use crate::sys::backoff::{self, Backoff};
use crate::task::{Activator, Finished, Task, Timetable};

/// The longest sleep without looking at the clock, so that a changed clock is noticed. Chosen, not measured.
const SLEEP_MAX: Duration = Duration::from_mins(10);

/// How often it is looked for what is known of a target and too old. It reads all of that: a second for 200 000
/// rows (measured on a loaded machine, 2026-11-21).
const SWEEP_EVERY: TimeDelta = TimeDelta::days(1);

/// What can go wrong in this module.
#[derive(Debug, Error)]
pub enum Error {
    /// The registry refused or cannot be reached.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The platform refused or cannot be reached.
    #[error(transparent)]
    Platform(#[from] platform::Error),
    /// The store lacks something or cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The catalog cannot be read or written.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// A manifest in the store cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError<store::Error>),
    /// The place holds an image that no package of ours has brought there.
    #[error("expected {wanted} or an image that a package has brought, found {found}")]
    Conflict {
        /// The digest wanted.
        wanted: Digest,
        /// The digest found.
        found: Digest,
    },
    /// The registry takes only indexes of which every child is there.
    #[error("expected the registry to take an index of which {omitted} manifests were left out")]
    SparseRefused {
        /// How many manifests were left out of the image.
        omitted: usize,
        /// What the registry said.
        source: registry::Error,
    },
    /// A referrer has to wait for the image that it is about.
    #[error("expected image {subject}, which it is about, to be in place first")]
    SubjectAbsent {
        /// Where that image should be.
        subject: String,
    },
    /// An image is not where resources expect it that are about to be published.
    #[error("expected {wanted} to be in place before its resources, found {}", found.map_or_else(|| "nothing".to_owned(), |it| it.to_string()))]
    ImageAbsent {
        /// The digest wanted.
        wanted: Digest,
        /// The digest found.
        found: Option<Digest>,
    },
    /// A package of type operator names no artifact with a tag.
    #[error("expected an operator package to name its bundle image with a tag")]
    NoArtifact,
    /// A package of type plugin holds no `ModulePlugin`.
    #[error("expected a plugin package to hold a ModulePlugin document")]
    NoModulePlugin,
    /// The platform has looked at a resource and does not accept it.
    #[error("expected the platform to accept {resource}, found: {message}")]
    ResourceFailed {
        /// The resource.
        resource: String,
        /// What the platform says.
        message: String,
    },
    /// The platform has not looked at a resource in time.
    #[error("expected the platform to accept {resource} by now, found: {last}")]
    ResourcePending {
        /// The resource.
        resource: String,
        /// Its last known state.
        last: String,
    },
    /// The daemon stops.
    #[error("stopped before the end")]
    Stopped,
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Registry(error) => error.class(),
            Self::Platform(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::Tree(TreeError::Read { source, .. }) => source.class(),
            Self::Tree(
                TreeError::Parse { .. } | TreeError::TooDeep { .. } | TreeError::RootOmitted { .. },
            ) => Class::Corrupt,
            Self::Conflict { .. } => Class::Usage,
            Self::NoArtifact
            | Self::NoModulePlugin
            | Self::SparseRefused { .. }
            | Self::ResourceFailed { .. } => Class::Rejected,
            Self::SubjectAbsent { .. } | Self::ImageAbsent { .. } => Class::Absent,
            Self::ResourcePending { .. } | Self::Stopped => Class::Transient,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error @ registry::Error::ForeignLayers { .. }) => error.hint().map(|hint| {
                format!(
                    "{hint}; one that wants their content gets it from packages made with `violetd create --allow-nondistributable-artifacts`, by `nondistributable = \"push\"` in [target.registry] or by `violetd push --allow-nondistributable-artifacts`"
                )
            }),
            Self::Registry(error) => error.hint(),
            Self::Platform(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::Conflict { .. } => Some(
                "find out who pushed it; delete the tag there if it may be replaced".to_owned(),
            ),
            Self::SparseRefused { .. } => Some(
                "this registry does not take indexes of which platforms were left out; build the package with rewritten indexes, or with all platforms"
                    .to_owned(),
            ),
            Self::ImageAbsent { .. } => {
                Some("push the images first, or leave out --skip-push".to_owned())
            }
            Self::NoArtifact => {
                Some("name the bundle image in spec.artifact of the package manifest".to_owned())
            }
            Self::NoModulePlugin => {
                Some("build the package again with its moduleplugin.yaml".to_owned())
            }
            Self::ResourceFailed { .. }
            | Self::ResourcePending { .. }
            | Self::SubjectAbsent { .. }
            | Self::Tree(_)
            | Self::Stopped => None,
        }
    }
}

/// Describes an error for reports.
fn problem(subject: String, error: &impl Classified) -> Problem {
    Problem {
        subject,
        class: error.class(),
        message: Chain(&error as &dyn std::error::Error).to_string(),
        hint: error.hint(),
    }
}

/// What part a target plays. It can change: nothing but reports and configuration checks depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The global cluster in use.
    Primary,
    /// The one that takes over.
    Standby,
}

impl Role {
    /// Returns the name, as in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

/// One global cluster with its registry.
#[derive(Debug)]
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// Its part.
    pub role: Role,
    /// Its registry.
    pub registry: Client,
    /// Where its resources go, if anywhere.
    pub platform: Option<Platform>,
    /// The clusters on which operators are published.
    pub clusters: Vec<ClusterName>,
    /// The catalogue that operators are published in: `platform`, `system` or a custom one.
    pub catalog_source: String,
    /// Which packages it gets.
    pub filter: Filter,
    /// When runs are due.
    pub timetable: Arc<dyn Timetable>,
    /// Whether a package that becomes ready starts a run.
    pub runs_on_ready: bool,
    /// Whether runs that were missed while the daemon was down are caught up.
    pub catches_up: bool,
    /// Whether resources wait: images only.
    pub holds_resources: bool,
    /// What becomes of images that no package of ours has put where one of ours belongs.
    pub others: Others,
    /// What becomes of foreign layers whose content packages bring.
    pub foreign: Foreign,
    /// Names of Secrets with which the clusters pull bundle images.
    pub image_pull_secrets: Vec<String>,
}

/// What becomes of images that no package of ours has put where one of ours belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Others {
    /// They stay, which is a problem that is reported.
    #[default]
    Keep,
    /// They are replaced.
    Replace,
}

/// What becomes of foreign layers whose content packages bring: those that images can do without, because their manifests name
/// URLs for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Foreign {
    /// They are left to their URLs.
    #[default]
    Skip,
    /// They are pushed like all others.
    Push,
}

/// How to replicate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Images and blobs of one registry in flight at one time.
    pub concurrency: usize,
    /// The first wait before a run that left something undone is repeated.
    pub retry_first: Duration,
    /// The longest such wait.
    pub retry_max: Duration,
    /// How long to wait for the platform's verdict on a resource.
    pub verdict_timeout: Duration,
}

/// What a target's task is doing.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Why and since when a run is in progress.
    pub running: Option<(Reason, Timestamp)>,
    /// When the next scheduled run is due.
    pub next_scheduled_at: Option<Timestamp>,
    /// When the last run is repeated, if it left something undone.
    pub retry_at: Option<Timestamp>,
}

/// Asks for runs of one target and shows what it is doing. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    activator: Activator,
    registry: Client,
    is_requested: Arc<AtomicBool>,
    progress: watch::Receiver<Progress>,
}

impl Handle {
    /// Asks for a run now, whatever the schedule says.
    pub fn request(&self) {
        self.is_requested.store(true, Ordering::Release);
        self.activator.activate();
    }

    /// Returns what wakes the task without asking for a run: it looks whether there is something to do.
    pub fn activator(&self) -> Activator {
        self.activator.clone()
    }

    /// Returns how fast and how much at once the registry is asked now.
    pub fn pace(&self) -> PaceState {
        self.registry.pace()
    }

    /// Changes how many bytes of blobs are sent per second, also by uploads that are under way; `None` is without limit.
    /// Forgotten when the process ends: the configuration says what holds then.
    pub fn set_bandwidth(&self, bandwidth_max: Option<NonZeroU64>) {
        self.registry.set_bandwidth(bandwidth_max);
    }

    /// Returns what the task is doing.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }
}

/// The background task that keeps one target in sync.
#[derive(Debug)]
pub struct Replicate {
    target: Target,
    options: Options,
    store: Store,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    is_requested: Arc<AtomicBool>,
    progress: watch::Sender<Progress>,
    backoff: Backoff,
    retry_at: Option<Timestamp>,
    /// Packages that a run since the start of the daemon has seen: only another one starts a run by itself.
    seen: Vec<Digest>,
    /// When it was last looked for knowledge of the target that is too old.
    swept_at: Option<Timestamp>,
    /// Follows the run in progress.
    journal: Journal,
    /// What the catalog knew of the target at the start. `None` until the first look.
    record: Option<TargetRecord>,
}

/// What [`Replicate`] works on.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where blobs are.
    pub store: Store,
    /// Where packages are listed and runs recorded.
    pub catalog: Catalog,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

impl Replicate {
    /// Returns the task and the handle to it. The task is to be driven with the handle's activator.
    pub fn new(target: Target, options: Options, parts: Parts) -> (Self, Handle) {
        let is_requested = Arc::new(AtomicBool::new(false));
        let (progress, receiver) = watch::channel(Progress::default());
        let handle = Handle {
            activator: Activator::default(),
            registry: target.registry.clone(),
            is_requested: Arc::clone(&is_requested),
            progress: receiver,
        };
        let task = Self {
            backoff: Backoff::new(options.retry_first, options.retry_max),
            target,
            options,
            store: parts.store,
            catalog: parts.catalog,
            clock: parts.clock,
            is_requested,
            progress,
            retry_at: None,
            seen: Vec::new(),
            swept_at: None,
            journal: Journal::default(),
            record: None,
        };
        (task, handle)
    }

    /// Returns the record of the target, at the first look from the catalog.
    ///
    /// Without a record, or where missed runs are not caught up, the schedule counts from now on. A target whose last
    /// run left something undone is due at once.
    fn record(&mut self) -> Result<TargetRecord, Error> {
        if let Some(record) = &self.record {
            return Ok(record.clone());
        }
        let now = self.clock.now();
        let known = self.catalog.find_target(&self.target.name)?;
        let is_new = known.is_none();
        let mut record = known.map_or_else(
            || TargetRecord::new(self.target.name.clone()),
            Arc::unwrap_or_clone,
        );
        if is_new || !self.target.catches_up || record.last_scheduled_at.is_none() {
            record.last_scheduled_at = Some(now);
            self.catalog.put_target(&record)?;
        }
        let was_incomplete = |run: &RunRecord| run.outcome != RunOutcome::InSync;
        if record.last_run.as_ref().is_some_and(was_incomplete) {
            self.retry_at = Some(now);
        }
        self.record = Some(record.clone());
        Ok(record)
    }

    /// Returns whether a package that is meant for this target was neither seen there nor by a run since the start. No record
    /// is read for it: this is asked whenever the task wakes.
    fn has_new_package(&self, record: &TargetRecord) -> bool {
        let known: HashSet<&Digest> = record.synced_packages.iter().chain(&self.seen).collect();
        let packages = self.catalog.summaries();
        let mut meant = packages
            .iter()
            .filter(|package| self.target.filter.matches(&package.name));
        meant.any(|package| !known.contains(&package.digest))
    }

    /// Collects what the target should hold. Records are read one after the other: thousands of them with their resources would
    /// be hundreds of megabytes. One that was removed meanwhile is wanted no more.
    fn wanted(&self) -> Result<Wanted, Error> {
        let summaries = self.catalog.summaries();
        let meant = summaries
            .iter()
            .filter(|package| self.target.filter.matches(&package.name));
        let mut failure = Ok(());
        let records = meant.map_while(|package| {
            let found = self.catalog.find_package(&package.digest);
            found.map_err(|error| failure = Err(error)).ok()
        });
        let wanted = Wanted::collect(records.flatten(), self.target.foreign);
        failure?;
        Ok(wanted)
    }

    /// Forgets, once a day, what the target was last seen to hold long ago.
    fn sweep(&mut self) -> Result<(), Error> {
        let now = self.clock.now();
        if self.swept_at.is_none_or(|then| now - then > SWEEP_EVERY) {
            let swept = self.catalog.sweep_held(&self.target.name, now - KEPT_FOR)?;
            tracing::debug!(target = %self.target.name, swept, "old knowledge of the target is forgotten");
            self.swept_at = Some(now);
        }
        Ok(())
    }

    /// Looks whether a run is due, and does it.
    async fn look(&mut self, stop: &CancellationToken) -> Result<String, Error> {
        let mut record = self.record()?;
        let now = self.clock.now();
        let latest_due = self.target.timetable.latest_due(now);
        // A clock that was set back does not silence the schedule until it is as late again.
        let next_due = self.target.timetable.next_due(now);
        let is_ahead = |followed: &Timestamp| next_due.is_some_and(|next| *followed > next);
        if record.last_scheduled_at.as_ref().is_some_and(is_ahead) {
            record.last_scheduled_at = None;
        }
        let situation = Situation {
            now,
            is_requested: self.is_requested.swap(false, Ordering::AcqRel),
            latest_due,
            followed: record.last_scheduled_at,
            has_new_package: self.target.runs_on_ready && self.has_new_package(&record),
            retry_at: self.retry_at,
        };
        let Some(reason) = situation.decide() else {
            return Ok("nothing is due".to_owned());
        };
        let wanted = tokio::task::block_in_place(|| self.wanted())?;
        self.progress
            .send_modify(|progress| progress.running = Some((reason, now)));
        self.seen = wanted.packages.iter().map(|it| it.digest).collect();
        let run = Run::new(self, wanted, stop).finish(reason).await;
        self.progress
            .send_modify(|progress| progress.running = None);
        let ended = run?;
        let summary = run::summary(&ended.run);
        self.finish(record, &ended, latest_due)?;
        self.sweep()?;
        Ok(summary)
    }

    /// Returns what follows the runs of this target.
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// Records a run and decides when it is repeated.
    fn finish(
        &mut self,
        mut record: TargetRecord,
        ended: &Ended,
        latest_due: Option<Timestamp>,
    ) -> Result<(), Error> {
        let Ended {
            run,
            synced,
            images,
        } = ended;
        if run.outcome == RunOutcome::InSync {
            self.backoff.reset();
            self.retry_at = None;
            record.last_success_at = Some(run.finished_at);
        } else {
            let wait = self.backoff.fail(backoff::random());
            self.retry_at = Some(self.clock.now() + wait);
        }
        record.last_scheduled_at = record.last_scheduled_at.max(latest_due);
        // A registry that cannot be asked has not lost what it held.
        if let Some(synced) = synced {
            record.synced_packages.clone_from(synced);
        }
        record.last_run = Some(run.clone());
        self.catalog.commit_run(run, &record)?;
        self.catalog.put_report(&report::kept(run, images))?;
        self.record = Some(record);
        Ok(())
    }
}

impl Task for Replicate {
    async fn run(&mut self, stop: &CancellationToken) -> Finished {
        let outcome = match self.look(stop).await {
            Ok(summary) => Ok(summary),
            Err(error) => {
                let wait = self.backoff.fail(backoff::random());
                self.retry_at = Some(self.clock.now() + wait);
                let reason = Chain(&error).to_string();
                tracing::warn!(target = %self.target.name, %reason, retry_in = ?wait, "run could not be finished");
                Err(reason)
            }
        };
        let now = self.clock.now();
        let next_due = self.target.timetable.next_due(now);
        self.progress.send_modify(|progress| {
            progress.next_scheduled_at = next_due;
            progress.retry_at = self.retry_at;
        });
        Finished {
            outcome,
            again_in: until_first(now, [next_due, self.retry_at], SLEEP_MAX),
        }
    }
}
