//! Tokens that were granted, until they must be refreshed.
//!
//! # Concurrency
//!
//! One token request is under way at a time. Who needs a token meanwhile waits, and the next request asks for what all
//! of them need, up to [`RESOURCES_MERGED_MAX`] resources: many repositories at once cost few requests. A server that
//! refuses such a request is asked for the need of one. No lock of the map is held across an await.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;

use super::Error;
use super::scope::Scopes;
use crate::base::{Class, Classified as _, Clock, Secret, Timestamp};

/// How long a token is good where the answer does not say (Distribution project, "Token Authentication
/// Specification", `expires_in`).
const LIFETIME: Duration = Duration::from_mins(1);
/// The longest lifetime that is believed. A token that was revoked earlier costs one 401 anyway.
const LIFETIME_MAX: Duration = Duration::from_hours(24);
/// The part of its lifetime, in percent, after which a token is replaced: what is left covers the way to the registry
/// and clocks that differ.
const REFRESH_PERCENT: u32 = 80;
/// The part of its lifetime, in percent, for which a token is as good as a new one, however long a transfer takes.
const YOUNG_PERCENT: u32 = 20;
/// The most sets of scopes that are remembered. A run over more repositories than this asks again for some.
const TOKENS_MAX: usize = 1024;
/// The most resources that one request asks for. Signed tokens name each in some 150 bytes of base64, and servers take
/// headers of 8 KiB together; chosen well below.
const RESOURCES_MERGED_MAX: usize = 8;

/// A bearer token.
#[derive(Debug)]
pub(super) struct Token {
    secret: Secret,
    asked_at: Timestamp,
    lifetime: Duration,
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
            asked_at,
            lifetime,
        })
    }

    /// Returns the secret.
    pub(super) const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Returns whether the token is good for a request whose body takes as long as `transfer` to send.
    fn serves(&self, now: Timestamp, transfer: Duration) -> bool {
        let after = |percent: u32| self.asked_at + self.lifetime * percent / 100;
        let outlives = now + transfer.min(LIFETIME_MAX) <= self.asked_at + self.lifetime;
        now < after(REFRESH_PERCENT) && (outlives || now < after(YOUNG_PERCENT))
    }
}

/// The tokens of one client.
#[derive(Debug)]
pub(super) struct TokenCache {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Held while a token is asked for.
    flight: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// By what they were asked for.
    tokens: HashMap<Scopes, Arc<Token>>,
    /// What is needed by those who wait, in the order in which they came.
    needs: BTreeMap<u64, Scopes>,
    needs_ever: u64,
}

impl TokenCache {
    /// Returns an empty cache.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            flight: tokio::sync::Mutex::default(),
        }
    }

    /// Returns a token for at least `scopes`, for a request whose body takes as long as `transfer` to send; by `fetch`
    /// where there is none.
    pub(super) async fn get<F: Future<Output = Result<Token, Error>>>(
        &self,
        scopes: &Scopes,
        transfer: Duration,
        fetch: impl Fn(Scopes) -> F,
    ) -> Result<Arc<Token>, Error> {
        if let Some(token) = self.find(scopes, transfer) {
            return Ok(token);
        }
        let need = Need::new(self, scopes);
        let _flight = self.flight.lock().await;
        if let Some(token) = self.find(scopes, transfer) {
            return Ok(token);
        }
        let merged = self.merged_needs(scopes);
        drop(need);
        match fetch(merged.clone()).await {
            Ok(token) => Ok(self.keep(merged, token)),
            Err(error) if merged != *scopes && error.class() != Class::Transient => {
                tracing::debug!(%merged, "token for several needs was refused");
                let token = fetch(scopes.clone()).await?;
                Ok(self.keep(scopes.clone(), token))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns a token for exactly `scopes`, by `fetch` unless somebody else has just got one.
    ///
    /// For use after a refusal: a token that covers the scopes by its request may have been granted less.
    pub(super) async fn fetch<F: Future<Output = Result<Token, Error>>>(
        &self,
        scopes: &Scopes,
        fetch: impl Fn(Scopes) -> F,
    ) -> Result<Arc<Token>, Error> {
        let _flight = self.flight.lock().await;
        let now = self.clock.now();
        let own = self.locked().tokens.get(scopes).cloned();
        if let Some(token) = own.filter(|token| token.serves(now, Duration::ZERO)) {
            return Ok(token);
        }
        let token = fetch(scopes.clone()).await?;
        Ok(self.keep(scopes.clone(), token))
    }

    /// Forgets a token that was refused. One that has replaced it meanwhile stays.
    pub(super) fn forget(&self, refused: &Arc<Token>) {
        self.locked()
            .tokens
            .retain(|_, token| !Arc::ptr_eq(token, refused));
    }

    fn find(&self, scopes: &Scopes, transfer: Duration) -> Option<Arc<Token>> {
        let now = self.clock.now();
        let state = self.locked();
        let exact = state.tokens.get(scopes);
        exact
            .filter(|token| token.serves(now, transfer))
            .or_else(|| {
                let mut wider = state.tokens.iter();
                wider
                    .find(|(asked, token)| asked.covers(scopes) && token.serves(now, transfer))
                    .map(|(_, token)| token)
            })
            .cloned()
    }

    /// Returns `scopes` with the needs of as many others as one request may ask for.
    fn merged_needs(&self, scopes: &Scopes) -> Scopes {
        let state = self.locked();
        let mut merged = scopes.clone();
        for need in state.needs.values() {
            let together = merged.clone().and(need);
            if together.resources() <= RESOURCES_MERGED_MAX {
                merged = together;
            }
        }
        merged
    }

    fn keep(&self, scopes: Scopes, token: Token) -> Arc<Token> {
        let token = Arc::new(token);
        let now = self.clock.now();
        let mut state = self.locked();
        if state.tokens.len() >= TOKENS_MAX && !state.tokens.contains_key(&scopes) {
            state
                .tokens
                .retain(|_, token| token.serves(now, Duration::ZERO));
            if state.tokens.len() >= TOKENS_MAX {
                state.tokens.clear();
            }
        }
        state.tokens.insert(scopes, Arc::clone(&token));
        token
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// The need of somebody who waits, known to the others until it is dropped.
struct Need<'a> {
    cache: &'a TokenCache,
    number: u64,
}

impl<'a> Need<'a> {
    fn new(cache: &'a TokenCache, scopes: &Scopes) -> Self {
        let mut state = cache.locked();
        let number = state.needs_ever;
        state.needs_ever += 1;
        state.needs.insert(number, scopes.clone());
        Self { cache, number }
    }
}

impl Drop for Need<'_> {
    fn drop(&mut self) {
        self.cache.locked().needs.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ManualClock, Repository};
    use crate::transport::Message;

    fn start() -> Timestamp {
        "2026-11-20T10:00:00Z".parse().unwrap()
    }

    fn repository(name: &str) -> Repository {
        name.parse().unwrap()
    }

    /// A cache, its clock, and what was asked for it.
    struct Bench {
        clock: Arc<ManualClock>,
        cache: TokenCache,
        asked: Mutex<Vec<String>>,
        /// The most resources that are granted at once.
        resources_max: usize,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::new(start()));
            Self {
                cache: TokenCache::new(Arc::clone(&clock) as Arc<dyn Clock>),
                clock,
                asked: Mutex::default(),
                resources_max: usize::MAX,
            }
        }

        async fn get(&self, scopes: &Scopes) -> Arc<Token> {
            self.get_for(scopes, Duration::ZERO).await
        }

        async fn get_for(&self, scopes: &Scopes, transfer: Duration) -> Arc<Token> {
            let fetch = |scopes| self.grant(scopes);
            self.cache.get(scopes, transfer, fetch).await.unwrap()
        }

        /// Grants a token of 100 seconds after letting everybody else run.
        async fn grant(&self, scopes: Scopes) -> Result<Token, Error> {
            tokio::task::yield_now().await;
            let mut asked = self.asked.lock().unwrap();
            asked.push(scopes.to_string());
            if scopes.resources() > self.resources_max {
                return Err(Error::Denied {
                    address: String::new(),
                    user: crate::registry::User(None),
                    message: Message::default(),
                });
            }
            let body = format!(r#"{{"token":"t{}","expires_in":100}}"#, asked.len());
            Ok(Token::parse(body.as_bytes(), self.clock.now()).unwrap())
        }

        fn requests(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    fn repositories(count: usize) -> Vec<Scopes> {
        (0..count)
            .map(|number| Scopes::pull(&repository(&format!("r{number}"))))
            .collect()
    }

    async fn get_all(bench: &Bench, needs: &[Scopes]) -> Vec<Arc<Token>> {
        futures_util::future::join_all(needs.iter().map(|need| bench.get(need))).await
    }

    #[tokio::test]
    async fn needs_of_one_moment_are_asked_for_together() {
        let bench = Bench::new();
        let needs = repositories(20);
        get_all(&bench, &needs).await;
        // The first one knows of nobody else before it has the lock; everybody else waits for it or for the next ones.
        let asked = bench.asked.lock().unwrap().clone();
        assert!(asked.len() <= 4, "{asked:#?}");
        for need in &needs {
            let text = need.to_string();
            let times = asked
                .iter()
                .filter(|asked| asked.split(' ').any(|one| one == text));
            assert_eq!(times.count(), 1, "{text}");
        }
        for asked in &asked {
            assert!(asked.split(' ').count() <= RESOURCES_MERGED_MAX, "{asked}");
        }
    }

    #[tokio::test]
    async fn a_server_that_refuses_needs_together_is_asked_for_one() {
        let bench = Bench {
            resources_max: 1,
            ..Bench::new()
        };
        let needs = repositories(5);
        let tokens = get_all(&bench, &needs).await;
        for (need, token) in needs.iter().zip(&tokens) {
            assert!(Arc::ptr_eq(&bench.get(need).await, token));
        }
        assert!(bench.requests() < 10, "{:?}", bench.asked);
    }

    #[tokio::test]
    async fn a_token_is_replaced_before_a_transfer_that_it_would_not_outlive() {
        let bench = Bench::new();
        let scopes = Scopes::push(&repository("a"));
        let at = |seconds| bench.clock.set(start() + Duration::from_secs(seconds));
        let hour = Duration::from_hours(1);
        bench.get(&scopes).await;
        // As good as new, though no token lives for an hour.
        at(19);
        bench.get_for(&scopes, hour).await;
        assert_eq!(bench.requests(), 1);
        at(20);
        bench.get_for(&scopes, Duration::from_secs(80)).await;
        assert_eq!(bench.requests(), 1);
        bench.get_for(&scopes, Duration::from_secs(81)).await;
        assert_eq!(bench.requests(), 2);
        at(20 + 19);
        bench.get_for(&scopes, hour).await;
        assert_eq!(bench.requests(), 2);
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
            let fetch = |scopes| bench.grant(scopes);
            let token = bench.cache.fetch(&scopes, fetch).await.unwrap();
            assert!(!Arc::ptr_eq(&token, &refused));
        }
        assert_eq!(bench.requests(), 2);
    }

    #[tokio::test]
    async fn the_number_of_tokens_is_bounded() {
        let bench = Bench::new();
        for need in repositories(TOKENS_MAX + 10) {
            bench.get(&need).await;
        }
        let state = bench.cache.locked();
        assert!(state.tokens.len() <= TOKENS_MAX && state.needs.is_empty());
    }

    #[test]
    fn answers_of_token_servers() {
        let lifetime_seconds = |body: &str| {
            Token::parse(body.as_bytes(), start())
                .map(|token| (token.secret().expose().to_owned(), token.lifetime.as_secs()))
        };
        for (body, secret, seconds) in [
            (r#"{"token":"a","expires_in":600}"#, "a", 600),
            (r#"{"access_token":"b","expires_in":10.5}"#, "b", 10),
            (r#"{"token":"","access_token":"b"}"#, "b", 60),
            (
                r#"{"token":"a","access_token":"a","issued_at":"x"}"#,
                "a",
                60,
            ),
            (r#"{"token":"a","expires_in":1e12}"#, "a", 86_400),
        ] {
            assert_eq!(
                lifetime_seconds(body),
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
            assert!(lifetime_seconds(bad).is_err(), "body: {bad}");
        }
    }
}
