//! Brings back blobs that are lost: from a registry that holds them, else from a package file that was kept.
//!
//! Start from [`Repairer::repair`]. What it needs of others are [`Origin`]s, which hold content by digest, and
//! [`PackageFiles`], the files that were kept.
//!
//! ```text
//! lost blobs ─► places: which repositories hold them, by the images of their packages
//!      │              └─► origin, origin, ... ──┐
//!      └────────────► kept file of a package ───┴─► store::Batch (only the right content) ─► there again
//! ```
//!
//! A lost manifest hides what is below it, so that manifests are brought back first and what is missing then is looked for
//! once more.
//!
//! # Invariants
//!
//! - What comes back has the digest that was lost: the store compares, whatever an origin says.
//! - No file is parsed unless its digest is that of a package that was trusted once, or of the file that carried it.
//!
//! # Failure
//!
//! One origin that cannot be reached is not asked again in the same repair. What cannot be brought back is said with the
//! reasons; nothing is retried here.

mod files;
mod origin;
mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;
use tokio_util::sync::CancellationToken;

pub use self::files::{KeptFile, PackageFiles};
pub use self::origin::{Origin, RegistryOrigin};
use self::places::{Candidates, Certainty};
pub use self::places::{Part, Place};
use crate::base::{Chain, Class, Classified, Digest};
use crate::catalog::PackageRecord;
use crate::package::{self, Limits};
use crate::registry;
use crate::store::{self, Store, Writer};

/// A blob that is lost.
#[derive(Clone, Debug)]
pub struct Lost {
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Packages that keep it.
    pub packages: Vec<Arc<PackageRecord>>,
}

/// Blobs that are lost.
pub type Losses = BTreeMap<Digest, Lost>;

/// What became of each: where it came from, or why it could not be brought back, in words.
pub type Outcomes = BTreeMap<Digest, Result<String, String>>;

/// Brings back what is lost.
#[derive(Debug)]
pub struct Repairer {
    /// Where the blobs belong.
    pub store: Store,
    /// Who may hold them, in the order in which they are asked.
    pub origins: Vec<Arc<dyn Origin>>,
    /// Package files that were kept.
    pub files: Arc<dyn PackageFiles>,
    /// How much a package may ask for.
    pub limits: Limits,
}

/// What can go wrong in this module.
#[derive(Debug, Error)]
pub enum Error {
    /// The origin does not hold it there.
    #[error("not there")]
    Absent,
    /// The registry refused.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The content is not what was lost, or cannot be stored.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A kept file cannot be read as a package.
    #[error("failed to read the kept file")]
    Package(#[source] package::Error),
    /// A kept file cannot be read at all.
    #[error("failed to read the kept file")]
    Read(#[source] std::io::Error),
    /// A kept file has changed since it was looked at.
    #[error("expected the kept file to stay as it is, found it changed")]
    FileChanged,
    /// A kept file lacks it.
    #[error("expected the kept file to hold it, found that it does not")]
    NotInFile,
    /// The daemon stops.
    #[error("the daemon stops")]
    Stopped,
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Absent | Self::NotInFile => Class::Absent,
            Self::Registry(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Package(_) => Class::Rejected,
            Self::Read(error) => crate::sys::fs::class_of(error),
            Self::FileChanged | Self::Stopped => Class::Transient,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Absent
            | Self::Package(_)
            | Self::Read(_)
            | Self::FileChanged
            | Self::NotInFile
            | Self::Stopped => None,
        }
    }
}

/// A repair in progress.
struct Repair<'a> {
    repairer: &'a Repairer,
    lost: &'a Losses,
    stop: &'a CancellationToken,
    /// Where blobs came from that are back.
    back: BTreeMap<Digest, String>,
    /// Why others are not, by whom was asked.
    reasons: BTreeMap<Digest, BTreeMap<String, String>>,
}

/// Who was asked.
#[derive(Default)]
struct Asked {
    /// For what, where: origins by their position.
    places: BTreeSet<(usize, Digest, Place)>,
    /// Who is not asked any more, and why.
    silent: BTreeMap<usize, String>,
}

impl Repairer {
    /// Brings back what can be, and says for each of `lost` what became of it. Ends early where `stop` is cancelled.
    pub async fn repair(&self, lost: &Losses, stop: &CancellationToken) -> Outcomes {
        let mut repair = Repair {
            repairer: self,
            lost,
            stop,
            back: BTreeMap::new(),
            reasons: BTreeMap::new(),
        };
        repair.ask_origins().await;
        repair.read_files();
        let outcome = |digest: &Digest| match repair.back.get(digest) {
            Some(from) => Ok(from.clone()),
            None => Err(repair.reason(digest)),
        };
        lost.keys()
            .map(|digest| (*digest, outcome(digest)))
            .collect()
    }
}

impl Repair<'_> {
    /// Returns what is not back yet.
    fn missing(&self) -> BTreeSet<Digest> {
        let lost = self.lost.keys().copied();
        lost.filter(|digest| !self.back.contains_key(digest))
            .collect()
    }

    /// Asks every origin at every place, until nothing more comes back.
    async fn ask_origins(&mut self) {
        let mut asked = Asked::default();
        loop {
            let back_before = self.back.len();
            self.ask_all(&mut asked).await;
            if self.back.len() == back_before {
                break;
            }
        }
        for digest in self.missing() {
            let reasons = self.reasons.entry(digest).or_default();
            for (number, reason) in &asked.silent {
                let who = self.repairer.origins[*number].name().to_owned();
                reasons.entry(who).or_insert_with(|| reason.clone());
            }
        }
    }

    /// Asks every origin at every place that is known now and was not asked before.
    async fn ask_all(&mut self, asked: &mut Asked) {
        let missing = self.missing();
        let candidates = tokio::task::block_in_place(|| {
            places::collect(&self.repairer.store, self.lost, &missing)
        });
        for (digest, Candidates { places, certainty }) in &candidates {
            for (number, origin) in self.repairer.origins.iter().enumerate() {
                for place in places {
                    let is_over = self.stop.is_cancelled()
                        || asked.silent.contains_key(&number)
                        || self.back.contains_key(digest);
                    if is_over || !asked.places.insert((number, *digest, place.clone())) {
                        continue;
                    }
                    if let Err(error) = self.ask(origin.as_ref(), *digest, place).await {
                        self.explain(*digest, origin.name(), &error);
                        if is_silent(&error, *certainty) {
                            asked.silent.insert(number, Chain(&error).to_string());
                        }
                    }
                }
            }
        }
    }

    /// Brings one blob back from one place.
    async fn ask(
        &mut self,
        origin: &dyn Origin,
        digest: Digest,
        place: &Place,
    ) -> Result<(), Error> {
        let lost = &self.lost[&digest];
        let mut batch = self.repairer.store.begin();
        let writer = batch.writer(Some(digest), lost.size_bytes)?;
        let writer: Writer = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Error::Stopped),
            fetched = origin.fetch(place, &digest, writer) => fetched?,
        };
        tokio::task::block_in_place(|| {
            batch.stage(writer)?;
            batch.commit().map(drop)
        })?;
        let from = format!("{} of {}", place.repository, origin.name());
        self.back.insert(digest, from);
        Ok(())
    }

    fn explain(&mut self, digest: Digest, who: &str, error: &Error) {
        let reasons = self.reasons.entry(digest).or_default();
        let absent = Error::Absent.to_string();
        let reason = reasons
            .entry(who.to_owned())
            .or_insert_with(|| absent.clone());
        // The first one counts, but that it is not at one place says less than anything else.
        if *reason == absent {
            *reason = Chain(error).to_string();
        }
    }

    fn reason(&self, digest: &Digest) -> String {
        if self.stop.is_cancelled() {
            return Error::Stopped.to_string();
        }
        let reasons = self.reasons.get(digest).into_iter().flatten();
        let mut reasons: Vec<String> = reasons
            .map(|(who, reason)| format!("{who}: {reason}"))
            .collect();
        if reasons.is_empty() {
            reasons.push("no target and no kept file is known that could hold it".to_owned());
        }
        reasons.join("; ")
    }
}

/// Returns whether whoever answers like this need not be asked for anything else now.
fn is_silent(error: &Error, certainty: Certainty) -> bool {
    match error {
        Error::Registry(registry::Error::Busy { .. }) => certainty == Certainty::Known,
        Error::Registry(error) => matches!(error.class(), Class::Transient | Class::Usage),
        Error::Absent
        | Error::Store(_)
        | Error::Package(_)
        | Error::Read(_)
        | Error::FileChanged
        | Error::NotInFile
        | Error::Stopped => false,
    }
}

#[cfg(test)]
mod tests;
