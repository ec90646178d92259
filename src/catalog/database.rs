//! RocksDB behind a small door: the only file that names it.
//!
//! # Durability
//!
//! Every write is synced before it returns, and is applied whole or not at all. After power loss the log is replayed up
//! to the first record that is not whole, which can only be one whose write had not returned.
//!
//! # Failure
//!
//! RocksDB describes errors in words; [`Error`] classifies them by its status code and, for I/O errors, by the words of
//! the operating system that it quotes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRawIterator, DBRecoveryMode, Env, ErrorKind, IteratorMode, LogLevel, Options, ReadOptions,
    WriteBatch, WriteOptions,
};

use super::Error;
use super::column::Column;
use crate::base::Class;
use crate::sys::fs::{self, Context as _};

/// Memory for unflushed rows, all columns together, in bytes. The whole catalog is some ten MB. Chosen, not measured.
const WRITE_BUFFER_BYTES: usize = 4 << 20;
/// Memory for blocks that were read, in bytes. Chosen, not measured.
const BLOCK_CACHE_BYTES: usize = 8 << 20;
/// Size of the write-ahead log from which on columns are flushed, in bytes. Bounds the time to open after a crash.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Descriptors that RocksDB may keep open.
const OPEN_FILES_MAX: i32 = 64;
/// Threads that flush and compact.
const BACKGROUND_JOBS: i32 = 2;
/// Rows that a cursor steps over before it searches: a search takes 5 µs, a step half a microsecond (measured with 200 000 rows,
/// 2026-11-21).
const STEPS_MAX: usize = 8;
/// RocksDB's own log: files kept and bytes of each.
const INFO_LOG_FILES: usize = 3;
const INFO_LOG_BYTES: usize = 1 << 20;

/// The file by which RocksDB finds everything else.
pub(super) const CURRENT: &str = "CURRENT";
/// The column that every RocksDB database has. Not used.
const DEFAULT_COLUMN: &str = "default";

/// What is tried, in errors.
const READ: &str = "read from";
const WRITE: &str = "write to";

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    database: DB,
    access: Access,
}

/// Changes that are applied together.
#[derive(Default)]
pub(super) struct Changes(Vec<Change>);

struct Change {
    column: Column,
    key: Vec<u8>,
    /// None to delete.
    row: Option<Vec<u8>>,
}

/// A key and its row.
pub(super) type Row = (Box<[u8]>, Box<[u8]>);

/// The same, as long as a cursor stays there.
pub(super) type Found<'a> = (&'a [u8], &'a [u8]);

/// Finds rows of a column whose keys start with a prefix, as they were when it was made. Keys may be asked for in any order; where
/// they ascend, it steps from row to row instead of searching each of them.
pub(super) struct Cursor<'a> {
    rows: DBRawIterator<'a>,
    /// There is no key from this one up to that of the current row. None where there is no current row yet.
    floor: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// The end of the keys at which a scan starts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    First,
    Last,
}

impl Changes {
    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn put(&mut self, column: Column, key: impl Into<Vec<u8>>, row: Vec<u8>) {
        let key = key.into();
        let row = Some(row);
        self.0.push(Change { column, key, row });
    }

    pub(super) fn delete(&mut self, column: Column, key: impl Into<Vec<u8>>) {
        let key = key.into();
        let row = None;
        self.0.push(Change { column, key, row });
    }
}

impl Database {
    /// Opens the database in `dir` for writing and creates what is missing.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        fs::ensure_dir_all(dir)?;
        if is_there(dir)? {
            check_columns(dir, Access::Write)?;
        }
        let database = attempt("open", dir, || {
            DB::open_cf_descriptors(&options(), dir, descriptors())
                .map_err(|error| open_error(dir, Access::Write, error))
        })?;
        Ok(Self {
            database,
            access: Access::Write,
        })
    }

    /// Opens the database in `dir` for reading, as it is at this moment.
    pub(super) fn open_read_only(dir: &Path) -> Result<Self, Error> {
        // Looks for nothing else: the files of a database in use come and go.
        if !dir.join(CURRENT).exists() {
            return Err(Error::NoCatalog {
                dir: dir.to_owned(),
            });
        }
        check_columns(dir, Access::Read)?;
        let database = DB::open_cf_descriptors_read_only(&options(), dir, descriptors(), false)
            .map_err(|error| open_error(dir, Access::Read, error))?;
        Ok(Self {
            database,
            access: Access::Read,
        })
    }

    /// Makes a database in memory, filled by `fill`, to be read like the one that should be in `dir`. Nothing is written to
    /// disk.
    pub(super) fn in_memory(
        dir: &Path,
        fill: impl FnOnce(&Self) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let failed = |error| open_error(dir, Access::Read, error);
        let mut options = options();
        options.set_env(&Env::mem_env().map_err(failed)?);
        // The library makes the directory of every database on the real disk: one that is there stays as it is.
        let there = dir.parent().unwrap_or(dir);
        let database = DB::open_cf_descriptors(&options, there, descriptors()).map_err(failed)?;
        let mut filled = Self {
            database,
            access: Access::Write,
        };
        fill(&filled)?;
        filled.access = Access::Read;
        Ok(filled)
    }

    /// Returns an error where this was opened for reading.
    pub(super) const fn check_writable(&self) -> Result<(), Error> {
        match self.access {
            Access::Read => Err(Error::ReadOnly),
            Access::Write => Ok(()),
        }
    }

    pub(super) fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        attempt(READ, self.database.path(), || {
            self.database
                .get_cf(self.handle(column), key)
                .map_err(|error| classified(READ, error))
        })
    }

    /// Returns the rows of `column` whose keys start with `prefix`, in the order of keys or against it.
    pub(super) fn scan(
        &self,
        column: Column,
        prefix: &[u8],
        start: Start,
    ) -> impl Iterator<Item = Result<Row, Error>> {
        let mut options = ReadOptions::default();
        options.set_iterate_range(rocksdb::PrefixRange(prefix));
        let mode = match start {
            Start::First => IteratorMode::Start,
            Start::Last => IteratorMode::End,
        };
        let rows = self
            .database
            .iterator_cf_opt(self.handle(column), options, mode)
            .map(|row| row.map_err(|error| classified(READ, error)));
        // Nothing, but in tests.
        let failure = attempt(READ, self.database.path(), || Ok(())).err();
        failure.into_iter().map(Err).chain(rows)
    }

    /// Returns a cursor over the rows of `column` whose keys start with `prefix`.
    pub(super) fn cursor(&self, column: Column, prefix: &[u8]) -> Result<Cursor<'_>, Error> {
        let mut options = ReadOptions::default();
        options.set_iterate_range(rocksdb::PrefixRange(prefix));
        attempt(READ, self.database.path(), || {
            let handle = self.handle(column);
            Ok(Cursor {
                rows: self.database.raw_iterator_cf_opt(handle, options),
                floor: None,
            })
        })
    }

    /// Applies all changes or none. They survive power loss when this returns.
    pub(super) fn write(&self, changes: Changes) -> Result<(), Error> {
        self.write_with(changes, true)
    }

    /// Applies all changes or none. They survive a kill when this returns; power loss, together with the next changes that
    /// do, or when the operating system has written the log in the background (30 s on Linux).
    pub(super) fn write_soon(&self, changes: Changes) -> Result<(), Error> {
        self.write_with(changes, false)
    }

    fn write_with(&self, changes: Changes, is_synced: bool) -> Result<(), Error> {
        self.check_writable()?;
        let mut batch = WriteBatch::default();
        for Change { column, key, row } in changes.0 {
            let handle = self.handle(column);
            match row {
                Some(row) => batch.put_cf(handle, key, row),
                None => batch.delete_cf(handle, key),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(is_synced);
        attempt(WRITE, self.database.path(), || {
            self.database
                .write_opt(batch, &options)
                .map_err(|error| classified(WRITE, error))
        })
    }

    fn handle(&self, column: Column) -> &ColumnFamily {
        self.database
            .cf_handle(column.name())
            .expect("a database opens with all columns or not at all")
    }
}

impl fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("floor", &self.floor)
            .finish_non_exhaustive()
    }
}

impl Cursor<'_> {
    /// Moves to the first row whose key is not less than `key`, and returns it.
    pub(super) fn find(&mut self, key: &[u8]) -> Result<Option<Found<'_>>, Error> {
        let is_ahead = self.floor.as_deref().is_some_and(|floor| floor <= key);
        let mut steps = 0;
        while is_ahead && steps < STEPS_MAX && self.is_before(key) {
            self.rows.next();
            steps += 1;
        }
        if !is_ahead || self.is_before(key) {
            self.rows.seek(key);
        }
        let floor = self.floor.get_or_insert_default();
        floor.clear();
        floor.extend_from_slice(key);
        self.current()
    }

    /// Moves on to the next row, and returns it.
    pub(super) fn next(&mut self) -> Result<Option<Found<'_>>, Error> {
        if let (Some(floor), Some(key)) = (&mut self.floor, self.rows.key()) {
            floor.clear();
            floor.extend_from_slice(key);
            // The least key behind it.
            floor.push(0);
            self.rows.next();
        }
        self.current()
    }

    fn is_before(&self, key: &[u8]) -> bool {
        self.rows.key().is_some_and(|current| current < key)
    }

    fn current(&self) -> Result<Option<Found<'_>>, Error> {
        let status = self.rows.status();
        status.map_err(|error| classified(READ, error))?;
        Ok(self.rows.item())
    }
}

/// Runs one operation of the database. Tests can make it fail before or after its effect, like one of the file system.
fn attempt<T>(
    verb: &'static str,
    dir: &Path,
    operation: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    fs::attempt(verb, dir, || Ok(operation()))?
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_db_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_total_wal_size(LOG_BYTES_MAX);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(INFO_LOG_FILES);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_stats_dump_period_sec(0);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // Notices the loss of a log, apart from the latest one: that is looked for before opening.
    options.set_track_and_verify_wals_in_manifest(true);
    options
}

fn descriptors() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    Column::ALL
        .iter()
        .map(|column| column.name())
        .chain([DEFAULT_COLUMN])
        .map(|name| {
            let mut table = BlockBasedOptions::default();
            table.set_block_cache(&cache);
            table.set_cache_index_and_filter_blocks(true);
            let mut options = Options::default();
            options.set_write_buffer_size(WRITE_BUFFER_BYTES);
            options.set_compression_type(DBCompressionType::Lz4);
            options.set_block_based_table_factory(&table);
            ColumnFamilyDescriptor::new(name, options)
        })
        .collect()
}

/// Returns whether `dir` holds a database.
///
/// RocksDB takes a directory without the file `CURRENT` for an empty one and starts over, and one without its latest log
/// for one that was flushed. It keeps neither state itself: the first log comes before the first table, and a log goes
/// only after the next one is there. So both are refused here, before rows are lost for good.
fn is_there(dir: &Path) -> Result<bool, Error> {
    let mut extensions = BTreeSet::new();
    for entry in std::fs::read_dir(dir).context("read", dir)? {
        let path = entry.context("read", dir)?.path();
        extensions.extend(path.extension().map(ToOwned::to_owned));
    }
    let has = |extension: &str| extensions.contains(OsStr::new(extension));
    let is_there = dir.join(CURRENT).exists();
    let missing = match is_there {
        true if has("sst") && !has("log") => "the log is missing beside tables",
        false if has("sst") || has("log") => "`CURRENT` is missing beside tables or logs",
        true | false => return Ok(is_there),
    };
    Err(Error::Corrupt {
        verb: "open",
        message: missing.to_owned(),
    })
}

/// Returns an error where the database has columns that this program does not know.
fn check_columns(dir: &Path, access: Access) -> Result<(), Error> {
    let names =
        DB::list_cf(&Options::default(), dir).map_err(|error| open_error(dir, access, error))?;
    let is_known = |name: &String| {
        name == DEFAULT_COLUMN || Column::ALL.iter().any(|column| column.name() == name)
    };
    match names.into_iter().find(|name| !is_known(name)) {
        Some(name) => Err(Error::UnknownColumn { name }),
        None => Ok(()),
    }
}

/// Classifies a failure to open.
///
/// A file that is missing means damage to the only one who writes; to a reader it mostly means that the writer has
/// replaced the file in that moment.
fn open_error(dir: &Path, access: Access, error: rocksdb::Error) -> Error {
    let (verb, kind, message) = ("open", error.kind(), error.into_string());
    let is_io = kind == ErrorKind::IOError;
    if is_io && (message.contains("lock hold by") || message.contains("While lock file")) {
        let dir = dir.to_owned();
        return Error::Held { dir };
    }
    let is_missing = message.contains(&words_of(2));
    match access {
        Access::Read if is_missing => Error::Database {
            verb,
            class: Class::Transient,
            message,
        },
        Access::Write if is_missing || kind == ErrorKind::InvalidArgument => {
            Error::Corrupt { verb, message }
        }
        Access::Read | Access::Write => classify(verb, &kind, message),
    }
}

fn classified(verb: &'static str, error: rocksdb::Error) -> Error {
    classify(verb, &error.kind(), error.into_string())
}

fn classify(verb: &'static str, kind: &ErrorKind, message: String) -> Error {
    let class = match kind {
        ErrorKind::Corruption => return Error::Corrupt { verb, message },
        ErrorKind::NotSupported if message.contains("read only mode") => return Error::ReadOnly,
        ErrorKind::IOError => class_of_words(&message),
        ErrorKind::NotSupported | ErrorKind::InvalidArgument | ErrorKind::ColumnFamilyDropped => {
            Class::Bug
        }
        ErrorKind::NotFound
        | ErrorKind::MergeInProgress
        | ErrorKind::Incomplete
        | ErrorKind::ShutdownInProgress
        | ErrorKind::TimedOut
        | ErrorKind::Aborted
        | ErrorKind::Busy
        | ErrorKind::Expired
        | ErrorKind::TryAgain
        | ErrorKind::CompactionTooLarge
        | ErrorKind::Unknown => Class::Transient,
    };
    Error::Database {
        verb,
        class,
        message,
    }
}

/// Returns the class of an I/O error of which only the words of the operating system are left.
fn class_of_words(message: &str) -> Class {
    // ENOSPC, EDQUOT, EACCES, EPERM, EROFS: the same numbers on every architecture of Linux that Rust builds for.
    [28, 122, 13, 1, 30]
        .into_iter()
        .find(|errno| message.contains(&words_of(*errno)))
        .map_or(Class::Transient, |errno| {
            fs::class_of(&io::Error::from_raw_os_error(errno))
        })
}

/// Returns the words of the operating system for an error number: `No such file or directory`.
fn words_of(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::Classified as _;

    /// Adds a column that this program does not know.
    pub(in crate::catalog) fn create_column(dir: &Path, name: &str) {
        let mut database = DB::open_cf_descriptors(&options(), dir, descriptors()).unwrap();
        database.create_cf(name, &Options::default()).unwrap();
    }

    /// Makes a database as the version before record files did: five columns, each row as it is.
    pub(in crate::catalog) fn create_released(dir: &Path, rows: &[(&str, Vec<u8>, Vec<u8>)]) {
        fs::ensure_dir_all(dir).unwrap();
        let columns = [
            "package",
            "ingest",
            "placement",
            "target",
            "run",
            DEFAULT_COLUMN,
        ];
        let database = DB::open_cf(&options(), dir, columns).unwrap();
        for (column, key, row) in rows {
            let column = database.cf_handle(column).unwrap();
            database.put_cf(column, key, row).unwrap();
        }
    }

    #[test]
    fn words_of_the_system_decide_the_class() {
        for (errno, class) in [
            (28, Class::Full),
            (13, Class::Denied),
            (30, Class::Denied),
            (5, Class::Transient),
        ] {
            let message = format!("IO error: While appending to file: x: {}", words_of(errno));
            let error = classify("write to", &ErrorKind::IOError, message);
            assert_eq!(error.class(), class, "{error}");
        }
        assert_eq!(words_of(28), "No space left on device");
    }

    #[test]
    fn changes_are_applied_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path()).unwrap();
        let mut changes = Changes::default();
        changes.put(Column::Ingest, "a", vec![1]);
        changes.delete(Column::Ingest, "a");
        changes.put(Column::Ingest, "b", vec![2]);
        changes.put(Column::Ingest, "b", vec![3]);
        database.write(changes).unwrap();
        assert_eq!(database.get(Column::Ingest, b"a").unwrap(), None);
        assert_eq!(database.get(Column::Ingest, b"b").unwrap(), Some(vec![3]));
        assert_eq!(database.get(Column::Run, b"b").unwrap(), None);
    }

    #[test]
    fn scans_stay_within_their_prefix_in_both_directions() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path()).unwrap();
        let mut changes = Changes::default();
        for key in ["a", "a\0", "a\x001", "a\x002", "a\x01", "b"] {
            changes.put(Column::Run, key, Vec::new());
        }
        database.write(changes).unwrap();
        let keys = |prefix: &[u8], from| -> Vec<String> {
            let rows = database.scan(Column::Run, prefix, from);
            rows.map(|row| String::from_utf8(row.unwrap().0.into_vec()).unwrap())
                .collect()
        };
        assert_eq!(keys(b"a\0", Start::First), ["a\0", "a\x001", "a\x002"]);
        assert_eq!(keys(b"a\0", Start::Last), ["a\x002", "a\x001", "a\0"]);
        assert_eq!(keys(b"", Start::First).len(), 6);
        assert_eq!(keys(b"", Start::Last)[0], "b");
    }

    #[test]
    fn a_cursor_finds_the_same_rows_in_whichever_order_they_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path()).unwrap();
        let mut changes = Changes::default();
        // More than are stepped over, with a gap behind each of them.
        let names: Vec<String> = (0..60).map(|at| format!("a{:02}", at * 2 % 100)).collect();
        for name in names.iter().map(String::as_str).chain(["A", "b"]) {
            changes.put(Column::Run, name, name.into());
        }
        database.write(changes).unwrap();
        let expected = |key: &str| {
            let behind = names.iter().filter(|it| it.as_str() >= key);
            behind.min().map(|it| it.clone().into_bytes())
        };
        let orders: [Vec<usize>; 4] = [
            (0..110).collect(),
            (0..110).rev().collect(),
            (0..110).map(|at| at * 37 % 110).collect(),
            vec![3, 3, 4, 4, 3, 100, 105, 100, 0],
        ];
        for order in orders {
            let mut cursor = database.cursor(Column::Run, b"a").unwrap();
            for at in order {
                let key = format!("a{at:02}");
                let found = cursor.find(key.as_bytes()).unwrap();
                let found = found.map(|(key, _)| key.to_vec());
                assert_eq!(found, expected(&key), "{key}");
                // A step in between changes nothing for what is found next.
                if at % 3 == 0 {
                    let next = cursor.next().unwrap().map(|(key, _)| key.to_vec());
                    let behind = found.and_then(|key| {
                        let key = String::from_utf8(key).unwrap();
                        expected(&format!("{key}\0"))
                    });
                    assert_eq!(next, behind, "behind {key}");
                }
            }
        }
    }
}
