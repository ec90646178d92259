//! Where secrets are. The configuration names the place; the secret itself never stands in it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::base::{Class, Classified, Secret};

/// The largest secret, in bytes. Chosen: tokens have a few thousand, and more is the wrong file.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Permission bit: everybody may read.
const READABLE_BY_ALL: u32 = 0o004;

/// Where a password or token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file that only the daemon's user and group can read.
    File(PathBuf),
    /// In a systemd credential of this name (`LoadCredential=` in the unit).
    Credential(String),
    /// In this environment variable.
    Env(String),
}

/// Why a secret could not be had.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read secret `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Other users of the machine can read the file.
    #[error("expected secret `{}` to be readable by its owner and group only, found mode {mode:04o}", path.display())]
    ReadableByAll {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The process was not started by systemd with credentials.
    #[error("expected systemd to pass credential `{name}`, found no credentials")]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// The environment does not have the variable.
    #[error("expected a secret in environment variable `{name}`, found nothing")]
    NoVariable {
        /// The variable.
        name: String,
    },
    /// There is nothing in it.
    #[error("expected a secret in {place}, found nothing")]
    Empty {
        /// The file, credential or variable.
        place: String,
    },
    /// It is not UTF-8 text, or too long to be a secret.
    #[error("expected a secret of at most {SECRET_BYTES_MAX} bytes of UTF-8 text in `{}`", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Class::Absent,
            Self::Read { .. } | Self::ReadableByAll { .. } => Class::Denied,
            Self::NoCredentials { .. } | Self::NoVariable { .. } => Class::Absent,
            Self::Empty { .. } | Self::NotText { .. } => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, path } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!(
                    "make the daemon's group the group of `{0}` and run `chmod 0640 {0}`, or load it as a systemd \
                     credential",
                    path.display()
                ))
            }
            Self::ReadableByAll { path, .. } => Some(format!(
                "run `chmod o-rwx {}`, and change the secret if others use this machine",
                path.display()
            )),
            Self::NoCredentials { name } => Some(format!(
                "add `LoadCredential={name}:/path/to/file` to the unit, or use `file` instead"
            )),
            Self::NoVariable { name } => Some(format!(
                "set `{name}`, or use `file` or `credential` instead"
            )),
            Self::Read { .. } | Self::Empty { .. } | Self::NotText { .. } => None,
        }
    }
}

impl SecretSource {
    /// Fetches the secret. One line break at its end is not part of it, because editors add one.
    ///
    /// `credentials_dir` is what systemd passes as `CREDENTIALS_DIRECTORY`; `env` looks up environment variables.
    pub fn resolve(
        &self,
        credentials_dir: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Secret, Error> {
        let text = match self {
            Self::File(path) => read(path, Readers::OwnerAndGroup)?,
            Self::Credential(name) => {
                let dir =
                    credentials_dir.ok_or_else(|| Error::NoCredentials { name: name.clone() })?;
                read(&dir.join(name), Readers::Any)?
            }
            Self::Env(name) => env(name).ok_or_else(|| Error::NoVariable { name: name.clone() })?,
        };
        let secret = without_line_break(text);
        if secret.is_empty() {
            return Err(Error::Empty {
                place: self.to_string(),
            });
        }
        Ok(Secret::new(secret))
    }
}

impl std::fmt::Display for SecretSource {
    /// Prints the place: `file /etc/violetd/password`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Credential(name) => write!(f, "credential {name}"),
            Self::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Who may be able to read a file of a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    OwnerAndGroup,
    /// systemd guards the folder of credentials itself.
    Any,
}

fn read(path: &Path, readers: Readers) -> Result<String, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    // The permissions of the file that was opened, not of what is there by now.
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if readers == Readers::OwnerAndGroup && mode & READABLE_BY_ALL != 0 {
        return Err(Error::ReadableByAll {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    let not_text = || Error::NotText {
        path: path.to_owned(),
    };
    match file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text) {
        Ok(length) if length as u64 <= SECRET_BYTES_MAX => Ok(text),
        Ok(_) => Err(not_text()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(not_text()),
        Err(error) => Err(failed(error)),
    }
}

fn without_line_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))
            .unwrap();
        file
    }

    fn resolve(source: &SecretSource, dir: Option<&Path>) -> Result<String, Error> {
        let env = |name: &str| (name == "PASSWORD").then(|| "from env".to_owned());
        source
            .resolve(dir, &env)
            .map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn every_source_gives_its_secret() {
        let stored = file(b"from file \r\n", 0o640);
        let source = SecretSource::File(stored.path().to_owned());
        assert_eq!(resolve(&source, None).unwrap(), "from file ");

        let name = stored.path().file_name().unwrap().to_str().unwrap();
        let source = SecretSource::Credential(name.to_owned());
        assert_eq!(
            resolve(&source, stored.path().parent()).unwrap(),
            "from file "
        );
        assert!(matches!(
            resolve(&source, None),
            Err(Error::NoCredentials { .. })
        ));

        let source = SecretSource::Env("PASSWORD".to_owned());
        assert_eq!(resolve(&source, None).unwrap(), "from env");
        let source = SecretSource::Env("OTHER".to_owned());
        assert!(matches!(
            resolve(&source, None),
            Err(Error::NoVariable { .. })
        ));
    }

    #[test]
    fn only_one_line_break_is_cut() {
        for (content, secret) in [
            ("a\n\n", "a\n"),
            ("a", "a"),
            (" a\t\n", " a\t"),
            ("a\r", "a\r"),
        ] {
            let stored = file(content.as_bytes(), 0o600);
            let source = SecretSource::File(stored.path().to_owned());
            assert_eq!(
                resolve(&source, None).unwrap(),
                secret,
                "input: {content:?}"
            );
        }
    }

    #[test]
    fn files_that_hold_no_secret_are_refused() {
        let refused = |content: &[u8], mode| {
            let stored = file(content, mode);
            let source = SecretSource::File(stored.path().to_owned());
            resolve(&source, None).unwrap_err()
        };
        assert!(matches!(refused(b"\n", 0o600), Error::Empty { .. }));
        assert!(matches!(refused(b"\xff", 0o600), Error::NotText { .. }));
        let long = vec![b'a'; 64 * 1024 + 1];
        assert!(matches!(refused(&long, 0o600), Error::NotText { .. }));
        let error = refused(b"a", 0o644);
        assert!(error.to_string().ends_with("found mode 0644"), "{error}");
        assert!(error.hint().unwrap().starts_with("run `chmod o-rwx /"));
        let source = SecretSource::File("/nonexistent/password".into());
        assert_eq!(resolve(&source, None).unwrap_err().class(), Class::Absent);
    }
}
