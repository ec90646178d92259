//! Why unpacking failed: one type over the faults of packages and those of the place where they go.

use std::io;

use thiserror::Error;

use crate::base::{Class, Classified};

/// Why unpacking failed: the package is at fault, or the place where it goes.
#[derive(Debug, Error)]
pub enum UnpackError<E: std::error::Error + 'static> {
    /// The package is refused, or could not be read.
    #[error(transparent)]
    Package(#[from] super::Error),
    /// The sink failed.
    #[error(transparent)]
    Sink(E),
}

/// What unpacking into a sink comes to.
pub(super) type Outcome<T, S> = Result<T, UnpackError<<S as super::Sink>::Error>>;

impl<E: std::error::Error + 'static> UnpackError<E> {
    /// Applies `explain` to what is wrong with the package, if that is what is wrong.
    pub(super) fn map_package(self, explain: impl FnOnce(super::Error) -> super::Error) -> Self {
        match self {
            Self::Package(error) => Self::Package(explain(error)),
            Self::Sink(error) => Self::Sink(error),
        }
    }
}

impl<E: Classified + 'static> Classified for UnpackError<E> {
    fn class(&self) -> Class {
        match self {
            Self::Package(error) => error.class(),
            Self::Sink(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Package(error) => error.hint(),
            Self::Sink(error) => error.hint(),
        }
    }
}

/// Returns the class of a failed read or write. What is not named may pass by itself.
pub(super) fn class_of(error: &io::Error) -> Class {
    if matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    ) {
        Class::Full
    } else {
        Class::Transient
    }
}
