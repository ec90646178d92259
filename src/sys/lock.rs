//! One process owns a directory.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use thiserror::Error;

use super::fs;
use crate::base::{Class, Classified};

/// A lock file held by this process. The kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, Error)]
pub enum Error {
    /// Another process holds it.
    #[error("expected to be the only user of `{}`, found process {owner}", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The other process, as it wrote itself down.
        owner: String,
    },
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] fs::Error),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Held { .. } => Class::Usage,
            Self::Fs(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Held { owner, .. } => Some(format!(
                "stop process {owner}, or choose another state directory"
            )),
            Self::Fs(error) => error.hint(),
        }
    }
}

impl Lock {
    /// Takes the lock at `path`, or says at once who holds it.
    pub fn acquire(path: &Path) -> Result<Self, Error> {
        use super::fs::Context as _;

        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .context("open", path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut owner = String::new();
                file.read_to_string(&mut owner).context("read", path)?;
                return Err(Error::Held {
                    path: path.to_owned(),
                    owner: owner.trim().to_owned(),
                });
            }
            Err(errno) => Err(io::Error::from(errno)).context("lock", path)?,
        }
        file.set_len(0).context("write to", path)?;
        writeln!(file, "{}", std::process::id()).context("write to", path)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_owner_is_told_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let first = Lock::acquire(&path).unwrap();
        let Err(Error::Held { owner, .. }) = Lock::acquire(&path) else {
            panic!("expected the lock to be held");
        };
        assert_eq!(owner, std::process::id().to_string());
        drop(first);
        Lock::acquire(&path).unwrap();
    }
}
