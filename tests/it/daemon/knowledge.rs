//! What the daemon knows of a target: how few requests it needs, and that being wrong costs requests and nothing else.

use std::fs::File;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use rustix::fs::{Advice, fadvise};
use serde_json::json;
use tokio::net::TcpListener;
use violetd::base::oci::{MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST};
use violetd::base::{Clock as _, Digest, SystemClock, TargetName};
use violetd::catalog::{Catalog, HeldRecord};
use violetd::sys::fs as durable;

use super::{assert_holds, count, problems, target, wait_ready};
use crate::support::{
    Access, Auth, Daemon, Fault, Images, Package, Placed, Proxy, Setup, TestRegistry, names, noise,
    serve,
};

/// Media type of layers without compression (OCI image-spec v1.1.0, `layer.md`).
const MEDIA_TYPE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Adds an image for one platform, without an index: a configuration and these layers.
fn add_plain(
    images: &mut Images,
    repository: &'static str,
    tag: &'static str,
    layers: &[&Vec<u8>],
) {
    let own = format!("{repository}:{tag}");
    let config = json!({
        "os": "linux", "architecture": "amd64", "config": {"Labels": {"own": own}},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let mut parts = vec![images.blob(MEDIA_TYPE_CONFIG, config.to_string())];
    for layer in layers {
        parts.push(images.blob(MEDIA_TYPE_LAYER, (*layer).clone()));
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": parts[0], "layers": parts[1..],
    });
    let root = images.blob(MEDIA_TYPE_MANIFEST, manifest.to_string());
    images.placed.push(Placed {
        repository,
        tag,
        manifests: vec![root.clone()],
        root,
        blobs: parts.into_iter().collect(),
    });
}

/// Four images in as many repositories, with two layers that they share, two of their own and a configuration each.
fn package_of_four() -> Package {
    let shared = [noise(300, 200_000), noise(301, 100_000)];
    let mut images = Images::default();
    for (seed, repository) in (310..)
        .step_by(2)
        .zip(["four/a", "four/b", "four/c", "four/d"])
    {
        let own = [noise(seed, 90_000), noise(seed + 1, 80_000)];
        let layers = [&shared[0], &shared[1], &own[0], &own[1]];
        add_plain(&mut images, repository, "v1", &layers);
    }
    Package::operator("four", images)
}

/// Returns how many requests of this method there were.
fn of(requests: &[String], method: &str) -> usize {
    let prefix = format!("{method} ");
    requests.iter().filter(|it| it.starts_with(&prefix)).count()
}

fn setup(registry: impl std::fmt::Display + Copy) -> Setup {
    Setup::new("none").target("global-a", "primary", registry, "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_images_that_share_layers_cost_42_requests_and_then_four() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let daemon = Daemon::start(setup(proxy.address()));
    let package = package_of_four();
    daemon.setup.drop_package(&package);
    let status = daemon.wait_in_sync(1);
    assert_holds(&registry, &package);

    let requests = proxy.take_requests();
    let counts = ["HEAD", "POST", "PATCH", "PUT"].map(|method| of(&requests, method));
    // One for each manifest; fourteen blobs are begun and sent, six mounted; four manifests are put.
    assert_eq!(counts, [4, 14 + 6, 0, 14 + 4], "{requests:#?}");
    // The client asks once after its start how to log in.
    assert!(requests.len() <= 42 + 1, "{requests:#?}");
    let counted = |what| count(&status, "global-a", what);
    assert_eq!(
        [
            counted("blobs_sent"),
            counted("blobs_mounted"),
            counted("blobs_skipped")
        ],
        [14, 6, 0]
    );
    assert_eq!(counted("bytes_sent"), package.images.total_bytes());

    let status = daemon.sync();
    assert_eq!(count(&status, "global-a", "requests"), 4);
    let requests = proxy.take_requests();
    assert_eq!((requests.len(), of(&requests, "HEAD")), (4, 4));
    daemon.stop();
}

/// Returns a package of one image of that version: a base that all versions share, and a layer of its own.
fn version(tag: &'static str, seed: u64) -> Package {
    let mut images = Images::default();
    let layers = [&noise(320, 60_000), &noise(seed, 20_000)];
    add_plain(&mut images, "demo/app", tag, &layers);
    Package::operator("app", images)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_known_after_a_restart_until_it_is_too_long_ago() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let daemon = Daemon::start(setup(proxy.address()));
    daemon.setup.drop_package(&version("v1", 321));
    daemon.wait_in_sync(1);
    let setup = daemon.stop();

    let daemon = Daemon::start(setup);
    proxy.take_requests();
    let second = version("v2", 322);
    daemon.setup.drop_package(&second);
    daemon.wait_in_sync(2);
    assert_holds(&registry, &second);
    let requests = proxy.take_requests();
    assert_eq!(of(&requests, "POST"), 2, "only what is new: {requests:#?}");
    let setup = daemon.stop();

    // Two weeks later, nobody knows whether it is still there.
    make_older(&setup, chrono::TimeDelta::days(14));
    let daemon = Daemon::start(setup);
    let third = version("v3", 323);
    daemon.setup.drop_package(&third);
    let status = daemon.wait_in_sync(3);
    assert_holds(&registry, &third);
    let requests = proxy.take_requests();
    assert_eq!(of(&requests, "POST"), 3, "the base, too: {requests:#?}");
    assert_eq!(count(&status, "global-a", "blobs_skipped"), 1);
    assert_eq!(count(&status, "global-a", "blobs_sent"), 2);
    daemon.stop();
}

/// Makes all that is known of the target look as if it had been learned so much earlier.
fn make_older(setup: &Setup, by: chrono::TimeDelta) {
    let catalog = Catalog::open(&setup.state_dir).unwrap();
    let name: TargetName = "global-a".parse().unwrap();
    let mut reader = catalog.read_held(&name).unwrap();
    let older: Vec<HeldRecord> = setup
        .blobs()
        .iter()
        .flat_map(|hex| {
            let digest = Digest::from_hex(hex).unwrap();
            reader.list_holders(&digest).unwrap().to_vec()
        })
        .map(|record| HeldRecord {
            seen_at: SystemClock.now() - by,
            ..record
        })
        .collect();
    assert!(!older.is_empty());
    catalog.change_held(&name, &older, &[]).unwrap();
}

#[test]
fn a_registry_that_lost_everything_is_filled_again_in_one_run() {
    let mut registry = TestRegistry::build(Auth::None)
        .listen(([127, 0, 0, 3], 0).into())
        .start();
    let daemon = Daemon::start(setup(registry.address()));
    let package = package_of_four();
    daemon.setup.drop_package(&package);
    daemon.wait_in_sync(1);
    registry.kill();
    durable::empty_dir(&registry.storage().join("docker/registry/v2")).unwrap();
    let registry = registry.resume();
    let status = daemon.sync();
    assert_holds(&registry, &package);
    assert_eq!(count(&status, "global-a", "images_pushed"), 4);
    assert_eq!(count(&status, "global-a", "blobs_sent"), 14, "{status:#}");
    let lines = daemon.log_lines("registry lacks content");
    assert_eq!(lines, [""; 0], "it was known from the tags that are gone");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_registry_refuses_one_repository_another_one_gets_the_shared_blobs() {
    let registry = TestRegistry::start(Auth::None);
    let elsewhere = TestRegistry::build(Auth::None)
        .access(Access::ReadOnly)
        .start();
    // The first repository is one that cannot be written to.
    let route = ("/v2/four/a/", elsewhere.address());
    let proxy = Proxy::start_with_routes(registry.address(), vec![route]);
    let daemon = Daemon::start(setup(proxy.address()));
    let package = package_of_four();
    daemon.setup.drop_package(&package);
    let status = daemon.wait_until("a run", |status| !problems(status, "global-a").is_empty());
    let [problem] = problems(&status, "global-a") else {
        panic!("expected one problem: {status:#}");
    };
    assert_eq!(problem["subject"], "image four/a:v1");
    for image in &package.images.placed[1..] {
        super::assert_holds_image(&registry, &package, image);
    }
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_target_does_not_hold_back_a_fast_one() {
    let (fast, slow) = (
        TestRegistry::start(Auth::None),
        TestRegistry::start(Auth::None),
    );
    let proxy = Proxy::start(slow.address());
    proxy.break_next(Method::PUT, Fault::StallAfter(1000));
    let setup = setup(fast.address()).target("global-b", "standby", proxy.address(), "");
    let daemon = Daemon::start(setup);
    let package = package_of_four();
    daemon.setup.drop_package(&package);
    let status = daemon.wait_until("sync of the fast target", |status| {
        target(status, "global-a")["packages_in_sync"] == 1
    });
    assert_holds(&fast, &package);
    assert_eq!(target(&status, "global-b")["packages_in_sync"], 0);
    assert!(
        target(&status, "global-b")["last_run"].is_null(),
        "{status:#}"
    );
    daemon.kill();
}

/// Removes what is in memory of the blobs of a store.
fn evict(setup: &Setup) {
    let shards = setup.state_dir.join("blobs/sha256");
    for shard in names(&shards) {
        let shard = shards.join(shard);
        for blob in names(&shard) {
            let file = File::open(shard.join(blob)).unwrap();
            file.sync_all().unwrap();
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        }
    }
}

/// Returns how many bytes a process has had read from disk.
fn read_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = text.lines().find_map(|it| it.strip_prefix("read_bytes: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn two_targets_read_a_blob_from_disk_once() {
    let mut registries = [([127, 0, 0, 4], 0), ([127, 0, 0, 5], 0)].map(|address| {
        TestRegistry::build(Auth::None)
            .listen(address.into())
            .start()
    });
    let setup = Setup::new("none")
        .target("global-a", "primary", registries[0].address(), "")
        .target("global-b", "standby", registries[1].address(), "");
    for registry in &mut registries {
        registry.kill();
    }
    let daemon = Daemon::start(setup);
    let mut images = Images::default();
    let layer = noise(330, 24 << 20);
    add_plain(&mut images, "demo/large", "v1", &[&layer]);
    let package = Package::operator("large", images);
    daemon.setup.drop_package(&package);
    wait_ready(&daemon, 1);
    evict(&daemon.setup);
    let before = read_bytes(daemon.pid());
    let registries = registries.map(TestRegistry::resume);
    daemon.wait_in_sync(1);
    for registry in &registries {
        assert_holds(registry, &package);
    }
    let read = read_bytes(daemon.pid()) - before;
    let size = layer.len() as u64;
    assert!(
        size <= read && read < size * 5 / 4,
        "{read} bytes read of {size}, for two targets"
    );
    daemon.stop();
}

#[test]
fn a_blob_that_ten_repositories_want_at_once_is_sent_once() {
    const REPOSITORIES: [&str; 10] = [
        "ten/a", "ten/b", "ten/c", "ten/d", "ten/e", "ten/f", "ten/g", "ten/h", "ten/i", "ten/j",
    ];
    let registry = TestRegistry::start(Auth::None);
    let setup = setup(registry.address()).variable("VIOLETD_REPLICATE__CONCURRENCY", "16");
    let daemon = Daemon::start(setup);
    let shared = noise(340, 400_000);
    let mut images = Images::default();
    for repository in REPOSITORIES {
        add_plain(&mut images, repository, "v1", &[&shared]);
    }
    let package = Package::operator("ten", images);
    daemon.setup.drop_package(&package);
    let status = daemon.wait_in_sync(1);
    assert_holds(&registry, &package);
    let counted = |what| count(&status, "global-a", what);
    assert_eq!(counted("blobs_sent"), 1 + 10, "{status:#}");
    assert_eq!(counted("blobs_mounted"), 9, "{status:#}");
    assert_eq!(counted("bytes_sent"), package.images.total_bytes());
    daemon.stop();
}

/// A registry whose tags are immutable, and that loses its answer to the first manifest that it takes: what is put under a tag
/// again is refused, whatever it is.
#[derive(Debug, Default)]
struct Immutable(Mutex<Option<Bytes>>);

impl Immutable {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<String>, hyper::http::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Response::builder();
        let is_manifest = head.uri.path().contains("/manifests/");
        let there = self.0.lock().unwrap().clone();
        match (head.method, is_manifest, there) {
            (Method::HEAD, true, Some(manifest)) => answer
                .header("content-type", MEDIA_TYPE_MANIFEST)
                .header("content-length", manifest.len())
                .header("docker-content-digest", Digest::of(&manifest).to_string()),
            (Method::HEAD, _, _) => answer.status(404),
            (Method::POST, _, _) => answer.status(202).header("location", "/v2/demo/up"),
            (Method::PUT, true, _) => {
                *self.0.lock().unwrap() = Some(body);
                answer.status(409)
            }
            (Method::PUT, false, _) => answer.status(201),
            _ => answer,
        }
        .body(String::new())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_immutable_tag_that_has_our_image_is_a_success() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let registry = Arc::new(Immutable::default());
    let state = Arc::clone(&registry);
    let server = tokio::spawn(serve(listener, move |request| {
        Arc::clone(&state).answer(request)
    }));
    let daemon = Daemon::start(setup(address));
    let mut images = Images::default();
    add_plain(&mut images, "demo/app", "v1", &[&noise(350, 1000)]);
    let package = Package::operator("app", images);
    daemon.setup.drop_package(&package);
    let status = daemon.wait_in_sync(1);
    assert_eq!(count(&status, "global-a", "images_pushed"), 1, "{status:#}");
    let there = registry.0.lock().unwrap().clone().unwrap();
    assert_eq!(Digest::of(&there), package.images.placed[0].root.digest);
    daemon.stop();
    server.abort();
}
