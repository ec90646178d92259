//! Tokens that were granted, until they must be refreshed.
//!
//! # Concurrency
//!
//! For one set of scopes one token request is under way at a time; who else needs it waits for its answer. No lock of
//! the map is held across an await.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;

use super::Error;
use super::scope::Scopes;
use crate::base::{Clock, Secret, Timestamp};

/// How long a token is good where the answer does not say (Distribution project, "Token Authentication
/// Specification", `expires_in`).
const LIFETIME: Duration = Duration::from_mins(1);
/// The longest lifetime that is believed. A token that was revoked earlier costs one 401 anyway.
const LIFETIME_MAX: Duration = Duration::from_hours(24);
/// The part of its lifetime, in percent, after which a token is replaced: what is left covers the way to the registry
/// and clocks that differ.
const REFRESH_PERCENT: u32 = 80;
/// The most sets of scopes that are remembered. A run over more repositories than this asks again for some.
const SLOTS_MAX: usize = 1024;

/// A bearer token.
#[derive(Debug)]
pub(super) struct Token {
    secret: Secret,
    refresh_at: Timestamp,
}

/// The answer of a token server.
#[derive(Deserialize)]
struct Document {
    token: Option<String>,
    access_token: Option<String>,
    /// Seconds. A float, because some servers answer with one.
    expires_in: Option<f64>,
}

impl Token {
    /// Reads the answer to a request that was sent at `asked_at`, by our clock: the server's `issued_at` is by its own.
    ///
    /// Returns what is wrong with it otherwise, without quoting it.
    pub(super) fn parse(body: &[u8], asked_at: Timestamp) -> Result<Self, &'static str> {
        let document: Document =
            serde_json::from_slice(body).map_err(|_| "expected a token in JSON")?;
        let text = document
            .token
            .filter(|text| !text.is_empty())
            .or(document.access_token)
            .filter(|text| !text.is_empty())
            .ok_or("expected `token` or `access_token`")?;
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("expected a token of printable characters");
        }
        let lifetime = match document.expires_in {
            None => LIFETIME,
            Some(seconds) => Duration::try_from_secs_f64(seconds)
                .map_err(|_| "expected a lifetime in seconds")?
                .min(LIFETIME_MAX),
        };
        Ok(Self {
            secret: Secret::new(text),
            refresh_at: asked_at + lifetime * REFRESH_PERCENT / 100,
        })
    }

    /// Returns the secret.
    pub(super) const fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// The place of one set of scopes. Its lock is held while a token is asked for.
type Slot = Arc<tokio::sync::Mutex<()>>;

#[derive(Debug, Default)]
struct Entry {
    token: Option<Arc<Token>>,
    flight: Slot,
}

/// The tokens of one client.
#[derive(Debug)]
pub(super) struct TokenCache {
    clock: Arc<dyn Clock>,
    entries: Mutex<HashMap<Scopes, Entry>>,
}

impl TokenCache {
    /// Returns an empty cache.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            entries: Mutex::default(),
        }
    }

    /// Returns a token for at least `scopes`, by `fetch` where none is fresh.
    pub(super) async fn get(
        &self,
        scopes: &Scopes,
        fetch: impl Future<Output = Result<Token, Error>>,
    ) -> Result<Arc<Token>, Error> {
        if let Some(token) = self.find(scopes) {
            return Ok(token);
        }
        self.fetch(scopes, fetch).await
    }

    /// Returns a token for exactly `scopes`, by `fetch` unless somebody else has just got one.
    ///
    /// For use after a refusal: a token that covers the scopes by its request may have been granted less.
    pub(super) async fn fetch(
        &self,
        scopes: &Scopes,
        fetch: impl Future<Output = Result<Token, Error>>,
    ) -> Result<Arc<Token>, Error> {
        let slot = self.slot(scopes);
        let _flight = slot.lock().await;
        let now = self.clock.now();
        let own = self.locked().get(scopes).and_then(|entry| entry.fresh(now));
        if let Some(token) = own {
            return Ok(token);
        }
        let token = Arc::new(fetch.await?);
        self.locked().entry(scopes.clone()).or_default().token = Some(Arc::clone(&token));
        Ok(token)
    }

    /// Forgets a token that was refused. One that has replaced it meanwhile stays.
    pub(super) fn forget(&self, refused: &Arc<Token>) {
        for entry in self.locked().values_mut() {
            if entry
                .token
                .as_ref()
                .is_some_and(|token| Arc::ptr_eq(token, refused))
            {
                entry.token = None;
            }
        }
    }

    fn find(&self, scopes: &Scopes) -> Option<Arc<Token>> {
        let now = self.clock.now();
        let entries = self.locked();
        let exact = entries.get(scopes).and_then(|entry| entry.fresh(now));
        exact.or_else(|| {
            entries
                .iter()
                .filter(|(granted, _)| granted.covers(scopes))
                .find_map(|(_, entry)| entry.fresh(now))
        })
    }

    fn slot(&self, scopes: &Scopes) -> Slot {
        let now = self.clock.now();
        let mut entries = self.locked();
        if entries.len() >= SLOTS_MAX && !entries.contains_key(scopes) {
            entries.retain(|_, entry| entry.fresh(now).is_some());
            if entries.len() >= SLOTS_MAX {
                entries.clear();
            }
        }
        Arc::clone(&entries.entry(scopes.clone()).or_default().flight)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<Scopes, Entry>> {
        self.entries.lock().expect("no holder of this lock panics")
    }
}

impl Entry {
    fn fresh(&self, now: Timestamp) -> Option<Arc<Token>> {
        self.token
            .as_ref()
            .filter(|token| now < token.refresh_at)
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::base::{ManualClock, Repository};

    fn start() -> Timestamp {
        "2026-11-20T10:00:00Z".parse().unwrap()
    }

    fn repository(name: &str) -> Repository {
        name.parse().unwrap()
    }

    /// A cache, its clock, and a count of the requests made for it.
    struct Bench {
        clock: Arc<ManualClock>,
        cache: TokenCache,
        requests: AtomicUsize,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::new(start()));
            Self {
                cache: TokenCache::new(Arc::clone(&clock) as Arc<dyn Clock>),
                clock,
                requests: AtomicUsize::new(0),
            }
        }

        async fn get(&self, scopes: &Scopes) -> Arc<Token> {
            self.cache.get(scopes, self.grant()).await.unwrap()
        }

        /// Grants a token of 100 seconds after letting everybody else run.
        async fn grant(&self) -> Result<Token, Error> {
            tokio::task::yield_now().await;
            let number = self.requests.fetch_add(1, Ordering::Relaxed);
            let body = format!(r#"{{"token":"t{number}","expires_in":100}}"#);
            Ok(Token::parse(body.as_bytes(), self.clock.now()).unwrap())
        }

        fn requests(&self) -> usize {
            self.requests.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_token_is_used_until_four_fifths_of_its_life() {
        let bench = Bench::new();
        let scopes = Scopes::pull(&repository("a"));
        bench.get(&scopes).await;
        bench.clock.set(start() + Duration::from_millis(79_999));
        bench.get(&scopes).await;
        assert_eq!(bench.requests(), 1);
        bench.clock.set(start() + Duration::from_secs(80));
        bench.get(&scopes).await;
        assert_eq!(bench.requests(), 2);
    }

    #[tokio::test]
    async fn a_wider_token_serves_a_narrower_need() {
        let bench = Bench::new();
        bench
            .get(&Scopes::push(&repository("a")).and_pull(&repository("b")))
            .await;
        bench.get(&Scopes::pull(&repository("b"))).await;
        assert_eq!(bench.requests(), 1);
        bench.get(&Scopes::push(&repository("b"))).await;
        assert_eq!(bench.requests(), 2);
    }

    #[tokio::test]
    async fn many_who_need_one_token_make_one_request() {
        let bench = Bench::new();
        let scopes = Scopes::pull(&repository("a"));
        let tokens =
            futures_util::future::join_all((0..20).map(|_| async { bench.get(&scopes).await }))
                .await;
        assert_eq!(bench.requests(), 1);
        assert!(tokens.iter().all(|token| Arc::ptr_eq(token, &tokens[0])));
    }

    #[tokio::test]
    async fn a_refused_token_is_replaced_once_for_all() {
        let bench = Bench::new();
        let scopes = Scopes::pull(&repository("a"));
        let refused = bench.get(&scopes).await;
        for _ in 0..3 {
            bench.cache.forget(&refused);
            let token = bench.cache.fetch(&scopes, bench.grant()).await.unwrap();
            assert!(!Arc::ptr_eq(&token, &refused));
        }
        assert_eq!(bench.requests(), 2);
    }

    #[tokio::test]
    async fn the_number_of_tokens_is_bounded() {
        let bench = Bench::new();
        for number in 0..SLOTS_MAX + 10 {
            bench
                .get(&Scopes::pull(&repository(&format!("r{number}"))))
                .await;
        }
        assert!(bench.cache.locked().len() <= SLOTS_MAX);
    }

    #[test]
    fn answers_of_token_servers() {
        let refresh_seconds = |body: &str| {
            Token::parse(body.as_bytes(), start()).map(|token| {
                (
                    token.secret().expose().to_owned(),
                    (token.refresh_at - start()).num_seconds(),
                )
            })
        };
        for (body, secret, seconds) in [
            (r#"{"token":"a","expires_in":600}"#, "a", 480),
            (r#"{"access_token":"b","expires_in":10.5}"#, "b", 8),
            (r#"{"token":"","access_token":"b"}"#, "b", 48),
            (
                r#"{"token":"a","access_token":"a","issued_at":"x"}"#,
                "a",
                48,
            ),
            (r#"{"token":"a","expires_in":1e12}"#, "a", 69_120),
        ] {
            assert_eq!(
                refresh_seconds(body),
                Ok((secret.to_owned(), seconds)),
                "{body}"
            );
        }
        for bad in [
            "",
            "{}",
            r#"{"token":""}"#,
            r#"{"token":"a b"}"#,
            r#"{"token":"a","expires_in":-1}"#,
        ] {
            assert!(refresh_seconds(bad).is_err(), "body: {bad}");
        }
    }
}
