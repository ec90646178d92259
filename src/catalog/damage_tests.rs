//! A catalog whose directory was damaged, cut short by a power loss or written by a newer version.

use std::path::PathBuf;

use super::tests::{
    at, commit, digest, hex, ingest, new_catalog, new_package, package, pin, placement, run,
    target_record,
};
use super::*;
use crate::sys::fs;

/// Makes a catalog with rows in a table file and in the log, and closes it. Package 1 is in the former and pinned, package
/// 2 in the latter.
fn closed_catalog() -> tempfile::TempDir {
    let (dir, catalog) = new_catalog();
    commit(&catalog, 1);
    catalog.put_pin(&pin(1)).unwrap();
    drop(catalog);
    // Opening flushes the log into a table.
    let catalog = Catalog::open(dir.path()).unwrap();
    commit(&catalog, 2);
    dir
}

/// Asserts that both packages of [`closed_catalog`] are there, with all that was written down of them.
fn assert_whole(catalog: &Catalog) {
    let packages = catalog.list_packages().unwrap();
    assert_eq!(packages, [package(1), package(2)]);
    assert_eq!(catalog.list_pins().unwrap(), [pin(1)]);
    for byte in [1, 2] {
        let content = catalog.find_content(&digest(byte)).unwrap();
        assert_eq!(content, Some(new_package(package(byte)).content));
    }
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

/// What happens to each file that matches.
type Damage = fn(&Path);

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

fn garble(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xa5);
    fs::replace_file(path, &bytes, 0o644).unwrap();
}

fn truncate(path: &Path) {
    fs::replace_file(path, b"", 0o644).unwrap();
}

/// Every kind of damage: which files of the database, its name, and what does it.
const DAMAGES: [(&str, &str, Damage); 9] = [
    ("CURRENT", "remove", remove),
    ("CURRENT", "garble", garble),
    ("CURRENT", "truncate", truncate),
    ("MANIFEST", "remove", remove),
    ("MANIFEST", "garble", garble),
    (".sst", "remove", remove),
    (".sst", "garble", garble),
    (".sst", "truncate", truncate),
    (".log", "remove", remove),
];

fn damaged_catalog(pattern: &str, damage: Damage) -> tempfile::TempDir {
    let dir = closed_catalog();
    for path in files_like(&dir.path().join(DATABASE), pattern) {
        damage(&path);
    }
    dir
}

fn quarantined(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir.join("quarantine")) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn a_damaged_database_is_corrupt_and_is_not_started_over() {
    for (pattern, name, damage) in DAMAGES {
        let dir = damaged_catalog(pattern, damage);
        let database = Database::open(&dir.path().join(DATABASE));
        let error = database.and_then(|database| Index::load(&database));
        let error = error.map(drop).unwrap_err();
        assert_eq!(error.class(), Class::Corrupt, "{name} {pattern}: {error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_damaged_database_is_made_anew_from_the_records_of_packages() {
    for (pattern, name, damage) in DAMAGES {
        let dir = damaged_catalog(pattern, damage);
        let catalog = Catalog::open(dir.path()).unwrap();
        assert_whole(&catalog);
        assert_eq!(quarantined(dir.path()), ["catalog.0"], "{name} {pattern}");
        drop(catalog);
        assert_whole(&Catalog::open(dir.path()).unwrap());
        assert_eq!(quarantined(dir.path()), ["catalog.0"], "{name} {pattern}");
    }
}

#[test]
fn a_missing_database_is_made_anew_from_the_records_of_packages() {
    let dir = closed_catalog();
    fs::remove_dir_all(&dir.path().join(DATABASE)).unwrap();
    assert_whole(&Catalog::open(dir.path()).unwrap());
    assert_eq!(quarantined(dir.path()), [""; 0]);
}

#[test]
fn a_reader_without_a_database_reads_the_records_of_packages_and_changes_nothing() {
    let listing = |dir: &Path| {
        let output = std::process::Command::new("find").arg(dir).output();
        output.unwrap().stdout
    };
    let missing = closed_catalog();
    fs::remove_dir_all(&missing.path().join(DATABASE)).unwrap();
    for dir in [missing, damaged_catalog("CURRENT", garble)] {
        let before = listing(dir.path());
        let catalog = Catalog::open_read_only(dir.path()).unwrap();
        assert_eq!(catalog.source(), Source::Records);
        assert_whole(&catalog);
        for result in [
            catalog.put_pin(&pin(2)),
            catalog.remove_package(&digest(1)).map(drop),
            catalog.remove_ingest("/1"),
        ] {
            assert!(matches!(result.unwrap_err(), Error::ReadOnly));
        }
        assert_eq!(listing(dir.path()), before);
    }
}

#[test]
fn a_damaged_database_without_a_folder_of_records_is_refused() {
    let dir = damaged_catalog("MANIFEST", garble);
    fs::remove_dir_all(&dir.path().join("packages")).unwrap();
    for result in [
        Catalog::open(dir.path()),
        Catalog::open_read_only(dir.path()),
    ] {
        assert_eq!(result.unwrap_err().class(), Class::Corrupt);
    }
    assert_eq!(quarantined(dir.path()), [""; 0]);
    assert!(dir.path().join(DATABASE).join("CURRENT").exists());
}

#[test]
fn a_row_of_a_newer_version_is_refused_and_stays() {
    for column in [Column::Package, Column::Ingest, Column::Run] {
        let dir = closed_catalog();
        let database = Database::open(&dir.path().join(DATABASE)).unwrap();
        let mut changes = Changes::default();
        changes.put(column, [7; 32], b"\x02{}".to_vec());
        database.write(changes).unwrap();
        drop(database);
        let rebuilt = Catalog::rebuild(dir.path()).unwrap_err();
        assert!(matches!(rebuilt, Error::Format { .. }), "{rebuilt}");
        if column != Column::Run {
            // Runs are not looked at by an opening.
            let error = Catalog::open(dir.path()).unwrap_err();
            assert!(matches!(error, Error::Format { .. }), "{error}");
        }
        assert_eq!(quarantined(dir.path()), [""; 0]);
    }
}

#[test]
fn a_file_that_a_reader_misses_may_be_there_the_next_time() {
    for pattern in [".sst", "MANIFEST"] {
        let dir = closed_catalog();
        for path in files_like(&dir.path().join(DATABASE), pattern) {
            fs::remove_file(&path).unwrap();
        }
        let error = Catalog::open_read_only(dir.path()).unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{pattern}: {error}");
    }
}

#[test]
fn a_cut_log_loses_no_package() {
    let dir = closed_catalog();
    let log = files_like(&dir.path().join(DATABASE), ".log")
        .pop()
        .unwrap();
    let bytes = std::fs::read(&log).unwrap();
    fs::replace_file(&log, &bytes[..bytes.len() - 3], 0o644).unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    assert_whole(&catalog);
    // The last row of the log is lost: that package 2 was dropped as a file.
    let ingests = catalog.list_ingests().unwrap();
    assert_eq!(ingests.len(), 1);
    assert_eq!(quarantined(dir.path()), [""; 0]);
}

#[test]
fn a_rebuild_keeps_what_can_be_read_and_says_what_it_did() {
    let dir = closed_catalog();
    let catalog = Catalog::open(dir.path()).unwrap();
    let run = run("a", 1);
    catalog.commit_run(&run, &target_record(&run)).unwrap();
    catalog
        .put_placements(&[placement("a", "x", "v1")])
        .unwrap();
    let condemned = [(digest(5), CondemnedRecord { since: at(1) })];
    catalog.change_condemned(&condemned, &[]).unwrap();
    drop(catalog);
    // A package whose record file is lost, and one whose record file is damaged: both have rows.
    let record = |byte| dir.path().join(format!("packages/{}.json", hex(byte)));
    fs::remove_file(&record(1)).unwrap();
    garble(&record(2));

    let report = Catalog::rebuild(dir.path()).unwrap();
    assert_eq!((report.packages, report.without_content), (2, 0));
    let done = &report.reconciled;
    assert_eq!((done.put, done.written, done.removed), (0, 2, 0));
    assert_eq!(done.quarantined.len(), 1);
    assert!(report.lost.is_empty(), "{:?}", report.lost);
    let copied: Vec<_> = report.copied.iter().filter(|(_, rows)| *rows > 0).collect();
    let expected = [
        ("ingest", 2),
        ("placement", 1),
        ("target", 1),
        ("run", 1),
        ("condemned", 1),
    ];
    assert_eq!(copied, expected.iter().collect::<Vec<_>>());
    assert_eq!(
        report.set_aside,
        Some(dir.path().join("quarantine/catalog.0"))
    );

    let catalog = Catalog::open(dir.path()).unwrap();
    assert_whole(&catalog);
    assert_eq!(catalog.list_runs(&run.target, 9).unwrap(), [run]);
    assert_eq!(catalog.list_condemned().unwrap(), condemned);
    for byte in [1, 2] {
        let read = catalog.read_record(&digest(byte)).unwrap().unwrap();
        assert_eq!(read.package, package(byte));
    }
}

#[test]
fn a_rebuild_that_was_cut_off_is_taken_up_or_forgotten() {
    let dir = closed_catalog();
    let (current, new) = (dir.path().join(DATABASE), dir.path().join("catalog.new"));
    // Not complete: the old one is still in its place.
    fs::ensure_dir(&new).unwrap();
    fs::replace_file(&new.join("CURRENT"), b"", 0o644).unwrap();
    assert_whole(&Catalog::open(dir.path()).unwrap());
    assert!(!new.exists());
    // Complete: the old one is in quarantine.
    let catalog = Catalog::open(dir.path()).unwrap();
    catalog
        .put_ingest(&ingest("/kept", IngestState::Seen))
        .unwrap();
    drop(catalog);
    fs::move_file(&current, &new).unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    assert_whole(&catalog);
    assert!(catalog.find_ingest("/kept").unwrap().is_some());
    assert!(!new.exists());
}

#[test]
fn a_column_of_a_newer_version_is_refused() {
    let (dir, catalog) = new_catalog();
    drop(catalog);
    database::tests::create_column(&dir.path().join(DATABASE), "moon");
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
    let error = Catalog::rebuild(dir.path()).unwrap_err();
    assert!(matches!(error, Error::UnknownColumn { .. }), "{error}");
    assert_eq!(quarantined(dir.path()), [""; 0]);
}
