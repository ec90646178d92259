//! What a registry holds.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::walk::Walk;
use super::{Error, Held};
use crate::base::oci::Descriptor;
use crate::base::{Class, Classified as _, DEPTH_MAX, Repository};
use crate::registry::{self, Client, ManifestReference, Options};

/// How many manifests are asked for at once. Chosen as what other clients have open to one registry.
const REQUESTS: usize = 8;

/// Which repositories of a registry are looked at.
#[derive(Clone, Debug)]
pub enum Repositories {
    /// All of which the registry tells us.
    All,
    /// These. One that is not there is no error: it holds nothing.
    These(Vec<Repository>),
}

/// Lists what the tags of a registry reach.
pub async fn of_registry(options: Options, repositories: Repositories) -> Result<Held, Error> {
    let client = Client::new(options)?;
    let repositories = match repositories {
        Repositories::All => client.list_repositories().await?,
        Repositories::These(repositories) => repositories,
    };
    let mut walk = Walk::default();
    for repository in &repositories {
        add_repository(&mut walk, &client, repository).await?;
    }
    Ok(walk.held)
}

/// Adds what the tags of one repository reach, level by level.
async fn add_repository(
    walk: &mut Walk,
    client: &Client,
    repository: &Repository,
) -> Result<(), Error> {
    let tags = match client.list_tags(repository).await {
        Ok(tags) => tags,
        Err(error) if error.class() == Class::Absent => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut level: BTreeSet<ManifestReference> =
        tags.into_iter().map(ManifestReference::Tag).collect();
    for _ in 0..DEPTH_MAX {
        let mut next = BTreeSet::new();
        let mut answers = futures_util::stream::iter(&level)
            .map(|reference| get(client, repository, reference))
            .buffer_unordered(REQUESTS);
        while let Some(answer) = answers.next().await {
            // Deleted in between, or left out of a sparse index.
            let Some((descriptor, bytes)) = answer? else {
                continue;
            };
            // Under another tag, or in another repository.
            if !walk.is_new(&descriptor.digest) {
                continue;
            }
            let (children, blobs) =
                walk.add_manifest(repository.as_str(), descriptor.digest, &bytes)?;
            for blob in blobs {
                walk.add_blob(blob.digest, blob.size_bytes)?;
            }
            let children = children.iter().map(|child| child.digest);
            next.extend(children.map(ManifestReference::Digest));
        }
        drop(answers);
        level = next;
        if level.is_empty() {
            return Ok(());
        }
    }
    walk.skip(format!(
        "{repository}: expected at most {DEPTH_MAX} levels of manifests, found more"
    ));
    Ok(())
}

async fn get(
    client: &Client,
    repository: &Repository,
    reference: &ManifestReference,
) -> Result<Option<(Descriptor, Bytes)>, registry::Error> {
    match client.get_manifest(repository, reference).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.class() == Class::Absent => Ok(None),
        Err(error) => Err(error),
    }
}
