//! `[disk]`: how much space is left free.

use serde::{Deserialize, Serialize};

use super::error::Flaw;
use super::sections::out_of_range;
use crate::base::ByteCount;

/// Where ingest begins no further package: between the two marks there is room for a file as large as a medium with FAT32
/// can carry (4 GiB), so that one that was begun can mostly be finished.
const LOW_BYTES: u64 = 5 << 30;
/// Where the package in progress stops. What is left is for the catalog, which needs as much again as it has while it is
/// compacted, for the audit record, and for whatever else writes there. Chosen, not measured.
const CRITICAL_BYTES: u64 = 1 << 30;

/// `[disk]`: how much space is left free on the file system of the state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    /// With less free space no package is begun.
    pub low_bytes: ByteCount,
    /// With less free space the package in progress stops. At most `low_bytes`.
    pub critical_bytes: ByteCount,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            low_bytes: ByteCount(LOW_BYTES),
            critical_bytes: ByteCount(CRITICAL_BYTES),
        }
    }
}

impl Disk {
    pub(super) fn check(&self) -> Result<(), Flaw> {
        if self.critical_bytes > self.low_bytes {
            return Err(out_of_range(
                "disk.critical_bytes".to_owned(),
                format!("at most `low_bytes`, {}", self.low_bytes),
                self.critical_bytes.to_string(),
            ));
        }
        Ok(())
    }
}
