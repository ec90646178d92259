//! Tests of collection on a real store and a real catalog.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64};

use tempfile::TempDir;

use super::*;
use crate::base::PackageKind;
use crate::catalog::{
    Column, Content, IngestRecord, IngestState, NewPackage, PackageRecord, Provenance,
    TargetRecord, raw,
};
use crate::retain::plan::Reason;
use crate::retain::{Destination, Planner, Policy, Rule};
use crate::store::Lease;

/// A clock that moves an hour with each look at it.
#[derive(Debug, Default)]
struct Hasty(AtomicI64);

impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        let hours = self.0.fetch_add(1, Ordering::Relaxed);
        "2026-11-21T12:00:00Z".parse::<Timestamp>().unwrap() + TimeDelta::hours(hours)
    }
}

fn new_collector() -> (TempDir, Collector) {
    let root = tempfile::tempdir().unwrap();
    let collector = open(&root);
    (root, collector)
}

/// Opens what is there, with a grace period that is over at the second look.
fn open(root: &TempDir) -> Collector {
    Collector {
        store: Store::open(root.path()).unwrap(),
        catalog: Catalog::open(root.path()).unwrap(),
        clock: Arc::new(Hasty::default()),
        grace: GRACE_MIN,
        counters: Arc::default(),
    }
}

fn run(collector: &Collector) -> Collected {
    let stop = CancellationToken::new();
    collector.collect(Request::default(), &stop).unwrap()
}

/// Stores blobs. They are kept until the lease is dropped.
fn store(store: &Store, contents: &[&[u8]]) -> Lease {
    let mut batch = store.begin();
    for content in contents {
        let mut writer = batch.writer(None, 100).unwrap();
        writer.write(content).unwrap();
        batch.stage(writer).unwrap();
    }
    batch.commit().unwrap().1
}

fn package(name: &str, contents: &[&[u8]]) -> NewPackage {
    let content: Content = contents
        .iter()
        .map(|content| (Digest::of(content), content.len() as u64))
        .collect();
    let record = PackageRecord {
        digest: Digest::of(name.as_bytes()),
        file_name: format!("{name}.tgz"),
        size_bytes: 1,
        name: name.parse().unwrap(),
        version: None,
        kind: PackageKind::Images,
        platforms: Vec::new(),
        artifact: None,
        images: Vec::new(),
        resources: Vec::new(),
        display_name: None,
        description: None,
        omitted: std::collections::BTreeSet::new(),
        blob_count: contents.len() as u64,
        blob_bytes: content.size_bytes(),
        blobs: BTreeMap::new(),
        carried_by: None,
        provenance: Provenance::Unchecked,
        ready_at: "2026-11-21T10:00:00Z".parse().unwrap(),
    };
    NewPackage { record, content }
}

fn file(state: IngestState) -> IngestRecord {
    let at = "2026-11-21T10:00:00Z".parse().unwrap();
    IngestRecord {
        path: "/drop/x.tgz".to_owned(),
        size_bytes: 1,
        modified_at: at,
        digest: None,
        state,
        updated_at: at,
    }
}

fn commit(collector: &Collector, package: &NewPackage) {
    let packages = std::slice::from_ref(package);
    let ingest = file(IngestState::Seen);
    collector
        .catalog
        .commit_packages(packages, &ingest)
        .unwrap();
}

#[test]
fn what_no_package_keeps_goes_after_the_grace_period_and_the_rest_stays() {
    let (root, collector) = new_collector();
    drop(store(&collector.store, &[b"kept", b"gone", b"gone too"]));
    commit(&collector, &package("a", &[b"kept"]));
    let first = run(&collector);
    assert_eq!(
        first.condemned,
        Amount {
            blobs: 2,
            bytes: 12
        }
    );
    assert_eq!((first.kept.blobs, first.removed.blobs), (1, 0));
    // The grace period is data: it does not begin again with the process. Its clock does.
    let hour = collector.clock.now();
    drop(collector);
    let collector = open(&root);
    while collector.clock.now() < hour {}
    let dry = Request {
        mode: Mode::DryRun,
        grace: None,
    };
    let stop = CancellationToken::new();
    let planned = collector.collect(dry, &stop).unwrap();
    assert_eq!(
        planned.removed,
        Amount {
            blobs: 2,
            bytes: 12
        }
    );
    assert!(planned.is_dry_run);
    assert_eq!(collector.store.list().count(), 3);
    let second = run(&collector);
    assert_eq!(
        second.removed,
        Amount {
            blobs: 2,
            bytes: 12
        }
    );
    let left: Vec<Digest> = collector.store.list().map(|it| it.unwrap().0).collect();
    assert_eq!(left, [Digest::of(b"kept")]);
    assert!(collector.catalog.list_condemned().unwrap().is_empty());
    assert_eq!(collector.counters.blobs_removed.load(Ordering::Relaxed), 2);
}

#[test]
fn a_grace_period_that_is_not_over_is_waited_for() {
    let (_root, collector) = new_collector();
    drop(store(&collector.store, &[b"gone"]));
    run(&collector);
    let request = Request {
        mode: Mode::Remove,
        grace: Some(Duration::from_hours(2)),
    };
    let stop = CancellationToken::new();
    let report = collector.collect(request, &stop).unwrap();
    assert_eq!((report.waiting.blobs, report.removed.blobs), (1, 0));
    assert_eq!(collector.collect(request, &stop).unwrap().removed.blobs, 1);
}

#[test]
fn a_blob_that_is_wanted_again_is_pardoned() {
    let (_root, collector) = new_collector();
    drop(store(&collector.store, &[b"again"]));
    run(&collector);
    commit(&collector, &package("a", &[b"again"]));
    let report = run(&collector);
    assert_eq!((report.pardoned.blobs, report.kept.blobs), (1, 1));
    // What becomes unwanted once more begins anew.
    collector.catalog.remove_package(&Digest::of(b"a")).unwrap();
    assert_eq!(run(&collector).condemned.blobs, 1);
    assert_eq!(run(&collector).removed.blobs, 1);
}

#[test]
fn what_is_leased_stays_and_so_does_what_files_wait_with() {
    let (_root, collector) = new_collector();
    let lease = store(&collector.store, &[b"leased"]);
    drop(store(&collector.store, &[b"base"]));
    let waiting = file(IngestState::Waiting {
        missing: vec![Digest::of(b"missing")],
        sizes_bytes: vec![7],
        present: vec![Digest::of(b"base")],
    });
    collector.catalog.put_ingest(&waiting).unwrap();
    run(&collector);
    let report = run(&collector);
    assert_eq!((report.leased.blobs, report.kept.blobs), (1, 1));
    drop(lease);
    assert_eq!(run(&collector).removed.blobs, 1);
    collector.catalog.remove_ingest(&waiting.path).unwrap();
    run(&collector);
    assert_eq!(run(&collector).removed.blobs, 1);
}

#[test]
fn a_condemned_blob_that_is_gone_already_is_forgotten() {
    let (_root, collector) = new_collector();
    drop(store(&collector.store, &[b"one", b"two"]));
    run(&collector);
    for content in [b"one", b"two"] {
        let removed: Result<_, Error> = collector.store.remove(&Digest::of(content), || Ok(false));
        removed.unwrap();
    }
    run(&collector);
    assert!(collector.catalog.list_condemned().unwrap().is_empty());
}

#[test]
fn a_package_that_came_after_the_mark_is_seen_before_each_removal() {
    let (_root, collector) = new_collector();
    let late = Late {
        catalog: &collector.catalog,
        mark: collector.catalog.added_count(),
        known: RefCell::new((collector.catalog.added_count(), Blobs::default())),
    };
    let digest = Digest::of(b"late");
    assert!(!late.is_wanted(&digest).unwrap());
    commit(&collector, &package("a", &[b"late"]));
    assert!(late.is_wanted(&digest).unwrap());
    assert!(!late.is_wanted(&Digest::of(b"other")).unwrap());
    // One that went again wants nothing.
    collector.catalog.remove_package(&Digest::of(b"a")).unwrap();
    commit(&collector, &package("b", &[b"other"]));
    assert!(!late.is_wanted(&digest).unwrap());
    assert!(late.is_wanted(&Digest::of(b"other")).unwrap());
}

#[test]
fn a_run_stops_between_two_blobs() {
    let (_root, collector) = new_collector();
    drop(store(&collector.store, &[b"one"]));
    let stop = CancellationToken::new();
    stop.cancel();
    let error = collector.collect(Request::default(), &stop).unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert!(collector.catalog.list_condemned().unwrap().is_empty());
}

/// Threads bring packages that share blobs and take them away again, while another one collects all the time with a grace
/// period that is always over: a package that is ready has all its blobs at every moment.
#[test]
fn packages_stay_whole_while_others_go_and_blobs_are_collected() {
    const PACKAGES: usize = 60;
    let (_root, collector) = new_collector();
    let is_done = AtomicBool::new(false);
    let bring = |thread: usize| {
        let mut last = None;
        for number in 0..PACKAGES {
            // A few blobs that all of them use now and then, and one of its own.
            let own = format!("{thread} {number}");
            let shared = [format!("s{}", number % 3), format!("t{}", number % 5)];
            let contents = [own.as_bytes(), shared[0].as_bytes(), shared[1].as_bytes()];
            let lease = store(&collector.store, &contents);
            let package = package(&format!("p{thread}-{number}"), &contents);
            commit(&collector, &package);
            drop(lease);
            for (digest, size_bytes) in package.content.entries() {
                assert_eq!(collector.store.find(digest).unwrap(), Some(*size_bytes));
            }
            // Only one of each thread stays, so that shared blobs are unwanted again and again.
            if let Some(last) = last.replace(package.record.digest) {
                collector.catalog.remove_package(&last).unwrap();
            }
        }
    };
    let removed = std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let mut removed = 0;
            while !is_done.load(Ordering::Acquire) {
                removed += run(&collector).removed.blobs;
            }
            removed
        });
        let threads: Vec<_> = (0..3)
            .map(|thread| scope.spawn(move || bring(thread)))
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        is_done.store(true, Ordering::Release);
        sweeper.join().unwrap()
    });
    assert!(removed > 0, "nothing was collected meanwhile");
    run(&collector);
    run(&collector);
    let mut wanted = std::collections::BTreeSet::new();
    let each: Result<(), Error> = collector.catalog.for_each_content(|_, content| {
        for (digest, _) in content.entries() {
            let found = collector.store.read(digest, 100)?;
            assert_eq!(Digest::of(&found), *digest);
            wanted.insert(*digest);
        }
        Ok(())
    });
    each.unwrap();
    assert_eq!(collector.store.list().count(), wanted.len());
}

#[test]
fn a_blob_that_was_condemned_by_a_clock_that_was_ahead_goes_after_the_grace_period_of_now() {
    let (_root, collector) = new_collector();
    drop(store(&collector.store, &[b"gone"]));
    let since = "2099-01-01T00:00:00Z".parse().unwrap();
    let condemned = (Digest::of(b"gone"), CondemnedRecord { since });
    collector
        .catalog
        .change_condemned(&[condemned], &[])
        .unwrap();
    let first = run(&collector);
    assert_eq!((first.condemned.blobs, first.removed.blobs), (1, 0));
    assert_eq!(run(&collector).removed.blobs, 1);
}

fn planner(catalog: &Catalog, rule: Rule) -> Planner {
    Planner {
        catalog: catalog.clone(),
        policy: Policy { rules: vec![rule] },
        destinations: vec![Destination {
            name: "global-a".parse().unwrap(),
            packages: vec!["*".parse().unwrap()],
        }],
        clock: Arc::new(Hasty::default()),
        lock: Arc::default(),
    }
}

/// Makes two versions of a package ready and in sync, of which each keeps a blob of its own.
fn commit_versions(collector: &Collector) -> [Digest; 2] {
    let versions = ["1.0.0", "2.0.0"].map(|version| {
        drop(store(&collector.store, &[version.as_bytes()]));
        let mut package = package("app", &[version.as_bytes()]);
        package.record.digest = Digest::of(version.as_bytes());
        package.record.version = Some(version.to_owned());
        commit(collector, &package);
        package.record.digest
    });
    let mut target = TargetRecord::new("global-a".parse().unwrap());
    target.synced_packages = versions.to_vec();
    collector.catalog.put_target(&target).unwrap();
    versions
}

fn last_one(keeps_published: bool) -> Rule {
    Rule {
        names: vec!["*".parse().unwrap()],
        kinds: Vec::new(),
        keep_last: 1,
        keep_younger: Duration::ZERO,
        keeps_published,
    }
}

#[test]
fn what_nobody_knows_of_one_package_stops_collection_and_not_retention() {
    let (root, collector) = new_collector();
    let [old, new] = commit_versions(&collector);
    drop(collector);
    raw::put_raw(root.path(), Column::Content, new.as_bytes(), None);
    let collector = open(&root);
    let error = collector
        .collect(Request::default(), &CancellationToken::new())
        .unwrap_err();
    assert_eq!(error.class(), Class::Corrupt, "{error}");
    let plan = planner(&collector.catalog, last_one(false)).plan().unwrap();
    let removals: Vec<Digest> = plan.removals.iter().map(|it| it.package.digest).collect();
    assert_eq!(removals, [old]);
}

#[test]
fn a_package_without_images_is_published_where_it_is_in_sync() {
    let (_root, collector) = new_collector();
    let [old, _] = commit_versions(&collector);
    let plan = |keeps| planner(&collector.catalog, last_one(keeps)).plan().unwrap();
    assert_eq!(plan(false).removals[0].package.digest, old);
    let kept = plan(true);
    assert!(kept.removals.is_empty(), "{kept}");
    let target = "global-a".parse().unwrap();
    let because = Reason::Published { rule: 1, target };
    assert_eq!(kept.kept[0].because, because);
}
