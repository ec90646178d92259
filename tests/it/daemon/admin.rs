//! The admin API: what it answers, and where.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use violetd::sys::fs as durable;

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

#[test]
fn a_stopped_daemon_leaves_a_status_that_says_so() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let package = Package::small("app");
    daemon.setup.drop_package(&package);
    let running = daemon.wait_in_sync(1);
    assert_eq!(running["is_running"], true);
    let shown = |setup: &Setup, arguments: &[&str]| {
        let output = setup.run(arguments);
        let words = String::from_utf8(output.stderr).unwrap();
        let is_told = words.starts_with("the daemon is not running: nobody listens at `");
        let data = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code(), is_told, data)
    };
    let list = ["packages", "--output", "json"];
    let (code, is_told, packages) = shown(&daemon.setup, &list);
    assert_eq!((code, is_told), (Some(0), false));
    assert_eq!(packages, running["packages"]);
    let digest = packages[0]["digest"].as_str().unwrap();
    let one = ["packages", digest, "--output", "json"];
    let (code, _, detail) = shown(&daemon.setup, &one);
    assert_eq!(code, Some(0));
    let images = detail["images"].as_array().unwrap();
    assert_eq!(images.len(), package.images.placed.len());
    assert_eq!(detail["in_sync_on"], packages[0]["in_sync_on"]);

    let setup = daemon.stop();
    let (code, is_told, status) = shown(&setup, &["status", "--output", "json"]);
    assert_eq!((code, is_told), (Some(0), true));
    assert_eq!(status["is_running"], false);
    assert_eq!(status["is_in_sync"], true);
    assert_eq!(status["packages"], running["packages"]);
    for key in ["last_run", "packages_in_sync", "registry", "role"] {
        assert_eq!(status["targets"][0][key], running["targets"][0][key]);
    }
    assert_eq!(shown(&setup, &list), (Some(0), true, packages.clone()));
    assert_eq!(shown(&setup, &one), (Some(0), true, detail));
    assert_eq!(shown(&setup, &["status", "--check"]).0, Some(1));
    let missing = format!("sha256:{}", "0".repeat(64));
    assert_eq!(shown(&setup, &["packages", &missing]).0, Some(66));
}

#[test]
fn a_lost_catalog_is_made_anew_from_the_records_of_packages() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    daemon.setup.drop_package(&Package::small("app"));
    let before = daemon.wait_in_sync(1);
    let setup = daemon.stop();

    durable::remove_dir_all(&setup.state_dir.join("catalog")).unwrap();
    let output = setup.run(&["packages", "--output", "json"]);
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("the catalog is missing or damaged"),
        "{words}"
    );
    let packages: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(packages[0]["digest"], before["packages"][0]["digest"]);
    assert_eq!(packages[0]["in_sync_on"], Value::Array(Vec::new()));

    let daemon = Daemon::start(setup);
    daemon.wait_for_log("catalog is missing and is made anew");
    let status = daemon.wait_in_sync(1);
    assert_eq!(status["packages"], before["packages"]);
    let setup = daemon.stop();
    durable::replace_file(&setup.state_dir.join("catalog/CURRENT"), b"none", 0o644).unwrap();
    let daemon = Daemon::start(setup);
    daemon.wait_for_log("catalog is damaged and is made anew");
    let status = daemon.wait_in_sync(1);
    assert_eq!(status["packages"], before["packages"]);
    let quarantine = daemon.setup.state_dir.join("quarantine/catalog.0");
    assert!(quarantine.is_dir());
    daemon.stop();
}

#[test]
fn the_last_run_of_a_target_is_reported_image_by_image() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let absent = daemon.setup.run(&["report", "global-a"]);
    assert_eq!(absent.status.code(), Some(66), "{absent:?}");
    daemon.setup.drop_package(&Package::small("app"));
    daemon.wait_in_sync(1);
    let report = |setup: &Setup| {
        let output = setup.run(&["report", "global-a", "--output", "json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let running = report(&daemon.setup);
    assert_eq!(running["outcome"], "in_sync", "{running:#}");
    let image = &running["images"][0];
    assert_eq!(image["image"], "app:v1", "{running:#}");
    assert_eq!(image["state"], "pushed", "{running:#}");
    assert!(image["sent"]["bytes"].as_u64().unwrap() > 0, "{running:#}");
    let text = daemon.setup.run(&["report", "global-a"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("app:v1  pushed"), "{text}");

    let setup = daemon.stop();
    assert_eq!(report(&setup), running);
}
