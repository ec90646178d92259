//! Blobs: are they there, give me one. How they get there is in `upload`.

use bytes::Bytes;
use futures_util::Stream;
use reqwest::Method;

use super::exchange::Operation;
use super::manifest::content_length;
use super::scope::Scopes;
use super::wire::{Answer, Request};
use super::{Client, Error};
use crate::base::{Digest, Repository};

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

    /// Like [`Client::find_blob`], not repeated.
    pub(super) async fn look_for_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, Error> {
        let operation = self.find_blob_operation(repository, digest);
        let answer = self.exchange().run_once(&operation).await?;
        found_size(&answer)
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
