//! Where a package is written: one file, or parts with their table.
//!
//! Each byte is written once and hashed on the way.
//!
//! # Durability
//!
//! Nothing is visible under its name before all of it is durable. Of a package in parts the table comes last: whoever
//! sees the table sees all parts. Parts of an earlier package of the same name lose their table before the first of them
//! is replaced, so that no table ever describes a mixture.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use super::Error;
use crate::base::{Digest, Hasher};
use crate::package;
use crate::package::parts::{self, PartFiles, Splitter, TABLE_SUFFIX};
use crate::sys::fs::{self as durable, Context as _};

/// Bytes that are collected before they are written. Chosen, not measured.
const BUFFER_BYTES: usize = 1 << 20;

/// A package that is being written. Dropping it leaves nothing behind.
pub(super) struct Output {
    path: PathBuf,
    sink: BufWriter<Sink>,
}

/// What a package was written as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The package; the table, where it was split.
    pub path: PathBuf,
    /// Size of the whole, in bytes.
    pub size_bytes: u64,
    /// Digest of the whole.
    pub digest: Digest,
    /// How many parts there are; none where it is one file.
    pub parts: usize,
}

enum Sink {
    Whole(Whole),
    Parts(Box<Splitter<PartTemps>>),
}

/// One file and what was written to it.
struct Whole {
    temp: NamedTempFile,
    hasher: Hasher,
    size_bytes: u64,
}

/// Parts that are not visible yet, in a folder.
struct PartTemps {
    dir: PathBuf,
    /// Closed and durable, each with the name that it gets.
    done: Vec<(TempPath, String)>,
}

impl Output {
    /// Starts a package that appears at `path`: as one file, or in parts of `part_bytes` bytes.
    pub(super) fn create(path: &Path, part_bytes: Option<NonZeroU64>) -> Result<Self, Error> {
        let dir = durable::parent_of(path);
        let sink = match part_bytes {
            None => Sink::Whole(Whole {
                temp: durable::create_temp(dir, 0o644)?,
                hasher: Hasher::default(),
                size_bytes: 0,
            }),
            Some(part_bytes) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let temps = PartTemps {
                    dir: dir.to_owned(),
                    done: Vec::new(),
                };
                Sink::Parts(Box::new(Splitter::new(&name, part_bytes, temps)?))
            }
        };
        Ok(Self {
            path: path.to_owned(),
            sink: BufWriter::with_capacity(BUFFER_BYTES, sink),
        })
    }

    /// Makes the package durable, then visible.
    pub(super) fn publish(self) -> Result<Written, Error> {
        let Self { path, sink } = self;
        let sink = sink
            .into_inner()
            .map_err(|error| explain(package::Error::Write(error.into_error())))?;
        match sink {
            Sink::Whole(Whole {
                temp,
                hasher,
                size_bytes,
            }) => {
                durable::publish(temp, &path)?;
                Ok(Written {
                    path,
                    size_bytes,
                    digest: hasher.finish(),
                    parts: 0,
                })
            }
            Sink::Parts(splitter) => {
                let finished = splitter.finish();
                let (table, temps) =
                    finished.map_err(|error| explain(package::Error::Write(error)))?;
                let mut name = path.file_name().unwrap_or_default().to_owned();
                name.push(TABLE_SUFFIX);
                let path = path.with_file_name(name);
                durable::remove_file(&path)?;
                for (temp, name) in temps.done {
                    durable::publish_closed(temp, &temps.dir.join(name))?;
                }
                durable::sync_dir(&temps.dir)?;
                durable::replace_file(&path, &table.encode(), 0o644)?;
                Ok(Written {
                    path,
                    size_bytes: table.size_bytes(),
                    digest: table.digest(),
                    parts: table.parts().len(),
                })
            }
        }
    }
}

/// Returns the error behind a failure to write: that there are too many parts is no fault of the file system.
pub(super) fn explain(error: package::Error) -> Error {
    let package::Error::Write(error) = error else {
        return error.into();
    };
    match error.downcast::<parts::Error>() {
        Ok(error) => error.into(),
        Err(error) => package::Error::Write(error).into(),
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Whole(whole) => {
                let amount = whole.temp.write(bytes)?;
                whole.hasher.update(&bytes[..amount]);
                whole.size_bytes += amount as u64;
                Ok(amount)
            }
            Self::Parts(splitter) => splitter.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Whole(whole) => whole.temp.flush(),
            Self::Parts(splitter) => splitter.flush(),
        }
    }
}

impl PartFiles for PartTemps {
    type File = NamedTempFile;

    fn create(&mut self, _: &str) -> io::Result<NamedTempFile> {
        durable::create_temp(&self.dir, 0o644).map_err(into_io)
    }

    fn close(&mut self, name: &str, temp: NamedTempFile) -> io::Result<()> {
        let (file, path) = temp.into_parts();
        File::sync_all(&file)
            .context("sync", &path)
            .map_err(into_io)?;
        self.done.push((path, name.to_owned()));
        Ok(())
    }
}

fn into_io(error: durable::Error) -> io::Error {
    io::Error::new(error.source.kind(), error)
}
