//! Whether short requests take longer than they must, which is how a server shows that it has too many of them.

use std::time::Duration;

use tokio::time::Instant;

/// Answers that are looked at together. The fastest of them says whether all had to wait, which a single slow one does
/// not. Chosen, not measured.
const WINDOW: u32 = 8;
/// How much longer than the lowest latency the fastest answer of a window may take: this factor,
const FACTOR: u32 = 2;
/// and this much. A registry answers within milliseconds, a busy machine delays that by tens of them without having too much to
/// do. Chosen, not measured.
const SLACK: Duration = Duration::from_millis(100);
/// How long the lowest latency counts, at least: the way to a server can become longer for good (LEDBAT, RFC 6817, 4.2, keeps
/// ten minutes).
const MEMORY: Duration = Duration::from_mins(10);

/// What is known of the latency of one kind of short request.
#[derive(Debug)]
pub(super) struct Latency {
    /// The lowest of the last period and of this one.
    lowest: Option<Duration>,
    /// The lowest of this period.
    lowest_now: Option<Duration>,
    period_ends_at: Instant,
    /// The fastest answer of this window, and how many there were.
    fastest: Option<Duration>,
    count: u32,
}

impl Latency {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            lowest: None,
            lowest_now: None,
            period_ends_at: now + MEMORY,
            fastest: None,
            count: 0,
        }
    }

    /// Notes how long an answer took. Returns whether it ends a window in which all took too long.
    pub(super) fn note(&mut self, latency: Duration, now: Instant) -> bool {
        if now >= self.period_ends_at {
            self.period_ends_at = now + MEMORY;
            self.lowest = self.lowest_now.take();
        }
        let lower = |known: Option<Duration>| known.map_or(latency, |known| known.min(latency));
        self.lowest_now = Some(lower(self.lowest_now));
        self.fastest = Some(lower(self.fastest));
        let lowest = lower(self.lowest);
        self.lowest = Some(lowest);
        self.count += 1;
        if self.count < WINDOW {
            return false;
        }
        self.count = 0;
        let fastest = self.fastest.take();
        fastest.is_some_and(|fastest| fastest > lowest.saturating_mul(FACTOR) + SLACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(10);
    const SLOW: Duration = Duration::from_secs(1);

    fn window(latency: &mut Latency, answers: [Duration; WINDOW as usize], now: Instant) -> bool {
        answers.map(|answer| latency.note(answer, now))[WINDOW as usize - 1]
    }

    #[test]
    fn a_window_is_slow_only_if_every_answer_of_it_is() {
        let now = Instant::now();
        let mut latency = Latency::new(now);
        assert!(
            !window(&mut latency, [SLOW; 8], now),
            "nothing to compare with"
        );
        assert!(!window(&mut latency, [QUICK; 8], now));
        assert!(window(&mut latency, [SLOW; 8], now));
        let mut one_quick = [SLOW; 8];
        one_quick[3] = QUICK;
        assert!(!window(&mut latency, one_quick, now));
    }

    #[test]
    fn a_server_that_moved_further_away_is_no_longer_slow_after_a_while() {
        let mut now = Instant::now();
        let mut latency = Latency::new(now);
        window(&mut latency, [QUICK; 8], now);
        let mut slow = Vec::new();
        for _ in 0..3 {
            slow.push(window(&mut latency, [SLOW; 8], now));
            now += MEMORY;
        }
        assert_eq!(slow, [true, true, false]);
    }
}
