//! OCI image layouts, whose blobs are sent from where they lie.

use std::process::Command;

use super::{User, report, words};
use crate::support::{
    Auth, Images, TestRegistry, Workshop, digest_of_manifest, noise, raw_manifest, run,
    skopeo_copy, write,
};

#[test]
fn a_layout_of_skopeo_is_pushed_to_the_byte_and_copied_nowhere() {
    let registry = TestRegistry::start(Auth::None);
    let workshop = Workshop::new();
    let layout = workshop.argument("app");
    for version in ["v1", "v2"] {
        workshop.export(version, &format!("oci:{layout}:{version}"));
    }
    let user = User::new();
    let found = report(user.push_to(registry.address()).arg(&layout), 0);
    assert_eq!(found["counts"]["images_pushed"], 2, "{found:#}");
    assert_eq!(found["files"][0]["cached_bytes"], 0, "{found:#}");
    assert_eq!(user.cached_blobs(), 0);
    let address = registry.address();
    for version in ["v1", "v2"] {
        let ours = format!("docker://{address}/app:{version}");
        let source = format!("oci:{layout}:{version}");
        assert_eq!(raw_manifest(&ours), raw_manifest(&source));
        // Every blob, too: skopeo compares each with its digest.
        let back = workshop.argument(&format!("back-{version}"));
        skopeo_copy(&ours, &format!("oci:{back}:{version}"), &[]);
    }
    // Under another name, all blobs are there already.
    let mut again = user.push_to(registry.address());
    let again = report(again.args(["--repository", "team/other"]).arg(&layout), 0);
    assert_eq!(again["counts"]["images_pushed"], 2, "{again:#}");
    let digest = digest_of_manifest(&format!("docker://{address}/team/other:v2"));
    assert_eq!(digest, digest_of_manifest(&format!("oci:{layout}:v2")));
}

#[test]
fn several_layouts_go_in_one_run_and_share_their_blobs() {
    let registry = TestRegistry::start(Auth::None);
    let dir = tempfile::TempDir::new().unwrap();
    let shared = noise(9, 200_000);
    let mut paths = Vec::new();
    for name in ["one", "two"] {
        let mut images = Images::default();
        images.add(name, "v1", std::slice::from_ref(&shared));
        images.write_layout(&dir.path().join(name));
        paths.push(dir.path().join(name));
    }
    let found = report(User::new().push_to(registry.address()).args(&paths), 0);
    assert_eq!(found["runs"].as_array().unwrap().len(), 1, "{found:#}");
    assert!(
        found["counts"]["blobs_mounted"].as_u64().unwrap() >= 1,
        "{found:#}"
    );
    let sent = found["counts"]["bytes_sent"].as_u64().unwrap();
    assert!(sent < 2 * 200_000, "{found:#}");
}

#[test]
fn signatures_in_a_layout_go_with_their_image() {
    let registry = TestRegistry::start(Auth::None);
    let dir = tempfile::TempDir::new().unwrap();
    let layout = dir.path().join("app");
    let mut images = Images::default();
    let image = images.add("app", "v1", &[noise(5, 1000)]);
    let config = images.blob("application/vnd.oci.empty.v1+json", "{}");
    let payload = images.blob("application/vnd.dev.cosign.simplesigning.v1+json", "signed");
    let signature = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.signature", "config": config, "layers": [payload],
        "subject": image.root,
    });
    let signature = images.blob(
        "application/vnd.oci.image.manifest.v1+json",
        signature.to_string(),
    );
    images.write_layout(&layout);
    let index = layout.join("index.json");
    let mut document: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    let entry = serde_json::to_value(&signature).unwrap();
    document["manifests"].as_array_mut().unwrap().push(entry);
    write(&index, document.to_string());

    report(User::new().push_to(registry.address()).arg(&layout), 0);
    let address = registry.address();
    let digest = signature.digest;
    assert_eq!(
        digest_of_manifest(&format!("docker://{address}/app@{digest}")),
        digest
    );
    // This registry has no referrers API: the index under the fallback tag says what there is.
    let subject = image.root.digest.hex();
    let fallback = raw_manifest(&format!("docker://{address}/app:sha256-{subject}"));
    let fallback: serde_json::Value = serde_json::from_slice(&fallback).unwrap();
    assert_eq!(
        fallback["manifests"][0]["digest"],
        digest.to_string(),
        "{fallback:#}"
    );
}

#[test]
fn a_damaged_layer_is_named_and_other_images_are_pushed() {
    let registry = TestRegistry::start(Auth::None);
    let dir = tempfile::TempDir::new().unwrap();
    let layout = dir.path().join("app");
    let mut images = Images::default();
    let damaged = noise(1, 5000);
    images.add("app", "v1", std::slice::from_ref(&damaged));
    images.add("app", "v2", &[noise(2, 5000)]);
    images.write_layout(&layout);
    let digest = violetd::base::Digest::of(&damaged);
    write(
        &layout.join("blobs/sha256").join(digest.hex()),
        noise(3, 5000),
    );
    let user = User::new();
    let mut command = user.push_to(registry.address());
    let output = command.arg(&layout).output().unwrap();
    let found = super::report_of(&output, 74);
    assert_eq!(found["state"], "incomplete", "{found:#}");
    assert_eq!(found["counts"]["images_pushed"], 1, "{found:#}");
    assert_eq!(found["counts"]["images_failed"], 1, "{found:#}");
    assert!(words(&output).contains(&digest.to_string()), "{output:?}");
}

#[test]
fn an_archive_of_docker_is_a_package() {
    let registry = TestRegistry::start(Auth::None);
    let workshop = Workshop::new();
    let archive = workshop.path("app.tar");
    let destination = format!("docker-archive:{}:team/app:v1", archive.display());
    workshop.export("v1", &destination);
    let user = User::new();
    let found = report(user.push_to(registry.address()).arg(&archive), 0);
    assert_eq!(found["counts"]["images_pushed"], 1, "{found:#}");
    let address = registry.address();
    let mut inspect = Command::new("skopeo");
    inspect.args(["inspect", "--tls-verify=false", "--config"]);
    run(
        "skopeo",
        inspect.arg(format!("docker://{address}/team/app:v1")),
    );
}
