//! Packages come in on several threads, go out, and are removed and collected, all at once. Whatever is still there can be
//! pushed whole to a registry that has nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use violetd::base::Digest;
use violetd::sys::fs as durable;

use super::{Works, listed};
use crate::crash::{Random, from_environment};
use crate::daemon::assert_holds;
use crate::support::{
    Auth, Daemon, Package, Setup, TestRegistry, assert_checked, assert_whole, has_command, names,
};

/// Threads that drop packages.
const DROPPERS: usize = 2;
/// Files in the drop folder beyond which nothing more is dropped.
const FILES_MAX: usize = 8;
/// Periods of load. After each, a registry that was emptied has to be filled again.
const EPOCHS: u32 = 2;
/// What is removed and collected, over the command line, while everything else goes on.
const CLEANING: [&[&str]; 2] = [&["retain", "apply", "--yes"], &["gc"]];
/// Keeps little, and for as short a time as it may be. Only what the program has commands for is configured.
const RULES: [(&str, &str); 2] = [
    (
        "retain",
        "[[retain.rule]]\nnames = ['soak-*']\nkeep_last = 2\nkeep_published = false\n",
    ),
    ("gc", "[collect]\ngrace = '1s'\n"),
];

#[derive(Debug, Default)]
struct Counts {
    dropped: AtomicUsize,
    cleanings: AtomicUsize,
    bytes: AtomicUsize,
}

#[test]
fn every_package_that_is_kept_can_be_pushed_whole_whatever_was_removed_meanwhile() {
    let lasts = Duration::from_secs(from_environment("VIOLETD_SOAK_SECONDS", 5));
    let mut registry = TestRegistry::build(Auth::None)
        .listen("127.0.0.7:5077".parse().unwrap())
        .start();
    let mut setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    for (_, section) in RULES.iter().filter(|(command, _)| has_command(command)) {
        setup = setup.section(section);
    }
    let counts = Counts::default();
    let works = Mutex::new((Works::default(), Random::from_environment()));
    let packages = Mutex::new(BTreeMap::new());
    for epoch in 0..EPOCHS {
        let daemon = Daemon::start(setup);
        let until = Instant::now() + lasts / EPOCHS;
        std::thread::scope(|scope| {
            for _ in 0..DROPPERS {
                scope.spawn(|| drop_until(until, &daemon, &works, &packages, &counts));
            }
            scope.spawn(|| clean_until(until, &daemon.setup, &counts));
        });
        clean(&daemon.setup, &counts);
        settle(&daemon, &packages);
        setup = daemon.stop();
        let kept = assert_whole(&setup.state_dir, "after load");
        if has_command("check") {
            assert_checked(&setup, "after load");
        }
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
        println!(
            "epoch {epoch}: {counts:?}; kept: {} packages, {} blobs",
            kept.len(),
            setup.blobs().len()
        );
    }
    assert!(counts.dropped.load(Ordering::Relaxed) > 0, "{counts:?}");
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
            works.make(4, random)
        };
        daemon.wait_until("room in the drop folder", |_| {
            names(&daemon.setup.drop_dir).len() < FILES_MAX
        });
        daemon.setup.drop_package(&package);
        counts.dropped.fetch_add(1, Ordering::Relaxed);
        let bytes = usize::try_from(package.images.total_bytes()).unwrap();
        counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        packages.lock().unwrap().insert(package.digest(), package);
    }
}

fn clean_until(until: Instant, setup: &Setup, counts: &Counts) {
    while Instant::now() < until && clean(setup, counts) > 0 {}
}

/// Removes and collects once. Returns how many of the commands the program has.
fn clean(setup: &Setup, counts: &Counts) -> usize {
    let known = CLEANING.iter().filter(|words| has_command(words[0]));
    known
        .map(|words| {
            let output = setup.run(words);
            assert!(output.status.success(), "{words:?}: {output:?}");
            counts.cleanings.fetch_add(1, Ordering::Relaxed);
        })
        .count()
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
