//! The daemon is killed again and again over the same state, while it takes packages in and brings them to two registries.

use std::collections::BTreeSet;

use violetd::base::Digest;

use super::{Works, listed, name_of};
use crate::crash::{Random, Victim, from_environment};
use crate::daemon::assert_holds;
use crate::support::{
    Auth, Daemon, Package, Setup, TestRegistry, assert_checked, assert_whole, names,
};

/// Packages that are dropped before each kill.
const PACKAGES: usize = 3;
/// After so many kills everything has to arrive before it goes on.
const ROUNDS_UNTIL_CALM: usize = 10;

#[test]
fn a_daemon_killed_at_random_moments_under_load_loses_nothing_that_was_ready() {
    let kills: usize = from_environment("VIOLETD_KILLS", 6);
    let mut random = Random::from_environment();
    let registries = [
        TestRegistry::start(Auth::None),
        TestRegistry::start(Auth::None),
    ];
    let mut setup = Setup::new("none")
        .target("global-a", "primary", registries[0].address(), "")
        .target("global-b", "standby", registries[1].address(), "");
    let (mut works, mut packages) = (Works::default(), Vec::new());
    let mut counts = Counts::default();
    for round in 0..kills {
        let new: Vec<Package> = (0..PACKAGES).map(|_| works.make(5, &mut random)).collect();
        let bytes: u64 = new.iter().map(|it| it.images.total_bytes()).sum();
        // A package is read twice and written once to be taken in, and read and sent once for each registry.
        let moment = random.below(bytes * 7);
        // Some before, some while it works.
        let first = usize::try_from(random.below(PACKAGES as u64)).unwrap();
        new[..first]
            .iter()
            .for_each(|it| drop(setup.drop_package(it)));
        let mut victim = Victim::start(&setup, &[]);
        new[first..]
            .iter()
            .for_each(|it| drop(setup.drop_package(it)));
        victim.watch(|victim| {
            victim.bytes_moved() >= moment
                || (victim.count("package is ready") >= PACKAGES && victim.count("run ends") > 2)
        });
        let ready = ready_in(&victim.die());
        packages.extend(new);
        let what = format!("round {round}, killed after {moment} bytes");
        let held = assert_whole(&setup.state_dir, &what);
        assert!(ready.is_subset(&held), "{what}: {ready:?}, {held:?}");
        assert_checked(&setup, &what);
        counts.note(&setup, &held, packages.len());
        println!("{what}: {} of {} packages", held.len(), packages.len());
        let is_last = round + 1 == kills;
        if is_last || (round + 1) % ROUNDS_UNTIL_CALM == 0 {
            setup = calm(setup, &packages, &registries, &what);
        }
    }
    println!("{kills} kills, {} packages: {counts:?}", packages.len());
    assert!(kills < 6 || counts.before_all_were_ready > 0, "{counts:?}");
}

/// When the kills came.
#[derive(Debug, Default)]
struct Counts {
    before_all_were_ready: usize,
    while_blobs_were_staged: usize,
    with_files_left: usize,
}

impl Counts {
    fn note(&mut self, setup: &Setup, held: &BTreeSet<Digest>, packages: usize) {
        let staged = names(&setup.state_dir.join("ingest"));
        self.before_all_were_ready += usize::from(held.len() < packages);
        self.while_blobs_were_staged += usize::from(!staged.is_empty());
        self.with_files_left += usize::from(names(&setup.drop_dir) != ["done"]);
    }
}

/// Starts the daemon and waits until everything is everywhere and the folders are tidy.
fn calm(setup: Setup, packages: &[Package], registries: &[TestRegistry; 2], what: &str) -> Setup {
    let daemon = Daemon::start(setup);
    let status = daemon.wait_until("recovery", |status| {
        status["is_in_sync"] == true
            && listed(status).len() == packages.len()
            && names(&daemon.setup.drop_dir) == ["done"]
    });
    let expected: BTreeSet<Digest> = packages.iter().map(Package::digest).collect();
    assert_eq!(
        listed(&status).into_iter().collect::<BTreeSet<_>>(),
        expected
    );
    let setup = daemon.stop();
    for (package, registry) in packages
        .iter()
        .flat_map(|package| registries.iter().map(move |registry| (package, registry)))
    {
        assert_holds(registry, package);
    }
    assert_eq!(assert_whole(&setup.state_dir, what), expected);
    let mut done: Vec<&str> = packages.iter().map(name_of).collect();
    done.sort_unstable();
    assert_eq!(names(&setup.drop_dir.join("done")), done);
    assert_eq!(names(&setup.state_dir.join("ingest")).len(), 0);
    assert_eq!(names(&setup.state_dir.join("quarantine")).len(), 0);
    setup
}

/// Returns the packages that a log says are ready.
pub(crate) fn ready_in(lines: &[String]) -> BTreeSet<Digest> {
    let lines = lines
        .iter()
        .filter(|line| line.contains("package is ready"));
    let digests = lines.map(|line| {
        let (_, rest) = line.split_once("digest=").unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    });
    digests.collect()
}
