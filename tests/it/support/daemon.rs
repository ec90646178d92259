//! The daemon as its users have it: a process with a configuration file, a drop folder and a state directory.
//!
//! [`Setup`] is what stays when the process goes: folders and configuration. [`Daemon`] is the process. Stopping or
//! killing it gives the setup back, from which another one starts over the same state.
//!
//! # Waiting
//!
//! [`Daemon::wait_until`] looks at `violetd status` again whenever the daemon has logged something, and now and then
//! without that. When it gives up it shows the last status and the end of the log.

use std::fmt::{Display, Write as _};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};
use violetd::sys::fs as durable;

use super::packages::{Package, program};
use super::{PATIENCE, write};

/// How long to wait for a line of the log before the status is looked at again: not everything that happens is logged.
const LOOK: Duration = Duration::from_millis(100);
/// How many lines of the log a failed test shows.
const LINES_SHOWN: usize = 60;

/// Folders and configuration of a daemon.
#[derive(Debug)]
pub(crate) struct Setup {
    dir: TempDir,
    /// Where packages are dropped.
    pub(crate) drop_dir: PathBuf,
    /// Blobs and catalog.
    pub(crate) state_dir: PathBuf,
    sections: String,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// Returns a setup without targets whose drop folder has this policy.
    pub(crate) fn new(policy: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let setup = Self {
            drop_dir: dir.path().join("drop"),
            state_dir: dir.path().join("state"),
            dir,
            sections: String::new(),
            environment: Vec::new(),
        };
        let path = setup.drop_dir.clone();
        setup.folder(&path, policy)
    }

    /// Adds a drop folder.
    pub(crate) fn folder(self, path: &Path, policy: &str) -> Self {
        durable::ensure_dir_all(path).unwrap();
        let path = path.display();
        self.section(&format!(
            "[[drop]]\npath = '{path}'\npolicy = '{policy}'\nsettle = '50ms'\nsidecar_wait = '300ms'\n"
        ))
    }

    /// Adds a target at a registry over HTTP that asks for no login. `keys` are more keys of the target; without a
    /// schedule among them it has one that is hardly ever due.
    pub(crate) fn target(
        self,
        name: &str,
        role: &str,
        registry: impl Display + Copy,
        keys: &str,
    ) -> Self {
        let schedule = if keys.contains("schedule = ") {
            ""
        } else {
            "schedule = '0 0 29 2 *'\n"
        };
        self.section(&format!(
            "[[target]]\nname = '{name}'\nrole = '{role}'\n{schedule}{keys}\n\
             registry.address = '{registry}'\nregistry.plain_http = true\nregistry.no_auth = true\n"
        ))
    }

    /// Adds to the configuration file.
    pub(crate) fn section(mut self, text: &str) -> Self {
        self.sections.push('\n');
        self.sections.push_str(text);
        self
    }

    /// Sets a variable in the environment of the daemon.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps the state elsewhere.
    pub(crate) fn state_dir(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.state_dir);
        self
    }

    /// Writes a file for the configuration to name, readable by its owner only.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        durable::replace_file(&path, content.as_ref(), 0o600).unwrap();
        path
    }

    /// Returns a path beside the drop folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Drops a file with its sidecars, see [`drop_into`].
    pub(crate) fn drop_file(
        &self,
        name: &str,
        content: &[u8],
        sidecars: &[(&str, Vec<u8>)],
    ) -> PathBuf {
        drop_into(&self.drop_dir, (name, content), sidecars)
    }

    /// Drops a package under its own name, without sidecars.
    pub(crate) fn drop_package(&self, package: &Package) -> PathBuf {
        let name = package.path.file_name().unwrap().to_str().unwrap();
        self.drop_file(name, &package.bytes(), &[])
    }

    /// Returns the hexadecimal digests of the blobs in the store, sorted.
    pub(crate) fn blobs(&self) -> Vec<String> {
        let shards = self.state_dir.join("blobs/sha256");
        let shards = names(&shards).into_iter().map(|shard| shards.join(shard));
        let mut blobs: Vec<String> = shards.flat_map(|shard| names(&shard)).collect();
        blobs.sort();
        blobs
    }

    /// Runs a command of the program with this configuration.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        command.output().unwrap()
    }

    /// Runs `violetd serve` that is expected to refuse. Returns its exit code and what it said.
    pub(crate) fn refuse_to_serve(&self) -> (Option<i32>, String) {
        let (status, log) = Process::start(self.command(&["serve"])).wait();
        (status.code(), log.tail())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let path = self.path("violetd.toml");
        let (state, socket) = (self.state_dir.display(), self.socket());
        let keyring = self.path("keys");
        // Machines that build may have little space left, and tests need less.
        let disk = if self.sections.contains("[disk]") {
            ""
        } else {
            "disk = {low_bytes = '64MiB', critical_bytes = '16MiB'}\n"
        };
        let mut text = NamedTempFile::new_in(self.path("")).unwrap();
        write!(
            text,
            "state_dir = '{state}'\nlog.format = 'text'\nadmin.socket = '{}'\n\
             verify.keyring = ['{}']\n\
             replicate = {{attempts_max = 1, retry_first = '200ms', retry_max = '1s'}}\n{disk}{}",
            socket.display(),
            keyring.display(),
            self.sections
        )
        .unwrap();
        // A command on another thread may be reading it.
        text.persist(&path).unwrap();
        durable::ensure_dir_all(&keyring).unwrap();
        let mut command = program();
        command
            .args(arguments)
            .arg("--config")
            .arg(path)
            .envs(self.environment.iter().cloned());
        command
    }

    /// Adds a certificate to the keyring.
    pub(crate) fn trust(self, certificate: &[u8]) -> Self {
        let keyring = self.path("keys");
        durable::ensure_dir_all(&keyring).unwrap();
        let number = names(&keyring).len();
        write(&keyring.join(format!("{number}.asc")), certificate);
        self
    }

    fn socket(&self) -> PathBuf {
        self.path("admin.sock")
    }
}

/// A running daemon. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Process,
    /// What it runs on.
    pub(crate) setup: Setup,
}

impl Daemon {
    /// Starts a daemon and waits until it says that it is ready and answers.
    pub(crate) fn start(setup: Setup) -> Self {
        let process = Process::start(setup.command(&["serve"]));
        process.log.wait_for("daemon is ready");
        let daemon = Self { process, setup };
        daemon.status();
        daemon
    }

    /// Returns what `violetd status` says.
    pub(crate) fn status(&self) -> Value {
        let output = self.setup.run(&["status", "--output", "json"]);
        assert!(
            output.status.success(),
            "no status: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.process.log.tail()
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until the status is as wanted, and returns it.
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.wait_longer_until(PATIENCE, what, is_so)
    }

    fn wait_longer_until(
        &self,
        patience: Duration,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + patience;
        loop {
            let seen = self.process.log.count();
            let status = self.status();
            if is_so(&status) {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{what} did not happen within {patience:?}\n{status:#}\n{}",
                self.process.log.tail()
            );
            self.process.log.wait_for_more_than(seen, LOOK);
        }
    }

    /// Waits until this many packages are ready and every target holds all of them.
    pub(crate) fn wait_in_sync(&self, packages: usize) -> Value {
        self.wait_longer_in_sync(PATIENCE, packages)
    }

    /// As [`Self::wait_in_sync`], for what takes longer.
    pub(crate) fn wait_longer_in_sync(&self, patience: Duration, packages: usize) -> Value {
        self.wait_longer_until(
            patience,
            &format!("sync of {packages} packages"),
            |status| {
                let ready = status["packages"].as_array().unwrap().len();
                ready == packages && status["is_in_sync"] == true && is_quiet(status)
            },
        )
    }

    /// Asks for runs of all targets and waits until they have ended. Returns the status after them.
    pub(crate) fn sync(&self) -> Value {
        let before = self.status();
        let output = self.setup.run(&["sync"]);
        assert!(output.status.success(), "{output:?}");
        self.wait_until("requested runs", |status| {
            let targets = status["targets"].as_array().unwrap().iter();
            let started = |target: &Value| target["last_run"]["started_at"].clone();
            let mut pairs = targets.zip(before["targets"].as_array().unwrap());
            is_quiet(status)
                && pairs.all(|(after, before)| {
                    started(after) != started(before) && after["last_run"]["reason"] == "request"
                })
        })
    }

    /// Returns `/metrics`, asked for over the admin socket.
    pub(crate) fn metrics(&self) -> String {
        let stream = UnixStream::connect(self.setup.socket()).unwrap();
        let (status, body) = get(stream, "/metrics");
        assert_eq!(status, 200);
        String::from_utf8(body).unwrap()
    }

    /// Returns the lines of the log so far that contain `text`.
    pub(crate) fn log_lines(&self, text: &str) -> Vec<String> {
        let lines = self.process.log.state.lock().unwrap();
        let lines = lines.lines.iter().filter(|line| line.contains(text));
        lines.cloned().collect()
    }

    /// Waits until the log has a line that contains `text`.
    pub(crate) fn wait_for_log(&self, text: &str) {
        self.process.log.wait_for(text);
    }

    /// Returns the number of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Ends the daemon as a service manager does, which must end well.
    pub(crate) fn stop(self) -> Setup {
        let pid = Pid::from_child(&self.process.child);
        kill_process(pid, Signal::TERM).unwrap();
        let (status, log) = self.process.wait();
        assert!(status.success(), "{status}\n{}", log.tail());
        self.setup
    }

    /// Kills the daemon with SIGKILL.
    pub(crate) fn kill(self) -> Setup {
        let Self { mut process, setup } = self;
        process.child.kill().unwrap();
        process.wait();
        setup
    }
}

/// Returns whether no target is busy.
fn is_quiet(status: &Value) -> bool {
    let mut targets = status["targets"].as_array().unwrap().iter();
    targets.all(|target| target["running"].is_null())
}

/// A process and what it says on standard error.
#[derive(Debug)]
struct Process {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().unwrap();
        let reader = std::thread::spawn({
            let log = Arc::clone(&log);
            move || log.fill(stderr)
        });
        Self {
            child,
            log,
            reader: Some(reader),
        }
    }

    /// Waits until the process has ended. Returns how, and its whole log.
    fn wait(mut self) -> (ExitStatus, Arc<Log>) {
        self.log.wait_for_end();
        let status = self.child.wait().unwrap();
        (status, Arc::clone(&self.log))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

/// What a process has said.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    has_ended: bool,
}

impl Log {
    fn fill(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            self.state.lock().unwrap().lines.push(line);
            self.changed.notify_all();
        }
        self.state.lock().unwrap().has_ended = true;
        self.changed.notify_all();
    }

    fn count(&self) -> usize {
        self.state.lock().unwrap().lines.len()
    }

    /// Waits until there are more lines than `count`, or `timeout` is over.
    fn wait_for_more_than(&self, count: usize, timeout: Duration) {
        let state = self.state.lock().unwrap();
        let is_same = |lines: &mut Lines| lines.lines.len() <= count && !lines.has_ended;
        drop(self.changed.wait_timeout_while(state, timeout, is_same));
    }

    fn wait_for(&self, text: &str) {
        let is_said = |lines: &Lines| lines.lines.iter().any(|line| line.contains(text));
        let lines = self.wait_while(|lines| !is_said(lines) && !lines.has_ended);
        let is_said = is_said(&lines);
        drop(lines);
        assert!(is_said, "expected `{text}` in the log\n{}", self.tail());
    }

    fn wait_for_end(&self) {
        let lines = self.wait_while(|lines| !lines.has_ended);
        let has_ended = lines.has_ended;
        drop(lines);
        assert!(has_ended, "process does not end\n{}", self.tail());
    }

    fn wait_while(
        &self,
        mut is_early: impl FnMut(&Lines) -> bool,
    ) -> std::sync::MutexGuard<'_, Lines> {
        let state = self.state.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(state, PATIENCE, |lines| is_early(lines));
        waited.unwrap().0
    }

    /// Returns the last lines.
    fn tail(&self) -> String {
        let state = self.state.lock().unwrap();
        let from = state.lines.len().saturating_sub(LINES_SHOWN);
        let mut text = String::new();
        for line in &state.lines[from..] {
            writeln!(text, "  log: {line}").unwrap();
        }
        text
    }
}

/// Drops a file, by name and content, with its sidecars, by extension and content, into a folder. The file comes last.
pub(crate) fn drop_into(
    folder: &Path,
    (name, content): (&str, &[u8]),
    sidecars: &[(&str, Vec<u8>)],
) -> PathBuf {
    for (extension, content) in sidecars {
        write(&folder.join(format!("{name}.{extension}")), content);
    }
    // A name that the daemon leaves alone, until the file is whole.
    let part = folder.join(format!("{name}.part"));
    write(&part, content);
    let path = folder.join(name);
    durable::move_file(&part, &path).unwrap();
    path
}

/// Runs a command of the program without any configuration.
pub(crate) fn run_program(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

/// Returns what `violetd show` says of a package.
pub(crate) fn show(package: &Path) -> Value {
    let output = run_program(&["show", "--output", "json", package.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns why a file was refused: what lies beside it where it was moved to.
pub(crate) fn reason_of(rejected: &Path, name: &str) -> Value {
    let path = rejected.join(format!("{name}.reason.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Asks a plain HTTP server for a path. Returns status and content.
pub(crate) fn get(mut stream: impl Read + Write, path: &str) -> (u16, Vec<u8>) {
    // Version 1.0: neither chunks nor a connection that stays open. Registries answer with what is accepted.
    let accept =
        "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, */*";
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let body = answer.split_off(end.unwrap() + 4);
    let head = String::from_utf8(answer).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body)
}

/// Returns the value of a metric without labels.
pub(crate) fn metric(metrics: &str, name: &str) -> u64 {
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("no metric {name} in\n{metrics}"));
    value.parse().unwrap()
}

/// Returns the names in a folder, sorted; none where there is no folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
