//! When a job runs, whatever the clock does, and what whoever asks is told.

use tempfile::TempDir;

use super::*;
use crate::base::ManualClock;
use crate::sys::fault::{Faults, Moment, Then};

/// Work that counts its runs.
#[derive(Debug, Default)]
struct Counting(u64);

impl Work for Counting {
    const NAME: &'static str = "counting";
    type Request = ();
    type Report = u64;
    type Error = catalog::Error;

    async fn run(
        &mut self,
        (): (),
        _: &mut JobRecord,
        _: &CancellationToken,
    ) -> Result<u64, catalog::Error> {
        self.0 += 1;
        Ok(self.0)
    }
}

/// Due at every full hour.
#[derive(Debug)]
struct Hourly;

impl Timetable for Hourly {
    fn latest_due(&self, now: Timestamp) -> Option<Timestamp> {
        Timestamp::from_timestamp(now.timestamp() / 3600 * 3600, 0)
    }

    fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        Some(self.latest_due(now)? + TimeDelta::hours(1))
    }
}

struct Bench {
    dir: TempDir,
    clock: Arc<ManualClock>,
    job: Job<Counting>,
    handle: Handle<Counting>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(at("2026-11-21T12:30:00Z")));
        let catalog = Catalog::open(dir.path()).unwrap();
        let timetable: Arc<dyn Timetable> = Arc::new(Hourly);
        let shared = Arc::clone(&clock) as Arc<dyn Clock>;
        let (job, handle) = Job::new(Counting::default(), catalog, shared, Some(timetable));
        Self {
            dir,
            clock,
            job,
            handle,
        }
    }

    /// Looks at this time, and returns how often the work was done in all.
    async fn runs_at(&mut self, time: &str) -> u64 {
        self.clock.set(at(time));
        self.job.look(&CancellationToken::new()).await.unwrap();
        self.job.work.0
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_schedule_counts_from_when_it_was_seen_first_and_each_moment_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.runs_at("2026-11-21T12:30:00Z").await, 0);
    assert_eq!(bench.runs_at("2026-11-21T12:59:59Z").await, 0);
    assert_eq!(bench.runs_at("2026-11-21T13:00:00Z").await, 1);
    assert_eq!(bench.runs_at("2026-11-21T13:59:59Z").await, 1);
    assert_eq!(
        bench.runs_at("2026-11-21T17:10:00Z").await,
        2,
        "what was missed is done once"
    );
}

#[tokio::test]
async fn a_clock_that_is_set_back_neither_repeats_a_run_nor_silences_the_schedule() {
    let mut bench = Bench::new();
    assert_eq!(bench.runs_at("2026-11-21T12:30:00Z").await, 0);
    assert_eq!(bench.runs_at("2026-11-21T13:00:00Z").await, 1);
    assert_eq!(
        bench.runs_at("2026-11-21T12:59:58Z").await,
        1,
        "by seconds, across the moment of the last run"
    );
    assert_eq!(bench.runs_at("2026-11-21T13:00:01Z").await, 1);
    // A clock that was years ahead, and is right again.
    assert_eq!(bench.runs_at("2099-01-01T00:00:00Z").await, 2);
    assert_eq!(bench.runs_at("2026-11-21T14:10:00Z").await, 3);
    assert_eq!(bench.runs_at("2026-11-21T14:20:00Z").await, 3);
    assert_eq!(bench.runs_at("2026-11-21T15:00:00Z").await, 4);
}

#[tokio::test]
async fn whoever_asks_is_told_what_was_done_although_that_cannot_be_written_down() {
    let mut bench = Bench::new();
    bench.runs_at("2026-11-21T12:30:00Z").await;
    let (reply, answer) = oneshot::channel();
    bench.handle.requests.try_send(((), reply)).unwrap();
    // Reading the record succeeds, and nothing after it.
    let faults = Faults::plan(1, Moment::Before, Then::IsDead, bench.dir.path());
    let looked = bench.job.look(&CancellationToken::new()).await;
    drop(faults);
    assert!(looked.is_err(), "the schedule cannot be looked at");
    assert_eq!(answer.await.unwrap().unwrap(), 1);
}
