//! Reading on another thread.
//!
//! [`ReadAhead`] takes a reader to a thread of its own and hands out what it read, so that inflating a package and
//! hashing and writing its content take place at the same time.
//!
//! # Concurrency
//!
//! ```text
//! thread: reader ──fill──► full buffers (bounded) ──► fill_buf / read
//!            ▲                                              │
//!            └─────────────── empty buffers ◄───────────────┘
//! ```
//!
//! [`BUFFERS`] buffers of [`BUFFER_BYTES`] go round; when all are full the thread waits. Dropping the handle closes both
//! queues, which ends the thread at its next turn, and joins it. A read of the inner reader that blocks is waited for.
//!
//! # Failure
//!
//! An error of the inner reader arrives after the bytes that were read before it. A thread that died without having
//! seen the end is an error, never an end.

use std::io::{self, BufRead, Read};
use std::marker::PhantomData;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Size of one buffer. Large enough that the queues are touched a few thousand times per GB, small enough to stay in
/// the second-level cache.
pub const BUFFER_BYTES: usize = 256 << 10;
/// Buffers in circulation: one being filled, one being emptied, two to even out the two speeds.
pub const BUFFERS: usize = 4;

/// A reader that reads ahead on its own thread.
#[derive(Debug)]
pub struct ReadAhead<R> {
    /// `None` once the end or an error was seen, and while being dropped.
    full: Option<Receiver<Piece>>,
    empty: Option<SyncSender<Vec<u8>>>,
    current: Vec<u8>,
    position: usize,
    thread: Option<JoinHandle<()>>,
    inner: PhantomData<fn() -> R>,
}

/// What the thread hands over.
#[derive(Debug)]
enum Piece {
    /// Bytes; never none.
    Bytes(Vec<u8>),
    /// The inner reader failed; nothing follows.
    Failed(io::Error),
    /// The inner reader ended; nothing follows.
    End,
}

impl<R: Read + Send + 'static> ReadAhead<R> {
    /// Moves `inner` to a new thread and starts reading.
    pub fn start(inner: R) -> io::Result<Self> {
        let (full_sender, full) = sync_channel(BUFFERS);
        let (empty, empty_receiver) = sync_channel(BUFFERS);
        for _ in 0..BUFFERS {
            empty
                .send(Vec::new())
                .expect("the receiver is still in this function");
        }
        let thread = std::thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn(move || run(inner, &empty_receiver, &full_sender))?;
        Ok(Self {
            full: Some(full),
            empty: Some(empty),
            current: Vec::new(),
            position: 0,
            thread: Some(thread),
            inner: PhantomData,
        })
    }
}

/// Fills buffers until the end, an error, or the handle's disappearance.
fn run(mut inner: impl Read, empty: &Receiver<Vec<u8>>, full: &SyncSender<Piece>) {
    while let Ok(mut buffer) = empty.recv() {
        // A buffer is allocated when it is first needed: most archives in tests are smaller than one.
        buffer.clear();
        let outcome = (&mut inner)
            .take(BUFFER_BYTES as u64)
            .read_to_end(&mut buffer);
        let is_end = outcome.is_ok() && buffer.len() < BUFFER_BYTES;
        if !buffer.is_empty() && full.send(Piece::Bytes(buffer)).is_err() {
            return;
        }
        let last = match outcome {
            Err(error) => Piece::Failed(error),
            Ok(_) if is_end => Piece::End,
            Ok(_) => continue,
        };
        // Nobody listens any more: then nobody needs to know.
        let _ = full.send(last);
        return;
    }
}

impl<R> BufRead for ReadAhead<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len()
            && let Some(full) = &self.full
        {
            let used = std::mem::take(&mut self.current);
            self.position = 0;
            if let Some(empty) = self.empty.as_ref().filter(|_| used.capacity() > 0) {
                // Fails when the thread has ended, which is no concern of this buffer.
                let _ = empty.try_send(used);
            }
            match full.recv() {
                Ok(Piece::Bytes(bytes)) => self.current = bytes,
                Ok(Piece::End) => self.full = None,
                Ok(Piece::Failed(error)) => {
                    self.full = None;
                    return Err(error);
                }
                Err(_) => {
                    self.full = None;
                    return Err(io::Error::other("the reading thread ended early"));
                }
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, amount: usize) {
        self.position = (self.position + amount).min(self.current.len());
    }
}

impl<R> Read for ReadAhead<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let amount = self.fill_buf()?.read(into)?;
        self.consume(amount);
        Ok(amount)
    }
}

impl<R> Drop for ReadAhead<R> {
    fn drop(&mut self) {
        // Both ends must go first: the thread may be waiting on either queue.
        self.full = None;
        self.empty = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by the read that met it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    /// Gives `bytes` bytes of a pattern, then `then`.
    struct Pattern {
        left: usize,
        then: Option<io::Error>,
        reads: Arc<AtomicUsize>,
        dropped: Arc<AtomicBool>,
    }

    impl Pattern {
        fn new(left: usize, then: Option<io::Error>) -> Self {
            Self {
                left,
                then,
                reads: Arc::default(),
                dropped: Arc::default(),
            }
        }
    }

    impl Read for Pattern {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            let amount = into.len().min(self.left).min(100_003);
            for (index, byte) in into[..amount].iter_mut().enumerate() {
                *byte = u8::try_from((self.left - index) % 251).unwrap();
            }
            self.left -= amount;
            match self.then.take() {
                Some(error) if amount == 0 => Err(error),
                then => {
                    self.then = then;
                    Ok(amount)
                }
            }
        }
    }

    impl Drop for Pattern {
        fn drop(&mut self) {
            self.dropped.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn everything_arrives_in_order() {
        for size in [0, 1, BUFFER_BYTES - 1, BUFFER_BYTES, 10 * BUFFER_BYTES + 7] {
            let mut expected = Vec::new();
            Pattern::new(size, None).read_to_end(&mut expected).unwrap();
            let mut found = Vec::new();
            let mut reader = ReadAhead::start(Pattern::new(size, None)).unwrap();
            reader.read_to_end(&mut found).unwrap();
            assert!(expected == found, "size: {size}");
            assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0, "the end stays");
        }
    }

    #[test]
    fn an_error_arrives_after_the_bytes_before_it() {
        let failing = Pattern::new(BUFFER_BYTES + 5, Some(io::Error::other("disk on fire")));
        let mut found = Vec::new();
        let error = ReadAhead::start(failing)
            .unwrap()
            .read_to_end(&mut found)
            .unwrap_err();
        assert_eq!(error.to_string(), "disk on fire");
        assert_eq!(found.len(), BUFFER_BYTES + 5);
    }

    #[test]
    fn dropping_the_handle_ends_the_thread_and_drops_the_reader() {
        let endless = Pattern::new(usize::MAX, None);
        let (reads, dropped) = (Arc::clone(&endless.reads), Arc::clone(&endless.dropped));
        let mut reader = ReadAhead::start(endless).unwrap();
        assert!(!reader.fill_buf().unwrap().is_empty());
        drop(reader);
        assert!(dropped.load(Ordering::SeqCst));
        let bound = (BUFFERS + 2) * (BUFFER_BYTES / 1000);
        assert!(reads.load(Ordering::SeqCst) < bound, "reads stay bounded");
    }

    #[test]
    fn a_thread_that_dies_is_an_error_and_not_an_end() {
        struct Panics;
        impl Read for Panics {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("expected by the test");
            }
        }
        let mut reader = ReadAhead::start(Panics).unwrap();
        assert!(reader.read(&mut [0; 8]).is_err());
    }
}
