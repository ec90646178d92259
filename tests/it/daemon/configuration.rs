//! Configurations that must not run, and what is said about them.

use crate::support::{Daemon, Setup, run_program};

/// Exit code for a configuration that makes no sense (`EX_USAGE`).
const EXIT_USAGE: Option<i32> = Some(64);

/// Returns the exit code of `violetd config check` and what it says.
fn check(setup: &Setup) -> (Option<i32>, String) {
    let output = setup.run(&["config", "check"]);
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn a_sound_configuration_is_accepted() {
    let setup = Setup::new("none").target("global-a", "primary", "127.0.0.1:5000", "");
    let (code, said) = check(&setup);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 drop folders, 1 targets"), "{said}");
    assert!(!setup.state_dir.exists(), "a check starts nothing");
}

#[test]
fn mistakes_are_named_with_what_to_do_about_them() {
    let standby = "[[target]]\nname = 'global-b'\nrole = 'standby'\n";
    let cases: [(&str, String, &[&str]); 6] = [
        (
            "a key that is nearly one",
            "[disk]\nlow_byte = '1GiB'\n".to_owned(),
            &["`disk.low_byte`", "expected a known key", "hint: ", "`low_bytes`"],
        ),
        (
            "a standby without a registry",
            standby.to_owned(),
            &["registry.address", "standby", "hint: nothing is inferred"],
        ),
        (
            "a standby that does not say how to log in",
            format!("{standby}registry.address = '127.0.0.1:5001'\n"),
            &["username", "hint: set", "no_auth"],
        ),
        (
            "two targets at one registry",
            format!("{standby}registry = {{address = '127.0.0.1:5000', plain_http = true, no_auth = true}}\n"),
            &["global-a", "127.0.0.1:5000", "own registry", "hint: ", "connect_to"],
        ),
        (
            "a schedule that never is",
            "[[target]]\nname = 'global-b'\nrole = 'primary'\nschedule = '61 * * * *'\nregistry.address = 'registry.example'\n"
                .to_owned(),
            &["schedule", "global-b", "`61 * * * *`", "0-59"],
        ),
        (
            "a password in the file",
            "[[target]]\nname = 'global-b'\nrole = 'primary'\nregistry = {address = 'registry.example', username = 'u', password = 'secret'}\n"
                .to_owned(),
            &["password", "hint: write"],
        ),
    ];
    for (what, section, expected) in cases {
        let setup = Setup::new("none")
            .target("global-a", "primary", "127.0.0.1:5000", "")
            .section(&section);
        let (code, said) = check(&setup);
        assert_eq!(code, EXIT_USAGE, "{what}: {said}");
        for part in expected {
            assert!(
                said.contains(part),
                "{what}: `{part}` is missing in: {said}"
            );
        }
        assert!(!said.contains("secret'"), "{said}");
        let (code, _) = setup.refuse_to_serve();
        assert_eq!(code, EXIT_USAGE, "{what}: serve is as strict as check");
    }
}

#[test]
fn two_names_of_one_registry_are_refused_at_the_start() {
    let setup = Setup::new("none")
        .target("global-a", "primary", "127.0.0.1:5000", "")
        .target("global-b", "standby", "localhost:5000", "");
    // Names are resolved by the daemon, not by a check, which may run elsewhere.
    let (code, said) = check(&setup);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = setup.refuse_to_serve();
    assert_eq!(code, EXIT_USAGE, "{said}");
    for part in ["global-a", "global-b", "127.0.0.1:5000", "hint: "] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
fn a_state_directory_has_one_daemon() {
    let daemon = Daemon::start(Setup::new("none").target("global-a", "primary", "127.0.0.1:9", ""));
    let (code, said) = daemon.setup.refuse_to_serve();
    assert_ne!(code, Some(0));
    let process = format!("process {}", daemon.pid());
    for part in ["LOCK", process.as_str(), "hint: ", "admin.socket", "kill"] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    // The first one has lost nothing by it, its socket neither.
    daemon.status();
    daemon.stop();
}

#[test]
fn commands_say_so_where_no_daemon_answers() {
    let setup = Setup::new("none").target("global-a", "primary", "127.0.0.1:5000", "");
    // Nothing was ever started here, so that there is no state to show either.
    let output = setup.run(&["status"]);
    assert_eq!(output.status.code(), Some(66), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr);
    for part in [
        "the daemon is not running",
        "admin.sock",
        "expected a catalog",
    ] {
        assert!(words.contains(part), "`{part}` is missing in: {words}");
    }
    let output = setup.run(&["sync"]);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let output = run_program(&["status", "--config", "/nowhere/violetd.toml"]);
    assert_eq!(output.status.code(), EXIT_USAGE, "{output:?}");
}
