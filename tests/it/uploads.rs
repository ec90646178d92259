//! Uploads that are cut: by the network, by a limit, by the end of the process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use tempfile::TempDir;
use violetd::base::oci::Descriptor;
use violetd::base::{Class, Classified as _, Digest, Repository, Secret};
use violetd::registry::{
    BlobSource, Client, Error, Mount, NoUploads, Options, Unfinished, Uploaded, Uploads,
};

use crate::support::{
    Auth, Behaviour, Distribution, Fault, Keeps, Mounts, Proxy, Received, Scripted, TestRegistry,
    on, run, within, write,
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
        file.write_all(b"first").unwrap();
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
            other => panic!("{other:?}"),
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
struct Notes(Mutex<BTreeMap<(Repository, Digest), Unfinished>>);

impl Notes {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Uploads for Notes {
    fn find(&self, repository: &Repository, digest: &Digest) -> Option<Unfinished> {
        let key = (repository.clone(), *digest);
        self.0.lock().unwrap().get(&key).cloned()
    }

    fn put(&self, repository: &Repository, digest: &Digest, upload: &Unfinished) {
        let key = (repository.clone(), *digest);
        self.0.lock().unwrap().insert(key, upload.clone());
    }

    fn remove(&self, repository: &Repository, digest: &Digest) {
        let key = (repository.clone(), *digest);
        self.0.lock().unwrap().remove(&key);
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

/// Starts an upload and drops it, as the end of a process does, once the registry has this much.
async fn kill_after(
    bytes: u64,
    blob: &Blob,
    client: &Client,
    server: &Distribution,
    notes: &Notes,
) {
    let uploading = blob.upload(client, Mount::No, notes);
    tokio::select! {
        uploaded = uploading => panic!("expected the upload to be killed, found {uploaded:?}"),
        () = server.wait_for_bytes(bytes) => {}
    }
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
    let proxy = Proxy::start(server.address()).await;
    let client = connect_via(&proxy, &server).await;
    let blob = Blob::new(3 * CHUNK_BYTES);
    proxy.break_next(Method::PATCH, Fault::CutAfter(40 * MIB));
    let (bytes, resumed_bytes) = blob.send(&client, &NoUploads).await;
    assert!(bytes <= 3 * CHUNK_BYTES + BUFFERED_BYTES, "{bytes}");
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
    let proxy = Proxy::start(server.address()).await;
    let client = connect_via(&proxy, &server).await;
    let notes = Notes::default();
    let blob = Blob::new(2 * CHUNK_BYTES);
    proxy.break_next(Method::PATCH, Fault::CutAfter(40 * MIB));
    blob.send(&client, &notes).await;
    let requests = server.take_received();
    assert_eq!(
        methods(&requests),
        [
            "POST", "PATCH", "GET", "POST", "PATCH", "PATCH", "PATCH", "PATCH", "PUT"
        ]
    );
    assert_eq!(sizes(&requests, &Method::PATCH)[1..], [32; 4]);
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_registry_gets_again_what_it_loses_and_goes_on_between_chunks() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address()).await;
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
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_goes_on_where_the_registry_is() {
    let server = Distribution::start().await;
    let (blob, notes) = (Blob::new(4 * CHUNK_BYTES), Notes::default());
    let size_bytes = blob.descriptor.size_bytes;
    for share in [10, 50, 90] {
        let client = Client::new(server.options()).unwrap();
        kill_after(size_bytes * share / 100, &blob, &client, &server, &notes).await;
        assert_eq!((server.sessions(), notes.len()), (1, 1));
    }
    let client = connect(server.options()).await;
    server.take_received();
    let (bytes, resumed_bytes) = blob.send(&client, &notes).await;
    assert!(resumed_bytes >= size_bytes * 9 / 10, "{resumed_bytes}");
    assert_eq!(bytes + resumed_bytes, size_bytes);
    assert_eq!(client.counters().bytes_resumed, resumed_bytes);
    assert_eq!(server.received_bytes(), size_bytes);
    assert_eq!(methods(&server.take_received()), ["GET", "PATCH", "PUT"]);
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_goes_on_with_a_small_blob_too() {
    let server = Distribution::start().await;
    let (blob, notes) = (Blob::new(CHUNK_BYTES / 2), Notes::default());
    let client = Client::new(server.options()).unwrap();
    kill_after(4 * MIB, &blob, &client, &server, &notes).await;
    let client = Client::new(server.options()).unwrap();
    let (bytes, resumed_bytes) = blob.send(&client, &notes).await;
    assert!(resumed_bytes >= 4 * MIB, "{resumed_bytes}");
    assert_eq!(bytes + resumed_bytes, CHUNK_BYTES / 2);
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_registry_has_forgotten_is_begun_anew() {
    let server = Distribution::start().await;
    let (blob, notes) = (Blob::new(2 * CHUNK_BYTES), Notes::default());
    let client = Client::new(server.options()).unwrap();
    kill_after(CHUNK_BYTES, &blob, &client, &server, &notes).await;
    server.purge();
    let client = connect(server.options()).await;
    server.take_received();
    assert_eq!(
        blob.send(&client, &notes).await,
        (blob.descriptor.size_bytes, 0)
    );
    assert_eq!(
        methods(&server.take_received()),
        ["GET", "POST", "PATCH", "PATCH", "PUT"]
    );
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_were_joined_wrongly_are_sent_once_more_and_are_no_damage() {
    let server = Distribution::start().await;
    let (blob, notes) = (Blob::new(2 * CHUNK_BYTES), Notes::default());
    let client = Client::new(server.options()).unwrap();
    kill_after(CHUNK_BYTES, &blob, &client, &server, &notes).await;
    server.garble();
    let client = Client::new(server.options()).unwrap();
    let (bytes, _) = blob.send(&client, &notes).await;
    assert!(bytes >= blob.descriptor.size_bytes, "{bytes}");
    assert_eq!((server.sessions(), notes.len()), (0, 0));

    // Without a failure in between it is what was sent that is wrong.
    let mut wrong = Blob::new(CHUNK_BYTES);
    wrong.descriptor.digest = Digest::of(b"another");
    let error = wrong.upload(&client, Mount::No, &notes).await.unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_was_mounted_meanwhile_leaves_no_session() {
    let server = Distribution::start().await;
    let (blob, notes) = (Blob::new(2 * CHUNK_BYTES), Notes::default());
    let client = Client::new(server.options()).unwrap();
    kill_after(CHUNK_BYTES, &blob, &client, &server, &notes).await;
    let (from, source): (Repository, _) = ("b".parse().unwrap(), blob.source());
    let uploading = client.upload_blob(&from, &blob.descriptor, &source, Mount::No, &notes);
    within("the upload", uploading).await.unwrap();
    assert_eq!((server.sessions(), notes.len()), (1, 1));
    let mounting = blob.upload(&client, Mount::From(&from), &notes).await;
    assert_eq!(mounting.unwrap(), Uploaded::Mounted);
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_cannot_go_on_now_waits_for_the_next_run_and_one_that_never_can_is_given_up()
{
    let server = Distribution::start().await;
    let proxy = Proxy::start(server.address()).await;
    let client = connect_via(&proxy, &server).await;
    let (blob, notes) = (Blob::new(2 * CHUNK_BYTES), Notes::default());
    proxy.break_next(Method::PATCH, Fault::Delay(Duration::ZERO));
    for method in [Method::PATCH, Method::GET, Method::DELETE] {
        for _ in 0..4 {
            proxy.break_next(method.clone(), Fault::Refuse);
        }
    }
    let error = blob.upload(&client, Mount::No, &notes).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert_eq!((server.sessions(), notes.len()), (1, 1));
    let direct = Client::new(server.options()).unwrap();
    let left = notes.find(&repository(), &blob.descriptor.digest).unwrap();
    direct.cancel_upload(&repository(), &left).await.unwrap();
    assert_eq!(server.sessions(), 0);
    // Once more is a success.
    direct.cancel_upload(&repository(), &left).await.unwrap();

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
    let proxy = Proxy::start(server.address()).await;
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
async fn a_limit_on_bodies_is_found_once_and_kept_to() {
    let behaviour = Behaviour {
        body_bytes_max: 10 * MIB,
        ..Behaviour::default()
    };
    let server = Distribution::start_as(behaviour).await;
    let client = Client::new(server.options()).unwrap();
    let notes = Notes::default();
    Blob::new(32 * MIB).send(&client, &notes).await;
    let requests = server.take_received();
    let refused = requests.iter().filter(|it| it.status == 413).count();
    assert_eq!(refused, 2, "{requests:?}");
    for size_bytes in [9 * MIB, 2 * CHUNK_BYTES] {
        Blob::new(size_bytes).send(&client, &notes).await;
    }
    let requests = server.take_received();
    assert!(requests.iter().all(|it| it.status != 413), "{requests:?}");
    assert_eq!(sizes(&requests, &Method::PATCH)[..3], [8, 1, 8]);
    assert_eq!((server.sessions(), notes.len()), (0, 0));
    assert_eq!(client.counters().retries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_as_large_as_the_registry_wants_them() {
    let behaviour = Behaviour {
        chunk_bytes_min: 100 * MIB,
        ..Behaviour::default()
    };
    let server = Distribution::start_as(behaviour).await;
    let client = Client::new(server.options()).unwrap();
    Blob::new(250 * MIB).send(&client, &NoUploads).await;
    let requests = server.take_received();
    assert_eq!(sizes(&requests, &Method::PATCH), [100, 100, 50]);
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

/// nginx as it stands before registries: it refuses bodies for their size.
struct Nginx {
    server: Child,
    port: u16,
    _dir: TempDir,
}

impl Nginx {
    fn start(upstream: std::net::SocketAddr, body_max: &str) -> Self {
        let dir = TempDir::new().unwrap();
        // Whoever takes it in the meantime makes nginx end and the test fail.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let path = dir.path().join("nginx.conf");
        let root = dir.path().display();
        let configuration = format!(
            "user root; daemon off; pid {root}/pid; error_log {root}/error.log; worker_processes 1;\n\
             events {{}}\n\
             http {{\n  access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n  \
             fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n  \
             server {{ listen 127.0.0.1:{port}; client_max_body_size {body_max};\n    \
             location / {{ proxy_pass http://{upstream}; proxy_set_header Host $http_host; }} }}\n}}\n"
        );
        write(&path, configuration);
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-e").arg(dir.path().join("error.log"));
        command.arg("-c").arg(&path).stdout(Stdio::null());
        // Says what is wrong with the configuration, if anything is.
        run(
            "nginx-light",
            Command::new("/usr/sbin/nginx")
                .arg("-t")
                .arg("-c")
                .arg(&path)
                .arg("-e")
                .arg(dir.path().join("error.log")),
        );
        Self {
            server: command.spawn().unwrap(),
            port,
            _dir: dir,
        }
    }

    fn options(&self, options: Options) -> Options {
        let mut options = options;
        options.address = format!("127.0.0.1:{}", self.port);
        // It may not listen yet.
        options.retries.attempts_max = 1000;
        options
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_any_size_pass_a_real_proxy_that_caps_bodies() {
    let registry = TestRegistry::start(Auth::None);
    let nginx = Nginx::start(registry.address(), "10m");
    let client = Client::new(nginx.options(registry.options())).unwrap();
    let notes = Notes::default();
    for size_bytes in [40 * MIB, 2 * CHUNK_BYTES] {
        let blob = Blob::new(size_bytes);
        blob.send(&client, &notes).await;
        assert_eq!(blob.found(&client).await, Some(size_bytes));
    }
    assert_eq!(notes.len(), 0);
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
