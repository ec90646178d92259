//! What a file waits for: rest, its other parts, its sidecar, and what it builds on.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::listing::{Candidate, Form, Members, stamp_of};
use super::state::Event;
use super::{Error, Folder, Ingest, Note, Wait};
use crate::base::{ByteCount, Chain, Classified as _, Digest};
use crate::catalog::{IngestRecord, IngestState};
use crate::package::Request;
use crate::sys::fs::{self as durable, Context as _};
use crate::verify::{Parts, Sidecars, Source, open_file};

/// Whether all files of a candidate are there.
pub(super) enum Found {
    /// Not yet.
    Waits(Wait),
    /// They are, and they rest.
    Complete(Source),
}

impl Ingest {
    /// Returns what a candidate is read from once all its files are there and rest, and its sidecar is there or will not
    /// come.
    ///
    /// A part without a table, and a table without all its parts, wait without end, and so do their sidecars.
    pub(super) fn wait_for_files(
        &mut self,
        folder: &Folder,
        candidate: &Candidate,
    ) -> Result<Found, Error> {
        let whole = candidate.whole();
        let now = Instant::now();
        let mut rest = Duration::MAX;
        for (path, stamp) in candidate.files() {
            rest = rest.min(self.settler.observe(&path, stamp, now));
        }
        let mut shortest = rest;
        let sidecars = Sidecars::find(&whole, &folder.requirements.limits);
        for sidecar in sidecars.all() {
            if let Some(stamp) = stamp_of(&sidecar) {
                shortest = shortest.min(self.settler.observe(&sidecar, stamp, now));
            }
        }
        if shortest < folder.settle {
            return Ok(self.waits(folder.settle.saturating_sub(shortest), "it to rest"));
        }
        let source = match &candidate.form {
            Form::Whole => Source::File(whole.clone()),
            Form::Parts(members) => match find_parts(&candidate.path, members)? {
                Ok(parts) => Source::Parts(parts),
                Err(missing) => return Ok(self.waits(self.options.rescan, &missing)),
            },
        };
        match sidecars.find_missing(&folder.requirements) {
            Some(what) if rest < folder.sidecar_wait => {
                Ok(self.waits(folder.sidecar_wait.saturating_sub(rest), &what))
            }
            Some(_) | None => Ok(Found::Complete(source)),
        }
    }

    fn waits(&self, again_in: Duration, what: &str) -> Found {
        Found::Waits(Wait {
            again_in: again_in.min(self.options.rescan),
            note: Note {
                code: None,
                text: format!("waits for {what}"),
                hint: None,
            },
        })
    }

    /// Returns what a file waits for that builds on blobs which are not there, and asks for them.
    ///
    /// Only the blobs are looked for; nothing of the file is read before all of them are there.
    pub(super) fn wait_for_base(
        &self,
        folder: &Folder,
        record: &mut IngestRecord,
    ) -> Result<Option<Wait>, Error> {
        let IngestState::Waiting {
            missing,
            sizes_bytes,
            present,
        } = &record.state
        else {
            return Ok(None);
        };
        let known = missing.len();
        let sizes = sizes_bytes.iter().copied().chain(std::iter::repeat(0));
        let mut present: BTreeSet<Digest> = present.iter().copied().collect();
        let mut still = BTreeMap::new();
        for (digest, size_bytes) in missing.iter().zip(sizes) {
            if self.importer.store.find(digest)?.is_none() {
                still.insert(*digest, size_bytes);
            } else {
                present.insert(*digest);
            }
        }
        if still.is_empty() {
            return Ok(None);
        }
        if still.len() < known {
            let missing = still.clone();
            self.transition(record, Event::BaseMissing { missing, present })?;
        }
        Ok(Some(Wait {
            again_in: self.options.rescan,
            note: Self::ask(folder, record, still),
        }))
    }

    /// Writes the request of a file that waits, unless it is there already, and returns what the status says.
    fn ask(folder: &Folder, record: &IngestRecord, missing: BTreeMap<Digest, u64>) -> Note {
        let path = folder.request_path(Path::new(&record.path));
        let (count, bytes) = (missing.len(), ByteCount(missing.values().sum()));
        let text = format!("waits for {count} blobs ({bytes}) that it builds on");
        let file = record
            .digest
            .expect("a file that waits for its base was verified");
        let request = Request {
            name: None,
            version: None,
            file,
            missing,
        };
        match write_request(&path, &request) {
            Ok(()) => Note {
                code: None,
                text,
                hint: Some(format!(
                    "drop the packages that it builds on, or carry `{}` to where packages are built and run \
                     `violetd package --for {}`",
                    path.display(),
                    path.file_name().unwrap_or_default().display()
                )),
            },
            Err(error) => Note {
                code: Some(error.code()),
                text: format!("{text}; {}", Chain(&error)),
                hint: error.hint(),
            },
        }
    }

    /// Removes the request of a file that waits no longer. A failure is said and changes nothing else.
    pub(super) fn withdraw_request(&self, path: &Path) {
        let mut folders = self.options.folders.iter();
        let Some(folder) = folders.find(|folder| path.starts_with(&folder.path)) else {
            return;
        };
        let request = folder.request_path(path);
        if let Err(error) = durable::remove_file(&request) {
            tracing::warn!(path = %request.display(), reason = %Chain(&error), "request stays");
        }
    }
}

/// Reads the table of a package in parts. Where it or a part is not there yet, says what is missing.
fn find_parts(path: &Path, members: &Members) -> Result<Result<Parts, String>, Error> {
    if members.table.is_none() {
        let name = path.file_name().unwrap_or_default();
        return Ok(Err(format!("`{}`, the table of its parts", name.display())));
    }
    let parts = Parts::read(path)?;
    let names = parts.table().parts().iter().map(|part| part.name.as_str());
    let missing: Vec<&str> = names
        .filter(|name| !members.parts.contains_key(*name))
        .collect();
    if missing.is_empty() {
        return Ok(Ok(parts));
    }
    let total = parts.table().parts().len();
    Ok(Err(format!(
        "{} of {total} parts: `{}`",
        missing.len(),
        missing.join("`, `")
    )))
}

/// Writes a request, unless exactly this one is there.
fn write_request(path: &Path, request: &Request) -> Result<(), Error> {
    let mut content = Vec::new();
    request.write(&mut content).context("write to", path)?;
    if holds(path, &content) {
        return Ok(());
    }
    durable::ensure_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    Ok(durable::replace_file(path, &content, 0o644)?)
}

/// Returns whether a file has exactly this content. The folder may be one into which others write: what is no file is not
/// waited for, and what is longer is not read.
fn holds(path: &Path, content: &[u8]) -> bool {
    let mut known = Vec::with_capacity(content.len() + 1);
    let read = open_file(path)
        .and_then(|file| file.take(content.len() as u64 + 1).read_to_end(&mut known));
    read.is_ok() && known == content
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_request_is_written_over_whatever_is_in_its_place_and_only_if_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/x.request");
        let request = Request {
            name: None,
            version: None,
            file: Digest::of(b"x"),
            missing: BTreeMap::from([(Digest::of(b"y"), 7)]),
        };
        durable::ensure_dir_all(path.parent().unwrap()).unwrap();
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        write_request(&path, &request).unwrap();
        let content = std::fs::read(&path).unwrap();
        assert_eq!(Request::parse(content.as_slice()).unwrap(), request);
        let written_at = path.metadata().unwrap().modified().unwrap();
        write_request(&path, &request).unwrap();
        let unchanged = path.metadata().unwrap().modified().unwrap();
        assert_eq!(unchanged, written_at);
        durable::replace_file(&path, &[&content[..], b"more"].concat(), 0o644).unwrap();
        write_request(&path, &request).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
}
