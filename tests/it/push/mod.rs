//! `violetd push`: without a daemon, as a hurried operator has it.

mod access;
mod interrupted;
mod layouts;
mod packages;
mod refused;
mod resources;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::program;

/// A user with a home of their own.
#[derive(Debug)]
struct User {
    home: TempDir,
}

impl User {
    fn new() -> Self {
        Self {
            home: TempDir::new().unwrap(),
        }
    }

    /// Returns a push to a registry over plain HTTP that asks for no login.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "addresses of several types are at hand"
    )]
    fn push_to(&self, registry: impl ToString) -> Command {
        let mut command = self.push();
        command
            .args(["--dest-repo", &registry.to_string()])
            .args(["--no-auth", "--plain"]);
        command
    }

    fn push(&self) -> Command {
        let mut command = program();
        command
            .env("HOME", self.home.path())
            .args(["push", "--json"]);
        command
    }

    /// Returns where packages are unpacked.
    fn cache(&self) -> PathBuf {
        self.home.path().join(".cache/violetd")
    }

    /// Returns how many blobs the cache holds.
    fn cached_blobs(&self) -> usize {
        let store = violetd::store::Store::open_read_only(&self.cache()).unwrap();
        store.list().count()
    }
}

/// Runs a push that must end like this, and returns its report.
fn report(command: &mut Command, code: i32) -> Value {
    let output = command.output().unwrap();
    report_of(&output, code)
}

fn report_of(output: &Output, code: i32) -> Value {
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words}");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}\n{words}"))
}

/// Returns what was printed for people.
fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Copies a package with its sidecar into a folder.
fn put_into(folder: &Path, path: &Path) {
    for source in [path.to_owned(), path.with_extension("tgz.sha256")] {
        let name = source.file_name().unwrap();
        crate::support::write(&folder.join(name), std::fs::read(&source).unwrap());
    }
}
