//! Rendering and classification of errors.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure an error is. Decides retry, exit code, HTTP status and metric label, and nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The caller asked for something that makes no sense: fix the command or the configuration.
    Usage,
    /// Input from outside is refused: fix the package.
    Rejected,
    /// What was asked for does not exist.
    Absent,
    /// It may work later without anybody doing anything.
    Transient,
    /// No space left.
    Full,
    /// Credentials or permissions are missing.
    Denied,
    /// Stored data is damaged.
    Corrupt,
    /// A fault of this program.
    Bug,
}

impl Class {
    /// Returns the stable name: metric label and field of reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Rejected => "rejected",
            Self::Absent => "absent",
            Self::Transient => "transient",
            Self::Full => "full",
            Self::Denied => "denied",
            Self::Corrupt => "corrupt",
            Self::Bug => "bug",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error that knows its [`Class`] and, where somebody can fix it, how.
pub trait Classified: Error {
    /// Returns the class. Every implementation is one exhaustive match.
    fn class(&self) -> Class;

    /// Returns what to do about it: an imperative without a full stop.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Displays an error and all of its sources on one line, joined by `: `.
///
/// The only way errors reach a log line, an HTTP body or the terminal. Error types therefore never print their own
/// source.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
