//! The package format: what is in a `.tgz`, and how to write one.
//!
//! A package is a tar archive, usually gzip-compressed, that holds container images and says what they are for. Start
//! from [`unpack`], which reads one in a single pass: blobs go to a [`Sink`] as they come, and what the package is comes
//! back as [`Contents`]. [`Writer`] makes packages; [`Manifest`] is the document that describes one. The format, as it is
//! written and as far as it is read, is in `docs/formats/package.md`.
//!
//! ```text
//! file ─► inflate ─► read_ahead ─► archive + header ─► unpack ─┬─ blobs ────► Sink
//!         (thread)                (names, types, limits)       └─ metadata ─► images ─► closure ─► Contents
//! ```
//!
//! # Invariants
//!
//! Packages come from outside and are taken for hostile. When [`unpack`] succeeds, then
//! - the whole input was read and every checksum in it was right,
//! - the content of every blob has the digest that its name says,
//! - every image is complete: each manifest, configuration and layer that it needs is in the sink, with the size that
//!   its parent says, except foreign layers, which are fetched from elsewhere by definition,
//! - every image that the package manifest names is there, unless the package has no images at all (a light package),
//! - the result does not depend on the order of the entries, nor on the name of the file.
//!
//! When it fails, the sink may have received blobs. Nothing may be made of them: whoever owns the sink drops it.
//!
//! # Failure
//!
//! Every violation is its own variant of [`enum@Error`], with a stable [`code`](Error::code).

mod archive;
mod closure;
mod error;
mod hashing;
mod header;
mod images;
mod inflate;
mod layout;
mod limits;
mod manifest;
mod members;
mod read_ahead;
mod sink;
mod unpack;
mod write;

pub use self::error::{Error, UnpackError};
pub use self::hashing::{HashingReader, InputDigest};
pub use self::images::Image;
pub use self::limits::{EXPANSION_CHECKED_FROM_BYTES, Limits};
pub use self::manifest::{DEFAULT_CATALOG_SOURCE, Manifest};
pub use self::read_ahead::{BUFFER_BYTES, BUFFERS, ReadAhead};
pub use self::sink::{DiscardError, DiscardSink, Sink};
pub use self::unpack::{Contents, unpack};
pub use self::write::{WriteOptions, Writer};

#[cfg(test)]
mod tests;
