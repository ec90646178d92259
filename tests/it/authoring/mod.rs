//! Making packages that are less, or more, than their images: sparse and rewritten indexes, signatures and other
//! referrers, deltas and supplements; with images in real registries and in OCI layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::header::LINK;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use tempfile::TempDir;
use violetd::base::oci::{Descriptor, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};
use violetd::base::{Digest, Repository};
use violetd::package::{Inventory, Request};
use violetd::registry::{BlobSource, Client, ManifestReference};

use crate::support::{
    Auth, Daemon, Images, Package, Placed, Proxy, Setup, TestRegistry, noise, run, run_program,
    write,
};

const REPOSITORY: &str = "demo/app";

/// Images in an OCI layout and in a registry, and what refers to them.
struct Origin {
    dir: TempDir,
    registry: TestRegistry,
    images: Images,
    app: Placed,
    /// What is under tags, besides the images.
    tagged: BTreeMap<String, Descriptor>,
    /// What has no tag.
    untagged: Vec<Descriptor>,
}

impl Origin {
    /// Starts a registry with one image for two platforms and nothing that refers to it.
    fn start() -> Self {
        let mut images = Images::default();
        let app = images.add(REPOSITORY, "v1", &[noise(1, 60_000), noise(2, 30_000)]);
        Self {
            dir: TempDir::new().unwrap(),
            registry: TestRegistry::start(Auth::None),
            images,
            app,
            tagged: BTreeMap::new(),
            untagged: Vec::new(),
        }
    }

    /// As [`Origin::start`], with a signature of the index, an attestation of its first manifest, a bill of materials
    /// of the index, and a signature of that.
    fn signed() -> Self {
        let mut origin = Self::start();
        let (index, amd64) = (origin.app.root.clone(), origin.app.manifests[0].clone());
        let signature = origin.add("simplesigning", None);
        origin.tag(&index, ".sig", signature);
        let attestation = origin.add("in-toto", None);
        origin.tag(&amd64, ".att", attestation);
        let materials = origin.add("spdx", Some(&index));
        let endorsement = origin.add("simplesigning", Some(&materials));
        origin.untagged = vec![materials, endorsement];
        origin
    }

    /// Makes an artifact, which refers to `subject` or to nothing.
    fn add(&mut self, kind: &str, subject: Option<&Descriptor>) -> Descriptor {
        let name = subject.map_or_else(String::new, |subject| subject.digest.to_string());
        let media_type = format!("application/vnd.example.{kind}+json");
        let payload = self
            .images
            .blob(&media_type, format!(r#"{{"{kind}":"{name}"}}"#));
        let config = self.images.blob("application/vnd.oci.empty.v1+json", "{}");
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "artifactType": media_type,
            "config": config, "layers": [payload], "annotations": {"kind": kind},
        });
        if let Some(subject) = subject {
            manifest["subject"] = json!(subject);
        }
        self.images.blob(MEDIA_TYPE_MANIFEST, manifest.to_string())
    }

    fn tag(&mut self, subject: &Descriptor, suffix: &str, manifest: Descriptor) {
        let tag = format!("sha256-{}{suffix}", subject.digest.hex());
        self.tagged.insert(tag, manifest);
    }

    /// Adds the indexes that clients keep in registries without the referrers API.
    fn with_fallback_tags(mut self) -> Self {
        let index = self.app.root.clone();
        for (subject, referrer) in [&index, &self.untagged[0].clone()]
            .into_iter()
            .zip(self.untagged.clone())
        {
            let entries = json!({
                "schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": [referrer],
                "annotations": {"made": "elsewhere"},
            });
            let fallback = self.images.blob(MEDIA_TYPE_INDEX, entries.to_string());
            self.tag(subject, "", fallback);
        }
        self
    }

    /// Returns the layout, with every entry that a layout may have.
    fn write_layout(&self) -> PathBuf {
        let folder = self.dir.path().join("layout");
        self.images.write_layout(&folder);
        let mut entries = vec![entry(&self.app.root, Some("v1"))];
        entries.extend(self.tagged.iter().map(|(tag, it)| entry(it, Some(tag))));
        entries.extend(self.untagged.iter().map(|it| entry(it, None)));
        let index = json!({"schemaVersion": 2, "manifests": entries});
        write(&folder.join("index.json"), index.to_string());
        folder
    }

    /// Brings everything into the registry.
    fn push(&self) {
        let layout = self.write_layout();
        let client = Client::new(self.registry.options()).unwrap();
        let repository: Repository = REPOSITORY.parse().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for (digest, content) in &self.images.blobs {
            let path = layout.join("blobs/sha256").join(digest.hex());
            let source: BlobSource = Arc::new(move || File::open(&path));
            let blob = Descriptor {
                media_type: String::new(),
                digest: *digest,
                size_bytes: content.len() as u64,
            };
            let upload = client.upload_blob(&repository, &blob, &source, None);
            runtime.block_on(upload).unwrap();
        }
        let by_digest = self.app.manifests.iter().chain(&self.untagged);
        let by_digest = by_digest.map(|it| (ManifestReference::Digest(it.digest), it));
        let by_tag = |tag: &str| ManifestReference::Tag(tag.parse().unwrap());
        let tagged = self.tagged.iter().map(|(tag, it)| (by_tag(tag), it));
        let image = (by_tag("v1"), &self.app.root);
        for (reference, manifest) in by_digest.chain([image]).chain(tagged) {
            let bytes = Bytes::from(self.images.blobs[&manifest.digest].clone());
            let put = client.put_manifest(&repository, &reference, &manifest.media_type, bytes);
            runtime.block_on(put).unwrap();
        }
    }

    fn image(&self) -> String {
        format!("{}/{REPOSITORY}:v1", self.registry.address())
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Writes the folder `work` for the image in the registry. Returns what the command says for programs, and in words.
    fn create(&self, options: &[&str]) -> (Value, String) {
        self.create_from(&self.image(), options)
    }

    fn create_from(&self, image: &str, options: &[&str]) -> (Value, String) {
        let work = self.path("work");
        let arguments = [
            "create",
            &work,
            "--type",
            "images",
            "--image",
            image,
            "--plain",
            "--no-auth",
            "--output",
            "json",
        ];
        succeed(&[&arguments, options].concat())
    }

    /// Makes a package of the folder `work`.
    fn package(&self, name: &str, options: &[&str]) -> (Packed, Value, String) {
        let (work, path) = (self.path("work"), self.path(name));
        let arguments = [
            "package",
            &work,
            "--output",
            &path,
            "--plain",
            "--no-auth",
            "--format",
            "json",
        ];
        let (view, words) = succeed(&[&arguments, options].concat());
        (Packed::read(Path::new(&path)), view, words)
    }

    /// Writes a file that a command is to read.
    fn list(&self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut text = Vec::new();
        write(&mut text);
        let path = self.path(name);
        crate::support::write(Path::new(&path), text);
        path
    }
}

fn entry(descriptor: &Descriptor, name: Option<&str>) -> Value {
    let mut entry = json!(descriptor);
    if let Some(name) = name {
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    }
    entry
}

/// Runs the program. Returns what it prints, as JSON, and what it says.
fn succeed(arguments: &[&str]) -> (Value, String) {
    let output = run_program(arguments);
    let words = words(&output);
    assert!(output.status.success(), "{arguments:?}: {words}");
    (serde_json::from_slice(&output.stdout).unwrap(), words)
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The archive of a package, taken apart.
struct Packed {
    bytes: Vec<u8>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Packed {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let mut archive = tar::Archive::new(MultiGzDecoder::new(bytes.as_slice()));
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().to_str().unwrap().to_owned(), content);
        }
        Self { bytes, files }
    }

    /// Returns the names of its images with their digests; a name with neither host nor tag ends in the digest.
    fn images(&self) -> BTreeMap<String, Digest> {
        let index: Value = serde_json::from_slice(&self.files["index.json"]).unwrap();
        let entries = index["manifests"].as_array().unwrap().iter();
        entries
            .map(|entry| {
                let name = entry["annotations"]["io.containerd.image.name"].as_str();
                let (_, name) = name.unwrap().split_once('/').unwrap();
                let name = name.strip_prefix(REPOSITORY).unwrap();
                let digest = entry["digest"].as_str().unwrap().parse().unwrap();
                (name.to_owned(), digest)
            })
            .collect()
    }

    fn blobs(&self) -> BTreeSet<Digest> {
        let names = self.files.keys();
        let hex = names.filter_map(|name| name.strip_prefix("blobs/sha256/"));
        hex.map(|hex| Digest::from_hex(hex).unwrap()).collect()
    }

    fn manifest(&self) -> violetd::package::Manifest {
        let text = &self.files["manifest.yaml"];
        violetd::package::Manifest::parse("manifest.yaml", text).unwrap()
    }
}

/// Returns what skopeo says of the raw manifest of an image.
fn inspect(image: &str) -> Digest {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--raw", "--tls-verify=false", image]);
    Digest::of(&run("skopeo", &mut skopeo))
}

/// Returns what the images of `origin` with everything that refers to them are called.
fn names_of(origin: &Origin) -> BTreeMap<String, Digest> {
    let tagged = origin.tagged.iter();
    let tagged = tagged.map(|(tag, it)| (format!(":{tag}"), it.digest));
    let untagged = origin.untagged.iter();
    let untagged = untagged.map(|it| (format!("@{}", it.digest), it.digest));
    let image = (":v1".to_owned(), origin.app.root.digest);
    tagged.chain(untagged).chain([image]).collect()
}

#[test]
fn signatures_and_referrers_travel_with_their_image_from_a_registry() {
    let origin = Origin::signed().with_fallback_tags();
    origin.push();
    let (created, _) = origin.create(&[]);
    assert_eq!(created["referrers"], 6, "{created:#}");
    let (one, view, _) = origin.package("one.tgz", &[]);
    let (two, ..) = origin.package("two.tgz", &[]);
    assert!(one.bytes == two.bytes, "the packages differ");
    assert_eq!(one.images(), names_of(&origin));
    let expected: BTreeSet<Digest> = origin.images.blobs.keys().copied().collect();
    assert_eq!(one.blobs(), expected);
    assert_eq!(view["referrers"], 6);

    origin.create(&["--no-referrers"]);
    let (without, ..) = origin.package("without.tgz", &[]);
    assert_eq!(without.images().into_keys().collect::<Vec<_>>(), [":v1"]);
    assert_eq!(without.blobs().len(), 3 + origin.app.blobs.len());
}

#[test]
fn signatures_and_referrers_travel_with_their_image_from_a_layout() {
    let origin = Origin::signed();
    let layout = origin.write_layout();
    for image in [
        format!("oci:{}", layout.display()),
        format!("registry.example/{REPOSITORY}:v1=oci:{}", layout.display()),
    ] {
        let (created, words) = origin.create_from(&image, &[]);
        assert_eq!(created["images"].as_array().unwrap().len(), 1, "{words}");
        assert_eq!(created["referrers"], 4, "{words}");
    }
    let (one, ..) = origin.package("one.tgz", &[]);
    let (two, ..) = origin.package("two.tgz", &[]);
    assert!(one.bytes == two.bytes, "the packages differ");

    // The layout has no fallback tags: they are made, for targets without the referrers API.
    let mut images = one.images();
    for (subject, referrer) in [
        (&origin.app.root, &origin.untagged[0]),
        (&origin.untagged[0], &origin.untagged[1]),
    ] {
        let tag = format!(":sha256-{}", subject.digest.hex());
        let digest = images.remove(&tag).expect(&tag);
        let content = &one.files[&format!("blobs/sha256/{}", digest.hex())];
        let index: Value = serde_json::from_slice(content).unwrap();
        let listed = &index["manifests"][0];
        assert_eq!(listed["digest"], referrer.digest.to_string());
        assert!(listed["artifactType"].is_string() && listed["annotations"]["kind"].is_string());
    }
    assert_eq!(images, names_of(&origin));
}

/// What a registry with the referrers API answers: one referrer a page.
async fn answer(
    State(referrers): State<Arc<BTreeMap<String, Vec<Value>>>>,
    UrlPath(subject): UrlPath<String>,
    Query(query): Query<BTreeMap<String, usize>>,
) -> Response {
    let page = query.get("page").copied().unwrap_or(0);
    let all = referrers.get(&subject).map_or(&[][..], Vec::as_slice);
    let manifests: Vec<&Value> = all.iter().skip(page).take(1).collect();
    let body = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": manifests});
    let mut response = axum::Json(body).into_response();
    if page + 1 < all.len() {
        let next = format!(
            "</v2/{REPOSITORY}/referrers/{subject}?page={}>; rel=\"next\"",
            page + 1
        );
        response.headers_mut().insert(LINK, next.parse().unwrap());
    }
    response
}

/// Starts a proxy before the registry of `origin` that adds the referrers API.
async fn start_api(referrers: BTreeMap<String, Vec<Value>>, registry: SocketAddr) -> Proxy {
    let path = format!("/v2/{REPOSITORY}/referrers/{{subject}}");
    let router = axum::Router::new()
        .route(&path, axum::routing::get(answer))
        .with_state(Arc::new(referrers));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    Proxy::start_with_routes(registry, vec![("/v2/demo/app/referrers/", api)]).await
}

#[test]
fn the_referrers_api_is_read_to_its_last_page() {
    let mut origin = Origin::signed();
    let index = origin.app.root.clone();
    let scan = origin.add("scan", Some(&index));
    origin.untagged.push(scan.clone());
    origin.push();
    let absent = Digest::of(b"deleted");
    let [materials, endorsement, _] = &origin.untagged[..] else {
        panic!("expected three");
    };
    let gone = json!({"mediaType": MEDIA_TYPE_MANIFEST, "digest": absent, "size": 1});
    let referrers = BTreeMap::from([
        (
            index.digest.to_string(),
            vec![json!(materials), json!(scan), gone],
        ),
        (materials.digest.to_string(), vec![json!(endorsement)]),
    ]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(start_api(referrers, origin.registry.address()));

    let image = format!("{}/{REPOSITORY}:v1", proxy.address());
    let (created, words) = origin.create_from(&image, &[]);
    assert_eq!(created["referrers"], 5, "{words}");
    assert!(words.contains(&absent.to_string()), "{words}");
    // For each of 3 manifests and 5 referrers: four tags and a list, which has two more pages for one of them.
    let look_ups = proxy.take_requests();
    let is_look_up =
        |request: &&String| request.starts_with("HEAD") || request.contains("referrers");
    assert_eq!(
        look_ups.iter().filter(is_look_up).count(),
        8 * 5 + 2,
        "{look_ups:#?}"
    );
    let (packed, ..) = origin.package("one.tgz", &[]);
    let mut images = packed.images();
    let tag = format!(":sha256-{}", index.digest.hex());
    let fallback = images.remove(&tag).unwrap();
    let fallback = &packed.files[&format!("blobs/sha256/{}", fallback.hex())];
    let fallback: Value = serde_json::from_slice(fallback).unwrap();
    let mut expected = [materials.digest.to_string(), scan.digest.to_string()];
    expected.sort();
    let listed = fallback["manifests"].as_array().unwrap().iter();
    let listed: Vec<&str> = listed.map(|it| it["digest"].as_str().unwrap()).collect();
    assert_eq!(listed, expected);
    images.remove(&format!(":sha256-{}", materials.digest.hex()));
    assert_eq!(images, names_of(&origin));
}

#[test]
fn referrers_are_looked_for_through_the_proxy_of_the_environment_as_images_are() {
    let origin = Origin::signed().with_fallback_tags();
    origin.push();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::start(origin.registry.address()));
    let image = format!("registry.invalid/{REPOSITORY}:v1");
    let work = origin.path("work");
    let mut create = Command::new(env!("CARGO_BIN_EXE_violetd"));
    create
        .args(["create", &work, "--image", &image, "--plain"])
        .args(["--no-auth", "--output", "json"])
        .env("http_proxy", format!("http://{}", proxy.address()))
        .env("no_proxy", "");
    let created: Value = serde_json::from_slice(&run("violetd", &mut create)).unwrap();
    assert_eq!(created["referrers"], 6, "{created:#}");
}

#[test]
fn a_sparse_index_keeps_its_digest_and_its_signatures() {
    let origin = Origin::signed().with_fallback_tags();
    origin.push();
    let source = inspect(&format!("docker://{}", origin.image()));
    let (created, words) = origin.create(&["--platforms", "linux/amd64", "--index", "sparse"]);
    let arm64 = origin.app.manifests[1].digest;
    let said = &created["images"][0];
    assert_eq!(said["form"], "sparse", "{created:#}");
    assert_eq!(said["digest"], source.to_string());
    assert_eq!(said["omitted"], json!([arm64]));
    assert!(words.contains("is sparse"), "{words}");

    let (packed, view, words) = origin.package("one.tgz", &[]);
    assert_eq!(view["images"], created["images"]);
    assert!(words.contains("is sparse"), "{words}");
    assert_eq!(packed.images(), names_of(&origin), "all referrers hold");
    assert_eq!(packed.manifest().omitted, BTreeSet::from([arm64]));
    assert!(!packed.blobs().contains(&arm64));
    assert!(packed.blobs().contains(&origin.app.manifests[0].digest));

    let folder = origin.dir.path().join("unpacked");
    violetd::sys::fs::ensure_dir_all(&folder).unwrap();
    let mut tar = Command::new("tar");
    run(
        "tar",
        tar.arg("-xzf")
            .arg(origin.path("one.tgz"))
            .arg("-C")
            .arg(&folder),
    );
    let unpacked = inspect(&format!("oci:{}:v1", folder.display()));
    assert_eq!(unpacked, source);
}

#[test]
fn a_rewritten_index_has_another_digest_and_its_signatures_stay_behind() {
    let origin = Origin::signed().with_fallback_tags();
    origin.push();
    let source = inspect(&format!("docker://{}", origin.image()));
    let (created, words) = origin.create(&["--platforms", "linux/amd64"]);
    let said = &created["images"][0];
    assert_eq!(said["form"], "rewritten", "{created:#}");
    assert_eq!(said["source_digest"], source.to_string());
    let new: Digest = said["digest"].as_str().unwrap().parse().unwrap();
    assert_ne!(new, source);
    for text in [
        "is rewritten",
        &source.to_string(),
        &new.to_string(),
        "--index sparse",
    ] {
        assert!(words.contains(text), "expected {text} in: {words}");
    }

    let (packed, view, words) = origin.package("one.tgz", &[]);
    assert_eq!(view["images"], created["images"]);
    assert_eq!(view["referrers_left_out"], created["referrers_left_out"]);
    assert!(words.contains("is left out"), "{words}");
    let attestation = format!(":sha256-{}.att", origin.app.manifests[0].digest.hex());
    let expected = [
        (":v1", new),
        (&attestation, origin.tagged[&attestation[1..]].digest),
    ];
    let expected = expected.map(|(name, digest)| (name.to_owned(), digest));
    assert_eq!(packed.images(), BTreeMap::from(expected));
    assert!(packed.manifest().omitted.is_empty());
}

#[test]
fn a_delta_leaves_out_exactly_what_an_inventory_of_the_registry_has() {
    let mut origin = Origin::start();
    origin.push();
    let address = origin.registry.address().to_string();
    let base = origin.path("base");
    let inventory = |repository: &[&str]| {
        let arguments = ["inventory", "--registry", &address, "--plain", "--no-auth"];
        let output = run_program(&[&arguments, repository].concat());
        assert!(output.status.success(), "{}", words(&output));
        output.stdout
    };
    let text = inventory(&["--repository", REPOSITORY]);
    assert_eq!(text, inventory(&[]), "the registry lists its repositories");
    write(Path::new(&base), &text);
    let held = Inventory::parse(text.as_slice()).unwrap().blobs;
    let sizes = origin.images.blobs.iter();
    let sizes = sizes.map(|(digest, content)| (*digest, content.len() as u64));
    assert_eq!(held, sizes.collect());

    // The next version has one new layer, and a layer for each platform.
    let layers = [noise(1, 60_000), noise(9, 20_000)];
    origin.app = origin.images.add(REPOSITORY, "v1", &layers);
    origin.push();
    origin.create(&[]);
    let (whole, ..) = origin.package("whole.tgz", &[]);
    let (delta, view, words) = origin.package("delta.tgz", &["--base", &base]);
    let (again, ..) = origin.package("again.tgz", &["--base", &base]);
    assert!(delta.bytes == again.bytes, "the packages differ");
    let spared = delta.manifest().expects;
    let expected = whole.blobs().into_iter().filter(|it| held.contains_key(it));
    assert_eq!(
        spared.keys().copied().collect::<Vec<_>>(),
        expected.collect::<Vec<_>>()
    );
    assert!(spared.iter().all(|(digest, size)| held[digest] == *size));
    let left: BTreeSet<Digest> = spared.keys().copied().collect();
    assert_eq!(delta.blobs(), &whole.blobs() - &left);
    assert_eq!(delta.images(), whole.images());
    assert_eq!(view["spared_blobs"], spared.len());
    assert_eq!(view["spared_bytes"], spared.values().sum::<u64>());
    assert!(words.contains("a delta"), "{words}");

    let nothing = origin.list("nothing", |text| Inventory::default().write(text).unwrap());
    let (same, _, words) = origin.package("same.tgz", &["--base", &nothing]);
    assert!(
        same.bytes == whole.bytes,
        "nothing spared is a whole package"
    );
    assert!(words.contains("the package is whole"), "{words}");

    let wrong = BTreeMap::from([(*left.first().unwrap(), 1)]);
    let wrong = origin.list("wrong", |text| {
        Inventory { blobs: wrong }.write(text).unwrap();
    });
    let work = origin.path("work");
    let refused = run_program(&["package", &work, "--base", &wrong, "--plain", "--no-auth"]);
    assert_eq!(
        refused.status.code(),
        Some(65),
        "{}",
        crate::deltas_authoring::words(&refused)
    );
}

#[test]
fn a_supplement_holds_exactly_what_was_requested() {
    let origin = Origin::start();
    origin.push();
    origin.create(&[]);
    let wanted: BTreeMap<Digest, u64> = origin
        .images
        .blobs
        .iter()
        .map(|(digest, content)| (*digest, content.len() as u64))
        .take(3)
        .collect();
    let request = |missing: &BTreeMap<Digest, u64>| Request {
        name: Some("work".parse().unwrap()),
        version: None,
        file: Digest::of(b"delta"),
        missing: missing.clone(),
    };
    let path = origin.list("good", |text| request(&wanted).write(text).unwrap());
    let (packed, view, _) = origin.package("one.tgz", &["--for", &path]);
    let (again, ..) = origin.package("two.tgz", &["--for", &path]);
    assert!(packed.bytes == again.bytes, "the packages differ");
    assert!(packed.blobs().iter().eq(wanted.keys()));
    assert!(packed.images().is_empty() && view["images"] == json!([]));
    let manifest = packed.manifest();
    assert_eq!(manifest.kind.unwrap().name(), "supplement");
    assert_eq!(manifest.name.unwrap().as_str(), "work");
    assert!(manifest.expects.is_empty() && manifest.related_images.is_empty());

    let path = origin.list("empty", |text| {
        request(&BTreeMap::new()).write(text).unwrap();
    });
    let work = origin.path("work");
    let refused = run_program(&["package", &work, "--for", &path, "--plain", "--no-auth"]);
    assert_eq!(refused.status.code(), Some(64), "{}", words(&refused));

    let mut more = wanted.clone();
    let others = [Digest::of(b"one"), Digest::of(b"two")];
    more.extend(others.map(|digest| (digest, 3)));
    let path = origin.list("more", |text| request(&more).write(text).unwrap());
    let refused = run_program(&["package", &work, "--for", &path, "--plain", "--no-auth"]);
    let said = words(&refused);
    assert_eq!(refused.status.code(), Some(66), "{said}");
    assert!(
        others.iter().all(|it| said.contains(&it.to_string())),
        "{said}"
    );
    let (partial, view, _) = origin.package("three.tgz", &["--for", &path, "--partial"]);
    assert!(partial.bytes == packed.bytes, "the answer is the same");
    assert_eq!(view["unanswered"].as_array().unwrap().len(), 2);
}

#[test]
fn an_inventory_is_taken_from_a_running_daemon_and_from_its_target() {
    let mut images = Images::default();
    images.add("demo/hello", "v1", &[noise(1, 40_000), noise(2, 9_000)]);
    let package = Package::operator("hello-operator", images);
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    daemon.setup.drop_package(&package);
    daemon.wait_in_sync(1);

    let sizes = package.images.blobs.iter();
    let sizes: BTreeMap<Digest, u64> = sizes
        .map(|(digest, content)| (*digest, content.len() as u64))
        .collect();
    for arguments in [&["inventory"][..], &["inventory", "--target", "global-a"]] {
        let output = daemon.setup.run(arguments);
        assert!(output.status.success(), "{}", words(&output));
        let listed = Inventory::parse(output.stdout.as_slice()).unwrap();
        assert_eq!(listed.blobs, sizes, "{arguments:?}");
    }
    let absent = daemon.setup.run(&["inventory", "--target", "global-z"]);
    assert_eq!(absent.status.code(), Some(66), "{}", words(&absent));
    assert!(words(&absent).contains("global-a"), "{}", words(&absent));
}
