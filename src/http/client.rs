//! Asks a running daemon over its socket. Used by the command line.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;

use super::view::ProblemView;
use crate::base::{Class, Classified};

/// The largest answer, in bytes. A status with 20 000 packages has about 12 MB.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody listens at the socket, or it may not be opened.
    #[error("failed to reach the daemon at `{}`", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The connection broke.
    #[error("failed to talk to the daemon")]
    Http(#[from] hyper::Error),
    /// The answer was cut or is too large.
    #[error("failed to read the daemon's answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is not what this version expects.
    #[error("failed to understand the daemon's answer")]
    Json(#[from] serde_json::Error),
    /// The daemon says no.
    #[error("{}", .0.detail)]
    Refused(ProblemView),
}

impl Error {
    /// Returns whether nobody listens at the socket: the daemon does not run.
    pub fn is_nobody(&self) -> bool {
        match self {
            Self::Connect { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ),
            Self::Http(_) | Self::Body(_) | Self::Json(_) | Self::Refused(_) => false,
        }
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Class::Denied
            }
            Self::Json(_) => Class::Bug,
            Self::Refused(ProblemView {
                class: Some(class), ..
            }) => *class,
            Self::Refused(problem) if problem.status == StatusCode::BAD_REQUEST.as_u16() => {
                Class::Usage
            }
            Self::Refused(problem) if problem.status == StatusCode::NOT_FOUND.as_u16() => {
                Class::Absent
            }
            Self::Connect { .. } | Self::Http(_) | Self::Body(_) | Self::Refused(_) => {
                Class::Transient
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run as root or as a member of the group violetd".to_owned())
            }
            Self::Connect { .. } => {
                Some("is `violetd serve` running with this configuration?".to_owned())
            }
            Self::Refused(problem) => problem.hint.clone(),
            Self::Http(_) | Self::Body(_) | Self::Json(_) => None,
        }
    }
}

/// Sends a request without a body and returns the bytes of the answer.
pub async fn request(socket: &Path, method: Method, path: &str) -> Result<Bytes, Error> {
    send(socket, method, path, None).await
}

/// Sends a request with a body and returns the value that is answered.
pub async fn call<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Error> {
    let body = serde_json::to_vec(body)?;
    let bytes = send(socket, method, path, Some(body.into())).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

async fn send(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> Result<Bytes, Error> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| Error::Connect {
            path: socket.to_owned(),
            source,
        })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection ends when `sender` is dropped; its error, if any, is the request's too.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "localhost")
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body.unwrap_or_default()))
        .expect("method and path are well-formed");
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let bytes = body.collect().await.map_err(Error::Body)?.to_bytes();
    if !status.is_success() {
        return Err(Error::Refused(serde_json::from_slice(&bytes)?));
    }
    Ok(bytes)
}

/// Gets a value.
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Error> {
    let bytes = request(socket, Method::GET, path).await?;
    Ok(serde_json::from_slice(&bytes)?)
}
