//! A proxy before a server: it counts, and it breaks what it is told to.
//!
//! It understands plain HTTP/1.1, so that faults hit chosen requests, and keeps every header, `Host` included, so that
//! the server behind names itself by the proxy's address.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Body as _, Bytes, Frame, Incoming};
use hyper::header::RETRY_AFTER;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::http::serve;
use super::limiter::{Limit, Limiter};
use super::within;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What the kernel keeps of a connection before the proxy reads it, in bytes, give or take a factor of two.
const BUFFER_BYTES: u32 = 512 << 10;
/// Connections that wait to be accepted: the library's own default.
const BACKLOG: u32 = 1024;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is closed without an answer.
    Refuse,
    /// The connection is cut once this many bytes of the content have passed: of the request's for `PUT`, `PATCH` and
    /// `POST`, else of the answer's.
    CutAfter(u64),
    /// As `CutAfter`, but the connection stays open and nothing moves any more.
    StallAfter(u64),
    /// The request is passed on after this time.
    Delay(Duration),
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    state: Arc<State>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    upstream: Mutex<SocketAddr>,
    /// Prefixes of paths that go elsewhere.
    routes: Vec<(&'static str, SocketAddr)>,
    limiter: Option<Limiter>,
    faults: Mutex<VecDeque<(Method, Fault)>>,
    requests: Mutex<Vec<String>>,
    /// Bytes of requests that have passed.
    uploaded: watch::Sender<u64>,
    /// How many of them may pass.
    uploaded_max: watch::Sender<u64>,
    /// Bytes of requests that were read and refused.
    refused_bytes: AtomicU64,
}

impl Proxy {
    /// Starts a proxy before `upstream`.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        Self::start_as(upstream, Vec::new(), None)
    }

    /// Starts a proxy that answers 429 to what goes beyond `limit`.
    pub(crate) fn start_with_limit(upstream: SocketAddr, limit: Limit) -> Self {
        Self::start_as(upstream, Vec::new(), Some(Limiter::new(limit)))
    }

    /// Starts a proxy that sends paths with one of the prefixes elsewhere.
    pub(crate) fn start_with_routes(
        upstream: SocketAddr,
        routes: Vec<(&'static str, SocketAddr)>,
    ) -> Self {
        Self::start_as(upstream, routes, None)
    }

    fn start_as(
        upstream: SocketAddr,
        routes: Vec<(&'static str, SocketAddr)>,
        limiter: Option<Limiter>,
    ) -> Self {
        let state = Arc::new(State {
            upstream: Mutex::new(upstream),
            routes,
            limiter,
            faults: Mutex::default(),
            requests: Mutex::default(),
            uploaded: watch::Sender::new(0),
            uploaded_max: watch::Sender::new(u64::MAX),
            refused_bytes: AtomicU64::new(0),
        });
        let listener = listen();
        Self {
            address: listener.local_addr().unwrap(),
            task: tokio::spawn(serve(listener, {
                let state = Arc::clone(&state);
                move |request| Arc::clone(&state).forward(request)
            })),
            state,
        }
    }

    /// Returns where the proxy listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends further requests to another server.
    pub(crate) fn set_upstream(&self, upstream: SocketAddr) {
        *self.state.upstream.lock().unwrap() = upstream;
    }

    /// Breaks the next request of this method that no earlier call has broken.
    pub(crate) fn break_next(&self, method: Method, fault: Fault) {
        self.state.faults.lock().unwrap().push_back((method, fault));
    }

    /// Returns the requests so far, as `GET /v2/`, and forgets them.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }

    /// Returns of each request since the start whether its limit refused it.
    pub(crate) fn refused(&self) -> Vec<bool> {
        let limiter = self.state.limiter.as_ref();
        limiter.map(Limiter::refused).unwrap_or_default()
    }

    /// Returns how many bytes of requests, without headers, came with those that the limit refused.
    pub(crate) fn refused_bytes(&self) -> u64 {
        self.state.refused_bytes.load(Ordering::Relaxed)
    }

    /// Returns how many bytes of requests, without headers, have passed.
    pub(crate) fn uploaded_bytes(&self) -> u64 {
        *self.state.uploaded.borrow()
    }

    /// Lets only this many bytes of requests pass, give or take what is read at a time, until a later call says otherwise.
    pub(crate) fn hold_uploads_at(&self, bytes: u64) {
        self.state.uploaded_max.send_replace(bytes);
    }

    /// Waits until this many bytes of requests have passed.
    pub(crate) async fn wait_for_uploaded_bytes(&self, bytes: u64) {
        let mut uploaded = self.state.uploaded.subscribe();
        let waiting = uploaded.wait_for(|uploaded| *uploaded >= bytes);
        drop(within("the upload", waiting).await.unwrap());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens with buffers that hold little, whatever the system would let them grow to: what a client has handed over is counted soon.
fn listen() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(BUFFER_BYTES).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    socket.listen(BACKLOG).unwrap()
}

impl State {
    async fn forward(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, BoxError> {
        self.requests
            .lock()
            .unwrap()
            .push(format!("{} {}", request.method(), request.uri()));
        let mut in_flight = None;
        if let Some(limiter) = &self.limiter {
            in_flight = limiter.admit();
            if in_flight.is_none() {
                return self.refuse(request, limiter.limit()).await;
            }
        }
        let fault = self.take_fault(request.method());
        match fault {
            Some(Fault::Refuse) => return Err("refused".into()),
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::CutAfter(_) | Fault::StallAfter(_)) | None => {}
        }
        let is_upload = matches!(
            *request.method(),
            Method::PUT | Method::PATCH | Method::POST
        );
        let (on_request, on_answer) = if is_upload {
            (fault, None)
        } else {
            (None, fault)
        };
        let upstream = self.upstream_of(request.uri().path());
        let stream = TcpStream::connect(upstream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = request.map(|body| gate(body, on_request, Some(Arc::clone(&self))));
        let answer = sender.send_request(request).await;
        drop(in_flight);
        if answer.is_err() {
            connection.abort();
        }
        Ok(answer?.map(|body| gate(body, on_answer, None)))
    }

    /// Reads a request to its end, as nginx does, and refuses it.
    async fn refuse(
        &self,
        request: Request<Incoming>,
        limit: Limit,
    ) -> Result<Response<Body>, BoxError> {
        let body = request.into_body().collect().await?.to_bytes();
        self.refused_bytes
            .fetch_add(body.len() as u64, Ordering::Relaxed);
        let mut answer = Response::builder().status(StatusCode::TOO_MANY_REQUESTS);
        if let Some(seconds) = limit.retry_after() {
            answer = answer.header(RETRY_AFTER, seconds);
        }
        let nothing = Empty::new().map_err(|never| match never {});
        Ok(answer.body(nothing.boxed_unsync())?)
    }

    fn take_fault(&self, method: &Method) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let index = faults.iter().position(|(wanted, _)| wanted == method)?;
        faults.remove(index).map(|(_, fault)| fault)
    }

    /// Counts bytes of a request, and returns once they may pass.
    async fn count_uploaded(&self, bytes: u64) {
        let mut max = self.uploaded_max.subscribe();
        self.uploaded.send_modify(|uploaded| *uploaded += bytes);
        let may_pass = max.wait_for(|max| *self.uploaded.borrow() <= *max);
        // Only a proxy that is gone has nobody who says how many.
        drop(may_pass.await);
    }

    fn upstream_of(&self, path: &str) -> SocketAddr {
        self.routes
            .iter()
            .find(|(prefix, _)| path.starts_with(prefix))
            .map_or_else(|| *self.upstream.lock().unwrap(), |(_, address)| *address)
    }
}

/// Lets a body through until its fault strikes, counting it where `counter` is given.
fn gate(body: Incoming, fault: Option<Fault>, counter: Option<Arc<State>>) -> Body {
    if body.is_end_stream() {
        return Empty::new().map_err(|never| match never {}).boxed_unsync();
    }
    let frames = pieces(body.into_data_stream(), fault).then(move |piece| {
        let counter = counter.clone();
        async move {
            if let (Some(counter), Ok(piece)) = (&counter, &piece) {
                counter.count_uploaded(piece.len() as u64).await;
            }
            piece.map(Frame::data)
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

fn pieces(
    stream: impl Stream<Item = Result<Bytes, hyper::Error>> + Send + Unpin + 'static,
    fault: Option<Fault>,
) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    let room = match fault {
        Some(Fault::CutAfter(bytes) | Fault::StallAfter(bytes)) => bytes,
        Some(Fault::Refuse | Fault::Delay(_)) | None => u64::MAX,
    };
    let ending = match fault {
        Some(Fault::StallAfter(_)) => Ending::Stall,
        Some(Fault::CutAfter(_) | Fault::Refuse | Fault::Delay(_)) | None => Ending::Cut,
    };
    futures_util::stream::try_unfold(
        (stream, room, ending),
        async |(mut stream, room, ending)| {
            match (room, ending) {
                (0, Ending::Cut) => {
                    // Lets the server send what it has before it closes.
                    tokio::task::yield_now().await;
                    return Err("cut".into());
                }
                (0, Ending::Stall) => std::future::pending().await,
                (1.., Ending::Cut | Ending::Stall) => {}
            }
            let Some(mut piece) = stream.next().await.transpose()? else {
                return Ok(None);
            };
            let passed = usize::try_from(room).unwrap().min(piece.len());
            piece.truncate(passed);
            Ok(Some((piece, (stream, room - passed as u64, ending))))
        },
    )
}

/// What follows the last byte that passes.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Cut,
    Stall,
}
