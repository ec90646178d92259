//! What goes wrong between us and a server before it can say anything, and how to name what was being done.

use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::base::{Chain, Class, Classified};

/// A client that cannot be made. The clients of this crate turn it into errors of their own.
#[derive(Debug, Error)]
pub enum Error {
    /// An option makes no sense.
    #[error("invalid option `{name}`: {reason}")]
    Option {
        /// The option's name.
        name: &'static str,
        /// What was expected and what was found.
        reason: String,
    },
    /// The HTTP client could not be made.
    #[error("failed to set up the client for `{address}`")]
    Setup {
        /// The server.
        address: String,
        /// The library's reason.
        source: reqwest::Error,
    },
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Option { .. } | Self::Setup { .. } => Class::Usage,
        }
    }
}

/// What was being done, and at which server. Printed as ``read manifest a/b:v1 at `registry.example` ``.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action(Arc<(String, String)>);

impl Action {
    /// `doing` is an infinitive without `to`, with its object.
    pub fn new(doing: String, address: &str) -> Self {
        Self(Arc::new((doing, address.to_owned())))
    }

    /// Returns the server's address.
    pub fn address(&self) -> &str {
        &self.0.1
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at `{}`", self.0.0, self.0.1)
    }
}

/// What is wrong with a server's certificate.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CertificateProblem {
    /// Signed by nobody we trust.
    #[error("it is signed by an unknown issuer")]
    UnknownIssuer,
    /// For other names.
    #[error("it is not valid for that name")]
    Name,
    /// Its time is over, or has not come.
    #[error("it has expired or is not valid yet")]
    Time,
    /// Anything else, in the words of the TLS library.
    #[error("{0}")]
    Other(String),
}

impl CertificateProblem {
    /// Returns what is wrong with the certificate, if that is why a request failed.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's list grows; what is not named is printed in its words"
    )]
    pub fn find(error: &reqwest::Error) -> Option<Self> {
        use rustls::CertificateError as Bad;

        let rustls::Error::InvalidCertificate(bad) = find_source(error)? else {
            return None;
        };
        Some(match bad {
            Bad::UnknownIssuer => Self::UnknownIssuer,
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Self::Name,
            Bad::Expired
            | Bad::ExpiredContext { .. }
            | Bad::NotValidYet
            | Bad::NotValidYetContext { .. } => Self::Time,
            other => Self::Other(other.to_string()),
        })
    }

    /// Returns what to do about it.
    pub fn hint(&self, address: &str) -> String {
        match self {
            Self::UnknownIssuer | Self::Other(_) => {
                format!("name the certificate of the issuer of `{address}` as `ca_file`")
            }
            Self::Name => {
                "use the name of the certificate as address and set `connect_to` to the host to dial".to_owned()
            }
            Self::Time => {
                format!("renew the certificate of `{address}`, and check the clock of this machine")
            }
        }
    }
}

/// Returns what a server says against our certificate, if that is why a request failed: alerts about certificates come
/// from whoever checks one.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's list grows; what is not named says nothing of our certificate"
)]
pub fn find_refused_identity(error: &reqwest::Error) -> Option<&'static str> {
    use rustls::AlertDescription as Alert;

    let rustls::Error::AlertReceived(alert) = find_source(error)? else {
        return None;
    };
    Some(match *alert {
        Alert::CertificateRequired => "it asks for one",
        Alert::BadCertificate => "it asks for one, or for another one",
        Alert::UnknownCA => "it is signed by an unknown issuer",
        Alert::CertificateExpired => "it has expired or is not valid yet",
        Alert::CertificateRevoked => "it was revoked",
        Alert::UnsupportedCertificate => "it is of an unsupported kind",
        Alert::CertificateUnknown | Alert::AccessDenied => "it gives no access",
        _ => return None,
    })
}

/// Returns what to do about a server that cannot be reached.
pub fn unreachable_hint(address: &str) -> String {
    format!("check that `{address}` can be reached from here, or set `connect_to`")
}

/// What the HTTP library says where a proxy wants another login, in errors of no type that could be named (hyper-util 0.1.21): after
/// CONNECT, and of SOCKS 5 (RFC 1928 and 1929).
const LOGIN_WORDS: [&str; 3] = [
    "proxy authorization required",
    "server does not support user/pass authentication",
    "credentials not accepted",
];

/// Returns whether a proxy does not let us through because of who we are, or because we did not say so.
pub fn is_refused_by_proxy(error: &reqwest::Error) -> bool {
    let words = Chain(error).to_string();
    error.status() == Some(reqwest::StatusCode::PROXY_AUTHENTICATION_REQUIRED)
        || LOGIN_WORDS.iter().any(|it| words.contains(it))
}

/// Finds an error of one type among the sources of another. [`io::Error`] hides what it wraps from `source`.
pub fn find_source<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
