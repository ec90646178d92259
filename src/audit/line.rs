//! One line of the audit record: its bytes, and how they are checked.
//!
//! The form is described byte by byte in `docs/formats/audit.md`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::event::Event;
use crate::base::{Digest, Timestamp};

/// The version of lines that this program writes, and the only one that it reads.
pub(super) const VERSION: u32 = 1;
/// Who writes.
pub(super) const PROGRAM: &str = concat!("violetd ", env!("CARGO_PKG_VERSION"));
/// What stands before the digest of everything before it.
const CHECK_KEY: &str = r#","check":""#;
/// What stands behind it.
const CHECK_END: &str = "\"}";
/// Length of a digest in its text form: `sha256:` and 64 hex characters.
const DIGEST_CHARS: usize = 71;
/// Length of the end of a line, from [`CHECK_KEY`] on.
const TAIL_BYTES: usize = CHECK_KEY.len() + DIGEST_CHARS + CHECK_END.len();

/// What stands in place of the digest of a line before the first.
pub const BEGINNING: Digest = Digest::from_bytes([0; 32]);

/// A position in the record: the number of a line and the digest of its bytes. Written `<number>:sha256:<hex>`.
///
/// Whoever has noted it elsewhere can tell whether that line, and so everything before it, is still what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The number of the line, from 1.
    pub sequence: u64,
    /// Digest of its bytes, without the line feed.
    pub hash: Digest,
}

/// A string that is no [`Head`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("expected `SEQUENCE:HASH` as `violetd audit head` prints it")]
pub struct ParseHeadError;

impl FromStr for Head {
    type Err = ParseHeadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (sequence, hash) = text.split_once(':').ok_or(ParseHeadError)?;
        let sequence = sequence.parse().map_err(|_| ParseHeadError)?;
        let hash = hash.parse().map_err(|_| ParseHeadError)?;
        Ok(Self { sequence, hash })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

/// What a line says, apart from its check.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The number of the line, from 1.
    pub sequence: u64,
    /// When it was written, by the clock of the machine.
    pub time: Timestamp,
    /// Digest of the line before.
    pub previous: Digest,
    /// Who wrote it.
    pub program: String,
    /// What happened; `None` where a later program has written something that this one does not know.
    pub event: Option<Event>,
}

/// Why a line is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// No line of this form.
    Malformed { reason: String },
    /// The bytes before the check are others than those that were checked.
    Altered { expected: Digest, found: Digest },
    /// A line of another version.
    Version { found: u32 },
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    sequence: u64,
    time: Timestamp,
    program: &'a str,
    previous: Digest,
    #[serde(flatten)]
    event: &'a Event,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    sequence: u64,
    time: Timestamp,
    program: String,
    previous: Digest,
    event: String,
    fields: serde_json::Value,
}

/// Returns the bytes of a line without its line feed.
pub(super) fn encode(
    program: &str,
    sequence: u64,
    time: Timestamp,
    previous: Digest,
    event: &Event,
) -> Vec<u8> {
    let line = Written {
        version: VERSION,
        sequence,
        time,
        program,
        previous,
        event,
    };
    let mut bytes = serde_json::to_vec(&line).expect("events can be written as JSON");
    let brace = bytes.pop();
    debug_assert_eq!(brace, Some(b'}'), "a struct is written as an object");
    let check = Digest::of(&bytes);
    bytes.extend_from_slice(CHECK_KEY.as_bytes());
    bytes.extend_from_slice(check.to_string().as_bytes());
    bytes.extend_from_slice(CHECK_END.as_bytes());
    bytes
}

/// Reads the bytes of a line without its line feed.
pub(super) fn decode(bytes: &[u8]) -> Result<Entry, Damage> {
    let malformed = |reason: &str| Damage::Malformed {
        reason: reason.to_owned(),
    };
    let split = bytes.len().checked_sub(TAIL_BYTES);
    let (body, tail) = bytes.split_at(split.ok_or_else(|| malformed("too short"))?);
    let expected: Digest = std::str::from_utf8(tail)
        .ok()
        .and_then(|tail| tail.strip_prefix(CHECK_KEY)?.strip_suffix(CHECK_END))
        .and_then(|digest| digest.parse().ok())
        .ok_or_else(|| malformed("no check at its end"))?;
    let found = Digest::of(body);
    if found != expected {
        return Err(Damage::Altered { expected, found });
    }
    let read: Read =
        serde_json::from_slice(bytes).map_err(|error| malformed(&error.to_string()))?;
    if read.version != VERSION {
        return Err(Damage::Version {
            found: read.version,
        });
    }
    Ok(Entry {
        sequence: read.sequence,
        time: read.time,
        previous: read.previous,
        program: read.program,
        event: Event::read(&read.event, &read.fields),
    })
}
