//! What all packages keep, in little memory: 48 bytes for each blob.

use crate::base::Digest;
use crate::catalog::Content;

/// Entries from which on those that are there twice are looked for. Below that memory does not matter.
const ENTRIES_MIN: usize = 1 << 18;

/// A blob that a package keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    /// The first package that keeps it: its number in the order in which packages were added.
    package: u32,
}

/// What packages keep.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    entries: Vec<Entry>,
    packages: Vec<Digest>,
    /// How many entries there may be before those that are there twice are looked for again.
    limit: usize,
}

impl Wanted {
    /// Adds what a package keeps.
    pub(super) fn add(&mut self, package: Digest, content: &Content) {
        let number = u32::try_from(self.packages.len()).unwrap_or(u32::MAX);
        self.packages.push(package);
        for (digest, size_bytes) in content.entries() {
            if self.entries.len() >= self.limit {
                self.compact();
            }
            self.entries.push(Entry {
                digest: *digest,
                size_bytes: *size_bytes,
                package: number,
            });
        }
    }

    /// Puts the entries in order, each digest and size once. Comes before every question.
    pub(super) fn seal(&mut self) {
        self.entries.sort_unstable();
        let same = |a: &Entry, b: &Entry| (a.digest, a.size_bytes) == (b.digest, b.size_bytes);
        self.entries.dedup_by(|later, first| same(later, first));
    }

    /// Makes room. Half as much again is enough: packages mostly share what they consist of, or do not at all.
    fn compact(&mut self) {
        self.seal();
        let count = self.entries.len();
        self.limit = (count + count / 2).max(ENTRIES_MIN);
        self.entries.reserve_exact(self.limit - count);
    }

    /// Returns the entries whose digests begin with this byte.
    pub(super) fn shard(&self, shard: u8) -> &[Entry] {
        let from = self
            .entries
            .partition_point(|it| it.digest.as_bytes()[0] < shard);
        let to = self
            .entries
            .partition_point(|it| it.digest.as_bytes()[0] <= shard);
        &self.entries[from..to]
    }

    /// Returns a package that keeps the blob of an entry.
    pub(super) fn package_of(&self, entry: &Entry) -> Digest {
        self.packages[entry.package as usize]
    }
}

/// Returns whether a blob is among the entries of its shard.
pub(super) fn holds(entries: &[Entry], digest: &Digest) -> bool {
    entries.binary_search_by(|it| it.digest.cmp(digest)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_blob_is_there_once_under_the_first_package_that_keeps_it() {
        let mut wanted = Wanted::default();
        let blob = |number: u32| (Digest::of(&number.to_be_bytes()), u64::from(number));
        let packages = [0_u32, 1].map(|number| Digest::of(&[u8::try_from(number).unwrap()]));
        // Twice as many entries as are kept apart, so that they are put together on the way.
        let count = u32::try_from(ENTRIES_MIN).unwrap();
        for package in packages {
            wanted.add(package, &(0..count).map(blob).collect());
        }
        wanted.seal();
        let shards = (0..=u8::MAX).map(|shard| wanted.shard(shard));
        let entries: Vec<&Entry> = shards.flatten().collect();
        assert_eq!(entries.len(), ENTRIES_MIN);
        assert!(
            entries
                .iter()
                .all(|it| wanted.package_of(it) == packages[0])
        );
        let (digest, size_bytes) = blob(7);
        let shard = wanted.shard(digest.as_bytes()[0]);
        let found = shard.iter().find(|it| it.digest == digest);
        assert_eq!(found.unwrap().size_bytes, size_bytes);
        assert!(holds(shard, &digest));
        assert!(!holds(shard, &Digest::of(b"nobody keeps this")));
    }
}
