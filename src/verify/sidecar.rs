//! The files beside a package that vouch for it.
//!
//! ```text
//! x.tgz.sig  x.tgz.asc  x.sig  x.asc                          signatures over x.tgz
//! x.tgz.sha256  x.sha256  x.tgz.sha512  x.sha512  x.tgz.checksum   checksum files of x.tgz
//! SHA256SUMS  SHA256SUMS.txt  sha256sums.txt  and with 512    lists of a whole folder, if they have a line for x.tgz
//! C.sig  C.asc  C.gpg                                         signatures over checksum file or list C
//! ```
//!
//! All that are there count, not the first. A list without a line for a package is no sidecar of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::checksum::{self, Scope};
use super::file::read_sidecar;
use super::{Limits, Policy, Requirements, signature};
use crate::package::ARCHIVE_ENDS;

/// Extensions of detached OpenPGP signatures, binary or armored alike.
const SIGNATURE_EXTENSIONS: [&str; 2] = ["sig", "asc"];
/// Extensions of signatures over checksum files. Distributions publish `SHA256SUMS.gpg`; beside a package, `.gpg` is an
/// encrypted file.
const LIST_SIGNATURE_EXTENSIONS: [&str; 3] = ["sig", "asc", "gpg"];
/// Extensions of checksum files that replace or follow that of the package.
const CHECKSUM_EXTENSIONS: [&str; 2] = ["sha256", "sha512"];
/// Extension of checksum files that only follows that of the package.
const CHECKSUM_LONG_EXTENSION: &str = "checksum";
/// Names of checksum files for a whole folder.
const LIST_NAMES: [&str; 6] = [
    "SHA256SUMS",
    "SHA256SUMS.txt",
    "sha256sums.txt",
    "SHA512SUMS",
    "SHA512SUMS.txt",
    "sha512sums.txt",
];

/// Sidecars that exist for one package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sidecars {
    /// Detached signatures over the package, the long names first.
    pub signatures: Vec<PathBuf>,
    /// Checksum files, the package's own first.
    pub checksums: Vec<ChecksumFile>,
}

/// A checksum file that has a line for a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChecksumFile {
    /// The file.
    pub path: PathBuf,
    /// Whether it is about one package or a folder.
    pub scope: Scope,
    /// Detached signatures over it.
    pub signatures: Vec<PathBuf>,
}

impl Sidecars {
    /// Returns the sidecars that lie beside the package at `path`.
    ///
    /// Lists are read for that. One that cannot be read counts: better an error than a package taken for unsigned.
    pub fn find(path: &Path, limits: &Limits) -> Self {
        let short = without_package_extension(path);
        let bases = if short == path {
            vec![path.to_owned()]
        } else {
            vec![path.to_owned(), short]
        };
        let own = CHECKSUM_EXTENSIONS
            .iter()
            .flat_map(|extension| bases.iter().map(|base| with_suffix(base, extension)))
            .chain([with_suffix(path, CHECKSUM_LONG_EXTENSION)])
            .filter(|path| exists(path))
            .map(|path| ChecksumFile::new(path, Scope::Package));
        let file_name = path.file_name().and_then(|name| name.to_str());
        let lists = LIST_NAMES
            .iter()
            .map(|name| path.with_file_name(name))
            .filter(|list| {
                exists(list) && file_name.is_some_and(|name| may_list(list, name, limits))
            })
            .map(|path| ChecksumFile::new(path, Scope::Folder));
        Self {
            signatures: bases
                .iter()
                .flat_map(|base| existing(base, &SIGNATURE_EXTENSIONS))
                .collect(),
            checksums: own.chain(lists).collect(),
        }
    }

    /// Returns whether anything is signed, be it the package or a checksum file.
    pub fn has_signature(&self) -> bool {
        !self.signatures.is_empty() || self.checksums.iter().any(|it| !it.signatures.is_empty())
    }

    /// Returns all sidecars.
    pub fn all(&self) -> Vec<PathBuf> {
        let checksums = self.checksums.iter().flat_map(ChecksumFile::all);
        self.signatures.iter().cloned().chain(checksums).collect()
    }

    /// Returns the sidecars that are about this package only, and go where it goes.
    pub fn own(&self) -> Vec<PathBuf> {
        let own = self
            .checksums
            .iter()
            .filter(|it| it.scope == Scope::Package);
        self.signatures
            .iter()
            .cloned()
            .chain(own.flat_map(ChecksumFile::all))
            .collect()
    }

    /// Returns what is required and not there yet, in words that follow "waits for".
    ///
    /// Whether what is there is right, is not said: that takes reading the package.
    pub fn find_missing(&self, requirements: &Requirements) -> Option<String> {
        let needs_signature = match requirements.policy {
            Policy::None => return None,
            Policy::Signature => true,
            Policy::Checksum => self.checksums.is_empty(),
        };
        match (needs_signature, requirements.policy, self.has_signature()) {
            (false, ..) => None,
            (true, Policy::Signature, false) => {
                Some("a signature beside it (.sig or .asc)".to_owned())
            }
            (true, Policy::Checksum | Policy::None, false) => {
                Some("a checksum beside it (.sha256 or .checksum)".to_owned())
            }
            (true, _, true) => self.find_missing_signers(requirements),
        }
    }

    /// Says how many signers are missing, going by what the signatures say themselves.
    fn find_missing_signers(&self, requirements: &Requirements) -> Option<String> {
        let lists = self.checksums.iter().flat_map(|it| &it.signatures);
        let paths: Vec<PathBuf> = self.signatures.iter().chain(lists).cloned().collect();
        // What cannot be read is said when the package is verified.
        let signatures = signature::read(&paths, &requirements.limits).ok()?;
        let (found, expected) = (signatures.count_issuers(), requirements.signatures_min);
        ((found as u64) < u64::from(expected))
            .then(|| format!("signatures by {expected} different signers beside it, found {found}"))
    }
}

impl ChecksumFile {
    fn new(path: PathBuf, scope: Scope) -> Self {
        Self {
            signatures: existing(&path, &LIST_SIGNATURE_EXTENSIONS).collect(),
            path,
            scope,
        }
    }

    fn all(&self) -> impl Iterator<Item = PathBuf> {
        [&self.path].into_iter().chain(&self.signatures).cloned()
    }
}

/// Returns whether a file of this name vouches for another one.
pub fn is_sidecar(file_name: &str) -> bool {
    let Some((stem, extension)) = file_name.rsplit_once('.') else {
        return LIST_NAMES.contains(&file_name);
    };
    let is_signature = SIGNATURE_EXTENSIONS.contains(&extension)
        || (LIST_SIGNATURE_EXTENSIONS.contains(&extension) && is_checksum(stem));
    !stem.is_empty() && (is_signature || is_checksum(file_name))
}

fn is_checksum(file_name: &str) -> bool {
    let extension = file_name.rsplit_once('.').map(|(_, extension)| extension);
    LIST_NAMES.contains(&file_name)
        || extension
            .is_some_and(|it| CHECKSUM_EXTENSIONS.contains(&it) || it == CHECKSUM_LONG_EXTENSION)
}

/// Returns whether a file of this name is meant to be a package.
pub(super) fn is_package(file_name: &str) -> bool {
    !file_name.starts_with('.') && ARCHIVE_ENDS.iter().any(|end| file_name.ends_with(end))
}

/// Returns whether a list has, or may have, a line for a file.
fn may_list(list: &Path, file_name: &str, limits: &Limits) -> bool {
    read_sidecar(list, limits).map_or(true, |bytes| {
        let text = String::from_utf8_lossy(&bytes);
        !matches!(
            checksum::parse(&text, file_name, Scope::Folder, limits),
            Ok(None)
        )
    })
}

/// A link that leads nowhere counts as there: better an error than a package taken for unsigned.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn existing<'a>(base: &'a Path, extensions: &'a [&str]) -> impl Iterator<Item = PathBuf> + 'a {
    extensions
        .iter()
        .map(|extension| with_suffix(base, extension))
        .filter(|path| exists(path))
}

fn with_suffix(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

fn without_package_extension(path: &Path) -> PathBuf {
    let name = path.file_name().and_then(|name| name.to_str());
    let stem = name.and_then(|name| ARCHIVE_ENDS.iter().find_map(|end| name.strip_suffix(end)));
    match stem {
        Some(stem) if !stem.is_empty() => path.with_file_name(stem),
        Some(_) | None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn write(path: &Path, content: &str) {
        let mut file = std::fs::File::create(path).unwrap();
        file.write_all(content.as_bytes()).unwrap();
    }

    fn find(path: &Path) -> Sidecars {
        Sidecars::find(path, &Limits::default())
    }

    #[test]
    fn all_sidecars_are_found_the_long_names_first() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("x.v1.tgz");
        assert_eq!(find(&package), Sidecars::default());
        let (signatures, checksums) = (
            ["x.v1.tgz.sig", "x.v1.tgz.asc", "x.v1.sig", "x.v1.asc"],
            [
                "x.v1.tgz.sha256",
                "x.v1.sha256",
                "x.v1.tgz.sha512",
                "x.v1.sha512",
                "x.v1.tgz.checksum",
            ],
        );
        for name in signatures.iter().chain(&checksums) {
            write(&dir.path().join(name), "");
        }
        write(&dir.path().join("x.v1.sha256.gpg"), "");
        let found = find(&package);
        assert_eq!(
            found.signatures,
            signatures.map(|name| dir.path().join(name))
        );
        let paths: Vec<PathBuf> = found.checksums.iter().map(|it| it.path.clone()).collect();
        assert_eq!(paths, checksums.map(|name| dir.path().join(name)));
        assert_eq!(
            found.checksums[1].signatures,
            [dir.path().join("x.v1.sha256.gpg")]
        );
        assert_eq!((found.own(), found.own().len()), (found.all(), 10));
        // Another package's sidecars are none of ours.
        assert_eq!(find(&dir.path().join("x.v1.1.tgz")), Sidecars::default());
    }

    #[test]
    fn a_list_is_a_sidecar_of_what_it_lists_and_stays_behind() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("SHA256SUMS");
        write(&list, &format!("{}  x.tgz\n", "0".repeat(64)));
        write(&dir.path().join("SHA256SUMS.gpg"), "");
        let found = find(&dir.path().join("x.tgz"));
        assert_eq!(found.all(), [list, dir.path().join("SHA256SUMS.gpg")]);
        assert_eq!(found.own(), Vec::<PathBuf>::new());
        assert!(found.has_signature());
        assert_eq!(find(&dir.path().join("y.tgz")), Sidecars::default());
    }

    #[test]
    fn what_is_missing_is_said_by_policy_and_threshold() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("x.tgz");
        let missing = |policy| find(&package).find_missing(&Requirements::new(policy));
        assert!(missing(Policy::Signature).unwrap().contains("signature"));
        assert!(missing(Policy::Checksum).unwrap().contains("checksum"));
        assert_eq!(missing(Policy::None), None);
        write(&dir.path().join("x.sha256"), "");
        assert!(missing(Policy::Signature).is_some());
        assert_eq!(missing(Policy::Checksum), None);
    }

    #[test]
    fn names_tell_sidecars_and_packages() {
        for name in [
            "x.tgz.sig",
            "x.asc",
            "x.sha256",
            "x.tgz.sha512",
            "x.tgz.checksum",
            "SHA256SUMS",
            "SHA512SUMS.txt",
            "SHA256SUMS.gpg",
            "x.sha256.gpg",
        ] {
            assert!(is_sidecar(name) && !is_package(name), "{name}");
        }
        for name in ["x.tgz", "x.tar.gz", "x.v1.tar", "x.tar.zst"] {
            assert!(is_package(name) && !is_sidecar(name), "{name}");
        }
        for name in ["x", ".sig", ".x.tgz", "README", "x.tgz.part", "x.gpg"] {
            assert!(!is_package(name) && !is_sidecar(name), "{name}");
        }
    }
}
