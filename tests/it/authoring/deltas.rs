//! What is there already and what is missing: inventories, deltas and supplements.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;
use violetd::base::Digest;
use violetd::package::{Inventory, Request};

use super::{Origin, REPOSITORY, words};
use crate::support::{
    Auth, Daemon, Images, Package, Setup, TestRegistry, noise, run_program, write,
};

/// Returns what images consist of, with sizes in bytes.
fn sizes_of(images: &Images) -> BTreeMap<Digest, u64> {
    let blobs = images.blobs.iter();
    blobs
        .map(|(digest, content)| (*digest, content.len() as u64))
        .collect()
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
    assert_eq!(held, sizes_of(&origin.images));

    // The next version has one new layer, and a layer for each platform.
    let layers = [noise(1, 60_000), noise(9, 20_000)];
    origin.app = origin.images.add(REPOSITORY, "v1", &layers);
    origin.push();
    origin.create(&[]);
    let (whole, ..) = origin.package("whole.tgz", &[]);
    let (delta, view, said) = origin.package("delta.tgz", &["--base", &base]);
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
    assert!(said.contains("a delta"), "{said}");

    let nothing = origin.list("nothing", |text| Inventory::default().write(text).unwrap());
    let (same, _, said) = origin.package("same.tgz", &["--base", &nothing]);
    assert!(
        same.bytes == whole.bytes,
        "nothing spared is a whole package"
    );
    assert!(said.contains("the package is whole"), "{said}");

    let wrong = BTreeMap::from([(*left.first().unwrap(), 1)]);
    let wrong = origin.list("wrong", |text| {
        Inventory { blobs: wrong }.write(text).unwrap();
    });
    let work = origin.path("work");
    let refused = run_program(&["package", &work, "--base", &wrong, "--plain", "--no-auth"]);
    assert_eq!(refused.status.code(), Some(65), "{}", words(&refused));
}

#[test]
fn a_supplement_holds_exactly_what_was_requested() {
    let origin = Origin::start();
    origin.push();
    origin.create(&[]);
    let wanted: BTreeMap<Digest, u64> = sizes_of(&origin.images).into_iter().take(3).collect();
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

    let sizes = sizes_of(&package.images);
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
