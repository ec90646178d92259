//! A keyring whose files change while they are in use.

use std::sync::Arc;

use super::*;
use crate::base::Chain;
use crate::verify::{Error, KeyringFiles};

fn files(bench: &Bench, policy: Policy) -> KeyringFiles {
    let requirements = Requirements::new(policy);
    KeyringFiles::new(vec![bench.path("keys")], requirements)
}

fn code(found: Result<Arc<Keyring>, Error>) -> &'static str {
    found.map_or_else(|error| error.code(), |_| "none")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a folder of this test")]
fn what_is_in_the_files_counts_from_then_on_and_what_was_there_before_does_not() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("keys")).unwrap();
    let (one, two) = (bench.old_key("one", "0"), bench.old_key("two", "0"));
    bench.export(&one, "keys/one.pgp");
    let files = files(&bench, Policy::Signature);
    let before = files.read().unwrap();
    assert!(Arc::ptr_eq(&before, &files.read().unwrap()), "read twice");
    bench.sign_at(&one, "20250102", "x.tgz.sig");
    assert_eq!(bench.code(Policy::Signature, &before), "none");

    // Added: a signer, and then a revocation beside what is there.
    bench.export(&two, "keys/two.pgp");
    assert_eq!(files.read().unwrap().fingerprints().count(), 2);
    bench.revoke(&one, "20250201", 1);
    bench.export(&one, "keys/one.revoked.pgp");
    let revoked = files.read().unwrap();
    assert_eq!(bench.code(Policy::Signature, &revoked), "revoked-key");

    // Broken, in every way: nothing of before is used.
    bench.remove("keys/one.revoked.pgp");
    bench.write("keys/one.revoked.pgp", b"half of a certifica");
    let error = files.read().unwrap_err();
    assert_eq!(
        (error.code(), error.class()),
        ("keyring-invalid", Class::Usage)
    );
    let text = Chain(&error).to_string();
    assert!(text.contains("one.revoked.pgp"), "{text}");
    bench.remove("keys/one.revoked.pgp");
    std::os::unix::fs::symlink("nowhere", bench.path("keys/one.revoked.pgp")).unwrap();
    assert_eq!(code(files.read()), "keyring-unreadable", "a dead link");
    bench.remove("keys/one.revoked.pgp");
    let pipe = std::process::Command::new("mkfifo")
        .arg(bench.path("keys/pipe"))
        .status();
    assert!(pipe.unwrap().success());
    assert_eq!(code(files.read()), "keyring-unreadable", "a pipe");
    bench.remove("keys/pipe");
    assert_eq!(files.read().unwrap().fingerprints().count(), 2);

    // Replaced by content of the same size and time.
    let (content, time) = (
        bench.read("keys/one.pgp"),
        std::fs::metadata(bench.path("keys/one.pgp"))
            .unwrap()
            .modified()
            .unwrap(),
    );
    let path = bench.write("keys/one.pgp", &vec![b'x'; content.len()]);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
    assert_eq!(code(files.read()), "keyring-invalid");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a folder of this test")]
fn a_keyring_may_be_absent_where_no_signature_is_needed_and_may_come_later() {
    let bench = Bench::new();
    let (needed, not_needed) = (
        files(&bench, Policy::Signature),
        files(&bench, Policy::Checksum),
    );
    assert_eq!(code(needed.read()), "keyring-unreadable");
    assert_eq!(not_needed.read().unwrap().fingerprints().count(), 0);
    std::fs::create_dir(bench.path("keys")).unwrap();
    let key = bench.key("late", "ed25519");
    bench.export(&key, "keys/late.pgp");
    for files in [needed, not_needed] {
        assert_eq!(files.read().unwrap().fingerprints().count(), 1);
    }
    // One that is there and cannot be read is no absent one.
    std::os::unix::fs::symlink("nowhere", bench.path("keys/other.pgp")).unwrap();
    let not_needed = files(&bench, Policy::Checksum);
    assert_eq!(code(not_needed.read()), "keyring-unreadable");
}
