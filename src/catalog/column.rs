//! Columns and keys: which rows there are and how they are found.
//!
//! # Format
//!
//! A key of several parts separates them by a NUL byte, which occurs in no target name, repository or tag. Rows of
//! target `a` therefore never mix with those of `a-b`. A number in a key is big-endian, so that keys sort as numbers do.

use crate::base::{Digest, Repository, Tag, TargetName};

/// One table of the catalog. Every row is encoded as [`super::codec`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Packages that are ready. Key: the 32 bytes of the digest of the file. Row: `PackageRecord`.
    Package,
    /// Files in drop folders. Key: the path. Row: `IngestRecord`.
    Ingest,
    /// Tags that we put on targets. Key: target, NUL, repository, NUL, tag. Row: `Placement`.
    Placement,
    /// Targets. Key: the name. Row: `TargetRecord`.
    Target,
    /// The latest runs of each target. Key: target, NUL, number of the run as eight bytes. Row: `RunRecord`.
    Run,
    /// What the last run of each target did for each image. Key: the name of the target. Row: `ReportRecord`.
    Report,
    /// What each ready package keeps in the store. Key: that of the package. Row: `Content`, in a form of its own.
    Content,
    /// Blobs that no package keeps. Key: the 32 bytes of the digest. Row: `CondemnedRecord`.
    Condemned,
    /// Packages that retention leaves alone. Key: that of the package. Row: `PinRecord`.
    Pin,
    /// Work that is due by a schedule and belongs to no target. Key: the name of the job. Row: `JobRecord`.
    Job,
    /// Uploads to targets that are not finished. Key: target, NUL, repository, NUL, digest as text. Row: `UploadRecord`.
    Upload,
    /// What targets hold. Key: target, NUL, the 32 bytes of the digest, repository. Row: `HeldRecord`, in a form of its own.
    Held,
}

impl Column {
    pub(super) const ALL: [Self; 12] = [
        Self::Package,
        Self::Ingest,
        Self::Placement,
        Self::Target,
        Self::Run,
        Self::Report,
        Self::Content,
        Self::Condemned,
        Self::Pin,
        Self::Job,
        Self::Upload,
        Self::Held,
    ];

    /// Returns the name on disk. Never changed, only retired.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Ingest => "ingest",
            Self::Placement => "placement",
            Self::Target => "target",
            Self::Run => "run",
            Self::Report => "report",
            Self::Content => "content",
            Self::Condemned => "condemned",
            Self::Pin => "pin",
            Self::Job => "job",
            Self::Upload => "upload",
            Self::Held => "held",
        }
    }

    /// Returns the version of the rows that this program writes, and the newest that it reads.
    pub(super) const fn version(self) -> u8 {
        match self {
            Self::Package
            | Self::Ingest
            | Self::Placement
            | Self::Target
            | Self::Run
            | Self::Report
            | Self::Content
            | Self::Condemned
            | Self::Pin
            | Self::Job
            | Self::Upload
            | Self::Held => 1,
        }
    }
}

pub(super) const fn package_key(digest: &Digest) -> &[u8] {
    digest.as_bytes()
}

/// Returns the digest in the key of a package, its content, its pin or a blob, if it is one.
pub(super) fn digest_of_key(key: &[u8]) -> Option<Digest> {
    Some(Digest::from_bytes(key.try_into().ok()?))
}

pub(super) fn target_key(target: &TargetName) -> &[u8] {
    target.as_str().as_bytes()
}

/// Returns what all keys start with that belong to `target`.
pub(super) fn target_prefix(target: &TargetName) -> Vec<u8> {
    let mut key = target_key(target).to_vec();
    key.push(0);
    key
}

pub(super) fn placement_key(target: &TargetName, repository: &Repository, tag: &Tag) -> Vec<u8> {
    let mut key = target_prefix(target);
    key.extend_from_slice(repository.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(tag.as_str().as_bytes());
    key
}

pub(super) fn upload_key(target: &TargetName, repository: &Repository, digest: &Digest) -> Vec<u8> {
    let mut key = target_prefix(target);
    key.extend_from_slice(repository.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(digest.to_string().as_bytes());
    key
}

pub(super) fn run_key(target: &TargetName, number: u64) -> Vec<u8> {
    let mut key = target_prefix(target);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Returns what all keys start with that say who holds this on `target`. A digest has a fixed length: nothing separates it
/// from the repository.
pub(super) fn held_prefix(target: &TargetName, digest: &Digest) -> Vec<u8> {
    let mut key = target_prefix(target);
    key.extend_from_slice(digest.as_bytes());
    key
}

pub(super) fn held_key(target: &TargetName, digest: &Digest, repository: &Repository) -> Vec<u8> {
    let mut key = held_prefix(target, digest);
    key.extend_from_slice(repository.as_str().as_bytes());
    key
}

/// Returns what the key of a row of `held` says is where, if it is one.
pub(super) fn held_of_key(key: &[u8]) -> Option<(Digest, Repository)> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let (digest, repository) = key[end + 1..].split_first_chunk()?;
    let repository = std::str::from_utf8(repository).ok()?.parse().ok()?;
    Some((Digest::from_bytes(*digest), repository))
}

/// Returns the number in the key of a run, if it is one.
pub(super) fn run_number(key: &[u8]) -> Option<u64> {
    let (_, number) = key.split_last_chunk()?;
    Some(u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_keys() {
        let target: TargetName = "a-b".parse().unwrap();
        let placement = placement_key(&target, &"x/y".parse().unwrap(), &"v1".parse().unwrap());
        assert_eq!(placement, b"a-b\0x/y\0v1");
        let upload = upload_key(
            &target,
            &"x/y".parse().unwrap(),
            &Digest::from_bytes([7; 32]),
        );
        let expected = format!("a-b\0x/y\0sha256:{}", "07".repeat(32));
        assert_eq!(upload, expected.as_bytes());
        let (digest, repository) = (Digest::from_bytes([0; 32]), "x/y".parse().unwrap());
        let held = held_key(&target, &digest, &repository);
        assert_eq!(held, [b"a-b\0".as_slice(), &[0; 32], b"x/y"].concat());
        assert_eq!(held_of_key(&held), Some((digest, repository)));
        assert_eq!(held_of_key(b"a-b\0short"), None);
        assert_eq!(run_key(&target, 258), b"a-b\0\0\0\0\0\0\0\x01\x02");
        assert_eq!(
            Column::ALL.map(Column::name),
            [
                "package",
                "ingest",
                "placement",
                "target",
                "run",
                "report",
                "content",
                "condemned",
                "pin",
                "job",
                "upload",
                "held"
            ]
        );
    }

    proptest! {
        #[test]
        fn run_keys_sort_by_target_then_number(
            (a, b) in ("[a-c]{1,2}(-[a-c])?", "[a-c]{1,2}(-[a-c])?"), (m, n) in any::<(u64, u64)>(),
        ) {
            let (a, b): (TargetName, TargetName) = (a.parse().unwrap(), b.parse().unwrap());
            let (first, second) = (run_key(&a, m), run_key(&b, n));
            prop_assert_eq!(run_number(&first), Some(m));
            prop_assert_eq!(first.cmp(&second), (&a, m).cmp(&(&b, n)));
            prop_assert_eq!(first.starts_with(&target_prefix(&b)), a == b);
        }
    }
}
