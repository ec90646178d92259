//! Writing a stream in parts.

use std::io::{self, Write};
use std::num::NonZeroU64;

use super::{Error, PARTS_MAX, Part, Table, check_name, part_name};
use crate::base::Hasher;

/// Where parts go.
pub trait PartFiles {
    /// A part that is being written.
    type File: Write;

    /// Starts a part.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;

    /// Ends a part of which everything was written.
    fn close(&mut self, name: &str, file: Self::File) -> io::Result<()>;
}

/// Writes what it is given into parts of one size, of which the last may be smaller.
///
/// Each byte is written once, and hashed on the way for its part and for the whole.
#[derive(Debug)]
pub struct Splitter<P: PartFiles> {
    files: P,
    name: String,
    part_bytes: NonZeroU64,
    current: Option<Current<P::File>>,
    parts: Vec<Part>,
    whole: Hasher,
    size_bytes: u64,
}

#[derive(Debug)]
struct Current<F> {
    name: String,
    file: F,
    hasher: Hasher,
    left_bytes: u64,
}

impl<P: PartFiles> Splitter<P> {
    /// Returns a writer of the package `name` into parts of `part_bytes` bytes.
    pub fn new(name: &str, part_bytes: NonZeroU64, files: P) -> Result<Self, Error> {
        check_name(name)?;
        Ok(Self {
            files,
            name: name.to_owned(),
            part_bytes,
            current: None,
            parts: Vec::new(),
            whole: Hasher::default(),
            size_bytes: 0,
        })
    }

    /// Ends the last part and returns the table, and where the parts went.
    pub fn finish(mut self) -> io::Result<(Table, P)> {
        self.close()?;
        let digest = self.whole.finish();
        let table = Table::new(self.name, self.size_bytes, digest, self.parts)?;
        Ok((table, self.files))
    }

    fn open(&mut self) -> io::Result<Current<P::File>> {
        let number = self.parts.len() + 1;
        if number > PARTS_MAX {
            return Err(Error::Count { found: number }.into());
        }
        let name = part_name(&self.name, number);
        Ok(Current {
            file: self.files.create(&name)?,
            name,
            hasher: Hasher::default(),
            left_bytes: self.part_bytes.get(),
        })
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(mut current) = self.current.take() else {
            return Ok(());
        };
        current.file.flush()?;
        self.files.close(&current.name, current.file)?;
        self.parts.push(Part {
            name: current.name,
            size_bytes: self.part_bytes.get() - current.left_bytes,
            digest: current.hasher.finish(),
        });
        Ok(())
    }
}

impl<P: PartFiles> Write for Splitter<P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.open()?,
        };
        let wanted = usize::try_from(current.left_bytes).unwrap_or(usize::MAX);
        let amount = current.file.write(&bytes[..bytes.len().min(wanted)]);
        if let Ok(amount) = amount {
            current.hasher.update(&bytes[..amount]);
            self.whole.update(&bytes[..amount]);
            current.left_bytes -= amount as u64;
            self.size_bytes += amount as u64;
        }
        let is_full = current.left_bytes == 0;
        self.current = Some(current);
        if is_full {
            self.close()?;
        }
        amount
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.current {
            Some(current) => current.file.flush(),
            None => Ok(()),
        }
    }
}
