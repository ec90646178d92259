//! Pushes that are killed, and two at once.

use std::process::Stdio;

use super::{User, report, report_of, words};
use crate::daemon::assert_holds;
use crate::soak::package_with_layer;
use crate::support::{Auth, Distribution, Images, Package, Proxy, TestRegistry, noise};

/// Much more than fits into the buffers of the connections on the way.
const LAYER_BYTES: usize = 48 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_push_goes_on_when_the_same_command_is_run_again() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let mut images = Images::default();
    images.add("team/small", "v1", &[noise(1, 1000)]);
    images.add("team/large", "v1", &[noise(2, LAYER_BYTES)]);
    let package = Package::operator("app", images);
    let user = User::new();
    let mut push = user.push_to(proxy.address());
    push.arg(&package.path);
    let mut child = push
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    proxy.wait_for_uploaded_bytes(8 << 20).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(user.cached_blobs(), 0);

    let found = report(user.push_to(proxy.address()).arg(&package.path), 0);
    // It had been unpacked.
    assert_eq!(found["files"][0]["cached_bytes"], 0, "{found:#}");
    assert_holds(&registry, &package);
    assert_eq!(user.cached_blobs(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_push_had_sent_is_in_the_counts_of_the_one_that_resumes() {
    /// Enough for chunks, which alone are resumed.
    const CHUNKED_BYTES: u64 = 96 << 20;
    let registry = Distribution::start().await;
    let package = package_with_layer("resumed", CHUNKED_BYTES);
    let user = User::new();
    registry.hold_at(CHUNKED_BYTES / 2);
    let mut push = user.push_to(registry.address());
    push.arg(&package.path);
    let mut child = push
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    registry.wait_for_bytes(CHUNKED_BYTES / 2).await;
    child.kill().unwrap();
    child.wait().unwrap();
    registry.release();
    registry.wait_until_idle().await;

    let found = report(user.push_to(registry.address()).arg(&package.path), 0);
    let counts = &found["counts"];
    assert_eq!(counts["blobs_resumed"], 1, "{found:#}");
    let resumed = counts["bytes_resumed"].as_u64().unwrap();
    assert!(resumed >= CHUNKED_BYTES / 4, "{found:#}");
    let images = found["runs"][0]["images"].as_array().unwrap();
    let of_images = images
        .iter()
        .filter_map(|it| it["resumed"]["bytes"].as_u64());
    assert_eq!(of_images.sum::<u64>(), resumed, "{found:#}");
    let sent = counts["bytes_sent"].as_u64().unwrap();
    assert!(sent + resumed <= package.images.total_bytes(), "{found:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_push_says_whom_it_waits_for_and_comes_next() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let mut images = Images::default();
    images.add("team/large", "v1", &[noise(2, LAYER_BYTES)]);
    let (first, second) = (Package::operator("first", images), Package::small("second"));
    let user = User::new();
    let start = |package: &Package| {
        let mut push = user.push_to(proxy.address());
        push.arg(&package.path);
        push.stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let one = start(&first);
    proxy.wait_for_uploaded_bytes(1).await;
    let other = start(&second);
    report_of(&one.wait_with_output().unwrap(), 0);
    let output = other.wait_with_output().unwrap();
    report_of(&output, 0);
    let words = words(&output);
    // The first one may have ended before the second one looked.
    if words.contains("waits for another push") {
        assert!(words.contains("owner=process "), "{words}");
    }
    assert_holds(&registry, &first);
    assert_holds(&registry, &second);
}
