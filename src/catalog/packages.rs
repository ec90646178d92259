//! What is asked and changed of packages: their records, what they keep in the store, and their pins.

use std::sync::{Arc, MutexGuard};

use super::column::{self, Column};
use super::database::{Changes, Start};
use super::index::digest_of;
use super::record::{Content, IngestRecord, NewPackage, PackageRecord, PackageSummary, PinRecord};
use super::{Catalog, Error, KeptRecord, codec, kept, reconcile};
use crate::base::Digest;

impl Catalog {
    /// Returns the package whose file has this digest.
    pub fn find_package(&self, digest: &Digest) -> Result<Option<PackageRecord>, Error> {
        self.find(Column::Package, column::package_key(digest))
    }

    /// Lists all packages, ordered by the time at which they became ready, then by digest.
    ///
    /// All of them are decoded and in memory: for many packages see [`Self::summaries`] and [`Self::for_each_package`].
    pub fn list_packages(&self) -> Result<Vec<PackageRecord>, Error> {
        let mut packages: Vec<PackageRecord> = self.list(Column::Package, &[])?;
        packages.sort_by_key(|package| (package.ready_at, package.digest));
        Ok(packages)
    }

    /// Calls `see` with every package, ordered by digest. Only one is in memory at a time.
    pub fn for_each_package<E: From<Error>>(
        &self,
        mut see: impl FnMut(PackageRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        for row in self.0.database.scan(Column::Package, &[], Start::First) {
            let (key, row) = row?;
            see(codec::decode(Column::Package, &key, &row)?)?;
        }
        Ok(())
    }

    /// Returns what is shown of all packages, in the order of [`Self::list_packages`]. No row is read.
    pub fn summaries(&self) -> Vec<Arc<PackageSummary>> {
        self.index().summaries().cloned().collect()
    }

    /// Returns how many packages there are.
    pub fn package_count(&self) -> usize {
        self.index().summaries().len()
    }

    /// Puts packages, together with the state of the file that brought them: all or nothing.
    ///
    /// After a failure none of them is ready; they may be after a restart, and what they keep counts as kept until then.
    pub fn commit_packages(
        &self,
        packages: &[NewPackage],
        ingest: &IngestRecord,
    ) -> Result<(), Error> {
        self.0.database.check_writable()?;
        let _alone = self.changing();
        let mut changes = Changes::default();
        let mut files = Vec::with_capacity(packages.len());
        for NewPackage { record, content } in packages {
            let kept = KeptRecord {
                package: record.clone(),
                content: Some(content.clone()),
                pin: self.find_pin(&record.digest)?,
            };
            reconcile::put_record(&mut changes, &kept)?;
            let bytes = kept::encode(record, Some(content), kept.pin.as_ref())?;
            files.push((record.digest, bytes));
        }
        let row = codec::encode(Column::Ingest, ingest)?;
        changes.put(Column::Ingest, ingest.path.as_str(), row);
        self.settle(packages, &files, changes)?;
        let mut index = self.index();
        for package in packages {
            index.put_package(&package.record);
        }
        index.put_ingest(ingest);
        Ok(())
    }

    /// Writes the record files of packages, then their rows.
    fn settle(
        &self,
        packages: &[NewPackage],
        files: &[(Digest, Vec<u8>)],
        changes: Changes,
    ) -> Result<(), Error> {
        if !packages.is_empty() {
            // Before the first file is there: whoever looks for what is kept finds it here or in the rows.
            let contents = packages
                .iter()
                .map(|package| (package.record.digest, package.content.clone()));
            self.index().unsettled.extend(contents);
            self.added().extend(files.iter().map(|(digest, _)| digest));
            self.0.kept.write(files)?;
            self.0
                .kept
                .forget_removed(files.iter().map(|(digest, _)| digest))?;
        }
        self.0.database.write(changes)
    }

    /// Removes a package, what it keeps and its pin. Returns whether it was there. Its blobs stay until they are collected;
    /// since when nobody keeps them is forgotten, as some may have been condemned before this package came.
    ///
    /// After a failure the package may be there until a restart, and be gone then.
    pub fn remove_package(&self, digest: &Digest) -> Result<bool, Error> {
        self.0.database.check_writable()?;
        let _alone = self.changing();
        let is_there = self.index().contains(digest);
        let mut changes = Changes::default();
        for (blob, _) in self.find_content(digest)?.iter().flat_map(Content::entries) {
            changes.delete(Column::Condemned, blob.as_bytes().as_slice());
        }
        self.0.kept.remove(digest)?;
        reconcile::delete_record(&mut changes, digest);
        self.0.database.write(changes)?;
        self.index().remove_package(digest);
        Ok(is_there)
    }

    /// Returns how many packages have become ready since this was opened: a mark for [`Self::list_added`].
    pub fn added_count(&self) -> usize {
        self.added().len()
    }

    /// Lists the packages that became ready after the mark was taken, whether or not they are still there, and those that
    /// are about to.
    pub fn list_added(&self, mark: usize) -> Vec<Digest> {
        self.added()[mark..].to_vec()
    }

    fn added(&self) -> MutexGuard<'_, Vec<Digest>> {
        self.0.added.lock().expect("no holder of this lock panics")
    }

    /// Returns what a package keeps in the store, also of one that is about to become ready.
    pub fn find_content(&self, package: &Digest) -> Result<Option<Content>, Error> {
        if let Some(content) = self.index().unsettled.get(package) {
            return Ok(Some(content.clone()));
        }
        let key = column::package_key(package);
        let row = self.0.database.get(Column::Content, key)?;
        row.map(|row| codec::decode_content(key, &row)).transpose()
    }

    /// Calls `see` with every package and what it keeps, ordered by digest, after those that are about to become ready. Only
    /// one is in memory at a time.
    ///
    /// Packages of which nobody knows what they keep are left out: who must not miss them asks [`Self::check_contents_known`]
    /// before.
    pub fn for_each_content<E: From<Error>>(
        &self,
        mut see: impl FnMut(Digest, Content) -> Result<(), E>,
    ) -> Result<(), E> {
        let unsettled = self.index().unsettled.clone();
        for (package, content) in &unsettled {
            see(*package, content.clone())?;
        }
        for row in self.0.database.scan(Column::Content, &[], Start::First) {
            let (key, row) = row?;
            let content = codec::decode_content(&key, &row)?;
            let package = digest_of(Column::Content, &key)?;
            if !unsettled.contains_key(&package) {
                see(package, content)?;
            }
        }
        Ok(())
    }

    /// Fails with [`Error::ContentUnknown`] where nobody knows of a package what it keeps in the store: what is kept by no
    /// package can then not be said.
    pub fn check_contents_known(&self) -> Result<(), Error> {
        match self.index().without_content().first() {
            Some(package) => Err(Error::ContentUnknown { package: *package }),
            None => Ok(()),
        }
    }

    /// Lists the packages of which nobody knows what they keep in the store, ordered by digest: those of a version that did
    /// not write it down. Whoever has the store reads it from their manifests, and says it by [`Self::put_content`].
    pub fn list_without_content(&self) -> Vec<Digest> {
        self.index().without_content().iter().copied().collect()
    }

    /// Puts what a package keeps in the store, in place of what was said before.
    pub fn put_content(&self, package: &Digest, content: &Content) -> Result<(), Error> {
        self.change_package(package, |kept| kept.content = Some(content.clone()))?;
        self.index().put_content(package);
        Ok(())
    }

    /// Puts a pin, in place of the one before of the same package, which must be there.
    pub fn put_pin(&self, pin: &PinRecord) -> Result<(), Error> {
        self.change_package(&pin.package, |kept| kept.pin = Some(pin.clone()))
    }

    /// Removes the pin of a package. That it had none, or is not there, is a success.
    pub fn remove_pin(&self, package: &Digest) -> Result<(), Error> {
        match self.change_package(package, |kept| kept.pin = None) {
            Err(Error::NoPackage { .. }) => Ok(()),
            result => result,
        }
    }

    /// Lists the pins, ordered by the digest of the package.
    pub fn list_pins(&self) -> Result<Vec<PinRecord>, Error> {
        self.list(Column::Pin, &[])
    }

    /// Returns the pin of a package, if it has one.
    pub fn find_pin(&self, package: &Digest) -> Result<Option<PinRecord>, Error> {
        self.find(Column::Pin, column::package_key(package))
    }

    /// Writes the record file of a package again from its rows, in place of one that is damaged or lost.
    pub fn rewrite_record(&self, package: &Digest) -> Result<(), Error> {
        self.change_package(package, |_| {})
    }

    /// Reads the record file of a package, if there is one, without looking at the rows.
    pub fn read_record(&self, package: &Digest) -> Result<Option<KeptRecord>, Error> {
        self.0.kept.read(package)
    }

    /// Lists the packages that have record files, ordered by digest, without reading them.
    pub fn list_records(&self) -> Result<Vec<Digest>, Error> {
        Ok(self.0.kept.list()?.ready.into_iter().collect())
    }

    /// Changes what is written down of a package: its record file first, then its rows.
    fn change_package(
        &self,
        package: &Digest,
        change: impl FnOnce(&mut KeptRecord),
    ) -> Result<(), Error> {
        self.0.database.check_writable()?;
        let _alone = self.changing();
        let record = self.find_package(package)?;
        let mut kept = KeptRecord {
            package: record.ok_or(Error::NoPackage { package: *package })?,
            content: self.find_content(package)?,
            pin: self.find_pin(package)?,
        };
        change(&mut kept);
        let bytes = kept::encode(&kept.package, kept.content.as_ref(), kept.pin.as_ref())?;
        let mut changes = Changes::default();
        reconcile::put_record(&mut changes, &kept)?;
        self.0.kept.write_next(*package, bytes)?;
        self.0.database.write(changes)?;
        self.0.kept.finish_next(package)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.0
            .changing
            .lock()
            .expect("no holder of this lock panics")
    }
}
