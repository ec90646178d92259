//! A disk that is full and a drop folder that cannot be written to.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;
use violetd::sys::fs as durable;

use super::{assert_holds, blobs_of, holds};
use crate::support::{
    Auth, Daemon, Images, Package, Setup, TestRegistry, drop_into, metric, names, noise, run, write,
};

const MIB: u64 = 1 << 20;

/// A file system on a folder of its own. Gone when it is dropped.
#[derive(Debug)]
struct Mount(PathBuf);

impl Mount {
    /// Mounts a file system in memory.
    fn tmpfs(path: &Path, size_bytes: u64) -> Self {
        let options = format!("size={size_bytes}");
        Self::new(path, &["-t", "tmpfs", "-o", &options, "tmpfs"])
    }

    /// Shows a folder a second time, for reading only.
    fn read_only(path: &Path, of: &Path) -> Self {
        let mount = Self::new(path, &["--bind", of.to_str().unwrap()]);
        let mut remount = Command::new("mount");
        run("mount", remount.args(["-o", "remount,bind,ro"]).arg(path));
        mount
    }

    fn new(path: &Path, arguments: &[&str]) -> Self {
        durable::ensure_dir_all(path).unwrap();
        run("mount", Command::new("mount").args(arguments).arg(path));
        Self(path.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a test that fails may still have a daemon in there.
        let mut unmount = Command::new("umount");
        drop(unmount.arg("--lazy").arg(&self.0).output());
    }
}

#[test]
fn a_full_disk_pauses_ingest_until_there_is_space() {
    if !geteuid().is_root() {
        eprintln!("not run: only root can mount a file system of a given size");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Mount::tmpfs(&dir.path().join("disk"), 64 * MIB);
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none")
        .state_dir(&disk.0.join("state"))
        .target("global-a", "primary", registry.address(), "")
        .section("[limits]\nfree_bytes_min = '1MiB'\n");
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
    let available = daemon.status()["disk"]["available_bytes"].as_u64().unwrap();
    let ballast = disk.0.join("ballast");
    write(
        &ballast,
        vec![0; usize::try_from(available - left).unwrap()],
    );

    let dropped = daemon.setup.drop_package(&package);
    let status = daemon.wait_until("a full disk", |status| {
        let reason = status["files"][0]["reason"].as_str();
        reason.is_some_and(|reason| reason.contains("bytes of free space"))
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

    durable::remove_file(&ballast).unwrap();
    daemon.wait_in_sync(1);
    assert_holds(&registry, &package);
    assert_eq!(daemon.setup.blobs(), blobs_of(&[&package]));
    daemon.stop();
}

#[test]
fn a_drop_folder_that_cannot_be_written_to_is_read_once() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none");
    // The daemon sees this folder only through a path that it cannot write to; files come by the other one.
    let (seen, writable) = (setup.path("seen"), setup.path("writable"));
    durable::ensure_dir_all(&writable).unwrap();
    let first = Package::small("first");
    drop_into(&writable, ("first.tgz", &first.bytes()), &[]);
    let (setup, _mount) = if geteuid().is_root() {
        let mount = Mount::read_only(&seen, &writable);
        (setup.folder(&seen, "none"), Some(mount))
    } else {
        std::fs::set_permissions(&writable, Permissions::from_mode(0o555)).unwrap();
        (setup.folder(&writable, "none"), None)
    };
    let setup = setup.target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    daemon.wait_in_sync(1);
    assert_holds(&registry, &first);
    daemon.wait_for_log("file stays in the drop folder");
    assert!(holds(&writable, &["first.tgz"]));

    // The next package makes the daemon look at the folder again, and so does the next start.
    std::fs::set_permissions(&writable, Permissions::from_mode(0o755)).unwrap();
    let second = Package::small("second");
    drop_into(&writable, ("second.tgz", &second.bytes()), &[]);
    let expected = if geteuid().is_root() {
        &["first.tgz", "second.tgz"][..]
    } else {
        &["done"][..]
    };
    daemon.wait_in_sync(2);
    let metrics = daemon.metrics();
    assert_eq!(metric(&metrics, "violetd_ingest_packages_ready_total"), 2);
    assert_eq!(
        metric(&metrics, "violetd_ingest_packages_repeated_total"),
        0
    );
    daemon.wait_until("its place of the second file", |_| {
        holds(&writable, expected)
    });

    let daemon = Daemon::start(daemon.stop());
    let third = Package::small("third");
    let folder = daemon.setup.drop_dir.clone();
    drop_into(&folder, ("third.tgz", &third.bytes()), &[]);
    daemon.wait_in_sync(3);
    let metrics = daemon.metrics();
    assert_eq!(metric(&metrics, "violetd_ingest_packages_ready_total"), 1);
    assert_eq!(
        metric(&metrics, "violetd_ingest_packages_repeated_total"),
        0
    );
    daemon.stop();
}
