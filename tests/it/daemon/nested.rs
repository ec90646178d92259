//! Packages in folders and packages inside of others.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use violetd::base::Digest;
use violetd::sys::fs as durable;

use super::{assert_holds, blobs_of, holds};
use crate::audit::verdicts;
use crate::support::{
    Auth, Daemon, Package, Setup, TestRegistry, drop_into, metric, names, run, write,
};

#[test]
fn a_folder_of_packages_is_taken_in_and_keeps_its_shape() {
    let registry = TestRegistry::start(Auth::None);
    let packages = ["in-folder-a", "in-folder-b", "in-folder-c"].map(Package::small);
    let setup = Setup::new("checksum").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let drop_dir = daemon.setup.drop_dir.clone();
    let places = [
        "2026-11/a.tgz",
        "2026-11/deep/b.tgz",
        "2026-11/deep/deeper/c.tgz",
    ];
    for (place, package) in places.iter().zip(&packages) {
        let path = drop_dir.join(place);
        durable::ensure_dir_all(path.parent().unwrap()).unwrap();
        drop_package(&path, package);
    }
    // One more that nobody can vouch for.
    drop_into(&drop_dir.join("2026-11/deep"), ("bad.tgz", b"x"), &[]);
    daemon.wait_in_sync(3);
    for package in &packages {
        assert_holds(&registry, package);
    }
    daemon.wait_until("move of all files", |_| {
        holds(&drop_dir.join("2026-11"), &["deep"])
            && holds(&drop_dir.join("2026-11/deep"), &["deeper"])
            && holds(&drop_dir.join("2026-11/deep/deeper"), &[])
    });
    let done = drop_dir.join("done/2026-11");
    assert_eq!(names(&done), ["a.tgz", "a.tgz.sha256", "deep"]);
    assert_eq!(names(&done.join("deep/deeper")), ["c.tgz", "c.tgz.sha256"]);
    assert_eq!(
        names(&drop_dir.join("rejected/2026-11/deep")),
        ["bad.tgz", "bad.tgz.reason.json"]
    );
    // A folder that is there already is watched: nobody has to wait for the next look at all of them.
    let late = Package::small("in-folder-late");
    drop_package(&drop_dir.join("2026-11/deep/deeper/late.tgz"), &late);
    daemon.wait_in_sync(4);
    // What was moved away is not found again.
    let metrics = daemon.metrics();
    assert_eq!(
        metric(&metrics, "violetd_ingest_packages_repeated_total"),
        0
    );
    assert_eq!(
        metric(&metrics, "violetd_ingest_packages_rejected_total"),
        1
    );
    daemon.stop();
}

#[test]
fn packages_in_one_tar_become_ready_together_and_are_known_the_second_time() {
    let registry = TestRegistry::start(Auth::None);
    let packages = ["in-tar-a", "in-tar-b", "in-tar-c"].map(Package::small);
    let setup = Setup::new("checksum").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let folder = tempfile::tempdir().unwrap();
    for (package, place) in packages.iter().zip(["a.tgz", "x/b.tgz", "x/c.tgz"]) {
        let path = folder.path().join("delivery").join(place);
        durable::ensure_dir_all(path.parent().unwrap()).unwrap();
        write(&path, package.bytes());
    }
    let mut tar = Command::new("tar");
    tar.arg("-C")
        .arg(folder.path())
        .args(["-cf", "-", "delivery"]);
    let content = run("tar", &mut tar);
    let digest = Digest::of(&content);
    let checksum = format!("{}  delivery.tar\n", digest.hex()).into_bytes();
    // One of them is known before.
    drop_package(&daemon.setup.drop_dir.join("b.tgz"), &packages[1]);
    daemon.wait_in_sync(1);
    daemon
        .setup
        .drop_file("delivery.tar", &content, &[("sha256", checksum.clone())]);
    let status = daemon.wait_in_sync(3);
    for package in &packages {
        assert_holds(&registry, package);
    }
    assert_eq!(daemon.setup.blobs(), blobs_of(&packages.each_ref()));
    let names: Vec<&str> = status["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| package["file_name"].as_str().unwrap())
        .collect();
    assert_eq!(names[0], "b.tgz");
    let mut rest = names[1..].to_vec();
    rest.sort_unstable();
    assert_eq!(rest, ["delivery/a.tgz", "delivery/x/c.tgz"]);
    let done = daemon.setup.drop_dir.join("done");
    daemon.wait_until("move of the file", |_| done.join("delivery.tar").exists());
    daemon
        .setup
        .drop_file("delivery.tar", &content, &[("sha256", checksum)]);
    daemon.wait_for_log("package is known already");
    daemon.wait_until("move of the file", |_| done.join("delivery.tar.2").exists());
    assert_eq!(daemon.status()["packages"].as_array().unwrap().len(), 3);
    let repeated = metric(&daemon.metrics(), "violetd_ingest_packages_repeated_total");
    assert_eq!(repeated, 1);
    assert_on_record(&daemon.setup, &packages, digest);
    daemon.stop();
}

/// Fails the test unless every package has a verdict for each time that it came, and is found by whatever it is asked for:
/// the second one by itself, and then all three in a file, twice.
fn assert_on_record(setup: &Setup, packages: &[Package], carrier: Digest) {
    let on_record = verdicts(setup);
    assert_eq!(on_record.len(), 7, "{on_record:#?}");
    let carrier = carrier.to_string();
    for (package, inner) in packages.iter().zip(["a.tgz", "x/b.tgz", "x/c.tgz"]) {
        let digest = package.digest().to_string();
        let of_package = on_record.iter().filter(|it| it["digest"] == digest);
        let of_package: Vec<&Value> = of_package.collect();
        let is_known = inner == "x/b.tgz";
        let expected: &[&str] = if is_known {
            &["accepted", "repeated", "repeated"]
        } else {
            &["accepted", "repeated"]
        };
        let found: Vec<&str> = of_package
            .iter()
            .map(|it| it["verdict"].as_str().unwrap())
            .collect();
        assert_eq!(found, expected, "{inner}");
        for record in &of_package[usize::from(is_known)..] {
            assert_eq!(record["carried_by"], carrier, "{inner}");
            assert_eq!(record["size_bytes"], package.bytes().len(), "{inner}");
            assert_eq!(record["sidecars"][0]["file_name"], "delivery.tar.sha256");
        }
        let name = of_package[0]["package"]["name"].as_str().unwrap();
        for selection in [name, &digest] {
            assert_eq!(count_exported(setup, selection), expected.len(), "{inner}");
        }
    }
    for selection in ["delivery.tar", &carrier] {
        assert_eq!(count_exported(setup, selection), 6, "{selection}");
    }
}

/// Returns how many records a report about something has.
fn count_exported(setup: &Setup, selection: &str) -> usize {
    let output = setup.run(&["audit", "export", selection, "--output", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["records"].as_array().unwrap().len()
}

fn drop_package(path: &Path, package: &Package) {
    let name = path.file_name().unwrap().to_str().unwrap();
    let line = format!("{}  {name}\n", package.digest().hex());
    let checksum = [("sha256", line.into_bytes())];
    drop_into(path.parent().unwrap(), (name, &package.bytes()), &checksum);
}
