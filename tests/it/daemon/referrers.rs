//! Images as they were signed: signatures and attestations arrive with their images, and indexes of which platforms were
//! left out arrive as they are, or not at all with the reason.

use serde_json::{Value, json};
use tempfile::TempDir;
use violetd::base::Digest;
use violetd::base::oci::{Descriptor, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};

use super::{count, problems, status_of};
use crate::fixtures::{file, tgz};
use crate::support::{
    Auth, Daemon, Images, Placed, Setup, TestRegistry, digest_of_manifest, noise, skopeo_copy,
};

const MEDIA_TYPE_EMPTY: &str = "application/vnd.oci.empty.v1+json";
const MEDIA_TYPE_SIGNATURE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// A package that is made by hand: blobs, and what `index.json` says of them.
#[derive(Default)]
pub(crate) struct Handmade {
    /// What it holds.
    pub(crate) blobs: Images,
    roots: Vec<Value>,
}

impl Handmade {
    /// Makes an artifact with one layer, about `subject` if there is one.
    pub(crate) fn artifact(&mut self, content: &str, subject: Option<&Descriptor>) -> Descriptor {
        let config = self.blobs.blob(MEDIA_TYPE_EMPTY, "{}");
        let layer = self.blobs.blob(MEDIA_TYPE_SIGNATURE, content);
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": config, "layers": [layer],
        });
        if let Some(subject) = subject {
            manifest["artifactType"] = "application/spdx+json".into();
            manifest["subject"] = json!(subject);
        }
        self.blobs.blob(MEDIA_TYPE_MANIFEST, manifest.to_string())
    }

    /// Lists a manifest in `index.json`.
    pub(crate) fn root(&mut self, descriptor: &Descriptor, name: Option<&str>) {
        let mut root = json!(descriptor);
        if let Some(name) = name {
            let name = format!("registry.example/{name}");
            root["annotations"] = json!({"io.containerd.image.name": name});
        }
        self.roots.push(root);
    }

    /// Returns the package without the blobs of these digests.
    pub(crate) fn tgz(&self, manifest: &str, without: &[Digest]) -> Vec<u8> {
        let index = json!({"schemaVersion": 2, "manifests": self.roots});
        let mut entries = vec![
            file("manifest.yaml", manifest),
            file("oci-layout", *br#"{"imageLayoutVersion":"1.0.0"}"#),
            file("index.json", index.to_string()),
        ];
        for (digest, content) in &self.blobs.blobs {
            if !without.contains(digest) {
                let name = format!("blobs/sha256/{}", digest.hex());
                entries.push(file(&name, content.clone()));
            }
        }
        tgz(&entries)
    }
}

/// Returns the digest of what skopeo reads under a name.
fn skopeo_digest(registry: &TestRegistry, name: &str) -> Digest {
    digest_of_manifest(&format!("docker://{}/{name}", registry.address()))
}

pub(crate) fn manifest_of(omitted: &[Digest]) -> String {
    let omitted: Vec<String> = omitted.iter().map(ToString::to_string).collect();
    let omitted = json!(omitted);
    format!(
        "kind: PackageManifest\nmetadata: {{name: demo}}\nspec: {{type: images, omitted: {omitted}}}\n"
    )
}

#[test]
fn signatures_and_referrers_arrive_with_their_images_to_the_byte() {
    let mut package = Handmade::default();
    let image = package.blobs.add("demo/app", "v1", &[noise(1, 50_000)]);
    let child = image.manifests[0].clone();
    let tag = format!("sha256-{}", image.root.digest.hex());
    let cosign = package.artifact("cosign signature", None);
    let attestation = package.artifact("cosign attestation", None);
    let bom = package.artifact("bill of materials", Some(&image.root));
    let on_child = package.artifact("signature of one platform", Some(&child));
    let countersignature = package.artifact("countersignature", Some(&on_child));
    let fallback = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": [bom]});
    let fallback = package.blobs.blob(MEDIA_TYPE_INDEX, fallback.to_string());
    package.root(&countersignature, None);
    package.root(&on_child, None);
    package.root(&cosign, Some(&format!("demo/app:{tag}.sig")));
    package.root(&attestation, Some(&format!("demo/app:{tag}.att")));
    package.root(&fallback, Some(&format!("demo/app:{tag}")));
    package.root(&image.root, Some("demo/app:v1"));
    package.root(&image.root, Some("mirror/app:v1"));
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let bytes = package.tgz(&manifest_of(&[]), &[]);
    daemon.setup.drop_file("demo.tgz", &bytes, &[]);

    let status = daemon.wait_in_sync(1);
    assert_eq!(problems(&status, "global-a").len(), 0, "{status:#}");
    let mut expected = vec![
        ("demo/app:v1".to_owned(), &image.root),
        ("mirror/app:v1".to_owned(), &image.root),
        (format!("demo/app:{tag}"), &fallback),
        (format!("demo/app:{tag}.sig"), &cosign),
        (format!("demo/app:{tag}.att"), &attestation),
        (format!("demo/app@{}", bom.digest), &bom),
    ];
    for repository in ["demo/app", "mirror/app"] {
        for referrer in [&on_child, &countersignature] {
            expected.push((format!("{repository}@{}", referrer.digest), referrer));
        }
    }
    for (name, descriptor) in expected {
        assert_eq!(skopeo_digest(&registry, &name), descriptor.digest, "{name}");
    }
    // Whoever looks at the log of the run sees each image before what is about it.
    let log = daemon.log_lines("image is in place");
    let position = |name: &str| log.iter().position(|line| line.contains(name)).unwrap();
    let signature = position(&format!("demo/app@{}", on_child.digest));
    let last = position(&format!("demo/app@{}", countersignature.digest));
    assert!(
        position("demo/app:v1") < signature && signature < last,
        "{log:#?}"
    );
    daemon.stop();
}

/// Returns a package of a sparse image and a whole one, the sparse image, and what was left out of it.
pub(crate) fn sparse_package() -> (Vec<u8>, Handmade, Placed, Descriptor) {
    let mut package = Handmade::default();
    let layers = [noise(3, 20_000)];
    let sparse = package.blobs.add("demo/sparse", "v1", &layers);
    let whole = package.blobs.add("demo/whole", "v1", &layers);
    let signature = package.artifact("signature", Some(&sparse.root));
    package.root(&sparse.root, Some("demo/sparse:v1"));
    package.root(&whole.root, Some("demo/whole:v1"));
    package.root(&signature, None);
    let left_out = sparse.manifests[1].clone();
    let bytes = package.tgz(&manifest_of(&[left_out.digest]), &[left_out.digest]);
    (bytes, package, sparse, left_out)
}

#[test]
fn a_registry_that_wants_whole_indexes_is_named_once_and_holds_nothing_else_up() {
    let (bytes, _, sparse, left_out) = sparse_package();
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    daemon.setup.drop_file("demo.tgz", &bytes, &[]);

    let status = daemon.wait_until("the end of the first run", |status| {
        problems(status, "global-a").len() == 2
    });
    let found = problems(&status, "global-a");
    let of = |subject: &str| {
        let mut found = found.iter();
        found
            .find(|it| it["subject"].as_str().unwrap().contains(subject))
            .unwrap()
    };
    let refused = of("demo/sparse:v1");
    assert_eq!(refused["class"], "rejected", "{refused:#}");
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("left out") && message.contains(&left_out.digest.to_string()),
        "{message}"
    );
    assert!(
        refused["hint"]
            .as_str()
            .unwrap()
            .contains("rewritten indexes"),
        "{refused:#}"
    );
    let waiting = of("demo/sparse@");
    assert!(
        waiting["message"]
            .as_str()
            .unwrap()
            .contains("demo/sparse:v1"),
        "{waiting:#}"
    );
    assert_eq!(count(&status, "global-a", "images_failed"), 2, "{status:#}");
    assert_eq!(status_of(&registry, "demo/whole", "v1"), 200);
    assert_eq!(status_of(&registry, "demo/sparse", "v1"), 404);
    let there = sparse.manifests[0].digest.to_string();
    assert_eq!(status_of(&registry, "demo/sparse", &there), 200);
    let healed = daemon.log_lines("image is sent again");
    assert!(
        healed.is_empty(),
        "what was left out cannot be sent: {healed:#?}"
    );
    daemon.stop();
}

#[test]
fn a_sparse_index_arrives_to_the_byte_where_the_registry_takes_it() {
    let (bytes, package, sparse, left_out) = sparse_package();
    let registry = TestRegistry::start(Auth::None);
    // This registry takes it because somebody else has put there what the package leaves out.
    let dir = TempDir::new().unwrap();
    let images = Images {
        placed: vec![Placed {
            root: left_out.clone(),
            ..sparse.clone()
        }],
        blobs: package.blobs.blobs.clone(),
    };
    images.write_layout(dir.path());
    skopeo_copy(
        &format!("oci:{}:0", dir.path().display()),
        &format!("docker://{}/demo/sparse:other", registry.address()),
        &["--preserve-digests"],
    );
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    daemon.setup.drop_file("demo.tgz", &bytes, &[]);

    let status = daemon.wait_in_sync(1);
    assert_eq!(count(&status, "global-a", "images_pushed"), 3, "{status:#}");
    assert_eq!(
        skopeo_digest(&registry, "demo/sparse:v1"),
        sparse.root.digest
    );
    let left_out = left_out.digest.hex();
    assert!(
        !daemon.setup.blobs().contains(&left_out),
        "nobody brought it"
    );
    daemon.stop();
}
