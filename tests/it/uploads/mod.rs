//! Uploads that are cut: by the network, by a limit, by the end of the process.

mod killed;
mod limits;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use tempfile::TempDir;
use tokio::sync::watch;
use violetd::base::oci::Descriptor;
use violetd::base::{Class, Classified as _, Digest, Repository, Secret};
use violetd::registry::{
    BlobSource, Client, Error, Mount, NoUploads, Options, Unfinished, Uploaded, Uploads,
};

use crate::support::{
    Auth, Behaviour, Distribution, Fault, Keeps, Mounts, Proxy, Received, Scripted, TestRegistry,
    on, within,
};

const MIB: u64 = 1 << 20;
/// From this size on blobs go in chunks, which have this size at first.
const CHUNK_BYTES: u64 = 64 * MIB;
/// Larger than what the kernel buffers on both sides of two connections.
const BUFFERED_BYTES: u64 = 24 * MIB;

/// A blob in a sparse file with something at its start and its end.
struct Blob {
    _dir: TempDir,
    path: PathBuf,
    descriptor: Descriptor,
}

impl Blob {
    fn new(size_bytes: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("blob");
        let mut file = File::create_new(&path).unwrap();
        file.set_len(size_bytes).unwrap();
        let start = &b"first"[..usize::try_from(size_bytes.min(5)).unwrap()];
        file.write_all(start).unwrap();
        // One mark for each MiB, so that parts in the wrong order are noticed.
        for index in 1..size_bytes / MIB {
            file.seek(SeekFrom::Start(index * MIB)).unwrap();
            file.write_all(&index.to_be_bytes()).unwrap();
        }
        let descriptor = Descriptor {
            media_type: "application/octet-stream".to_owned(),
            digest: digest_of(&path),
            size_bytes,
        };
        Self {
            _dir: dir,
            path,
            descriptor,
        }
    }

    fn source(&self) -> BlobSource {
        let path = self.path.clone();
        Arc::new(move || File::open(&path))
    }

    async fn upload(
        &self,
        client: &Client,
        mount: Mount<'_>,
        uploads: &dyn Uploads,
    ) -> Result<Uploaded, Error> {
        let (repository, source) = (repository(), self.source());
        let uploading = client.upload_blob(&repository, &self.descriptor, &source, mount, uploads);
        within("the upload", uploading).await
    }

    /// Returns its size at the registry, in bytes, if it is there.
    async fn found(&self, client: &Client) -> Option<u64> {
        client
            .find_blob(&repository(), &self.descriptor.digest)
            .await
            .unwrap()
    }

    /// Asserts that it was sent, and returns how many bytes that took and how many were there from before.
    async fn send(&self, client: &Client, uploads: &dyn Uploads) -> (u64, u64) {
        match self.upload(client, Mount::No, uploads).await.unwrap() {
            Uploaded::Sent {
                bytes,
                resumed_bytes,
            } => (bytes, resumed_bytes),
            other @ (Uploaded::Mounted | Uploaded::Present) => panic!("{other:?}"),
        }
    }
}

fn digest_of(path: &PathBuf) -> Digest {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    let mut file = File::open(path).unwrap();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return Digest::from_bytes(hash.finalize().into()),
            count => hash.update(&piece[..count]),
        }
    }
}

fn repository() -> Repository {
    "a".parse().unwrap()
}

/// What a process that dies leaves behind.
#[derive(Debug, Default)]
struct Notes {
    rows: Mutex<BTreeMap<(Repository, Digest), Unfinished>>,
    /// The furthest offset of all of them.
    furthest: watch::Sender<u64>,
}

impl Notes {
    fn len(&self) -> usize {
        self.rows.lock().unwrap().len()
    }

    /// Waits until a registry has so many bytes of a blob.
    async fn wait_for_offset(&self, bytes: u64) {
        let mut furthest = self.furthest.subscribe();
        let waiting = furthest.wait_for(|furthest| *furthest >= bytes);
        drop(within("the upload", waiting).await.unwrap());
    }
}

impl Uploads for Notes {
    fn find(&self, repository: &Repository, digest: &Digest) -> Option<Unfinished> {
        let key = (repository.clone(), *digest);
        self.rows.lock().unwrap().get(&key).cloned()
    }

    fn put(&self, repository: &Repository, digest: &Digest, upload: &Unfinished) {
        let key = (repository.clone(), *digest);
        self.rows.lock().unwrap().insert(key, upload.clone());
        self.furthest
            .send_modify(|it| *it = upload.offset_bytes.max(*it));
    }

    fn remove(&self, repository: &Repository, digest: &Digest) {
        let key = (repository.clone(), *digest);
        self.rows.lock().unwrap().remove(&key);
    }
}

fn methods(requests: &[Received]) -> Vec<&str> {
    requests.iter().map(|it| it.method.as_str()).collect()
}

/// Returns the sizes of the requests with a method, in MiB.
fn sizes(requests: &[Received], method: &Method) -> Vec<u64> {
    let requests = requests.iter().filter(|it| it.method == *method);
    requests.map(|it| it.bytes / MIB).collect()
}

/// Counts the sessions of repository `a` that hold content. The registry (2.8) leaves an empty folder of one that was
/// given up.
fn unfinished_uploads(registry: &TestRegistry) -> usize {
    let uploads = "docker/registry/v2/repositories/a/_uploads";
    let sessions = std::fs::read_dir(registry.storage().join(uploads)).unwrap();
    sessions
        .filter(|session| session.as_ref().unwrap().path().join("data").exists())
        .count()
}

/// Starts an upload and drops it, as the end of a process does, once the registry has this much.
async fn kill_after(
    bytes: u64,
    blob: &Blob,
    client: &Client,
    server: &Distribution,
    notes: &Notes,
) {
    server.hold_at(bytes);
    let uploading = blob.upload(client, Mount::No, notes);
    tokio::select! {
        uploaded = uploading => panic!("expected the upload to be killed, found {uploaded:?}"),
        () = server.wait_for_bytes(bytes) => {}
    }
    server.release();
    server.wait_until_idle().await;
}

/// Returns a client that knows already how the registry wants to be told who asks.
async fn connect(options: Options) -> Client {
    let client = Client::new(options).unwrap();
    client.check().await.unwrap();
    client
}

/// Returns a client of `server` that talks to a proxy before it.
async fn connect_via(proxy: &Proxy, server: &Distribution) -> Client {
    let mut options = server.options();
    options.address = proxy.address().to_string();
    let client = connect(options).await;
    server.take_received();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_blob_costs_two_requests_and_a_large_one_two_and_its_chunks() {
    let server = Distribution::start().await;
    let client = Client::new(server.options()).unwrap();
    let notes = Notes::default();
    client.check().await.unwrap();
    for (size_bytes, expected) in [
        (0, vec!["POST", "PUT"]),
        (CHUNK_BYTES / 2, vec!["POST", "PUT"]),
        (CHUNK_BYTES, vec!["POST", "PATCH", "PUT"]),
        (CHUNK_BYTES + 1, vec!["POST", "PATCH", "PATCH", "PUT"]),
    ] {
        server.take_received();
        let blob = Blob::new(size_bytes);
        assert_eq!(blob.send(&client, &notes).await, (size_bytes, 0));
        assert_eq!(methods(&server.take_received()), expected, "{size_bytes}");
        assert_eq!(server.blob("a", &blob.descriptor.digest), Some(size_bytes));
    }
    assert_eq!((server.sessions(), notes.len()), (0, 0));
    assert_eq!(client.counters().retries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_keeps_what_was_cut_gets_the_rest_and_from_then_on_all_at_once() {
    let server = Distribution::start().await;
    let proxy = Proxy::start(server.address());
    let client = connect_via(&proxy, &server).await;
    let blob = Blob::new(3 * CHUNK_BYTES);
    proxy.break_next(Method::PATCH, Fault::CutAfter(40 * MIB));
    let (bytes, resumed_bytes) = blob.send(&client, &NoUploads).await;
    // A server that is asked before it has noticed the cut refuses the chunk that follows, and is asked again.
    assert!(bytes <= 4 * CHUNK_BYTES + BUFFERED_BYTES, "{bytes}");
    assert_eq!(resumed_bytes, 0);
    assert_eq!(server.received_bytes(), 3 * CHUNK_BYTES);
    let requests = server.take_received();
    let posts = requests.iter().filter(|it| it.method == Method::POST);
    assert_eq!(posts.count(), 1, "{requests:?}");
    Blob::new(2 * CHUNK_BYTES).send(&client, &NoUploads).await;
    let requests = server.take_received();
    assert_eq!(sizes(&requests, &Method::PATCH), [128]);
    assert_eq!(server.sessions(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_loses_what_was_cut_gets_it_again_in_smaller_chunks() {
    let behaviour = Behaviour {
        keeps: Keeps::Nothing,
        ..Behaviour::default()
    };
    let server = Distribution::start_as(behaviour).await;
    let proxy = Proxy::start(server.address());
    let client = connect_via(&proxy, &server).await;
    let notes = Notes::default();
    let blob = Blob::new(2 * CHUNK_BYTES);
    proxy.break_next(Method::PATCH, Fault::CutAfter(40 * MIB));
    blob.send(&client, &notes).await;
    let requests = server.take_received();
    let posts = requests.iter().filter(|it| it.method == Method::POST);
    assert_eq!(posts.count(), 2, "{requests:?}");
    let sizes = sizes(&requests, &Method::PATCH);
    assert_eq!(sizes[sizes.len() - 4..], [32; 4], "{requests:?}");
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_registry_gets_again_what_it_loses_and_goes_on_between_chunks() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let methods = |proxy: &Proxy| -> Vec<String> {
        let requests = proxy.take_requests();
        let methods = requests.iter().map(|it| it.split(' ').next().unwrap());
        methods.map(str::to_owned).collect()
    };
    let client = connect(registry.options_via(proxy.address())).await;
    methods(&proxy);
    let (blob, notes) = (Blob::new(2 * CHUNK_BYTES), Notes::default());
    proxy.break_next(Method::PATCH, Fault::Delay(Duration::ZERO));
    proxy.break_next(Method::PATCH, Fault::Refuse);
    let (bytes, _) = blob.send(&client, &notes).await;
    assert!(bytes <= 2 * CHUNK_BYTES + BUFFERED_BYTES, "{bytes}");
    assert_eq!(proxy.uploaded_bytes(), 2 * CHUNK_BYTES);
    let expected = ["POST", "PATCH", "PATCH", "GET", "PATCH", "PUT"];
    assert_eq!(methods(&proxy), expected);

    let client = connect(registry.options_via(proxy.address())).await;
    methods(&proxy);
    let other = Blob::new(2 * CHUNK_BYTES + 1);
    proxy.break_next(Method::PATCH, Fault::CutAfter(40 * MIB));
    other.send(&client, &notes).await;
    let expected = [
        "POST", "PATCH", "GET", "POST", "PATCH", "PATCH", "PATCH", "PATCH", "PATCH", "PUT",
    ];
    assert_eq!(methods(&proxy), expected);
    for blob in [&blob, &other] {
        assert_eq!(blob.found(&client).await, Some(blob.descriptor.size_bytes));
    }
    assert_eq!(notes.len(), 0);
    // What was cut in the middle of a chunk: no request to it is answered, that to delete it included.
    assert_eq!(unfinished_uploads(&registry), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_cannot_go_on_now_waits_for_the_next_run_and_one_that_never_can_is_given_up()
{
    let server = Distribution::start().await;
    let proxy = Proxy::start(server.address());
    let client = connect_via(&proxy, &server).await;
    let (blob, notes) = (Blob::new(2 * CHUNK_BYTES), Notes::default());
    proxy.break_next(Method::PATCH, Fault::Delay(Duration::ZERO));
    for method in [Method::PATCH, Method::GET] {
        for _ in 0..4 {
            proxy.break_next(method.clone(), Fault::Refuse);
        }
    }
    let error = blob.upload(&client, Mount::No, &notes).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert_eq!((server.sessions(), notes.len()), (1, 1));
    let left = notes.find(&repository(), &blob.descriptor.digest).unwrap();
    client.cancel_upload(&repository(), &left).await.unwrap();
    assert_eq!(server.sessions(), 0);
    // Once more is a success.
    client.cancel_upload(&repository(), &left).await.unwrap();

    let direct = Client::new(server.options()).unwrap();
    let mut truncated = Blob::new(2 * CHUNK_BYTES);
    truncated.descriptor.size_bytes += 1;
    let notes = Notes::default();
    let error = truncated.upload(&direct, Mount::No, &notes).await;
    assert!(matches!(error, Err(Error::SourceSize { .. })), "{error:?}");
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_that_finds_more_there_earns_further_attempts() {
    let server = Distribution::start().await;
    let proxy = Proxy::start(server.address());
    assert_eq!(server.options().retries.attempts_max, 4);
    let client = connect_via(&proxy, &server).await;
    let blob = Blob::new(4 * CHUNK_BYTES);
    for _ in 0..12 {
        proxy.break_next(Method::PATCH, Fault::CutAfter(16 * MIB));
    }
    let (bytes, _) = blob.send(&client, &NoUploads).await;
    assert!(bytes >= 4 * CHUNK_BYTES, "{bytes}");
    assert_eq!(server.received_bytes(), 4 * CHUNK_BYTES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_whose_last_answer_was_lost_is_not_sent_again() {
    let size_bytes = CHUNK_BYTES;
    let blob = Blob::new(size_bytes);
    let digest = blob.descriptor.digest;
    let encoded = digest.to_string().replace(':', "%3A");
    let server = Scripted::start(vec![
        on("POST", "/v2/a/blobs/uploads/")
            .answer(202)
            .header("location", "/v2/a/blobs/uploads/7"),
        on("PATCH", "/v2/a/blobs/uploads/7")
            .answer(202)
            .header("location", "/v2/a/blobs/uploads/7?_state=x")
            .header("range", format!("0-{}", size_bytes - 1)),
        on(
            "PUT",
            format!("/v2/a/blobs/uploads/7?_state=x&digest={encoded}"),
        )
        .hang_up(),
        on("HEAD", format!("/v2/a/blobs/{digest}"))
            .header("content-length", size_bytes.to_string()),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let notes = Notes::default();
    assert_eq!(blob.send(&client, &notes).await, (size_bytes, 0));
    assert_eq!(notes.len(), 0);
    let patch = &server.finish()[1];
    assert_eq!(
        patch.header("content-range"),
        format!("0-{}", size_bytes - 1)
    );
    assert_eq!(patch.header("content-length"), size_bytes.to_string());
    assert_eq!(patch.header("content-type"), "application/octet-stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_does_not_follow_is_sent_from_where_the_registry_is() {
    let blob = Blob::new(CHUNK_BYTES + 5);
    let digest = blob.descriptor.digest.to_string().replace(':', "%3A");
    let at = |state: &str| format!("/v2/a/blobs/uploads/7?_state={state}");
    let server = Scripted::start(vec![
        on("POST", "/v2/a/blobs/uploads/")
            .answer(202)
            .header("location", at("1")),
        on("PATCH", at("1")).answer(416),
        on("GET", at("1"))
            .answer(204)
            .header("location", at("2"))
            .header("range", format!("0-{}", CHUNK_BYTES - 1)),
        on("PATCH", at("2")).answer(202).header("location", at("3")),
        on("PUT", format!("{}&digest={digest}", at("3"))).answer(201),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    assert_eq!(blob.send(&client, &NoUploads).await, (CHUNK_BYTES + 5, 0));
    let patch = &server.finish()[3];
    let expected = format!("{CHUNK_BYTES}-{}", CHUNK_BYTES + 4);
    assert_eq!(patch.header("content-range"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_asks_for_a_blob_and_begins_its_upload() {
    let server = Distribution::start().await;
    let client = connect(server.options()).await;
    let blob = Blob::new(5);
    server.take_received();
    let expected = [
        Uploaded::Sent {
            bytes: 5,
            resumed_bytes: 0,
        },
        Uploaded::Present,
    ];
    for expected in expected {
        let uploaded = blob.upload(&client, Mount::Itself, &NoUploads).await;
        assert_eq!(uploaded.unwrap(), expected);
    }
    assert_eq!(methods(&server.take_received()), ["POST", "PUT", "POST"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_does_not_mount_is_asked_otherwise_after_three_times() {
    let from: Repository = "b".parse().unwrap();
    for (mounts, wasted) in [(Mounts::Ignored, 0), (Mounts::Refused, 3)] {
        let behaviour = Behaviour {
            mounts,
            ..Behaviour::default()
        };
        let server = Distribution::start_as(behaviour).await;
        let client = connect(server.options()).await;
        server.take_received();
        let blobs: Vec<Blob> = (1..=5).map(Blob::new).collect();
        for blob in &blobs {
            blob.upload(&client, Mount::From(&from), &NoUploads)
                .await
                .unwrap();
        }
        let requests = server.take_received();
        let asked = requests.iter().filter(|it| it.target.contains("mount="));
        assert_eq!(asked.count(), 3, "{requests:?}");
        assert_eq!(requests.len(), 2 * blobs.len() + wasted);
        // It does not say of itself either what it has.
        let uploaded = blobs[0].upload(&client, Mount::Itself, &NoUploads).await;
        assert_eq!(uploaded.unwrap(), Uploaded::Present);
        assert_eq!(methods(&server.take_received()), ["HEAD"]);
        assert_eq!(server.sessions(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_down_cannot_be_printed() {
    let upload = Unfinished {
        url: Secret::new("http://registry.example/v2/a/blobs/uploads/7?_state=x".to_owned()),
        offset_bytes: 1,
        size_bytes: 2,
        begun_at: "2026-11-21T00:00:00Z".parse().unwrap(),
    };
    assert!(!format!("{upload:?}").contains("_state"));
}
