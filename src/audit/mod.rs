//! The audit record: what was decided about every dropped file, when and why, in a form in which no change stays unseen.
//!
//! [`Log`] writes it, one line for each event; [`check`] reads it all and finds every break; [`Report`] is what it says about
//! one package, and [`SigningKey`] signs that.
//!
//! # Layout
//!
//! ```text
//! <state_dir>/audit/
//! ├── audit-000001.jsonl     full
//! └── audit-000002.jsonl     goes on where the first one ends
//! ```
//!
//! # Format
//!
//! One JSON object on each line, see `docs/formats/audit.md`. Each line holds the SHA-256 digest of the line before it and one
//! of itself. So every changed byte, and every line that is missing, added or at another place is found, with one
//! exception that no chain can find: that its end was cut off at the end of a line. For that, [`Head`] is noted elsewhere from
//! time to time, and [`check`] looks whether the record still holds it.
//!
//! # Invariants
//!
//! - Nothing that was written is ever changed, moved or deleted. What is damaged or incomplete stays where it is; the
//!   next line, in a new file, says what was found.
//! - Numbers of lines are never given twice.
//!
//! # Durability
//!
//! [`Log::append`] returns when the line survives power loss. A process that dies before that leaves the line or not, or a
//! part of it without a line feed: that part is left where it is, and an event `recovered` names its digest.
//!
//! # Concurrency
//!
//! One process writes, which the lock of the state directory sees to. Others may read at any time.
//!
//! # Failure
//!
//! After a failed write the files are looked at again before the next one, so that a line is never put behind an
//! incomplete one. The same is done when the last file has another size than it was left with.

mod error;
mod event;
mod line;
mod log;
mod report;
mod sign;
mod walk;

use std::path::Path;

pub use self::error::Error;
pub use self::event::{
    Broken, Event, Package, PackageVerdict, Policy, Recovered, Refusal, Removed, Sidecar, Signer,
    Trust, Verdict, clip,
};
pub use self::line::{BEGINNING, Entry, Head, ParseHeadError};
pub use self::log::{Log, Options};
pub use self::report::{Record, Report};
pub use self::sign::SigningKey;
pub use self::walk::{Fault, Finding, Findings, Line};

/// The folder of the record in a state directory.
pub const DIR: &str = "audit";

/// Reads the whole record in `dir`, shows every line that is a record to `visit`, and returns what is wrong.
pub fn check(dir: &Path, mut visit: impl FnMut(Line<'_>, &Entry)) -> Result<Findings, Error> {
    let files = walk::list_files(dir)?;
    if files.is_empty() {
        return Err(Error::Empty {
            dir: dir.to_owned(),
        });
    }
    let walk = walk::Walk::from_beginning().beside_a_writer();
    walk.read(&files, &mut visit)
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
