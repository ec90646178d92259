//! A drop folder: which files in it are packages, and where they go afterwards.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Error;
use super::settle::Stamp;
use crate::base::Timestamp;
use crate::sys::fs::{self as durable, Context as _};
use crate::verify::{Policy, Sidecars, is_sidecar};

/// Endings by which download and copy tools mark files that they are still writing.
const UNFINISHED_ENDINGS: [&str; 7] = [
    ".part",
    ".partial",
    ".crdownload",
    ".filepart",
    ".tmp",
    ".swp",
    "~",
];

/// What happens to a package file after its package is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterReady {
    /// It stays where it is.
    Keep,
    /// It moves to the folder for done files.
    Move,
    /// It is deleted.
    Delete,
}

/// One drop folder.
#[derive(Clone, Debug)]
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// What a file must show to be trusted.
    pub policy: Policy,
    /// How long a file must rest before it is looked at.
    pub settle: Duration,
    /// How long a file waits for the sidecar that the policy asks for, before it is rejected.
    pub sidecar_wait: Duration,
    /// What happens to files afterwards.
    pub after_ready: AfterReady,
    /// Where files go whose package is ready.
    pub done: PathBuf,
    /// Where files go that are refused, each with a reason.
    pub rejected: PathBuf,
}

/// A file that may be a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The path.
    pub path: PathBuf,
    /// Size and modification time.
    pub stamp: Stamp,
}

impl Folder {
    /// Lists the files that may be packages, by name.
    ///
    /// Left out: folders, links, dotfiles, sidecars, unfinished downloads and names that are not UTF-8 (those are
    /// logged, because they wait for somebody to rename them).
    pub fn list_candidates(&self) -> Result<Vec<Candidate>, Error> {
        let mut candidates = Vec::new();
        for entry in fs::read_dir(&self.path).context("read", &self.path)? {
            let entry = entry.context("read", &self.path)?;
            let path = entry.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                tracing::warn!(path = %path.display(), "file name is not UTF-8, file is ignored");
                continue;
            };
            if !may_be_package(name) {
                continue;
            }
            // A file that disappears between listing and looking is simply not there.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            let modified = metadata.modified().context("inspect", &path)?;
            let stamp = Stamp {
                size_bytes: metadata.len(),
                modified_at: Timestamp::from(modified),
            };
            candidates.push(Candidate { path, stamp });
        }
        candidates.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(candidates)
    }

    /// Returns what the policy asks for and is not there, as words for the status page.
    pub fn missing_sidecar(&self, path: &Path) -> Option<&'static str> {
        let found = Sidecars::find(path);
        match self.policy {
            Policy::Signature if found.signature.is_none() => {
                Some("a signature beside it (.sig or .asc)")
            }
            Policy::Checksum if found.signature.is_none() && found.checksum.is_none() => {
                Some("a checksum beside it (.sha256 or .checksum)")
            }
            Policy::Signature | Policy::Checksum | Policy::None => None,
        }
    }

    /// Does with a file what is configured for files whose package is ready.
    pub fn finish(&self, path: &Path) -> Result<(), Error> {
        match self.after_ready {
            AfterReady::Keep => Ok(()),
            AfterReady::Move => {
                durable::ensure_dir_all(&self.done)?;
                move_with_sidecars(path, &free_place(&self.done, path))
            }
            AfterReady::Delete => {
                for sidecar in sidecars_of(path) {
                    durable::remove_file(&sidecar)?;
                }
                durable::remove_file(path)?;
                Ok(())
            }
        }
    }

    /// Moves a refused file away, with the reason beside it as `<name>.reason.json`.
    ///
    /// The reason is there first: whoever finds the file finds it, and a move that was cut short is repeated with it.
    pub fn reject(&self, path: &Path, reason: &serde_json::Value) -> Result<(), Error> {
        durable::ensure_dir_all(&self.rejected)?;
        let target = free_place(&self.rejected, path);
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".reason.json");
        let mut text = serde_json::to_vec_pretty(reason).expect("a JSON value can be printed");
        text.push(b'\n');
        durable::replace_file(&target.with_file_name(name), &text, 0o640)?;
        move_with_sidecars(path, &target)
    }
}

/// Moves a file to a free place, and its sidecars into the same folder. What is there already is never replaced.
fn move_with_sidecars(path: &Path, target: &Path) -> Result<(), Error> {
    let folder = target.parent().unwrap_or(Path::new("/"));
    // The package file goes last: as long as it is here, the move is repeated after a crash.
    for sidecar in sidecars_of(path) {
        let renamed = sidecar.with_file_name(sidecar_name(path, target, &sidecar));
        durable::move_file(&sidecar, &free_place(folder, &renamed))?;
    }
    Ok(durable::move_file(path, target)?)
}

/// Returns the name of a sidecar of `path` that makes it one of `target`: `x.tgz.sig` beside `x.tgz.2` is `x.tgz.2.sig`.
fn sidecar_name(path: &Path, target: &Path, sidecar: &Path) -> OsString {
    let name_of = |path: &Path| path.file_name().unwrap_or_default().to_owned();
    let (old, new, name) = (name_of(path), name_of(target), name_of(sidecar));
    let ending = name.to_str().zip(old.to_str());
    match ending.and_then(|(name, old)| name.strip_prefix(old)) {
        Some(ending) => {
            let mut renamed = new;
            renamed.push(ending);
            renamed
        }
        None => name,
    }
}

/// Returns the signature and the checksum that lie beside a file.
pub(super) fn sidecars_of(path: &Path) -> Vec<PathBuf> {
    let Sidecars {
        signature,
        checksum,
    } = Sidecars::find(path);
    signature.into_iter().chain(checksum).collect()
}

/// Returns a path in `folder` with the name of `path`, numbered where that is taken.
fn free_place(folder: &Path, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let mut place = folder.join(name);
    let mut number = 2_u32;
    while place.symlink_metadata().is_ok() {
        let mut numbered = name.to_owned();
        numbered.push(format!(".{number}"));
        place = folder.join(numbered);
        number += 1;
    }
    place
}

fn may_be_package(name: &str) -> bool {
    !name.starts_with('.')
        && !is_sidecar(name)
        && !UNFINISHED_ENDINGS
            .iter()
            .any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(root: &Path) -> Folder {
        Folder {
            path: root.to_owned(),
            policy: Policy::Signature,
            settle: Duration::ZERO,
            sidecar_wait: Duration::ZERO,
            after_ready: AfterReady::Move,
            done: root.join("done"),
            rejected: root.join("rejected"),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_may_be_a_package_is_listed() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "b.tgz",
            "a.tgz",
            "a.tgz.sig",
            "a.tgz.part",
            ".hidden.tgz",
            "x.tgz~",
        ] {
            durable::replace_file(&root.path().join(name), b"x", 0o600).unwrap();
        }
        durable::ensure_dir(&root.path().join("done")).unwrap();
        std::os::unix::fs::symlink("a.tgz", root.path().join("link.tgz")).unwrap();
        let listed: Vec<PathBuf> = folder(root.path())
            .list_candidates()
            .unwrap()
            .into_iter()
            .map(|candidate| candidate.path)
            .collect();
        assert_eq!(
            listed,
            [root.path().join("a.tgz"), root.path().join("b.tgz")]
        );
    }

    #[test]
    fn done_files_take_their_sidecars_along_and_replace_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let path = root.path().join("a.tgz");
        for _ in 0..2 {
            durable::replace_file(&path, b"x", 0o600).unwrap();
            durable::replace_file(&root.path().join("a.tgz.sig"), b"s", 0o600).unwrap();
            folder.finish(&path).unwrap();
        }
        assert_eq!(
            names(&folder.done),
            ["a.tgz", "a.tgz.2", "a.tgz.2.sig", "a.tgz.sig"]
        );
        assert_eq!(names(root.path()), ["done"]);
    }

    #[test]
    fn rejected_files_come_with_a_reason() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let path = root.path().join("a.tgz");
        durable::replace_file(&path, b"x", 0o600).unwrap();
        folder
            .reject(&path, &serde_json::json!({"code": "bad-signature"}))
            .unwrap();
        assert_eq!(names(&folder.rejected), ["a.tgz", "a.tgz.reason.json"]);
    }

    #[test]
    fn a_refusal_that_was_cut_short_is_repeated_with_its_reason() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let path = root.path().join("a.tgz");
        let reason = serde_json::json!({"code": "bad-signature"});
        // Stands for a crash between the reason and the move.
        folder.reject(&path, &reason).unwrap_err();
        assert_eq!(names(&folder.rejected), ["a.tgz.reason.json"]);
        durable::replace_file(&path, b"x", 0o600).unwrap();
        folder.reject(&path, &reason).unwrap();
        assert_eq!(names(&folder.rejected), ["a.tgz", "a.tgz.reason.json"]);
    }
}
