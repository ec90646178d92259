//! What removal needs besides [`Store::remove`]: names made durable, and staged files that nobody owns.

use std::time::{Duration, SystemTime};

use super::{Error, INGEST, Store, shard_of};
use crate::base::{Digest, Timestamp};
use crate::sys::fs;

/// How much older than the oldest open batch a staged file must be. A batch makes its files after it has begun; the rest is for
/// a clock that was set back in between. Chosen, not measured.
const STAGED_AGE_MIN: Duration = Duration::from_hours(1);

impl Store {
    /// Makes durable what was removed from the shard that this blob was in.
    pub fn sync_shard_of(&self, digest: &Digest) -> Result<(), Error> {
        Ok(fs::sync_dir(&self.shard_path(shard_of(digest)))?)
    }

    /// Removes staged files that no open batch can have made, and returns how many. Those of dead processes went when the store
    /// was opened; this is for batches of this process that could not remove theirs.
    pub fn sweep_staged(&self, now: Timestamp) -> Result<u64, Error> {
        self.check_writable()?;
        let now = SystemTime::from(now);
        let oldest = self.leases().oldest().map_or(now, |oldest| oldest.min(now));
        let before = oldest - STAGED_AGE_MIN;
        Ok(fs::sweep_temps(&self.0.root.join(INGEST), before)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::tests::new_store;
    use super::*;
    use crate::base::{Clock as _, SystemClock};

    #[test]
    fn staged_files_that_belong_to_nobody_go_and_those_of_open_batches_stay() {
        let (root, store) = new_store();
        let dir = root.path().join(INGEST);
        let left = fs::create_temp(&dir, 0o444).unwrap().into_temp_path();
        let left = left.keep().unwrap();
        let batch = store.begin();
        let _writer = batch.writer(None, 10).unwrap();
        let now = SystemClock.now();
        assert_eq!(store.sweep_staged(now).unwrap(), 0);
        let old = SystemTime::from(now) - 2 * STAGED_AGE_MIN;
        File::open(&left).unwrap().set_modified(old).unwrap();
        assert_eq!(store.sweep_staged(now).unwrap(), 1);
        assert!(!left.exists());
        // A later look does not take what an open batch has made in the meantime.
        let later = now + chrono::TimeDelta::hours(5);
        assert_eq!(store.sweep_staged(later).unwrap(), 0);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }
}
