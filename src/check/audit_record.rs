//! The audit record: is it unbroken?

use std::path::Path;

use super::finding::{Finding, Observer as _};
use super::{Code, Counter, Error};
use crate::audit;
use crate::base::{Chain, Class, Classified as _, Digest};

/// Looks for breaks in the audit record, which is only missed where there are packages.
pub(super) fn check(
    root: &Path,
    packages: &[Digest],
    counter: &mut Counter<'_>,
) -> Result<(), Error> {
    let dir = root.join(audit::DIR);
    let findings = match audit::check(&dir, |_, _| {}) {
        Ok(findings) => findings,
        Err(error) if matches!(error.class(), Class::Absent | Class::Usage) => {
            if !packages.is_empty() {
                let reason = Chain(&error).to_string();
                counter.found(Finding::new(Code::AuditMissing, audit::DIR, reason));
            }
            return Ok(());
        }
        Err(error) if error.class() == Class::Denied => return Err(error.into()),
        Err(error) => {
            let reason = Chain(&error).to_string();
            counter.found(Finding::new(Code::Unreadable, audit::DIR, reason));
            return Ok(());
        }
    };
    counter.report.audit_records = findings.records;
    for found in &findings.breaks {
        let code = match found.fault {
            audit::Fault::Incomplete(_) => Code::AuditIncomplete,
            audit::Fault::Malformed { .. }
            | audit::Fault::TooLong
            | audit::Fault::Altered { .. }
            | audit::Fault::Version { .. }
            | audit::Fault::Unlinked { .. }
            | audit::Fault::OutOfSequence { .. }
            | audit::Fault::MissingFiles { .. } => Code::AuditBroken,
        };
        let subject = match found.line {
            Some(line) => format!("{}/{}, line {line}", audit::DIR, found.file),
            None => format!("{}/{}", audit::DIR, found.file),
        };
        let reason = format!("{}: {}", found.fault.code(), found.fault);
        counter.found(Finding::new(code, subject, reason));
    }
    let more = findings.breaks_total - findings.breaks.len() as u64;
    if more > 0 {
        let reason = format!("expected no breaks, found {more} more");
        counter.found(Finding::new(Code::AuditBroken, audit::DIR, reason));
    }
    Ok(())
}
