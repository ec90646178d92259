//! Who holds content by digest: registries.

use std::fmt::Debug;
use std::pin::pin;

use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;

use super::places::{Part, Place};
use super::{Error, registry};
use crate::base::{Class, Classified as _, Digest, TargetName};
use crate::registry::{Client, ManifestReference};
use crate::store::Writer;

/// Somebody who may hold a blob that is lost.
pub trait Origin: Debug + Send + Sync {
    /// Returns the name under which reports know it.
    fn name(&self) -> &str;

    /// Writes what is at a place under a digest, and returns the writer. Whoever stages it compares the content.
    fn fetch<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        writer: Writer,
    ) -> BoxFuture<'a, Result<Writer, Error>>;
}

/// The registry of a target.
#[derive(Clone, Debug)]
pub struct RegistryOrigin {
    /// The target.
    pub target: TargetName,
    /// Its registry.
    pub client: Client,
}

impl RegistryOrigin {
    async fn read(
        &self,
        place: &Place,
        digest: &Digest,
        mut writer: Writer,
    ) -> Result<Writer, Error> {
        match place.part {
            Part::Manifest => {
                let reference = ManifestReference::Digest(*digest);
                let read = self.client.get_manifest(&place.repository, &reference);
                let (_, bytes) = read.await.map_err(absent)?;
                tokio::task::block_in_place(|| writer.write(&bytes))?;
            }
            Part::Blob => {
                let read = self.client.get_blob(&place.repository, digest);
                let mut content = pin!(read.await.map_err(absent)?);
                while let Some(bytes) = content.try_next().await? {
                    tokio::task::block_in_place(|| writer.write(&bytes))?;
                }
            }
        }
        Ok(writer)
    }
}

impl Origin for RegistryOrigin {
    fn name(&self) -> &str {
        self.target.as_str()
    }

    fn fetch<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        writer: Writer,
    ) -> BoxFuture<'a, Result<Writer, Error>> {
        Box::pin(self.read(place, digest, writer))
    }
}

fn absent(error: registry::Error) -> Error {
    if error.class() == Class::Absent {
        Error::Absent
    } else {
        Error::Registry(error)
    }
}
