//! Several signers, several sidecars, signed checksum files.

use super::bench::{Bench, CONTENT, keyring};
use crate::base::Digest;
use crate::verify::{Keyring, Policy, Requirements, Verdict};

fn require(policy: Policy, signatures_min: u32) -> Requirements {
    Requirements {
        signatures_min,
        ..Requirements::new(policy)
    }
}

fn sha256() -> String {
    format!("{}  x.tgz\n", Digest::of(CONTENT).hex())
}

/// Three signers and a stranger, each with a signature in `<name>.sig`.
fn team() -> (Bench, Keyring) {
    let bench = Bench::new();
    let mut certificates = Vec::new();
    for name in ["a", "b", "c"] {
        let key = bench.key(name, "ed25519");
        bench.sign(&key, &[], &format!("{name}.sig"));
        bench.sign(&key, &["--armor"], &format!("{name}.asc"));
        certificates.push(bench.export(&key, &format!("{name}.pgp")));
    }
    let stranger = bench.key("stranger", "ed25519");
    bench.sign(&stranger, &[], "stranger.sig");
    let keyring = keyring(&certificates);
    (bench, keyring)
}

#[test]
fn as_many_different_signers_as_required_must_have_signed() {
    let (bench, keyring) = team();
    let word = |number, sidecars: &[&str]| {
        let content: Vec<u8> = sidecars.iter().flat_map(|name| bench.read(name)).collect();
        bench.write("x.tgz.sig", &content);
        bench.word(&require(Policy::Signature, number), &keyring)
    };
    assert_eq!(word(1, &["a.sig", "b.sig"]), "signature by 2");
    assert_eq!(word(2, &["a.sig", "b.sig"]), "signature by 2");
    assert_eq!(word(2, &["a.asc", "b.asc"]), "signature by 2");
    assert_eq!(word(3, &["a.asc", "b.asc", "c.asc"]), "signature by 3");
    assert_eq!(
        word(2, &["a.sig", "stranger.sig", "b.sig"]),
        "signature by 2"
    );
    assert_eq!(word(2, &["a.sig"]), "too-few-signers");
    assert_eq!(word(2, &["a.sig", "a.sig"]), "too-few-signers");
    assert_eq!(word(2, &["a.sig", "stranger.sig"]), "too-few-signers");
    assert_eq!(word(3, &["a.sig", "b.sig"]), "too-few-signers");
    let error = bench.verify_as(&require(Policy::Signature, 3), &keyring, super::now());
    let text = error.unwrap_err().to_string();
    for name in ["a", "b"] {
        assert!(text.contains(&bench.fingerprint_of(name)), "{text}");
    }
}

#[test]
fn signatures_by_two_keys_of_one_certificate_count_once() {
    let bench = Bench::new();
    let key = bench.key("one", "ed25519");
    bench.gpg(&["--quick-add-key", &key, "ed25519", "sign", "0"]);
    let keyring = keyring(&[bench.export(&key, "cert.pgp")]);
    let keys = bench.fingerprints_of("one");
    let users: Vec<String> = keys.iter().map(|key| format!("{key}!")).collect();
    let arguments = ["--local-user", &users[0]];
    bench.sign(&users[1], &arguments, "x.tgz.sig");
    let file = bench.verify(Policy::Signature, &keyring).unwrap();
    assert!(matches!(file.verdict, Verdict::Signature { signers } if signers.len() == 1));
    let word = bench.word(&require(Policy::Signature, 2), &keyring);
    assert_eq!(word, "too-few-signers");
}

#[test]
fn signatures_in_several_sidecars_count_together_and_each_must_fit() {
    let (bench, keyring) = team();
    bench.write("x.tgz.sig", &bench.read("a.sig"));
    bench.write("x.asc", &bench.read("b.asc"));
    let word = |number| bench.word(&require(Policy::Signature, number), &keyring);
    assert_eq!(word(2), "signature by 2");
    let file = bench.verify(Policy::Signature, &keyring).unwrap();
    let Verdict::Signature { signers } = file.verdict else {
        panic!("expected a signature");
    };
    let sidecars: Vec<_> = signers.iter().map(|it| it.sidecar.clone()).collect();
    assert_eq!(sidecars, [bench.path("x.tgz.sig"), bench.path("x.asc")]);
    // One that is damaged, or over something else, spoils the rest.
    bench.write("x.sig", b"no signature");
    assert_eq!(word(1), "malformed-signature");
    bench.write("other", b"other");
    bench.sign_file("c", &[], "x.sig", "other");
    assert_eq!(word(1), "bad-signature");
    bench.write("x.sig", &bench.read("stranger.sig"));
    assert_eq!(word(2), "signature by 2");
}

#[test]
fn too_few_signers_are_like_none_where_less_is_enough() {
    let (bench, keyring) = team();
    bench.write("x.tgz.sig", &bench.read("a.sig"));
    let words = || {
        [Policy::Signature, Policy::Checksum, Policy::None]
            .map(|policy| bench.word(&require(policy, 2), &keyring))
    };
    assert_eq!(words(), ["too-few-signers", "too-few-signers", "unchecked"]);
    bench.write("x.sha256", sha256().as_bytes());
    assert_eq!(words(), ["too-few-signers", "checksum", "checksum"]);
}

#[test]
fn every_checksum_file_must_fit() {
    let bench = Bench::new();
    let sha512 = {
        use sha2::Digest as _;
        let bytes = sha2::Sha512::digest(CONTENT);
        bytes
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
    };
    let word = || bench.word(&Requirements::new(Policy::Checksum), &Keyring::default());
    let good = [
        ("x.tgz.sha512", sha512.clone()),
        ("x.sha256", sha256()),
        ("x.tgz.checksum", format!("SHA512 (x.tgz) = {sha512}\n")),
        ("SHA512SUMS", format!("{sha512} *x.tgz\n")),
        ("sha256sums.txt", format!("oops\n{}", sha256())),
    ];
    for (name, content) in &good {
        bench.write(name, content.as_bytes());
        assert_eq!(word(), "checksum", "{name}");
    }
    for (name, content) in &good {
        let wrong = content.replace(&sha512, &"0".repeat(128));
        let wrong = wrong.replace(&Digest::of(CONTENT).hex(), &"0".repeat(64));
        bench.write(name, wrong.as_bytes());
        assert_eq!(word(), "checksum-mismatch", "{name}");
        bench.write(name, content.as_bytes());
    }
    // A list that says nothing of the package is none of its sidecars.
    bench.write(
        "SHA256SUMS",
        format!("{}  y.tgz\n", "0".repeat(64)).as_bytes(),
    );
    assert_eq!(word(), "checksum");
    for (name, _) in &good {
        bench.remove(name);
    }
    assert_eq!(word(), "no-checksum");
}

#[test]
fn a_signature_over_a_list_vouches_for_what_it_lists() {
    let (bench, keyring) = team();
    let word = |policy| bench.word(&Requirements::new(policy), &keyring);
    bench.write("SHA256SUMS", sha256().as_bytes());
    assert_eq!(word(Policy::Signature), "no-signature");
    for (extension, arguments) in [("sig", &[][..]), ("asc", &["--armor"]), ("gpg", &[])] {
        let sidecar = format!("SHA256SUMS.{extension}");
        bench.sign_file("a", arguments, &sidecar, "SHA256SUMS");
        let file = bench.verify(Policy::Signature, &keyring).unwrap();
        let Verdict::Signature { signers } = file.verdict else {
            panic!("expected a signature");
        };
        assert_eq!(signers[0].list, Some(bench.path("SHA256SUMS")));
        assert!(signers[0].to_string().contains("SHA256SUMS"));
        bench.remove(&sidecar);
    }
    // Together with another signer's over the package itself.
    bench.sign_file("a", &[], "SHA256SUMS.sig", "SHA256SUMS");
    bench.write("x.tgz.sig", &bench.read("b.sig"));
    let two = bench.word(&require(Policy::Signature, 2), &keyring);
    assert_eq!(two, "signature by 2");
    bench.remove("x.tgz.sig");
    // The list was changed after it was signed.
    bench.write("SHA256SUMS", format!("# changed\n{}", sha256()).as_bytes());
    for policy in [Policy::Signature, Policy::Checksum, Policy::None] {
        assert_eq!(word(policy), "bad-signature");
    }
    // The package was changed after it was listed.
    bench.sign_file("a", &[], "SHA256SUMS.sig", "SHA256SUMS");
    assert_eq!(word(Policy::Signature), "signature by 1");
    bench.write("x.tgz", b"other content");
    assert_eq!(word(Policy::Signature), "checksum-mismatch");
    // A signed list that says nothing of the package.
    bench.write("SHA256SUMS", b"");
    assert_eq!(word(Policy::Signature), "no-signature");
}

#[test]
fn a_package_s_own_checksum_file_may_be_signed() {
    let (bench, keyring) = team();
    bench.write("x.tgz.sha256", sha256().as_bytes());
    bench.sign_file("a", &[], "x.tgz.sha256.sig", "x.tgz.sha256");
    let word = bench.word(&Requirements::new(Policy::Signature), &keyring);
    assert_eq!(word, "signature by 1");
    // A text that is signed in itself is something else, and is told so.
    bench.gpg(&[
        "-u",
        "a",
        "--output",
        "x.tgz.sha256.asc",
        "--clear-sign",
        "x.tgz.sha256",
    ]);
    let error = bench.verify(Policy::Signature, &keyring).unwrap_err();
    assert_eq!(error.code(), "malformed-signature");
    assert!(error.to_string().contains("detached"), "{error}");
}
