//! The list of findings: their stable names, how bad each is, what it means and what to do.
//!
//! Names never change, they are only retired: scripts look for them. `docs/check.md` holds the same table, which a test
//! compares.

use serde::{Serialize, Serializer};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Info,
    /// Not as it should be, and no package is affected.
    Warning,
    /// Something of a package, of the catalog or of the audit record is damaged or missing.
    Error,
}

impl Severity {
    /// Returns the stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Defines the codes: variant, stable name, severity, meaning, what to do.
macro_rules! codes {
    ($($variant:ident, $name:literal, $severity:ident, $meaning:literal, $advice:literal;)*) => {
        /// What is found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Returns how bad it is.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// Returns what it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// Returns what to do about it: an imperative without a full stop.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }
        }
    };
}

codes! {
    // The state directory.
    FormatMissing, "format-missing", Error,
        "the file `FORMAT` is missing beside a store",
        "restore it from a backup, or from an empty state directory of the same version of violetd";
    FormatUnreadable, "format-unreadable", Error,
        "the file `FORMAT` is not what was written",
        "restore it from a backup, or from an empty state directory of the same version of violetd";
    FormatUnknown, "format-unknown", Error,
        "the directory was written by a newer version; nothing else was looked at",
        "check with the version of violetd that wrote it, or with a newer one";
    DaemonRunning, "daemon-running", Info,
        "a process owns the directory: staged and temporary files may be in use and are not judged",
        "nothing; stop the daemon and check again if it is about those";
    FolderMissing, "folder-missing", Warning,
        "a folder of the layout is missing",
        "start the daemon: it makes the folders that are missing";
    WrongKind, "wrong-kind", Error,
        "a folder stands in the place of a file, a file in that of a folder, or something that is neither",
        "move it away, start the daemon, and check again";
    SymbolicLink, "symbolic-link", Warning,
        "a symbolic link stands in the place of a file or folder",
        "put the file or folder itself there, or mount a file system";
    WrongMode, "wrong-mode", Warning,
        "others may write a file or folder, or a blob is not read-only",
        "take the permission away with chmod";
    WrongOwner, "wrong-owner", Warning,
        "a file or folder belongs to another user than the one that the daemon runs as",
        "give it to the owner of `LOCK` with chown: the daemon may fail to open it";
    HardLink, "hard-link", Warning,
        "a blob has another name somewhere, through which it can be changed",
        "find the other name with `find -samefile` and remove it";
    ForeignFile, "foreign-file", Warning,
        "a file or folder that is none of violetd's",
        "move it out of the state directory";
    Unreadable, "unreadable", Error,
        "the operating system fails to read a file or folder",
        "look for faults of the disk in the kernel's log; then scrub, or bring the packages again";
    TemporaryFile, "temporary-file", Info,
        "a file of a process that ended before it was complete",
        "nothing: the daemon removes it when it starts";
    StagedFiles, "staged-files", Info,
        "files of packages whose ingest ended half-way",
        "nothing: the daemon removes them when it starts";
    Quarantined, "quarantined", Info,
        "something damaged was put aside",
        "remove it once nobody wants to look at it";
    DiskLow, "disk-low", Warning,
        "less space is free than the low mark",
        "free space, or let retention remove packages";
    DiskCritical, "disk-critical", Warning,
        "less space is free than the critical mark",
        "free space now: nothing is taken in";
    // Blobs.
    BlobMissing, "blob-missing", Error,
        "a blob that a package keeps is not in the store",
        "run `violetd scrub --now`: it fetches the blob from a target or from a kept package file; or bring a package that holds it again";
    BlobSize, "blob-size", Error,
        "a blob has another size than its package says",
        "run `violetd scrub --now`: it puts the blob into quarantine and repairs it";
    BlobCorrupt, "blob-corrupt", Error,
        "the content of a blob does not have the digest that is its name",
        "run `violetd scrub --now`: it puts the blob into quarantine and repairs it";
    BlobMisplaced, "blob-misplaced", Warning,
        "a blob lies in the folder of other digests, where nobody looks for it",
        "move it to the folder of the first two characters of its name, unless it is there, and check again with --deep";
    BlobsUnreferenced, "blobs-unreferenced", Info,
        "blobs that no package keeps and no waiting file expects",
        "nothing: collection removes them after the grace period";
    // Package records, and the catalog beside them.
    RecordUnreadable, "record-unreadable", Error,
        "a file in `packages/` is no package record",
        "move it away and start the daemon: it is written again from the catalog, if that has the package; else bring the package again";
    RecordUnknown, "record-unknown", Error,
        "a file in `packages/` was written by a newer version",
        "check with the version of violetd that wrote it, or with a newer one";
    RecordMisnamed, "record-misnamed", Error,
        "a file in `packages/` is the record of another package than its name says",
        "move it away, and start the daemon";
    RecordMissing, "record-missing", Warning,
        "the catalog has a package without a file in `packages/`",
        "restart the daemon: it writes the file again from the catalog";
    RowMissing, "row-missing", Warning,
        "a file in `packages/` without a row in the catalog",
        "restart the daemon: it puts the row";
    RecordDiffers, "record-differs", Error,
        "file and row of a package say different things; the file counts",
        "stop the daemon and run `violetd check --rebuild`";
    ChangeUnfinished, "change-unfinished", Warning,
        "the record of a package was about to change when its writer ended",
        "start the daemon: it finishes the change";
    RemovalUnfinished, "removal-unfinished", Warning,
        "a package was removed and the catalog still has it",
        "restart the daemon: it finishes the removal";
    TombstoneStale, "tombstone-stale", Warning,
        "a package that is ready is also in `packages/removed/`",
        "restart the daemon: it removes the file in `packages/removed/`";
    CatalogMissing, "catalog-missing", Error,
        "there is no catalog",
        "start the daemon, or run `violetd check --rebuild`: it is made again from `packages/`";
    CatalogCorrupt, "catalog-corrupt", Error,
        "the database of the catalog is damaged",
        "stop the daemon and run `violetd check --rebuild`";
    CatalogUnknown, "catalog-unknown", Error,
        "the catalog was written by a newer version",
        "check with the version of violetd that wrote it, or with a newer one";
    RowCorrupt, "row-corrupt", Error,
        "a row of the catalog cannot be read",
        "stop the daemon and run `violetd check --rebuild`";
    ContentMissing, "content-missing", Error,
        "the catalog does not say what a package keeps, so that nothing can be collected",
        "restart the daemon; if it stays, bring the package again";
    ContentDiffers, "content-differs", Error,
        "file and row of a package say different things about what it keeps; the file counts",
        "stop the daemon and run `violetd check --rebuild`";
    ContentOrphan, "content-orphan", Warning,
        "the catalog says what a package keeps that is not there, so that its blobs are not collected",
        "restart the daemon: it removes the row";
    TotalsDiffer, "totals-differ", Error,
        "number or size of the blobs of a package are not those of what it keeps",
        "bring the package again after `violetd retain` has removed it";
    PinOrphan, "pin-orphan", Warning,
        "a pin without a package",
        "restart the daemon: it removes the pin";
    PinDiffers, "pin-differs", Warning,
        "file and catalog disagree on whether a package is pinned; the file counts",
        "pin or unpin the package again";
    IngestOrphan, "ingest-orphan", Warning,
        "a dropped file is said to be ready, and its package is neither there nor was it removed",
        "drop the file again under another name";
    TargetUnknown, "target-unknown", Info,
        "the catalog knows a target that is not configured any more",
        "nothing, unless its name was changed: then what was put there counts as foreign";
    CondemnedWanted, "condemned-wanted", Info,
        "a blob is listed for collection and a package keeps it",
        "nothing: the next collection takes it off the list";
    CondemnedGone, "condemned-gone", Info,
        "a blob is listed for collection and is not there",
        "nothing: the next collection takes it off the list";
    // Images, with --deep.
    ImageUnreadable, "image-unreadable", Error,
        "a manifest of an image is whole and cannot be understood",
        "bring the package again; if it is refused, it was taken in by a faulty version";
    ImageDiffers, "image-differs", Error,
        "an image is not what its package says: media type or size",
        "stop the daemon and run `violetd check --rebuild`; if it stays, bring the package again";
    ContentIncomplete, "content-incomplete", Error,
        "an image consists of a blob that its package does not keep, so that collection would remove it",
        "stop the daemon and run `violetd check --rebuild`; if it stays, bring the package again";
    ContentSurplus, "content-surplus", Warning,
        "a package keeps blobs that belong to nothing of it",
        "nothing: they go with the package";
    OmittedDiffers, "omitted-differs", Warning,
        "what a package says was left out of its indexes is not what is left out",
        "stop the daemon and run `violetd check --rebuild`; if it stays, bring the package again";
    // The audit record.
    AuditMissing, "audit-missing", Error,
        "there are packages and no audit record",
        "restore `audit/` from a backup";
    AuditBroken, "audit-broken", Error,
        "the audit record is not what was written",
        "compare with the head that was noted last (`violetd audit verify --expect`), and keep it as it is";
    AuditIncomplete, "audit-incomplete", Warning,
        "the audit record ends in the middle of a line, as after power loss",
        "start the daemon: it goes on in a new file and notes what was found";
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn names_are_kebab_case_and_each_is_there_once() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for name in names {
            assert!(
                name.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
                "{name}"
            );
        }
    }

    #[test]
    fn the_document_has_the_same_table() {
        let mut table =
            String::from("| code | severity | meaning | what to do |\n|---|---|---|---|\n");
        for code in Code::ALL {
            let severity = code.severity().name();
            let (name, meaning, advice) = (code.name(), code.meaning(), code.advice());
            writeln!(table, "| `{name}` | {severity} | {meaning} | {advice} |").unwrap();
        }
        let document = std::fs::read_to_string("docs/check.md").unwrap();
        assert!(
            document.contains(&table),
            "docs/check.md should have this table:\n{table}"
        );
    }
}
