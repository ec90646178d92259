//! Images of a docker-archive, as `docker save`, `podman save` and `skopeo copy ... docker-archive:` write it.
//!
//! A docker-archive has configurations and layers, but no manifests. Each image gets one here: an OCI manifest of the
//! configuration, whose digest stays what it is, and of the layers as they are, compressed or not. It holds nothing else, so the
//! same image always gets the same manifest. That the layers are those of the image is known from the configuration, which
//! names the digest of each ([`Error::DiffId`]).
//!
//! ```text
//! manifest.json               [{"Config": "<hex>.json", "RepoTags": ["docker.io/team/app:v1"], "Layers": ["<hex>.tar"]}]
//! <hex>.json                  the configuration
//! <hex>.tar                   a layer
//! <hex>.tar.gz                a layer, compressed by gzip (`crane`, `kaniko`)
//! <id>/layer.tar              a layer, or a symbolic link to one
//! <id>/VERSION, <id>/json, repositories        for docker before 1.10; skipped
//! ```
//!
//! Symbolic links are read here and nowhere else: below a `manifest.json`, from one layer to the file of another.
//!
//! # References
//!
//! Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format"; OCI image-spec v1.1.0 `config.md`,
//! property `rootfs.diff_ids`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::json;

use super::archive::{Budget, FileEntry, NAME_OVERHEAD_BYTES};
use super::header::show;
use super::images::{self, MetadataFile, Root, RootName, Target};
use super::layout::{self, Metadata, Role, folder_of};
use super::manifest::Manifest;
use super::receive::give;
use super::unpack_error::Outcome;
use super::{Error, Limits, Sink, UnpackError};
use crate::base::oci::{Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST};
use crate::base::{Digest, ImageReference};

/// Media types of layers, uncompressed and compressed (OCI image-spec v1.1.0, `layer.md`).
const MEDIA_TYPE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MEDIA_TYPE_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Files that may belong to a docker-archive, by path.
#[derive(Debug, Default)]
pub(super) struct DockerFiles {
    stored: BTreeMap<String, Stored>,
    links: BTreeMap<String, String>,
}

/// A file that was received as a blob.
#[derive(Clone, Copy, Debug)]
struct Stored {
    digest: Digest,
    size_bytes: u64,
    /// Digest of what is in it, if it is compressed.
    content: Option<Digest>,
}

impl DockerFiles {
    /// Takes note of a file that was received; `content` is the digest of what is in it, if it is compressed.
    pub(super) fn add(
        &mut self,
        file: FileEntry,
        digest: Digest,
        content: Option<Digest>,
        budget: &mut Budget,
    ) -> Result<(), Error> {
        let FileEntry { path, size_bytes } = file;
        budget.charge(path.len() as u64 + NAME_OVERHEAD_BYTES)?;
        let stored = Stored {
            digest,
            size_bytes,
            content,
        };
        self.stored.insert(path, stored);
        Ok(())
    }

    /// Takes note of a symbolic link; one that cannot be a link between layers is refused.
    pub(super) fn add_link(
        &mut self,
        path: String,
        target: &str,
        budget: &mut Budget,
    ) -> Result<(), Error> {
        let resolved = resolve(folder_of(&path), target)
            .filter(|_| layout::classify(&path).is_ok_and(|role| role == Role::DockerFile))
            .ok_or_else(|| refuse(&path))?;
        budget.charge((path.len() + resolved.len()) as u64 + NAME_OVERHEAD_BYTES)?;
        self.links.insert(path, resolved);
        Ok(())
    }

    /// Lists the files that were received.
    pub(super) fn list_blobs(&self) -> impl Iterator<Item = Digest> {
        self.stored.values().map(|stored| stored.digest)
    }

    /// Returns whether there are symbolic links.
    pub(super) fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// Refuses links that lie below no docker-archive, and those that lead to no file of the archive.
    fn check_links(&self, lists: &[(&MetadataFile, Vec<Item>)]) -> Result<(), Error> {
        for (path, target) in &self.links {
            let is_below = |(list, _): &(&MetadataFile, Vec<Item>)| {
                let folder = folder_of(&list.path);
                let is_inside = |path: &str| {
                    folder.is_empty()
                        || path
                            .strip_prefix(folder)
                            .is_some_and(|rest| rest.starts_with('/'))
                };
                is_inside(path) && is_inside(target)
            };
            if !lists.iter().any(is_below) || !self.stored.contains_key(target) {
                return Err(refuse(path));
            }
        }
        Ok(())
    }

    fn find(&self, path: &str) -> Option<Stored> {
        let path = self.links.get(path).map_or(path, String::as_str);
        self.stored.get(path).copied()
    }
}

fn refuse(path: &str) -> Error {
    Error::SymbolicLink {
        entry: show(path.as_bytes()),
    }
}

/// Returns where a path in `folder` leads, if it stays below the root.
fn resolve(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" => return None,
            "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// One image of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    /// Null where there are none.
    layers: Option<Vec<String>>,
}

impl Item {
    /// Returns how many texts it consists of.
    fn count_names(&self) -> u64 {
        let lengths =
            [&self.repo_tags, &self.layers].map(|names| names.as_ref().map_or(0, Vec::len));
        1 + lengths.iter().sum::<usize>() as u64
    }
}

/// The part of a configuration that says what its layers are.
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<Digest>>,
}

/// Returns whether `content` is the list of a docker-archive.
pub(super) fn is_list(content: &[u8]) -> bool {
    serde_json::from_slice::<Vec<Item>>(content).is_ok_and(|items| !items.is_empty())
}

/// What turning docker-archives into images needs.
pub(super) struct Converter<'a, S> {
    pub(super) sink: &'a mut S,
    pub(super) received: &'a mut BTreeSet<Digest>,
    pub(super) limits: &'a Limits,
    pub(super) budget: &'a mut Budget,
}

impl<S: Sink> Converter<'_, S> {
    /// Adds the images of all docker-archives among `files` to `roots` and gives their manifests to the sink.
    ///
    /// Where an OCI layout lies in the same folder, as newer versions of docker write it, that one counts.
    pub(super) fn convert(
        &mut self,
        files: &[MetadataFile],
        docker: &DockerFiles,
        manifest: Option<&Manifest>,
        roots: &mut Vec<Root>,
    ) -> Outcome<(), S> {
        let layouts: BTreeSet<&str> = files
            .iter()
            .filter(|file| file.kind == Metadata::LayoutMark)
            .map(|file| folder_of(&file.path))
            .collect();
        let mut lists: Vec<(&MetadataFile, Vec<Item>)> = Vec::new();
        for file in files {
            if file.kind == Metadata::DockerArchive
                // A `manifest.json` of another shape is some other file.
                && let Ok(items) = serde_json::from_slice::<Vec<Item>>(&file.content)
            {
                let names = items.iter().map(Item::count_names).sum::<u64>();
                self.budget.charge(names * NAME_OVERHEAD_BYTES)?;
                lists.push((file, items));
            }
        }
        docker.check_links(&lists)?;
        for (file, items) in lists {
            if layouts.contains(folder_of(&file.path)) {
                continue;
            }
            for item in &items {
                let descriptor = self.convert_item(file, item, docker)?;
                let names = match item.repo_tags.as_deref() {
                    Some(tags) if !tags.is_empty() => parse_tags(file, tags)?,
                    Some(_) | None => vec![find_name(manifest, &descriptor, &items)],
                };
                roots.extend(names.into_iter().map(|name| Root {
                    entry: show(file.path.as_bytes()),
                    name,
                    target: Target::Descriptor(descriptor.clone()),
                }));
                images::check_count(roots, self.limits)?;
            }
        }
        Ok(())
    }

    /// Makes the manifest of one image.
    fn convert_item(
        &mut self,
        list: &MetadataFile,
        item: &Item,
        docker: &DockerFiles,
    ) -> Outcome<Descriptor, S> {
        let config = self.find(list, &item.config, docker)?;
        let diff_ids = self.read_diff_ids(&item.config, config)?;
        let names = item.layers.as_deref().unwrap_or_default();
        if diff_ids.len() != names.len() {
            return Err(UnpackError::Package(Error::LayerCount {
                entry: show(list.path.as_bytes()),
                config: show(item.config.as_bytes()),
                expected: diff_ids.len(),
                found: names.len(),
            }));
        }
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (expected, name) in diff_ids.into_iter().zip(names) {
            let layer = self.find(list, name, docker)?;
            let content = layer.content.unwrap_or(layer.digest);
            if content != expected {
                return Err(UnpackError::Package(Error::DiffId {
                    entry: show(name.as_bytes()),
                    expected,
                    found: content,
                }));
            }
            layers.push(layer.describe(match layer.content {
                Some(_) => MEDIA_TYPE_LAYER_GZIP,
                None => MEDIA_TYPE_LAYER,
            }));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE_MANIFEST,
            "config": config.describe(MEDIA_TYPE_CONFIG),
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = give(self.sink, self.received, &manifest)?;
        Ok(Descriptor {
            media_type: MEDIA_TYPE_MANIFEST.to_owned(),
            digest,
            size_bytes: manifest.len() as u64,
        })
    }

    /// Returns the file that the list calls `name`: one of its own, or a blob by its digest.
    fn find(&self, list: &MetadataFile, name: &str, docker: &DockerFiles) -> Outcome<Stored, S> {
        let path = resolve(folder_of(&list.path), name);
        let stored = path.as_deref().and_then(|path| docker.find(path));
        let stored = match (stored, path.map(|path| layout::classify(&path))) {
            (Some(stored), _) => Some(stored),
            (None, Some(Ok(Role::Blob(digest)))) => self
                .sink
                .find(&digest)
                .map_err(UnpackError::Sink)?
                .map(|size_bytes| Stored {
                    digest,
                    size_bytes,
                    content: None,
                }),
            (None, _) => None,
        };
        stored.ok_or_else(|| {
            UnpackError::Package(Error::DockerFileAbsent {
                entry: show(list.path.as_bytes()),
                file: show(name.as_bytes()),
            })
        })
    }

    fn read_diff_ids(&mut self, name: &str, config: Stored) -> Outcome<Vec<Digest>, S> {
        let limit_bytes = self.limits.manifest_bytes_max;
        let entry = show(name.as_bytes());
        if config.size_bytes > limit_bytes {
            return Err(UnpackError::Package(Error::ConfigTooLarge {
                entry,
                size_bytes: config.size_bytes,
                limit_bytes,
            }));
        }
        self.budget.charge(config.size_bytes)?;
        let content = self
            .sink
            .read(&config.digest, limit_bytes)
            .map_err(UnpackError::Sink)?;
        let config: Config = serde_json::from_slice(&content).map_err(|error| {
            UnpackError::Package(Error::MetadataInvalid {
                entry,
                reason: show(error.to_string().as_bytes()),
            })
        })?;
        Ok(config.rootfs.diff_ids.unwrap_or_default())
    }
}

impl Stored {
    fn describe(self, media_type: &str) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: self.digest,
            size_bytes: self.size_bytes,
        }
    }
}

fn parse_tags(list: &MetadataFile, tags: &[String]) -> Result<Vec<RootName>, Error> {
    let parse = |tag: &String| {
        tag.parse()
            .map(RootName::Known)
            .map_err(|source| Error::ImageName {
                entry: show(list.path.as_bytes()),
                name: show(tag.as_bytes()),
                source,
            })
    };
    tags.iter().map(parse).collect()
}

/// Returns the name that the package manifest has for an image without tags: the one that pins its digest, or the only
/// one for the only image.
fn find_name(manifest: Option<&Manifest>, descriptor: &Descriptor, items: &[Item]) -> RootName {
    let named: Vec<&ImageReference> = manifest.into_iter().flat_map(Manifest::images).collect();
    let pins = |image: &&&ImageReference| image.digest() == Some(&descriptor.digest);
    let name = match *named.as_slice() {
        [only] if items.len() == 1 && only.digest().is_none() => Some(only),
        _ => named.iter().find(pins).copied(),
    };
    name.map_or(RootName::Unknown, |name| RootName::Known(name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_below_the_root() {
        for (folder, target, path) in [
            ("a", "../b/layer.tar", Some("b/layer.tar")),
            ("x/a", "./../b.tar", Some("x/b.tar")),
            ("", "b.tar", Some("b.tar")),
            ("a", "../../b.tar", None),
            ("a", "/etc/passwd", None),
            ("a", "", None),
        ] {
            assert_eq!(
                resolve(folder, target).as_deref(),
                path,
                "{folder} {target}"
            );
        }
    }

    #[test]
    fn a_list_is_known_by_its_shape() {
        assert!(is_list(
            br#"[{"Config":"a.json","RepoTags":null,"Layers":[],"LayerSources":{}}]"#
        ));
        for other in ["[]", "{}", "[{}]", r#"{"manifests":[]}"#, "no"] {
            assert!(!is_list(other.as_bytes()), "{other}");
        }
    }
}
