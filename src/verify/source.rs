//! Where the bytes of a package come from.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Error;
use crate::base::Digest;
use crate::package::parts::{self, Joined, TABLE_BYTES_MAX, Table};

/// What a package is read from, any number of times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Several files that are one after the other.
    Parts(Parts),
}

/// A package in parts, of which the table was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The path that the package would have as one file.
    whole: PathBuf,
    table: Table,
}

/// What the files of a source looked like when somebody looked: in order, size in bytes and modification time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look(Vec<(u64, i64, i64)>);

impl Source {
    /// Returns the source that `path` means: the parts where it is a table of parts, the file itself otherwise.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let name = path.file_name().and_then(|name| name.to_str());
        let table =
            name.filter(|name| matches!(parts::Member::of(name), Some(parts::Member::Table(_))));
        match table {
            Some(_) => Ok(Self::Parts(Parts::read(path)?)),
            None => Ok(Self::File(path.to_owned())),
        }
    }

    /// Returns the path that stands for the package: sidecars lie beside it, and messages name it. There is no such file
    /// where the package is in parts.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Parts(parts) => &parts.whole,
        }
    }

    /// Opens the content, from its first byte. Where a part turns out to be damaged or missing, reading fails at the
    /// end, with all of them named.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send + Sync>> {
        match self {
            Self::File(path) => Ok(Box::new(open_file(path)?)),
            Self::Parts(Parts { whole, table }) => {
                let whole = whole.clone();
                let open = move |name: &str| open_file(&whole.with_file_name(name));
                Ok(Box::new(Joined::new(table, open)))
            }
        }
    }

    /// Looks at every file. Parts that are not there are left to whoever reads, who names all of them.
    pub(super) fn look(&self) -> Result<Look, Error> {
        let files = match self {
            Self::File(path) => vec![look_at(path)?],
            Self::Parts(Parts { whole, table }) => {
                let paths = table.parts().iter();
                let paths = paths.map(|part| whole.with_file_name(&part.name));
                let present = paths.filter(|path| path.symlink_metadata().is_ok());
                present
                    .map(|path| look_at(&path))
                    .collect::<Result<_, _>>()?
            }
        };
        Ok(Look(files))
    }

    /// Returns the error that a failure to read is.
    pub(super) fn failure(&self, error: io::Error) -> Error {
        match error.downcast::<parts::Error>() {
            Ok(error) => error.into(),
            Err(source) => Error::Unreadable {
                path: self.path().to_owned(),
                source,
            },
        }
    }

    /// Compares the digest of everything that was read with what the source promises by itself.
    pub(super) fn check(&self, found: Digest) -> Result<(), Error> {
        match self {
            Self::Parts(Parts { table, .. }) if table.digest() != found => {
                let expected = table.digest();
                Err(parts::Error::WholeDigest { expected, found }.into())
            }
            Self::File(_) | Self::Parts(_) => Ok(()),
        }
    }
}

impl Parts {
    /// Reads the table at `path`. The parts that it names lie beside it, as far as they are there.
    pub fn read(path: &Path) -> Result<Self, Error> {
        require_file(path)?;
        let mut content = Vec::new();
        // One byte more than is allowed tells a table that is too large.
        open_file(path)
            .and_then(|file| file.take(TABLE_BYTES_MAX + 1).read_to_end(&mut content))
            .map_err(|source| Error::Unreadable {
                path: path.to_owned(),
                source,
            })?;
        let name = path.file_name().and_then(|name| name.to_str());
        let table = Table::parse(name.unwrap_or_default(), &content)?;
        Ok(Self {
            whole: path.with_file_name(table.name()),
            table,
        })
    }

    /// Returns the table.
    pub const fn table(&self) -> &Table {
        &self.table
    }
}

impl Look {
    /// Returns the size of all files together, in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.0.iter().map(|(size_bytes, ..)| size_bytes).sum()
    }
}

fn look_at(path: &Path) -> Result<(u64, i64, i64), Error> {
    let metadata = require_file(path)?;
    Ok((metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

/// Opens a regular file. Whatever else is at `path`, or comes there at this moment, is an error and is not waited for: opening
/// a pipe would wait for a writer, without end.
pub fn open_file(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("flags are small numbers");
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("expected a file, found something else"))
    }
}

/// Returns what is known of the file at `path`, if it is one.
pub(super) fn require_file(path: &Path) -> Result<Metadata, Error> {
    let metadata = std::fs::metadata(path).map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    if metadata.is_file() {
        Ok(metadata)
    } else {
        Err(Error::NotAFile {
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_no_file_is_an_error_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let made = Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        std::os::unix::fs::symlink("round", path("round")).unwrap();
        std::os::unix::fs::symlink("pipe", path("link")).unwrap();
        for name in ["pipe", "link", "round", "absent", "."] {
            open_file(&path(name)).unwrap_err();
        }
        for name in ["pipe", "link", "."] {
            let error = require_file(&path(name)).unwrap_err();
            assert_eq!(error.code(), "not-a-file", "{name}");
        }
        open_file(Path::new("/dev/zero")).unwrap_err();
        std::os::unix::fs::symlink("file", path("to-file")).unwrap();
        File::create(path("file")).unwrap();
        for name in ["file", "to-file"] {
            open_file(&path(name)).unwrap();
        }
    }
}
