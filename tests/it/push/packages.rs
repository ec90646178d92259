//! Package files and folders of them.

use tempfile::TempDir;

use super::{User, put_into, report, words};
use crate::daemon::assert_holds;
use crate::support::{Auth, Images, Package, Signer, TestRegistry, noise, write};

#[test]
fn a_package_is_brought_whole_and_leaves_nothing_in_the_cache() {
    let registry = TestRegistry::start(Auth::None);
    let mut images = Images::default();
    let shared = noise(1, 300_000);
    images.add("team/app", "v1", &[shared.clone(), noise(2, 50_000)]);
    images.add("team/web", "v2", &[shared]);
    let package = Package::operator("app", images);
    let user = User::new();
    let first = report(user.push_to(registry.address()).arg(&package.path), 0);
    assert_holds(&registry, &package);
    assert_eq!(first["state"], "done", "{first:#}");
    let counts = &first["counts"];
    assert_eq!(counts["images_pushed"], 2, "{first:#}");
    assert_eq!(counts["blobs_mounted"], 1, "{first:#}");
    assert!(
        counts["bytes_sent"].as_u64().unwrap() <= package.images.total_bytes(),
        "{first:#}"
    );
    let file = &first["files"][0];
    assert_eq!(file["packages"][0]["name"], "app", "{first:#}");
    assert_eq!(
        file["packages"][0]["provenance"]["by"], "checksum",
        "{first:#}"
    );
    assert_eq!(user.cached_blobs(), 0);

    let second = report(user.push_to(registry.address()).arg(&package.path), 0);
    assert_eq!(second["counts"]["images_in_sync"], 2, "{second:#}");
    assert_eq!(second["counts"]["bytes_sent"], 0, "{second:#}");
    for image in second["runs"][0]["images"].as_array().unwrap() {
        assert_eq!(image["state"], "in_place", "{second:#}");
        assert_eq!(image["requests"], 1, "{second:#}");
    }
}

#[test]
fn each_image_has_what_was_done_for_it_and_nothing_is_counted_twice() {
    let registry = TestRegistry::start(Auth::None);
    let mut images = Images::default();
    let shared = noise(1, 300_000);
    images.add("team/app", "v1", &[shared.clone(), noise(2, 50_000)]);
    images.add("team/app", "v2", std::slice::from_ref(&shared));
    images.add("team/web", "v1", &[shared]);
    let package = Package::operator("app", images);
    let user = User::new();
    let found = report(user.push_to(registry.address()).arg(&package.path), 0);
    let images = found["runs"][0]["images"].as_array().unwrap();
    assert_eq!(images.len(), 3, "{found:#}");
    let sum = |kind: &str, what: &str| {
        let amounts = images.iter().map(|image| &image[kind][what]);
        amounts.filter_map(serde_json::Value::as_u64).sum::<u64>()
    };
    let counts = &found["counts"];
    assert_eq!(sum("sent", "blobs"), counts["blobs_sent"], "{found:#}");
    assert_eq!(
        sum("mounted", "blobs"),
        counts["blobs_mounted"],
        "{found:#}"
    );
    assert_eq!(
        sum("planned", "blobs"),
        sum("sent", "blobs") + sum("mounted", "blobs") + sum("skipped", "blobs"),
        "{found:#}"
    );
    let requests = images
        .iter()
        .map(|image| image["requests"].as_u64().unwrap());
    assert_eq!(requests.sum::<u64>(), counts["requests"], "{found:#}");
    for image in images {
        assert_eq!(image["state"], "pushed", "{found:#}");
        assert!(image["milliseconds"].is_u64(), "{found:#}");
    }
}

#[test]
fn what_is_kept_is_not_unpacked_again_for_another_registry() {
    let (primary, standby) = (
        TestRegistry::start(Auth::None),
        TestRegistry::start(Auth::None),
    );
    let package = Package::small("app");
    let user = User::new();
    let push = |registry: &TestRegistry| {
        let mut command = user.push_to(registry.address());
        report(command.arg("--keep").arg(&package.path), 0)
    };
    let first = push(&primary);
    assert!(
        first["files"][0]["cached_bytes"].as_u64().unwrap() > 0,
        "{first:#}"
    );
    assert_ne!(user.cached_blobs(), 0);
    let second = push(&standby);
    assert_eq!(second["files"][0]["cached_bytes"], 0, "{second:#}");
    assert_holds(&standby, &package);
}

#[test]
fn a_broken_package_of_a_folder_keeps_no_other_from_being_pushed() {
    let registry = TestRegistry::start(Auth::None);
    let folder = TempDir::new().unwrap();
    let (first, last) = (Package::small("alpha"), Package::small("omega"));
    put_into(folder.path(), &first.path);
    put_into(folder.path(), &last.path);
    let mut broken = first.bytes();
    broken.truncate(broken.len() / 2);
    write(&folder.path().join("broken.tgz"), broken);
    let user = User::new();
    let mut command = user.push_to(registry.address());
    let output = command.arg(folder.path()).output().unwrap();
    let found = super::report_of(&output, 65);
    assert_eq!(found["state"], "incomplete", "{found:#}");
    let states = found["files"].as_array().unwrap().iter();
    let states: Vec<_> = states.map(|file| file["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["done", "failed", "done"], "{found:#}");
    assert!(words(&output).contains("broken.tgz: "), "{output:?}");
    assert_holds(&registry, &first);
    assert_holds(&registry, &last);
}

#[test]
fn what_lies_beside_a_package_must_fit_and_a_keyring_asks_for_a_signature() {
    let registry = TestRegistry::start(Auth::None);
    let folder = TempDir::new().unwrap();
    let package = Package::small("app");
    put_into(folder.path(), &package.path);
    let path = folder.path().join("app.tgz");
    let user = User::new();
    let keys = folder.path().join("key.asc");
    let signer = Signer::new("release");
    write(&keys, signer.certificate());

    let unsigned = report(
        user.push_to(registry.address())
            .arg("--keyring")
            .arg(&keys)
            .arg(&path),
        65,
    );
    assert_eq!(unsigned["files"][0]["code"], "no-signature", "{unsigned:#}");
    write(&folder.path().join("app.tgz.sig"), signer.sign(&path));
    let accepted = report(
        user.push_to(registry.address())
            .arg("--keyring")
            .arg(&keys)
            .arg(&path),
        0,
    );
    assert_eq!(
        accepted["files"][0]["packages"][0]["provenance"]["by"],
        "signature"
    );

    let wrong = format!("{}  app.tgz\n", "0".repeat(64));
    write(&folder.path().join("app.tgz.sha256"), wrong);
    let damaged = report(user.push_to(registry.address()).arg(&path), 65);
    assert_eq!(
        damaged["files"][0]["code"], "checksum-mismatch",
        "{damaged:#}"
    );
}

#[test]
fn an_image_of_somebody_else_stays_unless_forced() {
    let registry = TestRegistry::start(Auth::None);
    let other = Package::small("app");
    let mut images = Images::default();
    images.add("app", "v1", &[noise(77, 1000)]);
    let ours = Package::operator("app", images);
    report(User::new().push_to(registry.address()).arg(&other.path), 0);
    let user = User::new();
    let mut command = user.push_to(registry.address());
    let output = command.arg(&ours.path).output().unwrap();
    let refused = super::report_of(&output, 64);
    assert_eq!(refused["counts"]["images_failed"], 1, "{refused:#}");
    assert_holds(&registry, &other);
    report(
        user.push_to(registry.address())
            .arg("--force")
            .arg(&ours.path),
        0,
    );
    assert_holds(&registry, &ours);
}
