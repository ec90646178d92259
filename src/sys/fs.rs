//! Durable file operations.
//!
//! # Durability
//!
//! Every function says what survives power loss when it returns. A name is durable only after the directory that
//! holds it was synced; the content only after the file was.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;
use tempfile::{NamedTempFile, TempPath};
use thiserror::Error;

use crate::base::{Class, Classified};

/// A failed file-system operation: what was attempted, on which path, and why.
#[derive(Debug, Error)]
#[error("failed to {verb} `{}`", path.display())]
pub struct Error {
    /// The operation, as an infinitive without `to`: `open`, `sync`, `rename`.
    pub verb: &'static str,
    /// The path the operation was applied to.
    pub path: PathBuf,
    /// The operating system's answer.
    pub source: io::Error,
}

impl Classified for Error {
    fn class(&self) -> Class {
        class_of(&self.source)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the standard library's list grows; what is not named has no hint"
    )]
    fn hint(&self) -> Option<String> {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(format!(
                "free space on the file system of `{}`",
                self.path.display()
            )),
            io::ErrorKind::ReadOnlyFilesystem => Some(format!(
                "make the file system of `{}` writable",
                self.path.display()
            )),
            io::ErrorKind::PermissionDenied => Some(format!(
                "give the user that runs violetd access to `{}`",
                self.path.display()
            )),
            _ => None,
        }
    }
}

/// Returns the class of an operating-system error.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the standard library's list grows; what is not named may pass by itself"
)]
pub fn class_of(error: &io::Error) -> Class {
    match error.kind() {
        io::ErrorKind::NotFound => Class::Absent,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Class::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Class::Full
        }
        io::ErrorKind::AlreadyExists
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::InvalidInput => Class::Usage,
        _ => Class::Transient,
    }
}

/// Adds the verb and the path to an [`io::Result`].
pub trait Context<T> {
    /// Maps the error side to [`struct@Error`].
    fn context(self, verb: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, verb: &'static str, path: &Path) -> Result<T, Error> {
        #[cfg(test)]
        let this = super::fault::inject(self, verb, path);
        #[cfg(not(test))]
        let this = self;
        this.map_err(|source| Error {
            verb,
            path: path.to_owned(),
            source,
        })
    }
}

#[cfg(test)]
use super::fault::around as tried;

/// Runs one operation.
#[cfg(not(test))]
fn tried<T>(_: &'static str, _: &Path, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    operation()
}

/// Runs one operation that changes something, and adds the verb and the path to its error.
///
/// Tests can make it fail before or after its effect, which [`Context`] alone cannot.
pub(crate) fn attempt<T>(
    verb: &'static str,
    path: &Path,
    operation: impl FnOnce() -> io::Result<T>,
) -> Result<T, Error> {
    tried(verb, path, operation).map_err(|source| Error {
        verb,
        path: path.to_owned(),
        source,
    })
}

/// What the names of unfinished files begin with. Hidden, so that no unfinished package is taken for one; with the name of
/// the program, so that [`sweep_temps`] takes no file of others.
const TEMP_PREFIX: &str = ".violetd-";
/// How many letters and digits follow. As many as the library chooses by itself.
const TEMP_RANDOM_LEN: usize = 6;

/// Creates an unfinished file in `dir` that disappears unless it is published. SIGKILL leaves it; see [`sweep_temps`].
pub fn create_temp(dir: &Path, mode: u32) -> Result<NamedTempFile, Error> {
    attempt("create a file in", dir, || {
        tempfile::Builder::new()
            .prefix(TEMP_PREFIX)
            .rand_bytes(TEMP_RANDOM_LEN)
            .permissions(std::fs::Permissions::from_mode(mode))
            .tempfile_in(dir)
    })
}

/// Publishes `temp` at `target`, which it replaces.
///
/// `temp` must be on the same file system as `target`.
///
/// # Durability
///
/// On success both the content and the directory entry survive power loss: the file is synced before the rename, the
/// parent directory after it. On error, or on a crash at any point, `target` is either untouched or complete.
pub fn publish(temp: NamedTempFile, target: &Path) -> Result<(), Error> {
    attempt("sync", temp.path(), || temp.as_file().sync_all())?;
    publish_synced(temp, target)?;
    sync_dir(parent_of(target))
}

/// Publishes `temp`, whose content the caller has made durable, at `target`, which it replaces.
///
/// # Durability
///
/// The name is durable only after [`sync_dir`] of the parent: for callers that publish many files and sync each
/// directory once.
pub fn publish_synced(temp: NamedTempFile, target: &Path) -> Result<(), Error> {
    attempt("rename to", target, || {
        temp.persist(target).map_err(|error| error.error)
    })?;
    Ok(())
}

/// Publishes the closed file `temp`, whose content the caller has made durable, at `target`, which it replaces.
///
/// # Durability
///
/// As [`publish_synced`].
pub fn publish_closed(temp: TempPath, target: &Path) -> Result<(), Error> {
    attempt("rename to", target, || {
        temp.persist(target).map_err(|error| error.error)
    })
}

/// Writes `bytes` to `path`, replacing what was there. Both survive power loss on success.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let temp = create_temp(parent_of(path), mode)?;
    attempt("write to", temp.path(), || temp.as_file().write_all(bytes))?;
    publish(temp, path)
}

/// Creates the file `path`, which must not exist, to be written at its end only. Its name survives power loss on success.
pub fn create_append(path: &Path, mode: u32) -> Result<File, Error> {
    let file = attempt("create", path, || {
        File::options()
            .create_new(true)
            .append(true)
            .mode(mode)
            .open(path)
    })?;
    sync_dir(parent_of(path))?;
    Ok(file)
}

/// Opens the file `path`, which must exist, to be written at its end only.
///
/// What is in it already survives power loss on success, whoever wrote it and died before syncing; so does its name.
pub fn open_append(path: &Path) -> Result<File, Error> {
    let file = File::options()
        .append(true)
        .open(path)
        .context("open", path)?;
    attempt("sync", path, || file.sync_all())?;
    sync_dir(parent_of(path))?;
    Ok(file)
}

/// Writes `bytes` at the end of `file`, which was opened at `path` for that. They survive power loss on success.
///
/// On error, or on a crash, any number of the bytes from the beginning may be there.
pub fn append(file: &mut File, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    attempt("write to", path, || file.write_all(bytes))?;
    attempt("sync", path, || file.sync_data())
}

/// Moves a file, replacing what was at `to`. The new name survives power loss on success.
///
/// Between file systems the content is copied, made durable and only then removed at `from`.
pub fn move_file(from: &Path, to: &Path) -> Result<(), Error> {
    #[expect(clippy::disallowed_methods, reason = "this is the durable wrapper")]
    let renamed = tried("rename", from, || std::fs::rename(from, to));
    match renamed {
        Ok(()) => {
            sync_dir(parent_of(to))?;
            sync_dir(parent_of(from))
        }
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            // A pipe would be waited for, and a device has no end. It may come there at this moment.
            let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("flags are small");
            let mut options = File::options();
            let options = options.read(true).custom_flags(nonblocking);
            let mut source = options.open(from).context("open", from)?;
            let metadata = source.metadata().context("inspect", from)?;
            if !metadata.is_file() {
                let source = io::Error::other("expected a file, found something else");
                return Err(source).context("copy", from);
            }
            let temp = create_temp(parent_of(to), metadata.permissions().mode())?;
            attempt("write to", temp.path(), || {
                io::copy(&mut source, &mut temp.as_file())
            })?;
            publish(temp, to)?;
            remove_file(from)
        }
        Err(error) => Err(error).context("rename", from),
    }
}

/// Removes a file. That it was not there is a success. The absence survives power loss.
pub fn remove_file(path: &Path) -> Result<(), Error> {
    #[expect(clippy::disallowed_methods, reason = "this is the durable wrapper")]
    let removed = tried("remove", path, || std::fs::remove_file(path));
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context("remove", path),
        Ok(()) => sync_dir(parent_of(path)),
    }
}

/// Removes a file. That it was not there is a success. Power loss may bring it back.
pub fn remove_unsynced(path: &Path) -> Result<(), Error> {
    #[expect(clippy::disallowed_methods, reason = "this is the wrapper")]
    let removed = tried("remove", path, || std::fs::remove_file(path));
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.context("remove", path),
    }
}

/// Removes everything inside `dir`, and not `dir` itself. Symbolic links are removed, not followed.
pub fn empty_dir(dir: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(dir).context("read", dir)? {
        let entry = entry.context("read", dir)?;
        let path = entry.path();
        let is_dir = entry.file_type().context("inspect", &path)?.is_dir();
        #[expect(clippy::disallowed_methods, reason = "this is the wrapper")]
        let remove = || {
            if is_dir {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            }
        };
        attempt("remove", &path, remove)?;
    }
    sync_dir(dir)
}

/// Removes `dir` and everything inside it. The absence survives power loss.
pub fn remove_dir_all(dir: &Path) -> Result<(), Error> {
    empty_dir(dir)?;
    std::fs::remove_dir(dir).context("remove", dir)?;
    sync_dir(parent_of(dir))
}

/// Removes the files in `dir` that [`create_temp`] has made and that were last written before `before`, and returns how
/// many. What is below folders in it is left alone, and so is everything else. That `dir` is not there is a success.
///
/// Nobody waits for the absence to be durable: what power loss brings back is removed the next time.
pub fn sweep_temps(dir: &Path, before: SystemTime) -> Result<u64, Error> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.context("read", dir)?,
    };
    let mut swept = 0;
    for entry in entries {
        let entry = entry.context("read", dir)?;
        if !is_temp(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        let metadata = match entry.metadata() {
            // Whoever made it has just published or dropped it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata.context("inspect", &path)?,
        };
        let is_old = metadata.modified().context("inspect", &path)? < before;
        if metadata.is_file() && is_old {
            remove_unsynced(&path)?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Returns whether a file of this name is one that [`create_temp`] has made.
pub fn is_temp(name: &OsStr) -> bool {
    let random = name
        .to_str()
        .and_then(|name| name.strip_prefix(TEMP_PREFIX));
    random.is_some_and(|random| {
        random.len() == TEMP_RANDOM_LEN && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Creates the directory `path` unless it exists, and makes its entry durable.
///
/// The parent must exist. It is synced even if `path` already exists: whoever created `path` may have died before
/// syncing.
pub fn ensure_dir(path: &Path) -> Result<(), Error> {
    #[expect(clippy::disallowed_methods, reason = "this is the durable wrapper")]
    let created = tried("create directory", path, || std::fs::create_dir(path));
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if path.is_dir() {
                return sync_dir(parent_of(path));
            }
            Err(io::Error::from(io::ErrorKind::NotADirectory)).context("create directory", path)
        }
        Err(error) => Err(error).context("create directory", path),
        Ok(()) => sync_dir(parent_of(path)),
    }
}

/// Creates directories called `names` in `parent` unless they exist, and makes their entries durable with one sync.
pub fn ensure_dirs(parent: &Path, names: impl IntoIterator<Item = String>) -> Result<(), Error> {
    for name in names {
        let path = parent.join(name);
        #[expect(clippy::disallowed_methods, reason = "this is the durable wrapper")]
        let created = tried("create directory", &path, || std::fs::create_dir(&path));
        match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            result => result.context("create directory", &path)?,
        }
    }
    sync_dir(parent)
}

/// Creates the directory `path` and all its parents unless they exist, and makes the new entries durable.
pub fn ensure_dir_all(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        ensure_dir_all(parent)?;
    }
    ensure_dir(path)
}

/// Makes the entries of `dir` durable.
pub fn sync_dir(dir: &Path) -> Result<(), Error> {
    attempt("sync", dir, || File::open(dir)?.sync_all())
}

/// Returns the directory that holds `path`; the current one for a bare name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn replace_file_leaves_one_complete_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace_file(&path, b"one", 0o600).unwrap();
        replace_file(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn ensure_dir_refuses_a_file_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        replace_file(&path, b"", 0o600).unwrap();
        assert_eq!(ensure_dir(&path).unwrap_err().class(), Class::Usage);
        let names = || ["x".to_owned(), "y".to_owned()];
        assert_eq!(ensure_dirs(dir.path(), names()).unwrap_err().path, path);
        let empty = tempfile::tempdir().unwrap();
        ensure_dirs(empty.path(), names()).unwrap();
        ensure_dirs(empty.path(), names()).unwrap();
        assert!(empty.path().join("y").is_dir());
        ensure_dir_all(&dir.path().join("a/b/c")).unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
    }

    #[test]
    fn removal_is_idempotent_and_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        ensure_dir(&inner).unwrap();
        let keep = dir.path().join("keep");
        replace_file(&keep, b"k", 0o600).unwrap();
        std::os::unix::fs::symlink(&keep, inner.join("link")).unwrap();
        ensure_dir(&inner.join("sub")).unwrap();
        empty_dir(&inner).unwrap();
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 0);
        assert!(keep.exists());
        remove_file(&keep).unwrap();
        remove_file(&keep).unwrap();
    }

    #[test]
    fn appending_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(open_append(&path).unwrap_err().class(), Class::Absent);
        let mut first = create_append(&path, 0o600).unwrap();
        assert_eq!(
            create_append(&path, 0o600).unwrap_err().class(),
            Class::Usage
        );
        let mut second = open_append(&path).unwrap();
        append(&mut second, &path, b"one ").unwrap();
        append(&mut first, &path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one two");
    }

    #[test]
    fn what_is_no_file_is_not_copied_to_another_file_system() {
        let (from, to) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir_in("/dev/shm").unwrap(),
        );
        let device = |dir: &tempfile::TempDir| dir.path().metadata().unwrap().dev();
        if device(&from) == device(&to) {
            eprintln!("not run: temporary files are in /dev/shm");
            return;
        }
        let (pipe, file) = (from.path().join("pipe"), from.path().join("file"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        replace_file(&file, b"x", 0o600).unwrap();
        move_file(&file, &to.path().join("file")).unwrap();
        assert_eq!(std::fs::read(to.path().join("file")).unwrap(), b"x");
        let error = move_file(&pipe, &to.path().join("pipe")).unwrap_err();
        assert_eq!(error.verb, "copy");
        assert!(pipe.symlink_metadata().is_ok());
    }

    #[test]
    fn only_our_own_unfinished_files_of_an_earlier_process_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let (_, left) = create_temp(dir.path(), 0o600).unwrap().keep().unwrap();
        let modified = left.metadata().unwrap().modified().unwrap();
        let others = [
            ".violetd-a",
            ".violetd-abcdefg",
            ".violetd-abc.ef",
            "violetd-abcdef",
            ".tmpabcdef",
        ];
        for name in others {
            replace_file(&dir.path().join(name), b"x", 0o600).unwrap();
        }
        ensure_dir(&dir.path().join(".violetd-folder")).unwrap();
        assert_eq!(
            sweep_temps(dir.path(), modified).unwrap(),
            0,
            "it is no older"
        );
        let after = modified + std::time::Duration::from_hours(1);
        assert_eq!(sweep_temps(dir.path(), after).unwrap(), 1);
        assert!(!left.exists());
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            others.len() + 1
        );
        assert_eq!(
            sweep_temps(&left, after).unwrap(),
            0,
            "there is no such folder"
        );
    }

    #[test]
    fn move_file_replaces_the_target() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        replace_file(&from, b"new", 0o600).unwrap();
        replace_file(&to, b"old", 0o600).unwrap();
        move_file(&from, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"new");
        assert!(!from.exists());
    }
}
