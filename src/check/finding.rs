//! One finding, and who is told of it.

use std::path::Path;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::code::Code;
use crate::base::Digest;

/// Something that is not as it should be, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// What it is about: a digest, a package, a path below the state directory, a row.
    pub subject: String,
    /// What was expected and what was found, in words.
    pub reason: String,
}

impl Finding {
    pub(super) fn new(code: Code, subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            code,
            subject: subject.into(),
            reason: reason.into(),
        }
    }

    /// Returns what tells it from others when it is looked for again: its words may differ then.
    pub(super) fn key(&self) -> Digest {
        Digest::of(format!("{}\0{}", self.code.name(), self.subject).as_bytes())
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Finding", 5)?;
        object.serialize_field("code", &self.code)?;
        object.serialize_field("severity", &self.code.severity())?;
        object.serialize_field("subject", &self.subject)?;
        object.serialize_field("reason", &self.reason)?;
        object.serialize_field("hint", self.code.advice())?;
        object.end()
    }
}

/// How far a deep check has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blobs that were hashed.
    pub blobs: u64,
    /// Bytes that were hashed.
    pub bytes: u64,
    /// Blobs that there were when it began.
    pub blobs_total: u64,
    /// Their bytes.
    pub bytes_total: u64,
}

/// Is told of findings as they are made.
pub trait Observer {
    /// Takes a finding.
    fn found(&mut self, finding: Finding);

    /// Takes note of progress. Called often.
    fn progress(&mut self, progress: Progress) {
        let _ = progress;
    }
}

/// Returns a path below the state directory as findings show it.
pub(super) fn below(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}
