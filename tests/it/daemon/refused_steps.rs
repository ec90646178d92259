//! A disk that refuses one step of taking a package in, whichever it is: really full, or by a call that is made to fail.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::full_disk::{NO_MARKS, assert_sound};
use super::{blobs_of, setup_without_delivery, wait_ready};
use crate::support::{Daemon, Mount, PATIENCE, Package, Setup, may_mount, names, strace};

const MIB: u64 = 1 << 20;
/// Exit code where there is no space (`EX_CANTCREAT`).
const EXIT_FULL: Option<i32> = Some(73);
/// Packages for steps that something happens to, one each.
const STEPS: [&str; 8] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];

/// Stops the daemon at the first of these calls on these files, takes all the space there is, and lets it go on.
fn fill_at(daemon: &Daemon, disk: &Mount, refusal: &Refusal, drop_package: impl FnOnce()) {
    let inject = format!("{}:signal=STOP:when=1", refusal.calls);
    let mut strace = strace(daemon.pid(), &refusal.paths, &inject);
    drop_package();
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    // Every thread stops for a moment at each call that strace looks at.
    let mut looks = 0;
    while looks < 100 {
        looks = if is_stopped(daemon.pid()) {
            looks + 1
        } else {
            0
        };
        assert!(Instant::now() < deadline, "no stop at {}", refusal.what);
        std::thread::yield_now();
    }
    disk.fill();
    kill_process(pid, Signal::CONT).unwrap();
    kill_process(Pid::from_child(&strace), Signal::TERM).unwrap();
    strace.wait().unwrap();
    // Another thread may have come by before strace was gone.
    kill_process(pid, Signal::CONT).unwrap();
}

/// Returns whether all threads of a process are stopped.
fn is_stopped(pid: u32) -> bool {
    let threads = list_below(Path::new(&format!("/proc/{pid}/task")));
    threads.iter().all(|thread| {
        let status = std::fs::read_to_string(thread.join("status")).unwrap_or_default();
        status.contains("State:\tT") || status.contains("State:\tt")
    })
}

/// Drops a package that is known again and again, until the next line of the audit record needs another page.
fn fill_last_page(daemon: &Daemon, known: &Package) {
    // Lines of these packages are longer than that.
    let line_bytes_min = 600;
    let record = list_refusals(&daemon.setup, known)
        .swap_remove(2)
        .paths
        .remove(0);
    let size = || record.metadata().unwrap().len();
    for number in 0..200 {
        if size() % 4096 > 4096 - line_bytes_min {
            return;
        }
        let before = size();
        daemon
            .setup
            .drop_file(&format!("again-{number}.tgz"), &known.bytes(), &[]);
        daemon.wait_until("one more line", |_| size() > before);
    }
    panic!("expected the end of a page within 200 lines");
}

/// Starts a daemon on a full disk, which it refuses and explains, and again once there is space.
fn start_on_full(setup: Setup, disk: &Mount) -> Daemon {
    disk.fill();
    let (code, said) = setup.refuse_to_serve();
    assert_eq!(code, EXIT_FULL, "{said}");
    assert!(said.contains("hint: free space"), "{said}");
    disk.free();
    Daemon::start(setup)
}

/// Returns the line of the log that says why a package was not taken in, if it says so.
fn failure_of(daemon: &Daemon, name: &str) -> Option<String> {
    let lines = daemon.log_lines("package is not ingested yet");
    let mut lines = lines.into_iter();
    lines.find(|line| line.contains(&format!("/{name}.tgz")))
}

/// Whether a step that comes then fails differs: much of it needs no space.
#[test]
fn a_disk_that_fills_up_between_two_steps_leaves_nothing_half_and_all_goes_on_by_itself() {
    if !may_mount(
        "daemon::refused_steps::a_disk_that_fills_up_between_two_steps_leaves_nothing_half_and_all_goes_on_by_itself",
    ) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut disks = vec![Mount::tmpfs(&dir.path().join("tmpfs"), 64 * MIB)];
    disks.extend(Mount::ext4(&dir.path().join("ext4"), 64 * MIB));
    for disk in disks {
        let setup = setup_without_delivery("none")
            .state_dir(&disk.path().join("state"))
            .section(NO_MARKS);
        let daemon = Daemon::start(setup);
        let mut packages = vec![Package::small("before")];
        daemon.setup.drop_package(&packages[0]);
        wait_ready(&daemon, 1);
        let mut failed = Vec::new();
        for (round, name) in STEPS.into_iter().enumerate() {
            let package = Package::small(name);
            fill_last_page(&daemon, &packages[0]);
            let Some(refusal) = list_refusals(&daemon.setup, &package)
                .into_iter()
                .nth(round)
            else {
                break;
            };
            fill_at(&daemon, &disk, &refusal, || {
                daemon.setup.drop_package(&package);
            });
            let status = daemon.wait_until("an outcome", |status| {
                failure_of(&daemon, name).is_some()
                    || status["packages"].as_array().unwrap().len() > round + 1
            });
            if let Some(line) = failure_of(&daemon, name) {
                // Refused by the disk itself, or because it was seen in time.
                let is_full = ["No space left on device", "code=\"low-space\""];
                assert!(is_full.iter().any(|text| line.contains(text)), "{line}");
                failed.push((refusal.what, line));
            }
            assert!(
                status["packages"].as_array().unwrap().len() <= round + 2,
                "{status:#}"
            );
            disk.free();
            wait_ready(&daemon, round + 2);
            packages.push(package);
            daemon.wait_until("its place", |_| names(&daemon.setup.drop_dir) == ["done"]);
            assert_sound(&daemon.setup);
        }
        println!(
            "{}: where the disk was filled and what failed: {failed:#?}",
            disk.path().display()
        );
        assert!(packages.len() >= 8, "{}", packages.len());
        assert!(
            failed.iter().any(|(_, line)| line.contains("audit")),
            "{failed:?}"
        );
        let daemon = start_on_full(daemon.kill(), &disk);
        wait_ready(&daemon, packages.len());
        let setup = daemon.stop();
        assert_eq!(
            setup.blobs(),
            blobs_of(&packages.iter().collect::<Vec<_>>())
        );
        let verified = setup.run(&["audit", "verify"]);
        assert!(verified.status.success(), "{verified:?}");
    }
}

/// A step that the disk refuses, although there is space: by its files, and by what is refused of them.
struct Refusal {
    what: &'static str,
    paths: Vec<PathBuf>,
    calls: &'static str,
    /// A line of the log that says so.
    said: &'static str,
}

/// Lists the steps behind staging, in their order. Names of other files are not known before.
fn list_refusals(setup: &Setup, package: &Package) -> Vec<Refusal> {
    let state = &setup.state_dir;
    let last = |dir: &str, ending: &str| {
        let dir = state.join(dir);
        let name = names(&dir)
            .into_iter()
            .filter(|name| name.ends_with(ending))
            .max();
        dir.join(name.unwrap())
    };
    let blob = package.images.placed[0].root.digest.hex();
    let shard = state.join("blobs/sha256").join(&blob[..2]);
    let name = package.path.file_name().unwrap();
    let refusal = |what, paths: &[PathBuf], calls, said| Refusal {
        what,
        paths: paths.to_vec(),
        calls,
        said,
    };
    let not_yet = "package is not ingested yet";
    let record = format!("{}.json", package.digest().hex());
    let mut refusals = vec![
        refusal(
            "the name of a blob",
            &[shard.join(&blob)],
            "rename,renameat,renameat2",
            not_yet,
        ),
        refusal("the folder of a blob", &[shard], "fsync", not_yet),
        refusal(
            "a line on the audit record",
            &[last("audit", ".jsonl")],
            "write",
            not_yet,
        ),
        refusal(
            "the audit record",
            &[last("audit", ".jsonl")],
            "fdatasync",
            not_yet,
        ),
        refusal(
            "a write to the catalog",
            &[last("catalog", ".log")],
            "write",
            not_yet,
        ),
        refusal(
            "the catalog",
            &[last("catalog", ".log")],
            "fdatasync",
            not_yet,
        ),
        refusal(
            "the move of the file",
            &[setup.drop_dir.join(name)],
            "rename,renameat,renameat2",
            "file stays in the drop folder",
        ),
    ];
    let records = state.join("packages");
    if records.is_dir() {
        let paths = [records.join(record)];
        refusals.push(refusal(
            "the record of the package",
            &paths,
            "rename,renameat,renameat2",
            not_yet,
        ));
    }
    refusals
}

#[test]
fn a_step_that_the_disk_refuses_is_repeated_by_itself_whichever_it_is() {
    let mut daemon = Daemon::start(setup_without_delivery("none").section(NO_MARKS));
    daemon.setup.drop_package(&Package::small("before"));
    wait_ready(&daemon, 1);
    let mut packages = vec![Package::small("before")];
    for (round, name) in STEPS.into_iter().enumerate() {
        let package = Package::small(name);
        let Some(refusal) = list_refusals(&daemon.setup, &package)
            .into_iter()
            .nth(round)
        else {
            break;
        };
        let Refusal {
            what,
            paths,
            calls,
            said,
        } = refusal;
        let before = daemon.log_lines(said).len();
        let mut strace = strace(
            daemon.pid(),
            &paths,
            &format!("{calls}:error=ENOSPC:when=1"),
        );
        daemon.setup.drop_package(&package);
        daemon.wait_until(&format!("the refusal of {what}"), |_| {
            daemon.log_lines(said).len() > before
        });
        let lines = daemon.log_lines(said);
        assert!(
            lines.last().unwrap().contains("No space left on device"),
            "{what}: {lines:?}"
        );
        kill_process(Pid::from_child(&strace), Signal::TERM).unwrap();
        strace.wait().unwrap();
        wait_ready(&daemon, round + 2);
        packages.push(package);
        let file = format!("{name}.tgz");
        let done = daemon.setup.drop_dir.join("done");
        daemon.wait_until(&format!("its place after {what}"), |_| {
            names(&done).contains(&file)
        });
        assert_sound(&daemon.setup);
        // Whatever was refused is whole for the next process, too.
        daemon = Daemon::start(daemon.kill());
        let status = wait_ready(&daemon, round + 2);
        assert_eq!(
            status["files"].as_array().unwrap().len(),
            0,
            "{what}: {status:#}"
        );
    }
    assert!(packages.len() >= 8, "{}", packages.len());
    let setup = daemon.stop();
    assert_eq!(
        setup.blobs(),
        blobs_of(&packages.iter().collect::<Vec<_>>())
    );
    let verified = setup.run(&["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

fn list_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}
