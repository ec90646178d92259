//! What is left when the daemon is killed, and what becomes of it.
//!
//! Each round drops a package, kills `violetd serve` with SIGKILL at some moment, looks at what is on disk, starts the
//! daemon again over it and waits until everything is where it should be. What a moment is depends on progress, never
//! on time: bytes read, bytes staged, blobs published, bytes and manifests that have passed a proxy, the n-th system
//! call. Each round prints its moment and what was found.
//!
//! # Environment
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `VIOLETD_CRASH_ROUNDS` | rounds of each of the first two tests | 10 |
//! | `VIOLETD_CRASH_SEED` | seed of the random part of the moments | 1 |

#![expect(
    clippy::print_stdout,
    reason = "the moments are what a failed round is told apart by"
)]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use violetd::base::Digest;

use crate::daemon::assert_holds;
use crate::support::{
    Auth, Daemon, Images, PATIENCE, Package, Proxy, Setup, TestRegistry, names, noise,
};

/// Bytes of one large layer. Eight of them give the kills of a round something to hit.
const LAYER_BYTES: usize = 8 << 20;
/// Bytes of a layer that repeat. More than the window of DEFLATE, so that they cannot be compressed away.
const PERIOD_BYTES: usize = 64 << 10;

#[test]
fn a_daemon_killed_during_ingest_loses_nothing_and_keeps_no_half() {
    let package = package("crash-ingest");
    let mut random = Random::from_environment();
    let mut early = 0;
    for round in 0..rounds() {
        let moment = IngestMoment::choose(round, &package, &mut random);
        let (a, b) = (
            TestRegistry::start(Auth::None),
            TestRegistry::start(Auth::None),
        );
        let setup = setup(a.address(), b.address());
        setup.drop_package(&package);
        let mut victim = Victim::start(&setup, &[]);
        victim.wait_for(&moment, &setup);
        let was_ready = victim.kill();
        let remains = Remains::check(&setup);
        println!("ingest round {round}: killed at {moment:?}; {remains:?}, ready: {was_ready}");
        early += usize::from(!was_ready);
        converge(setup, &package, [&a, &b]);
    }
    // The last of ten moments is that the package is ready. Of the others one may come too late on a busy machine.
    assert_share(early, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_during_a_push_sends_nothing_twice_that_arrived_whole() {
    let package = package("crash-push");
    let mut random = Random::from_environment();
    let mut partial = 0;
    for round in 0..rounds() {
        let registries = [
            TestRegistry::start(Auth::None),
            TestRegistry::start(Auth::None),
        ];
        let proxies = [
            Proxy::start(registries[0].address()),
            Proxy::start(registries[1].address()),
        ];
        let setup = setup(proxies[0].address(), proxies[1].address());
        setup.drop_package(&package);
        let moment = PushMoment::choose(round, &package, &mut random);
        let mut victim = Victim::start(&setup, &[]);
        moment.wait(&proxies, &mut victim).await;
        victim.kill();
        let remains = Remains::check(&setup);
        let arrived = [0, 1].map(|at| list_held(&registries[at], &package));
        let counts = [arrived[0].len(), arrived[1].len()];
        println!(
            "push round {round}: killed at {moment:?}; {remains:?}, whole on the registries: {counts:?} blobs"
        );
        let is_partial =
            |held: &Vec<String>| !held.is_empty() && held.len() < package.images.blobs.len();
        partial += usize::from(arrived.iter().any(is_partial));
        for proxy in &proxies {
            proxy.take_requests();
        }
        converge(setup, &package, [&registries[0], &registries[1]]);
        for (proxy, arrived) in proxies.iter().zip(&arrived) {
            let requests = proxy.take_requests();
            let uploads = requests.iter().filter(|request| is_upload(request));
            let is_again = |request: &&String| arrived.iter().any(|hex| request.contains(hex));
            let again: Vec<&String> = uploads.filter(is_again).collect();
            assert!(again.is_empty(), "sent twice: {again:#?}");
        }
    }
    // The first moment is before the first large blob is whole, the last one may be when all is done.
    assert_share(partial, 6);
}

/// The state exists already, so that the system calls counted are those of a daemon that starts and ingests.
#[test]
fn a_daemon_killed_inside_of_a_system_call_loses_nothing() {
    let package = package("crash-call");
    // Counted by strace per thread, over a whole ingest of this package: write 270, renameat 40, fsync 30, fdatasync 10
    // in the busiest thread. The names that libraries choose for a rename differ.
    let calls = [
        ("write", [60, 200]),
        ("rename,renameat,renameat2", [8, 20]),
        ("fsync,fdatasync", [3, 12]),
    ];
    let (mut hits, mut early) = (0, 0);
    for (call, counts) in calls {
        for count in counts {
            let (a, b) = (
                TestRegistry::start(Auth::None),
                TestRegistry::start(Auth::None),
            );
            let setup = Daemon::start(setup(a.address(), b.address())).stop();
            setup.drop_package(&package);
            let inject = format!("inject={call}:signal=KILL:when={count}");
            let trace = format!("trace={call}");
            let mut victim = Victim::start(
                &setup,
                &[
                    "strace",
                    "-f",
                    "-o",
                    "/dev/null",
                    "-e",
                    &trace,
                    "-e",
                    &inject,
                ],
            );
            let was_hit = victim.wait_for_death("run ends");
            let was_ready = victim.kill();
            let remains = Remains::check(&setup);
            println!("call {count} of {call}: hit: {was_hit}; {remains:?}, ready: {was_ready}");
            hits += usize::from(was_hit);
            early += usize::from(was_hit && !was_ready);
            converge(setup, &package, [&a, &b]);
        }
    }
    assert!(hits >= 4, "kills: {hits}");
    assert!(early >= 3, "kills before the package was ready: {early}");
}

/// A moment of ingest.
#[derive(Debug)]
enum IngestMoment {
    /// The process has read this many bytes. It reads the package twice: to verify it, and to unpack it.
    Read(u64),
    /// Files that are not blobs yet hold this many bytes.
    Staged(u64),
    /// This many blobs are at their places.
    Published(usize),
    /// The log says so.
    Ready,
}

impl IngestMoment {
    fn choose(round: usize, package: &Package, random: &mut Random) -> Self {
        let bytes = package.images.total_bytes();
        let part = |step: u64, steps: u64, random: &mut Random| {
            bytes * step / steps + random.below(bytes / steps)
        };
        match round % 10 {
            at @ 0..=2 => Self::Read(part(at as u64, 3, random)),
            at @ 3..=6 => Self::Staged(part(at as u64 - 3, 4, random)),
            7 => Self::Published(1),
            8 => Self::Published(2 + as_usize(random.below(package.images.blobs.len() as u64 - 2))),
            _ => Self::Ready,
        }
    }

    fn has_come(&self, victim: &mut Victim, setup: &Setup) -> bool {
        match self {
            Self::Read(bytes) => victim.bytes_read() >= *bytes,
            Self::Staged(bytes) => staged(&setup.state_dir).1 >= *bytes,
            Self::Published(count) => setup.blobs().len() >= *count,
            Self::Ready => victim.has_said("package is ready"),
        }
    }
}

/// A moment of a push.
#[derive(Debug)]
enum PushMoment {
    /// This many bytes of content have passed one of the proxies.
    Passed { proxy: usize, bytes: u64 },
    /// This many requests that put a manifest have reached one of the proxies.
    Manifests { proxy: usize, count: usize },
    /// The log says that one run has ended.
    Ended,
}

impl PushMoment {
    fn choose(round: usize, package: &Package, random: &mut Random) -> Self {
        let bytes = package.images.total_bytes();
        let proxy = round % 2;
        match round % 10 {
            at @ 0..=6 => Self::Passed {
                proxy,
                bytes: bytes * at as u64 / 7 + random.below(bytes / 7),
            },
            7 => Self::Manifests { proxy, count: 1 },
            8 => Self::Manifests {
                proxy,
                count: 2 + as_usize(random.below(manifests(package) as u64 - 2)),
            },
            _ => Self::Ended,
        }
    }

    async fn wait(&self, proxies: &[Proxy; 2], victim: &mut Victim) {
        match self {
            Self::Passed { proxy, bytes } => proxies[*proxy].wait_for_uploaded_bytes(*bytes).await,
            Self::Manifests { proxy, count } => {
                let mut seen = 0;
                victim.watch(|_| {
                    let requests = proxies[*proxy].take_requests();
                    let puts = |request: &&String| {
                        request.starts_with("PUT ") && request.contains("/manifests/")
                    };
                    seen += requests.iter().filter(puts).count();
                    seen >= *count
                });
            }
            Self::Ended => victim.watch(|victim| victim.has_said("run ends")),
        }
    }
}

/// A daemon that is going to be killed.
#[derive(Debug)]
pub(crate) struct Victim {
    child: Child,
    incoming: Receiver<String>,
    lines: Vec<String>,
}

impl Victim {
    /// Starts a daemon, below the command `wrapper` where that is not empty.
    pub(crate) fn start(setup: &Setup, wrapper: &[&str]) -> Self {
        // Writes the configuration file, too.
        let checked = setup.run(&["config", "check"]);
        assert!(checked.status.success(), "{checked:?}");
        let config = setup.path("violetd.toml");
        let program = env!("CARGO_BIN_EXE_violetd");
        let words = wrapper.iter().copied().chain([program, "serve"]);
        let words: Vec<&str> = words.collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--config").arg(config);
        // Few blobs at a time, so that some are whole when others are not.
        command.env("VIOLETD_REPLICATE__CONCURRENCY", "2");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("failed to run {}: {error}; is it installed?", words[0])
            });
        let (sender, incoming) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Nobody listens to the last words of a victim.
                drop(sender.send(line));
            }
        });
        Self {
            child,
            incoming,
            lines: Vec::new(),
        }
    }

    fn wait_for(&mut self, moment: &IngestMoment, setup: &Setup) {
        self.watch(|victim| moment.has_come(victim, setup));
    }

    /// Looks again and again, so that nothing lies between the moment and its being noticed, until `has_come`.
    pub(crate) fn watch(&mut self, mut has_come: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !has_come(self) {
            let status = self.child.try_wait().unwrap();
            assert!(status.is_none(), "{status:?}: {:#?}", self.lines);
            assert!(Instant::now() < deadline, "no moment: {:#?}", self.lines);
            std::thread::yield_now();
        }
    }

    /// Waits until the process is dead or the log has a line that contains `text`. Returns whether it is dead.
    fn wait_for_death(&mut self, text: &str) -> bool {
        while let Some(line) = self.next_line() {
            let is_late = line.contains(text);
            self.lines.push(line);
            if is_late {
                return false;
            }
        }
        true
    }

    /// Returns the next line of the log; nothing where it ends.
    fn next_line(&self) -> Option<String> {
        match self.incoming.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("silence after {:#?}", self.lines),
        }
    }

    fn has_said(&mut self, text: &str) -> bool {
        self.count(text) > 0
    }

    /// Returns how many lines of the log so far contain `text`.
    pub(crate) fn count(&mut self, text: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }

    /// Returns the log so far.
    pub(crate) fn lines(&mut self) -> &[String] {
        self.lines.extend(self.incoming.try_iter());
        &self.lines
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns how many bytes the process has read from files and connections.
    fn bytes_read(&self) -> u64 {
        self.figure("rchar")
    }

    /// Returns how many bytes the process has read from and written to files and connections.
    pub(crate) fn bytes_moved(&self) -> u64 {
        self.figure("rchar") + self.figure("wchar")
    }

    fn figure(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/io", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines().filter_map(|line| line.split_once(": "));
        let (_, count) = lines.find(|(found, _)| *found == name).unwrap();
        count.parse().unwrap()
    }

    /// Kills the process, if it is not dead yet, and returns whether it had said that the package is ready.
    fn kill(self) -> bool {
        let lines = self.die();
        lines.iter().any(|line| line.contains("package is ready"))
    }

    /// Kills the process, if it is not dead yet, and returns its whole log.
    pub(crate) fn die(mut self) -> Vec<String> {
        let status = self.end();
        assert!(!status.success(), "{status}: {:#?}", self.lines);
        while let Some(line) = self.next_line() {
            self.lines.push(line);
        }
        std::mem::take(&mut self.lines)
    }

    fn end(&mut self) -> ExitStatus {
        // An error means that it is gone already.
        drop(self.child.kill());
        self.child.wait().unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a dead daemon leaves in its state directory.
#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
struct Remains {
    blobs: usize,
    staged_files: usize,
    staged_bytes: u64,
    is_in_drop_folder: bool,
}

impl Remains {
    /// Fails the test unless every blob has the digest that its name says.
    fn check(setup: &Setup) -> Self {
        let blobs = setup.blobs();
        for hex in &blobs {
            let path = setup.state_dir.join("blobs/sha256").join(&hex[..2]);
            assert_eq!(digest_of(&path.join(hex)), *hex);
        }
        let (staged_files, staged_bytes) = staged(&setup.state_dir);
        Self {
            blobs: blobs.len(),
            staged_files,
            staged_bytes,
            is_in_drop_folder: names(&setup.drop_dir) != ["done"],
        }
    }
}

/// Starts the daemon again and waits until both registries hold the package and the folders are tidy.
fn converge(setup: Setup, package: &Package, registries: [&TestRegistry; 2]) {
    let daemon = Daemon::start(setup);
    let name = package.path.file_name().unwrap().to_str().unwrap();
    let done = daemon.setup.drop_dir.join("done");
    let status = daemon.wait_until("recovery", |status| {
        status["is_in_sync"] == true
            && status["packages"].as_array().unwrap().len() == 1
            && names(&done) == [name]
    });
    let digest = package.digest();
    assert_eq!(status["packages"][0]["digest"], digest.to_string());
    assert_eq!(status["files"].as_array().unwrap().len(), 0, "{status:#}");
    let setup = daemon.stop();
    for registry in registries {
        assert_holds(registry, package);
    }
    let mut expected: Vec<String> = package.images.blobs.keys().map(Digest::hex).collect();
    expected.sort();
    assert_eq!(setup.blobs(), expected);
    Remains::check(&setup);
    assert_eq!(digest_of(&done.join(name)), digest.hex());
    assert_eq!(names(&setup.drop_dir), ["done"]);
    assert_eq!(staged(&setup.state_dir), (0, 0));
    assert_eq!(names(&setup.state_dir.join("quarantine")).len(), 0);
}

fn setup(primary: SocketAddr, standby: SocketAddr) -> Setup {
    Setup::new("none")
        .target("global-a", "primary", primary, "")
        .target("global-b", "standby", standby, "")
}

/// Packs three images in as many repositories, a small one and two large ones that share a layer.
fn package(name: &str) -> Package {
    let layer = |seed| noise(seed, PERIOD_BYTES).repeat(LAYER_BYTES / PERIOD_BYTES);
    let layers = |seeds: &[u64]| -> Vec<Vec<u8>> { seeds.iter().copied().map(layer).collect() };
    let mut images = Images::default();
    images.add("crash/bundle", "v1", &[noise(9, 2000)]);
    images.add("crash/server", "v1", &layers(&[1, 2, 3, 4, 5]));
    images.add("crash/agent", "v1", &layers(&[1, 6, 7, 8]));
    Package::operator(name, images)
}

/// Returns how many requests put the manifests of a package.
fn manifests(package: &Package) -> usize {
    let images = package.images.placed.iter();
    images.map(|image| image.manifests.len()).sum()
}

/// Lists the blobs of a package, manifests included, that a registry has whole on its disk, by their hexadecimal digests.
fn list_held(registry: &TestRegistry, package: &Package) -> Vec<String> {
    let blobs = registry.storage().join("docker/registry/v2/blobs/sha256");
    let wanted = package.images.blobs.keys().map(Digest::hex);
    wanted
        .filter(|hex| blobs.join(&hex[..2]).join(hex).join("data").exists())
        .collect()
}

/// Returns whether a request brings the content of a blob.
fn is_upload(request: &str) -> bool {
    request.starts_with("PUT ") && request.contains("/blobs/uploads/")
}

/// Returns number and size of the files below `ingest/`. They come and go while they are counted.
fn staged(state_dir: &Path) -> (usize, u64) {
    let Ok(entries) = std::fs::read_dir(state_dir.join("ingest")) else {
        return (0, 0);
    };
    let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    sizes.fold((0, 0), |(count, sum), size| (count + 1, sum + size))
}

fn digest_of(path: &Path) -> String {
    Digest::of(&std::fs::read(path).unwrap()).hex()
}

/// Fails the test unless this many of every ten rounds were killed where there was something to break. A few rounds
/// prove nothing either way.
fn assert_share(hits: usize, of_ten: usize) {
    let rounds = rounds();
    let is_enough = rounds < 10 || hits * 10 >= rounds * of_ten;
    assert!(is_enough, "kills that hit: {hits} of {rounds}");
}

fn rounds() -> usize {
    from_environment("VIOLETD_CRASH_ROUNDS", 10)
}

pub(crate) fn from_environment<T: std::str::FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("expected a number in {name}, found {text}")),
        Err(_) => default,
    }
}

/// Numbers that look random and are the same for the same seed.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn from_environment() -> Self {
        let seed = from_environment("VIOLETD_CRASH_SEED", 1);
        println!("VIOLETD_CRASH_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let bytes = noise(self.0, 8).try_into().unwrap();
        self.0 = u64::from_le_bytes(bytes);
        self.0 % bound
    }
}

fn as_usize(number: u64) -> usize {
    usize::try_from(number).unwrap()
}
