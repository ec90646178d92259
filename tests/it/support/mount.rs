//! File systems of a given size, and what fills them.

#![expect(
    clippy::print_stderr,
    reason = "why a test is not run is said where its outcome is"
)]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;
use violetd::sys::disk;
use violetd::sys::fs as durable;

use super::run;

/// Set for a test that runs in a namespace of its own.
const NAMESPACE: &str = "VIOLETD_TEST_NAMESPACE";

/// Returns whether this process may mount file systems. Where it may not, the test of this name is run again in a user
/// namespace, where it may; where that is not possible either, says so.
pub(crate) fn may_mount(test: &str) -> bool {
    if geteuid().is_root() {
        return true;
    }
    let in_namespace = |command: &[&std::ffi::OsStr]| {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--user", "--map-root-user", "--mount"])
            .args(command);
        unshare.env(NAMESPACE, "1");
        unshare
    };
    let tried = in_namespace(&["true".as_ref()]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "not run: only root can mount file systems here, and there are no user namespaces for others"
        );
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let arguments = [
        program.as_os_str(),
        test.as_ref(),
        "--exact".as_ref(),
        "--nocapture".as_ref(),
    ];
    let status = in_namespace(&arguments).status().unwrap();
    assert!(status.success(), "{test} failed in a user namespace");
    false
}

/// A file system on a folder of its own. Gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Mounts a file system in memory.
    pub(crate) fn tmpfs(path: &Path, size_bytes: u64) -> Self {
        let options = format!("size={size_bytes}");
        Self::new(path, &["-t", "tmpfs", "-o", &options, "tmpfs"])
    }

    /// Shows a folder a second time, for reading only.
    pub(crate) fn read_only(path: &Path, of: &Path) -> Self {
        let mount = Self::new(path, &["--bind", of.to_str().unwrap()]);
        let mut remount = Command::new("mount");
        run("mount", remount.args(["-o", "remount,bind,ro"]).arg(path));
        mount
    }

    /// Mounts an ext4 file system in a file beside the folder. `None` where loop devices cannot be used, which it says.
    pub(crate) fn ext4(path: &Path, size_bytes: u64) -> Option<Self> {
        let image = path.with_extension("ext4");
        File::create(&image).unwrap().set_len(size_bytes).unwrap();
        run(
            "e2fsprogs",
            Command::new("mkfs.ext4")
                .args(["-q", "-m", "0", "-b", "4096"])
                .arg(&image),
        );
        durable::ensure_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        let output = mount
            .args(["-o", "loop"])
            .arg(&image)
            .arg(path)
            .output()
            .unwrap();
        if !output.status.success() {
            eprintln!(
                "not run on ext4: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            return None;
        }
        Some(Self(path.to_owned()))
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns how many bytes may still be written.
    pub(crate) fn available(&self) -> u64 {
        disk::space(&self.0).unwrap().available_bytes
    }

    /// Lets this much space be free, by a file that takes the rest.
    pub(crate) fn leave(&self, bytes: u64) {
        let ballast = self.ballast();
        durable::remove_file(&ballast).unwrap();
        let taken = self.available().saturating_sub(bytes);
        let zeros = vec![0; usize::try_from(taken).unwrap()];
        let mut file = File::create(&ballast).unwrap();
        // A file system that keeps its own records in the same space may be full a little earlier.
        drop(file.write_all(&zeros).and_then(|()| file.sync_all()));
    }

    /// Takes all the space there is, as far as a file can.
    pub(crate) fn fill(&self) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        let page = [0; 4096];
        while file.write_all(&page).is_ok() {}
        drop(file.sync_all());
    }

    /// Frees what was taken.
    pub(crate) fn free(&self) {
        durable::remove_file(&self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
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
