//! Docker-archives and image layouts.

use std::process::Command;

use serde_json::{Value, json};
use violetd::base::Digest;
use violetd::base::oci::{
    ANNOTATION_REF_NAME, MEDIA_TYPE_DOCKER_LIST, MEDIA_TYPE_DOCKER_MANIFEST, MEDIA_TYPE_INDEX,
};
use violetd::sys::fs as durable;

use super::{IMAGE, Site, listed, make_list, push_list};
use crate::support::{
    Workshop, digest_of_manifest, names, parts_of_manifest, run, skopeo, skopeo_copy, write,
};

/// Compresses a file of a workshop beside it.
fn compress(workshop: &Workshop, tool: &str, name: &str, output: &str) {
    let mut command = Command::new(tool);
    command.args(["-c", "-q"]).arg(workshop.path(name));
    write(&workshop.path(output), run(tool, &mut command));
}

#[test]
fn docker_archives_arrive_with_the_configurations_and_layers_that_the_tools_gave_them() {
    let (workshop, site) = (Workshop::new(), Site::new());
    let at = |name: &str| workshop.argument(name);
    workshop.export(
        "v2",
        &format!("docker-archive:{}:skopeo/app:v2", at("skopeo.tar")),
    );
    let (first, second) = (format!("{IMAGE}:v1"), format!("{IMAGE}:v2"));
    workshop.podman(&["tag", &second, "localhost/podman/app:v2"]);
    workshop.podman(&[
        "save",
        "--quiet",
        "-o",
        &at("podman.tar"),
        "localhost/podman/app:v2",
    ]);
    workshop.podman(&[
        "save",
        "--quiet",
        "-m",
        "-o",
        &at("both.tar"),
        &first,
        &second,
    ]);
    let archive = format!("docker-archive:{}:buildah/app:v2", at("buildah.tar"));
    workshop.buildah(&["push", "--quiet", &second, &archive]);
    compress(&workshop, "pigz", "podman.tar", "podman.tgz");
    compress(&workshop, "zstd", "buildah.tar", "buildah.tar.zst");
    for name in ["skopeo.tar", "podman.tgz", "both.tar", "buildah.tar.zst"] {
        site.drop(&workshop, name);
    }
    site.daemon.wait_in_sync(4);
    for (name, version) in [
        ("skopeo/app:v2", "v2"),
        ("podman/app:v2", "v2"),
        ("buildah/app:v2", "v2"),
        ("team/app:v1", "v1"),
        ("team/app:v2", "v2"),
    ] {
        let (config, layers) = (workshop.config_of(version), workshop.layers_of(version));
        let parts = parts_of_manifest(&site.manifest(name));
        assert_eq!((&parts[0], &parts[1..]), (&config, &layers[..]), "{name}");
        let image = site.docker(name);
        let found = skopeo(&["inspect", "--config", "--tls-verify=false", &image]);
        let found: Value = serde_json::from_slice(&found).unwrap();
        assert_eq!(found["rootfs"]["diff_ids"], json!(layers), "{name}");
        site.pull(&workshop, name);
        let image = format!("{}/{name}", site.target.address());
        assert_eq!(format!("sha256:{}", workshop.podman_pull(&image)), config);
    }
    site.stop();
}

/// Makes a layout with an image of two layers.
fn make_with_umoci(workshop: &Workshop, folder: &str) {
    let layout = workshop.argument(folder);
    let image = format!("{layout}:v2");
    workshop.tar(&["--create", "--file=layer.tar", "v1", "v2"]);
    let layer = workshop.argument("layer.tar");
    for arguments in [
        &["init", "--layout", &layout][..],
        &["new", "--image", &image],
        &["raw", "add-layer", "--image", &image, &layer],
        &["config", "--image", &image, "--config.cmd", "/v1"],
    ] {
        run("umoci", Command::new("umoci").args(arguments));
    }
}

/// Makes packages of layouts, in folders that are named after the tools, and of archives without a folder, which name their
/// image in full.
fn make_layouts(workshop: &Workshop) -> [&'static str; 6] {
    make_list(workshop);
    let layout = |name: &str| format!("oci:{}", workshop.argument(name));
    for version in ["v1", "v2"] {
        workshop.export(version, &format!("{}:{version}", layout("skopeo")));
    }
    let image = format!("{IMAGE}:v2");
    let single = format!("{}:single", layout("buildah"));
    workshop.buildah(&["push", "--quiet", &image, &single]);
    push_list(workshop, &format!("{}:all", layout("buildah")), &[]);
    let (source, copy) = (layout("buildah") + ":all", layout("copied") + ":all");
    skopeo_copy(&source, &copy, &["--all"]);
    make_with_umoci(workshop, "umoci");
    workshop.tar(&["--create", "--file=skopeo.tar", "skopeo"]);
    workshop.tar(&["--create", "--gzip", "--file=buildah.tgz", "buildah"]);
    workshop.tar(&["--create", "--gzip", "--file=copied.tar.gz", "copied"]);
    workshop.tar(&["--create", "--file=umoci.tar", "umoci"]);
    compress(workshop, "zstd", "umoci.tar", "umoci.tar.zst");
    workshop.podman(&["tag", &image, "localhost/podman/app:v2"]);
    let archive = workshop.argument("podman.tar");
    workshop.podman(&[
        "save",
        "--quiet",
        "--format",
        "oci-archive",
        "-o",
        &archive,
        "localhost/podman/app:v2",
    ]);
    let archive = format!(
        "oci-archive:{}:skopeo/archived:v1",
        workshop.argument("archived.tar")
    );
    skopeo_copy(&format!("{}:v1", layout("skopeo")), &archive, &[]);
    [
        "skopeo.tar",
        "buildah.tgz",
        "copied.tar.gz",
        "umoci.tar.zst",
        "podman.tar",
        "archived.tar",
    ]
}

#[test]
fn layouts_of_skopeo_buildah_umoci_and_podman_arrive_to_the_byte() {
    let (workshop, site) = (Workshop::new(), Site::new());
    let dropped = make_layouts(&workshop);
    for name in dropped {
        site.drop(&workshop, name);
    }
    site.daemon.wait_in_sync(dropped.len());
    let folders = ["skopeo", "buildah", "copied", "umoci"];
    let mut expected: Vec<_> = folders
        .iter()
        .flat_map(|it| listed(&workshop, it))
        .collect();
    let archived = |name: &str| {
        let archive = format!("oci-archive:{}", workshop.argument(name));
        digest_of_manifest(&archive)
    };
    expected.push(("podman/app:v2".to_owned(), archived("podman.tar")));
    expected.push(("skopeo/archived:v1".to_owned(), archived("archived.tar")));
    assert_eq!(expected.len(), 8);
    site.assert_holds(&workshop, &expected);
    for name in ["buildah:all", "copied:all"] {
        assert_eq!(site.manifest(name)["mediaType"], MEDIA_TYPE_INDEX);
        assert_eq!(
            site.manifest(name)["manifests"].as_array().unwrap().len(),
            2
        );
    }
    for (name, version) in [("skopeo:v1", "v1"), ("buildah:all", "v2")] {
        let name = format!("{}/{name}", site.target.address());
        let pulled = workshop.podman_pull(&name);
        assert_eq!(format!("sha256:{pulled}"), workshop.config_of(version));
    }
    site.stop();
}

/// Makes a layout of a folder that buildah has written with transport `dir:`, in docker's own format. Returns the digest of
/// its only image.
fn make_layout_of(workshop: &Workshop, source: &str, folder: &str) -> Digest {
    let blobs = workshop.path(folder).join("blobs/sha256");
    durable::ensure_dir_all(&blobs).unwrap();
    for name in names(&workshop.path(source)) {
        let content = std::fs::read(workshop.path(source).join(name)).unwrap();
        write(&blobs.join(Digest::of(&content).hex()), content);
    }
    let root = std::fs::read(workshop.path(source).join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&root).unwrap();
    let entry = json!({
        "mediaType": manifest["mediaType"], "digest": Digest::of(&root), "size": root.len(),
        "annotations": {ANNOTATION_REF_NAME: "v1"},
    });
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    write(&workshop.path(folder).join("index.json"), index);
    let mark = r#"{"imageLayoutVersion": "1.0.0"}"#;
    write(&workshop.path(folder).join("oci-layout"), mark);
    Digest::of(&root)
}

#[test]
fn manifests_and_lists_in_dockers_own_format_arrive_to_the_byte_out_of_a_layout() {
    let (workshop, site) = (Workshop::new(), Site::new());
    make_list(&workshop);
    let dir = |name: &str| format!("dir:{}", workshop.argument(name));
    let image = format!("{IMAGE}:v1");
    workshop.buildah(&[
        "push",
        "--quiet",
        "--format",
        "v2s2",
        &image,
        &dir("single"),
    ]);
    push_list(&workshop, &dir("several"), &["--format", "v2s2"]);
    let mut expected = Vec::new();
    for (source, folder, media_type) in [
        ("single", "docker-single", MEDIA_TYPE_DOCKER_MANIFEST),
        ("several", "docker-several", MEDIA_TYPE_DOCKER_LIST),
    ] {
        let digest = make_layout_of(&workshop, source, folder);
        expected.push((format!("{folder}:v1"), digest, media_type));
    }
    workshop.tar(&[
        "--create",
        "--gzip",
        "--file=docker.tgz",
        "docker-single",
        "docker-several",
    ]);
    site.drop(&workshop, "docker.tgz");
    site.daemon.wait_in_sync(1);
    for (name, digest, media_type) in expected {
        assert_eq!(site.manifest(&name)["mediaType"], media_type);
        site.assert_holds(&workshop, &[(name, digest)]);
    }
    site.stop();
}
