//! How much a package may ask of us.

use crate::base::oci::MANIFEST_BYTES_MAX;

/// Bounds on one package. Everything beyond them is refused with an error that names the number.
///
/// The defaults are chosen so that no package known to exist comes near them, and so that a hostile one costs a bounded
/// amount of memory, time and disk. The largest package known (2026-06, a test package) has 6.6 GB and a few hundred
/// blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the archive, directories included. Default 200 000: a registry tree has about ten small files for
    /// each of its blobs; chosen, not measured.
    pub entries_max: u64,
    /// Bytes of the archive once decompressed. Default 128 GiB: twenty times the largest package known.
    pub unpacked_bytes_max: u64,
    /// Bytes of one metadata file (`manifest.yaml`, `index.json` and their like). Default
    /// [`MANIFEST_BYTES_MAX`]: an `index.json` is the size of a manifest.
    pub metadata_bytes_max: u64,
    /// Bytes held in memory for one package: entry names, metadata files, manifests and image configurations.
    /// Default 64 MiB: a package of a hundred images for two architectures needs about 3 MiB.
    pub metadata_total_bytes_max: u64,
    /// Bytes of one image manifest, index or image configuration. Default [`MANIFEST_BYTES_MAX`].
    pub manifest_bytes_max: u64,
    /// Bytes of one entry name. Default 1024: the longest path of a registry tree is 255 bytes of repository and
    /// about 150 of its own.
    pub path_bytes_max: u64,
    /// How deep manifests may nest below the one that an image names. Default 4: an index of indexes of manifests is
    /// 2, and nobody is known to publish more.
    pub nesting_max: u32,
    /// Unpacked bytes for each byte read, once [`EXPANSION_CHECKED_FROM_BYTES`] were unpacked. Default 100: deflate
    /// ends at 1032, and layers, which are compressed already, are near 1.
    pub expansion_ratio_max: u64,
}

/// Below this many unpacked bytes the expansion ratio is not looked at: small archives of empty files compress well
/// and do no harm.
pub const EXPANSION_CHECKED_FROM_BYTES: u64 = 64 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries_max: 200_000,
            unpacked_bytes_max: 128 << 30,
            metadata_bytes_max: MANIFEST_BYTES_MAX,
            metadata_total_bytes_max: 64 << 20,
            manifest_bytes_max: MANIFEST_BYTES_MAX,
            path_bytes_max: 1024,
            nesting_max: 4,
            expansion_ratio_max: 100,
        }
    }
}
