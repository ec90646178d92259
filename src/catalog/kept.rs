//! The record files in `packages/`: the truth about which packages are there.
//!
//! The database is made anew from them when it is lost. Start from [`Kept::write`] and [`Kept::read`].
//!
//! # Layout
//!
//! ```text
//! packages/
//! ├── <64 hex>.json           a ready package; the digest of its file
//! ├── <64 hex>.next           what that file will be once the rows say the same: a change is under way
//! └── removed/<64 hex>.json   the same file, of a package that was removed: what was here once
//! ```
//!
//! # Format
//!
//! One JSON object in UTF-8 without white space between its parts, and a line feed. The keys are in this order:
//!
//! | key | value |
//! |---|---|
//! | `format` | 1 |
//! | `package` | [`PackageRecord`] |
//! | `content` | pairs of digest and size in bytes, ordered by digest; absent where nobody knows |
//! | `pin` | [`PinRecord`]; absent where there is none |
//! | `check` | SHA-256 of all bytes before `,"check":` |
//!
//! Keys may be added within a format; a newer format is refused.
//!
//! # Durability
//!
//! What was written survives power loss when [`Kept::write`] returns: the content of each file is synced, then the files
//! are renamed into place, then the folder is synced once. A file is there whole or not at all.
//!
//! # Failure
//!
//! A change of a record that is there takes three steps: the new one is written under another name, the rows are written, the
//! new one takes the place of the old one. A crash in between is completed by the next opening.
//!
//! A crash may leave files that [`fs::sweep_temps`] removes. A file that is not what was written is never repaired or
//! deleted: it goes to `quarantine/`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::column::Column;
use super::record::{Content, PackageRecord, PinRecord};
use crate::base::{Class, Classified as _, Digest};
use crate::sys::fs::{self, Context as _};
use crate::sys::sync;

/// The format that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// What stands before the digest of everything before it.
const CHECK_KEY: &[u8] = br#","check":""#;
/// What stands behind it.
const CHECK_END: &[u8] = b"\"}\n";
/// Length of a digest in its text form: `sha256:` and 64 hex characters.
const DIGEST_CHARS: usize = 71;

/// Folder of the record files below the state directory.
const PACKAGES: &str = "packages";
/// Extension of a record file, and of what it will be.
const RECORD: &str = "json";
const NEXT: &str = "next";
/// Folder of the records of removed packages below it.
const REMOVED: &str = "removed";
/// Folder for what is damaged, below the state directory. The store keeps its own there, too.
const QUARANTINE: &str = "quarantine";
/// Mode of a record file: as that of the audit record.
const MODE: u32 = 0o640;
/// How many files are open at a time. Of a migration there may be thousands. Chosen, not measured.
const OPEN_FILES_MAX: usize = 64;

/// What a record file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRecord {
    /// The package.
    pub package: PackageRecord,
    /// What it keeps in the store, where that is known.
    pub content: Option<Content>,
    /// Its pin, if it has one.
    pub pin: Option<PinRecord>,
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    package: &'a PackageRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a [(Digest, u64)]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pin: Option<&'a PinRecord>,
}

#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

#[derive(Deserialize)]
struct Read {
    package: PackageRecord,
    #[serde(default)]
    content: Option<Vec<(Digest, u64)>>,
    #[serde(default)]
    pin: Option<PinRecord>,
}

/// Why the bytes of a record file are not what was written.
#[derive(Debug)]
enum Damage {
    Damaged(String),
    Newer(u32),
}

/// The folder of the record files.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    root: PathBuf,
}

/// Which record files there are.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Of packages that are ready.
    pub(super) ready: BTreeSet<Digest>,
    /// Of those whose record is about to change.
    pub(super) changing: BTreeSet<Digest>,
    /// Of packages that were removed.
    pub(super) removed: BTreeSet<Digest>,
}

/// Returns the bytes of a record file.
pub(super) fn encode(
    package: &PackageRecord,
    content: Option<&Content>,
    pin: Option<&PinRecord>,
) -> Result<Vec<u8>, Error> {
    let written = Written {
        format: FORMAT,
        package,
        content: content.map(Content::entries),
        pin,
    };
    let mut bytes = serde_json::to_vec(&written).map_err(|source| Error::Encode {
        column: Column::Package.name(),
        source,
    })?;
    let end = bytes.pop();
    debug_assert_eq!(end, Some(b'}'), "an object ends with a brace");
    let check = Digest::of(&bytes).to_string();
    bytes.extend_from_slice(CHECK_KEY);
    bytes.extend_from_slice(check.as_bytes());
    bytes.extend_from_slice(CHECK_END);
    Ok(bytes)
}

fn decode(digest: &Digest, bytes: &[u8]) -> Result<KeptRecord, Damage> {
    // Which format it is comes first: another one may have no check, or another.
    let format = serde_json::from_slice::<Versioned>(bytes).map(|it| it.format);
    if let Ok(found) = format
        && found > FORMAT
    {
        return Err(Damage::Newer(found));
    }
    let words = |error: serde_json::Error| Damage::Damaged(error.to_string());
    check(bytes).map_err(|reason| Damage::Damaged(reason.to_owned()))?;
    let read: Read = serde_json::from_slice(bytes).map_err(words)?;
    if read.package.digest != *digest {
        let other = format!("that of {}", read.package.digest);
        return Err(Damage::Damaged(other));
    }
    Ok(KeptRecord {
        package: read.package,
        content: read.content.map(|content| content.into_iter().collect()),
        pin: read.pin,
    })
}

/// Returns what is wrong unless the bytes are those that were checked when they were written.
fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let tail = CHECK_KEY.len() + DIGEST_CHARS + CHECK_END.len();
    let (head, tail) = bytes
        .len()
        .checked_sub(tail)
        .map(|at| bytes.split_at(at))
        .ok_or("less than a record")?;
    let check = tail
        .strip_prefix(CHECK_KEY)
        .and_then(|tail| tail.strip_suffix(CHECK_END))
        .ok_or("a record without its check")?;
    if check != Digest::of(head).to_string().as_bytes() {
        return Err("other bytes than were written");
    }
    Ok(())
}

impl Kept {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Returns whether there is a folder of record files. A state directory of an older version has none.
    pub(super) fn is_there(&self) -> bool {
        self.dir().is_dir()
    }

    /// Makes the folder unless it is there.
    pub(super) fn ensure(&self) -> Result<(), Error> {
        Ok(fs::ensure_dir_all(&self.removed_dir())?)
    }

    /// Lists the record files. Nothing is read but their names.
    pub(super) fn list(&self) -> Result<Names, Error> {
        let changing = list_dir(&self.dir(), NEXT)?;
        let mut ready = list_dir(&self.dir(), RECORD)?;
        ready.extend(&changing);
        Ok(Names {
            ready,
            changing,
            removed: list_dir(&self.removed_dir(), RECORD)?,
        })
    }

    /// Reads the record of a package, if there is one: as it will be, if it is about to change.
    pub(super) fn read(&self, digest: &Digest) -> Result<Option<KeptRecord>, Error> {
        let (path, bytes) = match read_file(self.next_path(digest))? {
            Some(found) => found,
            None => match read_file(self.path(digest))? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        decode(digest, &bytes)
            .map(Some)
            .map_err(|damage| match damage {
                Damage::Damaged(reason) => Error::RecordDamaged { path, reason },
                Damage::Newer(found) => Error::RecordNewer {
                    path,
                    known: FORMAT,
                    found,
                },
            })
    }

    /// Writes record files, in place of those that are there. They survive power loss when this returns; after a failure
    /// some of them may be there.
    pub(super) fn write(&self, files: &[(Digest, Vec<u8>)]) -> Result<(), Error> {
        self.publish(files, |digest| self.path(digest))?;
        for (digest, _) in files {
            // Of a change that failed; the new record says everything.
            fs::remove_unsynced(&self.next_path(digest))?;
        }
        Ok(fs::sync_dir(&self.dir())?)
    }

    /// Writes what the record file of a package will be. It survives power loss when this returns, and counts from then on.
    pub(super) fn write_next(&self, digest: Digest, bytes: Vec<u8>) -> Result<(), Error> {
        self.publish(&[(digest, bytes)], |digest| self.next_path(digest))?;
        Ok(fs::sync_dir(&self.dir())?)
    }

    /// Puts what the record file of a package will be in its place. That nothing is about to change is a success.
    pub(super) fn finish_next(&self, digest: &Digest) -> Result<(), Error> {
        match fs::move_file(&self.next_path(digest), &self.path(digest)) {
            Err(error) if error.class() == Class::Absent => Ok(()),
            result => Ok(result?),
        }
    }

    fn publish(
        &self,
        files: &[(Digest, Vec<u8>)],
        path: impl Fn(&Digest) -> PathBuf,
    ) -> Result<(), Error> {
        let dir = self.dir();
        for files in files.chunks(OPEN_FILES_MAX) {
            let mut temps = Vec::with_capacity(files.len());
            for (_, bytes) in files {
                let temp = fs::create_temp(&dir, MODE)?;
                fs::attempt("write to", temp.path(), || temp.as_file().write_all(bytes))?;
                temps.push(temp);
            }
            let open: Vec<_> = temps
                .iter()
                .map(|temp| (temp.as_file(), temp.path()))
                .collect();
            sync::sync_data(&open)?;
            for ((digest, _), temp) in files.iter().zip(temps) {
                fs::publish_synced(temp, &path(digest))?;
            }
        }
        Ok(())
    }

    /// Moves the record of a package to those of removed ones. That there is none is a success.
    pub(super) fn remove(&self, digest: &Digest) -> Result<(), Error> {
        self.finish_next(digest)?;
        let path = self.path(digest);
        let removed = self.removed_dir().join(file_name(digest));
        match fs::move_file(&path, &removed) {
            Err(error) if error.class() == Class::Absent => {}
            result => return Ok(result?),
        }
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        // Not the record but the folder for it is missing. Left where it is, the package would be back after a restart.
        self.ensure()?;
        Ok(fs::move_file(&path, &removed)?)
    }

    /// Deletes records of removed packages, which are there again.
    pub(super) fn forget_removed<'d>(
        &self,
        digests: impl IntoIterator<Item = &'d Digest>,
    ) -> Result<(), Error> {
        let dir = self.removed_dir();
        for digest in digests {
            let path = dir.join(file_name(digest));
            if path.symlink_metadata().is_ok() {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Moves a damaged record out of the way. Returns where it is now.
    pub(super) fn quarantine(&self, digest: &Digest) -> Result<PathBuf, Error> {
        let next = self.next_path(digest);
        let path = match next.symlink_metadata() {
            Ok(_) => next,
            Err(_) => self.path(digest),
        };
        set_aside(&self.root, &path, &file_name(digest))
    }

    fn dir(&self) -> PathBuf {
        self.root.join(PACKAGES)
    }

    fn removed_dir(&self) -> PathBuf {
        self.dir().join(REMOVED)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir().join(file_name(digest))
    }

    fn next_path(&self, digest: &Digest) -> PathBuf {
        self.path(digest).with_extension(NEXT)
    }
}

/// Reads a file, if it is there. Returns its path, too.
fn read_file(path: PathBuf) -> Result<Option<(PathBuf, Vec<u8>)>, Error> {
    match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => {
            let bytes = result.context("read", &path)?;
            Ok(Some((path, bytes)))
        }
    }
}

/// Moves `path` to `quarantine/<name>.<n>` in the state directory `root`. Returns where it is now.
pub(super) fn set_aside(root: &Path, path: &Path, name: &str) -> Result<PathBuf, Error> {
    let dir = root.join(QUARANTINE);
    fs::ensure_dir(&dir)?;
    let target = (0..=u32::MAX)
        .map(|number| dir.join(format!("{name}.{number}")))
        .find(|target| target.symlink_metadata().is_err())
        .expect("a folder holds fewer entries than there are numbers");
    fs::move_file(path, &target)?;
    Ok(target)
}

fn file_name(digest: &Digest) -> String {
    format!("{}.{RECORD}", digest.hex())
}

/// Lists the digests that the names in a folder say with this extension. Names of no kind are said, and left alone.
fn list_dir(dir: &Path, extension: &str) -> Result<BTreeSet<Digest>, Error> {
    let mut digests = BTreeSet::new();
    for entry in read_dir(dir)? {
        let name = entry.context("read", dir)?.file_name();
        let name = name.to_string_lossy();
        let parts = name.rsplit_once('.');
        let parts = parts.and_then(|(hex, end)| Some((Digest::from_hex(hex).ok()?, end)));
        match parts {
            Some((digest, end)) if end == extension => {
                digests.insert(digest);
            }
            Some((_, RECORD | NEXT)) => {}
            _ if name == REMOVED || fs::is_temp(OsStr::new(&*name)) => {}
            _ if extension == RECORD => {
                tracing::warn!(path = %dir.join(&*name).display(), "found a file that is no record of a package");
            }
            _ => {}
        }
    }
    Ok(digests)
}

/// Reads a folder; one that is not there is empty.
fn read_dir(dir: &Path) -> Result<impl Iterator<Item = io::Result<std::fs::DirEntry>>, Error> {
    match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        result => Ok(Some(result.context("read", dir)?).into_iter().flatten()),
    }
}
