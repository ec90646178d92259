//! Asks for scrubs, and says how they go.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::state::State;
use super::{REPAIR_AGAIN, Request, Scrub};
use crate::base::Chain;
use crate::retain::job::{Handle, RequestError};
use crate::store::Store;
use crate::task::Activator;

/// What is known of scrubs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// What is being done now, if anything is.
    pub running: Option<Request>,
    /// What was found; while a pass runs, as of a few seconds ago.
    pub state: State,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accepted {
    /// It begins now.
    Started,
    /// One runs already.
    RunsAlready,
}

/// Asks for scrubs.
#[derive(Clone, Debug)]
pub struct Control {
    handle: Handle<Scrub>,
    overview: watch::Receiver<Overview>,
    /// Where others report what they find damaged.
    store: Store,
    /// Wakes [`Self::keep_on`].
    wake: Activator,
}

impl Control {
    /// Returns the control of a scrub.
    pub fn new(handle: Handle<Scrub>, overview: watch::Receiver<Overview>, store: Store) -> Self {
        Self {
            handle,
            overview,
            store,
            wake: Activator::default(),
        }
    }

    /// Returns what says that damaged blobs may be there again.
    pub fn activator(&self) -> Activator {
        self.wake.clone()
    }

    /// Returns what is known now.
    pub fn overview(&self) -> Overview {
        self.overview.borrow().clone()
    }

    /// Asks for a run and does not wait for it. Must be called within the runtime.
    pub fn request(&self, request: Request) -> Accepted {
        let running = self.overview.borrow().running;
        if running.is_some_and(|running| running != Request::Repair) {
            return Accepted::RunsAlready;
        }
        let handle = self.handle.clone();
        tokio::spawn(async move {
            match handle.request(request).await {
                Ok(report) => tracing::info!(%report, "requested scrub ends"),
                Err(RequestError::Busy) => tracing::debug!("scrub takes no request now"),
                Err(RequestError::Failed(error)) => {
                    tracing::warn!(reason = %Chain(&error), "requested scrub failed");
                }
            }
        });
        Accepted::Started
    }

    /// Goes on with a pass that was interrupted, and tries to repair what is damaged: at once, every [`REPAIR_AGAIN`] and
    /// whenever there is reason to, until `stop` is cancelled.
    pub async fn keep_on(self, stop: CancellationToken) {
        let (wake, suspected) = (self.wake.as_notify(), self.store.suspected());
        let mut overview = self.overview.clone();
        let mut again = tokio::time::interval(REPAIR_AGAIN);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = again.tick() => {}
                () = wake.notified() => {}
                () = suspected.notified() => {}
            }
            // What runs now may have begun before there was something to look at.
            let idle = async {
                let idle = overview.wait_for(|overview| overview.running.is_none());
                idle.await.is_ok()
            };
            tokio::select! {
                () = stop.cancelled() => return,
                is_idle = idle => if !is_idle { return },
            }
            if self.is_interrupted() {
                self.request(Request::Resume);
            } else if self.is_damaged() {
                self.request(Request::Repair);
            }
        }
    }

    /// Returns whether a pass has not come to its end.
    fn is_interrupted(&self) -> bool {
        self.overview.borrow().state.current.is_some()
    }

    /// Returns whether something is damaged, or seems to be.
    fn is_damaged(&self) -> bool {
        self.store.has_suspects() || !self.overview.borrow().state.open.is_empty()
    }
}
