//! Compresses what compresses: one gzip stream of several members, each with its own level.
//!
//! Layers are compressed already. Compressing them again costs a second for each 55 MB and saves one byte in a hundred
//! (measured 2026-11-20 at level 1), and whoever unpacks pays once more; storing them costs neither. A gzip file of several
//! members is one file to every reader (RFC 1952, section 2.2).

use std::io::{self, Write};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

/// How many bytes the compressor is given at one time. Where it stores, its blocks follow what it is given, so this must
/// not depend on how content arrives: the same content gives the same bytes. A part of the format, see
/// `docs/formats/package.md`.
const PIECE_BYTES: usize = 64 << 10;
/// The operating system in the gzip header: unknown (RFC 1952, section 2.3.1).
const OS_UNKNOWN: u8 = 255;
/// How many bytes [`is_compressed`] wants to see.
pub(super) const MAGIC_BYTES: usize = 6;
/// First bytes of formats in which layers are compressed, and of those that compress nothing any more.
const MAGICS: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh"];

/// Returns whether content that begins with `first` is compressed already.
pub(super) fn is_compressed(first: &[u8]) -> bool {
    MAGICS.iter().any(|magic| first.starts_with(magic))
}

/// A gzip stream whose level can change on the way.
#[derive(Debug)]
pub(super) struct Members<W: Write> {
    /// `None` only while a member ends and the next one begins.
    encoder: Option<GzEncoder<W>>,
    level: Compression,
    /// The beginning of the next piece, less than [`PIECE_BYTES`].
    piece: Vec<u8>,
}

impl<W: Write> Members<W> {
    /// Begins the first member.
    pub(super) fn new(output: W, level: Compression) -> Self {
        Self {
            encoder: Some(begin(output, level)),
            level,
            piece: Vec::with_capacity(PIECE_BYTES),
        }
    }

    /// Compresses what follows with `level`: in a new member, unless the present one has it.
    pub(super) fn set_level(&mut self, level: Compression) -> io::Result<()> {
        if level != self.level {
            let output = self.end_member()?;
            self.encoder = Some(begin(output, level));
            self.level = level;
        }
        Ok(())
    }

    /// Ends the last member.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.end_member()
    }

    fn end_member(&mut self) -> io::Result<W> {
        self.compress_piece()?;
        let encoder = self.encoder.take().ok_or_else(broken)?;
        encoder.finish()
    }

    /// Gives the compressor what is there.
    fn compress_piece(&mut self) -> io::Result<()> {
        let encoder = self.encoder.as_mut().ok_or_else(broken)?;
        encoder.write_all(&self.piece)?;
        self.piece.clear();
        Ok(())
    }
}

fn broken() -> io::Error {
    io::Error::other("the member before could not be ended")
}

/// The header is the same on every machine at every time.
fn begin<W: Write>(output: W, level: Compression) -> GzEncoder<W> {
    GzBuilder::new()
        .mtime(0)
        .operating_system(OS_UNKNOWN)
        .write(output, level)
}

impl<W: Write> Write for Members<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES - self.piece.len();
        let (taken, _) = bytes.split_at(bytes.len().min(room));
        self.piece.extend_from_slice(taken);
        if self.piece.len() == PIECE_BYTES {
            self.compress_piece()?;
        }
        Ok(taken.len())
    }

    /// Does nothing: a flush in the middle would end up in the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn members_of_several_levels_read_back_as_one_stream() {
        let mut members = Members::new(Vec::new(), Compression::new(6));
        members.write_all(&[b'a'; 10_000]).unwrap();
        members.set_level(Compression::none()).unwrap();
        members.set_level(Compression::none()).unwrap();
        members.write_all(&[b'b'; 10_000]).unwrap();
        members.set_level(Compression::new(6)).unwrap();
        members.write_all(b"c").unwrap();
        let bytes = members.finish().unwrap();
        assert!(
            (10_000..10_200).contains(&bytes.len()),
            "{} bytes",
            bytes.len()
        );
        let mut text = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes.as_slice())
            .read_to_end(&mut text)
            .unwrap();
        assert_eq!(text.len(), 20_001);
    }

    #[test]
    fn the_bytes_do_not_depend_on_how_content_arrives() {
        let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let compress = |sizes: &[usize], level| {
            let mut members = Members::new(Vec::new(), Compression::new(level));
            let (mut left, mut sizes) = (content.as_slice(), sizes.iter().cycle());
            while !left.is_empty() {
                let size = *sizes.next().expect("a cycle does not end");
                let (now, later) = left.split_at(size.min(left.len()));
                members.write_all(now).unwrap();
                left = later;
            }
            members.finish().unwrap()
        };
        for level in [0, 6] {
            let whole = compress(&[content.len()], level);
            assert!(
                whole == compress(&[1, 8192, 7, 100_000], level),
                "level {level}"
            );
        }
    }

    #[test]
    fn compressed_formats_are_known_by_their_first_bytes() {
        assert!(is_compressed(&[0x1f, 0x8b, 8, 0, 0, 0]));
        assert!(is_compressed(b"\xfd7zXZ\0"));
        for plain in [&b"{\"a\""[..], b"", b"\x1f", b"bin/\0\0"] {
            assert!(!is_compressed(plain));
        }
    }
}
