//! A folder with packages, keys and the programs that sign.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::base::{Clock as _, SystemClock, Timestamp};
use crate::verify::{
    Error, Keyring, Limits, PackageFile, Policy, Requirements, Source, Verdict, Verified,
    verify_file,
};

/// The content of `x.tgz`.
pub(super) const CONTENT: &[u8] = b"the content of a package";

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

/// A folder with a package `x.tgz`, a GnuPG home and keyrings. Ends GnuPG's agent when dropped.
pub(super) struct Bench {
    dir: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let killed = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.path("gnupg"))
            .args(["--kill", "all"])
            .status();
        assert!(std::thread::panicking() || killed.is_ok());
    }
}

/// Runs a program of the test bed and returns what it printed.
fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| {
        panic!("install the packages `gnupg` and `sq`: {command:?}: {error}")
    });
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

impl Bench {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(dir.path().join("gnupg"))
            .unwrap();
        let bench = Self { dir };
        bench.write("x.tgz", CONTENT);
        bench
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(super) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        use std::io::Write as _;
        let path = self.path(name);
        std::fs::File::create(&path)
            .unwrap()
            .write_all(content)
            .unwrap();
        path
    }

    /// Removes a sidecar. Tests may: what they made in a temporary folder is nobody's data.
    #[expect(clippy::disallowed_methods, reason = "a file of this test")]
    pub(super) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    fn gpg_command(&self) -> Command {
        let mut command = Command::new("gpg");
        command
            .current_dir(self.dir())
            .arg("--homedir")
            .arg(self.path("gnupg"))
            .args(["--yes", "--quiet", "--pinentry-mode", "loopback"])
            .args(["--passphrase", "", "--trust-model", "always"]);
        command
    }

    pub(super) fn gpg(&self, arguments: &[&str]) -> String {
        let output = run(self.gpg_command().arg("--batch").args(arguments));
        String::from_utf8(output).unwrap()
    }

    pub(super) fn sq(&self, arguments: &[&str]) {
        run(Command::new("sq").current_dir(self.dir()).args(arguments));
    }

    /// Runs `sq` and writes what it prints to a file.
    pub(super) fn sq_to(&self, file: &str, arguments: &[&str]) {
        let output = run(Command::new("sq").current_dir(self.dir()).args(arguments));
        self.write(file, &output);
    }

    /// Makes a key that never expires and returns its fingerprint.
    pub(super) fn key(&self, name: &str, algorithm: &str) -> String {
        self.gpg(&["--quick-gen-key", name, algorithm, "sign", "0"]);
        self.fingerprint_of(name)
    }

    /// Makes a key on 2025-01-01, for a time such as `30d`, or `0` for ever.
    pub(super) fn old_key(&self, name: &str, lifetime: &str) -> String {
        self.gpg_at(
            "20250101",
            &["--quick-gen-key", name, "ed25519", "sign", lifetime],
        );
        self.fingerprint_of(name)
    }

    /// Runs GnuPG at midnight of a day. The exclamation mark holds its clock, so that it stays midnight on a slow machine.
    pub(super) fn gpg_at(&self, day: &str, arguments: &[&str]) {
        let time = format!("{day}T000000!");
        self.gpg(&[&["--faked-system-time", &time], arguments].concat());
    }

    /// Returns the fingerprint of a certificate.
    pub(super) fn fingerprint_of(&self, name: &str) -> String {
        self.fingerprints_of(name).remove(0)
    }

    /// Returns the fingerprints of a certificate and of its subkeys.
    pub(super) fn fingerprints_of(&self, name: &str) -> Vec<String> {
        let listing = self.gpg(&["--with-colons", "--list-keys", name]);
        let lines = listing.lines().filter(|line| line.starts_with("fpr:"));
        lines
            .map(|line| line.split(':').nth(9).unwrap().to_owned())
            .collect()
    }

    /// Writes the certificate of a key to a file and returns its path.
    pub(super) fn export(&self, key: &str, file: &str) -> PathBuf {
        self.gpg(&["--output", file, "--export", key]);
        self.path(file)
    }

    /// Revokes a key as its owner does, for a reason as GnuPG numbers them: 0 none, 1 compromised, 2 superseded, 3 not
    /// used any more.
    pub(super) fn revoke(&self, key: &str, day: &str, reason: u8) {
        let time = format!("{day}T000000!");
        let arguments = ["--faked-system-time", &time, "--output", "revocation.asc"];
        let answers = format!("y\n{reason}\nin a test\n\ny\n");
        self.talk(&[&arguments[..], &["--gen-revoke", key]].concat(), &answers);
        self.gpg(&["--import", "revocation.asc"]);
    }

    /// Changes a key with the commands of `gpg --edit-key`.
    pub(super) fn edit(&self, key: &str, commands: &str) {
        self.talk(&["--edit-key", key], commands);
    }

    /// Runs GnuPG with answers to what it asks.
    fn talk(&self, arguments: &[&str], answers: &str) {
        use std::io::Write as _;
        let mut command = self.gpg_command();
        command
            .args(["--no-tty", "--command-fd", "0"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(answers.as_bytes()).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success(), "{arguments:?}");
    }

    /// Signs `x.tgz` with GnuPG.
    pub(super) fn sign(&self, key: &str, arguments: &[&str], sidecar: &str) {
        self.sign_file(key, arguments, sidecar, "x.tgz");
    }

    /// Signs a file with GnuPG.
    pub(super) fn sign_file(&self, key: &str, arguments: &[&str], sidecar: &str, file: &str) {
        let rest = [
            "--local-user",
            key,
            "--output",
            sidecar,
            "--detach-sign",
            file,
        ];
        self.gpg(&[arguments, &rest].concat());
    }

    /// Signs `x.tgz` with GnuPG at midnight of a day.
    pub(super) fn sign_at(&self, key: &str, day: &str, sidecar: &str) {
        let time = format!("{day}T000000!");
        self.sign(key, &["--faked-system-time", &time], sidecar);
    }

    pub(super) fn verify(&self, policy: Policy, keyring: &Keyring) -> Result<PackageFile, Error> {
        self.verify_as(&Requirements::new(policy), keyring, now())
    }

    pub(super) fn verify_as(
        &self,
        requirements: &Requirements,
        keyring: &Keyring,
        now: Timestamp,
    ) -> Result<PackageFile, Error> {
        let source = Source::File(self.path("x.tgz"));
        let verified = verify_file(&source, requirements, keyring, now);
        verified
            .map(Verified::into_inner)
            .map_err(|failure| *failure.error)
    }

    /// Returns the code of what is wrong, or `none`.
    pub(super) fn code(&self, policy: Policy, keyring: &Keyring) -> &'static str {
        self.verify(policy, keyring)
            .map_or_else(|error| error.code(), |_| "none")
    }

    /// Returns the verdict in a word, or the code of what is wrong.
    pub(super) fn word(&self, requirements: &Requirements, keyring: &Keyring) -> String {
        match self.verify_as(requirements, keyring, now()) {
            Ok(file) => match file.verdict {
                Verdict::Signature { signers } => format!("signature by {}", signers.len()),
                Verdict::Checksum { .. } => "checksum".to_owned(),
                Verdict::Unchecked => "unchecked".to_owned(),
            },
            Err(error) => error.code().to_owned(),
        }
    }
}

pub(super) fn keyring(files: &[PathBuf]) -> Keyring {
    Keyring::load(files, &Limits::default()).unwrap()
}
