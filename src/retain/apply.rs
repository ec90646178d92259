//! Retention: removes the packages of a plan that somebody, or a schedule, has approved of.
//!
//! # Durability
//!
//! A removal is on the audit record before the package goes. A crash in between leaves the package there, and the next run
//! puts its removal on record again. Blobs stay until they are collected.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::gather::Planner;
use super::job::Work;
use super::plan::{Amount, Kept, PlanId, Removal, total};
use super::{Counters, Error};
use crate::audit::{self, Event, Removed};
use crate::base::ByteCount;
use crate::catalog::JobRecord;

/// What removes packages. A cheap clone.
#[derive(Clone, Debug)]
pub struct Retention {
    /// What decides.
    pub planner: Planner,
    /// Where removals are put on record.
    pub audit: audit::Log,
    /// What was done since the start.
    pub counters: Arc<Counters>,
}

/// Who has approved of removals. The names are persisted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approval {
    /// Somebody asked for it.
    Request,
    /// The configured schedule.
    #[default]
    Schedule,
}

impl Approval {
    /// Returns the stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Schedule => "schedule",
        }
    }
}

/// What is to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Who has approved.
    pub approval: Approval,
    /// The plan that was approved, where only that one may be carried out.
    pub plan: Option<PlanId>,
    /// Only these packages of the plan, by their digests or how those begin; all if empty.
    pub only: Vec<String>,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The plan that was carried out, or of which a part was.
    pub plan: PlanId,
    /// Packages that were removed.
    pub removed: Vec<Removal>,
    /// Packages of the plan that stay, because something keeps them now.
    pub spared: Vec<Kept>,
    /// What nothing keeps any more, for collection to remove; less by what spared packages keep.
    pub freed: Amount,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (removed, spared) = (self.removed.len(), self.spared.len());
        let (blobs, bytes) = (self.freed.blobs, ByteCount(self.freed.bytes));
        write!(
            f,
            "{removed} packages removed, {spared} spared, {blobs} blobs ({bytes}) left to collection"
        )
    }
}

impl Retention {
    /// Makes the plan again and removes what it says. Blocking.
    pub fn apply(&self, order: &Order, stop: &CancellationToken) -> Result<Applied, Error> {
        let plan = self.planner.plan()?;
        if let Some(expected) = order.plan.as_ref().filter(|expected| **expected != plan.id) {
            return Err(Error::PlanChanged {
                expected: expected.clone(),
                found: plan.id,
            });
        }
        let mut removals = plan.removals;
        if !order.only.is_empty() {
            removals = select(removals, &order.only)?;
            self.planner.weigh(&mut removals)?;
        }
        let (mut removed, mut spared) = (Vec::new(), Vec::new());
        for removal in removals {
            if stop.is_cancelled() {
                return Err(Error::Stopped);
            }
            match self.remove(removal, order.approval)? {
                Ok(removal) => removed.push(removal),
                Err(kept) => spared.push(kept),
            }
        }
        let freed = total(&removed);
        Ok(Applied {
            plan: plan.id,
            removed,
            spared,
            freed,
        })
    }

    /// Removes one package, unless something keeps it now.
    fn remove(&self, removal: Removal, approval: Approval) -> Result<Result<Removal, Kept>, Error> {
        let _alone = self.planner.alone();
        let package = &removal.package;
        if let Some(because) = self.planner.recheck(&package.digest)? {
            tracing::info!(digest = %package.digest, name = %package.name, %because, "package stays after all");
            let package = removal.package;
            return Ok(Err(Kept { package, because }));
        }
        let event = Event::Removed(Removed {
            digest: package.digest,
            package: audit::Package {
                name: package.name.clone(),
                version: package.version.as_deref().map(audit::clip),
                kind: package.kind,
            },
            approved_by: approval.name().to_owned(),
            rule: audit::clip(&removal.rule),
        });
        self.audit.append(&event, self.planner.clock.now())?;
        self.planner.catalog.remove_package(&package.digest)?;
        self.counters
            .packages_removed
            .fetch_add(1, Ordering::Relaxed);
        tracing::info!(
            digest = %package.digest,
            name = %package.name,
            version = package.version,
            approved_by = approval.name(),
            rule = removal.rule,
            "package is removed"
        );
        Ok(Ok(removal))
    }
}

/// Returns the removals that were named, in the order of the plan.
fn select(removals: Vec<Removal>, only: &[String]) -> Result<Vec<Removal>, Error> {
    let fits = |removal: &Removal, text: &str| {
        let digest = removal.package.digest.to_string();
        let hex = digest.strip_prefix("sha256:").unwrap_or(&digest);
        digest == text || (text.len() >= super::pin::PREFIX_DIGITS_MIN && hex.starts_with(text))
    };
    for text in only {
        let found = removals.iter().filter(|it| fits(it, text)).count();
        if found != 1 {
            let text = text.clone();
            return Err(Error::NotPlanned { text, found });
        }
    }
    let is_chosen = |removal: &Removal| only.iter().any(|text| fits(removal, text));
    Ok(removals.into_iter().filter(is_chosen).collect())
}

impl Work for Retention {
    const NAME: &'static str = "retention";
    type Request = Order;
    type Report = Applied;
    type Error = Error;

    async fn run(
        &mut self,
        order: Order,
        record: &mut JobRecord,
        stop: &CancellationToken,
    ) -> Result<Applied, Error> {
        let (work, stop) = (self.clone(), stop.clone());
        let applied = tokio::task::spawn_blocking(move || work.apply(&order, &stop)).await??;
        record.state = serde_json::json!({
            "plan": applied.plan,
            "removed": applied.removed.len(),
            "spared": applied.spared.len(),
            "freed": applied.freed,
        });
        Ok(applied)
    }
}
