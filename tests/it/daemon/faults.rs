//! A drop folder that cannot be written to.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::geteuid;
use violetd::sys::fs as durable;

use super::{assert_holds, holds};
use crate::support::{Auth, Daemon, Mount, Package, Setup, TestRegistry, drop_into, metric};

#[test]
fn a_drop_folder_that_cannot_be_written_to_is_read_once() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none");
    // The daemon sees this folder only through a path that it cannot write to; files come by the other one.
    let (seen, writable) = (setup.path("seen"), setup.path("writable"));
    durable::ensure_dir_all(&writable).unwrap();
    let first = Package::small("first");
    drop_into(&writable, ("first.tgz", &first.bytes()), &[]);
    let (setup, _mount) = if geteuid().is_root() {
        let mount = Mount::read_only(&seen, &writable);
        (setup.folder(&seen, "none"), Some(mount))
    } else {
        std::fs::set_permissions(&writable, Permissions::from_mode(0o555)).unwrap();
        (setup.folder(&writable, "none"), None)
    };
    let setup = setup.target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    daemon.wait_in_sync(1);
    assert_holds(&registry, &first);
    daemon.wait_for_log("file stays in the drop folder");
    assert!(holds(&writable, &["first.tgz"]));

    // The next package makes the daemon look at the folder again, and so does the next start.
    std::fs::set_permissions(&writable, Permissions::from_mode(0o755)).unwrap();
    let second = Package::small("second");
    drop_into(&writable, ("second.tgz", &second.bytes()), &[]);
    let expected = if geteuid().is_root() {
        &["first.tgz", "second.tgz"][..]
    } else {
        &["done"][..]
    };
    daemon.wait_in_sync(2);
    let metrics = daemon.metrics();
    assert_eq!(metric(&metrics, "violetd_ingest_packages_ready_total"), 2);
    assert_eq!(
        metric(&metrics, "violetd_ingest_packages_repeated_total"),
        0
    );
    daemon.wait_until("its place of the second file", |_| {
        holds(&writable, expected)
    });

    let daemon = Daemon::start(daemon.stop());
    let third = Package::small("third");
    let folder = daemon.setup.drop_dir.clone();
    drop_into(&folder, ("third.tgz", &third.bytes()), &[]);
    daemon.wait_in_sync(3);
    let metrics = daemon.metrics();
    assert_eq!(metric(&metrics, "violetd_ingest_packages_ready_total"), 1);
    assert_eq!(
        metric(&metrics, "violetd_ingest_packages_repeated_total"),
        0
    );
    daemon.stop();
}
