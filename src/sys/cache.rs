//! What the operating system keeps of files in memory.

use std::fs::File;
use std::num::NonZeroU64;

use rustix::fs::{Advice, fadvise};

/// Asks the system to forget what it has in memory of `length` bytes of a file from `offset` on; of none, of all that follows.
///
/// Whoever reads next gets what is on the disk. What was not written to the disk yet stays in memory, whole. A file system
/// that knows no such advice keeps what it has, which is no failure.
pub fn forget(file: &File, offset: u64, length: u64) {
    // What cannot be advised is read all the same.
    let _ = fadvise(file, offset, NonZeroU64::new(length), Advice::DontNeed);
}
