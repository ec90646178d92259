//! The requests of one kind: who may start, in the order in which they came.
//!
//! # Concurrency
//!
//! A semaphore hands out the places, first come, first served. Its size follows the [`Limit`]: what is too much is taken back
//! from places that are free, at once, and from others when they become free. A future that is dropped, before or after it got
//! its place, leaves nothing behind.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::limit::{Limit, Sign};

/// The requests of one kind.
#[derive(Debug)]
pub(super) struct Lane {
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: Limit,
    max: usize,
    /// How many places there are, free or not.
    places: usize,
    taken: usize,
    waiting: usize,
    refused: u64,
    /// Before which no request begins.
    next_at: Instant,
}

/// What a lane is like at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneState {
    pub(super) limit: usize,
    pub(super) max: usize,
    pub(super) in_flight: usize,
    pub(super) waiting: usize,
    pub(super) refused: u64,
}

impl Lane {
    /// Returns a lane for at most `max` requests at once.
    pub(super) fn new(max: usize, now: Instant) -> Self {
        let limit = Limit::new(max, now);
        let places = limit.count();
        Self {
            places: Arc::new(Semaphore::new(places)),
            state: Mutex::new(State {
                limit,
                max,
                places,
                taken: 0,
                waiting: 0,
                refused: 0,
                next_at: now,
            }),
        }
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>) -> Place {
        let _waiting = Waiting::new(self);
        loop {
            let permit = Arc::clone(&self.places).acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            let mut state = self.lock();
            if state.places <= state.limit.count() {
                state.taken += 1;
                break Place {
                    lane: Arc::clone(self),
                    permit: Some(permit),
                };
            }
            // It was on its way to somebody when the limit fell.
            state.places -= 1;
            permit.forget();
        }
    }

    /// Begins a request of one who has a place, or returns when that can be tried again.
    pub(super) fn begin(&self, now: Instant) -> Result<(), Instant> {
        let mut state = self.lock();
        if state.next_at > now {
            return Err(state.next_at);
        }
        state.next_at = now + state.limit.gap();
        Ok(())
    }

    pub(super) fn state(&self) -> LaneState {
        let state = self.lock();
        LaneState {
            limit: state.limit.count(),
            max: state.max,
            in_flight: state.taken,
            waiting: state.waiting,
            refused: state.refused,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// Counts one who waits, for as long as it exists.
struct Waiting<'a>(&'a Lane);

impl<'a> Waiting<'a> {
    fn new(lane: &'a Lane) -> Self {
        lane.lock().waiting += 1;
        Self(lane)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// The right to have one request in flight. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    lane: Arc<Lane>,
    /// `None` only while it is dropped.
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Learns from a request that began at `begun_at` and has ended.
    pub(super) fn learn(&self, sign: Sign, begun_at: Instant, now: Instant) {
        let mut state = self.lane.lock();
        let is_full = state.taken >= state.limit.count();
        state.refused += u64::from(sign == Sign::Refused);
        state.limit.learn(sign, begun_at, is_full, now);
        if sign == Sign::Refused {
            state.next_at = state.next_at.max(now + state.limit.gap());
        }
        let wanted = state.limit.count();
        if wanted > state.places {
            self.lane.places.add_permits(wanted - state.places);
            state.places = wanted;
        } else {
            state.places -= self.lane.places.forget_permits(state.places - wanted);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.lane.lock();
        state.taken -= 1;
        let permit = self.permit.take();
        if state.places > state.limit.count() {
            state.places -= 1;
            if let Some(permit) = permit {
                permit.forget();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn lane(max: usize) -> Arc<Lane> {
        Arc::new(Lane::new(max, Instant::now()))
    }

    fn take(lane: &Arc<Lane>) -> Option<Place> {
        match poll(pin!(lane.enter())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    #[test]
    fn places_go_to_who_came_first_and_a_dropped_future_leaves_nothing() {
        let lane = lane(1);
        let place = take(&lane).unwrap();
        let mut first = Box::pin(lane.enter());
        let mut second = Box::pin(lane.enter());
        let mut third = Box::pin(lane.enter());
        for waiting in [&mut first, &mut second, &mut third] {
            assert!(poll(waiting.as_mut()).is_pending());
        }
        assert_eq!(lane.state().waiting, 3);
        drop(first);
        drop(place);
        assert!(poll(third.as_mut()).is_pending(), "second came before");
        let place = poll(second.as_mut());
        assert!(place.is_ready());
        // The place was given, but never looked at.
        drop(place);
        drop(third);
        assert!(take(&lane).is_some());
        let state = lane.state();
        assert_eq!((state.in_flight, state.waiting), (0, 0));
    }

    #[test]
    fn a_lower_limit_holds_as_soon_as_places_become_free() {
        let lane = lane(4);
        let begun_at = Instant::now();
        let mut places: Vec<Place> = (0..4).map(|_| take(&lane).unwrap()).collect();
        places[0].learn(Sign::Refused, begun_at, begun_at + Duration::from_secs(1));
        assert_eq!(lane.state().limit, 2);
        for left in [3, 2] {
            places.pop();
            assert_eq!(lane.state().in_flight, left);
            assert!(take(&lane).is_none(), "{left} are in flight");
        }
        places.pop();
        assert!(take(&lane).is_some());
        assert_eq!(lane.state().refused, 1);
    }

    proptest! {
        /// However requests come, end and are given up: never more in flight than the limit allowed when they started, and all
        /// places are there in the end.
        #[test]
        fn places_are_neither_lost_nor_made(
            max in 1_usize..10,
            steps in proptest::collection::vec((0..4_u8, any::<u8>()), 0..300),
        ) {
            let lane = lane(max);
            let mut now = Instant::now();
            let mut places: Vec<(Place, Instant)> = Vec::new();
            for (what, number) in steps {
                now += Duration::from_millis(1);
                let at = usize::from(number) % places.len().max(1);
                match what {
                    0 => {
                        let allowed = lane.state().limit;
                        let place = take(&lane);
                        prop_assert_eq!(place.is_some(), places.len() < allowed);
                        places.extend(place.map(|place| (place, now)));
                    }
                    1 if !places.is_empty() => drop(places.swap_remove(at)),
                    2 if !places.is_empty() => {
                        let (place, begun_at) = places.swap_remove(at);
                        place.learn(Sign::Refused, begun_at, now);
                    }
                    _ if !places.is_empty() => {
                        let (place, begun_at) = places.swap_remove(at);
                        place.learn(Sign::Answered(Duration::ZERO), begun_at, now);
                    }
                    _ => {}
                }
                prop_assert_eq!(lane.state().in_flight, places.len());
            }
            places.clear();
            let limit = lane.state().limit;
            let all: Vec<Place> = std::iter::from_fn(|| take(&lane)).collect();
            prop_assert_eq!(all.len(), limit);
        }
    }
}
