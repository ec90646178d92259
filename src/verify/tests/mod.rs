//! Tests against signatures by real signers: GnuPG and Sequoia's `sq`.

#![cfg(test)]

mod bench;
mod changes;
mod faults;
mod kinds;
mod several;
mod time;

use self::bench::{Bench, CONTENT, keyring, now};
use super::{
    Depth, Fingerprint, Keyring, Limits, Outcome, Policy, Requirements, Verdict, summarize,
};
use crate::base::{Class, Classified, Digest};

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
    let hex = Digest::of(CONTENT).hex();
    bench.write("x.tgz.sha256", format!("{hex}  x.tgz\n").as_bytes());
    assert_eq!(codes(), ["unknown-signer", "none", "none"]);
    let file = bench.verify(Policy::None, &keyring).unwrap();
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
    let hex = Digest::of(CONTENT).hex();
    for (content, code) in [
        (format!("{hex}\n"), "none"),
        (format!("SHA256 (x.tgz) = {hex}\n"), "none"),
        (format!("{hex}  y.tgz\n"), "checksum-of-other-file"),
        (format!("{hex}{hex}  x.tgz\n"), "checksum-mismatch"),
        (format!("{}  x.tgz\n", &hex[..32]), "unsupported-checksum"),
        ("\n".repeat(10_001), "too-many-checksums"),
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
                &file.verdict,
                Verdict::Signature { signers } if signers[0].fingerprint.to_string() == key
            )),
            Err(error) => assert_eq!(error.class(), Class::Rejected, "{error}"),
        }
    }
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
    let keyring = keyring(&files);
    let (one, two): (Fingerprint, Fingerprint) = (one.parse().unwrap(), two.parse().unwrap());
    let allow = |signers: &[Fingerprint]| Requirements {
        signers: signers.to_vec(),
        ..Requirements::new(Policy::Signature)
    };
    let code = |signers: &[Fingerprint]| {
        let found = bench.verify_as(&allow(signers), &keyring, now());
        found.map_or_else(|error| error.code(), |_| "none")
    };
    assert_eq!(code(&[]), "none");
    assert_eq!(code(std::slice::from_ref(&one)), "none");
    assert_eq!(code(&[subkey]), "none");
    assert_eq!(code(std::slice::from_ref(&two)), "signer-not-allowed");
    let absent: Fingerprint = "0".repeat(40).parse().unwrap();
    let check = |signatures_min, signers: &[Fingerprint]| {
        let requirements = Requirements {
            signatures_min,
            ..allow(signers)
        };
        let error = keyring.check(&requirements).err()?;
        assert_eq!(error.class(), Class::Usage);
        Some(error.code())
    };
    assert_eq!(check(2, &[one.clone(), two.clone()]), None);
    assert_eq!(check(2, &[]), None);
    assert_eq!(check(1, &[one.clone(), absent]), Some("signer-absent"));
    assert_eq!(check(2, &[two]), Some("too-few-certificates"));
    assert_eq!(check(3, &[]), Some("too-few-certificates"));
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
        assert_eq!(
            Keyring::load([path], &Limits::default())
                .unwrap_err()
                .code(),
            code
        );
    }
    let code = |path: &str, limits: Limits| {
        let loaded = Keyring::load([bench.path(path)], &limits);
        loaded.map_or_else(|error| error.code(), |_| "none")
    };
    assert_eq!(code("absent", Limits::default()), "keyring-unreadable");
    let one_only = Limits {
        keyring_certificates_max: 1,
        ..Limits::default()
    };
    assert_eq!(code("both.pgp", one_only), "too-many-certificates");
    let small = Limits {
        keyring_bytes_max: 10,
        ..Limits::default()
    };
    assert_eq!(code("both.pgp", small), "keyring-too-large");
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
    let requirements = Requirements::new(Policy::Signature);
    let summary = summarize(bench.dir(), Depth::Folder, &requirements, &keyring, now()).unwrap();
    let text = summary
        .to_string()
        .replace(bench.dir().to_str().unwrap(), "/drop");
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
    let Outcome::Failed(failure) = &summary.packages[0].outcome else {
        panic!("expected a failure, found {summary:?}");
    };
    assert_eq!(failure.error.code(), "checksum-mismatch");
    assert_eq!(failure.digest, Some(Digest::of(b"bad")));
    assert!(!summary.is_good());
    // Folders below are left out unless asked for.
    std::fs::DirBuilder::new()
        .create(bench.path("below"))
        .unwrap();
    bench.write("below/z.tgz", b"z");
    let paths = |depth| {
        let summary = summarize(bench.dir(), depth, &requirements, &keyring, now()).unwrap();
        summary.packages.len()
    };
    assert_eq!((paths(Depth::Folder), paths(Depth::Tree)), (4, 5));
    // Parts that nobody can put together are not passed over.
    bench.write("z.tgz.001", b"z");
    bench.write("z.tgz.002", b"z");
    let summary = summarize(bench.dir(), Depth::Folder, &requirements, &keyring, now()).unwrap();
    let last = summary.packages.last().unwrap();
    assert_eq!(
        (summary.packages.len(), &last.path),
        (5, &bench.path("z.tgz.parts"))
    );
    assert!(
        matches!(&last.outcome, Outcome::Failed(failure) if failure.error.class() == Class::Absent)
    );
    let one = bench.path("x.tgz");
    let one = summarize(&one, Depth::Folder, &requirements, &keyring, now()).unwrap();
    assert!(one.is_good() && one.packages.len() == 1);
}
