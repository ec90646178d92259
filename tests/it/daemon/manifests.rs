//! In which order manifests get to a registry, and which of them at the same time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use violetd::base::Digest;
use violetd::base::oci::{Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};

use super::problems;
use crate::support::{Daemon, Images, Package, Placed, Setup, serve};

/// What has happened to a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Came(Digest),
    Taken(Digest),
}

/// A registry that takes its time with some manifests.
#[derive(Debug, Default)]
struct Registry {
    /// What else must have come before a manifest is taken.
    awaits: BTreeMap<Digest, Vec<Digest>>,
    refused: Option<Digest>,
    /// What happened, and the manifests by tag or digest.
    seen: watch::Sender<(Vec<Event>, BTreeMap<String, Bytes>)>,
}

impl Registry {
    async fn start(self) -> (Arc<Self>, SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Arc::new(self);
        let state = Arc::clone(&registry);
        let answer = move |request| Arc::clone(&state).answer(request);
        (registry, address, tokio::spawn(serve(listener, answer)))
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<String>, hyper::http::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Response::builder();
        let (route, name) = head.uri.path().rsplit_once('/').unwrap();
        let is_manifest = route.ends_with("/manifests");
        let found = self.seen.borrow().1.get(name).cloned();
        match (head.method, is_manifest, found) {
            (Method::HEAD, true, Some(manifest)) => answer
                .header("content-type", MEDIA_TYPE_INDEX)
                .header("content-length", manifest.len())
                .header("docker-content-digest", Digest::of(&manifest).to_string()),
            (Method::HEAD, _, _) => answer.status(404),
            (Method::POST, _, _) => answer.status(202).header("location", "/v2/demo/up"),
            (Method::PUT, true, _) => answer.status(self.take(name, body).await),
            (Method::PUT, false, _) => answer.status(201),
            _ => answer,
        }
        .body(String::new())
    }

    /// Takes a manifest when all that it awaits has come. Returns the status.
    async fn take(&self, name: &str, manifest: Bytes) -> u16 {
        let digest = Digest::of(&manifest);
        self.seen.send_modify(|it| it.0.push(Event::Came(digest)));
        if self.refused == Some(digest) {
            return 400;
        }
        let awaited = self.awaits.get(&digest).into_iter().flatten();
        let awaited: Vec<Event> = awaited.map(|it| Event::Came(*it)).collect();
        let mut seen = self.seen.subscribe();
        let all_came = seen.wait_for(|(events, _)| awaited.iter().all(|it| events.contains(it)));
        drop(all_came.await.unwrap());
        self.seen.send_modify(|(events, manifests)| {
            events.push(Event::Taken(digest));
            manifests.insert(name.to_owned(), manifest);
        });
        201
    }

    fn events(&self) -> Vec<Event> {
        self.seen.borrow().0.clone()
    }

    /// Returns how many times a manifest came.
    fn count(&self, digest: Digest) -> usize {
        let events = self.events();
        let came = events.iter().filter(|it| **it == Event::Came(digest));
        came.count()
    }
}

/// Adds a manifest for one platform.
fn add_manifest(images: &mut Images, own: &str, architecture: &str) -> Descriptor {
    let config = json!({
        "os": "linux", "architecture": architecture, "config": {"Labels": {"own": own}},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let config = images.blob(MEDIA_TYPE_CONFIG, config.to_string());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": config, "layers": [],
    });
    images.blob(MEDIA_TYPE_MANIFEST, manifest.to_string())
}

fn add_index(images: &mut Images, children: &[&Descriptor]) -> Descriptor {
    let children: Vec<Value> = children.iter().map(|it| json!(it)).collect();
    let index = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": children});
    images.blob(MEDIA_TYPE_INDEX, index.to_string())
}

fn place(images: &mut Images, tag: &'static str, root: &Descriptor) {
    images.placed.push(Placed {
        repository: "demo/app",
        tag,
        root: root.clone(),
        manifests: Vec::new(),
        blobs: [].into(),
    });
}

/// An image of four platforms, two of which are in an index of their own.
struct Nested {
    package: Package,
    leaves: Vec<Digest>,
    inner: Digest,
    root: Digest,
}

fn nested() -> Nested {
    let mut images = Images::default();
    // As many as are sent at the same time right from the start.
    let leaves = ["amd64", "arm64", "s390x", "ppc64le"]
        .map(|architecture| add_manifest(&mut images, "nested", architecture));
    let inner = add_index(&mut images, &[&leaves[0], &leaves[1]]);
    let root = add_index(&mut images, &[&inner, &leaves[2], &leaves[3]]);
    place(&mut images, "v1", &root);
    Nested {
        package: Package::operator("nested", images),
        leaves: leaves.iter().map(|leaf| leaf.digest).collect(),
        inner: inner.digest,
        root: root.digest,
    }
}

fn start_daemon(registry: SocketAddr, package: &Package) -> Daemon {
    let daemon = Daemon::start(Setup::new("none").target("global-a", "primary", registry, ""));
    daemon.setup.drop_package(package);
    daemon
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_that_do_not_name_one_another_go_together_and_indexes_after_what_they_name() {
    let Nested {
        package,
        leaves,
        inner,
        root,
    } = nested();
    // None of them is taken before all of them are under way.
    let awaits = leaves.iter().map(|leaf| (*leaf, leaves.clone()));
    let registry = Registry {
        awaits: awaits.collect(),
        ..Registry::default()
    };
    let (registry, address, server) = registry.start().await;
    let daemon = start_daemon(address, &package);
    daemon.wait_in_sync(1);
    daemon.stop();
    server.abort();
    let events = registry.events();
    let [first @ .., before_root, _, _, _] = &events[..] else {
        panic!("expected twelve events, found {events:?}");
    };
    assert_eq!(first.len(), 2 * leaves.len(), "each once: {events:?}");
    for leaf in leaves {
        assert!(first.contains(&Event::Taken(leaf)), "{events:?}");
    }
    assert_eq!(*before_root, Event::Came(inner), "{events:?}");
    let last = [Event::Taken(inner), Event::Came(root), Event::Taken(root)];
    assert_eq!(events[events.len() - 3..], last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_one_manifest_is_refused_nothing_that_names_it_is_put() {
    let Nested {
        package,
        leaves,
        inner,
        root,
    } = nested();
    let refused = leaves[1];
    let others = leaves.iter().filter(|leaf| **leaf != refused);
    // The refusal comes while the others are under way.
    let registry = Registry {
        awaits: others.map(|leaf| (*leaf, vec![refused])).collect(),
        refused: Some(refused),
        ..Registry::default()
    };
    let (registry, address, server) = registry.start().await;
    let daemon = start_daemon(address, &package);
    let status = daemon.wait_until("a run", |status| !problems(status, "global-a").is_empty());
    daemon.stop();
    server.abort();
    let [problem] = problems(&status, "global-a") else {
        panic!("expected one problem: {status:#}");
    };
    assert_eq!(problem["subject"], "image demo/app:v1");
    assert!(registry.count(refused) > 0);
    assert_eq!([inner, root].map(|it| registry.count(it)), [0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_two_images_put_at_the_same_time_is_put_once() {
    let mut images = Images::default();
    let shared = add_manifest(&mut images, "shared", "amd64");
    let own = ["one", "two"].map(|own| add_manifest(&mut images, own, "arm64"));
    let roots = [0, 1].map(|at| add_index(&mut images, &[&shared, &own[at]]));
    place(&mut images, "v1", &roots[0]);
    place(&mut images, "v2", &roots[1]);
    let package = Package::operator("shared", images);
    let shared = shared.digest;
    // It stays under way until both images are being put.
    let both = own.iter().map(|it| it.digest).collect();
    let registry = Registry {
        awaits: [(shared, both)].into(),
        ..Registry::default()
    };
    let (registry, address, server) = registry.start().await;
    let daemon = start_daemon(address, &package);
    daemon.wait_in_sync(1);
    daemon.stop();
    server.abort();
    assert_eq!(registry.count(shared), 1, "{:?}", registry.events());
    let events = registry.events();
    let taken = events.iter().position(|it| *it == Event::Taken(shared));
    for root in roots {
        let came = events.iter().position(|it| *it == Event::Came(root.digest));
        assert!(taken < came, "{events:?}");
    }
}
