//! The files of `packages/`, one at a time: the catalog reads them, and what it refuses gets its code here.

use std::path::Path;

use serde::Deserialize;

use super::Code;
use crate::base::{Chain, Digest};
use crate::catalog::{self, KeptRecord};

/// Why a file says nothing about its package.
#[derive(Debug)]
pub(super) enum Problem {
    /// It is not what it should be.
    Damage(Code, String),
    /// It cannot be read.
    Other(catalog::Error),
}

/// As much of a file as tells whose it is.
#[derive(Deserialize)]
struct Whose {
    package: Named,
}

#[derive(Deserialize)]
struct Named {
    digest: Digest,
}

/// Reads the file of a package, if there is one.
pub(super) fn read(root: &Path, digest: &Digest) -> Result<Option<KeptRecord>, Problem> {
    let error = match catalog::read_record(root, digest) {
        Ok(record) => return Ok(record),
        Err(error) => error,
    };
    let code = if let catalog::Error::RecordDamaged { path, .. } = &error {
        match whose(path) {
            Some(found) if found != *digest => Code::RecordMisnamed,
            Some(_) | None => Code::RecordUnreadable,
        }
    } else if matches!(error, catalog::Error::RecordNewer { .. }) {
        Code::RecordUnknown
    } else {
        return Err(Problem::Other(error));
    };
    Err(Problem::Damage(code, Chain(&error).to_string()))
}

/// Returns the package that a file is about, if it says so.
fn whose(path: &Path) -> Option<Digest> {
    let bytes = std::fs::read(path).ok()?;
    let whose: Whose = serde_json::from_slice(&bytes).ok()?;
    Some(whose.package.digest)
}
