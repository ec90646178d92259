//! Reading parts as one stream.

use std::io::{self, Read};
use std::vec;

use super::error::ReadFailure;
use super::{Error, Part, Table};
use crate::base::Hasher;

/// The parts of a package, one after the other, each compared with what the table says of it.
///
/// A part that is damaged or missing does not end the stream, so that all of them are found in one pass; what comes out
/// instead of its content is worthless, and at the end of the stream reading fails with [`Error::Damaged`], inside of an
/// [`io::Error`] of kind `InvalidData`. Whoever reads to the end and meets no error has read what the table describes.
///
/// `O` opens a part by its name.
#[derive(Debug)]
pub struct Joined<O, R> {
    open: O,
    expected: usize,
    coming: vec::IntoIter<Part>,
    current: Option<Current<R>>,
    damaged: Vec<String>,
    missing: Vec<String>,
}

/// The part that is being read.
#[derive(Debug)]
struct Current<R> {
    part: Part,
    reader: R,
    hasher: Hasher,
    left_bytes: u64,
}

impl<R: Read, O: FnMut(&str) -> io::Result<R>> Joined<O, R> {
    /// Returns the stream of what `table` describes.
    pub fn new(table: &Table, open: O) -> Self {
        Self {
            open,
            expected: table.parts().len(),
            coming: table.parts().to_vec().into_iter(),
            current: None,
            damaged: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Opens the next part that is there. Returns whether there is one.
    fn advance(&mut self) -> io::Result<bool> {
        for part in self.coming.by_ref() {
            match (self.open)(&part.name) {
                Ok(reader) => {
                    self.current = Some(Current {
                        reader,
                        hasher: Hasher::default(),
                        left_bytes: part.size_bytes,
                        part,
                    });
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.missing.push(part.name);
                }
                Err(error) => return Err(unreadable(&part, &error)),
            }
        }
        Ok(false)
    }

    /// Ends the stream.
    fn verdict(&self) -> io::Result<usize> {
        if self.damaged.is_empty() && self.missing.is_empty() {
            return Ok(0);
        }
        Err(Error::Damaged {
            expected: self.expected,
            damaged: self.damaged.clone(),
            missing: self.missing.clone(),
        }
        .into())
    }
}

impl<R: Read> Current<R> {
    /// Reads on, never beyond the size that the table says. Returns nothing at the end of the part.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
        let length = into.len().min(wanted);
        let amount = self.read_part(&mut into[..length])?;
        self.hasher.update(&into[..amount]);
        self.left_bytes -= amount as u64;
        Ok(amount)
    }

    /// Ends the part, of which everything was read. Returns whether it is what the table says.
    fn finish(mut self) -> io::Result<bool> {
        let ends = self.left_bytes == 0 && self.read_part(&mut [0])? == 0;
        Ok(ends && self.hasher.finish() == self.part.digest)
    }

    fn read_part(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.reader.read(into) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(unreadable(&self.part, &error))
            }
            outcome => outcome,
        }
    }
}

impl<R: Read, O: FnMut(&str) -> io::Result<R>> Read for Joined<O, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(current) = &mut self.current {
                let amount = current.read(into)?;
                if amount > 0 {
                    return Ok(amount);
                }
            }
            if let Some(ended) = self.current.take() {
                let name = ended.part.name.clone();
                if !ended.finish()? {
                    self.damaged.push(name);
                }
            }
            if !self.advance()? {
                return self.verdict();
            }
        }
    }
}

fn unreadable(part: &Part, error: &io::Error) -> io::Error {
    Error::Unreadable {
        part: part.name.clone(),
        kind: ReadFailure(error.kind()),
    }
    .into()
}
