//! The files beside a package that vouch for it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Extensions of detached OpenPGP signatures, binary or armored alike.
const SIGNATURE_EXTENSIONS: [&str; 2] = ["sig", "asc"];
/// Extensions of checksum files that replace or follow that of the package.
const CHECKSUM_EXTENSION: &str = "sha256";
/// Extension of checksum files that only follows that of the package.
const CHECKSUM_LONG_EXTENSION: &str = "checksum";
/// Extensions of packages, longest first.
const PACKAGE_EXTENSIONS: [&str; 3] = [".tar.gz", ".tgz", ".tar"];

/// Sidecars that exist for one package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sidecars {
    /// A detached signature: `x.tgz.sig`, `x.tgz.asc`, `x.sig` or `x.asc`, the first that exists.
    pub signature: Option<PathBuf>,
    /// A checksum file: `x.tgz.sha256`, `x.sha256` or `x.tgz.checksum`, the first that exists.
    pub checksum: Option<PathBuf>,
}

impl Sidecars {
    /// Returns the sidecars that lie beside the package at `path`.
    pub fn find(path: &Path) -> Self {
        let long = |extension: &str| with_suffix(path, extension);
        let short = |extension: &str| with_suffix(&without_package_extension(path), extension);
        let signatures = SIGNATURE_EXTENSIONS
            .iter()
            .map(|extension| long(extension))
            .chain(
                SIGNATURE_EXTENSIONS
                    .iter()
                    .map(|extension| short(extension)),
            );
        let checksums = [
            long(CHECKSUM_EXTENSION),
            short(CHECKSUM_EXTENSION),
            long(CHECKSUM_LONG_EXTENSION),
        ];
        // A link that leads nowhere counts as there: better an error than a package taken for unsigned.
        let exists = |path: &PathBuf| path.symlink_metadata().is_ok();
        Self {
            signature: signatures.into_iter().find(exists),
            checksum: checksums.into_iter().find(exists),
        }
    }
}

/// Returns whether a file of this name vouches for another one.
pub fn is_sidecar(file_name: &str) -> bool {
    file_name.rsplit_once('.').is_some_and(|(stem, extension)| {
        !stem.is_empty()
            && (SIGNATURE_EXTENSIONS.contains(&extension)
                || matches!(extension, CHECKSUM_EXTENSION | CHECKSUM_LONG_EXTENSION))
    })
}

/// Returns whether a file of this name is meant to be a package.
pub(super) fn is_package(file_name: &str) -> bool {
    !file_name.starts_with('.')
        && PACKAGE_EXTENSIONS
            .iter()
            .any(|extension| file_name.ends_with(extension))
}

fn with_suffix(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

fn without_package_extension(path: &Path) -> PathBuf {
    let name = path.file_name().and_then(|name| name.to_str());
    let stem = name.and_then(|name| {
        PACKAGE_EXTENSIONS
            .iter()
            .find_map(|extension| name.strip_suffix(extension))
    });
    match stem {
        Some(stem) if !stem.is_empty() => path.with_file_name(stem),
        Some(_) | None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecars_are_found_under_each_of_their_names_and_the_long_name_first() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("x.v1.tgz");
        assert_eq!(Sidecars::find(&package), Sidecars::default());
        for name in ["x.v1.asc", "x.v1.sig", "x.v1.tgz.asc", "x.v1.tgz.sig"] {
            std::fs::File::create(dir.path().join(name)).unwrap();
            let found = Sidecars::find(&package).signature.unwrap();
            assert_eq!(found, dir.path().join(name));
        }
        for name in ["x.v1.tgz.checksum", "x.v1.sha256", "x.v1.tgz.sha256"] {
            std::fs::File::create(dir.path().join(name)).unwrap();
            let found = Sidecars::find(&package).checksum.unwrap();
            assert_eq!(found, dir.path().join(name));
        }
        // Another package's sidecars are none of ours.
        assert_eq!(
            Sidecars::find(&dir.path().join("x.v1.1.tgz")),
            Sidecars::default()
        );
    }

    #[test]
    fn names_tell_sidecars_and_packages() {
        for name in ["x.tgz.sig", "x.asc", "x.sha256", "x.tgz.checksum"] {
            assert!(is_sidecar(name) && !is_package(name), "{name}");
        }
        for name in ["x.tgz", "x.tar.gz", "x.v1.tar"] {
            assert!(is_package(name) && !is_sidecar(name), "{name}");
        }
        for name in ["x", ".sig", ".x.tgz", "README", "x.tgz.part"] {
            assert!(!is_package(name) && !is_sidecar(name), "{name}");
        }
    }
}
