//! What is there already is neither sent nor replaced.

use std::process::Command;

use serde_json::Value;
use violetd::base::Digest;
use violetd::sys::fs as durable;

use super::{assert_holds, assert_holds_image, count, holds, problems, status_of};
use crate::support::{
    Auth, Daemon, Images, Package, Placed, Setup, TestRegistry, metric, noise, run,
};

/// Returns a package of this many images in as many repositories.
fn package_of_three() -> Package {
    let mut images = Images::default();
    for (seed, repository) in (100..).zip(["demo/one", "demo/two", "demo/three"]) {
        images.add(repository, "v1", &[noise(seed, 50_000)]);
    }
    Package::operator("three", images)
}

#[test]
fn a_run_with_nothing_to_do_asks_once_for_each_image() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    daemon.setup.drop_package(&package_of_three());
    daemon.wait_in_sync(1);
    let nothing = |status: &Value, requests: u64| {
        for (what, expected) in [
            ("images_in_sync", 3),
            ("images_pushed", 0),
            ("blobs_sent", 0),
            ("bytes_sent", 0),
            ("requests", requests),
        ] {
            assert_eq!(
                count(status, "global-a", what),
                expected,
                "{what}: {status:#}"
            );
        }
    };
    nothing(&daemon.sync(), 3);
    // A client without a login has nothing to ask first.
    let daemon = Daemon::start(daemon.stop());
    nothing(&daemon.sync(), 3);
    daemon.stop();
}

#[test]
fn the_same_file_again_is_a_success_that_says_so() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let package = Package::small("twice");
    daemon.setup.drop_package(&package);
    let before = daemon.wait_in_sync(1);
    let done = daemon.setup.drop_dir.join("done");
    daemon.wait_until("the way to done/", |_| holds(&done, &["twice.tgz"]));
    let written = metric(&daemon.metrics(), "violetd_ingest_written_bytes_total");

    daemon.setup.drop_package(&package);
    daemon.wait_until("the way to done/", |_| {
        holds(&done, &["twice.tgz", "twice.tgz.2"])
    });
    let after = daemon.status();
    assert_eq!(daemon.log_lines("package is known already").len(), 1);
    assert_eq!(daemon.log_lines("package is ready").len(), 1);
    let metrics = daemon.metrics();
    for (name, expected) in [
        ("violetd_ingest_packages_ready_total", 1),
        ("violetd_ingest_packages_repeated_total", 1),
        ("violetd_ingest_packages_rejected_total", 0),
        ("violetd_ingest_written_bytes_total", written),
    ] {
        assert_eq!(metric(&metrics, name), expected, "{name}");
    }
    assert_eq!(after["packages"], before["packages"]);
    let run = |status: &Value| status["targets"][0]["last_run"].clone();
    assert_eq!(run(&after), run(&before), "there was nothing to run for");
    daemon.stop();
}

#[test]
fn a_tag_of_somebody_else_is_reported_and_not_replaced() {
    let registry = TestRegistry::start(Auth::None);
    let package = package_of_three();
    let [taken, others @ ..] = &package.images.placed[..] else {
        panic!("a package of three images");
    };
    let mut images = Images::default();
    let theirs = images.add(taken.repository, taken.tag, &[noise(200, 10_000)]);
    let foreign = Package::operator("foreign", images);
    push(&registry, &foreign);

    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    daemon.setup.drop_package(&package);
    let status = daemon.wait_until("a run", |status| !problems(status, "global-a").is_empty());
    let [problem] = problems(&status, "global-a") else {
        panic!("expected one problem: {status:#}");
    };
    assert_eq!(problem["subject"], format!("image {}", taken.name()));
    let message = problem["message"].as_str().unwrap();
    for digest in [taken.root.digest, theirs.root.digest] {
        assert!(message.contains(&digest.to_string()), "{message}");
    }
    assert_eq!(status["is_in_sync"], false);
    // The run is repeated soon, and then finds the other two in place.
    let in_place = ["images_pushed", "images_in_sync"].map(|what| count(&status, "global-a", what));
    assert_eq!(in_place.iter().sum::<u64>(), 2, "{status:#}");
    assert_eq!(problem["class"], "usage", "{problem:#}");
    for image in others {
        assert_holds_image(&registry, &package, image);
    }
    assert_holds(&registry, &foreign);

    // Once somebody has removed it, the next run puts ours there.
    remove(&registry, &theirs);
    assert_eq!(status_of(&registry, taken.repository, taken.tag), 404);
    daemon.wait_in_sync(1);
    assert_holds(&registry, &package);
    daemon.stop();
}

/// Pushes a package's only image by a tool that has nothing to do with the daemon.
fn push(registry: &TestRegistry, package: &Package) {
    let image = &package.images.placed[0];
    let layout = package.layout();
    let mut skopeo = Command::new("skopeo");
    skopeo
        .args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
        ])
        .arg("--dest-tls-verify=false")
        .arg(format!("oci:{}:0", layout.display()))
        .arg(format!("docker://{}/{}", registry.address(), image.name()));
    run("skopeo", &mut skopeo);
}

/// Deletes an image from a registry by its digest.
fn remove(registry: &TestRegistry, image: &Placed) {
    let (address, repository, digest) = (registry.address(), image.repository, image.root.digest);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--request", "DELETE"])
        .arg(format!(
            "http://{address}/v2/{repository}/manifests/{digest}"
        ));
    run("curl", &mut curl);
}

#[test]
fn a_blob_that_a_registry_has_lost_is_sent_again_in_the_same_run() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let shared = noise(201, 60_000);
    let version = |tag, own| {
        let mut images = Images::default();
        images.add("demo/app", tag, &[shared.clone(), noise(own, 20_000)]);
        Package::operator("app", images)
    };
    daemon.setup.drop_package(&version("v1", 202));
    daemon.wait_in_sync(1);
    // The first version still looks complete: its manifest is there.
    let hex = Digest::of(&shared).hex();
    let v2 = registry.storage().join("docker/registry/v2");
    for link in [
        v2.join("repositories/demo/app/_layers/sha256").join(&hex),
        v2.join("blobs/sha256").join(&hex[..2]).join(&hex),
    ] {
        durable::empty_dir(&link).unwrap();
    }
    let second = version("v2", 203);
    daemon.setup.drop_package(&second);

    let status = daemon.wait_in_sync(2);
    assert_holds(&registry, &second);
    let run = &status["targets"][0]["last_run"];
    assert_eq!(run["reason"], "package", "{status:#}");
    daemon.wait_for_log("registry lacks content");
    daemon.stop();
}
