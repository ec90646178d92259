//! What a file of the archive is, by its path.
//!
//! The layouts are recognised at the root and in any folder:
//!
//! ```text
//! [folder/]oci-layout                                                   OCI image layout
//! [folder/]index.json
//! [folder/]blobs/sha256/<hex>
//! [folder/]docker/registry/v2/blobs/sha256/<2 hex>/<hex>/data           registry tree
//! [folder/]docker/registry/v2/repositories/<repository>/_manifests/tags/<tag>/current/link
//! [folder/]docker/registry/v2/repositories/<repository>/_manifests/revisions/sha256/<hex>/link
//! [folder/]manifest.json                                                docker-archive
//! [folder/]<64 hex>.json, sha256:<64 hex>                               its configurations
//! [folder/]<64 hex>.tar, .../layer.tar                                  its layers
//! [folder/]<64 hex>.tar.gz                                              its layers, compressed
//! [folder/]manifest.yaml                                                package manifest
//! [folder/]moduleplugin.yaml, module-plugin.yaml, res/resources.yaml    Kubernetes resources
//! [folder/]*.tgz, *.tar.gz, *.tar, *.tar.zst                            archives, looked into
//! ```
//!
//! Which `.tar` or `.tar.gz` is a layer of a docker-archive and which an archive of its own must be known before the list of the
//! docker-archive was read: the list comes last in what docker and podman write. So the name decides: a layer is called
//! `layer.tar` or has a name of 64 hex characters, as all writers of docker-archives do; a package is not.
//!
//! # References
//!
//! OCI image-spec v1.1.0 `image-layout.md`; distribution 2.8 `registry/storage/paths.go`.

use super::Error;
use super::header::show;
use crate::base::{Digest, Repository, Tag};

/// What to do with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Content with this digest.
    Blob(Digest),
    /// A small file to be looked at when all have been read.
    Metadata(Metadata),
    /// Perhaps a configuration or layer of a docker-archive.
    DockerFile,
    /// Perhaps a compressed layer of a docker-archive.
    DockerLayer,
    /// Perhaps an archive, by its name.
    Archive,
    /// Nothing of interest: counted and skipped.
    Other,
}

/// A kind of small file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Metadata {
    /// Marks an OCI layout.
    LayoutMark,
    /// Index of an OCI layout.
    LayoutIndex,
    /// Where a tag of a registry tree points.
    TagLink { repository: Repository, tag: Tag },
    /// A manifest of a registry tree, with a tag or without.
    RevisionLink { digest: Digest },
    /// List of images in a docker-archive.
    DockerArchive,
    /// Perhaps a package manifest.
    PackageManifest,
    /// Documents for Kubernetes.
    Resources,
}

/// How names of archives end, those of packages among them; none is the end of another.
pub const ARCHIVE_ENDS: [&str; 4] = [".tgz", ".tar.gz", ".tar", ".tar.zst"];

/// The folder below which distribution keeps everything.
const REGISTRY_ROOT: [&str; 3] = ["docker", "registry", "v2"];

/// Returns the folder that holds `path`; empty for the root.
pub(super) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Returns the last component of `path`.
pub(super) fn file_name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Returns what the file at `path` is.
pub(super) fn classify(path: &str) -> Result<Role, Error> {
    let parts: Vec<&str> = path.split('/').collect();
    let registry = parts
        .windows(REGISTRY_ROOT.len())
        .position(|window| window == REGISTRY_ROOT);
    if let Some(start) = registry {
        return classify_registry(path, &parts[start + REGISTRY_ROOT.len()..]);
    }
    let role = match *parts.as_slice() {
        [.., "blobs", "sha256", hex] => Role::Blob(blob_digest(path, hex)?),
        [.., "oci-layout"] => Role::Metadata(Metadata::LayoutMark),
        [.., "index.json"] => Role::Metadata(Metadata::LayoutIndex),
        [.., "manifest.json"] => Role::Metadata(Metadata::DockerArchive),
        [.., "manifest.yaml"] => Role::Metadata(Metadata::PackageManifest),
        [.., "moduleplugin.yaml" | "module-plugin.yaml"] | [.., "res", "resources.yaml"] => {
            Role::Metadata(Metadata::Resources)
        }
        [.., name] if is_docker_file(name) => Role::DockerFile,
        [.., name] if is_docker_layer(name) => Role::DockerLayer,
        [.., name] if ARCHIVE_ENDS.iter().any(|end| name.ends_with(end)) => Role::Archive,
        _ => Role::Other,
    };
    Ok(role)
}

/// Returns whether a file is called like the layers and configurations of docker-archives.
fn is_docker_file(name: &str) -> bool {
    let hex = name
        .strip_suffix(".tar")
        .or_else(|| name.strip_suffix(".json"))
        .or_else(|| name.strip_prefix("sha256:"));
    name == "layer.tar" || hex.is_some_and(|hex| Digest::from_hex(hex).is_ok())
}

/// Returns whether a file is called like the compressed layers that `crane` and `kaniko` write.
fn is_docker_layer(name: &str) -> bool {
    let hex = name.strip_suffix(".tar.gz");
    hex.is_some_and(|hex| Digest::from_hex(hex).is_ok())
}

fn classify_registry(path: &str, parts: &[&str]) -> Result<Role, Error> {
    match parts {
        ["blobs", "sha256", shard, hex, "data"] => {
            let digest = blob_digest(path, hex)?;
            if !hex.starts_with(shard) || shard.len() != 2 {
                return Err(Error::BlobName {
                    entry: show(path.as_bytes()),
                });
            }
            Ok(Role::Blob(digest))
        }
        [
            "repositories",
            repository @ ..,
            "_manifests",
            "tags",
            tag,
            "current",
            "link",
        ] => {
            let names = (repository.join("/").parse(), tag.parse());
            let (Ok(repository), Ok(tag)) = names else {
                return Err(Error::TagLink {
                    entry: show(path.as_bytes()),
                });
            };
            Ok(Role::Metadata(Metadata::TagLink { repository, tag }))
        }
        [
            "repositories",
            ..,
            "_manifests",
            "revisions",
            "sha256",
            hex,
            "link",
        ] => match Digest::from_hex(hex) {
            Ok(digest) => Ok(Role::Metadata(Metadata::RevisionLink { digest })),
            Err(_) => Err(Error::RevisionLink {
                entry: show(path.as_bytes()),
            }),
        },
        _ => Ok(Role::Other),
    }
}

fn blob_digest(path: &str, hex: &str) -> Result<Digest, Error> {
    Digest::from_hex(hex).map_err(|_| Error::BlobName {
        entry: show(path.as_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_path_in_any_folder() {
        let hex = "ab".repeat(32);
        let digest = Digest::from_hex(&hex).unwrap();
        for folder in ["", "x/", "res/registry/"] {
            for (path, role) in [
                (format!("blobs/sha256/{hex}"), Role::Blob(digest)),
                (
                    format!("docker/registry/v2/blobs/sha256/ab/{hex}/data"),
                    Role::Blob(digest),
                ),
                (
                    "docker/registry/v2/repositories/a/b/_manifests/tags/v1/current/link"
                        .to_owned(),
                    Role::Metadata(Metadata::TagLink {
                        repository: "a/b".parse().unwrap(),
                        tag: "v1".parse().unwrap(),
                    }),
                ),
                (
                    format!("docker/registry/v2/repositories/a/_layers/sha256/{hex}/link"),
                    Role::Other,
                ),
                (
                    format!(
                        "docker/registry/v2/repositories/a/_manifests/revisions/sha256/{hex}/link"
                    ),
                    Role::Metadata(Metadata::RevisionLink { digest }),
                ),
                (
                    "index.json".to_owned(),
                    Role::Metadata(Metadata::LayoutIndex),
                ),
                ("setup.sh".to_owned(), Role::Other),
                (format!("{hex}.tar"), Role::DockerFile),
                (format!("{hex}.tar.gz"), Role::DockerLayer),
                (format!("{hex}.tgz"), Role::Archive),
                (format!("{hex}.json"), Role::DockerFile),
                (format!("sha256:{hex}"), Role::DockerFile),
                (format!("{hex}/layer.tar"), Role::DockerFile),
                (format!("{hex}/json"), Role::Other),
                ("redis-1.2.3.tgz".to_owned(), Role::Archive),
                ("redis.ALL.v1.tar.zst".to_owned(), Role::Archive),
                (format!("{}.tar", &hex[1..]), Role::Archive),
                ("blobs/sha512/00".to_owned(), Role::Other),
            ] {
                assert_eq!(
                    classify(&format!("{folder}{path}")).unwrap(),
                    role,
                    "{path}"
                );
            }
        }
    }

    #[test]
    fn impossible_names_are_refused() {
        let hex = "ab".repeat(32);
        for (path, code) in [
            ("blobs/sha256/README".to_owned(), "blob-name"),
            (format!("blobs/sha256/{}", hex.to_uppercase()), "blob-name"),
            (
                format!("docker/registry/v2/blobs/sha256/cd/{hex}/data"),
                "blob-name",
            ),
            (
                "docker/registry/v2/repositories/_manifests/tags/v1/current/link".to_owned(),
                "tag-link",
            ),
            (
                "docker/registry/v2/repositories/A/_manifests/tags/v1/current/link".to_owned(),
                "tag-link",
            ),
            (
                "docker/registry/v2/repositories/a/_manifests/revisions/sha256/x/link".to_owned(),
                "revision-link",
            ),
        ] {
            assert_eq!(classify(&path).unwrap_err().code(), code, "{path}");
        }
    }
}
