//! The token that requests carry: logged in once, renewed in time, given up when it is refused.
//!
//! # Concurrency
//!
//! One login at a time; whoever needs a token meanwhile waits for that one.
//!
//! # Failure
//!
//! A refused password is remembered for a while and not tried again, because platforms lock accounts after a few
//! failures, and a run makes hundreds of requests. If the login is down while the old token is still good, the old token
//! is used on: the console can be down while the API works.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::login::{Login, Token};
use super::wire::Wire;
use crate::base::{Chain, Class, Classified as _, Clock, Secret};
use crate::platform::error::{Error, LoginProblem};
use crate::platform::options::{AcpOptions, Auth};

/// The most of a token's life that is given away by renewing it early. Covers a request that waits long for its answer.
const MARGIN_MAX: Duration = Duration::from_mins(10);

/// A token to use, and which one it is.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) token: Secret,
    number: u64,
}

/// Holds the token of one platform.
#[derive(Debug)]
pub(super) enum Session {
    /// A token that was given to us.
    Static(Grant),
    /// A token that a login brings.
    Login {
        login: Box<Login>,
        pause: Duration,
        state: Mutex<State>,
    },
}

#[derive(Debug, Default)]
pub(super) struct State {
    held: Option<Held>,
    refused: Option<(LoginProblem, Instant)>,
    logins: u64,
}

#[derive(Debug)]
struct Held {
    grant: Grant,
    /// From when on a new one is wanted, and until when this one is good; unknown for tokens that do not say.
    term: Option<(Instant, Instant)>,
}

impl Session {
    pub(super) fn new(options: &AcpOptions, wire: Wire, clock: Arc<dyn Clock>) -> Self {
        match &options.auth {
            Auth::Token(token) => Self::Static(Grant {
                token: token.clone(),
                number: 0,
            }),
            Auth::Password(password) => Self::Login {
                login: Box::new(Login::new(
                    options.address.clone(),
                    password.clone(),
                    wire,
                    clock,
                )),
                pause: options.timeouts.login_pause,
                state: Mutex::default(),
            },
        }
    }

    /// Returns a token, after a login if there is none or it is about to expire.
    pub(super) async fn token(&self) -> Result<Grant, Error> {
        let (login, pause, state) = match self {
            Self::Static(grant) => return Ok(grant.clone()),
            Self::Login {
                login,
                pause,
                state,
            } => (login, *pause, state),
        };
        let mut state = state.lock().await;
        let now = Instant::now();
        if let Some(grant) = state.fresh(now) {
            return Ok(grant);
        }
        if let Some((problem, until)) = &state.refused
            && now < *until
        {
            return Err(login.refusal(problem.clone()));
        }
        match login.run().await {
            Ok(token) => Ok(state.keep(token)),
            Err(error) => state.without_login(error, pause),
        }
    }

    /// Forgets a token that was refused, unless a newer one is there. Returns whether asking again may help.
    pub(super) async fn discard(&self, grant: &Grant) -> bool {
        match self {
            Self::Static(_) => false,
            Self::Login { state, .. } => {
                let mut state = state.lock().await;
                if state
                    .held
                    .as_ref()
                    .is_some_and(|held| held.grant.number == grant.number)
                {
                    state.held = None;
                }
                true
            }
        }
    }
}

impl State {
    fn fresh(&self, now: Instant) -> Option<Grant> {
        let held = self.held.as_ref()?;
        let is_fresh = held.term.is_none_or(|(renew_at, _)| now < renew_at);
        is_fresh.then(|| held.grant.clone())
    }

    fn keep(&mut self, token: Token) -> Grant {
        self.logins += 1;
        let grant = Grant {
            token: token.secret,
            number: self.logins,
        };
        let now = Instant::now();
        self.refused = None;
        self.held = Some(Held {
            grant: grant.clone(),
            term: token
                .lifetime
                .map(|lifetime| (now + usable(lifetime), now + lifetime)),
        });
        grant
    }

    /// Returns the old token if it is good still and the login may work later.
    fn without_login(&mut self, error: Error, pause: Duration) -> Result<Grant, Error> {
        if let Error::Login { problem, .. } = &error {
            self.refused = Some((problem.clone(), Instant::now() + pause));
        }
        match &self.held {
            Some(Held {
                grant,
                term: Some((_, expires_at)),
            }) if error.class() == Class::Transient && Instant::now() < *expires_at => {
                tracing::warn!(error = %Chain(&error), "failed to renew the platform's token, the old one is used on");
                Ok(grant.clone())
            }
            Some(_) | None => Err(error),
        }
    }
}

/// Returns how long a token with this lifetime is used: four fifths of it, or all but [`MARGIN_MAX`].
fn usable(lifetime: Duration) -> Duration {
    lifetime.saturating_sub((lifetime / 5).min(MARGIN_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, lifetime: Option<Duration>) -> Token {
        Token {
            secret: Secret::new(text.to_owned()),
            lifetime,
        }
    }

    fn busy() -> Error {
        Error::PullRegistryUnknown {
            address: "platform.example".to_owned(),
        }
    }

    fn cut() -> Error {
        Error::TimedOut {
            action: crate::transport::Action::new("test".to_owned(), "platform.example"),
            limit: Duration::ZERO,
        }
    }

    #[test]
    fn tokens_are_renewed_before_they_expire() {
        for (lifetime_seconds, usable_seconds) in [(0, 0), (100, 80), (86_400, 85_800)] {
            assert_eq!(
                usable(Duration::from_secs(lifetime_seconds)),
                Duration::from_secs(usable_seconds)
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_token_serves_while_the_login_is_down_and_no_longer_than_it_is_good() {
        let mut state = State::default();
        state.keep(token("one", Some(Duration::from_secs(100))));
        assert!(state.fresh(Instant::now()).is_some());
        tokio::time::advance(Duration::from_secs(85)).await;
        assert!(state.fresh(Instant::now()).is_none());
        let old = state.without_login(cut(), Duration::ZERO).unwrap();
        assert_eq!(old.token.expose(), "one");
        assert!(state.without_login(busy(), Duration::ZERO).is_err());
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(state.without_login(cut(), Duration::ZERO).is_err());
    }

    #[test]
    fn a_token_that_says_nothing_is_used_until_it_is_refused() {
        let mut state = State::default();
        state.keep(token("one", None));
        assert!(
            state
                .fresh(Instant::now() + Duration::from_hours(999))
                .is_some()
        );
    }
}
