//! Packages that build on others: whatever comes first, all of them become ready, and none is refused for waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use violetd::base::Digest;
use violetd::catalog::Catalog;
use violetd::package::{Inventory, Request};
use violetd::sys::fs as durable;

use super::{assert_holds, blobs_of, dropped_file, holds, setup_without_delivery, wait_ready};
use crate::audit::verdicts;
use crate::support::{
    Auth, Daemon, Images, Package, Setup, TestRegistry, drop_into, metric, names, noise, program,
    run, write,
};

/// Three versions of a package, each with one layer more than the one before.
pub(crate) struct Versions {
    dir: tempfile::TempDir,
    packages: [Package; 3],
}

impl Versions {
    pub(crate) fn new() -> Self {
        let layers: Vec<Vec<u8>> = (1..=3).map(|seed| noise(seed, 20_000)).collect();
        let package = |version: usize, tag: &'static str| {
            let mut images = Images::default();
            images.add("ops/redis", tag, &layers[..version]);
            Package::operator("redis", images)
        };
        Self {
            dir: tempfile::tempdir().unwrap(),
            packages: [package(1, "v1"), package(2, "v2"), package(3, "v3")],
        }
    }

    pub(crate) fn whole(&self, version: usize) -> &Package {
        &self.packages[version - 1]
    }

    /// Writes the inventory of somebody who has all versions up to this one.
    fn inventory(&self, version: usize) -> PathBuf {
        let packages = self.packages[..version].iter();
        let blobs = packages.flat_map(|package| &package.images.blobs);
        let inventory = Inventory {
            blobs: blobs
                .map(|(digest, content)| (*digest, content.len() as u64))
                .collect(),
        };
        let path = self.dir.path().join(format!("v{version}.inventory"));
        let mut content = Vec::new();
        inventory.write(&mut content).unwrap();
        write(&path, content);
        path
    }

    /// Packs a version as a delta on those before it, and returns the content.
    pub(crate) fn delta(&self, version: usize) -> Vec<u8> {
        let path = self.dir.path().join(format!("v{version}-delta.tgz"));
        let inventory = self.inventory(version - 1);
        self.pack(version, "--base", &inventory, &path)
    }

    /// Packs what a request asks for, out of a version, and returns the content.
    pub(crate) fn supplement(&self, version: usize, request: &Path) -> Vec<u8> {
        let path = self.dir.path().join("supplement.tgz");
        self.pack(version, "--for", request, &path)
    }

    fn pack(&self, version: usize, option: &str, list: &Path, output: &Path) -> Vec<u8> {
        let folder = self.whole(version).path.with_extension("");
        let mut package = program();
        package
            .args([OsStr::new("package"), folder.as_os_str()])
            .args([OsStr::new("--output"), output.as_os_str()])
            .args([OsStr::new(option), list.as_os_str()]);
        run("violetd", &mut package);
        std::fs::read(output).unwrap()
    }

    /// Returns what a delta needs of the versions before it, with sizes in bytes.
    pub(crate) fn base_of(&self, version: usize) -> BTreeMap<Digest, u64> {
        let mut base = self.whole(version).images.blobs.clone();
        let before = self.packages[..version - 1].iter();
        let before: Vec<&Digest> = before.flat_map(|it| it.images.blobs.keys()).collect();
        base.retain(|digest, _| before.contains(&digest));
        base.into_iter()
            .map(|(digest, content)| (digest, content.len() as u64))
            .collect()
    }
}

fn read_request(path: &Path) -> Request {
    Request::parse(std::fs::read(path).unwrap().as_slice()).unwrap()
}

/// Waits until a file waits for this many blobs, and returns what the status says of it.
pub(crate) fn wait_for_missing(daemon: &Daemon, path: &Path, count: usize) -> Value {
    let status = daemon.wait_until("a file that waits for its base", |status| {
        dropped_file(status, path).is_some_and(|file| {
            let reason = file["reason"].as_str().unwrap_or_default();
            file["state"] == "waiting" && reason.starts_with(&format!("waits for {count} blobs"))
        })
    });
    dropped_file(&status, path).unwrap().clone()
}

#[test]
fn deltas_that_build_on_one_another_become_ready_in_whatever_order_they_come() {
    let registry = TestRegistry::start(Auth::None);
    let versions = Versions::new();
    let setup = Setup::new("none")
        .target("global-a", "primary", registry.address(), "")
        .variable("VIOLETD_LOG__LEVEL", "debug");
    let daemon = Daemon::start(setup);
    let folder = daemon.setup.drop_dir.clone();
    let third = daemon.setup.drop_file("c.tgz", &versions.delta(3), &[]);
    let waits = wait_for_missing(&daemon, &third, versions.base_of(3).len());
    assert!(waits["code"].is_null(), "{waits:#}");
    let request_path = folder.join("requests/c.tgz.request");
    let hint = waits["hint"].as_str().unwrap();
    assert!(
        hint.contains(request_path.to_str().unwrap()) && hint.contains("violetd package --for"),
        "{hint}"
    );
    let text = String::from_utf8(daemon.setup.run(&["status"]).stdout).unwrap();
    assert!(text.contains(hint), "{text}");
    let request = read_request(&request_path);
    assert_eq!(request.missing, versions.base_of(3));
    assert_eq!(request.file, Digest::of(&versions.delta(3)));
    let second = daemon.setup.drop_file("b.tgz", &versions.delta(2), &[]);
    wait_for_missing(&daemon, &second, versions.base_of(2).len());

    // Nothing of a file is read again while its base is missing, not even after a kill; the request is there again.
    let setup = daemon.kill();
    durable::remove_file(&request_path).unwrap();
    let daemon = Daemon::start(setup);
    wait_for_missing(&daemon, &third, versions.base_of(3).len());
    wait_for_missing(&daemon, &second, versions.base_of(2).len());
    assert_eq!(daemon.log_lines("file is verified"), Vec::<String>::new());
    assert_eq!(read_request(&request_path), request);
    assert_eq!(daemon.setup.blobs(), Vec::<String>::new());

    // The base comes last, and under the first name.
    daemon
        .setup
        .drop_file("d.tgz", &versions.whole(1).bytes(), &[]);
    daemon.wait_in_sync(3);
    assert_eq!(daemon.log_lines("file is verified").len(), 3);
    let all = [1, 2, 3].map(|version| versions.whole(version));
    for package in all {
        assert_holds(&registry, package);
    }
    assert_eq!(daemon.setup.blobs(), blobs_of(&all));
    daemon.wait_until("move of all files", |_| {
        holds(&folder, &["done", "requests"]) && names(&folder.join("requests")).is_empty()
    });
    let metrics = daemon.metrics();
    assert_eq!(
        metric(&metrics, "violetd_ingest_packages_rejected_total"),
        0
    );
    assert_eq!(metric(&metrics, "violetd_ingest_packages_ready_total"), 3);
    daemon.stop();
}

#[test]
fn a_delta_that_waits_is_on_record_once_and_again_when_it_is_ready() {
    let versions = Versions::new();
    let daemon = Daemon::start(setup_without_delivery("none"));
    let delta = versions.delta(2);
    let path = daemon.setup.drop_file("delta.tgz", &delta, &[]);
    let missing = versions.base_of(2).len();
    wait_for_missing(&daemon, &path, missing);
    // Whatever else comes, and however often it is looked at: it does not begin to wait again.
    daemon.setup.drop_package(&Package::small("other"));
    wait_ready(&daemon, 1);
    let daemon = Daemon::start(daemon.kill());
    wait_for_missing(&daemon, &path, missing);
    let of_delta = |verdicts: Vec<Value>| -> Vec<Value> {
        let digest = Digest::of(&delta).to_string();
        let verdicts = verdicts.into_iter();
        verdicts.filter(|it| it["digest"] == digest).collect()
    };
    let waits = of_delta(verdicts(&daemon.setup));
    assert_eq!(waits.len(), 1, "{waits:#?}");
    assert_eq!(waits[0]["verdict"], "waiting");
    assert_eq!(waits[0]["missing_blobs"], missing);
    assert_eq!(waits[0]["trusted_by"], "nothing");
    assert_eq!(waits[0]["size_bytes"], delta.len());

    daemon.setup.drop_package(versions.whole(1));
    wait_ready(&daemon, 3);
    let both = of_delta(verdicts(&daemon.setup));
    assert_eq!(both.len(), 2, "{both:#?}");
    assert_eq!(
        (&both[0], &both[1]["verdict"]),
        (&waits[0], &"accepted".into())
    );
    assert_eq!(both[1]["package"]["name"], "redis");
    daemon.stop();
}

#[test]
fn a_delta_whose_base_is_there_does_not_wait() {
    let versions = Versions::new();
    let daemon = Daemon::start(setup_without_delivery("none"));
    let delta = versions.delta(2);
    assert!(delta.len() < versions.whole(2).bytes().len());
    daemon.setup.drop_package(versions.whole(1));
    wait_ready(&daemon, 1);
    daemon.setup.drop_file("delta.tgz", &delta, &[]);
    let status = wait_ready(&daemon, 2);
    let package = &status["packages"][1];
    assert_eq!(package["version"], "v2");
    assert_eq!(package["digest"], Digest::of(&delta).to_string());
    assert!(!daemon.setup.drop_dir.join("requests").exists());
    daemon.stop();
}

#[test]
fn a_file_that_carries_a_delta_and_its_base_does_not_wait_whatever_their_order() {
    let versions = Versions::new();
    let folder = versions.dir.path();
    write(&folder.join("delta.tgz"), versions.delta(2));
    write(&folder.join("whole.tgz"), versions.whole(1).bytes());
    for order in [["delta.tgz", "whole.tgz"], ["whole.tgz", "delta.tgz"]] {
        let daemon = Daemon::start(setup_without_delivery("none"));
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(folder).args(["-cf", "-"]).args(order);
        let content = run("tar", &mut tar);
        daemon.setup.drop_file("delivery.tar", &content, &[]);
        let status = wait_ready(&daemon, 2);
        let packages = status["packages"].as_array().unwrap();
        let mut versions_ready: Vec<&str> = packages
            .iter()
            .map(|it| it["version"].as_str().unwrap())
            .collect();
        versions_ready.sort_unstable();
        assert_eq!(versions_ready, ["v1", "v2"]);
        let all = [1, 2].map(|version| versions.whole(version));
        assert_eq!(daemon.setup.blobs(), blobs_of(&all));
        assert!(!daemon.setup.drop_dir.join("requests").exists());
        daemon.stop();
    }
}

#[test]
fn a_supplement_answers_a_request_whether_it_comes_before_or_after() {
    let versions = Versions::new();
    let daemon = Daemon::start(setup_without_delivery("none"));
    let path = daemon.setup.drop_file("delta.tgz", &versions.delta(2), &[]);
    let base = versions.base_of(2);
    wait_for_missing(&daemon, &path, base.len());
    let request = daemon.setup.drop_dir.join("requests/delta.tgz.request");
    let supplement = versions.supplement(1, &request);
    let blobs = blobs_of(&[versions.whole(2)]);
    daemon.setup.drop_file("supplement.tgz", &supplement, &[]);
    let status = wait_ready(&daemon, 2);
    let kinds: Vec<&Value> = status["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["kind"])
        .collect();
    assert_eq!(kinds, ["supplement", "operator"]);
    assert_eq!(daemon.setup.blobs(), blobs);
    daemon.wait_until("withdrawal of the request", |_| !request.exists());
    daemon.stop();

    let daemon = Daemon::start(setup_without_delivery("none"));
    daemon.setup.drop_file("supplement.tgz", &supplement, &[]);
    wait_ready(&daemon, 1);
    let held: Vec<String> = base.keys().map(Digest::hex).collect();
    assert_eq!(daemon.setup.blobs(), held);
    daemon.setup.drop_file("delta.tgz", &versions.delta(2), &[]);
    wait_ready(&daemon, 2);
    assert_eq!(daemon.setup.blobs(), blobs);
    daemon.stop();
}

#[test]
fn requests_are_withdrawn_when_the_file_is_gone_and_kept_below_its_folder() {
    let versions = Versions::new();
    let requests = tempfile::tempdir().unwrap();
    let setup = setup_without_delivery("none");
    let second = setup.path("second");
    durable::ensure_dir_all(&second.join("redis")).unwrap();
    let setup = setup.section(&format!(
        "[[drop]]\npath = '{}'\npolicy = 'none'\nsettle = '50ms'\nrequests_dir = '{}'\n",
        second.display(),
        requests.path().display()
    ));
    let daemon = Daemon::start(setup);
    let path = drop_into(
        &second.join("redis"),
        ("delta.tgz", &versions.delta(2)),
        &[],
    );
    wait_for_missing(&daemon, &path, versions.base_of(2).len());
    let request = requests.path().join("redis/delta.tgz.request");
    assert_eq!(read_request(&request).missing, versions.base_of(2));
    // Another request that somebody keeps there is none of ours.
    let foreign = requests.path().join("other.request");
    durable::move_file(&path, &requests.path().join("delta.tgz")).unwrap();
    write(&foreign, "x");
    daemon.wait_until("withdrawal of the request", |status| {
        !request.exists() && status["files"].as_array().unwrap().is_empty()
    });
    assert!(foreign.exists());
    daemon.stop();
}

#[test]
fn a_delta_that_waits_keeps_all_that_it_builds_on_over_a_restart() {
    let versions = Versions::new();
    let daemon = Daemon::start(setup_without_delivery("none"));
    daemon.setup.drop_package(versions.whole(1));
    wait_ready(&daemon, 1);
    let base = versions.base_of(3);
    let there = versions.whole(1).images.blobs.keys();
    let missing = base.len() - there.filter(|digest| base.contains_key(digest)).count();
    assert!(0 < missing && missing < base.len());
    let path = daemon.setup.drop_file("c.tgz", &versions.delta(3), &[]);
    wait_for_missing(&daemon, &path, missing);
    let setup = daemon.stop();
    let catalog = Catalog::open_read_only(&setup.state_dir).unwrap();
    let record = catalog
        .find_ingest(path.to_str().unwrap())
        .unwrap()
        .unwrap();
    let kept: BTreeSet<Digest> = record.state.kept().copied().collect();
    assert_eq!(kept, base.keys().copied().collect());
    drop(catalog);
    let daemon = Daemon::start(setup);
    wait_for_missing(&daemon, &path, missing);
    daemon.setup.drop_package(versions.whole(2));
    wait_ready(&daemon, 3);
    daemon.stop();
}
