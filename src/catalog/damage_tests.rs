//! A catalog whose directory was damaged, cut short by a power loss or written by a newer version.

use super::tests::{ingest, new_catalog};
use super::*;

/// Makes a catalog with rows in a table file and in the log, and closes it.
fn closed_catalog() -> tempfile::TempDir {
    let (dir, catalog) = new_catalog();
    catalog
        .put_ingest(&ingest("/1", IngestState::Seen))
        .unwrap();
    drop(catalog);
    // Opening flushes the log into a table.
    let catalog = Catalog::open(dir.path()).unwrap();
    catalog
        .put_ingest(&ingest("/2", IngestState::Seen))
        .unwrap();
    dir
}

fn files_like(dir: &Path, pattern: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    let paths: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains(pattern))
        .collect();
    assert!(!paths.is_empty(), "no file like {pattern}");
    paths
}

#[test]
fn a_damaged_directory_is_corrupt_and_is_not_started_over() {
    /// What happens to each file that matches.
    type Damage = fn(&Path);
    let remove: Damage = |path| fs::remove_file(path).unwrap();
    let garble: Damage = |path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0xa5);
        fs::replace_file(path, &bytes, 0o644).unwrap();
    };
    let truncate: Damage = |path| fs::replace_file(path, b"", 0o644).unwrap();
    for (pattern, name, damage) in [
        ("CURRENT", "remove", remove),
        ("CURRENT", "garble", garble),
        ("CURRENT", "truncate", truncate),
        ("MANIFEST", "remove", remove),
        ("MANIFEST", "garble", garble),
        (".sst", "remove", remove),
        (".sst", "garble", garble),
        (".sst", "truncate", truncate),
        (".log", "remove", remove),
    ] {
        let dir = closed_catalog();
        for path in files_like(dir.path(), pattern) {
            damage(&path);
        }
        let result = Catalog::open(dir.path()).and_then(|catalog| catalog.list_ingests());
        match result {
            Err(error) => {
                assert_eq!(error.class(), Class::Corrupt, "{name} {pattern}: {error}");
                assert!(error.hint().is_some());
            }
            Ok(ingests) => panic!("{name} {pattern}: opened with {ingests:?}"),
        }
    }
}

#[test]
fn a_file_that_a_reader_misses_may_be_there_the_next_time() {
    for pattern in [".sst", "MANIFEST"] {
        let dir = closed_catalog();
        for path in files_like(dir.path(), pattern) {
            fs::remove_file(&path).unwrap();
        }
        let error = Catalog::open_read_only(dir.path()).unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{pattern}: {error}");
    }
}

#[test]
fn a_cut_log_loses_nothing_but_its_end() {
    let dir = closed_catalog();
    let log = files_like(dir.path(), ".log").pop().unwrap();
    let bytes = std::fs::read(&log).unwrap();
    fs::replace_file(&log, &bytes[..bytes.len() - 3], 0o644).unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    let ingests = catalog.list_ingests().unwrap();
    assert_eq!(ingests, [ingest("/1", IngestState::Seen)]);
}

#[test]
fn a_column_of_a_newer_version_is_refused() {
    let (dir, catalog) = new_catalog();
    drop(catalog);
    database::tests::create_column(dir.path(), "moon");
    for result in [
        Catalog::open(dir.path()),
        Catalog::open_read_only(dir.path()),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, Error::UnknownColumn { name } if name == "moon"),
            "{error}"
        );
        assert_eq!(error.class(), Class::Usage);
    }
}
