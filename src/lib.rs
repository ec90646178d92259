//! Offline mirror and registry sync daemon.
//!
//! ```text
//! drop folder ─settle─► verify ─► package: unpack in one pass ─► store + catalog: the package is ready
//!                         │                                                │
//!                    rejected/ + reason                    wanted(target) = ready packages, filtered
//!                                                                          │
//!   schedule, new package, request ─► observe target ─► plan (pure) ─► apply: registry, platform
//!                                                                          │
//!                             status, metrics, lag ◄── record of the run; empty plan = in sync
//! ```
//!
//! Modules in reading order, lowest layer first. `tests/tidy.rs` holds who may name whom.

// Vocabulary and the operating system.
pub mod base;
pub mod sys;

// What is configured, and when.
pub mod config;
pub mod schedule;
pub mod task;

// What comes in.
pub mod package;
pub mod verify;

// What is kept.
pub mod audit;
pub mod catalog;
pub mod store;

// How servers are reached.
pub mod transport;

// Where it goes.
pub mod platform;
pub mod registry;

// The work: make packages, say what is there already, take them in, bring them to targets.
pub mod build;
pub mod check;
pub mod holdings;
pub mod ingest;
pub mod replicate;
pub mod retain;

// The program.
pub mod cli;
pub mod daemon;
pub mod http;

// Tests of all of it together.
#[cfg(test)]
mod crash;
