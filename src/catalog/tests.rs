//! The catalog: what is found again, in which order, and who may open it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeZone as _;
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::base::{PackageKind, Timestamp};

pub(super) fn new_catalog() -> (TempDir, Catalog) {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    (dir, catalog)
}

/// A moment that many seconds into 2026-01-01, and a bit, so that fractions are seen to survive.
pub(super) fn at(second: u32) -> Timestamp {
    chrono::Utc
        .with_ymd_and_hms(2026, 1, 1, 0, 0, second)
        .unwrap()
        + chrono::TimeDelta::nanoseconds(1_000_001)
}

pub(super) fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

pub(super) fn hex(byte: u8) -> String {
    digest(byte).hex()
}

fn target(name: &str) -> TargetName {
    name.parse().unwrap()
}

pub(super) fn package(byte: u8) -> PackageRecord {
    PackageRecord {
        digest: digest(byte),
        file_name: "redis-operator.amd64.v1.2.3.tgz".to_owned(),
        size_bytes: u64::MAX,
        name: "redis-operator".parse().unwrap(),
        version: Some("v1.2.3".to_owned()),
        kind: PackageKind::Operator,
        platforms: vec!["linux/amd64".parse().unwrap()],
        artifact: Some(
            "registry.example/3rdparty/redis-bundle:v1.2.3"
                .parse()
                .unwrap(),
        ),
        images: vec![ImageRecord {
            reference: "registry.example:5000/3rdparty/redis:7".parse().unwrap(),
            digest: digest(2),
            media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
            size_bytes: 3,
            content_bytes: 4,
        }],
        resources: vec![json!({"kind": "ModulePlugin", "replicas": 1, "ratio": 0.1})],
        display_name: None,
        description: None,
        omitted: BTreeSet::new(),
        blob_count: 5,
        blob_bytes: 6,
        blobs: BTreeMap::new(),
        carried_by: None,
        provenance: Provenance::Signature {
            fingerprint: "AB12".to_owned(),
            signed_at: at(1),
            cosigners: Vec::new(),
        },
        ready_at: at(2),
    }
}

/// A package as it is committed, with a content of two blobs.
pub(super) fn new_package(record: PackageRecord) -> NewPackage {
    NewPackage {
        record,
        content: [(digest(2), 3), (digest(1), u64::MAX)]
            .into_iter()
            .collect(),
    }
}

/// Commits the package of that number, dropped as a file of the same number.
pub(super) fn commit(catalog: &Catalog, byte: u8) {
    let ready = IngestState::Ready {
        package: digest(byte),
        is_repeat: false,
        nested: Vec::new(),
    };
    let file = ingest(&format!("/{byte}"), ready);
    catalog
        .commit_packages(&[new_package(package(byte))], &file)
        .unwrap();
}

pub(super) fn pin(byte: u8) -> PinRecord {
    PinRecord {
        package: digest(byte),
        pinned_at: at(2),
        reason: Some("audit".to_owned()),
    }
}

pub(super) fn ingest(path: &str, state: IngestState) -> IngestRecord {
    IngestRecord {
        path: path.to_owned(),
        size_bytes: 7,
        modified_at: at(3),
        digest: Some(digest(1)),
        state,
        updated_at: at(4),
    }
}

pub(super) fn placement(target_name: &str, repository: &str, tag: &str) -> Placement {
    Placement {
        target: target(target_name),
        repository: repository.parse().unwrap(),
        tag: tag.parse().unwrap(),
        digest: digest(8),
        placed_at: at(5),
    }
}

pub(super) fn run(target_name: &str, requests: u64) -> RunRecord {
    RunRecord {
        target: target(target_name),
        started_at: at(6),
        finished_at: at(7),
        reason: "schedule".to_owned(),
        outcome: RunOutcome::Incomplete,
        counts: RunCounts {
            requests,
            ..RunCounts::default()
        },
        problems: vec![Problem {
            subject: "3rdparty/redis:7".to_owned(),
            class: Class::Denied,
            message: "expected status 201, found 403".to_owned(),
            hint: None,
        }],
    }
}

pub(super) fn target_record(run: &RunRecord) -> TargetRecord {
    TargetRecord {
        last_scheduled_at: Some(at(8)),
        synced_packages: vec![digest(9)],
        last_run: Some(run.clone()),
        ..TargetRecord::new(run.target.clone())
    }
}

#[test]
fn reopening_keeps_everything() {
    let (dir, catalog) = new_catalog();
    let ready = IngestState::Ready {
        package: digest(1),
        is_repeat: false,
        nested: Vec::new(),
    };
    let (package, ingest) = (package(1), ingest("/drop/ä b.tgz", ready));
    let (placement, run) = (placement("a", "x/y", "v1"), run("a", 1));
    let target_record = target_record(&run);
    catalog
        .commit_packages(&[new_package(package.clone())], &ingest)
        .unwrap();
    catalog
        .put_placements(std::slice::from_ref(&placement))
        .unwrap();
    catalog.commit_run(&run, &target_record).unwrap();

    let check = |catalog: &Catalog| {
        let found = catalog.find_package(&digest(1)).unwrap();
        assert_eq!(found.as_ref(), Some(&package));
        assert_eq!(
            catalog.list_packages().unwrap(),
            std::slice::from_ref(&package)
        );
        let found = catalog.find_ingest("/drop/ä b.tgz").unwrap();
        assert_eq!(found.as_ref(), Some(&ingest));
        let Placement {
            target,
            repository,
            tag,
            ..
        } = &placement;
        let found = catalog.find_placement(target, repository, tag).unwrap();
        assert_eq!(found.as_ref(), Some(&placement));
        assert_eq!(
            catalog.list_runs(target, 9).unwrap(),
            std::slice::from_ref(&run)
        );
        assert_eq!(
            catalog.find_target(target).unwrap().as_deref(),
            Some(&target_record)
        );
        assert_eq!(catalog.find_package(&digest(2)).unwrap(), None);
        assert_eq!(catalog.find_ingest("/drop").unwrap(), None);
    };
    check(&catalog);
    check(&Catalog::open_read_only(dir.path()).unwrap());
    drop(catalog);
    check(&Catalog::open(dir.path()).unwrap());
}

#[test]
fn a_package_and_its_file_are_put_together_or_not_at_all() {
    let (_dir, catalog) = new_catalog();
    let mut bad = package(1);
    // Reads back as another reference, so it is refused; the row of the file must not appear either.
    bad.artifact = Some(crate::base::ImageReference::new(
        "registry.example".to_owned(),
        "a/b".parse().unwrap(),
        None,
        None,
    ));
    let error = catalog
        .commit_packages(
            &[new_package(package(2)), new_package(bad)],
            &ingest("/x", IngestState::Unpacked),
        )
        .unwrap_err();
    assert!(matches!(error, Error::Unfaithful { column: "package" }));
    assert_eq!(catalog.list_ingests().unwrap(), []);
    assert_eq!(catalog.list_packages().unwrap(), []);
}

#[test]
fn lists_are_ordered_as_documented() {
    let (_dir, catalog) = new_catalog();
    for (byte, second) in [(3, 9), (1, 10), (2, 9), (4, 8)] {
        let package = PackageRecord {
            ready_at: at(second),
            ..package(byte)
        };
        let file = ingest(&format!("/{byte}"), IngestState::Seen);
        catalog
            .commit_packages(&[new_package(package)], &file)
            .unwrap();
    }
    let packages = catalog.list_packages().unwrap();
    let digests: Vec<Digest> = packages.iter().map(|package| package.digest).collect();
    assert_eq!(digests, [4, 2, 3, 1].map(digest));
    let paths = |catalog: &Catalog| -> Vec<String> {
        let ingests = catalog.list_ingests().unwrap();
        ingests.into_iter().map(|ingest| ingest.path).collect()
    };
    assert_eq!(paths(&catalog), ["/1", "/2", "/3", "/4"]);
    catalog.remove_ingest("/2").unwrap();
    catalog.remove_ingest("/2").unwrap();
    assert_eq!(paths(&catalog), ["/1", "/3", "/4"]);
    catalog
        .put_ingest(&ingest("/1", IngestState::Settled))
        .unwrap();
    let changed = catalog.find_ingest("/1").unwrap().unwrap();
    assert_eq!(changed.state, IngestState::Settled);
}

#[test]
fn targets_whose_names_start_alike_are_kept_apart() {
    let (_dir, catalog) = new_catalog();
    let names = ["a", "a-b", "a.b", "aa", "b"];
    for name in names {
        let placements = [
            placement(name, "x", "v2"),
            placement(name, "x-y", "v1"),
            placement(name, "x", "v1"),
        ];
        catalog.put_placements(&placements).unwrap();
        let run = run(name, 1);
        catalog.commit_run(&run, &target_record(&run)).unwrap();
    }
    for name in names {
        assert_eq!(
            catalog.list_placements(&target(name)).unwrap(),
            [
                placement(name, "x", "v1"),
                placement(name, "x", "v2"),
                placement(name, "x-y", "v1"),
            ]
        );
        assert_eq!(catalog.list_runs(&target(name), 9).unwrap(), [run(name, 1)]);
    }
    assert_eq!(catalog.list_placements(&target("c")).unwrap(), []);
}

#[test]
fn the_last_runs_are_kept_newest_first_whatever_the_clock_says() {
    let (_dir, catalog) = new_catalog();
    let other = run("other", 0);
    catalog.commit_run(&other, &target_record(&other)).unwrap();
    // All of them have the same times.
    for number in 0..RUNS_KEPT + 5 {
        let run = run("a", number);
        catalog.commit_run(&run, &target_record(&run)).unwrap();
    }
    let numbers = |limit: usize| -> Vec<u64> {
        let runs = catalog.list_runs(&target("a"), limit).unwrap();
        runs.iter().map(|run| run.counts.requests).collect()
    };
    let kept: Vec<u64> = (5..RUNS_KEPT + 5).rev().collect();
    assert_eq!(numbers(usize::MAX), kept);
    assert_eq!(numbers(2), kept[..2]);
    assert_eq!(catalog.list_runs(&target("other"), 9).unwrap(), [other]);
    let known = catalog.find_target(&target("a")).unwrap().unwrap();
    assert_eq!(
        known.last_run.as_ref().unwrap().counts.requests,
        RUNS_KEPT + 4
    );
}

#[test]
fn second_owner_is_refused_in_plain_words() {
    let (dir, catalog) = new_catalog();
    let error = Catalog::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Held { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "expected to be the only user of the catalog in `{}`, found it in use",
            dir.path().join(DATABASE).display()
        )
    );
    assert_eq!(error.class(), Class::Usage);
    drop(catalog);
    Catalog::open(dir.path()).unwrap();
}

#[test]
fn second_process_is_refused_in_plain_words() {
    const DIR: &str = "VIOLETD_TEST_CATALOG_DIR";
    const NAME: &str = "catalog::tests::second_process_is_refused_in_plain_words";
    if let Some(dir) = std::env::var_os(DIR) {
        // This is the second process.
        let error = Catalog::open(Path::new(&dir)).unwrap_err();
        assert!(matches!(error, Error::Held { .. }), "{error}");
        return;
    }
    let (dir, _catalog) = new_catalog();
    let second = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&second.stdout);
    assert!(words.contains("1 passed"), "{words}");
}

#[test]
fn readers_see_a_moment_and_change_nothing() {
    let (dir, catalog) = new_catalog();
    catalog
        .put_ingest(&ingest("/1", IngestState::Seen))
        .unwrap();
    let names = || -> Vec<_> {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let reader = Catalog::open_read_only(dir.path()).unwrap();
    catalog
        .put_ingest(&ingest("/2", IngestState::Seen))
        .unwrap();
    assert_eq!(reader.list_ingests().unwrap().len(), 1);
    let error = reader
        .put_ingest(&ingest("/3", IngestState::Seen))
        .unwrap_err();
    assert!(matches!(error, Error::ReadOnly), "{error}");
    drop(reader);
    assert_eq!(names(), before);
    assert_eq!(catalog.list_ingests().unwrap().len(), 2);
}

#[test]
fn nothing_to_read_is_absent_and_is_not_created() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("missing")] {
        let error = Catalog::open_read_only(&path).unwrap_err();
        assert!(matches!(error, Error::NoCatalog { .. }), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn runs_committed_by_many_threads_are_all_kept() {
    let (_dir, catalog) = new_catalog();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let catalog = catalog.clone();
            scope.spawn(move || {
                for number in 0..10 {
                    let run = run("a", thread * 10 + number);
                    catalog.commit_run(&run, &target_record(&run)).unwrap();
                }
            });
        }
    });
    let runs = catalog.list_runs(&target("a"), 99).unwrap();
    let mut numbers: Vec<u64> = runs.iter().map(|run| run.counts.requests).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn rows_never_make_the_reader_panic(row in proptest::collection::vec(any::<u8>(), 0..200), json in "\\PC{0,100}") {
        let _ = codec::decode::<PackageRecord>(Column::Package, b"k", &row);
        let versioned = [&[1], json.as_bytes()].concat();
        let _ = codec::decode::<IngestRecord>(Column::Ingest, b"k", &versioned);
    }

    #[test]
    fn any_words_and_numbers_survive(path in ".*", words in proptest::option::of(".*"), size_bytes: u64, nanoseconds: i64) {
        let record = IngestRecord {
            path: path.clone(),
            size_bytes,
            modified_at: Timestamp::from_timestamp_nanos(nanoseconds),
            digest: None,
            state: IngestState::Rejected { code: path, reason: String::new(), hint: words },
            updated_at: at(0),
        };
        let row = codec::encode(Column::Ingest, &record).unwrap();
        prop_assert_eq!(codec::decode::<IngestRecord>(Column::Ingest, b"k", &row).unwrap(), record);
    }
}

#[test]
fn a_grace_period_begins_anew_with_the_removal_of_a_package() {
    let (_dir, catalog) = new_catalog();
    let condemned = |byte| (digest(byte), CondemnedRecord { since: at(1) });
    // The package keeps the first two.
    catalog
        .change_condemned(&[condemned(1), condemned(2), condemned(3)], &[])
        .unwrap();
    catalog
        .commit_packages(&[new_package(package(1))], &ingest("/x", IngestState::Seen))
        .unwrap();
    assert!(catalog.remove_package(&digest(1)).unwrap());
    assert_eq!(catalog.list_condemned().unwrap(), [condemned(3)]);
}
