//! Makes operations fail, for crash tests: every operation that goes through [`attempt`](super::fs::attempt) or
//! [`Context`](super::fs::Context) is recorded and can be made to fail, before or after it took effect. Operations of the
//! catalog are among them.
//!
//! Failing from the n-th operation on, for every n, is what a process that is killed leaves on disk, apart from what
//! destructors tidy up. Failing at the n-th only is what a disk that refuses once leaves, and a process that goes on.
//! [`trial`](super::trial) does both for whole scenarios.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::power::Recording;

static PLANS: Mutex<Vec<Plan>> = Mutex::new(Vec::new());

/// Whether the operation that fails has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It fails instead of doing anything. An operation that only reads fails so in either case.
    Before,
    /// It does what it should, and says that it failed.
    After,
}

/// What becomes of the operations after the one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// They succeed.
    GoesOn,
    /// They fail and have no effect.
    IsDead,
}

#[derive(Debug)]
struct Plan {
    root: PathBuf,
    /// Operations that succeed before one fails.
    left: usize,
    moment: Moment,
    then: Then,
    done: Vec<(&'static str, PathBuf)>,
    recording: Option<Arc<Mutex<Recording>>>,
}

/// What is to happen to one operation.
struct Fate {
    fails_before: bool,
    fails_after: bool,
    recording: Option<Arc<Mutex<Recording>>>,
}

/// Operations below one folder, on any thread, while this exists.
#[derive(Debug)]
pub(crate) struct Faults(PathBuf);

impl Faults {
    /// Lets `left` operations below `root` succeed and the one after them fail, after its effect.
    pub(crate) fn after(left: usize, root: &Path) -> Self {
        Self::plan(left, Moment::After, Then::GoesOn, root)
    }

    /// Lets `left` operations below `root` succeed and the one after them fail.
    pub(crate) fn plan(left: usize, moment: Moment, then: Then, root: &Path) -> Self {
        Self::start(Plan {
            root: root.to_owned(),
            left,
            moment,
            then,
            done: Vec::new(),
            recording: None,
        })
    }

    /// Records the operations below `root`, and lets all succeed.
    pub(crate) fn record(root: &Path) -> Self {
        Self::after(usize::MAX, root)
    }

    /// Lets all operations below `root` succeed, and shows them to `recording`.
    pub(super) fn show(root: &Path, recording: Arc<Mutex<Recording>>) -> Self {
        Self::start(Plan {
            root: root.to_owned(),
            left: usize::MAX,
            moment: Moment::After,
            then: Then::GoesOn,
            done: Vec::new(),
            recording: Some(recording),
        })
    }

    fn start(plan: Plan) -> Self {
        let root = plan.root.clone();
        plans().push(plan);
        Self(root)
    }

    /// Returns the operations so far, those that failed included: verb and path.
    pub(crate) fn done(&self) -> Vec<(&'static str, PathBuf)> {
        let plans = plans();
        let plan = plans.iter().find(|plan| plan.root == self.0);
        plan.map(|plan| plan.done.clone()).unwrap_or_default()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        plans().retain(|plan| plan.root != self.0);
    }
}

/// Runs an operation unless it was planned to fail, records it and returns its result, or the failure that was planned in
/// its place.
pub(super) fn around<T>(
    verb: &'static str,
    path: &Path,
    operation: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let Some(fate) = begin(verb, path) else {
        return operation();
    };
    if fate.fails_before {
        return Err(planned());
    }
    let recording = fate.recording.as_deref();
    let observe = || recording.map(|it| it.lock().expect("no holder of this lock panics"));
    let before = observe().map(|mut recording| recording.before(verb, path));
    let result = operation();
    if let (Some(mut recording), Some(before)) = (observe(), before) {
        recording.after(verb, path, before, result.is_ok());
    }
    if fate.fails_after {
        return Err(planned());
    }
    result
}

/// Records an operation that has ended and returns its result, or the failure that was planned in its place.
pub(super) fn inject<T>(result: io::Result<T>, verb: &'static str, path: &Path) -> io::Result<T> {
    match begin(verb, path) {
        Some(fate) if fate.fails_before || fate.fails_after => Err(planned()),
        Some(_) | None => result,
    }
}

/// Puts an operation on record. Returns what is to happen to it; nothing where no plan is about it.
fn begin(verb: &'static str, path: &Path) -> Option<Fate> {
    let mut plans = plans();
    let plan = plans.iter_mut().find(|plan| path.starts_with(&plan.root))?;
    let number = plan.done.len();
    plan.done.push((verb, path.to_owned()));
    let is_it = |moment| number == plan.left && plan.moment == moment;
    Some(Fate {
        fails_before: is_it(Moment::Before) || (number > plan.left && plan.then == Then::IsDead),
        fails_after: is_it(Moment::After),
        recording: plan.recording.clone(),
    })
}

fn planned() -> io::Error {
    io::Error::other("planned failure")
}

fn plans() -> MutexGuard<'static, Vec<Plan>> {
    PLANS.lock().expect("no holder of this lock panics")
}

#[cfg(test)]
mod tests {
    use super::super::fs;
    use super::*;

    /// Writes three files one after the other, and returns which are there in the end.
    fn written(moment: Moment, then: Then) -> Vec<&'static str> {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c"];
        // Four operations each: create, write, sync, rename; and one for the folder.
        let faults = Faults::plan(5 + 3, moment, then, dir.path());
        for name in names {
            // The second fails in any case, and the third where the process is dead.
            drop(fs::replace_file(&dir.path().join(name), b"x", 0o600));
        }
        assert_eq!(faults.done()[8].0, "rename to");
        drop(faults);
        let is_there = |name: &&str| dir.path().join(name).exists();
        names.into_iter().filter(is_there).collect()
    }

    #[test]
    fn an_operation_fails_before_or_after_its_effect_and_others_go_on_or_not() {
        assert_eq!(written(Moment::Before, Then::GoesOn), ["a", "c"]);
        assert_eq!(written(Moment::After, Then::GoesOn), ["a", "b", "c"]);
        assert_eq!(written(Moment::Before, Then::IsDead), ["a"]);
        assert_eq!(written(Moment::After, Then::IsDead), ["a", "b"]);
    }
}
