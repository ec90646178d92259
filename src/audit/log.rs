//! Writing the record.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use super::event::{Broken, Event};
use super::line::{self, BEGINNING, Entry, Head};
use super::walk::{Fault, Finding, Line, Lines, LogFile, Piece, Walk, list_files};
use crate::base::{Digest, Timestamp};
use crate::sys::fs::{self as durable, Context as _};

/// Size of a file, in bytes, beyond which the next line begins another one: some sixteen thousand records. Chosen, not
/// measured.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Who may read it: the daemon and its group.
const FILE_MODE: u32 = 0o640;

/// Where the record is, and how it is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder.
    pub dir: PathBuf,
    /// Size of a file, in bytes, beyond which the next line begins another one.
    pub file_bytes_max: u64,
}

impl Options {
    /// Returns options for a folder, all else by default.
    pub const fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            file_bytes_max: FILE_BYTES_MAX,
        }
    }
}

/// The record, open for writing. Clones write to the same one. Only one process may have it open, which is up to the
/// caller.
#[derive(Clone, Debug)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    /// Where the next line goes; `None` where the files must be looked at first.
    end: Option<End>,
    /// The last line that was acknowledged to somebody.
    acknowledged: Option<Head>,
}

/// The end of the record.
#[derive(Debug)]
struct End {
    /// The file that the next line goes to, unless it is full.
    file: LogFile,
    opened: File,
    size_bytes: u64,
    /// The last line; `None` in an empty record.
    head: Option<Head>,
}

/// What the files say about where to go on.
struct Found {
    /// The last file, if it can be continued.
    continued: Option<LogFile>,
    /// The number of a new file in its place.
    next_number: u64,
    head: Option<Head>,
    /// What must be on record before anything else.
    notes: Vec<Event>,
}

impl Log {
    /// Opens the record, or begins one, and takes note of what a crash has left.
    ///
    /// A damaged record is no error: the damage stays as it is, a new file says what it is, and goes on.
    pub fn open(options: Options, now: Timestamp) -> Result<Self, Error> {
        let log = Self(Arc::new(Inner {
            options,
            writer: Mutex::new(Writer::default()),
        }));
        log.with_writer(|writer| writer.prepare(&log.0.options, now))?;
        Ok(log)
    }

    /// Puts an event on record. It survives power loss on success.
    ///
    /// On error it may be on record or not: whoever tries again may find it there twice.
    pub fn append(&self, event: &Event, now: Timestamp) -> Result<Head, Error> {
        self.with_writer(|writer| {
            writer.prepare(&self.0.options, now)?;
            writer.write(&self.0.options, event, now)
        })
    }

    /// Returns the last line, if there is one.
    pub fn head(&self) -> Option<Head> {
        let writer = &self.0.writer;
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.acknowledged
    }

    /// Runs `work`, after whose failure the files are looked at again.
    fn with_writer<T>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // A panic in the middle is a failure like any other: the files say what is true.
        let mut writer = self.0.writer.lock().unwrap_or_else(|poisoned| {
            self.0.writer.clear_poison();
            let mut writer = poisoned.into_inner();
            writer.end = None;
            writer
        });
        let result = work(&mut writer);
        if result.is_err() {
            writer.end = None;
        }
        result
    }
}

impl Writer {
    /// Makes sure that the next line goes where the record ends.
    fn prepare(&mut self, options: &Options, now: Timestamp) -> Result<(), Error> {
        if self.end.as_ref().is_some_and(End::is_as_left) {
            return Ok(());
        }
        durable::ensure_dir_all(&options.dir)?;
        let found = find_end(options, self.acknowledged)?;
        let (file, opened) = match found.continued {
            Some(file) => {
                let opened = durable::open_append(&file.path)?;
                (file, opened)
            }
            None => create(options, found.next_number)?,
        };
        let size_bytes = opened.metadata().context("inspect", &file.path)?.len();
        self.end = Some(End {
            file,
            opened,
            size_bytes,
            head: found.head,
        });
        for note in found.notes {
            log(&note);
            self.write(options, &note, now)?;
        }
        self.acknowledged = self.end.as_ref().and_then(|end| end.head);
        Ok(())
    }

    fn write(&mut self, options: &Options, event: &Event, now: Timestamp) -> Result<Head, Error> {
        let end = self.end.as_mut().expect("prepare() comes before write()");
        if end.size_bytes >= options.file_bytes_max {
            (end.file, end.opened) = create(options, end.file.number + 1)?;
            end.size_bytes = 0;
        }
        let (sequence, previous) = end
            .head
            .map_or((1, BEGINNING), |head| (head.sequence + 1, head.hash));
        let mut bytes = line::encode(line::PROGRAM, sequence, now, previous, event);
        let hash = Digest::of(&bytes);
        bytes.push(b'\n');
        durable::append(&mut end.opened, &end.file.path, &bytes)?;
        let head = Head { sequence, hash };
        end.size_bytes += bytes.len() as u64;
        end.head = Some(head);
        self.acknowledged = Some(head);
        Ok(head)
    }
}

impl End {
    /// Returns whether the file is still the one that was left, with its name and its size.
    fn is_as_left(&self) -> bool {
        let there = std::fs::metadata(&self.file.path);
        let opened = self.opened.metadata();
        there.ok().zip(opened.ok()).is_some_and(|(there, opened)| {
            (there.dev(), there.ino()) == (opened.dev(), opened.ino())
                && there.len() == self.size_bytes
        })
    }
}

fn create(options: &Options, number: u64) -> Result<(LogFile, File), Error> {
    let file = LogFile::new(&options.dir, number);
    let opened = durable::create_append(&file.path, FILE_MODE)?;
    Ok((file, opened))
}

fn log(note: &Event) {
    match note {
        Event::Recovered(rest) => {
            tracing::warn!(file = %rest.file, bytes = rest.size_bytes, "audit record ended in the middle of a line");
        }
        Event::Broken(broken) => {
            tracing::error!(file = %broken.file, line = broken.line, code = %broken.code, reason = %broken.reason, "audit record is broken");
        }
        Event::Package(_) | Event::Removed(_) => {}
    }
}

/// Looks at the end of the record: at the last two files that hold a line, and at what follows them.
///
/// Two, because a crash may come between several notes about what an earlier crash has left.
fn find_end(options: &Options, acknowledged: Option<Head>) -> Result<Found, Error> {
    let files = list_files(&options.dir)?;
    let mut known = Vec::new();
    let mut visit = |_: Line<'_>, entry: &Entry| {
        if let Some(Event::Broken(broken)) = &entry.event {
            known.push(broken.clone());
        }
    };
    let tail = &files[find_start(&files)?..];
    let mut findings = if tail.first().is_none_or(|file| file.number == 1) {
        Walk::from_beginning().read(tail, &mut visit)?
    } else {
        Walk::from_middle().read(tail, &mut visit)?
    };
    if findings.records == 0 && tail.len() < files.len() {
        // None of these lines can be read: only the lines before them say which numbers were given.
        findings = Walk::from_beginning().read(&files, &mut visit)?;
    }
    let mut notes: Vec<Event> = findings.breaks.iter().map(note_about).collect();
    notes.retain(|note| !matches!(note, Event::Broken(broken) if known.contains(broken)));
    let mut head = findings.head;
    if let Some(expected) = acknowledged
        && !reaches(head, expected)
    {
        notes.push(Event::Broken(cut_off(&files, expected, head)));
        // Numbers are never given twice, so that the gap shows.
        head = Some(Head {
            sequence: expected.sequence,
            hash: head.map_or(BEGINNING, |head| head.hash),
        });
    }
    Ok(Found {
        continued: files.last().filter(|_| notes.is_empty()).cloned(),
        next_number: files.last().map_or(1, |file| file.number + 1),
        head,
        notes,
    })
}

/// Returns whether a record that ends with `head` can hold the line `expected`.
fn reaches(head: Option<Head>, expected: Head) -> bool {
    head.is_some_and(|head| head.sequence > expected.sequence || head == expected)
}

fn note_about(finding: &Finding) -> Event {
    let fault = &finding.fault;
    if let Fault::Incomplete(rest) = fault {
        return Event::Recovered(rest.clone());
    }
    Event::Broken(Broken {
        file: finding.file.clone(),
        line: finding.line,
        code: fault.code().to_owned(),
        reason: fault.to_string(),
    })
}

/// The end of the record was taken away while this process was writing it.
fn cut_off(files: &[LogFile], expected: Head, found: Option<Head>) -> Broken {
    let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
    Broken {
        file: files.last().map(LogFile::name).unwrap_or_default(),
        line: None,
        code: "cut-off".to_owned(),
        reason: format!("expected {expected} as the last record, found {found}"),
    }
}

/// Returns the position of the last but one of `files` that holds a whole line, or else of the first.
fn find_start(files: &[LogFile]) -> Result<usize, Error> {
    let mut whole = 0;
    for (position, file) in files.iter().enumerate().rev() {
        let opened = File::open(&file.path).context("open", &file.path)?;
        let (piece, _) = Lines::new(opened).next(false).context("read", &file.path)?;
        whole += usize::from(matches!(piece, Piece::Line | Piece::TooLong));
        if whole == 2 {
            return Ok(position);
        }
    }
    Ok(0)
}
