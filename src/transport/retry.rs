//! How often a request is repeated, and after what pause.
//!
//! What is repeated is decided by [`Class::Transient`], and by clients that repeat less. How long to wait is decided by
//! the server (`Retry-After`), otherwise by an exponential back-off with jitter. Attempts are bounded, because some
//! servers answer 500 to what will never work; the next run of the caller is the retry of last resort. A server that wants fewer
//! requests (429) has not failed: that is bounded separately, and less tightly.
//!
//! # References
//!
//! RFC 9110, 10.2.3.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Error, Share};
use crate::base::{Chain, Class, Classified, Timestamp};
use crate::sys::backoff::{self, Backoff};

/// The longest wait that a server may ask for. Chosen, not measured: longer than any rate limit's window seen.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// How often one operation may be refused because there are too many requests. Chosen, not measured: where every second attempt is
/// refused, one of a thousand million operations fails; where all are, it is given up after about two minutes.
const REFUSALS_MAX: u32 = 30;
/// The longest pause after a refusal, unless the server asks for a longer one. Shorter than after a failure, because the client as a
/// whole sends fewer requests then, and one that had bad luck a few times in a row should not wait for longer than all others need.
/// Chosen, not measured.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(4);

/// What an error says about trying again, besides its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// The attempt failed. Not before the time that the server asked for, if it did.
    Failed(Option<Duration>),
    /// The server wants fewer requests. Not before the time that it asked for, if it did.
    Refused(Option<Duration>),
    /// Not at all, though it may pass by itself.
    Never,
}

/// How often and how patiently an operation is tried.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// How often it is tried, at least once. Refusals because of too many requests do not count.
    pub attempts_max: u32,
    /// The first pause between two attempts; it doubles from there.
    pub backoff_first: Duration,
    /// The longest pause between two attempts that the server did not ask for.
    pub backoff_max: Duration,
}

impl Default for Retries {
    /// Returns 5 attempts with pauses from 0.5 s to 30 s. Chosen, not measured.
    fn default() -> Self {
        Self {
            attempts_max: 5,
            backoff_first: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
        }
    }
}

impl Retries {
    /// Refuses what would never send anything.
    pub fn check(&self) -> Result<(), Error> {
        if self.attempts_max == 0 {
            return Err(Error::Option {
                name: "attempts_max",
                reason: "expected at least 1, found 0".to_owned(),
            });
        }
        Ok(())
    }

    const fn pause_max_after_refusal(&self) -> Duration {
        if self.backoff_max.as_nanos() < REFUSED_PAUSE_MAX.as_nanos() {
            self.backoff_max
        } else {
            REFUSED_PAUSE_MAX
        }
    }

    /// Returns the count of attempts for a new operation, which adds its repetitions to `repetitions`.
    pub const fn attempts<'a>(&self, repetitions: &'a AtomicU64) -> Attempts<'a> {
        Attempts {
            max: self.attempts_max,
            failed: Backoff::new(self.backoff_first, self.backoff_max),
            refused: Backoff::new(self.backoff_first, self.pause_max_after_refusal()),
            repetitions,
        }
    }
}

/// Counts the failed attempts of one operation.
#[derive(Debug)]
pub struct Attempts<'a> {
    max: u32,
    failed: Backoff,
    refused: Backoff,
    repetitions: &'a AtomicU64,
}

impl Attempts<'_> {
    /// Waits before the next attempt, or returns `error` where there is to be none.
    pub async fn pause<E: Classified + 'static>(
        &mut self,
        error: E,
        retry_after: fn(&E) -> RetryAfter,
    ) -> Result<(), E> {
        let planned = self.plan(error.class(), retry_after(&error), backoff::random());
        let Some(pause) = planned else {
            return Err(error);
        };
        tracing::debug!(
            error = %Chain(&error),
            attempt = self.failed.failures() + self.refused.failures(),
            pause_seconds = pause.as_secs_f64(),
            "request failed, will be repeated"
        );
        self.repetitions.fetch_add(1, Ordering::Relaxed);
        Share::note_retry();
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Returns how long to wait before the next attempt, if there is to be one.
    fn plan(&mut self, class: Class, retry_after: RetryAfter, random: u32) -> Option<Duration> {
        let (backoff, max, asked) = match retry_after {
            RetryAfter::Failed(asked) => (&mut self.failed, self.max, asked),
            RetryAfter::Refused(asked) => (&mut self.refused, REFUSALS_MAX, asked),
            RetryAfter::Never => return None,
        };
        let pause = backoff.fail(random);
        if class != Class::Transient || backoff.failures() >= max {
            return None;
        }
        // Coming back early would be refused again; coming back late costs little.
        Some(asked.map_or(pause, |asked| asked.min(RETRY_AFTER_MAX).max(pause)))
    }
}

/// Parses a `Retry-After` value: seconds, or a date, which is compared with `now`.
pub fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean "very long".
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = Timestamp::from(httpdate::parse_http_date(text).ok()?);
    Some((date - now).to_std().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);

    static REPETITIONS: AtomicU64 = AtomicU64::new(0);

    fn attempts() -> Attempts<'static> {
        let retries = Retries {
            attempts_max: 3,
            backoff_first: FIRST,
            backoff_max: Duration::from_secs(1),
        };
        retries.attempts(&REPETITIONS)
    }

    #[test]
    fn attempts_are_bounded() {
        let mut attempts = attempts();
        let mut plan = || attempts.plan(Class::Transient, RetryAfter::Failed(None), u32::MAX);
        assert_eq!(plan(), Some(FIRST));
        assert_eq!(plan(), Some(FIRST * 2));
        assert_eq!(plan(), None);
    }

    #[test]
    fn refusals_are_bounded_by_themselves() {
        let mut attempts = attempts();
        let mut plan = |it| attempts.plan(Class::Transient, it, u32::MAX).is_some();
        for _ in 1..REFUSALS_MAX {
            assert!(plan(RetryAfter::Refused(None)));
        }
        assert!(plan(RetryAfter::Failed(None)), "this was the first");
        assert!(!plan(RetryAfter::Refused(None)));
    }

    #[test]
    fn what_must_not_be_repeated_is_not() {
        let plan = attempts().plan(Class::Transient, RetryAfter::Never, 0);
        assert_eq!(plan, None);
    }

    #[test]
    fn at_least_one_attempt_is_needed() {
        let with = |attempts_max| Retries {
            attempts_max,
            ..Retries::default()
        };
        assert!(with(1).check().is_ok());
        assert!(with(0).check().is_err());
    }

    #[test]
    fn only_what_may_pass_is_repeated() {
        let plan = attempts().plan(Class::Usage, RetryAfter::Failed(None), 0);
        assert_eq!(plan, None);
    }

    #[test]
    fn the_server_decides_how_long_within_limits() {
        let plan = |asked| {
            let asked = RetryAfter::Failed(Some(asked));
            attempts().plan(Class::Transient, asked, u32::MAX)
        };
        assert_eq!(plan(Duration::from_secs(7)), Some(Duration::from_secs(7)));
        assert_eq!(plan(Duration::MAX), Some(RETRY_AFTER_MAX));
        assert_eq!(plan(Duration::ZERO), Some(FIRST));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "2026-11-20T10:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Fri, 20 Nov 2026 10:00:30 GMT", Some(30)),
            ("Fri, 20 Nov 2026 09:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(
                parse_retry_after(text, now),
                seconds.map(Duration::from_secs),
                "input: {text:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn retry_after_never_panics(text in ".{0,60}") {
            let _ = parse_retry_after(&text, "2026-11-20T10:00:00Z".parse().unwrap());
        }
    }
}
