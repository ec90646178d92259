//! Of two packages that share a layer one is removed, what it alone has kept is collected, and it is dropped again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::{Open, Site, release_of, words};
use crate::base::{Clock as _, Digest, ManualClock, SystemClock};
use crate::retain::{
    Collector, Counters, GRACE_MIN, Mode, Order, Planner, Policy, Request, Retention, Rule,
};
use crate::sys::fs as durable;
use crate::sys::trial::{self, Scenario};

/// Both packages are releases of `app`, and the rule keeps the last one.
const OLD: &str = "old.tgz";
const NEW: &str = "new.tgz";
/// The layer that the old package has alone.
const OWN: &str = "one";
/// Collections until nothing is left to collect: one condemns and one removes, and each process that was cut off before
/// may have condemned an hour later.
const COLLECTIONS_MAX: i64 = 6;

struct Retain;

impl Retain {
    fn packages() -> [Vec<u8>; 2] {
        [
            release_of(("app", "1.0.0"), &["shared", OWN]),
            release_of(("app", "2.0.0"), &["shared", "two"]),
        ]
    }

    /// Removes what the rule lets go.
    fn remove(open: &Open) -> Result<(), String> {
        let rule = Rule {
            names: vec!["app".parse().unwrap()],
            kinds: Vec::new(),
            keep_last: 1,
            keep_younger: std::time::Duration::ZERO,
            keeps_published: false,
        };
        let retention = Retention {
            planner: Planner {
                catalog: open.catalog.clone(),
                policy: Policy { rules: vec![rule] },
                destinations: Vec::new(),
                clock: Arc::new(SystemClock),
                lock: Arc::new(Mutex::new(())),
            },
            audit: open.audit.clone(),
            counters: Arc::new(Counters::default()),
        };
        let applied = retention.apply(&Order::default(), &CancellationToken::new());
        applied.map(drop).map_err(|error| words(&error))
    }

    /// Collects, an hour after the other, until nothing is unwanted.
    fn collect(open: &Open) -> Result<(), String> {
        let start = SystemClock.now();
        let clock = Arc::new(ManualClock::new(start));
        let collector = Collector {
            store: open.store.clone(),
            catalog: open.catalog.clone(),
            clock: Arc::clone(&clock) as _,
            grace: GRACE_MIN,
            counters: Arc::new(Counters::default()),
        };
        for hours in 0..COLLECTIONS_MAX {
            clock.set(start + TimeDelta::hours(hours));
            let request = Request {
                mode: Mode::Remove,
                grace: None,
            };
            let collected = collector
                .collect(request, &CancellationToken::new())
                .map_err(|error| words(&error))?;
            if collected.condemned.blobs == 0 && collected.waiting.blobs == 0 {
                return Ok(());
            }
        }
        Err("expected an end of collecting, found none".to_owned())
    }

    /// Drops the old package again, unless it is dropped already.
    fn drop_again(site: &Site) -> Result<(), String> {
        let dropped = site.path("drop").join(OLD);
        if dropped.exists() {
            return Ok(());
        }
        durable::move_file(&site.path("drop/done").join(OLD), &dropped)
            .map_err(|error| words(&error))
    }
}

impl Scenario for Retain {
    /// For about forty failures, half a second each.
    const ONE_OF: usize = 5;

    fn prepare(root: &Path) {
        let [old, new] = Self::packages();
        Site::at(root).prepare_ready(&[(OLD, &old), (NEW, &new)]);
    }

    fn live(root: &Path) -> Result<(), String> {
        let site = Site::at(root);
        let open = site.open()?;
        Self::remove(&open)?;
        Self::collect(&open)?;
        let [old, _] = Self::packages();
        let own = open.store.find(&Digest::of(OWN.as_bytes()));
        if own.map_err(|error| words(&error))?.is_some() {
            return Err("expected that what nobody keeps is gone, found it".to_owned());
        }
        drop(open);
        Self::drop_again(&site)?;
        let open = site.open()?;
        site.ingest(&open)?;
        let ready = open.catalog.find_package(&Digest::of(&old));
        match ready.map_err(|error| words(&error))? {
            Some(_) => Ok(()),
            None => Err("expected the package that came again to be ready, found none".to_owned()),
        }
    }

    fn check(root: &Path, what: &str) {
        let site = Site::at(root);
        let [old, new] = Self::packages();
        // Of the old package, that it is whole if it is there at all.
        let packages = site.assert_sound(&[(NEW, &new)], what);
        let digest = Digest::of(&new);
        let is_kept = packages.iter().any(|package| package.digest == digest);
        assert!(is_kept, "{what}: {packages:?}");
        let is_somewhere = |folder: &str| {
            let found = std::fs::read(site.path(folder).join(OLD));
            found.is_ok_and(|found| found == old)
        };
        let is_there = is_somewhere("drop") || is_somewhere("drop/done");
        assert!(is_there, "{what}: the file is nowhere");
        let outcome = Self::live(root);
        assert!(outcome.is_ok(), "{what}: {outcome:?}");
        site.assert_done(&[(OLD, &old), (NEW, &new)], what);
    }

    fn database(root: &Path) -> PathBuf {
        Site::at(root).state().join("catalog")
    }

    fn is_repetition(root: &Path, path: &Path) -> bool {
        path.parent() == Some(&Site::at(root).state().join("blobs/sha256"))
    }
}

#[test]
fn a_failure_of_a_removal_or_a_collection_takes_nothing_that_is_kept_and_the_next_run_ends_it() {
    let count = trial::fail_everywhere::<Retain>();
    assert!(count > 30, "{count}");
}

#[test]
fn a_power_cut_in_a_removal_or_a_collection_takes_nothing_that_is_kept() {
    let count = trial::cut_everywhere::<Retain>();
    assert!(count > 20, "{count}");
}
