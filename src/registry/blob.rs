//! Blobs: are they there, give me one, take one.
//!
//! # States
//!
//! ```text
//! begin_upload --201--> there by mount
//!       `--202--> session --put_blob--> there
//!                    `--cancel_upload--> gone
//! ```
//!
//! A registry may answer a mount with a session, which is used. A session in which an upload failed is not used again:
//! registries differ in what they kept of it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use url::Url;

use super::exchange::Operation;
use super::manifest::content_length;
use super::payload::{Blob, BlobSource, Payload};
use super::scope::Scopes;
use super::wire::{Answer, Request};
use super::{Client, Error};
use crate::base::oci::Descriptor;
use crate::base::{Chain, Digest, Repository};

/// How long giving up a session may take. It is a courtesy: registries expire sessions.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// An upload that the registry expects.
#[derive(Clone, Debug)]
pub struct Session {
    repository: Repository,
    url: Url,
}

impl Session {
    /// Returns the repository that the upload is for.
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns where the upload goes, as an absolute URL. It can be a secret for whoever may not upload.
    pub fn location(&self) -> &str {
        self.url.as_str()
    }
}

/// The answer to the begin of an upload.
#[derive(Clone, Debug)]
pub enum Begun {
    /// The blob is there already: it was mounted from the other repository.
    Mounted,
    /// The blob is to be sent.
    Session(Session),
}

/// How a blob got to where it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// From another repository of the registry, without sending it.
    Mounted,
    /// By sending it.
    Sent {
        /// Its size.
        bytes: u64,
    },
}

impl Client {
    /// Returns the size of a blob, in bytes, or `None` where the repository does not have it.
    pub async fn find_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, Error> {
        let operation = self.find_blob_operation(repository, digest);
        let answer = self.exchange().run(&operation).await?;
        found_size(&answer)
    }

    /// Returns the content of a blob as it arrives.
    ///
    /// The begin is repeated on failures, the rest is not. The content is not hashed here: whoever keeps it must.
    pub async fn get_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
        let mut operation = self.find_blob_operation(repository, digest);
        operation.request.method = Method::GET;
        operation.request.action = self
            .exchange()
            .action(format!("read blob {digest} of {repository}"));
        operation.expected = &[200];
        let answer = self.exchange().run(&operation).await?;
        Ok(futures_util::stream::try_unfold(
            answer,
            async |mut answer: Answer| {
                let chunk = answer.chunk().await?;
                Ok(chunk.map(|chunk| (chunk, answer)))
            },
        ))
    }

    /// Begins an upload, by mounting the blob from another repository where one is given.
    pub async fn begin_upload(
        &self,
        repository: &Repository,
        mount: Option<(&Digest, &Repository)>,
    ) -> Result<Begun, Error> {
        let mut attempts = self.exchange().attempts();
        loop {
            match self.begin_upload_once(repository, mount).await {
                Ok(begun) => return Ok(begun),
                Err(error) => attempts.pause(error, Error::retry_after).await?,
            }
        }
    }

    /// Sends a blob into a session. Not repeated: a failure leaves a session that is good for nothing but
    /// [`Client::cancel_upload`], which is done.
    pub async fn put_blob(
        &self,
        session: Session,
        digest: &Digest,
        size_bytes: u64,
        source: &BlobSource,
    ) -> Result<(), Error> {
        let blob = Blob {
            digest: *digest,
            size_bytes,
            source: BlobSource::clone(source),
        };
        let operation = self.put_blob_operation(&session, blob);
        match self.exchange().run_once(&operation).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.cancel_upload(session).await;
                Err(error)
            }
        }
    }

    /// Brings a blob into a repository: by mounting it from `mount_from`, otherwise by sending it. Repeated as a whole.
    pub async fn upload_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        source: &BlobSource,
        mount_from: Option<&Repository>,
    ) -> Result<Uploaded, Error> {
        let mount = mount_from.map(|from| (&blob.digest, from));
        let sent = Uploaded::Sent {
            bytes: blob.size_bytes,
        };
        let mut attempts = self.exchange().attempts();
        loop {
            let outcome = match self.begin_or_fall_back(repository, mount).await {
                Ok(Begun::Mounted) => return Ok(Uploaded::Mounted),
                Ok(Begun::Session(session)) => {
                    self.put_blob(session, &blob.digest, blob.size_bytes, source)
                        .await
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => return Ok(sent),
                Err(error) => attempts.pause(error, Error::retry_after).await?,
            }
            // The upload may have succeeded and only its answer was lost.
            let operation = self.find_blob_operation(repository, &blob.digest);
            match self.exchange().run_once(&operation).await {
                Ok(answer) if found_size(&answer)? == Some(blob.size_bytes) => return Ok(sent),
                Ok(_) => {}
                Err(error) => attempts.pause(error, Error::retry_after).await?,
            }
        }
    }

    /// Gives up a session, so that the registry can forget what it has of it.
    ///
    /// Best effort: docker-registry 2.8 answers 404 for a session that was cut in the middle of a request and keeps
    /// what it has until its own purge.
    pub async fn cancel_upload(&self, session: Session) {
        let operation = Operation {
            request: Request::new(
                Method::DELETE,
                session.url,
                self.exchange()
                    .action(format!("cancel an upload to {}", session.repository)),
            ),
            scopes: Scopes::push(&session.repository),
            expected: &[200, 202, 204, 404],
        };
        let canceling = self.exchange().run_once(&operation);
        match tokio::time::timeout(CANCEL_TIMEOUT, canceling).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = %Chain(&error), "upload session was not given up");
            }
            Err(_) => tracing::debug!(
                action = %operation.request.action,
                "upload session was not given up in time"
            ),
        }
    }

    /// Begins an upload. A mount that is refused, because we may not read the other repository or because the registry
    /// cannot mount, becomes an upload.
    async fn begin_or_fall_back(
        &self,
        repository: &Repository,
        mount: Option<(&Digest, &Repository)>,
    ) -> Result<Begun, Error> {
        match self.begin_upload_once(repository, mount).await {
            Err(
                error @ (Error::Denied { .. }
                | Error::Forbidden { .. }
                | Error::ReadOnly { .. }
                | Error::RepositoryUnknown { .. }
                | Error::Absent { .. }
                | Error::Status { .. }),
            ) if mount.is_some() => {
                tracing::debug!(error = %Chain(&error), "mount was refused, uploading instead");
                self.begin_upload_once(repository, None).await
            }
            other => other,
        }
    }

    async fn begin_upload_once(
        &self,
        repository: &Repository,
        mount: Option<(&Digest, &Repository)>,
    ) -> Result<Begun, Error> {
        let mut url = self
            .exchange()
            .url(&format!("v2/{repository}/blobs/uploads/"));
        let mut scopes = Scopes::push(repository);
        let mut doing = format!("begin an upload to {repository}");
        if let Some((digest, from)) = mount {
            url.query_pairs_mut()
                .append_pair("mount", &digest.to_string())
                .append_pair("from", from.as_str());
            scopes = scopes.and_pull(from);
            doing = format!("mount blob {digest} of {from} to {repository}");
        }
        let operation = Operation {
            request: Request::new(Method::POST, url, self.exchange().action(doing)),
            scopes,
            expected: if mount.is_some() { &[201, 202] } else { &[202] },
        };
        let answer = self.exchange().run_once(&operation).await?;
        if answer.status() == 201 {
            return Ok(Begun::Mounted);
        }
        let place = self.exchange().location(&answer, &operation.request.url)?;
        Ok(Begun::Session(Session {
            repository: repository.clone(),
            url: place.url,
        }))
    }

    fn find_blob_operation(&self, repository: &Repository, digest: &Digest) -> Operation {
        Operation {
            request: Request::new(
                Method::HEAD,
                self.exchange()
                    .url(&format!("v2/{repository}/blobs/{digest}")),
                self.exchange()
                    .action(format!("find blob {digest} of {repository}")),
            ),
            scopes: Scopes::pull(repository),
            expected: &[200, 404],
        }
    }

    fn put_blob_operation(&self, session: &Session, blob: Blob) -> Operation {
        let Session { repository, url } = session;
        let mut url = url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &blob.digest.to_string());
        let doing = format!("upload blob {} to {repository}", blob.digest);
        let mut request = Request::new(Method::PUT, url, self.exchange().action(doing));
        request.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        request.payload = Payload::Blob(blob);
        Operation {
            request,
            scopes: Scopes::push(repository),
            expected: &[201, 204],
        }
    }
}

/// Reads the answer to a `HEAD` of a blob.
fn found_size(answer: &Answer) -> Result<Option<u64>, Error> {
    if answer.status() == 404 {
        return Ok(None);
    }
    content_length(answer.headers())
        .map(Some)
        .ok_or_else(|| answer.broken("expected a size, found none".to_owned()))
}
