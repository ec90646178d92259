//! Pushes that are killed, and two at once.

use std::process::Stdio;

use super::{User, report, report_of, words};
use crate::daemon::assert_holds;
use crate::support::{Auth, Images, Package, Proxy, TestRegistry, noise};

/// Much more than fits into the buffers of the connections on the way.
const LAYER_BYTES: usize = 48 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_push_goes_on_when_the_same_command_is_run_again() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address()).await;
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
async fn a_second_push_says_whom_it_waits_for_and_comes_next() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address()).await;
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
