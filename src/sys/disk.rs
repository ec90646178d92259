//! Space on the file system that holds a directory.

use std::io;
use std::path::Path;

use super::fs::{Context as _, Error};

/// Space on one file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What a process without privileges may still write.
    pub available_bytes: u64,
    /// The size of the file system.
    pub total_bytes: u64,
}

/// Returns the space on the file system that holds `dir`.
pub fn space(dir: &Path) -> Result<Space, Error> {
    let stat = rustix::fs::statvfs(dir)
        .map_err(io::Error::from)
        .context("read the free space of", dir)?;
    Ok(Space {
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_is_at_most_total() {
        let space = space(Path::new("/")).unwrap();
        assert!(space.available_bytes <= space.total_bytes);
        assert!(space.total_bytes > 0);
    }
}
