//! Where passwords and tokens come from: the command line, where they are visible to others, a file, standard input or the
//! environment.

use std::io::Read as _;
use std::path::Path;

use super::super::{Failure, output};
use crate::base::Secret;
use crate::sys::fs::Context as _;

/// A secret that the command may need.
#[derive(Debug)]
pub(super) struct Wanted {
    /// What it is, in words.
    what: &'static str,
    /// The option that has it.
    option: &'static str,
    /// The option that names a file with it.
    file_option: &'static str,
    /// The variable of the environment that has it.
    variable: &'static str,
}

/// The password for the registry.
pub(super) const REGISTRY_PASSWORD: Wanted = Wanted {
    what: "the password for the registry",
    option: "--password",
    file_option: "--password-file",
    variable: "VIOLETD_PUSH_PASSWORD",
};

/// The password for the platform.
pub(super) const PLATFORM_PASSWORD: Wanted = Wanted {
    what: "the password for the platform",
    option: "--platform-password",
    file_option: "--platform-password-file",
    variable: "VIOLETD_PUSH_PLATFORM_PASSWORD",
};

/// The token for the platform.
pub(super) const PLATFORM_TOKEN: Wanted = Wanted {
    what: "a login for the platform",
    option: "--platform-username or --platform-token",
    file_option: "--platform-token-file",
    variable: "VIOLETD_PUSH_PLATFORM_TOKEN",
};

/// Finds secrets.
#[derive(Debug)]
pub(super) struct Secrets {
    environment: fn(&str) -> Option<String>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            environment: |name| std::env::var(name).ok(),
        }
    }
}

impl Secrets {
    /// Returns a secret that was given on the command line, or else is in a file, or else in the environment.
    pub(super) fn require(
        &self,
        wanted: &Wanted,
        given: Option<&str>,
        file: Option<&Path>,
    ) -> Result<Secret, Failure> {
        let text = match (given, file) {
            (Some(given), _) => {
                output::note(format!(
                    "warning: {} is on the command line, where others on this machine can see it; use {} or {}",
                    wanted.what, wanted.file_option, wanted.variable
                ));
                Some(given.to_owned())
            }
            (None, Some(path)) => Some(std::fs::read_to_string(path).context("read", path)?),
            (None, None) => (self.environment)(wanted.variable),
        };
        let text = text.ok_or_else(|| {
            Failure::usage(format!(
                "expected {}: {}, {} or {}",
                wanted.what, wanted.option, wanted.file_option, wanted.variable
            ))
        })?;
        secret(&text, wanted.what)
    }

    /// Reads a secret from standard input.
    pub(super) fn from_stdin() -> Result<Secret, Failure> {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|error| {
            Failure::usage(format!(
                "failed to read the password from standard input: {error}"
            ))
        })?;
        secret(&text, "a password on standard input")
    }
}

/// Returns a secret without the end of its line.
fn secret(text: &str, what: &str) -> Result<Secret, Failure> {
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Failure::usage(format!("expected {what}, found nothing")));
    }
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Secrets {
        Secrets {
            environment: |_| None,
        }
    }

    #[test]
    fn a_file_comes_before_the_environment_and_lines_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        crate::sys::fs::replace_file(&path, b"from file\r\n", 0o600).unwrap();
        let secrets = Secrets {
            environment: |name| (name == "VIOLETD_PUSH_PASSWORD").then(|| "from env".to_owned()),
        };
        let found = |secrets: &Secrets, file: Option<&Path>| {
            let found = secrets.require(&REGISTRY_PASSWORD, None, file);
            found.map(|secret| secret.expose().to_owned())
        };
        assert_eq!(found(&secrets, Some(&path)).unwrap(), "from file");
        assert_eq!(found(&secrets, None).unwrap(), "from env");
        let failure = found(&empty(), None).unwrap_err();
        assert!(
            failure.error.to_string().contains("--password-file"),
            "{failure:?}"
        );
        crate::sys::fs::replace_file(&path, b"\n", 0o600).unwrap();
        found(&secrets, Some(&path)).unwrap_err();
    }
}
