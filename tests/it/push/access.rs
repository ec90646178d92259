//! Logins, certificates, and what a command line may not say.

use std::io::Write as _;
use std::process::Stdio;

use super::{User, report, report_of, words};
use crate::daemon::assert_holds;
use crate::support::{Auth, Authority, PASSWORD, Package, TestRegistry, USERNAME, write};

#[test]
fn passwords_come_from_standard_input_files_and_the_environment_and_show_nowhere() {
    let authority = Authority::new();
    let certificate = authority.issue("localhost");
    let registry = TestRegistry::build(Auth::Basic).tls(&certificate).start();
    let package = Package::small("app");
    let user = User::new();
    let dir = tempfile::TempDir::new().unwrap();
    let (roots, secret) = (dir.path().join("ca.pem"), dir.path().join("password"));
    write(&roots, authority.pem());
    write(&secret, format!("{PASSWORD}\n"));
    let address = format!("localhost:{}", registry.address().port());
    let push = || {
        let mut push = user.push();
        push.args([
            "--debug",
            "--dest-repo",
            &address,
            "--username",
            USERNAME,
            "--connect-to",
            "127.0.0.1",
        ]);
        push.arg("--ca-file").arg(&roots).arg(&package.path);
        push
    };
    let in_file = push().arg("--password-file").arg(&secret).output().unwrap();
    let in_environment = push()
        .env("VIOLETD_PUSH_PASSWORD", PASSWORD)
        .output()
        .unwrap();
    let mut child = push()
        .arg("--password-stdin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What others on this machine can see while it runs.
    let arguments = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(PASSWORD));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(PASSWORD.as_bytes()).unwrap();
    drop(stdin);
    let on_stdin = child.wait_with_output().unwrap();
    let on_command_line = push().args(["--password", PASSWORD]).output().unwrap();
    for output in [&in_file, &in_environment, &on_stdin, &on_command_line] {
        let found = report_of(output, 0);
        assert_eq!(found["state"], "done", "{found:#}");
        assert!(!words(output).contains(PASSWORD), "{}", words(output));
        assert!(!found.to_string().contains(PASSWORD), "{found:#}");
    }
    assert!(words(&on_command_line).contains("warning: the password for the registry"));
    assert!(!words(&in_file).contains("warning: the password"));

    let refused = push().args(["--password", "wrong"]).output().unwrap();
    assert_eq!(report_of(&refused, 77)["state"], "failed");
}

#[test]
fn a_file_that_skopeo_logs_in_to_is_a_login() {
    let registry = TestRegistry::start(Auth::Basic);
    let package = Package::small("app");
    let dir = tempfile::TempDir::new().unwrap();
    let logins = dir.path().join("auth.json");
    registry.log_in(&logins);
    let address = registry.address().to_string();
    // Each time as somebody who knows nothing of the registry.
    let push = || {
        let user = User::new();
        let mut push = user.push();
        push.args(["--dest-repo", &address, "--plain", "--docker-config"]);
        push.arg(&logins).arg(&package.path).output().unwrap()
    };
    let output = push();
    assert_eq!(report_of(&output, 0)["state"], "done", "{output:?}");

    write(&logins, r#"{"auths": {"#);
    let output = push();
    assert!(!output.status.success(), "{output:?}");
    let said = format!(
        "{}{}",
        words(&output),
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(said.contains("no login from file "), "{said}");
}

#[test]
fn a_registry_needs_a_login_or_the_word_that_there_is_none() {
    let package = Package::small("app");
    let path = package.path.to_str().unwrap();
    let user = User::new();
    for (arguments, expected) in [
        (
            vec!["--dest-repo", "localhost:1", path],
            "when --dest-repo is specified, either the authentication info",
        ),
        (vec![path], "expected --dest-repo"),
        (vec!["--skip-push", path], "expected --platform-address"),
        (
            vec!["--skip-push", "--skip-crs", path],
            "cannot be used with",
        ),
        (
            vec!["--dest-repo", "localhost:1", "--username", "a", path],
            "expected the password for the registry",
        ),
        (
            vec!["--dest-repo", "localhost:1/path", "--no-auth", path],
            "expected `host` or `host:port`",
        ),
    ] {
        let output = user.push().args(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {output:?}");
        let words = words(&output);
        assert!(words.contains(expected), "{arguments:?}: {words}");
    }
    let mut absent = user.push_to("localhost:1");
    let output = absent.arg("/absent.tgz").output().unwrap();
    assert_eq!(output.status.code(), Some(66), "{output:?}");
}

#[test]
fn flags_of_violet_that_have_no_effect_are_answered() {
    let registry = TestRegistry::start(Auth::None);
    let package = Package::small("app");
    let user = User::new();
    let mut push = user.push_to(registry.address());
    push.args([
        "--reset-bundle-version",
        "--target-chartrepo=public-charts",
        "--skip-crs",
    ]);
    let output = push.arg(&package.path).output().unwrap();
    report_of(&output, 0);
    let words = words(&output);
    for name in ["--reset-bundle-version", "--target-chartrepo"] {
        assert!(words.contains(&format!("note: {name}")), "{words}");
    }
    assert_holds(&registry, &package);
}

#[test]
fn a_server_that_is_not_there_is_tried_again_later() {
    let package = Package::small("app");
    let user = User::new();
    let mut push = user.push_to("127.0.0.1:1");
    let found = report(push.arg(&package.path), 75);
    assert_eq!(found["state"], "failed", "{found:#}");
    // What was taken in stays, so that the next attempt begins with the registry.
    assert_ne!(user.cached_blobs(), 0);
}

#[test]
fn a_login_for_a_part_of_the_registry_is_named_once_and_not_used() {
    let registry = TestRegistry::start(Auth::Basic);
    let package = Package::small("app");
    let user = User::new();
    let dir = tempfile::TempDir::new().unwrap();
    let logins = dir.path().join("auth.json");
    registry.log_in_to("/app", &logins);
    let push = || {
        let mut push = user.push();
        push.args(["--plain", "--dest-repo", &registry.address().to_string()])
            .arg("--docker-config")
            .arg(&logins)
            .arg(&package.path);
        push.output().unwrap()
    };
    let key = format!("keys=\"{}/app\"", registry.address());
    let without = push();
    report_of(&without, 77);
    registry.log_in(&logins);
    let with = push();
    report_of(&with, 0);
    for output in [without, with] {
        let words = words(&output);
        assert_eq!(words.matches(&key).count(), 1, "{words}");
    }
}
