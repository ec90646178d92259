//! The summary that violet prints after verifying a file or a folder.

use std::fmt;
use std::path::{Path, PathBuf};

use super::file::verify_file;
use super::sidecar::is_package;
use super::{
    Error, Failure, Keyring, PackageFile, Policy, Requirements, Sidecars, Source, Verdict,
};
use crate::base::Timestamp;
use crate::package::parts::{Member, TABLE_SUFFIX};

/// Folders below a folder that are looked into, one inside of the other. Links are not followed, so that this bounds
/// nothing but the depth of the tree; chosen, not measured.
const DEPTH_MAX: usize = 64;

/// What became of each package. `Display` prints it in four parts as violet does, without a line feed at the end.
#[derive(Debug)]
pub struct Summary {
    /// The file or folder that was asked for.
    pub path: PathBuf,
    /// The packages, sorted by path.
    pub packages: Vec<Checked>,
}

/// What became of one package.
#[derive(Debug)]
pub struct Checked {
    /// The package.
    pub path: PathBuf,
    /// The files beside it that vouch for it.
    pub sidecars: Vec<PathBuf>,
    /// What they say.
    pub outcome: Outcome,
}

/// What the sidecars of a package say.
#[derive(Debug)]
pub enum Outcome {
    /// A signature or a checksum vouches for it.
    Good(PackageFile),
    /// They do not fit, or not suffice.
    Failed(Failure),
    /// There are none. The package was not read.
    Unverified,
}

/// Which files of a folder to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Those in the folder itself.
    Folder,
    /// Those in folders below it, too.
    Tree,
}

/// Verifies the package at `path`, or every package in that folder.
///
/// Each package is held to the best that lies beside it: with a signature, the signature must be good. The policy of
/// `requirements` does not matter.
pub fn summarize(
    path: &Path,
    depth: Depth,
    requirements: &Requirements,
    keyring: &Keyring,
    now: Timestamp,
) -> Result<Summary, Error> {
    let packages = list_packages(path, depth)?.into_iter();
    let packages = packages.map(|path| check(path, requirements, keyring, now));
    Ok(Summary {
        path: path.to_owned(),
        packages: packages.collect(),
    })
}

/// Holds one package to the best that lies beside it.
fn check(path: PathBuf, requirements: &Requirements, keyring: &Keyring, now: Timestamp) -> Checked {
    let source = match Source::of(&path) {
        Ok(source) => source,
        Err(error) => {
            return Checked {
                path,
                sidecars: Vec::new(),
                outcome: Outcome::Failed(error.into()),
            };
        }
    };
    let sidecars = Sidecars::find(source.path(), &requirements.limits);
    let has_sidecars = !sidecars.all().is_empty();
    let policy = match (sidecars.has_signature(), has_sidecars) {
        (true, _) => Policy::Signature,
        (false, true) => Policy::Checksum,
        (false, false) => Policy::None,
    };
    // A table of parts tells damage even where nothing vouches for the package.
    let outcome = if has_sidecars || matches!(source, Source::Parts(_)) {
        let requirements = Requirements {
            policy,
            ..requirements.clone()
        };
        match verify_file(&source, &requirements, keyring, now) {
            Ok(verified) if verified.get().verdict == Verdict::Unchecked => Outcome::Unverified,
            Ok(verified) => Outcome::Good(verified.into_inner()),
            Err(failure) => Outcome::Failed(failure),
        }
    } else {
        Outcome::Unverified
    };
    Checked {
        path,
        sidecars: sidecars.all(),
        outcome,
    }
}

/// Returns the file itself, whatever its name, or the packages in the folder, sorted.
pub fn list_packages(path: &Path, depth: Depth) -> Result<Vec<PathBuf>, Error> {
    let metadata = std::fs::metadata(path).map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut packages = Vec::new();
    let levels = match depth {
        Depth::Folder => 0,
        Depth::Tree => DEPTH_MAX,
    };
    collect(path, levels, &mut packages)?;
    packages.sort();
    packages.dedup();
    Ok(packages)
}

/// Adds the packages in `folder` and in as many levels of folders below it.
fn collect(folder: &Path, levels: usize, packages: &mut Vec<PathBuf>) -> Result<(), Error> {
    let unreadable = |source| Error::Unreadable {
        path: folder.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        if entry.file_type().map_err(unreadable)?.is_dir() {
            if levels > 0 {
                collect(&path, levels - 1, packages)?;
            }
            continue;
        }
        let name = entry.file_name();
        match name.to_str().map(|name| (Member::of(name), name)) {
            // A part stands for its table, so that parts without one do not go unnoticed.
            Some((Some(member), _)) if path.is_file() => {
                let table = format!("{}{TABLE_SUFFIX}", member.whole());
                packages.push(path.with_file_name(table));
            }
            Some((None, name)) if is_package(name) && path.is_file() => packages.push(path),
            Some(_) | None => {}
        }
    }
    Ok(())
}

impl Summary {
    /// Returns whether every package has something that vouches for it.
    pub fn is_good(&self) -> bool {
        let is_good = |package: &Checked| matches!(package.outcome, Outcome::Good(_));
        self.packages.iter().all(is_good)
    }
}

impl Checked {
    /// Returns the part of the summary that this package belongs to: its title in violet's words.
    fn title(&self) -> &'static str {
        match &self.outcome {
            Outcome::Good(file) => match file.verdict {
                Verdict::Signature { .. } => SIGNED,
                Verdict::Checksum { .. } => CHECKSUMMED,
                Verdict::Unchecked => UNVERIFIED,
            },
            Outcome::Failed(_) => FAILED,
            Outcome::Unverified => UNVERIFIED,
        }
    }
}

const SIGNED: &str = "Verified successfully with GPG";
const CHECKSUMMED: &str = "Verified successfully with checksum";
const FAILED: &str = "Verification failed";
const UNVERIFIED: &str = "No verification file found";

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "verify path: {}", self.path.display())?;
        write!(f, "====== Verification Summary ======")?;
        for title in [SIGNED, CHECKSUMMED, FAILED, UNVERIFIED] {
            let packages = self.packages.iter().filter(|it| it.title() == title);
            write!(f, "\n{title}: {} file(s)", packages.clone().count())?;
            for package in packages {
                write!(f, "\n  - {}", package.path.display())?;
            }
        }
        Ok(())
    }
}
