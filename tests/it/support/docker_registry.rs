//! The real registry, Debian package `docker-registry`, or whichever comes first in `PATH`.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use violetd::base::Secret;
use violetd::registry::{Credentials, Options, Retries, Timeouts, Transport};

use super::{Authority, Certificate, PATIENCE, TokenServer, missing, run, write};

/// The one user of registries and token servers.
pub(crate) const USERNAME: &str = "admin";
/// The password of [`USERNAME`].
pub(crate) const PASSWORD: &str = "correct horse";

/// How a registry wants to be told who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Auth<'a> {
    /// Not at all.
    None,
    /// Name and password with each request.
    Basic,
    /// Tokens of a token server, under this realm: a URL, or a path of the registry itself.
    Token(&'a TokenServer, &'a str),
}

/// What a registry lets its users do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything, deleting included.
    ReadWrite,
    /// Reading.
    ReadOnly,
}

/// A running registry with storage of its own. Killed when it is dropped.
///
/// ```text
/// let registry = TestRegistry::start(Auth::Basic);
/// let client = Client::new(registry.options())?;
/// ```
#[derive(Debug)]
pub(crate) struct TestRegistry {
    server: Child,
    address: SocketAddr,
    has_users: bool,
    dir: TempDir,
}

/// A registry that is yet to be started.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    auth: Auth<'a>,
    access: Access,
    certificate: Option<&'a Certificate>,
    clients: Option<&'a Authority>,
    address: SocketAddr,
    foreign_layers: &'static str,
    dir: TempDir,
}

impl TestRegistry {
    /// Starts an empty registry without TLS.
    pub(crate) fn start(auth: Auth<'_>) -> Self {
        Self::build(auth).start()
    }

    /// Returns a registry to be started with more choices.
    pub(crate) fn build(auth: Auth<'_>) -> Builder<'_> {
        Builder {
            auth,
            access: Access::ReadWrite,
            certificate: None,
            clients: None,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            foreign_layers: "",
            dir: TempDir::new().unwrap(),
        }
    }

    /// Returns where the registry listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns options for a client over plain HTTP, as [`USERNAME`] where the registry knows users. Its pauses are
    /// short, its patience is long.
    pub(crate) fn options(&self) -> Options {
        self.options_via(self.address)
    }

    /// Like [`TestRegistry::options`], for a client that talks to a proxy before the registry.
    pub(crate) fn options_via(&self, address: SocketAddr) -> Options {
        let credentials = self.has_users.then(|| Credentials {
            username: USERNAME.to_owned(),
            password: Secret::new(PASSWORD.to_owned()),
        });
        Options {
            credentials,
            ..quick_options(address)
        }
    }

    /// Has skopeo log in as [`USERNAME`] at a registry without TLS, and write that to a file.
    pub(crate) fn log_in(&self, path: &Path) {
        self.log_in_to("", path);
    }

    /// The same for a part of it, as `/team`.
    pub(crate) fn log_in_to(&self, namespace: &str, path: &Path) {
        let mut skopeo = Command::new("skopeo");
        skopeo
            .args(["login", "--tls-verify=false"])
            .args(["--username", USERNAME, "--password", PASSWORD])
            .arg("--authfile")
            .arg(path)
            .arg(format!("{}{namespace}", self.address));
        run("skopeo", &mut skopeo);
    }

    /// Returns the folder of the storage; `docker/registry/v2` is below it.
    pub(crate) fn storage(&self) -> &Path {
        self.dir.path()
    }

    /// Kills the server as a power cut would and starts it again over the same storage, at another port.
    pub(crate) fn restart(mut self, auth: Auth<'_>) -> Self {
        self.kill();
        let dir = std::mem::replace(&mut self.dir, TempDir::new().unwrap());
        Builder {
            dir,
            ..Self::build(auth)
        }
        .start()
    }

    /// Starts a server that was killed again over the same storage, at the same address. It must be one that nobody
    /// else gets in the meantime, see [`Builder::listen`].
    pub(crate) fn resume(mut self) -> Self {
        let dir = std::mem::replace(&mut self.dir, TempDir::new().unwrap());
        let builder = Self::build(Auth::None).listen(self.address);
        Builder { dir, ..builder }.start()
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.server), signal).unwrap();
    }

    /// Kills the server with SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // An error means that it is gone already.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns options for an anonymous client over plain HTTP with short pauses.
pub(super) fn quick_options(address: SocketAddr) -> Options {
    Options {
        retries: Retries {
            attempts_max: 4,
            backoff_first: Duration::from_millis(2),
            backoff_max: Duration::from_millis(20),
        },
        timeouts: Timeouts {
            connect: PATIENCE,
            idle: PATIENCE,
        },
        ..Options::new(address.to_string(), Transport::Http)
    }
}

impl<'a> Builder<'a> {
    /// Lets users do only this.
    pub(crate) fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Listens there. On another address than 127.0.0.1, where every other server and client of the tests gets its
    /// ports, a port stays free while the server is down.
    pub(crate) fn listen(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Takes manifests of which layers are fetched from URLs that match this. By default none is taken.
    pub(crate) fn foreign_layers(mut self, pattern: &'static str) -> Self {
        self.foreign_layers = pattern;
        self
    }

    /// Speaks TLS with this certificate.
    pub(crate) fn tls(mut self, certificate: &'a Certificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Asks clients for a certificate of this authority. Needs TLS.
    pub(crate) fn clients_of(mut self, authority: &'a Authority) -> Self {
        self.clients = Some(authority);
        self
    }

    /// Starts the server and waits until it listens.
    pub(crate) fn start(self) -> TestRegistry {
        let path = self.dir.path().join("registry.yml");
        write(&path, self.configuration());
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut server = command
            .spawn()
            .unwrap_or_else(|error| missing("docker-registry", &command, &error));
        let log = server.stderr.take().unwrap();
        let listening = listen_for_address(log);
        let address = listening.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            drop(server.kill());
            drop(server.wait());
            panic!("docker-registry does not listen: {error}");
        });
        TestRegistry {
            server,
            address: address.unwrap_or_else(|log| panic!("docker-registry ended:\n{log}")),
            has_users: !matches!(self.auth, Auth::None),
            dir: self.dir,
        }
    }

    fn configuration(&self) -> String {
        let dir = self.dir.path().display();
        let is_read_only = self.access == Access::ReadOnly;
        let mut text = format!(
            "version: 0.1\n\
             log: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage:\n  \
               filesystem: {{rootdirectory: {dir}}}\n  \
               delete: {{enabled: true}}\n  \
               maintenance: {{uploadpurging: {{enabled: false}}, readonly: {{enabled: {is_read_only}}}}}\n\
             http:\n  addr: '{}'\n",
            self.address
        );
        if let Some(Certificate { certificate, key }) = self.certificate {
            let (certificate, key) = (certificate.display(), key.display());
            let clients = self.clients.map_or(String::new(), |authority| {
                format!(", clientcas: [{}]", authority.path().display())
            });
            let tls = format!("certificate: {certificate}, key: {key}{clients}");
            writeln!(text, "  tls: {{{tls}}}").unwrap();
        }
        if !self.foreign_layers.is_empty() {
            let pattern = self.foreign_layers;
            writeln!(
                text,
                "validation: {{manifests: {{urls: {{allow: ['{pattern}']}}}}}}"
            )
            .unwrap();
        }
        match self.auth {
            Auth::None => {}
            Auth::Basic => {
                let path = self.dir.path().join("htpasswd");
                let mut htpasswd = Command::new("htpasswd");
                // docker-registry reads bcrypt only.
                htpasswd.args(["-Bbn", USERNAME, PASSWORD]);
                write(&path, run("apache2-utils", &mut htpasswd));
                let path = path.display();
                writeln!(text, "auth: {{htpasswd: {{realm: tests, path: {path}}}}}").unwrap();
            }
            Auth::Token(server, realm) => {
                let (service, issuer) = (TokenServer::SERVICE, TokenServer::ISSUER);
                let bundle = server.certificate().display().to_string();
                writeln!(
                    text,
                    "auth: {{token: {{realm: {realm:?}, service: {service}, issuer: {issuer}, rootcertbundle: {bundle}}}}}"
                )
                .unwrap();
            }
        }
        text
    }
}

/// Reads the log until the server says where it listens, and on to its end, so that the server never waits for us.
/// Sends the address, or the log if it ends before.
fn listen_for_address(log: ChildStderr) -> mpsc::Receiver<Result<SocketAddr, String>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut seen = String::new();
        let mut is_listening = false;
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if is_listening {
                continue;
            }
            if let Some(address) = parse_listening(&line) {
                is_listening = true;
                drop(sender.send(Ok(address)));
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        if !is_listening {
            drop(sender.send(Err(seen)));
        }
    });
    receiver
}

/// Finds the address in `... msg="listening on 127.0.0.1:41385, tls" ...`.
fn parse_listening(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    let end = rest.find([',', '"', ' ']).unwrap_or(rest.len());
    rest[..end].parse().ok()
}
