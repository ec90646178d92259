//! Retention: what goes by the rules, what stays in spite of them, and who has to approve.

use serde_json::Value;

use super::{assert_holds, blobs_of, setup_without_delivery, wait_ready};
use crate::support::{Auth, Daemon, Images, Package, Setup, TestRegistry, metric, noise};

/// A rule that keeps the last version of everything, also where others are published still.
pub(super) const LAST_ONE: &str = "[[retain.rule]]\nkeep_last = 1\nkeep_published = false\n[collect]\nschedule = ''\ngrace = '1s'\n";

/// Returns versions of one package, the oldest first, which share a layer with their neighbours.
pub(super) fn versions(tags: &[&'static str]) -> Vec<Package> {
    let version = |(number, tag): (u64, &&'static str)| {
        let mut images = Images::default();
        let layers = [
            noise(7, 30_000),
            noise(number, 20_000),
            noise(number + 1, 20_000),
        ];
        images.add("demo/app", tag, &layers);
        Package::operator("app", images)
    };
    (100..).zip(tags).map(version).collect()
}

/// Drops packages one after the other, each under a name of its own.
pub(super) fn drop_all(daemon: &Daemon, packages: &[Package]) {
    for (number, package) in packages.iter().enumerate() {
        let name = format!("app-{number}.tgz");
        daemon.setup.drop_file(&name, &package.bytes(), &[]);
        wait_ready(daemon, number + 1);
    }
}

/// Runs a command that is expected to succeed, and returns what it prints for programs.
pub(crate) fn ask(setup: &Setup, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["--output", "json"]);
    let output = setup.run(&all);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {words}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the versions that a plan would remove.
fn planned(setup: &Setup) -> Vec<String> {
    let plan = ask(setup, &["retain", "plan"]);
    versions_of(&plan["removals"])
}

fn versions_of(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|it| it["version"].as_str().unwrap().to_owned())
        .collect()
}

/// Returns what keeps each package.
fn reasons(setup: &Setup) -> Vec<(String, String)> {
    let plan = ask(setup, &["retain", "plan", "--all"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let kept = plan["kept"].as_array().unwrap().iter();
    kept.map(|it| (text(&it["version"]), text(&it["because"]["reason"])))
        .collect()
}

/// Returns exit code and words of a command.
fn refused(setup: &Setup, arguments: &[&str]) -> (Option<i32>, String) {
    let output = setup.run(arguments);
    let words = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), words)
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one story, whose every step builds on the one before"
)]
fn old_versions_go_once_somebody_approves_and_the_rest_is_whole() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none")
        .target("global-a", "primary", registry.address(), "")
        .section(LAST_ONE);
    let daemon = Daemon::start(setup);
    let packages = versions(&["v1.0.0", "v1.1.0", "v2.0.0"]);
    drop_all(&daemon, &packages);
    daemon.wait_in_sync(3);
    let setup = &daemon.setup;

    let plan = ask(setup, &["retain", "plan"]);
    assert_eq!(versions_of(&plan["removals"]), ["v1.0.0", "v1.1.0"]);
    let (before, after) = (
        blobs_of(&packages.iter().collect::<Vec<_>>()),
        blobs_of(&[&packages[2]]),
    );
    let freed = |removal: &Value| removal["freed"]["blobs"].as_u64().unwrap();
    let removals = plan["removals"].as_array().unwrap().iter();
    let freed: u64 = removals.map(freed).sum();
    assert_eq!(freed, (before.len() - after.len()) as u64);

    // Without approval, or with that of another plan, or for a package that is not in it, nothing goes.
    let id = plan["id"].as_str().unwrap();
    let (code, words) = refused(setup, &["retain", "apply"]);
    assert_eq!(code, Some(64), "{words}");
    assert!(
        words.contains(&format!("hint: violetd retain apply --yes --plan {id}")),
        "{words}"
    );
    let (code, words) = refused(
        setup,
        &["retain", "apply", "--yes", "--plan", "0123456789abcdef"],
    );
    assert_eq!(code, Some(66), "{words}");
    let last = packages[2].digest().to_string();
    let (code, words) = refused(setup, &["retain", "apply", "--yes", "--only", &last]);
    assert_eq!(code, Some(66), "{words}");
    assert_eq!(daemon.status()["packages"].as_array().unwrap().len(), 3);

    let first = packages[0].digest().short();
    let applied = ask(
        setup,
        &["retain", "apply", "--yes", "--plan", id, "--only", &first],
    );
    assert_eq!(versions_of(&applied["removed"]), ["v1.0.0"]);
    assert_eq!(planned(setup), ["v1.1.0"]);
    let applied = ask(setup, &["retain", "apply", "--yes"]);
    assert_eq!(versions_of(&applied["removed"]), ["v1.1.0"]);
    assert_eq!(
        setup.blobs(),
        before,
        "blobs are the business of collection"
    );

    daemon.wait_until("collection", |_| {
        ask(&daemon.setup, &["gc"]);
        daemon.setup.blobs() == after
    });
    let metrics = daemon.metrics();
    assert_eq!(
        metric(&metrics, "violetd_retention_packages_removed_total"),
        2
    );
    let removed = metric(&metrics, "violetd_collection_blobs_removed_total");
    assert_eq!(removed, freed);
    // On the target everything is as it was, and nothing is missed here.
    daemon.sync();
    daemon.wait_in_sync(1);
    for package in &packages {
        assert_holds(&registry, package);
    }

    let report = ask(
        setup,
        &["audit", "export", &packages[0].digest().to_string()],
    );
    let records = report["records"].as_array().unwrap();
    assert_eq!(records[0]["package"]["verdict"], "accepted");
    assert_eq!(records[1]["removed"]["approved_by"], "request");
    assert_eq!(records[1]["removed"]["rule"], "1: *: last 1");
    let text = setup.run(&["audit", "export", "app"]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches("verdict:      removed").count(), 2, "{text}");

    // What was removed can come again.
    setup.drop_file("again.tgz", &packages[0].bytes(), &[]);
    daemon.wait_in_sync(2);
    assert_eq!(setup.blobs(), blobs_of(&[&packages[0], &packages[2]]));
    daemon.stop();
}

#[test]
fn a_schedule_approves_of_removals_and_collection() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none")
        .target("global-a", "primary", registry.address(), "")
        .section(
            "[retain]\nschedule = '* * * * * *'\n[[retain.rule]]\nkeep_last = 1\nkeep_published = false\n\
             [collect]\nschedule = '* * * * * *'\ngrace = '1s'\n",
        );
    let daemon = Daemon::start(setup);
    let packages = versions(&["v1.0.0", "v2.0.0"]);
    for (name, package) in ["a.tgz", "b.tgz"].into_iter().zip(&packages) {
        daemon.setup.drop_file(name, &package.bytes(), &[]);
    }
    daemon.wait_for_log("package is removed");
    daemon.wait_in_sync(1);
    let left = blobs_of(&[&packages[1]]);
    daemon.wait_until("collection", |_| daemon.setup.blobs() == left);
    let lines = daemon.log_lines("package is removed");
    assert!(lines[0].contains("approved_by=\"schedule\""), "{lines:?}");
    daemon.stop();
}

#[test]
fn what_a_target_still_has_to_get_is_kept() {
    // The target is nowhere.
    let daemon = Daemon::start(setup_without_delivery("none").section(LAST_ONE));
    drop_all(&daemon, &versions(&["v1.0.0", "v2.0.0"]));
    assert!(planned(&daemon.setup).is_empty());
    for (version, reason) in reasons(&daemon.setup) {
        assert_eq!(reason, "pending", "{version}");
    }
    let applied = ask(&daemon.setup, &["retain", "apply", "--yes"]);
    assert!(versions_of(&applied["removed"]).is_empty());
    wait_ready(&daemon, 2);
    daemon.stop();
}

#[test]
fn what_is_published_or_pinned_is_kept_with_and_without_a_daemon() {
    let registry = TestRegistry::start(Auth::None);
    let rules = "[[retain.rule]]\nkeep_last = 1\n[collect]\nschedule = ''\ngrace = '1s'\n";
    let setup = Setup::new("none")
        .target("global-a", "primary", registry.address(), "")
        .section(rules);
    let daemon = Daemon::start(setup);
    let packages = versions(&["v1.0.0", "v1.1.0", "v2.0.0"]);
    drop_all(&daemon, &packages);
    daemon.wait_in_sync(3);
    let of = |reasons: &[(String, String)]| -> Vec<String> {
        reasons.iter().map(|(_, reason)| reason.clone()).collect()
    };
    assert_eq!(
        of(&reasons(&daemon.setup)),
        ["published", "published", "last"]
    );

    let pinned = daemon
        .setup
        .run(&["pin", "app@v1.0.0", "--reason", "in use"]);
    assert!(pinned.status.success(), "{pinned:?}");
    assert_eq!(of(&reasons(&daemon.setup)), ["pinned", "published", "last"]);
    let (code, words) = refused(&daemon.setup, &["pin", "nothing"]);
    assert_eq!(code, Some(66), "{words}");

    let setup = daemon.stop();
    // Nobody runs: what is there is read, and changed under the lock.
    assert_eq!(of(&reasons(&setup)), ["pinned", "published", "last"]);
    let pins = ask(&setup, &["pins"]);
    assert_eq!(pins[0]["version"], "v1.0.0");
    assert_eq!(pins[0]["pin_reason"], "in use");
    let unpinned = setup.run(&["unpin", &packages[0].digest().short()]);
    assert!(unpinned.status.success(), "{unpinned:?}");
    let pinned = setup.run(&["pin", "app@v1.1.0"]);
    assert!(pinned.status.success(), "{pinned:?}");
    assert_eq!(of(&reasons(&setup)), ["published", "pinned", "last"]);
    assert_eq!(ask(&setup, &["gc", "--dry-run"])["condemned"]["blobs"], 0);

    let applied = ask(&setup, &["retain", "apply", "--yes"]);
    assert!(versions_of(&applied["removed"]).is_empty());
    let daemon = Daemon::start(setup);
    assert_eq!(of(&reasons(&daemon.setup)), ["published", "pinned", "last"]);
    let unpinned = daemon.setup.run(&["unpin", "app"]);
    assert!(unpinned.status.success(), "{unpinned:?}");
    assert_eq!(ask(&daemon.setup, &["pins"]), Value::Array(Vec::new()));
    daemon.stop();
}
