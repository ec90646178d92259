//! How much of a blob goes into one request, learned from what became of earlier ones.

use std::sync::{Mutex, MutexGuard};

/// From which size on a blob goes by PATCH, so that it can be resumed, in bytes; and how much goes into one PATCH as long as
/// the registry was not seen to keep one that was cut. See the header of this folder for why that is bounded at all.
///
/// Each PATCH costs a round trip and a sync of the registry's disk. 512 MiB to docker-registry 2.8 over loopback, medians of three
/// on 2026-11-21, machine shared: one PUT 2.1 s; in chunks of 8 MiB 3.2 s, 16 MiB 2.7 s, 32 MiB 2.4 s, 64 MiB 2.2 s, 128 MiB and
/// more 2.1 s. So 64 MiB are the least that cost next to nothing.
pub(super) const CHUNK_BYTES: u64 = 64 << 20;
/// The least that chunks shrink to after cuts, in bytes: less would make a slow link slower than what it loses. Chosen, not
/// measured.
const CHUNK_BYTES_MIN: u64 = 4 << 20;
/// The least that chunks shrink to where bodies are refused for their size, in bytes. nginx's own limit is 1 MiB; a proxy with
/// less than a quarter of that is not for registries.
const BODY_BYTES_MIN: u64 = 256 << 10;
/// How many blobs go through in chunks before larger ones are tried again. Chosen, not measured: cuts that come by chance should
/// not slow a client down for ever, those that come by rule should not cost more than one blob in sixteen.
const BLOBS_BEFORE_MORE: u32 = 16;
/// What may be under way between us and a registry and is lost in any case, in bytes: more than Linux keeps for a connection on
/// both sides (4 and 6 MiB by default). What is kept of less says nothing.
const UNDER_WAY_BYTES: u64 = 12 << 20;

/// What a registry keeps of a request that was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Keeps {
    #[default]
    Unknown,
    /// What came.
    Part,
    /// Only requests that were whole, or not even those before.
    Whole,
}

/// What a client remembers about sizes.
#[derive(Debug, Default)]
pub(super) struct Chunks(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    keeps: Keeps,
    /// The largest body that was not refused for its size, as far as known.
    body_bytes_max: Option<u64>,
    /// The bound after cuts.
    cut_bytes_max: Option<u64>,
    /// Blobs that went through since the last cut.
    blobs: u32,
    /// Whether the registry takes blobs by `PATCH` only.
    is_parts_only: bool,
}

/// How a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Its length.
    pub(super) bytes: u64,
    /// Whether the connection is closed after it.
    pub(super) is_alone: bool,
}

/// What became of a session in which a request was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterCut {
    /// It is there, with this much more than before, in bytes.
    Kept(u64),
    /// It is gone.
    Lost,
}

impl Chunks {
    /// Returns whether a whole blob of this size goes in one request, from its beginning.
    pub(super) fn takes_whole(&self, size_bytes: u64) -> bool {
        let state = self.state();
        let bound = state.cut_bytes_max.into_iter().chain(state.body_bytes_max);
        let fits = size_bytes < CHUNK_BYTES && bound.min().is_none_or(|bound| size_bytes <= bound);
        fits && !state.is_parts_only
    }

    /// Returns how the next chunk goes, of a blob of which `rest_bytes` are left. The registry wants chunks of at least
    /// `bytes_min`, but for the last one.
    pub(super) fn next(&self, rest_bytes: u64, bytes_min: u64) -> Chunk {
        let state = self.state();
        let bound = match state.keeps {
            Keeps::Part => u64::MAX,
            Keeps::Unknown | Keeps::Whole => {
                state.cut_bytes_max.unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)
            }
        };
        let bound = bound.min(state.body_bytes_max.unwrap_or(u64::MAX));
        Chunk {
            bytes: bound.max(bytes_min).min(rest_bytes),
            is_alone: state.keeps == Keeps::Whole && state.cut_bytes_max.is_some(),
        }
    }

    /// Learns that a body of this size was refused for its size. Returns whether a smaller one can be tried, where the registry
    /// wants chunks of at least `bytes_min`.
    pub(super) fn learn_refused(&self, body_bytes: u64, bytes_min: u64) -> bool {
        let mut state = self.state();
        if body_bytes <= BODY_BYTES_MIN.max(bytes_min) {
            return false;
        }
        // Others may have learned more in the meantime.
        let half = (body_bytes / 2).max(BODY_BYTES_MIN);
        state.body_bytes_max = Some(state.body_bytes_max.unwrap_or(half).min(half));
        true
    }

    /// Learns what became of a session in which a request of `body_bytes` was cut after `handed_bytes` of it had been handed to
    /// the connection.
    pub(super) fn learn_cut(&self, body_bytes: u64, handed_bytes: u64, after: AfterCut) {
        let mut state = self.state();
        match after {
            AfterCut::Kept(1..) => state.keeps = Keeps::Part,
            AfterCut::Kept(0) if handed_bytes < UNDER_WAY_BYTES => {}
            AfterCut::Kept(0) | AfterCut::Lost => {
                state.keeps = Keeps::Whole;
                state.shrink(body_bytes);
            }
        }
    }

    /// Learns that a blob in one request was cut more than once.
    pub(super) fn learn_cut_whole(&self, body_bytes: u64) {
        self.state().shrink(body_bytes);
    }

    /// Learns that the registry takes by `PATCH` what it fails to take in one request. Its refusals may have looked like cuts.
    pub(super) fn learn_parts_only(&self) {
        let mut state = self.state();
        state.is_parts_only = true;
        state.cut_bytes_max = None;
    }

    /// Learns that a blob went through in chunks.
    pub(super) fn learn_done(&self) {
        let mut state = self.state();
        let Some(bound) = state.cut_bytes_max else {
            return;
        };
        state.blobs += 1;
        if state.blobs >= BLOBS_BEFORE_MORE {
            state.blobs = 0;
            state.cut_bytes_max = Some(bound * 2).filter(|bound| *bound < CHUNK_BYTES);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl State {
    fn shrink(&mut self, body_bytes: u64) {
        let half = (body_bytes / 2).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES);
        self.cut_bytes_max = Some(self.cut_bytes_max.unwrap_or(half).min(half));
        self.blobs = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn sizes(chunks: &Chunks) -> (u64, bool) {
        let chunk = chunks.next(GIB, 0);
        (chunk.bytes / MIB, chunk.is_alone)
    }

    #[test]
    fn small_blobs_go_whole_and_large_ones_in_chunks() {
        let chunks = Chunks::default();
        assert!(chunks.takes_whole(0));
        assert!(chunks.takes_whole(32 * MIB));
        assert!(!chunks.takes_whole(64 * MIB));
        assert_eq!(sizes(&chunks), (64, false));
        assert_eq!(chunks.next(5, 0).bytes, 5);
        assert_eq!(chunks.next(GIB, 100 * MIB).bytes, 100 * MIB);
        assert_eq!(chunks.next(7, 100 * MIB).bytes, 7);
    }

    #[test]
    fn a_registry_that_keeps_what_was_cut_gets_the_rest_at_once() {
        let chunks = Chunks::default();
        chunks.learn_cut(64 * MIB, 20 * MIB, AfterCut::Kept(10 * MIB));
        assert_eq!(chunks.next(10 * GIB, 0).bytes, 10 * GIB);
        assert!(!chunks.takes_whole(64 * MIB));
    }

    #[test]
    fn a_registry_that_loses_the_session_gets_less_each_time_on_connections_of_their_own() {
        let chunks = Chunks::default();
        let cut = |body: u64| chunks.learn_cut(body * MIB, MIB, AfterCut::Lost);
        for expected in [32, 16, 8, 4, 4] {
            cut(sizes(&chunks).0);
            assert_eq!(sizes(&chunks), (expected, true));
        }
        assert!(!chunks.takes_whole(5 * MIB));
        for expected in [8, 16, 32, 64] {
            for _ in 0..BLOBS_BEFORE_MORE {
                chunks.learn_done();
            }
            assert_eq!(sizes(&chunks).0, expected);
        }
        assert!(chunks.takes_whole(63 * MIB));
    }

    #[test]
    fn a_registry_that_takes_parts_only_gets_one_part_of_what_would_go_whole() {
        let chunks = Chunks::default();
        chunks.learn_cut_whole(20 * MIB);
        chunks.learn_parts_only();
        assert!(!chunks.takes_whole(1));
        assert_eq!(chunks.next(20 * MIB, 0).bytes, 20 * MIB);
    }

    #[test]
    fn what_was_under_way_says_nothing() {
        let chunks = Chunks::default();
        chunks.learn_cut(64 * MIB, 10 * MIB, AfterCut::Kept(0));
        assert_eq!(sizes(&chunks), (64, false));
        chunks.learn_cut(64 * MIB, 20 * MIB, AfterCut::Kept(0));
        assert_eq!(sizes(&chunks), (32, true));
    }

    #[test]
    fn a_proxy_that_refuses_bodies_for_their_size_gets_half_until_it_takes_one() {
        let chunks = Chunks::default();
        assert!(chunks.learn_refused(40 * MIB, 0));
        assert!(!chunks.takes_whole(21 * MIB));
        assert!(chunks.takes_whole(20 * MIB));
        assert_eq!(sizes(&chunks), (20, false));
        // A larger one that was under way.
        assert!(chunks.learn_refused(64 * MIB, 0));
        assert_eq!(sizes(&chunks), (20, false));
        assert!(!chunks.learn_refused(20 * MIB, 20 * MIB));
        chunks.learn_cut(20 * MIB, 5 * MIB, AfterCut::Kept(MIB));
        assert_eq!(sizes(&chunks), (20, false));
        let mut asked = 0;
        while chunks.learn_refused(chunks.next(GIB, 0).bytes, 0) {
            asked += 1;
        }
        assert_eq!(chunks.next(GIB, 0).bytes, BODY_BYTES_MIN);
        assert_eq!(asked, 7);
    }

    proptest! {
        #[test]
        fn chunks_are_never_empty_and_never_more_than_the_rest(
            steps in proptest::collection::vec((0_u8..5, 1_u64..4 * GIB, 0_u64..4 * GIB), 0..40),
            rest in 1_u64..1 << 40,
            bytes_min in 0_u64..GIB,
        ) {
            let chunks = Chunks::default();
            for (step, body, handed) in steps {
                match step {
                    0 => drop(chunks.learn_refused(body, bytes_min)),
                    1 => chunks.learn_cut(body, handed, AfterCut::Kept(handed)),
                    2 => chunks.learn_cut(body, handed, AfterCut::Lost),
                    3 => chunks.learn_cut_whole(body),
                    _ => chunks.learn_done(),
                }
                let chunk = chunks.next(rest, bytes_min);
                prop_assert!((1..=rest).contains(&chunk.bytes));
                prop_assert!(chunk.bytes >= bytes_min.min(rest));
            }
        }
    }
}
