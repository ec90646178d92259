//! What deltas build on, and whether it is there.
//!
//! A delta builds on what was there before. What it brings itself does not stand for that, so that the answer does not
//! depend on whether its manifest or a blob comes first.
//!
//! A delta inside of a file may build, besides, on what other packages of that file bring: a file that carries a package and
//! a delta of it is complete. Nobody knows what they bring before the end of the file, so only the file's own package is
//! checked as soon as its manifest comes ([`check_early`]), and it does not build on packages inside of it.

use std::collections::{BTreeMap, BTreeSet};

use super::level::Level;
use super::receive::within;
use super::unpack_error::Outcome;
use super::{Error, Manifest, Sink, UnpackError};
use crate::base::Digest;

/// Checks before gigabytes are read that what the file's own package builds on is there. Of other packages nothing is asked.
pub(super) fn check_early<S: Sink>(manifest: &Manifest, sink: &S) -> Outcome<(), S> {
    let mut wanted = Wanted::default();
    wanted.add(&manifest.expects, |digest| {
        sink.find_base(digest).map_err(UnpackError::Sink)
    })?;
    Ok(wanted.finish()?)
}

/// Checks that what the deltas of a file build on is there. What is missing is listed for all of them together.
pub(super) fn check_all<S: Sink>(file: &Level, sink: &S) -> Outcome<(), S> {
    let mut deltas = Vec::new();
    list_deltas(file, &mut Vec::new(), &mut deltas);
    let mut carriers = BTreeMap::new();
    if deltas.iter().any(|delta| !delta.path.is_empty()) {
        count_carriers(file, &mut carriers);
    }
    let mut wanted = Wanted::default();
    for delta in &deltas {
        let own: BTreeSet<Digest> = delta.level.list_blobs().collect();
        let find = |digest: &Digest| {
            let found = sink.find_base(digest).map_err(UnpackError::Sink)?;
            let others = carriers.get(digest).copied().unwrap_or_default();
            let is_carried = !delta.path.is_empty() && others > u32::from(own.contains(digest));
            if found.is_none() && is_carried {
                return sink.find(digest).map_err(UnpackError::Sink);
            }
            Ok(found)
        };
        let explain = |error| {
            let paths = delta.path.iter().rev();
            paths.fold(error, |error, path| within(path, error))
        };
        let added = wanted.add(&delta.manifest.expects, find);
        added.map_err(|error| error.map_package(explain))?;
    }
    Ok(wanted.finish()?)
}

/// A delta of a file.
struct Delta<'a> {
    /// The archives that lead to it, the outermost first; none for the file's own package.
    path: Vec<&'a str>,
    level: &'a Level,
    manifest: &'a Manifest,
}

/// Lists the deltas of an archive and of those inside of it. What is wrong with one is found later, when it is assessed.
fn list_deltas<'a>(level: &'a Level, path: &mut Vec<&'a str>, deltas: &mut Vec<Delta<'a>>) {
    if level.chart.is_some() || level.has_flaw() {
        return;
    }
    if let Some(manifest) = level.manifest()
        && !manifest.expects.is_empty()
    {
        deltas.push(Delta {
            path: path.clone(),
            level,
            manifest,
        });
    }
    for inner in &level.inner {
        path.push(&inner.path);
        list_deltas(&inner.level, path, deltas);
        path.pop();
    }
}

/// Counts the packages of a file that bring each blob.
fn count_carriers(level: &Level, carriers: &mut BTreeMap<Digest, u32>) {
    if level.chart.is_some() || level.has_own_content() {
        let own: BTreeSet<Digest> = level.list_blobs().collect();
        for digest in own {
            *carriers.entry(digest).or_default() += 1;
        }
    }
    for inner in &level.inner {
        count_carriers(&inner.level, carriers);
    }
}

/// What deltas build on.
#[derive(Default)]
struct Wanted {
    expected: BTreeSet<Digest>,
    missing: BTreeMap<Digest, u64>,
}

impl Wanted {
    /// Adds what one delta builds on; `find` returns the size of what is there.
    fn add<E: std::error::Error + 'static>(
        &mut self,
        expects: &BTreeMap<Digest, u64>,
        find: impl Fn(&Digest) -> Result<Option<u64>, UnpackError<E>>,
    ) -> Result<(), UnpackError<E>> {
        for (digest, expected_bytes) in expects {
            self.expected.insert(*digest);
            match find(digest)? {
                Some(found_bytes) if found_bytes == *expected_bytes => {}
                // No other package can ever bring this blob with another size: nothing to wait for.
                Some(found_bytes) => {
                    return Err(UnpackError::Package(Error::BaseSize {
                        digest: *digest,
                        expected_bytes: *expected_bytes,
                        found_bytes,
                    }));
                }
                None => {
                    self.missing.insert(*digest, *expected_bytes);
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        if self.missing.is_empty() {
            return Ok(());
        }
        Err(Error::BaseMissing {
            expected: self.expected,
            missing: self.missing,
        })
    }
}
