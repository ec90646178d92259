//! What goes on the audit record, and when.
//!
//! # Durability
//!
//! A verdict is on record before anybody can see it: before the package is in the catalog, and before a refused file moves away.
//! So a package in the catalog always has its record. A crash between the two, or a catalog that cannot be written, makes
//! the file be judged again, which puts its verdict on record again: a record may be there twice, never too few times. A
//! record that cannot be written (a full disk) holds the file back like any other failure that may pass.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::advance::blocking;
use super::import::digest_of;
use super::{Error, Folder};
use crate::audit::{self, Event, Log, PackageVerdict, Refusal, Trust, clip};
use crate::base::{Chain, Clock, Digest};
use crate::catalog::{IngestRecord, PackageRecord};
use crate::verify::{
    Limits, PackageFile, Policy, Requirements, Sidecars, Source, Verdict, read_sidecar,
};

/// Puts verdicts on record.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    pub(super) log: Log,
    pub(super) clock: Arc<dyn Clock>,
}

impl Recorder {
    /// Puts on record what was decided about the packages that a verified file is or carries.
    pub(super) async fn trusted(
        &self,
        folder: &Folder,
        file: &PackageFile,
        packages: &[(PackageRecord, audit::Verdict)],
    ) -> Result<(), Error> {
        let record = |(package, verdict): &(PackageRecord, audit::Verdict)| {
            let is_inside = package.digest != file.digest;
            let mut record = PackageVerdict {
                verdict: *verdict,
                digest: Some(package.digest),
                carried_by: is_inside.then_some(file.digest),
                package: Some(audit::Package {
                    name: package.name.clone(),
                    version: package.version.as_deref().map(clip),
                    kind: package.kind,
                }),
                ..verified(folder, file)
            };
            if is_inside {
                record.file_name = clip(&package.file_name);
                record.size_bytes = package.size_bytes;
            }
            record
        };
        let records = packages.iter().map(record).collect();
        self.write(folder, file.source.path(), records).await
    }

    /// Puts on record that a verified file waits for this many blobs.
    pub(super) async fn waiting(
        &self,
        folder: &Folder,
        file: &PackageFile,
        missing: usize,
    ) -> Result<(), Error> {
        let record = PackageVerdict {
            verdict: audit::Verdict::Waiting,
            missing_blobs: Some(missing as u64),
            ..verified(folder, file)
        };
        self.write(folder, file.source.path(), vec![record]).await
    }

    /// Puts on record that a file is refused. Where nobody has read it to its end yet, that is done now, for its digest; that
    /// it cannot be read is no reason to hold back what is decided already.
    pub(super) async fn refused(
        &self,
        folder: &Folder,
        seen: &IngestRecord,
        error: &Error,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let path = Path::new(&seen.path);
        // A package in parts goes by the name of the whole, as everywhere; a table that cannot be read is refused as the
        // file that it is.
        let source = Source::of(path).unwrap_or_else(|_| Source::File(path.to_owned()));
        let size_bytes = match &source {
            Source::File(_) => seen.size_bytes,
            Source::Parts(parts) => parts.table().size_bytes(),
        };
        let mut digest = seen.digest;
        if digest.is_none() {
            let (source, stop) = (source.clone(), stop.clone());
            digest = blocking(move || digest_of(&source, &stop)).await?;
        }
        let record = PackageVerdict {
            digest,
            refusal: Some(Refusal {
                code: error.code().to_owned(),
                reason: clip(&Chain(error).to_string()),
            }),
            ..facts(folder, source.path(), size_bytes)
        };
        self.write(folder, source.path(), vec![record]).await
    }

    /// Writes what is on record about the file at `path`, with the sidecars that lie beside it.
    async fn write(
        &self,
        folder: &Folder,
        path: &Path,
        records: Vec<PackageVerdict>,
    ) -> Result<(), Error> {
        let Self { log, clock } = self.clone();
        let (limits, path) = (folder.requirements.limits, path.to_owned());
        blocking(move || {
            let sidecars = describe(&Sidecars::find(&path, &limits).all(), &limits);
            for mut record in records {
                record.sidecars.clone_from(&sidecars);
                log.append(&Event::Package(Box::new(record)), clock.now())?;
            }
            Ok(())
        })
        .await
    }
}

/// What is known of every file that is judged.
fn facts(folder: &Folder, path: &Path, size_bytes: u64) -> PackageVerdict {
    let file_name = path.file_name().unwrap_or_default();
    PackageVerdict {
        verdict: audit::Verdict::Refused,
        path: clip(&path.display().to_string()),
        file_name: file_name.to_string_lossy().into_owned(),
        digest: None,
        size_bytes,
        carried_by: None,
        policy: policy(&folder.requirements),
        trusted_by: None,
        signers: Vec::new(),
        sidecars: Vec::new(),
        package: None,
        refusal: None,
        missing_blobs: None,
    }
}

/// What is known of every file that is trusted.
fn verified(folder: &Folder, file: &PackageFile) -> PackageVerdict {
    let (trusted_by, signers) = trust(&file.verdict);
    PackageVerdict {
        digest: Some(file.digest),
        trusted_by: Some(trusted_by),
        signers,
        ..facts(folder, file.source.path(), file.size_bytes)
    }
}

fn policy(requirements: &Requirements) -> audit::Policy {
    let (name, signatures_min) = match requirements.policy {
        Policy::Signature => ("signature", requirements.signatures_min),
        Policy::Checksum => ("checksum", 0),
        Policy::None => ("none", 0),
    };
    audit::Policy {
        name: name.to_owned(),
        signatures_min,
    }
}

fn trust(verdict: &Verdict) -> (Trust, Vec<audit::Signer>) {
    match verdict {
        Verdict::Signature { signers } => {
            let signers = signers.iter().map(|signer| audit::Signer {
                fingerprint: signer.fingerprint.to_string(),
                user_id: signer.user_id.as_deref().map(clip),
                signed_at: signer.signed_at,
            });
            (Trust::Signature, signers.collect())
        }
        Verdict::Checksum { .. } => (Trust::Checksum, Vec::new()),
        Verdict::Unchecked => (Trust::Nothing, Vec::new()),
    }
}

/// Describes what lies beside a file. What cannot be read as a sidecar is left out: the verdict says why that matters.
fn describe(paths: &[PathBuf], limits: &Limits) -> Vec<audit::Sidecar> {
    let mut sidecars = Vec::new();
    for path in paths {
        if let Ok(content) = read_sidecar(path, limits) {
            let file_name = path.file_name().unwrap_or_default();
            sidecars.push(audit::Sidecar {
                file_name: file_name.to_string_lossy().into_owned(),
                size_bytes: content.len() as u64,
                digest: Digest::of(&content),
            });
        }
    }
    sidecars.sort_by(|a, b| a.file_name.cmp(&b.file_name));
    sidecars
}
