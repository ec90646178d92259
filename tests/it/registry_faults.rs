//! The registry client against servers that follow a script: what real registries do rarely.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use violetd::base::oci::{Descriptor, MANIFEST_BYTES_MAX, MEDIA_TYPE_MANIFEST};
use violetd::base::{Class, Classified as _, Digest, Repository, Secret, Tag};
use violetd::registry::{
    BlobSource, Client, Credentials, Error, ManifestReference, Mount, NoUploads, Options, Timeouts,
    Uploaded,
};

use crate::support::{PASSWORD, Scripted, USERNAME, on, within};

const CONTENT: &[u8] = b"content of a blob";
const MANIFEST: &[u8] = b"{\"schemaVersion\":2}";
const DIGEST_HEADER: &str = "docker-content-digest";

fn repository() -> Repository {
    "a".parse().unwrap()
}

fn v1() -> ManifestReference {
    ManifestReference::Tag("v1".parse().unwrap())
}

fn digest() -> Digest {
    Digest::of(CONTENT)
}

/// The digest as it stands in a query.
fn encoded_digest() -> String {
    digest().to_string().replace(':', "%3A")
}

fn blob() -> Descriptor {
    Descriptor::of("application/octet-stream", CONTENT)
}

fn source() -> BlobSource {
    Arc::new(|| {
        let mut file = tempfile::tempfile()?;
        file.write_all(CONTENT)?;
        file.rewind()?;
        Ok(file)
    })
}

async fn upload(client: &Client, mount: Mount<'_>) -> Result<Uploaded, Error> {
    client
        .upload_blob(&repository(), &blob(), &source(), mount, &NoUploads)
        .await
}

fn known(options: Options) -> Options {
    let credentials = Some(Credentials {
        username: USERNAME.to_owned(),
        password: Secret::new(PASSWORD.to_owned()),
    });
    Options {
        credentials,
        ..options
    }
}

fn basic() -> String {
    let pair = format!("{USERNAME}:{PASSWORD}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    format!("Basic {encoded}")
}

#[tokio::test]
async fn a_busy_registry_decides_when_it_is_asked_again() {
    let server = Scripted::start(vec![
        on("HEAD", "/v2/a/manifests/v1")
            .answer(429)
            .header("retry-after", "1"),
        on("HEAD", "/v2/a/manifests/v1").answer(503),
        on("HEAD", "/v2/a/manifests/v1")
            .header(DIGEST_HEADER, Digest::of(MANIFEST).to_string())
            .header("content-type", MEDIA_TYPE_MANIFEST)
            .header("content-length", MANIFEST.len().to_string()),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let start = Instant::now();
    let found = client.find_manifest(&repository(), &v1()).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(found.unwrap().size_bytes, MANIFEST.len() as u64);
    assert_eq!(client.counters().retries, 2);
    let accepted: Vec<_> = server.finish()[0]
        .headers
        .get_all("accept")
        .iter()
        .map(|value| value.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(accepted.len(), 4, "{accepted:?}");
}

#[tokio::test]
async fn a_permanent_500_ends_after_the_attempts_with_the_message() {
    let failing = || {
        on("GET", "/v2/a/manifests/v1")
            .answer(500)
            .body(r#"{"errors":[{"code":"UNKNOWN","message":"no space left on device"}]}"#)
    };
    let script = (0..4).map(|_| failing()).collect();
    let server = Scripted::start(script).await;
    let client = Client::new(server.options()).unwrap();
    let error = client.get_manifest(&repository(), &v1()).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert_eq!(
        error.to_string(),
        format!(
            "failed to read manifest a:v1 at `{}`: status 500 (UNKNOWN: no space left on device)",
            server.address()
        )
    );
}

#[tokio::test]
async fn a_body_that_is_cut_is_asked_for_again() {
    let whole = || {
        on("GET", "/v2/a/manifests/v1")
            .header("content-type", MEDIA_TYPE_MANIFEST)
            .body(MANIFEST)
    };
    let server = Scripted::start(vec![
        whole().cut_after(5),
        on("GET", "/v2/a/manifests/v1").hang_up(),
        whole(),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let (descriptor, bytes) = client.get_manifest(&repository(), &v1()).await.unwrap();
    assert_eq!(
        (descriptor.digest, &bytes[..]),
        (Digest::of(MANIFEST), MANIFEST)
    );
    assert_eq!(client.counters().retries, 2);
    server.finish();
}

#[tokio::test]
async fn silence_before_and_in_an_answer_is_a_stall() {
    let server = Scripted::start(vec![
        on("GET", "/v2/a/manifests/v1").silence(),
        on("GET", "/v2/a/manifests/v1")
            .body(MANIFEST)
            .stall_after(5),
    ])
    .await;
    let mut options = Options {
        timeouts: Timeouts {
            connect: Duration::from_millis(100),
            idle: Duration::from_millis(100),
        },
        ..server.options()
    };
    options.retries.attempts_max = 2;
    let client = Client::new(options).unwrap();
    let reference = v1();
    let repository = repository();
    let reading = client.get_manifest(&repository, &reference);
    let error = within("the stall", reading).await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Transient);
    server.finish();
}

#[tokio::test]
async fn a_wrong_digest_is_never_accepted() {
    let wrong = Digest::of(b"something else");
    let by_digest = ManifestReference::Digest(wrong);
    let target = format!("/v2/a/manifests/{wrong}");
    let server = Scripted::start(vec![
        on("GET", &target).body(MANIFEST),
        on("GET", "/v2/a/manifests/v1")
            .header(DIGEST_HEADER, wrong.to_string())
            .body(MANIFEST),
        on("PUT", "/v2/a/manifests/v1")
            .answer(201)
            .header(DIGEST_HEADER, wrong.to_string()),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let put = |reference| async {
        let reference = reference;
        client
            .put_manifest(
                &repository(),
                &reference,
                MEDIA_TYPE_MANIFEST,
                MANIFEST.into(),
            )
            .await
            .unwrap_err()
    };
    let errors = [
        client
            .get_manifest(&repository(), &by_digest)
            .await
            .unwrap_err(),
        client.get_manifest(&repository(), &v1()).await.unwrap_err(),
        put(v1()).await,
        // Not even sent.
        put(by_digest).await,
    ];
    for error in errors {
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Corrupt);
    }
    assert_eq!(client.counters().retries, 0);
}

#[tokio::test]
async fn a_registry_that_tells_no_digest_is_read_and_hashed() {
    let server = Scripted::start(vec![
        on("HEAD", "/v2/a/manifests/v1").header("content-type", MEDIA_TYPE_MANIFEST),
        on("GET", "/v2/a/manifests/v1")
            .header(
                "content-type",
                format!("{MEDIA_TYPE_MANIFEST}; charset=utf-8"),
            )
            .body(MANIFEST),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let found = client.find_manifest(&repository(), &v1()).await.unwrap();
    let expected = Descriptor::of(MEDIA_TYPE_MANIFEST, MANIFEST);
    assert_eq!(found, Some(expected));
}

#[tokio::test]
async fn a_manifest_without_end_is_refused() {
    let bytes = usize::try_from(MANIFEST_BYTES_MAX).unwrap() + 1;
    let server = Scripted::start(vec![
        on("GET", "/v2/a/manifests/v1").body(vec![b' '; bytes]),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let error = client.get_manifest(&repository(), &v1()).await.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_mount_that_becomes_a_session_is_used_with_its_relative_location() {
    let digest = encoded_digest();
    let server = Scripted::start(vec![
        on(
            "POST",
            format!("/v2/a/blobs/uploads/?mount={digest}&from=b"),
        )
        .answer(202)
        .header("location", "/v2/a/blobs/uploads/7?_state=x%2By%3D"),
        on(
            "PUT",
            format!("/v2/a/blobs/uploads/7?_state=x%2By%3D&digest={digest}"),
        )
        .answer(201),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let from: Repository = "b".parse().unwrap();
    let uploaded = upload(&client, Mount::From(&from)).await.unwrap();
    let bytes = CONTENT.len() as u64;
    let expected = Uploaded::Sent {
        bytes,
        resumed_bytes: 0,
    };
    assert_eq!(uploaded, expected);
    assert_eq!(client.counters().bytes_sent, bytes);
    let put = &server.finish()[1];
    assert_eq!(&put.body[..], CONTENT);
    assert_eq!(put.header("content-length"), bytes.to_string());
    assert_eq!(put.header("transfer-encoding"), "");
    assert_eq!(put.header("content-type"), "application/octet-stream");
}

#[tokio::test]
async fn a_mount_that_is_refused_becomes_an_upload() {
    let digest = encoded_digest();
    let server = Scripted::start(vec![
        on(
            "POST",
            format!("/v2/a/blobs/uploads/?mount={digest}&from=b"),
        )
        .answer(403),
        on("POST", "/v2/a/blobs/uploads/")
            .answer(202)
            .header("location", "/v2/a/blobs/uploads/7"),
        on("PUT", format!("/v2/a/blobs/uploads/7?digest={digest}")).answer(201),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let from: Repository = "b".parse().unwrap();
    let uploading = upload(&client, Mount::From(&from));
    assert!(matches!(uploading.await.unwrap(), Uploaded::Sent { .. }));
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_is_not_sent_again() {
    let digest = encoded_digest();
    let server = Scripted::start(vec![
        on("POST", "/v2/a/blobs/uploads/")
            .answer(202)
            .header("location", "/v2/a/blobs/uploads/7"),
        on("PUT", format!("/v2/a/blobs/uploads/7?digest={digest}")).hang_up(),
        on("DELETE", "/v2/a/blobs/uploads/7").answer(404),
        on("HEAD", format!("/v2/a/blobs/{}", self::digest()))
            .header("content-length", CONTENT.len().to_string()),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let uploading = upload(&client, Mount::No);
    assert!(matches!(uploading.await.unwrap(), Uploaded::Sent { .. }));
    assert_eq!(client.counters().bytes_sent, CONTENT.len() as u64);
}

#[tokio::test]
async fn a_session_that_is_lost_is_begun_anew() {
    let digest = encoded_digest();
    let begin = |id: &str| {
        on("POST", "/v2/a/blobs/uploads/")
            .answer(202)
            .header("location", format!("/v2/a/blobs/uploads/{id}"))
    };
    let server = Scripted::start(vec![
        begin("1"),
        on("PUT", format!("/v2/a/blobs/uploads/1?digest={digest}"))
            .answer(404)
            .body(r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#),
        on("DELETE", "/v2/a/blobs/uploads/1").answer(404),
        on("HEAD", format!("/v2/a/blobs/{}", self::digest())).answer(404),
        begin("2"),
        on("PUT", format!("/v2/a/blobs/uploads/2?digest={digest}")).answer(201),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let uploading = upload(&client, Mount::No);
    assert!(matches!(uploading.await.unwrap(), Uploaded::Sent { .. }));
}

#[tokio::test]
async fn what_will_not_pass_by_itself_is_not_repeated() {
    let digest = encoded_digest();
    for (status, body, class) in [
        (
            413,
            "<title>413 Request Entity Too Large</title>",
            Class::Denied,
        ),
        (
            400,
            r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#,
            Class::Corrupt,
        ),
        (403, r#"{"errors":[{"code":"DENIED"}]}"#, Class::Denied),
    ] {
        let server = Scripted::start(vec![
            on("POST", "/v2/a/blobs/uploads/")
                .answer(202)
                .header("location", "/v2/a/blobs/uploads/7"),
            on("PUT", format!("/v2/a/blobs/uploads/7?digest={digest}"))
                .answer(status)
                .body(body),
            on("DELETE", "/v2/a/blobs/uploads/7").answer(204),
        ])
        .await;
        let client = Client::new(server.options()).unwrap();
        let uploading = upload(&client, Mount::No);
        assert_eq!(uploading.await.unwrap_err().class(), class, "{status}");
        assert_eq!(client.counters().retries, 0);
        server.finish();
    }
}

#[tokio::test]
async fn our_own_copy_must_be_readable_and_of_its_size() {
    let sources: [BlobSource; 2] = [
        Arc::new(|| File::open("/nonexistent/blob")),
        Arc::new(tempfile::tempfile),
    ];
    for (source, class) in sources.into_iter().zip([Class::Absent, Class::Corrupt]) {
        let server = Scripted::start(vec![
            on("POST", "/v2/a/blobs/uploads/")
                .answer(202)
                .header("location", "/v2/a/blobs/uploads/7"),
            on("DELETE", "/v2/a/blobs/uploads/7").answer(204),
        ])
        .await;
        let client = Client::new(server.options()).unwrap();
        let (repository, blob) = (repository(), blob());
        let uploading = client.upload_blob(&repository, &blob, &source, Mount::No, &NoUploads);
        assert_eq!(uploading.await.unwrap_err().class(), class);
        server.finish();
    }
}

#[tokio::test]
async fn credentials_never_go_to_another_server() {
    let digest = digest();
    let storage = Scripted::start_empty().await;
    storage.expect(vec![
        on("GET", "/blob?signature=1").body(CONTENT),
        on(
            "PUT",
            format!("/upload?signature=2&digest={}", encoded_digest()),
        )
        .answer(201),
    ]);
    let elsewhere = format!("http://{}", storage.address());
    let challenge = || {
        on("GET", "/v2/")
            .answer(401)
            .header("www-authenticate", "Basic realm=x")
    };
    let server = Scripted::start(vec![
        challenge(),
        on("GET", format!("/v2/a/blobs/{digest}"))
            .answer(307)
            .header("location", format!("{elsewhere}/blob?signature=1")),
        on("POST", "/v2/a/blobs/uploads/")
            .answer(202)
            .header("location", format!("{elsewhere}/upload?signature=2")),
    ])
    .await;
    let client = Client::new(known(server.options())).unwrap();
    drop(client.get_blob(&repository(), &digest).await.unwrap());
    upload(&client, Mount::No).await.unwrap();
    for request in storage.finish() {
        assert_eq!(request.header("authorization"), "");
    }
    let requests = server.finish();
    assert_eq!(requests[0].header("authorization"), "");
    assert_eq!(requests[1].header("authorization"), basic());
    assert_eq!(requests[2].header("authorization"), basic());
}

#[tokio::test]
async fn bearer_is_preferred_where_both_are_offered_and_either_name_of_the_token_serves() {
    let server = Scripted::start(vec![
        on("GET", "/v2/")
            .answer(401)
            .header("www-authenticate", "Basic realm=x")
            .header(
                "www-authenticate",
                r#"Bearer realm="/auth/token",service="token-service""#,
            ),
        on("GET", "/auth/token?service=token-service&account=admin")
            .body(r#"{"access_token":"t1"}"#),
        on("GET", "/v2/"),
    ])
    .await;
    let client = Client::new(known(server.options())).unwrap();
    client.check().await.unwrap();
    let requests = server.finish();
    assert_eq!(requests[1].header("authorization"), basic());
    assert_eq!(requests[2].header("authorization"), "Bearer t1");
}

#[tokio::test]
async fn a_registry_that_greets_everybody_may_still_ask_who_it_is() {
    let server = Scripted::start(vec![
        on("GET", "/v2/"),
        on("HEAD", "/v2/a/manifests/v1")
            .answer(401)
            .header("www-authenticate", "Basic realm=x"),
        on("HEAD", "/v2/a/manifests/v1").answer(404),
        on("HEAD", "/v2/a/manifests/v1").answer(404),
    ])
    .await;
    let client = Client::new(known(server.options())).unwrap();
    for _ in 0..2 {
        let found = client.find_manifest(&repository(), &v1()).await.unwrap();
        assert_eq!(found, None);
    }
    let sent: Vec<String> = server
        .finish()
        .iter()
        .map(|request| request.header("authorization").to_owned())
        .collect();
    assert_eq!(sent, [String::new(), String::new(), basic(), basic()]);
}

#[tokio::test]
async fn the_scope_that_a_refusal_names_is_asked_for_as_well() {
    let server = Scripted::start(vec![
        on("GET", "/v2/")
            .answer(401)
            .header("www-authenticate", r#"Bearer realm="/t""#),
        on("GET", "/t?scope=repository%3Aa%3Apull&account=admin").body(r#"{"token":"t1"}"#),
        on("GET", "/v2/a/tags/list").answer(401).header(
            "www-authenticate",
            r#"Bearer realm="/t",scope="repository:a:metadata_read",error="insufficient_scope""#,
        ),
        on(
            "GET",
            "/t?scope=repository%3Aa%3Ametadata_read%2Cpull&account=admin",
        )
        .body(r#"{"token":"t2"}"#),
        on("GET", "/v2/a/tags/list").body(r#"{"tags":null}"#),
    ])
    .await;
    let client = Client::new(known(server.options())).unwrap();
    assert_eq!(
        client.list_tags(&repository()).await.unwrap(),
        Vec::<Tag>::new()
    );
    assert_eq!(server.finish()[4].header("authorization"), "Bearer t2");
    assert_eq!(client.counters().tokens, 2);
}

#[tokio::test]
async fn all_pages_of_tags_are_read_and_only_at_the_registry() {
    let server = Scripted::start(vec![
        on("GET", "/v2/a/tags/list")
            .header("link", r#"</v2/a/tags/list?last=v1&n=1>; rel="next""#)
            .body(r#"{"name":"a","tags":["v1"]}"#),
        on("GET", "/v2/a/tags/list?last=v1&n=1").body(r#"{"name":"a","tags":["v2"]}"#),
        on("GET", "/v2/a/tags/list")
            .header("link", r#"<http://127.0.0.1:1/v2/a/tags/list>; rel="next""#)
            .body(r#"{"name":"a","tags":["v1"]}"#),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let tags = client.list_tags(&repository()).await.unwrap();
    assert_eq!(tags, ["v1".parse().unwrap(), "v2".parse().unwrap()]);
    let error = client.list_tags(&repository()).await.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error:?}");
}

#[tokio::test]
async fn an_address_without_a_registry_is_named_and_not_asked_again() {
    let server = Scripted::start(vec![
        on("GET", "/v2/").answer(404),
        on("GET", "/v2/")
            .answer(308)
            .header("location", "https://127.0.0.1/v2/"),
        on("GET", "/v2/")
            .answer(401)
            .header("www-authenticate", "Negotiate"),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let error = client.check().await.unwrap_err();
    assert!(matches!(error, Error::NotRegistry { .. }), "{error:?}");
    let error = client.check().await.unwrap_err();
    assert!(matches!(error, Error::TlsServer { .. }), "{error:?}");
    let error = client.check().await.unwrap_err();
    assert!(matches!(error, Error::Scheme { .. }), "{error:?}");
    assert_eq!(client.counters().retries, 0);
}

#[tokio::test]
async fn redirections_in_a_circle_end() {
    let mut script = vec![
        on("GET", "/v2/a/manifests/v1")
            .answer(302)
            .header("location", "/v2/a/manifests/v1");
        6
    ];
    // Whether it is a registry that says so.
    script.insert(1, on("GET", "/v2/"));
    let server = Scripted::start(script).await;
    let client = Client::new(server.options()).unwrap();
    let error = client.get_manifest(&repository(), &v1()).await.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error:?}");
    server.finish();
}
