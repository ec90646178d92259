//! Takes files in that somebody names, without a drop folder.
//!
//! The same verification, the same reader and the same commit as for dropped files. What is left out belongs to drop folders:
//! nothing waits, moves or is tried again, and there is no audit record, because that says what a mirror serves.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Error;
use super::import::{Imported, Importer};
use super::space::Expansion;
use crate::base::{Clock, Digest, Timestamp};
use crate::catalog::{Catalog, IngestRecord, IngestState, NewPackage};
use crate::package::Limits;
use crate::store::{Committed, Store};
use crate::sys::disk::Alarm;
use crate::verify::{self, Keyring, PackageFile, Requirements, Source};

/// Takes package files in.
#[derive(Debug)]
pub struct Intake {
    importer: Importer,
}

/// What became of a file.
#[derive(Debug)]
pub struct Taken {
    /// What vouches for it.
    pub file: PackageFile,
    /// The packages that it is or carries, all of them ready, by digest.
    pub packages: Vec<Digest>,
    /// What was committed to the store; nothing where everything in the file was there.
    pub committed: Committed,
}

impl Intake {
    /// Returns what takes files into this store and this catalog.
    pub fn new(store: Store, catalog: Catalog, disk: Arc<Alarm>, clock: Arc<dyn Clock>) -> Self {
        Self {
            importer: Importer {
                store,
                catalog,
                clock,
                limits: Limits::default(),
                disk,
                expansion: Expansion::default(),
            },
        }
    }

    /// Verifies a file and takes it in. Blocking.
    pub fn take(
        &self,
        source: &Source,
        requirements: &Requirements,
        keyring: &Keyring,
        stop: &CancellationToken,
    ) -> Result<Taken, Error> {
        let importer = &self.importer;
        let verified = verify::verify_file(source, requirements, keyring, importer.clock.now())
            .map_err(|failure| *failure.error)?;
        let Imported {
            packages,
            nested,
            committed,
            lease,
        } = importer.unpack(&verified, stop)?;
        let file = verified.into_inner();
        let mut ready: Vec<Digest> = packages.iter().map(|new| new.record.digest).collect();
        for digest in std::iter::once(file.digest).chain(nested) {
            // A file that only carries others has no record of its own.
            if !ready.contains(&digest) && importer.catalog.find_package(&digest)?.is_some() {
                ready.push(digest);
            }
        }
        let now = importer.clock.now();
        commit(&importer.catalog, &packages, source.path(), now)?;
        drop(lease);
        Ok(Taken {
            file,
            packages: ready,
            committed: committed.unwrap_or_default(),
        })
    }
}

/// Puts packages into the catalog, all or none, that no dropped file has brought. `origin` says where they are from.
pub fn commit(
    catalog: &Catalog,
    packages: &[NewPackage],
    origin: &Path,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(first) = packages.first() else {
        return Ok(());
    };
    let path = origin.display().to_string();
    let ingest = IngestRecord {
        path: path.clone(),
        size_bytes: first.record.size_bytes,
        modified_at: now,
        digest: Some(first.record.digest),
        state: IngestState::Ready {
            package: first.record.digest,
            is_repeat: false,
            nested: Vec::new(),
        },
        updated_at: now,
    };
    catalog.commit_packages(packages, &ingest)?;
    // Nobody has dropped it, so that nobody asks what became of it.
    Ok(catalog.remove_ingest(&path)?)
}
