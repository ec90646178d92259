//! Registries and daemons that are down for a while.

use std::net::SocketAddr;
use std::path::Path;

use chrono::Days;
use hyper::Method;
use violetd::base::{Clock as _, SystemClock, Timestamp};
use violetd::catalog::{Catalog, TargetRecord};

use super::{assert_holds, blobs_of, count, problems, target};
use crate::support::{Auth, Daemon, Fault, Images, Package, Proxy, Setup, TestRegistry, noise};

#[test]
fn a_registry_that_was_down_catches_up_by_itself() {
    let primary = TestRegistry::start(Auth::None);
    // An address of its own keeps the port free while nobody listens.
    let address = SocketAddr::from(([127, 0, 0, 2], 0));
    let mut standby = TestRegistry::build(Auth::None).listen(address).start();
    let setup = Setup::new("none")
        .target("global-a", "primary", primary.address(), "")
        .target("global-b", "standby", standby.address(), "");
    standby.kill();
    let daemon = Daemon::start(setup);
    let package = Package::small("outage");
    daemon.setup.drop_package(&package);

    let status = daemon.wait_until("sync of one target and failure of the other", |status| {
        target(status, "global-a")["packages_in_sync"] == 1
            && !problems(status, "global-b").is_empty()
    });
    assert_holds(&primary, &package);
    assert_eq!(status["is_in_sync"], false);
    assert_eq!(status["packages"][0]["in_sync_on"][0], "global-a");
    let behind = target(&status, "global-b");
    assert!(behind["lag_seconds"].is_number(), "{behind:#}");
    for problem in problems(&status, "global-b") {
        assert_eq!(problem["class"], "transient", "{problem:#}");
        let message = problem["message"].as_str().unwrap();
        let address = standby.address().to_string();
        assert!(message.contains(&address), "{message}");
    }
    let check = daemon.setup.run(&["status", "--check"]);
    assert_eq!(check.status.code(), Some(1), "{check:?}");

    let standby = standby.resume();
    let status = daemon.wait_in_sync(1);
    assert_holds(&standby, &package);
    assert_eq!(target(&status, "global-b")["last_run"]["reason"], "retry");
    assert!(target(&status, "global-b")["lag_seconds"].is_null());
    daemon.stop();
}

#[test]
fn a_package_that_was_dropped_while_the_daemon_was_down_is_picked_up() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let setup = Daemon::start(setup).stop();
    let package = Package::small("while-down");
    setup.drop_package(&package);
    let daemon = Daemon::start(setup);
    daemon.wait_in_sync(1);
    assert_holds(&registry, &package);
    daemon.stop();
}

#[test]
fn a_target_that_waits_for_its_schedule_gets_packages_when_it_is_due() {
    let registry = TestRegistry::start(Auth::None);
    let keys = "on_ready = false\nschedule = '* * * * * *'";
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), keys);
    let daemon = Daemon::start(setup);
    let package = Package::small("scheduled");
    daemon.setup.drop_package(&package);
    let status = daemon.wait_in_sync(1);
    assert_holds(&registry, &package);
    let target = target(&status, "global-a");
    assert_eq!(target["last_run"]["reason"], "schedule", "{target:#}");
    assert!(target["next_run_at"].is_string(), "{target:#}");
    daemon.stop();
}

#[test]
fn a_run_that_was_missed_is_caught_up_where_that_is_wanted() {
    let registries = [
        TestRegistry::start(Auth::None),
        TestRegistry::start(Auth::None),
    ];
    let setup = Setup::new("none")
        .target(
            "global-a",
            "primary",
            registries[0].address(),
            "on_ready = false",
        )
        .target(
            "global-b",
            "standby",
            registries[1].address(),
            "on_ready = false\ncatch_up = false",
        );
    let daemon = Daemon::start(setup);
    let package = Package::small("missed");
    daemon.setup.drop_package(&package);
    let status = daemon.wait_until("a package", |status| status["packages"][0].is_object());
    for name in ["global-a", "global-b"] {
        assert!(target(&status, name)["last_run"].is_null(), "{status:#}");
    }
    let setup = daemon.stop();

    // The daemon was down for five years, in which there was a 29th of February.
    let then = SystemClock.now() - Days::new(5 * 366);
    for name in ["global-a", "global-b"] {
        set_last_scheduled(&setup.state_dir, name, then);
    }

    let daemon = Daemon::start(setup);
    let status = daemon.wait_until("a run, and a target that waits", |status| {
        target(status, "global-a")["is_in_sync"] == true
            && target(status, "global-b")["next_run_at"].is_string()
    });
    assert_holds(&registries[0], &package);
    let reason = &target(&status, "global-a")["last_run"]["reason"];
    assert_eq!(*reason, "schedule");
    assert!(
        target(&status, "global-b")["last_run"].is_null(),
        "{status:#}"
    );
    daemon.stop();
}

/// Sets the time at which a target was run by its schedule last.
fn set_last_scheduled(state_dir: &Path, target: &str, at: Timestamp) {
    let catalog = Catalog::open(state_dir).unwrap();
    let record = catalog.find_target(&target.parse().unwrap()).unwrap();
    let mut record = TargetRecord::clone(&record.unwrap());
    assert!(record.last_scheduled_at.is_some());
    record.last_scheduled_at = Some(at);
    catalog.put_target(&record).unwrap();
}

#[test]
fn a_schedule_goes_on_after_a_clock_was_years_ahead() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target(
        "global-a",
        "primary",
        registry.address(),
        "on_ready = false",
    );
    let daemon = Daemon::start(setup);
    let package = Package::small("late");
    daemon.setup.drop_package(&package);
    daemon.wait_until("a package", |status| status["packages"][0].is_object());
    let setup = daemon.stop();
    let ahead = SystemClock.now() + Days::new(20 * 366);
    set_last_scheduled(&setup.state_dir, "global-a", ahead);
    let daemon = Daemon::start(setup);
    let status = daemon.wait_until("a run", |status| {
        target(status, "global-a")["is_in_sync"] == true
    });
    assert_eq!(
        target(&status, "global-a")["last_run"]["reason"],
        "schedule"
    );
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_killed_in_the_middle_of_an_upload_goes_on_at_the_next_start() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    // One blob after another, the largest first: the first upload is the one that stalls.
    let setup = Setup::new("none")
        .target("global-a", "primary", proxy.address(), "")
        .variable("VIOLETD_REPLICATE__CONCURRENCY", "1");
    for method in [Method::PUT, Method::PATCH] {
        proxy.break_next(method, Fault::StallAfter(100_000));
    }
    let daemon = Daemon::start(setup);
    let mut images = Images::default();
    images.add("demo/killed", "v1", &[noise(1, 400_000), noise(2, 90_000)]);
    let package = Package::operator("killed", images);
    daemon.setup.drop_package(&package);
    proxy.wait_for_uploaded_bytes(100_000).await;
    let setup = daemon.kill();
    assert_eq!(setup.blobs(), blobs_of(&[&package]));

    let daemon = Daemon::start(setup);
    let status = daemon.wait_in_sync(1);
    assert_holds(&registry, &package);
    let uploaded = count(&status, "global-a", "bytes_sent");
    assert!(uploaded <= package.images.total_bytes(), "{status:#}");
    assert_eq!(
        daemon.log_lines("package is ready").len(),
        0,
        "it was ready before"
    );
    daemon.stop();
}
