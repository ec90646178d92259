//! `violetd check` as its users have it: beside a daemon and on what one has left behind.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;
use serde_json::Value;
use tempfile::TempDir;
use violetd::base::Digest;
use violetd::sys::fs as durable;

use crate::daemon::deltas::{Versions, wait_for_missing};
use crate::daemon::referrers::{Handmade, manifest_of, sparse_package};
use crate::daemon::{setup_without_delivery, wait_ready};
use crate::support::{Daemon, Package, Setup, noise, run, run_program, write};

/// A user that owns nothing.
const NOBODY: u32 = 65534;

/// Returns the exit code, the data and the words of `violetd check`.
fn check(setup: &Setup, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = setup.run(&[&["check"], arguments].concat());
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Returns the exit code and the document of `violetd check --output json`.
fn document(setup: &Setup, arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, data, words) = check(setup, &[arguments, &["--output", "json"]].concat());
    let document = serde_json::from_str(&data);
    (
        code,
        document.unwrap_or_else(|error| panic!("{error}: {data}{words}")),
    )
}

/// Returns the codes of the findings of a document, sorted.
fn codes(document: &Value) -> Vec<&str> {
    let findings = document["findings"].as_array().unwrap().iter();
    let mut codes: Vec<&str> = findings.map(|it| it["code"].as_str().unwrap()).collect();
    codes.sort_unstable();
    codes
}

/// Returns every path below a folder with its size, mode, owner and time of change.
fn listing(dir: &Path) -> Vec<u8> {
    let mut find = Command::new("find");
    find.arg(dir).args(["-printf", "%P %s %m %U %T@\\n"]);
    run("findutils", &mut find)
}

/// Returns a package with an image, a signature of it and a referrer.
fn signed_package() -> Vec<u8> {
    let mut package = Handmade::default();
    let image = package.blobs.add("demo/signed", "v1", &[noise(11, 30_000)]);
    let bom = package.artifact("bill of materials", Some(&image.root));
    let cosign = package.artifact("cosign signature", None);
    let tag = format!("sha256-{}", image.root.digest.hex());
    package.root(&bom, None);
    package.root(&cosign, Some(&format!("demo/signed:{tag}.sig")));
    package.root(&image.root, Some("demo/signed:v1"));
    package.tgz(&manifest_of(&[]), &[])
}

/// Lets a daemon take in packages of every kind: whole ones, a delta with its supplement, a sparse index, images with what
/// refers to them, and two in one file. Returns how many packages are ready then.
fn take_in_every_kind(daemon: &Daemon) -> usize {
    let setup = &daemon.setup;
    let versions = Versions::new();
    let delta = setup.drop_file("delta.tgz", &versions.delta(2), &[]);
    wait_for_missing(daemon, &delta, versions.base_of(2).len());
    let request = setup.drop_dir.join("requests/delta.tgz.request");
    let supplement = versions.supplement(2, &request);
    setup.drop_file("supplement.tgz", &supplement, &[]);
    setup.drop_file("sparse.tgz", &sparse_package().0, &[]);
    setup.drop_file("signed.tgz", &signed_package(), &[]);
    setup.drop_package(&Package::small("plain"));
    let folder = TempDir::new().unwrap();
    for name in ["nested-a", "nested-b"] {
        let path = folder.path().join(format!("{name}.tgz"));
        write(&path, Package::small(name).bytes());
    }
    let mut tar = Command::new("tar");
    tar.args(["-czf", "-", "-C"]).arg(folder.path()).arg(".");
    setup.drop_file("nested.tgz", &run("tar", &mut tar), &[]);
    wait_ready(daemon, 7);
    daemon.wait_until("that all files are taken in", |status| {
        status["files"].as_array().unwrap().is_empty()
    });
    7
}

#[test]
fn a_store_of_every_kind_of_package_is_sound_beside_its_daemon_and_after_it() {
    let daemon = Daemon::start(setup_without_delivery("none"));
    let packages = take_in_every_kind(&daemon);
    for arguments in [&[][..], &["--deep"]] {
        let (code, document) = document(&daemon.setup, arguments);
        assert_eq!(code, Some(0), "{document:#}");
        assert_eq!(codes(&document), ["daemon-running"], "{document:#}");
        let owner = format!("process {}", daemon.pid());
        assert_eq!(document["report"]["owner"], owner);
        assert_eq!(document["report"]["packages"], packages);
    }
    let setup = daemon.stop();
    let before = listing(&setup.state_dir);
    for (arguments, depth) in [(&[][..], "quick"), (&["--deep"], "deep")] {
        let (code, document) = document(&setup, arguments);
        assert_eq!(code, Some(0), "{document:#}");
        assert_eq!(document["findings"], Value::Array(Vec::new()));
        let report = &document["report"];
        assert_eq!(report["depth"], depth);
        assert_eq!(report["owner"], Value::Null);
        assert_eq!(report["packages"], packages);
        assert_eq!(report["blobs"], setup.blobs().len());
        assert_eq!(report["unreferenced_blobs"], 0);
        let (code, data, words) = check(&setup, arguments);
        assert_eq!((code, words.as_str()), (Some(0), ""));
        let line = format!("0 errors, 0 warnings, 0 infos; {packages} packages, ");
        assert!(data.starts_with(&line), "{data}");
        assert!(data.ends_with(&format!("; {depth} check\n")), "{data}");
        assert_eq!(data.lines().count(), 1);
    }
    assert_eq!(listing(&setup.state_dir), before, "a check changes nothing");
    // The same without a configuration.
    let state_dir = setup.state_dir.to_str().unwrap();
    let output = run_program(&["check", "--state-dir", state_dir]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

fn blob_path(setup: &Setup, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    let shards = setup.state_dir.join("blobs/sha256");
    shards.join(&hex[..2]).join(hex)
}

/// Changes one byte of a blob, as a disk does that forgets.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[0] ^= 1;
    durable::replace_file(path, &bytes, 0o444).unwrap();
}

#[test]
fn damage_gives_exit_code_74_beside_a_daemon_and_after_it() {
    let daemon = Daemon::start(setup_without_delivery("none"));
    let package = Package::small("damaged");
    daemon.setup.drop_package(&package);
    wait_ready(&daemon, 1);
    let blobs: Vec<&Digest> = package.images.blobs.keys().collect();
    let (gone, altered) = (blobs[0], blobs[1]);
    durable::remove_file(&blob_path(&daemon.setup, gone)).unwrap();
    flip(&blob_path(&daemon.setup, altered));
    let look = |setup: &Setup, arguments: &[&str], expected: &[&str]| {
        let (code, document) = document(setup, arguments);
        assert_eq!(code, Some(74), "{document:#}");
        assert_eq!(codes(&document), expected, "{document:#}");
        let findings = document["findings"].as_array().unwrap();
        let missing = findings.iter().find(|it| it["code"] == "blob-missing");
        let missing = missing.unwrap();
        assert_eq!(missing["subject"], gone.to_string());
        assert_eq!(missing["severity"], "error");
        let reason = missing["reason"].as_str().unwrap();
        assert!(reason.contains(&package.digest().to_string()), "{reason}");
        assert!(!missing["hint"].as_str().unwrap().is_empty());
    };
    look(&daemon.setup, &[], &["blob-missing", "daemon-running"]);
    look(
        &daemon.setup,
        &["--deep"],
        &["blob-corrupt", "blob-missing", "daemon-running"],
    );
    let setup = daemon.stop();
    look(&setup, &[], &["blob-missing"]);
    look(&setup, &["--deep"], &["blob-corrupt", "blob-missing"]);
    let (code, data, _) = check(&setup, &["--deep"]);
    assert_eq!(code, Some(74));
    let line = format!("error: blob-corrupt: {altered}: expected content {altered}, found sha256:");
    assert!(data.contains(&line), "{data}");
    assert!(
        data.contains("\n  hint: run `violetd scrub --now`"),
        "{data}"
    );
    assert!(data.contains("\n2 errors, 0 warnings, 0 infos; "), "{data}");
}

#[test]
fn packages_that_are_just_becoming_ready_are_no_damage() {
    let daemon = Daemon::start(setup_without_delivery("none"));
    let names = ["busy-a", "busy-b", "busy-c", "busy-d", "busy-e", "busy-f"];
    for name in names {
        daemon.setup.drop_package(&Package::small(name));
    }
    let mut ready = 0;
    while ready < names.len() {
        let (code, document) = document(&daemon.setup, &["--deep"]);
        assert_eq!(code, Some(0), "{document:#}");
        let report = &document["report"];
        assert_eq!(report["warnings"], 0, "{document:#}");
        // The next look comes when there is something new to see.
        let next = usize::try_from(report["packages"].as_u64().unwrap()).unwrap() + 1;
        ready = next.min(names.len());
        daemon.wait_until("another package", |status| {
            status["packages"].as_array().unwrap().len() >= ready
        });
    }
    daemon.stop();
}

#[test]
fn a_rebuild_waits_for_the_end_of_the_daemon_and_brings_the_packages_back() {
    let daemon = Daemon::start(setup_without_delivery("none"));
    for (count, name) in ["one", "two"].into_iter().enumerate() {
        daemon.setup.drop_package(&Package::small(name));
        wait_ready(&daemon, count + 1);
    }
    let (code, data, words) = check(&daemon.setup, &["--rebuild"]);
    assert_eq!((code, data.as_str()), (Some(64), ""));
    assert!(words.contains(&daemon.pid().to_string()), "{words}");

    let setup = daemon.stop();
    durable::replace_file(&setup.state_dir.join("catalog/CURRENT"), b"?\n", 0o644).unwrap();
    let (code, document) = document(&setup, &[]);
    assert_eq!(code, Some(74));
    assert_eq!(codes(&document), ["catalog-corrupt"], "{document:#}");
    assert_eq!(document["report"]["packages"], 2, "as their files say");

    let (code, data, words) = check(&setup, &["--rebuild", "--deep"]);
    assert_eq!(code, Some(0), "{data}{words}");
    assert!(words.contains("catalog made again: 2 packages"), "{words}");
    assert!(
        data.starts_with("info: quarantined: quarantine/catalog."),
        "{data}"
    );
    assert!(
        data.contains("\n0 errors, 0 warnings, 1 infos; 2 packages, "),
        "{data}"
    );
    let daemon = Daemon::start(setup);
    wait_ready(&daemon, 2);
    daemon.stop();
}

#[test]
fn what_is_no_state_directory_is_exit_code_66() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().to_str().unwrap();
    for arguments in [&[][..], &["--deep"], &["--rebuild"]] {
        let output = run_program(&[&["check", "--state-dir", path], arguments].concat());
        assert_eq!(output.status.code(), Some(66), "{output:?}");
    }
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
}

/// A state directory of a user, and the program where that user can run it.
struct Owned {
    dir: TempDir,
}

impl Owned {
    fn new(setup: &Setup) -> Self {
        let dir = TempDir::new().unwrap();
        set_mode(dir.path(), 0o755);
        let owned = Self { dir };
        let program = Path::new(env!("CARGO_BIN_EXE_violetd"));
        for (from, name) in [(setup.state_dir.as_path(), "state"), (program, "violetd")] {
            let mut copy = Command::new("cp");
            run("coreutils", copy.arg("-a").arg(from).arg(owned.path(name)));
        }
        set_mode(&owned.path("violetd"), 0o755);
        owned
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn give_to(&self, user: u32) {
        let mut chown = Command::new("chown");
        chown
            .args(["-R", &user.to_string()])
            .arg(self.path("state"));
        run("coreutils", &mut chown);
    }

    /// Returns the exit code and everything that is said.
    fn check_as(&self, user: u32, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &user.to_string(), "--clear-groups"])
            .arg(self.path("violetd"))
            .args(["check", "--state-dir"])
            .arg(self.path("state"))
            .args(arguments);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_user_who_may_not_read_everything_is_told_so_and_its_owner_needs_not_be_root() {
    if !geteuid().is_root() {
        // What is tested is how root and others differ; the other tests have just been run by another.
        return;
    }
    let daemon = Daemon::start(setup_without_delivery("none"));
    daemon.setup.drop_package(&Package::small("owned"));
    wait_ready(&daemon, 1);
    let owned = Owned::new(&daemon.stop());
    set_mode(&owned.path("state/packages"), 0o700);
    let (code, said) = owned.check_as(NOBODY, &[]);
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("failed to read `"), "{said}");
    assert!(said.contains("hint: give the user"), "{said}");

    owned.give_to(NOBODY);
    for arguments in [&[][..], &["--deep"]] {
        for user in [NOBODY, 0] {
            let (code, said) = owned.check_as(user, arguments);
            assert_eq!(code, Some(0), "{user}: {said}");
            assert!(said.starts_with("0 errors, 0 warnings, 0 infos;"), "{said}");
        }
    }
    // Whatever root makes there the daemon could not open.
    let (code, said) = owned.check_as(0, &["--rebuild"]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("expected to run as user 65534"), "{said}");
    let (code, said) = owned.check_as(NOBODY, &["--rebuild"]);
    assert_eq!(code, Some(0), "{said}");
    let made = owned.path("state/catalog/CURRENT").metadata().unwrap();
    assert_eq!(made.uid(), NOBODY);
}
