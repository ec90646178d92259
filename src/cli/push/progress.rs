//! The line on a terminal that shows how far a push has come.

use std::time::{Duration, Instant};

use super::super::output;
use crate::base::ByteCount;
use crate::daemon::push::Sight;

/// How often the line is shown anew: more often nobody can read.
pub(super) const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// How many characters the bar has. Chosen so that the line fits into 80.
const BAR_CHARACTERS: usize = 20;

/// How much of the past counts for the rate: long enough to be steady, short enough to show that a registry stalls.
const RATE_OVER: Duration = Duration::from_secs(5);

/// Shows a line, and remembers what the rate is computed from.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes that had been sent at some moments of the last [`RATE_OVER`].
    seen: Vec<(Instant, u64)>,
    is_shown: bool,
}

impl Progress {
    /// Shows how far it is.
    pub(super) fn show(&mut self, sight: &Sight, now: Instant) {
        self.note(now, sight.bytes_sent);
        self.is_shown = true;
        output::progress(&line(sight, self.rate()));
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            output::progress("");
        }
    }

    fn note(&mut self, now: Instant, bytes_sent: u64) {
        self.seen
            .retain(|(at, _)| now.duration_since(*at) <= RATE_OVER);
        self.seen.push((now, bytes_sent));
    }

    /// Returns the bytes per second of late.
    fn rate(&self) -> u64 {
        let (Some((from, before)), Some((to, after))) = (self.seen.first(), self.seen.last())
        else {
            return 0;
        };
        let milliseconds = to.duration_since(*from).as_millis().max(1);
        let sent = u128::from(after.saturating_sub(*before));
        u64::try_from(sent * 1000 / milliseconds).unwrap_or(u64::MAX)
    }
}

fn line(sight: &Sight, rate: u64) -> String {
    let Sight {
        images_done,
        images,
        bytes_done,
        bytes,
        ..
    } = *sight;
    if images == 0 {
        return "reading".to_owned();
    }
    let part = u128::from(bytes_done.min(bytes)) * BAR_CHARACTERS as u128;
    let filled = part.checked_div(bytes.into()).unwrap_or(0);
    let filled = usize::try_from(filled).unwrap_or(BAR_CHARACTERS);
    let (full, rest) = ("#".repeat(filled), ".".repeat(BAR_CHARACTERS - filled));
    format!(
        "[{full}{rest}] {} of {}, {}/s, {images_done} of {images} images",
        ByteCount(bytes_done),
        ByteCount(bytes),
        ByteCount(rate)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(bytes_done: u64) -> Sight {
        Sight {
            images: 6,
            images_done: 2,
            bytes: 4 << 20,
            bytes_done,
            bytes_sent: bytes_done,
        }
    }

    #[test]
    fn the_line_has_a_bar_bytes_rate_and_images() {
        assert_eq!(
            line(&sight(1 << 20), 3 << 19),
            "[#####...............] 1.0 MiB of 4.0 MiB, 1.5 MiB/s, 2 of 6 images"
        );
        assert_eq!(
            line(&sight(5 << 20), 0),
            "[####################] 5.0 MiB of 4.0 MiB, 0 B/s, 2 of 6 images"
        );
        assert_eq!(line(&Sight::default(), 0), "reading");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut progress = Progress::default();
        for (seconds, bytes) in [(0, 0), (10, 1000), (12, 5000)] {
            progress.note(start + Duration::from_secs(seconds), bytes);
        }
        assert_eq!(progress.rate(), 2000);
    }
}
