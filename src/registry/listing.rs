//! What there is in a registry: its repositories, their tags, and what refers to a manifest.
//!
//! # References
//!
//! OCI distribution-spec v1.1.0, "Listing Tags", "Listing Referrers"; Docker Registry HTTP API V2, "Listing Repositories" (`_catalog`).

use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue, LINK};
use serde::Deserialize;

use super::exchange::Operation;
use super::link;
use super::scope::Scopes;
use super::wire::Request;
use super::{Client, Error};
use crate::base::oci::{Descriptor, MANIFEST_BYTES_MAX, MEDIA_TYPE_INDEX};
use crate::base::{Digest, Repository, Tag};

/// The most pages of one list. With the page sizes this only stops a registry whose pages never end.
const PAGES_MAX: usize = 1000;
/// How many repositories are asked for at once. docker-registry refuses more than 1000.
const REPOSITORIES_PAGE: usize = 1000;
/// The most of one page of repositories, in bytes: [`REPOSITORIES_PAGE`] names of 255 bytes, ten times over for
/// registries that give more than they are asked for.
const REPOSITORIES_PAGE_BYTES_MAX: usize = 4 << 20;
/// The most repositories of one registry. Chosen, not measured.
const REPOSITORIES_MAX: usize = 100_000;
/// The most of one page of tags, in bytes: about 100 000 tags of common length.
const TAGS_PAGE_BYTES_MAX: usize = 4 << 20;
/// The most tags of one repository. Chosen, not measured: ten times the most seen.
const TAGS_MAX: usize = 100_000;
/// The most referrers of one manifest. Chosen, not measured: daily scans of five years are 2000.
const REFERRERS_MAX: usize = 10_000;

/// One page of repositories.
#[derive(Deserialize)]
struct RepositoriesPage {
    repositories: Option<Vec<Repository>>,
}

/// One page of tags. `tags` is `null` where all tags were deleted.
#[derive(Deserialize)]
struct TagsPage {
    tags: Option<Vec<String>>,
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
        self.read_pages(operation, REPOSITORIES_PAGE_BYTES_MAX, |_, body| {
            let page: RepositoriesPage = serde_json::from_slice(body)
                .map_err(|error| format!("expected a list of repositories: {error}"))?;
            repositories.extend(page.repositories.unwrap_or_default());
            check_count(repositories.len(), REPOSITORIES_MAX, "repositories")
        })
        .await?;
        Ok(repositories)
    }

    /// Returns the tags of a repository in the registry's order, which is that of the specification: lexical.
    pub async fn list_tags(&self, repository: &Repository) -> Result<Vec<Tag>, Error> {
        let operation = Operation {
            request: Request::new(
                Method::GET,
                self.exchange().url(&format!("v2/{repository}/tags/list")),
                self.exchange()
                    .action(format!("list the tags of {repository}")),
            ),
            scopes: Scopes::pull(repository),
            expected: &[200],
        };
        let mut tags = Vec::new();
        self.read_pages(operation, TAGS_PAGE_BYTES_MAX, |_, body| {
            tags.extend(parse_tags(body)?);
            check_count(tags.len(), TAGS_MAX, "tags")
        })
        .await?;
        Ok(tags)
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
            // Registries without the referrers API answer 404 by the specification, older ones with the others.
            expected: &[200, 400, 404, 405, 501],
        };
        let accept = HeaderValue::from_static(MEDIA_TYPE_INDEX);
        operation.request.headers.insert(ACCEPT, accept);
        let bytes_max = usize::try_from(MANIFEST_BYTES_MAX).expect("a few MiB fit");
        let mut referrers = Some(Vec::new());
        self.read_pages(operation, bytes_max, |status, body| {
            if status != 200 {
                referrers = None;
                return Ok(());
            }
            let page: ReferrersPage = serde_json::from_slice(body)
                .map_err(|error| format!("expected an index: {error}"))?;
            let listed = referrers.get_or_insert_default();
            listed.extend(page.manifests.unwrap_or_default());
            check_count(listed.len(), REFERRERS_MAX, "referrers")
        })
        .await?;
        Ok(referrers)
    }

    /// Gives status and body of every page of a list to `take`.
    async fn read_pages(
        &self,
        mut operation: Operation,
        page_bytes_max: usize,
        mut take: impl FnMut(u16, &[u8]) -> Result<(), String> + Send,
    ) -> Result<(), Error> {
        for _ in 0..PAGES_MAX {
            let page = self
                .exchange()
                .run_whole(&operation, page_bytes_max)
                .await?;
            take(page.status, &page.body).map_err(|reason| broken(&operation, reason))?;
            match self.next_page(&operation, &page.headers)? {
                Some(url) => operation.request.url = url,
                None => return Ok(()),
            }
        }
        Err(broken(
            &operation,
            format!("expected at most {PAGES_MAX} pages, found more"),
        ))
    }

    /// Returns where the next page is. It must be at the registry itself.
    fn next_page(
        &self,
        operation: &Operation,
        headers: &HeaderMap,
    ) -> Result<Option<url::Url>, Error> {
        let header = headers.get(LINK).and_then(|value| value.to_str().ok());
        let Some(target) = header.and_then(link::next) else {
            return Ok(None);
        };
        let wire = self.exchange().wire();
        match link::resolve(&wire.base, &operation.request.url, target) {
            Ok(place) if place.is_ours => Ok(Some(place.url)),
            Ok(_) | Err(_) => Err(broken(
                operation,
                format!(
                    "expected the next page at the registry, found `{}`",
                    target.escape_debug()
                ),
            )),
        }
    }
}

fn broken(operation: &Operation, reason: String) -> Error {
    Error::Answer {
        action: operation.request.action.clone(),
        reason,
    }
}

fn parse_tags(body: &[u8]) -> Result<Vec<Tag>, String> {
    let page: TagsPage =
        serde_json::from_slice(body).map_err(|_| "expected a list of tags in JSON".to_owned())?;
    page.tags
        .unwrap_or_default()
        .iter()
        .map(|text| {
            text.parse::<Tag>()
                .map_err(|error| format!("{error}, found `{}`", text.escape_debug()))
        })
        .collect()
}

fn check_count(count: usize, count_max: usize, what: &str) -> Result<(), String> {
    if count > count_max {
        return Err(format!("expected at most {count_max} {what}, found more"));
    }
    Ok(())
}
