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
use crate::support::{Auth, Daemon, Ending, Package, RoughLine, Setup, TestRegistry};

/// What one connection carries.
fn share_bytes() -> u64 {
    from_environment::<u64>("VIOLETD_PUSH_CUT_MIB", 24) << 20
}

fn setup(registry: SocketAddr) -> Setup {
    Setup::new("none")
        .target("global-a", "primary", registry, "")
        .variable("VIOLETD_REPLICATE__ATTEMPTS_MAX", "5")
        .variable("VIOLETD_REPLICATE__IDLE_TIMEOUT", "1s")
}

/// Pushes a package with one layer over a line, and returns how often the line broke and what it carried.
async fn push_over(ending: Ending, registry: &TestRegistry, package: &Package) -> (usize, u64) {
    let line = RoughLine::start(registry.address(), ending, share_bytes()).await;
    let daemon = Daemon::start(setup(line.address()));
    daemon.setup.drop_package(package);
    daemon.wait_in_sync(1);
    daemon.stop();
    assert_holds(registry, package);
    let (broken, bytes) = (line.broken(), line.bytes());
    let size = package.images.total_bytes();
    println!("{ending:?}: {broken} connections broken, {bytes} bytes carried for {size}");
    assert!(broken > 0, "the line was never bad");
    (broken, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_cuts_every_connection_after_some_bytes_is_pushed_over() {
    let package = package_with_layer("cut", layer_bytes());
    let registry = TestRegistry::start(Auth::None);
    push_over(Ending::Cut, &registry, &package).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_on_which_every_connection_stalls_after_some_bytes_is_pushed_over() {
    let package = package_with_layer("stall", layer_bytes());
    let registry = TestRegistry::start(Auth::None);
    push_over(Ending::Stall, &registry, &package).await;
}
