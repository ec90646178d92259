//! Packages come in on several threads, go out, and are removed and collected, all at once. Whatever is still there can be
//! pushed whole to a registry that has nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use violetd::base::Digest;
use violetd::catalog::Catalog;
use violetd::sys::fs as durable;

use super::{Works, listed};
use crate::crash::{Random, from_environment};
use crate::daemon::assert_holds;
use crate::daemon::retain::ask;
use crate::support::{
    Auth, Daemon, Package, Setup, TestRegistry, assert_checked, assert_whole, names,
};

/// Threads that drop packages.
const DROPPERS: usize = 2;
/// Files in the drop folder beyond which nothing more is dropped.
const FILES_MAX: usize = 8;
/// How long a period of load is at most. After each, and after at least two, a registry that was emptied has to be filled
/// again.
const PERIOD_MAX: Duration = Duration::from_mins(5);
/// Keeps little, and for as short a time as it may be.
const RULES: &str = "[[retain.rule]]\nnames = ['soak-*']\nkeep_last = 2\nkeep_published = false\n\
                     [collect]\ngrace = '1s'\n";
const NAMES: u64 = 4;
const TARGET: &str = "global-a";

#[derive(Debug, Default)]
struct Counts {
    dropped: AtomicUsize,
    dropped_bytes: AtomicUsize,
    plans_applied: AtomicUsize,
    packages_removed: AtomicUsize,
    collections: AtomicUsize,
    blobs_removed: AtomicUsize,
}

#[test]
fn every_package_that_is_kept_can_be_pushed_whole_whatever_was_removed_meanwhile() {
    let lasts = Duration::from_secs(from_environment("VIOLETD_SOAK_SECONDS", 10));
    let epochs = u32::try_from(lasts.as_secs().div_ceil(PERIOD_MAX.as_secs())).unwrap();
    let epochs = epochs.max(2);
    let mut registry = TestRegistry::build(Auth::None)
        .listen("127.0.0.7:0".parse().unwrap())
        .start();
    let mut setup = Setup::new("none")
        .target(TARGET, "primary", registry.address(), "")
        .section(RULES);
    let counts = Counts::default();
    let works = Mutex::new((Works::default(), Random::from_environment()));
    let packages = Mutex::new(BTreeMap::new());
    for epoch in 0..epochs {
        let daemon = Daemon::start(setup);
        let until = Instant::now() + lasts / epochs;
        std::thread::scope(|scope| {
            for _ in 0..DROPPERS {
                scope.spawn(|| drop_until(until, &daemon, &works, &packages, &counts));
            }
            scope.spawn(|| {
                while Instant::now() < until {
                    clean(&daemon.setup, &counts);
                }
            });
        });
        settle(&daemon, &packages);
        // What nobody keeps since a moment ago is collected a grace period later.
        daemon.wait_until("a removal of blobs", |_| {
            clean(&daemon.setup, &counts);
            counts.blobs_removed.load(Ordering::Relaxed) > 0
        });
        settle(&daemon, &packages);
        setup = daemon.stop();
        assert_runs(&setup);
        let kept = assert_whole(&setup.state_dir, "after load");
        assert_checked(&setup, "after load");
        registry.kill();
        durable::empty_dir(registry.storage()).unwrap();
        registry = registry.resume();
        let daemon = Daemon::start(setup);
        daemon.sync();
        settle(&daemon, &packages);
        for package in packages.lock().unwrap().values() {
            assert_holds(&registry, package);
        }
        setup = daemon.stop();
        assert_runs(&setup);
        println!(
            "epoch {epoch}: {counts:?}; kept: {} packages, {} blobs",
            kept.len(),
            setup.blobs().len()
        );
        assert!(kept.len() as u64 <= 2 * NAMES, "{counts:?}");
    }
    assert!(
        counts.packages_removed.load(Ordering::Relaxed) > 0,
        "{counts:?}"
    );
}

/// Fails the test if one of the last runs met a problem: whatever was removed meanwhile, nothing that it needed was.
fn assert_runs(setup: &Setup) {
    let catalog = Catalog::open(&setup.state_dir).unwrap();
    let runs = catalog
        .list_runs(&TARGET.parse().unwrap(), usize::MAX)
        .unwrap();
    assert!(!runs.is_empty());
    for run in runs {
        assert_eq!(run.problems, [], "{run:?}");
    }
}

/// Drops packages, as fast as they are taken in.
fn drop_until(
    until: Instant,
    daemon: &Daemon,
    works: &Mutex<(Works, Random)>,
    packages: &Mutex<BTreeMap<Digest, Package>>,
    counts: &Counts,
) {
    while Instant::now() < until {
        let package = {
            let (works, random) = &mut *works.lock().unwrap();
            works.make(NAMES, random)
        };
        daemon.wait_until("room in the drop folder", |_| {
            names(&daemon.setup.drop_dir).len() < FILES_MAX
        });
        daemon.setup.drop_package(&package);
        counts.dropped.fetch_add(1, Ordering::Relaxed);
        let bytes = usize::try_from(package.images.total_bytes()).unwrap();
        counts.dropped_bytes.fetch_add(bytes, Ordering::Relaxed);
        packages.lock().unwrap().insert(package.digest(), package);
    }
}

/// Removes and collects once.
fn clean(setup: &Setup, counts: &Counts) {
    let applied = ask(setup, &["retain", "apply", "--yes"]);
    let removed = applied["removed"].as_array().unwrap().len();
    counts.plans_applied.fetch_add(1, Ordering::Relaxed);
    counts
        .packages_removed
        .fetch_add(removed, Ordering::Relaxed);
    let collected = ask(setup, &["gc"]);
    let removed = collected["removed"]["blobs"].as_u64().unwrap();
    counts.collections.fetch_add(1, Ordering::Relaxed);
    counts
        .blobs_removed
        .fetch_add(usize::try_from(removed).unwrap(), Ordering::Relaxed);
}

/// Waits until everything is taken in and brought to the target. Forgets packages that were removed.
fn settle(daemon: &Daemon, packages: &Mutex<BTreeMap<Digest, Package>>) {
    let status = daemon.wait_until("quiet", |status| {
        status["is_in_sync"] == true
            && status["files"].as_array().unwrap().is_empty()
            && names(&daemon.setup.drop_dir) == ["done"]
    });
    let kept = listed(&status);
    packages
        .lock()
        .unwrap()
        .retain(|digest, _| kept.contains(digest));
    assert!(!kept.is_empty(), "{status:#}");
}
