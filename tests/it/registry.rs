//! The registry client against the real docker-registry.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use hyper::Method;
use hyper::body::Bytes;
use tempfile::TempDir;
use violetd::base::oci::{Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST};
use violetd::base::{
    Chain, Class, Classified as _, Clock as _, Digest, ManualClock, Repository, Secret,
    SystemClock, Tag,
};
use violetd::registry::{
    BlobSource, CertificateProblem, Client, Counters, Credentials, Error, ManifestReference, Mount,
    NoUploads, Options, Timeouts, Transport, Trust, Uploaded, Verification,
};

use crate::support::{
    Access, Auth, Authority, Fault, Proxy, TestRegistry, TokenServer, USERNAME, within,
};

/// Larger than what the kernel buffers on both sides of a connection, so that a fault in the middle is in the middle.
const LARGE_BYTES: usize = 24 << 20;
const HOUR: Duration = Duration::from_hours(1);

/// A blob in a file, as the store has it.
struct Blob {
    dir: TempDir,
    descriptor: Descriptor,
    bytes: Bytes,
}

impl Blob {
    fn new(seed: u8, size_bytes: usize) -> Self {
        // Not periodic in the size of a piece, so that pieces in the wrong order are noticed.
        let bytes: Bytes = (0..size_bytes)
            .map(|index| seed.wrapping_add(u8::try_from(index % 251).unwrap()))
            .collect();
        let dir = TempDir::new().unwrap();
        File::create(dir.path().join("blob"))
            .unwrap()
            .write_all(&bytes)
            .unwrap();
        Self {
            dir,
            descriptor: Descriptor::of(MEDIA_TYPE_CONFIG, &bytes),
            bytes,
        }
    }

    fn source(&self) -> BlobSource {
        let path = self.dir.path().join("blob");
        Arc::new(move || File::open(&path))
    }

    fn digest(&self) -> &Digest {
        &self.descriptor.digest
    }

    fn sent(&self) -> Uploaded {
        Uploaded::Sent {
            bytes: self.descriptor.size_bytes,
            resumed_bytes: 0,
        }
    }

    async fn upload(&self, client: &Client, to: &Repository) -> Result<Uploaded, Error> {
        let source = self.source();
        let uploading = client.upload_blob(to, &self.descriptor, &source, Mount::No, &NoUploads);
        within("the upload", uploading).await
    }
}

/// Returns a manifest with one blob as its configuration and its only layer.
fn manifest_of(blob: &Blob) -> Bytes {
    let descriptor = serde_json::to_value(&blob.descriptor).unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "config": descriptor,
        "layers": [descriptor],
    });
    manifest.to_string().into()
}

fn repository(name: &str) -> Repository {
    name.parse().unwrap()
}

fn tag(text: &str) -> ManifestReference {
    ManifestReference::Tag(text.parse().unwrap())
}

async fn put(client: &Client, to: &Repository, name: &str, bytes: Bytes) -> Result<(), Error> {
    client
        .put_manifest(to, &tag(name), MEDIA_TYPE_MANIFEST, bytes)
        .await
}

fn describe(error: &Error) -> String {
    Chain(error).to_string()
}

/// Pushes an image, finds it, reads it back, mounts its blob elsewhere, and asks for what is not there.
pub(crate) async fn push_mount_and_pull(options: Options) -> Counters {
    let client = Client::new(options).unwrap();
    let (first, second) = (repository("a/first"), repository("b/second"));
    let blob = Blob::new(1, 700_000);
    let manifest = manifest_of(&blob);
    client.check().await.unwrap();

    assert_eq!(client.find_blob(&first, blob.digest()).await.unwrap(), None);
    assert_eq!(blob.upload(&client, &first).await.unwrap(), blob.sent());
    assert_eq!(
        client.find_blob(&first, blob.digest()).await.unwrap(),
        Some(700_000)
    );
    put(&client, &first, "v1", manifest.clone()).await.unwrap();

    let found = client.find_manifest(&first, &tag("v1")).await.unwrap();
    let expected = Descriptor::of(MEDIA_TYPE_MANIFEST, &manifest);
    assert_eq!(found, Some(expected.clone()));
    for reference in [tag("v1"), ManifestReference::Digest(expected.digest)] {
        let read = client.get_manifest(&first, &reference).await.unwrap();
        assert_eq!(read, (expected.clone(), manifest.clone()));
    }
    let pieces: Vec<Bytes> = client
        .get_blob(&first, blob.digest())
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(pieces.concat(), blob.bytes);

    let source = blob.source();
    for (mount, expected) in [
        (Mount::From(&first), Uploaded::Mounted),
        (Mount::Itself, Uploaded::Present),
    ] {
        let uploading = client.upload_blob(&second, &blob.descriptor, &source, mount, &NoUploads);
        assert_eq!(uploading.await.unwrap(), expected);
    }
    put(&client, &second, "v2", manifest).await.unwrap();
    let tags: Vec<Tag> = client.list_tags(&second).await.unwrap();
    assert_eq!(tags, ["v2".parse().unwrap()]);

    let absent = client.find_manifest(&first, &tag("v9")).await.unwrap();
    assert_eq!(absent, None);
    let error = client.get_manifest(&first, &tag("v9")).await.unwrap_err();
    assert!(matches!(error, Error::Absent { .. }), "{error:?}");
    client.counters()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_pushed_mounted_and_pulled_anonymously() {
    let registry = TestRegistry::start(Auth::None);
    let counters = push_mount_and_pull(registry.options()).await;
    assert_eq!((counters.retries, counters.tokens), (0, 0));
    assert!(counters.bytes_sent > 700_000 && counters.bytes_sent < 710_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_pushed_mounted_and_pulled_with_a_password() {
    let registry = TestRegistry::start(Auth::Basic);
    let counters = push_mount_and_pull(registry.options()).await;
    assert_eq!((counters.retries, counters.tokens), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_pushed_mounted_and_pulled_with_tokens() {
    let tokens = TokenServer::start(HOUR).await;
    let registry = TestRegistry::start(Auth::Token(&tokens, &tokens.realm()));
    let counters = push_mount_and_pull(registry.options()).await;
    assert_eq!(counters.retries, 0);
    assert_eq!(counters.tokens, tokens.requests());
    // To be let in; to read `first`; to write it; to mount, which covers all that follows.
    let scopes: Vec<String> = tokens.scopes().iter().map(|list| list.join(" ")).collect();
    assert_eq!(
        scopes,
        [
            "",
            "repository:a/first:pull",
            "repository:a/first:pull,push",
            "repository:a/first:pull repository:b/second:pull,push",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relative_realm_is_a_path_of_the_registry() {
    let tokens = TokenServer::start(HOUR).await;
    let registry = TestRegistry::start(Auth::Token(&tokens, TokenServer::PATH));
    let routes = vec![("/auth/", tokens.address())];
    let proxy = Proxy::start_with_routes(registry.address(), routes);
    let counters = push_mount_and_pull(registry.options_via(proxy.address())).await;
    assert!(counters.tokens > 0);
    assert_eq!(counters.tokens, tokens.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_image_costs_one_request() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let client = Client::new(registry.options_via(proxy.address())).unwrap();
    let (repository, blob) = (repository("a"), Blob::new(2, 10));
    blob.upload(&client, &repository).await.unwrap();
    let manifest = manifest_of(&blob);
    put(&client, &repository, "v1", manifest).await.unwrap();
    proxy.take_requests();
    let found = client.find_manifest(&repository, &tag("v1")).await.unwrap();
    assert!(found.is_some());
    assert_eq!(proxy.take_requests(), ["HEAD /v2/a/manifests/v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_refreshed_before_they_expire() {
    let tokens = TokenServer::start(Duration::from_mins(10)).await;
    let registry = TestRegistry::start(Auth::Token(&tokens, &tokens.realm()));
    let start = SystemClock.now();
    let clock = Arc::new(ManualClock::new(start));
    let client = Client::with_clock(registry.options(), Arc::clone(&clock) as _).unwrap();
    let repository = repository("a");
    Blob::new(1, 10).upload(&client, &repository).await.unwrap();
    let before = tokens.requests();
    clock.set(start + Duration::from_secs(479));
    Blob::new(2, 10).upload(&client, &repository).await.unwrap();
    assert_eq!(tokens.requests(), before);
    clock.set(start + Duration::from_secs(481));
    Blob::new(3, 10).upload(&client, &repository).await.unwrap();
    assert_eq!(tokens.requests(), before + 1);
    assert_eq!(client.counters().retries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_has_expired_early_is_replaced_in_mid_run() {
    let tokens = TokenServer::start(HOUR).await;
    let registry = TestRegistry::start(Auth::Token(&tokens, &tokens.realm()));
    let client = Client::new(registry.options()).unwrap();
    let (repository, blob) = (repository("a"), Blob::new(1, 1 << 20));
    tokens.grant_stale_tokens(1);
    assert_eq!(
        blob.upload(&client, &repository).await.unwrap(),
        blob.sent()
    );
    assert_eq!(tokens.requests(), 2);
    assert_eq!(client.counters().retries, 0);

    // A registry that refuses every token is not asked for ever.
    tokens.grant_stale_tokens(u64::MAX);
    let other = Client::new(registry.options()).unwrap();
    let error = blob.upload(&other, &repository).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    assert_eq!(other.counters().tokens, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_denied_with_address_and_name() {
    let tokens = TokenServer::start(HOUR).await;
    let realm = tokens.realm();
    for auth in [Auth::Basic, Auth::Token(&tokens, &realm)] {
        let registry = TestRegistry::start(auth);
        let with = |credentials| Options {
            credentials,
            ..registry.options()
        };
        let wrong = Credentials {
            username: USERNAME.to_owned(),
            password: Secret::new("wrong horse".to_owned()),
        };
        let client = Client::new(with(Some(wrong))).unwrap();
        let error = client.check().await.unwrap_err();
        assert_eq!(error.class(), Class::Denied);
        let text = describe(&error);
        let address = registry.address();
        let start = format!("`{address}` refused user `admin`");
        assert!(text.starts_with(&start), "{auth:?}: {text}");
        assert!(!text.contains("horse"), "{text}");
        let hint = format!("check the user name and the password for `{address}`");
        assert_eq!(error.hint(), Some(hint));
        assert_eq!(client.counters().retries, 0);

        let anonymous = Client::new(with(None)).unwrap();
        let error = anonymous.check().await.unwrap_err();
        let start = format!("`{address}` refused anonymous access");
        assert!(describe(&error).starts_with(&start), "{auth:?}: {error:?}");
    }
}

/// A client for a registry with TLS whose certificate is for `registry.example`.
fn tls_options(registry: &TestRegistry, transport: Transport) -> Options {
    Options {
        address: format!("registry.example:{}", registry.address().port()),
        transport,
        connect_to: Some("127.0.0.1".to_owned()),
        ..registry.options()
    }
}

fn trusting(roots: Vec<Vec<u8>>, verification: Verification) -> Transport {
    Transport::Https(Trust {
        extra_roots: roots,
        verification,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_keeps_the_name_while_another_host_is_dialled() {
    let authority = Authority::new();
    let certificate = authority.issue("registry.example");
    let registry = TestRegistry::build(Auth::Basic).tls(&certificate).start();
    let trust = trusting(vec![authority.pem()], Verification::Full);
    push_mount_and_pull(tls_options(&registry, trust)).await;

    let unverified = trusting(Vec::new(), Verification::Skip);
    let client = Client::new(tls_options(&registry, unverified)).unwrap();
    client.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_does_not_leave_tls() {
    let authority = Authority::new();
    let certificate = authority.issue("registry.example");
    let tokens = TokenServer::start(HOUR).await;
    let realm = tokens.realm();
    let registry = TestRegistry::build(Auth::Token(&tokens, &realm))
        .tls(&certificate)
        .start();
    let trust = trusting(vec![authority.pem()], Verification::Full);
    let client = Client::new(tls_options(&registry, trust)).unwrap();
    let error = client.check().await.unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    assert_eq!(
        describe(&error),
        format!(
            "`{}` asks to send the password without TLS to `{realm}`",
            client.address()
        )
    );
    assert_eq!(tokens.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_certificate_is_told_apart_from_a_wrong_name() {
    let authority = Authority::new();
    let certificate = authority.issue("registry.example");
    let registry = TestRegistry::build(Auth::None).tls(&certificate).start();
    let untrusting = trusting(Vec::new(), Verification::Full);
    let client = Client::new(tls_options(&registry, untrusting)).unwrap();
    let error = client.check().await.unwrap_err();
    let address = client.address().to_owned();
    assert_eq!(error.class(), Class::Usage);
    assert_eq!(
        describe(&error),
        format!("the certificate of `{address}` is not trusted: it is signed by an unknown issuer")
    );
    let hint = format!("name the certificate of the issuer of `{address}` as `ca_file`");
    assert_eq!(error.hint(), Some(hint));
    assert_eq!(client.counters().retries, 0);

    let by_address = Options {
        address: registry.address().to_string(),
        connect_to: None,
        ..tls_options(
            &registry,
            trusting(vec![authority.pem()], Verification::Full),
        )
    };
    let error = Client::new(by_address).unwrap().check().await.unwrap_err();
    let Error::Certificate { problem, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*problem, CertificateProblem::Name);
    assert!(error.hint().unwrap().contains("connect_to"));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_and_tls_are_not_mistaken_for_each_other() {
    let authority = Authority::new();
    let certificate = authority.issue("registry.example");
    let with_tls = TestRegistry::build(Auth::None).tls(&certificate).start();
    let client = Client::new(with_tls.options()).unwrap();
    let error = client.check().await.unwrap_err();
    assert!(matches!(error, Error::TlsServer { .. }), "{error:?}");

    let plain = TestRegistry::start(Auth::None);
    let options = tls_options(&plain, trusting(Vec::new(), Verification::Full));
    let client = Client::new(options).unwrap();
    let error = client.check().await.unwrap_err();
    assert!(matches!(error, Error::PlainServer { .. }), "{error:?}");
    assert_eq!(client.counters().retries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_registry_says_so() {
    let registry = TestRegistry::build(Auth::None)
        .access(Access::ReadOnly)
        .start();
    let client = Client::new(registry.options()).unwrap();
    let (repository, blob) = (repository("a"), Blob::new(1, 10));
    let error = blob.upload(&client, &repository).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Denied);
    assert_eq!(client.counters().retries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let registry = TestRegistry::start(Auth::None);
    let client = Client::new(registry.options()).unwrap();
    let (repository, blob) = (repository("a"), Blob::new(1, 10));
    let error = client.list_tags(&repository).await.unwrap_err();
    assert!(
        matches!(error, Error::RepositoryUnknown { .. }),
        "{error:?}"
    );
    let manifest = manifest_of(&blob);
    let error = put(&client, &repository, "v1", manifest).await.unwrap_err();
    assert!(
        matches!(error, Error::ManifestBlobUnknown { .. }),
        "{error:?}"
    );
    assert!(describe(&error).contains(&blob.digest().to_string()));
    let nonsense = Bytes::from_static(b"not a manifest");
    let error = put(&client, &repository, "v1", nonsense).await.unwrap_err();
    assert!(matches!(error, Error::ManifestInvalid { .. }), "{error:?}");
}

/// Asserts that a blob was sent, and some of it more than once.
fn assert_sent_again(blob: &Blob, uploaded: &Uploaded) {
    let Uploaded::Sent { bytes, .. } = uploaded else {
        panic!("{uploaded:?}");
    };
    assert!(*bytes > blob.descriptor.size_bytes, "{bytes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_cut_is_repeated_and_its_session_given_up() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let client = Client::new(registry.options_via(proxy.address())).unwrap();
    let (repository, blob) = (repository("a"), Blob::new(1, LARGE_BYTES));
    proxy.break_next(Method::PUT, Fault::CutAfter(8 << 20));
    assert_sent_again(&blob, &blob.upload(&client, &repository).await.unwrap());
    assert_eq!(client.counters().retries, 1);
    let methods: Vec<String> = proxy
        .take_requests()
        .iter()
        .map(|request| request.split(' ').next().unwrap().to_owned())
        .collect();
    let first = ["POST", "PUT", "DELETE"];
    // The second time in a form in which some registries keep what was cut.
    let second = ["HEAD", "POST", "PATCH", "PUT"];
    assert_eq!(methods, [&first[..], &second].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stalls_is_repeated() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let options = registry.options_via(proxy.address());
    let timeouts = Timeouts {
        connect: Duration::from_millis(500),
        idle: Duration::from_millis(500),
    };
    let client = Client::new(Options {
        timeouts,
        ..options
    })
    .unwrap();
    let (repository, blob) = (repository("a"), Blob::new(1, LARGE_BYTES));
    proxy.break_next(Method::PUT, Fault::StallAfter(1 << 20));
    assert_sent_again(&blob, &blob.upload(&client, &repository).await.unwrap());
    assert_eq!(client.counters().retries, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_cut_is_an_error_and_not_an_end() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let client = Client::new(registry.options_via(proxy.address())).unwrap();
    let (repository, blob) = (repository("a"), Blob::new(1, 1 << 20));
    blob.upload(&client, &repository).await.unwrap();
    proxy.break_next(Method::GET, Fault::CutAfter(1000));
    let pieces = client.get_blob(&repository, blob.digest()).await.unwrap();
    let read = pieces.try_collect::<Vec<Bytes>>().await;
    let error = read.map(|pieces| pieces.concat().len()).unwrap_err();
    assert!(matches!(error, Error::Cut { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_refused_are_tried_again() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let client = Client::new(registry.options_via(proxy.address())).unwrap();
    proxy.break_next(Method::GET, Fault::Refuse);
    proxy.break_next(Method::GET, Fault::Refuse);
    client.check().await.unwrap();
    assert_eq!(client.counters().retries, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_killed_in_mid_upload_gets_the_blob_when_it_is_back() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let mut options = registry.options_via(proxy.address());
    // The client is to be still trying when the registry is back, however slow that is.
    options.retries.attempts_max = 1000;
    let client = Client::new(options).unwrap();
    let (repository, blob) = (repository("a"), Blob::new(1, LARGE_BYTES));
    // Half of the blob gets through, so that the kill is certain to be in the middle.
    proxy.break_next(Method::PUT, Fault::StallAfter(12 << 20));
    let uploading = async {
        assert_sent_again(&blob, &blob.upload(&client, &repository).await.unwrap());
    };
    let killing = async {
        proxy.wait_for_uploaded_bytes(12 << 20).await;
        let registry = tokio::task::spawn_blocking(move || registry.restart(Auth::None))
            .await
            .unwrap();
        proxy.set_upstream(registry.address());
        registry
    };
    let ((), _registry) = tokio::join!(uploading, killing);
    assert!(client.counters().retries > 0);
    let found = client.find_blob(&repository, blob.digest()).await.unwrap();
    assert_eq!(found, Some(LARGE_BYTES as u64));
    assert!(proxy.uploaded_bytes() > (36 << 20) - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_from_elsewhere_that_a_registry_refuses_are_said_to_be_that() {
    let registry = TestRegistry::start(Auth::None);
    let client = Client::new(registry.options()).unwrap();
    let (repository, blob) = (repository("a"), Blob::new(1, 10));
    blob.upload(&client, &repository).await.unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "config": serde_json::to_value(&blob.descriptor).unwrap(),
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "digest": Digest::of(b"elsewhere").to_string(),
            "size": 9,
            "urls": ["https://elsewhere.example/layer"],
        }],
    });
    let bytes = manifest.to_string().into();
    let error = put(&client, &repository, "v1", bytes).await.unwrap_err();
    assert!(matches!(error, Error::ForeignLayers { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Rejected);
    assert!(error.hint().unwrap().contains("urls.allow"));
    assert_eq!(client.counters().retries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_the_address_is_a_transient_error_with_a_hint() {
    let mut registry = TestRegistry::start(Auth::None);
    registry.kill();
    let client = Client::new(registry.options()).unwrap();
    let error = client.check().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Transient);
    assert!(error.hint().unwrap().contains(client.address()));
    assert_eq!(client.counters().retries, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_answers_are_waited_for() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let client = Client::new(registry.options_via(proxy.address())).unwrap();
    proxy.break_next(Method::GET, Fault::Delay(Duration::from_millis(300)));
    client.check().await.unwrap();
    assert_eq!(client.counters().retries, 0);
}
