//! Puts a whole scenario to the test of crashes and power cuts: a new scenario says what happens and what must hold
//! afterwards, and everything else is here.
//!
//! # Environment
//!
//! `VIOLETD_TRIAL=all` tries every operation in every way. Without it every operation, or one of
//! [`ONE_OF`](Scenario::ONE_OF), is tried in one of the ways, which take turns, and every moment of a power cut likewise:
//! seconds instead of minutes.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::fault::{Faults, Moment, Then};
use super::power::{Cut, Recorder, Survival};

/// Something that happens to a folder.
pub(crate) trait Scenario {
    /// Unless all are tried, one of so many operations is. Odd numbers let every way have its turn at every place of a
    /// pattern.
    const ONE_OF: usize = 1;

    /// Makes in the empty folder `root` what is there before. All of it is durable.
    fn prepare(root: &Path);

    /// Does what processes do one after the other, from start to end. An error says that they came to another end.
    fn live(root: &Path) -> Result<(), String>;

    /// Fails the test unless what is in `root` is sound, whatever has happened to it; then does the rest, and fails
    /// unless all is as it should be in the end. `what` says what has happened.
    fn check(root: &Path, what: &str);

    /// The folder of the database below `root`.
    fn database(root: &Path) -> PathBuf;

    /// Returns whether operations on `path` are all alike, so that a few of them are enough.
    fn is_repetition(root: &Path, path: &Path) -> bool;
}

/// How an operation fails. Those that end a process first: where every operation has one turn, they matter most.
const WAYS: [(Moment, Then); 4] = [
    (Moment::Before, Then::IsDead),
    (Moment::After, Then::IsDead),
    (Moment::Before, Then::GoesOn),
    (Moment::After, Then::GoesOn),
];
/// Of operations that are all alike, one of so many is tried.
const REPETITIONS: usize = 100;

/// Lives a scenario once for every operation in it, which fails. Returns how many failures that were.
pub(crate) fn fail_everywhere<S: Scenario>() -> usize {
    let steps = steps::<S>();
    let mut count = 0;
    for (turn, step) in steps.iter().step_by(stride::<S>()).enumerate() {
        for (way, (moment, then)) in WAYS.into_iter().enumerate() {
            if !is_thorough() && turn % WAYS.len() != way {
                continue;
            }
            let dir = folder();
            S::prepare(dir.path());
            let faults = Faults::plan(*step, moment, then, dir.path());
            // Whether it is an error is up to the operation: some have to be repeated only.
            let outcome = S::live(dir.path());
            let done = faults.done();
            drop(faults);
            let at = done.get(*step);
            let what = format!("step {step} fails {moment:?}, {then:?}: {at:?}: {outcome:?}");
            S::check(dir.path(), &what);
            count += 1;
        }
    }
    count
}

/// Lives a scenario once, and cuts the power at every moment of it. Returns how many cuts that were.
pub(crate) fn cut_everywhere<S: Scenario>() -> usize {
    let ways = |seed| {
        let sure = [Survival::Synced, Survival::Names, Survival::Everything];
        sure.into_iter().chain([Survival::Mixed(seed)])
    };
    let cuts = cuts::<S>();
    let mut count = 0;
    for (turn, cut) in cuts.iter().enumerate() {
        for (way, survival) in ways(turn as u64).enumerate() {
            if is_thorough() || turn % WAYS.len() == way {
                check_cut::<S>(cut, turn, survival);
                count += 1;
            }
        }
    }
    count
}

/// Lives a scenario once and returns every moment at which the power may be cut, repetitions thinned out.
pub(crate) fn cuts<S: Scenario>() -> Vec<Cut> {
    let dir = folder();
    S::prepare(dir.path());
    let recorder = Recorder::start(dir.path(), &S::database(dir.path()));
    S::live(dir.path()).unwrap();
    let cuts = recorder.finish().into_iter().enumerate();
    let is_tried = |number: usize, path: &Path| {
        !S::is_repetition(dir.path(), path) || number.is_multiple_of(REPETITIONS)
    };
    cuts.filter(|(number, cut)| is_tried(*number, &cut.path))
        .map(|(_, cut)| cut)
        .collect()
}

/// Cuts the power at one moment.
pub(crate) fn check_cut<S: Scenario>(cut: &Cut, number: usize, survival: Survival) {
    let dir = folder();
    cut.restore(survival, dir.path());
    let what = format!("cut {number} after {}, {survival:?}", cut.what);
    S::check(dir.path(), &what);
}

/// Returns the numbers of the operations of a scenario, repetitions thinned out.
fn steps<S: Scenario>() -> Vec<usize> {
    let dir = folder();
    S::prepare(dir.path());
    let recorded = Faults::record(dir.path());
    S::live(dir.path()).unwrap();
    let done = recorded.done();
    drop(recorded);
    S::check(dir.path(), "nothing fails");
    let steps = done.iter().enumerate();
    let is_tried =
        |step: usize, path| !S::is_repetition(dir.path(), path) || step.is_multiple_of(REPETITIONS);
    steps
        .filter(|(step, (_, path))| is_tried(*step, path))
        .map(|(step, _)| step)
        .collect()
}

fn stride<S: Scenario>() -> usize {
    if is_thorough() { 1 } else { S::ONE_OF }
}

fn is_thorough() -> bool {
    std::env::var("VIOLETD_TRIAL").is_ok_and(|value| value == "all")
}

/// Returns an empty folder, in memory where that can be had: nothing here waits for a disk.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}
