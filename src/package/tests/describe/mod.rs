//! What packages say of themselves by their main image: bundles and charts made in memory, well-formed and not.

mod bundle;
mod chart;

use std::convert::Infallible;
use std::io::{self, Cursor, Read};
use std::sync::Mutex;

use serde_json::{Value, json};

use super::builder::{
    Builder, MEDIA_TYPE_LAYER, MemorySink, Raw, file, gzip, read, read_into, read_with, tar_of,
    tgz_of,
};
use crate::base::oci::{Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST};
use crate::base::{Class, Classified, Description, Digest, OperatorDescription, PackageKind};
use crate::package::{Contents, Error, Limits, Sink, unpack};

const BUNDLE: &str = "registry.example/ops/redis-bundle:v4.2.0";
const CHART: &str = "registry.example/ait/log-center:v1.2.0";
const MEDIA_TYPE_CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
const MEDIA_TYPE_CHART_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";

const CSV: &str = "apiVersion: operators.coreos.com/v1alpha1\nkind: ClusterServiceVersion\nmetadata:\n  \
    name: redis-operator.v4.2.0\n  annotations: {description: Runs Redis., capabilities: Basic Install}\nspec:\n  \
    displayName: Redis\n  version: 4.2.0\n  description: |\n    Pages.\n  relatedImages:\n  \
    - {name: redis, image: 'registry.example/ops/redis:7'}\n  \
    - {name: exporter, image: 'other.example/ops/exporter:v1'}\n";
const ANNOTATIONS: &str = "annotations:\n  operators.operatorframework.io.bundle.package.v1: redis-operator\n  \
    operators.operatorframework.io.bundle.channels.v1: stable, alpha\n  \
    operators.operatorframework.io.bundle.channel.default.v1: stable\n";
const PLUGIN: &str = "apiVersion: cluster.alauda.io/v1alpha1\nkind: ModulePlugin\nmetadata:\n  name: log-center\n  \
    annotations: {cpaas.io/display-name: '{\"en\": \"Log Center\", \"zh\": \"x\"}'}\nspec: {mainChart: ait/log-center}\n";

const CHART_YAML: &str = "apiVersion: v2\nname: log-center\nversion: v1.2.0\nappVersion: 3.10\ndescription: Keeps logs.\n";

fn labels() -> Value {
    json!({
        "operators.operatorframework.io.bundle.manifests.v1": "manifests/",
        "operators.operatorframework.io.bundle.metadata.v1": "metadata/",
        "operators.operatorframework.io.bundle.package.v1": "redis-by-label",
        "operators.operatorframework.io.bundle.channels.v1": "by-label",
    })
}

/// Adds an image with these labels and layers, base first.
fn add_image(builder: &mut Builder, labels: &Value, layers: &[Vec<u8>]) -> Descriptor {
    let config = json!({"os": "linux", "architecture": "amd64", "config": {"Labels": labels}});
    let config = builder.json(MEDIA_TYPE_CONFIG, &config);
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| builder.blob(MEDIA_TYPE_LAYER, layer.clone()))
        .collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": config,
                          "layers": layers});
    builder.json(MEDIA_TYPE_MANIFEST, &manifest)
}

/// Adds the artifact that `helm push` makes of an archive.
fn add_chart(builder: &mut Builder, archive: &[u8]) -> Descriptor {
    let config = builder.json(
        MEDIA_TYPE_CHART_CONFIG,
        &json!({"name": "x", "version": "1"}),
    );
    let layer = builder.blob(MEDIA_TYPE_CHART, archive);
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    builder.json(MEDIA_TYPE_MANIFEST, &manifest)
}

/// Returns the archive of a package of these images whose manifest has this specification.
fn package(builder: &Builder, spec: &str, images: &[(&str, &Descriptor)]) -> Vec<u8> {
    let named: Vec<_> = images
        .iter()
        .map(|(name, root)| (Some(*name), *root))
        .collect();
    let mut files = vec![file(
        "manifest.yaml",
        format!("kind: PackageManifest\nspec: {{{spec}}}"),
    )];
    files.extend(builder.layout("", &named));
    tgz_of(&files)
}

/// Returns the package of one bundle with these layers, base first.
fn bundle_package(layers: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = Builder::default();
    let bundle = add_image(&mut builder, &labels(), layers);
    package(
        &builder,
        &format!("artifact: '{BUNDLE}'"),
        &[(BUNDLE, &bundle)],
    )
}

fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let files: Vec<Raw> = files.iter().map(|(name, text)| file(name, *text)).collect();
    gzip(&tar_of(&files))
}

/// Returns a chart in its usual form with these files below its folder.
fn chart(files: &[(&str, &str)]) -> Vec<u8> {
    let files: Vec<Raw> = files
        .iter()
        .map(|(name, text)| file(&format!("log-center/{name}"), *text))
        .collect();
    tgz_of(&files)
}

fn operator(contents: &Contents) -> &OperatorDescription {
    match &contents.description {
        Some(Description::Operator(operator)) => operator,
        other => panic!(
            "expected an operator, found {other:?}: {:?}",
            contents.description_problem
        ),
    }
}

/// Returns the code of the problem that describing `bytes` meets where everything is kept, as in the store.
fn problem_with(bytes: &[u8], limits: &Limits) -> &'static str {
    read_with(bytes, limits).expect("a package that is looked at is not refused either");
    let unpacked = unpack(
        Cursor::new(bytes.to_vec()),
        limits,
        &mut MemorySink::default(),
    );
    let contents = unpacked.unwrap().package.unwrap();
    assert_eq!(
        contents.images.len(),
        1,
        "the images are there all the same"
    );
    let problem = contents.description_problem;
    problem.map_or("none", |problem| {
        assert!(!problem.to_string().contains('\n'), "{problem}");
        problem.code()
    })
}

fn problem(bytes: &[u8]) -> &'static str {
    problem_with(bytes, &Limits::default())
}

/// Returns what is the main image of a package of two bundles, two charts and an image, of which `images` are in it.
fn main_of(manifest: Option<&str>, documents: &[Raw], images: &[&str]) -> (PackageKind, String) {
    let mut builder = Builder::default();
    let files = [
        ("manifests/csv.yaml", CSV),
        ("metadata/annotations.yaml", ANNOTATIONS),
    ];
    let archive = chart(&[("Chart.yaml", CHART_YAML)]);
    let image = builder.image("x", "amd64");
    let named: Vec<(String, Descriptor)> = images
        .iter()
        .map(|name| {
            let root = match name.split(['/', ':']).nth(1).unwrap() {
                "bundle" => add_image(&mut builder, &labels(), &[layer(&files)]),
                "bundle2" => add_image(&mut builder, &labels(), &[]),
                "chart" => add_chart(&mut builder, &archive),
                "chart2" => add_chart(&mut builder, &gzip(b"x")),
                _ => image.clone(),
            };
            (format!("registry.example/{name}:v1"), root)
        })
        .collect();
    let named: Vec<_> = named
        .iter()
        .map(|(name, root)| (Some(name.as_str()), root))
        .collect();
    let mut files: Vec<Raw> = documents.to_vec();
    files.extend(manifest.map(|spec| {
        file(
            "manifest.yaml",
            format!("kind: PackageManifest\nspec: {{{spec}}}"),
        )
    }));
    files.extend(builder.layout("", &named));
    let contents = read(&tgz_of(&files)).unwrap();
    let artifact = contents
        .artifact
        .map(|artifact| artifact.repository().to_string());
    let problem = contents
        .description_problem
        .map(|problem| problem.code().to_owned());
    (contents.kind, problem.or(artifact).unwrap_or_default())
}

#[test]
fn the_main_image_is_the_artifact_else_the_only_one_that_fits() {
    use PackageKind::{Chart, Images, Operator, Plugin};
    let plugin = [file("moduleplugin.yaml", PLUGIN)];
    for (manifest, documents, images, expected) in [
        (
            Some("artifact: 'registry.example/a/bundle:v1'"),
            &[][..],
            &["a/bundle", "a/bundle2"][..],
            (Operator, "a/bundle"),
        ),
        (
            Some("artifact: 'registry.example/a/image:v1'"),
            &[],
            &["a/bundle", "a/image"],
            (Operator, "not-a-bundle"),
        ),
        (
            Some("version: v1"),
            &[],
            &["a/bundle", "a/image"],
            (Operator, "a/bundle"),
        ),
        (
            Some("version: v1"),
            &[],
            &["a/chart", "a/image"],
            (Chart, "a/chart"),
        ),
        (Some("version: v1"), &[], &["a/image"], (Images, "")),
        (
            Some("version: v1"),
            &[],
            &["a/bundle", "a/chart"],
            (Images, "several-candidates"),
        ),
        (
            Some("type: operator"),
            &[],
            &["a/bundle", "a/chart"],
            (Operator, "a/bundle"),
        ),
        (
            Some("type: plugin"),
            &[],
            &["a/bundle", "a/chart"],
            (Plugin, "a/chart"),
        ),
        (Some("type: images"), &[], &["a/bundle"], (Images, "")),
        (
            Some("type: images, artifact: 'registry.example/a/image:v1'"),
            &[],
            &["a/image"],
            (Images, "a/image"),
        ),
        (None, &plugin, &["a/bundle", "a/chart"], (Plugin, "a/chart")),
        (
            None,
            &plugin,
            &["a/chart", "ait/log-center"],
            (Plugin, "a/chart"),
        ),
        (None, &[], &["a/bundle", "a/image"], (Images, "")),
        (None, &[], &["a/chart"], (Images, "")),
    ] {
        let found = main_of(manifest, documents, images);
        assert_eq!(
            found,
            (expected.0, expected.1.to_owned()),
            "{manifest:?} {images:?}"
        );
    }
}

#[test]
fn of_several_charts_the_main_one_is_that_of_the_plugin() {
    let main = PLUGIN.replace("ait/log-center", "b/chart2");
    let documents = [file("moduleplugin.yaml", main)];
    let found = main_of(None, &documents, &["a/chart", "b/chart2"]);
    assert_eq!(
        found.1, "layer-corrupt",
        "the second chart is the one that was read"
    );
    let found = main_of(
        None,
        &[file("moduleplugin.yaml", PLUGIN)],
        &["a/chart", "b/chart2"],
    );
    assert_eq!(found.1, "several-candidates");
}

/// A sink that notes what is opened, and whose content cannot be read to the end if so wished.
struct WatchedSink {
    inner: MemorySink,
    opened: Mutex<Vec<Digest>>,
    fails: Option<io::ErrorKind>,
}

impl Sink for WatchedSink {
    type Error = Infallible;

    fn begin(&mut self, expected: Option<Digest>, size_bytes: u64) -> Result<(), Infallible> {
        self.inner.begin(expected, size_bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.inner.write(bytes)
    }

    fn end(&mut self) -> Result<Digest, Infallible> {
        self.inner.end()
    }

    fn find(&self, digest: &Digest) -> Result<Option<u64>, Infallible> {
        self.inner.find(digest)
    }

    fn find_base(&self, digest: &Digest) -> Result<Option<u64>, Infallible> {
        self.inner.find_base(digest)
    }

    fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Infallible> {
        self.inner.read(digest, limit_bytes)
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + '_>>, Infallible> {
        self.opened.lock().unwrap().push(*digest);
        let content = &self.inner.blobs[digest];
        let is_layer = content.starts_with(b"\x1f\x8b");
        match self.fails.filter(|_| is_layer) {
            Some(kind) => Ok(Some(Box::new(content[..20].chain(Failing(kind))))),
            None => Ok(Some(Box::new(content.as_slice()))),
        }
    }
}

struct Failing(io::ErrorKind);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.into())
    }
}

fn watch(bytes: &[u8], fails: Option<io::ErrorKind>) -> (Result<Contents, Error>, Vec<Digest>) {
    let mut sink = WatchedSink {
        inner: MemorySink::default(),
        opened: Mutex::default(),
        fails,
    };
    let unpacked = read_into(&mut sink, bytes);
    let contents = unpacked.map(|unpacked| unpacked.package.unwrap());
    (contents, sink.opened.into_inner().unwrap())
}

#[test]
fn layers_of_ordinary_images_are_never_opened() {
    let mut builder = Builder::default();
    let files = [
        ("manifests/csv.yaml", CSV),
        ("metadata/annotations.yaml", ANNOTATIONS),
    ];
    let bundle_layer = layer(&files);
    let bundle = add_image(&mut builder, &labels(), std::slice::from_ref(&bundle_layer));
    let ordinary = add_image(&mut builder, &json!(null), &[gzip(b"x")]);
    let other = "registry.example/ops/redis:7";
    let images = [(BUNDLE, &bundle), (other, &ordinary)];
    let is_layer = |digest: &&Digest| builder.blobs[*digest].starts_with(b"\x1f\x8b");
    for (spec, layers) in [
        (
            format!("artifact: '{BUNDLE}', relatedImages: ['{other}']"),
            1,
        ),
        (format!("relatedImages: ['{other}']"), 1),
        (
            format!("artifact: '{other}', relatedImages: ['{BUNDLE}']"),
            0,
        ),
        (format!("type: images, relatedImages: ['{other}']"), 0),
    ] {
        let (contents, opened) = watch(&package(&builder, &spec, &images), None);
        assert_eq!(opened.iter().filter(is_layer).count(), layers, "{spec}");
        assert_eq!(
            contents.unwrap().description.is_some(),
            layers > 0,
            "{spec}"
        );
    }
}

#[test]
fn a_disk_that_fails_is_no_fault_of_the_package() {
    let bytes = bundle_package(&[layer(&[("manifests/csv.yaml", CSV)])]);
    let (outcome, _) = watch(&bytes, Some(io::ErrorKind::TimedOut));
    let error = outcome.unwrap_err();
    assert_eq!(
        (error.code(), error.class()),
        ("read-failed", Class::Transient)
    );
    let (outcome, _) = watch(&bytes, None);
    assert_eq!(outcome.unwrap().description_problem, None);
}

#[test]
fn what_was_not_kept_in_memory_is_said_and_labels_still_count() {
    let large = tar_of(&[file("manifests/x", vec![b'x'; 9 << 20])]);
    let contents = read(&bundle_package(&[large])).unwrap();
    assert_eq!(
        contents.description_problem.as_ref().unwrap().code(),
        "layer-not-kept"
    );
    assert_eq!(contents.name.as_ref().unwrap().as_str(), "redis-by-label");
    assert_eq!(operator(&contents).channels, ["by-label"]);
}
