//! One process owns a directory.
//!
//! The kernel keeps the lock and releases it when the process ends, however it ends; the file only says whose it is. What
//! an earlier owner has written there hinders nobody.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::process::geteuid;
use thiserror::Error;

use super::fs;
use crate::base::{Class, Classified};

/// How long a lock that is held is asked for again: [`Lock::owner`] holds it for a moment to find out. Chosen, not measured.
const ASKED_FOR: Duration = Duration::from_millis(200);
/// How long to wait in between.
const ASKED_EVERY: Duration = Duration::from_millis(10);
/// A number of a process has at most 10 digits (`pid_t`, 32 bits); what is longer is none.
const OWNER_BYTES_MAX: u64 = 16;

/// A lock file held by this process. The kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The process of this number.
    Process(u32),
    /// A process that has not said its number: it is about to, or its disk is full.
    Unknown,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(number) => write!(f, "process {number}"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

/// Why the lock was not taken.
#[derive(Debug, Error)]
pub enum Error {
    /// Another process holds it.
    #[error("expected to be the only user of `{}`, found {owner}", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The other process, as it wrote itself down.
        owner: Owner,
    },
    /// The lock file belongs to another user, who could not open afterwards what this process would write.
    #[error("expected to run as user {owner}, who owns `{}`, found user {found}", path.display())]
    WrongUser {
        /// The lock file.
        path: PathBuf,
        /// The user that owns it.
        owner: u32,
        /// The user of this process.
        found: u32,
    },
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] fs::Error),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Held { .. } | Self::WrongUser { .. } => Class::Usage,
            Self::Fs(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Held { path, owner } => {
                let stop = match owner {
                    Owner::Process(number) => {
                        format!("stop {owner} (`systemctl stop violetd`, or `kill {number}`)")
                    }
                    Owner::Unknown => {
                        format!("find it with `fuser {}` and stop it", path.display())
                    }
                };
                Some(format!(
                    "a daemon that runs is asked through its socket: check that `admin.socket` is the one that it listens \
                     on; else {stop}, or choose another `state_dir`"
                ))
            }
            Self::WrongUser { owner, .. } => Some(format!(
                "run the command as that user: `setpriv --reuid {owner} --clear-groups violetd ...`"
            )),
            Self::Fs(error) => error.hint(),
        }
    }
}

impl Lock {
    /// Takes the lock at `path`, or says who holds it.
    ///
    /// A full disk is no hindrance, unless there is not even space for the file: then nobody can say who holds the lock.
    pub fn acquire(path: &Path) -> Result<Self, Error> {
        use super::fs::Context as _;

        let file = open(path)?;
        let deadline = Instant::now() + ASKED_FOR;
        while !try_lock(&file, FlockOperation::NonBlockingLockExclusive).context("lock", path)? {
            if Instant::now() >= deadline {
                let owner = read_owner(&file).context("read", path)?;
                let path = path.to_owned();
                return Err(Error::Held { path, owner });
            }
            std::thread::sleep(ASKED_EVERY);
        }
        write_owner(&file).context("write to", path)?;
        Ok(Self { _file: file })
    }

    /// Takes the lock at `path` as soon as nobody else holds it. Blocking, without an end.
    pub fn wait(path: &Path) -> Result<Self, Error> {
        use super::fs::Context as _;

        let file = open(path)?;
        try_lock(&file, FlockOperation::LockExclusive).context("lock", path)?;
        write_owner(&file).context("write to", path)?;
        Ok(Self { _file: file })
    }

    /// As [`Self::acquire`], for a command that does what else the usual owner does: refused to another user, whose files that
    /// one could not open.
    pub fn acquire_as_owner(path: &Path) -> Result<Self, Error> {
        let found = geteuid().as_raw();
        match path.metadata() {
            Ok(metadata) if metadata.uid() != found => Err(Error::WrongUser {
                path: path.to_owned(),
                owner: metadata.uid(),
                found,
            }),
            Ok(_) | Err(_) => Self::acquire(path),
        }
    }

    /// Returns who holds the lock at `path`, if anybody does, without taking it. Where the file is not there or cannot be
    /// opened, nobody is known to.
    pub fn owner(path: &Path) -> Option<Owner> {
        let file = File::open(path).ok()?;
        match try_lock(&file, FlockOperation::NonBlockingLockShared) {
            // It ends with the descriptor.
            Ok(true) | Err(_) => None,
            Ok(false) => Some(read_owner(&file).unwrap_or(Owner::Unknown)),
        }
    }
}

/// Opens the file, and makes it if need be.
fn open(path: &Path) -> Result<File, fs::Error> {
    use super::fs::Context as _;

    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .context("open", path)
}

/// Returns whether the lock was taken; not, where another process holds it.
fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn read_owner(file: &File) -> io::Result<Owner> {
    let mut text = String::new();
    file.take(OWNER_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.trim().parse().map_or(Owner::Unknown, Owner::Process))
}

/// Writes this process down, over what an earlier one has written: that needs no space where one was there.
fn write_owner(file: &File) -> io::Result<()> {
    let text = format!("{}\n", std::process::id());
    let written = file.write_all_at(text.as_bytes(), 0);
    match written {
        Ok(()) => file.set_len(text.len() as u64),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => file.set_len(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_process() -> Owner {
        Owner::Process(std::process::id())
    }

    #[test]
    fn second_owner_is_told_who_is_first_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        assert_eq!(Lock::owner(&path), None);
        let first = Lock::acquire(&path).unwrap();
        let error = Lock::acquire(&path).unwrap_err();
        let Error::Held { owner, .. } = &error else {
            panic!("expected the lock to be held, found {error}");
        };
        assert_eq!(*owner, this_process());
        let number = std::process::id();
        assert!(error.to_string().contains(&format!("process {number}")));
        let hint = error.hint().unwrap();
        assert!(hint.contains(&format!("kill {number}")), "{hint}");
        assert_eq!(Lock::owner(&path), Some(this_process()));
        drop(first);
        assert_eq!(Lock::owner(&path), None);
        Lock::acquire(&path).unwrap();
    }

    #[test]
    fn who_waits_is_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let first = Lock::acquire(&path).unwrap();
        let second = std::thread::spawn({
            let path = path.clone();
            move || Lock::wait(&path).unwrap()
        });
        drop(first);
        let second = second.join().unwrap();
        assert_eq!(Lock::owner(&path), Some(this_process()));
        drop(second);
        assert_eq!(Lock::owner(&path), None);
    }

    #[test]
    fn what_a_dead_owner_has_written_hinders_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        for left in ["4194304000\n", "", "no number", "1\n2\n3\n"] {
            fs::replace_file(&path, left.as_bytes(), 0o600).unwrap();
            assert_eq!(Lock::owner(&path), None, "{left:?}");
            let lock = Lock::acquire(&path).unwrap();
            assert_eq!(Lock::owner(&path), Some(this_process()), "{left:?}");
            let written = std::fs::read_to_string(&path).unwrap();
            assert_eq!(written, format!("{}\n", std::process::id()), "{left:?}");
            drop(lock);
        }
    }

    #[test]
    fn an_owner_that_has_not_said_its_number_is_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let _lock = Lock::acquire(&path).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        assert_eq!(Lock::owner(&path), Some(Owner::Unknown));
        let error = Lock::acquire(&path).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
    }
}
