//! Every damage is found under its code and nothing else is, and a sound state directory has none.

mod damage;
mod fixture;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

use self::fixture::{State, layer_of};
use super::look::Look;
use super::{
    Code, Counter, Depth, Error, Finding, Observer, Options, Progress, Report, Severity, check,
    check_owned,
};
use crate::base::{Class, Classified as _};
use crate::catalog::{Column, IngestState, raw};
use crate::sys::fs as durable;
use crate::sys::lock::Lock;

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Kept {
    findings: Vec<Finding>,
    progress: Progress,
}

impl Observer for Kept {
    fn found(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn progress(&mut self, progress: Progress) {
        self.progress = progress;
    }
}

impl Kept {
    fn codes(&self) -> Vec<&'static str> {
        let mut codes: Vec<_> = self.findings.iter().map(|it| it.code.name()).collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    }
}

fn options(depth: Depth) -> Options {
    Options {
        depth,
        ..Options::default()
    }
}

fn look(state: &State, depth: Depth) -> (Report, Kept) {
    let mut kept = Kept::default();
    let report = check(&state.root, &options(depth), &mut kept).unwrap();
    (report, kept)
}

/// Returns every path with its size, mode and time of change.
fn listing(root: &Path) -> String {
    let mut find = Command::new("find");
    find.arg(root).args(["-printf", "%P %s %m %T@ %n\\n"]);
    String::from_utf8(find.output().unwrap().stdout).unwrap()
}

#[test]
fn a_sound_state_directory_has_no_findings_and_stays_as_it_is() {
    let state = State::new();
    let before = listing(&state.root);
    for depth in [Depth::Quick, Depth::Deep] {
        let (report, kept) = look(&state, depth);
        assert_eq!(kept.findings, []);
        assert_eq!((report.packages, report.unreferenced_blobs), (6, 0));
        assert!(report.blobs > 10, "{report:?}");
        let hashed = match depth {
            Depth::Quick => (0, 0),
            Depth::Deep => (report.blobs, report.blob_bytes),
        };
        assert_eq!((report.hashed_blobs, report.hashed_bytes), hashed);
        if depth == Depth::Deep {
            assert_eq!(kept.progress.blobs, kept.progress.blobs_total);
            assert_eq!(report.images, 6);
        }
    }
    assert_eq!(listing(&state.root), before);
}

#[test]
fn what_is_no_state_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("absent")] {
        let error = check(&path, &Options::default(), &mut Kept::default()).unwrap_err();
        assert_eq!(error.class(), Class::Absent, "{error}");
        assert!(error.hint().unwrap().contains("state directory"));
        let error = super::rebuild(&path, |_| Ok(())).unwrap_err();
        assert_eq!(error.class(), Class::Absent, "{error}");
    }
}

#[test]
fn blobs_that_a_waiting_file_expects_are_not_unreferenced() {
    let state = State::new();
    let digest = state.store_blob(b"a delta builds on this");
    let waiting = IngestState::Waiting {
        missing: vec![digest],
        sizes_bytes: vec![22],
        present: Vec::new(),
    };
    let catalog = state.catalog();
    let (_, kept) = look(&state, Depth::Quick);
    assert_eq!(kept.codes(), ["blobs-unreferenced"]);
    let record = fixture::ingest("/drop/delta.tgz", waiting);
    catalog.put_ingest(&record).unwrap();
    drop(catalog);
    let (report, kept) = look(&state, Depth::Quick);
    assert_eq!(kept.findings, []);
    assert_eq!(report.unreferenced_blobs, 0);
}

#[test]
fn without_a_catalog_the_files_of_packages_say_what_is_kept() {
    let state = State::new();
    durable::empty_dir(&state.path("catalog")).unwrap();
    durable::remove_file(&state.blob_path(&layer_of("one"))).unwrap();
    let (report, kept) = look(&state, Depth::Deep);
    assert_eq!(kept.codes(), ["blob-missing", "catalog-missing"]);
    assert_eq!((report.packages, report.images), (6, 6));
}

#[test]
fn a_missing_blob_is_said_with_its_package_and_once() {
    let state = State::new();
    // Two packages keep it.
    let shared = layer_of("base");
    durable::remove_file(&state.blob_path(&shared)).unwrap();
    for depth in [Depth::Quick, Depth::Deep] {
        let (report, kept) = look(&state, depth);
        let [finding] = kept.findings.as_slice() else {
            panic!("{:?}", kept.findings);
        };
        assert_eq!(finding.subject, shared.to_string());
        let packages = ["one", "two"].map(|name| state.digest(name).to_string());
        let is_named = |package: &String| finding.reason.contains(package.as_str());
        assert!(packages.iter().any(is_named), "{}", finding.reason);
        assert_eq!(report.errors, 1);
    }
}

/// Looks beside a daemon that does something between the first look and the second.
fn look_twice(state: &State, meanwhile: impl Fn()) -> Kept {
    let options = Options::default();
    let look = Look {
        root: &state.root,
        options: &options,
        is_owned: true,
        meanwhile: &meanwhile,
    };
    let mut kept = Kept::default();
    let mut counter = Counter {
        inner: &mut kept,
        report: Report::default(),
    };
    look.twice(&mut counter).unwrap();
    kept
}

#[test]
fn beside_a_daemon_what_passes_is_not_reported_and_what_stays_is() {
    let state = State::new();
    let paths: Vec<PathBuf> = ["passing", "staying"].map(|name| state.path(name)).into();
    for path in &paths {
        durable::ensure_dir(path).unwrap();
    }
    durable::replace_file(&state.path("ingest/staged"), b"x", 0o600).unwrap();
    durable::replace_file(&state.path(".violetd-AbCdEf"), b"x", 0o600).unwrap();
    // A package that is just becoming ready: its file is there, its rows are not.
    for column in [Column::Package, Column::Content] {
        raw::put_raw(&state.root, column, state.digest("one").as_bytes(), None);
    }
    let (_, kept) = look(&state, Depth::Quick);
    assert!(kept.codes().contains(&"row-missing"), "{:?}", kept.codes());
    let kept = look_twice(&state, || {
        std::fs::remove_dir(&paths[0]).unwrap();
        drop(state.catalog());
    });
    let found: BTreeMap<&str, &str> = kept
        .findings
        .iter()
        .map(|finding| (finding.code.name(), finding.subject.as_str()))
        .collect();
    assert_eq!(found, BTreeMap::from([("foreign-file", "staying")]));
    assert_eq!(kept.findings.len(), 1);
}

#[test]
fn a_rebuild_needs_the_lock() {
    let state = State::new();
    let lock = Lock::acquire(&state.path("LOCK")).unwrap();
    let error = super::rebuild(&state.root, |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Lock(_)), "{error}");
    let pid = std::process::id().to_string();
    assert!(error.to_string().contains(&pid), "{error}");
    drop(lock);
    let path = super::rebuild(&state.root, |root| Ok(root.to_owned())).unwrap();
    assert_eq!(path, state.root);
}

#[test]
fn each_damage_is_found_under_its_code_and_nothing_else_is() {
    // Most of the time they wait for the disk.
    std::thread::scope(|scope| {
        for codes in Code::ALL.chunks(Code::ALL.len().div_ceil(8)) {
            scope.spawn(|| codes.iter().for_each(|code| assert_found(*code)));
        }
    });
}

fn assert_found(code: Code) {
    if code == Code::WrongOwner && !geteuid().is_root() {
        return;
    }
    let state = State::new();
    let damage = damage::inflict(code, &state);
    let mut kept = Kept::default();
    let report = check_owned(&state.root, damage.owner, &damage.options, &mut kept).unwrap();
    drop(damage.faults);
    assert_eq!(kept.codes(), [code.name()], "{:#?}", kept.findings);
    let counts = (report.errors, report.warnings, report.infos);
    let total = kept.findings.len() as u64;
    let expected = match code.severity() {
        Severity::Error => (total, 0, 0),
        Severity::Warning => (0, total, 0),
        Severity::Info => (0, 0, total),
    };
    assert_eq!(counts, expected, "{}", code.name());
    if let Some(subject) = damage.subject {
        let subjects: Vec<&str> = kept.findings.iter().map(|it| &*it.subject).collect();
        assert_eq!(subjects, [subject], "{}", code.name());
    }
}
