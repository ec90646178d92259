//! The package format: what is in a `.tgz`, and how to write one.
//!
//! A package is a tar archive, usually compressed by gzip or zstd, that holds container images and says what they are for.
//! Start from [`unpack`], which reads one in a single pass: blobs go to a [`Sink`] as they come, and what the package is
//! comes back as [`Contents`], those of packages in files inside of it as [`Nested`]. [`Writer`] makes packages; [`Manifest`]
//! is the document that describes one. [`Inventory`] and [`Request`] are the lists of blobs that deltas are made of. The
//! formats, as they are written and as far as they are read, are in `docs/formats/`; how much a package may ask for is in
//! [`Limits`].
//!
//! ```text
//! file ─► inflate ─► read_ahead ─► archive + header ─► receive ─┬─ blobs ─────────────────────────► Sink
//!         (thread)                (names, types)          ▲     ├─ archives ─► inner_file ─► inflate ─┐
//!                                                         │     │                                     │
//!                                                         └─────┼──────────── archive ◄───────────────┘
//!                                                               └─ metadata ─► assess ─► images ─► closure ─► describe ─► contents
//!                                                                              ▲    ▲
//!                                                                 docker_archive    chart_file   (make manifests)
//! ```
//!
//! # Invariants
//!
//! Packages come from outside and are taken for hostile. When [`unpack`] succeeds, then
//! - the whole input was read and every checksum in it was right,
//! - the content of every blob has the digest that its name says,
//! - every image is complete: each manifest, configuration and layer that it needs is in the sink, with the size that
//!   its parent says, except foreign layers that did not come, because they are fetched from elsewhere by definition, and
//!   except what the package manifest says is missing: what a delta builds on was in the sink before, what was left out is named,
//! - every layer of a docker-archive is the one that the configuration of its image names,
//! - every image that the package manifest names is there, unless the package has no images at all (a light package),
//! - the result does not depend on the order of the entries, nor on the name of the file.
//!
//! When it fails, the sink may have received blobs. Nothing may be made of them: whoever owns the sink drops it.
//!
//! # Failure
//!
//! What is wrong with a package inside of the file is wrong with the file. Every violation is its own variant of
//! [`enum@Error`], with a stable [`code`](Error::code).

mod archive;
mod assess;
mod capture;
mod chart_file;
mod chart_metadata;
mod closure;
mod contents;
mod delta;
mod describe;
mod docker_archive;
mod error;
mod error_code;
mod hashing;
mod header;
mod identity;
mod images;
mod inflate;
mod inner_file;
mod inventory;
mod inventory_error;
mod layer_content;
mod layout;
mod level;
mod limits;
mod manifest;
mod members;
pub mod parts;
mod read_ahead;
mod receive;
mod referrers;
mod sink;
mod unpack;
mod unpack_error;
mod write;
mod zstd_frames;

pub use self::contents::Contents;
pub use self::describe::Error as DescribeError;
pub use self::error::Error;
pub use self::hashing::{HashingReader, InputDigest};
pub use self::images::Image;
pub use self::inventory::{INVENTORY_BLOBS_MAX, Inventory, Request};
pub use self::inventory_error::ParseInventoryError;
pub use self::layout::ARCHIVE_ENDS;
pub use self::limits::Limits;
pub use self::manifest::{DEFAULT_CATALOG_SOURCE, Manifest};
pub use self::read_ahead::{BUFFER_BYTES, BUFFERS, ReadAhead};
pub use self::sink::{DiscardError, DiscardSink, Sink};
pub use self::unpack::{Nested, Unpacked, unpack};
pub use self::unpack_error::UnpackError;
pub use self::write::{WriteOptions, Writer};

#[cfg(test)]
mod tests;
