//! The operating-system boundary: the only module that changes the file system.

pub mod backoff;
pub mod cache;
pub mod disk;
#[cfg(test)]
pub(crate) mod fault;
pub mod fs;
pub mod lock;
pub mod notify;
#[cfg(test)]
pub(crate) mod power;
pub mod signal;
pub mod sync;
#[cfg(test)]
pub(crate) mod trial;
pub mod watch;
