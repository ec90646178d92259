//! A table of bad signatures, each with its code.

use sequoia_openpgp::Cert;
use sequoia_openpgp::packet::signature::SignatureBuilder;
use sequoia_openpgp::parse::Parse as _;
use sequoia_openpgp::serialize::Marshal as _;
use sequoia_openpgp::types::{HashAlgorithm, SignatureType};

use super::bench::{Bench, CONTENT, keyring};
use crate::base::{Class, Classified};
use crate::verify::{Error, Keyring, Policy};

/// What lies beside the package, and what is found.
struct Row {
    name: &'static str,
    sidecar: &'static str,
    content: Vec<u8>,
    code: &'static str,
    /// Under the policy that asks for nothing.
    code_of_none: &'static str,
}

/// Returns a row whose fault is one under every policy.
fn row(name: &'static str, content: impl Into<Vec<u8>>, code: &'static str) -> Row {
    Row {
        name,
        sidecar: "x.tgz.sig",
        content: content.into(),
        code,
        code_of_none: code,
    }
}

/// Signs with the last subkey of a certificate, whatever that key is for: no tool does.
fn sign_with_subkey(bench: &Bench, secret: &str) -> Vec<u8> {
    let certificate = Cert::from_bytes(&bench.read(secret)).unwrap();
    let subkey = certificate.keys().subkeys().last().unwrap();
    let mut pair = subkey
        .key()
        .clone()
        .parts_into_secret()
        .unwrap()
        .into_keypair()
        .unwrap();
    let signature = SignatureBuilder::new(SignatureType::Binary)
        .set_hash_algo(HashAlgorithm::SHA512)
        .sign_message(&mut pair, CONTENT)
        .unwrap();
    let mut bytes = Vec::new();
    sequoia_openpgp::Packet::from(signature)
        .serialize(&mut bytes)
        .unwrap();
    bytes
}

/// Keys, and what they sign.
struct Desk<'a> {
    bench: &'a Bench,
    known: String,
    unknown: String,
    /// Expired on 2025-01-31, as the keyring knows it.
    old: String,
    keyring: Keyring,
}

impl<'a> Desk<'a> {
    fn new(bench: &'a Bench) -> Self {
        let known = bench.key("known", "rsa2048");
        let old = bench.old_key("old", "30d");
        bench.gpg(&["--quick-gen-key", "team", "ed25519", "cert", "0"]);
        let team = bench.fingerprint_of("team");
        bench.gpg(&["--quick-add-key", &team, "ed25519", "auth", "0"]);
        bench.gpg(&["--output", "team.key", "--export-secret-keys", &team]);
        let keyring = keyring(&[
            bench.export(&known, "known.pgp"),
            bench.export(&old, "old.pgp"),
            bench.export(&team, "team.pgp"),
        ]);
        // Whoever has the old key goes on with it.
        bench.gpg_at("20250115", &["--quick-set-expire", &old, "60d"]);
        bench.write("other", b"the content of another package");
        bench.gpg(&["-u", &known, "--output", "inline", "--sign", "x.tgz"]);
        bench.gpg(&["-u", &known, "--output", "clear", "--clear-sign", "x.tgz"]);
        Self {
            bench,
            known,
            unknown: bench.key("unknown", "ed25519"),
            old,
            keyring,
        }
    }

    fn sign(&self, key: &str, arguments: &[&str], file: &str) -> Vec<u8> {
        self.bench.sign_file(key, arguments, "made", file);
        self.bench.read("made")
    }

    /// What is wrong with who signed, when, how and what.
    fn signers(&self) -> Vec<Row> {
        let late = ["--faked-system-time", "20250215T000000"];
        let sha1 = ["--digest-algo", "SHA1"];
        let good = self.sign(&self.known, &[], "x.tgz");
        let over_other = self.sign(&self.known, &[], "other");
        let by_unknown = self.sign(&self.unknown, &[], "x.tgz");
        let expired = self.sign(&self.old, &late, "x.tgz");
        let expired_over_other = self.sign(&self.old, &late, "other");
        let future = ["--faked-system-time", "20990101T000000"];
        let future = self.sign(&self.known, &future, "x.tgz");
        let weak = self.sign(&self.known, &sha1, "x.tgz");
        let weak_over_other = self.sign(&self.known, &sha1, "other");
        let may_not_sign = sign_with_subkey(self.bench, "team.key");
        vec![
            Row {
                code_of_none: "none",
                ..row("by nobody known", by_unknown.clone(), "unknown-signer")
            },
            row("good, and by nobody known", two(&by_unknown, &good), "none"),
            row("over another file", over_other.clone(), "bad-signature"),
            row(
                "good, and over another file",
                two(&good, &over_other),
                "bad-signature",
            ),
            row("by an expired key", expired.clone(), "expired-key"),
            row(
                "over another file by an expired key",
                expired_over_other.clone(),
                "bad-signature",
            ),
            row("good, and by an expired key", two(&expired, &good), "none"),
            row(
                "good, and one of those",
                two(&good, &expired_over_other),
                "bad-signature",
            ),
            row(
                "by nobody known, and expired",
                two(&by_unknown, &expired),
                "expired-key",
            ),
            row("from the future", future, "signature-from-future"),
            row("SHA-1", weak, "weak-signature"),
            row("SHA-1 over another file", weak_over_other, "weak-signature"),
            row("by a subkey that may not sign", may_not_sign, "invalid-key"),
        ]
    }

    /// What is wrong with the file that should be a signature.
    fn forms(&self) -> Vec<Row> {
        let good = self.sign(&self.known, &[], "x.tgz");
        let armored = self.sign(&self.known, &["--armor"], "x.tgz");
        let file = |name| self.bench.read(name);
        vec![
            row("good", good.clone(), "none"),
            row("armored in .sig", armored.clone(), "none"),
            Row {
                sidecar: "x.asc",
                ..row("binary in .asc", good.clone(), "none")
            },
            row("concatenated, binary", two(&good, &good), "none"),
            row("concatenated, armored", two(&armored, &armored), "none"),
            row(
                "words before the armor",
                two(b"see below\n\n", &armored),
                "none",
            ),
            row("empty", "", "malformed-signature"),
            row("garbage", "no signature".repeat(10), "malformed-signature"),
            row("truncated", cut(&good, 5), "malformed-signature"),
            row("truncated by little", cut(&good, 9), "malformed-signature"),
            row("truncated armor", cut(&armored, 5), "malformed-signature"),
            row(
                "good, and half of one",
                two(&good, &cut(&good, 5)),
                "malformed-signature",
            ),
            row(
                "good, and garbage",
                two(&good, b"garbage"),
                "malformed-signature",
            ),
            row("a certificate", file("known.pgp"), "malformed-signature"),
            row("signed in itself", file("inline"), "malformed-signature"),
            row(
                "signed in itself, as text",
                file("clear"),
                "malformed-signature",
            ),
            row("far too many", good.repeat(17), "too-many-signatures"),
            row("far too large", vec![0; (1 << 20) + 1], "sidecar-too-large"),
        ]
    }
}

/// Returns the first tenths of a file.
fn cut(bytes: &[u8], tenths: usize) -> Vec<u8> {
    bytes[..bytes.len() * tenths / 10].to_vec()
}

fn two(one: &[u8], other: &[u8]) -> Vec<u8> {
    [one, other].concat()
}

#[test]
fn every_bad_signature_is_refused_with_its_code_and_says_what_to_do() {
    let bench = Bench::new();
    let desk = Desk::new(&bench);
    for row in desk.signers().into_iter().chain(desk.forms()) {
        bench.write(row.sidecar, &row.content);
        for (policy, code) in [
            (Policy::Signature, row.code),
            (Policy::Checksum, row.code),
            (Policy::None, row.code_of_none),
        ] {
            let found = bench.verify(policy, &desk.keyring);
            let found = found.map_or_else(|error| check(&error), |_| "none");
            assert_eq!(found, code, "{} under {policy:?}", row.name);
        }
        bench.remove(row.sidecar);
    }
}

/// Returns the code of an error that is about the package and helps its reader.
fn check(error: &Error) -> &'static str {
    assert_eq!(error.class(), Class::Rejected, "{error}");
    assert!(error.hint().is_some(), "{error}");
    error.code()
}

#[test]
fn a_sidecar_that_is_a_pipe_is_refused_and_not_waited_for() {
    let bench = Bench::new();
    let made = std::process::Command::new("mkfifo")
        .arg(bench.path("x.tgz.sig"))
        .status();
    assert!(made.unwrap().success());
    let code = bench.code(Policy::None, &Keyring::default());
    assert_eq!(code, "not-a-file");
}
