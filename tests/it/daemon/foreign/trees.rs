//! Trees from the disks of registries.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use violetd::base::Digest;
use violetd::base::oci::{
    MEDIA_TYPE_DOCKER_LIST, MEDIA_TYPE_DOCKER_MANIFEST, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST,
};

use super::super::problems;
use super::{IMAGE, Site, make_list, push_list};
use crate::support::{
    Auth, TestRegistry, Workshop, digest_of_manifest, skopeo, skopeo_copy, write,
};

const MEDIA_TYPE_DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// Returns every tag of a registry with the digest of what it names; `repositories` must be all that it has.
fn tags_of(registry: &TestRegistry, repositories: &[&str]) -> BTreeSet<(String, Digest)> {
    let mut tags = BTreeSet::new();
    for repository in repositories {
        let image = format!("docker://{}/{repository}", registry.address());
        let list = skopeo(&["list-tags", "--tls-verify=false", &image]);
        let list: Value = serde_json::from_slice(&list).unwrap();
        for tag in list["Tags"].as_array().unwrap() {
            let tag = tag.as_str().unwrap();
            let digest = digest_of_manifest(&format!("{image}:{tag}"));
            tags.insert((format!("{repository}:{tag}"), digest));
        }
    }
    tags
}

/// Fills a registry with what one may hold: both formats, an index of both, a signature, and what no tag names any more.
fn fill_registry(workshop: &Workshop, source: &TestRegistry) {
    let docker = |name: &str| format!("docker://{}/{name}", source.address());
    make_list(workshop);
    let image = format!("{IMAGE}:v2");
    workshop.export("v1", &docker("team/app:latest"));
    workshop.export("v2", &docker("team/app:latest"));
    workshop.export("v2", &docker("team/deep/er/app:v2"));
    let plain = "--tls-verify=false";
    let app = docker("team/app:docker");
    workshop.buildah(&["push", "--quiet", plain, "--format", "v2s2", &image, &app]);
    push_list(workshop, &docker("team/list:mixed"), &[plain]);
    push_list(
        workshop,
        &docker("team/list:docker"),
        &[plain, "--format", "v2s2"],
    );
    let signed = digest_of_manifest(&docker("team/app:latest"));
    let tag = format!("team/app:sha256-{}.sig", signed.hex());
    workshop.export("v1", &docker(&tag));
}

#[test]
fn a_tree_from_the_disk_of_a_registry_arrives_with_every_tag() {
    let (workshop, site) = (Workshop::new(), Site::new());
    let source = TestRegistry::start(Auth::None);
    fill_registry(&workshop, &source);
    let storage = format!("--directory={}", source.storage().display());
    let file = format!("--file={}", workshop.argument("tree.tgz"));
    workshop.tar(&["--create", "--gzip", &file, &storage, "docker"]);
    site.drop(&workshop, "tree.tgz");
    site.daemon.wait_in_sync(1);

    let repositories = ["team/app", "team/deep/er/app", "team/list"];
    let expected = tags_of(&source, &repositories);
    assert_eq!(expected.len(), 6);
    assert_eq!(tags_of(&site.target, &repositories), expected);
    let types = |name: &str| {
        let manifest = site.manifest(name);
        let children = manifest["manifests"].as_array().unwrap().iter();
        let children: Vec<Value> = children.map(|it| it["mediaType"].clone()).collect();
        (manifest["mediaType"].clone(), children)
    };
    let both = [MEDIA_TYPE_MANIFEST, MEDIA_TYPE_DOCKER_MANIFEST].map(Value::from);
    assert_eq!(
        types("team/list:mixed"),
        (MEDIA_TYPE_INDEX.into(), both.to_vec())
    );
    assert_eq!(types("team/list:docker").0, MEDIA_TYPE_DOCKER_LIST);
    let expected: Vec<_> = expected.into_iter().collect();
    site.assert_holds(&workshop, &expected);
    for tag in ["latest", "docker"] {
        let name = format!("{}/team/app:{tag}", site.target.address());
        let pulled = workshop.podman_pull(&name);
        assert_eq!(
            format!("sha256:{pulled}"),
            workshop.config_of("v2"),
            "{tag}"
        );
    }
    site.stop();
}

/// Returns a registry tree with an image of which one layer is fetched from elsewhere, and the digest of the image.
fn make_foreign_layer(workshop: &Workshop) -> Digest {
    let source = TestRegistry::build(Auth::None)
        .foreign_layers("^https://")
        .start();
    let folder = workshop.argument("foreign");
    let image = format!("{IMAGE}:v1");
    let dir = format!("dir:{folder}");
    workshop.buildah(&["push", "--quiet", "--format", "v2s2", &image, &dir]);
    let path = workshop.path("foreign/manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let layer = json!({
        "mediaType": MEDIA_TYPE_DOCKER_FOREIGN, "size": 1234, "digest": Digest::of(b"elsewhere"),
        "urls": ["https://layers.example/base"],
    });
    manifest["layers"].as_array_mut().unwrap().insert(0, layer);
    write(&path, manifest.to_string());
    let image = format!("docker://{}/team/foreign:v1", source.address());
    skopeo_copy(&dir, &image, &[]);
    let storage = format!("--directory={}", source.storage().display());
    let file = format!("--file={}", workshop.argument("tree.tar"));
    workshop.tar(&["--create", &file, &storage, "docker"]);
    digest_of_manifest(&image)
}

#[test]
fn an_image_with_a_foreign_layer_arrives_where_the_registry_takes_it_and_is_named_where_not() {
    let workshop = Workshop::new();
    let digest = make_foreign_layer(&workshop);
    let target = TestRegistry::build(Auth::None)
        .foreign_layers("^https://")
        .start();
    let site = Site::with(target);
    site.drop(&workshop, "tree.tar");
    site.daemon.wait_in_sync(1);
    let image = site.docker("team/foreign:v1");
    assert_eq!(digest_of_manifest(&image), digest);
    site.stop();

    let site = Site::new();
    site.drop(&workshop, "tree.tar");
    let status = site.daemon.wait_until("refusal of the image", |status| {
        problems(status, "global-a").len() == 1
    });
    let problem = &problems(&status, "global-a")[0];
    assert_eq!(problem["subject"], "image team/foreign:v1", "{problem:#}");
    let message = problem["message"].as_str().unwrap();
    assert!(message.contains("MANIFEST_BLOB_UNKNOWN"), "{problem:#}");
    site.stop();
}
