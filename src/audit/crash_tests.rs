//! The record against a failure of every single file operation, and against lines that are cut anywhere.

use std::fs;
use std::path::Path;

use super::tests::{breaks, events, files, now, options, verdict};
use super::*;
use crate::sys::fault::Faults;

/// Everything a record goes through: a beginning, three files, a restart. Returns what was acknowledged.
fn life(root: &Path) -> (Vec<Head>, Result<(), Error>) {
    let mut heads = Vec::new();
    let result = (|| {
        let log = Log::open(options(root), now())?;
        for name in ["a", "b", "c", "d"] {
            heads.push(log.append(&verdict(name), now())?);
        }
        let log = Log::open(options(root), now())?;
        heads.push(log.append(&verdict("e"), now())?);
        Ok(())
    })();
    (heads, result)
}

fn operations_of_a_life() -> usize {
    let root = tempfile::tempdir().unwrap();
    let recorded = Faults::record(root.path());
    life(root.path()).1.unwrap();
    recorded.done().len()
}

/// Returns the lines of a record as heads.
fn heads(dir: &Path) -> Vec<Head> {
    let mut heads = Vec::new();
    let visit = |line: Line<'_>, entry: &Entry| {
        heads.push(Head {
            sequence: entry.sequence,
            hash: line.hash,
        });
    };
    check(dir, visit).unwrap();
    heads
}

#[test]
fn a_failure_of_any_single_operation_loses_no_line_that_was_acknowledged() {
    let operations = operations_of_a_life();
    assert!(operations > 20, "{operations}");
    for step in 0..operations {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(DIR);
        let faults = Faults::after(step, root.path());
        let (acknowledged, result) = life(root.path());
        result.unwrap_err();
        assert!(faults.done().len() > step, "step {step} was not reached");
        drop(faults);
        life(root.path()).1.unwrap();
        assert_eq!(breaks(&dir), Vec::<String>::new(), "step {step}");
        let held = heads(&dir);
        for head in acknowledged {
            assert!(held.contains(&head), "step {step}: {head}");
        }
    }
}

#[test]
fn a_failure_does_not_end_a_log() {
    for step in 0..operations_of_a_life() {
        let root = tempfile::tempdir().unwrap();
        let Ok(log) = Log::open(options(root.path()), now()) else {
            panic!("no fault yet");
        };
        let faults = Faults::after(step, root.path());
        let mut failed = 0;
        for name in ["a", "b", "c", "d"] {
            failed += usize::from(log.append(&verdict(name), now()).is_err());
        }
        let was_reached = faults.done().len() > step;
        assert_eq!(failed, usize::from(was_reached), "step {step}");
        drop(faults);
        log.append(&verdict("e"), now()).unwrap();
        let dir = root.path().join(DIR);
        assert_eq!(breaks(&dir), Vec::<String>::new(), "step {step}");
        assert!(events(&dir).len() >= 5 - failed);
    }
}

#[test]
fn content_is_durable_before_success_and_so_is_the_name_of_its_file() {
    let root = tempfile::tempdir().unwrap();
    let recorded = Faults::record(root.path());
    let log = Log::open(options(root.path()), now()).unwrap();
    log.append(&verdict("a"), now()).unwrap();
    let done = recorded.done();
    let dir = root.path().join(DIR);
    let file = dir.join("audit-000001.jsonl");
    let position = |step: (&str, &Path)| {
        let found = done
            .iter()
            .position(|(verb, path)| (*verb, path.as_path()) == step);
        found.unwrap_or_else(|| panic!("{step:?} is not among {done:?}"))
    };
    let (created, named) = (position(("create", &file)), position(("sync", &dir)));
    let written = position(("write to", &file));
    assert!(created < named && named < written, "{done:?}");
    assert_eq!(done.last().unwrap(), &("sync", file), "{done:?}");
}

#[test]
fn a_line_that_is_cut_anywhere_is_evidence_and_no_break() {
    let whole = tempfile::tempdir().unwrap();
    life(whole.path()).1.unwrap();
    let source = whole.path().join(DIR);
    let names = files(&source);
    let last = fs::read(names.last().unwrap()).unwrap();
    let start = last[..last.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    // Both ends, and enough in between.
    for length in (start..last.len())
        .step_by(29)
        .chain([start + 1, last.len() - 1])
    {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(DIR);
        crate::sys::fs::ensure_dir(&dir).unwrap();
        for name in &names {
            let bytes = fs::read(name).unwrap();
            let is_last = Some(name) == names.last();
            let kept = if is_last { &bytes[..length] } else { &bytes };
            let copy = dir.join(name.file_name().unwrap());
            crate::sys::fs::replace_file(&copy, kept, 0o600).unwrap();
        }
        // Twice: what was noted once is not noted again.
        Log::open(options(root.path()), now()).unwrap();
        let log = Log::open(options(root.path()), now()).unwrap();
        log.append(&verdict("f"), now()).unwrap();
        let recovered = usize::from(length > start);
        let noted = events(&dir)
            .iter()
            .filter(|event| **event == "recovered")
            .count();
        assert_eq!(noted, recovered, "cut at {length}");
        assert_eq!(breaks(&dir), Vec::<String>::new(), "cut at {length}");
    }
}
