//! Verifying one package.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::checksum::{self, Checksum, Promises};
use super::findings::Findings;
use super::judge::Judge;
use super::signature;
use super::source::{Look, open_file, require_file};
use super::verdict::{Failure, PackageFile, Verdict, Verified};
use super::{Error, Keyring, Limits, Policy, Requirements, Sidecars, Source};
use crate::base::{Digest, Hasher, Timestamp};

/// Bytes read at a time where nothing but the hash wants them.
const BUFFER_BYTES: usize = 256 << 10;

/// Reads a package and its sidecars and checks that it shows what is required.
///
/// Errors name the file or the sidecar at fault. `now` decides what is from the future and what has expired.
pub fn verify_file(
    source: &Source,
    requirements: &Requirements,
    keyring: &Keyring,
    now: Timestamp,
) -> Result<Verified<PackageFile>, Failure> {
    let judge = Judge::new(keyring, requirements, now);
    let sidecars = Sidecars::find(source.path(), &requirements.limits);
    check_presence(source.path(), requirements.policy, &sidecars)?;
    // Sidecars are small: what is wrong with them is said before gigabytes are read.
    let signatures = signature::read(&sidecars.signatures, &requirements.limits)?;
    let checksums = Checksums::read(source.path(), &sidecars, &judge)?;
    let mut reader = Reader::open(source, checksums.wants_sha512())?;
    let found = signature::verify(&signatures, None, &mut reader, &judge);
    let content = reader.finish()?;
    let digest = content.digest;
    let verdict = checksums
        // The checksums first: where the content is damaged, no signature can fit, and damage is the simpler explanation.
        .compare(&content)
        .and(found)
        .and_then(|found| {
            decide(
                found.and(checksums.findings),
                requirements,
                checksums.promises,
            )
        });
    let verdict = verdict.map_err(|error| Failure {
        error: Box::new(error),
        digest: Some(digest),
    })?;
    Ok(Verified::new(PackageFile {
        source: source.clone(),
        digest,
        size_bytes: content.size_bytes,
        verdict,
    }))
}

/// Refuses what cannot be enough whatever it says.
fn check_presence(path: &Path, policy: Policy, sidecars: &Sidecars) -> Result<(), Error> {
    match policy {
        Policy::Signature if !sidecars.has_signature() => Err(Error::NoSignature {
            path: path.to_owned(),
        }),
        Policy::Checksum if !sidecars.has_signature() && sidecars.checksums.is_empty() => {
            Err(Error::NoChecksum {
                path: path.to_owned(),
            })
        }
        Policy::Signature | Policy::Checksum | Policy::None => Ok(()),
    }
}

/// Weighs what the signatures say against what is required.
///
/// Where the policy asks for less, signatures that count for nothing (unknown signer, not allowed, too few) are as good
/// as none; signatures with a fault are not.
fn decide(
    found: Findings,
    requirements: &Requirements,
    checksums: Vec<(PathBuf, Promises)>,
) -> Result<Verdict, Error> {
    let otherwise = match checksums.into_iter().next() {
        Some((sidecar, _)) => Verdict::Checksum { sidecar },
        None => Verdict::Unchecked,
    };
    match found.weigh(requirements.signatures_min) {
        Ok(signers) if signers.is_empty() => Ok(otherwise),
        Ok(signers) => Ok(Verdict::Signature { signers }),
        Err(error) if !error.counts_for_nothing() => Err(error),
        Err(error) => match (requirements.policy, &otherwise) {
            (Policy::Signature, _) | (Policy::Checksum, Verdict::Unchecked) => Err(error),
            (Policy::Checksum | Policy::None, _) => Ok(otherwise),
        },
    }
}

/// What the checksum files of a package say.
#[derive(Debug, Default)]
struct Checksums {
    /// What they promise, with the file that does.
    promises: Vec<(PathBuf, Promises)>,
    /// What signatures over the checksum files say.
    findings: Findings,
}

impl Checksums {
    fn read(package: &Path, sidecars: &Sidecars, judge: &Judge<'_>) -> Result<Self, Error> {
        let limits = judge.limits();
        let file_name = package.file_name().and_then(|name| name.to_str());
        let mut checksums = Self::default();
        for file in &sidecars.checksums {
            let bytes = read_sidecar(&file.path, limits)?;
            let text = String::from_utf8_lossy(&bytes);
            let found = checksum::parse(&text, file_name.unwrap_or_default(), file.scope, limits);
            let Some(promises) = found.map_err(|fault| fault.at(&file.path))? else {
                continue;
            };
            checksums.promises.push((file.path.clone(), promises));
            let signatures = signature::read(&file.signatures, limits)?;
            let found = signature::verify(&signatures, Some(&file.path), &bytes[..], judge)?;
            checksums.findings = std::mem::take(&mut checksums.findings).and(found);
        }
        Ok(checksums)
    }

    fn wants_sha512(&self) -> bool {
        self.promises
            .iter()
            .any(|(_, promises)| promises.sha512.is_some())
    }

    /// Compares every promise with the content.
    fn compare(&self, content: &Content) -> Result<(), Error> {
        for (sidecar, promises) in &self.promises {
            for (expected, found) in [
                (&promises.sha256, Some(Checksum::Sha256(content.digest))),
                (&promises.sha512, content.sha512.clone()),
            ] {
                if let (Some(expected), Some(found)) = (expected, found)
                    && *expected != found
                {
                    return Err(Error::ChecksumMismatch {
                        sidecar: sidecar.clone(),
                        expected: expected.clone(),
                        found,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Reads a whole sidecar into memory. What is no file, and what is larger than a sidecar may be, is an error.
pub fn read_sidecar(sidecar: &Path, limits: &Limits) -> Result<Vec<u8>, Error> {
    require_file(sidecar)?;
    read_bounded(sidecar, limits.sidecar_bytes_max)
        .map_err(|source| Error::Unreadable {
            path: sidecar.to_owned(),
            source,
        })?
        .ok_or_else(|| Error::SidecarTooLarge {
            sidecar: sidecar.to_owned(),
            limit_bytes: limits.sidecar_bytes_max,
        })
}

/// Reads a file of at most `limit_bytes` bytes; `None` if it is larger.
pub(super) fn read_bounded(path: &Path, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    open_file(path)?
        .take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit_bytes).then_some(bytes))
}

/// Reads a package once, for everybody who wants its bytes.
struct Reader<'a> {
    source: &'a Source,
    content: Box<dyn Read + Send + Sync>,
    before: Look,
    sha256: Hasher,
    sha512: Option<checksum::Sha512Hasher>,
    read_bytes: u64,
    /// Why the file could not be read. The OpenPGP library hides it in its own error.
    failure: Option<io::Error>,
}

/// What a package turned out to contain.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    digest: Digest,
    /// `None` unless a sidecar has one to compare with.
    sha512: Option<Checksum>,
    size_bytes: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.content.read(into) {
            Ok(amount) => {
                self.sha256.update(&into[..amount]);
                if let Some(sha512) = &mut self.sha512 {
                    sha512.update(&into[..amount]);
                }
                self.read_bytes += amount as u64;
                Ok(amount)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                Err(kind.into())
            }
        }
    }
}

impl<'a> Reader<'a> {
    fn open(source: &'a Source, wants_sha512: bool) -> Result<Self, Error> {
        let before = source.look()?;
        let content = source.open().map_err(|error| source.failure(error))?;
        Ok(Self {
            source,
            content,
            before,
            sha256: Hasher::default(),
            sha512: wants_sha512.then(checksum::Sha512Hasher::default),
            read_bytes: 0,
            failure: None,
        })
    }

    /// Reads what is left and returns digests and size, if the files did not change meanwhile.
    fn finish(mut self) -> Result<Content, Error> {
        let mut buffer = vec![0; BUFFER_BYTES];
        while self.failure.is_none() {
            // A failure is kept in `self` and ends the loop.
            if matches!(self.read(&mut buffer), Ok(0)) {
                break;
            }
        }
        if let Some(error) = self.failure {
            return Err(self.source.failure(error));
        }
        let after = self.source.look()?;
        if self.read_bytes != after.size_bytes() || self.before != after {
            return Err(Error::Changed {
                path: self.source.path().to_owned(),
            });
        }
        let digest = self.sha256.finish();
        self.source.check(digest)?;
        Ok(Content {
            digest,
            sha512: self.sha512.map(checksum::Sha512Hasher::finish),
            size_bytes: self.read_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::*;

    fn finish(source: &Source) -> Result<Content, Error> {
        Reader::open(source, false).and_then(Reader::finish)
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tgz");
        let source = Source::File(path.clone());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        let content = finish(&source).unwrap();
        assert_eq!(
            (content.digest, content.size_bytes),
            (Digest::of(b"one"), 3)
        );
        let mut reader = Reader::open(&source, false).unwrap();
        reader.read_exact(&mut [0; 2]).unwrap();
        file.write_all(b"two").unwrap();
        assert_eq!(reader.finish().unwrap_err().code(), "file-changed");
        // The same length, other content.
        let reader = Reader::open(&source, false).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(reader.finish().unwrap_err().code(), "file-changed");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let code = |path: PathBuf| finish(&Source::File(path)).unwrap_err().code();
        assert_eq!(code(dir.path().to_owned()), "not-a-file");
        assert_eq!(code(dir.path().join("absent.tgz")), "file-unreadable");
    }
}
