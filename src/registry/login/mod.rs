//! Who we are at a registry: told by the options, or looked up as docker and podman do.
//!
//! A [`DockerConfig`] is read when the registry first asks who we are, and again when it refuses what was found: whoever
//! logs in again, or a helper whose passwords live for hours only, need not restart us.
//!
//! ```text
//! config file --credHelpers, credsStore--> helper program --+-> Login
//!       `------auths--------------------------------------- '
//! ```
//!
//! # Invariants
//!
//! No error and no log line has a part of the file but names of servers, or a part of what a helper gives out.

mod config_file;
mod error;
mod helper;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use url::Url;

pub use self::config_file::LoginFile;
pub use self::error::Error;
pub use self::helper::Helper;
use super::error::Error as RegistryError;
use super::options::Options;
use crate::base::{Clock, Secret, Timestamp};

/// How long after a look-up a refusal does not lead to another one: a run of many images, each refused, runs a helper
/// twice and not for each. Chosen, not measured.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(5);

/// The largest file of logins, in bytes. Chosen: one login has some hundred, one with a token some thousand.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A user of a registry, known by a password.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// Reads the text of the file, once for each look-up.
pub type ReadConfig = Arc<dyn Fn() -> io::Result<Secret> + Send + Sync>;

/// A `config.json` of docker or an `auth.json` of podman, with the helpers that it names.
#[derive(Clone)]
pub struct DockerConfig {
    /// Where it is, for messages: `file /etc/violetd/docker.json`.
    pub place: String,
    /// Reads it.
    pub read: ReadConfig,
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerConfig")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl DockerConfig {
    /// Returns a file of which the place and the permissions are its owner's business.
    pub fn of_file(path: &Path) -> Self {
        let path = path.to_owned();
        Self {
            place: format!("file {}", path.display()),
            read: Arc::new(move || {
                let mut text = String::new();
                let length = File::open(&path)?
                    .take(FILE_BYTES_MAX + 1)
                    .read_to_string(&mut text)?;
                if length as u64 > FILE_BYTES_MAX {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                Ok(Secret::new(text))
            }),
        }
    }

    /// Returns the password for the registry of `options`, for clients that know nothing but passwords.
    pub async fn find_password(
        &self,
        options: &Options,
    ) -> Result<Option<Credentials>, RegistryError> {
        let refuse = |source| RegistryError::Login {
            place: self.place.clone(),
            source: Box::new(source),
        };
        let found = self.find(&options.base_url()?).await.map_err(refuse)?;
        found.note_unused(&self.place);
        match found.login {
            None => Ok(None),
            Some(Login::Password(credentials)) => Ok(Some(credentials)),
            Some(Login::IdentityToken(_)) => Err(refuse(Error::Entry {
                server: options.address.clone(),
                expected: "a user name and a password, and no identity token,",
            })),
        }
    }

    /// Returns who we are at the registry of which `base` is the URL; `None` where nothing is said about it.
    ///
    /// A helper that is named for the registry is asked first, then the one for all, then the file itself.
    async fn find(&self, base: &Url) -> Result<Said, Error> {
        let read = Arc::clone(&self.read);
        let text = tokio::task::spawn_blocking(move || read())
            .await
            .expect("reading a file does not panic")
            .map_err(|source| Error::Read { source })?;
        let file = LoginFile::parse(text.expose())?;
        let by_helper = match file.helper(base)? {
            Some(helper) => helper.get().await?,
            None => None,
        };
        let login = match by_helper {
            Some(login) => Some(login),
            None => file.login(base)?,
        };
        let unused = file.namespaces(base).join(", ");
        Ok(Said { login, unused })
    }
}

/// What a file says of a registry.
#[derive(Debug)]
struct Said {
    login: Option<Login>,
    /// The keys of what is not used, because it is for a part of the registry.
    unused: String,
}

impl Said {
    fn note_unused(&self, place: &str) {
        if !self.unused.is_empty() {
            tracing::info!(
                place,
                keys = self.unused,
                "logins for a part of the registry are not used, only one for all of it"
            );
        }
    }
}

/// What proves who we are.
#[derive(Clone, Debug)]
pub enum Login {
    /// A password.
    Password(Credentials),
    /// A refresh token, which the token server takes in exchange for others.
    IdentityToken(Secret),
}

impl Login {
    /// Makes a login of a user name and what came with it. By an agreement among helpers and clients, `<token>` as the
    /// name means that it is an identity token.
    fn new(username: String, secret: String) -> Self {
        let secret = Secret::new(secret);
        if username == "<token>" {
            Self::IdentityToken(secret)
        } else {
            Self::Password(Credentials {
                username,
                password: secret,
            })
        }
    }

    /// Returns the name for messages.
    pub(super) fn username(&self) -> &str {
        match self {
            Self::Password(credentials) => &credentials.username,
            Self::IdentityToken(_) => "<token>",
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Password(one), Self::Password(other)) => {
                one.username == other.username && one.password.expose() == other.password.expose()
            }
            (Self::IdentityToken(one), Self::IdentityToken(other)) => {
                one.expose() == other.expose()
            }
            (Self::Password(_) | Self::IdentityToken(_), _) => false,
        }
    }
}

/// Who we are at one registry, as far as is known.
#[derive(Debug)]
pub(super) struct Logins {
    base: Url,
    config: Option<DockerConfig>,
    clock: Arc<dyn Clock>,
    /// Held during a look-up, so that there is one at a time.
    found: tokio::sync::Mutex<Option<Found>>,
    username: Mutex<Option<String>>,
    /// Says once what is not used.
    noted: Once,
}

/// The outcome of a look-up.
#[derive(Clone, Debug)]
struct Found {
    login: Option<Arc<Login>>,
    looked_up_at: Timestamp,
}

impl Logins {
    /// `credentials` count where they are given, else `config`.
    pub(super) fn new(
        base: Url,
        credentials: Option<Credentials>,
        config: Option<DockerConfig>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let known = credentials.map(Login::Password);
        let is_known = known.is_some() || config.is_none();
        Self {
            base,
            username: Mutex::new(known.as_ref().map(|login| login.username().to_owned())),
            found: tokio::sync::Mutex::new(is_known.then(|| Found {
                login: known.map(Arc::new),
                looked_up_at: clock.now(),
            })),
            config: config.filter(|_| !is_known),
            clock,
            noted: Once::new(),
        }
    }

    /// Returns the name of whom we are, for messages.
    pub(super) fn username(&self) -> Option<String> {
        self.locked_username().clone()
    }

    /// Returns who we are; `None` is nobody in particular.
    pub(super) async fn current(&self) -> Result<Option<Arc<Login>>, RegistryError> {
        let mut found = self.found.lock().await;
        if let Some(found) = &*found {
            return Ok(found.login.clone());
        }
        let new = self.look_up().await?;
        let login = new.login.clone();
        *found = Some(new);
        Ok(login)
    }

    /// Returns who else we are after `refused` was refused; `None` where that is the last word.
    pub(super) async fn renew(
        &self,
        refused: Option<&Arc<Login>>,
    ) -> Result<Option<Arc<Login>>, RegistryError> {
        let mut found = self.found.lock().await;
        if let Some(found) = &*found {
            match (&found.login, refused) {
                // Somebody else was faster.
                (Some(login), Some(refused)) if !Arc::ptr_eq(login, refused) => {
                    return Ok(Some(Arc::clone(login)));
                }
                (Some(login), None) => return Ok(Some(Arc::clone(login))),
                _ => {}
            }
            if self.clock.now() < found.looked_up_at + LOOK_UP_PAUSE {
                return Ok(None);
            }
        }
        if self.config.is_none() {
            return Ok(None);
        }
        let mut new = self.look_up().await?;
        if let (Some(login), Some(refused)) = (&new.login, refused)
            && login.is_same(refused)
        {
            // What was refused stays the one that everybody holds.
            new.login = Some(Arc::clone(refused));
            *found = Some(new);
            return Ok(None);
        }
        let login = new.login.clone();
        *found = Some(new);
        Ok(login)
    }

    async fn look_up(&self) -> Result<Found, RegistryError> {
        let looked_up_at = self.clock.now();
        let login = match &self.config {
            None => None,
            Some(config) => {
                let found =
                    config
                        .find(&self.base)
                        .await
                        .map_err(|source| RegistryError::Login {
                            place: config.place.clone(),
                            source: Box::new(source),
                        })?;
                self.noted.call_once(|| found.note_unused(&config.place));
                found.login
            }
        };
        *self.locked_username() = login.as_ref().map(|login| login.username().to_owned());
        Ok(Found {
            login: login.map(Arc::new),
            looked_up_at,
        })
    }

    fn locked_username(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.username.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::base::ManualClock;

    fn base() -> Url {
        "https://registry.example/".parse().unwrap()
    }

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    /// A file whose password is the number of times that it was read, divided by two.
    fn config(reads: &Arc<AtomicUsize>) -> DockerConfig {
        let reads = Arc::clone(reads);
        DockerConfig {
            place: "file /x".to_owned(),
            read: Arc::new(move || {
                let number = reads.fetch_add(1, Ordering::Relaxed) / 2;
                Ok(Secret::new(format!(
                    r#"{{"auths":{{"registry.example":{{"username":"u","password":"{number}"}}}}}}"#
                )))
            }),
        }
    }

    fn password(login: &Login) -> &str {
        match login {
            Login::Password(credentials) => credentials.password.expose(),
            Login::IdentityToken(_) => panic!("a token"),
        }
    }

    #[tokio::test]
    async fn a_file_is_read_again_when_its_login_is_refused_but_not_at_once() {
        let reads = Arc::new(AtomicUsize::new(0));
        let clock = Arc::new(ManualClock::new(start()));
        let logins = Logins::new(base(), None, Some(config(&reads)), Arc::clone(&clock) as _);
        assert_eq!(logins.username(), None);
        let first = logins.current().await.unwrap().unwrap();
        assert_eq!(logins.username(), Some("u".to_owned()));
        assert_eq!(password(&first), "0");
        assert!(logins.renew(Some(&first)).await.unwrap().is_none());
        assert_eq!(reads.load(Ordering::Relaxed), 1);

        clock.set(start() + LOOK_UP_PAUSE);
        // Nothing has changed.
        assert!(logins.renew(Some(&first)).await.unwrap().is_none());
        assert_eq!(reads.load(Ordering::Relaxed), 2);
        clock.set(start() + LOOK_UP_PAUSE * 2);
        let second = logins.renew(Some(&first)).await.unwrap().unwrap();
        assert_eq!(password(&second), "1");
        // Who was refused with the first one as well gets the second one without a look-up.
        let again = logins.renew(Some(&first)).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&again, &second));
        assert_eq!(reads.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn what_the_options_say_is_the_last_word() {
        let reads = Arc::new(AtomicUsize::new(0));
        let clock = Arc::new(ManualClock::new(start()));
        let credentials = Credentials {
            username: "option".to_owned(),
            password: Secret::new("p".to_owned()),
        };
        let config = Some(config(&reads));
        let logins = Logins::new(base(), Some(credentials), config, Arc::clone(&clock) as _);
        let login = logins.current().await.unwrap().unwrap();
        assert_eq!(login.username(), "option");
        clock.set(start() + LOOK_UP_PAUSE);
        assert!(logins.renew(Some(&login)).await.unwrap().is_none());
        assert_eq!(reads.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_an_error_with_its_place() {
        let config = DockerConfig {
            place: "file /x".to_owned(),
            read: Arc::new(|| Err(io::ErrorKind::PermissionDenied.into())),
        };
        let clock = Arc::new(ManualClock::new(start()));
        let logins = Logins::new(base(), None, Some(config), clock as _);
        let error = logins.current().await.unwrap_err();
        assert_eq!(
            crate::base::Chain(&error).to_string(),
            "no login from file /x: failed to read it: permission denied"
        );
    }
}
