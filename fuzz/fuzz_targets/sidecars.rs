//! Checksum files and signatures, as they lie beside a package.
//!
//! The first line of the input says what the rest is: `none .sig` is a file `x.tgz.sig` under the policy `none`. A line
//! `== .sha512` begins another file. The policy `both` asks for two signers, of whom only one is known.

#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use violetd::base::{Chain, Digest, Timestamp};
use violetd::verify::{self, Keyring, Limits, Policy, Requirements, Source, Verdict};
use violetd_fuzz::check_message;

/// What is in the package.
const CONTENT: &[u8] = b"the content of a package\n";
/// Its SHA-512, by `sha512sum`.
const SHA512: &str = concat!(
    "8d4961150c186dbd8e8b85aa5af5ac51f0652572f3a0662fe572a24fd5b60f77",
    "ee478578d6ad2d978ac7fc01c2161200e0b4d222ea5d879ffb56822c555c9dc6"
);
/// The certificate of the signer of the seeds, whose secret key is gone.
const CERTIFICATE: &[u8] = include_bytes!("../seeds/packager.asc");

/// Names of sidecars. An input names one by its end; of several the first is meant.
const SIDECARS: [&str; 14] = [
    "x.tgz.sig",
    "x.tgz.asc",
    "x.sig",
    "x.asc",
    "x.tgz.sha256",
    "x.sha256",
    "x.tgz.checksum",
    "SHA256SUMS",
    "x.tgz.sha512",
    "x.sha512",
    "SHA512SUMS",
    "SHA256SUMS.gpg",
    "SHA512SUMS.asc",
    "x.tgz.sha256.sig",
];
/// How a line begins that begins a further file.
const MARK: &[u8] = b"== ";
/// Files at most that one input makes.
const FILES_MAX: usize = 4;

/// A folder with a package, and whose signatures count.
struct Bench {
    dir: tempfile::TempDir,
    source: Source,
    digest: Digest,
    keyring: Keyring,
    now: Timestamp,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    // In memory, where there is such a folder: thousands of files a second.
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary folder");
    let package = dir.path().join("x.tgz");
    fs::write(&package, CONTENT).expect("the package can be written");
    let certificate = dir.path().join("packager.pgp");
    fs::write(&certificate, CERTIFICATE).expect("the certificate can be written");
    let keyring =
        Keyring::load([&certificate], &Limits::default()).expect("the certificate is one");
    Bench {
        digest: Digest::of(CONTENT),
        source: Source::File(package),
        keyring,
        now: "2026-11-21T12:00:00Z".parse().expect("a time"),
        dir,
    }
});

/// Splits further files off: extension and content of each.
fn further(input: &[u8]) -> (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>) {
    let mut first = Vec::new();
    let mut files: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        if let Some(name) = line.strip_prefix(MARK) {
            let name = name.strip_suffix(b"\n").unwrap_or(name);
            files.push((name.to_vec(), Vec::new()));
        } else if let Some((_, content)) = files.last_mut() {
            content.extend_from_slice(line);
        } else {
            first.extend_from_slice(line);
        }
    }
    (first, files)
}

/// Returns what a policy of this name asks for.
fn requirements(name: &str) -> Requirements {
    match name {
        "signature" => Requirements::new(Policy::Signature),
        "checksum" => Requirements::new(Policy::Checksum),
        "both" => Requirements {
            signatures_min: 2,
            ..Requirements::new(Policy::Signature)
        },
        _ => Requirements::new(Policy::None),
    }
}

/// Checks that a verdict has a reason in the files.
fn check(verdict: &Verdict, requirements: &Requirements, text: &str) {
    let names_content = text.contains(&BENCH.digest.hex()) || text.contains(SHA512);
    match verdict {
        Verdict::Signature { signers } => {
            assert!(requirements.signatures_min == 1, "two signers");
            assert_eq!(signers.len(), 1, "one certificate, one signer");
            let is_of_list = signers[0].list.is_some();
            assert!(!is_of_list || names_content, "a list without this content");
        }
        Verdict::Checksum { .. } => {
            assert!(
                requirements.policy != Policy::Signature,
                "a checksum where a signature is needed"
            );
            assert!(names_content, "nothing promises this content");
        }
        Verdict::Unchecked => {
            assert!(
                requirements.policy == Policy::None,
                "nothing vouches for it"
            );
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let (head, content) = (&data[..end], &data[end + 1..]);
    let head = String::from_utf8_lossy(head);
    let Some((policy, name)) = head.split_once(' ') else {
        return;
    };
    let requirements = requirements(policy);
    let (content, further) = further(content);
    let mut files = vec![(name.as_bytes().to_vec(), content)];
    files.extend(further.into_iter().take(FILES_MAX - 1));
    let bench = &*BENCH;
    let mut written = BTreeMap::new();
    for (name, content) in files {
        let name = String::from_utf8_lossy(&name).into_owned();
        let known = SIDECARS.iter().find(|sidecar| sidecar.ends_with(&name));
        if let Some(known) = known {
            written.insert(bench.dir.path().join(known), content);
        }
    }
    if written.is_empty() {
        return;
    }
    for (path, content) in &written {
        fs::write(path, content).expect("the sidecar can be written");
    }
    let outcome = verify::verify_file(&bench.source, &requirements, &bench.keyring, bench.now);
    for path in written.keys() {
        fs::remove_file(path).expect("the sidecar can be removed");
    }
    match outcome {
        Ok(file) => {
            let file = file.into_inner();
            assert_eq!(file.digest, bench.digest);
            let all: Vec<u8> = written.into_values().flatten().collect();
            let text = String::from_utf8_lossy(&all).to_ascii_lowercase();
            check(&file.verdict, &requirements, &text);
        }
        Err(failure) => check_message(&Chain(&*failure.error)),
    }
});
