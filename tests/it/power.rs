//! The power is cut while the real daemon works on a real ext4.
//!
//! The file system is in a file. At many moments the daemon is stopped, so that nothing new is asked of the kernel, and
//! the file is copied while it is mounted: what the kernel has not yet sent to the device is not in the copy. Mounting the
//! copy replays the journal, as after a power cut. An in-process model of file systems that promise less is in
//! `src/sys/power.rs`.
//!
//! # Environment
//!
//! `VIOLETD_POWER_CUTS`: how many copies are made, 5 by default. `VIOLETD_CRASH_SEED`: seed of the moments.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use violetd::base::Digest;
use violetd::sys::fs as durable;

use crate::crash::{Random, Victim, from_environment};
use crate::soak::{Works, listed, ready_in};
use crate::support::{Daemon, Package, Setup, assert_whole, drop_into, names, run};

/// Size of the file system, in bytes: what the daemon leaves free, and as much again. Most of it is never written.
const DISK_BYTES: u64 = 4 << 30;
/// Makes a file system without writing what can be written later: the copies are as small as what is in it.
const MAKE: [&str; 6] = ["-q", "-F", "-E", "lazy_itable_init=1", "-J", "size=8"];
/// Packages that are taken in meanwhile.
const PACKAGES: usize = 6;

/// A file system in a file, mounted until it is dropped.
#[derive(Debug)]
struct Disk {
    mounted: PathBuf,
}

impl Disk {
    /// Mounts a file that holds a file system. An error says why that is not possible here.
    fn mount(file: &Path, mounted: PathBuf) -> Result<Self, String> {
        durable::ensure_dir_all(&mounted).unwrap();
        let mut mount = Command::new("mount");
        let output = mount.args(["-o", "loop"]).arg(file).arg(&mounted).output();
        match output {
            Ok(output) if output.status.success() => Ok(Self { mounted }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a test that fails may still have a daemon in there.
        let mut unmount = Command::new("umount");
        drop(unmount.arg("--lazy").arg(&self.mounted).output());
    }
}

#[test]
fn a_power_cut_leaves_every_package_that_was_ready_whole_and_takes_the_others_in_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    std::fs::File::create(&file)
        .and_then(|file| file.set_len(DISK_BYTES))
        .unwrap();
    run("e2fsprogs", Command::new("mkfs.ext4").args(MAKE).arg(&file));
    let disk = match Disk::mount(&file, dir.path().join("mounted")) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!(
                "not run: no file system can be mounted here: {}",
                reason.trim()
            );
            return;
        }
    };
    let mut random = Random::from_environment();
    let mut works = Works::default();
    let packages: Vec<Package> = (0..PACKAGES).map(|_| works.make(5, &mut random)).collect();
    let setup = site(&disk);
    // Made and dropped before the first cut, and durable.
    let setup = Daemon::start(setup).stop();
    for package in &packages {
        let name = package.path.file_name().unwrap().to_str().unwrap();
        drop_into(&disk.mounted.join("drop"), (name, &package.bytes()), &[]);
    }
    run(
        "coreutils",
        Command::new("sync").arg("-f").arg(&disk.mounted),
    );
    let cuts = cut(&setup, &packages, &file, &mut random);
    let mut ready_counts = Vec::new();
    for (number, (copy, ready)) in cuts.iter().enumerate() {
        let place = dir.path().join(format!("mounted-{number}"));
        let disk = Disk::mount(copy, place).unwrap();
        let what = format!("cut {number}");
        let held = assert_whole(&disk.mounted.join("state"), &what);
        assert!(ready.is_subset(&held), "{what}: {ready:?}, {held:?}");
        println!("{what}: {} ready, {} held", ready.len(), held.len());
        ready_counts.push(ready.len());
        recover(&disk, &packages, &what);
    }
    let is_early = |count: &usize| *count < PACKAGES;
    assert!(ready_counts.iter().any(is_early), "{ready_counts:?}");
}

/// Lets a daemon take the packages in, and copies the disk at several moments. Returns the copies, and which packages were
/// ready by then.
fn cut(
    setup: &Setup,
    packages: &[Package],
    file: &Path,
    random: &mut Random,
) -> Vec<(PathBuf, BTreeSet<Digest>)> {
    let count: u64 = from_environment("VIOLETD_POWER_CUTS", 5);
    let bytes: u64 = packages.iter().map(|it| it.images.total_bytes()).sum();
    // Each is read twice and written once.
    let step = bytes * 3 / count;
    let mut victim = Victim::start(setup, &[]);
    let mut cuts = Vec::new();
    for number in 0..count {
        let moment = step * number + random.below(step);
        victim.watch(|victim| {
            victim.bytes_moved() >= moment || victim.count("package is ready") == PACKAGES
        });
        let pid = Pid::from_raw(victim.pid().cast_signed()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        let ready = ready_in(victim.lines());
        let copy = file.with_extension(number.to_string());
        let mut command = Command::new("cp");
        run(
            "coreutils",
            command.arg("--sparse=always").args([file, &copy]),
        );
        kill_process(pid, Signal::CONT).unwrap();
        cuts.push((copy, ready));
    }
    victim.die();
    cuts
}

/// Starts a daemon on a copy, and waits until every package is ready and done.
fn recover(disk: &Disk, packages: &[Package], what: &str) {
    let daemon = Daemon::start(site(disk));
    let drop_dir = disk.mounted.join("drop");
    let status = daemon.wait_until("recovery", |status| {
        listed(status).len() == packages.len() && names(&drop_dir) == ["done"]
    });
    let expected: BTreeSet<Digest> = packages.iter().map(Package::digest).collect();
    let ready: BTreeSet<Digest> = listed(&status).into_iter().collect();
    assert_eq!(ready, expected, "{what}");
    daemon.stop();
    let state = disk.mounted.join("state");
    assert_eq!(assert_whole(&state, what), expected, "{what}");
    assert_eq!(names(&state.join("quarantine")).len(), 0, "{what}");
}

/// Returns a setup that keeps everything on a disk.
fn site(disk: &Disk) -> Setup {
    Setup::new("none")
        .folder(&disk.mounted.join("drop"), "none")
        .state_dir(&disk.mounted.join("state"))
        .target("global-a", "primary", "127.0.0.1:9", "on_ready = false")
}
