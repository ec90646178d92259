//! Is the file complete?
//!
//! Whoever drops a file may write it slowly, over a network file system, or by a tool that leaves no trace when it has
//! finished. A file is taken as complete when its size and modification time have not changed for the settle time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::base::Timestamp;

/// What tells one content of a path from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Size, in bytes.
    pub size_bytes: u64,
    /// Modification time.
    pub modified_at: Timestamp,
}

/// Remembers since when each file has rested.
#[derive(Debug, Default)]
pub(super) struct Settler {
    files: HashMap<PathBuf, (Stamp, Instant)>,
}

impl Settler {
    /// Notes what is there at `now` and returns for how long it has been so.
    pub(super) fn observe(&mut self, path: &Path, stamp: Stamp, now: Instant) -> Duration {
        match self.files.get(path) {
            Some((known, since)) if *known == stamp => now.saturating_duration_since(*since),
            Some(_) | None => {
                self.files.insert(path.to_owned(), (stamp, now));
                Duration::ZERO
            }
        }
    }

    /// Forgets the files for which `is_there` is false.
    pub(super) fn retain(&mut self, is_there: impl Fn(&Path) -> bool) {
        self.files.retain(|path, _| is_there(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_size_or_time_begins_the_rest_anew() {
        let (mut settler, start) = (Settler::default(), Instant::now());
        let path = Path::new("/drop/x.tgz");
        let at = |seconds| start + Duration::from_secs(seconds);
        let stamp = Stamp {
            size_bytes: 1,
            modified_at: Timestamp::UNIX_EPOCH,
        };
        let grown = Stamp {
            size_bytes: 2,
            ..stamp
        };
        assert_eq!(settler.observe(path, stamp, at(0)), Duration::ZERO);
        assert_eq!(settler.observe(path, stamp, at(4)), Duration::from_secs(4));
        assert_eq!(settler.observe(path, grown, at(5)), Duration::ZERO);
        assert_eq!(settler.observe(path, grown, at(9)), Duration::from_secs(4));
        settler.retain(|_| false);
        assert_eq!(settler.observe(path, grown, at(10)), Duration::ZERO);
    }
}
