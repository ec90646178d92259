//! What is done with damage: written down, put aside, brought back, said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::read::Found;
use super::state::{Concerned, Damage, Kind, PACKAGES_NAMED, Repaired};
use super::{Error, Repairs, Run, blocking};
use crate::base::Digest;
use crate::catalog::{Catalog, PackageRecord};
use crate::retain::repair::{Losses, Lost, Outcomes};

/// How many packages are asked where a lost blob may be. A base layer may be in thousands, most of them in the same
/// places. Chosen, not measured.
const PACKAGES_ASKED: usize = 16;

/// Whether damage was said before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Novelty {
    /// It was found just now.
    New,
    /// An earlier run has said it.
    Known,
}

/// Who keeps a blob.
#[derive(Debug, Default)]
struct Keepers {
    size_bytes: u64,
    count: u64,
    first: Vec<Digest>,
}

impl Run<'_> {
    /// Writes down what is wrong with a blob, if anything is, and puts it aside.
    pub(super) fn find_damage(
        &mut self,
        digest: Digest,
        kept_bytes: Option<u64>,
        found: Found,
    ) -> Result<(), Error> {
        let (kind, found_bytes, found) = match found {
            Found::Whole { .. } | Found::Stopped => return Ok(()),
            // Collected in between, or never kept.
            Found::Absent if kept_bytes.is_none() => return Ok(()),
            Found::Absent => (Kind::Missing, None, "nothing".to_owned()),
            Found::Unreadable { size_bytes, reason } => (Kind::Unreadable, size_bytes, reason),
            Found::Changed {
                digest: content,
                size_bytes,
            } => {
                let kind = match kept_bytes {
                    Some(kept_bytes) if kept_bytes != size_bytes => Kind::OtherSize,
                    Some(_) | None => Kind::OtherContent,
                };
                let found = format!("{size_bytes} bytes with digest {content}");
                (kind, Some(size_bytes), found)
            }
        };
        let known = self.state.open.contains_key(&digest);
        if !known {
            self.state.count(|counts| counts.damaged += 1);
            self.state.add(Damage {
                digest,
                size_bytes: kept_bytes,
                kind,
                found,
                found_at: self.scrub.clock.now(),
                quarantined_to: None,
                packages: Vec::new(),
                package_count: 0,
                repaired: None,
                problem: None,
            });
        }
        if kind != Kind::Missing {
            // First that it is damaged: a crash in between leaves it where it is, to be looked at again.
            self.save()?;
        }
        // Where a blob is missing something else may be, which would be in the way.
        self.quarantine(digest, found_bytes)?;
        if !known || kind != Kind::Missing {
            self.pending.push(digest);
        }
        Ok(())
    }

    /// Puts aside what was found, with this size if it was a file. What has come since stays.
    fn quarantine(&mut self, digest: Digest, found_bytes: Option<u64>) -> Result<(), Error> {
        let store = &self.scrub.store;
        let place = tokio::task::block_in_place(|| store.quarantine(&digest, found_bytes))?;
        if let (Some(place), Some(damage)) = (place, self.state.open.get_mut(&digest)) {
            damage.quarantined_to = Some(place.display().to_string());
        }
        Ok(())
    }

    /// Looks at what others have found to be damaged.
    pub(super) async fn look_at_suspects(&mut self) -> Result<(), Error> {
        let suspects = self.scrub.store.take_suspects();
        if suspects.is_empty() {
            return Ok(());
        }
        let (catalog, asked) = (self.scrub.catalog.clone(), suspects.clone());
        let keepers = blocking(move || find_keepers(&catalog, &asked)).await?;
        for digest in suspects {
            let kept_bytes = keepers.get(&digest).map(|keepers| keepers.size_bytes);
            let found = self.read(digest).await?;
            self.find_damage(digest, kept_bytes, found)?;
        }
        self.settle(Novelty::New).await
    }

    /// Looks at what was damaged when it was looked at last.
    pub(super) async fn look_again(&mut self) -> Result<(), Error> {
        self.looked_again_at = Instant::now();
        let open: Vec<(Digest, Option<u64>)> = self
            .state
            .open
            .values()
            .map(|damage| (damage.digest, damage.size_bytes))
            .collect();
        for (digest, kept_bytes) in open {
            match self.read(digest).await? {
                Found::Stopped => return Ok(()),
                Found::Absent => self.pending.push(digest),
                Found::Whole { .. } => self.came_again(&digest),
                found @ (Found::Changed { .. } | Found::Unreadable { .. }) => {
                    self.find_damage(digest, kept_bytes, found)?;
                }
            }
        }
        self.settle(Novelty::Known).await
    }

    /// Says whom the damage concerns that was found, and has it brought back.
    pub(super) async fn settle(&mut self, novelty: Novelty) -> Result<(), Error> {
        let pending: BTreeSet<Digest> = self.pending.drain(..).collect();
        if pending.is_empty() {
            return Ok(());
        }
        let (catalog, asked) = (self.scrub.catalog.clone(), pending.clone());
        let (keepers, packages) = blocking(move || {
            let keepers = find_keepers(&catalog, &asked)?;
            let packages = read_packages(&catalog, &keepers)?;
            Ok((keepers, packages))
        })
        .await?;
        let mut lost = Losses::new();
        for digest in &pending {
            let Some(keepers) = keepers.get(digest) else {
                self.forget(digest);
                continue;
            };
            self.name(digest, keepers, &packages, novelty);
            // A package that came in between may have brought it.
            if self.scrub.store.find(digest)? == Some(keepers.size_bytes) {
                self.came_again(digest);
                continue;
            }
            let concerned = keepers.first.iter().take(PACKAGES_ASKED);
            let concerned = concerned.filter_map(|package| packages.get(package).cloned());
            lost.insert(
                *digest,
                Lost {
                    size_bytes: keepers.size_bytes,
                    packages: concerned.collect(),
                },
            );
        }
        let outcomes = match self.scrub.options.repair {
            Repairs::On => self.scrub.repairer.repair(&lost, self.stop).await,
            Repairs::Off => {
                let why = |digest: &Digest| (*digest, Err("`repair` is off".to_owned()));
                lost.keys().map(why).collect()
            }
        };
        self.note(outcomes, novelty);
        self.save()
    }

    /// Notes that somebody else has brought a damaged blob.
    fn came_again(&mut self, digest: &Digest) {
        tracing::info!(%digest, "damaged blob is there again");
        let repaired = Repaired {
            at: self.scrub.clock.now(),
            from: "a package that came again".to_owned(),
        };
        self.state.repair(digest, repaired);
    }

    /// Forgets damage that no package suffers from: nobody will miss the blob.
    fn forget(&mut self, digest: &Digest) {
        let Some(damage) = self.state.open.remove(digest) else {
            return;
        };
        // What was collected while the pass went by was never damaged.
        if damage.kind == Kind::Missing {
            self.state
                .count(|counts| counts.damaged = counts.damaged.saturating_sub(1));
        } else {
            tracing::warn!(%digest, kind = damage.kind.name(), found = damage.found, "damaged blob that no package keeps");
        }
    }

    /// Writes down who keeps a damaged blob, and says so.
    fn name(
        &mut self,
        digest: &Digest,
        keepers: &Keepers,
        packages: &BTreeMap<Digest, Arc<PackageRecord>>,
        novelty: Novelty,
    ) {
        let Some(damage) = self.state.open.get_mut(digest) else {
            let packages = keepers.count;
            tracing::error!(%digest, packages, "blob is damaged, as are more than can be listed");
            return;
        };
        damage.size_bytes = Some(keepers.size_bytes);
        damage.package_count = keepers.count;
        let named = keepers
            .first
            .iter()
            .filter_map(|package| packages.get(package));
        damage.packages = named.map(|package| concerned(package)).collect();
        if novelty == Novelty::New {
            let shown: Vec<&str> = damage.packages.iter().map(|it| it.name.as_str()).collect();
            tracing::error!(
                %digest,
                kind = damage.kind.name(),
                found = damage.found,
                expected_bytes = keepers.size_bytes,
                packages = shown.join(", "),
                package_count = keepers.count,
                quarantined_to = damage.quarantined_to,
                "blob is damaged"
            );
        }
    }

    /// Writes down what became of repairs.
    fn note(&mut self, outcomes: Outcomes, novelty: Novelty) {
        let at = self.scrub.clock.now();
        for (digest, outcome) in outcomes {
            match outcome {
                Ok(from) => {
                    tracing::info!(%digest, from, "blob is repaired");
                    self.state.repair(&digest, Repaired { at, from });
                }
                Err(problem) => {
                    let Some(damage) = self.state.open.get_mut(&digest) else {
                        continue;
                    };
                    let hint = damage.hint();
                    if novelty == Novelty::New {
                        tracing::error!(%digest, reason = problem, hint, "blob is not repaired");
                    }
                    damage.problem = Some(problem);
                }
            }
        }
    }
}

fn concerned(package: &PackageRecord) -> Concerned {
    Concerned {
        digest: package.digest,
        name: match &package.version {
            Some(version) => format!("{} {version}", package.name),
            None => package.name.to_string(),
        },
        file_name: package.file_name.clone(),
    }
}

/// Returns who keeps each of these blobs; nothing of those that nobody keeps.
fn find_keepers(
    catalog: &Catalog,
    digests: &BTreeSet<Digest>,
) -> Result<BTreeMap<Digest, Keepers>, Error> {
    let mut found: BTreeMap<Digest, Keepers> = BTreeMap::new();
    catalog.for_each_content(|package, content| {
        let entries = content.entries();
        for digest in digests {
            let Ok(index) = entries.binary_search_by_key(digest, |(digest, _)| *digest) else {
                continue;
            };
            let keepers = found.entry(*digest).or_default();
            keepers.size_bytes = entries[index].1;
            keepers.count += 1;
            if keepers.first.len() < PACKAGES_NAMED {
                keepers.first.push(package);
            }
        }
        Ok::<_, Error>(())
    })?;
    Ok(found)
}

fn read_packages(
    catalog: &Catalog,
    keepers: &BTreeMap<Digest, Keepers>,
) -> Result<BTreeMap<Digest, Arc<PackageRecord>>, Error> {
    let named: BTreeSet<Digest> = keepers
        .values()
        .flat_map(|keepers| keepers.first.iter().copied())
        .collect();
    let mut packages = BTreeMap::new();
    for digest in named {
        if let Some(record) = catalog.find_package(&digest)? {
            packages.insert(digest, Arc::new(record));
        }
    }
    Ok(packages)
}
