//! The summary that violet prints after verifying a file or a folder.

use std::fmt;
use std::path::{Path, PathBuf};

use super::file::{Policy, Verdict, verify_file};
use super::sidecar::is_package;
use super::{Error, Keyring, Sidecars};
use crate::base::Timestamp;

/// What became of each package, in four parts. `Display` prints it as violet does, without a line feed at the end.
#[derive(Debug)]
pub struct Summary {
    /// The file or folder that was asked for.
    pub path: PathBuf,
    /// Packages with a good signature.
    pub signed: Vec<PathBuf>,
    /// Packages with a right checksum and no signature.
    pub checksummed: Vec<PathBuf>,
    /// Packages with a sidecar that does not fit, and why.
    pub failed: Vec<(PathBuf, Error)>,
    /// Packages without any sidecar.
    pub unverified: Vec<PathBuf>,
}

/// Verifies the package at `path`, or every package in that folder by name, not in folders below it.
///
/// Each package is held to the best that lies beside it: with a signature, the signature must be good.
pub fn summarize(path: &Path, keyring: &Keyring, now: Timestamp) -> Result<Summary, Error> {
    let mut summary = Summary {
        path: path.to_owned(),
        signed: Vec::new(),
        checksummed: Vec::new(),
        failed: Vec::new(),
        unverified: Vec::new(),
    };
    for package in list_packages(path)? {
        let sidecars = Sidecars::find(&package);
        let policy = match (&sidecars.signature, &sidecars.checksum) {
            (Some(_), _) => Policy::Signature,
            (None, Some(_)) => Policy::Checksum,
            (None, None) => {
                summary.unverified.push(package);
                continue;
            }
        };
        match verify_file(&package, policy, keyring, now) {
            Err(error) => summary.failed.push((package, error)),
            Ok(verified) => match verified.into_inner().verdict {
                Verdict::Signature { .. } => summary.signed.push(package),
                Verdict::Checksum { .. } => summary.checksummed.push(package),
                Verdict::Unchecked => summary.unverified.push(package),
            },
        }
    }
    Ok(summary)
}

/// Returns the file itself, whatever its name, or the packages in the folder, sorted.
fn list_packages(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut packages = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().to_str().is_some_and(is_package) && entry.path().is_file() {
            packages.push(entry.path());
        }
    }
    packages.sort();
    Ok(packages)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "verify path: {}", self.path.display())?;
        write!(f, "====== Verification Summary ======")?;
        let failed: Vec<PathBuf> = self.failed.iter().map(|(path, _)| path.clone()).collect();
        for (title, packages) in [
            ("Verified successfully with GPG", &self.signed),
            ("Verified successfully with checksum", &self.checksummed),
            ("Verification failed", &failed),
            ("No verification file found", &self.unverified),
        ] {
            write!(f, "\n{title}: {} file(s)", packages.len())?;
            for package in packages {
                write!(f, "\n  - {}", package.display())?;
            }
        }
        Ok(())
    }
}
