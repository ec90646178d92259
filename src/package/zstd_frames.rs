//! Decompresses zstd, frame after frame.
//!
//! The library's own reader takes what follows the last frame for a damaged frame, and does not say how many frames there
//! were. Here what follows is left to whoever asks, so that trailing bytes are called trailing bytes
//! ([`Frames::into_inner`]), and frames are counted, because millions of empty ones are work without a result
//! ([`Frames::begun`]).
//!
//! # References
//!
//! RFC 8878, section 3.1 "Frames".

use std::fmt;
use std::io::{self, BufRead};

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

/// First bytes of a frame.
const FRAME_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes of a skippable frame's magic after its first, which is 0x50 to 0x5f. Parallel compressors begin with one.
const SKIPPABLE_MAGIC_END: [u8; 3] = [0x2a, 0x4d, 0x18];
/// What the library says where a frame asks for a larger window than allowed (`ZSTD_error_frameParameter_windowTooLarge`).
const WINDOW_TOO_LARGE: &str = "Frame requires too much memory for decoding";

/// Returns whether content that begins with `first` is zstd.
pub(super) fn is_zstd(first: &[u8]) -> bool {
    first.starts_with(&FRAME_MAGIC)
        || first.first().copied().is_some_and(begins_frame)
            && first
                .get(1..)
                .is_some_and(|rest| rest.starts_with(&SKIPPABLE_MAGIC_END))
}

/// Returns whether a frame may begin with `byte`.
const fn begins_frame(byte: u8) -> bool {
    byte == FRAME_MAGIC[0] || byte & 0xf0 == 0x50
}

/// Returns whether `error`, which [`Frames`] has returned, is about the size of the window.
pub(super) fn is_window_too_large(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.to_string() == WINDOW_TOO_LARGE)
}

/// A reader of all frames up to the end of the input or to the first byte that begins none.
pub(super) struct Frames<I> {
    input: I,
    decoder: Decoder<'static>,
    is_within_frame: bool,
    begun: u64,
}

impl<I> fmt::Debug for Frames<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames")
            .field("is_within_frame", &self.is_within_frame)
            .finish_non_exhaustive()
    }
}

impl<I> Frames<I> {
    /// Reads frames whose windows have at most `window_bytes_max` bytes, rounded down to a power of two.
    pub(super) fn new(input: I, window_bytes_max: u64) -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        let window_log_max = window_bytes_max.max(1).ilog2();
        // The library refuses numbers outside of what windows can have.
        decoder.set_parameter(DParameter::WindowLogMax(window_log_max.clamp(10, 31)))?;
        Ok(Self {
            input,
            decoder,
            is_within_frame: false,
            begun: 0,
        })
    }

    /// Returns how many frames were begun, empty ones and those to be skipped included.
    pub(super) const fn begun(&self) -> u64 {
        self.begun
    }

    /// Returns the input, which may have more after the last frame.
    pub(super) fn into_inner(self) -> I {
        self.input
    }
}

impl<I: BufRead> Frames<I> {
    /// Reads on, to the end of a frame at most. Returns how much content there was, which may be none at all, or `None`
    /// where no further frame begins.
    pub(super) fn advance(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let available = self.input.fill_buf()?;
        let is_end = available.is_empty();
        if !self.is_within_frame {
            if !available.first().copied().is_some_and(begins_frame) {
                return Ok(None);
            }
            self.begun += 1;
        }
        let mut from = InBuffer::around(available);
        let mut to = OutBuffer::around(into);
        // At the end of the input there may still be content inside of the decoder.
        let wanted = self.decoder.run(&mut from, &mut to)?;
        let (taken, given) = (from.pos(), to.pos());
        self.input.consume(taken);
        self.is_within_frame = wanted != 0;
        if is_end && given == 0 && self.is_within_frame {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(given))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read as _};

    use super::*;

    fn read(bytes: &[u8], capacity: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let input = BufReader::with_capacity(capacity, bytes);
        let mut frames = Frames::new(input, 1 << 27)?;
        let (mut content, mut rest) = (Vec::new(), Vec::new());
        let mut piece = vec![0; 1000];
        while let Some(amount) = frames.advance(&mut piece)? {
            content.extend_from_slice(&piece[..amount]);
        }
        frames.into_inner().read_to_end(&mut rest)?;
        Ok((content, rest))
    }

    fn compress(content: &[u8]) -> Vec<u8> {
        zstd::encode_all(content, 3).unwrap()
    }

    #[test]
    fn frames_are_read_one_after_the_other_whatever_the_pieces() {
        let skippable = [
            &[0x53][..],
            &SKIPPABLE_MAGIC_END,
            &3_u32.to_le_bytes(),
            b"xyz",
        ]
        .concat();
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let bytes = [
            skippable.clone(),
            compress(&content),
            compress(b""),
            skippable,
            compress(b"end"),
        ]
        .concat();
        assert!(is_zstd(&bytes) && is_zstd(&compress(b"x")));
        for capacity in [1, 7, 100_000, 10_000_000] {
            let (found, rest) = read(&bytes, capacity).unwrap();
            assert!(
                found == [&content[..], b"end"].concat(),
                "capacity: {capacity}"
            );
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_follows_the_last_frame_is_left_alone() {
        let bytes = [&compress(b"content")[..], b"more"].concat();
        assert_eq!(
            read(&bytes, 5).unwrap(),
            (b"content".to_vec(), b"more".to_vec())
        );
    }

    #[test]
    fn a_cut_anywhere_inside_of_a_frame_is_no_end() {
        let bytes = compress(&(0..5000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        for length in (1..bytes.len()).step_by(97).chain([1, 3, bytes.len() - 1]) {
            let error = read(&bytes[..length], 64).unwrap_err();
            assert_eq!(
                error.kind(),
                io::ErrorKind::UnexpectedEof,
                "length: {length}"
            );
        }
    }
}
