//! What is kept and what goes: retention of packages, collection of blobs that no package keeps, scrub and repair.
//!
//! Retention decides about packages by rules: [`Planner`] makes a [`Plan`], which is pure but for what it looks at, and
//! [`Retention`] carries it out once somebody or a schedule approves. [`Collector`] removes blobs that no package keeps any
//! more. Both run as a [`job::Job`] of the daemon, and by themselves on a store that no daemon uses. Neither touches a target.

mod apply;
mod blobs;
mod collect;
mod error;
mod gather;
pub mod job;
mod pin;
pub mod plan;
mod policy;
pub mod repair;
pub mod scrub;

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

pub use self::apply::{Applied, Approval, Order, Retention};
pub use self::collect::{Collected, Collector, GRACE_MIN, Mode, Request};
pub use self::error::Error;
pub use self::gather::{Destination, Planner};
pub use self::pin::{Pin, list_pins};
pub use self::plan::{Plan, PlanId};
pub use self::policy::{Policy, Rule};

/// What was removed since the start, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packages that retention has removed.
    pub packages_removed: AtomicU64,
    /// Blobs that collection has removed.
    pub blobs_removed: AtomicU64,
    /// Their size together, in bytes.
    pub bytes_removed: AtomicU64,
    /// What the last collection has seen, if there was one.
    last: Mutex<Option<Collected>>,
}

impl Counters {
    /// Returns what the last collection has seen, if there was one.
    pub fn last_collected(&self) -> Option<Collected> {
        *self.last.lock().expect("no holder of this lock panics")
    }

    fn note(&self, report: &Collected) {
        *self.last.lock().expect("no holder of this lock panics") = Some(*report);
    }
}

#[cfg(test)]
mod fixture;
