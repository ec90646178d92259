//! What a package is: its type, name and version, put together from all that says something about it.
//!
//! Of several that speak, the first in this order is right: the package manifest, the `ModulePlugin` among its resources,
//! what its main image says of itself, the names of its images.

use serde_json::Value;

use super::closure::Found;
use super::describe::Described;
use super::images::Image;
use super::layout;
use super::manifest::Manifest;
use crate::base::{ImageReference, PackageKind, PackageName};

/// Where a `ModulePlugin` has its name for people: a JSON object by language, or plain text.
const ANNOTATION_DISPLAY_NAME: &str = "cpaas.io/display-name";

/// What a package is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) kind: PackageKind,
    pub(super) name: Option<PackageName>,
    pub(super) version: Option<String>,
    pub(super) display_name: Option<String>,
    pub(super) artifact: Option<ImageReference>,
}

/// All that says something about what a package is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources<'a> {
    pub(super) manifest: Option<&'a Manifest>,
    pub(super) resources: &'a [Value],
    pub(super) described: &'a Described,
    pub(super) found: &'a Found,
}

impl Sources<'_> {
    /// Puts together what they say.
    pub(super) fn identify(&self) -> Identity {
        let manifest = self.manifest;
        let description = self.described.description.as_ref();
        let version = manifest.and_then(|manifest| manifest.version.clone());
        let display_name = manifest.and_then(|manifest| manifest.display_name.clone());
        Identity {
            kind: self.kind(),
            name: self.name(),
            version: version.or_else(|| description?.version().map(str::to_owned)),
            display_name: display_name
                .or_else(|| find_plugin(self.resources).and_then(plugin_display_name))
                .or_else(|| description?.display_name().map(str::to_owned)),
            artifact: self.artifact().cloned(),
        }
    }

    fn artifact(&self) -> Option<&ImageReference> {
        let named = self.manifest.and_then(|it| it.artifact.as_ref());
        let main = self.described.main.as_ref();
        named.or_else(|| main.map(|image| &image.reference))
    }

    fn kind(&self) -> PackageKind {
        if let Some(kind) = self.manifest.and_then(|it| it.kind) {
            return kind;
        }
        if find_plugin(self.resources).is_some() {
            return PackageKind::Plugin;
        }
        let main = self.described.main.as_ref();
        match self.artifact() {
            Some(_) if main.is_some_and(|it| self.found.charts.contains(&it.descriptor.digest)) => {
                PackageKind::Chart
            }
            Some(_) => PackageKind::Operator,
            None => PackageKind::Images,
        }
    }

    fn name(&self) -> Option<PackageName> {
        let manifest = self.manifest.and_then(|manifest| manifest.name.clone());
        let plugin = || {
            find_plugin(self.resources)?["metadata"]["name"]
                .as_str()?
                .parse()
                .ok()
        };
        let description = || self.described.description.as_ref()?.name()?.parse().ok();
        let artifact = || {
            let last = layout::file_name_of(self.artifact()?.repository().as_str());
            last.strip_suffix("-bundle").unwrap_or(last).parse().ok()
        };
        manifest
            .or_else(plugin)
            .or_else(description)
            .or_else(artifact)
    }
}

/// Returns the image that `wanted` means.
pub(super) fn find_image<'i>(wanted: &ImageReference, images: &'i [Image]) -> Option<&'i Image> {
    images.iter().find(|image| {
        let digest = image.descriptor.digest;
        match wanted.digest() {
            Some(wanted) => *wanted == digest,
            None => {
                image.reference.repository() == wanted.repository()
                    && image.reference.tag() == wanted.tag()
            }
        }
    })
}

/// Returns the document that makes a package a plugin.
pub(super) fn find_plugin(resources: &[Value]) -> Option<&Value> {
    resources
        .iter()
        .find(|document| document["kind"] == "ModulePlugin")
}

/// Returns the name for people, in English where there are several.
fn plugin_display_name(plugin: &Value) -> Option<String> {
    let text = plugin["metadata"]["annotations"][ANNOTATION_DISPLAY_NAME].as_str()?;
    let name = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(names)) => names.get("en")?.as_str()?.to_owned(),
        Ok(_) | Err(_) => text.to_owned(),
    };
    Some(name).filter(|name| !name.is_empty())
}
