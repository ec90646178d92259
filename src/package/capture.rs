//! The bytes of a file while it is read, as long as somebody may want them.
//!
//! A Helm chart is stored as the file that it is, but that a file is a chart is known at its end only. So its bytes are kept
//! until something in it says that it is none, which in packages is the first entry.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that are being kept; shared by the thread that reads them and the one that knows what they are.
#[derive(Clone, Debug)]
pub(super) struct Capture(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    kept: Kept,
    limit_bytes: u64,
}

/// What was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Everything so far.
    Bytes(Vec<u8>),
    /// Nothing, because there was too much.
    TooMuch,
    /// Nothing, because nobody wants it.
    Nothing,
}

impl Capture {
    /// Keeps at most `limit_bytes` bytes.
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            kept: Kept::Bytes(Vec::new()),
            limit_bytes,
        })))
    }

    /// Keeps more bytes.
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut state = self.lock();
        let limit_bytes = state.limit_bytes;
        if let Kept::Bytes(kept) = &mut state.kept {
            if (kept.len() + bytes.len()) as u64 > limit_bytes {
                state.kept = Kept::TooMuch;
            } else {
                kept.extend_from_slice(bytes);
            }
        }
    }

    /// Forgets what was kept and keeps nothing more.
    pub(super) fn discard(&self) {
        self.lock().kept = Kept::Nothing;
    }

    /// Takes what was kept and keeps nothing more.
    pub(super) fn take(&self) -> Kept {
        std::mem::replace(&mut self.lock().kept, Kept::Nothing)
    }

    /// Whoever panicked with the lock in hand has left whole bytes behind.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_up_to_the_limit_and_only_while_wanted() {
        let capture = Capture::new(5);
        capture.push(b"ab");
        capture.push(b"cde");
        assert_eq!(capture.take(), Kept::Bytes(b"abcde".to_vec()));
        capture.push(b"f");
        assert_eq!(capture.take(), Kept::Nothing);
        let capture = Capture::new(5);
        capture.push(b"abcdef");
        assert_eq!(capture.take(), Kept::TooMuch);
    }
}
