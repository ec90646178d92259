//! The main job: a package is dropped, and every target holds it.

use std::path::Path;

use super::{assert_holds, blobs_of, count, holds};
use crate::support::{
    Auth, Daemon, Images, Package, Setup, Signer, TestRegistry, drop_into, metric, names, noise,
};

const MIB: usize = 1 << 20;

/// What the platform of a target writes to a folder.
fn directory(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "platform = {{kind = 'directory', path = '{folder}', pull_registry = 'platform.example'}}"
    )
}

#[test]
fn a_signed_package_reaches_every_target_to_the_byte() {
    let signer = Signer::new("packager");
    let mut images = Images::default();
    let shared = [noise(1, 300_000), noise(2, 70_000)];
    images.add("demo/hello-bundle", "v1.2.3", &shared);
    images.add("demo/hello", "7", &[shared[0].clone(), noise(3, 50_000)]);
    let package = Package::operator("hello-operator", images);
    let registries = [
        ("global-a", "primary", TestRegistry::start(Auth::None)),
        ("global-b", "standby", TestRegistry::start(Auth::None)),
    ];
    let mut setup = Setup::new("signature").trust(&signer.certificate());
    for (name, role, registry) in &registries {
        let platform = directory(&setup.path(name));
        setup = setup.target(name, role, registry.address(), &platform);
    }
    let daemon = Daemon::start(setup);
    let signature = signer.sign(&package.path);
    let setup = &daemon.setup;
    setup.drop_file("hello.tgz", &package.bytes(), &[("sig", signature)]);

    let status = daemon.wait_in_sync(1);
    for (name, _, registry) in &registries {
        assert_holds(registry, &package);
        assert_eq!(count(&status, name, "images_pushed"), 2, "{status:#}");
        assert_eq!(count(&status, name, "resources_applied"), 2, "{status:#}");
        let folder = setup.path(name).join("global/cpaas-system");
        assert!(
            holds(
                &folder,
                &[
                    "artifact-hello-operator.yaml",
                    "artifactversion-hello-operator.v1.2.3.yaml"
                ]
            ),
            "{:?}",
            names(&folder)
        );
        let artifact = folder.join("artifact-hello-operator.yaml");
        let artifact = std::fs::read_to_string(artifact).unwrap();
        for part in [
            "platform.example",
            "demo/hello-bundle",
            "managed-by: violet",
        ] {
            assert!(artifact.contains(part), "{part} is missing in\n{artifact}");
        }
    }
    assert_eq!(setup.blobs(), blobs_of(&[&package]));
    let known = &status["packages"][0];
    assert_eq!(known["digest"], package.digest().to_string());
    assert_eq!(known["name"], "hello-operator");
    assert_eq!(known["provenance"]["by"], "signature");
    daemon.wait_until("the way to done/", |_| {
        holds(&setup.drop_dir, &["done"])
            && holds(
                &setup.drop_dir.join("done"),
                &["hello.tgz", "hello.tgz.sig"],
            )
    });
    let check = setup.run(&["status", "--check"]);
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    daemon.stop();
}

#[test]
fn every_form_of_sidecar_is_understood() {
    let signer = Signer::new("packager");
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("signature").trust(&signer.certificate());
    let checked = setup.path("checked");
    let setup =
        setup
            .folder(&checked, "checksum")
            .target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let setup = &daemon.setup;
    let forms: [(&'static str, &str, bool); 3] = [
        ("binary", "sig", false),
        ("armored", "asc", true),
        ("armored-sig", "sig", true),
    ];
    let mut packages = Vec::new();
    for (name, extension, is_armored) in forms {
        let package = Package::small(name);
        let signature = if is_armored {
            signer.sign_armored(&package.path)
        } else {
            signer.sign(&package.path)
        };
        setup.drop_file(
            &format!("{name}.tgz"),
            &package.bytes(),
            &[(extension, signature)],
        );
        packages.push((package, "signature"));
    }
    let package = Package::small("summed");
    let sidecars = [("sha256", package.checksum())];
    drop_into(&checked, ("summed.tgz", &package.bytes()), &sidecars);
    packages.push((package, "checksum"));
    let package = Package::small("summed-and-signed");
    let sidecars = [("sig", signer.sign(&package.path))];
    drop_into(
        &checked,
        ("summed-and-signed.tgz", &package.bytes()),
        &sidecars,
    );
    packages.push((package, "signature"));

    let status = daemon.wait_in_sync(packages.len());
    for (package, provenance) in &packages {
        assert_holds(&registry, package);
        let digest = package.digest().to_string();
        let mut known = status["packages"].as_array().unwrap().iter();
        let known = known.find(|known| known["digest"] == digest).unwrap();
        assert_eq!(known["provenance"]["by"], *provenance, "{known:#}");
    }
    daemon.stop();
}

#[test]
fn a_version_that_shares_nine_tenths_costs_one_tenth() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let layers: Vec<Vec<u8>> = (0..11).map(|seed| noise(seed, MIB)).collect();
    let mut images = Images::default();
    images.add("demo/app", "v1", &layers[..10]);
    let first = Package::operator("app-v1", images);
    daemon.setup.drop_package(&first);
    let status = daemon.wait_in_sync(1);
    let before = metric(&daemon.metrics(), "violetd_ingest_written_bytes_total");
    assert_eq!(before, first.images.total_bytes());
    assert_eq!(count(&status, "global-a", "bytes_sent"), before);

    // Nine layers are those of the first version. The second image has the same layers in another repository.
    let mut images = Images::default();
    images.add("demo/app", "v2", &layers[1..]);
    images.add("demo/other", "v2", &layers[1..]);
    let second = Package::operator("app-v2", images);
    daemon.setup.drop_package(&second);
    let status = daemon.wait_in_sync(2);
    assert_holds(&registry, &first);
    assert_holds(&registry, &second);
    let new: u64 = second
        .images
        .blobs
        .iter()
        .filter(|(digest, _)| !first.images.blobs.contains_key(digest))
        .map(|(_, blob)| blob.len() as u64)
        .sum();
    assert!(new < 2 * MIB as u64, "one layer and what is small: {new}");
    let written = metric(&daemon.metrics(), "violetd_ingest_written_bytes_total") - before;
    assert_eq!(written, new);
    assert_eq!(count(&status, "global-a", "bytes_sent"), new, "{status:#}");
    // Ten layers for the other repository: nine from the first version, one from where this run has put it.
    assert_eq!(
        count(&status, "global-a", "blobs_mounted"),
        10,
        "{status:#}"
    );
    daemon.stop();
}
