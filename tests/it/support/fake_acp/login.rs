//! The platform's login: five steps with one cookie, a password under RSA, a token with an end.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rsa::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _, LineEnding};
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};

use super::Shared;

/// The only user of the platform.
pub(crate) const USERNAME: &str = "admin";
/// The password of [`USERNAME`].
pub(crate) const PASSWORD: &str = "correct \"horse\" \u{e4}\u{4e2d}";

const COOKIE: &str = "cpaas_oidc_auth_flow";
/// When every token was issued, by the platform's clock, which is years late: clients must not compare it with theirs.
const ISSUED_AT: &str = "2020-01-01T00:00:00Z";

/// Everything the login remembers.
#[derive(Debug)]
pub(super) struct Logins {
    /// The API token that was made in the web console.
    pub(super) api_token: String,
    /// Tokens that are good.
    pub(super) tokens: BTreeSet<String>,
    pub(super) lifetime: Duration,
    /// What a login with the right password is told, in place of being let in.
    pub(super) problem: Option<(StatusCode, String)>,
    /// Logins that got a token.
    pub(super) granted: u64,
    /// Passwords that were tried.
    pub(super) attempts: u64,
    /// By the state of the flow: how far it is.
    flows: BTreeMap<String, Flow>,
    /// `ts` that were handed out and not used.
    stamps: BTreeSet<String>,
    count: u64,
}

#[derive(Debug, Default)]
struct Flow {
    req: String,
    cookie: String,
    code: String,
}

impl Logins {
    pub(super) fn new() -> Self {
        Self {
            api_token: "api-token-of-the-console".to_owned(),
            tokens: BTreeSet::from(["api-token-of-the-console".to_owned()]),
            lifetime: Duration::from_hours(24),
            problem: None,
            granted: 0,
            attempts: 0,
            flows: BTreeMap::new(),
            stamps: BTreeSet::new(),
            count: 0,
        }
    }

    fn next(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}-{}", self.count)
    }

    pub(super) fn is_good(&self, headers: &HeaderMap) -> bool {
        headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .is_some_and(|token| self.tokens.contains(token))
    }
}

/// Returns the key of every login, made once by the `openssl` tool: 2048 bits take seconds in a debug build.
fn key() -> &'static rsa::RsaPrivateKey {
    static KEY: OnceLock<rsa::RsaPrivateKey> = OnceLock::new();
    KEY.get_or_init(|| {
        let output = Command::new("openssl")
            .args([
                "genpkey",
                "-quiet",
                "-algorithm",
                "RSA",
                "-pkeyopt",
                "rsa_keygen_bits:2048",
            ])
            .output()
            .expect("the tests need the Debian package `openssl`");
        let pem = String::from_utf8(output.stdout).unwrap();
        rsa::RsaPrivateKey::from_pkcs8_pem(&pem).expect("openssl prints PKCS #8")
    })
}

type Parameters = Query<BTreeMap<String, String>>;

fn refuse(status: StatusCode, reason: &str) -> Response {
    (
        status,
        Json(json!({"reason": reason, "message": format!("login failed: {reason}")})),
    )
        .into_response()
}

/// Step 1.
pub(super) async fn metadata(
    State(shared): State<Arc<Shared>>,
    Query(parameters): Parameters,
) -> Response {
    let expected = [
        ("client_id", "alauda-auth"),
        ("response_type", "code"),
        ("scope", "openid profile offline_access email groups ext"),
    ];
    for (name, value) in expected {
        if parameters.get(name).map(String::as_str) != Some(value) {
            return refuse(StatusCode::BAD_REQUEST, &format!("bad {name}"));
        }
    }
    let redirect_uri = parameters.get("redirect_uri").cloned().unwrap_or_default();
    if !redirect_uri.ends_with("/dex/callback") {
        return refuse(StatusCode::BAD_REQUEST, "bad redirect_uri");
    }
    let mut logins = shared.logins.lock().unwrap();
    let state = logins.next("state&=");
    logins.flows.insert(state.clone(), Flow::default());
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("code_challenge", "a+b/c="), ("state", &state)])
        .finish();
    Json(json!({
        "auth_url": format!("https://platform.invalid/console-dex/auth?{query}#fragment"),
        "state": state,
        "logout_url": "https://platform.invalid/dex/logout",
    }))
    .into_response()
}

/// Step 2.
pub(super) async fn authorize(
    State(shared): State<Arc<Shared>>,
    Query(parameters): Parameters,
) -> Response {
    if parameters.get("code_challenge").map(String::as_str) != Some("a+b/c=") {
        return refuse(
            StatusCode::BAD_REQUEST,
            "PKCE code_challenge is required for this client",
        );
    }
    let mut logins = shared.logins.lock().unwrap();
    let (req, cookie) = (logins.next("req"), logins.next("flow"));
    let state = parameters.get("state").cloned().unwrap_or_default();
    let Some(flow) = logins.flows.get_mut(&state) else {
        return refuse(StatusCode::BAD_REQUEST, "unknown state");
    };
    flow.req.clone_from(&req);
    flow.cookie.clone_from(&cookie);
    let cookie = format!("{COOKIE}={cookie}; Path=/; HttpOnly");
    ([(header::SET_COOKIE, cookie)], Json(json!({"req": req}))).into_response()
}

/// Step 3.
pub(super) async fn pubkey(State(shared): State<Arc<Shared>>) -> Response {
    let pem = key()
        .to_public_key()
        .to_public_key_pem(LineEnding::LF)
        .unwrap();
    let mut logins = shared.logins.lock().unwrap();
    let ts = logins.next("1779940350");
    logins.stamps.insert(ts.clone());
    Json(json!({"ts": ts, "pubkey": pem, "pubkey_encode": STANDARD.encode(&pem)})).into_response()
}

/// Step 4.
pub(super) async fn submit(
    State(shared): State<Arc<Shared>>,
    Path(provider): Path<String>,
    Query(parameters): Parameters,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    if provider != "local" {
        return refuse(StatusCode::NOT_FOUND, "unknown connector");
    }
    let mut logins = shared.logins.lock().unwrap();
    let req = parameters.get("req").cloned().unwrap_or_default();
    let Some(state) = logins
        .flows
        .iter()
        .find(|(_, flow)| !req.is_empty() && flow.req == req)
        .map(|(state, _)| state.clone())
    else {
        return refuse(StatusCode::BAD_REQUEST, "unknown req");
    };
    if !has_cookie(&headers, &logins.flows[&state].cookie) {
        return refuse(StatusCode::BAD_REQUEST, "invalid authentication session");
    }
    logins.attempts += 1;
    if body["account"] != USERNAME || !is_password(&mut logins, &body) {
        return refuse(StatusCode::UNAUTHORIZED, "InvalidUsernameOrPassword");
    }
    if let Some((status, reason)) = &logins.problem {
        return refuse(*status, reason);
    }
    let code = logins.next("code+&");
    logins
        .flows
        .get_mut(&state)
        .expect("found above")
        .code
        .clone_from(&code);
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("code", &code), ("state", &state)])
        .finish();
    Json(json!({
        "session_state": "",
        "redirect_url": format!("https://platform.invalid/dex/callback?{query}"),
    }))
    .into_response()
}

/// Returns whether the body carries the password, with a `ts` that is good and then is not any more.
fn is_password(logins: &mut Logins, body: &Value) -> bool {
    let Some(bytes) = body["password"]
        .as_str()
        .and_then(|text| STANDARD.decode(text).ok())
        .filter(|bytes| bytes.len() == key().size())
    else {
        return false;
    };
    let Some(plain) = key()
        .decrypt(rsa::Pkcs1v15Encrypt, &bytes)
        .ok()
        .and_then(|plain| serde_json::from_slice::<Value>(&plain).ok())
    else {
        return false;
    };
    let ts = plain["ts"].as_str().unwrap_or_default();
    logins.stamps.remove(ts) && plain["password"] == PASSWORD
}

/// Step 5.
pub(super) async fn callback(
    State(shared): State<Arc<Shared>>,
    Query(parameters): Parameters,
    headers: HeaderMap,
) -> Response {
    let mut logins = shared.logins.lock().unwrap();
    let state = parameters.get("state").cloned().unwrap_or_default();
    let code = parameters.get("code").cloned().unwrap_or_default();
    let is_good = logins.flows.get(&state).is_some_and(|flow| {
        !code.is_empty() && flow.code == code && has_cookie(&headers, &flow.cookie)
    });
    if !is_good {
        return refuse(StatusCode::BAD_REQUEST, "invalid authentication session");
    }
    logins.flows.remove(&state);
    logins.granted += 1;
    let token = logins.next("access-token");
    logins.tokens.insert(token.clone());
    let issued_at: chrono::DateTime<chrono::Utc> = ISSUED_AT.parse().unwrap();
    Json(json!({
        "token_type": "bearer",
        "access_token": token,
        "id_token": "an id token is not a key",
        "refresh_token": "refresh",
        "issued_at": ISSUED_AT,
        "expire_at": (issued_at + logins.lifetime).to_rfc3339(),
        "token_storage": "local",
    }))
    .into_response()
}

fn has_cookie(headers: &HeaderMap, value: &str) -> bool {
    let wanted = format!("{COOKIE}={value}");
    !value.is_empty()
        && headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split("; "))
            .any(|cookie| cookie == wanted)
}
