//! Background tasks: work that runs when it is due and on request.
//!
//! A task compares wanted state with observed state and acts on the difference. It takes no input, so the run after a
//! crash is the same as any other run, and a lost request costs at most the time until the next one is due.
//!
//! The driver knows nothing of what tasks do. It guarantees that a task
//! - runs at most once at a time,
//! - runs again if it was requested while running (requests coalesce),
//! - runs no later than it asked for at the end of its last run,
//! - is never cut off in the middle: on shutdown the run in progress finishes, or leaves early at a point it chose by
//!   watching its [`CancellationToken`].
//!
//! Retrying is not the driver's business: a task that failed says when it wants to try again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::Timestamp;

/// Something the daemon does in the background.
pub trait Task: Send {
    /// Does the work once. Idempotent. Long runs check `stop` between units of work.
    fn run(&mut self, stop: &CancellationToken) -> impl Future<Output = Finished> + Send;
}

/// When something is due by a schedule. The daemon gives an implementation made from the cron expression.
pub trait Timetable: std::fmt::Debug + Send + Sync {
    /// Returns the last moment at or before `now` at which a run was due.
    fn latest_due(&self, now: Timestamp) -> Option<Timestamp>;

    /// Returns the first moment after `now` at which a run is due.
    fn next_due(&self, now: Timestamp) -> Option<Timestamp>;
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// A one-line summary for the status page, or the rendered error chain.
    pub outcome: Result<String, String>,
    /// How long after this moment the task is due again without a request.
    pub again_in: Duration,
}

/// Requests runs of one task. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Activator(Arc<Notify>);

impl Activator {
    /// Asks for a run as soon as possible. Never blocks.
    pub fn activate(&self) {
        self.0.notify_one();
    }

    /// Returns what a watcher of files notifies in order to activate the task.
    pub fn as_notify(&self) -> Arc<Notify> {
        Arc::clone(&self.0)
    }
}

/// What a task is doing and how its last run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The start of the run in progress, if there is one.
    pub running_since: Option<Instant>,
    /// The outcome of the last finished run, if there was one.
    pub last: Option<Result<String, String>>,
    /// When the task is due without a request; only between runs.
    pub due: Option<Instant>,
    /// Runs finished since the daemon started.
    pub runs: u64,
}

/// Runs `task` until `stop` is cancelled, the first time at once.
pub async fn drive(
    mut task: impl Task,
    activator: Activator,
    status: watch::Sender<Status>,
    stop: CancellationToken,
) {
    let mut due = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = activator.0.notified() => {}
            () = tokio::time::sleep_until(due) => {}
        }
        status.send_modify(|status| {
            status.running_since = Some(Instant::now());
            status.due = None;
        });
        let finished = task.run(&stop).await;
        due = Instant::now() + finished.again_in;
        status.send_modify(|status| {
            status.running_since = None;
            status.last = Some(finished.outcome);
            status.due = Some(due);
            status.runs += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_mins(1);

    /// A task whose every run takes ten seconds.
    struct Slow;

    impl Task for Slow {
        async fn run(&mut self, _: &CancellationToken) -> Finished {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Finished {
                outcome: Ok("slept".to_owned()),
                again_in: PERIOD,
            }
        }
    }

    fn start() -> (
        Activator,
        watch::Receiver<Status>,
        CancellationToken,
        tokio::task::JoinHandle<()>,
    ) {
        let activator = Activator::default();
        let (sender, receiver) = watch::channel(Status::default());
        let stop = CancellationToken::new();
        let handle = tokio::spawn(drive(Slow, activator.clone(), sender, stop.clone()));
        (activator, receiver, stop, handle)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_made_during_a_run_coalesce_into_one_more() {
        let (activator, mut status, _stop, _handle) = start();
        status
            .wait_for(|status| status.running_since.is_some())
            .await
            .unwrap();
        for _ in 0..5 {
            activator.activate();
        }
        let before = Instant::now();
        status.wait_for(|status| status.runs == 2).await.unwrap();
        assert_eq!(before.elapsed(), Duration::from_secs(20));
        status.wait_for(|status| status.runs == 3).await.unwrap();
        assert_eq!(
            before.elapsed(),
            Duration::from_secs(20) + PERIOD + Duration::from_secs(10)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_lets_the_run_in_progress_finish() {
        let (_activator, mut status, stop, handle) = start();
        status
            .wait_for(|status| status.running_since.is_some())
            .await
            .unwrap();
        stop.cancel();
        handle.await.unwrap();
        assert_eq!(status.borrow().last, Some(Ok("slept".to_owned())));
        assert_eq!(status.borrow().runs, 1);
    }
}
