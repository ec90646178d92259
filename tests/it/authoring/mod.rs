//! Making packages by the program: whole ones, and those that are less, or more, than their images: sparse and rewritten
//! indexes, signatures and other referrers, deltas and supplements; with images in real registries and in OCI layouts.

mod deltas;
mod indexes;
mod referrers;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use tempfile::TempDir;
use violetd::base::oci::{Descriptor, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};
use violetd::base::{Digest, Repository};
use violetd::registry::{BlobSource, Client, ManifestReference, Mount, NoUploads};

use crate::support::{Auth, Images, Placed, TestRegistry, noise, run_program, write};

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
            let upload = client.upload_blob(&repository, &blob, &source, Mount::No, &NoUploads);
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

/// Returns what the images of `origin` with everything that refers to them are called.
fn names_of(origin: &Origin) -> BTreeMap<String, Digest> {
    let tagged = origin.tagged.iter();
    let tagged = tagged.map(|(tag, it)| (format!(":{tag}"), it.digest));
    let untagged = origin.untagged.iter();
    let untagged = untagged.map(|it| (format!("@{}", it.digest), it.digest));
    let image = (":v1".to_owned(), origin.app.root.digest);
    tagged.chain(untagged).chain([image]).collect()
}
