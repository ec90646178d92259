//! How fast and how much at once one registry is asked: as much as it takes, and nothing while it wants nothing.
//!
//! Start from [`Pace::enter`]: every request waits there for a [`Permit`], keeps it while it is in flight with its body, and says
//! in the end what became of it ([`Permit::settle`]). All clones of a client share one pace.
//!
//! # Layout
//!
//! ```text
//! lane       places for the requests of one kind, first come, first served
//! limit      how many there are (pure); latency, throughput: what it learns from besides refusals
//! breaker    whether the server is there at all (pure)
//! bandwidth  bytes of blobs per second
//! report     what the end of a request says to each of them
//! state      what it is like now, for those who look
//! ```
//!
//! # Invariants
//!
//! - A permit is held while its request is in flight, never while a repetition waits for its time.
//! - Nobody who holds a permit waits for another one: a request that is redirected, or authorised again, stays under its own.
//! - After a `Retry-After` nothing starts at that registry before its time, of whatever kind: the limits that registries
//!   have are those of a client or of the server, not of a kind of request.
//! - Giving up an upload (`DELETE`) needs no permit: it takes load away.
//!
//! # Failure
//!
//! A registry that is gone is left alone for a while, and requests fail at once with [`Error::Resting`](super::Error), which is
//! not repeated. The run of the caller ends early, the next one finds the registry again.

mod bandwidth;
mod breaker;
mod lane;
mod latency;
mod limit;
mod report;
mod state;
mod throughput;

use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;
use tokio::time::Instant;

use self::bandwidth::Bandwidth;
pub use self::breaker::BreakerOptions;
use self::breaker::{Breaker, Verdict};
use self::lane::{Lane, Place};
pub(super) use self::report::Report;
use self::report::Server;
pub use self::state::{BreakerState, Kind, KindState, PaceState};

/// The most requests of one kind in flight at once, where nobody says otherwise. Chosen, not measured: twice of what was
/// fixed before.
const CONCURRENCY_MAX: usize = 8;
/// The longest time that a server may ask for with `Retry-After`, for all requests. Chosen, not measured: longer than any
/// rate limit's window seen.
const HOLD_MAX: Duration = Duration::from_mins(5);

/// How much a registry is asked at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceOptions {
    /// The most requests of each [`Kind`] in flight at once. At least 1.
    pub concurrency_max: usize,
    /// The most bytes of blobs that are sent per second; `None` is without limit.
    pub bandwidth_max: Option<NonZeroU64>,
    /// When the registry counts as gone.
    pub breaker: BreakerOptions,
}

impl Default for PaceOptions {
    fn default() -> Self {
        Self {
            concurrency_max: CONCURRENCY_MAX,
            bandwidth_max: None,
            breaker: BreakerOptions::default(),
        }
    }
}

/// The pace at one registry.
#[derive(Debug)]
pub(super) struct Pace {
    lanes: [Arc<Lane>; Kind::ALL.len()],
    gate: Mutex<Gate>,
    /// Told whenever the gate has changed.
    changed: watch::Sender<()>,
    bandwidth: Arc<Bandwidth>,
}

/// What holds for requests of every kind.
#[derive(Debug)]
struct Gate {
    breaker: Breaker,
    /// Until when the server wants no request.
    held_until: Option<Instant>,
}

/// Nothing is sent before this moment, because the server is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resting {
    pub(super) until: Instant,
}

/// What keeps a request that has a place from starting.
enum Obstacle {
    /// The gate must change first.
    Probe,
    /// It is too early.
    Hold(Instant),
}

impl Pace {
    /// Returns a pace. `idle` is after how long without progress an upload counts as standing still.
    pub(super) fn new(options: PaceOptions, idle: Duration) -> Self {
        let now = Instant::now();
        let lane = || Arc::new(Lane::new(options.concurrency_max, now));
        // Often enough to be seen within that time.
        let heartbeat = idle / 4;
        Self {
            lanes: [lane(), lane(), lane()],
            gate: Mutex::new(Gate {
                breaker: Breaker::new(options.breaker),
                held_until: None,
            }),
            changed: watch::Sender::new(()),
            bandwidth: Arc::new(Bandwidth::new(options.bandwidth_max, heartbeat, now)),
        }
    }

    /// Lets the pieces of a blob through as fast as the bandwidth allows. Counts up `progress` while they wait for that.
    pub(super) fn throttle<S, E>(
        &self,
        pieces: S,
        progress: Arc<AtomicU64>,
    ) -> impl Stream<Item = Result<Bytes, E>> + Send + use<S, E>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: 'static,
    {
        Arc::clone(&self.bandwidth).limit(pieces, progress)
    }

    /// Changes the most bytes of blobs per second, also for what is under way; `None` is without limit.
    pub(super) fn set_bandwidth(&self, rate: Option<NonZeroU64>) {
        self.bandwidth.set_rate(rate);
    }

    /// Waits until a request of this kind may start. `operation` tells operations apart.
    pub(super) async fn enter(
        self: &Arc<Self>,
        kind: Kind,
        operation: u64,
    ) -> Result<Permit, Resting> {
        let mut changes = self.changed.subscribe();
        let mut entering = pin!(self.lanes[kind.index()].enter());
        let place = loop {
            self.check_resting()?;
            tokio::select! {
                place = &mut entering => break place,
                // The sender is in `self`, so that there is always one.
                _ = changes.changed() => {}
            }
        };
        let is_probe = loop {
            let until = match self.admit(kind)? {
                Ok(is_probe) => break is_probe,
                Err(Obstacle::Hold(until)) => Some(until),
                Err(Obstacle::Probe) => None,
            };
            tokio::select! {
                () = sleep_until(until) => {}
                _ = changes.changed() => {}
            }
        };
        Ok(Permit {
            pace: Arc::clone(self),
            place,
            operation,
            begun_at: Instant::now(),
            is_probe,
        })
    }

    fn check_resting(&self) -> Result<(), Resting> {
        let rests_until = self.gate().breaker.rests_until(Instant::now());
        rests_until.map_or(Ok(()), |until| Err(Resting { until }))
    }

    /// Lets a request go that has a place, and says whether it is the probe.
    fn admit(&self, kind: Kind) -> Result<Result<bool, Obstacle>, Resting> {
        let now = Instant::now();
        let mut gate = self.gate();
        if let Some(until) = gate.breaker.rests_until(now) {
            return Err(Resting { until });
        }
        let held_until = gate.held_until.filter(|until| *until > now);
        if let Some(until) = held_until {
            return Ok(Err(Obstacle::Hold(until)));
        }
        if let Err(until) = self.lanes[kind.index()].begin(now) {
            return Ok(Err(Obstacle::Hold(until)));
        }
        match gate.breaker.admit(now) {
            Verdict::Go => Ok(Ok(false)),
            Verdict::Probe => Ok(Ok(true)),
            Verdict::Wait => Ok(Err(Obstacle::Probe)),
            Verdict::Fail(until) => Err(Resting { until }),
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().expect("no holder of this lock panics")
    }
}

/// Sleeps until then, or for ever.
async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// The right to have one request in flight.
#[derive(Debug)]
pub(super) struct Permit {
    pace: Arc<Pace>,
    place: Place,
    operation: u64,
    begun_at: Instant,
    /// Whether the others wait for the end of this one.
    is_probe: bool,
}

impl Permit {
    /// Says what became of the request, once.
    pub(super) fn settle(&mut self, report: Report) {
        let now = Instant::now();
        let Report {
            sign,
            server,
            hold_for,
        } = report.throttled_by(self.pace.bandwidth.rate());
        self.place.learn(sign, self.begun_at, now);
        let mut gate = self.pace.gate();
        let has_changed = match server {
            Server::There => gate.breaker.succeed(),
            Server::Gone => gate.breaker.fail(self.operation, self.is_probe, now),
            Server::Unknown => false,
        };
        if has_changed {
            self.is_probe = false;
        }
        if let Some(hold) = hold_for {
            let until = now + hold.min(HOLD_MAX);
            gate.held_until = gate.held_until.max(Some(until));
        }
        if has_changed || hold_for.is_some() {
            self.pace.changed.send_replace(());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_probe {
            self.pace.gate().breaker.give_back(Instant::now());
            self.pace.changed.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests;
