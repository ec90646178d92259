//! What packages keep in the store, where the catalog does not know it: those that became ready before it was written down.

use std::collections::BTreeMap;

use crate::base::oci::{Descriptor, MANIFEST_BYTES_MAX};
use crate::base::{Chain, Digest, Tree, TreeError};
use crate::catalog::{self, Catalog, Content, PackageRecord};
use crate::store::{self, Store};

/// Writes down what packages keep in the store, for those of which the catalog does not know it. Returns how many are left.
///
/// What a package keeps is read from its manifests. Where one of them cannot be read, the package stays as it is, which is
/// said, and nothing is collected until that is mended: nobody knows what is not wanted. Scrub is told of the manifest, and
/// puts it aside if it is damaged, so that the package brings it when it comes again.
pub fn derive_contents(store: &Store, catalog: &Catalog) -> Result<usize, catalog::Error> {
    let unknown = catalog.list_without_content();
    if unknown.is_empty() {
        return Ok(0);
    }
    let mut left = 0;
    for digest in &unknown {
        let Some(package) = catalog.find_package(digest)? else {
            continue;
        };
        match content_of(store, &package) {
            Ok(content) => catalog.put_content(digest, &content)?,
            Err(error) => {
                left += 1;
                if let TreeError::Read { digest, source } = &error {
                    store.suspect_after(*digest, source);
                }
                tracing::error!(
                    package = %package.name,
                    %digest,
                    reason = %Chain(&error),
                    "what a package keeps is not known, and nothing is collected until it comes again or is removed"
                );
            }
        }
    }
    let packages = unknown.len() - left;
    tracing::info!(packages, "wrote down what packages keep in the store");
    Ok(left)
}

/// Returns what the images of a package consist of, and what it holds besides.
fn content_of(store: &Store, package: &PackageRecord) -> Result<Content, TreeError<store::Error>> {
    let mut content: BTreeMap<Digest, u64> = package.blobs.clone();
    for image in &package.images {
        // Several names may stand for one image.
        if content.contains_key(&image.digest) {
            continue;
        }
        let root = Descriptor {
            media_type: image.media_type.clone(),
            digest: image.digest,
            size_bytes: image.size_bytes,
        };
        let tree = Tree::read(&root, |manifest| {
            if package.omitted.contains(&manifest.digest) {
                return Ok(None);
            }
            store.read(&manifest.digest, MANIFEST_BYTES_MAX).map(Some)
        })?;
        let manifests = tree.manifests.iter();
        let blobs = tree.blobs.iter().map(|blob| &blob.descriptor);
        content.extend(manifests.chain(blobs).map(|it| (it.digest, it.size_bytes)));
    }
    Ok(content.into_iter().collect())
}

#[cfg(test)]
mod tests;
