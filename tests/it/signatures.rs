//! Who may sign for which drop folder, as the daemon and `violetd verify` see it. Kinds and faults of signatures are in
//! a table beside the verifier.

use std::path::Path;

use serde_json::{Value, json};
use violetd::base::Digest;

use crate::daemon::wait_ready;
use crate::support::{
    Daemon, Package, Setup, Signer, drop_into, names, reason_of, run_program, write,
};

/// Returns the fingerprint of a certificate, as GnuPG prints it.
fn fingerprint(signer: &Signer, folder: &Path) -> String {
    let path = folder.join("certificate.asc");
    write(&path, signer.certificate());
    let mut gpg = std::process::Command::new("gpg");
    gpg.args(["--with-colons", "--show-keys"]).arg(path);
    let listing = crate::support::run("gnupg", &mut gpg);
    let listing = String::from_utf8(listing).unwrap();
    let line = listing.lines().find(|line| line.starts_with("fpr:"));
    line.unwrap().split(':').nth(9).unwrap().to_owned()
}

/// Returns what the daemon says of a package.
fn package(daemon: &Daemon, package: &Package) -> Value {
    let digest = package.digest().to_string();
    let status = daemon.status();
    let packages = status["packages"].as_array().unwrap().iter();
    let mut found = packages.filter(|it| it["digest"] == digest.as_str());
    found.next().cloned().unwrap_or_default()
}

#[test]
fn each_drop_folder_has_its_own_signers_keyring_and_threshold() {
    let (one, two, other) = (Signer::new("one"), Signer::new("two"), Signer::new("other"));
    let setup = Setup::new("signature")
        .trust(&one.certificate())
        .trust(&two.certificate());
    let (both, own) = (setup.path("both"), setup.path("own"));
    let own_keys = setup.file("own.asc", other.certificate());
    let signers = [&one, &two].map(|signer| fingerprint(signer, &setup.drop_dir));
    let setup = setup
        .folder(&both, "signature")
        .section(&format!(
            "signatures_min = 2\nsigners = ['{}', '{}']\n",
            signers[0], signers[1]
        ))
        .folder(&own, "signature")
        .section(&format!("keyring = ['{}']\n", own_keys.display()))
        .target("global-a", "primary", "127.0.0.1:1", "");
    let daemon = Daemon::start(setup);

    let [first, second, third] = ["first", "second", "third"].map(Package::small);
    let signed = |by: &Signer, package: &Package| ("sig", by.sign(&package.path));
    let by_two = [signed(&two, &first), ("asc", one.sign_armored(&first.path))];
    drop_into(&both, ("first.tgz", &first.bytes()), &by_two);
    drop_into(
        &both,
        ("second.tgz", &second.bytes()),
        &[signed(&one, &second)],
    );
    drop_into(
        &own,
        ("third.tgz", &third.bytes()),
        &[signed(&other, &third)],
    );
    drop_into(
        &own,
        ("second.tgz", &second.bytes()),
        &[signed(&one, &second)],
    );
    daemon.wait_until("every file is done or refused", |_| {
        let folders = [&both, &own];
        folders.iter().all(|it| names(it) == ["done", "rejected"])
    });
    assert_eq!(
        names(&both.join("done")),
        ["first.tgz", "first.tgz.asc", "first.tgz.sig"]
    );
    let provenance = package(&daemon, &first)["provenance"].clone();
    assert_eq!(provenance["fingerprint"], signers[1].as_str());
    assert_eq!(
        provenance["cosigners"][0]["fingerprint"],
        signers[0].as_str()
    );
    let refused = reason_of(&both.join("rejected"), "second.tgz");
    assert_eq!(refused["code"], "too-few-signers");
    assert_eq!(refused["digest"], second.digest().to_string());
    assert_eq!(
        reason_of(&own.join("rejected"), "second.tgz")["code"],
        "unknown-signer"
    );
    assert!(names(&own.join("done")).contains(&"third.tgz".to_owned()));
    assert_eq!(
        package(&daemon, &third)["provenance"].get("cosigners"),
        None
    );
}

#[test]
fn a_signed_list_vouches_for_every_package_of_a_folder_and_stays_there() {
    let signer = Signer::new("packager");
    let setup = Setup::new("signature").trust(&signer.certificate()).target(
        "global-a",
        "primary",
        "127.0.0.1:1",
        "",
    );
    let packages = ["alpha", "beta"].map(Package::small);
    let list = setup.drop_dir.join("SHA256SUMS");
    let lines = packages.each_ref().map(|package| {
        let name = package.path.file_name().unwrap().display();
        format!("{}  {name}\n", package.digest().hex())
    });
    write(&list, lines.concat());
    write(&setup.drop_dir.join("SHA256SUMS.sig"), signer.sign(&list));
    for package in &packages {
        setup.drop_package(package);
    }
    setup.drop_file("gamma.tgz", b"not listed", &[]);
    let daemon = Daemon::start(setup);
    let drop_dir = &daemon.setup.drop_dir;
    daemon.wait_until("every file is done or refused", |_| {
        names(drop_dir) == ["SHA256SUMS", "SHA256SUMS.sig", "done", "rejected"]
    });
    assert_eq!(names(&drop_dir.join("done")).len(), 2);
    assert_eq!(
        reason_of(&drop_dir.join("rejected"), "gamma.tgz")["code"],
        "no-signature"
    );
}

#[test]
fn a_revocation_counts_from_the_moment_it_is_in_the_keyring_and_a_broken_keyring_trusts_nobody() {
    let (signer, next) = (Signer::new("packager"), Signer::new("successor"));
    let setup = Setup::new("signature").trust(&signer.certificate()).target(
        "global-a",
        "primary",
        "127.0.0.1:1",
        "",
    );
    let keys = setup.path("keys");
    let daemon = Daemon::start(setup);
    let [first, second, third] = ["first", "second", "third"].map(Package::small);
    let drop_signed = |by: &Signer, package: &Package, name: &str| {
        let sidecars = [("sig", by.sign(&package.path))];
        daemon.setup.drop_file(name, &package.bytes(), &sidecars)
    };
    drop_signed(&signer, &first, "first.tgz");
    wait_ready(&daemon, 1);
    // Half a file, as while it is copied: nobody is trusted, and nobody refused.
    let signature = signer.sign(&second.path);
    let revoked = signer.revoke();
    write(&keys.join("0.asc"), &revoked[..revoked.len() / 2]);
    let content = second.bytes();
    let path = daemon
        .setup
        .drop_file("second.tgz", &content, &[("sig", signature)]);
    let status = daemon.wait_until("a file that waits for the keyring", |status| {
        status["files"][0]["code"] == "keyring-invalid"
    });
    let reason = status["files"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("keys/0.asc"), "{reason}");
    assert!(status["files"][0]["hint"].is_string());
    assert!(path.exists());
    write(&keys.join("0.asc"), revoked);
    write(&keys.join("1.asc"), next.certificate());
    drop_signed(&next, &third, "third.tgz");
    wait_ready(&daemon, 2);
    let drop_dir = daemon.setup.drop_dir.clone();
    let rejected = drop_dir.join("rejected");
    daemon.wait_until("a refusal", |_| {
        rejected.join("second.tgz.reason.json").exists()
    });
    assert_eq!(reason_of(&rejected, "second.tgz")["code"], "revoked-key");
    assert_eq!(daemon.log_lines("daemon is ready").len(), 1, "one process");
    daemon.stop();
}

#[test]
fn a_threshold_that_nobody_can_reach_is_refused_before_the_start() {
    let signer = Signer::new("alone");
    let setup = Setup::new("signature")
        .section("signatures_min = 2")
        .trust(&signer.certificate())
        .target("global-a", "primary", "127.0.0.1:1", "");
    let (code, log) = setup.refuse_to_serve();
    assert_eq!(code, Some(64), "{log}");
    assert!(log.contains("expected at least 2 allowed signers"), "{log}");
}

#[test]
fn verify_says_for_programs_what_it_found_in_each_file() {
    let dir = tempfile::tempdir().unwrap();
    let (signer, stranger) = (Signer::new("packager"), Signer::new("stranger"));
    let path = |name: &str| dir.path().join(name);
    write(&path("key.asc"), signer.certificate());
    let hex = |content: &[u8]| Digest::of(content).hex();
    write(&path("a.tgz"), b"a");
    write(&path("a.tgz.sig"), signer.sign(&path("a.tgz")));
    write(&path("b.tgz"), b"b");
    write(&path("b.sha256"), format!("{}  b.tgz\n", hex(b"b")));
    write(&path("c.tgz"), b"c");
    write(&path("c.tgz.sig"), stranger.sign(&path("c.tgz")));
    write(&path("d.tgz"), b"d");
    let folder = dir.path().display().to_string();
    let keyring = path("key.asc").display().to_string();
    let verify = |more: &[&str]| {
        let arguments = ["verify", &folder, "--keyring", &keyring, "--output", "json"];
        let output = run_program(&[&arguments[..], more].concat());
        assert_eq!(output.status.code(), Some(1));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let found = verify(&[]);
    let files = found["files"].as_array().unwrap();
    let verdicts: Vec<&Value> = files.iter().map(|file| &file["verdict"]).collect();
    assert_eq!(verdicts, ["signature", "checksum", "failed", "unverified"]);
    let signers = files[0]["signers"].as_array().unwrap();
    assert_eq!(signers.len(), 1);
    assert_eq!(signers[0]["fingerprint"], fingerprint(&signer, dir.path()));
    assert_eq!(signers[0]["user_id"], "packager <packager@site.example>");
    assert_eq!(files[0]["digest"], Digest::of(b"a").to_string());
    assert_eq!(
        files[1]["sidecars"],
        json!([path("b.sha256").display().to_string()])
    );
    assert_eq!(files[2]["code"], "unknown-signer");
    assert!(files[2]["hint"].is_string());
    assert_eq!(files[2]["digest"], Digest::of(b"c").to_string());
    assert_eq!(files[3]["digest"], Value::Null);
    // More signers than there are is a mistake of the command line.
    let arguments = [
        "verify",
        &folder,
        "--keyring",
        &keyring,
        "--signatures-min",
        "2",
    ];
    assert_eq!(run_program(&arguments).status.code(), Some(64));
}

#[test]
fn limits_of_the_example_are_those_of_the_verifier() {
    let example = include_str!("../../config.example.toml");
    let is_limit = |key: &&str| key.starts_with("sidecar_") || key.starts_with("keyring_");
    let text: String = example
        .lines()
        .map(|line| match line.strip_prefix('#').filter(is_limit) {
            Some(key) => format!("{key}\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let path = Path::new("config.example.toml");
    let config = violetd::config::Config::parse(path, &text, std::iter::empty());
    let shown = config.unwrap().verify;
    let limits = violetd::verify::Limits::default();
    let bytes = |count: Option<violetd::base::ByteCount>| count.map(|count| count.0);
    assert_eq!(
        bytes(shown.sidecar_bytes_max),
        Some(limits.sidecar_bytes_max)
    );
    assert_eq!(
        bytes(shown.keyring_bytes_max),
        Some(limits.keyring_bytes_max)
    );
    for (shown, default) in [
        (shown.sidecar_signatures_max, limits.sidecar_signatures_max),
        (shown.sidecar_lines_max, limits.sidecar_lines_max),
        (
            shown.keyring_certificates_max,
            limits.keyring_certificates_max,
        ),
    ] {
        assert_eq!(shown, Some(default));
    }
}
