//! A platform: its login, its cluster proxy, its Kubernetes API and its controllers.
//!
//! ```text
//! let platform = FakeAcp::start().await;             // clusters `global` and `business-1`
//! let options = AcpOptions::new(platform.address(), ...);
//! platform.hold_controllers();                       // nothing gets a status until `release_controllers`
//! platform.fail(Failure::of("/kubernetes/").times(2));
//! assert_eq!(platform.object("global", "Artifact", "x").unwrap()["spec"]["present"], true);
//! ```
//!
//! It is strict: what the real platform refuses, and what it merely should refuse, is refused. Its controllers do what
//! is known of the real ones: an `Artifact` that is not violet's is switched off and its versions are deleted, an
//! `ArtifactVersion` without its live owner fails, a `ModulePlugin` whose chart exists gets a `ModuleConfig`.
//!
//! Everything happens at once; tests wait for a state with [`FakeAcp::until`].

mod api;
mod apply;
mod login;
mod schema;
mod tls;
mod world;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::apply::Managed;
use self::login::Logins;
use self::schema::{Kind, Scope};
use self::world::{Key, World};
use super::PATIENCE;

pub(crate) use self::login::{PASSWORD, USERNAME};
pub(crate) use self::world::ArtifactVerdict;

/// How watches are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Watches {
    /// As they should be.
    #[default]
    Offered,
    /// With an error at once: the version is too old.
    Closed,
    /// Not at all.
    Refused,
}

/// A failure of the server, in place of what it would have answered.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    path: String,
    times: u64,
    status: u16,
    header: Option<(&'static str, &'static str)>,
    body: String,
}

impl Failure {
    /// One answer 503 to the next request whose path contains `path`.
    pub(crate) fn of(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            times: 1,
            status: 503,
            header: None,
            body: "<html><head><title>Service Unavailable</title></head></html>".to_owned(),
        }
    }

    pub(crate) const fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    pub(crate) const fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a header, in place of one that was added before.
    pub(crate) const fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(crate) fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }
}

/// What the server's tasks share.
#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    logins: Mutex<Logins>,
    failures: Mutex<Vec<Failure>>,
    requests: Mutex<Vec<String>>,
    watches: Mutex<Watches>,
    is_held: Mutex<bool>,
    /// Counts changes of anything that somebody waits for.
    changes: watch::Sender<u64>,
    /// Watches that are open.
    watchers: watch::Sender<u64>,
}

impl Shared {
    fn notify(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Counts a watch until the guard is dropped.
    fn watcher(self: &Arc<Self>) -> WatcherGuard {
        self.watchers.send_modify(|count| *count += 1);
        self.notify();
        WatcherGuard(Arc::clone(self))
    }
}

#[derive(Debug)]
struct WatcherGuard(Arc<Shared>);

impl Drop for WatcherGuard {
    fn drop(&mut self) {
        self.0.watchers.send_modify(|count| *count -= 1);
    }
}

/// A platform on a free port, until it is dropped.
#[derive(Debug)]
pub(crate) struct FakeAcp {
    shared: Arc<Shared>,
    address: SocketAddr,
    scheme: &'static str,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for FakeAcp {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl FakeAcp {
    /// Starts a platform with the clusters `global` and `business-1`, over plain HTTP.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = shared();
        let router = router(&shared);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self::with(shared, address, "http", server)
    }

    /// Starts the same over TLS, with a certificate for the DNS name `name`; returns that of its issuer in PEM, too.
    pub(crate) async fn start_with_tls(name: &str) -> (Self, Vec<u8>) {
        let (listener, certificate) = tls::Listener::bind(name).await;
        let address = listener.address();
        let shared = shared();
        let router = router(&shared);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (Self::with(shared, address, "https", server), certificate)
    }

    fn with(
        shared: Arc<Shared>,
        address: SocketAddr,
        scheme: &'static str,
        server: JoinHandle<()>,
    ) -> Self {
        let controllers = tokio::spawn(run_controllers(Arc::clone(&shared)));
        Self {
            shared,
            address,
            scheme,
            tasks: [server, controllers],
        }
    }

    /// Returns the platform's URL.
    pub(crate) fn address(&self) -> String {
        self.address_as("127.0.0.1")
    }

    /// Returns the platform's URL with another host.
    pub(crate) fn address_as(&self, host: &str) -> String {
        format!("{}://{host}:{}", self.scheme, self.address.port())
    }

    /// Returns a token that does not expire.
    pub(crate) fn api_token(&self) -> String {
        self.shared.logins.lock().unwrap().api_token.clone()
    }

    /// Refuses every token that was granted so far.
    pub(crate) fn revoke_tokens(&self) {
        self.shared.logins.lock().unwrap().tokens.clear();
    }

    /// Sets how long the tokens of later logins are said to be good.
    pub(crate) fn set_token_lifetime(&self, lifetime: Duration) {
        self.shared.logins.lock().unwrap().lifetime = lifetime;
    }

    /// Lets logins with the right password fail.
    pub(crate) fn set_login_problem(&self, status: u16, reason: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        self.shared.logins.lock().unwrap().problem = Some((status, reason.to_owned()));
    }

    /// Returns how many logins got a token.
    pub(crate) fn logins(&self) -> u64 {
        self.shared.logins.lock().unwrap().granted
    }

    /// Returns how many passwords were tried.
    pub(crate) fn login_attempts(&self) -> u64 {
        self.shared.logins.lock().unwrap().attempts
    }

    /// Answers the next requests with a failure.
    pub(crate) fn fail(&self, failure: Failure) {
        self.shared.failures.lock().unwrap().push(failure);
    }

    /// Sets how watches are answered.
    pub(crate) fn set_watches(&self, watches: Watches) {
        *self.shared.watches.lock().unwrap() = watches;
    }

    /// Forgets the history: watches from before this moment are told that their version is too old.
    pub(crate) fn compact(&self) {
        let mut world = self.shared.world.lock().unwrap();
        world.oldest = world.version() + 1;
    }

    /// Returns how many watches are open.
    pub(crate) fn watchers(&self) -> u64 {
        *self.shared.watchers.borrow()
    }

    /// Stops the controllers until [`Self::release_controllers`].
    pub(crate) fn hold_controllers(&self) {
        *self.shared.is_held.lock().unwrap() = true;
    }

    /// Lets the controllers work, on what came meanwhile too.
    pub(crate) fn release_controllers(&self) {
        *self.shared.is_held.lock().unwrap() = false;
        self.shared.notify();
    }

    /// Sets what becomes of `ArtifactVersion`s, of those that are there too.
    pub(crate) fn set_verdict(&self, verdict: ArtifactVerdict) {
        self.shared.world.lock().unwrap().verdict = verdict;
        self.shared.notify();
    }

    /// Says which images and charts can be pulled, as `repository:tag`. All of them by default.
    pub(crate) fn set_images(&self, images: &[&str]) {
        let images: BTreeSet<String> = images.iter().map(|image| (*image).to_owned()).collect();
        self.shared.world.lock().unwrap().images = Some(images);
        self.shared.notify();
    }

    /// Changes an object as another client, or creates it from `null`.
    pub(crate) fn edit(
        &self,
        cluster: &str,
        kind: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) {
        let key = key(cluster, kind, name);
        self.shared
            .world
            .lock()
            .unwrap()
            .update(&key, "kubectl-edit", change);
        self.shared.notify();
    }

    /// Deletes an object as another client.
    pub(crate) fn delete(&self, cluster: &str, kind: &str, name: &str) {
        self.shared
            .world
            .lock()
            .unwrap()
            .delete(&key(cluster, kind, name));
        self.shared.notify();
    }

    /// Returns an object as clients see it.
    pub(crate) fn object(&self, cluster: &str, kind: &str, name: &str) -> Option<Value> {
        let world = self.shared.world.lock().unwrap();
        world.find(&key(cluster, kind, name)).map(Managed::shown)
    }

    /// Returns `METHOD /path?query` of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Waits until `condition` holds, and fails the test if it takes too long.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        let wait = async {
            while !condition(self) {
                changes.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(
            waited.is_ok(),
            "{what} did not happen; requests: {:#?}",
            self.requests()
        );
    }
}

fn key(cluster: &str, kind: &str, name: &str) -> Key {
    let kind = Kind::named(kind);
    let namespace = match (kind.scope, kind.name) {
        (Scope::GlobalCluster, _) => "",
        (Scope::Namespace, "ConfigMap") => "kube-public",
        (Scope::Namespace, _) => "cpaas-system",
    };
    (
        cluster.to_owned(),
        kind.plural,
        namespace.to_owned(),
        name.to_owned(),
    )
}

fn shared() -> Arc<Shared> {
    let mut world = World::new(&["global", "business-1"]);
    let base = Kind::named("ProductBase");
    world.update(&key("global", base.name, "base"), "installer", |object| {
        *object = json!({
            "apiVersion": base.api_version,
            "kind": base.name,
            "metadata": {"name": "base"},
            "spec": {
                "platformURL": "https://platform.example",
                "registry": {"address": "registry.example:11443", "preferPlatformURL": false},
                "version": "v4.2.0",
            },
        });
    });
    Arc::new(Shared {
        world: Mutex::new(world),
        logins: Mutex::new(Logins::new()),
        failures: Mutex::default(),
        requests: Mutex::default(),
        watches: Mutex::default(),
        is_held: Mutex::default(),
        changes: watch::Sender::new(0),
        watchers: watch::Sender::new(0),
    })
}

fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/console-platform/api/v1/token/login", get(login::metadata))
        .route("/dex/api/v1/authorize", get(login::authorize))
        .route("/dex/pubkey", get(login::pubkey))
        .route("/dex/api/v1/authorize/{provider}", post(login::submit))
        .route(
            "/console-platform/api/v1/token/callback",
            get(login::callback),
        )
        .route("/auth/v1/clusters", get(api::clusters))
        .route("/kubernetes/{cluster}/{*path}", any(api::proxy))
        .layer(middleware::from_fn_with_state(Arc::clone(shared), before))
        .with_state(Arc::clone(shared))
}

/// Notes every request, and answers it with a failure where one is due.
async fn before(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let path = request
        .uri()
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    shared
        .requests
        .lock()
        .unwrap()
        .push(format!("{} {path}", request.method()));
    shared.notify();
    let due = {
        let mut failures = shared.failures.lock().unwrap();
        let due = failures
            .iter_mut()
            .find(|failure| failure.times > 0 && path.contains(&failure.path));
        due.map(|failure| {
            failure.times -= 1;
            failure.clone()
        })
    };
    let Some(failure) = due else {
        return next.run(request).await;
    };
    let mut response =
        (StatusCode::from_u16(failure.status).unwrap(), failure.body).into_response();
    if let Some((name, value)) = failure.header {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// Lets the controllers look again after each change.
async fn run_controllers(shared: Arc<Shared>) {
    let mut changes = shared.changes.subscribe();
    loop {
        changes.borrow_and_update();
        while !*shared.is_held.lock().unwrap() && shared.world.lock().unwrap().reconcile() {
            // Each step is seen by those who watch.
            shared.notify();
            changes.borrow_and_update();
            tokio::task::yield_now().await;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
