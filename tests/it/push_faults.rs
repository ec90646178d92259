//! Pushes of a large layer over lines that break every connection: they finish, and not by luck.
//!
//! # Environment
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `VIOLETD_PUSH_LAYER_MIB` | size of the layer | 96 |
//! | `VIOLETD_PUSH_CUT_MIB` | what a connection carries before it is cut or stalls | 24 |
//!
//! For the record, with what people meet:
//!
//! ```text
//! VIOLETD_PUSH_LAYER_MIB=1024 VIOLETD_PUSH_CUT_MIB=64 cargo test --test it -- push_faults --nocapture
//! ```

#![expect(clippy::print_stdout, reason = "what it took is worth knowing")]

use std::net::SocketAddr;

use crate::crash::from_environment;
use crate::daemon::assert_holds;
use crate::soak::{layer_bytes, package_with_layer};
use crate::support::{
    Auth, Daemon, Distribution, Ending, PATIENCE, Package, RoughLine, Setup, TestRegistry,
};

/// How often a registry that keeps only finished requests may lose what a connection carried, until requests are small enough: from
/// 64 MiB by halves to 4 MiB, which are the bounds in `src/registry/upload/chunk.rs`.
const LOSSES_MAX: u64 = 5;
/// What may be sent again, in all, to a registry that keeps what came. The line passes on whatever it has read.
const AGAIN_BYTES_MAX: u64 = 16 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_cuts_every_connection_is_pushed_over() {
    let package = package_with_layer("cut", layer_bytes());
    let registry = TestRegistry::start(Auth::None);
    let again = push_over(Ending::Cut, registry.address(), &package).await;
    assert_holds(&registry, &package);
    assert!(again <= LOSSES_MAX * share_bytes(), "{again} bytes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_on_which_every_connection_stalls_is_pushed_over() {
    let package = package_with_layer("stall", layer_bytes());
    let registry = TestRegistry::start(Auth::None);
    let again = push_over(Ending::Stall, registry.address(), &package).await;
    assert_holds(&registry, &package);
    assert!(again <= LOSSES_MAX * share_bytes(), "{again} bytes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_keeps_what_came_is_sent_little_again_over_a_line_that_cuts() {
    let package = package_with_layer("cut-part", layer_bytes());
    let registry = Distribution::start().await;
    let again = push_over(Ending::Cut, registry.address(), &package).await;
    assert_eq!(registry.sessions(), 0);
    assert!(again <= AGAIN_BYTES_MAX, "{again} bytes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_keeps_what_came_is_sent_little_again_over_a_line_that_stalls() {
    let package = package_with_layer("stall-part", layer_bytes());
    let registry = Distribution::start().await;
    let again = push_over(Ending::Stall, registry.address(), &package).await;
    assert_eq!(registry.sessions(), 0);
    assert!(again <= AGAIN_BYTES_MAX, "{again} bytes again");
}

/// Pushes a package over a line whose connections end like this. Returns how many bytes went to the registry beyond those of the
/// package.
async fn push_over(ending: Ending, registry: SocketAddr, package: &Package) -> u64 {
    let line = RoughLine::start(registry, ending, share_bytes()).await;
    let setup = Setup::new("none")
        .target("global-a", "primary", line.address(), "")
        .variable("VIOLETD_REPLICATE__ATTEMPTS_MAX", "5")
        .variable("VIOLETD_REPLICATE__IDLE_TIMEOUT", "1s");
    let daemon = Daemon::start(setup);
    daemon.setup.drop_package(package);
    let connections = u32::try_from(layer_bytes() / share_bytes()).unwrap();
    daemon.wait_longer_in_sync(PATIENCE * connections.max(1), 1);
    daemon.stop();
    let (broken, bytes) = (line.broken(), line.bytes());
    let again = bytes.saturating_sub(package.images.total_bytes());
    println!("{ending:?}: {broken} connections broken, {bytes} bytes carried, {again} again");
    assert!(broken > 0, "the line was never bad");
    again
}

/// Returns what a connection carries towards the registry before it breaks, in bytes.
fn share_bytes() -> u64 {
    from_environment::<u64>("VIOLETD_PUSH_CUT_MIB", 24) << 20
}
