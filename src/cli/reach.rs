//! Whom a command asks: the daemon, if one runs with the configuration.

use std::future::Future;

use super::{Failure, runtime};
use crate::http::client;

/// Asks the daemon. Returns nothing where none is there to be asked.
pub(super) fn ask<T>(
    question: impl Future<Output = Result<T, client::Error>>,
) -> Result<Option<T>, Failure> {
    match runtime()?.block_on(question) {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_nobody() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
