//! How many bytes of blobs per second go to one server, on the average; can be changed at any time.
//!
//! A bucket of tokens, one for each byte. What goes is paid for before it goes, so that all uploads together keep the rate
//! however many they are. Manifests are not counted: they are a few KiB each.
//!
//! # Concurrency
//!
//! Uploads take their turns, first come, first served, and each takes a small piece at a time. A new rate holds at once, also for
//! who waits by the old one. A future that is dropped has taken nothing.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

/// How much may go at once after a pause, as time at the full rate. Chosen, not measured.
const BURST: Duration = Duration::from_secs(1);
/// A piece is at most what goes in this part of a second, so that bytes flow evenly and no upload waits long for its turn.
/// Chosen, not measured.
const PIECES_PER_SECOND: u64 = 8;

/// The bytes that may go to one server.
#[derive(Debug)]
pub(super) struct Bandwidth {
    /// Bytes per second; `None` is without limit.
    rate: watch::Sender<Option<NonZeroU64>>,
    /// Held by the one whose turn it is.
    bucket: Mutex<Bucket>,
    passed: AtomicU64,
    /// How often an upload that waits says that it lives.
    heartbeat: Duration,
}

/// When everything that went is paid for.
#[derive(Debug)]
struct Bucket {
    paid_at: Instant,
}

impl Bucket {
    /// Takes `bytes` at `rate`, or returns when it can be tried again.
    fn take(&mut self, bytes: u64, rate: NonZeroU64, now: Instant) -> Result<(), Instant> {
        let earliest = now.checked_sub(BURST).unwrap_or(self.paid_at);
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
        let price = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let paid_at = self.paid_at.max(earliest) + price;
        if paid_at > now {
            return Err(paid_at);
        }
        self.paid_at = paid_at;
        Ok(())
    }
}

impl Bandwidth {
    /// Returns a limit of so many bytes per second. Who waits for it says so every `heartbeat`.
    pub(super) fn new(rate: Option<NonZeroU64>, heartbeat: Duration, now: Instant) -> Self {
        Self {
            rate: watch::Sender::new(rate),
            bucket: Mutex::new(Bucket { paid_at: now }),
            passed: AtomicU64::new(0),
            heartbeat,
        }
    }

    pub(super) fn rate(&self) -> Option<NonZeroU64> {
        *self.rate.borrow()
    }

    /// Changes the rate, for what is under way, too.
    pub(super) fn set_rate(&self, rate: Option<NonZeroU64>) {
        self.rate.send_replace(rate);
    }

    /// Returns how many bytes of blobs went.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Waits until at least one of `bytes` may go, of which there is at least one. Returns how many may.
    async fn pass(&self, bytes: u64) -> u64 {
        let mut rate = self.rate.subscribe();
        let count = if self.rate().is_none() {
            bytes
        } else {
            let mut bucket = self.bucket.lock().await;
            loop {
                let Some(now_allowed) = *rate.borrow_and_update() else {
                    break bytes;
                };
                let piece = bytes.min((now_allowed.get() / PIECES_PER_SECOND).max(1));
                let Err(at) = bucket.take(piece, now_allowed, Instant::now()) else {
                    break piece;
                };
                tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    // The sender is in `self`, so that there is always one.
                    _ = rate.changed() => {}
                }
            }
        };
        self.passed.fetch_add(count, Ordering::Relaxed);
        count
    }

    /// Like [`Bandwidth::pass`]; counts up `progress` while it waits, so that nobody takes it for a server that stands still.
    async fn pass_with(&self, bytes: u64, progress: &AtomicU64) -> u64 {
        let mut passing = std::pin::pin!(self.pass(bytes));
        loop {
            match tokio::time::timeout(self.heartbeat, &mut passing).await {
                Ok(count) => return count,
                Err(_) => progress.fetch_add(1, Ordering::Relaxed),
            };
        }
    }

    /// Lets pieces of a blob through at the rate.
    pub(super) fn limit<E: 'static>(
        self: Arc<Self>,
        pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
        progress: Arc<AtomicU64>,
    ) -> impl Stream<Item = Result<Bytes, E>> + Send + 'static {
        let state = (Box::pin(pieces), Bytes::new());
        futures_util::stream::try_unfold(state, move |(mut pieces, mut rest)| {
            let (bandwidth, progress) = (Arc::clone(&self), Arc::clone(&progress));
            async move {
                while rest.is_empty() {
                    match pieces.next().await {
                        None => return Ok(None),
                        Some(piece) => rest = piece?,
                    }
                }
                let count = bandwidth.pass_with(rest.len() as u64, &progress).await;
                let count = usize::try_from(count).map_or(rest.len(), |it| it.min(rest.len()));
                let piece = rest.split_to(count);
                Ok(Some((piece, (pieces, rest))))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::Future;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    static PIECE: [u8; 1000] = [7; 1000];

    fn bandwidth(rate: u64) -> Arc<Bandwidth> {
        let heartbeat = Duration::from_secs(5);
        Arc::new(Bandwidth::new(
            NonZeroU64::new(rate),
            heartbeat,
            Instant::now(),
        ))
    }

    /// Sends a blob of so many bytes.
    fn send(bandwidth: &Arc<Bandwidth>, bytes: usize) -> impl Future<Output = usize> + use<> {
        let pieces = std::iter::repeat_n(1000, bytes / 1000).chain([bytes % 1000]);
        let pieces = pieces.map(|size| Ok::<_, Infallible>(Bytes::from_static(&PIECE[..size])));
        let pieces: Vec<_> = pieces.collect();
        Arc::clone(bandwidth)
            .limit(futures_util::stream::iter(pieces), Arc::default())
            .fold(0, async |sum, piece| sum + piece.unwrap().len())
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_for_all_uploads_together() {
        let bandwidth = bandwidth(1000);
        let start = Instant::now();
        let sent = tokio::join!(send(&bandwidth, 30_000), send(&bandwidth, 30_000));
        assert_eq!(sent, (30_000, 30_000));
        let took = start.elapsed();
        assert!((59..=61).contains(&took.as_secs()), "{took:?}");
        assert_eq!(bandwidth.passed(), 60_000);
    }

    #[tokio::test(start_paused = true)]
    async fn uploads_share_it_evenly() {
        let bandwidth = bandwidth(1000);
        let start = Instant::now();
        let both = async { tokio::join!(send(&bandwidth, 10_000), send(&bandwidth, 1000)) };
        let small = async {
            send(&bandwidth, 1000).await;
            start.elapsed()
        };
        let (_, took) = tokio::join!(both, small);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_made_up_for_by_a_second_at_most() {
        let bandwidth = bandwidth(1000);
        tokio::time::sleep(DAY).await;
        let start = Instant::now();
        send(&bandwidth, 5000).await;
        let took = start.elapsed();
        assert!((3..=4).contains(&took.as_secs()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_holds_for_what_is_under_way() {
        let bandwidth = bandwidth(1);
        let start = Instant::now();
        let change = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            bandwidth.set_rate(NonZeroU64::new(1000));
            tokio::time::sleep(Duration::from_secs(10)).await;
            bandwidth.set_rate(None);
        };
        let ((), first, second) =
            tokio::join!(change, send(&bandwidth, 10_000_000), send(&bandwidth, 5000));
        assert_eq!((first, second), (10_000_000, 5000));
        assert_eq!(start.elapsed(), Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_waits_for_us_makes_progress() {
        let bandwidth = bandwidth(1);
        let progress = Arc::<AtomicU64>::default();
        let waiting = bandwidth.pass_with(100, &progress);
        assert_eq!(waiting.await, 1);
        let rate = NonZeroU64::MIN;
        let mut bucket = bandwidth.bucket.lock().await;
        // A debt of an hour, as a large piece leaves it.
        bucket.paid_at += Duration::from_hours(1);
        drop(bucket);
        let before = progress.load(Ordering::Relaxed);
        bandwidth.pass_with(100, &progress).await;
        assert!(progress.load(Ordering::Relaxed) >= before + 700);
        assert_eq!(bandwidth.rate(), Some(rate));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_is_given_up_holds_nobody_back() {
        let bandwidth = bandwidth(1000);
        let given_up = send(&bandwidth, 1_000_000);
        assert!(
            tokio::time::timeout(Duration::from_secs(10), given_up)
                .await
                .is_err()
        );
        let start = Instant::now();
        send(&bandwidth, 1000).await;
        assert!(start.elapsed() <= Duration::from_secs(2));
    }
}
