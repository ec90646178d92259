//! Pipes, folders and links where files are expected: none of them is waited for, and what can be read goes on.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use rustix::process::geteuid;
use violetd::sys::fs as durable;

use super::{dropped_file, make_pipe, setup_without_delivery, wait_ready, wait_refused};
use crate::support::{Daemon, Package, drop_into, write};

#[test]
fn what_is_no_file_holds_up_nothing_whatever_it_stands_for() {
    let daemon = Daemon::start(setup_without_delivery("none"));
    let folder = daemon.setup.drop_dir.clone();
    let at = |name: &str| folder.join(name);
    // In the place of packages, of a table and of a part: none of them is looked at.
    make_pipe(&at("pipe.tgz"));
    symlink("link.tgz", at("link.tgz")).unwrap();
    symlink(".", at("round")).unwrap();
    make_pipe(&at("table.tgz.parts"));
    write(&at("table.tgz.001"), b"x");
    make_pipe(&at("part.tgz.001"));
    let table = br#"{"format":"violetd parts","version":1}"#;
    // In the place of sidecars: whoever put them there wanted the package to be vouched for.
    make_pipe(&at("a.tgz.sig"));
    symlink("pipe.tgz", at("b.tgz.sha256")).unwrap();
    durable::ensure_dir_all(&at("c.tgz.asc/d")).unwrap();
    symlink("/dev/zero", at("d.tgz.sha512")).unwrap();
    make_pipe(&at("list/SHA256SUMS"));
    for name in ["a.tgz", "b.tgz", "c.tgz", "d.tgz", "list/e.tgz"] {
        drop_into(at(name).parent().unwrap(), (file_name(name), b"x"), &[]);
        assert_eq!(wait_refused(&daemon, name)["code"], "not-a-file", "{name}");
    }
    drop_into(&folder, ("part.tgz.parts", table), &[]);
    assert_eq!(
        wait_refused(&daemon, "part.tgz.parts")["code"],
        "parts-table-malformed"
    );
    // What may be readable later waits.
    symlink("f.tgz.sig", at("f.tgz.sig")).unwrap();
    let mut waiting = vec![drop_into(&folder, ("f.tgz", b"x"), &[])];
    if geteuid().is_root() {
        eprintln!("not run: root can read every file");
    } else {
        let unreadable = [("sig", b"x".to_vec())];
        waiting.push(drop_into(&folder, ("g.tgz", b"x"), &unreadable));
        let mode = std::fs::Permissions::from_mode(0o000);
        std::fs::File::open(at("g.tgz.sig"))
            .unwrap()
            .set_permissions(mode)
            .unwrap();
    }
    for path in &waiting {
        daemon.wait_until("a file that is tried again", |status| {
            dropped_file(status, path).is_some_and(|file| file["code"] == "file-unreadable")
        });
    }
    daemon.setup.drop_package(&Package::small("good"));
    let status = wait_ready(&daemon, 1);
    let waits = dropped_file(&status, &at("table.tgz.parts")).unwrap();
    assert_eq!(
        waits["reason"],
        "waits for `table.tgz.parts`, the table of its parts"
    );
    daemon.stop();
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}
