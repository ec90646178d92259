//! What the end of a request says: about the load of the server, about whether it is there, and about when to come again.

use std::num::NonZeroU64;
use std::time::Duration;

use super::limit::Sign;
use crate::registry::Error;

/// Whether there is a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    There,
    Gone,
    /// It said nothing either way.
    Unknown,
}

impl Server {
    const fn of_error(error: &Error, has_blob: bool) -> Self {
        match error {
            Error::Busy {
                status: 503,
                retry_after: Some(_),
                ..
            }
            | Error::Options { .. }
            | Error::Setup { .. }
            | Error::Login { .. }
            | Error::Certificate { .. }
            | Error::PlainServer { .. }
            | Error::TlsServer { .. }
            | Error::Resting { .. }
            | Error::Source { .. }
            | Error::SourceSize { .. } => Self::Unknown,
            // A proxy may cut what is large, and nothing else.
            Error::Cut { .. } if has_blob => Self::Unknown,
            Error::Busy {
                status: 408 | 429, ..
            }
            | Error::Denied { .. }
            | Error::Identity { .. }
            | Error::Forbidden { .. }
            | Error::Scheme { .. }
            | Error::InsecureRealm { .. }
            | Error::NotRegistry { .. }
            | Error::RepositoryUnknown { .. }
            | Error::Absent { .. }
            | Error::ReadOnly { .. }
            | Error::TooLarge { .. }
            | Error::SessionLost { .. }
            | Error::ManifestBlobUnknown { .. }
            | Error::ManifestInvalid { .. }
            | Error::ForeignLayers { .. }
            | Error::Status { .. }
            | Error::Answer { .. }
            | Error::DigestMismatch { .. }
            | Error::DigestRefused { .. } => Self::There,
            Error::Busy { .. }
            | Error::Unreachable { .. }
            | Error::Proxy { .. }
            | Error::Stalled { .. }
            | Error::Cut { .. } => Self::Gone,
        }
    }
}

/// What the end of a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::registry) struct Report {
    pub(super) sign: Sign,
    pub(super) server: Server,
    /// For how long the server wants no request.
    pub(super) hold_for: Option<Duration>,
}

impl Report {
    /// Returns what an answer says that came after `took`, to a request that carried so many bytes of a blob.
    pub(in crate::registry) const fn of_answer(took: Duration, blob_bytes: Option<u64>) -> Self {
        Self {
            sign: match blob_bytes {
                Some(bytes) => Sign::Moved(bytes, took),
                None => Sign::Answered(took),
            },
            server: Server::There,
            hold_for: None,
        }
    }

    /// Returns what a failure says. `has_blob` is whether the request carried one.
    pub(in crate::registry) const fn of_error(error: &Error, has_blob: bool) -> Self {
        let mut report = Self {
            sign: Sign::Nothing,
            server: Server::of_error(error, has_blob),
            hold_for: None,
        };
        if let Error::Busy {
            status: 429 | 503,
            retry_after,
            ..
        } = error
        {
            report.sign = Sign::Refused;
            report.hold_for = *retry_after;
        }
        report
    }

    /// Returns the same for an upload whose time was up to us, where there is a limit on the bandwidth.
    pub(super) const fn throttled_by(mut self, rate: Option<NonZeroU64>) -> Self {
        if let (Sign::Moved(..), Some(_)) = (self.sign, rate) {
            self.sign = Sign::Throttled;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Action, Message};

    fn busy(status: u16, retry_after: Option<Duration>) -> Report {
        let error = Error::Busy {
            action: Action::new("send it".to_owned(), "registry.example"),
            status,
            retry_after,
            message: Message::default(),
        };
        Report::of_error(&error, false)
    }

    #[test]
    fn refusals_are_load_and_other_failures_of_the_server_are_outages() {
        let second = Some(Duration::from_secs(1));
        for (status, retry_after, sign, server) in [
            (429, None, Sign::Refused, Server::There),
            (429, second, Sign::Refused, Server::There),
            (503, None, Sign::Refused, Server::Gone),
            (503, second, Sign::Refused, Server::Unknown),
            (500, None, Sign::Nothing, Server::Gone),
            (502, None, Sign::Nothing, Server::Gone),
            (504, None, Sign::Nothing, Server::Gone),
            (408, None, Sign::Nothing, Server::There),
        ] {
            let expected = Report {
                sign,
                server,
                hold_for: retry_after,
            };
            assert_eq!(
                busy(status, retry_after),
                expected,
                "{status} {retry_after:?}"
            );
        }
    }

    #[test]
    fn an_upload_under_a_limit_says_nothing_of_the_server() {
        let report = Report::of_answer(Duration::from_secs(1), Some(1 << 20));
        assert_eq!(report.throttled_by(None), report);
        let throttled = report.throttled_by(NonZeroU64::new(1));
        assert_eq!(throttled.sign, Sign::Throttled);
        let short = Report::of_answer(Duration::from_secs(1), None);
        assert_eq!(short.throttled_by(NonZeroU64::new(1)), short);
    }
}
