//! Everything that can go wrong between us and a registry.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use super::login;
use crate::base::{Class, Classified, Digest, Timestamp};
use crate::transport::{self, Action, CertificateProblem, Message, RetryAfter};

/// A user name for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(pub Option<String>);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => write!(f, "user `{name}`"),
            None => f.write_str("anonymous access"),
        }
    }
}

/// A failed operation of a registry client.
#[derive(Debug, Error)]
pub enum Error {
    /// An option makes no sense.
    #[error("invalid registry option `{name}`: {reason}")]
    Options {
        /// The option's name.
        name: &'static str,
        /// What was expected and what was found.
        reason: String,
    },
    /// The HTTP client could not be made.
    #[error("failed to set up the client for `{address}`")]
    Setup {
        /// The registry.
        address: String,
        /// The library's reason.
        source: reqwest::Error,
    },
    /// It could not be found out who we are.
    #[error("no login from {place}")]
    Login {
        /// Where it was looked for.
        place: String,
        /// The reason.
        source: Box<login::Error>,
    },
    /// No connection through the proxy.
    #[error("failed to connect to `{address}` through the proxy {proxy}")]
    Proxy {
        /// The registry, or the server it sent us to.
        address: String,
        /// The proxy.
        proxy: String,
        /// The library's reason.
        source: reqwest::Error,
    },
    /// No connection.
    #[error("failed to connect to `{address}`")]
    Unreachable {
        /// The registry, or the server it sent us to.
        address: String,
        /// The library's reason.
        source: reqwest::Error,
    },
    /// The server did not prove who it is.
    #[error("the certificate of `{address}` is not trusted: {problem}")]
    Certificate {
        /// The registry, or the server it sent us to.
        address: String,
        /// What is wrong.
        problem: CertificateProblem,
    },
    /// We did not prove to the server who we are.
    #[error("`{address}` does not accept our certificate: {problem}")]
    Identity {
        /// The registry, or the server it sent us to.
        address: String,
        /// What the server says.
        problem: &'static str,
    },
    /// TLS was expected, the server speaks plain HTTP.
    #[error("expected TLS at `{address}`, found plain HTTP")]
    PlainServer {
        /// The registry.
        address: String,
    },
    /// Plain HTTP was expected, the server speaks TLS.
    #[error("expected plain HTTP at `{address}`, found TLS")]
    TlsServer {
        /// The registry.
        address: String,
    },
    /// The connection broke in the middle.
    #[error("the connection was cut: failed to {action}")]
    Cut {
        /// What was being done.
        action: Action,
        /// The library's reason.
        source: reqwest::Error,
    },
    /// Nothing moved for too long.
    #[error("no progress for {} s: failed to {action}", idle.as_secs_f32())]
    Stalled {
        /// What was being done.
        action: Action,
        /// For how long nothing moved, at least.
        idle: Duration,
    },
    /// The registry was gone for so long that it is left alone for a while. Not repeated.
    #[error("`{address}` does not answer, it is asked again after {}", until.format("%H:%M:%SZ"))]
    Resting {
        /// The registry.
        address: String,
        /// When it is asked again.
        until: Timestamp,
    },
    /// The registry cannot at the moment: 408, 429, 500, 502, 503, 504.
    #[error("failed to {action}: status {status}{message}")]
    Busy {
        /// What was being done.
        action: Action,
        /// The HTTP status.
        status: u16,
        /// How long the registry asked us to wait.
        retry_after: Option<Duration>,
        /// What the registry said.
        message: Message,
    },
    /// The credentials are refused, or there are none.
    #[error("`{address}` refused {user}{message}")]
    Denied {
        /// The registry.
        address: String,
        /// Who was refused.
        user: User,
        /// What the registry said.
        message: Message,
    },
    /// The credentials are good, but not for this.
    #[error("{user} may not {action}{message}")]
    Forbidden {
        /// What was being done.
        action: Action,
        /// Who was refused.
        user: User,
        /// What the registry said.
        message: Message,
    },
    /// The registry wants a way of authentication that is not known.
    #[error("expected Basic or Bearer authentication at `{address}`, found {found}")]
    Scheme {
        /// The registry.
        address: String,
        /// The schemes it offers, or what is wrong with them.
        found: String,
    },
    /// The registry, which speaks TLS, wants the password sent in the clear.
    #[error("`{address}` asks to send the password without TLS to `{realm}`")]
    InsecureRealm {
        /// The registry.
        address: String,
        /// Where it wants the password.
        realm: String,
    },
    /// There is no registry at this address.
    #[error("expected a registry at `{address}`, found status {status}")]
    NotRegistry {
        /// The address.
        address: String,
        /// The answer to `GET /v2/`.
        status: u16,
    },
    /// The registry does not know the repository.
    #[error("unknown repository: failed to {action}")]
    RepositoryUnknown {
        /// What was being done.
        action: Action,
    },
    /// What was asked for is not there.
    #[error("not found: failed to {action}{message}")]
    Absent {
        /// What was being done.
        action: Action,
        /// What the registry said.
        message: Message,
    },
    /// The registry takes no writes.
    #[error("the registry is read-only: failed to {action}{message}")]
    ReadOnly {
        /// What was being done.
        action: Action,
        /// What the registry said.
        message: Message,
    },
    /// The registry, or a proxy before it, refuses bodies of that size.
    #[error("too large for the server: failed to {action}{message}")]
    TooLarge {
        /// What was being done.
        action: Action,
        /// What the server said.
        message: Message,
    },
    /// The upload session is gone or out of step; a new one must be begun.
    #[error("the upload session is lost: failed to {action}{message}")]
    SessionLost {
        /// What was being done.
        action: Action,
        /// What the registry said.
        message: Message,
    },
    /// The manifest points to something that the registry does not have.
    #[error("content is missing: failed to {action}{message}")]
    ManifestBlobUnknown {
        /// What was being done.
        action: Action,
        /// What the registry said: the digest.
        message: Message,
        /// The digests that it says are missing; empty where it does not say.
        missing: BTreeSet<Digest>,
    },
    /// The registry does not accept layers that are to be fetched from elsewhere.
    #[error("layers from elsewhere are refused: failed to {action}{message}")]
    ForeignLayers {
        /// What was being done.
        action: Action,
        /// What the registry said: the digests.
        message: Message,
        /// The digests that it says are missing; empty where it does not say.
        missing: BTreeSet<Digest>,
    },
    /// The registry does not accept the manifest.
    #[error("invalid manifest: failed to {action}{message}")]
    ManifestInvalid {
        /// What was being done.
        action: Action,
        /// What the registry said.
        message: Message,
    },
    /// Any other answer that is not the expected one.
    #[error("failed to {action}: status {status}{message}")]
    Status {
        /// What was being done.
        action: Action,
        /// The HTTP status.
        status: u16,
        /// What the registry said.
        message: Message,
    },
    /// An answer that breaks the protocol.
    #[error("failed to {action}: {reason}")]
    Answer {
        /// What was being done.
        action: Action,
        /// What was expected and what was found.
        reason: String,
    },
    /// Content that does not have its digest.
    #[error("failed to {action}: expected {expected}, found {found}")]
    DigestMismatch {
        /// What was being done.
        action: Action,
        /// The digest that was asked for or sent.
        expected: Digest,
        /// The digest that arrived.
        found: Digest,
    },
    /// The registry hashed what we sent to another digest.
    #[error("the content does not have its digest: failed to {action}{message}")]
    DigestRefused {
        /// What was being done.
        action: Action,
        /// What the registry said.
        message: Message,
    },
    /// Our own copy of a blob could not be read.
    #[error("failed to read our copy of {digest}")]
    Source {
        /// The blob.
        digest: Digest,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Our own copy of a blob does not have its size.
    #[error("expected {expected_bytes} bytes in our copy of {digest}, found {found_bytes}")]
    SourceSize {
        /// The blob.
        digest: Digest,
        /// The size that was announced.
        expected_bytes: u64,
        /// The size of the file.
        found_bytes: u64,
    },
}

impl Error {
    /// Returns when the operation may be repeated, by what the registry asked for.
    pub const fn retry_after(&self) -> RetryAfter {
        if let Self::Busy {
            status,
            retry_after,
            ..
        } = self
        {
            return if *status == 429 {
                RetryAfter::Refused(*retry_after)
            } else {
                RetryAfter::Failed(*retry_after)
            };
        }
        if matches!(self, Self::Resting { .. }) {
            RetryAfter::Never
        } else {
            RetryAfter::Failed(None)
        }
    }
}

impl From<transport::Error> for Error {
    fn from(error: transport::Error) -> Self {
        match error {
            transport::Error::Option { name, reason } => Self::Options { name, reason },
            transport::Error::Setup { address, source } => Self::Setup { address, source },
        }
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Options { .. }
            | Self::Certificate { .. }
            | Self::PlainServer { .. }
            | Self::TlsServer { .. }
            | Self::NotRegistry { .. }
            | Self::Setup { .. } => Class::Usage,
            Self::Login { source, .. } => source.class(),
            Self::Proxy { source, .. } if transport::is_refused_by_proxy(source) => Class::Denied,
            Self::Proxy { .. }
            | Self::Unreachable { .. }
            | Self::Cut { .. }
            | Self::Stalled { .. }
            | Self::Busy { .. }
            | Self::Resting { .. }
            | Self::SessionLost { .. } => Class::Transient,
            Self::Denied { .. }
            | Self::Identity { .. }
            | Self::Forbidden { .. }
            | Self::Scheme { .. }
            | Self::InsecureRealm { .. }
            | Self::ReadOnly { .. }
            | Self::TooLarge { .. } => Class::Denied,
            Self::RepositoryUnknown { .. }
            | Self::Absent { .. }
            | Self::ManifestBlobUnknown { .. } => Class::Absent,
            Self::ForeignLayers { .. }
            | Self::ManifestInvalid { .. }
            | Self::Status { .. }
            | Self::Answer { .. } => Class::Rejected,
            Self::DigestMismatch { .. } | Self::DigestRefused { .. } | Self::SourceSize { .. } => {
                Class::Corrupt
            }
            Self::Source { source, .. } => crate::sys::fs::class_of(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Login { source, .. } => source.hint(),
            Self::Identity { address, .. } => Some(format!(
                "set `client_cert_file` and `client_key` to a certificate that `{address}` knows, and its key"
            )),
            Self::Proxy { proxy, source, .. } if transport::is_refused_by_proxy(source) => {
                Some(format!("check the user name and the password for {proxy}"))
            }
            Self::Proxy { address, proxy, .. } => Some(format!(
                "check that {proxy} can be reached from here, and that it lets us through to `{address}`"
            )),
            Self::Unreachable { address, .. } | Self::Resting { address, .. } => {
                Some(transport::unreachable_hint(address))
            }
            Self::Certificate { address, problem } => Some(problem.hint(address)),
            Self::PlainServer { .. } => {
                Some("use plain HTTP for this registry, or another port".to_owned())
            }
            Self::TlsServer { .. } => Some("do not use plain HTTP for this registry".to_owned()),
            Self::Denied { address, user, .. } => Some(if user.0.is_some() {
                format!("check the user name and the password for `{address}`")
            } else {
                format!("give a user name and a password for `{address}`")
            }),
            Self::Forbidden { action, user, .. } => Some(format!(
                "give {user} the permission at `{}`",
                action.address()
            )),
            Self::InsecureRealm { .. } => {
                Some("let the registry name a token server with TLS".to_owned())
            }
            Self::NotRegistry { address, .. } => Some(format!(
                "check that `{address}` is the address and the port of a registry"
            )),
            Self::ReadOnly { action, .. } => Some(format!(
                "let the registry at `{}` accept writes",
                action.address()
            )),
            Self::TooLarge { action, .. } => Some(format!(
                "raise the limit on request bodies of the proxy before `{}`",
                action.address()
            )),
            Self::ForeignLayers { action, .. } => Some(format!(
                "let the registry at `{}` accept the URLs of these layers (docker-registry: `validation.manifests.urls.allow`)",
                action.address()
            )),
            Self::DigestRefused { .. } | Self::SourceSize { .. } => {
                Some("check the store for damaged blobs".to_owned())
            }
            Self::Options { .. }
            | Self::Setup { .. }
            | Self::Cut { .. }
            | Self::Stalled { .. }
            | Self::Busy { .. }
            | Self::Scheme { .. }
            | Self::RepositoryUnknown { .. }
            | Self::Absent { .. }
            | Self::SessionLost { .. }
            | Self::ManifestBlobUnknown { .. }
            | Self::ManifestInvalid { .. }
            | Self::Status { .. }
            | Self::Answer { .. }
            | Self::DigestMismatch { .. }
            | Self::Source { .. } => None,
        }
    }
}
