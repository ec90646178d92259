//! Work that is due by a schedule and on request, one run at a time.
//!
//! [`Job`] is the background task; what it does is its [`Work`]. Start from [`Job::new`].
//!
//! # Durability
//!
//! When a run was due is written down when it starts, so that a daemon which dies in it does not begin again at every
//! start; what the work wants to find again is in [`JobRecord::state`], which it may write whenever it likes. On a full disk a
//! run starts although that cannot be written down: collection is what makes space.
//!
//! # Failure
//!
//! A scheduled run that fails is tried again after [`RETRY`]. A request is answered with its error and not repeated. A clock
//! that was set back by more than a period does not silence the schedule until it is as late again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::{Chain, Class, Classified, Clock, Timestamp};
use crate::catalog::{self, Catalog, JobRecord};
use crate::task::{Activator, Finished, Task, Timetable};

/// How long after a failure a scheduled run is tried again. Chosen, not measured.
const RETRY: Duration = Duration::from_mins(10);

/// The longest sleep without looking at the clock, so that a changed clock is noticed. Chosen, not measured.
const SLEEP_MAX: Duration = Duration::from_mins(10);

/// How many requests wait. Whoever asks while so many wait is told to come again. Chosen, not measured.
const REQUESTS_MAX: usize = 8;

/// What a job does.
pub trait Work: Send + fmt::Debug {
    /// The stable name under which it is in the catalog and in logs.
    const NAME: &'static str;
    /// What somebody may ask for. A scheduled run gets the default.
    type Request: Default + Send + fmt::Debug + 'static;
    /// What a run has done.
    type Report: Send + fmt::Display + 'static;
    /// Why a run ends early.
    type Error: Classified + From<catalog::Error> + Send + Sync + 'static;

    /// Does the work once. Long runs check `stop` between units of work, and may put `record` with a state of theirs in
    /// the catalog on the way.
    fn run(
        &mut self,
        request: Self::Request,
        record: &mut JobRecord,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<Self::Report, Self::Error>> + Send;
}

/// Why a request was not served.
#[derive(Debug, Error)]
pub enum RequestError<E> {
    /// Too many wait already, or the daemon stops.
    #[error("expected a job that takes requests, found one that is busy or stops")]
    Busy,
    /// The run failed.
    #[error(transparent)]
    Failed(E),
}

type Reply<W> = oneshot::Sender<Result<<W as Work>::Report, <W as Work>::Error>>;

/// The background task.
#[derive(Debug)]
pub struct Job<W: Work> {
    work: W,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    /// None: only on request.
    timetable: Option<Arc<dyn Timetable>>,
    requests: mpsc::Receiver<(W::Request, Reply<W>)>,
    retry_at: Option<Instant>,
}

/// Asks for runs of a job.
#[derive(Debug)]
pub struct Handle<W: Work> {
    activator: Activator,
    requests: mpsc::Sender<(W::Request, Reply<W>)>,
}

impl<W: Work> Clone for Handle<W> {
    fn clone(&self) -> Self {
        Self {
            activator: self.activator.clone(),
            requests: self.requests.clone(),
        }
    }
}

impl<W: Work> Handle<W> {
    /// Asks for a run and waits for its end.
    pub async fn request(&self, request: W::Request) -> Result<W::Report, RequestError<W::Error>> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .try_send((request, reply))
            .map_err(|_| RequestError::Busy)?;
        self.activator.activate();
        match answer.await {
            Ok(result) => result.map_err(RequestError::Failed),
            Err(_) => Err(RequestError::Busy),
        }
    }

    /// Returns what drives the task.
    pub fn activator(&self) -> Activator {
        self.activator.clone()
    }
}

impl<W: Work> Job<W> {
    /// Returns the task and the handle to it. The task is to be driven with the handle's activator.
    pub fn new(
        work: W,
        catalog: Catalog,
        clock: Arc<dyn Clock>,
        timetable: Option<Arc<dyn Timetable>>,
    ) -> (Self, Handle<W>) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let handle = Handle {
            activator: Activator::default(),
            requests: sender,
        };
        let job = Self {
            work,
            catalog,
            clock,
            timetable,
            requests,
            retry_at: None,
        };
        (job, handle)
    }

    /// Serves all requests that wait, then the schedule. Returns what was done, in words.
    async fn look(&mut self, stop: &CancellationToken) -> Result<String, W::Error> {
        let mut done = "nothing is due".to_owned();
        while let Ok((request, reply)) = self.requests.try_recv() {
            if stop.is_cancelled() {
                break;
            }
            let result = self.serve(request, stop).await;
            done = outcome::<W>(&result);
            // Whoever asked may have gone away.
            let _ = reply.send(result);
        }
        let now = self.clock.now();
        let mut record = self.record()?;
        let followed = self.followed(&record, now);
        if let Some(due) = self.due(followed, now) {
            record.last_scheduled_at = followed.max(Some(due));
            self.retry_at = None;
            match self.catalog.put_job(&record) {
                Err(error) if error.class() == Class::Full => {
                    tracing::warn!(job = W::NAME, reason = %Chain(&error), "scheduled run is not written down");
                }
                result => result?,
            }
            tracing::info!(job = W::NAME, "scheduled run starts");
            done = self
                .run_once(W::Request::default(), record, stop)
                .await?
                .to_string();
            tracing::info!(job = W::NAME, done, "scheduled run ends");
        }
        Ok(done)
    }

    async fn serve(
        &mut self,
        request: W::Request,
        stop: &CancellationToken,
    ) -> Result<W::Report, W::Error> {
        let record = self.record()?;
        self.run_once(request, record, stop).await
    }

    /// Runs the work. What it has done counts, also where it cannot be written down that it ended.
    async fn run_once(
        &mut self,
        request: W::Request,
        mut record: JobRecord,
        stop: &CancellationToken,
    ) -> Result<W::Report, W::Error> {
        let result = self.work.run(request, &mut record, stop).await;
        record.finished_at = Some(self.clock.now());
        if let Err(error) = self.catalog.put_job(&record) {
            tracing::warn!(job = W::NAME, reason = %Chain(&error), "end of a run is not written down");
        }
        result
    }

    /// Returns the due time that was followed last; nothing where it is later than the next one, because the clock was set
    /// back since.
    fn followed(&self, record: &JobRecord, now: Timestamp) -> Option<Timestamp> {
        let next = self.timetable.as_ref()?.next_due(now);
        let last = record.last_scheduled_at;
        last.filter(|last| next.is_none_or(|next| *last <= next))
    }

    /// Returns the moment that makes a run due now, if one does.
    fn due(&self, followed: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let latest = self.timetable.as_ref()?.latest_due(now);
        let is_new = latest > followed;
        let is_retry = self.retry_at.is_some_and(|at| at <= Instant::now());
        (is_new || is_retry).then_some(latest.unwrap_or(now))
    }

    /// Returns what is known of the job. A schedule counts from when it was seen first.
    fn record(&self) -> Result<JobRecord, catalog::Error> {
        if let Some(record) = self.catalog.find_job(W::NAME)? {
            return Ok(record);
        }
        let record = JobRecord {
            name: W::NAME.to_owned(),
            last_scheduled_at: Some(self.clock.now()),
            finished_at: None,
            state: serde_json::Value::Null,
        };
        self.catalog.put_job(&record)?;
        Ok(record)
    }

    /// Returns how long to sleep.
    fn again_in(&self) -> Duration {
        let now = self.clock.now();
        let next_due = self
            .timetable
            .as_ref()
            .and_then(|timetable| timetable.next_due(now));
        let due_in = next_due.and_then(|at| (at - now).max(TimeDelta::zero()).to_std().ok());
        let retry_in = self
            .retry_at
            .map(|at| at.saturating_duration_since(Instant::now()));
        let waits = [due_in, retry_in].into_iter().flatten();
        waits.fold(SLEEP_MAX, Duration::min)
    }
}

fn outcome<W: Work>(result: &Result<W::Report, W::Error>) -> String {
    match result {
        Ok(report) => report.to_string(),
        Err(error) => Chain(error).to_string(),
    }
}

impl<W: Work> Task for Job<W> {
    async fn run(&mut self, stop: &CancellationToken) -> Finished {
        let outcome = match self.look(stop).await {
            Ok(summary) => Ok(summary),
            Err(error) => {
                let reason = Chain(&error).to_string();
                tracing::warn!(job = W::NAME, %reason, hint = error.hint(), "run failed");
                self.retry_at = Some(Instant::now() + RETRY);
                Err(reason)
            }
        };
        Finished {
            outcome,
            again_in: self.again_in(),
        }
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
