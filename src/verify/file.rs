//! Verifying one file.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::signature::{self, Signed};
use super::{Error, Fingerprint, Keyring, Sidecars, checksum};
use crate::base::{Digest, Hasher, Timestamp};

/// Bytes read at a time where nothing but the hash wants them.
const BUFFER_BYTES: usize = 256 << 10;
/// The largest sidecar, in bytes. Signatures have a few hundred, checksum files of whole releases a few KiB.
const SIDECAR_BYTES_MAX: u64 = 1 << 20;

/// What must vouch for a package before it is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// A signature by a signer of the keyring.
    Signature,
    /// A signature as above, or a checksum.
    Checksum,
    /// Nothing. What is there must still be right.
    None,
}

/// A package file that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFile {
    /// Where it was when it was read.
    pub path: PathBuf,
    /// Digest of its content.
    pub digest: Digest,
    /// Size of its content.
    pub size_bytes: u64,
    /// What vouches for it.
    pub verdict: Verdict,
}

/// What vouches for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A signature by a signer of the keyring.
    Signature {
        /// Fingerprint of the signer's certificate.
        fingerprint: Fingerprint,
        /// The signer's primary user ID, where the certificate has one.
        user_id: Option<String>,
        /// When it was made, as the signature says.
        signed_at: Timestamp,
        /// The file that holds it.
        sidecar: PathBuf,
    },
    /// A checksum, which tells damage but not malice.
    Checksum {
        /// The file that holds it.
        sidecar: PathBuf,
    },
    /// Nothing, and the policy was content with that.
    Unchecked,
}

/// A value whose provenance was checked. Made only by this module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Returns the checked value.
    pub const fn get(&self) -> &T {
        &self.0
    }

    /// Returns the checked value by itself, which proves nothing any more.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Reads the file at `path` and its sidecars and checks what `policy` wants.
///
/// Errors name the file or the sidecar at fault. `now` decides which keys have expired.
pub fn verify_file(
    path: &Path,
    policy: Policy,
    keyring: &Keyring,
    now: Timestamp,
) -> Result<Verified<PackageFile>, Error> {
    let sidecars = Sidecars::find(path);
    check_presence(path, policy, &sidecars)?;
    // Sidecars are small: what is wrong with them is said before gigabytes are read.
    let signature = sidecars.signature.as_deref();
    let signature = signature.map(signature::read).transpose()?;
    let expected = match &sidecars.checksum {
        Some(sidecar) => Some((sidecar, read_checksum(sidecar, path)?)),
        None => None,
    };
    let mut reader = open(path)?;
    let signed = signature
        .as_ref()
        .map(|signature| signature::verify(signature, &mut reader, keyring, now));
    let (digest, size_bytes) = reader.finish()?;
    // The checksum first: where the content is damaged, no signature can fit, and damage is the simpler explanation.
    if let Some((sidecar, expected)) = &expected
        && *expected != digest
    {
        return Err(Error::ChecksumMismatch {
            sidecar: (*sidecar).clone(),
            expected: *expected,
            found: digest,
        });
    }
    let verdict = match signed.transpose() {
        Ok(Some(signed)) => signed.into(),
        Err(Error::UnknownSigner { .. }) if policy == Policy::None && expected.is_none() => {
            Verdict::Unchecked
        }
        Err(Error::UnknownSigner { .. }) if policy != Policy::Signature && expected.is_some() => {
            checksum_verdict(expected)
        }
        Err(error) => return Err(error),
        Ok(None) => checksum_verdict(expected),
    };
    Ok(Verified(PackageFile {
        path: path.to_owned(),
        digest,
        size_bytes,
        verdict,
    }))
}

impl From<Signed> for Verdict {
    fn from(signed: Signed) -> Self {
        Self::Signature {
            fingerprint: signed.fingerprint,
            user_id: signed.user_id,
            signed_at: signed.made_at,
            sidecar: signed.sidecar,
        }
    }
}

fn checksum_verdict(expected: Option<(&PathBuf, Digest)>) -> Verdict {
    expected.map_or(Verdict::Unchecked, |(sidecar, _)| Verdict::Checksum {
        sidecar: sidecar.clone(),
    })
}

fn check_presence(path: &Path, policy: Policy, sidecars: &Sidecars) -> Result<(), Error> {
    match (policy, &sidecars.signature, &sidecars.checksum) {
        (Policy::Signature, None, _) => Err(Error::NoSignature {
            path: path.to_owned(),
        }),
        (Policy::Checksum, None, None) => Err(Error::NoChecksum {
            path: path.to_owned(),
        }),
        (Policy::Signature | Policy::Checksum | Policy::None, _, _) => Ok(()),
    }
}

fn read_checksum(sidecar: &Path, path: &Path) -> Result<Digest, Error> {
    let bytes = read_sidecar(sidecar)?;
    let file_name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let malformed = |line| Error::MalformedChecksum {
        sidecar: sidecar.to_owned(),
        line,
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed(1))?;
    checksum::parse(text, file_name).map_err(|fault| match fault {
        checksum::Fault::Malformed { line } => malformed(line),
        checksum::Fault::Algorithm { found } => Error::UnsupportedChecksum {
            sidecar: sidecar.to_owned(),
            found,
        },
        checksum::Fault::OtherFile { found } => Error::ChecksumOfOtherFile {
            sidecar: sidecar.to_owned(),
            expected: file_name.to_owned(),
            found,
        },
        checksum::Fault::Contradiction => Error::ChecksumContradiction {
            sidecar: sidecar.to_owned(),
        },
    })
}

/// Reads a whole sidecar into memory.
pub(super) fn read_sidecar(sidecar: &Path) -> Result<Vec<u8>, Error> {
    read_bounded(sidecar, SIDECAR_BYTES_MAX)
        .map_err(|source| Error::Unreadable {
            path: sidecar.to_owned(),
            source,
        })?
        .ok_or_else(|| Error::SidecarTooLarge {
            sidecar: sidecar.to_owned(),
            limit_bytes: SIDECAR_BYTES_MAX,
        })
}

/// Reads a file of at most `limit_bytes` bytes; `None` if it is larger.
pub(super) fn read_bounded(path: &Path, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(limit_bytes + 1)
        .read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit_bytes).then_some(bytes))
}

/// Reads a package file once, for everybody who wants its bytes.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    file: File,
    before: Metadata,
    hasher: Hasher,
    read_bytes: u64,
    /// Why the file could not be read. The OpenPGP library hides it in its own error.
    failure: Option<io::Error>,
}

fn open(path: &Path) -> Result<Reader, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let is_file = std::fs::metadata(path).map_err(unreadable)?.is_file();
    if !is_file {
        return Err(Error::NotAFile {
            path: path.to_owned(),
        });
    }
    let file = File::open(path).map_err(unreadable)?;
    let before = file.metadata().map_err(unreadable)?;
    Ok(Reader {
        path: path.to_owned(),
        file,
        before,
        hasher: Hasher::default(),
        read_bytes: 0,
        failure: None,
    })
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.file.read(into) {
            Ok(amount) => {
                self.hasher.update(&into[..amount]);
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

impl Reader {
    /// Reads what is left and returns digest and size, if the file is the one that was opened.
    fn finish(mut self) -> Result<(Digest, u64), Error> {
        let mut buffer = vec![0; BUFFER_BYTES];
        while self.failure.is_none() {
            // A failure is kept in `self` and ends the loop.
            if matches!(self.read(&mut buffer), Ok(0)) {
                break;
            }
        }
        if let Some(source) = self.failure {
            return Err(Error::Unreadable {
                path: self.path,
                source,
            });
        }
        let after = self.file.metadata().map_err(|source| Error::Unreadable {
            path: self.path.clone(),
            source,
        })?;
        if self.read_bytes != after.len() || has_changed(&self.before, &after) {
            return Err(Error::Changed { path: self.path });
        }
        Ok((self.hasher.finish(), self.read_bytes))
    }
}

fn has_changed(before: &Metadata, after: &Metadata) -> bool {
    let mark = |it: &Metadata| (it.len(), it.mtime(), it.mtime_nsec());
    mark(before) != mark(after)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_that_changes_while_it_is_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tgz");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        assert_eq!(
            open(&path).unwrap().finish().unwrap(),
            (Digest::of(b"one"), 3)
        );
        let mut reader = open(&path).unwrap();
        reader.read_exact(&mut [0; 2]).unwrap();
        file.write_all(b"two").unwrap();
        assert_eq!(reader.finish().unwrap_err().code(), "file-changed");
        // The same length, other content.
        let reader = open(&path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(reader.finish().unwrap_err().code(), "file-changed");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open(dir.path()).unwrap_err().code(), "not-a-file");
        let absent = open(&dir.path().join("absent.tgz")).unwrap_err();
        assert_eq!(absent.code(), "file-unreadable");
    }
}
