//! A workshop in which other tools make images: a folder with a container store of its own.
//!
//! The images are made by buildah from nothing, so no network is needed. The store has driver `vfs`, which works as root
//! in a container, and as an ordinary user who has subordinate user ids (Debian package `uidmap`; `useradd` and `adduser`
//! hand them out). Nothing of the user's own containers is looked at or changed.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use violetd::base::Digest;
use violetd::sys::fs as durable;

use super::{noise, run, write};

/// The name in the store under which [`Workshop::new`] makes versions `v1` and `v2`.
pub(crate) const WORKSHOP_IMAGE: &str = "localhost/team/app";
/// Size of the one file of a layer: much more than what describes the layer.
const CONTENT_BYTES: usize = 20_000;

/// Where the tools keep what lasts as long as a login, in the folder.
const RUNTIME_DIR: &str = "runtime";

/// A folder with a container store of its own.
#[derive(Debug)]
pub(crate) struct Workshop {
    dir: TempDir,
}

impl Workshop {
    /// Makes two images: `v1` with one layer, and `v2` on top of it with one more.
    pub(crate) fn new() -> Self {
        let workshop = Self {
            dir: TempDir::new().unwrap(),
        };
        durable::ensure_dir_all(&workshop.path(RUNTIME_DIR)).unwrap();
        let mut base = "scratch".to_owned();
        for version in ["v1", "v2"] {
            let container = workshop.buildah(&["from", "--pull-never", &base]);
            workshop.add_layer(&container, version);
            base = format!("{WORKSHOP_IMAGE}:{version}");
            workshop.buildah(&["commit", "--quiet", &container, &base]);
        }
        workshop
    }

    /// Copies a file of this name into a working container. The name decides its content.
    pub(crate) fn add_layer(&self, container: &str, name: &str) {
        let path = self.path(name);
        let digest = Digest::of(name.as_bytes());
        let seed = digest.as_bytes()[..8].try_into().unwrap();
        write(&path, noise(u64::from_le_bytes(seed), CONTENT_BYTES));
        let source = path.display().to_string();
        self.buildah(&["copy", container, &source, &format!("/{name}")]);
    }

    /// Returns a path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns a path in the folder as an argument.
    pub(crate) fn argument(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Returns the first line that a command on the store has printed.
    pub(crate) fn buildah(&self, arguments: &[&str]) -> String {
        self.on_store("buildah", "storage", arguments)
    }

    /// As [`Workshop::buildah`].
    pub(crate) fn podman(&self, arguments: &[&str]) -> String {
        self.on_store("podman", "storage", arguments)
    }

    /// Lets podman pull an image of a registry into another store, and returns the identity that it finds.
    pub(crate) fn podman_pull(&self, name: &str) -> String {
        self.on_store(
            "podman",
            "pulled",
            &["pull", "--quiet", "--tls-verify=false", name],
        )
    }

    fn on_store(&self, tool: &str, store: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(tool);
        command
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.path(RUNTIME_DIR))
            .args(["--storage-driver", "vfs", "--root"])
            .arg(self.path(store))
            .arg("--runroot")
            .arg(self.path(&format!("{store}-run")))
            .args(arguments);
        let output = String::from_utf8(run(tool, &mut command)).unwrap();
        output.lines().next().unwrap_or_default().to_owned()
    }

    /// Copies an image from the store to wherever skopeo can write.
    pub(crate) fn export(&self, version: &str, destination: &str) {
        let source = format!(
            "containers-storage:[vfs@{}+{}]{WORKSHOP_IMAGE}:{version}",
            self.path("storage").display(),
            self.path("storage-run").display()
        );
        skopeo_copy(&source, destination, &[]);
    }

    /// Returns the digest of the configuration, which is the identity of an image in docker's sense.
    pub(crate) fn config_of(&self, version: &str) -> String {
        let id = self.inspect(version, "{{.Id}}");
        format!("sha256:{id}")
    }

    /// Returns the digests of the layers, uncompressed, as podman knows them.
    pub(crate) fn layers_of(&self, version: &str) -> Vec<String> {
        let layers = self.inspect(version, "{{json .RootFS.Layers}}");
        serde_json::from_str(&layers).unwrap()
    }

    fn inspect(&self, version: &str, format: &str) -> String {
        let image = format!("{WORKSHOP_IMAGE}:{version}");
        self.podman(&["image", "inspect", "--format", format, &image])
    }

    /// Runs tar in the folder.
    pub(crate) fn tar(&self, arguments: &[&str]) {
        let mut command = Command::new("tar");
        command.current_dir(self.dir.path()).args(arguments);
        run("tar", &mut command);
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Where podman is not root, a process of it stays and keeps its user namespace.
        let path = self.path(RUNTIME_DIR).join("libpod/tmp/pause.pid");
        let pid = std::fs::read_to_string(path).ok();
        let pid = pid.and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?));
        if let Some(pid) = pid {
            // An error means that it is gone already.
            let _ = kill_process(pid, Signal::KILL);
        }
        // Folders of the store may be read-only, and then only root could remove what is in them.
        let mut chmod = Command::new("chmod");
        chmod.args(["-R", "u+rwX"]).arg(self.dir.path());
        drop(chmod.output());
    }
}

/// Runs skopeo, and returns what it printed.
pub(crate) fn skopeo(arguments: &[&str]) -> Vec<u8> {
    run("skopeo", Command::new("skopeo").args(arguments))
}

/// Returns the manifest that skopeo finds under a name, to the byte; registries are asked over plain HTTP.
pub(crate) fn raw_manifest(image: &str) -> Vec<u8> {
    skopeo(&["inspect", "--raw", "--tls-verify=false", image])
}

/// Returns the digest of [`raw_manifest`].
pub(crate) fn digest_of_manifest(image: &str) -> Digest {
    Digest::of(&raw_manifest(image))
}

/// Copies an image with skopeo; registries are asked over plain HTTP.
pub(crate) fn skopeo_copy(source: &str, destination: &str, options: &[&str]) {
    let mut arguments = vec!["--insecure-policy", "copy", "--quiet"];
    for (name, option) in [
        (source, "--src-tls-verify=false"),
        (destination, "--dest-tls-verify=false"),
    ] {
        if name.starts_with("docker://") {
            arguments.push(option);
        }
    }
    arguments.extend(options);
    arguments.extend([source, destination]);
    skopeo(&arguments);
}

/// Returns the digests of the configuration and the layers that a manifest names.
pub(crate) fn parts_of_manifest(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().unwrap();
    let parts = std::iter::once(&manifest["config"]).chain(layers);
    parts
        .map(|part| part["digest"].as_str().unwrap().to_owned())
        .collect()
}
