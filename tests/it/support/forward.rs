//! An HTTP proxy that clients are told to go through: tunnels to servers with TLS, single requests to others.
//!
//! It knows names that nobody else knows, so that a connection by such a name can only be its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HOST, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::http::serve;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Forward {
    state: Arc<State>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    /// The expected `Proxy-Authorization` header.
    authorization: Option<String>,
    /// `host:port` and where it leads. Anything else is refused.
    routes: Vec<(String, SocketAddr)>,
    requests: Mutex<Vec<String>>,
}

impl Forward {
    /// Starts a proxy that lets through to `routes`, and only who logs in where `login` is a name and a password.
    pub(crate) async fn start(
        login: Option<(&str, &str)>,
        routes: Vec<(String, SocketAddr)>,
    ) -> Self {
        let authorization = login.map(|(username, password)| {
            format!(
                "Basic {}",
                STANDARD.encode(format!("{username}:{password}"))
            )
        });
        let state = Arc::new(State {
            authorization,
            routes,
            requests: Mutex::default(),
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

    /// Returns the proxy's URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns what was asked for so far: `CONNECT host:port`, `GET http://host:port/path`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let line = format!("{} {}", request.method(), request.uri());
        self.requests.lock().unwrap().push(line);
        let authorization = request.headers().get(PROXY_AUTHORIZATION);
        let is_known = match (&self.authorization, authorization) {
            (Some(expected), Some(found)) => found.as_bytes() == expected.as_bytes(),
            (Some(_), None) => false,
            (None, found) => found.is_none(),
        };
        if !is_known {
            let mut answer = empty(StatusCode::PROXY_AUTHENTICATION_REQUIRED);
            let offer = "Basic realm=\"proxy\"".parse().unwrap();
            answer.headers_mut().insert(PROXY_AUTHENTICATE, offer);
            return answer;
        }
        // Without a scheme it would be a request to a server.
        let Some(authority) = request.uri().authority().cloned() else {
            return empty(StatusCode::BAD_REQUEST);
        };
        let route = self
            .routes
            .iter()
            .find(|(name, _)| name == authority.as_str());
        let Some((_, upstream)) = route else {
            return empty(StatusCode::BAD_GATEWAY);
        };
        let Ok(stream) = TcpStream::connect(upstream).await else {
            return empty(StatusCode::BAD_GATEWAY);
        };
        if request.method() == Method::CONNECT {
            tokio::spawn(tunnel(request, stream));
            return empty(StatusCode::OK);
        }
        if request.headers().get(HOST).map(HeaderValue::as_bytes)
            != Some(authority.as_str().as_bytes())
        {
            return empty(StatusCode::BAD_REQUEST);
        }
        forward(request, stream)
            .await
            .unwrap_or_else(|_| empty(StatusCode::BAD_GATEWAY))
    }
}

async fn tunnel(request: Request<Incoming>, mut stream: TcpStream) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else {
        return;
    };
    let mut client = TokioIo::new(upgraded);
    drop(tokio::io::copy_bidirectional(&mut client, &mut stream).await);
}

/// Passes one request on, in the form that servers take.
async fn forward(
    mut request: Request<Incoming>,
    stream: TcpStream,
) -> Result<Response<Body>, hyper::Error> {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.unwrap().into();
    request.headers_mut().remove(PROXY_AUTHORIZATION);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    Ok(answer.map(BodyExt::boxed_unsync))
}

fn empty(status: StatusCode) -> Response<Body> {
    let body = Empty::new().map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = status;
    answer
}
