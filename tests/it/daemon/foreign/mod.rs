//! Packages that other tools have written, the whole way: dropped, delivered, and found to the byte on a real registry, from
//! where other tools take them again.
//!
//! What is expected is asked of the tools that wrote: the digests in their layouts and on their disks; of a
//! docker-archive, which has no manifests, the configurations and layers.

mod carried;
mod images;
mod trees;

use std::path::PathBuf;

use serde_json::Value;
use violetd::base::Digest;
use violetd::base::oci::ANNOTATION_REF_NAME;

use crate::support::{
    Auth, Daemon, Setup, TestRegistry, WORKSHOP_IMAGE as IMAGE, Workshop, digest_of_manifest,
    names, raw_manifest, skopeo_copy,
};

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
        serde_json::from_slice(&raw_manifest(&self.docker(name))).unwrap()
    }

    /// Fails the test unless the target has these images with these digests, and skopeo can pull each into a layout.
    fn assert_holds(&self, workshop: &Workshop, expected: &[(String, Digest)]) {
        assert!(!expected.is_empty());
        for (name, digest) in expected {
            assert_eq!(digest_of_manifest(&self.docker(name)), *digest, "{name}");
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
