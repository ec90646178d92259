//! Packages: do the files of `packages/` and the rows of the catalog say the same?
//!
//! Files and rows are read one at a time; what stays in memory is what packages keep ([`Wanted`]) and their digests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::layout::Names;
use super::pass::Pass;
use super::records::{self, Problem};
use super::wanted::Wanted;
use super::{Code, Error};
use crate::base::Digest;
use crate::catalog::{self, Column, Content, KeptRecord, PackageRecord, PinRecord, Row, Rows};

/// What is known of all packages after they were looked at.
#[derive(Debug, Default)]
pub(super) struct Packages {
    /// Those that are there, sorted: they have a row, or a file where there is no catalog.
    pub(super) ready: Vec<Digest>,
    /// What they keep.
    pub(super) wanted: Wanted,
    /// Pins in those files that can be read: none where a package is not pinned.
    pub(super) pins: BTreeMap<Digest, Option<PinRecord>>,
}

impl Pass<'_> {
    /// Looks at all packages.
    pub(super) fn check_packages(
        &mut self,
        names: &Names,
        catalog: Option<&Rows>,
    ) -> Result<Packages, Error> {
        let mut packages = Packages::default();
        if let Some(catalog) = catalog {
            self.each_row(catalog, Column::Package, |pass, key, row| {
                pass.check_row(names, catalog, &mut packages, (key, row))
            })?;
        }
        // Rows are ordered by digest, as the files are.
        let rows = packages.ready.clone();
        for digest in &names.packages {
            if names.has_removed(digest) {
                let reason = "expected a package that is ready or removed, found it both";
                let path = self.record_path(digest, "packages/removed");
                self.tell_path(Code::TombstoneStale, &path, reason);
            }
            if rows.binary_search(digest).is_err() {
                self.check_unknown(digest, catalog.is_some(), &mut packages)?;
            }
        }
        packages.ready.sort_unstable();
        if let Some(catalog) = catalog {
            self.each_row(catalog, Column::Content, |pass, _, row| {
                if let Row::Content(package, _) = row
                    && rows.binary_search(&package).is_err()
                {
                    let reason = "expected a package, found only what it keeps";
                    pass.tell(Code::ContentOrphan, package, reason);
                }
                Ok(())
            })?;
        }
        packages.wanted.seal();
        Ok(packages)
    }

    /// Looks at the row of a package, its file and what it keeps.
    fn check_row(
        &mut self,
        names: &Names,
        catalog: &Rows,
        packages: &mut Packages,
        (key, row): (&str, Row),
    ) -> Result<(), Error> {
        let Row::Package(record) = row else {
            return Ok(());
        };
        let digest = record.digest;
        packages.ready.push(digest);
        let file = self.check_file_of(names, &record, key)?;
        if let Some(file) = &file {
            packages.pins.insert(digest, file.pin.clone());
        }
        let kept = file.and_then(|file| file.content);
        let row = match catalog.find_content(&digest) {
            // A damaged row is found when all of them are read.
            Err(error) if is_damage(&error) => None,
            found => {
                let found = found?;
                if found.is_none() {
                    let reason = format!("expected what {} keeps, found nothing", shown(&record));
                    self.tell(Code::ContentMissing, digest, reason);
                }
                found
            }
        };
        if let (Some(row), Some(kept)) = (&row, &kept)
            && row != kept
        {
            let (expected, found) = (in_words(kept), in_words(row));
            let reason = format!(
                "expected what the file of {} says, {expected}, found {found}",
                shown(&record)
            );
            self.tell(Code::ContentDiffers, digest, reason);
        }
        if let Some(content) = row.or(kept) {
            self.check_totals(&record, &content);
            packages.wanted.add(digest, &content);
        }
        Ok(())
    }

    /// Looks at the file of a package that has a row. Returns what it says.
    fn check_file_of(
        &mut self,
        names: &Names,
        record: &PackageRecord,
        key: &str,
    ) -> Result<Option<KeptRecord>, Error> {
        let digest = record.digest;
        if !names.has(&digest) {
            // Beside a daemon it may have come between the list and the row.
            if self.record_path(&digest, "packages").exists() {
                return Ok(None);
            }
            let package = shown(record);
            if names.has_removed(&digest) {
                let reason = format!("expected no row of {package}, which was removed, found one");
                self.tell(Code::RemovalUnfinished, key, reason);
            } else {
                let reason = format!("expected a file of {package} in `packages/`, found none");
                self.tell(Code::RecordMissing, key, reason);
            }
            return Ok(None);
        }
        let file = self.read_record(&digest)?;
        if let Some(file) = &file
            && file.package != *record
        {
            let fields = differences(&file.package, record).join("`, `");
            let reason = format!(
                "expected the row of {} to say what its file says, found differences in `{fields}`",
                shown(record)
            );
            self.tell(Code::RecordDiffers, digest, reason);
        }
        Ok(file)
    }

    /// Looks at a file of a package that has no row.
    fn check_unknown(
        &mut self,
        digest: &Digest,
        has_catalog: bool,
        packages: &mut Packages,
    ) -> Result<(), Error> {
        let Some(file) = self.read_record(digest)? else {
            return Ok(());
        };
        if has_catalog {
            let reason = format!(
                "expected a row of {} in the catalog, found none",
                shown(&file.package)
            );
            self.tell(Code::RowMissing, digest, reason);
        }
        if let Some(content) = &file.content {
            self.check_totals(&file.package, content);
            packages.wanted.add(*digest, content);
        }
        packages.ready.push(*digest);
        packages.pins.insert(*digest, file.pin);
        Ok(())
    }

    fn check_totals(&mut self, record: &PackageRecord, content: &Content) {
        let found = (content.entries().len() as u64, content.size_bytes());
        if found != (record.blob_count, record.blob_bytes) {
            let reason = format!(
                "expected {} to keep {} blobs of {} bytes, found {}",
                shown(record),
                record.blob_count,
                record.blob_bytes,
                in_words(content)
            );
            self.tell(Code::TotalsDiffer, record.digest, reason);
        }
    }

    /// Reads the file of a package. Says why, where that fails.
    fn read_record(&mut self, digest: &Digest) -> Result<Option<KeptRecord>, Error> {
        match records::read(self.root, digest) {
            // None: it was removed meanwhile.
            Ok(record) => return Ok(record),
            Err(Problem::Damage(code, reason)) => {
                let path = self.record_path(digest, "packages");
                self.tell_path(code, &path, reason);
            }
            Err(Problem::Other(catalog::Error::Fs(error))) => self.tell_unreadable(error)?,
            Err(Problem::Other(error)) => return Err(error.into()),
        }
        Ok(None)
    }

    fn record_path(&self, digest: &Digest, folder: &str) -> PathBuf {
        self.root
            .join(folder)
            .join(format!("{}.json", digest.hex()))
    }
}

/// Returns whether an error means that a row is damaged, rather than that nothing can be read.
pub(super) const fn is_damage(error: &catalog::Error) -> bool {
    matches!(
        error,
        catalog::Error::Empty { .. }
            | catalog::Error::Garbled { .. }
            | catalog::Error::Decode { .. }
            | catalog::Error::Format { .. }
    )
}

/// Returns a package in words: its name and version.
pub(super) fn shown(record: &PackageRecord) -> String {
    match &record.version {
        Some(version) => format!("{} {version}", record.name),
        None => record.name.to_string(),
    }
}

fn in_words(content: &Content) -> String {
    let (count, bytes) = (content.entries().len(), content.size_bytes());
    format!("{count} blobs of {bytes} bytes")
}

/// Returns the names of the fields in which two records differ.
fn differences(expected: &PackageRecord, found: &PackageRecord) -> Vec<String> {
    let fields = |record| match serde_json::to_value(record) {
        Ok(serde_json::Value::Object(fields)) => fields,
        Ok(_) | Err(_) => serde_json::Map::new(),
    };
    let (expected, found) = (fields(expected), fields(found));
    let names = expected.keys().chain(found.keys());
    let mut names: Vec<String> = names
        .filter(|name| expected.get(*name) != found.get(*name))
        .cloned()
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
