//! Package files that were kept, from which damaged blobs may be brought back.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::package::parts::Member;
use crate::retain::repair::{KeptFile, PackageFiles};
use crate::verify::{Parts, Source};

/// How many levels of folders are looked at below each folder: as many as below a drop folder.
const DEPTH_MAX: usize = 8;
/// How many files are looked at. Chosen, not measured: each takes some hundred bytes of memory while it is searched.
const FILES_MAX: usize = 100_000;

/// Folders with package files.
#[derive(Debug)]
pub(super) struct KeptFolders {
    folders: BTreeSet<PathBuf>,
    /// Folders in them that are left out: nothing in there was ever trusted.
    left_out: BTreeSet<PathBuf>,
}

impl KeptFolders {
    /// Returns the folders of a configuration: drop folders, those for done files, and what else it names.
    pub(super) fn new(config: &Config) -> Self {
        let drops = config.drops.iter();
        let folders = drops.flat_map(|drop| [drop.path.clone(), drop.done_dir.clone()]);
        let drops = config.drops.iter();
        let left_out =
            drops.flat_map(|drop| [drop.rejected_dir.clone(), drop.requests_dir.clone()]);
        Self {
            folders: folders.chain(config.scrub.package_dirs.clone()).collect(),
            left_out: left_out.collect(),
        }
    }
}

impl PackageFiles for KeptFolders {
    fn list(&self) -> Vec<KeptFile> {
        let mut files = BTreeSet::new();
        let mut coming: Vec<(PathBuf, usize)> = self
            .folders
            .iter()
            .map(|folder| (folder.clone(), 0))
            .collect();
        while let Some((dir, depth)) = coming.pop() {
            // What cannot be read holds nothing that could be used.
            let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            for entry in entries {
                let path = entry.path();
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                if metadata.is_dir() && depth < DEPTH_MAX && !self.left_out.contains(&path) {
                    coming.push((path, depth + 1));
                } else if metadata.is_file() && files.len() < FILES_MAX {
                    files.extend(kept_file(&path, metadata.len()));
                }
            }
        }
        files.into_iter().collect()
    }

    fn open(&self, file: &KeptFile) -> io::Result<Box<dyn Read + Send + Sync>> {
        let source = Source::of(&file.path).map_err(io::Error::other)?;
        source.open()
    }
}

/// Returns what a file is by itself; nothing of a part, for which its table stands.
fn kept_file(path: &Path, size_bytes: u64) -> Option<KeptFile> {
    let name = path.file_name()?.to_str()?;
    match Member::of(name) {
        Some(Member::Part(_)) => None,
        Some(Member::Table(_)) => {
            let parts = Parts::read(path).ok()?;
            Some(KeptFile {
                path: path.to_owned(),
                name: parts.table().name().to_owned(),
                size_bytes: parts.table().size_bytes(),
            })
        }
        None => Some(KeptFile {
            path: path.to_owned(),
            name: name.to_owned(),
            size_bytes,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs as durable;

    #[test]
    fn files_are_found_in_their_folders_and_refused_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let names = [
            "a.tgz",
            "done/b.tgz",
            "done/1/b.tgz.2",
            "rejected/c.tgz",
            "d.tgz.part-1",
        ];
        for name in names {
            durable::ensure_dir_all(path(name).parent().unwrap()).unwrap();
            durable::replace_file(&path(name), b"content", 0o600).unwrap();
        }
        std::os::unix::fs::symlink(path("a.tgz"), path("link.tgz")).unwrap();
        let kept = KeptFolders {
            folders: [path(""), path("done"), path("absent")].into(),
            left_out: [path("rejected")].into(),
        };
        let found = kept.list();
        let found: Vec<&Path> = found.iter().map(|file| file.path.as_path()).collect();
        let expected = ["a.tgz", "d.tgz.part-1", "done/1/b.tgz.2", "done/b.tgz"].map(path);
        assert_eq!(found, expected);
        let mut content = String::new();
        let mut opened = kept.open(&kept.list()[0]).unwrap();
        opened.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
    }
}
