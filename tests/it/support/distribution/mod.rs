//! A strict registry for uploads that are cut: it keeps what came, as distribution 3 does, or nothing, as zot does.
//!
//! It holds no content, only digests and sizes, so that layers of some GB fit. Facts that it follows, seen on distribution 3.0: a
//! cut PATCH leaves what came, the status says 204 and `Range: 0-N`; each answer names another location, and PATCH and PUT go on
//! only at the latest one; a wrong `Content-Range` is a 416, content of another digest a 400, after which the session is gone.
//!
//! What no client should do is a problem that fails the test at its end: a PATCH without its headers or with others than its
//! body, a request to a session that is not there, a manifest without its blobs.

mod message;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION, RANGE,
};
use hyper::http::request;
use hyper::{Method, Request, Response};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use violetd::base::Digest;
use violetd::registry::Options;

use self::message::{Answer, Route, answer, number, refusal, text, with};
use super::docker_registry::quick_options;
use super::http::serve;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What becomes of a session in which a request was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// It holds what came: distribution 3.
    Part,
    /// It is gone: zot.
    Nothing,
}

/// What a mount is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mounts {
    /// 201 where the other repository has the blob, else a session.
    Granted,
    /// A session, always.
    Ignored,
    /// 400.
    Refused,
}

/// How a registry behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    pub(crate) keeps: Keeps,
    pub(crate) mounts: Mounts,
    /// `OCI-Chunk-Min-Length`, in bytes; 0 is none.
    pub(crate) chunk_bytes_min: u64,
    /// Bodies with more bytes than this are answered by 413.
    pub(crate) body_bytes_max: u64,
}

impl Default for Behaviour {
    /// Keeps parts, grants mounts, and has no limits.
    fn default() -> Self {
        Self {
            keeps: Keeps::Part,
            mounts: Mounts::Granted,
            chunk_bytes_min: 0,
            body_bytes_max: u64::MAX,
        }
    }
}

/// A request that came, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) method: Method,
    /// Path and query, without the state that a location has.
    pub(crate) target: String,
    /// The bytes of its body that came.
    pub(crate) bytes: u64,
    pub(crate) status: u16,
}

/// A running registry.
#[derive(Debug)]
pub(crate) struct Distribution {
    registry: Arc<Registry>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Registry {
    behaviour: Behaviour,
    state: Mutex<State>,
    /// Bytes of bodies that came.
    bytes: watch::Sender<u64>,
    /// How many of them are taken until [`Distribution::release`].
    bytes_max: watch::Sender<u64>,
    /// Bodies that are coming.
    bodies: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<u64, Session>,
    /// Numbers for sessions and locations.
    numbers: u64,
    /// Repository and digest to size in bytes.
    blobs: BTreeMap<(String, String), u64>,
    /// Repository and reference to media type and content.
    manifests: BTreeMap<(String, String), (String, Bytes)>,
    received: Vec<Received>,
    problems: Vec<String>,
}

#[derive(Debug)]
struct Session {
    repository: String,
    hash: Sha256,
    bytes: u64,
    /// The part of its latest location that changes.
    location: u64,
}

impl Distribution {
    /// Starts an empty registry that behaves as distribution 3 does.
    pub(crate) async fn start() -> Self {
        Self::start_as(Behaviour::default()).await
    }

    /// Starts an empty registry.
    pub(crate) async fn start_as(behaviour: Behaviour) -> Self {
        let registry = Arc::new(Registry {
            behaviour,
            state: Mutex::default(),
            bytes: watch::Sender::new(0),
            bytes_max: watch::Sender::new(u64::MAX),
            bodies: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            task: tokio::spawn(serve(listener, {
                let registry = Arc::clone(&registry);
                move |request| Arc::clone(&registry).answer(request)
            })),
            registry,
        }
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns options for an anonymous client with short pauses.
    pub(crate) fn options(&self) -> Options {
        quick_options(self.address)
    }

    /// Returns how many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.registry.state().sessions.len()
    }

    /// Returns the size of a blob, in bytes, if a repository has it.
    pub(crate) fn blob(&self, repository: &str, digest: &Digest) -> Option<u64> {
        let key = (repository.to_owned(), digest.to_string());
        self.registry.state().blobs.get(&key).copied()
    }

    /// Loses a blob of a repository.
    pub(crate) fn lose(&self, repository: &str, digest: &Digest) {
        let key = (repository.to_owned(), digest.to_string());
        self.registry.state().blobs.remove(&key).unwrap();
    }

    /// Forgets all sessions, as a purge does.
    pub(crate) fn purge(&self) {
        self.registry.state().sessions.clear();
    }

    /// Adds a byte to each session that nobody has sent: what follows does not fit any more.
    pub(crate) fn garble(&self) {
        for session in self.registry.state().sessions.values_mut() {
            session.hash.update(b"?");
        }
    }

    /// Returns the requests so far, and forgets them.
    pub(crate) fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut self.registry.state().received)
    }

    /// Returns how many bytes of bodies have come.
    pub(crate) fn received_bytes(&self) -> u64 {
        *self.registry.bytes.borrow()
    }

    /// Takes no more once so many bytes of bodies have come, until it is released.
    pub(crate) fn hold_at(&self, bytes: u64) {
        self.registry.bytes_max.send_replace(bytes);
    }

    /// Takes whatever comes.
    pub(crate) fn release(&self) {
        self.hold_at(u64::MAX);
    }

    /// Waits until so many bytes of bodies have come.
    pub(crate) async fn wait_for_bytes(&self, bytes: u64) {
        let mut received = self.registry.bytes.subscribe();
        let waiting = received.wait_for(|received| *received >= bytes);
        drop(super::within("the upload", waiting).await.unwrap());
    }

    /// Waits until no body is coming any more: until it has noticed that a client is gone.
    pub(crate) async fn wait_until_idle(&self) {
        let mut bodies = self.registry.bodies.subscribe();
        let waiting = bodies.wait_for(|bodies| *bodies == 0);
        drop(
            super::within("the end of the upload", waiting)
                .await
                .unwrap(),
        );
    }
}

/// A body that is coming to a session. It ends when it is read, and when its connection is dropped in the middle.
struct Coming<'a> {
    registry: &'a Registry,
    id: u64,
    is_whole: bool,
}

impl<'a> Coming<'a> {
    fn new(registry: &'a Registry, id: u64) -> Self {
        registry.bodies.send_modify(|bodies| *bodies += 1);
        Self {
            registry,
            id,
            is_whole: false,
        }
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        if !self.is_whole && self.registry.behaviour.keeps == Keeps::Nothing {
            self.registry.state().sessions.remove(&self.id);
        }
        self.registry.bodies.send_modify(|bodies| *bodies -= 1);
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            let problems = self.registry.state().problems.join("\n");
            assert!(problems.is_empty(), "{problems}");
        }
    }
}

impl Registry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, BoxError> {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        let parameters: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let shown = query.split('&').filter(|it| !it.starts_with("_state="));
        let shown = shown.collect::<Vec<_>>().join("&");
        let mark = if shown.is_empty() { "" } else { "?" };
        let target = format!("{}{mark}{shown}", head.uri.path());
        let before = self.state().received.len();
        self.state().received.push(Received {
            method: head.method.clone(),
            target,
            bytes: 0,
            status: 0,
        });
        let answer = self.route(&head, &parameters, body, before).await;
        if let (Ok(answer), Some(received)) = (&answer, self.state().received.get_mut(before)) {
            received.status = answer.status().as_u16();
        }
        answer
    }

    async fn route(
        &self,
        head: &request::Parts,
        parameters: &BTreeMap<String, String>,
        body: Incoming,
        index: usize,
    ) -> Result<Answer, BoxError> {
        let length = number(&head.headers, &CONTENT_LENGTH).unwrap_or(0);
        if length > self.behaviour.body_bytes_max {
            // nginx reads what comes and drops it, so that the client gets to see the answer.
            drop(body.collect().await);
            return Ok(refusal(413, ""));
        }
        match (Route::parse(head.uri.path()), head.method.as_str()) {
            (Some(Route::Version), "GET") => Ok(answer(200)),
            (Some(Route::Begin(repository)), "POST") => Ok(self.begin(repository, parameters)),
            (Some(Route::Session(repository, id)), method) => {
                let Some(is_latest) = self.find(repository, id, parameters) else {
                    return Ok(refusal(404, "BLOB_UPLOAD_UNKNOWN"));
                };
                match method {
                    "GET" => Ok(self.located(204, id)),
                    "DELETE" => {
                        self.state().sessions.remove(&id);
                        Ok(answer(204))
                    }
                    "PATCH" | "PUT" if !is_latest => Ok(refusal(416, "RANGE_INVALID")),
                    "PATCH" => self.patch(&head.headers, id, body, index).await,
                    "PUT" => self.put(parameters, id, body, index).await,
                    _ => Ok(self.problem(head)),
                }
            }
            (Some(Route::Blob(repository, digest)), "HEAD") => {
                let key = (repository.to_owned(), digest.to_owned());
                Ok(match self.state().blobs.get(&key) {
                    Some(size) => with(answer(200), &CONTENT_LENGTH, &size.to_string()),
                    None => answer(404),
                })
            }
            (Some(Route::Manifest(repository, reference)), method) => {
                let key = (repository.to_owned(), reference.to_owned());
                match method {
                    "HEAD" | "GET" => Ok(self.manifest(&key)),
                    "PUT" => {
                        let media_type = text(&head.headers, &CONTENT_TYPE).to_owned();
                        let bytes = body.collect().await?.to_bytes();
                        Ok(self.put_manifest(key, media_type, bytes))
                    }
                    _ => Ok(self.problem(head)),
                }
            }
            (Some(Route::Version | Route::Begin(_) | Route::Blob(..)) | None, _) => {
                Ok(self.problem(head))
            }
        }
    }

    /// Remembers what no client should have done.
    fn problem(&self, head: &request::Parts) -> Answer {
        let problem = format!("unexpected {} {}", head.method, head.uri);
        self.state().problems.push(problem);
        // A status that no client repeats.
        answer(418)
    }

    fn begin(&self, repository: &str, parameters: &BTreeMap<String, String>) -> Answer {
        let mut state = self.state();
        if let (Some(digest), Some(from)) = (parameters.get("mount"), parameters.get("from")) {
            let size = state.blobs.get(&(from.clone(), digest.clone())).copied();
            match (self.behaviour.mounts, size) {
                (Mounts::Refused, _) => return refusal(400, "UNSUPPORTED"),
                (Mounts::Granted, Some(size)) => {
                    let key = (repository.to_owned(), digest.clone());
                    state.blobs.insert(key, size);
                    return answer(201);
                }
                (Mounts::Granted, None) | (Mounts::Ignored, _) => {}
            }
        }
        state.numbers += 1;
        let id = state.numbers;
        let session = Session {
            repository: repository.to_owned(),
            hash: Sha256::new(),
            bytes: 0,
            location: 0,
        };
        state.sessions.insert(id, session);
        drop(state);
        let begun = self.located(202, id);
        match self.behaviour.chunk_bytes_min {
            0 => begun,
            least => with(
                begun,
                &HeaderName::from_static("oci-chunk-min-length"),
                &least.to_string(),
            ),
        }
    }

    /// Returns whether a request came to the latest location of its session, if there is such a session.
    fn find(
        &self,
        repository: &str,
        id: u64,
        parameters: &BTreeMap<String, String>,
    ) -> Option<bool> {
        let state = self.state();
        let session = state.sessions.get(&id);
        let session = session.filter(|it| it.repository == repository)?;
        let location = session.location.to_string();
        Some(parameters.get("_state") == Some(&location))
    }

    /// Answers with a new location of a session, and with what it holds.
    fn located(&self, status: u16, id: u64) -> Answer {
        let mut state = self.state();
        state.numbers += 1;
        let location = state.numbers;
        let Some(session) = state.sessions.get_mut(&id) else {
            return refusal(404, "BLOB_UPLOAD_UNKNOWN");
        };
        session.location = location;
        let path = format!(
            "/v2/{}/blobs/uploads/{id}?_state={location}",
            session.repository
        );
        let range = format!("0-{}", session.bytes.saturating_sub(1));
        with(with(answer(status), &LOCATION, &path), &RANGE, &range)
    }

    async fn patch(
        &self,
        headers: &HeaderMap,
        id: u64,
        body: Incoming,
        index: usize,
    ) -> Result<Answer, BoxError> {
        let length = number(headers, &CONTENT_LENGTH);
        let range = text(headers, &CONTENT_RANGE).split_once('-');
        let range = range.and_then(|(first, last)| {
            Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?))
        });
        let (Some(length), Some((first, last))) = (length, range) else {
            let problem = format!("PATCH without its headers: {headers:?}");
            self.state().problems.push(problem);
            return Ok(refusal(400, "SIZE_INVALID"));
        };
        if text(headers, &CONTENT_TYPE) != "application/octet-stream" || last - first + 1 != length
        {
            let problem = format!("PATCH with wrong headers: {headers:?}");
            self.state().problems.push(problem);
            return Ok(refusal(400, "SIZE_INVALID"));
        }
        if self.held(id) != Some(first) {
            drop(body.collect().await);
            return Ok(refusal(416, "RANGE_INVALID"));
        }
        self.take(id, body, index).await?;
        Ok(self.located(202, id))
    }

    async fn put(
        &self,
        parameters: &BTreeMap<String, String>,
        id: u64,
        body: Incoming,
        index: usize,
    ) -> Result<Answer, BoxError> {
        self.take(id, body, index).await?;
        let mut state = self.state();
        let Some(session) = state.sessions.remove(&id) else {
            return Ok(refusal(404, "BLOB_UPLOAD_UNKNOWN"));
        };
        let found = Digest::from_bytes(session.hash.finalize().into()).to_string();
        if parameters.get("digest") != Some(&found) {
            return Ok(refusal(400, "DIGEST_INVALID"));
        }
        let key = (session.repository, found);
        state.blobs.insert(key, session.bytes);
        Ok(answer(201))
    }

    /// Takes a body as far as it comes.
    async fn take(&self, id: u64, body: Incoming, index: usize) -> Result<(), BoxError> {
        let mut coming = Coming::new(self, id);
        self.take_frames(id, body, index).await?;
        coming.is_whole = true;
        Ok(())
    }

    async fn take_frames(&self, id: u64, mut body: Incoming, index: usize) -> Result<(), BoxError> {
        let start = self.held(id).unwrap_or_default();
        let mut taken = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            let count = data.len() as u64;
            self.append(id, start + taken, &data, index)?;
            taken += count;
            self.bytes.send_modify(|bytes| *bytes += count);
            let received = *self.bytes.borrow();
            let mut bytes_max = self.bytes_max.subscribe();
            drop(bytes_max.wait_for(|max| received < *max).await?);
        }
        Ok(())
    }

    /// Adds to a session what belongs at this offset.
    fn append(&self, id: u64, offset: u64, data: &[u8], index: usize) -> Result<(), BoxError> {
        let mut state = self.state();
        let Some(session) = state.sessions.get_mut(&id) else {
            return Err("the session is gone".into());
        };
        if session.bytes != offset {
            return Err("somebody else writes to the session".into());
        }
        let count = data.len() as u64;
        session.hash.update(data);
        session.bytes += count;
        if let Some(received) = state.received.get_mut(index) {
            received.bytes += count;
        }
        Ok(())
    }

    fn held(&self, id: u64) -> Option<u64> {
        self.state().sessions.get(&id).map(|session| session.bytes)
    }

    fn manifest(&self, key: &(String, String)) -> Answer {
        let state = self.state();
        let Some((media_type, bytes)) = state.manifests.get(key) else {
            return refusal(404, "MANIFEST_UNKNOWN");
        };
        let digest = Digest::of(bytes).to_string();
        let found = Response::new(Full::new(bytes.clone()));
        let digest_header = HeaderName::from_static("docker-content-digest");
        with(
            with(found, &CONTENT_TYPE, media_type),
            &digest_header,
            &digest,
        )
    }

    fn put_manifest(&self, key: (String, String), media_type: String, bytes: Bytes) -> Answer {
        let mut state = self.state();
        let Ok(document) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
            return refusal(400, "MANIFEST_INVALID");
        };
        let repository = &key.0;
        let mut needed: Vec<&serde_json::Value> = Vec::new();
        for list in ["layers", "manifests"] {
            needed.extend(document[list].as_array().into_iter().flatten());
        }
        needed.extend(document.get("config"));
        for descriptor in needed {
            let digest = descriptor["digest"].as_str().unwrap_or_default().to_owned();
            let it = (repository.clone(), digest);
            if !state.blobs.contains_key(&it) && !state.manifests.contains_key(&it) {
                return refusal(400, "MANIFEST_BLOB_UNKNOWN");
            }
        }
        let digest = Digest::of(&bytes).to_string();
        let by_digest = (repository.clone(), digest.clone());
        state
            .manifests
            .insert(by_digest, (media_type.clone(), bytes.clone()));
        state.manifests.insert(key, (media_type, bytes));
        let digest_header = HeaderName::from_static("docker-content-digest");
        with(answer(201), &digest_header, &digest)
    }
}
