//! A drop folder: what its files must show, and where they go afterwards.
//!
//! Files keep the folder that they have below the drop folder, wherever they go. Folders that become empty stay: somebody
//! may be about to put more into them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::listing::{Candidate, Form};
use crate::sys::fs as durable;
use crate::verify::{KeyringFiles, Requirements, Sidecars};

/// What follows the name of a file in the name of its request.
const REQUEST_SUFFIX: &str = ".request";

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
    pub requirements: Requirements,
    /// Whose signatures count.
    pub keyring: Arc<KeyringFiles>,
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
    /// Where it is said which blobs files wait for.
    pub requests: PathBuf,
}

impl Folder {
    /// Returns the sidecars of a file that go where it goes.
    fn own_sidecars_of(&self, whole: &Path) -> Vec<PathBuf> {
        Sidecars::find(whole, &self.requirements.limits).own()
    }

    /// Returns where a file says which blobs it waits for.
    pub fn request_path(&self, path: &Path) -> PathBuf {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(REQUEST_SUFFIX);
        self.below(&self.requests, path).join(name)
    }

    /// Does with a candidate what is configured for those whose packages are ready.
    pub(super) fn finish(&self, candidate: &Candidate) -> Result<(), Error> {
        match self.after_ready {
            AfterReady::Keep => Ok(()),
            AfterReady::Move => {
                let place = Place::find(&self.below(&self.done, &candidate.path), candidate)?;
                place.receive(candidate, self.own_sidecars_of(&candidate.whole()))
            }
            AfterReady::Delete => {
                // What stands for the candidate goes last: as long as it is here, the deletion is repeated after a crash.
                for sidecar in self.own_sidecars_of(&candidate.whole()) {
                    durable::remove_file(&sidecar)?;
                }
                for (path, _) in candidate.files() {
                    durable::remove_file(&path)?;
                }
                Ok(())
            }
        }
    }

    /// Moves a refused candidate away, with the reason beside it as `<name>.reason.json`.
    ///
    /// The reason is there first: whoever finds the file finds it, and a move that was cut short is repeated with it.
    pub(super) fn reject(
        &self,
        candidate: &Candidate,
        reason: &serde_json::Value,
    ) -> Result<(), Error> {
        let place = Place::find(&self.below(&self.rejected, &candidate.path), candidate)?;
        let mut name = place.target.file_name().unwrap_or_default().to_owned();
        name.push(".reason.json");
        let mut text = serde_json::to_vec_pretty(reason).expect("a JSON value can be printed");
        text.push(b'\n');
        durable::replace_file(&place.target.with_file_name(name), &text, 0o640)?;
        place.receive(candidate, self.own_sidecars_of(&candidate.whole()))
    }

    /// Returns the folder below `root` that `path` lies in below the drop folder.
    fn below(&self, root: &Path, path: &Path) -> PathBuf {
        let folder = path
            .parent()
            .and_then(|dir| dir.strip_prefix(&self.path).ok());
        match folder {
            Some(folder) if !folder.as_os_str().is_empty() => root.join(folder),
            Some(_) | None => root.to_owned(),
        }
    }
}

/// Where a candidate moves. What is there already is never replaced.
struct Place {
    /// The path that the file which stands for the candidate gets.
    target: PathBuf,
}

impl Place {
    /// Finds a place in `folder`, which is made unless it is there.
    ///
    /// A single file is numbered where its name is taken. The files of a package in parts must keep their names, so all
    /// of them go to a numbered folder where one of them is taken. A move that was cut short finds the same place again,
    /// because the table goes last and what has moved is no longer among the files.
    fn find(folder: &Path, candidate: &Candidate) -> Result<Self, Error> {
        let path = &candidate.path;
        let name = path.file_name().unwrap_or_default();
        let target = match candidate.form {
            Form::Whole => free_place(folder, path),
            Form::Parts(_) => {
                let whole = candidate.whole();
                let whole = whole.file_name().unwrap_or_default();
                let numbered = (2_u32..).map(|number| {
                    let mut name = whole.to_owned();
                    name.push(format!(".{number}"));
                    folder.join(name)
                });
                let is_free = |dir: &PathBuf| {
                    let is_taken =
                        |path: &Path| is_there(&dir.join(path.file_name().unwrap_or_default()));
                    !is_taken(path) && !candidate.files().iter().any(|(path, _)| is_taken(path))
                };
                let dir = std::iter::once(folder.to_owned())
                    .chain(numbered)
                    .find(is_free)
                    .expect("there are more numbers than files");
                dir.join(name)
            }
        };
        durable::ensure_dir_all(target.parent().unwrap_or(folder))?;
        Ok(Self { target })
    }

    /// Moves a candidate with these sidecars of it here.
    ///
    /// What stands for the candidate goes last: as long as it is in the drop folder, the move is repeated after a crash.
    fn receive(&self, candidate: &Candidate, sidecars: Vec<PathBuf>) -> Result<(), Error> {
        let folder = self.target.parent().unwrap_or(Path::new("/"));
        let whole = candidate.whole();
        let renamed = match candidate.form {
            Form::Whole => self.target.clone(),
            Form::Parts(_) => folder.join(whole.file_name().unwrap_or_default()),
        };
        for sidecar in sidecars {
            let renamed = sidecar.with_file_name(sidecar_name(&whole, &renamed, &sidecar));
            durable::move_file(&sidecar, &free_place(folder, &renamed))?;
        }
        for (path, _) in candidate.files() {
            let target = match candidate.form {
                Form::Whole => self.target.clone(),
                Form::Parts(_) => folder.join(path.file_name().unwrap_or_default()),
            };
            durable::move_file(&path, &target)?;
        }
        Ok(())
    }
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

/// Returns a path in `folder` with the name of `path`, numbered where that is taken.
fn free_place(folder: &Path, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let mut place = folder.join(name);
    let mut number = 2_u32;
    while is_there(&place) {
        let mut numbered = name.to_owned();
        numbered.push(format!(".{number}"));
        place = folder.join(numbered);
        number += 1;
    }
    place
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::ingest::listing::{Apart, Members};
    use crate::verify::Policy;

    pub(in crate::ingest) fn folder(root: &Path) -> Folder {
        Folder {
            path: root.to_owned(),
            requirements: Requirements::new(Policy::Signature),
            keyring: Arc::new(KeyringFiles::new(
                Vec::new(),
                Requirements::new(Policy::Signature),
            )),
            settle: Duration::ZERO,
            sidecar_wait: Duration::ZERO,
            after_ready: AfterReady::Move,
            done: root.join("done"),
            rejected: root.join("rejected"),
            requests: root.join("requests"),
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

    /// Returns the only candidate in a folder.
    fn only(folder: &Folder) -> Candidate {
        let mut candidates = folder.list(&Apart::find([folder])).unwrap().candidates;
        assert_eq!(candidates.len(), 1, "{candidates:?}");
        candidates.remove(0)
    }

    #[test]
    fn done_files_take_their_sidecars_along_and_replace_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let path = root.path().join("a.tgz");
        for _ in 0..2 {
            durable::replace_file(&path, b"x", 0o600).unwrap();
            durable::replace_file(&root.path().join("a.tgz.sig"), b"s", 0o600).unwrap();
            folder.finish(&only(&folder)).unwrap();
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
            .reject(
                &only(&folder),
                &serde_json::json!({"code": "bad-signature"}),
            )
            .unwrap();
        assert_eq!(names(&folder.rejected), ["a.tgz", "a.tgz.reason.json"]);
    }

    #[test]
    fn a_refusal_that_was_cut_short_is_repeated_with_its_reason() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let path = root.path().join("a.tgz");
        let reason = serde_json::json!({"code": "bad-signature"});
        durable::replace_file(&path, b"x", 0o600).unwrap();
        let candidate = only(&folder);
        durable::remove_file(&path).unwrap();
        // Stands for a crash between the reason and the move.
        folder.reject(&candidate, &reason).unwrap_err();
        assert_eq!(names(&folder.rejected), ["a.tgz.reason.json"]);
        durable::replace_file(&path, b"x", 0o600).unwrap();
        folder.reject(&candidate, &reason).unwrap();
        assert_eq!(names(&folder.rejected), ["a.tgz", "a.tgz.reason.json"]);
    }

    #[test]
    fn files_keep_their_folder_wherever_they_go() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let path = root.path().join("2026/redis/a.tgz");
        durable::ensure_dir_all(path.parent().unwrap()).unwrap();
        durable::replace_file(&path, b"x", 0o600).unwrap();
        folder.finish(&only(&folder)).unwrap();
        assert_eq!(names(&folder.done.join("2026/redis")), ["a.tgz"]);
        assert_eq!(
            folder.request_path(&path),
            root.path().join("requests/2026/redis/a.tgz.request")
        );
        assert!(path.parent().unwrap().is_dir());
    }

    const SET: [&str; 4] = ["x.tgz.001", "x.tgz.002", "x.tgz.parts", "x.tgz.sig"];

    fn drop_set(root: &Path) {
        for name in SET {
            durable::replace_file(&root.join(name), b"x", 0o600).unwrap();
        }
    }

    #[test]
    fn the_files_of_a_package_in_parts_stay_together_under_their_names() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        for _ in 0..3 {
            drop_set(root.path());
            folder.finish(&only(&folder)).unwrap();
        }
        assert_eq!(names(root.path()), ["done"]);
        let again = ["x.tgz.2", "x.tgz.3"];
        for dir in again {
            assert_eq!(names(&folder.done.join(dir)), SET);
        }
        let mut all = [&SET[..], &again[..]].concat();
        all.sort_unstable();
        assert_eq!(names(&folder.done), all);
        drop_set(root.path());
        folder
            .reject(&only(&folder), &serde_json::json!({"code": "part-damaged"}))
            .unwrap();
        let mut rejected = names(&folder.rejected);
        rejected.retain(|name| !SET.contains(&name.as_str()));
        assert_eq!(rejected, ["x.tgz.parts.reason.json"]);
        drop_set(root.path());
        let deleting = Folder {
            after_ready: AfterReady::Delete,
            ..folder
        };
        deleting.finish(&only(&deleting)).unwrap();
        assert_eq!(names(root.path()), ["done", "rejected"]);
    }

    #[test]
    fn a_move_of_parts_that_was_cut_short_ends_in_the_same_place() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        drop_set(root.path());
        let mut candidate = only(&folder);
        let stamp = candidate.stamp;
        // Stands for a crash: the second part could not be moved.
        let second = root.path().join("x.tgz.002");
        durable::remove_file(&second).unwrap();
        folder.finish(&candidate).unwrap_err();
        assert_eq!(names(&folder.done), ["x.tgz.001", "x.tgz.sig"]);
        durable::replace_file(&second, b"x", 0o600).unwrap();
        candidate = only(&folder);
        assert_eq!(candidate.stamp, stamp);
        let Form::Parts(Members { parts, .. }) = &candidate.form else {
            panic!("expected a package in parts, found {candidate:?}");
        };
        assert_eq!(parts.len(), 1);
        folder.finish(&candidate).unwrap();
        assert_eq!(names(&folder.done), SET);
        assert_eq!(names(root.path()), ["done"]);
    }
}
