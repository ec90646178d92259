//! Validity of keys at the time of a signature: expiry, revocation, clocks.

use super::bench::{Bench, at, keyring, now};
use crate::verify::{Keyring, Policy, Requirements, Validity};

/// Returns requirements for a signature by a key that was valid then, or is still.
fn require(validity: Validity) -> Requirements {
    Requirements {
        validity,
        ..Requirements::new(Policy::Signature)
    }
}

/// Returns what is found under both rules: valid when signed, and valid now.
fn words(bench: &Bench, keyring: &Keyring) -> [String; 2] {
    [Validity::WhenSigned, Validity::Now].map(|it| bench.word(&require(it), keyring))
}

const GOOD: &str = "signature by 1";

#[test]
fn a_key_that_expired_after_it_signed_counts_unless_it_must_be_valid_now() {
    let bench = Bench::new();
    let key = bench.old_key("old", "30d");
    let cert = bench.export(&key, "old.pgp");
    bench.sign_at(&key, "20250102", "x.tgz.sig");
    let old = keyring(std::slice::from_ref(&cert));
    assert_eq!(words(&bench, &old), [GOOD, "expired-key"]);
    let code_at = |validity, time: &str| {
        let found = bench.verify_as(&require(validity), &old, at(time));
        found.map_or_else(|error| error.code(), |_| "none")
    };
    assert_eq!(code_at(Validity::Now, "2025-01-30T23:59:59Z"), "none");
    assert_eq!(
        code_at(Validity::Now, "2025-01-31T00:00:00Z"),
        "expired-key"
    );
    // Extended, it is valid now.
    bench.gpg(&["--quick-set-expire", &key, "20y"]);
    let extended = bench.export(&key, "extended.pgp");
    for files in [[cert.clone(), extended.clone()], [extended, cert]] {
        assert_eq!(words(&bench, &keyring(&files)), [GOOD; 2]);
    }
}

#[test]
fn a_key_that_expired_before_it_signed_does_not_count() {
    let bench = Bench::new();
    let key = bench.old_key("old", "30d");
    let old = keyring(&[bench.export(&key, "old.pgp")]);
    // Somebody who has the key can make a signature at any time.
    bench.gpg_at("20250115", &["--quick-set-expire", &key, "60d"]);
    bench.sign_at(&key, "20250215", "x.tgz.sig");
    assert_eq!(words(&bench, &old), ["expired-key"; 2]);
    let error = bench.verify(Policy::Signature, &old).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "expected a key that is valid at 2025-02-15T00:00:00Z in `{}`, found {key}, which expired at \
             2025-01-31T00:00:00Z",
            bench.path("x.tgz.sig").display()
        )
    );
    // It is an error where nothing is asked for, too.
    assert_eq!(bench.code(Policy::None, &old), "expired-key");
}

#[test]
fn signatures_before_an_extension_count_where_only_the_extended_certificate_is_there() {
    let bench = Bench::new();
    let key = bench.old_key("old", "30d");
    bench.sign_at(&key, "20250102", "x.tgz.sig");
    // GnuPG replaces what the certificate says of itself.
    bench.gpg_at("20250115", &["--quick-set-expire", &key, "60d"]);
    let extended = keyring(&[bench.export(&key, "extended.pgp")]);
    assert_eq!(words(&bench, &extended), [GOOD, "expired-key"]);
    // The content decides all the same.
    bench.write("x.tgz", b"other content");
    assert_eq!(words(&bench, &extended), ["bad-signature"; 2]);
}

#[test]
fn a_revocation_counts_back_to_the_beginning_if_the_key_was_compromised_and_from_its_day_if_retired()
 {
    for (reason, words_before, words_after) in [
        (0, ["revoked-key"; 2], ["revoked-key"; 2]),
        (1, ["revoked-key"; 2], ["revoked-key"; 2]),
        (2, [GOOD, "revoked-key"], ["revoked-key"; 2]),
        (3, [GOOD, "revoked-key"], ["revoked-key"; 2]),
    ] {
        let bench = Bench::new();
        let key = bench.old_key("lost", "0");
        let intact = bench.export(&key, "intact.pgp");
        bench.sign_at(&key, "20250110", "before.sig");
        bench.sign_at(&key, "20250210", "after.sig");
        bench.revoke(&key, "20250201", reason);
        let revoked = bench.export(&key, "revoked.pgp");
        for files in [vec![revoked.clone()], vec![intact, revoked]] {
            let keyring = keyring(&files);
            for (sidecar, expected) in [("before.sig", words_before), ("after.sig", words_after)] {
                bench.write("x.tgz.sig", &bench.read(sidecar));
                assert_eq!(words(&bench, &keyring), expected, "{reason} {sidecar}");
            }
            let error = bench.verify(Policy::Signature, &keyring).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("revoked at 2025-02-01T00:00:00Z"), "{text}");
            assert!(text.contains("in a test"), "{text}");
        }
    }
}

#[test]
fn a_revocation_by_sequoia_is_understood() {
    for (reason, word) in [("compromised", "revoked-key"), ("superseded", GOOD)] {
        let bench = Bench::new();
        let time = ["--creation-time", "20250101"];
        bench.sq(&[
            &["key", "generate", "-u", "sq", "--export", "key.pgp"][..],
            &time,
        ]
        .concat());
        bench.sq(&["key", "extract-cert", "-o", "cert.pgp", "key.pgp"]);
        let sign = [
            "sign",
            "--detached",
            "--time",
            "20250110",
            "--signer-key",
            "key.pgp",
        ];
        bench.sq(&[&sign[..], &["-o", "x.tgz.sig", "x.tgz"]].concat());
        let revoke = [
            "revoke",
            "certificate",
            "--time",
            "20250201",
            "--certificate",
            "key.pgp",
        ];
        bench.sq_to(
            "revocation.pgp",
            &[&revoke[..], &[reason, "in a test"]].concat(),
        );
        // GnuPG imports no revocation before it has a trust database, which it makes with the first key.
        bench.key("somebody", "ed25519");
        bench.gpg(&["--import", "cert.pgp"]);
        bench.gpg(&["--import", "revocation.pgp"]);
        let keyring = keyring(&[bench.export("sq", "revoked.pgp")]);
        assert_eq!(words(&bench, &keyring), [word, "revoked-key"], "{reason}");
    }
}

#[test]
fn a_revoked_subkey_does_not_take_its_certificate_along() {
    let bench = Bench::new();
    bench.gpg(&["--quick-gen-key", "team", "ed25519", "cert", "0"]);
    let key = bench.fingerprint_of("team");
    for _ in 0..2 {
        bench.gpg(&["--quick-add-key", &key, "ed25519", "sign", "0"]);
    }
    let fingerprints = bench.fingerprints_of("team");
    let [_, one, two] = &fingerprints[..] else {
        panic!("expected two subkeys, found {fingerprints:?}");
    };
    bench.sign(&format!("{one}!"), &[], "one.sig");
    bench.sign(&format!("{two}!"), &[], "two.sig");
    // The first subkey is revoked, without a reason.
    bench.edit(&key, "key 1\nrevkey\ny\n0\nin a test\n\ny\nsave\n");
    let keyring = keyring(&[bench.export(&key, "team.pgp")]);
    for (sidecar, word) in [("one.sig", "revoked-key"), ("two.sig", GOOD)] {
        bench.write("x.tgz.sig", &bench.read(sidecar));
        assert_eq!(words(&bench, &keyring), [word; 2], "{sidecar}");
    }
}

#[test]
fn a_signature_from_the_future_is_refused_but_for_clocks_that_differ_a_little() {
    let bench = Bench::new();
    let key = bench.old_key("clock", "0");
    let keyring = keyring(&[bench.export(&key, "cert.pgp")]);
    bench.sign_at(&key, "20250110", "x.tgz.sig");
    let verify_at =
        |time: &str| bench.verify_as(&require(Validity::WhenSigned), &keyring, at(time));
    assert!(verify_at("2025-01-10T00:00:00Z").is_ok());
    assert!(verify_at("2025-01-09T23:31:00Z").is_ok());
    let error = verify_at("2025-01-09T23:29:00Z").unwrap_err();
    assert_eq!(error.code(), "signature-from-future");
    let text = error.to_string();
    assert!(text.contains("2025-01-09T23:29:00Z"), "{text}");
    assert!(text.contains("2025-01-10T00:00:00Z"), "{text}");
    // Even before the key was made.
    let error = verify_at("2024-12-01T00:00:00Z").unwrap_err();
    assert_eq!(error.code(), "signature-from-future");
}

#[test]
fn a_signature_that_ends_is_refused_from_then_on() {
    let bench = Bench::new();
    let key = bench.old_key("brief", "0");
    let keyring = keyring(&[bench.export(&key, "cert.pgp")]);
    let time = [
        "--faked-system-time",
        "20250110T000000",
        "--default-sig-expire",
        "5d",
    ];
    bench.sign(&key, &time, "x.tgz.sig");
    let code_at = |time: &str| {
        let found = bench.verify_as(&require(Validity::WhenSigned), &keyring, at(time));
        found.map_or_else(|error| error.code(), |_| "none")
    };
    assert_eq!(code_at("2025-01-14T23:59:59Z"), "none");
    assert_eq!(code_at("2025-01-15T00:00:00Z"), "signature-not-alive");
    assert!(
        bench
            .verify_as(&require(Validity::Now), &keyring, now())
            .is_err()
    );
}
