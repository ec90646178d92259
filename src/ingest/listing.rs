//! What lies in a drop folder: package files, packages in parts, and folders of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::settle::Stamp;
use super::{Error, Folder};
use crate::base::{Chain, Timestamp};
use crate::package::parts::{Member, TABLE_SUFFIX};
use crate::sys::fs::Context as _;
use crate::verify::is_sidecar;

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

/// How many levels of folders below a drop folder are looked at. A medium with a folder for each delivery, product and
/// version has three; chosen, not measured.
pub const FOLDER_DEPTH_MAX: usize = 8;

/// A file, or all files of a package in parts, that may be a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The file; of a package in parts its table, even before that is there.
    pub path: PathBuf,
    /// Size and modification time: of the table for a package in parts, because the table says what the parts must
    /// hold; of what is there together, as long as there is no table.
    pub stamp: Stamp,
    /// What lies there besides the file itself.
    pub form: Form,
}

/// What a candidate consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One file.
    Whole,
    /// A table and parts, as far as they are there.
    Parts(Members),
}

/// The files of a package in parts that are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    /// The table.
    pub table: Option<Stamp>,
    /// Parts by the names of their files, whether the table names them or not.
    pub parts: BTreeMap<String, Stamp>,
}

/// What was found in a drop folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// What may be a package, by path.
    pub candidates: Vec<Candidate>,
    /// The folders below the drop folder that were looked at.
    pub folders: BTreeSet<PathBuf>,
    /// What was not looked at, and why.
    pub skipped: BTreeMap<PathBuf, String>,
}

/// Folders that are no part of any drop folder, wherever they lie: those for files that are done, refused or asked for.
///
/// They are told by what they are on disk and not by their names, because a folder may have several: a package that is
/// found again where it was moved to would go round in circles.
#[derive(Clone, Debug, Default)]
pub(super) struct Apart(HashSet<(u64, u64)>);

impl Apart {
    /// Looks up where `folders` are now. Those that are not there need not be kept apart.
    pub(super) fn find<'a>(folders: impl IntoIterator<Item = &'a Folder>) -> Self {
        let paths = folders
            .into_iter()
            .flat_map(|folder| [&folder.done, &folder.rejected, &folder.requests]);
        Self(
            paths
                .filter_map(|path| path.metadata().ok())
                .map(|metadata| identity(&metadata))
                .collect(),
        )
    }
}

impl Folder {
    /// Lists what may be a package in this folder and those below it, down to [`FOLDER_DEPTH_MAX`] levels.
    ///
    /// Left out: links, hidden files and folders, sidecars, unfinished downloads, folders that are kept apart, and names
    /// that are not UTF-8. Only a drop folder that cannot be read at all is an error.
    pub(super) fn list(&self, apart: &Apart) -> Result<Listing, Error> {
        let mut lister = Lister {
            apart,
            listing: Listing::default(),
            sets: BTreeMap::new(),
            coming: Vec::new(),
        };
        for (path, metadata) in read_dir(&self.path)? {
            lister.sort(path, &metadata, 0)?;
        }
        while let Some((dir, depth)) = lister.coming.pop() {
            match read_dir(&dir) {
                Ok(entries) => {
                    lister.listing.folders.insert(dir);
                    for (path, metadata) in entries {
                        lister.sort(path, &metadata, depth)?;
                    }
                }
                Err(error) => lister.skip(dir, Chain(&error).to_string()),
            }
        }
        Ok(lister.finish())
    }
}

/// A listing that is being made.
struct Lister<'a> {
    apart: &'a Apart,
    listing: Listing,
    /// Packages in parts, by the paths of their tables.
    sets: BTreeMap<PathBuf, Members>,
    /// Folders still to be looked at, with their depths.
    coming: Vec<(PathBuf, usize)>,
}

impl Lister<'_> {
    /// Puts an entry of a folder `depth` levels below the drop folder where it belongs.
    fn sort(&mut self, path: PathBuf, metadata: &Metadata, depth: usize) -> Result<(), Error> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            self.skip(path, "expected a name in UTF-8".to_owned());
            return Ok(());
        };
        if name.starts_with('.') {
            return Ok(());
        }
        if metadata.is_file() {
            let stamp = stamp(metadata).context("inspect", &path)?;
            self.add_file(&path, name, stamp);
        } else if metadata.is_dir() && !self.apart.0.contains(&identity(metadata)) {
            if depth == FOLDER_DEPTH_MAX {
                let reason = format!("expected at most {FOLDER_DEPTH_MAX} levels of folders");
                self.skip(path, reason);
            } else {
                self.coming.push((path, depth + 1));
            }
        }
        Ok(())
    }

    /// Adds a file to a package in parts, or to the candidates if it may be a package by itself.
    fn add_file(&mut self, path: &Path, name: &str, stamp: Stamp) {
        if let Some(member) = Member::of(name) {
            let table = path.with_file_name(format!("{}{TABLE_SUFFIX}", member.whole()));
            let members = self.sets.entry(table).or_default();
            match member {
                Member::Table(_) => members.table = Some(stamp),
                Member::Part(_) => {
                    members.parts.insert(name.to_owned(), stamp);
                }
            }
        } else if may_be_package(name) {
            self.listing.candidates.push(Candidate {
                path: path.to_owned(),
                stamp,
                form: Form::Whole,
            });
        }
    }

    fn skip(&mut self, path: PathBuf, reason: String) {
        self.listing.skipped.insert(path, reason);
    }

    fn finish(self) -> Listing {
        let mut listing = self.listing;
        let sets = self.sets.into_iter();
        let sets = sets.map(|(path, members)| Candidate {
            path,
            stamp: members.stamp(),
            form: Form::Parts(members),
        });
        listing.candidates.extend(sets);
        listing.candidates.sort_by(|a, b| a.path.cmp(&b.path));
        listing
    }
}

impl Candidate {
    /// Returns the path that the package has as one file: sidecars are named after it.
    pub(super) fn whole(&self) -> PathBuf {
        match self.form {
            Form::Whole => self.path.clone(),
            Form::Parts(_) => whole_of(&self.path),
        }
    }

    /// Returns every file that was found, with its stamp; the file that stands for the candidate comes last.
    pub(super) fn files(&self) -> Vec<(PathBuf, Stamp)> {
        match &self.form {
            Form::Whole => vec![(self.path.clone(), self.stamp)],
            Form::Parts(members) => {
                let parts = members.parts.iter();
                let parts = parts.map(|(name, stamp)| (self.path.with_file_name(name), *stamp));
                let table = members.table.map(|stamp| (self.path.clone(), stamp));
                parts.chain(table).collect()
            }
        }
    }
}

impl Members {
    fn stamp(&self) -> Stamp {
        self.table.unwrap_or_else(|| Stamp {
            size_bytes: self.parts.values().map(|stamp| stamp.size_bytes).sum(),
            modified_at: self
                .parts
                .values()
                .map(|stamp| stamp.modified_at)
                .max()
                .unwrap_or(Timestamp::UNIX_EPOCH),
        })
    }
}

/// Returns the path of the package that a table stands for.
fn whole_of(table: &Path) -> PathBuf {
    let name = table.file_name().and_then(|name| name.to_str());
    let whole = name.and_then(|name| name.strip_suffix(TABLE_SUFFIX));
    table.with_file_name(whole.unwrap_or_default())
}

/// Returns size and modification time of a file, if it is there.
pub(super) fn stamp_of(path: &Path) -> Option<Stamp> {
    stamp(&path.metadata().ok()?).ok()
}

fn stamp(metadata: &Metadata) -> std::io::Result<Stamp> {
    Ok(Stamp {
        size_bytes: metadata.len(),
        modified_at: Timestamp::from(metadata.modified()?),
    })
}

/// Reads a folder. What disappears meanwhile is simply not there. Links are not followed.
fn read_dir(dir: &Path) -> Result<Vec<(PathBuf, Metadata)>, Error> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).context("read", dir)? {
        let entry = entry.context("read", dir)?;
        if let Ok(metadata) = entry.metadata() {
            entries.push((entry.path(), metadata));
        }
    }
    Ok(entries)
}

fn may_be_package(name: &str) -> bool {
    !is_sidecar(name)
        && !UNFINISHED_ENDINGS
            .iter()
            .any(|ending| name.ends_with(ending))
}

/// What tells one folder from another, whatever paths lead to it.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ingest::folder::tests::folder;
    use crate::sys::fs as durable;

    fn write(path: &Path) {
        durable::ensure_dir_all(path.parent().unwrap()).unwrap();
        durable::replace_file(path, b"x", 0o600).unwrap();
    }

    fn list(folder: &Folder) -> Listing {
        folder.list(&Apart::find([folder])).unwrap()
    }

    fn paths(listing: &Listing) -> Vec<PathBuf> {
        let candidates = listing.candidates.iter();
        candidates.map(|candidate| candidate.path.clone()).collect()
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
            ".snapshot/c.tgz",
        ] {
            write(&root.path().join(name));
        }
        durable::ensure_dir(&root.path().join("done")).unwrap();
        std::os::unix::fs::symlink("a.tgz", root.path().join("link.tgz")).unwrap();
        std::os::unix::fs::symlink(".", root.path().join("round")).unwrap();
        let listing = list(&folder(root.path()));
        assert_eq!(
            paths(&listing),
            [root.path().join("a.tgz"), root.path().join("b.tgz")]
        );
        assert_eq!(listing.skipped, BTreeMap::new());
    }

    #[test]
    fn folders_are_looked_into_except_those_kept_apart_under_whatever_path() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let mut folder = folder(root.path());
        for name in [
            "2026-11/redis/a.tgz",
            "2026-11/b.tgz",
            "done/c.tgz",
            "mirror/d.tgz",
        ] {
            write(&root.path().join(name));
        }
        // Another path to `mirror`, as with a mount or a link above it.
        let link = elsewhere.path().join("link");
        std::os::unix::fs::symlink(root.path().join("mirror"), &link).unwrap();
        folder.rejected = link;
        let listing = list(&folder);
        let at = |name: &str| root.path().join(name);
        assert_eq!(
            paths(&listing),
            [at("2026-11/b.tgz"), at("2026-11/redis/a.tgz")]
        );
        let folders: Vec<PathBuf> = listing.folders.into_iter().collect();
        assert_eq!(folders, [at("2026-11"), at("2026-11/redis")]);
    }

    #[test]
    fn folders_too_deep_are_said_and_not_looked_into() {
        let root = tempfile::tempdir().unwrap();
        let mut dir = root.path().to_owned();
        for _ in 0..FOLDER_DEPTH_MAX {
            dir.push("d");
        }
        write(&dir.join("in.tgz"));
        write(&dir.join("d/out.tgz"));
        let listing = list(&folder(root.path()));
        assert_eq!(paths(&listing), [dir.join("in.tgz")]);
        assert_eq!(
            listing.skipped.into_keys().collect::<Vec<_>>(),
            [dir.join("d")]
        );
    }

    #[test]
    fn table_and_parts_are_one_candidate_whichever_of_them_are_there() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path());
        let table = root.path().join("x.tgz.parts");
        let part = |number: usize| root.path().join(format!("x.tgz.{number:03}"));
        write(&part(2));
        write(&part(1));
        let listing = list(&folder);
        let [candidate] = &listing.candidates[..] else {
            panic!("expected one candidate, found {listing:?}");
        };
        assert_eq!((&candidate.path, candidate.stamp.size_bytes), (&table, 2));
        assert_eq!(candidate.whole(), root.path().join("x.tgz"));
        write(&table);
        let file = fs::File::open(&table).unwrap();
        let hour_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_hours(1);
        file.set_modified(hour_ago).unwrap();
        let listing = list(&folder);
        let files: Vec<PathBuf> = listing.candidates[0]
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        assert_eq!(files, [part(1), part(2), table]);
        // The table alone says whether it is still the same package.
        assert_eq!(
            listing.candidates[0].stamp.modified_at,
            Timestamp::from(hour_ago)
        );
    }
}
