//! Reading a package: one pass for the content ([`receive`](super::receive)), then the question what it amounts to and whether
//! it is whole ([`assess`](super::assess)).

use std::collections::BTreeSet;
use std::io::Read;

use super::archive::{Archive, Budget};
use super::assess::Assessor;
use super::contents::Contents;
use super::delta;
use super::inflate::{self, Opened};
use super::receive::Receiver;
use super::unpack_error::Outcome;
use super::{Limits, Sink};
use crate::base::Digest;

/// What a file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The package that the file is; none where it only carries others.
    pub package: Option<Contents>,
    /// Packages in files inside of the file, sorted by path.
    pub nested: Vec<Nested>,
}

/// A package that came inside of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nested {
    /// Path of the inner file in the archive; in an archive inside of it, with the path of that one in front.
    pub path: String,
    /// Digest of the inner file.
    pub digest: Digest,
    /// Size of the inner file.
    pub size_bytes: u64,
    /// What it holds.
    pub contents: Contents,
}

/// Reads a whole package: blobs go to `sink`, what it is comes back.
///
/// Inflating runs on a thread of its own; `input` is read to its end and dropped there. A failure may leave blobs in the
/// sink, of which nothing may be made.
pub fn unpack<R, S>(input: R, limits: &Limits, sink: &mut S) -> Outcome<Unpacked, S>
where
    R: Read + Send + 'static,
    S: Sink,
{
    let Opened {
        inflated,
        totals,
        capture,
    } = inflate::open(input, limits)?;
    let mut receiver = Receiver {
        limits,
        budget: Budget::new(limits),
        totals,
        sink,
        received: BTreeSet::new(),
    };
    let level = receiver.receive(Archive::new(inflated, limits), capture)?;
    delta::check_all(&level, receiver.sink)?;
    let mut assessor = Assessor {
        limits,
        budget: receiver.budget,
        sink: receiver.sink,
        received: receiver.received,
    };
    assessor.assess_file(level)
}
