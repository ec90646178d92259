//! Sets up retention and collection: in the daemon, and for commands on a state directory that no daemon uses.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Error, open_state, wire};
use crate::audit;
use crate::base::{Clock, SystemClock};
use crate::catalog::Catalog;
use crate::config::{Config, RetainRule};
use crate::http::retain::Control;
use crate::retain::job::{Handle, Job, Work};
use crate::retain::{Collector, Counters, Destination, Planner, Policy, Retention, Rule};
use crate::store::Store;
use crate::sys::lock::Lock;
use crate::task::{self, Timetable};

/// A state directory that is this process's own for as long as this lives.
#[derive(Debug)]
pub struct Owned {
    /// What removes packages, plans and pins.
    pub retention: Retention,
    /// What removes blobs.
    pub collector: Collector,
    _lock: Lock,
}

/// Takes the state directory of a daemon that does not run, to change it. One that is not there is not made, and one that
/// belongs to another user is left to that one.
pub fn own(config: &Config) -> Result<Owned, Error> {
    Store::open_read_only(&config.state_dir)?;
    let lock = Lock::acquire_as_owner(&config.state_dir.join("LOCK"))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (store, catalog) = open_state(config, clock.now())?;
    let counters = Arc::new(Counters::default());
    Ok(Owned {
        retention: Retention {
            planner: new_planner(config, &catalog, &clock),
            audit: wire::audit(config, clock.now())?,
            counters: Arc::clone(&counters),
        },
        collector: Collector {
            store,
            catalog,
            clock,
            grace: config.collect.grace,
            counters,
        },
        _lock: lock,
    })
}

/// Opens the state directory for reading, to say what retention would do.
pub fn read_planner(config: &Config) -> Result<Planner, Error> {
    let catalog = Catalog::open_read_only(&config.state_dir)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Ok(new_planner(config, &catalog, &clock))
}

/// Opens the state directory for reading, to say what collection would do.
pub fn read_collector(config: &Config) -> Result<Collector, Error> {
    Ok(Collector {
        store: Store::open_read_only(&config.state_dir)?,
        catalog: Catalog::open_read_only(&config.state_dir)?,
        clock: Arc::new(SystemClock),
        grace: config.collect.grace,
        counters: Arc::default(),
    })
}

/// Starts the tasks.
pub(super) fn start(
    config: &Config,
    (store, catalog, audit): (&Store, &Catalog, &audit::Log),
    clock: &Arc<dyn Clock>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Control, Error> {
    let (retain, collect) = timetables(config)?;
    let counters = Arc::new(Counters::default());
    let planner = new_planner(config, catalog, clock);
    let retention = Retention {
        planner: planner.clone(),
        audit: audit.clone(),
        counters: Arc::clone(&counters),
    };
    let collector = Collector {
        store: store.clone(),
        catalog: catalog.clone(),
        clock: Arc::clone(clock),
        grace: config.collect.grace,
        counters: Arc::clone(&counters),
    };
    let parts = (catalog, clock);
    Ok(Control {
        planner,
        retention: drive(retention, parts, retain, tasks, stop),
        collection: drive(collector, parts, collect, tasks, stop),
        counters,
    })
}

fn drive<W: Work + 'static>(
    work: W,
    (catalog, clock): (&Catalog, &Arc<dyn Clock>),
    timetable: Option<Arc<dyn Timetable>>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Handle<W> {
    let (job, handle) = Job::new(work, catalog.clone(), Arc::clone(clock), timetable);
    let (status, _) = watch::channel(task::Status::default());
    tasks.spawn(task::drive(job, handle.activator(), status, stop.clone()));
    handle
}

/// When retention and when collection is due; nothing for what is done on request only.
pub(super) type Timetables = (Option<Arc<dyn Timetable>>, Option<Arc<dyn Timetable>>);

/// Returns when both are due.
pub(super) fn timetables(config: &Config) -> Result<Timetables, Error> {
    let timetable = |section, schedule: &Option<String>, time_zone: &str| match schedule {
        Some(expression) => {
            let timetable = wire::job_timetable(section, expression, time_zone)?;
            Ok::<_, Error>(Some(timetable as Arc<dyn Timetable>))
        }
        None => Ok(None),
    };
    let (retain, collect) = (&config.retain, &config.collect);
    Ok((
        timetable("retain", &retain.schedule, &retain.time_zone)?,
        timetable("collect", &collect.schedule, &collect.time_zone)?,
    ))
}

fn new_planner(config: &Config, catalog: &Catalog, clock: &Arc<dyn Clock>) -> Planner {
    let destinations = config.targets.iter().map(|target| Destination {
        name: target.name.clone(),
        packages: target.packages.clone(),
    });
    Planner {
        catalog: catalog.clone(),
        policy: Policy {
            rules: config.retain.rules.iter().map(rule).collect(),
        },
        destinations: destinations.collect(),
        clock: Arc::clone(clock),
        lock: Arc::new(Mutex::new(())),
    }
}

fn rule(rule: &RetainRule) -> Rule {
    Rule {
        names: rule.names.clone(),
        kinds: rule.kinds.clone(),
        keep_last: usize::try_from(rule.keep_last).unwrap_or(usize::MAX),
        keep_younger: rule.keep_younger,
        keeps_published: rule.keep_published,
    }
}
