//! Packages in parts: taken in as the whole file would be, waited for, and refused with every part at fault named.

use std::path::{Path, PathBuf};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use violetd::sys::fs as durable;

use super::{
    assert_holds, blobs_of, dropped_file, holds, setup_without_delivery, wait_ready, wait_refused,
};
use crate::audit::verdicts;
use crate::support::{
    Auth, Daemon, Package, Setup, Signer, TestRegistry, drop_into, names, reason_of, run,
    run_program, strace, write,
};

/// How large parts are: a small package has several.
const PART_BYTES: usize = 10_000;
/// How long a system call is held up where a test wants to be faster than the daemon.
const DELAY_MICROSECONDS: u32 = 3_000_000;

/// A package in parts, in a folder of its own.
pub(super) struct Split {
    dir: tempfile::TempDir,
    /// Names of the parts, in their order.
    parts: Vec<String>,
    /// Name of the table.
    pub(super) table: String,
}

impl Split {
    /// Splits a package anew, from the folder that it was made of.
    pub(super) fn of(package: &Package) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = package.path.file_name().unwrap().to_str().unwrap();
        let mut command = crate::support::program();
        command
            .arg("package")
            .arg(package.path.with_extension(""))
            .arg("--output")
            .arg(dir.path().join(name))
            .args(["--checksum", "--split", &PART_BYTES.to_string()]);
        let printed = String::from_utf8(run("violetd", &mut command)).unwrap();
        let table = format!("{name}.parts");
        assert_eq!(Path::new(printed.trim()), dir.path().join(&table));
        let is_part = |it: &String| {
            let number = it.strip_prefix(name).and_then(|it| it.strip_prefix('.'));
            number.is_some_and(|it| it.parse::<u32>().is_ok())
        };
        let parts = names(dir.path()).into_iter().filter(is_part).collect();
        Self { dir, parts, table }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn content(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Returns the names of parts and table.
    pub(super) fn all(&self) -> Vec<&str> {
        let parts = self.parts.iter().map(String::as_str);
        parts.chain([self.table.as_str()]).collect()
    }

    pub(super) fn drop(&self, folder: &Path, names: &[&str]) {
        for name in names {
            drop_into(folder, (name, &self.content(name)), &[]);
        }
    }
}

/// Waits until a file waits for exactly this.
fn wait_for_reason(daemon: &Daemon, path: &Path, reason: &str) {
    daemon.wait_until(reason, |status| {
        dropped_file(status, path)
            .is_some_and(|file| file["reason"] == reason && file["code"].is_null())
    });
}

/// Waits until the only package is ready, and fails the test unless it is this one, by the digest of the whole.
fn wait_ready_whole(daemon: &Daemon, package: &Package) {
    let status = wait_ready(daemon, 1);
    let found = &status["packages"][0]["digest"];
    assert_eq!(*found, package.digest().to_string());
}

#[test]
fn a_package_in_parts_is_taken_in_as_the_whole_file_would_be() {
    let registry = TestRegistry::start(Auth::None);
    let package = Package::small("in-parts");
    let parts = Split::of(&package);
    assert!(parts.parts.len() > 3, "{:?}", parts.parts);
    let joined: Vec<u8> = parts
        .parts
        .iter()
        .flat_map(|name| parts.content(name))
        .collect();
    assert!(joined == package.bytes(), "parts are not the whole file");
    let checksum = parts.content("in-parts.tgz.sha256");
    assert_eq!(checksum, package.checksum());

    let setup = Setup::new("checksum").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let folder = daemon.setup.drop_dir.clone();
    let table = folder.join(&parts.table);
    // A part alone, in the middle; the table; all others, last first.
    parts.drop(&folder, &[&parts.parts[1]]);
    let reason = format!("waits for `{}`, the table of its parts", parts.table);
    wait_for_reason(&daemon, &table, &reason);
    parts.drop(&folder, &[&parts.table]);
    for name in parts.parts[2..].iter().rev() {
        parts.drop(&folder, &[name]);
    }
    let (total, first) = (parts.parts.len(), &parts.parts[0]);
    wait_for_reason(
        &daemon,
        &table,
        &format!("waits for 1 of {total} parts: `{first}`"),
    );
    // Missing parts have as much time as they need; only then the policy counts.
    parts.drop(&folder, &[first]);
    write(&folder.join("in-parts.tgz.sha256"), checksum);
    let status = daemon.wait_in_sync(1);
    let ready = &status["packages"][0];
    assert_eq!(ready["digest"], package.digest().to_string());
    assert_eq!(ready["file_name"], "in-parts.tgz");
    assert_eq!(ready["size_bytes"], package.bytes().len() as u64);
    assert_eq!(ready["provenance"]["by"], "checksum");
    assert_holds(&registry, &package);
    assert_eq!(daemon.setup.blobs(), blobs_of(&[&package]));
    let mut moved = parts.all();
    moved.push("in-parts.tgz.sha256");
    moved.sort_unstable();
    daemon.wait_until("move of all files", |_| {
        holds(&folder.join("done"), &moved) && holds(&folder, &["done"])
    });

    // The same package as one file.
    let checksum = [("sha256", package.checksum())];
    daemon
        .setup
        .drop_file("in-parts.tgz", &package.bytes(), &checksum);
    daemon.wait_for_log("package is known already");
    assert_eq!(daemon.status()["packages"].as_array().unwrap().len(), 1);
    daemon.stop();
}

#[test]
fn parts_are_waited_for_across_a_kill() {
    let package = Package::small("killed-parts");
    let parts = Split::of(&package);
    let daemon = Daemon::start(setup_without_delivery("none"));
    let folder = daemon.setup.drop_dir.clone();
    let table = folder.join(&parts.table);
    let reason = |missing: &[String]| {
        let (count, total) = (missing.len(), parts.parts.len());
        format!(
            "waits for {count} of {total} parts: `{}`",
            missing.join("`, `")
        )
    };
    parts.drop(&folder, &[&parts.table, &parts.parts[0]]);
    wait_for_reason(&daemon, &table, &reason(&parts.parts[1..]));
    let daemon = Daemon::start(daemon.kill());
    wait_for_reason(&daemon, &table, &reason(&parts.parts[1..]));
    let middle: Vec<&str> = parts.parts[2..].iter().map(String::as_str).collect();
    parts.drop(&folder, &middle);
    wait_for_reason(&daemon, &table, &reason(&parts.parts[1..2]));
    let setup = daemon.kill();
    parts.drop(&folder, &[&parts.parts[1]]);
    let daemon = Daemon::start(setup);
    wait_ready_whole(&daemon, &package);
    daemon.stop();
}

#[test]
fn every_damaged_part_is_named_and_new_copies_of_them_are_enough() {
    let package = Package::small("damaged");
    let parts = Split::of(&package);
    let daemon = Daemon::start(setup_without_delivery("none"));
    let folder = daemon.setup.drop_dir.clone();
    let (second, last) = (&parts.parts[1], parts.parts.last().unwrap());
    let mut flipped = parts.content(second);
    flipped[17] ^= 1;
    let mut cut = parts.content(last);
    cut.pop();
    for name in parts.all() {
        let content = match name {
            _ if name == second => flipped.clone(),
            _ if name == last => cut.clone(),
            _ => parts.content(name),
        };
        drop_into(&folder, (name, &content), &[]);
    }
    let reason_name = format!("{}.reason.json", parts.table);
    let mut all = parts.all();
    all.push(&reason_name);
    all.sort_unstable();
    let rejected = folder.join("rejected");
    daemon.wait_until("refusal", |_| {
        holds(&rejected, &all) && holds(&folder, &["rejected"])
    });
    let reason = reason_of(&rejected, &parts.table);
    assert_eq!(reason["code"], "part-damaged");
    let total = parts.parts.len();
    let expected =
        format!("expected {total} parts as the table says, found 2 damaged: `{second}`, `{last}`");
    assert_eq!(reason["reason"], expected);
    let status = daemon.status();
    let refused = dropped_file(&status, &folder.join(&parts.table)).unwrap();
    assert_eq!(
        (&refused["code"], &refused["reason"]),
        (&reason["code"], &reason["reason"])
    );
    assert_eq!(daemon.setup.blobs(), Vec::<String>::new());

    // Nobody can say what the whole would have been.
    let record = verdicts(&daemon.setup).remove(0);
    assert_eq!(record["verdict"], "refused");
    assert_eq!(record["refusal"]["code"], "part-damaged");
    assert_eq!(record["file_name"], "damaged.tgz");
    assert_eq!(record["digest"], Value::Null);
    assert_eq!(record["size_bytes"], package.bytes().len());

    // What was good is moved back, what was not is copied again.
    for name in parts.all() {
        if name == second || name == last {
            parts.drop(&folder, &[name]);
        } else {
            durable::move_file(&rejected.join(name), &folder.join(name)).unwrap();
        }
    }
    wait_ready_whole(&daemon, &package);
    daemon.stop();
}

#[test]
fn the_signature_is_over_the_whole_and_tables_cannot_reach_other_files() {
    let signer = Signer::new("packager");
    let package = Package::small("signed-parts");
    let parts = Split::of(&package);
    let setup = setup_without_delivery("signature").trust(&signer.certificate());
    let daemon = Daemon::start(setup);
    let folder = daemon.setup.drop_dir.clone();
    // A table that names another file, one that says too much, and one that vouches for other content.
    let good: Value = serde_json::from_slice(&parts.content(&parts.table)).unwrap();
    let named = |name: &str| {
        let mut table = good.clone();
        table["name"] = name.into();
        for (index, part) in table["parts"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .enumerate()
        {
            part["name"] = format!("{name}.{:03}", index + 1).into();
        }
        table
    };
    let mut reaching = named("reaching.tgz");
    reaching["parts"][0]["name"] = "../violetd.toml".into();
    let mut huge = named("huge.tgz");
    huge["size_bytes"] = u64::MAX.into();
    let many = named("many.tgz").to_string();
    let many = many + &" ".repeat(1 << 20);
    for (name, content, code) in [
        ("reaching.tgz", reaching.to_string(), "parts-part-name"),
        ("huge.tgz", huge.to_string(), "parts-size"),
        ("many.tgz", many, "parts-table-too-large"),
        (
            "other.tgz",
            good.to_string(),
            "parts-table-of-other-package",
        ),
        (
            "cut.tgz",
            good.to_string()[..99].to_owned(),
            "parts-table-malformed",
        ),
    ] {
        let table = format!("{name}.parts");
        drop_into(&folder, (&table, content.as_bytes()), &[]);
        let reason = wait_refused(&daemon, &table);
        assert_eq!(reason["code"], code, "{reason:#}");
    }
    // Good parts without a signature: refused, with everything that belongs to them.
    parts.drop(&folder, &parts.all());
    let reason = wait_refused(&daemon, &parts.table);
    daemon.wait_until("move of what is not signed", |_| {
        holds(&folder, &["rejected"])
    });
    assert_eq!(reason["code"], "no-signature");
    let record = verdicts(&daemon.setup).pop().unwrap();
    assert_eq!(record["refusal"]["code"], "no-signature");
    assert_eq!(record["file_name"], "signed-parts.tgz");
    assert_eq!(record["digest"], package.digest().to_string());
    let signature = signer.sign(&package.path);
    write(&folder.join("signed-parts.tgz.sig"), signature);
    parts.drop(&folder, &parts.all());
    let status = wait_ready(&daemon, 1);
    assert_eq!(status["packages"][0]["provenance"]["by"], "signature");
    daemon.stop();
}

#[test]
fn verify_and_show_take_a_table_for_the_whole() {
    let package = Package::small("shown-parts");
    let parts = Split::of(&package);
    let table = parts.path(&parts.table);
    let (table, whole) = (table.to_str().unwrap(), package.path.to_str().unwrap());
    let show = |path: &str| run_program(&["show", "--all", path]).stdout;
    assert!(!show(whole).is_empty());
    assert_eq!(show(table), show(whole));
    let verify = |path: &str| {
        let output = run_program(&["verify", "--output", "json", path]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = verify(table);
    assert_eq!((code, &said["files"][0]["path"]), (Some(0), &table.into()));
    assert_eq!(said["files"][0]["verdict"], "checksum");
    assert_eq!(said["files"][0]["digest"], package.digest().to_string());
    // A folder: parts are no packages by themselves.
    let (code, in_folder) = verify(parts.dir.path().to_str().unwrap());
    assert_eq!((code, &in_folder["files"]), (Some(0), &said["files"]));
    let mut content = parts.content(&parts.parts[0]);
    content[0] ^= 1;
    write(&parts.path(&parts.parts[0]), content);
    let (code, said) = verify(table);
    assert_eq!(
        (code, &said["files"][0]["code"]),
        (Some(1), &"part-damaged".into())
    );
    let output = run_program(&["show", table]);
    assert!(!output.status.success());
}

#[test]
fn a_name_or_a_size_that_cannot_be_split_is_a_usage_error() {
    let package = Package::small("odd-split");
    let folder = package.path.with_extension("");
    let out = tempfile::tempdir().unwrap();
    let split = |name: &str, size: &str| {
        let output = out.path().join(name);
        let arguments = [
            "package",
            folder.to_str().unwrap(),
            "--output",
            output.to_str().unwrap(),
        ];
        run_program(&[&arguments[..], &["--split", size]].concat())
    };
    for (name, size) in [("x", "1MiB"), ("x.tgz", "0"), ("x.tgz", "40")] {
        let output = split(name, size);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{name} in {size}: {said}");
        assert_eq!(names(out.path()), Vec::<String>::new(), "{name} in {size}");
    }
}

/// Holds up every opening of some files by a process, until it is dropped.
struct Brake(Child);

impl Brake {
    fn on(pid: u32, paths: &[PathBuf]) -> Self {
        let inject = format!("openat:delay_enter={DELAY_MICROSECONDS}");
        Self(strace(pid, paths, &inject))
    }
}

impl Drop for Brake {
    fn drop(&mut self) {
        // To be passed on to strace, which lets go of the process.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        drop(self.0.wait());
    }
}

/// Lets a daemon verify a file, swaps one in the moment before it is unpacked, and returns the code of the refusal that
/// follows once the daemon has looked at it anew.
fn swap_in_between(daemon: &Daemon, dropped: &Path, swapped: &Path, content: &[u8]) -> String {
    daemon.wait_for_log("file is verified");
    write(swapped, content);
    daemon.wait_for_log("file-changed");
    assert_eq!(daemon.setup.blobs(), Vec::<String>::new());
    let name = dropped.file_name().unwrap().to_str().unwrap();
    let reason = wait_refused(daemon, name);
    assert_eq!(daemon.setup.blobs(), Vec::<String>::new());
    assert_eq!(daemon.status()["packages"].as_array().unwrap().len(), 0);
    reason["code"].as_str().unwrap().to_owned()
}

#[test]
fn a_file_swapped_between_verification_and_unpacking_is_caught() {
    let package = Package::small("swapped");
    let good = package.bytes();
    let mut same_size = good.clone();
    same_size[4] ^= 1;
    let other = Package::small("swapped-for-this").bytes();
    assert_ne!(good.len(), other.len());
    for content in [same_size, other] {
        let setup = setup_without_delivery("checksum").variable("VIOLETD_LOG__LEVEL", "debug");
        let daemon = Daemon::start(setup);
        let path = daemon.setup.drop_dir.join("swapped.tgz");
        let brake = Brake::on(daemon.pid(), std::slice::from_ref(&path));
        let checksum = [("sha256", package.checksum())];
        daemon.setup.drop_file("swapped.tgz", &good, &checksum);
        let code = swap_in_between(&daemon, &path, &path, &content);
        assert_eq!(code, "checksum-mismatch");
        drop(brake);
        daemon.stop();
    }
}

#[test]
fn a_part_swapped_between_verification_and_unpacking_is_caught() {
    let package = Package::small("swapped-part");
    let parts = Split::of(&package);
    let setup = setup_without_delivery("checksum").variable("VIOLETD_LOG__LEVEL", "debug");
    let daemon = Daemon::start(setup);
    let folder = daemon.setup.drop_dir.clone();
    let (first, last) = (&parts.parts[0], parts.parts.last().unwrap());
    let brake = Brake::on(daemon.pid(), &[folder.join(first)]);
    write(&folder.join("swapped-part.tgz.sha256"), package.checksum());
    parts.drop(&folder, &parts.all());
    let mut content = parts.content(last);
    content[0] ^= 1;
    let table = folder.join(&parts.table);
    let code = swap_in_between(&daemon, &table, &folder.join(last), &content);
    assert_eq!(code, "part-damaged");
    drop(brake);
    daemon.stop();
}
