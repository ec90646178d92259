//! What the record says about one package, for people and for programs.
//!
//! Each record comes with its line, byte for byte, and with the digests that tie it into the chain, so that it can be compared
//! with the record itself later.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::event::{Event, PackageVerdict, Removed};
use super::line::{Entry, Head};
use super::walk::{Finding, Findings, Line};
use super::{Error, check};
use crate::base::shown::printable;
use crate::base::{Digest, Timestamp};

/// Records in one report. A package has one for each time that it was dropped; chosen, not measured.
const RECORDS_MAX: usize = 10_000;
/// The version of the form for programs.
const VERSION: u32 = 1;

/// The records about one package.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    version: u32,
    /// When it was made.
    pub made_at: Timestamp,
    /// What was asked for.
    pub selection: String,
    /// How many records there are about everything.
    pub records_total: u64,
    /// Time of the first of them.
    pub first_time: Option<Timestamp>,
    /// Time of the last of them.
    pub last_time: Option<Timestamp>,
    /// The last of them.
    pub head: Option<Head>,
    /// How many breaks the whole record has.
    pub breaks_total: u64,
    /// The breaks, up to a bound.
    pub breaks: Vec<Finding>,
    /// The records, oldest first.
    pub records: Vec<Record>,
}

/// One record about a package.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Its number.
    pub sequence: u64,
    /// When it was written.
    pub time: Timestamp,
    /// Name of the file that holds it.
    pub file: String,
    /// Its line there, from 1.
    pub line_number: u64,
    /// Digest of the line before.
    pub previous: Digest,
    /// Digest of its line.
    pub hash: Digest,
    /// What was decided about a dropped file; absent for a removal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageVerdict>,
    /// The removal of a package; absent for a verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed: Option<Removed>,
    /// The line, byte for byte, without its line feed.
    pub line: String,
}

impl Report {
    /// Reads the whole record in `dir` and picks what is about `selection`: the name of a package, the digest of a package file
    /// with or without `sha256:`, or the name of a file. Digest and name of a file that carried packages select all of them.
    pub fn make(dir: &Path, selection: &str, now: Timestamp) -> Result<Self, Error> {
        let mut records = Vec::new();
        let mut is_full = false;
        let findings = check(dir, |line, entry| {
            let (package, removed) = match &entry.event {
                Some(Event::Package(package)) if is_about(package, selection) => {
                    (Some(package.as_ref().clone()), None)
                }
                Some(Event::Removed(removed)) if is_removal_of(removed, selection) => {
                    (None, Some(removed.clone()))
                }
                Some(
                    Event::Package(_) | Event::Removed(_) | Event::Recovered(_) | Event::Broken(_),
                )
                | None => return,
            };
            is_full |= records.len() == RECORDS_MAX;
            if !is_full {
                records.push(Record {
                    package,
                    removed,
                    ..Record::new(line, entry)
                });
            }
        })?;
        if is_full {
            return Err(Error::TooMany {
                selection: selection.to_owned(),
                limit: RECORDS_MAX,
            });
        }
        if records.is_empty() {
            return Err(Error::Unrecorded {
                dir: dir.to_owned(),
                selection: selection.to_owned(),
            });
        }
        Ok(Self::new(selection, findings, records, now))
    }

    fn new(selection: &str, findings: Findings, records: Vec<Record>, made_at: Timestamp) -> Self {
        Self {
            version: VERSION,
            made_at,
            selection: selection.to_owned(),
            records_total: findings.records,
            first_time: findings.first_time,
            last_time: findings.last_time,
            head: findings.head,
            breaks_total: findings.breaks_total,
            breaks: findings.breaks,
            records,
        }
    }
}

impl Record {
    fn new(line: Line<'_>, entry: &Entry) -> Self {
        Self {
            sequence: entry.sequence,
            time: entry.time,
            file: line.file.to_owned(),
            line_number: line.number,
            previous: entry.previous,
            hash: line.hash,
            package: None,
            removed: None,
            line: String::from_utf8_lossy(line.bytes).into_owned(),
        }
    }

    fn write_verdict(&self, f: &mut fmt::Formatter<'_>, package: &PackageVerdict) -> fmt::Result {
        fact(f, "verdict", package.verdict.name())?;
        fact(f, "time", self.time.to_rfc3339())?;
        if let Some(about) = &package.package {
            let version = about.version.as_deref().unwrap_or("-");
            let words = format!("{} {} ({})", about.name, printable(version), about.kind);
            fact(f, "package", words)?;
        }
        fact(f, "file", printable(&package.path))?;
        match package.digest {
            Some(digest) => fact(f, "digest", digest)?,
            None => fact(f, "digest", "unknown, the file could not be read")?,
        }
        fact(f, "size", format!("{} bytes", package.size_bytes))?;
        if let Some(outer) = package.carried_by {
            let inner = printable(&package.file_name);
            fact(f, "carried by", format!("{outer}, as {inner}"))?;
        }
        let policy = &package.policy;
        fact(
            f,
            "policy",
            format!("{}, {} signatures", policy.name, policy.signatures_min),
        )?;
        if let Some(trust) = package.trusted_by {
            fact(f, "trusted by", trust.name())?;
        }
        for signer in &package.signers {
            let user = printable(signer.user_id.as_deref().unwrap_or("no user ID"));
            let (key, at) = (&signer.fingerprint, signer.signed_at.to_rfc3339());
            fact(f, "signer", format!("{key}, {user}, at {at}"))?;
        }
        for sidecar in &package.sidecars {
            let (name, digest) = (printable(&sidecar.file_name), sidecar.digest);
            fact(f, "sidecar", format!("{name}, {digest}"))?;
        }
        if let Some(refusal) = &package.refusal {
            let words = format!("{}: {}", refusal.code, printable(&refusal.reason));
            fact(f, "refused for", words)?;
        }
        if let Some(missing) = package.missing_blobs {
            fact(f, "waits for", format!("{missing} blobs"))?;
        }
        Ok(())
    }

    fn write_removal(&self, f: &mut fmt::Formatter<'_>, removed: &Removed) -> fmt::Result {
        fact(f, "verdict", "removed")?;
        fact(f, "time", self.time.to_rfc3339())?;
        let about = &removed.package;
        let version = about.version.as_deref().unwrap_or("-");
        let words = format!("{} {} ({})", about.name, printable(version), about.kind);
        fact(f, "package", words)?;
        fact(f, "digest", removed.digest)?;
        fact(f, "approved by", printable(&removed.approved_by))?;
        fact(f, "rule", printable(&removed.rule))
    }
}

fn is_about(package: &PackageVerdict, selection: &str) -> bool {
    let name = package
        .package
        .as_ref()
        .map(|package| package.name.as_str());
    let has_digest = |digest: Digest| digest.to_string() == selection || digest.hex() == selection;
    // What a file carried is also found by that file: it has no verdict of its own where it carried nothing else.
    let dropped = Path::new(&package.path).file_name();
    name == Some(selection)
        || package.file_name == selection
        || dropped.is_some_and(|dropped| dropped == selection)
        || package.digest.is_some_and(has_digest)
        || package.carried_by.is_some_and(has_digest)
}

fn is_removal_of(removed: &Removed, selection: &str) -> bool {
    let digest = removed.digest;
    removed.package.name.as_str() == selection
        || digest.to_string() == selection
        || digest.hex() == selection
}

/// One name for each fact, at the same column.
fn fact(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {name:<13} {value}", name = format!("{name}:"))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "violetd audit report")?;
        fact(f, "about", printable(&self.selection))?;
        fact(f, "made at", self.made_at.to_rfc3339())?;
        let state = match self.breaks_total {
            0 => "unbroken".to_owned(),
            breaks => format!("BROKEN in {breaks} places"),
        };
        fact(
            f,
            "chain",
            format!("{} records, {state}", self.records_total),
        )?;
        for finding in &self.breaks {
            fact(f, "break", finding)?;
        }
        if let Some((first, last)) = self.first_time.zip(self.last_time) {
            fact(f, "from", first.to_rfc3339())?;
            fact(f, "to", last.to_rfc3339())?;
        }
        if let Some(head) = self.head {
            fact(f, "head", head)?;
        }
        for record in &self.records {
            write!(f, "\n{record}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "record {}", self.sequence)?;
        if let Some(package) = &self.package {
            self.write_verdict(f, package)?;
        }
        if let Some(removed) = &self.removed {
            self.write_removal(f, removed)?;
        }
        fact(
            f,
            "found in",
            format!("{}, line {}", self.file, self.line_number),
        )?;
        fact(f, "line before", self.previous)?;
        fact(f, "line hash", self.hash)?;
        fact(f, "line", &self.line)
    }
}
