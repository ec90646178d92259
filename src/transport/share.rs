//! Which requests a piece of work takes, where many pieces share one client.
//!
//! The count of a client says what all of them together take. [`Share::count`] counts, besides, for the future that it runs, what
//! is sent while that is polled. What it spawns counts for the client only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

tokio::task_local! {
    static CURRENT: Arc<Share>;
}

/// How many requests a piece of work has taken.
#[derive(Debug, Default)]
pub struct Share {
    requests: AtomicU64,
    retries: AtomicU64,
}

impl Share {
    /// Runs `future` and adds the requests that it sends.
    pub async fn count<T>(self: Arc<Self>, future: impl Future<Output = T>) -> T {
        CURRENT.scope(self, future).await
    }

    /// Adds a request that was sent otherwise.
    pub fn add_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests, those included that were sent again.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns the number of requests that were sent again.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Counts a request of whatever runs now.
    pub fn note_request() {
        // Nobody counts what is done for nobody in particular.
        let _ = CURRENT.try_with(|share| share.add_request());
    }

    /// Counts a repetition of whatever runs now.
    pub(super) fn note_retry() {
        let _ = CURRENT.try_with(|share| share.retries.fetch_add(1, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_piece_of_work_counts_its_own() {
        let (one, two) = (Arc::new(Share::default()), Arc::new(Share::default()));
        let work = |share: &Arc<Share>, requests: u64| {
            let share = Arc::clone(share);
            share.count(async move {
                for _ in 0..requests {
                    Share::note_request();
                    tokio::task::yield_now().await;
                }
                Share::note_retry();
            })
        };
        Share::note_request();
        tokio::join!(work(&one, 3), work(&two, 5));
        assert_eq!((one.requests(), one.retries()), (3, 1));
        assert_eq!((two.requests(), two.retries()), (5, 1));
    }
}
