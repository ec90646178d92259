//! Pushes of many images through proxies that want fewer requests: everything arrives, in one run, and passes once.
//!
//! # Environment
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `VIOLETD_PUSH_REFUSED_IMAGES` | how many images go through a proxy that refuses every third request | 8 |
//!
//! Such a proxy refuses however slowly it is asked, so that a push gets as slow as it ever does: 60 images take minutes.

#![expect(clippy::print_stdout, reason = "what it took is worth knowing")]

use std::time::Instant;

use super::{User, report};
use crate::crash::from_environment;
use crate::daemon::assert_holds;
use crate::support::{Auth, Images, Limit, Package, Proxy, TestRegistry, noise};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_third_request_is_refused_of_arrives_whole() {
    let count = from_environment("VIOLETD_PUSH_REFUSED_IMAGES", 8);
    push_through_every_third(None, count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_third_request_is_put_off_of_arrives_whole() {
    // Each of them stops everything for a second.
    push_through_every_third(Some(1), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_takes_few_requests_at_once_refuses_fewer_and_fewer() {
    let requests = push_through(Limit::InFlight(4), 60);
    let (first, second) = requests.split_at(requests.len() / 2);
    let (first, second) = (count_refused(first), count_refused(second));
    assert!(
        first > second && second * 20 < requests.len(),
        "{first}, then {second}"
    );
}

fn push_through_every_third(retry_after: Option<u32>, images: u64) {
    let requests = push_through(Limit::EveryThird(retry_after), images);
    assert_eq!(count_refused(&requests), requests.len() / 3);
}

fn count_refused(requests: &[bool]) -> usize {
    requests.iter().filter(|is_refused| **is_refused).count()
}

/// Pushes so many images through a proxy with a limit. All have to arrive, none may fail, and not a byte may pass twice. Returns of each
/// request whether it was refused.
fn push_through(limit: Limit, count: u64) -> Vec<bool> {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start_with_limit(registry.address(), limit);
    let package = package_of_many(count);
    let start = Instant::now();
    let found = report(User::new().push_to(proxy.address()).arg(&package.path), 0);
    let took = start.elapsed();
    assert_holds(&registry, &package);
    assert_eq!(found["state"], "done", "{found:#}");
    assert_eq!(found["counts"]["images_pushed"], count, "{found:#}");
    assert_eq!(found["counts"]["images_failed"], 0, "{found:#}");
    assert_eq!(proxy.uploaded_bytes(), package.images.total_bytes());
    let requests = proxy.refused();
    println!(
        "{limit:?}: {count} images, {} requests, {} of them refused with {} bytes, {took:.1?}",
        requests.len(),
        count_refused(&requests),
        proxy.refused_bytes()
    );
    requests
}

/// Returns a package of so many small images: a layer that all of them share, and five blobs and three manifests of their own.
fn package_of_many(count: u64) -> Package {
    let mut images = Images::default();
    for number in 0..count {
        let repository = format!("demo/r{number}").leak();
        let layers = [noise(0, 20_000), noise(number + 1, 2_000)];
        images.add(repository, "v1", &layers);
    }
    Package::operator("refused", images)
}
