//! What crashes and power cuts leave of the whole: from the drop folder to the catalog, and back out again. Tests only.
//!
//! [`crate::sys::trial`] fails every operation and cuts the power at every moment; the scenarios are here, because they
//! need everything that the daemon consists of.
//!
//! A further scenario is a type that implements [`Scenario`](crate::sys::trial::Scenario), and two tests that call
//! `fail_everywhere` and `cut_everywhere`. [`Site`] has what most of them are made of: `prepare` drops packages,
//! `ingest` takes in what is dropped, `assert_sound` is what must hold at any moment. See `ingest.rs`.

mod ingest;
mod packages;
mod rebuild;
mod retention;
mod scrub;
mod site;

use self::packages::{package_of, release_of};
use self::site::{Open, Site, names, words};
