//! Programs that know logins: `docker-credential-NAME get`.
//!
//! # Format
//!
//! The name of the server on standard input; on standard output `{"ServerURL":"...","Username":"...","Secret":"..."}`, or,
//! with another exit code than 0, an error message.
//!
//! # Invariants
//!
//! No shell is involved, and the name cannot lead to a program of another kind. Time and output have bounds; a helper that
//! is waited for no longer is killed.
//!
//! # References
//!
//! The docker-credential-helpers project, "Development".

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{Error, Login};
use crate::transport::Message;

/// How long a helper may take. Those of clouds ask a server. Chosen, not measured.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest output, in bytes. Passwords that are tokens have some thousand.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
/// How much of an error message is shown, in characters: a line.
const MESSAGE_CHARACTERS_MAX: usize = 200;
/// What a helper says where it knows no login (docker-credential-helpers, `credentials/error.go`).
const NOT_FOUND: &str = "credentials not found";

/// A helper and what it is to be asked.
#[derive(Debug)]
pub struct Helper {
    program: String,
    server: String,
    limit: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Helper {
    /// `name` is what follows `docker-credential-`.
    pub(super) fn new(name: &str, server: String) -> Result<Self, Error> {
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if !is_name {
            return Err(Error::HelperName {
                name: name.to_owned(),
            });
        }
        Ok(Self {
            program: format!("docker-credential-{name}"),
            server,
            limit: LIMIT,
        })
    }

    /// Asks the helper; `None` is that it knows no login for the server.
    pub(super) async fn get(&self) -> Result<Option<Login>, Error> {
        tokio::time::timeout(self.limit, self.run())
            .await
            .unwrap_or_else(|_| {
                Err(Error::HelperSlow {
                    program: self.program.clone(),
                    limit: self.limit,
                })
            })
    }

    async fn run(&self) -> Result<Option<Login>, Error> {
        let failed = |source| Error::HelperStart {
            program: self.program.clone(),
            source,
        };
        let mut child = Command::new(&self.program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let mut stdin = child.stdin.take().expect("it is piped");
        // One that does not listen may know the answer all the same.
        drop(stdin.write_all(self.server.as_bytes()).await);
        drop(stdin);
        let stdout = child.stdout.take().expect("it is piped");
        let mut output = Vec::new();
        stdout
            .take(OUTPUT_BYTES_MAX + 1)
            .read_to_end(&mut output)
            .await
            .map_err(failed)?;
        if output.len() as u64 > OUTPUT_BYTES_MAX {
            return Err(self.broken("at most 64 KiB of output"));
        }
        let status = child.wait().await.map_err(failed)?;
        if status.success() {
            return self.parse(&output).map(Some);
        }
        let message = Message::of_page(&output, MESSAGE_CHARACTERS_MAX);
        if message.as_str().contains(NOT_FOUND) {
            return Ok(None);
        }
        Err(Error::HelperFailed {
            program: self.program.clone(),
            status: status.to_string(),
            message,
        })
    }

    fn parse(&self, output: &[u8]) -> Result<Login, Error> {
        let answer: Answer = serde_json::from_slice(output)
            .map_err(|_| self.broken("`Username` and `Secret` in JSON"))?;
        if answer.username.is_empty() || answer.secret.is_empty() {
            return Err(self.broken("a user name and a secret"));
        }
        Ok(Login::new(answer.username, answer.secret))
    }

    fn broken(&self, expected: &'static str) -> Error {
        Error::HelperAnswer {
            program: self.program.clone(),
            expected,
        }
    }
}

impl fmt::Display for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.program, self.server)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::base::Chain;

    /// Runs a script in the place of a helper and shows what comes of it.
    async fn answer(script: &str, limit: Duration) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("helper");
        // By another process: a program that is open for writing in one that forks cannot be run.
        let mut install = std::process::Command::new("install")
            .args(["-m", "700", "/dev/stdin"])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = install.stdin.take().unwrap();
        write!(stdin, "#!/bin/sh\n{script}\n").unwrap();
        drop(stdin);
        assert!(install.wait().unwrap().success());
        let helper = Helper {
            program: path.to_str().unwrap().to_owned(),
            server: "registry.example".to_owned(),
            limit,
        };
        match helper.get().await {
            Ok(None) => "nothing".to_owned(),
            Ok(Some(Login::Password(credentials))) => {
                format!("{}/{}", credentials.username, credentials.password.expose())
            }
            Ok(Some(Login::IdentityToken(token))) => format!("token {}", token.expose()),
            Err(error) => Chain(&error)
                .to_string()
                .replace(path.to_str().unwrap(), "HELPER"),
        }
    }

    #[tokio::test]
    async fn helpers_are_asked_for_a_server_and_believed_or_not() {
        let answer = async |script: &str| answer(script, LIMIT).await;
        let echo =
            r#"[ "$1" = get ] && printf '{"ServerURL":"x","Username":"u","Secret":"%s"}' "$(cat)""#;
        assert_eq!(answer(echo).await, "u/registry.example");
        let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(answer(token).await, "token t");
        let unknown = "echo credentials not found in native keychain; exit 1";
        assert_eq!(answer(unknown).await, "nothing");
        assert_eq!(
            answer("echo no session; exit 3").await,
            "`HELPER` failed: exit status: 3 (no session)"
        );
        assert_eq!(
            answer("echo hunter2").await,
            "expected `Username` and `Secret` in JSON of `HELPER`"
        );
        assert_eq!(
            answer(r#"echo '{"Username":"u","Secret":""}'"#).await,
            "expected a user name and a secret of `HELPER`"
        );
        assert_eq!(
            answer("cat /dev/zero").await,
            "expected at most 64 KiB of output of `HELPER`"
        );
    }

    #[tokio::test]
    async fn a_helper_that_does_not_end_is_given_up() {
        let found = answer("exec sleep 1000", Duration::from_millis(50)).await;
        assert_eq!(found, "`HELPER` gave no answer within 0 s");
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_named_with_a_hint() {
        use crate::base::Classified as _;

        let helper = Helper::new("nowhere-to-be-found", "r".to_owned()).unwrap();
        let error = helper.get().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to run `docker-credential-nowhere-to-be-found`"
        );
        assert!(error.hint().unwrap().starts_with("install `docker-"));
    }
}
