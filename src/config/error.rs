//! What can be wrong with a configuration.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::{Endpoint, PlatformKind, Role};
use crate::base::{Class, Classified, TargetName};

/// Why a configuration is not accepted.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read configuration `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser expected and found.
        message: String,
    },
    /// A key or its value is wrong.
    #[error("{place}: `{key}`")]
    Key {
        /// Where.
        place: Place,
        /// The key with its sections, elements of lists counted from 0: `target[1].registry.address`.
        key: String,
        /// What is wrong.
        #[source]
        problem: Box<Problem>,
    },
}

/// Where a key was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, of the key or of the section that lacks it. None if the file lacks the section.
        line: Option<usize>,
    },
    /// In this environment variable.
    Variable(String),
    /// Nowhere, and there is no file.
    NoFile,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::NoFile => f.write_str("no configuration file"),
        }
    }
}

/// A key and what is wrong with it, before anybody looked where it was set.
#[derive(Debug)]
pub(super) struct Flaw {
    pub(super) key: String,
    pub(super) problem: Box<Problem>,
}

impl Flaw {
    pub(super) fn new(key: impl Into<String>, problem: Problem) -> Self {
        Self {
            key: key.into(),
            problem: Box::new(problem),
        }
    }
}

/// What is wrong with a key.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Problem {
    /// There is no such key.
    #[error("expected a known key")]
    UnknownKey {
        /// What to write instead.
        suggestion: String,
    },
    /// A table where a word belongs, and the like.
    #[error("expected {expected}, found {found}")]
    Kind {
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The value does not follow its grammar. The text is of the form `expected X, found Y`.
    #[error("{0}")]
    Value(String),
    /// A list of tables in the environment, where it cannot be written.
    #[error("expected `{0}` to be set in the configuration file only")]
    FileOnly(String),
    /// A key without default is not set.
    #[error("expected a value, found none")]
    Missing,
    /// A number or duration outside of what makes sense.
    #[error("expected {expected}, found {found}")]
    Range {
        /// What makes sense.
        expected: String,
        /// What was set.
        found: String,
    },
    /// A relative path, or one with `..`.
    #[error("expected an absolute path without `..`, found `{}`", .0.display())]
    Path(PathBuf),
    /// The secret itself stands in the configuration. It is not repeated here.
    #[error("expected where the secret is, found the secret itself")]
    LiteralSecret,
    /// None or several places for one secret.
    #[error("expected exactly one of `file`, `credential` and `env`")]
    SecretSource,
    /// No `[[drop]]`.
    #[error("expected at least one drop folder, found none")]
    NoDropFolder,
    /// No `[[target]]`.
    #[error("expected at least one target, found none")]
    NoTarget,
    /// Two targets of one name.
    #[error("expected every target to have its own name, found `{0}` twice")]
    DuplicateName(TargetName),
    /// Two folders that must be apart are one, or one is inside of the other.
    #[error("expected a folder apart from `{other_key}`, found `{}` and `{}`", path.display(), other.display())]
    Overlap {
        /// This folder.
        path: PathBuf,
        /// The other one.
        other: PathBuf,
        /// The key of the other one.
        other_key: String,
    },
    /// Two targets push to one registry.
    #[error(
        "expected every target to have its own registry, found that of `{other}` at {endpoint}"
    )]
    SharedRegistry {
        /// The other target.
        other: TargetName,
        /// What both dial.
        endpoint: Endpoint,
        /// The role of this target: standby, if one of the two is.
        role: Role,
    },
    /// Two targets publish to one platform.
    #[error(
        "expected every target to have its own platform, found that of `{other}` at {endpoint}"
    )]
    SharedPlatform {
        /// The other target.
        other: TargetName,
        /// What both dial.
        endpoint: Endpoint,
        /// The role of this target: standby, if one of the two is.
        role: Role,
    },
    /// A target without the address of its registry.
    #[error("expected the registry address of this {0}, found none")]
    NoRegistryAddress(Role),
    /// A standby without credentials and without `no_auth`.
    #[error(
        "expected a standby to have `username` and `password`, `docker_config` or `no_auth = true`, found none of them"
    )]
    StandbyWithoutAccess,
    /// A platform without its address.
    #[error("expected the platform address of this {0}, found none")]
    NoPlatformAddress(Role),
    /// A platform without credentials.
    #[error("expected `token`, or `username` and `password`, found neither")]
    NoPlatformAccess,
    /// Only one of user name and password.
    #[error("expected `{0}` beside it, found none")]
    HalfCredentials(&'static str),
    /// Two keys that exclude each other.
    #[error("expected either this or `{0}`, found both")]
    Conflict(&'static str),
    /// A key that this kind of platform does not have.
    #[error("expected no such key with `kind = \"{0}\"`")]
    ForeignKey(PlatformKind),
    /// A user name or a password in the URL of a proxy. It is not repeated here.
    #[error("expected `scheme://host:port`, found a login in it")]
    ProxyLogin,
    /// A proxy that finds out itself where names lead, beside `connect_to`.
    #[error(
        "expected no `connect_to` with a proxy of scheme `{0}`, which finds out itself where a name leads"
    )]
    ProxyResolves(String),
    /// A port where only a host belongs.
    #[error("expected a host without a port, found `{0}`")]
    Port(String),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Class::Denied
            }
            Self::Read { .. } | Self::Syntax { .. } | Self::Key { .. } => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("copy config.example.toml there and edit it, or name another file".to_owned())
            }
            Self::Read { .. } | Self::Syntax { .. } => None,
            Self::Key { problem, .. } => problem.hint(),
        }
    }
}

impl Problem {
    /// Returns what to do about it.
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::UnknownKey { suggestion } => suggestion.as_str(),
            Self::FileOnly(_) => {
                "write it into the file; secrets can come from the environment by `{ env = \"NAME\" }`"
            }
            Self::LiteralSecret => {
                "write `{ file = \"/path\" }`, `{ credential = \"name\" }` or `{ env = \"NAME\" }`, and change the secret"
            }
            Self::SecretSource => {
                "write `{ file = \"/path\" }`, `{ credential = \"name\" }` or `{ env = \"NAME\" }`"
            }
            Self::NoDropFolder => "add a `[[drop]]` section with the `path` of the folder",
            Self::NoTarget => {
                "add a `[[target]]` section with `name`, `role` and `registry.address`"
            }
            Self::SharedRegistry { role, .. } | Self::SharedPlatform { role, .. } => match role {
                Role::Primary => "remove one of the two targets, or give each its own address",
                Role::Standby => {
                    "the name both clusters share leads to the primary: set `connect_to` to the address of the standby"
                }
            },
            Self::NoRegistryAddress(Role::Standby) | Self::NoPlatformAddress(Role::Standby) => {
                "nothing is inferred for a standby: set `address`, and `connect_to` if that name leads to the primary"
            }
            Self::NoRegistryAddress(Role::Primary) | Self::NoPlatformAddress(Role::Primary) => {
                "set `address`"
            }
            Self::StandbyWithoutAccess => {
                "set `username` and `password`, or `docker_config`, or `no_auth = true` if its registry asks for no login"
            }
            Self::NoPlatformAccess => "set `token`, or `username` and `password`",
            Self::ForeignKey(PlatformKind::None) => "set `kind`, or remove the key",
            Self::ForeignKey(PlatformKind::Acp | PlatformKind::Directory) => {
                "remove the key, or change `kind`"
            }
            Self::ProxyLogin => "set `proxy_username` and `proxy_password`",
            Self::ProxyResolves(_) => "use a `socks5` proxy, or remove the key",
            Self::Port(_) => "remove the port: that of `address` is dialled",
            Self::Overlap { .. } => "choose folders that are not inside each other",
            Self::Kind { .. }
            | Self::Value(_)
            | Self::Missing
            | Self::Range { .. }
            | Self::Path(_)
            | Self::DuplicateName(_)
            | Self::HalfCredentials(_)
            | Self::Conflict(_) => return None,
        };
        Some(hint.to_owned())
    }
}
