//! The daemon: start, run, stop.
//!
//! # Start
//!
//! 1. The state directory is locked.
//! 2. Store, catalog, audit record and keys are opened. What an older version has not written down is derived.
//! 3. Targets are set up; two that end at the same server are refused.
//! 4. The admin socket listens.
//! 5. The tasks run: one per target, retention, collection, scrub, then ingest.
//! 6. systemd is told that the service is ready.
//!
//! # Stop
//!
//! 1. SIGTERM or SIGINT; systemd is told.
//! 2. Every task finishes the step that it is in, within [`STOP_MAX`]. What is cut off then is found undone at the next
//!    start, exactly as after SIGKILL.

mod content;
mod error;
mod kept;
pub mod push;
mod reach;
mod retain;
mod scrub;
mod stopped;
mod sweep;
mod timetable;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::content::derive_contents;
pub use self::error::Error;
pub use self::retain::{Owned, own, read_collector, read_planner};
pub use self::stopped::Stopped;
use crate::base::{Clock, SystemClock, Timestamp};
use crate::catalog::Catalog;
use crate::config::{self, Config};
use crate::http::status::{Sources, TargetSource};
use crate::http::{listen_tcp, listen_unix, serve_tcp, serve_unix};
use crate::ingest::{self, Ingest};
use crate::registry;
use crate::replicate::{self, Replicate, Target};
use crate::store::Store;
use crate::sys::lock::Lock;
use crate::sys::watch::Watcher;
use crate::sys::{fs as durable, notify, signal};
use crate::task::{self, Activator};

/// How long tasks may take to stop. Below systemd's default of 90 s (`TimeoutStopSec`).
pub const STOP_MAX: Duration = Duration::from_mins(1);

/// Returns how the registry of a target is reached, for commands that ask it without a daemon.
pub fn target_registry(
    config: &Config,
    target: &config::Target,
) -> Result<registry::Options, Error> {
    reach::registry_options(config, target)
}

/// Runs the daemon until it is told to stop.
pub async fn run(config: Config) -> Result<(), Error> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    durable::ensure_dir_all(&config.state_dir)?;
    let _lock = Lock::acquire(&config.state_dir.join("LOCK"))?;

    let (store, catalog) = open_state(&config, clock.now())?;
    let disk = wire::disk(&config);
    let ingest_options = wire::ingest_options(&config)?;
    let audit = wire::audit(&config, clock.now())?;
    wire::prepare(&config)?;
    wire::check_shared(&config).await?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let parts = replicate::Parts {
        store: store.clone(),
        catalog: catalog.clone(),
        clock: Arc::clone(&clock),
    };
    let targets = start_targets(&config, &parts, &mut tasks, &stop)?;

    let scrub = scrub::start(&config, (&store, &catalog), &clock, &mut tasks, &stop)?;
    let activator = Activator::default();
    let parts = ingest::Parts {
        store: store.clone(),
        catalog: catalog.clone(),
        audit: audit.clone(),
        disk: Arc::clone(&disk),
        clock: Arc::clone(&clock),
        watcher: Watcher::start(wire::drop_folders(&config), activator.as_notify())?,
        on_ready: targets
            .iter()
            .map(|target| target.handle.activator())
            .chain([scrub.activator()])
            .collect(),
    };
    let (ingest, notes, ingest_counters) = Ingest::new(ingest_options, parts);
    let (ingest_status, ingest_receiver) = watch::channel(task::Status::default());
    let retain = retain::start(
        &config,
        (&store, &catalog, &audit),
        &clock,
        &mut tasks,
        &stop,
    )?;
    let sources = Sources {
        retain,
        scrub,
        catalog,
        disk,
        started_at: clock.now(),
        clock,
        notes,
        ingest: ingest_receiver,
        ingest_counters,
        targets,
    };
    listen(&config.admin, sources, &mut tasks, &stop).await?;

    tasks.spawn(task::drive(ingest, activator, ingest_status, stop.clone()));

    notify::ready("watching the drop folders");
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        state_dir = %config.state_dir.display(),
        targets = config.targets.len(),
        "daemon is ready"
    );
    let name = wait(&mut tasks).await?;
    tracing::info!(signal = name, "daemon stops");
    notify::stopping();
    stop.cancel();
    drain(tasks).await;
    Ok(())
}

/// Opens what the daemon keeps, brings it up to date, and removes what an earlier process had not finished.
fn open_state(config: &Config, now: Timestamp) -> Result<(Store, Catalog), Error> {
    let store = Store::open(&config.state_dir)?;
    let catalog = Catalog::open(&config.state_dir)?;
    derive_contents(&store, &catalog)?;
    sweep::sweep(config, now);
    Ok((store, catalog))
}

/// Offers the admin API.
async fn listen(
    admin: &config::Admin,
    sources: Sources,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let listener = listen_unix(&admin.socket)?;
    tasks.spawn(serve_unix(listener, sources.clone(), stop.clone()));
    if let Some(address) = admin.listen {
        let listener = listen_tcp(&address.to_string()).await?;
        tasks.spawn(serve_tcp(listener, sources, stop.clone()));
    }
    Ok(())
}

/// Starts the tasks of all targets.
fn start_targets(
    config: &Config,
    parts: &replicate::Parts,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Vec<TargetSource>, Error> {
    let mut targets = Vec::with_capacity(config.targets.len());
    for target in &config.targets {
        let target = wire::target(config, target)?;
        let options = wire::replicate_options(config);
        targets.push(start_target(target, options, parts.clone(), tasks, stop));
    }
    Ok(targets)
}

/// Starts the task of one target.
fn start_target(
    target: Target,
    options: replicate::Options,
    parts: replicate::Parts,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> TargetSource {
    let (name, role, filter) = (target.name.clone(), target.role, target.filter.clone());
    let registry = target.registry.address().to_owned();
    let (task, handle) = Replicate::new(target, options, parts);
    let (status, _) = watch::channel(task::Status::default());
    tasks.spawn(task::drive(task, handle.activator(), status, stop.clone()));
    TargetSource {
        name,
        role,
        registry,
        filter,
        handle,
    }
}

/// Tells systemd that the process lives, until a signal comes.
///
/// A task that panics takes the daemon down: systemd starts it again, and the state on disk is sound at every moment.
async fn wait(tasks: &mut JoinSet<()>) -> Result<&'static str, Error> {
    let period = notify::watchdog_period().unwrap_or(Duration::from_hours(1));
    let mut alive = tokio::time::interval(period);
    let signal = signal::shutdown();
    tokio::pin!(signal);
    loop {
        tokio::select! {
            name = &mut signal => return name.map_err(Error::Signal),
            _ = alive.tick() => notify::alive(),
            Some(Err(error)) = tasks.join_next() => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

/// Waits until every task has stopped, or [`STOP_MAX`] is over.
async fn drain(mut tasks: JoinSet<()>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_MAX, all).await.is_err() {
        tracing::warn!(
            seconds = STOP_MAX.as_secs(),
            "tasks did not stop in time and are cut off"
        );
    }
}

/// Checks what can be checked of a configuration without starting: schedules, keys, secrets, certificates.
pub fn check(config: &Config) -> Result<(), Error> {
    wire::ingest_options(config)?;
    retain::timetables(config)?;
    scrub::timetable(config)?;
    for target in &config.targets {
        wire::target(config, target)?;
    }
    Ok(())
}
