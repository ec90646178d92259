//! Good signatures: every program, kind of key and form.

use super::bench::{Bench, CONTENT, keyring, now};
use crate::base::Digest;
use crate::verify::{Policy, Signer, Verdict};

/// Verifies `x.tgz` under the strictest policy and returns the only signer.
fn signer(bench: &Bench, certificate: &str) -> Signer {
    let file = bench
        .verify(Policy::Signature, &keyring(&[bench.path(certificate)]))
        .unwrap();
    assert_eq!(file.digest, Digest::of(CONTENT));
    assert_eq!(file.size_bytes, CONTENT.len() as u64);
    let Verdict::Signature { mut signers } = file.verdict else {
        panic!("expected a signature, found {:?}", file.verdict);
    };
    assert_eq!(signers.len(), 1, "{signers:?}");
    signers.remove(0)
}

#[test]
fn signatures_by_gnupg_and_by_sequoia_with_each_kind_of_key_are_good() {
    let bench = Bench::new();
    for (algorithm, found) in [
        ("rsa2048", "RSA, 2048 bits"),
        ("rsa3072", "RSA, 3072 bits"),
        ("rsa4096", "RSA, 4096 bits"),
        ("ed25519", "EdDSA on Ed25519"),
        ("nistp256", "ECDSA on NIST P-256"),
    ] {
        let key = bench.key(algorithm, algorithm);
        bench.export(&key, "cert.pgp");
        bench.gpg(&["--output", "key.pgp", "--export-secret-keys", &key]);
        for hash in ["SHA256", "SHA512"] {
            bench.sign(&key, &["--digest-algo", hash], "x.tgz.sig");
            let by_gnupg = signer(&bench, "cert.pgp");
            assert_eq!(by_gnupg.hash_algorithm, hash);
            assert_eq!(by_gnupg.key_algorithm, found);
            assert_eq!(by_gnupg.fingerprint.to_string(), key);
            assert_eq!(by_gnupg.key, by_gnupg.fingerprint);
            assert_eq!(by_gnupg.user_id.as_deref(), Some(algorithm));
            let age = now() - by_gnupg.signed_at;
            assert!(age.num_minutes() < 10, "{by_gnupg}");
            assert_eq!(by_gnupg.sidecar, bench.path("x.tgz.sig"));
            assert_eq!(by_gnupg.list, None);
        }
        bench.remove("x.tgz.sig");
        bench.sq(&[
            "sign",
            "--detached",
            "--signer-key",
            "key.pgp",
            "-o",
            "x.tgz.sig",
            "x.tgz",
        ]);
        let by_sequoia = signer(&bench, "cert.pgp");
        assert_eq!(by_sequoia.fingerprint.to_string(), key);
        assert_eq!(by_sequoia.key_algorithm, found);
        bench.remove("x.tgz.sig");
        bench.remove("cert.pgp");
        bench.remove("key.pgp");
    }
}

#[test]
fn keys_that_sequoia_makes_sign_with_a_subkey() {
    let bench = Bench::new();
    for (suite, found) in [
        ("cv25519", "EdDSA on Ed25519"),
        ("rsa3k", "RSA, 3072 bits"),
        ("rsa4k", "RSA, 4096 bits"),
    ] {
        let (key, cert) = (format!("{suite}.pgp"), format!("{suite}.asc"));
        bench.sq(&[
            "key", "generate", "-u", suite, "-c", suite, "--export", &key,
        ]);
        bench.sq(&["key", "extract-cert", "-o", &cert, &key]);
        bench.sq(&[
            "--force",
            "sign",
            "--detached",
            "--signer-key",
            &key,
            "-o",
            "x.sig",
            "x.tgz",
        ]);
        let signer_found = signer(&bench, &cert);
        assert_eq!(signer_found.user_id.as_deref(), Some(suite));
        assert_eq!(signer_found.key_algorithm, found);
        assert_ne!(signer_found.key, signer_found.fingerprint);
        // A file with the secret key serves as well as one with the certificate.
        assert_eq!(signer(&bench, &key), signer_found);
    }
}

#[test]
fn a_signature_is_found_under_each_name_in_either_form() {
    let bench = Bench::new();
    let key = bench.key("ed", "ed25519");
    bench.export(&key, "cert.pgp");
    for (sidecar, arguments) in [
        ("x.tgz.sig", &[][..]),
        ("x.tgz.sig", &["--armor"]),
        ("x.tgz.asc", &["--armor"]),
        ("x.tgz.asc", &[]),
        ("x.sig", &["--armor"]),
        ("x.asc", &[]),
        ("x.asc", &["--textmode"]),
    ] {
        bench.sign(&key, arguments, sidecar);
        assert_eq!(signer(&bench, "cert.pgp").sidecar, bench.path(sidecar));
        bench.remove(sidecar);
    }
}

#[test]
fn a_signature_says_who_made_it_when_and_how_on_one_line() {
    let bench = Bench::new();
    let key = bench.old_key("Alice\u{7} <alice@example.org>", "0");
    bench.export(&key, "cert.pgp");
    let time = ["--faked-system-time", "20250102T000000!"];
    let arguments = [&time[..], &["--digest-algo", "SHA512"]].concat();
    bench.sign(&key, &arguments, "x.tgz.sig");
    assert_eq!(
        signer(&bench, "cert.pgp").to_string(),
        format!(
            "signed by Alice  <alice@example.org> ({key}) at 2025-01-02T00:00:00Z with EdDSA on Ed25519 over SHA512"
        )
    );
}
