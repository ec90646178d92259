//! Packages that other tools have written, the whole way: dropped, delivered, and found to the byte on a real registry, from
//! where other tools take them again.
//!
//! What is expected is asked of the tools that wrote: the digests in their layouts and on their disks; of a
//! docker-archive, which has no manifests, the configurations and layers.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use violetd::base::Digest;
use violetd::base::oci::{ANNOTATION_REF_NAME, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};
use violetd::package::Request;
use violetd::sys::fs as durable;

use super::{dropped_file, problems};
use crate::support::{
    Auth, Daemon, Setup, TestRegistry, WORKSHOP_IMAGE as IMAGE, Workshop, drop_into, names,
    parts_of_manifest, program, run, skopeo, skopeo_copy, write,
};

const MEDIA_TYPE_DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const MEDIA_TYPE_DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const MEDIA_TYPE_DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// An image for two platforms in the store of a [`Workshop`].
const LIST: &str = "localhost/team/list:v1";

/// A daemon with one target.
struct Site {
    target: TestRegistry,
    daemon: Daemon,
}

impl Site {
    fn new() -> Self {
        Self::with(TestRegistry::start(Auth::None))
    }

    fn with(target: TestRegistry) -> Self {
        let setup = Setup::new("none").target("global-a", "primary", target.address(), "");
        let daemon = Daemon::start(setup);
        Self { target, daemon }
    }

    /// Drops a file of a workshop.
    fn drop(&self, workshop: &Workshop, name: &str) -> PathBuf {
        let content = std::fs::read(workshop.path(name)).unwrap();
        self.daemon.setup.drop_file(name, &content, &[])
    }

    /// Returns the name of an image of the target as skopeo writes it.
    fn docker(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.target.address())
    }

    fn manifest(&self, name: &str) -> Value {
        serde_json::from_slice(&raw(&self.docker(name))).unwrap()
    }

    /// Fails the test unless the target has these images with these digests, and skopeo can pull each into a layout.
    fn assert_holds(&self, workshop: &Workshop, expected: &[(String, Digest)]) {
        assert!(!expected.is_empty());
        for (name, digest) in expected {
            assert_eq!(Digest::of(&raw(&self.docker(name))), *digest, "{name}");
            self.pull(workshop, name);
        }
    }

    /// Lets skopeo pull an image with all its platforms into a layout, and checks every blob there.
    fn pull(&self, workshop: &Workshop, name: &str) {
        let folder = format!("pulled-{}", Digest::of(name.as_bytes()).hex());
        let layout = format!("oci:{}:x", workshop.argument(&folder));
        skopeo_copy(&self.docker(name), &layout, &["--all"]);
        let blobs = workshop.path(&folder).join("blobs/sha256");
        let found = names(&blobs);
        assert!(found.len() >= 3, "{name}: {found:?}");
        for blob in found {
            let content = std::fs::read(blobs.join(&blob)).unwrap();
            assert_eq!(Digest::of(&content).hex(), blob, "{name}");
        }
    }

    fn stop(self) {
        self.daemon.stop();
    }
}

/// Returns the manifest of an image to the byte.
fn raw(image: &str) -> Vec<u8> {
    let mut arguments = vec!["inspect", "--raw"];
    if image.starts_with("docker://") {
        arguments.push("--tls-verify=false");
    }
    arguments.push(image);
    skopeo(&arguments)
}

/// Returns what a layout says of its images: their names within it, and their digests.
fn listed(workshop: &Workshop, folder: &str) -> Vec<(String, Digest)> {
    let index = std::fs::read(workshop.path(folder).join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let entries = index["manifests"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let tag = entry["annotations"][ANNOTATION_REF_NAME].as_str().unwrap();
            let digest = entry["digest"].as_str().unwrap().parse().unwrap();
            (format!("{folder}:{tag}"), digest)
        })
        .collect()
}

/// Makes an image for two platforms, one of them in docker's own format.
fn make_list(workshop: &Workshop) {
    let other = format!("{IMAGE}:other");
    let container = workshop.buildah(&["from", "--arch", "s390x", "scratch"]);
    workshop.add_layer(&container, "other");
    workshop.buildah(&["config", "--arch", "s390x", &container]);
    workshop.buildah(&[
        "commit", "--quiet", "--format", "docker", &container, &other,
    ]);
    workshop.buildah(&["manifest", "create", LIST]);
    for image in [&format!("{IMAGE}:v2"), &other] {
        workshop.buildah(&["manifest", "add", LIST, image]);
    }
}

/// Pushes the image for two platforms to wherever buildah can push.
fn push_list(workshop: &Workshop, destination: &str, options: &[&str]) {
    let mut arguments = vec!["manifest", "push", "--all", "--quiet"];
    arguments.extend(options);
    arguments.extend([LIST, destination]);
    workshop.buildah(&arguments);
}

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
        Digest::of(&raw(&archive))
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

/// Returns every tag of a registry with the digest of what it names; `repositories` must be all that it has.
fn tags_of(registry: &TestRegistry, repositories: &[&str]) -> BTreeSet<(String, Digest)> {
    let mut tags = BTreeSet::new();
    for repository in repositories {
        let image = format!("docker://{}/{repository}", registry.address());
        let list = skopeo(&["list-tags", "--tls-verify=false", &image]);
        let list: Value = serde_json::from_slice(&list).unwrap();
        for tag in list["Tags"].as_array().unwrap() {
            let tag = tag.as_str().unwrap();
            let digest = Digest::of(&raw(&format!("{image}:{tag}")));
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
    let signed = Digest::of(&raw(&docker("team/app:latest")));
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
    Digest::of(&raw(&image))
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
    assert_eq!(Digest::of(&raw(&image)), digest);
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

/// Makes a chart file, and returns its digest.
fn make_chart(workshop: &Workshop, name: &str, version: &str, file: &str) -> Digest {
    let folder = workshop.path(name);
    durable::ensure_dir_all(&folder.join("templates")).unwrap();
    let chart = format!("apiVersion: v2\nname: {name}\nversion: {version}\nappVersion: '7'\n");
    write(&folder.join("Chart.yaml"), chart);
    write(&folder.join("values.yaml"), "replicas: 1\n");
    let document = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\n";
    write(&folder.join("templates/map.yaml"), document);
    workshop.tar(&[
        "--create",
        "--gzip",
        "--format=ustar",
        &format!("--file={file}"),
        name,
    ]);
    Digest::of(&std::fs::read(workshop.path(file)).unwrap())
}

/// Fails the test unless the target has a chart as Helm stores it, with the file of this digest.
fn assert_holds_chart(site: &Site, workshop: &Workshop, name: &str, file: Digest) {
    let manifest = site.manifest(name);
    let config = &manifest["config"];
    assert_eq!(
        config["mediaType"],
        "application/vnd.cncf.helm.config.v1+json"
    );
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1, "{name}");
    let media_type = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    assert_eq!(layers[0]["mediaType"], media_type);
    assert_eq!(layers[0]["digest"], file.to_string());
    site.pull(workshop, name);
}

#[test]
fn charts_and_images_arrive_alone_in_a_folder_of_packages_and_in_a_tar_of_packages() {
    let (workshop, site) = (Workshop::new(), Site::new());
    let alone = make_chart(
        &workshop,
        "redis",
        "1.2.3+build.4",
        "redis-1.2.3+build.4.tgz",
    );
    let in_folder = make_chart(&workshop, "postgres", "2.0.0", "postgres-2.0.0.tgz");
    durable::ensure_dir_all(&workshop.path("set/charts")).unwrap();
    let in_tar = make_chart(&workshop, "nginx", "3.0.0", "set/charts/nginx-3.0.0.tgz");
    let archive = workshop.argument("set/app.tar");
    workshop.export("v2", &format!("docker-archive:{archive}:set/app:v2"));
    workshop.export("v1", &format!("oci:{}:v1", workshop.argument("layout")));
    workshop.tar(&["--create", "--gzip", "--file=set/layout.tgz", "layout"]);
    workshop.tar(&["--create", "--file=set.tar", "set"]);

    site.drop(&workshop, "redis-1.2.3+build.4.tgz");
    site.drop(&workshop, "set.tar");
    let folder = site.daemon.setup.drop_dir.join("2026-11");
    durable::ensure_dir_all(&folder).unwrap();
    let archive = workshop.argument("app.tar");
    workshop.export("v1", &format!("docker-archive:{archive}:folder/app:v1"));
    for name in ["postgres-2.0.0.tgz", "app.tar"] {
        let content = std::fs::read(workshop.path(name)).unwrap();
        drop_into(&folder, (name, &content), &[]);
    }
    site.daemon.wait_in_sync(6);
    assert_holds_chart(&site, &workshop, "redis:1.2.3_build.4", alone);
    assert_holds_chart(&site, &workshop, "postgres:2.0.0", in_folder);
    assert_holds_chart(&site, &workshop, "nginx:3.0.0", in_tar);
    for (name, version) in [("set/app:v2", "v2"), ("folder/app:v1", "v1")] {
        let parts = parts_of_manifest(&site.manifest(name));
        assert_eq!(parts[0], workshop.config_of(version), "{name}");
    }
    site.assert_holds(&workshop, &listed(&workshop, "layout"));
    site.stop();
}

/// Makes a package of images of a layout in `folder`, and returns what `violetd package` wrote with these options.
fn pack(workshop: &Workshop, folder: &str, output: &str, options: &[&OsStr]) {
    let mut package = program();
    package.arg("package").arg(workshop.path(folder));
    package
        .arg("--output")
        .arg(workshop.path(output))
        .args(options);
    run("violetd", &mut package);
}

/// Makes the folder of a package out of images of the layout `layout`.
fn create(workshop: &Workshop, folder: &str, tags: &[&str]) {
    let mut create = program();
    create.arg("create").arg(workshop.path(folder));
    create.args(["--type", "images", "--package-version", "1"]);
    for tag in tags {
        let layout = workshop.argument("layout");
        create.arg("--image");
        create.arg(format!("registry.example/layout:{tag}=oci:{layout}:{tag}"));
    }
    run("violetd", &mut create);
}

#[test]
fn images_of_other_tools_arrive_in_parts_and_as_a_delta_with_a_supplement() {
    let (workshop, site) = (Workshop::new(), Site::new());
    make_list(&workshop);
    let layout = format!("oci:{}", workshop.argument("layout"));
    for version in ["v1", "v2"] {
        workshop.export(version, &format!("{layout}:{version}"));
    }
    push_list(&workshop, &format!("{layout}:all"), &[]);
    let expected = listed(&workshop, "layout");
    create(&workshop, "base", &["v1"]);
    create(&workshop, "next", &["v2", "all"]);
    durable::ensure_dir_all(&workshop.path("parts")).unwrap();
    let split = ["--split", "8000"].map(OsStr::new);
    pack(&workshop, "base", "parts/base.tgz", &split);
    let parts = names(&workshop.path("parts"));
    assert!(parts.len() > 3, "{parts:?}");
    for name in parts.iter().rev() {
        let content = std::fs::read(workshop.path("parts").join(name)).unwrap();
        site.daemon.setup.drop_file(name, &content, &[]);
    }
    site.daemon.wait_in_sync(1);
    let of_base = expected.iter().filter(|(name, _)| name == "layout:v1");
    site.assert_holds(&workshop, &of_base.cloned().collect::<Vec<_>>());

    let inventory = workshop.argument("inventory");
    let listing = [
        "inventory",
        "--target",
        "global-a",
        "--output-file",
        &inventory,
    ];
    let output = site.daemon.setup.run(&listing);
    assert!(output.status.success(), "{output:?}");
    let base = [OsStr::new("--base"), OsStr::new(&inventory)];
    pack(&workshop, "next", "delta.tgz", &base);
    site.drop(&workshop, "delta.tgz");
    site.daemon.wait_in_sync(2);
    site.assert_holds(&workshop, &expected);
    site.stop();
    assert_delta_asks(&workshop, &expected);
}

/// Drops the delta where its base is not, and answers the request.
fn assert_delta_asks(workshop: &Workshop, expected: &[(String, Digest)]) {
    let site = Site::new();
    let delta = site.drop(workshop, "delta.tgz");
    site.daemon.wait_until("wait for the base", |status| {
        dropped_file(status, &delta).is_some_and(|file| file["state"] == "waiting")
    });
    let path = site
        .daemon
        .setup
        .drop_dir
        .join("requests/delta.tgz.request");
    let request = Request::parse(std::fs::read(&path).unwrap().as_slice()).unwrap();
    assert_eq!(request.missing.len(), 1, "one layer is shared: {request:?}");
    let answer = [OsStr::new("--for"), path.as_os_str()];
    pack(workshop, "base", "supplement.tgz", &answer);
    site.drop(workshop, "supplement.tgz");
    site.daemon.wait_in_sync(2);
    let of_next = expected.iter().filter(|(name, _)| name != "layout:v1");
    site.assert_holds(workshop, &of_next.cloned().collect::<Vec<_>>());
    site.stop();
}
