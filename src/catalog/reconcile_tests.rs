//! Rows and record files of packages that do not say the same: after a crash, after an update of the program, after a loss.

use std::path::PathBuf;

use super::tests::{
    at, commit, digest, hex, ingest, new_catalog, new_package, package, pin, placement,
};
use super::*;
use crate::sys::fault::{Faults, Moment, Then};
use crate::sys::fs;

fn record(dir: &Path, byte: u8) -> PathBuf {
    dir.join(format!("packages/{}.json", hex(byte)))
}

fn tombstone(dir: &Path, byte: u8) -> PathBuf {
    dir.join(format!("packages/removed/{}.json", hex(byte)))
}

/// Changes rows without the record files.
fn change_rows(dir: &Path, change: impl FnOnce(&mut Changes)) {
    let database = Database::open(&dir.join(DATABASE)).unwrap();
    let mut changes = Changes::default();
    change(&mut changes);
    database.write(changes).unwrap();
}

fn contents(catalog: &Catalog) -> Vec<Digest> {
    let mut seen = Vec::new();
    let result: Result<(), Error> = catalog.for_each_content(|package, _| {
        seen.push(package);
        Ok(())
    });
    result.unwrap();
    seen
}

#[test]
fn a_record_without_a_row_is_ready_after_the_next_start() {
    let (dir, catalog) = new_catalog();
    commit(&catalog, 1);
    catalog.put_pin(&pin(1)).unwrap();
    drop(catalog);
    change_rows(dir.path(), |changes| {
        reconcile::delete_record(changes, &digest(1));
    });
    let catalog = Catalog::open(dir.path()).unwrap();
    assert_eq!(catalog.list_packages().unwrap(), [package(1)]);
    assert_eq!(
        catalog.summaries(),
        [Arc::new(PackageSummary::from(&package(1)))]
    );
    assert_eq!(catalog.list_pins().unwrap(), [pin(1)]);
    assert_eq!(contents(&catalog), [digest(1)]);
}

#[test]
fn a_removal_that_was_cut_off_is_finished_by_the_next_start() {
    let (dir, catalog) = new_catalog();
    commit(&catalog, 1);
    catalog.put_pin(&pin(1)).unwrap();
    catalog.0.kept.remove(&digest(1)).unwrap();
    drop(catalog);
    let catalog = Catalog::open(dir.path()).unwrap();
    assert_eq!(catalog.list_packages().unwrap(), []);
    assert_eq!(catalog.list_pins().unwrap(), []);
    assert_eq!(contents(&catalog), []);
    assert!(tombstone(dir.path(), 1).exists());
}

#[test]
fn a_removal_lasts_although_somebody_has_removed_the_folder_for_the_records_of_others() {
    let (dir, catalog) = new_catalog();
    commit(&catalog, 1);
    fs::remove_dir_all(&dir.path().join("packages/removed")).unwrap();
    assert!(catalog.remove_package(&digest(1)).unwrap());
    assert!(tombstone(dir.path(), 1).exists() && !record(dir.path(), 1).exists());
    drop(catalog);
    let catalog = Catalog::open(dir.path()).unwrap();
    assert_eq!(catalog.list_packages().unwrap(), []);
}

#[test]
fn a_damaged_change_of_a_record_does_not_take_the_record_with_it() {
    let (dir, catalog) = new_catalog();
    commit(&catalog, 1);
    drop(catalog);
    // The database is lost as well, so that nothing else says that the package is there.
    fs::remove_dir_all(&dir.path().join(DATABASE)).unwrap();
    let next = dir.path().join(format!("packages/{}.next", hex(1)));
    fs::replace_file(&next, b"{", 0o640).unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    assert_eq!(catalog.list_packages().unwrap(), [package(1)]);
    assert_eq!(contents(&catalog), [digest(1)]);
    let aside = dir.path().join(format!("quarantine/{}.json.0", hex(1)));
    assert_eq!(std::fs::read(aside).unwrap(), b"{");
    assert!(!next.exists());
}

#[test]
fn a_removed_package_leaves_its_record_until_it_comes_again() {
    let (dir, catalog) = new_catalog();
    commit(&catalog, 1);
    assert!(catalog.remove_package(&digest(1)).unwrap());
    assert!(!catalog.remove_package(&digest(1)).unwrap());
    assert_eq!(catalog.summaries(), []);
    assert!(tombstone(dir.path(), 1).exists() && !record(dir.path(), 1).exists());
    commit(&catalog, 1);
    assert!(!tombstone(dir.path(), 1).exists() && record(dir.path(), 1).exists());
    drop(catalog);
    // A crash between the two leaves both: the package is there.
    let bytes = std::fs::read(record(dir.path(), 1)).unwrap();
    fs::replace_file(&tombstone(dir.path(), 1), &bytes, 0o640).unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    assert_eq!(catalog.package_count(), 1);
    assert!(!tombstone(dir.path(), 1).exists());
}

#[test]
fn a_damaged_record_does_not_keep_the_daemon_from_starting() {
    let (dir, catalog) = new_catalog();
    commit(&catalog, 1);
    commit(&catalog, 2);
    drop(catalog);
    for byte in [1, 3] {
        fs::replace_file(&record(dir.path(), byte), b"{}", 0o640).unwrap();
    }
    // Package 1 has a row, which wins over its record; package 3 has none.
    let catalog = Catalog::open(dir.path()).unwrap();
    assert_eq!(catalog.list_packages().unwrap(), [package(1), package(2)]);
    let name = format!("quarantine/{}.json.0", hex(3));
    assert!(dir.path().join(name).exists() && !record(dir.path(), 3).exists());
    catalog.rewrite_record(&digest(1)).unwrap();
    let read = catalog.read_record(&digest(1)).unwrap().unwrap();
    assert_eq!(read.package, package(1));

    fs::replace_file(&record(dir.path(), 4), b"{\"format\":2}", 0o640).unwrap();
    drop(catalog);
    let error = Catalog::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::RecordNewer { .. }), "{error}");
    assert!(record(dir.path(), 4).exists());
}

#[test]
fn what_a_commit_that_failed_would_keep_counts_as_kept() {
    let (dir, catalog) = new_catalog();
    let recorded = Faults::record(dir.path());
    commit(&catalog, 1);
    let steps = recorded.done().len();
    drop(recorded);
    // The last step is the write of the rows: the record is there, and they are not.
    let faults = Faults::plan(steps - 1, Moment::Before, Then::GoesOn, dir.path());
    let new = new_package(package(2));
    let file = ingest("/2", IngestState::Unpacked);
    let mark = catalog.added_count();
    catalog
        .commit_packages(std::slice::from_ref(&new), &file)
        .unwrap_err();
    drop(faults);
    assert!(record(dir.path(), 2).exists());
    assert_eq!(catalog.find_package(&digest(2)).unwrap(), None);
    assert_eq!(catalog.package_count(), 1);
    assert_eq!(catalog.list_added(mark), [digest(2)]);
    assert_eq!(catalog.find_content(&digest(2)).unwrap(), Some(new.content));
    assert_eq!(contents(&catalog), [digest(2), digest(1)]);
    drop(catalog);
    let catalog = Catalog::open(dir.path()).unwrap();
    assert_eq!(catalog.list_packages().unwrap(), [package(1), package(2)]);
    assert_eq!(contents(&catalog), [digest(1), digest(2)]);
}

/// Everything that packages go through.
fn life(root: &Path) -> Result<(), Error> {
    let catalog = Catalog::open(root)?;
    for byte in [1, 2] {
        let file = ingest(&format!("/{byte}"), IngestState::Unpacked);
        catalog.commit_packages(&[new_package(package(byte))], &file)?;
    }
    catalog.put_pin(&pin(2))?;
    catalog.remove_package(&digest(1))?;
    drop(catalog);
    Catalog::rebuild(root)?;
    let catalog = Catalog::open(root)?;
    let file = ingest("/1", IngestState::Unpacked);
    catalog.commit_packages(&[new_package(package(1))], &file)
}

#[test]
fn a_failure_of_any_single_operation_leaves_packages_whole_or_absent() {
    let root = tempfile::tempdir().unwrap();
    let recorded = Faults::record(root.path());
    life(root.path()).unwrap();
    let steps = recorded.done().len();
    drop(recorded);
    assert!(steps > 20, "{steps}");
    for step in 0..steps {
        let root = tempfile::tempdir().unwrap();
        let faults = Faults::after(step, root.path());
        life(root.path()).unwrap_err();
        assert!(faults.done().len() > step, "step {step} was not reached");
        drop(faults);
        let catalog = Catalog::open(root.path()).unwrap();
        let packages = catalog.list_packages().unwrap();
        let digests: Vec<Digest> = packages.iter().map(|package| package.digest).collect();
        assert_eq!(catalog.list_records().unwrap(), digests, "step {step}");
        assert_eq!(contents(&catalog), digests, "step {step}");
        for package in &packages {
            let read = catalog.read_record(&package.digest).unwrap().unwrap();
            assert_eq!(read.package, *package, "step {step}");
            assert_eq!(read.pin, catalog.find_pin(&package.digest).unwrap());
        }
    }
}

/// Rows as the released version wrote them, before there were record files. They never change.
fn released_rows() -> Vec<(&'static str, Vec<u8>, String)> {
    let (one, two, eight) = (hex(1), hex(2), hex(8));
    let package = [
        format!(r#"{{"digest":"sha256:{one}","file_name":"redis-operator.amd64.v1.2.3.tgz","#),
        r#""size_bytes":18446744073709551615,"name":"redis-operator","version":"v1.2.3","#.to_owned(),
        r#""kind":"operator","platforms":["linux/amd64"],"#.to_owned(),
        r#""artifact":"registry.example/3rdparty/redis-bundle:v1.2.3","#.to_owned(),
        r#""images":[{"reference":"registry.example:5000/3rdparty/redis:7","#.to_owned(),
        format!(r#""digest":"sha256:{two}","media_type":"application/vnd.oci.image.index.v1+json","#),
        r#""size_bytes":3,"content_bytes":4}],"#.to_owned(),
        r#""resources":[{"kind":"ModulePlugin","ratio":0.1,"replicas":1}],"display_name":null,"#.to_owned(),
        r#""blob_count":5,"blob_bytes":6,"provenance":{"by":"signature","fingerprint":"AB12","#.to_owned(),
        r#""signed_at":"2026-01-01T00:00:01.001000001Z"},"ready_at":"2026-01-01T00:00:02.001000001Z"}"#.to_owned(),
    ];
    let file = format!(
        r#"{{"path":"/1","size_bytes":7,"modified_at":"2026-01-01T00:00:03.001000001Z","digest":"sha256:{one}","state":{{"name":"ready","package":"sha256:{one}","is_repeat":false}},"updated_at":"2026-01-01T00:00:04.001000001Z"}}"#
    );
    let placement = format!(
        r#"{{"target":"a","repository":"x","tag":"v1","digest":"sha256:{eight}","placed_at":"2026-01-01T00:00:05.001000001Z"}}"#
    );
    let run = concat!(
        r#"{"target":"a","started_at":"2026-01-01T00:00:06.001000001Z","finished_at":"2026-01-01T00:00:07.001000001Z","#,
        r#""reason":"schedule","outcome":"in_sync","counts":{"images_wanted":0,"images_in_sync":0,"images_pushed":0,"#,
        r#""images_failed":0,"resources_wanted":0,"resources_applied":0,"resources_failed":0,"blobs_sent":0,"#,
        r#""blobs_mounted":0,"blobs_skipped":0,"bytes_sent":0,"requests":11,"retries":0},"problems":[]}"#,
    );
    let target = format!(
        r#"{{"target":"a","last_scheduled_at":null,"synced_packages":["sha256:{one}"],"last_run":{run},"last_success_at":null}}"#
    );
    vec![
        ("package", vec![1; 32], package.concat()),
        ("ingest", b"/1".to_vec(), file),
        ("placement", b"a\0x\0v1".to_vec(), placement),
        ("target", b"a".to_vec(), target),
        ("run", b"a\0\0\0\0\0\0\0\0\0".to_vec(), run.to_owned()),
    ]
}

#[test]
fn a_state_directory_of_the_released_version_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let rows = released_rows().into_iter();
    let rows = rows.map(|(column, key, text)| (column, key, [b"\x01", text.as_bytes()].concat()));
    database::tests::create_released(&dir.path().join(DATABASE), &rows.collect::<Vec<_>>());

    let check = |catalog: &Catalog| {
        assert_eq!(catalog.list_packages().unwrap(), [package(1)]);
        assert_eq!(catalog.list_unfinished_ingests(), []);
        assert_eq!(catalog.list_ingests().unwrap().len(), 1);
        let target = "a".parse().unwrap();
        assert_eq!(
            catalog.list_placements(&target).unwrap(),
            [placement("a", "x", "v1")]
        );
        assert_eq!(
            catalog.list_runs(&target, 9).unwrap()[0].counts.requests,
            11
        );
        let known = catalog.find_target(&target).unwrap().unwrap();
        assert_eq!(known.synced_packages, [digest(1)]);
    };
    let catalog = Catalog::open(dir.path()).unwrap();
    check(&catalog);
    // Nobody has written down what the package keeps, and so nobody may say what no package keeps.
    assert_eq!(catalog.list_without_content(), [digest(1)]);
    assert_eq!(
        catalog.read_record(&digest(1)).unwrap().unwrap().content,
        None
    );
    let error = catalog.check_contents_known().unwrap_err();
    assert!(matches!(error, Error::ContentUnknown { package } if package == digest(1)));
    let known: Result<(), Error> = catalog.for_each_content(|_, _| unreachable!());
    known.unwrap();
    let content: Content = [(digest(2), 3)].into_iter().collect();
    catalog.put_content(&digest(1), &content).unwrap();
    drop(catalog);

    let catalog = Catalog::open(dir.path()).unwrap();
    check(&catalog);
    assert_eq!(catalog.list_without_content(), []);
    assert_eq!(contents(&catalog), [digest(1)]);
    assert_eq!(
        catalog.find_content(&digest(1)).unwrap(),
        Some(content.clone())
    );
    drop(catalog);
    fs::remove_dir_all(&dir.path().join(DATABASE)).unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    assert_eq!(catalog.find_content(&digest(1)).unwrap(), Some(content));
}

#[test]
fn what_is_shown_of_packages_and_files_is_what_the_rows_say() {
    let (dir, catalog) = new_catalog();
    for (byte, second) in [(3, 9), (1, 10), (2, 9)] {
        let package = PackageRecord {
            ready_at: at(second),
            ..package(byte)
        };
        let ready = IngestState::Ready {
            package: digest(byte),
            is_repeat: false,
            nested: Vec::new(),
        };
        let file = ingest(&format!("/{byte}"), ready);
        catalog
            .put_ingest(&ingest(&file.path, IngestState::Seen))
            .unwrap();
        catalog
            .commit_packages(&[new_package(package)], &file)
            .unwrap();
    }
    for (path, state) in [
        ("/b", IngestState::Seen),
        ("/a", IngestState::Settled),
        ("/c", IngestState::Seen),
    ] {
        catalog.put_ingest(&ingest(path, state)).unwrap();
    }
    catalog.remove_ingest("/c").unwrap();
    catalog.remove_package(&digest(3)).unwrap();
    let check = |catalog: &Catalog| {
        let packages = catalog.list_packages().unwrap();
        let expected = packages.iter().map(PackageSummary::from);
        let expected: Vec<_> = expected.map(Arc::new).collect();
        assert_eq!(catalog.summaries(), expected);
        assert_eq!(catalog.package_count(), 2);
        assert_eq!(expected[0].digest, digest(2));
        let unfinished = catalog.list_unfinished_ingests();
        let paths: Vec<&str> = unfinished.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["/a", "/b"]);
    };
    check(&catalog);
    drop(catalog);
    check(&Catalog::open_read_only(dir.path()).unwrap());
    check(&Catalog::open(dir.path()).unwrap());
}
