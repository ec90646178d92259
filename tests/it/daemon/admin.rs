//! The admin API: what it answers, and where.

use std::net::{SocketAddr, TcpStream};

use crate::support::{Auth, Daemon, Package, Setup, TestRegistry, get, metric};

#[test]
fn metrics_and_health_are_all_that_tcp_offers() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none")
        .variable("VIOLETD_ADMIN__LISTEN", "127.0.0.1:0")
        .target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    daemon.setup.drop_package(&Package::small("app"));
    daemon.wait_in_sync(1);
    daemon.wait_for_log("metrics and health are served");
    let lines = daemon.log_lines("metrics and health are served");
    let address = lines[0].split("address=").nth(1).unwrap().trim();
    let address: SocketAddr = address.parse().unwrap();
    let ask = |path: &str| get(TcpStream::connect(address).unwrap(), path);

    let (status, body) = ask("/metrics");
    let text = String::from_utf8(body).unwrap();
    assert_eq!(status, 200, "{text}");
    assert_eq!(metric(&text, "violetd_packages"), 1);
    assert!(text.ends_with("# EOF\n"), "{text}");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(path).0, 200, "{path}");
    }
    for path in ["/v1/status", "/v1/packages", "/", "/metrics/x"] {
        assert_eq!(ask(path).0, 404, "{path}");
    }
    daemon.stop();
}

#[test]
fn a_target_that_is_not_there_is_answered_with_those_that_are() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let refused = daemon.setup.run(&["sync", "global-z"]);
    let words = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(66), "{words}");
    assert_eq!(
        words,
        "error: no target `global-z`\nhint: use one of: global-a\n"
    );
    daemon.stop();
}
