//! Two packages that share a layer are taken in by two processes, one after the other.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::{Site, package_of};
use crate::sys::power::{Cut, Survival};
use crate::sys::trial::{self, Scenario};

const NAMES: [&str; 2] = ["first.tgz", "second.tgz"];

struct Ingest;

impl Ingest {
    fn packages() -> [Vec<u8>; 2] {
        [
            package_of("registry.example/a/first:1", &["shared", "one"]),
            package_of("registry.example/a/second:1", &["shared", "two"]),
        ]
    }

    fn process(site: &Site) -> Result<(), String> {
        let open = site.open()?;
        site.ingest(&open)
    }
}

impl Scenario for Ingest {
    fn prepare(root: &Path) {
        let [first, second] = Self::packages();
        Site::at(root).prepare(&[(NAMES[0], &first)], &[(NAMES[1], &second)]);
    }

    fn live(root: &Path) -> Result<(), String> {
        let site = Site::at(root);
        Self::process(&site)?;
        site.deliver()?;
        Self::process(&site)
    }

    fn check(root: &Path, what: &str) {
        let site = Site::at(root);
        let [first, second] = Self::packages();
        let files = [(NAMES[0], &first[..]), (NAMES[1], &second)];
        site.assert_sound(&files, what);
        let outcome = Self::live(root);
        assert!(outcome.is_ok(), "{what}: {outcome:?}");
        site.assert_done(&files, what);
    }

    fn database(root: &Path) -> PathBuf {
        Site::at(root).state().join("catalog")
    }

    fn is_repetition(root: &Path, path: &Path) -> bool {
        path.parent() == Some(&Site::at(root).state().join("blobs/sha256"))
    }
}

#[test]
fn a_failure_at_any_operation_leaves_packages_whole_or_absent_and_the_next_run_ends_it() {
    let count = trial::fail_everywhere::<Ingest>();
    assert!(count > 100, "{count}");
}

#[test]
fn a_power_cut_at_any_moment_leaves_what_was_acknowledged_whole() {
    let count = trial::cut_everywhere::<Ingest>();
    assert!(count > 50, "{count}");
}

proptest! {
    // Each case makes a folder, opens everything several times and ingests. There is nothing to shrink.
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, ..ProptestConfig::default() })]
    #[test]
    fn a_power_cut_that_loses_any_mix_of_what_was_not_synced_is_survived(
        cut in any::<prop::sample::Index>(), seed in any::<u64>(),
    ) {
        static CUTS: LazyLock<Vec<Cut>> = LazyLock::new(trial::cuts::<Ingest>);
        let number = cut.index(CUTS.len());
        trial::check_cut::<Ingest>(&CUTS[number], number, Survival::Mixed(seed));
    }
}
