//! What a scrub finds, what becomes of it, and where it goes on.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::base::SystemClock;
use crate::retain::fixture::{Kept, Registry, Stored, World};
use crate::retain::repair::{Origin, Part};
use crate::sys::fs as durable;

/// Scrubs of a world, each as by a daemon that was just started.
struct Bench {
    world: World,
    origins: Vec<Arc<Registry>>,
    repair: Repairs,
}

impl Bench {
    /// Returns a world with two packages that a registry holds, too.
    fn new() -> Self {
        let mut world = World::new();
        let registry = Registry::new("a");
        for name in ["one", "two"] {
            registry.put(&world.add(name, 5000));
        }
        Self {
            world,
            origins: vec![Arc::new(registry)],
            repair: Repairs::On,
        }
    }

    fn package(&self) -> &Stored {
        &self.world.packages[0]
    }

    async fn run(&self, request: Request, stop: &CancellationToken) -> (Report, State) {
        let catalog = &self.world.catalog;
        let options = Options {
            bytes_per_second: u64::MAX,
            repair: self.repair,
        };
        let origins = self.origins.iter();
        let origins = origins.map(|origin| Arc::clone(origin) as Arc<dyn Origin>);
        let parts = Parts {
            catalog: catalog.clone(),
            clock: Arc::new(SystemClock),
            repairer: self.world.repairer(origins.collect(), Kept::default()),
        };
        let (mut scrub, overview) = Scrub::new(options, parts).unwrap();
        let mut record = catalog.find_job(Scrub::NAME).unwrap().unwrap_or(JobRecord {
            name: Scrub::NAME.to_owned(),
            last_scheduled_at: None,
            finished_at: None,
            state: serde_json::Value::Null,
        });
        let report = scrub.run(request, &mut record, stop).await.unwrap();
        let written = catalog.find_job(Scrub::NAME).unwrap().unwrap();
        let state = State::read(&written);
        assert_eq!(
            overview.borrow().state,
            state,
            "what is shown is what is written down"
        );
        assert_eq!(overview.borrow().running, None);
        (report, state)
    }

    async fn pass(&self) -> State {
        let (report, state) = self.run(Request::Pass, &CancellationToken::new()).await;
        assert_eq!(report.open, state.open_count());
        assert_eq!(report.pass, state.last, "{report}");
        assert_eq!(state.current, None);
        state
    }

    fn blob_count(&self) -> u64 {
        self.world.store.list().count() as u64
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_store_is_read_once_and_left_alone() {
    let bench = Bench::new();
    let state = bench.pass().await;
    let counts = state.last.as_ref().unwrap().counts;
    let bytes: u64 = bench.world.store.list().map(|it| it.unwrap().1).sum();
    assert_eq!((counts.blobs, counts.bytes), (bench.blob_count(), bytes));
    assert_eq!((counts.damaged, counts.repaired), (0, 0));
    assert_eq!(bench.world.quarantined(), []);
    assert_eq!(bench.origins[0].asked(), []);
    let again = bench.pass().await;
    assert_eq!(again.last.unwrap().number, 2);
    assert_eq!(again.total.blobs, 2 * bench.blob_count());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_damage_is_found_put_aside_and_repaired() {
    let bench = Bench::new();
    let world = &bench.world;
    let blobs: Vec<Digest> = bench.package().blobs.keys().copied().collect();
    let other: Vec<Digest> = world.packages[1].blobs.keys().copied().collect();
    let mut aside = Vec::new();
    let mut damage = |digest: Digest, change: fn(&mut Vec<u8>)| {
        aside.push((format!("{}.0", digest.hex()), world.damage(&digest, change)));
    };
    damage(blobs[0], |content| content[0] ^= 1);
    damage(blobs[1], |content| *content.last_mut().unwrap() ^= 0x80);
    damage(blobs[2], |content| {
        let middle = content.len() / 2;
        content[middle] = content[middle].wrapping_add(1);
    });
    damage(blobs[3], |content| content.truncate(content.len() - 1));
    damage(blobs[4], Vec::clear);
    damage(blobs[5], |content| content.push(0));
    aside.sort();
    world.lose(&blobs[6]);
    world.lose(&other[0]);

    let state = bench.pass().await;
    world.assert_whole();
    assert_eq!(world.quarantined(), aside);
    let counts = state.last.as_ref().unwrap().counts;
    assert_eq!((counts.damaged, counts.repaired), (8, 8));
    assert_eq!(state.open_count(), 0);
    let kinds = |kind: Kind| {
        let found = state.repaired.iter().filter(|damage| damage.kind == kind);
        found.map(|damage| damage.digest).collect::<BTreeSet<_>>()
    };
    assert_eq!(
        kinds(Kind::OtherContent),
        blobs[..3].iter().copied().collect()
    );
    assert_eq!(
        kinds(Kind::OtherSize),
        blobs[3..6].iter().copied().collect()
    );
    assert_eq!(kinds(Kind::Missing), [blobs[6], other[0]].into());
    for damage in &state.repaired {
        assert_eq!((damage.package_count, damage.packages.len()), (1, 1));
        let from = &damage.repaired.as_ref().unwrap().from;
        assert!(from.ends_with(" of a"), "{from}");
        assert_eq!(
            damage.quarantined_to.is_some(),
            damage.kind != Kind::Missing
        );
    }
    let again = bench.pass().await;
    assert_eq!(again.last.unwrap().counts.damaged, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_repaired_is_said_until_it_is() {
    let mut bench = Bench::new();
    bench.origins.clear();
    let (digest, package) = (bench.package().root(), bench.package().clone());
    bench.world.damage(&digest, |content| content[0] ^= 1);
    let state = bench.pass().await;
    let damage = &state.open[&digest];
    assert_eq!(damage.packages[0].name, "one v1");
    assert_eq!(
        damage.problem.as_deref(),
        Some("kept files of its packages: not there")
    );
    let hint = format!(
        "drop the package one v1 again (file `one.tgz`, {})",
        package.record.digest
    );
    assert_eq!(damage.hint(), Some(hint));
    // It is gone from where it was, so that nobody sends it.
    assert_eq!(bench.world.store.find(&digest).unwrap(), None);
    let again = bench.pass().await;
    assert_eq!(again.open.len(), 1);
    assert_eq!(again.last.unwrap().counts.damaged, 0, "it is counted once");
    assert_eq!(again.open[&digest].found_at, damage.found_at);

    let registry = Registry::new("b");
    registry.put(&package);
    bench.origins.push(Arc::new(registry));
    let (report, state) = bench.run(Request::Repair, &CancellationToken::new()).await;
    assert_eq!((report.pass, report.open), (None, 0));
    let from = &state.repaired[0].repaired.as_ref().unwrap().from;
    assert_eq!(from, "demo/one of b");
    assert_eq!(
        state.repaired[0].kind,
        Kind::OtherContent,
        "what was wrong is remembered"
    );
    assert_eq!(state.total.damaged, 1);
    bench.world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_brought_back_where_repair_is_off() {
    let mut bench = Bench::new();
    bench.repair = Repairs::Off;
    let digest = bench.package().root();
    bench.world.lose(&digest);
    let state = bench.pass().await;
    assert_eq!(
        state.open[&digest].problem.as_deref(),
        Some("`repair` is off")
    );
    assert_eq!(bench.origins[0].asked(), []);
    // Somebody drops the package again.
    let content = &bench.package().blobs[&digest].1;
    let mut batch = bench.world.store.begin();
    let mut writer = batch.writer(Some(digest), content.len() as u64).unwrap();
    writer.write(content).unwrap();
    batch.stage(writer).unwrap();
    batch.commit().unwrap();
    let (_, state) = bench.run(Request::Repair, &CancellationToken::new()).await;
    assert_eq!(state.open_count(), 0);
    let from = &state.repaired[0].repaired.as_ref().unwrap().from;
    assert_eq!(from, "a package that came again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_keeps_is_put_aside_and_missed_by_nobody() {
    let bench = Bench::new();
    let package = bench.package().clone();
    let all: Vec<Digest> = package.blobs.keys().copied().collect();
    bench
        .world
        .catalog
        .remove_package(&package.record.digest)
        .unwrap();
    bench.world.damage(&all[0], |content| content[0] ^= 1);
    for digest in &all[1..] {
        bench.world.lose(digest);
    }
    let state = bench.pass().await;
    assert_eq!(state.open_count(), 0);
    assert_eq!(state.total.damaged, 1);
    assert_eq!(bench.world.quarantined().len(), 1);
    assert_eq!(bench.origins[0].asked(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_is_stopped_goes_on_where_it_was_under_its_number() {
    let mut bench = Bench::new();
    let all: Vec<Digest> = bench.world.store.list().map(|it| it.unwrap().0).collect();
    // The registry is asked for a blob in the middle, and the daemon stops at this moment.
    let middle = all[all.len() / 2];
    bench.world.damage(&middle, |content| content[0] ^= 1);
    let stop = CancellationToken::new();
    let registry = Registry {
        stops: Some(stop.clone()),
        ..Registry::new("a")
    };
    for package in &bench.world.packages {
        registry.put(package);
    }
    let whole = std::mem::replace(&mut bench.origins, vec![Arc::new(registry)]);
    let (report, state) = bench.run(Request::Pass, &stop).await;
    let pass = state.current.clone().unwrap();
    assert_eq!(report.pass, Some(pass.clone()));
    assert!(
        report.to_string().contains("pass 1 goes on later"),
        "{report}"
    );
    assert_eq!(pass.position, Some(middle));
    let before = pass.counts;
    assert_eq!(before.blobs, all.len() as u64 / 2 + 1);
    assert!(state.open.contains_key(&middle));

    bench.origins = whole;
    let (report, state) = bench.run(Request::Resume, &CancellationToken::new()).await;
    let pass = report.pass.unwrap();
    assert_eq!(
        (pass.number, pass.started_at),
        (1, state.last.unwrap().started_at)
    );
    assert_eq!(
        pass.counts.blobs,
        all.len() as u64,
        "each blob is read once"
    );
    assert_eq!((pass.counts.damaged, pass.counts.repaired), (1, 1));
    bench.world.assert_whole();
    let (report, _) = bench.run(Request::Resume, &CancellationToken::new()).await;
    assert_eq!(report.pass, None, "there is nothing to go on with");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_between_finding_and_putting_aside_loses_nothing() {
    let bench = Bench::new();
    let digest = bench.package().root();
    let content = bench.world.damage(&digest, |content| content[0] ^= 1);
    // The first pass wrote down what it found, and died.
    let state = json!({
        "current": {"number": 7, "started_at": "2026-01-01T00:00:00Z", "position": digest, "counts":
            {"blobs": 3, "bytes": 30, "damaged": 1, "repaired": 0}},
        "open": {digest.to_string(): {"digest": digest, "kind": "other-content", "found": "x",
            "found_at": "2026-01-01T00:00:01Z"}},
    });
    let record = JobRecord {
        name: Scrub::NAME.to_owned(),
        last_scheduled_at: None,
        finished_at: None,
        state,
    };
    bench.world.catalog.put_job(&record).unwrap();
    let (report, state) = bench.run(Request::Resume, &CancellationToken::new()).await;
    assert_eq!(report.pass.unwrap().number, 7);
    assert_eq!(
        bench.world.quarantined(),
        [(format!("{}.0", digest.hex()), content)]
    );
    assert_eq!(state.repaired[0].digest, digest);
    bench.world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_find_damaged_is_repaired_without_a_pass() {
    let bench = Bench::new();
    let [flipped, lost, sound, ..] = bench.package().list(Part::Blob)[..] else {
        panic!("a package of several blobs");
    };
    bench.world.damage(&flipped, |content| content[0] ^= 1);
    bench.world.lose(&lost);
    for digest in [flipped, lost, sound, Digest::of(b"never kept")] {
        bench.world.store.suspect(digest);
    }
    let (_, state) = bench.run(Request::Repair, &CancellationToken::new()).await;
    assert_eq!((state.open_count(), state.total.blobs), (0, 0));
    let repaired: BTreeSet<Digest> = state.repaired.iter().map(|it| it.digest).collect();
    assert_eq!(repaired, [flipped, lost].into());
    bench.world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_neither_read_nor_in_the_way() {
    let bench = Bench::new();
    let [first, second, ..] = bench.package().list(Part::Blob)[..] else {
        panic!("a package of several blobs");
    };
    bench.world.lose(&first);
    std::os::unix::fs::symlink("/dev/zero", bench.world.path(&first)).unwrap();
    bench.world.lose(&second);
    durable::ensure_dir(&bench.world.path(&second)).unwrap();
    let state = bench.pass().await;
    assert_eq!(state.open_count(), 0, "{:#?}", state.open);
    let kinds: Vec<Kind> = state.repaired.iter().map(|damage| damage.kind).collect();
    assert_eq!(kinds, [Kind::Missing, Kind::Missing]);
    bench.world.assert_whole();
}

#[test]
fn the_state_is_written_as_it_always_was() {
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let digest = Digest::from_bytes([0xab; 32]);
    let mut state = State::default();
    state.begin(at);
    state.add(Damage {
        digest,
        size_bytes: Some(5),
        kind: Kind::OtherContent,
        found: "5 bytes".to_owned(),
        found_at: at,
        quarantined_to: Some("/q/ab.0".to_owned()),
        packages: vec![Concerned {
            digest,
            name: "one v1".to_owned(),
            file_name: "one.tgz".to_owned(),
        }],
        package_count: 1,
        repaired: None,
        problem: Some("not there".to_owned()),
    });
    let mut record = JobRecord {
        name: Scrub::NAME.to_owned(),
        last_scheduled_at: None,
        finished_at: None,
        state: serde_json::Value::Null,
    };
    state.write(&mut record);
    let hex = digest.to_string();
    let zero = json!({"blobs": 0, "bytes": 0, "damaged": 0, "repaired": 0});
    let expected = json!({
        "current": {"number": 1, "started_at": "2026-01-01T00:00:00Z", "counts": zero},
        "open": {&hex: {
            "digest": hex, "size_bytes": 5, "kind": "other-content", "found": "5 bytes",
            "found_at": "2026-01-01T00:00:00Z", "quarantined_to": "/q/ab.0",
            "packages": [{"digest": hex, "name": "one v1", "file_name": "one.tgz"}],
            "package_count": 1, "problem": "not there",
        }},
        "open_unlisted": 0,
        "repaired": [],
        "total": zero,
    });
    assert_eq!(record.state, expected);
    assert_eq!(State::read(&record), state);
    record.state = json!({"open": 5});
    assert_eq!(State::read(&record), State::default());
}

#[test]
fn more_damage_than_is_listed_is_counted() {
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut state = State::default();
    state.begin(at);
    for number in 0..state::OPEN_MAX as u64 + 5 {
        state.add(Damage {
            digest: Digest::of(&number.to_be_bytes()),
            size_bytes: None,
            kind: Kind::Missing,
            found: String::new(),
            found_at: at,
            quarantined_to: None,
            packages: Vec::new(),
            package_count: 0,
            repaired: None,
            problem: None,
        });
    }
    assert_eq!(state.open.len(), state::OPEN_MAX);
    assert_eq!(state.open_count(), state::OPEN_MAX as u64 + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_of_one_package_keeps_nobody_from_repairing_another() {
    let mut bench = Bench::new();
    let [one, two] = [0, 1].map(|number| bench.world.packages[number].clone());
    bench.world = bench.world.without_content(&two);
    let digest = one.root();
    bench.world.damage(&digest, |content| content[0] ^= 1);
    let state = bench.pass().await;
    let counts = state.last.as_ref().unwrap().counts;
    assert_eq!((counts.damaged, counts.repaired), (1, 1));
    assert_eq!(counts.blobs, bench.blob_count(), "all of them were read");
    bench.world.assert_whole();
}
