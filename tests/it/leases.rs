//! Replication beside removal: a run pushes what is still wanted, wholly, and leaves out what is not.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use violetd::base::{Clock, Digest, SystemClock, Timestamp};
use violetd::catalog::{self, Catalog, Content, IngestRecord, IngestState, NewPackage, RunOutcome};
use violetd::registry::{self, Client};
use violetd::replicate::wanted::Filter;
use violetd::replicate::{Foreign, Handle, Options, Others, Parts, Replicate, Role, Target};
use violetd::store::{self, Removed, Store};
use violetd::task::{Task as _, Timetable};

use crate::daemon::holds_image;
use crate::support::{Auth, Images, Placed, Proxy, TestRegistry, noise, within};

/// A store and a catalog with packages of one image each.
#[derive(Debug)]
struct Bench {
    _dir: TempDir,
    store: Store,
    catalog: Catalog,
}

/// Something that happens once, when a run asks when it is due: after it has listed the packages, and before it reads any.
type Interlude = Box<dyn FnOnce() + Send>;

struct Due(Mutex<Option<Interlude>>);

impl std::fmt::Debug for Due {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Due")
    }
}

impl Timetable for Due {
    fn latest_due(&self, _: Timestamp) -> Option<Timestamp> {
        if let Some(interlude) = self.0.lock().unwrap().take() {
            interlude();
        }
        None
    }

    fn next_due(&self, _: Timestamp) -> Option<Timestamp> {
        None
    }
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self {
            store: Store::open(dir.path()).unwrap(),
            catalog: Catalog::open(dir.path()).unwrap(),
            _dir: dir,
        }
    }

    /// Stores blobs and makes a package of the image that they are.
    fn add(&self, images: &Images, image: &Placed) -> Digest {
        let mut batch = self.store.begin();
        for digest in blobs_of(image) {
            let content = &images.blobs[&digest];
            let mut writer = batch.writer(Some(digest), content.len() as u64).unwrap();
            writer.write(content).unwrap();
            batch.stage(writer).unwrap();
        }
        let (_, lease) = batch.commit().unwrap();
        let package = Digest::of(image.name().as_bytes());
        let record = serde_json::from_value(json!({
            "digest": package, "file_name": "x.tgz", "size_bytes": 1, "name": image.repository, "version": null,
            "kind": "images", "platforms": [], "artifact": null, "resources": [], "display_name": null,
            "images": [{
                "reference": format!("registry.example/{}", image.name()), "digest": image.root.digest,
                "media_type": image.root.media_type, "size_bytes": image.root.size_bytes, "content_bytes": 1,
            }],
            "blob_count": 1, "blob_bytes": 1, "provenance": {"by": "unchecked"}, "ready_at": SystemClock.now(),
        }));
        let content = blobs_of(image)
            .into_iter()
            .map(|digest| (digest, images.blobs[&digest].len() as u64));
        let new = NewPackage {
            record: record.unwrap(),
            content: content.collect(),
        };
        let ingest = IngestRecord {
            path: format!("/drop/{}", image.repository),
            size_bytes: 1,
            modified_at: SystemClock.now(),
            digest: Some(package),
            state: IngestState::Ready {
                package,
                is_repeat: false,
                nested: Vec::new(),
            },
            updated_at: SystemClock.now(),
        };
        self.catalog.commit_packages(&[new], &ingest).unwrap();
        drop(lease);
        package
    }

    /// Removes a package and collects its blobs, as far as no other package keeps them. Returns what became of each.
    fn remove(&self, package: Digest) -> Vec<Removed> {
        let content = self.catalog.find_content(&package).unwrap().unwrap();
        self.catalog.remove_package(&package).unwrap();
        self.collect(content.entries().iter().map(|(digest, _)| *digest))
    }

    fn collect(&self, blobs: impl IntoIterator<Item = Digest>) -> Vec<Removed> {
        let removed = blobs.into_iter().map(|digest| {
            let is_wanted = || {
                let mut is_wanted = false;
                let see = |_, content: Content| {
                    is_wanted |= content.entries().iter().any(|(it, _)| *it == digest);
                    Ok::<_, catalog::Error>(())
                };
                self.catalog.for_each_content(see).unwrap();
                Ok::<_, store::Error>(is_wanted)
            };
            self.store.remove(&digest, is_wanted).unwrap()
        });
        removed.collect()
    }

    fn target(
        &self,
        registry: registry::Options,
        interlude: Option<Interlude>,
    ) -> (Replicate, Handle) {
        let target = Target {
            name: "global-a".parse().unwrap(),
            role: Role::Primary,
            registry: Client::new(registry).unwrap(),
            platform: None,
            clusters: Vec::new(),
            catalog_source: "platform".to_owned(),
            filter: Filter::new(vec!["*".parse().unwrap()]),
            timetable: Arc::new(Due(Mutex::new(interlude))),
            runs_on_ready: true,
            catches_up: true,
            holds_resources: false,
            others: Others::Keep,
            foreign: Foreign::Skip,
            image_pull_secrets: Vec::new(),
        };
        let options = Options {
            concurrency: 2,
            retry_first: Duration::from_secs(1),
            retry_max: Duration::from_secs(1),
            verdict_timeout: Duration::from_secs(1),
        };
        let parts = Parts {
            store: self.store.clone(),
            catalog: self.catalog.clone(),
            clock: Arc::new(SystemClock),
        };
        Replicate::new(target, options, parts)
    }

    /// Fails the test unless the last run has put as many images and had no problem.
    fn assert_run(&self, wanted: u64, pushed: u64) -> Vec<Digest> {
        let target = self
            .catalog
            .find_target(&"global-a".parse().unwrap())
            .unwrap()
            .unwrap();
        let run = target.last_run.as_ref().unwrap();
        assert_eq!(run.problems, []);
        assert_eq!(run.outcome, RunOutcome::InSync);
        assert_eq!(
            (run.counts.images_wanted, run.counts.images_pushed),
            (wanted, pushed)
        );
        target.synced_packages.clone()
    }
}

fn blobs_of(image: &Placed) -> BTreeSet<Digest> {
    let parts = image.manifests.iter().chain(&image.blobs);
    parts.map(|descriptor| descriptor.digest).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_removed_and_collected_before_it_is_read_is_left_out_silently() {
    let bench = Arc::new(Bench::new());
    let registry = TestRegistry::start(Auth::None);
    let mut images = Images::default();
    let shared = noise(1, 50_000);
    let kept = images.add("kept", "v1", std::slice::from_ref(&shared));
    let removed = images.add("removed", "v1", &[shared, noise(2, 50_000)]);
    let (kept_package, package) = (bench.add(&images, &kept), bench.add(&images, &removed));
    let interlude: Interlude = {
        let bench = Arc::clone(&bench);
        Box::new(move || {
            let outcomes = bench.remove(package);
            assert!(outcomes.contains(&Removed::Wanted), "the shared layer");
            assert!(!outcomes.contains(&Removed::Leased), "{outcomes:?}");
        })
    };
    let options = registry.options();
    let (mut task, _handle) = bench.target(options, Some(interlude));
    let finished = within("a run", task.run(&CancellationToken::new())).await;
    assert!(finished.outcome.is_ok(), "{finished:?}");
    assert_eq!(bench.assert_run(1, 1), [kept_package]);
    assert!(holds_image(&registry, &kept) && !holds_image(&registry, &removed));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_pushes_is_not_collected_before_it_ends() {
    let bench = Bench::new();
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let mut images = Images::default();
    let layers = [1, 2, 3, 4].map(|seed| noise(seed, 2 << 20));
    let image = images.add("pushed", "v1", &layers);
    let package = bench.add(&images, &image);
    let options = registry.options_via(proxy.address());
    let (mut task, _handle) = bench.target(options, None);
    let stop = CancellationToken::new();
    let collected = async {
        // The plan is made, and most of it is still to be sent.
        proxy.wait_for_uploaded_bytes(1).await;
        bench.remove(package)
    };
    let (finished, outcomes) =
        within("a run", async { tokio::join!(task.run(&stop), collected) }).await;
    assert!(finished.outcome.is_ok(), "{finished:?}");
    assert_eq!(outcomes, vec![Removed::Leased; blobs_of(&image).len()]);
    bench.assert_run(1, 1);
    assert!(holds_image(&registry, &image));
    // The lease went with the run.
    let gone = bench.collect(blobs_of(&image));
    assert!(
        gone.iter().all(|it| matches!(it, Removed::Gone { .. })),
        "{gone:?}"
    );
}
