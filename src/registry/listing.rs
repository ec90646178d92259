//! What there is in a registry: its repositories, and what refers to a manifest.
//!
//! # References
//!
//! OCI distribution-spec v1.1.0, "Listing Referrers"; Docker Registry HTTP API V2, "Listing Repositories" (`_catalog`).

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue};
use serde::Deserialize;

use super::exchange::Operation;
use super::manifest::broken;
use super::scope::Scopes;
use super::wire::Request;
use super::{Client, Error};
use crate::base::oci::{Descriptor, MANIFEST_BYTES_MAX, MEDIA_TYPE_INDEX};
use crate::base::{Digest, Repository};

/// The most pages of one list. With the page sizes this only stops a registry whose pages never end.
const PAGES_MAX: usize = 1000;
/// How many repositories are asked for at once. docker-registry refuses more than 1000.
const REPOSITORIES_PAGE: usize = 1000;
/// The most of one page of repositories, in bytes: [`REPOSITORIES_PAGE`] names of 255 bytes, ten times over for
/// registries that give more than they are asked for.
const REPOSITORIES_PAGE_BYTES_MAX: usize = 4 << 20;
/// The most repositories of one registry. Chosen, not measured.
const REPOSITORIES_MAX: usize = 100_000;
/// The most referrers of one manifest. Chosen, not measured: daily scans of five years are 2000.
const REFERRERS_MAX: usize = 10_000;
/// What registries answer that have no referrers API: 404 by the specification, the others by older registries.
const NO_REFERRERS: [u16; 4] = [400, 404, 405, 501];

/// One page of repositories.
#[derive(Deserialize)]
struct RepositoriesPage {
    repositories: Option<Vec<Repository>>,
}

/// One page of referrers: an index.
#[derive(Deserialize)]
struct ReferrersPage {
    manifests: Option<Vec<Descriptor>>,
}

impl Client {
    /// Returns the repositories of the registry in its order, as far as we may know of them.
    pub async fn list_repositories(&self) -> Result<Vec<Repository>, Error> {
        let url = format!("v2/_catalog?n={REPOSITORIES_PAGE}");
        let operation = Operation {
            request: Request::new(
                Method::GET,
                self.exchange().url(&url),
                self.exchange().action("list the repositories".to_owned()),
            ),
            scopes: Scopes::catalog(),
            expected: &[200],
        };
        let mut repositories = Vec::new();
        self.read_pages(operation, REPOSITORIES_PAGE_BYTES_MAX, |body| {
            let page: RepositoriesPage = serde_json::from_slice(body)
                .map_err(|error| format!("expected a list of repositories: {error}"))?;
            repositories.extend(page.repositories.unwrap_or_default());
            check_count(repositories.len(), REPOSITORIES_MAX, "repositories")
        })
        .await?;
        Ok(repositories)
    }

    /// Returns the manifests of a repository whose `subject` is this one; `None` if the registry has no referrers API,
    /// and they have to be looked for under the tag of the fallback scheme.
    pub async fn list_referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, Error> {
        let mut operation = Operation {
            request: Request::new(
                Method::GET,
                self.exchange()
                    .url(&format!("v2/{repository}/referrers/{subject}")),
                self.exchange()
                    .action(format!("list the referrers of {repository}@{subject}")),
            ),
            scopes: Scopes::pull(repository),
            expected: &[200, 400, 404, 405, 501],
        };
        let accept = HeaderValue::from_static(MEDIA_TYPE_INDEX);
        operation.request.headers.insert(ACCEPT, accept);
        let bytes_max = usize::try_from(MANIFEST_BYTES_MAX).expect("a few MiB fit");
        let mut referrers = Vec::new();
        let is_known = self
            .read_pages(operation, bytes_max, |body| {
                let page: ReferrersPage = serde_json::from_slice(body)
                    .map_err(|error| format!("expected an index: {error}"))?;
                referrers.extend(page.manifests.unwrap_or_default());
                check_count(referrers.len(), REFERRERS_MAX, "referrers")
            })
            .await?;
        Ok(is_known.then_some(referrers))
    }

    /// Gives every page of a list to `take`. Returns whether there is such a list.
    async fn read_pages(
        &self,
        mut operation: Operation,
        page_bytes_max: usize,
        mut take: impl FnMut(&Bytes) -> Result<(), String> + Send,
    ) -> Result<bool, Error> {
        for _ in 0..PAGES_MAX {
            let answer = self.exchange().run(&operation).await?;
            if NO_REFERRERS.contains(&answer.status()) {
                return Ok(false);
            }
            let headers = answer.headers().clone();
            let body = answer.body(page_bytes_max).await?;
            take(&body).map_err(|reason| broken(&operation, reason))?;
            match self.next_page(&operation, &headers)? {
                Some(url) => operation.request.url = url,
                None => return Ok(true),
            }
        }
        Err(broken(
            &operation,
            format!("expected at most {PAGES_MAX} pages, found more"),
        ))
    }
}

fn check_count(count: usize, count_max: usize, what: &str) -> Result<(), String> {
    if count > count_max {
        return Err(format!("expected at most {count_max} {what}, found more"));
    }
    Ok(())
}
