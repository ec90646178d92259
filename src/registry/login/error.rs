//! Why a login could not be looked up.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::base::{Class, Classified};
use crate::transport::Message;

/// A failed look-up of a login.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read it")]
    Read {
        /// The reason.
        source: io::Error,
    },
    /// The file is not what docker or podman write.
    #[error(
        "expected a docker `config.json`, found something else in line {line}, column {column}"
    )]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// What stands under a registry is no login.
    #[error("expected {expected} under `{server}`")]
    Entry {
        /// The registry, as it is written there.
        server: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// The name of a helper that could lead to another program.
    #[error("expected a helper of letters, digits, `-`, `_` and `.`, found `{}`", name.escape_debug())]
    HelperName {
        /// The name.
        name: String,
    },
    /// The helper cannot be run.
    #[error("failed to run `{program}`")]
    HelperStart {
        /// The program.
        program: String,
        /// The reason.
        source: io::Error,
    },
    /// The helper says that it failed.
    #[error("`{program}` failed: {status}{message}")]
    HelperFailed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// What it said of it.
        message: Message,
    },
    /// The helper did not end.
    #[error("`{program}` gave no answer within {} s", limit.as_secs())]
    HelperSlow {
        /// The program.
        program: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The helper does not follow its protocol.
    #[error("expected {expected} of `{program}`")]
    HelperAnswer {
        /// The program.
        program: String,
        /// What belongs there.
        expected: &'static str,
    },
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Read { source } | Self::HelperStart { source, .. } => {
                crate::sys::fs::class_of(source)
            }
            Self::Syntax { .. }
            | Self::Entry { .. }
            | Self::HelperName { .. }
            | Self::HelperAnswer { .. } => Class::Usage,
            // Most helpers ask a server of their own.
            Self::HelperFailed { .. } | Self::HelperSlow { .. } => Class::Transient,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::HelperStart { program, source } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!(
                    "install `{program}` in a folder of `PATH`, or take its entry out of the file"
                ))
            }
            Self::Syntax { .. } => {
                Some("write it with `docker login` or `podman login --authfile`".to_owned())
            }
            Self::HelperFailed { program, .. } | Self::HelperSlow { program, .. } => Some(format!(
                "run `{program} get` by hand, as the same user, with the name of the registry as input"
            )),
            Self::Read { .. }
            | Self::Entry { .. }
            | Self::HelperName { .. }
            | Self::HelperStart { .. }
            | Self::HelperAnswer { .. } => None,
        }
    }
}
