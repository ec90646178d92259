//! The files of a keyring, read again whenever they have changed.
//!
//! Whoever runs a daemon for years adds certificates, extends them and, above all, revokes them. [`KeyringFiles::read`] is
//! asked before each verification, so that what is in the files counts from then on, without a restart.
//!
//! # Failure
//!
//! Files that cannot be read, or hold no certificates any more, take the keyring along: the certificates of before are not
//! used in their place, because what has been added since may be a revocation. Until the files are good again there is an
//! error instead of a verdict.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::keyring::list_files;
use super::{Error, Keyring, Policy, Requirements};

/// Where the certificates of those who may sign are, and what was read from there.
#[derive(Debug)]
pub struct KeyringFiles {
    paths: Vec<PathBuf>,
    requirements: Requirements,
    known: Mutex<Option<Known>>,
}

/// A keyring, and what its files looked like before they were read.
#[derive(Debug)]
struct Known {
    looks: Vec<Look>,
    keyring: Arc<Keyring>,
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    path: PathBuf,
    /// Device and inode: a file that was replaced may have the size and the times of the one before.
    identity: (u64, u64),
    size_bytes: u64,
    /// Seconds and nanoseconds.
    modified_at: (i64, i64),
    /// The same, of the last change to anything about the file: nobody can set it back.
    changed_at: (i64, i64),
}

impl KeyringFiles {
    /// Describes a keyring that is in these files, or in all files of these folders. Nothing is read yet.
    pub const fn new(paths: Vec<PathBuf>, requirements: Requirements) -> Self {
        Self {
            paths,
            requirements,
            known: Mutex::new(None),
        }
    }

    /// Returns the certificates that are in the files now, if the requirements can be met with them.
    pub fn read(&self) -> Result<Arc<Keyring>, Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the content: what changes while it is read is read again the next time.
        let looks = self.look();
        match (&*known, &looks) {
            (Some(known), Ok(looks)) if known.looks == *looks => {
                return Ok(Arc::clone(&known.keyring));
            }
            _ => *known = None,
        }
        let looks = looks?;
        let files = looks.iter().map(|look| &look.path);
        let keyring = Keyring::load(files, &self.requirements.limits)?;
        keyring.check(&self.requirements)?;
        tracing::info!(
            certificates = keyring.fingerprints().count(),
            "keyring was read"
        );
        let keyring = Arc::new(keyring);
        *known = Some(Known {
            looks,
            keyring: Arc::clone(&keyring),
        });
        Ok(keyring)
    }

    /// Looks at every file. Where no signature is needed, a path that is not there has no certificates.
    fn look(&self) -> Result<Vec<Look>, Error> {
        let mut looks = Vec::new();
        for path in &self.paths {
            let files = match list_files(path) {
                Err(error) if self.can_do_without(path, &error) => continue,
                files => files?,
            };
            for path in files {
                let metadata = path.metadata().map_err(|source| Error::KeyringRead {
                    path: path.clone(),
                    source,
                })?;
                looks.push(Look::new(path, &metadata));
            }
        }
        Ok(looks)
    }

    fn can_do_without(&self, path: &Path, error: &Error) -> bool {
        let is_absent = matches!(error, Error::KeyringRead { path: found, source }
            if found == path && source.kind() == io::ErrorKind::NotFound);
        is_absent && self.requirements.policy != Policy::Signature
    }
}

impl Look {
    fn new(path: PathBuf, metadata: &Metadata) -> Self {
        Self {
            path,
            identity: (metadata.dev(), metadata.ino()),
            size_bytes: metadata.len(),
            modified_at: (metadata.mtime(), metadata.mtime_nsec()),
            changed_at: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
