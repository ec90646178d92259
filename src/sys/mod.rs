//! The operating-system boundary: the only module that changes the file system.

pub mod backoff;
pub mod disk;
#[cfg(test)]
pub(crate) mod fault;
pub mod fs;
pub mod lock;
pub mod notify;
pub mod signal;
pub mod sync;
pub mod watch;
