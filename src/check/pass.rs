//! One look at the state directory: where it is, who is told, and how folders are read.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::finding::{Finding, below};
use super::{Code, Error, Options};
use crate::base::{Chain, Class, Classified as _};
use crate::sys::fs::{self, Context as _};

/// One look.
pub(super) struct Pass<'a> {
    pub(super) root: &'a Path,
    pub(super) options: &'a Options,
    /// Whether a process owns the directory.
    pub(super) is_owned: bool,
    /// The user that the daemon runs as, where that can be told.
    pub(super) owner_uid: Option<u32>,
    pub(super) observer: &'a mut dyn FnMut(Finding),
}

/// A name in a folder.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: OsString,
    pub(super) path: PathBuf,
    /// Of the name itself: a symbolic link is not followed.
    pub(super) metadata: Metadata,
}

/// What should be under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
}

impl Entry {
    /// Returns the name, if it is text.
    pub(super) fn text(&self) -> &str {
        self.name.to_str().unwrap_or_default()
    }
}

impl Pass<'_> {
    /// Says what is found.
    pub(super) fn tell(&mut self, code: Code, subject: impl Display, reason: impl Into<String>) {
        (self.observer)(Finding::new(code, subject.to_string(), reason));
    }

    /// As [`Self::tell`], about a path.
    pub(super) fn tell_path(&mut self, code: Code, path: &Path, reason: impl Into<String>) {
        let subject = below(self.root, path);
        self.tell(code, subject, reason);
    }

    /// Says that something cannot be read. What this user may not read is no finding: nothing can be said then.
    pub(super) fn tell_unreadable(&mut self, error: fs::Error) -> Result<(), Error> {
        if error.class() == Class::Denied {
            return Err(error.into());
        }
        let reason = Chain(&error).to_string();
        self.tell_path(Code::Unreadable, &error.path.clone(), reason);
        Ok(())
    }

    /// Lists what is in a folder, in the order of names. Nothing if it is not there.
    pub(super) fn list(&mut self, dir: &Path) -> Result<Vec<Entry>, Error> {
        match list(dir) {
            Ok(entries) => Ok(entries),
            Err(error) if error.class() == Class::Absent => Ok(Vec::new()),
            Err(error) => self.tell_unreadable(error).map(|()| Vec::new()),
        }
    }

    /// Returns whether there is what should be. Says what is odd about it.
    pub(super) fn judge(&mut self, entry: &Entry, expected: Kind) -> Result<bool, Error> {
        let mut metadata = entry.metadata.clone();
        if metadata.is_symlink() {
            let reason = "expected the thing itself, found a symbolic link";
            self.tell_path(Code::SymbolicLink, &entry.path, reason);
            match entry.path.metadata().context("inspect", &entry.path) {
                Ok(target) => metadata = target,
                Err(error) if error.class() == Class::Absent => return Ok(false),
                Err(error) => return self.tell_unreadable(error).map(|()| false),
            }
        }
        let is_expected = match expected {
            Kind::File => metadata.is_file(),
            Kind::Folder => metadata.is_dir(),
        };
        if !is_expected {
            let reason = match expected {
                Kind::File => "expected a file, found something else",
                Kind::Folder => "expected a folder, found something else",
            };
            self.tell_path(Code::WrongKind, &entry.path, reason);
            return Ok(false);
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o002 != 0 {
            let reason = format!("expected that others may not write, found mode {mode:04o}");
            self.tell_path(Code::WrongMode, &entry.path, reason);
        }
        // Root opens whatever it likes.
        match self.owner_uid {
            Some(uid) if uid != 0 && metadata.uid() != uid => {
                let found = metadata.uid();
                let reason = format!("expected user {uid}, who owns `LOCK`, found user {found}");
                self.tell_path(Code::WrongOwner, &entry.path, reason);
            }
            Some(_) | None => {}
        }
        Ok(true)
    }

    /// Says that a name is none of ours, unless it is a leftover or the configuration puts it there.
    pub(super) fn tell_foreign(&mut self, entry: &Entry) {
        if fs::is_temp(&entry.name) && entry.metadata.is_file() {
            if !self.is_owned {
                let bytes = entry.metadata.len();
                let reason = format!("expected no unfinished file, found one of {bytes} bytes");
                self.tell_path(Code::TemporaryFile, &entry.path, reason);
            }
            return;
        }
        let mut configured = self.options.known_paths.iter();
        if !configured.any(|path| path.starts_with(&entry.path)) {
            let reason = "expected nothing of this name";
            self.tell_path(Code::ForeignFile, &entry.path, reason);
        }
    }
}

/// Lists what is in a folder, in the order of names. What goes away meanwhile is left out.
pub(super) fn list(dir: &Path) -> Result<Vec<Entry>, fs::Error> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(dir).context("read", dir)? {
        let entry = entry.context("read", dir)?;
        let path = entry.path();
        match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            metadata => entries.push(Entry {
                name: entry.file_name(),
                metadata: metadata.context("inspect", &path)?,
                path,
            }),
        }
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
