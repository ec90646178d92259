//! Makes file operations fail, for crash tests: every operation that goes through [`Context`](super::fs::Context)
//! is recorded and can be made to fail after it took effect.
//!
//! Failing after the effect of the n-th operation and before that of the next one is what a crash between the two looks
//! like on disk, apart from what destructors tidy up.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

static PLANS: Mutex<Vec<Plan>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Plan {
    root: PathBuf,
    /// Operations that succeed before one fails. Everything after that one succeeds again.
    left: usize,
    done: Vec<(&'static str, PathBuf)>,
}

/// Operations below one folder, on any thread, while this exists.
#[derive(Debug)]
pub(crate) struct Faults(PathBuf);

impl Faults {
    /// Lets `left` operations below `root` succeed and the one after them fail.
    pub(crate) fn after(left: usize, root: &Path) -> Self {
        plans().push(Plan {
            root: root.to_owned(),
            left,
            done: Vec::new(),
        });
        Self(root.to_owned())
    }

    /// Records the operations below `root`, and lets all succeed.
    pub(crate) fn record(root: &Path) -> Self {
        Self::after(usize::MAX, root)
    }

    /// Returns the operations so far, the one that failed included: verb and path.
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

/// Records an operation and returns its result, or the failure that was planned in its place.
pub(super) fn inject<T>(result: io::Result<T>, verb: &'static str, path: &Path) -> io::Result<T> {
    let mut plans = plans();
    let Some(plan) = plans.iter_mut().find(|plan| path.starts_with(&plan.root)) else {
        return result;
    };
    let is_failure = plan.done.len() == plan.left;
    plan.done.push((verb, path.to_owned()));
    if is_failure {
        return Err(io::Error::other("planned failure"));
    }
    result
}

fn plans() -> MutexGuard<'static, Vec<Plan>> {
    PLANS.lock().expect("no holder of this lock panics")
}
