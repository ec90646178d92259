//! Collection beside the rest of what the daemon does, and without it.

use super::retain::{LAST_ONE, ask, drop_all, versions};
use super::{blobs_of, setup_without_delivery, wait_ready};
use crate::support::{Auth, Daemon, Package, Setup, TestRegistry};
use violetd::base::Digest;

/// Fails the test unless every blob of the store has the content that its name says.
fn assert_blobs_are_whole(setup: &Setup) {
    for blob in setup.blobs() {
        let path = setup.state_dir.join("blobs/sha256").join(&blob[..2]);
        let content = std::fs::read(path.join(&blob)).unwrap();
        assert_eq!(Digest::of(&content).hex(), blob);
    }
}

#[test]
fn a_dry_run_changes_nothing_and_a_grace_period_that_is_not_over_is_waited_for() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none")
        .target("global-a", "primary", registry.address(), "")
        .section(LAST_ONE);
    let daemon = Daemon::start(setup);
    let packages = versions(&["v1.0.0", "v2.0.0"]);
    drop_all(&daemon, &packages);
    daemon.wait_in_sync(2);
    ask(&daemon.setup, &["retain", "apply", "--yes"]);
    let unwanted = daemon.setup.blobs().len() - blobs_of(&[&packages[1]]).len();
    for _ in 0..2 {
        let dry = ask(&daemon.setup, &["gc", "--dry-run"]);
        assert_eq!(
            dry["condemned"]["blobs"], unwanted,
            "nothing was written down"
        );
    }
    let run = ask(&daemon.setup, &["gc", "--grace", "1h"]);
    assert_eq!(run["condemned"]["blobs"], unwanted);
    let run = ask(&daemon.setup, &["gc", "--grace", "1h"]);
    assert_eq!(
        (&run["waiting"]["blobs"], &run["removed"]["blobs"]),
        (&unwanted.into(), &0.into())
    );
    let refused = daemon.setup.run(&["gc", "--grace", "1ms"]);
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");

    // It survives a restart, and without a daemon the command collects by itself.
    let setup = daemon.stop();
    let dry = ask(&setup, &["gc", "--dry-run", "--grace", "1h"]);
    assert_eq!(dry["waiting"]["blobs"], unwanted);
    let daemon = Daemon::start(setup);
    daemon.wait_until("the end of the grace period", |_| {
        ask(&daemon.setup, &["gc", "--dry-run"])["removed"]["blobs"] == unwanted
    });
    let setup = daemon.stop();
    assert_eq!(ask(&setup, &["gc"])["removed"]["blobs"], unwanted);
    assert_eq!(setup.blobs(), blobs_of(&[&packages[1]]));
    assert_blobs_are_whole(&setup);
    let daemon = Daemon::start(setup);
    daemon.wait_in_sync(1);
    daemon.stop();
}

#[test]
fn what_comes_while_blobs_are_collected_is_whole() {
    let setup = setup_without_delivery("none")
        .section("[collect]\nschedule = '* * * * * *'\ngrace = '1s'\n");
    let daemon = Daemon::start(setup);
    let packages = versions(&["v1.0.0", "v2.0.0", "v3.0.0", "v4.0.0"]);
    for (number, package) in packages.iter().enumerate() {
        let name = format!("{number}.tgz");
        daemon.setup.drop_file(&name, &package.bytes(), &[]);
        wait_ready(&daemon, number + 1);
        ask(&daemon.setup, &["gc"]);
    }
    daemon.wait_for_log("blobs are collected");
    let all: Vec<&Package> = packages.iter().collect();
    assert_eq!(daemon.setup.blobs(), blobs_of(&all));
    assert_blobs_are_whole(&daemon.setup);
    daemon.stop();
}
