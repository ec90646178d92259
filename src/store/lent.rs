//! Folders of blobs that lie elsewhere and are read from there, as long as the store is open.
//!
//! Whoever only passes blobs on, as `violetd push` does with those of an OCI layout, need not copy them first. What is lent is
//! read like a blob of the store, by this process only, and is never written, moved or deleted. It is not the store's:
//! nothing durable relies on it ([`Batch`](super::Batch) does not see it), and its content is not hashed here. Manifests
//! are compared with their digests when they are read, as everywhere, and layers by the registry that gets them.

use std::io;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use super::{Blob, Error, Store, open_file};
use crate::base::Digest;
use crate::sys::fs::Context as _;

/// Folders in which a blob is a file whose name is the hex of its digest. A handful: every one of them is looked into.
#[derive(Debug, Default)]
pub(super) struct Lent(RwLock<Vec<PathBuf>>);

impl Lent {
    /// Returns where a blob that is not the store's own may be, in the order in which to look.
    fn paths(&self, digest: &Digest) -> Vec<PathBuf> {
        let dirs = self.0.read().unwrap_or_else(PoisonError::into_inner);
        dirs.iter().map(|dir| dir.join(digest.hex())).collect()
    }
}

impl Store {
    /// Lends the store all blobs of a folder such as `blobs/sha256` of an OCI layout. What the store has itself is preferred.
    pub fn lend(&self, dir: PathBuf) {
        let lent = self.0.lent.0.write();
        lent.unwrap_or_else(PoisonError::into_inner).push(dir);
    }

    /// Returns the size of a lent blob, in bytes.
    pub(super) fn find_lent(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        for path in self.0.lent.paths(digest) {
            match path.metadata() {
                Ok(metadata) if metadata.is_file() => return Ok(Some(metadata.len())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => Err(error).context("inspect", &path)?,
            }
        }
        Ok(None)
    }

    /// Opens a blob of the store or one that was lent. Returns where it is, too.
    pub(super) fn open_any(&self, digest: &Digest) -> Result<(PathBuf, Blob), Error> {
        let own = self.blob_path(digest);
        for path in std::iter::once(own).chain(self.0.lent.paths(digest)) {
            match open_file(&path, digest) {
                Err(Error::NotFound { .. }) => {}
                result => return Ok((path, result?)),
            }
        }
        Err(Error::NotFound { digest: *digest })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Removed;
    use super::*;
    use crate::sys::fs as durable;

    #[test]
    fn a_lent_blob_is_read_and_never_kept_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let digest = Digest::of(b"layer");
        let path = dir.path().join(digest.hex());
        durable::replace_file(&path, b"layer", 0o600).unwrap();
        assert_eq!(store.find(&digest).unwrap(), None);
        store.lend(dir.path().join("absent"));
        store.lend(dir.path().to_owned());
        assert_eq!(store.find(&digest).unwrap(), Some(5));
        assert_eq!(store.find(&Digest::of(b"other")).unwrap(), None);
        assert_eq!(store.read(&digest, 5).unwrap(), b"layer");
        assert_eq!(store.open_blob(&digest).unwrap().size_bytes, 5);
        assert_eq!(store.list().count(), 0);
        let removed = store.remove(&digest, || Ok::<_, Error>(false)).unwrap();
        assert_eq!(removed, Removed::Absent);

        // A batch stores it all the same: what is durable is the store's own.
        let mut batch = store.begin();
        let mut writer = batch.writer(Some(digest), 5).unwrap();
        writer.write(b"layer").unwrap();
        assert!(batch.stage(writer).unwrap().is_new);
        batch.commit().unwrap();
        durable::remove_file(&path).unwrap();
        assert_eq!(store.read(&digest, 5).unwrap(), b"layer");
    }

    #[test]
    fn a_lent_blob_that_changes_or_goes_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        store.lend(dir.path().to_owned());
        let digest = Digest::of(b"layer");
        let path = dir.path().join(digest.hex());
        durable::replace_file(&path, b"other", 0o600).unwrap();
        let error = store.read(&digest, 5).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        durable::remove_file(&path).unwrap();
        let error = store.open_blob(&digest).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }
}
