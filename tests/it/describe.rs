//! Packages whose manifests say little, and what the program makes of their main images: a bundle whose layers umoci has
//! written, and a chart.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;
use violetd::base::oci::MEDIA_TYPE_MANIFEST;
use violetd::sys::fs as durable;

use crate::support::{
    Auth, Daemon, Images, Placed, Setup, TestRegistry, module_plugin, noise, run, run_program,
    show, write,
};

const CSV: &str = "kind: ClusterServiceVersion\nmetadata:\n  name: redis-operator.v4.2.0\n  \
    annotations: {description: Runs Redis.}\nspec:\n  displayName: Redis\n  version: 4.2.0\n  relatedImages:\n  \
    - {name: redis, image: 'registry.example/ops/redis:7'}\n  \
    - {name: exporter, image: 'registry.example/ops/exporter:v1'}\n";
const ANNOTATIONS: &str = "annotations:\n  operators.operatorframework.io.bundle.package.v1: redis-operator\n  \
    operators.operatorframework.io.bundle.channels.v1: stable,alpha\n  \
    operators.operatorframework.io.bundle.channel.default.v1: stable\n";

/// A folder in which packages are made.
struct Workshop {
    dir: TempDir,
}

impl Workshop {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn umoci(&self, arguments: &[&str]) {
        let mut umoci = Command::new("umoci");
        umoci.args(arguments).current_dir(self.dir.path());
        run("umoci", &mut umoci);
    }

    /// Adds a layer in which `file` is at `place`.
    fn insert(&self, content: &str, place: &str) {
        write(&self.path("file"), content);
        self.umoci(&[
            "insert",
            "--rootless",
            "--image",
            "bundle:v1",
            "file",
            place,
        ]);
    }

    /// Makes a bundle of several layers, of which the upper ones replace and remove what the lower ones have.
    fn bundle(&self) {
        self.umoci(&["init", "--layout", "bundle"]);
        self.umoci(&["new", "--image", "bundle:v1"]);
        self.insert(
            "kind: ClusterServiceVersion\nmetadata: {name: old}",
            "/manifests/csv.yaml",
        );
        self.insert(
            "kind: ClusterServiceVersion\nmetadata: {name: other}",
            "/manifests/other.yaml",
        );
        self.insert(ANNOTATIONS, "/metadata/annotations.yaml");
        self.insert(CSV, "/manifests/csv.yaml");
        let remove = [
            "insert",
            "--rootless",
            "--image",
            "bundle:v1",
            "--whiteout",
            "/manifests/other.yaml",
        ];
        self.umoci(&remove);
        let label = |name: &str, value: &str| {
            format!("--config.label=operators.operatorframework.io.bundle.{name}.v1={value}")
        };
        self.umoci(&[
            "config",
            "--image",
            "bundle:v1",
            &label("manifests", "manifests/"),
            &label("metadata", "metadata/"),
        ]);
    }

    /// Makes a package of these images and cuts its manifest down to what violet's is known to hold.
    fn package(&self, artifact: &str, images: &[&str]) -> PathBuf {
        let folder = self.path("work");
        let mut arguments = vec!["create", folder.to_str().unwrap(), "--artifact", artifact];
        for image in images {
            arguments.extend(["--image", *image]);
        }
        let created = run_program(&arguments);
        assert!(created.status.success(), "{created:?}");
        let manifest = folder.join("manifest.yaml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        let is_known = |line: &&str| {
            !["metadata:", "  name:", "  version:"]
                .iter()
                .any(|key| line.starts_with(key))
        };
        let little: Vec<&str> = text.lines().filter(is_known).collect();
        let little = little.join("\n");
        assert!(little.len() < text.len(), "{text}");
        durable::replace_file(&manifest, little.as_bytes(), 0o644).unwrap();
        let output = self.path("x.tgz");
        let arguments = [
            "package",
            folder.to_str().unwrap(),
            "--output",
            output.to_str().unwrap(),
        ];
        let packaged = run_program(&arguments);
        assert!(packaged.status.success(), "{packaged:?}");
        output
    }

    /// Returns how to ask for an image of a layout.
    fn source(&self, image: &str, layout: &str, name: &str) -> String {
        format!(
            "registry.example/{image}=oci:{}:{name}",
            self.path(layout).display()
        )
    }
}

/// Drops a package before a daemon with one target and a folder for a platform. Returns the objects that are published,
/// and what the log says about descriptions.
fn publish(package: &Path, objects: &[&str]) -> (Vec<String>, Vec<String>) {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none");
    let folder = setup.path("platform");
    let platform = format!(
        "platform = {{kind = 'directory', path = '{}', pull_registry = 'platform.example'}}",
        folder.display()
    );
    let setup = setup.target("global-a", "primary", registry.address(), &platform);
    let daemon = Daemon::start(setup);
    let name = package.file_name().and_then(OsStr::to_str).unwrap();
    daemon
        .setup
        .drop_file(name, &std::fs::read(package).unwrap(), &[]);
    daemon.wait_in_sync(1);
    let objects = objects
        .iter()
        .map(|object| std::fs::read_to_string(folder.join("global").join(object)).unwrap())
        .collect();
    let words = daemon.log_lines("described in part only");
    daemon.stop();
    (objects, words)
}

#[test]
fn a_bundle_tells_what_the_manifest_of_its_package_does_not() {
    let workshop = Workshop::new();
    workshop.bundle();
    let mut images = Images::default();
    images.add("ops/redis", "7", &[noise(5, 20_000)]);
    images.write_layout(&workshop.path("layout"));
    let package = workshop.package(
        &workshop.source("ops/redis-bundle:v4.2.0-rc.1", "bundle", "v1"),
        &[&workshop.source("ops/redis:7", "layout", "0")],
    );

    let shown = show(&package);
    assert_eq!(shown["name"], "redis-operator", "{shown:#}");
    assert_eq!(shown["type"], "operator");
    assert_eq!(shown["version"], "4.2.0");
    assert_eq!(shown["display_name"], "Redis");
    assert_eq!(shown["description"]["csv_name"], "redis-operator.v4.2.0");
    assert_eq!(shown["description"]["channels"], json!(["stable", "alpha"]));
    assert_eq!(shown["description_problem"], Value::Null);
    assert_eq!(
        shown["missing_related_images"],
        json!(["registry.example/ops/exporter:v1"])
    );
    let text = run_program(&["show", "--all", package.to_str().unwrap()]);
    let platforms = shown["platforms"].as_array().unwrap().iter();
    let platforms: Vec<&str> = platforms.filter_map(Value::as_str).collect();
    assert_eq!(
        String::from_utf8(text.stdout).unwrap(),
        format!(
            "Name: redis-operator\nType: bundle\nArch: [{}]\nVersion: 4.2.0\n\
             Artifact: registry.example/ops/redis-bundle:v4.2.0-rc.1\nRelateImages: [{}]\n\
             DisplayName: Redis\nSummary: Runs Redis.\nCSV: redis-operator.v4.2.0\nChannels: [stable alpha]\n\
             DefaultChannel: stable\nMissingImages: [registry.example/ops/exporter:v1]\n",
            platforms.join(" "),
            shown["images"][0]["reference"].as_str().unwrap(),
        )
    );

    let (objects, words) = publish(
        &package,
        &[
            "cpaas-system/artifact-redis-operator.yaml",
            "cpaas-system/artifactversion-redis-operator.v4.2.0-rc.1.yaml",
        ],
    );
    for part in [
        "displayName: Redis\n",
        "description: Runs Redis.\n",
        "repository: ops/redis-bundle\n",
    ] {
        assert!(
            objects[0].contains(part),
            "{part} is missing in\n{}",
            objects[0]
        );
    }
    assert!(objects[1].contains("tag: v4.2.0-rc.1\n"), "{}", objects[1]);
    assert_eq!(words, [""; 0]);
}

/// Returns a chart as `helm package` makes it.
fn chart(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        archive
            .append_data(&mut header, format!("log-center/{name}"), text.as_bytes())
            .unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// Adds the artifact that `helm push` makes of a chart.
fn add_chart(images: &mut Images, repository: &'static str, tag: &'static str, chart: Vec<u8>) {
    let config = images.blob(
        "application/vnd.cncf.helm.config.v1+json",
        r#"{"name":"log-center"}"#,
    );
    let layer = images.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", chart);
    let manifest = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": config, "layers": [layer]});
    let root = images.blob(MEDIA_TYPE_MANIFEST, manifest.to_string());
    images.placed.push(Placed {
        repository,
        tag,
        manifests: vec![root.clone()],
        root,
        blobs: [config, layer].into(),
    });
}

#[test]
fn a_chart_brings_the_plugin_that_its_package_lacks() {
    let mut plugin = module_plugin();
    plugin["metadata"]["annotations"] =
        json!({"cpaas.io/display-name": "{\"en\": \"Log Center\"}"});
    let chart = chart(&[
        ("Chart.yaml", "name: log-center\nversion: v1.2.0\n"),
        (
            "values.yaml",
            "global:\n  images:\n    web: {repository: ait/web, tag: v1.2.0}\n    api: {repository: ait/api, tag: v1}\n",
        ),
        ("module-plugin.yaml", &plugin.to_string()),
        ("scripts/plugin-config.yaml", "mustUpgrade: false\n"),
    ]);
    let mut images = Images::default();
    add_chart(&mut images, "ait/log-center", "v1.2.0", chart);
    images.add("ait/web", "v1.2.0", &[noise(6, 20_000)]);
    let workshop = Workshop::new();
    images.write_layout(&workshop.path("layout"));
    let package = workshop.package(
        &workshop.source("ait/log-center:v1.2.0", "layout", "0"),
        &[&workshop.source("ait/web:v1.2.0", "layout", "1")],
    );

    let shown = show(&package);
    assert_eq!(shown["type"], "plugin", "{shown:#}");
    assert_eq!(shown["name"], "log-center");
    assert_eq!(shown["version"], "v1.2.0");
    assert_eq!(shown["display_name"], "Log Center");
    assert_eq!(shown["description"]["has_plugin_config"], true);
    assert_eq!(shown["missing_related_images"], json!(["ait/api:v1"]));

    let (objects, words) = publish(&package, &["_cluster/moduleplugin-log-center.yaml"]);
    assert!(
        objects[0].contains("mainChart: ait/log-center"),
        "{}",
        objects[0]
    );
    assert_eq!(words, [""; 0]);
}

#[test]
fn an_artifact_that_describes_nothing_is_said_and_its_package_goes_its_way() {
    let mut images = Images::default();
    images.add("ops/redis-bundle", "v1", &[noise(7, 20_000)]);
    let workshop = Workshop::new();
    images.write_layout(&workshop.path("layout"));
    let package = workshop.package(&workshop.source("ops/redis-bundle:v1", "layout", "0"), &[]);

    let shown = show(&package);
    assert_eq!(shown["description"], Value::Null, "{shown:#}");
    assert_eq!(shown["description_problem"]["code"], "not-a-bundle");
    let text = run_program(&["show", package.to_str().unwrap()]);
    assert_eq!(
        text.stdout,
        b"Name: redis\nType: bundle\nArch: [linux/amd64 linux/arm64]\nVersion: \n"
    );
    let words = String::from_utf8(text.stderr).unwrap();
    assert!(
        words.contains("note: expected an operator bundle or a chart"),
        "{words}"
    );

    let (objects, words) = publish(&package, &["cpaas-system/artifact-redis.yaml"]);
    assert!(
        objects[0].contains("description: redis bundle image\n"),
        "{}",
        objects[0]
    );
    assert_eq!(words.len(), 1, "{words:?}");
    assert!(words[0].contains("not-a-bundle"), "{words:?}");
}
