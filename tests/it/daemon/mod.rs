//! The program as a whole: dropped files on one side, real registries on the other.
//!
//! Nothing here reaches into the daemon. What it did is asked of its commands and its metrics, of the registries, and of
//! the folders on disk. One test turns a clock back instead of waiting: it changes a time in the catalog of a daemon that
//! is down.

mod access;
mod admin;
mod collect;
mod configuration;
mod delivery;
pub(crate) mod deltas;
mod faults;
mod foreign;
mod full_disk;
mod hostile;
mod knowledge;
mod leftovers;
mod manifests;
mod nested;
mod odd_files;
mod outage;
mod parts;
mod platform;
pub(crate) mod referrers;
mod refused_steps;
mod repetition;
pub(crate) mod retain;
mod scrub;

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use violetd::base::Digest;
use violetd::sys::fs as durable;

use crate::support::{Daemon, Package, Placed, Setup, TestRegistry, get, names, reason_of, run};

/// Fails the test unless a registry holds every image of a package: the manifests under their tags and digests, and
/// every blob, all equal to the byte.
pub(crate) fn assert_holds(registry: &TestRegistry, package: &Package) {
    for image in &package.images.placed {
        assert_holds_image(registry, package, image);
    }
}

/// As [`assert_holds`], for one image.
fn assert_holds_image(registry: &TestRegistry, package: &Package, image: &Placed) {
    let repository = image.repository;
    let (root, tag) = (image.root.digest, image.tag);
    let mut paths = vec![(root, format!("manifests/{tag}"))];
    for manifest in &image.manifests {
        paths.push((manifest.digest, format!("manifests/{}", manifest.digest)));
    }
    for blob in &image.blobs {
        paths.push((blob.digest, format!("blobs/{}", blob.digest)));
    }
    for (digest, path) in paths {
        let path = format!("/v2/{repository}/{path}");
        let (status, body) = get(TcpStream::connect(registry.address()).unwrap(), &path);
        assert_eq!(status, 200, "{path}");
        let is_same = body == package.images.blobs[&digest];
        assert!(is_same, "{path} is not what was packaged");
    }
}

/// Returns whether a registry has an image under its tag.
pub(crate) fn holds_image(registry: &TestRegistry, image: &Placed) -> bool {
    status_of(registry, image.repository, image.tag) == 200
}

/// Returns the HTTP status with which a registry answers for a manifest.
fn status_of(registry: &TestRegistry, repository: &str, reference: &str) -> u16 {
    let path = format!("/v2/{repository}/manifests/{reference}");
    get(TcpStream::connect(registry.address()).unwrap(), &path).0
}

/// Returns the hexadecimal digests of everything that packages consist of, sorted.
fn blobs_of(packages: &[&Package]) -> Vec<String> {
    let blobs = packages
        .iter()
        .flat_map(|package| package.images.blobs.keys());
    let mut blobs: Vec<String> = blobs.map(Digest::hex).collect();
    blobs.sort();
    blobs.dedup();
    blobs
}

/// Returns a setup for what happens before delivery: its only target is nowhere, and nothing is sent there.
pub(crate) fn setup_without_delivery(policy: &str) -> Setup {
    Setup::new(policy).target("global-a", "primary", "127.0.0.1:9", "on_ready = false")
}

/// Waits until this many packages are ready, delivered or not. Returns the status then.
pub(crate) fn wait_ready(daemon: &Daemon, packages: usize) -> Value {
    daemon.wait_until(&format!("{packages} ready packages"), |status| {
        status["packages"].as_array().unwrap().len() == packages
    })
}

/// Waits until a file was refused, and returns why.
fn wait_refused(daemon: &Daemon, name: &str) -> Value {
    let rejected = daemon.setup.drop_dir.join("rejected");
    let path = rejected.join(format!("{name}.reason.json"));
    daemon.wait_until(&format!("refusal of {name}"), |_| path.is_file());
    reason_of(&rejected, name)
}

/// Makes a named pipe, and the folder that it is in.
fn make_pipe(path: &Path) {
    durable::ensure_dir_all(path.parent().unwrap()).unwrap();
    run("coreutils", Command::new("mkfifo").arg(path));
}

/// Returns what the status says of a dropped file, unless it is ready.
fn dropped_file<'a>(status: &'a Value, path: &Path) -> Option<&'a Value> {
    let mut files = status["files"].as_array().unwrap().iter();
    files.find(|file| file["path"] == path.to_str().unwrap())
}

/// Returns a target of a status by its name.
fn target<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut targets = status["targets"].as_array().unwrap().iter();
    targets.find(|target| target["name"] == name).unwrap()
}

/// Returns a count of the last run of a target.
fn count(status: &Value, name: &str, what: &str) -> u64 {
    target(status, name)["last_run"]["counts"][what]
        .as_u64()
        .unwrap()
}

/// Returns the problems of the last run of a target.
fn problems<'a>(status: &'a Value, name: &str) -> &'a [Value] {
    let problems = target(status, name)["last_run"]["problems"].as_array();
    problems.map_or(&[], Vec::as_slice)
}

/// Returns whether a folder has exactly these names in it.
fn holds(folder: &Path, expected: &[&str]) -> bool {
    names(folder) == expected
}
