//! Packages: images made by code, packed by the program itself, signed by GnuPG.
//!
//! ```text
//! Images ─► OCI layout on disk ─► `violetd create` ─► `violetd package` ─► Package
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use violetd::base::Digest;
use violetd::base::oci::{
    ANNOTATION_REF_NAME, Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST,
};
use violetd::sys::fs as durable;

use super::{run, write};

/// Media type of a layer that is not compressed.
const MEDIA_TYPE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The host that images are packaged under. Nobody asks it for anything.
const ORIGIN: &str = "registry.example";

/// Returns `count` bytes that look random and are the same for the same seed (xorshift64*, Vigna 2016).
pub(crate) fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes()
    });
    words.flatten().take(count).collect()
}

/// Where an image goes and which one it is.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// The repository, without a host.
    pub(crate) repository: &'static str,
    /// The tag.
    pub(crate) tag: &'static str,
    /// The index.
    pub(crate) root: Descriptor,
    /// Its manifests, the index last.
    pub(crate) manifests: Vec<Descriptor>,
    /// Configurations and layers, each once.
    pub(crate) blobs: BTreeSet<Descriptor>,
}

impl Placed {
    /// Returns the name within a registry.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

/// Images and the blobs that they consist of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Images {
    /// The images, in the order in which they were added.
    pub(crate) placed: Vec<Placed>,
    /// Blobs and manifests.
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Images {
    /// Adds an image for two platforms with these layers, base first. Each platform has a layer of its own on top, of
    /// a few bytes.
    pub(crate) fn add(
        &mut self,
        repository: &'static str,
        tag: &'static str,
        layers: &[Vec<u8>],
    ) -> Placed {
        let (mut entries, mut manifests, mut blobs) = (Vec::new(), Vec::new(), BTreeSet::new());
        for architecture in ["amd64", "arm64"] {
            let own = format!("{repository}:{tag} on {architecture}");
            let parts = self.parts(&own, architecture, layers);
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": parts[0], "layers": parts[1..],
            });
            let manifest = self.blob(MEDIA_TYPE_MANIFEST, manifest.to_string());
            let mut entry = serde_json::to_value(&manifest).unwrap();
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entries.push(entry);
            manifests.push(manifest);
            blobs.extend(parts);
        }
        let index =
            json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": entries});
        let root = self.blob(MEDIA_TYPE_INDEX, index.to_string());
        manifests.push(root.clone());
        let placed = Placed {
            repository,
            tag,
            root,
            manifests,
            blobs,
        };
        self.placed.push(placed.clone());
        placed
    }

    /// Makes the configuration and the layers of an image for one platform.
    fn parts(&mut self, own: &str, architecture: &str, layers: &[Vec<u8>]) -> Vec<Descriptor> {
        let config = json!({
            "os": "linux", "architecture": architecture, "config": {"Labels": {"own": own}},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let mut parts = vec![self.blob(MEDIA_TYPE_CONFIG, config.to_string())];
        for layer in layers {
            parts.push(self.blob(MEDIA_TYPE_LAYER, layer.clone()));
        }
        parts.push(self.blob(MEDIA_TYPE_LAYER, format!("layer of {own}")));
        parts
    }

    /// Adds a blob or a manifest, and returns the pointer to it.
    pub(crate) fn blob(&mut self, media_type: &str, content: impl Into<Vec<u8>>) -> Descriptor {
        let content = content.into();
        let descriptor = Descriptor::of(media_type, &content);
        self.blobs.insert(descriptor.digest, content);
        descriptor
    }

    /// Returns how many bytes all blobs and manifests have together.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.blobs.values().map(|blob| blob.len() as u64).sum()
    }

    /// Writes the images as an OCI layout, named by their positions.
    pub(crate) fn write_layout(&self, folder: &Path) {
        let blobs = folder.join("blobs/sha256");
        durable::ensure_dir_all(&blobs).unwrap();
        for (digest, content) in &self.blobs {
            write(&blobs.join(digest.hex()), content);
        }
        let entries: Vec<Value> = self
            .placed
            .iter()
            .enumerate()
            .map(|(position, image)| {
                let mut entry = serde_json::to_value(&image.root).unwrap();
                entry["annotations"] = json!({ANNOTATION_REF_NAME: position.to_string()});
                entry
            })
            .collect();
        let index = json!({"schemaVersion": 2, "manifests": entries});
        write(&folder.join("index.json"), index.to_string());
        write(
            &folder.join("oci-layout"),
            r#"{"imageLayoutVersion": "1.0.0"}"#,
        );
    }
}

/// A package file in a folder of its own, and what was packed.
#[derive(Debug)]
pub(crate) struct Package {
    dir: TempDir,
    /// The file.
    pub(crate) path: PathBuf,
    /// What is in it.
    pub(crate) images: Images,
}

impl Package {
    /// Packs images as an operator of this name. The first image is its bundle, whose tag becomes the version.
    pub(crate) fn operator(name: &str, images: Images) -> Self {
        Self::pack(name, name, images, |_, _| {})
    }

    /// The same, in a file with a name of its own: releases of one operator are dropped into one folder.
    pub(crate) fn release(name: &str, file_stem: &str, images: Images) -> Self {
        Self::pack(name, file_stem, images, |_, _| {})
    }

    /// Packs images as a plugin with this `ModulePlugin`. The first image is its chart.
    pub(crate) fn plugin(name: &str, images: Images, document: &Value) -> Self {
        Self::pack(name, name, images, |create, dir| {
            let path = dir.join("module-plugin.yaml");
            durable::replace_file(&path, document.to_string().as_bytes(), 0o600).unwrap();
            create
                .args(["--type", "plugin", "--module-plugin"])
                .arg(path);
        })
    }

    fn pack(
        name: &str,
        file_stem: &str,
        images: Images,
        options: impl FnOnce(&mut Command, &Path),
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let (layout, folder) = (dir.path().join("layout"), dir.path().join(name));
        images.write_layout(&layout);
        let mut create = program();
        options(create.arg("create").arg(&folder), dir.path());
        for (position, image) in images.placed.iter().enumerate() {
            let option = if position == 0 {
                "--artifact"
            } else {
                "--image"
            };
            let layout = layout.display();
            let image = image.name();
            create
                .arg(option)
                .arg(format!("{ORIGIN}/{image}=oci:{layout}:{position}"));
        }
        run("violetd", &mut create);
        let path = dir.path().join(format!("{file_stem}.tgz"));
        let mut package = program();
        package
            .args([OsStr::new("package"), folder.as_os_str()])
            .args([OsStr::new("--output"), path.as_os_str()]);
        run("violetd", package.arg("--checksum"));
        Self { dir, path, images }
    }

    /// Packs one small image. Packages of different names differ in every layer.
    pub(crate) fn small(name: &'static str) -> Self {
        let mut images = Images::default();
        let seed = Digest::of(name.as_bytes()).as_bytes()[..8]
            .try_into()
            .unwrap();
        images.add(name, "v1", &[noise(u64::from_le_bytes(seed), 40_000)]);
        Self::operator(name, images)
    }

    /// Returns the digest of the file.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.bytes())
    }

    /// Returns the content of the file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }

    /// Returns the checksum file that lies beside it, in the form of sha256sum.
    pub(crate) fn checksum(&self) -> Vec<u8> {
        std::fs::read(self.path.with_extension("tgz.sha256")).unwrap()
    }

    /// Returns the OCI layout that it was made from.
    pub(crate) fn layout(&self) -> PathBuf {
        self.dir.path().join("layout")
    }
}

/// Returns the `ModulePlugin` of a cluster plugin `log-center` whose chart is `ait/log-center:v1.2.0`.
pub(crate) fn module_plugin() -> Value {
    json!({
        "apiVersion": "cluster.alauda.io/v1alpha1",
        "kind": "ModulePlugin",
        "metadata": {"name": "log-center", "labels": {"cpaas.io/module-name": "log-center"}},
        "spec": {
            "name": "log-center", "logo": "data:image/svg+xml;base64,xxx", "deleteable": true,
            "description": {"en": "Logs"}, "mainChart": "ait/log-center",
            "appReleases": [{
                "name": "log-center",
                "chartVersions": [{"name": "ait/log-center", "releaseName": "log-center", "version": "v1.2.0"}],
            }],
        },
    })
}

/// Returns the program, without what the environment would tell it.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_violetd"));
    command.env_clear();
    command
}

/// A person who signs, with a key of its own. Debian package `gnupg`.
#[derive(Debug)]
pub(crate) struct Signer {
    home: TempDir,
}

impl Signer {
    /// Makes a key.
    pub(crate) fn new(name: &str) -> Self {
        // The agent's socket is in there, and the path of a socket has at most 107 bytes.
        let home = tempfile::Builder::new().prefix("k").tempdir().unwrap();
        let signer = Self { home };
        let user = format!("{name} <{name}@site.example>");
        let mut gpg = signer.gpg();
        gpg.args(["--passphrase", "", "--quick-generate-key", &user]);
        run("gnupg", gpg.args(["ed25519", "sign", "never"]));
        signer
    }

    /// Returns the certificate, armored.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        run("gnupg", self.gpg().args(["--armor", "--export"]))
    }

    /// Revokes the key for no reason given, and returns the certificate that says so, armored.
    pub(crate) fn revoke(&self) -> Vec<u8> {
        // GnuPG makes a revocation with each key, and a colon in front of it against accidents.
        let folder = self.home.path().join("openpgp-revocs.d");
        let made = folder.join(&super::names(&folder)[0]);
        let text = std::fs::read_to_string(made).unwrap();
        let revocation = self.home.path().join("revocation.asc");
        write(&revocation, text.replace(":-----BEGIN", "-----BEGIN"));
        run("gnupg", self.gpg().arg("--import").arg(revocation));
        self.certificate()
    }

    /// Returns a detached signature of a file, binary.
    pub(crate) fn sign(&self, path: &Path) -> Vec<u8> {
        let mut gpg = self.gpg();
        gpg.args(["--detach-sign", "--output", "-"]).arg(path);
        run("gnupg", &mut gpg)
    }

    /// Returns a detached signature of a file, armored.
    pub(crate) fn sign_armored(&self, path: &Path) -> Vec<u8> {
        let mut gpg = self.gpg();
        gpg.args(["--armor", "--detach-sign", "--output", "-"])
            .arg(path);
        run("gnupg", &mut gpg)
    }

    fn gpg(&self) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(self.home.path());
        gpg.args(["--batch", "--quiet", "--pinentry-mode", "loopback"]);
        gpg
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // The agent that gpg has started. It would end by itself once it misses its folder.
        let mut stop = Command::new("gpgconf");
        stop.arg("--homedir").arg(self.home.path());
        drop(stop.args(["--kill", "all"]).output());
    }
}
