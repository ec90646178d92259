//! Files that are not what they should be: each is refused with its code, and nothing of them stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use violetd::sys::fs as durable;

use super::{assert_holds, blobs_of, make_pipe};
use crate::fixtures::{
    self, CHART_BYTES_MAX, ENTRIES_MAX, Fixture, IMAGES_MAX, Oddity, Policy, RESOURCES_MAX, Shape,
};
use crate::support::{
    Auth, Daemon, Package, Setup, Signer, TestRegistry, drop_into, metric, names, write,
};

/// Returns a setup with a drop folder for each policy, and the folders.
fn setup(registry: &TestRegistry, signer: &Signer) -> (Setup, BTreeMap<Policy, PathBuf>) {
    let setup = Setup::new(Policy::None.name())
        .trust(&signer.certificate())
        .trust(&fixtures::trusted_certificate());
    let folders = BTreeMap::from([
        (Policy::None, setup.drop_dir.clone()),
        (Policy::Checksum, setup.path("checksum")),
        (Policy::Signature, setup.path("signature")),
        (Policy::Packager, setup.path("packager")),
        (Policy::TwoSignatures, setup.path("two-signatures")),
    ]);
    let setup = folders.iter().skip(1).fold(setup, |setup, (policy, path)| {
        let setup = setup.folder(path, policy.name());
        match policy {
            Policy::None | Policy::Checksum | Policy::Signature => setup,
            Policy::Packager => setup.section(&format!("signers = ['{}']\n", fixtures::packager())),
            Policy::TwoSignatures => setup.section("signatures_min = 2\n"),
        }
    });
    let setup = setup
        .section(&format!(
            "[limits]\nentries_max = {ENTRIES_MAX}\nimages_max = {IMAGES_MAX}\n\
             resources_max = {RESOURCES_MAX}\nchart_bytes_max = {CHART_BYTES_MAX}\n"
        ))
        .target("global-a", "primary", registry.address(), "");
    (setup, folders)
}

/// Returns the folder below `root` that an attack is dropped into, or moved to.
fn place_of(attack: &Fixture, root: &Path) -> PathBuf {
    if attack.lists.is_empty() {
        root.to_owned()
    } else {
        root.join(attack.name)
    }
}

/// Drops an attack with all that belongs to it; the file that stands for it comes last.
fn drop_attack(attack: &Fixture, folder: &Path) {
    let place = place_of(attack, folder);
    durable::ensure_dir_all(&place).unwrap();
    for (name, content) in &attack.lists {
        write(&place.join(name), content);
    }
    let whole = format!("{}.tgz", attack.name);
    for (extension, oddity) in &attack.oddities {
        make(*oddity, &place.join(format!("{whole}.{extension}")));
    }
    match attack.shape {
        Shape::File => drop_into(&place, (&whole, &attack.content), &attack.sidecars),
        Shape::Parts => {
            for (extension, content) in &attack.sidecars {
                write(&place.join(format!("{whole}.{extension}")), content);
            }
            drop_into(&place, (&attack.file_name(), &attack.content), &[])
        }
    };
}

fn make(oddity: Oddity, path: &Path) {
    match oddity {
        Oddity::Pipe => make_pipe(path),
        Oddity::Folder => durable::ensure_dir_all(path).unwrap(),
        Oddity::Link(target) => std::os::unix::fs::symlink(target, path).unwrap(),
    }
}

#[test]
fn every_attack_is_refused_with_its_code_and_leaves_nothing_behind() {
    let signer = Signer::new("operator");
    let registry = TestRegistry::start(Auth::None);
    let (setup, folders) = setup(&registry, &signer);
    let daemon = Daemon::start(setup);
    // What some of them claim to build on.
    let (base, base_blobs) = fixtures::base_package();
    drop_into(&folders[&Policy::None], ("base.tgz", &base), &[]);
    daemon.wait_in_sync(1);
    let attacks = fixtures::list();
    for attack in &attacks {
        drop_attack(attack, &folders[&attack.policy]);
    }
    let is_gone = |attack: &&Fixture| {
        let place = place_of(attack, &folders[&attack.policy]);
        !place.join(attack.file_name()).exists()
    };
    // By tens, so that a slow machine has a minute for each ten.
    for ten in attacks.chunks(10) {
        let named: Vec<&str> = ten.iter().map(|attack| attack.name).collect();
        daemon.wait_until(&format!("refusal of {named:?}"), |_| {
            ten.iter().all(is_gone)
        });
    }
    let status = daemon.status();
    let wrong: Vec<String> = attacks
        .iter()
        .filter_map(|attack| check_refused(attack, &folders[&attack.policy], &status).err())
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));

    // Nothing of them is anywhere.
    assert_eq!(status["packages"].as_array().unwrap().len(), 1);
    assert_eq!(daemon.setup.blobs(), base_blobs);
    for folder in ["ingest", "quarantine"] {
        let left = names(&daemon.setup.state_dir.join(folder));
        assert_eq!(left, Vec::<String>::new(), "left in {folder}/");
    }
    let rejected = metric(&daemon.metrics(), "violetd_ingest_packages_rejected_total");
    assert_eq!(rejected, attacks.len() as u64);

    accepts_good_packages(&daemon, &folders, &signer, &registry);
    assert_eq!(daemon.log_lines("daemon is ready").len(), 1, "one process");
    assert_eq!(daemon.log_lines("panicked"), Vec::<String>::new());
    daemon.stop();
}

/// Drops a good package into each folder, and the one that the attacks are made of, and waits until the target has them.
fn accepts_good_packages(
    daemon: &Daemon,
    folders: &BTreeMap<Policy, PathBuf>,
    signer: &Signer,
    registry: &TestRegistry,
) {
    let good = ["good-none", "good-checksum", "good-signature"].map(Package::small);
    let before = daemon.setup.blobs();
    for (package, (policy, folder)) in good.iter().zip(folders) {
        let sidecar = match policy {
            Policy::None => None,
            Policy::Checksum => Some(("sha256", package.checksum())),
            Policy::Signature | Policy::Packager | Policy::TwoSignatures => {
                Some(("sig", signer.sign(&package.path)))
            }
        };
        let name = package.path.file_name().unwrap().to_str().unwrap();
        let sidecars: Vec<_> = sidecar.into_iter().collect();
        drop_into(folder, (name, &package.bytes()), &sidecars);
    }
    daemon.wait_in_sync(1 + good.len());
    for package in &good {
        assert_holds(registry, package);
    }
    let mut blobs = [before, blobs_of(&good.each_ref())].concat();
    blobs.sort();
    assert_eq!(daemon.setup.blobs(), blobs);
    let unharmed = fixtures::good_package();
    drop_into(&folders[&Policy::None], ("unharmed.tgz", &unharmed), &[]);
    daemon.wait_in_sync(good.len() + 2);
}

/// Says what is wrong unless a file and what was beside it are in `rejected/`, with the reason.
fn check_refused(attack: &Fixture, folder: &Path, status: &Value) -> Result<(), String> {
    let name = attack.file_name();
    let rejected = place_of(attack, &folder.join("rejected"));
    let reason = std::fs::read(rejected.join(format!("{name}.reason.json")))
        .map_err(|error| format!("{name}: no reason: {error}"))?;
    let reason: Value = serde_json::from_slice(&reason).unwrap();
    if reason["code"] != attack.code {
        let code = attack.code;
        return Err(format!("{name}: expected {code}, found {reason}"));
    }
    let text = reason["reason"].as_str().unwrap();
    assert!(
        !text.is_empty() && !text.chars().any(char::is_control),
        "{text:?}"
    );
    assert_eq!(reason["size_bytes"], attack.content.len() as u64);
    let is_kept = std::fs::read(rejected.join(&name)).unwrap() == attack.content;
    assert!(is_kept, "{name} has changed");
    for (extension, content) in &attack.sidecars {
        let moved = rejected.join(format!("{}.tgz.{extension}", attack.name));
        assert!(
            std::fs::read(&moved).unwrap() == *content,
            "{}",
            moved.display()
        );
    }
    let path = place_of(attack, folder).join(&name);
    let mut files = status["files"].as_array().unwrap().iter();
    let file = files
        .find(|file| file["path"] == path.to_str().unwrap())
        .unwrap();
    assert_eq!(file["state"], "rejected");
    assert_eq!(file["code"], attack.code);
    Ok(())
}
