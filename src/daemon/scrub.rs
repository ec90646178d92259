//! Sets up scrub: its budget, who is asked for what is damaged, when it is due.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::kept::KeptFolders;
use super::{Error, reach, wire};
use crate::base::Clock;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::registry::Client;
use crate::retain::job::Job;
use crate::retain::repair::{Origin, RegistryOrigin, Repairer};
use crate::retain::scrub::{Control, Options, Parts, Repairs, Scrub};
use crate::store::Store;
use crate::task::{self, Timetable};

/// Starts the task.
pub(super) fn start(
    config: &Config,
    (store, catalog): (&Store, &Catalog),
    clock: &Arc<dyn Clock>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Control, Error> {
    let repairer = Repairer {
        store: store.clone(),
        origins: origins(config)?,
        files: Arc::new(KeptFolders::new(config)),
        limits: wire::package_limits(&config.limits),
    };
    let parts = Parts {
        catalog: catalog.clone(),
        clock: Arc::clone(clock),
        repairer,
    };
    let (scrub, overview) = Scrub::new(options(config), parts)?;
    let timetable = timetable(config)?;
    let (job, handle) = Job::new(scrub, catalog.clone(), Arc::clone(clock), timetable);
    let (status, _) = watch::channel(task::Status::default());
    tasks.spawn(task::drive(job, handle.activator(), status, stop.clone()));
    let control = Control::new(handle, overview, store.clone());
    tasks.spawn(control.clone().keep_on(stop.clone()));
    Ok(control)
}

fn options(config: &Config) -> Options {
    Options {
        bytes_per_second: config.scrub.bytes_per_second.0,
        repair: if config.scrub.repair {
            Repairs::On
        } else {
            Repairs::Off
        },
    }
}

/// Returns the registries of the targets, in the order of the configuration.
fn origins(config: &Config) -> Result<Vec<Arc<dyn Origin>>, Error> {
    let mut origins: Vec<Arc<dyn Origin>> = Vec::with_capacity(config.targets.len());
    for target in &config.targets {
        let options = reach::registry_options(config, target)?;
        let client = Client::new(options).map_err(|source| Error::Registry {
            target: target.name.clone(),
            source,
        })?;
        origins.push(Arc::new(RegistryOrigin {
            target: target.name.clone(),
            client,
        }));
    }
    Ok(origins)
}

/// Returns when passes begin; nothing where they do on request only.
pub(super) fn timetable(config: &Config) -> Result<Option<Arc<dyn Timetable>>, Error> {
    let Some(expression) = &config.scrub.schedule else {
        return Ok(None);
    };
    let timetable = wire::job_timetable("scrub", expression, &config.scrub.time_zone)?;
    Ok(Some(timetable))
}
