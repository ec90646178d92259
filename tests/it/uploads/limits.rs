//! Registries, and proxies before them, that want requests of some size.

use hyper::Method;
use violetd::registry::{Client, NoUploads, Options};

use super::{Blob, CHUNK_BYTES, MIB, Notes, sizes};
use crate::support::{
    Auth, Behaviour, Distribution, Limit, Nginx, Proxy, Scripted, TestRegistry, on,
};

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
async fn blobs_of_any_size_pass_a_real_proxy_that_caps_bodies() {
    let registry = TestRegistry::start(Auth::None);
    let nginx = Nginx::start(registry.address(), "client_max_body_size 10m;", "");
    let client = Client::new(registry.options_via(nginx.address)).unwrap();
    let notes = Notes::default();
    for size_bytes in [40 * MIB, 2 * CHUNK_BYTES] {
        let blob = Blob::new(size_bytes);
        blob.send(&client, &notes).await;
        assert_eq!(blob.found(&client).await, Some(size_bytes));
    }
    assert_eq!(notes.len(), 0);
}

/// As container-registry 0.3 answers: it fails to take a blob with the last request, and names the end of what it has as the last byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_takes_parts_only_gets_every_blob_in_parts_from_then_on() {
    let (first, second) = (Blob::new(5), Blob::new(6));
    let session = |number: u32| format!("/v2/a/blobs/uploads/{number}");
    let begin = |number| {
        on("POST", "/v2/a/blobs/uploads/")
            .answer(202)
            .header("location", session(number))
    };
    let put = |number, blob: &Blob| {
        let digest = blob.descriptor.digest.to_string().replace(':', "%3A");
        on("PUT", format!("{}?digest={digest}", session(number)))
    };
    let in_parts = |number, blob: &Blob| {
        let end = format!("0-{}", blob.descriptor.size_bytes);
        let part = on("PATCH", session(number))
            .answer(202)
            .header("range", end);
        [begin(number), part, put(number, blob).answer(201)]
    };
    let head = || on("HEAD", format!("/v2/a/blobs/{}", first.descriptor.digest));
    let mut script = Vec::new();
    for number in 1..=2 {
        script.extend([begin(number), put(number, &first).answer(500)]);
        script.push(on("DELETE", session(number)).answer(405));
        script.push(
            head()
                .answer(404)
                .header("docker-distribution-api-version", "registry/2.0"),
        );
    }
    script.extend(in_parts(3, &first));
    script.extend(in_parts(4, &second));
    let server = Scripted::start(script).await;
    let client = Client::new(server.options()).unwrap();
    first.send(&client, &NoUploads).await;
    assert_eq!(second.send(&client, &NoUploads).await, (6, 0));
    server.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_refused_for_their_number_is_repeated_and_nothing_else() {
    let server = Distribution::start().await;
    for (size_bytes, expected) in [
        (5, "HEAD GET HEAD HEAD POST PUT PUT"),
        (
            2 * CHUNK_BYTES + 5,
            "HEAD GET HEAD HEAD POST PATCH PATCH PATCH PATCH PATCH PUT",
        ),
    ] {
        let proxy = Proxy::start_with_limit(server.address(), Limit::EveryThird(None));
        let options = Options {
            address: proxy.address().to_string(),
            ..server.options()
        };
        let client = Client::new(options).unwrap();
        let (blob, notes) = (Blob::new(size_bytes), Notes::default());
        for _ in 0..2 {
            assert_eq!(blob.found(&client).await, None);
        }
        blob.send(&client, &notes).await;
        let requests = proxy.take_requests();
        let methods = requests.iter().filter_map(|it| it.split(' ').next());
        assert_eq!(methods.collect::<Vec<_>>().join(" "), expected);
        assert_eq!((server.sessions(), notes.len()), (0, 0));
    }
}
