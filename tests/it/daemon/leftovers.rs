//! What processes that were killed leave behind, and who removes it.

use violetd::sys::fs as durable;

use super::setup_without_delivery;
use crate::support::Daemon;

#[test]
fn unfinished_files_of_a_dead_daemon_are_swept_at_start_and_those_of_others_stay() {
    let setup = Daemon::start(setup_without_delivery("none")).stop();
    let (state, drop) = (setup.state_dir.clone(), setup.drop_dir.clone());
    let ours = [
        state.join(".violetd-000000"),
        state.join("audit/.violetd-aB3dE6"),
        state.join("ingest/.violetd-111111"),
        state.join("packages/.violetd-222222"),
        drop.join("done/.violetd-333333"),
        drop.join("done/2026/redis/.violetd-444444"),
        drop.join("rejected/.violetd-555555"),
        drop.join("requests/.violetd-666666"),
    ];
    let others = [
        state.join("audit/.violetd-note"),
        drop.join(".violetd-777777"),
        drop.join("done/.tmpAbCdEf"),
        drop.join("done/violetd-888888"),
    ];
    for path in ours.iter().chain(&others) {
        durable::ensure_dir_all(path.parent().unwrap()).unwrap();
        durable::replace_file(path, b"half", 0o600).unwrap();
    }
    let daemon = Daemon::start(setup);
    for path in &ours {
        assert!(!path.exists(), "{}", path.display());
    }
    for path in &others {
        assert!(path.exists(), "{}", path.display());
    }
    assert_eq!(
        daemon
            .log_lines("removed what an earlier process left unfinished")
            .len(),
        1
    );
    daemon.stop();
}
