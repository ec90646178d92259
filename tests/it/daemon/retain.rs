//! Retention: what goes by the rules, what stays in spite of them, and who has to approve.

use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;

use rustix::process::geteuid;
use serde_json::Value;
use violetd::sys::lock::Lock;

use super::{assert_holds, blobs_of, setup_without_delivery, wait_ready};
use crate::support::{
    Auth, Daemon, Images, Package, Setup, TestRegistry, metric, module_plugin, noise,
};

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
    let first = packages[0].digest().short();
    let (code, words) = refused(setup, &["retain", "apply", "--only", &first]);
    assert_eq!(code, Some(64), "{words}");
    let command = format!("hint: violetd retain apply --yes --plan {id} --only {first}");
    assert!(words.contains(&command), "{words}");
    let (code, words) = refused(
        setup,
        &["retain", "apply", "--yes", "--plan", "0123456789abcdef"],
    );
    assert_eq!(code, Some(66), "{words}");
    let last = packages[2].digest().to_string();
    let (code, words) = refused(setup, &["retain", "apply", "--yes", "--only", &last]);
    assert_eq!(code, Some(66), "{words}");
    assert_eq!(daemon.status()["packages"].as_array().unwrap().len(), 3);

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

/// Returns a setup with a target that no package of these tests is meant for, so that none has to get there first.
pub(super) fn setup_for_nobody() -> Setup {
    let keys = "on_ready = false\npackages = ['meant-for-it']";
    Setup::new("none").target("global-a", "primary", "127.0.0.1:9", keys)
}

/// Returns an operator of this name and version.
fn operator(name: &'static str, version: &'static str) -> Package {
    let mut images = Images::default();
    images.add(name, version, &[noise(1, 20_000)]);
    Package::operator(name, images)
}

/// Returns a plugin of this version.
fn plugin(version: &'static str) -> Package {
    let mut images = Images::default();
    images.add("ait/log-center", version, &[noise(2, 20_000)]);
    let mut document = module_plugin();
    document["spec"]["appReleases"][0]["chartVersions"][0]["version"] = version.into();
    Package::plugin("log-center", images, &document)
}

#[test]
fn what_is_young_is_kept_until_it_is_as_old_as_its_rule_says() {
    let setup = setup_for_nobody().section(
        "[[retain.rule]]\nnames = ['tool']\nkeep_last = 1\nkeep_younger = '1h'\nkeep_published = false\n\
         [[retain.rule]]\nkeep_last = 1\nkeep_younger = '2s'\nkeep_published = false\n",
    );
    let daemon = Daemon::start(setup);
    let packages = [
        operator("app", "v1.0.0"),
        operator("app", "v2.0.0"),
        operator("tool", "v3.0.0"),
        operator("tool", "v4.0.0"),
    ];
    drop_all(&daemon, &packages);
    daemon.wait_until("two seconds", |_| !planned(&daemon.setup).is_empty());
    assert_eq!(planned(&daemon.setup), ["v1.0.0"]);
    let expected = [("v2.0.0", "last"), ("v3.0.0", "young"), ("v4.0.0", "last")];
    let expected = expected.map(|(version, reason)| (version.to_owned(), reason.to_owned()));
    assert_eq!(reasons(&daemon.setup), expected);
    let applied = ask(&daemon.setup, &["retain", "apply", "--yes"]);
    assert_eq!(versions_of(&applied["removed"]), ["v1.0.0"]);
    assert_eq!(
        applied["removed"][0]["rule"],
        "2: *: last 1, younger than 2s"
    );
    wait_ready(&daemon, 3);
    daemon.stop();
}

#[test]
fn a_rule_is_about_the_types_that_it_names() {
    let setup = setup_for_nobody().section(
        "[[retain.rule]]\nkinds = ['operator']\nkeep_last = 1\nkeep_published = false\n\
         [[retain.rule]]\nkinds = ['plugin', 'chart']\nkeep_last = 2\nkeep_published = false\n",
    );
    let daemon = Daemon::start(setup);
    let packages = [
        operator("app", "v1.0.0"),
        operator("app", "v2.0.0"),
        plugin("v3.0.0"),
        plugin("v4.0.0"),
        plugin("v5.0.0"),
    ];
    drop_all(&daemon, &packages);
    let plan = ask(&daemon.setup, &["retain", "plan", "--all"]);
    let field = |list: &str, names: [&str; 2]| -> Vec<String> {
        let list = plan[list].as_array().unwrap().iter();
        list.map(|it| format!("{} {}", it[names[0]], it[names[1]]))
            .collect()
    };
    assert_eq!(
        field("removals", ["kind", "rule"]),
        [
            r#""operator" "1: * (operator): last 1""#,
            r#""plugin" "2: * (plugin chart): last 2""#
        ]
    );
    let kept = field("kept", ["kind", "because"]);
    assert_eq!(kept.len(), 3, "{kept:?}");
    let rule = |number: u64| move |it: &&String| it.contains(&format!(r#""rule":{number}"#));
    assert_eq!(kept.iter().filter(rule(1)).count(), 1, "{kept:?}");
    assert_eq!(kept.iter().filter(rule(2)).count(), 2, "{kept:?}");
    daemon.stop();
}

#[test]
fn a_state_directory_whose_owner_does_not_answer_is_read_and_not_changed() {
    let daemon = Daemon::start(setup_for_nobody().section(LAST_ONE));
    let packages = versions(&["v1.0.0", "v2.0.0"]);
    drop_all(&daemon, &packages);
    let setup = daemon.stop();
    let lock = Lock::acquire(&setup.state_dir.join("LOCK")).unwrap();
    let process = format!("process {}", std::process::id());
    // First there is no socket, then one that a dead daemon has left.
    for _ in 0..2 {
        let changes: [&[&str]; 4] = [
            &["retain", "apply", "--yes"],
            &["gc"],
            &["pin", "app"],
            &["unpin", "app"],
        ];
        for arguments in changes {
            let (code, words) = refused(&setup, arguments);
            assert_eq!(code, Some(64), "{arguments:?}: {words}");
            for part in ["LOCK", process.as_str(), "hint: ", "admin.socket"] {
                assert!(words.contains(part), "{arguments:?}: no `{part}`: {words}");
            }
        }
        assert_eq!(planned(&setup), ["v1.0.0"]);
        assert_eq!(ask(&setup, &["gc", "--dry-run"])["condemned"]["blobs"], 0);
        assert_eq!(ask(&setup, &["pins"]), Value::Array(Vec::new()));
        let status = ask(&setup, &["status"]);
        assert_eq!(status["packages"].as_array().unwrap().len(), 2);
        drop(UnixListener::bind(setup.path("admin.sock")));
    }
    drop(lock);
    let applied = ask(&setup, &["retain", "apply", "--yes"]);
    assert_eq!(versions_of(&applied["removed"]), ["v1.0.0"]);
}

#[test]
fn a_state_directory_of_another_user_is_not_changed_and_one_that_is_not_there_is_not_made() {
    let setup = setup_for_nobody().section(LAST_ONE);
    let (code, words) = refused(&setup, &["gc"]);
    assert_eq!(code, Some(66), "{words}");
    assert!(!setup.state_dir.exists());

    let setup = Daemon::start(setup).stop();
    if !geteuid().is_root() {
        eprintln!("not run: only root can give a file to somebody else");
        return;
    }
    // What root would write, the daemon could not open when it starts again.
    chown(setup.state_dir.join("LOCK"), Some(65534), None).unwrap();
    let changes: [&[&str]; 2] = [&["gc"], &["retain", "apply", "--yes"]];
    for arguments in changes {
        let (code, words) = refused(&setup, arguments);
        assert_eq!(code, Some(64), "{arguments:?}: {words}");
        for part in [
            "expected to run as user 65534",
            "LOCK",
            "setpriv --reuid 65534",
        ] {
            assert!(words.contains(part), "{arguments:?}: no `{part}`: {words}");
        }
    }
    assert!(planned(&setup).is_empty(), "it can be read");
}
