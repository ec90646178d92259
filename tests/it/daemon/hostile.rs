//! Files that are not what they should be: each is refused with its code, and nothing of them stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use violetd::base::Digest;

use super::{assert_holds, blobs_of, holds};
use crate::support::{
    Auth, Daemon, Entries, Package, Setup, Signer, TestRegistry, drop_into, gzip, metric, names,
};

/// What lies beside a file: extension and content.
type Sidecars = Vec<(&'static str, Vec<u8>)>;

/// A file that must be refused.
struct Case {
    /// Name of the file without extension.
    name: &'static str,
    /// Policy of the folder it is dropped into.
    policy: &'static str,
    content: Vec<u8>,
    sidecars: Sidecars,
    /// Code of the refusal.
    code: &'static str,
}

/// Returns files whose archive is damaged or made to do harm. Nobody vouches for them, so that they get that far.
fn archives(package: &Package) -> Vec<Case> {
    let good = package.bytes();
    let entries = Entries::of(package);
    let image = &package.images.placed[0];
    let layer = image
        .blobs
        .iter()
        .max_by_key(|blob| blob.size_bytes)
        .unwrap();
    let position = entries.position_of(&layer.digest);
    let mut other_content = entries.clone();
    other_content.0[position].content[0] ^= 1;
    let mut missing_blob = entries.clone();
    missing_blob.0.remove(position);
    let zeros = entries.and(b'0', "zeros", vec![0; 70 << 20]);
    vec![
        ("truncated", good[..good.len() / 2].to_vec(), "truncated"),
        ("flipped", flipped(&good), "digest-mismatch"),
        ("wrong-digest", other_content.tgz(), "digest-mismatch"),
        ("missing-blob", missing_blob.tgz(), "missing-blob"),
        (
            "absolute",
            entries.and(b'0', "/etc/cron.d/x", Vec::new()).tgz(),
            "name-absolute",
        ),
        (
            "parent",
            entries.and(b'0', "a/../../x", Vec::new()).tgz(),
            "name-parent",
        ),
        (
            "symlink",
            entries.and(b'2', "link", Vec::new()).tgz(),
            "symbolic-link",
        ),
        (
            "hard-link",
            entries.and(b'1', "link", Vec::new()).tgz(),
            "hard-link",
        ),
        (
            "device",
            entries.and(b'4', "sda", Vec::new()).tgz(),
            "device",
        ),
        ("bomb", zeros.tgz(), "expansion-ratio"),
        (
            "no-archive",
            b"PK\x03\x04 is not ours".repeat(100),
            "not-an-archive",
        ),
        ("no-tar", gzip(&[b'x'; 4000]), "not-an-archive"),
        ("empty-file", Vec::new(), "not-an-archive"),
    ]
    .into_iter()
    .map(|(name, content, code)| Case {
        name,
        policy: "none",
        content,
        sidecars: Vec::new(),
        code,
    })
    .collect()
}

/// Returns files that are not what a checksum says.
fn unlike_their_checksum(package: &Package) -> Vec<Case> {
    let good = package.bytes();
    let half = good[..good.len() / 2].to_vec();
    [
        ("sum-absent", good.clone(), None, "no-checksum"),
        (
            "sum-half",
            half,
            Some(("sum-half", &good[..])),
            "checksum-mismatch",
        ),
        (
            "sum-flipped",
            flipped(&good),
            Some(("sum-flipped", &good)),
            "checksum-mismatch",
        ),
        (
            "sum-wrong",
            good.clone(),
            Some(("sum-wrong", b"x")),
            "checksum-mismatch",
        ),
        (
            "sum-elsewhere",
            good.clone(),
            Some(("nobody", &good)),
            "checksum-of-other-file",
        ),
    ]
    .into_iter()
    .map(|(name, content, vouched, code)| Case {
        name,
        policy: "checksum",
        content,
        sidecars: vouched
            .into_iter()
            .map(|(name, of)| checksum(name, of))
            .collect(),
        code,
    })
    .collect()
}

/// Returns a checksum file for an archive of this name and content.
fn checksum(name: &str, of: &[u8]) -> (&'static str, Vec<u8>) {
    let digest = Digest::of(of).hex();
    ("sha256", format!("{digest}  {name}.tgz\n").into_bytes())
}

/// Returns files that nobody trusted has signed.
fn unsigned(package: &Package, trusted: &Signer, stranger: &Signer) -> Vec<Case> {
    let good = package.bytes();
    let other = Package::small("other");
    let by_stranger = ("sig", stranger.sign(&package.path));
    let of_other = ("sig", trusted.sign(&other.path));
    let of_good = ("sig", trusted.sign(&package.path));
    let garbage = ("sig", b"\x88garbage".to_vec());
    let sum = checksum("sig-sum-only", &good);
    [
        ("sig-absent", good.clone(), None, "no-signature"),
        ("sig-sum-only", good.clone(), Some(sum), "no-signature"),
        (
            "sig-stranger",
            good.clone(),
            Some(by_stranger),
            "unknown-signer",
        ),
        ("sig-other", good.clone(), Some(of_other), "bad-signature"),
        (
            "sig-flipped",
            flipped(&good),
            Some(of_good),
            "bad-signature",
        ),
        ("sig-garbage", good, Some(garbage), "malformed-signature"),
    ]
    .into_iter()
    .map(|(name, content, sidecar, code)| Case {
        name,
        policy: "signature",
        content,
        sidecars: sidecar.into_iter().collect(),
        code,
    })
    .collect()
}

/// Returns bytes with one bit changed in their middle.
fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    bytes
}

#[test]
fn bad_files_are_refused_each_with_its_code_and_leave_nothing_behind() {
    let (trusted, stranger) = (Signer::new("packager"), Signer::new("stranger"));
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").trust(&trusted.certificate());
    let folders: BTreeMap<&str, PathBuf> = BTreeMap::from([
        ("none", setup.drop_dir.clone()),
        ("checksum", setup.path("checksum")),
        ("signature", setup.path("signature")),
    ]);
    let setup = setup
        .folder(&folders["checksum"], "checksum")
        .folder(&folders["signature"], "signature")
        .target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let bad = Package::small("bad");
    let mut cases = archives(&bad);
    cases.extend(unlike_their_checksum(&bad));
    cases.extend(unsigned(&bad, &trusted, &stranger));
    for case in &cases {
        let name = format!("{}.tgz", case.name);
        let folder = &folders[case.policy];
        drop_into(folder, (&name, &case.content), &case.sidecars);
    }
    daemon.wait_until("refusal of all files", |_| {
        let mut folders = folders.values();
        folders.all(|folder| holds(folder, &["rejected"]))
    });
    let status = daemon.status();
    for case in &cases {
        check_refused(case, &folders[case.policy], &status);
    }
    assert_eq!(status["packages"].as_array().unwrap().len(), 0);
    assert_eq!(daemon.setup.blobs(), Vec::<String>::new());
    assert_eq!(
        names(&daemon.setup.state_dir.join("ingest")),
        Vec::<String>::new()
    );
    let rejected = metric(&daemon.metrics(), "violetd_ingest_packages_rejected_total");
    assert_eq!(rejected, cases.len() as u64);

    // The daemon goes on: a good file in each folder.
    let good = ["good-none", "good-checksum", "good-signature"].map(Package::small);
    drop_into(&folders["none"], ("good.tgz", &good[0].bytes()), &[]);
    let checksum = [("sha256", good[1].checksum())];
    drop_into(
        &folders["checksum"],
        ("good-checksum.tgz", &good[1].bytes()),
        &checksum,
    );
    let signature = [("sig", trusted.sign(&good[2].path))];
    drop_into(
        &folders["signature"],
        ("good.tgz", &good[2].bytes()),
        &signature,
    );
    daemon.wait_in_sync(3);
    for package in &good {
        assert_holds(&registry, package);
    }
    assert_eq!(daemon.setup.blobs(), blobs_of(&good.each_ref()));
    daemon.stop();
}

/// Fails the test unless a file and what was beside it are in `rejected/`, with the reason.
fn check_refused(case: &Case, folder: &Path, status: &Value) {
    let name = format!("{}.tgz", case.name);
    let rejected = folder.join("rejected");
    let reason = std::fs::read(rejected.join(format!("{name}.reason.json"))).unwrap();
    let reason: Value = serde_json::from_slice(&reason).unwrap();
    assert_eq!(reason["code"], case.code, "{name}: {reason:#}");
    assert!(!reason["reason"].as_str().unwrap().is_empty(), "{reason:#}");
    assert_eq!(reason["size_bytes"], case.content.len() as u64);
    let is_kept = std::fs::read(rejected.join(&name)).unwrap() == case.content;
    assert!(is_kept, "{name} has changed");
    for (extension, content) in &case.sidecars {
        let sidecar = std::fs::read(rejected.join(format!("{name}.{extension}"))).unwrap();
        assert_eq!(sidecar, *content);
    }
    let path = folder.join(&name);
    let mut files = status["files"].as_array().unwrap().iter();
    let file = files
        .find(|file| file["path"] == path.to_str().unwrap())
        .unwrap();
    assert_eq!(file["state"], "rejected");
    assert_eq!(file["code"], case.code);
}
