//! Servers for tests, each started with one call and stopped when it is dropped.
//!
//! - [`TestRegistry`]: the real docker-registry, with or without TLS, passwords, tokens, writes.
//! - [`Distribution`]: keeps what came of an upload that was cut, or nothing, and counts.
//! - [`TokenServer`]: hands out the tokens that such a registry wants.
//! - [`Proxy`]: stands before a server, counts, and breaks or refuses what it is told to.
//! - [`RoughLine`]: a line to a server that breaks each connection which has carried enough.
//! - [`Scripted`]: a server that answers by a script and fails the test at any other request.
//! - [`Forward`] and [`Socks`]: proxies that a client is told to go through.
//! - [`Authority`]: issues certificates.
//! - [`Daemon`]: the program itself, with a configuration and folders of its own.
//! - [`Package`]: what is dropped, made by the program itself; [`Signer`] signs it.
//! - [`Mount`]: a file system of a given size.
//! - [`Workshop`]: where buildah, podman and skopeo make images.
//! - [`fake_acp`]: a platform with its login, its clusters and its controllers.
//!
//! All of them listen on free ports of the loopback interface. Nothing here sleeps: what takes time is awaited.

mod authority;
mod daemon;
mod distribution;
mod docker_registry;
pub(crate) mod fake_acp;
mod forward;
mod http;
mod limiter;
mod mount;
mod nginx;
mod packages;
mod proxy;
mod rough;
mod scripted;
mod socks;
mod token_server;
mod whole;
mod workshop;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub(crate) use self::authority::{Authority, Certificate};
pub(crate) use self::daemon::{
    Daemon, Setup, drop_into, get, metric, names, reason_of, run_program, show,
};
pub(crate) use self::distribution::{Behaviour, Distribution, Keeps, Mounts, Received};
pub(crate) use self::docker_registry::{Access, Auth, PASSWORD, TestRegistry, USERNAME};
pub(crate) use self::forward::Forward;
pub(crate) use self::http::serve;
pub(crate) use self::limiter::Limit;
pub(crate) use self::mount::{Mount, may_mount};
pub(crate) use self::nginx::Nginx;
pub(crate) use self::packages::{Images, Package, Placed, Signer, module_plugin, noise, program};
pub(crate) use self::proxy::{Fault, Proxy};
pub(crate) use self::rough::{Ending, RoughLine};
pub(crate) use self::scripted::{Scripted, Step, on};
pub(crate) use self::socks::Socks;
pub(crate) use self::token_server::{IDENTITY_TOKEN, TokenServer};
pub(crate) use self::whole::{assert_checked, assert_whole};
pub(crate) use self::workshop::{
    WORKSHOP_IMAGE, Workshop, digest_of_manifest, parts_of_manifest, raw_manifest, skopeo,
    skopeo_copy,
};

/// How long a test waits for something that must happen. Generous, because machines that build are slow.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Awaits `future`, and fails the test where it takes longer than [`PATIENCE`].
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen within {PATIENCE:?}"))
}

/// Runs a tool that must succeed, and returns what it printed.
pub(crate) fn run(package: &str, command: &mut Command) -> Vec<u8> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|error| missing(package, command, &error));
    assert!(
        status.success(),
        "{command:?}: {status}: {}",
        String::from_utf8_lossy(&stderr)
    );
    stdout
}

/// Interferes with system calls of a process on these files, as strace's `inject=` has it, and returns once it does.
/// Ends after [`PATIENCE`], with code 124.
pub(crate) fn strace(pid: u32, paths: &[PathBuf], inject: &str) -> Child {
    let calls = inject.split(':').next().unwrap_or_default();
    let mut strace = Command::new("timeout");
    strace.arg(PATIENCE.as_secs().to_string());
    strace.args(["strace", "-f", "-o", "/dev/null", "-p", &pid.to_string()]);
    for path in paths {
        strace.arg("-P").arg(path);
    }
    strace.args(["-e", &format!("trace={calls}")]);
    strace.args(["-e", &format!("inject={inject}")]);
    let mut child = strace
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| missing("strace", &strace, &error));
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("attached"), "strace: {line}");
    // Kept open: strace says more with each new thread, and would end where nobody listens.
    child.stderr = Some(stderr.into_inner());
    child
}

/// Fails the test for want of a tool.
pub(crate) fn missing(package: &str, command: &Command, error: &std::io::Error) -> ! {
    panic!(
        "failed to run {}: {error}; install the Debian package `{package}`",
        command.get_program().display()
    )
}

/// Writes a file of a server's set-up.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) {
    File::create(path)
        .unwrap()
        .write_all(content.as_ref())
        .unwrap();
}
