//! Who we are at a real docker-registry: files of logins, identity tokens, and tokens that end too early.

use std::io::{Seek as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};
use violetd::base::oci::Descriptor;
use violetd::base::{
    Chain, Class, Classified as _, Clock as _, ManualClock, Repository, Secret, SystemClock,
};
use violetd::registry::{
    BlobSource, Client, DockerConfig, ManifestReference, Mount, NoUploads, Options, Transport,
    Trust, Uploaded,
};

use crate::registry::push_mount_and_pull;
use crate::support::{
    Auth, Authority, Fault, IDENTITY_TOKEN, PASSWORD, Proxy, Scripted, TestRegistry, TokenServer,
    USERNAME, on,
};

const HOUR: Duration = Duration::from_hours(1);

/// Returns options that look for the login in a file with this content for each look-up, the last one for all that
/// follow; and the number of look-ups.
fn with_config(options: Options, contents: Vec<Value>) -> (Options, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reads);
    let config = DockerConfig {
        place: "file /config.json".to_owned(),
        read: Arc::new(move || {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            let content = &contents[number.min(contents.len() - 1)];
            Ok(Secret::new(content.to_string()))
        }),
    };
    let options = Options {
        credentials: None,
        docker_config: Some(config),
        ..options
    };
    (options, reads)
}

fn login(address: &str, password: &str) -> Value {
    json!({"auths": {address: {"username": USERNAME, "password": password}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_config_logs_in_with_tls_and_a_password() {
    let authority = Authority::new();
    let certificate = authority.issue("registry.example");
    let registry = TestRegistry::build(Auth::Basic).tls(&certificate).start();
    let address = format!("registry.example:{}", registry.address().port());
    // admin:correct horse
    let entry = json!({"auth": "YWRtaW46Y29ycmVjdCBob3JzZQ=="});
    let config = json!({"auths": {"other.example": {}, format!("https://{address}/v1/"): entry}});
    let options = Options {
        address,
        transport: Transport::Https(Trust {
            extra_roots: vec![authority.pem()],
            ..Trust::default()
        }),
        connect_to: Some("127.0.0.1".to_owned()),
        ..registry.options()
    };
    let (options, reads) = with_config(options, vec![config]);
    let counters = push_mount_and_pull(options).await;
    assert_eq!((counters.retries, counters.tokens), (0, 0));
    assert_eq!(reads.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_exchanged_for_tokens() {
    let tokens = TokenServer::start(HOUR).await;
    let registry = TestRegistry::start(Auth::Token(&tokens, &tokens.realm()));
    let address = registry.address().to_string();
    let config = |token: &str| json!({"auths": {&address: {"auth": "", "identitytoken": token}}});
    let (options, _) = with_config(registry.options(), vec![config(IDENTITY_TOKEN)]);
    let counters = push_mount_and_pull(options).await;
    assert_eq!(counters.retries, 0);
    assert_eq!(counters.tokens, tokens.requests());
    // Forms are neither blobs nor manifests.
    assert!(counters.bytes_sent < 710_000, "{counters:?}");

    let (options, _) = with_config(registry.options(), vec![config("hunter2")]);
    let error = Client::new(options).unwrap().check().await.unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    let shown = format!("{} {error:?}", Chain(&error));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_no_password() {
    let registry = TestRegistry::start(Auth::Basic);
    let address = registry.address().to_string();
    let config = json!({"auths": {address: {"identitytoken": IDENTITY_TOKEN}}});
    let (options, _) = with_config(registry.options(), vec![config]);
    let error = Client::new(options).unwrap().check().await.unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    assert!(error.to_string().contains("identity token only"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_again_when_its_login_is_refused() {
    let tokens = TokenServer::start(HOUR).await;
    let realm = tokens.realm();
    for auth in [Auth::Basic, Auth::Token(&tokens, &realm)] {
        let registry = TestRegistry::start(auth);
        let address = registry.address().to_string();
        let contents = vec![login(&address, "wrong horse"), login(&address, PASSWORD)];
        let (options, reads) = with_config(registry.options(), contents);
        let start = SystemClock.now();
        let clock = Arc::new(ManualClock::new(start));
        let client = Client::with_clock(options, Arc::clone(&clock) as _).unwrap();
        // Not again at once.
        let error = client.check().await.unwrap_err();
        assert_eq!(error.class(), Class::Denied, "{auth:?}");
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        clock.set(start + Duration::from_secs(5));
        client.check().await.unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 2);
        client.check().await.unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_the_registry_is_anonymous() {
    let open = TestRegistry::start(Auth::None);
    let (options, _) = with_config(open.options(), vec![login("other.example", PASSWORD)]);
    push_mount_and_pull(options).await;

    let guarded = TestRegistry::start(Auth::Basic);
    let (options, _) = with_config(guarded.options(), vec![json!({})]);
    let error = Client::new(options).unwrap().check().await.unwrap_err();
    let start = format!("`{}` refused anonymous access", guarded.address());
    assert!(error.to_string().starts_with(&start), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_repositories_at_once_need_few_tokens() {
    let tokens = TokenServer::start(HOUR).await;
    let registry = TestRegistry::start(Auth::Token(&tokens, &tokens.realm()));
    let client = Client::new(registry.options()).unwrap();
    client.check().await.unwrap();
    let before = tokens.requests();
    let repositories: Vec<Repository> = (0..24)
        .map(|number| format!("many/r{number}").parse().unwrap())
        .collect();
    let tag = ManifestReference::Tag("v1".parse().unwrap());
    let found = join_all(
        repositories
            .iter()
            .map(|repository| client.find_manifest(repository, &tag)),
    )
    .await;
    assert!(
        found.iter().all(|found| matches!(found, Ok(None))),
        "{found:?}"
    );
    // How many depends on how many wait at one moment, and a client that knows little of its registry asks little at once.
    let asked = tokens.requests() - before;
    assert!(asked < 24, "{:#?}", tokens.scopes());
    assert_eq!(client.counters().retries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_outlives_its_tokens() {
    // The registry refuses them after two seconds, and the proxy keeps requests for longer than that.
    let tokens = TokenServer::start_strict(Duration::from_secs(2)).await;
    let registry = TestRegistry::start(Auth::Token(&tokens, &tokens.realm()));
    let proxy = Proxy::start(registry.address());
    for method in [Method::HEAD, Method::POST] {
        proxy.break_next(method, Fault::Delay(Duration::from_millis(3_100)));
    }
    let counters = push_mount_and_pull(registry.options_via(proxy.address())).await;
    assert_eq!(counters.retries, 0);
    // Four needs, and those of the two requests that came too late once more.
    assert!(counters.tokens >= 6, "{counters:?}");
    assert!(counters.bytes_sent < 710_000, "{counters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_before_the_last_request_is_replaced_and_no_byte_is_sent_again() {
    // Large enough to go in a request of its own and not with the last one.
    let content = vec![0; 64 << 20];
    let size_bytes = content.len() as u64;
    let blob = Descriptor::of("application/octet-stream", &content);
    let digest = blob.digest.to_string().replace(':', "%3A");
    let refused = |method, target: &str| {
        on(method, target)
            .answer(401)
            .header("www-authenticate", r#"Bearer realm="/t""#)
    };
    let token = |text: &str| {
        on("GET", "/t?scope=repository%3Aa%3Apull%2Cpush")
            .body(format!(r#"{{"token":"{text}","expires_in":600}}"#))
    };
    let end = format!("/v2/a/blobs/uploads/7?digest={digest}");
    let server = Scripted::start(vec![
        refused("POST", "/v2/a/blobs/uploads/"),
        token("first"),
        on("POST", "/v2/a/blobs/uploads/")
            .answer(202)
            .header("location", "/v2/a/blobs/uploads/7"),
        on("PATCH", "/v2/a/blobs/uploads/7")
            .answer(202)
            .header("location", "/v2/a/blobs/uploads/7")
            .header("range", format!("0-{}", size_bytes - 1)),
        refused("PUT", &end),
        token("second"),
        on("PUT", &end).answer(201),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let source: BlobSource = Arc::new(move || {
        let mut file = tempfile::tempfile()?;
        file.write_all(&content)?;
        file.rewind()?;
        Ok(file)
    });
    let repository: Repository = "a".parse().unwrap();
    let uploading = client.upload_blob(&repository, &blob, &source, Mount::No, &NoUploads);
    let expected = Uploaded::Sent {
        bytes: size_bytes,
        resumed_bytes: 0,
    };
    assert_eq!(uploading.await.unwrap(), expected);
    assert_eq!(client.counters().bytes_sent, size_bytes);
    assert_eq!(client.counters().retries, 0);
    let requests = server.finish();
    assert_eq!(requests[3].header("authorization"), "Bearer first");
    assert_eq!(requests[6].header("authorization"), "Bearer second");
    assert_eq!(requests[6].header("content-length"), "0");
}
