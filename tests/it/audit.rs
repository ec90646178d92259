//! The audit record of a daemon: what it holds, that tampering shows, and that others can check what is signed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::geteuid;
use serde_json::Value;
use violetd::base::Digest;
use violetd::sys::fs as durable;

use crate::daemon::{setup_without_delivery, wait_ready};
use crate::support::{Daemon, Package, Setup, Signer, drop_into, names, run, run_program, strace};

const KEY: &str = "secret key of a person";

/// Returns the exit code, the data and the words of a command about the record.
fn audit(setup: &Setup, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = setup.run(&[&["audit"], arguments].concat());
    said(output)
}

fn said(output: Output) -> (Option<i32>, String, String) {
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn json(setup: &Setup, arguments: &[&str]) -> Value {
    let (code, data, words) = audit(setup, &[arguments, &["--output", "json"]].concat());
    assert_eq!(code, Some(0), "{words}");
    serde_json::from_str(&data).unwrap()
}

/// Returns the verdicts on record, oldest first. A line that is not whole is none.
pub(crate) fn verdicts(setup: &Setup) -> Vec<Value> {
    let dir = setup.state_dir.join("audit");
    let mut verdicts = Vec::new();
    for name in names(&dir) {
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        let lines = text.split_inclusive('\n');
        for line in lines.filter(|line| line.ends_with('\n')) {
            let mut line: Value = serde_json::from_str(line).unwrap();
            if line["event"] == "package" {
                verdicts.push(line["fields"].take());
            }
        }
    }
    verdicts
}

/// Returns the names of the packages with this verdict, oldest first.
fn verdicts_of(setup: &Setup, verdict: &str) -> Vec<String> {
    let verdicts = verdicts(setup).into_iter();
    let verdicts = verdicts.filter(|it| it["verdict"] == verdict);
    verdicts
        .map(|it| it["package"]["name"].as_str().unwrap().to_owned())
        .collect()
}

fn refused(daemon: &Daemon, count: usize) {
    daemon.wait_until("refusals", |status| {
        let files = status["files"].as_array().unwrap().iter();
        files.filter(|file| file["state"] == "rejected").count() == count
    });
}

#[test]
fn every_verdict_is_on_record_with_what_it_rests_on() {
    let (alice, eve) = (Signer::new("alice"), Signer::new("eve"));
    let setup = setup_without_delivery("signature").trust(&alice.certificate());
    let daemon = Daemon::start(setup);
    let package = Package::small("recorded");
    let signature = alice.sign(&package.path);
    let content = package.bytes();
    daemon
        .setup
        .drop_file("good.tgz", &content, &[("sig", signature.clone())]);
    wait_ready(&daemon, 1);
    daemon
        .setup
        .drop_file("again.tgz", &content, &[("sig", signature.clone())]);
    daemon.wait_until("a repetition", |status| {
        status["files"].as_array().unwrap().is_empty() && verdicts(&daemon.setup).len() == 2
    });
    daemon.setup.drop_file("unsigned.tgz", &content, &[]);
    daemon
        .setup
        .drop_file("eve.tgz", &content, &[("sig", eve.sign(&package.path))]);
    let mut other = content.clone();
    other.push(0);
    daemon
        .setup
        .drop_file("bad.tgz", &other, &[("sig", signature.clone())]);
    refused(&daemon, 3);

    let records = verdicts(&daemon.setup);
    assert_eq!(records.len(), 5, "{records:#?}");
    let record = |name: &str| {
        let found = records.iter().find(|record| record["file_name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {records:#?}"))
    };
    for (name, verdict) in [("good.tgz", "accepted"), ("again.tgz", "repeated")] {
        let record = record(name);
        assert_eq!(record["verdict"], verdict);
        assert_eq!(record["trusted_by"], "signature");
        assert_eq!(record["policy"]["name"], "signature");
        assert_eq!(record["digest"], package.digest().to_string());
        assert_eq!(record["size_bytes"], content.len());
        assert_eq!(
            record["path"],
            daemon.setup.drop_dir.join(name).to_str().unwrap()
        );
        assert_eq!(record["package"]["name"], "recorded");
        assert_eq!(record["package"]["version"], "v1");
        assert_eq!(
            record["signers"][0]["user_id"],
            "alice <alice@site.example>"
        );
        assert_eq!(
            record["sidecars"][0]["digest"],
            Digest::of(&signature).to_string()
        );
    }
    for (name, code, bytes) in [
        ("unsigned.tgz", "no-signature", &content),
        ("eve.tgz", "unknown-signer", &content),
        ("bad.tgz", "bad-signature", &other),
    ] {
        let record = record(name);
        assert_eq!(record["verdict"], "refused", "{name}");
        assert_eq!(record["refusal"]["code"], code);
        assert_eq!(record["digest"], Digest::of(bytes).to_string(), "{name}");
        assert_eq!(record["signers"], Value::Null, "{name}");
    }
    // While the daemon runs, and after it.
    assert_eq!(json(&daemon.setup, &["verify"])["records"], 5);
    let setup = daemon.stop();
    assert_eq!(json(&setup, &["verify"])["breaks_total"], 0);
}

#[test]
fn tampering_is_found_and_a_noted_head_finds_a_cut_end() {
    let daemon = Daemon::start(setup_without_delivery("none"));
    for (count, name) in ["one", "two", "three"].into_iter().enumerate() {
        daemon.setup.drop_package(&Package::small(name));
        wait_ready(&daemon, count + 1);
    }
    let setup = daemon.stop();
    let (code, head, _) = audit(&setup, &["head"]);
    assert_eq!(code, Some(0));
    let head = head.trim();
    assert!(head.starts_with("3:sha256:"), "{head}");
    assert_eq!(audit(&setup, &["verify", "--expect", head]).0, Some(0));

    let copy = setup.path("copy");
    durable::ensure_dir(&copy).unwrap();
    let copied = copy.join("audit-000001.jsonl");
    let text = std::fs::read_to_string(setup.state_dir.join("audit/audit-000001.jsonl")).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let verify = |content: &str, expect: &[&str]| {
        durable::replace_file(&copied, content.as_bytes(), 0o600).unwrap();
        let from = ["audit", "verify", "--from", copy.to_str().unwrap()];
        said(run_program(&[&from, expect].concat()))
    };
    let (code, data, _) = verify(&text, &["--expect", head]);
    assert_eq!(code, Some(0));
    assert!(data.contains("records: 3 in 1 files"), "{data}");
    for (content, place) in [
        (
            text.replacen("accepted", "repeated", 1),
            "line 1: expected a line with check",
        ),
        (
            [lines[0], lines[2]].concat(),
            "line 2: expected a line after",
        ),
        (
            [lines[1], lines[0], lines[2]].concat(),
            "line 1: expected a line after",
        ),
        (
            text[..text.len() - 5].to_owned(),
            "line 3: expected a line feed",
        ),
    ] {
        let (code, data, words) = verify(&content, &[]);
        assert_eq!(code, Some(74), "{data}");
        assert!(
            data.contains(&format!("break:   audit-000001.jsonl, {place}")),
            "{data}"
        );
        assert!(
            words.contains("expected an unbroken audit record"),
            "{words}"
        );
    }
    let cut = lines[..2].concat();
    assert_eq!(verify(&cut, &[]).0, Some(0), "no chain can show this");
    let (code, _, words) = verify(&cut, &["--expect", head]);
    assert_eq!(code, Some(74));
    assert!(words.contains("found none of that number"), "{words}");
    durable::remove_file(&copied).unwrap();
    let from = ["audit", "verify", "--from", copy.to_str().unwrap()];
    assert_eq!(said(run_program(&from)).0, Some(66));
}

#[test]
fn a_daemon_that_is_killed_leaves_a_record_that_goes_on() {
    let mut daemon = Daemon::start(setup_without_delivery("none"));
    for (count, name) in ["one", "two", "three"].into_iter().enumerate() {
        daemon.setup.drop_package(&Package::small(name));
        wait_ready(&daemon, count + 1);
        let setup = daemon.kill();
        // What a power cut in the middle of a line leaves.
        let last = last_file(&setup);
        let mut bytes = std::fs::read(&last).unwrap();
        bytes.extend_from_slice(b"{\"version\":1,");
        durable::replace_file(&last, &bytes, 0o640).unwrap();
        assert_eq!(audit(&setup, &["verify"]).0, Some(74));
        daemon = Daemon::start(setup);
        assert_eq!(json(&daemon.setup, &["verify"])["breaks_total"], 0);
    }
    let setup = daemon.stop();
    let recorded = verdicts_of(&setup, "accepted");
    for name in ["one", "two", "three"] {
        let count = recorded.iter().filter(|recorded| *recorded == name).count();
        assert_eq!(count, 1, "{recorded:?}");
    }
    assert_eq!(
        json(&setup, &["verify"])["records"],
        6,
        "three verdicts and three notes"
    );
}

#[test]
fn a_daemon_killed_after_the_record_and_before_the_catalog_leaves_two_records_and_one_package() {
    let daemon = Daemon::start(setup_without_delivery("none"));
    daemon.setup.drop_package(&Package::small("before"));
    wait_ready(&daemon, 1);
    // Killed while the line of the next verdict is synced: it is written, and nothing behind it has happened.
    let mut strace = strace(
        daemon.pid(),
        &[last_file(&daemon.setup)],
        "fsync,fdatasync:signal=KILL:when=1",
    );
    let package = Package::small("twice");
    daemon.setup.drop_package(&package);
    let ended = strace.wait().unwrap();
    assert_ne!(ended.code(), Some(124), "the daemon was not killed");
    let setup = daemon.kill();
    assert_eq!(verdicts_of(&setup, "accepted"), ["before", "twice"]);

    let daemon = Daemon::start(setup);
    wait_ready(&daemon, 2);
    assert_eq!(
        verdicts_of(&daemon.setup, "accepted"),
        ["before", "twice", "twice"]
    );
    let digest = package.digest().to_string();
    let report = json(&daemon.setup, &["export", &digest]);
    assert_eq!(report["records"].as_array().unwrap().len(), 2);
    assert_eq!(report["breaks_total"], 0);
    daemon.stop();
}

fn last_file(setup: &Setup) -> PathBuf {
    let dir = setup.state_dir.join("audit");
    let last = names(&dir).into_iter().max().unwrap();
    dir.join(last)
}

#[test]
fn a_record_that_cannot_be_written_holds_packages_back() {
    let daemon = Daemon::start(setup_without_delivery("none"));
    // A folder in the place of the next file, and a last file that is gone: nothing can be put on record.
    let setup = daemon.stop();
    let audit_dir = setup.state_dir.join("audit");
    let daemon = Daemon::start(setup);
    durable::remove_file(&audit_dir.join("audit-000001.jsonl")).unwrap();
    durable::ensure_dir(&audit_dir.join("audit-000001.jsonl")).unwrap();
    let dropped = daemon.setup.drop_package(&Package::small("held"));
    let status = daemon.wait_until("a failure", |status| {
        let reason = status["files"][0]["reason"].as_str();
        reason.is_some_and(|reason| reason.contains("audit record"))
    });
    assert_eq!(
        status["packages"].as_array().unwrap().len(),
        0,
        "{status:#}"
    );
    assert!(dropped.exists());
    std::fs::remove_dir(audit_dir.join("audit-000001.jsonl")).unwrap();
    wait_ready(&daemon, 1);
    assert_eq!(json(&daemon.setup, &["verify"])["records"], 1);
    daemon.stop();
}

/// A file system in memory on a folder. Gone when it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn new(path: &Path, size_bytes: u64) -> Self {
        durable::ensure_dir_all(path).unwrap();
        let size = format!("size={size_bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]);
        run("mount", mount.arg(path));
        Self(path.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a test that fails may still have a daemon in there.
        let mut unmount = Command::new("umount");
        drop(unmount.arg("--lazy").arg(&self.0).output());
    }
}

#[test]
fn a_full_disk_under_the_record_holds_packages_back_until_there_is_space() {
    if !geteuid().is_root() {
        eprintln!("not run: only root can mount a file system of a given size");
        return;
    }
    let setup = setup_without_delivery("none");
    let disk = Disk::new(&setup.state_dir.join("audit"), 64 << 10);
    let daemon = Daemon::start(setup);
    let ballast = disk.0.join("ballast");
    let is_full = |bytes: &[u8]| durable::replace_file(&ballast, bytes, 0o600).is_err();
    let mut pages = 16;
    while is_full(&vec![0; pages * 4096]) {
        pages -= 1;
    }
    let dropped = daemon.setup.drop_package(&Package::small("held"));
    let nonsense = daemon.setup.drop_file("nonsense.tgz", b"no package", &[]);
    daemon.wait_until("a full disk, twice", |status| {
        let files = status["files"].as_array().unwrap().iter();
        let is_held = |file: &&Value| {
            let reason = file["reason"].as_str().unwrap_or_default();
            reason.contains("audit record") && reason.contains("No space left on device")
        };
        files.filter(is_held).count() == 2
    });
    assert!(dropped.exists() && nonsense.exists());
    let [line, ..] = &daemon.log_lines("package is not ingested yet")[..] else {
        panic!("expected a line");
    };
    assert!(line.contains("code=\"audit\""), "{line}");
    assert_eq!(daemon.status()["packages"].as_array().unwrap().len(), 0);
    durable::remove_file(&ballast).unwrap();
    wait_ready(&daemon, 1);
    refused(&daemon, 1);
    assert_eq!(verdicts_of(&daemon.setup, "accepted"), ["held"]);
    assert_eq!(json(&daemon.setup, &["verify"])["breaks_total"], 0);
    daemon.stop();
}

/// A person who signs reports, with keys exported by GnuPG. The home of `gpg` is gone when this is dropped.
struct Officer {
    home: tempfile::TempDir,
}

impl Officer {
    fn new(algorithm: &str, usage: &str, passphrase: &str) -> Self {
        // The agent's socket is in there, and the path of a socket has at most 107 bytes.
        let home = tempfile::Builder::new().prefix("o").tempdir().unwrap();
        let officer = Self { home };
        let name = "officer <officer@site.example>";
        let arguments = ["--quick-generate-key", name, algorithm, usage, "never"];
        run("gnupg", officer.gpg(passphrase).args(arguments));
        let export = |what, to: &str| {
            let bytes = run("gnupg", officer.gpg(passphrase).args([what, name]));
            durable::replace_file(&officer.path(to), &bytes, 0o600).unwrap();
        };
        export("--export-secret-keys", "secret.pgp");
        export("--export", "public.pgp");
        durable::replace_file(&officer.path("passphrase"), passphrase.as_bytes(), 0o600).unwrap();
        officer
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn secret(&self) -> String {
        self.path("secret.pgp").to_str().unwrap().to_owned()
    }

    fn gpg(&self, passphrase: &str) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(self.home.path());
        gpg.args(["--batch", "--quiet", "--pinentry-mode", "loopback"]);
        gpg.args(["--passphrase", passphrase]);
        gpg
    }

    fn sq_verify(&self, arguments: &[&Path]) -> Output {
        let mut sq = Command::new("sq");
        sq.arg("verify")
            .arg("--signer-cert")
            .arg(self.path("public.pgp"));
        sq.args(arguments).output().unwrap()
    }
}

impl Drop for Officer {
    fn drop(&mut self) {
        let mut stop = Command::new("gpgconf");
        stop.arg("--homedir").arg(self.home.path());
        drop(stop.args(["--kill", "all"]).output());
    }
}

/// Returns a setup without a daemon whose record has one package.
fn recorded(name: &'static str) -> (Setup, Package) {
    let daemon = Daemon::start(setup_without_delivery("none"));
    let package = Package::small(name);
    drop_into(
        &daemon.setup.drop_dir,
        ("a file.tgz", &package.bytes()),
        &[],
    );
    wait_ready(&daemon, 1);
    (daemon.stop(), package)
}

#[test]
fn signed_reports_are_good_to_gnupg_and_to_sequoia_and_to_nobody_once_they_are_changed() {
    let (setup, package) = recorded("signed-report");
    let digest = package.digest().to_string();
    for (algorithm, passphrase) in [("ed25519", ""), ("rsa3072", KEY), ("nistp256", "")] {
        let officer = Officer::new(algorithm, "sign", passphrase);
        let (report, data) = (officer.path("report.txt"), officer.path("report.json"));
        let export = |arguments: &[&str]| {
            let secret = officer.secret();
            let file = officer.path("passphrase");
            let mut all = vec!["export", &digest, "--sign-key", &secret];
            if !passphrase.is_empty() {
                all.extend(["--sign-passphrase-file", file.to_str().unwrap()]);
            }
            all.extend(arguments);
            let (code, _, words) = audit(&setup, &all);
            assert_eq!(code, Some(0), "{algorithm}: {words}");
        };
        export(&["--output-file", report.to_str().unwrap()]);
        export(&["--output", "json", "--output-file", data.to_str().unwrap()]);
        let signature = officer.path("report.json.asc");

        run("gnupg", officer.gpg("").arg("--verify").arg(&report));
        let mut verify = officer.gpg("");
        run("gnupg", verify.arg("--verify").args([&signature, &data]));
        let detached = [Path::new("--detached"), &signature, &data];
        for arguments in [&[report.as_path()][..], &detached] {
            let output = officer.sq_verify(arguments);
            assert!(output.status.success(), "{algorithm}: {output:?}");
        }

        let text = std::fs::read_to_string(&report).unwrap();
        assert!(text.contains("verdict:      accepted"), "{text}");
        let changed = text.replacen("accepted", "refused", 1);
        durable::replace_file(&report, changed.as_bytes(), 0o600).unwrap();
        let output = officer
            .gpg("")
            .arg("--verify")
            .arg(&report)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{algorithm}");
        assert!(
            !officer.sq_verify(&[&report]).status.success(),
            "{algorithm}"
        );
    }
}

#[test]
fn reports_tie_their_records_to_the_chain() {
    let (setup, package) = recorded("reported");
    let report = json(&setup, &["export", "reported"]);
    let record = &report["records"][0];
    let line = record["line"].as_str().unwrap();
    assert_eq!(record["hash"], Digest::of(line.as_bytes()).to_string());
    assert_eq!(report["head"]["hash"], record["hash"], "it is the last one");
    assert_eq!(record["previous"], format!("sha256:{}", "0".repeat(64)));
    assert_eq!(record["package"]["digest"], package.digest().to_string());
    let (code, text, _) = audit(&setup, &["export", "a file.tgz"]);
    assert_eq!(code, Some(0));
    assert!(text.contains(&format!("line:         {line}\n")), "{text}");
    let (code, _, words) = audit(&setup, &["export", "nobody"]);
    assert_eq!(
        (code, words.contains("expected records of `nobody`")),
        (Some(66), true),
        "{words}"
    );
}

#[test]
fn keys_that_cannot_sign_are_told_apart() {
    let (setup, _) = recorded("unsigned-report");
    let locked = Officer::new("ed25519", "sign", KEY);
    let unfit = Officer::new("ed25519", "cert", "");
    let wrong = setup.file("wrong", "another passphrase\n");
    let public = locked.path("public.pgp");
    let nonsense = setup.file("nonsense", "no key");
    let (locked, unfit) = (locked.secret(), unfit.secret());
    let export = |arguments: &[&str]| {
        let (code, data, words) = audit(
            &setup,
            &[&["export", "unsigned-report"], arguments].concat(),
        );
        assert_eq!(data, "", "nothing is said that is not signed");
        (code, words)
    };
    let wrong = wrong.to_str().unwrap();
    for (arguments, code, expected) in [
        (&["--sign-key", &locked][..], 77, "found none"),
        (
            &["--sign-key", &locked, "--sign-passphrase-file", wrong],
            77,
            "found another one",
        ),
        (&["--sign-key", &unfit], 64, "none of its keys can sign now"),
        (
            &["--sign-key", public.to_str().unwrap()],
            64,
            "it is a public key",
        ),
        (
            &["--sign-key", nonsense.to_str().unwrap()],
            64,
            "expected an OpenPGP secret key",
        ),
        (&["--sign-key", "/absent"], 66, "failed to read `/absent`"),
        (
            &["--sign-key", &locked, "--output", "json"],
            64,
            "expected --output-file",
        ),
    ] {
        let (found, words) = export(arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {words}");
        assert!(words.contains(expected), "{arguments:?}: {words}");
    }
}
