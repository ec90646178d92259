//! What comes back, from where, and what never does.

use super::*;
use crate::retain::fixture::{Kept, Registry, Stored, World};

/// Takes blobs of a package away and says so.
fn lose(world: &World, package: &Stored, digests: &[Digest]) -> Losses {
    let lose = |digest: &Digest| {
        world.lose(digest);
        let size_bytes = package.blobs[digest].1.len() as u64;
        let packages = vec![Arc::new(package.record.clone())];
        (
            *digest,
            Lost {
                size_bytes,
                packages,
            },
        )
    };
    digests.iter().map(lose).collect()
}

async fn repair(repairer: &Repairer, lost: &Losses) -> Outcomes {
    repairer.repair(lost, &CancellationToken::new()).await
}

fn place(package: &Stored, part: Part) -> Place {
    Place {
        repository: package.repository.clone(),
        part,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_asked_for_only_where_its_image_is() {
    let mut world = World::new();
    let (one, two) = (world.add("one", 100), world.add("two", 100));
    let registry = Arc::new(Registry::new("a"));
    registry.put(&one);
    registry.put(&two);
    let layer = one.list(Part::Blob)[0];
    let lost = lose(&world, &one, &[layer]);
    let repairer = world.repairer(vec![Arc::clone(&registry) as _], Kept::default());
    let outcomes = repair(&repairer, &lost).await;
    assert_eq!(outcomes[&layer], Ok("demo/one of a".to_owned()));
    assert_eq!(registry.asked(), [(place(&one, Part::Blob), layer)]);
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_which_everything_is_lost_comes_back_from_its_index_down() {
    let mut world = World::new();
    let (one, two) = (world.add("one", 100), world.add("two", 100));
    let registry = Arc::new(Registry::new("a"));
    registry.put(&one);
    registry.put(&two);
    let all: Vec<Digest> = one.blobs.keys().copied().collect();
    let lost = lose(&world, &one, &all);
    let repairer = world.repairer(vec![Arc::clone(&registry) as _], Kept::default());
    let outcomes = repair(&repairer, &lost).await;
    assert!(outcomes.values().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(
        registry.asked()[0],
        (place(&one, Part::Manifest), one.root())
    );
    let failed = registry.asked().len() - all.len();
    assert!(failed <= all.len(), "{failed} guesses were wrong");
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_below_a_lost_manifest_is_found_without_it() {
    let mut world = World::new();
    let one = world.add("one", 100);
    let registry = Arc::new(Registry::new("a"));
    registry.put(&one);
    // The index is damaged, and not found yet: only what is below is asked for.
    world.damage(&one.root(), |content| content[0] ^= 1);
    for part in [Part::Blob, Part::Manifest] {
        let digests = one.list(part);
        let digests: Vec<Digest> = digests.into_iter().filter(|it| *it != one.root()).collect();
        let lost = lose(&world, &one, &digests);
        let repairer = world.repairer(vec![Arc::clone(&registry) as _], Kept::default());
        let outcomes = repair(&repairer, &lost).await;
        assert!(outcomes.values().all(Result::is_ok), "{outcomes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_content_is_never_stored_and_the_next_origin_is_asked() {
    let mut world = World::new();
    let one = world.add("one", 100);
    let (bad, good) = (Registry::new("bad"), Registry::new("good"));
    bad.put(&one);
    good.put(&one);
    let (layer, manifest) = (one.list(Part::Blob)[0], one.list(Part::Manifest)[0]);
    bad.spoil(&layer);
    bad.spoil(&manifest);
    let lost = lose(&world, &one, &[layer, manifest]);
    let alone = Arc::new(bad);
    let repairer = world.repairer(vec![Arc::clone(&alone) as _], Kept::default());
    let outcomes = repair(&repairer, &lost).await;
    let reason = outcomes[&layer].as_ref().unwrap_err();
    assert!(
        reason.starts_with("bad: expected content sha256:"),
        "{reason}"
    );
    assert!(world.store.find(&layer).unwrap().is_none());
    let repairer = world.repairer(vec![alone, Arc::new(good)], Kept::default());
    let outcomes = repair(&repairer, &lost).await;
    assert_eq!(outcomes[&layer], Ok("demo/one of good".to_owned()));
    assert_eq!(outcomes[&manifest], Ok("demo/one of good".to_owned()));
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_cannot_be_reached_is_asked_once() {
    let mut world = World::new();
    let one = world.add("one", 100);
    let down = Arc::new(Registry {
        is_down: true,
        ..Registry::new("down")
    });
    let lost = lose(&world, &one, &one.list(Part::Blob));
    assert!(lost.len() > 2);
    let repairer = world.repairer(vec![Arc::clone(&down) as _], Kept::default());
    let outcomes = repair(&repairer, &lost).await;
    assert_eq!(down.asked().len(), 1);
    for outcome in outcomes.values() {
        let reason = outcome.as_ref().unwrap_err();
        assert!(reason.contains("down: failed to connect"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_file_brings_back_what_no_origin_has() {
    let mut world = World::new();
    let (one, two) = (world.add("one", 3000), world.add("two", 3000));
    let kept = [
        // Renamed, because its name was taken, and beside others of the same size.
        ("one.tgz.2", one.file.clone()),
        ("same-size.tgz", vec![b'x'; one.file.len()]),
        ("two.tgz", two.file.clone()),
    ];
    let kept = kept.map(|(name, content)| (name.to_owned(), content));
    let all: Vec<Digest> = one.blobs.keys().copied().collect();
    let lost = lose(&world, &one, &all);
    let empty = Registry::new("a");
    let repairer = world.repairer(vec![Arc::new(empty)], Kept(kept.into()));
    let outcomes = repair(&repairer, &lost).await;
    for outcome in outcomes.values() {
        assert_eq!(*outcome, Ok("kept file /kept/one.tgz.2".to_owned()));
    }
    world.assert_whole();
    let staged = std::fs::read_dir(world.dir.path().join("ingest")).unwrap();
    assert_eq!(staged.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_carried_the_package_is_found_by_its_digest_alone() {
    let mut world = World::new();
    let mut one = world.add("one", 3000);
    // As if the package had come inside of another file.
    let carrier = one.file.clone();
    one.record.carried_by = Some(Digest::of(&carrier));
    one.record.digest = Digest::of(b"inner");
    let layer = one.list(Part::Blob)[0];
    let lost = lose(&world, &one, &[layer]);
    let kept = Kept([("any name".to_owned(), carrier)].into());
    let outcomes = repair(&world.repairer(Vec::new(), kept), &lost).await;
    assert_eq!(outcomes[&layer], Ok("kept file /kept/any name".to_owned()));
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_right_name_and_size_with_other_content_is_not_used() {
    let mut world = World::new();
    let one = world.add("one", 3000);
    let mut forged = one.file.clone();
    // The time in the header of gzip: it unpacks to the very same package, but nobody has verified it.
    forged[4] ^= 1;
    let layer = one.list(Part::Blob)[0];
    let lost = lose(&world, &one, &[layer]);
    let kept = Kept([("one.tgz".to_owned(), forged)].into());
    let outcomes = repair(&world.repairer(Vec::new(), kept), &lost).await;
    let reason = outcomes[&layer].as_ref().unwrap_err();
    assert_eq!(reason, "kept files of its packages: not there");
    assert!(world.store.find(&layer).unwrap().is_none());
}
