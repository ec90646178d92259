//! Which requests a [`Proxy`](super::Proxy) refuses with 429 instead of passing them on.

use std::sync::Mutex;

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Exactly every third request, whatever it is and whenever it comes, with this `Retry-After` in seconds.
    EveryThird(Option<u32>),
    /// What is more than so many in flight, as limiters of connections have it.
    InFlight(usize),
}

impl Limit {
    /// Returns what the refused are told of when to come again, in seconds.
    pub(super) fn retry_after(self) -> Option<u32> {
        match self {
            Self::EveryThird(seconds) => seconds,
            Self::InFlight(_) => None,
        }
    }
}

/// Decides, and keeps what it has decided.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: Limit,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    /// Of each request whether it was refused.
    refused: Vec<bool>,
}

/// A request that was let through and has no answer yet.
#[derive(Debug)]
pub(super) struct InFlight<'a>(&'a Limiter);

impl Limiter {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            limit,
            state: Mutex::default(),
        }
    }

    pub(super) fn limit(&self) -> Limit {
        self.limit
    }

    /// Lets a request through, unless it is one too many.
    pub(super) fn admit(&self) -> Option<InFlight<'_>> {
        let mut state = self.state.lock().unwrap();
        let is_refused = match self.limit {
            Limit::EveryThird(_) => state.refused.len() % 3 == 2,
            Limit::InFlight(max) => state.in_flight >= max,
        };
        state.refused.push(is_refused);
        if is_refused {
            return None;
        }
        state.in_flight += 1;
        Some(InFlight(self))
    }

    /// Returns of each request so far whether it was refused.
    pub(super) fn refused(&self) -> Vec<bool> {
        self.state.lock().unwrap().refused.clone()
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().in_flight -= 1;
    }
}
