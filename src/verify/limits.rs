//! How much the files that vouch for a package may ask for. Whoever can write to a drop folder writes them.

/// Bounds on sidecars and keyrings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest sidecar, in bytes. Signatures have a few hundred, checksum files of whole releases a few KiB.
    pub sidecar_bytes_max: u64,
    /// Signatures in one sidecar. Two are usual while keys are rotated, and thresholds are small; each costs a
    /// public-key operation. Chosen, not measured.
    pub sidecar_signatures_max: u64,
    /// Lines of one checksum file, comments included. A distribution's release lists a few hundred files; chosen, not
    /// measured.
    pub sidecar_lines_max: u64,
    /// The largest file of certificates, in bytes. A certificate has a few KiB, one with many third-party signatures a
    /// few hundred; chosen, not measured.
    pub keyring_bytes_max: u64,
    /// Certificates in one keyring. Each is looked at for each signature; chosen, not measured.
    pub keyring_certificates_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sidecar_bytes_max: 1 << 20,
            sidecar_signatures_max: 16,
            sidecar_lines_max: 10_000,
            keyring_bytes_max: 16 << 20,
            keyring_certificates_max: 1000,
        }
    }
}
