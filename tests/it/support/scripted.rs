//! A server that answers by a script: each request must be the next one of the script, or the test fails.
//!
//! ```text
//! let server = Scripted::start(vec![
//!     on("GET", "/v2/a/tags/list").body("{}"),
//!     on("HEAD", "/v2/a/manifests/v1").answer(429).header("retry-after", "1"),
//! ]).await;
//! ...
//! let requests = server.finish();
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::{HeaderMap, Request, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use violetd::registry::Options;

use super::docker_registry::quick_options;
use super::http::serve;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One expected request and what is done about it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    method: &'static str,
    /// Path and query.
    target: String,
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    ending: Ending,
}

/// How an answer ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Proper,
    /// The connection is closed before the answer.
    NoAnswer,
    /// No answer ever.
    Silence,
    /// The connection is cut after this many bytes of the body.
    Cut(usize),
    /// Nothing comes after this many bytes of the body.
    Stall(usize),
}

/// Expects a request with this method, path and query. It is answered with 200 and nothing, unless said otherwise.
pub(crate) fn on(method: &'static str, target: impl Into<String>) -> Step {
    Step {
        method,
        target: target.into(),
        status: 200,
        headers: Vec::new(),
        body: Bytes::new(),
        ending: Ending::Proper,
    }
}

impl Step {
    /// Answers with this status.
    pub(crate) fn answer(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Answers with this header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Answers with this body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Closes the connection instead of answering.
    pub(crate) fn hang_up(mut self) -> Self {
        self.ending = Ending::NoAnswer;
        self
    }

    /// Never answers.
    pub(crate) fn silence(mut self) -> Self {
        self.ending = Ending::Silence;
        self
    }

    /// Cuts the connection after this many bytes of the body.
    pub(crate) fn cut_after(mut self, bytes: usize) -> Self {
        self.ending = Ending::Cut(bytes);
        self
    }

    /// Sends this many bytes of the body and then nothing more.
    pub(crate) fn stall_after(mut self, bytes: usize) -> Self {
        self.ending = Ending::Stall(bytes);
        self
    }
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its content.
    pub(crate) body: Bytes,
}

impl Recorded {
    /// Returns a header, or an empty string.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Scripted {
    state: Arc<State>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    script: Mutex<VecDeque<Step>>,
    requests: Mutex<Vec<Recorded>>,
    problems: Mutex<Vec<String>>,
}

impl Scripted {
    /// Starts a server that follows `script`.
    pub(crate) async fn start(script: Vec<Step>) -> Self {
        let server = Self::start_empty().await;
        server.expect(script);
        server
    }

    /// Starts a server without a script yet: for scripts that must name the server's address.
    pub(crate) async fn start_empty() -> Self {
        let state = Arc::new(State::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            task: tokio::spawn(serve(listener, {
                let state = Arc::clone(&state);
                move |request| Arc::clone(&state).answer(request)
            })),
            state,
        }
    }

    /// Adds to the script.
    pub(crate) fn expect(&self, steps: Vec<Step>) {
        self.state.script.lock().unwrap().extend(steps);
    }

    /// Returns where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns options for an anonymous client with short pauses.
    pub(crate) fn options(&self) -> Options {
        quick_options(self.address)
    }

    /// Fails the test unless exactly the script has happened; returns the requests in their order.
    pub(crate) fn finish(self) -> Vec<Recorded> {
        self.check();
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }

    fn check(&self) {
        let problems = self.state.problems.lock().unwrap().join("\n");
        assert!(problems.is_empty(), "{problems}");
        let rest = self.state.script.lock().unwrap();
        assert!(rest.is_empty(), "requests that never came: {rest:#?}");
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            self.check();
        }
    }
}

impl State {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError> {
        let (head, body) = request.into_parts();
        let found = format!("{} {}", head.method, head.uri);
        let step = self.script.lock().unwrap().pop_front();
        let expected = step.as_ref().map_or("nothing".to_owned(), |step| {
            format!("{} {}", step.method, step.target)
        });
        let Some(step) = step.filter(|_| found == expected) else {
            let problem = format!("expected {expected}, found {found}");
            self.problems.lock().unwrap().push(problem);
            // A status that no client repeats.
            let answer = Response::builder().status(418);
            return Ok(answer.body(sent(&Bytes::new(), Ending::Proper))?);
        };
        let body = body.collect().await?.to_bytes();
        self.requests.lock().unwrap().push(Recorded {
            headers: head.headers,
            body,
        });
        match step.ending {
            Ending::NoAnswer => return Err("hung up".into()),
            Ending::Silence => std::future::pending().await,
            Ending::Proper | Ending::Cut(_) | Ending::Stall(_) => {}
        }
        let mut answer = Response::builder().status(step.status);
        let names_length = step
            .headers
            .iter()
            .any(|(name, _)| *name == "content-length");
        if !names_length {
            answer = answer.header(CONTENT_LENGTH, step.body.len());
        }
        for (name, value) in &step.headers {
            answer = answer.header(*name, value);
        }
        Ok(answer.body(sent(&step.body, step.ending))?)
    }
}

/// Returns as much of a body as its ending lets through.
fn sent(body: &Bytes, ending: Ending) -> UnsyncBoxBody<Bytes, BoxError> {
    let count = match ending {
        Ending::Cut(count) | Ending::Stall(count) => count,
        Ending::Proper | Ending::NoAnswer | Ending::Silence => body.len(),
    };
    let first = futures_util::stream::iter([Ok(Frame::data(body.slice(..count)))]);
    let rest = futures_util::stream::once(async move {
        match ending {
            Ending::Cut(_) => {
                // Lets the server send what it has before it closes.
                tokio::task::yield_now().await;
                Some(Err("cut".into()))
            }
            Ending::Stall(_) => std::future::pending().await,
            Ending::Proper | Ending::NoAnswer | Ending::Silence => None,
        }
    })
    .filter_map(std::future::ready);
    StreamBody::new(first.chain(rest)).boxed_unsync()
}
