//! Everything that can go wrong between us and a platform.

use std::time::Duration;

use thiserror::Error;

use super::message::FieldConflict;
use crate::base::{Class, Classified, ClusterName, ParseNameError};
use crate::sys::fs;
use crate::transport::{self, Action, CertificateProblem, Message, RetryAfter};

/// Why the platform does not let a user in.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LoginProblem {
    /// The user must choose a password of their own first (`FirstLoginPasswordUpdate`).
    #[error("the first password must be changed")]
    FirstLogin,
    /// The password is too old (`PasswordExpired`).
    #[error("the password has expired")]
    PasswordExpired,
    /// The login wants a captcha or a second factor.
    #[error("the login asks for a captcha or a second factor")]
    Captcha,
    /// The login wants a proof of possession that only browsers have here.
    #[error("the login wants PKCE for this client")]
    Pkce,
    /// Anything else: a wrong password, a locked or unknown user.
    #[error("the user name or the password is refused{0}")]
    Refused(Message),
}

/// A failed operation on a platform.
#[derive(Debug, Error)]
pub enum Error {
    /// An option makes no sense.
    #[error("invalid platform option `{name}`: {reason}")]
    Options {
        /// The option's name.
        name: &'static str,
        /// What was expected and what was found.
        reason: String,
    },
    /// The HTTP client could not be made.
    #[error("failed to set up the client for `{address}`")]
    Setup {
        /// The platform.
        address: String,
        /// The library's reason.
        source: reqwest::Error,
    },
    /// Something that cannot name a Kubernetes object.
    #[error("expected the name of a Kubernetes object, found `{name}`")]
    Name {
        /// What was found.
        name: String,
        /// The rule it breaks.
        source: ParseNameError,
    },
    /// Something too long for a label.
    #[error("expected a label value of at most {bytes_max} bytes, found `{value}`")]
    Label {
        /// What was found.
        value: String,
        /// The limit.
        bytes_max: usize,
    },
    /// A `ModulePlugin` document that the platform would refuse.
    #[error("invalid ModulePlugin: expected {expected} at `{field}`, found {found}")]
    Document {
        /// The field, with dots between its parts.
        field: String,
        /// What belongs there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// No connection.
    #[error("failed to connect to `{address}`")]
    Unreachable {
        /// The platform.
        address: String,
        /// The library's reason.
        source: reqwest::Error,
    },
    /// The server did not prove who it is.
    #[error("the certificate of `{address}` is not trusted: {problem}")]
    Certificate {
        /// The platform.
        address: String,
        /// What is wrong.
        problem: CertificateProblem,
    },
    /// The connection broke in the middle.
    #[error("the connection was cut: failed to {action}")]
    Cut {
        /// What was being done.
        action: Action,
        /// The library's reason.
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("no answer within {} s: failed to {action}", limit.as_secs_f32())]
    TimedOut {
        /// What was being done.
        action: Action,
        /// The limit.
        limit: Duration,
    },
    /// The platform cannot at the moment: 408, 409 without a conflict of fields, 429, 500, 502, 503, 504.
    #[error("failed to {action}: status {status}{message}")]
    Busy {
        /// What was being done.
        action: Action,
        /// The HTTP status.
        status: u16,
        /// How long the server asked us to wait.
        retry_after: Option<Duration>,
        /// What it said.
        message: Message,
    },
    /// The platform does not let the user in.
    #[error("failed to log in to `{address}` as `{username}`: {problem}")]
    Login {
        /// The platform.
        address: String,
        /// The user.
        username: String,
        /// Why.
        problem: LoginProblem,
    },
    /// The token is refused.
    #[error("failed to {action}: the token is refused{message}")]
    Denied {
        /// What was being done.
        action: Action,
        /// What the platform said.
        message: Message,
    },
    /// The user is known, but may not do this.
    #[error("failed to {action}: not permitted{message}")]
    Forbidden {
        /// What was being done.
        action: Action,
        /// What the platform said.
        message: Message,
    },
    /// The platform does not know the cluster.
    #[error("expected a cluster of `{address}`, found `{cluster}`")]
    ClusterUnknown {
        /// The platform.
        address: String,
        /// The cluster that was asked for.
        cluster: ClusterName,
        /// Those it knows.
        known: Vec<String>,
    },
    /// The cluster does not serve this kind of object, or there is no such path.
    #[error("failed to {action}: the cluster does not offer it{message}")]
    NotServed {
        /// What was being done.
        action: Action,
        /// What the server said.
        message: Message,
    },
    /// The owner of an object is not there.
    #[error("expected Artifact `{owner}` as owner: failed to {action}")]
    OwnerAbsent {
        /// What was being done.
        action: Action,
        /// The owner that is missing.
        owner: String,
    },
    /// Somebody else manages fields that we want otherwise.
    #[error("failed to {action}: {}", list(conflicts))]
    Conflict {
        /// What was being done.
        action: Action,
        /// Who manages what.
        conflicts: Vec<FieldConflict>,
    },
    /// The platform does not accept the object: 400, 422, or 500 with words about the schema.
    #[error("failed to {action}: refused{message}")]
    Invalid {
        /// What was being done.
        action: Action,
        /// What the platform said.
        message: Message,
    },
    /// Any other answer that is not the expected one.
    #[error("failed to {action}: status {status}{message}")]
    Status {
        /// What was being done.
        action: Action,
        /// The HTTP status.
        status: u16,
        /// What the server said.
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
    /// The platform does not say from where clusters pull.
    #[error("`{address}` does not say from which registry its clusters pull")]
    PullRegistryUnknown {
        /// The platform.
        address: String,
    },
    /// A body that YAML cannot express.
    #[error("failed to write `{name}` as YAML")]
    Yaml {
        /// The object.
        name: String,
        /// The library's reason.
        source: serde_saphyr::SerializeError,
    },
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] fs::Error),
    /// A blocking step of ours ended without an answer.
    #[error("a file operation ended without an answer")]
    Interrupted,
}

fn list(conflicts: &[FieldConflict]) -> String {
    let texts: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

impl Error {
    /// Returns when the operation may be repeated, by what the server asked for.
    pub const fn retry_after(&self) -> RetryAfter {
        if let Self::Busy { retry_after, .. } = self {
            RetryAfter::Failed(*retry_after)
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
            | Self::Setup { .. }
            | Self::Certificate { .. }
            | Self::ClusterUnknown { .. } => Class::Usage,
            Self::Unreachable { .. }
            | Self::Cut { .. }
            | Self::TimedOut { .. }
            | Self::Busy { .. } => Class::Transient,
            Self::Login { .. } | Self::Denied { .. } | Self::Forbidden { .. } => Class::Denied,
            Self::NotServed { .. }
            | Self::OwnerAbsent { .. }
            | Self::PullRegistryUnknown { .. } => Class::Absent,
            Self::Name { .. }
            | Self::Label { .. }
            | Self::Document { .. }
            | Self::Conflict { .. }
            | Self::Invalid { .. }
            | Self::Status { .. }
            | Self::Answer { .. } => Class::Rejected,
            Self::Yaml { .. } | Self::Interrupted => Class::Bug,
            Self::Fs(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { address, .. } => Some(transport::unreachable_hint(address)),
            Self::Certificate { address, problem } => Some(problem.hint(address)),
            Self::Login { problem, .. } => Some(login_hint(problem).to_owned()),
            Self::Denied { action, .. } => Some(format!(
                "check the account at `{}`; if an API token is used, make a new one in the profile of the user",
                action.address()
            )),
            Self::Forbidden { .. } => {
                Some("use an account with the role `platform-admin-system`".to_owned())
            }
            Self::ClusterUnknown { known, .. } => {
                Some(format!("name one of its clusters: {}", known.join(", ")))
            }
            Self::NotServed { .. } => Some(
                "check that the cluster exists and that the platform's marketplace is installed on it".to_owned(),
            ),
            Self::Conflict { .. } => Some(
                "let the other manager give the fields up, or set `conflicts` to take them over".to_owned(),
            ),
            Self::PullRegistryUnknown { .. } => Some(
                "set `pull_registry` to the registry address as the clusters know it".to_owned(),
            ),
            Self::Fs(error) => error.hint(),
            Self::Options { .. }
            | Self::Setup { .. }
            | Self::Name { .. }
            | Self::Label { .. }
            | Self::Document { .. }
            | Self::Cut { .. }
            | Self::TimedOut { .. }
            | Self::Busy { .. }
            | Self::OwnerAbsent { .. }
            | Self::Invalid { .. }
            | Self::Status { .. }
            | Self::Answer { .. }
            | Self::Yaml { .. }
            | Self::Interrupted => None,
        }
    }
}

const fn login_hint(problem: &LoginProblem) -> &'static str {
    match problem {
        LoginProblem::FirstLogin | LoginProblem::PasswordExpired => {
            "log in to the web console once and choose a new password"
        }
        LoginProblem::Captcha | LoginProblem::Pkce => {
            "use an API token of this user in place of the password"
        }
        LoginProblem::Refused(_) => {
            "check the user name and the password; a user of an identity provider (LDAP, OIDC) needs an API token"
        }
    }
}
