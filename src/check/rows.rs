//! The catalog: can every row be read, and does what it names exist?

use super::layout::Names;
use super::packages::{Packages, is_damage};
use super::pass::Pass;
use super::{Code, Depth, Error};
use crate::base::{Chain, Class, Classified as _, Digest, TargetName, Timestamp};
use crate::catalog::{self, Column, IngestRecord, IngestState, PinRecord, Row, Rows};

/// How often a catalog is opened that its daemon changes at that moment.
const ATTEMPTS_MAX: u32 = 5;

/// What rows say about blobs.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Blobs that waiting files expect, sorted.
    pub(super) expected: Vec<Digest>,
    /// Blobs that are listed for collection, since when, ordered by digest.
    pub(super) condemned: Vec<(Digest, Timestamp)>,
}

impl Pass<'_> {
    /// Opens the catalog as it is now. Nothing if there is none that can be read, which is said.
    pub(super) fn open_catalog(&mut self) -> Result<Option<Rows>, Error> {
        let mut attempts = 1;
        loop {
            match Rows::open(self.root) {
                Err(error) if error.class() == Class::Transient && attempts < ATTEMPTS_MAX => {
                    attempts += 1;
                }
                Err(error) => return self.tell_catalog(error).map(|()| None),
                Ok(catalog) => return Ok(Some(catalog)),
            }
        }
    }

    /// Says what is wrong with the whole catalog. What may pass, or is nobody's fault, is no finding.
    fn tell_catalog(&mut self, error: catalog::Error) -> Result<(), Error> {
        let is_transient = error.class() == Class::Transient;
        let code = if matches!(error, catalog::Error::NoCatalog { .. }) {
            Code::CatalogMissing
        } else if matches!(error, catalog::Error::UnknownColumn { .. }) {
            Code::CatalogUnknown
        } else if matches!(error, catalog::Error::Corrupt { .. }) || is_transient && !self.is_owned
        {
            Code::CatalogCorrupt
        } else {
            return Err(error.into());
        };
        self.tell(code, "catalog", Chain(&error).to_string());
        Ok(())
    }

    /// Calls `see` with every row of a column that can be read, and says which cannot.
    pub(super) fn each_row(
        &mut self,
        catalog: &Rows,
        column: Column,
        mut see: impl FnMut(&mut Self, &str, Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let scanned = catalog.for_each(column, |key, row| match row {
            Ok(row) => see(self, key, row),
            Err(error) if is_damage(&error) => {
                let subject = format!("{}/{key}", column.name());
                self.tell(Code::RowCorrupt, subject, Chain(&error).to_string());
                Ok(())
            }
            Err(error) => Err(error.into()),
        });
        match scanned {
            Err(Error::Catalog(error)) if is_damage(&error) || is_broken(&error) => {
                self.tell_catalog(error)
            }
            result => result,
        }
    }

    /// Looks at the rows that belong to no single package.
    pub(super) fn check_rows(
        &mut self,
        names: &Names,
        packages: &Packages,
        catalog: &Rows,
    ) -> Result<Uses, Error> {
        let mut uses = Uses::default();
        self.check_pins(packages, catalog)?;
        self.each_row(catalog, Column::Ingest, |pass, _, row| {
            if let Row::Ingest(ingest) = row {
                uses.expected.extend(ingest.state.kept());
                pass.check_ingest(&ingest, names, packages);
            }
            Ok(())
        })?;
        uses.expected.sort_unstable();
        self.each_row(catalog, Column::Condemned, |_, _, row| {
            if let Row::Condemned(digest, record) = row {
                uses.condemned.push((digest, record.since));
            }
            Ok(())
        })?;
        self.each_row(catalog, Column::Target, |pass, _, row| {
            if let Row::Target(target) = row {
                pass.check_target(&target.target);
            }
            Ok(())
        })?;
        let more: &[Column] = match self.options.depth {
            Depth::Quick => &[Column::Job],
            Depth::Deep => &[
                Column::Job,
                Column::Placement,
                Column::Run,
                Column::Report,
                Column::Upload,
                Column::Held,
            ],
        };
        for column in more {
            self.each_row(catalog, *column, |_, _, _| Ok(()))?;
        }
        Ok(uses)
    }

    fn check_pins(&mut self, packages: &Packages, catalog: &Rows) -> Result<(), Error> {
        let mut expected = packages.pins.clone();
        self.each_row(catalog, Column::Pin, |pass, _, row| {
            let Row::Pin(pin) = row else {
                return Ok(());
            };
            if packages.ready.binary_search(&pin.package).is_err() {
                let reason = "expected a pin of a package that is there, found none of this digest";
                pass.tell(Code::PinOrphan, pin.package, reason);
            }
            if let Some(file) = expected.remove(&pin.package)
                && file.as_ref() != Some(&pin)
            {
                pass.tell_pin(&pin.package, file.as_ref(), Some(&pin));
            }
            Ok(())
        })?;
        for (package, pin) in expected {
            if pin.is_some() {
                self.tell_pin(&package, pin.as_ref(), None);
            }
        }
        Ok(())
    }

    fn tell_pin(&mut self, package: &Digest, file: Option<&PinRecord>, row: Option<&PinRecord>) {
        let words = |pin: Option<&PinRecord>| match pin {
            Some(pin) => format!("pinned at {}", pin.pinned_at.to_rfc3339()),
            None => "not pinned".to_owned(),
        };
        let reason = format!(
            "expected it {} as the file says, found it {} in the catalog",
            words(file),
            words(row)
        );
        self.tell(Code::PinDiffers, package, reason);
    }

    /// Says where a file is ready and its packages are not there and were not removed.
    fn check_ingest(&mut self, ingest: &IngestRecord, names: &Names, packages: &Packages) {
        let IngestState::Ready {
            package, nested, ..
        } = &ingest.state
        else {
            return;
        };
        // A file that carries others may be no package itself.
        let own = nested.is_empty().then_some(package);
        for digest in own.into_iter().chain(nested) {
            if packages.ready.binary_search(digest).is_err() && !names.has_removed(digest) {
                let reason = format!("expected package {digest}, found none");
                self.tell(Code::IngestOrphan, &ingest.path, reason);
            }
        }
    }

    fn check_target(&mut self, target: &TargetName) {
        let Some(configured) = &self.options.targets else {
            return;
        };
        if !configured.contains(target) {
            let reason = "expected a target of the configuration, found one that is not there";
            self.tell(Code::TargetUnknown, target, reason);
        }
    }
}

/// Returns whether an error means that the database is damaged.
fn is_broken(error: &catalog::Error) -> bool {
    matches!(
        error.class(),
        Class::Corrupt | Class::Transient | Class::Absent
    )
}
