//! Foreign layers, whose content is not to be passed on unless somebody says so: from an OCI layout or a registry into a package,
//! through a daemon, and onto real registries, which ask for it or not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use violetd::base::oci::{
    Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_DOCKER_CONFIG, MEDIA_TYPE_DOCKER_MANIFEST,
    MEDIA_TYPE_MANIFEST,
};
use violetd::base::{Digest, Repository};
use violetd::registry::Client;

use crate::daemon::retain::ask;
use crate::support::{
    Auth, Daemon, Distribution, Images, Placed, Setup, TestRegistry, assert_checked,
    digest_of_manifest, noise, program, run_program, skopeo_copy,
};

/// The way out of a connected site and into a disconnected one.
const FLAG: &str = "--allow-nondistributable-artifacts";
const REPOSITORY: &str = "base/windows";

/// The formats of images with foreign layers: media types of manifest, configuration, layer and foreign layer.
const FORMATS: [[&str; 4]; 2] = [
    [
        MEDIA_TYPE_DOCKER_MANIFEST,
        MEDIA_TYPE_DOCKER_CONFIG,
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
    [
        MEDIA_TYPE_MANIFEST,
        MEDIA_TYPE_CONFIG,
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ],
];

/// An image with one foreign layer, in an OCI layout.
struct Base {
    dir: TempDir,
    image: Descriptor,
    layer: Descriptor,
}

impl Base {
    fn new(format: [&str; 4]) -> Self {
        Self::with_own(format, 8)
    }

    /// Makes an image whose own layer is another one for each `seed`.
    fn with_own(format: [&str; 4], seed: u64) -> Self {
        let [manifest_type, config_type, layer_type, foreign_type] = format;
        let mut images = Images::default();
        let config = json!({
            "os": "windows", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []},
        });
        let config = images.blob(config_type, config.to_string());
        let foreign = images.blob(foreign_type, noise(7, 200_000));
        let own = images.blob(layer_type, noise(seed, 1000));
        let mut entry = json!(foreign);
        entry["urls"] = json!(["https://layers.example/base"]);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [entry, own],
        });
        let image = images.blob(manifest_type, manifest.to_string());
        images.placed.push(Placed {
            repository: REPOSITORY,
            tag: "v1",
            root: image.clone(),
            manifests: vec![image.clone()],
            blobs: [config, own].into(),
        });
        let dir = TempDir::new().unwrap();
        images.write_layout(&dir.path().join("layout"));
        Self {
            dir,
            image,
            layer: foreign,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes the content of the foreign layer out of the layout.
    fn lose_layer(&self) {
        let blobs = self.path("layout/blobs/sha256");
        violetd::sys::fs::remove_file(&blobs.join(self.layer.digest.hex())).unwrap();
    }

    /// Makes a package of the image. Returns it with what both commands say for programs, and what they say in words.
    fn package(
        &self,
        source: Option<&TestRegistry>,
        options: &[&str],
    ) -> (PathBuf, [Value; 2], String) {
        let (folder, path) = (self.path("work"), self.path("base.tgz"));
        let image = if let Some(registry) = source {
            format!("{}/{REPOSITORY}:v1", registry.address())
        } else {
            let layout = self.path("layout");
            format!(
                "registry.example/{REPOSITORY}:v1=oci:{}:0",
                layout.display()
            )
        };
        let (folder, file) = (folder.to_str().unwrap(), path.to_str().unwrap());
        let access = ["--plain", "--no-auth"];
        let create = ["create", folder, "--type", "images", "--image", &image];
        let (created, first) =
            succeed(&[&create[..], &access, &["--output", "json"], options].concat());
        let package = ["package", folder, "--output", file, "--format", "json"];
        let (packed, second) = succeed(&[&package[..], &access].concat());
        (path, [created, packed], first + &second)
    }
}

fn succeed(arguments: &[&str]) -> (Value, String) {
    let output = run_program(arguments);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {words}");
    (serde_json::from_slice(&output.stdout).unwrap(), words)
}

/// Returns the size of a blob of [`REPOSITORY`] by asking the registry, if it is there.
fn find_blob(registry: &TestRegistry, digest: &Digest) -> Option<u64> {
    let client = Client::new(registry.options()).unwrap();
    let repository: Repository = REPOSITORY.parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(client.find_blob(&repository, digest))
        .unwrap()
}

fn registry_with_urls() -> TestRegistry {
    TestRegistry::build(Auth::None)
        .foreign_layers("^https://")
        .start()
}

/// Returns whether the package has the content of the layer.
fn carries(package: &Path, base: &Base) -> bool {
    let shown = crate::support::show(package);
    let blobs = shown["blobs"].as_u64().unwrap();
    assert!((3..=4).contains(&blobs), "{shown:#}");
    let bytes = shown["blob_bytes"].as_u64().unwrap();
    assert_eq!(blobs == 4, bytes > base.layer.size_bytes, "{shown:#}");
    blobs == 4
}

#[test]
fn the_content_of_foreign_layers_is_packed_only_if_asked_for_and_named_where_it_is_not_there() {
    for format in FORMATS {
        let base = Base::new(format);
        let (package, [created, _], words) = base.package(None, &[]);
        assert!(!carries(&package, &base), "{words}");
        assert_eq!(created["nondistributable_absent"], json!([]));
        let without = Digest::of(&std::fs::read(&package).unwrap());
        let (package, _, words) = base.package(None, &[FLAG]);
        assert!(carries(&package, &base), "{words}");
        assert!(!words.contains("warning"), "{words}");

        base.lose_layer();
        let (package, views, words) = base.package(None, &[FLAG]);
        let absent = json!([{
            "image": format!("registry.example/{REPOSITORY}:v1"), "digest": base.layer.digest,
        }]);
        for view in views {
            assert_eq!(view["nondistributable_absent"], absent, "{view:#}");
        }
        assert_eq!(
            words.matches("warning: foreign layer").count(),
            2,
            "{words}"
        );
        assert!(words.contains(&base.layer.digest.to_string()), "{words}");
        // What the package lacks is what it would have lacked without the flag, to the byte.
        assert_eq!(Digest::of(&std::fs::read(&package).unwrap()), without);
    }
}

/// Pushes the layout of `base`. Returns the report.
fn push(base: &Base, registry: &TestRegistry, options: &[&str], code: i32) -> Value {
    push_as(base.dir.path(), (base, registry.address()), options, code)
}

/// Pushes a layout to a registry as the user with this home.
fn push_as(
    home: &Path,
    (base, registry): (&Base, SocketAddr),
    options: &[&str],
    code: i32,
) -> Value {
    let mut command = program();
    command
        .env("HOME", home)
        .args([
            "push",
            "--json",
            "--no-auth",
            "--plain",
            "--repository",
            REPOSITORY,
        ])
        .args(["--dest-repo", &registry.to_string()])
        .args(options)
        .arg(base.path("layout"));
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_push_brings_foreign_layers_if_asked_to_also_of_an_image_that_is_there() {
    for format in FORMATS {
        let (base, registry) = (Base::new(format), registry_with_urls());
        let image = format!("docker://{}/{REPOSITORY}:0", registry.address());
        push(&base, &registry, &[], 0);
        assert_eq!(digest_of_manifest(&image), base.image.digest);
        assert_eq!(find_blob(&registry, &base.layer.digest), None);

        let report = push(&base, &registry, &[FLAG], 0);
        assert_eq!(report["counts"]["blobs_sent"], 1, "{report:#}");
        let size_bytes = base.layer.size_bytes;
        assert_eq!(find_blob(&registry, &base.layer.digest), Some(size_bytes));
        assert_eq!(digest_of_manifest(&image), base.image.digest);
        let report = push(&base, &registry, &[FLAG], 0);
        assert_eq!(report["counts"]["images_in_sync"], 1, "{report:#}");
        assert_eq!(report["counts"]["requests"], 1, "{report:#}");

        // From that registry, too, it goes into a package.
        let tagged = format!("docker://{}/{REPOSITORY}:v1", registry.address());
        skopeo_copy(&image, &tagged, &["--preserve-digests"]);
        let (package, _, words) = base.package(Some(&registry), &[FLAG]);
        assert!(carries(&package, &base), "{words}");

        let without = registry_with_urls();
        base.lose_layer();
        push(&base, &without, &[FLAG], 0);
        assert_eq!(find_blob(&without, &base.layer.digest), None);
        let tagged = format!("docker://{}/{REPOSITORY}:v1", without.address());
        let image = format!("docker://{}/{REPOSITORY}:0", without.address());
        skopeo_copy(&image, &tagged, &["--preserve-digests"]);
        let (package, _, words) = base.package(Some(&without), &[FLAG]);
        assert!(!carries(&package, &base), "{words}");
        assert!(words.contains("warning: foreign layer"), "{words}");
    }
}

#[test]
fn a_registry_that_refuses_urls_is_told_of_and_so_is_the_way_to_bring_the_content() {
    for format in FORMATS {
        let (base, registry) = (Base::new(format), TestRegistry::start(Auth::None));
        for options in [&[][..], &[FLAG]] {
            let report = push(&base, &registry, options, 65);
            let problem = &report["files"][0]["problems"][0];
            let hint = problem["hint"].as_str().unwrap();
            for part in ["urls.allow", FLAG, "nondistributable"] {
                assert!(hint.contains(part), "{report:#}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_the_content_gets_it_again_if_it_has_lost_it() {
    let home = TempDir::new().unwrap();
    let bases = [8, 9].map(|seed| Base::with_own(FORMATS[1], seed));
    let registry = Distribution::start().await;
    let address = registry.address();
    let push = |base: &Base, options: &[&str], code: i32| {
        push_as(home.path(), (base, address), options, code)
    };
    let report = push(&bases[0], &[], 65);
    let hint = &report["files"][0]["problems"][0]["hint"];
    assert!(hint.as_str().unwrap().contains(FLAG), "{report:#}");
    push(&bases[0], &[FLAG], 0);
    let layer = &bases[0].layer;
    assert_eq!(
        registry.blob(REPOSITORY, &layer.digest),
        Some(layer.size_bytes)
    );
    // Another image of the same layer, which the registry is believed to have.
    registry.lose(REPOSITORY, &layer.digest);
    let report = push(&bases[1], &[FLAG, "--force"], 0);
    assert_eq!(report["counts"]["images_pushed"], 1, "{report:#}");
    assert_eq!(
        registry.blob(REPOSITORY, &layer.digest),
        Some(layer.size_bytes)
    );
}

/// Fails the test unless the layer is a blob of its package like all others: found whole, listed, and not collected.
fn assert_kept(setup: &Setup, layer: &Descriptor) {
    let hex = layer.digest.hex();
    assert!(setup.blobs().contains(&hex));
    assert_checked(setup, "a package with a foreign layer");
    let collected = ask(setup, &["gc", "--dry-run"]);
    assert_eq!(collected["condemned"]["blobs"], 0, "{collected:#}");
    assert_eq!(collected["kept"]["blobs"], 4, "{collected:#}");
    let inventory = setup.run(&["inventory"]);
    let listed = String::from_utf8_lossy(&inventory.stdout).into_owned();
    assert!(listed.contains(&hex), "{inventory:?}");
}

/// Takes a layer away from the store, and waits until it is back.
fn lose_and_repair(daemon: &Daemon, state_dir: &Path, layer: &Descriptor) {
    let hex = layer.digest.hex();
    let shard = state_dir.join("blobs/sha256").join(&hex[..2]);
    let path = shard.join(&hex);
    violetd::sys::fs::remove_file(&path).unwrap();
    let output = daemon.setup.run(&["scrub", "--now"]);
    assert!(output.status.success(), "{output:?}");
    daemon.wait_until("repair of the layer", |_| path.exists());
    let content = std::fs::read(&path).unwrap();
    assert_eq!(Digest::of(&content), layer.digest);
}

#[test]
fn a_daemon_keeps_foreign_layers_that_packages_bring_and_pushes_them_once_the_target_is_to_have_them()
 {
    let (base, registry) = (Base::new(FORMATS[0]), registry_with_urls());
    let (package, _, _) = base.package(None, &[FLAG]);
    let setup =
        |keys: &str| Setup::new("none").target("global-a", "primary", registry.address(), keys);
    let daemon = Daemon::start(setup(""));
    let content = std::fs::read(&package).unwrap();
    daemon.setup.drop_file("base.tgz", &content, &[]);
    daemon.wait_in_sync(1);
    let name = format!("{REPOSITORY}:v1");
    let image = format!("docker://{}/{name}", registry.address());
    assert_eq!(digest_of_manifest(&image), base.image.digest);
    assert_eq!(find_blob(&registry, &base.layer.digest), None);
    assert_kept(&daemon.setup, &base.layer);
    let before = daemon.stop();

    let setup = setup("registry.nondistributable = 'push'").state_dir(&before.state_dir);
    let daemon = Daemon::start(setup);
    let status = daemon.sync();
    assert_eq!(status["is_in_sync"], true, "{status:#}");
    let size_bytes = base.layer.size_bytes;
    assert_eq!(find_blob(&registry, &base.layer.digest), Some(size_bytes));
    assert_eq!(digest_of_manifest(&image), base.image.digest);
    let counts = daemon.sync()["targets"][0]["last_run"]["counts"].clone();
    assert_eq!(counts["images_in_sync"], 1, "{counts:#}");
    assert_eq!(counts["requests"], 1, "{counts:#}");
    // Others copy it, URLs and all.
    let other = registry_with_urls();
    let copy = format!("docker://{}/{name}", other.address());
    skopeo_copy(&image, &copy, &["--preserve-digests"]);
    assert_eq!(digest_of_manifest(&copy), base.image.digest);
    // What the store has lost is there for us, too.
    lose_and_repair(&daemon, &before.state_dir, &base.layer);
    daemon.stop();
}
