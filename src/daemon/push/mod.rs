//! Brings packages and images to one registry and platform now, without a daemon and without a configuration.
//!
//! The work is done by the same code as in the daemon: a package is verified and taken into a store, and a run brings it to a
//! target. Store and catalog are a [cache](cache) that belongs to the user; the target is made of what the command line says.
//! Start from [`push`].
//!
//! ```text
//! package files ─► verify ─► store ─────┐
//!                                       ├─► run to the target ─► removed from the cache again
//! OCI layouts ───► lent to the store ───┘
//! ```
//!
//! While one package is on its way to the target, the next one is taken in. Layouts are not copied: their blobs are sent from
//! where they lie.
//!
//! # Durability
//!
//! A push that was killed is begun again by the same command: what had been taken in is in the cache, what had been sent is on
//! the target, and uploads that had been begun go on. What was brought whole is removed from the cache, unless it is to be
//! kept; what was not stays for [`cache::KEPT_MAX`].
//!
//! # Failure
//!
//! A file that is refused, or that fails, does not keep others from being pushed. All of it is in the [`Report`].

mod access;
pub mod cache;
mod error;
mod report;
mod source;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::access::{Login, PlatformAccess, RegistryAccess, Trusted};
use self::cache::Cache;
pub use self::error::Error;
use self::report::refused;
pub use self::report::{FileReport, PackageReport, PushReport, RunReport, State};
use self::source::{Origin, Taken, Taker};
pub use self::watch::{Sight, Watch};
use crate::base::{Clock, ClusterName, Digest, PackageKind, Repository, SystemClock, Timestamp};
use crate::ingest;
use crate::replicate::wanted::Filter;
use crate::replicate::{self, Brought, Presence, Replicate, Role, Target};
pub use crate::replicate::{Foreign, Others};
use crate::task::Timetable;
use crate::verify::Requirements;

/// How long the platform may take to decide about a resource. As `replicate.verdict_timeout` of the configuration.
const VERDICT_TIMEOUT: Duration = Duration::from_mins(5);

/// What to push, and where.
#[derive(Debug)]
pub struct Options {
    /// Where the cache is.
    pub cache_dir: PathBuf,
    /// Package files, tables of packages in parts, folders of those, and OCI layouts.
    pub sources: Vec<PathBuf>,
    /// The repository of images that a layout names by a tag alone.
    pub repository: Option<Repository>,
    /// What packages must show.
    pub requirements: Requirements,
    /// Files and folders with the certificates of signers.
    pub keyring: Vec<PathBuf>,
    /// The registry. `None` only where no image is pushed.
    pub registry: Option<RegistryAccess>,
    /// The platform, if resources are to be published.
    pub platform: Option<PlatformAccess>,
    /// Which of both is done.
    pub work: Work,
    /// The clusters on which operators are published.
    pub clusters: Vec<ClusterName>,
    /// The catalogue that operators are published in.
    pub catalog_source: String,
    /// Names of Secrets with which clusters pull bundle images.
    pub image_pull_secrets: Vec<String>,
    /// Whether images of others are replaced.
    pub others: Others,
    /// What becomes of foreign layers whose content is there.
    pub foreign: Foreign,
    /// Whether what was pushed stays in the cache.
    pub keeping: Keeping,
    /// Requests in flight at one time.
    pub concurrency: usize,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Images are pushed; then resources are published, if there is a platform.
    All,
    /// Images are pushed.
    Images,
    /// Resources are published.
    Resources,
}

/// What becomes of packages that were pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// They are removed from the cache.
    Nothing,
    /// They stay for [`cache::KEPT_MAX`].
    Pushed,
}

/// A timetable on which nothing is due.
#[derive(Debug)]
struct Never;

impl Timetable for Never {
    fn latest_due(&self, _: Timestamp) -> Option<Timestamp> {
        None
    }

    fn next_due(&self, _: Timestamp) -> Option<Timestamp> {
        None
    }
}

/// Pushes what `options` names, watched by `watch`. Ends early, with what was done until then, once `stop` is cancelled.
pub async fn push(
    options: Options,
    watch: Watch,
    stop: CancellationToken,
) -> Result<PushReport, Error> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let started_at = clock.now();
    let origins = source::list(&options.sources)?;
    let target = target(&options).await?;
    let (dir, now) = (options.cache_dir.clone(), started_at);
    let cache = blocking(move || Cache::open(&dir, now)).await?;
    let replicate_options = replicate::Options {
        concurrency: options.concurrency,
        retry_first: Duration::ZERO,
        retry_max: Duration::ZERO,
        verdict_timeout: VERDICT_TIMEOUT,
    };
    let parts = replicate::Parts {
        store: cache.store.clone(),
        catalog: cache.catalog.clone(),
        clock: Arc::clone(&clock),
    };
    let registry = options.registry.as_ref().map(RegistryAccess::address);
    let mut report = PushReport::new(registry, options.platform.as_ref(), started_at);
    let client = target.registry.clone();
    let (task, _) = Replicate::new(target, replicate_options, parts);
    watch.follow(task.journal(), client);
    let taker = Taker::new(&cache, &options, Arc::clone(&clock), stop.clone())?;
    let mut pushing = Pushing {
        task,
        cache,
        options,
        watch,
        stop,
    };
    pushing.all(origins, taker, &mut report).await?;
    report.finish(clock.now());
    Ok(report)
}

/// Makes the target of what is said about it.
async fn target(options: &Options) -> Result<Target, Error> {
    let platform = options.platform.as_ref();
    let platform = platform.map(|access| access.platform(&options.clusters));
    let platform = platform.transpose()?;
    let access = match (&options.registry, &platform) {
        (Some(access), _) => access.clone(),
        // Nothing is asked of it: the resources say what they need of it.
        (None, Some(platform)) => RegistryAccess::anonymous(platform.pull_registry().await?),
        (None, None) => return Err(Error::NoDestination),
    };
    Ok(Target {
        name: access.target_name(),
        role: Role::Primary,
        registry: access.client()?,
        platform: platform.filter(|_| options.work != Work::Images),
        clusters: options.clusters.clone(),
        catalog_source: options.catalog_source.clone(),
        filter: Filter::new(Vec::new()),
        timetable: Arc::new(Never),
        runs_on_ready: false,
        catches_up: false,
        holds_resources: options.work == Work::Images,
        others: options.others,
        foreign: options.foreign,
        image_pull_secrets: options.image_pull_secrets.clone(),
    })
}

/// A push in progress.
struct Pushing {
    task: Replicate,
    cache: Cache,
    options: Options,
    watch: Watch,
    stop: CancellationToken,
}

/// A file that is being taken in.
struct Taking {
    origin: Origin,
    work: JoinHandle<Result<Taken, Error>>,
}

/// A file that was taken in, or was not.
type Tried = (Origin, Result<Taken, Error>);

impl Taking {
    fn start(taker: &Arc<Taker>, origin: Origin) -> Self {
        let (taker, path) = (Arc::clone(taker), origin.clone());
        Self {
            origin,
            work: tokio::task::spawn_blocking(move || taker.take(&path)),
        }
    }

    /// Waits for the end. A panic, which a package may have found a way to cause, is an error of that file.
    async fn end(self) -> Tried {
        let taken = self.work.await.unwrap_or_else(|error| {
            let message = error.to_string();
            Err(ingest::Error::Panicked { message }.into())
        });
        (self.origin, taken)
    }
}

impl Pushing {
    /// Pushes everything: layouts together, as they need no space, then one package file after the other.
    async fn all(
        &mut self,
        origins: Vec<Origin>,
        taker: Taker,
        report: &mut PushReport,
    ) -> Result<(), Error> {
        let taker = Arc::new(taker);
        let (layouts, files): (Vec<_>, Vec<_>) = origins
            .into_iter()
            .partition(|origin| matches!(origin, Origin::Layout(_)));
        let mut tried = Vec::with_capacity(layouts.len());
        for origin in layouts {
            tried.push(Taking::start(&taker, origin).end().await);
        }
        if !tried.is_empty() {
            let done = self.run(tried, report).await;
            self.clean(done).await?;
        }
        let mut files = files.into_iter();
        let mut tried = match files.next() {
            Some(first) => Some(Taking::start(&taker, first).end().await),
            None => None,
        };
        while let Some(now) = tried {
            let is_stopped = self.stop.is_cancelled();
            let next = files.next().filter(|_| !is_stopped);
            let next = next.map(|origin| Taking::start(&taker, origin));
            let done = self.run(vec![now], report).await;
            tried = match next {
                Some(next) => Some(next.end().await),
                None => None,
            };
            // Only now: what the cache loses is decided while nothing comes in.
            self.clean(done).await?;
        }
        Ok(())
    }

    /// Brings to the target what was taken in. Returns the packages that need not be kept.
    async fn run(&mut self, tried: Vec<Tried>, report: &mut PushReport) -> Vec<Digest> {
        let mut files = Vec::new();
        let mut packages = Vec::new();
        // What a layout has brought is not in the store, and means nothing to the next push.
        let mut done = Vec::new();
        for (origin, taken) in tried {
            match taken.and_then(|taken| self.check(taken)) {
                Ok(taken) => {
                    let digests = taken.records.iter().map(|record| record.digest);
                    packages.extend(digests.clone());
                    if matches!(origin, Origin::Layout(_)) {
                        done.extend(digests);
                    }
                    files.push(FileReport::new(origin.path(), &taken));
                }
                Err(error) => report.files.push(refused(origin.path(), &error)),
            }
        }
        if files.is_empty() {
            return done;
        }
        match self.replicate(&packages).await {
            Ok(brought) => {
                for file in &mut files {
                    file.finish(&brought);
                }
                if self.options.keeping == Keeping::Nothing {
                    done.extend(&brought.in_sync);
                }
                report.add(brought);
            }
            Err(error) => {
                let error = Error::from(error);
                for file in &mut files {
                    file.fail(&error);
                }
            }
        }
        report.files.append(&mut files);
        done
    }

    async fn replicate(&mut self, packages: &[Digest]) -> Result<Brought, replicate::Error> {
        self.watch.begin();
        let presence = match (self.options.work, &self.options.registry) {
            (Work::All | Work::Images, _) => {
                return self.task.run_once(packages, &self.stop).await;
            }
            (Work::Resources, Some(_)) => Presence::Checked,
            (Work::Resources, None) => Presence::Claimed,
        };
        self.task.publish_once(packages, presence).await
    }

    /// Refuses what could be done in part only.
    fn check(&self, taken: Taken) -> Result<Taken, Error> {
        let wants_resources = self.options.platform.is_some() && self.options.work != Work::Images;
        let mut records = taken.records.iter();
        if wants_resources && records.any(|record| record.kind == PackageKind::Chart) {
            return Err(Error::Chart);
        }
        Ok(taken)
    }

    /// Removes packages from the cache, and every blob that no other one keeps.
    async fn clean(&self, packages: Vec<Digest>) -> Result<(), Error> {
        if packages.is_empty() {
            return Ok(());
        }
        let cache = self.cache.parts();
        blocking(move || cache.remove(&packages)).await
    }
}

/// Runs blocking work on the thread pool.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.expect("work on the cache never panics")
}
