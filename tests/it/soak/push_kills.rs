//! A push is killed in the middle of a large layer: what is sent again, and what stays behind at the registry.
//!
//! What can be saved depends on what the registry keeps of a request that was cut. One like distribution 3 keeps what came.
//! docker-registry 2.8 keeps requests that were finished and nothing else; a session that was cut in the middle of one is
//! lost to everybody: each request to it, to delete it included, is answered by 404 `BLOB_UPLOAD_INVALID`, because the
//! token of the session says another offset than its file has. Such a session goes with the registry's own purge, and is
//! the only one that may stay.

#![expect(clippy::print_stdout, reason = "what each kill has cost is the result")]

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::crash::{Victim, from_environment};
use crate::daemon::{assert_holds, setup_without_delivery, wait_ready};
use crate::soak::{layer_bytes, package_with_layer};
use crate::support::{Auth, Daemon, Distribution, Package, Proxy, Setup, TestRegistry, names};

/// At which part of the layer the push is killed, in turn, in percent.
const MOMENTS: [u64; 3] = [10, 50, 90];
/// What may be sent again to a registry that keeps what came: what is under way, in the buffers of both ends and of the proxy
/// in between. The goal of the project.
const UNDER_WAY_BYTES_MAX: u64 = 16 << 20;
/// What may be sent again to a registry that keeps only finished requests: the largest one, `CHUNK_BYTES` of
/// `src/registry/upload/chunk.rs`.
const REQUEST_BYTES_MAX: u64 = 64 << 20;

/// Runs the victim so that nothing but the layer is on its way. A session whose beginning was not answered yet when its process
/// was killed is known to nobody but the registry, and would be counted here.
const ONE_AT_A_TIME: [&str; 2] = ["env", "VIOLETD_REPLICATE__CONCURRENCY=1"];

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_keeps_what_came_is_sent_only_what_was_under_way_again_after_a_kill() {
    let package = package_with_layer("kill-part", layer_bytes());
    let prepared = prepare(&package);
    for number in 0..kills() {
        let registry = Distribution::start().await;
        let again = kill_and_finish(&prepared, number, &package, registry.address()).await;
        for image in &package.images.placed {
            for blob in &image.blobs {
                let found = registry.blob(image.repository, &blob.digest);
                assert_eq!(found, Some(blob.size_bytes), "{}", blob.digest);
            }
        }
        assert!(again <= UNDER_WAY_BYTES_MAX, "sent again: {again} bytes");
        assert_eq!(registry.sessions(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_keeps_finished_requests_is_sent_at_most_one_again_after_a_kill() {
    let package = package_with_layer("kill-finished", layer_bytes());
    let prepared = prepare(&package);
    for number in 0..kills() {
        let registry = TestRegistry::start(Auth::None);
        let again = kill_and_finish(&prepared, number, &package, registry.address()).await;
        assert_holds(&registry, &package);
        assert!(again <= REQUEST_BYTES_MAX, "sent again: {again} bytes");
        let left = sessions(&registry, &package);
        assert!(left.len() <= 1, "sessions with so many bytes: {left:?}");
    }
}

/// Takes a package in, without sending it anywhere.
fn prepare(package: &Package) -> Setup {
    let daemon = Daemon::start(setup_without_delivery("none"));
    daemon.setup.drop_package(package);
    wait_ready(&daemon, 1);
    daemon.stop()
}

/// Kills the daemon once some share of the layer has gone out, and lets another one finish. Returns how many bytes were sent
/// beyond those of every blob and manifest once.
async fn kill_and_finish(
    prepared: &Setup,
    number: usize,
    package: &Package,
    registry: SocketAddr,
) -> u64 {
    let percent = MOMENTS[number % MOMENTS.len()];
    let proxy = Proxy::start(registry).await;
    // A target that the catalog has never heard of, over a store that has the package already.
    let name = format!("kill-{}-{number}", package.images.placed[0].repository);
    let setup = Setup::new("none").state_dir(&prepared.state_dir).target(
        &name,
        "primary",
        proxy.address(),
        "",
    );
    let victim = Victim::start(&setup, &ONE_AT_A_TIME);
    let moment = layer_bytes() * percent / 100;
    proxy.wait_for_uploaded_bytes(moment).await;
    victim.die();
    let before = proxy.uploaded_bytes();
    let daemon = Daemon::start(setup);
    daemon.wait_in_sync(1);
    daemon.stop();
    let sent = proxy.uploaded_bytes();
    let again = sent.saturating_sub(package.images.total_bytes());
    println!("kill {number} at {percent} %: {before} bytes before, {sent} in all, {again} again");
    assert!(before < package.images.total_bytes(), "killed too late");
    again
}

/// Returns how many bytes each upload session has that is left on a registry's disk.
fn sessions(registry: &TestRegistry, package: &Package) -> Vec<u64> {
    let repositories = registry.storage().join("docker/registry/v2/repositories");
    let images = package.images.placed.iter();
    let uploads = images.map(|image| repositories.join(image.repository).join("_uploads"));
    let size = |session: PathBuf| std::fs::metadata(session.join("data")).map_or(0, |it| it.len());
    uploads
        .flat_map(|folder| names(&folder).into_iter().map(move |it| folder.join(it)))
        .map(size)
        .collect()
}

fn kills() -> usize {
    from_environment("VIOLETD_PUSH_KILLS", MOMENTS.len())
}
