//! What a state directory holds whose daemon does not run.

use super::{Error, wire};
use crate::base::{Clock as _, Digest, SystemClock, TargetName};
use crate::catalog::{self, Catalog, Source};
use crate::config::{self, Config};
use crate::http::report::{self, ReportView};
use crate::http::status::{self, Described};
use crate::http::view::{DiskView, PackageDetailView, StatusView};
use crate::replicate::Role;
use crate::replicate::wanted::Filter;

/// The catalog of a daemon that does not run, open for reading. Nothing is changed there.
#[derive(Debug)]
pub struct Stopped<'a> {
    config: &'a Config,
    catalog: Catalog,
}

impl<'a> Stopped<'a> {
    /// Opens what the daemon with this configuration has left.
    pub fn open(config: &'a Config) -> Result<Self, Error> {
        let catalog = Catalog::open_read_only(&config.state_dir)?;
        Ok(Self { config, catalog })
    }

    /// Returns where the catalog has what it says from.
    pub fn source(&self) -> Source {
        self.catalog.source()
    }

    /// Returns what the catalog knows.
    pub fn status(&self) -> Result<StatusView, Error> {
        let disk = wire::disk(self.config);
        let disk = DiskView::new(disk.look()?, disk.marks());
        let targets = self.config.targets.iter();
        let targets: Vec<_> = targets
            .map(|target| {
                let filter = Filter::new(target.packages.clone());
                (target, target.registry.address.to_string(), filter)
            })
            .collect();
        let described: Vec<_> = targets
            .iter()
            .map(|(target, registry, filter)| Described {
                name: &target.name,
                role: role(target.role),
                registry,
                filter,
            })
            .collect();
        let status = status::stopped(&self.catalog, disk, &described, SystemClock.now())?;
        Ok(status)
    }

    /// Returns what the last run of a target did; nothing where there was none.
    pub fn report(&self, target: &TargetName) -> Result<Option<ReportView>, Error> {
        Ok(report::find(&self.catalog, target)?)
    }

    /// Returns all that the catalog knows of a package.
    pub fn package(&self, digest: &Digest) -> Result<PackageDetailView, Error> {
        let package = self.catalog.find_package(digest)?;
        let package = package.ok_or(catalog::Error::NoPackage { package: *digest })?;
        let mut in_sync_on = Vec::new();
        for target in &self.config.targets {
            let record = self.catalog.find_target(&target.name)?;
            if record.is_some_and(|record| record.synced_packages.contains(digest)) {
                in_sync_on.push(target.name.clone());
            }
        }
        Ok(PackageDetailView {
            package,
            in_sync_on,
            pin: self.catalog.find_pin(digest)?,
        })
    }
}

/// Returns what part a target plays.
pub(super) const fn role(role: config::Role) -> Role {
    match role {
        config::Role::Primary => Role::Primary,
        config::Role::Standby => Role::Standby,
    }
}
