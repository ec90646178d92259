//! The file `FORMAT`: which programs can open a state directory.
//!
//! # Format
//!
//! One JSON object and a line feed. The version changes when the layout does in a way that a feature cannot express.
//!
//! | field | unknown value |
//! |---|---|
//! | `version` | a newer one: refuse to open |
//! | `read_features` | refuse to open |
//! | `write_features` | refuse to open for writing |

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Access, Error};
use crate::sys::fs::{self, Context as _};

/// The only version so far.
const VERSION: u32 = 1;
/// Features that this program knows. Names are never changed, only retired.
const FEATURES: [&str; 0] = [];

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Format {
    version: u32,
    /// What a program must know to read.
    #[serde(default)]
    read_features: BTreeSet<String>,
    /// What a program must know, besides, to write.
    #[serde(default)]
    write_features: BTreeSet<String>,
}

impl Format {
    /// Returns what a new state directory gets.
    pub(super) const fn current() -> Self {
        Self {
            version: VERSION,
            read_features: BTreeSet::new(),
            write_features: BTreeSet::new(),
        }
    }

    pub(super) fn path(root: &Path) -> PathBuf {
        root.join("FORMAT")
    }

    /// Reads the file, if there is one.
    pub(super) fn find(root: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(root);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.context("read", &path)?,
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::FormatUnreadable { path, source })
    }

    /// Writes the file. It survives power loss.
    pub(super) fn write(&self, root: &Path) -> Result<(), Error> {
        Ok(fs::replace_file(&Self::path(root), &self.encode(), 0o444)?)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("numbers and strings are JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Returns an error unless this program can open the directory in this way.
    pub(super) fn check(&self, access: Access) -> Result<(), Error> {
        if self.version > VERSION {
            return Err(Error::FormatNewer {
                known: VERSION,
                found: self.version,
            });
        }
        let write_features = match access {
            Access::Read => None,
            Access::Write => Some(&self.write_features),
        };
        let unknown = self
            .read_features
            .iter()
            .chain(write_features.into_iter().flatten())
            .find(|feature| !FEATURES.contains(&feature.as_str()));
        unknown.map_or(Ok(()), |feature| {
            let feature = feature.clone();
            Err(Error::FormatFeature { feature })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        assert_eq!(
            String::from_utf8(Format::current().encode()).unwrap(),
            "{\"version\":1,\"read_features\":[],\"write_features\":[]}\n"
        );
    }

    #[test]
    fn a_feature_for_writing_does_not_hinder_readers() {
        let format: Format =
            serde_json::from_str(r#"{"version":1,"write_features":["x"]}"#).unwrap();
        format.check(Access::Read).unwrap();
        assert_eq!(
            format.check(Access::Write).unwrap_err().to_string(),
            "expected a state directory without unknown features, found `x`"
        );
        let format: Format =
            serde_json::from_str(r#"{"version":1,"read_features":["y"]}"#).unwrap();
        format.check(Access::Read).unwrap_err();
    }

    #[test]
    fn a_newer_version_is_refused_whatever_else_it_says() {
        let format: Format = serde_json::from_str(r#"{"version":2,"shards":3}"#).unwrap();
        assert_eq!(
            format.check(Access::Read).unwrap_err().to_string(),
            "expected a state directory of format 1 or older, found 2"
        );
    }
}
