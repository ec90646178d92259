//! The files for systemd: accepted by its own tools, hardened, and in agreement with the example configuration.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use violetd::config::Config;

const UNIT: &str = include_str!("../../systemd/violetd.service");
const SYSUSERS: &str = include_str!("../../systemd/violetd.sysusers");
const TMPFILES: &str = include_str!("../../systemd/violetd.tmpfiles");
const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Where the unit expects the program and its configuration.
const PROGRAM: &str = "/usr/bin/violetd";
const CONFIGURATION: &str = "/etc/violetd/violetd.toml";

/// The highest exposure that is accepted, in tenths. `systemd-analyze security` calls everything below 2.0 OK; what
/// remains is that the service speaks to the network.
const EXPOSURE_MAX_TENTHS: u32 = 15;

/// The values of every line `key=...` of the unit.
fn values(key: &str) -> Vec<&'static str> {
    UNIT.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

/// The only value of `key` in the unit.
fn value(key: &str) -> &'static str {
    match values(key)[..] {
        [value] => value,
        ref values => panic!("expected one {key}, found {values:?}"),
    }
}

fn fields_of(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_whitespace().collect())
}

fn example() -> Config {
    Config::parse(Path::new(CONFIGURATION), EXAMPLE, std::iter::empty()).unwrap()
}

/// Runs a tool of systemd and fails with its output unless it succeeds.
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .env("SYSTEMD_LOG_LEVEL", "warning")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Calls `check` with the path of the unit, in which the program is the one under test.
fn with_unit(check: impl FnOnce(&str)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("violetd.service");
    let text = UNIT.replace(PROGRAM, env!("CARGO_BIN_EXE_violetd"));
    violetd::sys::fs::replace_file(&path, text.as_bytes(), 0o644).unwrap();
    check(path.to_str().unwrap());
}

#[test]
fn unit_is_accepted() {
    with_unit(|unit| {
        run(
            "systemd-analyze",
            &["verify", "--man=no", "--recursive-errors=no", unit],
        );
    });
}

#[test]
fn unit_is_hardened() {
    let threshold = format!("--threshold={EXPOSURE_MAX_TENTHS}");
    with_unit(|unit| {
        run(
            "systemd-analyze",
            &["security", "--no-pager", "--offline=true", &threshold, unit],
        );
    });
}

#[test]
fn sysusers_file_is_accepted() {
    let root = tempfile::tempdir().unwrap();
    let root = format!("--root={}", root.path().display());
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/violetd.sysusers");
    run("systemd-sysusers", &["--dry-run", &root, file]);
}

#[test]
fn every_user_and_group_is_created() {
    let mut users = BTreeSet::from(["root"]);
    let mut groups = BTreeSet::from(["root"]);
    for fields in fields_of(SYSUSERS) {
        match fields[0] {
            // A user has a group of the same name.
            "u" => assert!(users.insert(fields[1]) && groups.insert(fields[1])),
            "g" => assert!(groups.insert(fields[1])),
            "m" => assert!(users.contains(fields[1]) && groups.contains(fields[2])),
            other => panic!("expected u, g or m, found {other}"),
        }
    }
    assert!(users.contains(value("User")));
    assert!(groups.contains(value("Group")));
    assert!(groups.contains(value("SupplementaryGroups")));
    for fields in fields_of(TMPFILES) {
        let [_, path, _, user, group, _] = fields[..] else {
            panic!("expected six fields, found {fields:?}");
        };
        assert!(
            users.contains(user) && groups.contains(group),
            "path: {path}"
        );
    }
}

#[test]
fn every_folder_of_the_example_exists_and_can_be_written() {
    let config = example();
    let created: BTreeSet<&Path> = fields_of(TMPFILES)
        .map(|fields| Path::new(fields[1]))
        .collect();
    for drop in &config.drops {
        for path in [&drop.path, &drop.done_dir, &drop.rejected_dir] {
            let path = path.as_path();
            assert!(created.contains(path), "{}", path.display());
            assert!(
                path.starts_with(value("ReadWritePaths")),
                "{}",
                path.display()
            );
        }
    }
    for path in &config.verify.keyring {
        assert!(created.contains(path.as_path()), "{}", path.display());
    }
    let below = |root: &str, key: &str| Path::new(root).join(value(key));
    assert_eq!(config.state_dir, below("/var/lib", "StateDirectory"));
    assert_eq!(
        config.admin.socket.parent(),
        Some(below("/run", "RuntimeDirectory").as_path())
    );
}

#[test]
fn configuration_is_checked_before_the_start() {
    assert_eq!(
        (value("ExecStartPre"), value("ExecStart")),
        (
            format!("{PROGRAM} config check --config {CONFIGURATION}").as_str(),
            format!("{PROGRAM} serve --config {CONFIGURATION}").as_str()
        )
    );
}

#[test]
fn program_understands_the_command_lines_of_the_unit() {
    for key in ["ExecStartPre", "ExecStart"] {
        let line = value(key).replace(CONFIGURATION, "/nonexistent/violetd.toml");
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some(PROGRAM));
        let output = Command::new(env!("CARGO_BIN_EXE_violetd"))
            .args(words)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(
            words.contains("failed to read configuration `/nonexistent/violetd.toml`"),
            "{key}: {}, {words}",
            output.status
        );
    }
}

#[test]
fn exit_code_of_a_wrong_configuration_prevents_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("violetd.toml");
    violetd::sys::fs::replace_file(&path, b"state_dir = 1", 0o600).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_violetd"))
        .args(["serve", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    let code = output.status.code().unwrap();
    assert_eq!(code.to_string(), value("RestartPreventExitStatus"));
}
