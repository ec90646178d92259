//! Reading the record from its beginning and finding every break in it.
//!
//! One line is in memory at a time. What follows a break is read on from there, so that every break is found and each is
//! said once.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::Error;
use super::event::{Event, Recovered};
use super::line::{self, BEGINNING, Damage, Entry, Head};
use crate::base::{Digest, Hasher, Timestamp};
use crate::sys::fs::Context as _;

/// The longest line, in bytes. Texts in records are bounded, and lists of signers and sidecars are short: a line has about
/// 1 KiB; chosen, not measured.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Breaks that are kept; more are only counted. Chosen, not measured.
const FINDINGS_MAX: usize = 1000;
/// How long to wait before an incomplete line at the very end is looked at again: a running daemon writes a line with one
/// system call, which takes microseconds. Chosen, not measured.
const WRITING: Duration = Duration::from_millis(50);

/// A file of the record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogFile {
    /// Its number, from 1.
    pub(super) number: u64,
    /// Where it is.
    pub(super) path: PathBuf,
}

impl LogFile {
    /// Returns the file with this number.
    pub(super) fn new(dir: &Path, number: u64) -> Self {
        Self {
            number,
            path: dir.join(file_name(number)),
        }
    }

    /// Returns its name.
    pub(super) fn name(&self) -> String {
        file_name(self.number)
    }
}

fn file_name(number: u64) -> String {
    format!("audit-{number:06}.jsonl")
}

/// Lists the files of the record in `dir`, ascending. Other names are none of ours.
pub(super) fn list_files(dir: &Path) -> Result<Vec<LogFile>, Error> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).context("read", dir)? {
        let entry = entry.context("read", dir)?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("audit-")?.strip_suffix(".jsonl"))
            .and_then(|digits| digits.parse().ok());
        if let Some(number) = number
            && name.to_str() == Some(&file_name(number))
        {
            files.push(LogFile::new(dir, number));
        }
    }
    files.sort();
    Ok(files)
}

/// Where a line is, and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Name of the file.
    pub file: &'a str,
    /// Position in the file, from 1.
    pub number: u64,
    /// The bytes, without the line feed.
    pub bytes: &'a [u8],
    /// Their digest.
    pub hash: Digest,
}

/// A break in the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Name of the file.
    pub file: String,
    /// The line, from 1; `None` where it is about the file as a whole.
    pub line: Option<u64>,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a line or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No line of the record.
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// Longer than any line of the record.
    TooLong,
    /// Not the bytes that were written.
    Altered {
        /// The check that was written.
        expected: Digest,
        /// The check of what is there.
        found: Digest,
    },
    /// Of a version that this program does not read.
    Version {
        /// The version.
        found: u32,
    },
    /// Not what was written behind the line before it.
    Unlinked {
        /// The digest of the line before.
        expected: Digest,
        /// The digest that the line names.
        found: Digest,
    },
    /// Not the next number.
    OutOfSequence {
        /// The number after that of the line before.
        expected: u64,
        /// The number of the line.
        found: u64,
    },
    /// The file ends in the middle of a line, and no later line takes note of that.
    Incomplete(Recovered),
    /// Files are missing before this one.
    MissingFiles {
        /// The first that is missing.
        expected: String,
    },
}

impl Fault {
    /// Returns the stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed-line",
            Self::TooLong => "line-too-long",
            Self::Altered { .. } => "altered-line",
            Self::Version { .. } => "unknown-version",
            Self::Unlinked { .. } => "unlinked-line",
            Self::OutOfSequence { .. } => "out-of-sequence",
            Self::Incomplete(_) => "incomplete-line",
            Self::MissingFiles { .. } => "missing-file",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { reason } => write!(f, "expected a record, found {reason}"),
            Self::TooLong => write!(
                f,
                "expected a record, found a line of more than {LINE_BYTES_MAX} bytes"
            ),
            Self::Altered { expected, found } => {
                write!(f, "expected a line with check {expected}, found {found}")
            }
            Self::Version { found } => {
                write!(f, "expected version {}, found {found}", line::VERSION)
            }
            Self::Unlinked { expected, found } => {
                write!(
                    f,
                    "expected a line after {expected}, found one after {found}"
                )
            }
            Self::OutOfSequence { expected, found } => {
                write!(f, "expected record {expected}, found record {found}")
            }
            Self::Incomplete(rest) => write!(
                f,
                "expected a line feed at the end, found {} bytes without",
                rest.size_bytes
            ),
            Self::MissingFiles { expected } => {
                write!(f, "expected `{expected}` before it, found no such file")
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.fault)
    }
}

/// What a look at the record found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Files that were read.
    pub files: u64,
    /// Lines that were read and are records.
    pub records: u64,
    /// Time of the first record.
    pub first_time: Option<Timestamp>,
    /// Time of the last record.
    pub last_time: Option<Timestamp>,
    /// The last line.
    pub head: Option<Head>,
    /// The breaks, in the order of the files, up to a bound.
    pub breaks: Vec<Finding>,
    /// How many breaks there are.
    pub breaks_total: u64,
}

/// Reads lines one after the other and remembers what must come next.
#[derive(Debug)]
pub(super) struct Walk {
    /// Digest of the last line; `None` where that is not known.
    previous: Option<Digest>,
    /// The number that must come next; `None` where that is not known.
    next: Option<u64>,
    /// Incomplete lines that no later line has taken note of.
    open: Vec<(Recovered, u64)>,
    /// Whether somebody else may be writing.
    may_grow: bool,
    findings: Findings,
}

impl Walk {
    /// Begins where the record begins.
    pub(super) fn from_beginning() -> Self {
        Self {
            previous: Some(BEGINNING),
            next: Some(1),
            open: Vec::new(),
            may_grow: false,
            findings: Findings::default(),
        }
    }

    /// Begins in the middle of the record.
    pub(super) fn from_middle() -> Self {
        Self {
            previous: None,
            next: None,
            ..Self::from_beginning()
        }
    }

    /// Gives a line that somebody else is writing just now the time to be completed.
    pub(super) fn beside_a_writer(self) -> Self {
        Self {
            may_grow: true,
            ..self
        }
    }

    /// Reads `files`, which must be ascending, and shows every record to `visit`.
    pub(super) fn read(
        mut self,
        files: &[LogFile],
        visit: &mut dyn FnMut(Line<'_>, &Entry),
    ) -> Result<Findings, Error> {
        let mut expected = self.next.map(|_| 1);
        for (position, file) in files.iter().enumerate() {
            let missing = expected.filter(|number| *number != file.number);
            if let Some(number) = missing {
                let expected = file_name(number);
                self.report(file, None, Fault::MissingFiles { expected });
                // What the missing lines said is not known, so that the first one here is the beginning.
                (self.previous, self.next) = (None, None);
            }
            expected = Some(file.number + 1);
            let may_grow = self.may_grow && position + 1 == files.len();
            self.read_file(file, may_grow, visit)?;
        }
        for (rest, line) in std::mem::take(&mut self.open) {
            self.findings.add(Finding {
                file: rest.file.clone(),
                line: Some(line),
                fault: Fault::Incomplete(rest),
            });
        }
        Ok(self.findings)
    }

    fn read_file(
        &mut self,
        file: &LogFile,
        may_grow: bool,
        visit: &mut dyn FnMut(Line<'_>, &Entry),
    ) -> Result<(), Error> {
        let opened = File::open(&file.path).context("open", &file.path)?;
        let mut lines = Lines::new(opened);
        self.findings.files += 1;
        let name = file.name();
        for number in 1.. {
            let (piece, hash) = lines.next(may_grow).context("read", &file.path)?;
            let line = Line {
                file: &name,
                number,
                bytes: &lines.buffer,
                hash,
            };
            match piece {
                Piece::End => break,
                Piece::Line => self.take(file, line, visit),
                Piece::TooLong => {
                    self.report(file, Some(number), Fault::TooLong);
                    self.skip(hash);
                }
                Piece::Incomplete { size_bytes } => {
                    let rest = Recovered {
                        file: name,
                        size_bytes,
                        digest: hash,
                    };
                    self.open.push((rest, number));
                    break;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, file: &LogFile, line: Line<'_>, visit: &mut dyn FnMut(Line<'_>, &Entry)) {
        let number = Some(line.number);
        let entry = match line::decode(line.bytes) {
            Ok(entry) => entry,
            Err(damage) => {
                let fault = match damage {
                    Damage::Malformed { reason } => Fault::Malformed { reason },
                    Damage::Altered { expected, found } => Fault::Altered { expected, found },
                    Damage::Version { found } => Fault::Version { found },
                };
                self.report(file, number, fault);
                return self.skip(line.hash);
            }
        };
        let found = entry.previous;
        match self.previous {
            Some(expected) if expected != found => {
                self.report(file, number, Fault::Unlinked { expected, found });
            }
            Some(_) | None => {}
        }
        let found = entry.sequence;
        match self.next {
            Some(expected) if expected != found => {
                self.report(file, number, Fault::OutOfSequence { expected, found });
            }
            Some(_) | None => {}
        }
        self.previous = Some(line.hash);
        self.next = Some(entry.sequence.saturating_add(1));
        let findings = &mut self.findings;
        findings.records += 1;
        findings.first_time.get_or_insert(entry.time);
        findings.last_time = Some(entry.time);
        findings.head = Some(Head {
            sequence: entry.sequence,
            hash: line.hash,
        });
        if let Some(Event::Recovered(noted)) = &entry.event {
            self.open.retain(|(rest, _)| rest != noted);
        }
        visit(line, &entry);
    }

    /// Goes on behind a line that cannot be read: it had the next number, whatever it says now.
    fn skip(&mut self, hash: Digest) {
        let last = self.findings.head.map_or(0, |head| head.sequence);
        let sequence = self.next.unwrap_or(last.saturating_add(1));
        self.previous = Some(hash);
        self.next = self.next.map(|next| next.saturating_add(1));
        self.findings.head = Some(Head { sequence, hash });
    }

    fn report(&mut self, file: &LogFile, line: Option<u64>, fault: Fault) {
        self.findings.add(Finding {
            file: file.name(),
            line,
            fault,
        });
    }
}

impl Findings {
    fn add(&mut self, finding: Finding) {
        self.breaks_total += 1;
        if self.breaks.len() < FINDINGS_MAX {
            self.breaks.push(finding);
        }
    }
}

impl Serialize for Finding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;

        let mut object = serializer.serialize_struct("Finding", 4)?;
        object.serialize_field("file", &self.file)?;
        object.serialize_field("line", &self.line)?;
        object.serialize_field("code", self.fault.code())?;
        object.serialize_field("reason", &self.fault.to_string())?;
        object.end()
    }
}

/// What stands at some place of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line, which is in the buffer now.
    Line,
    /// A line that is too long to keep.
    TooLong,
    /// Bytes at the end without a line feed.
    Incomplete { size_bytes: u64 },
    /// Nothing.
    End,
}

/// The lines of one file.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<File>,
    buffer: Vec<u8>,
}

impl Lines {
    pub(super) fn new(file: File) -> Self {
        Self {
            reader: BufReader::new(file),
            buffer: Vec::new(),
        }
    }

    /// Reads on, and returns what there is with the digest of its bytes.
    ///
    /// With `may_grow` somebody may be writing the last line just now: it is given the time to be completed.
    pub(super) fn next(&mut self, may_grow: bool) -> io::Result<(Piece, Digest)> {
        let read = self.read_piece()?;
        match read.0 {
            Piece::Incomplete { size_bytes } if may_grow => {
                std::thread::sleep(WRITING);
                let end = self.reader.stream_position()?;
                self.reader.seek(SeekFrom::Start(end - size_bytes))?;
                self.read_piece()
            }
            Piece::Line | Piece::TooLong | Piece::Incomplete { .. } | Piece::End => Ok(read),
        }
    }

    fn read_piece(&mut self) -> io::Result<(Piece, Digest)> {
        self.buffer.clear();
        let mut bounded = self.reader.by_ref().take(LINE_BYTES_MAX + 1);
        let mut size_bytes = bounded.read_until(b'\n', &mut self.buffer)? as u64;
        let mut hasher = Hasher::default();
        if self.buffer.pop_if(|last| *last == b'\n').is_some() {
            hasher.update(&self.buffer);
            return Ok((Piece::Line, hasher.finish()));
        }
        hasher.update(&self.buffer);
        if size_bytes == 0 {
            return Ok((Piece::End, hasher.finish()));
        }
        loop {
            let bytes = self.reader.fill_buf()?;
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let length = end.unwrap_or(bytes.len());
            hasher.update(&bytes[..length]);
            size_bytes += length as u64;
            let is_end = bytes.is_empty();
            self.reader.consume(length + usize::from(end.is_some()));
            if end.is_some() {
                return Ok((Piece::TooLong, hasher.finish()));
            }
            if is_end {
                return Ok((Piece::Incomplete { size_bytes }, hasher.finish()));
            }
        }
    }
}
