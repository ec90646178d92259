//! Collects what manifests consist of, each digest once.

use std::collections::BTreeSet;

use super::{Error, Held};
use crate::base::Digest;
use crate::base::oci::{Descriptor, Manifest};
use crate::package::INVENTORY_BLOBS_MAX;

/// A collection that grows by manifests.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) held: Held,
    seen: BTreeSet<Digest>,
}

impl Walk {
    /// Returns whether a manifest was not asked about before.
    pub(super) fn is_new(&mut self, digest: &Digest) -> bool {
        self.seen.insert(*digest)
    }

    /// Adds a manifest. Returns its children, and its blobs, which the caller adds.
    pub(super) fn add_manifest(
        &mut self,
        name: &str,
        digest: Digest,
        bytes: &[u8],
    ) -> Result<(Vec<Descriptor>, Vec<Descriptor>), Error> {
        match Manifest::parse(bytes) {
            Ok((manifest, _)) => {
                self.add_blob(digest, bytes.len() as u64)?;
                let children = manifest.children().cloned().collect();
                let blobs = manifest.blobs().cloned().collect();
                Ok((children, blobs))
            }
            Err(error) => {
                self.skip(format!("{name}: manifest {digest}: {error}"));
                Ok((Vec::new(), Vec::new()))
            }
        }
    }

    /// Adds a blob.
    pub(super) fn add_blob(&mut self, digest: Digest, size_bytes: u64) -> Result<(), Error> {
        let blobs = &mut self.held.inventory.blobs;
        blobs.insert(digest, size_bytes);
        if blobs.len() > INVENTORY_BLOBS_MAX {
            return Err(Error::TooMany);
        }
        Ok(())
    }

    /// Notes that something is not listed that should be there.
    pub(super) fn skip(&mut self, what: String) {
        self.held.skipped.push(what);
    }
}
