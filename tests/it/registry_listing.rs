//! What the registry client lists, against servers that follow a script.

use violetd::base::{Digest, Repository};
use violetd::registry::{Client, Error};

use crate::support::{Scripted, on};

fn repository() -> Repository {
    "a".parse().unwrap()
}

#[tokio::test]
async fn all_pages_of_referrers_are_read_and_a_registry_without_the_list_says_none() {
    let subject = Digest::of(b"image");
    let path = format!("/v2/a/referrers/{subject}");
    let page = |name: &str| {
        let digest = Digest::of(name.as_bytes());
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{digest}","size":1,"artifactType":"t"}}]}}"#
        )
    };
    let mut script = vec![
        on("GET", &path)
            .header("link", format!(r#"<{path}?page=2>; rel="next""#))
            .body(page("one")),
        on("GET", format!("{path}?page=2")).body(page("two")),
        on("GET", &path).body(r#"{"schemaVersion":2,"manifests":[]}"#),
    ];
    for status in [404, 405, 400] {
        script.push(on("GET", &path).answer(status));
    }
    script.push(on("GET", &path).answer(403));
    let server = Scripted::start(script).await;
    let client = Client::new(server.options()).unwrap();
    let list = async || client.list_referrers(&repository(), &subject).await;
    let listed = list().await.unwrap().unwrap();
    let digests: Vec<Digest> = listed.iter().map(|entry| entry.digest).collect();
    assert_eq!(digests, [Digest::of(b"one"), Digest::of(b"two")]);
    assert_eq!(list().await.unwrap(), Some(Vec::new()));
    for _ in 0..3 {
        assert_eq!(list().await.unwrap(), None);
    }
    let error = list().await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }), "{error:?}");
    server.finish();
}

#[tokio::test]
async fn a_page_that_is_cut_is_asked_for_again() {
    let page = || on("GET", "/v2/_catalog?n=1000").body(r#"{"repositories":["a"]}"#);
    let server = Scripted::start(vec![page().cut_after(5), page()]).await;
    let client = Client::new(server.options()).unwrap();
    let repositories = client.list_repositories().await.unwrap();
    assert_eq!(repositories, ["a".parse().unwrap()]);
    server.finish();
}

#[tokio::test]
async fn all_pages_of_repositories_are_read_and_asked_for_with_the_scope_of_the_catalog() {
    let server = Scripted::start(vec![
        on("GET", "/v2/_catalog?n=1000")
            .answer(401)
            .header("www-authenticate", r#"Bearer realm="/t""#),
        on("GET", "/t?scope=registry%3Acatalog%3A*").body(r#"{"token":"t1"}"#),
        on("GET", "/v2/_catalog?n=1000")
            .header("link", r#"</v2/_catalog?last=a&n=1000>; rel="next""#)
            .body(r#"{"repositories":["a"]}"#),
        on("GET", "/v2/_catalog?last=a&n=1000").body(r#"{"repositories":["b/c"]}"#),
        on("GET", "/v2/_catalog?n=1000").body(r#"{"repositories":["../etc"]}"#),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let repositories = client.list_repositories().await.unwrap();
    assert_eq!(repositories, ["a".parse().unwrap(), "b/c".parse().unwrap()]);
    let error = client.list_repositories().await.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error:?}");
    server.finish();
}
