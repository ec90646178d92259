//! A token server as registries use it: Basic or an identity token in, signed JSON web token out.
//!
//! # Format
//!
//! RS256 with the certificate in the `x5c` header, which docker-registry trusts by its `rootcertbundle`. Signed by the
//! `openssl` tool.
//!
//! # References
//!
//! Distribution project, "Token Authentication Implementation", "`OAuth2` Token Authentication".

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use violetd::base::{Clock as _, SystemClock};

use super::authority::openssl;
use super::http::serve;
use super::{PASSWORD, USERNAME, run};

/// What stands for [`USERNAME`] and the password in the exchange for tokens.
pub(crate) const IDENTITY_TOKEN: &str = "identity & token";
/// How long after its end docker-registry still accepts a token.
const LEEWAY: Duration = Duration::from_mins(1);

/// A running token server. It grants [`USERNAME`] whatever is asked for, and nobody else anything.
#[derive(Debug)]
pub(crate) struct TokenServer {
    state: Arc<State>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    signer: Signer,
    /// What is announced as `expires_in`.
    lifetime: Duration,
    /// Whether the registry refuses tokens right at the end of their lifetime.
    is_strict: bool,
    requests: AtomicU64,
    /// How many tokens are yet to be granted that have ended before they begin.
    stale: AtomicU64,
    scopes: Mutex<Vec<Vec<String>>>,
}

impl TokenServer {
    /// The service that tokens are for.
    pub(crate) const SERVICE: &str = "token-service";
    /// Who signs the tokens.
    pub(crate) const ISSUER: &str = "issuer-of-the-tests";
    /// The path under which tokens are granted.
    pub(crate) const PATH: &str = "/auth/token";

    /// Starts a server whose tokens live for `lifetime`.
    pub(crate) async fn start(lifetime: Duration) -> Self {
        Self::launch(lifetime, false).await
    }

    /// Starts a server whose tokens are refused right after `lifetime`, and not only after the registry's leeway.
    pub(crate) async fn start_strict(lifetime: Duration) -> Self {
        Self::launch(lifetime, true).await
    }

    async fn launch(lifetime: Duration, is_strict: bool) -> Self {
        let state = Arc::new(State {
            signer: Signer::new(),
            lifetime,
            is_strict,
            requests: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            scopes: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            task: tokio::spawn(serve(listener, {
                let state = Arc::clone(&state);
                move |request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(state.answer(request).await) }
                }
            })),
            state,
        }
    }

    /// Returns where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the absolute realm.
    pub(crate) fn realm(&self) -> String {
        format!("http://{}{}", self.address, Self::PATH)
    }

    /// Returns the file with the certificate that a registry must trust.
    pub(crate) fn certificate(&self) -> &Path {
        &self.state.signer.certificate
    }

    /// Returns how many tokens were asked for.
    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Returns the scopes of the requests so far.
    pub(crate) fn scopes(&self) -> Vec<Vec<String>> {
        self.state.scopes.lock().unwrap().clone()
    }

    /// Makes the next `count` tokens such that the registry says they have expired.
    pub(crate) fn grant_stale_tokens(&self, count: u64) {
        self.state.stale.store(count, Ordering::Relaxed);
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let expected = format!(
            "Basic {}",
            STANDARD.encode(format!("{USERNAME}:{PASSWORD}"))
        );
        let is_known = request
            .headers()
            .get(AUTHORIZATION)
            .is_some_and(|value| value.as_bytes() == expected.as_bytes());
        if request.uri().path() != TokenServer::PATH {
            return answer(404, &json!({}));
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        if request.method() == Method::POST {
            return self.exchange(request).await;
        }
        if !is_known {
            return answer(401, &json!({"details": "incorrect username or password"}));
        }
        let query = request.uri().query().unwrap_or_default();
        let scopes: Vec<String> = url::form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| name == "scope")
            .map(|(_, value)| value.into_owned())
            .collect();
        let token = self.grant(scopes).await;
        let seconds = self.lifetime.as_secs();
        answer(200, &json!({"token": token, "expires_in": seconds}))
    }

    /// Grants a token for an identity token, which travels in a form.
    async fn exchange(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let kind = request.headers().get(CONTENT_TYPE).cloned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let form: BTreeMap<String, String> =
            url::form_urlencoded::parse(&body).into_owned().collect();
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        if kind.as_ref().map(HeaderValue::as_bytes) != Some(b"application/x-www-form-urlencoded")
            || field("grant_type") != "refresh_token"
            || field("service") != TokenServer::SERVICE
            || field("client_id").is_empty()
        {
            return answer(400, &json!({"error": "invalid_request"}));
        }
        if field("refresh_token") != IDENTITY_TOKEN {
            return answer(400, &json!({"error": "invalid_grant"}));
        }
        let scopes = field("scope").split_whitespace().map(str::to_owned);
        let token = self.grant(scopes.collect()).await;
        let seconds = self.lifetime.as_secs();
        answer(200, &json!({"access_token": token, "expires_in": seconds}))
    }

    /// Returns a token, as the switches say.
    async fn grant(self: &Arc<Self>, scopes: Vec<String>) -> String {
        self.scopes.lock().unwrap().push(scopes.clone());
        let is_stale = self
            .stale
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                count.checked_sub(1)
            })
            .is_ok();
        let claims = self.claims(&scopes, is_stale);
        let state = Arc::clone(self);
        tokio::task::spawn_blocking(move || state.signer.sign(&claims))
            .await
            .unwrap()
    }

    fn claims(&self, scopes: &[String], is_stale: bool) -> Value {
        let now = SystemClock.now();
        let begin = if is_stale {
            now - self.lifetime - LEEWAY * 2
        } else {
            now
        };
        let end = begin + self.lifetime;
        let end = if self.is_strict { end - LEEWAY } else { end };
        let access: Vec<Value> = scopes.iter().map(|scope| access_of(scope)).collect();
        json!({
            "iss": TokenServer::ISSUER,
            "sub": USERNAME,
            "aud": TokenServer::SERVICE,
            "iat": begin.timestamp(),
            "nbf": begin.timestamp(),
            "exp": end.timestamp(),
            "jti": format!("{}", self.requests.load(Ordering::Relaxed)),
            "access": access,
        })
    }
}

fn access_of(scope: &str) -> Value {
    let (resource, actions) = scope.rsplit_once(':').unwrap();
    let (kind, name) = resource.split_once(':').unwrap();
    let actions: Vec<&str> = actions.split(',').collect();
    json!({"type": kind, "name": name, "actions": actions})
}

fn answer(status: u16, body: &Value) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(body.to_string()))
        .unwrap()
}

/// A key and its certificate.
#[derive(Debug)]
struct Signer {
    dir: TempDir,
    certificate: PathBuf,
    /// The certificate in DER, in base64.
    x5c: String,
}

impl Signer {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        run(
            "openssl",
            openssl(dir.path())
                .args([
                    "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                ])
                .args(["-keyout", "key.pem", "-out", "certificate.pem"])
                .args(["-subj", "/CN=token server of the tests"]),
        );
        let der = run(
            "openssl",
            openssl(dir.path()).args(["x509", "-in", "certificate.pem", "-outform", "DER"]),
        );
        Self {
            certificate: dir.path().join("certificate.pem"),
            x5c: STANDARD.encode(der),
            dir,
        }
    }

    /// Returns a JSON web token.
    fn sign(&self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [self.x5c]});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let mut signing = openssl(self.dir.path())
            .args(["dgst", "-sha256", "-sign", "key.pem"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = signing.stdin.take().unwrap();
        stdin.write_all(signed.as_bytes()).unwrap();
        drop(stdin);
        let signature = signing.wait_with_output().unwrap().stdout;
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
