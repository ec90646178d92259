//! Takes one file, or one package in parts, as far as it goes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::import::{self, Imported};
use super::listing::Candidate;
use super::settle::Stamp;
use super::state::{self, Event};
use super::waiting::Found;
use super::{AfterReady, Error, Folder, Ingest, Wait};
use crate::audit::Verdict;
use crate::base::{Chain, Class, Classified as _, Digest};
use crate::catalog::{IngestRecord, IngestState, NewPackage, PackageRecord};
use crate::package;
use crate::store::Committed;
use crate::task::Activator;
use crate::verify::{self, Source};

impl Ingest {
    /// Takes one candidate as far as it goes.
    pub(super) async fn advance(
        &mut self,
        folder: &Folder,
        candidate: &Candidate,
        stop: &CancellationToken,
    ) -> Result<Option<Wait>, Error> {
        let mut record = self.record_of(folder, &candidate.path, candidate.stamp)?;
        if state::is_final(&record.state) {
            self.clear_away(folder, candidate, &record)?;
            return Ok(None);
        }
        if let Some(wait) = self.wait_for_base(folder, &mut record)? {
            return Ok(Some(wait));
        }
        let source = match self.wait_for_files(folder, candidate) {
            Ok(Found::Waits(wait)) => return Ok(Some(wait)),
            Ok(Found::Complete(source)) => Ok(source),
            // A table that will never be one is refused below, like a file that will never be a package.
            Err(error) if error.class() == Class::Rejected => Err(error),
            Err(error) => return Err(error),
        };
        if let Some(wait) = self.wait_for_retry(&candidate.path)? {
            return Ok(Some(wait));
        }
        // The record of a file that waits keeps what it builds on; from here to its next record this does.
        let base = self.importer.store.lease();
        record.state.kept().for_each(|digest| base.add(*digest));
        // What was read at an earlier attempt says nothing of this one.
        record.digest = None;
        self.transition(&mut record, Event::Settled)?;
        let processed = match source {
            Ok(source) => self.process(folder, &mut record, source, stop).await,
            Err(error) => Err(error),
        };
        match processed {
            Ok(()) => {}
            Err(Error::Package(package::Error::BaseMissing { expected, missing })) => {
                tracing::info!(path = %candidate.path.display(), blobs = missing.len(), "package waits for what it builds on");
                let mut present = expected;
                present.retain(|digest| !missing.contains_key(digest));
                self.transition(&mut record, Event::BaseMissing { missing, present })?;
                return self.wait_for_base(folder, &mut record);
            }
            Err(error) if error.class() == Class::Rejected => {
                self.recorder.refused(folder, &record, &error, stop).await?;
                self.refuse(&mut record, &error)?;
            }
            Err(error) => return Err(error),
        }
        self.clear_away(folder, candidate, &record)?;
        Ok(None)
    }

    /// Verifies, unpacks and commits one candidate.
    async fn process(
        &self,
        folder: &Folder,
        record: &mut IngestRecord,
        source: Source,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let verified = {
            let requirements = folder.requirements.clone();
            let (keyring, now) = (Arc::clone(&folder.keyring), self.clock.now());
            blocking(move || {
                let keyring = keyring.read()?;
                Ok(verify::verify_file(&source, &requirements, &keyring, now))
            })
            .await?
        };
        let verified = verified.map_err(|failure| {
            record.digest = failure.digest;
            *failure.error
        })?;
        let file = verified.get().clone();
        let digest = file.digest;
        record.digest = Some(digest);
        let provenance = import::provenance(&file.verdict);
        self.transition(record, Event::Verified(provenance))?;
        tracing::debug!(path = %record.path, %digest, "file is verified");
        let imported = {
            let (importer, stop) = (Arc::clone(&self.importer), stop.clone());
            blocking(move || importer.unpack(&verified, &stop)).await
        };
        if let Err(Error::Package(package::Error::BaseMissing { missing, .. })) = &imported {
            self.recorder.waiting(folder, &file, missing.len()).await?;
        }
        let Imported {
            packages,
            nested,
            committed,
            lease,
        } = imported?;
        if committed.is_some() {
            self.transition(record, Event::Unpacked)?;
        }
        let judged = self.judge(digest, &packages, &nested)?;
        self.recorder.trusted(folder, &file, &judged).await?;
        let is_repeat = packages.is_empty();
        let event = Event::Committed {
            package: digest,
            nested,
            is_repeat,
        };
        self.apply(record, event);
        self.importer.catalog.commit_packages(&packages, record)?;
        drop(lease);
        self.count(committed.unwrap_or_default());
        if is_repeat {
            self.counters
                .packages_repeated
                .fetch_add(1, Ordering::Relaxed);
            let restored_blobs = committed.unwrap_or_default().new_blobs;
            tracing::info!(path = %record.path, %digest, restored_blobs, "package is known already");
            if restored_blobs > 0 {
                self.on_ready.iter().for_each(Activator::activate);
            }
        } else {
            self.announce(&packages, committed.unwrap_or_default());
        }
        Ok(())
    }

    /// Returns the packages that a file is or carries, each with what was decided about it.
    fn judge(
        &self,
        file: Digest,
        new: &[NewPackage],
        nested: &[Digest],
    ) -> Result<Vec<(PackageRecord, Verdict)>, Error> {
        let mut judged: Vec<_> = new
            .iter()
            .map(|package| (package.record.clone(), Verdict::Accepted))
            .collect();
        for digest in std::iter::once(&file).chain(nested) {
            if judged.iter().any(|(known, _)| known.digest == *digest) {
                continue;
            }
            // A file that only carries others has no record of its own.
            if let Some(known) = self.importer.catalog.find_package(digest)? {
                judged.push((known, Verdict::Repeated));
            }
        }
        Ok(judged)
    }

    fn count(&self, committed: Committed) {
        let counters = &self.counters;
        counters
            .bytes_written
            .fetch_add(committed.new_bytes, Ordering::Relaxed);
        counters
            .bytes_known
            .fetch_add(committed.known_bytes, Ordering::Relaxed);
    }

    /// Says that packages are ready, and wakes whom that concerns.
    fn announce(&self, packages: &[NewPackage], committed: Committed) {
        self.counters
            .packages_ready
            .fetch_add(packages.len() as u64, Ordering::Relaxed);
        for NewPackage {
            record: package, ..
        } in packages
        {
            tracing::info!(
                package = %package.name,
                version = package.version.as_deref().unwrap_or("-"),
                digest = %package.digest,
                file_name = %package.file_name,
                images = package.images.len(),
                new_blobs = committed.new_blobs,
                new_bytes = committed.new_bytes,
                known_bytes = committed.known_bytes,
                "package is ready"
            );
        }
        self.on_ready.iter().for_each(Activator::activate);
    }

    fn refuse(&self, record: &mut IngestRecord, error: &Error) -> Result<(), Error> {
        tracing::warn!(path = %record.path, code = error.code(), reason = %Chain(error), "package rejected");
        self.counters
            .packages_rejected
            .fetch_add(1, Ordering::Relaxed);
        let refused = Event::Refused {
            code: error.code().to_owned(),
            reason: Chain(error).to_string(),
            hint: error.hint(),
        };
        self.transition(record, refused)
    }

    /// Returns what the catalog knows of a file, or a new record where the file is new or was replaced.
    fn record_of(&self, folder: &Folder, path: &Path, stamp: Stamp) -> Result<IngestRecord, Error> {
        let key = path.display().to_string();
        let known = self.importer.catalog.find_ingest(&key)?;
        let is_same = |record: &IngestRecord| {
            record.size_bytes == stamp.size_bytes && record.modified_at == stamp.modified_at
        };
        if let Some(record) = known.filter(is_same)
            && !self.is_outlived(folder, &record)?
        {
            return Ok(record);
        }
        let mut record = IngestRecord {
            path: key,
            size_bytes: stamp.size_bytes,
            modified_at: stamp.modified_at,
            digest: None,
            state: IngestState::Seen,
            updated_at: self.clock.now(),
        };
        self.transition(&mut record, Event::Appeared)?;
        Ok(record)
    }

    /// Returns whether packages of a file that should have left the drop folder were removed since it was taken in.
    ///
    /// A process that died after the file had moved has left its record behind; the same file, dropped again, is a wish
    /// to have its packages again. A file that is kept where it is says nothing of the kind.
    fn is_outlived(&self, folder: &Folder, record: &IngestRecord) -> Result<bool, Error> {
        let IngestState::Ready {
            package, nested, ..
        } = &record.state
        else {
            return Ok(false);
        };
        if folder.after_ready == AfterReady::Keep {
            return Ok(false);
        }
        // A file that carries others need not have a record of its own.
        let own = nested.is_empty().then_some(package);
        for digest in own.into_iter().chain(nested) {
            if self.importer.catalog.find_package(digest)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves a record to its next state, durably.
    pub(super) fn transition(&self, record: &mut IngestRecord, event: Event) -> Result<(), Error> {
        self.apply(record, event);
        Ok(self.importer.catalog.put_ingest(record)?)
    }

    fn apply(&self, record: &mut IngestRecord, event: Event) {
        record.state = state::next(Some(&record.state), event)
            .expect("process() and record_of() follow the state diagram");
        record.updated_at = self.clock.now();
    }

    /// Does with a candidate in a final state what is configured. A failure is said once and changes nothing else.
    fn clear_away(
        &mut self,
        folder: &Folder,
        candidate: &Candidate,
        record: &IngestRecord,
    ) -> Result<(), Error> {
        let moved = match &record.state {
            IngestState::Rejected { code, reason, hint } => folder.reject(
                candidate,
                &serde_json::json!({
                    "code": code, "reason": reason, "hint": hint, "file": record.path, "digest": record.digest,
                    "size_bytes": record.size_bytes, "rejected_at": record.updated_at,
                }),
            ),
            IngestState::Ready { .. } => folder.finish(candidate),
            IngestState::Seen
            | IngestState::Settled
            | IngestState::Verified { .. }
            | IngestState::Unpacked
            | IngestState::Waiting { .. } => return Ok(()),
        };
        self.withdraw_request(&candidate.path);
        match moved {
            // What was refused stays on record, see [`super::REFUSED_KEPT`].
            Ok(()) if matches!(record.state, IngestState::Ready { .. }) => {
                if folder.after_ready != AfterReady::Keep {
                    self.importer.catalog.remove_ingest(&record.path)?;
                }
            }
            Ok(()) => {}
            Err(error) => {
                if self.stuck.insert(candidate.path.clone()) {
                    tracing::warn!(path = %candidate.path.display(), reason = %Chain(&error), "file stays in the drop folder");
                }
            }
        }
        Ok(())
    }
}

/// Runs blocking work on the thread pool. A panic there, which a package may have found a way to cause, is an error of
/// that file and does not keep others from being taken in.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Panicked {
            message: error.to_string(),
        }),
    }
}
