//! Blobs: are those there that packages keep, under the right names and with the right sizes?

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use super::packages::Packages;
use super::pass::{Entry, Kind, Pass};
use super::rows::Uses;
use super::wanted::{self, Wanted};
use super::{Code, Error};
use crate::base::{ByteCount, Digest, Timestamp};

/// What the store holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Blobs {
    pub(super) count: u64,
    pub(super) bytes: u64,
    /// Those that no package keeps and no waiting file expects.
    pub(super) unreferenced: u64,
    pub(super) unreferenced_bytes: u64,
    /// Those of them that are listed for collection, and the earliest time since when one is.
    pub(super) condemned: u64,
    pub(super) condemned_since: Option<Timestamp>,
}

/// A blob in its folder.
type Found = (Digest, u64);

impl Pass<'_> {
    /// Looks at all blobs, one folder of them after the other.
    pub(super) fn check_blobs(&mut self, packages: &Packages, uses: &Uses) -> Result<Blobs, Error> {
        let mut blobs = Blobs::default();
        for shard in 0..=u8::MAX {
            let found = self.list_shard(shard)?;
            self.check_kept(&packages.wanted, shard, &found);
            let kept = packages.wanted.shard(shard);
            let condemned = in_shard(&uses.condemned, shard);
            for (digest, size_bytes) in &found {
                blobs.count += 1;
                blobs.bytes += size_bytes;
                let is_expected = uses.expected.binary_search(digest).is_ok();
                if !is_expected && !wanted::holds(kept, digest) {
                    let since = condemned.binary_search_by(|(it, _)| it.cmp(digest));
                    blobs.add_unreferenced(*size_bytes, since.ok().map(|at| condemned[at].1));
                }
            }
            for (digest, _) in condemned {
                let is_there = found.binary_search_by(|(it, _)| it.cmp(digest)).is_ok();
                if !is_there {
                    let reason = "expected a blob, found none";
                    self.tell(Code::CondemnedGone, digest, reason);
                } else if wanted::holds(kept, digest) {
                    let reason = "expected a blob that no package keeps, found that one does";
                    self.tell(Code::CondemnedWanted, digest, reason);
                }
            }
        }
        if blobs.unreferenced > 0 {
            self.tell(Code::BlobsUnreferenced, "blobs", blobs.in_words());
        }
        Ok(blobs)
    }

    /// Looks for what packages keep of one folder.
    fn check_kept(&mut self, wanted: &Wanted, shard: u8, found: &[Found]) {
        for entry in wanted.shard(shard) {
            let (digest, expected) = (entry.digest, entry.size_bytes);
            let package = wanted.package_of(entry);
            match found.binary_search_by(|(it, _)| it.cmp(&digest)) {
                Err(_) => {
                    let reason = format!(
                        "expected a blob of {expected} bytes, which package {package} keeps, found none"
                    );
                    self.tell(Code::BlobMissing, digest, reason);
                }
                Ok(at) if found[at].1 != expected => {
                    let size_bytes = found[at].1;
                    let reason = format!(
                        "expected a blob of {expected} bytes, which package {package} keeps, found {size_bytes} bytes"
                    );
                    self.tell(Code::BlobSize, digest, reason);
                }
                Ok(_) => {}
            }
        }
    }

    /// Lists the blobs of one folder, sorted, and says what else is there.
    pub(super) fn list_shard(&mut self, shard: u8) -> Result<Vec<Found>, Error> {
        let dir = self.shard_path(shard);
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in self.list(&dir)? {
            let Ok(digest) = Digest::from_hex(entry.text()) else {
                self.tell_foreign(&entry);
                continue;
            };
            if digest.as_bytes()[0] != shard {
                let reason = format!("expected it in `{:02x}`", digest.as_bytes()[0]);
                self.tell_path(Code::BlobMisplaced, &entry.path, reason);
            } else if self.judge_blob(&entry)? {
                found.push((digest, entry.metadata.len()));
            }
        }
        Ok(found)
    }

    /// Returns whether there is a file that the store takes for a blob.
    fn judge_blob(&mut self, entry: &Entry) -> Result<bool, Error> {
        if entry.metadata.is_symlink() {
            let reason = "expected a blob, found a symbolic link, which the store does not follow";
            self.tell_path(Code::SymbolicLink, &entry.path, reason);
            return Ok(false);
        }
        let is_file = entry.metadata.is_file();
        if !is_file {
            return self.judge(entry, Kind::File);
        }
        let mode = entry.metadata.permissions().mode() & 0o7777;
        // A mask of the daemon may have taken away from 0444.
        if mode & !0o444 != 0 || mode & 0o400 == 0 {
            let reason = format!("expected mode 0444 or less of it, found {mode:04o}");
            self.tell_path(Code::WrongMode, &entry.path, reason);
        }
        let names = entry.metadata.nlink();
        if names > 1 {
            let reason = format!("expected one name, found {names}");
            self.tell_path(Code::HardLink, &entry.path, reason);
        }
        Ok(true)
    }

    pub(super) fn shard_path(&self, shard: u8) -> PathBuf {
        self.root.join("blobs/sha256").join(format!("{shard:02x}"))
    }
}

impl Blobs {
    fn add_unreferenced(&mut self, size_bytes: u64, condemned_since: Option<Timestamp>) {
        self.unreferenced += 1;
        self.unreferenced_bytes += size_bytes;
        self.condemned += u64::from(condemned_since.is_some());
        let times = self.condemned_since.into_iter().chain(condemned_since);
        self.condemned_since = times.min();
    }

    fn in_words(&self) -> String {
        let bytes = ByteCount(self.unreferenced_bytes);
        let since = match self.condemned_since {
            Some(since) => format!(", the first since {}", since.to_rfc3339()),
            None => String::new(),
        };
        format!(
            "{} blobs ({bytes}), {} of them listed for collection{since}",
            self.unreferenced, self.condemned
        )
    }
}

fn in_shard(condemned: &[(Digest, Timestamp)], shard: u8) -> &[(Digest, Timestamp)] {
    let from = condemned.partition_point(|(digest, _)| digest.as_bytes()[0] < shard);
    let to = condemned.partition_point(|(digest, _)| digest.as_bytes()[0] <= shard);
    &condemned[from..to]
}
