//! Packages that other tools have written, read by the program: docker-archives, OCI layouts, registry trees, charts, and
//! each of them in every container.
//!
//! That the daemon delivers such packages is shown by `daemon::foreign`.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use violetd::base::Digest;
use violetd::package::{DiscardSink, Limits, Sink as _, unpack};

use crate::support::{
    Auth, TestRegistry, WORKSHOP_IMAGE as IMAGE, Workshop, digest_of_manifest, parts_of_manifest,
    raw_manifest, run, run_program, show, skopeo_copy, write,
};

fn shown(workshop: &Workshop, name: &str) -> Value {
    show(&workshop.path(name))
}

/// Returns the names of the images of what was shown, and their digests.
fn images(shown: &Value) -> Vec<(&str, &str)> {
    let images = shown["images"].as_array().unwrap();
    images
        .iter()
        .map(|image| {
            let (name, digest) = (&image["reference"], &image["digest"]);
            (name.as_str().unwrap(), digest.as_str().unwrap())
        })
        .collect()
}

#[test]
fn docker_archives_of_skopeo_and_podman_are_the_same_images_with_their_configurations() {
    let workshop = Workshop::new();
    let archive = |name: &str| workshop.path(name).display().to_string();
    workshop.export(
        "v2",
        &format!("docker-archive:{}:team/app:v2", archive("skopeo.tar")),
    );
    let image = |version: &str| format!("{IMAGE}:{version}");
    workshop.podman(&[
        "save",
        "--quiet",
        "-o",
        &archive("podman.tar"),
        &image("v2"),
    ]);
    let both = [image("v1"), image("v2")];
    let output = archive("both.tar");
    workshop.podman(&["save", "--quiet", "-m", "-o", &output, &both[0], &both[1]]);

    let (skopeo, podman, both) = (
        shown(&workshop, "skopeo.tar"),
        shown(&workshop, "podman.tar"),
        shown(&workshop, "both.tar"),
    );
    assert_eq!(images(&skopeo)[0].0, "docker.io/team/app:v2");
    assert_eq!(images(&podman)[0].0, "localhost/team/app:v2");
    assert_eq!(
        images(&skopeo)[0].1,
        images(&podman)[0].1,
        "one image, one digest"
    );
    let found = images(&both);
    assert_eq!(
        [found[0].0, found[1].0],
        ["localhost/team/app:v1", "localhost/team/app:v2"]
    );
    assert_eq!(found[1].1, images(&podman)[0].1);
    assert_eq!(both["type"], "images");
    // One layer is shared: two manifests, two configurations, two layers.
    assert_eq!(both["blobs"], 6);
}

/// Returns the digests of the configuration and the layers of the only image of a package.
fn parts_of(package: &Path) -> Vec<String> {
    let mut sink = DiscardSink::default();
    let file = File::open(package).unwrap();
    let unpacked = unpack(file, &Limits::default(), &mut sink).unwrap();
    let image = unpacked.package.unwrap().images.remove(0);
    let manifest = sink.read(&image.descriptor.digest, 1 << 20).unwrap();
    parts_of_manifest(&serde_json::from_slice(&manifest).unwrap())
}

#[test]
fn an_image_of_a_docker_archive_has_the_parts_that_skopeo_finds_in_it() {
    let workshop = Workshop::new();
    let archive = workshop.path("app.tar").display().to_string();
    workshop.export("v2", &format!("docker-archive:{archive}:team/app:v2"));
    let raw = raw_manifest(&format!("docker-archive:{archive}"));
    let theirs = parts_of_manifest(&serde_json::from_slice(&raw).unwrap());
    let ours = parts_of(Path::new(&archive));
    assert_eq!(ours, theirs);
    assert_eq!(ours[0], workshop.config_of("v2"));
}

#[test]
fn oci_layouts_of_skopeo_umoci_and_buildah_keep_their_digests() {
    let workshop = Workshop::new();
    let layout = |name: &str| format!("oci:{}:v2", workshop.path(name).display());
    workshop.export("v2", &layout("skopeo"));
    workshop.buildah(&[
        "push",
        "--quiet",
        &format!("{IMAGE}:v2"),
        &layout("buildah"),
    ]);
    let umoci = workshop.path("umoci").display().to_string();
    run(
        "umoci",
        Command::new("umoci").args(["init", "--layout", &umoci]),
    );
    let image = format!("{umoci}:v2");
    run(
        "umoci",
        Command::new("umoci").args(["new", "--image", &image]),
    );
    for name in ["skopeo", "buildah", "umoci"] {
        let digest = digest_of_manifest(&layout(name)).to_string();
        workshop.tar(&["--create", "--file=layout.tar", name]);
        let shown = shown(&workshop, "layout.tar");
        assert_eq!(
            images(&shown),
            [(format!("{name}:v2").as_str(), digest.as_str())]
        );
    }
}

#[test]
fn a_newer_docker_save_is_read_as_the_layout_that_it_is() {
    let workshop = Workshop::new();
    let folder = workshop.path("app").display().to_string();
    workshop.export("v2", &format!("oci:{folder}:v2"));
    // Docker 25 and later write this beside the layout, with paths into it.
    let raw = raw_manifest(&format!("oci:{folder}:v2"));
    let manifest: Value = serde_json::from_slice(&raw).unwrap();
    let paths: Vec<String> = parts_of_manifest(&manifest)
        .iter()
        .map(|digest| format!("blobs/{}", digest.replace(':', "/")))
        .collect();
    let list = json!([{"Config": paths[0], "RepoTags": ["team/app:v2"], "Layers": paths[1..]}]);
    write(&workshop.path("app/manifest.json"), list.to_string());
    workshop.tar(&["--create", "--file=save.tar", "app"]);
    let shown = shown(&workshop, "save.tar");
    let digest = Digest::of(&raw).to_string();
    assert_eq!(images(&shown), [("app:v2", digest.as_str())]);
}

#[test]
fn a_registry_tree_from_a_registrys_disk_keeps_its_digests() {
    let workshop = Workshop::new();
    let registry = TestRegistry::start(Auth::None);
    let image = format!("docker://{}/team/app:v2", registry.address());
    let layout = format!("oci:{}:v2", workshop.path("layout").display());
    workshop.export("v2", &layout);
    skopeo_copy(&layout, &image, &[]);
    let digest = digest_of_manifest(&image);
    let storage = format!("--directory={}", registry.storage().display());
    let file = format!("--file={}", workshop.path("tree.tgz").display());
    workshop.tar(&["--create", "--gzip", &file, &storage, "docker"]);
    let shown = shown(&workshop, "tree.tgz");
    assert_eq!(
        images(&shown),
        [("team/app:v2", digest.to_string().as_str())]
    );
}

#[test]
fn every_tar_format_in_every_container_gives_the_same_package() {
    let workshop = Workshop::new();
    let folder = workshop.path("app").display().to_string();
    workshop.export("v2", &format!("oci:{folder}:v2"));
    let mut expected = None;
    for format in ["v7", "oldgnu", "gnu", "ustar", "pax"] {
        let format = format!("--format={format}");
        workshop.tar(&["--create", &format, "--file=x.tar", "app"]);
        for (package, tool) in [
            ("tar", &["cat"][..]),
            ("gzip", &["gzip", "-c"]),
            ("pigz", &["pigz", "-c"]),
            ("zstd", &["zstd", "-c", "-q"]),
            (
                "zstd",
                &["zstd", "-c", "-q", "--check", "--ultra", "-20", "--long=27"],
            ),
            ("zstd", &["pzstd", "-c", "-q"]),
        ] {
            let output = File::create(workshop.path("package")).unwrap();
            let input = File::open(workshop.path("x.tar")).unwrap();
            let mut command = Command::new(tool[0]);
            command.args(&tool[1..]).stdin(input).stdout(output);
            let status = command.status();
            let status = status.unwrap_or_else(|error| panic!("{package}: {tool:?}: {error}"));
            assert!(status.success(), "{tool:?}");
            let shown = shown(&workshop, "package");
            let expected = expected.get_or_insert_with(|| shown.clone());
            assert_eq!(shown, *expected, "{format} {tool:?}");
        }
    }
}

#[test]
fn a_folder_of_packages_is_shown_with_violets_lines_for_each() {
    let workshop = Workshop::new();
    let chart = "apiVersion: v2\nname: redis\nversion: 1.2.3\n";
    let folders = [workshop.path("redis"), workshop.path("set")];
    run("coreutils", Command::new("mkdir").args(&folders));
    write(&workshop.path("redis/Chart.yaml"), chart);
    let archive = workshop.path("set/app.tar").display().to_string();
    workshop.export("v2", &format!("docker-archive:{archive}:team/app:v2"));
    workshop.tar(&["--create", "--gzip", "--file=set/redis-1.2.3.tgz", "redis"]);
    workshop.tar(&["--create", "--gzip", "--file=set.tgz", "set"]);

    let path = workshop.path("set.tgz").display().to_string();
    let text = run_program(&["show", &path]).stdout;
    let platform = std::env::consts::ARCH
        .replace("x86_64", "amd64")
        .replace("aarch64", "arm64");
    insta::assert_snapshot!(String::from_utf8(text).unwrap().replace(&platform, "ARCH"), @"
    Name: 
    Type: images
    Arch: [linux/ARCH]
    Version: 

    Name: redis
    Type: chart
    Arch: []
    Version: 1.2.3
    ");
    let shown = shown(&workshop, "set.tgz");
    assert!(
        shown.get("images").is_none(),
        "the file itself is no package"
    );
    let chart = std::fs::read(workshop.path("set/redis-1.2.3.tgz")).unwrap();
    assert_eq!(shown["nested"][1]["digest"], Digest::of(&chart).to_string());
    assert_eq!(shown["nested"][1]["path"], "set/redis-1.2.3.tgz");
    assert_eq!(shown["nested"][1]["artifact"], "redis:1.2.3");
    assert_eq!(images(&shown["nested"][0])[0].0, "docker.io/team/app:v2");
}
