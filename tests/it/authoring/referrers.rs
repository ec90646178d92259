//! Signatures, attestations and whatever else refers to images: taken along with them, from registries and layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::header::LINK;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use violetd::base::Digest;
use violetd::base::oci::{MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};

use super::{Origin, REPOSITORY, names_of};
use crate::support::{Proxy, run};

#[test]
fn signatures_and_referrers_travel_with_their_image_from_a_registry() {
    let origin = Origin::signed().with_fallback_tags();
    origin.push();
    let (created, _) = origin.create(&[]);
    assert_eq!(created["referrers"], 6, "{created:#}");
    let (one, view, _) = origin.package("one.tgz", &[]);
    let (two, ..) = origin.package("two.tgz", &[]);
    assert!(one.bytes == two.bytes, "the packages differ");
    assert_eq!(one.images(), names_of(&origin));
    let expected: BTreeSet<Digest> = origin.images.blobs.keys().copied().collect();
    assert_eq!(one.blobs(), expected);
    assert_eq!(view["referrers"], 6);

    origin.create(&["--no-referrers"]);
    let (without, ..) = origin.package("without.tgz", &[]);
    assert_eq!(without.images().into_keys().collect::<Vec<_>>(), [":v1"]);
    assert_eq!(without.blobs().len(), 3 + origin.app.blobs.len());
}

#[test]
fn signatures_and_referrers_travel_with_their_image_from_a_layout() {
    let origin = Origin::signed();
    let layout = origin.write_layout();
    for image in [
        format!("oci:{}", layout.display()),
        format!("registry.example/{REPOSITORY}:v1=oci:{}", layout.display()),
    ] {
        let (created, words) = origin.create_from(&image, &[]);
        assert_eq!(created["images"].as_array().unwrap().len(), 1, "{words}");
        assert_eq!(created["referrers"], 4, "{words}");
    }
    let (one, ..) = origin.package("one.tgz", &[]);
    let (two, ..) = origin.package("two.tgz", &[]);
    assert!(one.bytes == two.bytes, "the packages differ");

    // The layout has no fallback tags: they are made, for targets without the referrers API.
    let mut images = one.images();
    for (subject, referrer) in [
        (&origin.app.root, &origin.untagged[0]),
        (&origin.untagged[0], &origin.untagged[1]),
    ] {
        let tag = format!(":sha256-{}", subject.digest.hex());
        let digest = images.remove(&tag).expect(&tag);
        let content = &one.files[&format!("blobs/sha256/{}", digest.hex())];
        let index: Value = serde_json::from_slice(content).unwrap();
        let listed = &index["manifests"][0];
        assert_eq!(listed["digest"], referrer.digest.to_string());
        assert!(listed["artifactType"].is_string() && listed["annotations"]["kind"].is_string());
    }
    assert_eq!(images, names_of(&origin));
}

/// What a registry with the referrers API answers: one referrer a page.
async fn answer(
    State(referrers): State<Arc<BTreeMap<String, Vec<Value>>>>,
    UrlPath(subject): UrlPath<String>,
    Query(query): Query<BTreeMap<String, usize>>,
) -> Response {
    let page = query.get("page").copied().unwrap_or(0);
    let all = referrers.get(&subject).map_or(&[][..], Vec::as_slice);
    let manifests: Vec<&Value> = all.iter().skip(page).take(1).collect();
    let body = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": manifests});
    let mut response = axum::Json(body).into_response();
    if page + 1 < all.len() {
        let next = format!(
            "</v2/{REPOSITORY}/referrers/{subject}?page={}>; rel=\"next\"",
            page + 1
        );
        response.headers_mut().insert(LINK, next.parse().unwrap());
    }
    response
}

/// Starts a proxy before the registry of `origin` that adds the referrers API.
async fn start_api(referrers: BTreeMap<String, Vec<Value>>, registry: SocketAddr) -> Proxy {
    let path = format!("/v2/{REPOSITORY}/referrers/{{subject}}");
    let router = axum::Router::new()
        .route(&path, axum::routing::get(answer))
        .with_state(Arc::new(referrers));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    Proxy::start_with_routes(registry, vec![("/v2/demo/app/referrers/", api)])
}

#[test]
fn the_referrers_api_is_read_to_its_last_page() {
    let mut origin = Origin::signed();
    let index = origin.app.root.clone();
    let scan = origin.add("scan", Some(&index));
    origin.untagged.push(scan.clone());
    origin.push();
    let absent = Digest::of(b"deleted");
    let [materials, endorsement, _] = &origin.untagged[..] else {
        panic!("expected three");
    };
    let gone = json!({"mediaType": MEDIA_TYPE_MANIFEST, "digest": absent, "size": 1});
    let referrers = BTreeMap::from([
        (
            index.digest.to_string(),
            vec![json!(materials), json!(scan), gone],
        ),
        (materials.digest.to_string(), vec![json!(endorsement)]),
    ]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(start_api(referrers, origin.registry.address()));

    let image = format!("{}/{REPOSITORY}:v1", proxy.address());
    let (created, words) = origin.create_from(&image, &[]);
    assert_eq!(created["referrers"], 5, "{words}");
    assert!(words.contains(&absent.to_string()), "{words}");
    // For each of 3 manifests and 5 referrers: four tags and a list, which has two more pages for one of them.
    let look_ups = proxy.take_requests();
    let is_look_up =
        |request: &&String| request.starts_with("HEAD") || request.contains("referrers");
    assert_eq!(
        look_ups.iter().filter(is_look_up).count(),
        8 * 5 + 2,
        "{look_ups:#?}"
    );
    let (packed, ..) = origin.package("one.tgz", &[]);
    let mut images = packed.images();
    let tag = format!(":sha256-{}", index.digest.hex());
    let fallback = images.remove(&tag).unwrap();
    let fallback = &packed.files[&format!("blobs/sha256/{}", fallback.hex())];
    let fallback: Value = serde_json::from_slice(fallback).unwrap();
    let mut expected = [materials.digest.to_string(), scan.digest.to_string()];
    expected.sort();
    let listed = fallback["manifests"].as_array().unwrap().iter();
    let listed: Vec<&str> = listed.map(|it| it["digest"].as_str().unwrap()).collect();
    assert_eq!(listed, expected);
    images.remove(&format!(":sha256-{}", materials.digest.hex()));
    assert_eq!(images, names_of(&origin));
}

#[test]
fn referrers_are_looked_for_through_the_proxy_of_the_environment_as_images_are() {
    let origin = Origin::signed().with_fallback_tags();
    origin.push();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(async { Proxy::start(origin.registry.address()) });
    let image = format!("registry.invalid/{REPOSITORY}:v1");
    let work = origin.path("work");
    let mut create = Command::new(env!("CARGO_BIN_EXE_violetd"));
    create
        .args(["create", &work, "--image", &image, "--plain"])
        .args(["--no-auth", "--output", "json"])
        .env("http_proxy", format!("http://{}", proxy.address()))
        .env("no_proxy", "");
    let created: Value = serde_json::from_slice(&run("violetd", &mut create)).unwrap();
    assert_eq!(created["referrers"], 6, "{created:#}");
}
