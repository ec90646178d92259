//! Damaged blobs: found wherever the damage is, put aside, brought back from a registry or a kept file.

use std::collections::BTreeSet;
use std::fs::{OpenOptions, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use violetd::base::Digest;
use violetd::sys::fs as durable;

use super::parts::Split;
use super::{assert_holds, blobs_of, holds, wait_ready};
use crate::support::{
    Auth, Daemon, Images, Package, Setup, TestRegistry, metric, names, noise, strace,
};

/// Scrub when asked only, as fast as it can.
const ON_REQUEST: &str = "[scrub]\nschedule = ''\nbytes_per_second = '10GB'\n";

/// Damage to the file of a blob.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// One bit of a byte, counted from the start, or from the end where it is negative.
    Flip(i64),
    /// One bit in the middle.
    FlipMiddle,
    Truncate,
    Empty,
    Grow,
    Delete,
}

/// Every kind of it.
const DAMAGES: [Damage; 8] = [
    Damage::Flip(0),
    Damage::Flip(-1),
    Damage::FlipMiddle,
    Damage::Flip(1),
    Damage::Truncate,
    Damage::Grow,
    Damage::Delete,
    Damage::Empty,
];

fn blob_path(setup: &Setup, hex: &str) -> PathBuf {
    let shards = setup.state_dir.join("blobs/sha256");
    shards.join(&hex[..2]).join(hex)
}

/// Damages a blob in place, as a disk would. Returns what is there afterwards.
fn damage(setup: &Setup, digest: &Digest, damage: Damage) -> Vec<u8> {
    let path = blob_path(setup, &digest.hex());
    if let Damage::Delete = damage {
        durable::remove_file(&path).unwrap();
        return Vec::new();
    }
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let length = file.metadata().unwrap().len();
    let mut flip = |place: SeekFrom| {
        let offset = file.seek(place).unwrap();
        let mut byte = [0];
        file.read_exact(&mut byte).unwrap();
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(&[byte[0] ^ 0x10]).unwrap();
    };
    match damage {
        Damage::Flip(place) if place < 0 => flip(SeekFrom::End(place)),
        Damage::Flip(place) => flip(SeekFrom::Start(place.unsigned_abs())),
        Damage::FlipMiddle => flip(SeekFrom::Start(length / 2)),
        Damage::Truncate => file.set_len(length - 1).unwrap(),
        Damage::Empty => file.set_len(0).unwrap(),
        Damage::Grow => file.set_len(length + 1).unwrap(),
        Damage::Delete => {}
    }
    std::fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    std::fs::read(path).unwrap()
}

/// Damages blobs, each in another way, and returns what must be in quarantine afterwards, by name.
fn damage_all(setup: &Setup, digests: &[Digest]) -> BTreeSet<(String, Vec<u8>)> {
    let mut expected = BTreeSet::new();
    for (digest, kind) in digests.iter().zip(DAMAGES.iter().cycle()) {
        let content = damage(setup, digest, *kind);
        if !matches!(kind, Damage::Delete) {
            expected.insert((format!("{}.0", digest.hex()), content));
        }
    }
    expected
}

/// Returns what is in quarantine, by name.
fn quarantined(setup: &Setup) -> BTreeSet<(String, Vec<u8>)> {
    let folder = setup.state_dir.join("quarantine");
    let read = |name: String| {
        let content = std::fs::read(folder.join(&name)).unwrap();
        (name, content)
    };
    names(&folder).into_iter().map(read).collect()
}

/// Fails the test unless the store holds exactly what these packages consist of, and every blob is what its name says.
fn assert_whole(setup: &Setup, packages: &[&Package]) {
    assert_eq!(setup.blobs(), blobs_of(packages));
    for hex in setup.blobs() {
        let content = std::fs::read(blob_path(setup, &hex)).unwrap();
        assert_eq!(Digest::of(&content).hex(), hex);
    }
}

/// Returns what `violetd scrub` says.
fn view(setup: &Setup) -> Value {
    let output = setup.run(&["scrub", "--output", "json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn ask(setup: &Setup, option: &str) {
    let output = setup.run(&["scrub", option]);
    assert!(output.status.success(), "{output:?}");
}

/// Waits until a pass has ended and nothing runs. Returns what is known then.
fn wait_pass(daemon: &Daemon, number: u64) -> Value {
    daemon.wait_until("the end of a pass", |_| {
        let view = view(&daemon.setup);
        view["last"]["number"] == number && view["running"].is_null()
    });
    view(&daemon.setup)
}

/// Returns a package of three images with 24 blobs in all: indexes, manifests, configurations and layers.
fn package_of_three() -> Package {
    let mut images = Images::default();
    for (seed, repository) in (300..).zip(["demo/one", "demo/two", "demo/three"]) {
        images.add(repository, "v1", &[noise(seed, 70_000)]);
    }
    Package::operator("three", images)
}

/// Returns everything that packages consist of, in an order in which kinds are mixed.
fn digests_of(packages: &[&Package]) -> Vec<Digest> {
    let blobs = packages
        .iter()
        .flat_map(|package| package.images.blobs.keys());
    blobs.copied().collect()
}

#[test]
fn damage_of_every_kind_in_more_than_twenty_blobs_is_found_and_repaired_from_a_registry() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none")
        .target("global-a", "primary", registry.address(), "")
        .section(ON_REQUEST);
    let daemon = Daemon::start(setup);
    let (three, small) = (package_of_three(), Package::small("other"));
    daemon.setup.drop_package(&three);
    daemon.setup.drop_package(&small);
    daemon.wait_in_sync(2);
    // Nothing but the registry has it.
    durable::empty_dir(&daemon.setup.drop_dir.join("done")).unwrap();
    let digests = digests_of(&[&three]);
    assert!(digests.len() > 20, "{}", digests.len());
    let expected = damage_all(&daemon.setup, &digests);

    ask(&daemon.setup, "--now");
    let view = wait_pass(&daemon, 1);
    assert_eq!(view["open"], Value::Array(Vec::new()), "{view:#}");
    assert_whole(&daemon.setup, &[&three, &small]);
    assert_eq!(quarantined(&daemon.setup), expected);
    let counts = &view["last"]["counts"];
    assert_eq!(counts["damaged"], digests.len(), "{view:#}");
    assert_eq!(counts["repaired"], digests.len(), "{view:#}");
    assert_eq!(counts["blobs"], daemon.setup.blobs().len());
    let said = daemon.log_lines("blob is damaged");
    for digest in &digests {
        let line = said.iter().find(|line| line.contains(&digest.hex()));
        assert!(
            line.is_some_and(|line| line.contains("three")),
            "{digest}: {said:?}"
        );
    }
    let metrics = daemon.metrics();
    for (name, expected) in [
        ("violetd_scrub_damaged_total", digests.len() as u64),
        ("violetd_scrub_repaired_total", digests.len() as u64),
        ("violetd_scrub_unrepaired_blobs", 0),
        ("violetd_scrub_running", 0),
    ] {
        assert_eq!(metric(&metrics, name), expected, "{name}");
    }

    // What is in the store is good enough for another registry.
    ask(&daemon.setup, "--now");
    assert_eq!(wait_pass(&daemon, 2)["last"]["counts"]["damaged"], 0);
    let second = TestRegistry::start(Auth::None);
    let keys = "on_ready = true";
    let setup = daemon
        .stop()
        .target("global-b", "primary", second.address(), keys);
    let daemon = Daemon::start(setup);
    daemon.wait_in_sync(2);
    assert_holds(&second, &three);
    daemon.stop();
}

#[test]
fn kept_files_repair_what_no_registry_can_be_asked_for() {
    let mut registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none")
        .target("global-a", "primary", registry.address(), "")
        .section(ON_REQUEST);
    let daemon = Daemon::start(setup);
    let (three, parted) = (package_of_three(), Package::small("parted"));
    let split = Split::of(&parted);
    daemon.setup.drop_package(&three);
    split.drop(&daemon.setup.drop_dir, &split.all());
    daemon.wait_in_sync(2);
    let done = daemon.setup.drop_dir.join("done");
    daemon.wait_until("the way to done/", |_| names(&done).contains(&split.table));
    registry.kill();
    let digests = digests_of(&[&three, &parted]);
    let expected = damage_all(&daemon.setup, &digests);

    ask(&daemon.setup, "--now");
    let view = wait_pass(&daemon, 1);
    assert_eq!(view["open"], Value::Array(Vec::new()), "{view:#}");
    assert_eq!(
        view["last"]["counts"]["repaired"],
        digests.len(),
        "{view:#}"
    );
    assert_whole(&daemon.setup, &[&three, &parted]);
    assert_eq!(quarantined(&daemon.setup), expected);
    daemon.stop();
}

#[test]
fn what_cannot_be_repaired_is_said_until_the_package_is_dropped_again_or_a_registry_is_back() {
    // Another address than all other servers have, so that the port stays free while the registry is down.
    let address = SocketAddr::from(([127, 0, 0, 5], 0));
    let mut registry = TestRegistry::build(Auth::None).listen(address).start();
    let setup = Setup::new("none")
        .target("global-a", "primary", registry.address(), "")
        .section(ON_REQUEST);
    let daemon = Daemon::start(setup);
    let (one, two) = (Package::small("one"), Package::small("two"));
    daemon.setup.drop_package(&one);
    daemon.setup.drop_package(&two);
    daemon.wait_in_sync(2);
    let done = daemon.setup.drop_dir.join("done");
    daemon.wait_until("the way to done/", |_| {
        holds(&done, &["one.tgz", "two.tgz"])
    });
    durable::empty_dir(&done).unwrap();
    registry.kill();
    let first_of = |package: &Package| *package.images.blobs.keys().next().unwrap();
    let (lost, flipped) = (first_of(&one), first_of(&two));
    damage(&daemon.setup, &lost, Damage::Delete);
    damage(&daemon.setup, &flipped, Damage::FlipMiddle);

    ask(&daemon.setup, "--now");
    let found = wait_pass(&daemon, 1);
    assert_eq!(found["open"].as_array().unwrap().len(), 2, "{found:#}");
    let of_lost = found["open"].as_array().unwrap().iter();
    let of_lost = of_lost
        .clone()
        .find(|it| it["digest"] == lost.to_string())
        .unwrap();
    let hint = of_lost["hint"].as_str().unwrap();
    assert!(
        hint.starts_with("drop the package one v1 again (file `one.tgz`"),
        "{hint}"
    );
    let status = daemon.status();
    let said = status["damage"].as_str().unwrap();
    assert!(
        said.starts_with("2 damaged blobs are not repaired (packages: one v1, two v1)"),
        "{said}"
    );
    let shown = daemon.setup.run(&["scrub", "--check"]);
    assert_eq!(shown.status.code(), Some(1));
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&format!("hint: {hint}")), "{shown}");
    assert_eq!(
        metric(&daemon.metrics(), "violetd_scrub_unrepaired_blobs"),
        2
    );

    // A new daemon knows it, too.
    let daemon = Daemon::start(daemon.stop());
    assert_eq!(daemon.status()["damage"], status["damage"]);
    daemon.setup.drop_package(&one);
    // By ingest, or by scrub from the file in the drop folder, whoever is first.
    daemon.wait_until("repair by the package", |_| {
        view(&daemon.setup)["open"].as_array().unwrap().len() == 1
    });

    let registry = registry.resume();
    ask(&daemon.setup, "--repair");
    daemon.wait_until("repair from the registry", |status| {
        status["damage"].is_null()
    });
    assert_whole(&daemon.setup, &[&one, &two]);
    let view = view(&daemon.setup);
    assert_eq!(view["total"]["damaged"], 2, "{view:#}");
    assert_eq!(view["total"]["repaired"], 2, "{view:#}");
    assert_eq!(
        daemon.setup.run(&["scrub", "--check"]).status.code(),
        Some(0)
    );
    drop(registry);
    daemon.stop();
}

#[test]
fn a_run_that_meets_damage_has_it_repaired_and_then_succeeds() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none")
        .target("global-a", "primary", registry.address(), "")
        .section(ON_REQUEST);
    let daemon = Daemon::start(setup);
    let three = package_of_three();
    daemon.setup.drop_package(&three);
    daemon.wait_in_sync(1);
    let setup = daemon.stop();
    durable::empty_dir(&setup.drop_dir.join("done")).unwrap();
    let image = &three.images.placed[0];
    let layers = image.blobs.iter().map(|blob| blob.digest);
    let layer = layers.max_by_key(|digest| three.images.blobs[digest].len());
    let layer = layer.unwrap();
    let manifest = three.images.placed[1].manifests[0].digest;
    let lost = three.images.placed[2].root.digest;
    damage(&setup, &layer, Damage::FlipMiddle);
    damage(&setup, &manifest, Damage::Flip(-1));
    damage(&setup, &lost, Damage::Delete);

    let second = TestRegistry::start(Auth::None);
    let setup = setup.target("global-b", "standby", second.address(), "");
    let daemon = Daemon::start(setup);
    daemon.wait_in_sync(1);
    assert_holds(&second, &three);
    assert_whole(&daemon.setup, &[&three]);
    assert_eq!(view(&daemon.setup)["total"]["repaired"], 3);
    daemon.stop();
}

#[test]
fn a_blob_that_the_disk_does_not_give_back_is_put_aside_and_repaired() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none")
        .target("global-a", "primary", registry.address(), "")
        .section(ON_REQUEST);
    let daemon = Daemon::start(setup);
    let package = Package::small("bad-sector");
    daemon.setup.drop_package(&package);
    daemon.wait_in_sync(1);
    let hex = daemon.setup.blobs()[0].clone();
    let path = blob_path(&daemon.setup, &hex);
    let mut tracer = strace(daemon.pid(), &[path], "read:error=EIO:when=1");
    ask(&daemon.setup, "--now");
    let view = wait_pass(&daemon, 1);
    // To be passed on to strace, which lets go of the process.
    kill_process(Pid::from_child(&tracer), Signal::TERM).unwrap();
    tracer.wait().unwrap();
    let [repaired] = &view["repaired"].as_array().unwrap()[..] else {
        panic!("expected one repaired blob: {view:#}");
    };
    assert_eq!(repaired["kind"], "unreadable");
    assert!(
        repaired["found"]
            .as_str()
            .unwrap()
            .contains("Input/output error")
    );
    let aside = daemon.setup.state_dir.join("quarantine");
    assert_eq!(names(&aside), [format!("{hex}.0")]);
    assert_whole(&daemon.setup, &[&package]);
    daemon.stop();
}

#[test]
fn a_pass_that_was_killed_goes_on_where_it_was_by_itself() {
    let registry = TestRegistry::start(Auth::None);
    // Each blob costs 64 KiB: two in a second, so that many are left when the daemon is killed.
    let setup = Setup::new("none")
        .target("global-a", "primary", registry.address(), "")
        .section("[scrub]\nschedule = ''\n")
        .variable("VIOLETD_SCRUB__BYTES_PER_SECOND", "128KiB");
    let daemon = Daemon::start(setup);
    let packages = [
        package_of_three(),
        Package::small("a"),
        Package::small("b"),
        Package::small("c"),
    ];
    let packages: Vec<&Package> = packages.iter().collect();
    for package in &packages {
        daemon.setup.drop_package(package);
    }
    wait_ready(&daemon, packages.len());
    daemon.wait_in_sync(packages.len());
    let blobs = daemon.setup.blobs();
    assert!(blobs.len() > 40, "{}", blobs.len());
    let damaged = Digest::from_hex(&blobs[3]).unwrap();
    damage(&daemon.setup, &damaged, Damage::Flip(0));

    ask(&daemon.setup, "--now");
    daemon.wait_until("the repair of the damaged blob", |_| {
        view(&daemon.setup)["total"]["repaired"] == 1
    });
    let before = view(&daemon.setup);
    assert_eq!(before["running"], "pass", "{before:#}");
    let counts = &before["current"]["counts"];
    assert!(counts["blobs"].as_u64().unwrap() < 20, "{before:#}");
    let setup = daemon
        .kill()
        .variable("VIOLETD_SCRUB__BYTES_PER_SECOND", "10GB");

    let daemon = Daemon::start(setup);
    let after = wait_pass(&daemon, 1);
    assert_eq!(after["last"]["started_at"], before["current"]["started_at"]);
    assert_eq!(after["last"]["counts"]["blobs"], blobs.len(), "{after:#}");
    assert_eq!(after["last"]["counts"]["repaired"], 1, "{after:#}");
    let position = before["current"]["position"].as_str().unwrap();
    let [line] = &daemon.log_lines("scrub pass runs")[..] else {
        panic!("expected one line");
    };
    assert!(
        line.contains(position),
        "{line} does not go on from {position}"
    );
    assert_whole(&daemon.setup, &packages);
    daemon.stop();
}
