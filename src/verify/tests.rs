//! Tests against signatures by real signers: GnuPG and Sequoia's `sq`.

#![cfg(test)]

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{
    Error, Fingerprint, Keyring, PackageFile, Policy, Verdict, Verified, summarize, verify_file,
};
use crate::base::{Class, Classified, Clock as _, Digest, SystemClock, Timestamp};

/// 2025-01-01, as GnuPG takes it.
const PAST: &str = "20250101T000000";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// A folder with packages, a GnuPG home and keyrings. Ends GnuPG's agent when dropped.
struct Bench {
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
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("install the packages `gnupg` and `sq`: {command:?}: {error}")
    });
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

impl Bench {
    fn new() -> Self {
        use std::os::unix::fs::DirBuilderExt as _;
        let dir = tempfile::tempdir().unwrap();
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(dir.path().join("gnupg"))
            .unwrap();
        let bench = Self { dir };
        bench.write("x.tgz", b"the content of a package");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        use std::io::Write as _;
        let path = self.path(name);
        std::fs::File::create(&path)
            .unwrap()
            .write_all(content)
            .unwrap();
        path
    }

    fn gpg(&self, arguments: &[&str]) -> String {
        run(Command::new("gpg")
            .current_dir(self.dir.path())
            .arg("--homedir")
            .arg(self.path("gnupg"))
            .args(["--batch", "--yes", "--quiet", "--pinentry-mode", "loopback"])
            .args(["--passphrase", "", "--trust-model", "always"])
            .args(arguments))
    }

    /// Makes a key that never expires and returns its fingerprint.
    fn key(&self, name: &str, algorithm: &str) -> String {
        self.gpg(&["--quick-gen-key", name, algorithm, "sign", "0"]);
        self.fingerprint_of(name)
    }

    /// Makes a key that expires on 2025-01-31.
    fn expired_key(&self, name: &str) -> String {
        let time = ["--faked-system-time", PAST];
        self.gpg(
            &[
                &time[..],
                &["--quick-gen-key", name, "ed25519", "sign", "30d"],
            ]
            .concat(),
        );
        self.fingerprint_of(name)
    }

    fn fingerprint_of(&self, name: &str) -> String {
        let listing = self.gpg(&["--with-colons", "--list-keys", name]);
        let line = listing
            .lines()
            .find(|line| line.starts_with("fpr:"))
            .unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// Writes the certificate of a key to a file and returns its path.
    fn export(&self, key: &str, file: &str) -> PathBuf {
        self.gpg(&["--output", file, "--export", key]);
        self.path(file)
    }

    fn sign(&self, key: &str, arguments: &[&str], sidecar: &str) {
        let rest = [
            "--local-user",
            key,
            "--output",
            sidecar,
            "--detach-sign",
            "x.tgz",
        ];
        self.gpg(&[arguments, &rest].concat());
    }

    fn verify(&self, policy: Policy, keyring: &Keyring) -> Result<Verified<PackageFile>, Error> {
        verify_file(&self.path("x.tgz"), policy, keyring, now())
    }

    fn code(&self, policy: Policy, keyring: &Keyring) -> &'static str {
        self.verify(policy, keyring)
            .map_or_else(|error| error.code(), |_| "none")
    }

    fn remove(&self, name: &str) {
        remove(&self.path(name));
    }
}

/// Removes a sidecar. Tests may: what they made in a temporary folder is nobody's data.
#[expect(clippy::disallowed_methods, reason = "a file of this test")]
fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

fn keyring(files: &[PathBuf]) -> Keyring {
    Keyring::load(files, &[]).unwrap()
}

#[test]
fn signatures_of_both_forms_and_algorithms_are_good() {
    let bench = Bench::new();
    for (name, algorithm) in [("ed", "ed25519"), ("rsa", "rsa2048")] {
        let key = bench.key(name, algorithm);
        let keyring = keyring(&[bench.export(&key, "cert.pgp")]);
        for (sidecar, arguments) in [
            ("x.tgz.sig", &[][..]),
            ("x.tgz.asc", &["--armor"]),
            ("x.sig", &["--armor"]),
            ("x.asc", &[]),
        ] {
            bench.sign(&key, arguments, sidecar);
            let file = bench
                .verify(Policy::Signature, &keyring)
                .unwrap()
                .into_inner();
            assert_eq!(file.digest, Digest::of(b"the content of a package"));
            assert_eq!(file.size_bytes, 24);
            let Verdict::Signature {
                fingerprint,
                user_id,
                signed_at,
                sidecar: found,
            } = file.verdict
            else {
                panic!("expected a signature, found {:?}", file.verdict);
            };
            assert_eq!(fingerprint.to_string(), key);
            assert_eq!(user_id.as_deref(), Some(name));
            assert!((now() - signed_at).num_minutes() < 10, "{signed_at}");
            assert_eq!(found, bench.path(sidecar));
            bench.remove(sidecar);
        }
    }
}

#[test]
fn a_signature_by_sequoia_is_good() {
    let bench = Bench::new();
    let sq = || {
        let mut command = Command::new("sq");
        command.current_dir(bench.dir.path());
        command
    };
    run(sq().args(["key", "generate", "--userid", "sq", "--export", "key.pgp"]));
    run(sq().args(["key", "extract-cert", "--output", "cert.asc", "key.pgp"]));
    run(sq()
        .args(["sign", "--detached", "--signer-key", "key.pgp"])
        .args(["--output", "x.tgz.sig", "x.tgz"]));
    let cert = keyring(&[bench.path("cert.asc")]);
    assert_eq!(bench.code(Policy::Signature, &cert), "none");
    // A file with the secret key serves as well as one with the certificate.
    let secret = keyring(&[bench.path("key.pgp")]);
    assert_eq!(bench.code(Policy::Signature, &secret), "none");
}

#[test]
fn unsigned_badly_signed_and_unknown_are_different_answers_under_each_policy() {
    let bench = Bench::new();
    let (known, unknown) = (
        bench.key("known", "ed25519"),
        bench.key("unknown", "ed25519"),
    );
    let keyring = keyring(&[bench.export(&known, "cert.pgp")]);
    let codes = || {
        [Policy::Signature, Policy::Checksum, Policy::None]
            .map(|policy| bench.code(policy, &keyring))
    };
    assert_eq!(codes(), ["no-signature", "no-checksum", "none"]);
    bench.sign(&unknown, &[], "x.tgz.sig");
    assert_eq!(codes(), ["unknown-signer", "unknown-signer", "none"]);
    let error = bench.verify(Policy::Signature, &keyring).unwrap_err();
    assert!(error.to_string().contains(&unknown), "{error}");
    assert_eq!(error.class(), Class::Rejected);
    assert!(error.hint().is_some());
    // A checksum makes up for it where the policy is content with one.
    let hex = Digest::of(b"the content of a package").hex();
    bench.write("x.tgz.sha256", format!("{hex}  x.tgz\n").as_bytes());
    assert_eq!(codes(), ["unknown-signer", "none", "none"]);
    let file = bench.verify(Policy::None, &keyring).unwrap().into_inner();
    let sidecar = bench.path("x.tgz.sha256");
    assert_eq!(file.verdict, Verdict::Checksum { sidecar });
    // Signed properly, but something else: wrong under every policy, whatever the checksum says.
    bench.write("other", b"the content of another package");
    bench.gpg(&[
        "-u",
        &known,
        "--output",
        "x.tgz.sig",
        "--detach-sign",
        "other",
    ]);
    assert_eq!(codes(), ["bad-signature"; 3]);
    bench.sign(&known, &[], "x.tgz.sig");
    assert_eq!(codes(), ["none"; 3]);
    bench.write(
        "x.tgz.sha256",
        format!("{}  x.tgz\n", "0".repeat(64)).as_bytes(),
    );
    assert_eq!(codes(), ["checksum-mismatch"; 3]);
}

#[test]
fn checksum_files_that_promise_nothing_are_refused_each_with_its_code() {
    let bench = Bench::new();
    let hex = Digest::of(b"the content of a package").hex();
    for (content, code) in [
        (format!("{hex}\n"), "none"),
        (format!("SHA256 (x.tgz) = {hex}\n"), "none"),
        (format!("{hex}  y.tgz\n"), "checksum-of-other-file"),
        (format!("{hex}{hex}  x.tgz\n"), "unsupported-checksum"),
        ("hello\n".to_owned(), "malformed-checksum"),
        (
            format!("{hex} x.tgz\n{}0 x.tgz\n", &hex[1..]),
            "checksum-contradiction",
        ),
        (" ".repeat((1 << 20) + 1), "sidecar-too-large"),
    ] {
        bench.write("x.sha256", content.as_bytes());
        for policy in [Policy::Checksum, Policy::None] {
            assert_eq!(
                bench.code(policy, &Keyring::default()),
                code,
                "{content:.100}"
            );
        }
    }
}

#[test]
fn damaged_signature_files_are_malformed_or_bad_and_never_good() {
    let bench = Bench::new();
    let key = bench.key("known", "rsa2048");
    let keyring = keyring(&[bench.export(&key, "cert.pgp")]);
    for arguments in [&[][..], &["--armor"]] {
        bench.sign(&key, arguments, "whole");
        let whole = std::fs::read(bench.path("whole")).unwrap();
        for twentieth in 0..20 {
            bench.write("x.tgz.sig", &whole[..whole.len() * twentieth / 20]);
            assert_eq!(
                bench.code(Policy::None, &keyring),
                "malformed-signature",
                "{twentieth}/20 of {arguments:?}"
            );
        }
    }
    let garbage = b"no signature".repeat(10);
    for content in [
        &garbage[..],
        &std::fs::read(bench.path("cert.pgp")).unwrap(),
    ] {
        bench.write("x.tgz.sig", content);
        assert_eq!(bench.code(Policy::None, &keyring), "malformed-signature");
    }
    bench.sign(&key, &[], "whole");
    let whole = std::fs::read(bench.path("whole")).unwrap();
    for position in (0..whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[position] ^= 0x10;
        bench.write("x.tgz.sig", &flipped);
        // A bit of what is not signed may be flipped without harm; then it is the same signature.
        match bench.verify(Policy::Signature, &keyring) {
            Ok(file) => assert!(matches!(
                &file.get().verdict,
                Verdict::Signature { fingerprint, .. } if fingerprint.to_string() == key
            )),
            Err(error) => assert_eq!(error.class(), Class::Rejected, "{error}"),
        }
    }
}

#[test]
fn an_expired_key_counts_until_it_expired_and_again_once_it_is_extended() {
    let bench = Bench::new();
    let key = bench.expired_key("old");
    let cert = bench.export(&key, "old.pgp");
    bench.sign(
        &key,
        &["--faked-system-time", "20250102T000000"],
        "x.tgz.sig",
    );
    let old = keyring(std::slice::from_ref(&cert));
    let code_at = |keyring: &Keyring, time: &str| {
        verify_file(&bench.path("x.tgz"), Policy::Signature, keyring, at(time))
            .map_or_else(|error| error.code(), |_| "none")
    };
    assert_eq!(code_at(&old, "2025-01-15T00:00:00Z"), "none");
    assert_eq!(code_at(&old, "2025-03-01T00:00:00Z"), "expired-key");
    assert_eq!(code_at(&old, "2025-01-01T12:00:00Z"), "signature-not-alive");
    assert_eq!(bench.code(Policy::None, &old), "expired-key");
    bench.gpg(&["--quick-set-expire", &key, "20y"]);
    let extended = bench.export(&key, "extended.pgp");
    for files in [[cert.clone(), extended.clone()], [extended, cert]] {
        assert_eq!(bench.code(Policy::Signature, &keyring(&files)), "none");
    }
}

#[test]
fn while_a_key_is_rotated_one_good_signature_of_two_suffices() {
    let bench = Bench::new();
    let (old, new) = (bench.expired_key("old"), bench.key("new", "ed25519"));
    let stranger = bench.key("stranger", "ed25519");
    let keyring = keyring(&[bench.export(&old, "old.pgp"), bench.export(&new, "new.pgp")]);
    bench.sign(&old, &["--faked-system-time", "20250102T000000"], "old.sig");
    bench.sign(&new, &[], "new.sig");
    bench.sign(&stranger, &[], "stranger.sig");
    bench.write("other", b"other");
    bench.gpg(&["-u", &new, "--output", "bad.sig", "--detach-sign", "other"]);
    let code = |sidecars: &[&str]| {
        let content: Vec<u8> = sidecars
            .iter()
            .flat_map(|name| std::fs::read(bench.path(name)).unwrap())
            .collect();
        bench.write("x.tgz.sig", &content);
        bench.code(Policy::Signature, &keyring)
    };
    assert_eq!(code(&["old.sig"]), "expired-key");
    assert_eq!(code(&["old.sig", "new.sig"]), "none");
    assert_eq!(code(&["stranger.sig", "new.sig"]), "none");
    assert_eq!(code(&["stranger.sig", "old.sig"]), "expired-key");
    assert_eq!(code(&["new.sig", "bad.sig"]), "bad-signature");
    assert_eq!(code(&["new.sig"; 17]), "malformed-signature");
}

#[test]
fn a_revoked_key_does_not_count() {
    let bench = Bench::new();
    let key = bench.key("lost", "ed25519");
    let before = bench.export(&key, "before.pgp");
    bench.sign(&key, &[], "x.tgz.sig");
    assert_eq!(
        bench.code(Policy::Signature, &keyring(std::slice::from_ref(&before))),
        "none"
    );
    let revocation = format!("gnupg/openpgp-revocs.d/{key}.rev");
    let text = std::fs::read_to_string(bench.path(&revocation)).unwrap();
    let revocation = bench.write("revocation.asc", text.replace(":-----", "-----").as_bytes());
    bench.gpg(&["--import", revocation.to_str().unwrap()]);
    let after = bench.export(&key, "after.pgp");
    for files in [vec![after.clone()], vec![before, after]] {
        assert_eq!(
            bench.code(Policy::Signature, &keyring(&files)),
            "revoked-key"
        );
        assert_eq!(bench.code(Policy::None, &keyring(&files)), "revoked-key");
    }
}

#[test]
fn a_signature_over_sha1_is_weak() {
    let bench = Bench::new();
    let key = bench.key("weak", "rsa2048");
    bench.sign(&key, &["--digest-algo", "SHA1"], "x.tgz.sig");
    let keyring = keyring(&[bench.export(&key, "cert.pgp")]);
    assert_eq!(bench.code(Policy::None, &keyring), "weak-signature");
}

#[test]
fn only_allowed_signers_count_by_certificate_or_by_key() {
    let bench = Bench::new();
    let (one, two) = (bench.key("one", "ed25519"), bench.key("two", "ed25519"));
    bench.gpg(&["--quick-add-key", &one, "ed25519", "sign", "0"]);
    let listing = bench.gpg(&["--with-colons", "--list-keys", &one]);
    let subkey = listing
        .lines()
        .rfind(|line| line.starts_with("fpr:"))
        .unwrap();
    let subkey: Fingerprint = subkey.split(':').nth(9).unwrap().parse().unwrap();
    let files = [bench.export(&one, "one.pgp"), bench.export(&two, "two.pgp")];
    bench.sign(&one, &[], "x.tgz.sig");
    let load = |signers: &[Fingerprint]| Keyring::load(&files, signers);
    let (one, two): (Fingerprint, Fingerprint) = (one.parse().unwrap(), two.parse().unwrap());
    let code = |signers: &[Fingerprint]| bench.code(Policy::Signature, &load(signers).unwrap());
    assert_eq!(code(&[]), "none");
    assert_eq!(code(std::slice::from_ref(&one)), "none");
    assert_eq!(code(&[subkey]), "none");
    assert_eq!(code(&[two]), "unknown-signer");
    let absent: Fingerprint = "0".repeat(40).parse().unwrap();
    let error = load(&[one, absent]).unwrap_err();
    assert_eq!(
        (error.code(), error.class()),
        ("signer-absent", Class::Usage)
    );
}

#[test]
fn keyrings_are_files_or_folders_binary_or_armored_with_one_or_several_certificates() {
    let bench = Bench::new();
    let keys = [bench.key("one", "ed25519"), bench.key("two", "ed25519")];
    let armored: String = keys
        .iter()
        .map(|key| bench.gpg(&["--armor", "--export", key]))
        .collect();
    bench.gpg(
        &[
            &["--output", "both.pgp", "--export"],
            &[keys[0].as_str(), &keys[1]][..],
        ]
        .concat(),
    );
    std::fs::DirBuilder::new()
        .create(bench.path("keys"))
        .unwrap();
    bench.export(&keys[0], "keys/one.pgp");
    bench.export(&keys[1], "keys/two.pgp");
    bench.write("keys/.hidden", b"no certificate");
    let armored = bench.write("both.asc", armored.as_bytes());
    for path in [armored, bench.path("both.pgp"), bench.path("keys")] {
        assert_eq!(keyring(&[path]).fingerprints().count(), 2);
    }
    for (content, code) in [
        (&b"no certificate"[..], "keyring-invalid"),
        (b"", "keyring-invalid"),
        (
            b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n",
            "keyring-invalid",
        ),
    ] {
        let path = bench.write("bad", content);
        assert_eq!(Keyring::load([path], &[]).unwrap_err().code(), code);
    }
    let absent = Keyring::load([bench.path("absent")], &[]).unwrap_err();
    assert_eq!(absent.code(), "keyring-unreadable");
}

#[test]
fn the_summary_is_violets_to_the_letter() {
    let bench = Bench::new();
    let key = bench.key("known", "ed25519");
    let keyring = keyring(&[bench.export(&key, "cert.pgp")]);
    bench.sign(&key, &[], "x.tgz.sig");
    let hex = Digest::of(b"y").hex();
    bench.write("y.tgz", b"y");
    bench.write("y.sha256", hex.as_bytes());
    bench.write("bad.tgz", b"bad");
    bench.write("bad.tgz.sha256", hex.as_bytes());
    bench.write("plain.tgz", b"plain");
    let summary = summarize(bench.dir.path(), &keyring, now()).unwrap();
    let text = summary
        .to_string()
        .replace(bench.dir.path().to_str().unwrap(), "/drop");
    insta::assert_snapshot!(text, @r"
    verify path: /drop
    ====== Verification Summary ======
    Verified successfully with GPG: 1 file(s)
      - /drop/x.tgz
    Verified successfully with checksum: 1 file(s)
      - /drop/y.tgz
    Verification failed: 1 file(s)
      - /drop/bad.tgz
    No verification file found: 1 file(s)
      - /drop/plain.tgz
    ");
    assert_eq!(summary.failed[0].1.code(), "checksum-mismatch");
    let one = summarize(&bench.path("x.tgz"), &keyring, now()).unwrap();
    assert_eq!(one.signed, [bench.path("x.tgz")]);
}
