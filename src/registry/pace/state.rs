//! What the pace at a registry is like at a moment.

use std::num::NonZeroU64;

use reqwest::Method;
use tokio::time::Instant;

use super::Pace;
use super::breaker::BreakerPhase;
use crate::base::Timestamp;
use crate::registry::payload::Payload;
use crate::registry::wire::Request;

/// Kinds of requests, each of which has a limit of its own: a registry takes many questions and few uploads at once, or the other
/// way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `HEAD` and `GET` of manifests, blobs and lists.
    Reads,
    /// `POST`, `PATCH` and `PUT` of blobs.
    Uploads,
    /// `PUT` of manifests.
    Manifests,
}

impl Kind {
    /// All of them, in the order of the lanes.
    pub const ALL: [Self; 3] = [Self::Reads, Self::Uploads, Self::Manifests];

    /// Returns the name, for metrics and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Uploads => "uploads",
            Self::Manifests => "manifests",
        }
    }

    pub(super) const fn index(self) -> usize {
        match self {
            Self::Reads => 0,
            Self::Uploads => 1,
            Self::Manifests => 2,
        }
    }

    /// Returns the kind of a request; none of one that needs no permit.
    pub(in crate::registry) fn of(request: &Request) -> Option<Self> {
        match request.method {
            Method::GET | Method::HEAD => Some(Self::Reads),
            Method::DELETE => None,
            Method::PUT if is_manifest(request) => Some(Self::Manifests),
            _ => Some(Self::Uploads),
        }
    }
}

/// Returns whether a request puts a manifest. Where a session of an upload is, the registry decides: not by the path alone.
fn is_manifest(request: &Request) -> bool {
    let names_manifest = request
        .url
        .path_segments()
        .is_some_and(|segments| segments.rev().nth(1) == Some("manifests"));
    names_manifest && matches!(request.payload, Payload::Bytes(_))
}

/// The pace at a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaceState {
    /// The requests of each kind, in the order of [`Kind::ALL`].
    pub kinds: Vec<KindState>,
    /// Whether the registry is there.
    pub breaker: BreakerState,
    /// Until when it wants no request (`Retry-After`).
    pub held_until: Option<Timestamp>,
    /// The most bytes of blobs that are sent per second.
    pub bandwidth_max: Option<NonZeroU64>,
    /// Bytes of blobs that were let through by that limit since the client was made; without one all that were sent.
    pub passed_bytes: u64,
}

/// The requests of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindState {
    /// Which.
    pub kind: Kind,
    /// How many may be in flight now.
    pub limit: usize,
    /// How many may be at the most.
    pub limit_max: usize,
    /// How many are.
    pub in_flight: usize,
    /// How many wait for their turn.
    pub waiting: usize,
    /// How many were answered with 429 or 503 since the client was made.
    pub refused: u64,
}

/// Whether a registry is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// As far as is known.
    Closed,
    /// It is not, and nothing is sent until then.
    Resting(Timestamp),
    /// One request finds out.
    Probing,
}

impl Pace {
    /// Returns what it is like now, which is `now` on the clock.
    pub(in crate::registry) fn state(&self, now: Timestamp) -> PaceState {
        let instant = Instant::now();
        let at = |moment: Instant| now + moment.saturating_duration_since(instant);
        let kinds = Kind::ALL.map(|kind| {
            let lane = self.lanes[kind.index()].state();
            KindState {
                kind,
                limit: lane.limit,
                limit_max: lane.max,
                in_flight: lane.in_flight,
                waiting: lane.waiting,
                refused: lane.refused,
            }
        });
        let gate = self.gate();
        let held_until = gate.held_until.filter(|until| *until > instant);
        PaceState {
            kinds: kinds.to_vec(),
            breaker: match gate.breaker.phase() {
                BreakerPhase::Closed => BreakerState::Closed,
                BreakerPhase::Open(until) => BreakerState::Resting(at(until)),
                BreakerPhase::Probing => BreakerState::Probing,
            },
            held_until: held_until.map(at),
            bandwidth_max: self.bandwidth.rate(),
            passed_bytes: self.bandwidth.passed(),
        }
    }
}
