//! A disk that is short of space, or full: what waits, what goes on, and that all goes on by itself once there is space.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use violetd::base::Digest;

use super::retain::{LAST_ONE, ask, drop_all, setup_for_nobody, versions};
use super::{assert_holds, blobs_of, dropped_file, holds, setup_without_delivery, wait_ready};
use crate::support::{
    Auth, Daemon, Images, Mount, PATIENCE, Package, Setup, TestRegistry, may_mount, metric, names,
    noise, write,
};

const MIB: u64 = 1 << 20;
/// Marks that never raise an alarm, so that the disk itself is what refuses.
pub(super) const NO_MARKS: &str = "[disk]\nlow_bytes = 0\ncritical_bytes = 0\n";

/// Packs an image with these layers.
fn package(name: &'static str, layers: &[Vec<u8>]) -> Package {
    let mut images = Images::default();
    images.add(name, "v1", layers);
    Package::operator(name, images)
}

fn text_of_status(daemon: &Daemon) -> String {
    let output = daemon.setup.run(&["status"]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn wait_for_state(daemon: &Daemon, state: &str) -> Value {
    daemon.wait_until(&format!("a disk that is {state}"), |status| {
        status["disk"]["state"] == state
    })
}

/// Fails the test unless it is said everywhere that the disk is critical.
fn assert_critical(daemon: &Daemon) {
    let text = text_of_status(daemon);
    assert!(text.contains("disk space is CRITICAL"), "{text}");
    let metrics = daemon.metrics();
    assert_eq!(metric(&metrics, "violetd_disk_state"), 2);
    assert_eq!(metric(&metrics, "violetd_disk_low_bytes"), 40 * MIB);
    assert_eq!(metric(&metrics, "violetd_disk_critical_bytes"), 20 * MIB);
}

/// Fails the test unless every blob in the store has the digest that its name says, and nothing else is left of what did not
/// become ready.
pub(super) fn assert_sound(setup: &Setup) {
    for hex in setup.blobs() {
        let path = setup
            .state_dir
            .join("blobs/sha256")
            .join(&hex[..2])
            .join(&hex);
        assert_eq!(Digest::of(&std::fs::read(path).unwrap()).hex(), hex);
    }
    assert_eq!(names(&setup.state_dir.join("ingest")), Vec::<String>::new());
    assert_eq!(
        names(&setup.state_dir.join("quarantine")),
        Vec::<String>::new()
    );
}

#[test]
fn short_space_raises_an_alarm_and_ingest_waits_while_replication_goes_on() {
    if !may_mount(
        "daemon::full_disk::short_space_raises_an_alarm_and_ingest_waits_while_replication_goes_on",
    ) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Mount::tmpfs(&dir.path().join("disk"), 96 * MIB);
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none")
        .state_dir(&disk.path().join("state"))
        .target(
            "global-a",
            "primary",
            registry.address(),
            "on_ready = false",
        )
        .section("[disk]\nlow_bytes = '40MiB'\ncritical_bytes = '20MiB'\n");
    let daemon = Daemon::start(setup);
    let first = Package::small("first");
    daemon.setup.drop_package(&first);
    wait_ready(&daemon, 1);
    wait_for_state(&daemon, "ok");
    assert!(!text_of_status(&daemon).contains("disk space"));

    disk.leave(15 * MIB);
    wait_for_state(&daemon, "critical");
    let second = Package::small("second");
    let path = daemon.setup.drop_package(&second);
    let status = daemon.wait_until("a file that waits for space", |status| {
        dropped_file(status, &path).is_some_and(|file| file["code"] == "low-space")
    });
    let file = dropped_file(&status, &path).unwrap();
    let reason = file["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("expected 44.0 MiB of free space before a package is begun, found "),
        "{reason}"
    );
    let hint = file["hint"].as_str().unwrap();
    for command in ["`violetd retain plan`", "`violetd gc`"] {
        assert!(hint.contains(command), "{hint}");
    }
    assert_critical(&daemon);
    daemon.sync();
    assert_holds(&registry, &first);

    // A little above the mark is not enough; a tenth above it is low, and nothing is begun then, either.
    disk.leave(21 * MIB);
    assert_eq!(daemon.status()["disk"]["state"], "critical");
    disk.leave(30 * MIB);
    wait_for_state(&daemon, "low");
    assert!(text_of_status(&daemon).contains("disk space is LOW"));
    disk.leave(42 * MIB);
    assert_eq!(daemon.status()["disk"]["state"], "low");
    assert_eq!(daemon.status()["packages"].as_array().unwrap().len(), 1);
    disk.free();
    // Nobody asks for it.
    wait_ready(&daemon, 2);
    wait_for_state(&daemon, "ok");
    for (line, count) in [
        ("disk space is critical", 1),
        ("disk space is low", 1),
        ("disk space is sufficient again", 1),
    ] {
        assert_eq!(daemon.log_lines(line).len(), count, "{line}");
    }
    assert_eq!(
        daemon.log_lines("package is not ingested yet"),
        Vec::<String>::new()
    );
    daemon.stop();
}

#[test]
fn what_fits_goes_on_while_a_larger_package_waits() {
    if !may_mount("daemon::full_disk::what_fits_goes_on_while_a_larger_package_waits") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Mount::tmpfs(&dir.path().join("disk"), 128 * MIB);
    let setup = setup_without_delivery("none")
        .state_dir(&disk.path().join("state"))
        .section("[disk]\nlow_bytes = '4MiB'\ncritical_bytes = '4MiB'\n");
    let daemon = Daemon::start(setup);
    let layers: Vec<Vec<u8>> = (1..=5).map(|seed| noise(seed, 4 << 20)).collect();
    daemon.setup.drop_package(&package("known", &layers));
    wait_ready(&daemon, 1);

    disk.leave(14 * MIB);
    let other: Vec<Vec<u8>> = (11..=15).map(|seed| noise(seed, 4 << 20)).collect();
    let large = daemon.setup.drop_package(&package("large", &other));
    let status = daemon.wait_until("a package that does not fit", |status| {
        dropped_file(status, &large).is_some_and(|file| file["code"] == "low-space")
    });
    // What it needs was counted: 20 MiB of layers, small things, and the reserve.
    let reason = dropped_file(&status, &large).unwrap()["reason"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        reason.starts_with("expected 24.0 MiB of free space, found 1"),
        "{reason}"
    );
    daemon.setup.drop_package(&Package::small("small"));
    wait_ready(&daemon, 2);
    // As large a file, of which most is in the store.
    let mut next = layers;
    next.push(noise(6, 1 << 20));
    daemon.setup.drop_package(&package("next", &next));
    let status = wait_ready(&daemon, 3);
    assert!(dropped_file(&status, &large).is_some(), "{status:#}");
    assert_sound(&daemon.setup);

    disk.free();
    wait_ready(&daemon, 4);
    daemon.wait_until("its place", |_| names(&daemon.setup.drop_dir) == ["done"]);
    assert_eq!(daemon.log_lines("package is not ingested yet").len(), 1);
    daemon.stop();
}

#[test]
fn a_full_disk_pauses_ingest_until_there_is_space() {
    if !may_mount("daemon::full_disk::a_full_disk_pauses_ingest_until_there_is_space") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Mount::tmpfs(&dir.path().join("disk"), 64 * MIB);
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none")
        .state_dir(&disk.path().join("state"))
        .target("global-a", "primary", registry.address(), "")
        .section("[disk]\nlow_bytes = '2MiB'\ncritical_bytes = '1MiB'\n");
    let daemon = Daemon::start(setup);
    // Half noise and half zeros, so that the file is about half as large as what is in it.
    let layer = |seed| -> Vec<u8> {
        let noise = noise(seed, 2 << 20);
        let zeros = [0; 4096];
        let pages = noise.chunks(zeros.len()).flat_map(|page| [page, &zeros]);
        pages.collect::<Vec<_>>().concat()
    };
    let mut images = Images::default();
    images.add(
        "demo/large",
        "v1",
        &[layer(1), layer(2), layer(3), layer(4)],
    );
    let package = Package::operator("large", images);
    let (packed, unpacked) = (package.bytes().len() as u64, package.images.total_bytes());
    let left = packed + 3 * MIB;
    assert!(
        left < unpacked,
        "there is space to begin with, and not to the end"
    );
    disk.leave(left);

    let dropped = daemon.setup.drop_package(&package);
    let status = daemon.wait_until("a full disk", |status| {
        let reason = status["files"][0]["reason"].as_str();
        reason.is_some_and(|reason| reason.contains("of free space"))
    });
    assert_eq!(status["files"][0]["path"], dropped.to_str().unwrap());
    assert_eq!(status["packages"].as_array().unwrap().len(), 0);
    let [line] = &daemon.log_lines("package is not ingested yet")[..] else {
        panic!("expected one line");
    };
    assert!(line.contains("code=\"low-space\""), "{line}");
    assert_eq!(daemon.setup.blobs(), Vec::<String>::new());
    assert_eq!(
        names(&daemon.setup.state_dir.join("ingest")),
        Vec::<String>::new()
    );
    let available = status["disk"]["available_bytes"].as_u64().unwrap();
    assert!(
        available > left - MIB,
        "{available} bytes are free again of {left}"
    );

    disk.free();
    daemon.wait_in_sync(1);
    assert_holds(&registry, &package);
    assert_eq!(daemon.setup.blobs(), blobs_of(&[&package]));
    daemon.stop();
}

/// Stops the daemon while it writes a layer, fills the disk, and lets it go on. Returns whether that came in time.
fn fill_during_staging(daemon: &Daemon, disk: &Mount, layer_bytes: u64) -> bool {
    let staged = daemon.setup.state_dir.join("ingest");
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let largest = || {
        let sizes = std::fs::read_dir(&staged).unwrap();
        let sizes = sizes.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
        sizes.max().unwrap_or_default()
    };
    // Beyond what else there is in a package.
    while largest() < MIB {
        assert!(Instant::now() < deadline, "nothing is staged");
    }
    kill_process(pid, Signal::STOP).unwrap();
    let is_partial = (MIB..layer_bytes).contains(&largest());
    if is_partial {
        disk.fill();
    }
    kill_process(pid, Signal::CONT).unwrap();
    is_partial
}

#[test]
fn a_disk_that_fills_up_under_a_layer_stops_the_package_and_leaves_nothing_of_it() {
    if !may_mount(
        "daemon::full_disk::a_disk_that_fills_up_under_a_layer_stops_the_package_and_leaves_nothing_of_it",
    ) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut disks = vec![Mount::tmpfs(&dir.path().join("tmpfs"), 160 * MIB)];
    disks.extend(Mount::ext4(&dir.path().join("ext4"), 160 * MIB));
    for disk in disks {
        let setup = setup_without_delivery("none")
            .state_dir(&disk.path().join("state"))
            .section(NO_MARKS);
        let daemon = Daemon::start(setup);
        // Below the size after which space is looked at again, so that it is the disk that refuses.
        let layer_bytes = 15 * MIB;
        let layer = noise(1, 64 << 10).repeat(usize::try_from(layer_bytes).unwrap() / (64 << 10));
        let package = package("staged", &[layer]);
        daemon.setup.drop_package(&package);
        assert!(
            fill_during_staging(&daemon, &disk, layer_bytes),
            "the layer was written too fast"
        );
        let status = daemon.wait_until("a full disk", |status| {
            status["files"][0]["code"] == "store"
        });
        let reason = status["files"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("No space left on device"), "{reason}");
        assert_eq!(status["packages"].as_array().unwrap().len(), 0);
        assert_eq!(daemon.setup.blobs(), Vec::<String>::new());
        assert_sound(&daemon.setup);
        disk.free();
        wait_ready(&daemon, 1);
        assert_eq!(daemon.setup.blobs(), blobs_of(&[&package]));
        assert_sound(&daemon.setup);
        daemon.stop();
    }
}

#[test]
fn a_full_folder_for_done_files_holds_only_the_files_back() {
    if !may_mount("daemon::full_disk::a_full_folder_for_done_files_holds_only_the_files_back") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Mount::tmpfs(&dir.path().join("disk"), 4 * MIB);
    let setup = setup_without_delivery("none");
    let (path, done) = (setup.path("other"), disk.path().join("done"));
    let setup = setup
        .folder(&path, "none")
        .section(&format!("done_dir = '{}'\n", done.display()));
    let daemon = Daemon::start(setup);
    disk.leave(4096);
    let package = Package::small("moved");
    let file = crate::support::drop_into(&path, ("moved.tgz", &package.bytes()), &[]);
    wait_ready(&daemon, 1);
    daemon.wait_for_log("file stays in the drop folder");
    assert!(file.exists());
    assert!(!done.exists() || holds(&done, &[]), "no half of it");
    disk.free();
    daemon.wait_until("its place", |_| {
        holds(&done, &["moved.tgz"]) && !file.exists()
    });
    assert_eq!(
        Digest::of(&std::fs::read(done.join("moved.tgz")).unwrap()),
        package.digest()
    );
    daemon.stop();
}

#[test]
fn what_is_due_is_collected_on_a_disk_that_is_full_to_the_last_byte() {
    if !may_mount(
        "daemon::full_disk::what_is_due_is_collected_on_a_disk_that_is_full_to_the_last_byte",
    ) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Mount::tmpfs(&dir.path().join("disk"), 64 * MIB);
    let setup = setup_for_nobody()
        .state_dir(&disk.path().join("state"))
        .section(NO_MARKS)
        .section(LAST_ONE);
    let daemon = Daemon::start(setup);
    let packages = versions(&["v1.0.0", "v2.0.0"]);
    drop_all(&daemon, &packages);
    let left = blobs_of(&[&packages[1]]);
    let unwanted = daemon.setup.blobs().len() - left.len();
    ask(&daemon.setup, &["retain", "apply", "--yes"]);
    ask(&daemon.setup, &["gc", "--grace", "1h"]);
    daemon.wait_until("the end of the grace period", |_| {
        ask(&daemon.setup, &["gc", "--dry-run"])["removed"]["blobs"] == unwanted
    });
    // What comes first is to be condemned, which cannot be written down.
    let first = format!("blobs/sha256/00/{}", "0".repeat(64));
    write(&daemon.setup.state_dir.join(&first), b"unwanted");
    disk.fill();
    assert_eq!(ask(&daemon.setup, &["gc"])["removed"]["blobs"], unwanted);
    let mut found = daemon.setup.blobs();
    found.retain(|blob| !first.ends_with(blob));
    assert_eq!(found, left);

    // Once there is space, it is as if nothing had been.
    disk.free();
    daemon.wait_until("collection", |_| {
        let output = daemon.setup.run(&["gc"]);
        output.status.success() && daemon.setup.blobs() == left
    });
    daemon.stop();
}
