//! Folders and files of the state directory, apart from the blobs: are those there that should be, and no others?

use std::path::Path;

use super::pass::{Entry, Kind, Pass};
use super::{Code, Error};
use crate::base::{ByteCount, Digest};

/// Folders that the daemon makes when it starts. `audit` and `catalog` are missed by those who read them.
const FOLDERS: [&str; 4] = ["blobs", "ingest", "packages", "quarantine"];

/// What the folder `packages` has, by the names of its files, sorted.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Packages that are there.
    pub(super) packages: Vec<Digest>,
    /// Packages that were removed.
    pub(super) removed: Vec<Digest>,
}

impl Names {
    pub(super) fn has(&self, package: &Digest) -> bool {
        self.packages.binary_search(package).is_ok()
    }

    pub(super) fn has_removed(&self, package: &Digest) -> bool {
        self.removed.binary_search(package).is_ok()
    }
}

impl Pass<'_> {
    /// Looks at everything but blobs. Returns the names of package records.
    pub(super) fn check_layout(&mut self) -> Result<Names, Error> {
        let root = self.root;
        let entries = self.list(root)?;
        for folder in FOLDERS {
            if !entries.iter().any(|entry| entry.name == folder) {
                self.tell(Code::FolderMissing, folder, "expected a folder, found none");
            }
        }
        let mut names = Names::default();
        for entry in entries {
            match entry.text() {
                "FORMAT" | "LOCK" => {
                    self.judge(&entry, Kind::File)?;
                }
                folder @ ("blobs" | "ingest" | "packages" | "quarantine" | "audit" | "catalog") => {
                    if self.judge(&entry, Kind::Folder)? {
                        self.check_folder(folder, &entry.path, &mut names)?;
                    }
                }
                // A catalog that is made anew: the next owner takes it or removes it.
                "catalog.new" if entry.metadata.is_dir() => {
                    if !self.is_owned {
                        let reason = "expected no unfinished catalog, found one";
                        self.tell_path(Code::TemporaryFile, &entry.path, reason);
                    }
                }
                // What mkfs makes, where the directory is a file system of its own.
                "lost+found" => {}
                _ => self.tell_foreign(&entry),
            }
        }
        Ok(names)
    }

    fn check_folder(&mut self, folder: &str, path: &Path, names: &mut Names) -> Result<(), Error> {
        match folder {
            "blobs" => self.check_shards(path),
            "ingest" => self.check_staged(path),
            "packages" => {
                names.packages = self.check_records(path)?;
                names.removed = self.check_records(&path.join("removed"))?;
                Ok(())
            }
            "quarantine" => self.check_quarantine(path),
            "audit" => self.check_names(path, is_audit_name),
            _ => self.check_names(path, is_database_name),
        }
    }

    /// Looks at the folders of blobs, not into them.
    fn check_shards(&mut self, path: &Path) -> Result<(), Error> {
        let entries = self.list(path)?;
        if !entries.iter().any(|entry| entry.name == "sha256") {
            let reason = "expected a folder, found none";
            self.tell_path(Code::FolderMissing, &path.join("sha256"), reason);
        }
        for entry in entries {
            if entry.name != "sha256" {
                self.tell_foreign(&entry);
            } else if self.judge(&entry, Kind::Folder)? {
                let shards = self.list(&entry.path)?;
                self.check_shard_names(&entry.path, &shards)?;
            }
        }
        Ok(())
    }

    fn check_shard_names(&mut self, dir: &Path, entries: &[Entry]) -> Result<(), Error> {
        let is_shard = |name: &str| {
            name.len() == 2 && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        };
        for shard in 0..=u8::MAX {
            let name = format!("{shard:02x}");
            if !entries.iter().any(|entry| *entry.name == *name) {
                let reason = "expected a folder, found none";
                self.tell_path(Code::FolderMissing, &dir.join(name), reason);
            }
        }
        for entry in entries {
            if is_shard(entry.text()) {
                self.judge(entry, Kind::Folder)?;
            } else {
                self.tell_foreign(entry);
            }
        }
        Ok(())
    }

    /// Says what was left behind half-way. The names are random, so that none is foreign.
    fn check_staged(&mut self, path: &Path) -> Result<(), Error> {
        let entries = self.list(path)?;
        if !entries.is_empty() && !self.is_owned {
            let bytes = ByteCount(entries.iter().map(|entry| entry.metadata.len()).sum());
            let reason = format!("expected none, found {} ({bytes})", entries.len());
            self.tell_path(Code::StagedFiles, path, reason);
        }
        Ok(())
    }

    fn check_quarantine(&mut self, path: &Path) -> Result<(), Error> {
        for entry in self.list(path)? {
            let reason = if entry.metadata.is_dir() {
                "a folder that was put aside".to_owned()
            } else {
                format!("{} that were put aside", ByteCount(entry.metadata.len()))
            };
            self.tell_path(Code::Quarantined, &entry.path, reason);
        }
        Ok(())
    }

    /// Returns the packages that files are named after, sorted.
    fn check_records(&mut self, dir: &Path) -> Result<Vec<Digest>, Error> {
        let mut packages = Vec::new();
        for entry in self.list(dir)? {
            let changing = entry.text().strip_suffix(".next");
            if changing.is_some_and(|hex| Digest::from_hex(hex).is_ok()) {
                if self.judge(&entry, Kind::File)? {
                    let reason = "expected no change of a package under way, found one";
                    self.tell_path(Code::ChangeUnfinished, &entry.path, reason);
                }
                continue;
            }
            let hex = entry.text().strip_suffix(".json");
            match hex.and_then(|hex| Digest::from_hex(hex).ok()) {
                Some(digest) => {
                    if self.judge(&entry, Kind::File)? {
                        packages.push(digest);
                    }
                }
                None if entry.name == "removed" && dir.ends_with("packages") => {
                    self.judge(&entry, Kind::Folder)?;
                }
                None => self.tell_foreign(&entry),
            }
        }
        Ok(packages)
    }

    fn check_names(&mut self, dir: &Path, is_ours: fn(&str) -> bool) -> Result<(), Error> {
        for entry in self.list(dir)? {
            if is_ours(entry.text()) {
                self.judge(&entry, Kind::File)?;
            } else {
                self.tell_foreign(&entry);
            }
        }
        Ok(())
    }
}

/// Returns whether the audit record has files of this name: see `docs/formats/audit.md`.
fn is_audit_name(name: &str) -> bool {
    let digits = name
        .strip_prefix("audit-")
        .and_then(|rest| rest.strip_suffix(".jsonl"));
    digits.is_some_and(|digits| digits.len() >= 6 && is_number(digits))
}

/// Returns whether RocksDB has files of this name (`file/filename.h` in version 10).
fn is_database_name(name: &str) -> bool {
    if matches!(name, "CURRENT" | "IDENTITY" | "LOCK" | "LOG") {
        return true;
    }
    let is_numbered = |prefix: &str| name.strip_prefix(prefix).is_some_and(is_number);
    if ["LOG.old.", "MANIFEST-", "OPTIONS-"]
        .into_iter()
        .any(is_numbered)
    {
        return true;
    }
    let number = name.rsplit_once('.').map(|(number, extension)| {
        let is_ours = matches!(extension, "sst" | "log" | "dbtmp" | "blob");
        // `OPTIONS-000007.dbtmp` is one that is being written.
        is_ours && is_number(number.strip_prefix("OPTIONS-").unwrap_or(number))
    });
    number.unwrap_or(false)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_database_and_of_the_audit_record_are_known_by_their_names() {
        for name in [
            "CURRENT",
            "LOG.old.1732190000000000",
            "MANIFEST-000005",
            "OPTIONS-000007",
            "OPTIONS-000007.dbtmp",
            "000012.sst",
            "000004.log",
        ] {
            assert!(is_database_name(name), "{name}");
        }
        for name in ["", ".log", "x.sst", "MANIFEST-", "000012.sst.bak", "README"] {
            assert!(!is_database_name(name), "{name}");
        }
        assert!(is_audit_name("audit-000001.jsonl"));
        assert!(!is_audit_name("audit-1.jsonl"));
        assert!(!is_audit_name("audit-000001.jsonl.gz"));
    }
}
