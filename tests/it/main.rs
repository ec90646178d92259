//! Integration tests: the library and the program against real servers and against servers that follow a script.
//!
//! One binary, because linking it takes longer than running it. Servers and tools come from Debian packages; a test
//! that misses one fails and names the package.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod audit;
mod authoring;
mod check;
mod configuration;
mod crash;
mod daemon;
mod describe;
#[path = "../fixtures/mod.rs"]
mod fixtures;
mod interop;
mod leases;
mod nondistributable;
mod pace;
mod platform;
mod power;
mod push;
mod push_faults;
mod registry;
mod registry_faults;
mod registry_listing;
mod registry_logins;
mod registry_ways;
mod signatures;
mod soak;
mod support;
mod systemd;
mod uploads;
