//! How much a package may ask of us: every bound on what comes from outside, with its reason.
//!
//! Each bound has a key of the same name in `[limits]` of the configuration, and exceeding it is an error of its own
//! ([`Error`](super::Error)) whose hint names the key.
//!
//! # What bounds memory
//!
//! | what is held | bounded by |
//! |---|---|
//! | names of entries and their folders, metadata files, manifests and configurations read | [`metadata_total_bytes_max`](Limits::metadata_total_bytes_max), together |
//! | digests of what was received | [`entries_max`](Limits::entries_max): each blob is an entry |
//! | images, documents | [`images_max`](Limits::images_max), [`resources_max`](Limits::resources_max) |
//! | the raw bytes of one chart for each level of archives | [`chart_bytes_max`](Limits::chart_bytes_max) times [`archives_nested_max`](Limits::archives_nested_max) |
//! | windows of decompressors | [`zstd_window_bytes_max`](Limits::zstd_window_bytes_max) for each level; gzip has 32 KiB |
//! | one extension header | [`extension_bytes_max`](Limits::extension_bytes_max) |

use crate::base::oci::MANIFEST_BYTES_MAX;

/// Bounds on one file, with all that is nested inside of it. Everything beyond them is refused with an error that names
/// the number.
///
/// The defaults are chosen so that no package known to exist comes near them, and so that a hostile one costs a bounded
/// amount of memory, time and disk. The largest package known (2026-06, a test package) has 6.6 GB and a few hundred
/// blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the archive and of all archives inside, directories included. Default 200 000: a registry tree has
    /// about ten small files for each of its blobs; chosen, not measured.
    pub entries_max: u64,
    /// Bytes of the archive once decompressed, with those of all archives inside. Default 128 GiB: twenty times the
    /// largest package known.
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
    /// Unpacked bytes for each byte read, once [`expansion_checked_from_bytes`](Self::expansion_checked_from_bytes) were
    /// unpacked. Default 100: deflate ends at 1032, and layers, which are compressed already, are near 1.
    pub expansion_ratio_max: u64,
    /// Below this many unpacked bytes the expansion ratio is not looked at: small archives of empty files compress well
    /// and do no harm. Default 64 MiB: unpacking them takes a tenth of a second.
    pub expansion_checked_from_bytes: u64,
    /// Bytes of one extension header of the archive. Default 64 KiB: it holds a name and a few numbers. Chosen, not
    /// measured.
    pub extension_bytes_max: u64,
    /// Extension headers before one entry. Default 8: a long name, a long link name, pax records and global records are
    /// 4. Chosen, not measured.
    pub extensions_max: u32,
    /// Images of one package. Default 10 000: a hundred times what the largest package known has. Chosen, not measured.
    pub images_max: u64,
    /// Kubernetes documents of one package. Default 1000: packages have one to ten. Chosen, not measured.
    pub resources_max: u64,
    /// How deep archives may lie inside of archives. Default 2: a folder of packages in one file is 1, a chart in one of
    /// them 2.
    pub archives_nested_max: u32,
    /// Bytes of a Helm chart that is packed by itself; it is held in memory until its end. Default 20 MiB: what chart
    /// repositories take by default (`--max-upload-size` of `ChartMuseum`).
    pub chart_bytes_max: u64,
    /// Bytes of the window that a zstd frame may ask for, rounded down to a power of two. Default 128 MiB: what the `zstd`
    /// command decompresses without `--long` (RFC 8878, section 3.1.1.1.2, recommends 8 MiB at least).
    pub zstd_window_bytes_max: u64,
    /// Bytes of all layers of a bundle or chart that is described, as they are stored. Default 16 MiB: a bundle holds
    /// text, most of them far below 1 MiB; an operator's own image, which is none, has tens of MiB.
    pub bundle_bytes_max: u64,
    /// Bytes of them once decompressed. Default 64 MiB: documents compress by four and more, and inflating as much takes a
    /// tenth of a second.
    pub bundle_unpacked_bytes_max: u64,
    /// Entries of them. Default 10 000: a bundle has tens, a chart with its dependencies hundreds; chosen, not measured.
    pub bundle_entries_max: u64,
}

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
            expansion_checked_from_bytes: 64 << 20,
            extension_bytes_max: 64 << 10,
            extensions_max: 8,
            images_max: 10_000,
            resources_max: 1000,
            archives_nested_max: 2,
            chart_bytes_max: 20 << 20,
            zstd_window_bytes_max: 128 << 20,
            bundle_bytes_max: 16 << 20,
            bundle_unpacked_bytes_max: 64 << 20,
            bundle_entries_max: 10_000,
        }
    }
}
