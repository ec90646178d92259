//! A push is killed in the middle of a large layer: what is sent again, and what stays behind at the registry.
//!
//! What can be saved depends on what the registry keeps of a request that was cut. One like distribution 3 keeps what came.
//! docker-registry 2.8 loses the session, with all requests that were finished before: each request to it, to delete it
//! included, is answered by 404 `BLOB_UPLOAD_INVALID`, because the token of the session says another offset than its file
//! has (seen on 2026-11-21). No client can save or delete that; it goes with the registry's own purge. What can be held to is that
//! no more is sent again than had gone out, and that no other session stays.

#![expect(clippy::print_stdout, reason = "what each kill has cost is the result")]

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::crash::{Victim, from_environment};
use crate::daemon::{assert_holds, setup_without_delivery, wait_ready};
use crate::soak::{layer_bytes, package_with_layer};
use crate::support::{
    Auth, Daemon, Distribution, PATIENCE, Package, Proxy, Setup, TestRegistry, names,
};

/// At which part of the layer the push is killed, in turn, in percent.
const MOMENTS: [u64; 3] = [10, 50, 90];
/// What is under way, in the buffers of both ends and of the proxy in between, and so may be sent again to a registry that keeps
/// what came. The goal of the project.
const UNDER_WAY_BYTES_MAX: u64 = 16 << 20;
/// Runs the victim so that nothing but the layer is on its way. A session whose beginning was not answered yet when its process
/// was killed is known to nobody but the registry, and would be counted here.
const ONE_AT_A_TIME: [&str; 2] = ["env", "VIOLETD_REPLICATE__CONCURRENCY=1"];

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_keeps_what_came_is_sent_only_what_was_under_way_again_after_a_kill() {
    let package = package_with_layer("kill-part", layer_bytes());
    let prepared = prepare(&package);
    for number in 0..kills() {
        let registry = Distribution::start().await;
        let sent = kill_and_finish(&prepared, number, &package, registry.address()).await;
        for image in &package.images.placed {
            for blob in &image.blobs {
                let found = registry.blob(image.repository, &blob.digest);
                assert_eq!(found, Some(blob.size_bytes), "{}", blob.digest);
            }
        }
        assert!(sent.again_bytes <= UNDER_WAY_BYTES_MAX, "{sent:?}");
        assert_eq!(registry.sessions(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_loses_what_was_cut_is_sent_only_that_again_after_a_kill() {
    let package = package_with_layer("kill-lost", layer_bytes());
    let prepared = prepare(&package);
    for number in 0..kills() {
        let registry = TestRegistry::start(Auth::None);
        let sent = kill_and_finish(&prepared, number, &package, registry.address()).await;
        assert_holds(&registry, &package);
        let lost_bytes_max = sent.before_bytes + UNDER_WAY_BYTES_MAX;
        assert!(sent.again_bytes <= lost_bytes_max, "{sent:?}");
        let left = sessions(&registry, &package);
        assert!(left.len() <= 1, "sessions with so many bytes: {left:?}");
    }
}

/// What has gone out.
#[derive(Debug)]
struct Sent {
    /// Before the kill.
    before_bytes: u64,
    /// In all, beyond those of every blob and manifest once.
    again_bytes: u64,
}

/// Takes a package in, without sending it anywhere.
fn prepare(package: &Package) -> Setup {
    let daemon = Daemon::start(setup_without_delivery("none"));
    daemon.setup.drop_package(package);
    wait_ready(&daemon, 1);
    daemon.stop()
}

/// Kills the daemon once some share of the layer has gone out, and lets another one finish.
async fn kill_and_finish(
    prepared: &Setup,
    number: usize,
    package: &Package,
    registry: SocketAddr,
) -> Sent {
    let percent = MOMENTS[number % MOMENTS.len()];
    let proxy = Proxy::start(registry);
    // A target that the catalog has never heard of, over a store that has the package already.
    let name = format!("kill-{}-{number}", package.images.placed[0].repository);
    let setup = Setup::new("none").state_dir(&prepared.state_dir).target(
        &name,
        "primary",
        proxy.address(),
        "",
    );
    let moment = layer_bytes() * percent / 100;
    proxy.hold_uploads_at(moment);
    let victim = Victim::start(&setup, &ONE_AT_A_TIME);
    proxy.wait_for_uploaded_bytes(moment + 1).await;
    victim.die();
    let before_bytes = proxy.uploaded_bytes();
    proxy.hold_uploads_at(u64::MAX);
    let daemon = Daemon::start(setup);
    let gibibytes = u32::try_from(layer_bytes() >> 30).unwrap();
    daemon.wait_longer_in_sync(PATIENCE * (1 + 2 * gibibytes), 1);
    daemon.stop();
    let sent = Sent {
        before_bytes,
        again_bytes: proxy
            .uploaded_bytes()
            .saturating_sub(package.images.total_bytes()),
    };
    println!("kill {number} at {percent} %: {sent:?}");
    sent
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
