//! What must be known of an OCI manifest in order to move it: its kind and its children.
//!
//! Manifests are stored and sent byte for byte; nothing here is ever encoded again. Reading is lenient where the
//! specifications are (unknown fields, unknown media types) and strict where safety depends on it: digests, sizes, and
//! whatever another reader would take for another document (keys that come twice, or that differ from ours by case).
//!
//! # References
//!
//! OCI image-spec v1.1.0 `manifest.md`, `image-index.md`, `descriptor.md`; Docker image manifest version 2, schema 2.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::json_keys::{self, Lookalike, Object};
use super::{Digest, Platform};

/// The largest manifest, in bytes: what registries accept at least (OCI distribution-spec v1.1.0, "Pushing Manifests").
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// Media type of an OCI image index.
pub const MEDIA_TYPE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI image manifest.
pub const MEDIA_TYPE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of a Docker manifest list.
pub const MEDIA_TYPE_DOCKER_LIST: &str =
    "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of a Docker image manifest, schema 2.
pub const MEDIA_TYPE_DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of an OCI image configuration.
pub const MEDIA_TYPE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a Docker image configuration.
pub const MEDIA_TYPE_DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Media types of layers that are fetched from elsewhere (OCI image-spec v1.1.0, `layer.md`, "Non-Distributable Layers";
/// Docker image manifest version 2, schema 2).
const MEDIA_TYPES_FOREIGN: [&str; 4] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// Annotation of an index entry that names the image (OCI image-spec v1.1.0, `annotations.md`).
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation by which containerd and its tools name an image in full.
pub const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";

/// A pointer to content: what it is, how large it is, what it hashes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Descriptor {
    /// Media type of the content.
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content, in bytes.
    #[serde(rename = "size")]
    pub size_bytes: u64,
}

impl Descriptor {
    /// Returns the pointer to `content`, which is of this media type.
    #[must_use]
    pub fn of(media_type: &str, content: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(content),
            size_bytes: content.len() as u64,
        }
    }
}

/// One entry of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The manifest pointed to.
    pub descriptor: Descriptor,
    /// What it runs on, where the entry says.
    pub platform: Option<Platform>,
    /// Name of the image, from [`ANNOTATION_IMAGE_NAME`], else [`ANNOTATION_REF_NAME`].
    pub name: Option<String>,
}

/// A manifest, as far as moving it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// One image or artifact: its configuration and layers.
    Image {
        /// The configuration blob.
        config: Descriptor,
        /// The layers, base first.
        layers: Vec<Layer>,
        /// What it is about.
        relation: Relation,
    },
    /// A list of manifests.
    Index {
        /// The entries in their order.
        entries: Vec<IndexEntry>,
        /// What it is about.
        relation: Relation,
    },
}

/// What makes a manifest a referrer of another one: a signature, an attestation, a bill of materials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relation {
    /// The manifest that it is about. It may be absent wherever this one is (OCI image-spec v1.1.0, `manifest.md`).
    pub subject: Option<Descriptor>,
    /// What it is, where the manifest says so itself.
    pub artifact_type: Option<String>,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The blob pointed to.
    pub descriptor: Descriptor,
    /// Whether the content is fetched from elsewhere and need not be moved: its media type says so and `urls` says from
    /// where. On any other layer `urls` only names further copies.
    pub is_foreign: bool,
}

/// Why bytes are not a manifest that can be moved.
#[derive(Debug, Error)]
pub enum ParseManifestError {
    /// Not JSON, or a required field is absent or malformed.
    #[error("expected a manifest in JSON")]
    Json(#[from] serde_json::Error),
    /// Neither `manifests` nor `config` and `layers`.
    #[error("expected `manifests` or `config` and `layers`")]
    Shape,
    /// Both `manifests` and `layers`: a document that two readers understand differently (CVE-2021-41190).
    #[error("expected either `manifests` or `layers`, found both")]
    Ambiguous,
    /// The document names one media type and has the shape of another.
    #[error("expected the shape of {0}")]
    MediaType(String),
    /// A key that readers which do not look at case take for another one: they see another document.
    #[error("expected key `{known}`, found `{found}`, which some readers take for it")]
    KeyCase {
        /// The key that it is taken for.
        known: &'static str,
        /// The key, with control characters written out.
        found: String,
    },
    /// Docker's old format, which cannot be moved byte for byte.
    #[error("expected schema version 2, found {0}")]
    SchemaVersion(u64),
}

/// The keys of manifests that mean something (OCI image-spec v1.1.0 `manifest.md`, `image-index.md`; Docker has a part of
/// them).
static MANIFEST: Object = Object {
    keys: &[
        ("schemaVersion", None),
        ("mediaType", None),
        ("artifactType", None),
        ("config", Some(&DESCRIPTOR)),
        ("layers", Some(&DESCRIPTOR)),
        ("manifests", Some(&DESCRIPTOR)),
        ("subject", Some(&DESCRIPTOR)),
        ("annotations", None),
    ],
};
/// Those of descriptors (OCI image-spec v1.1.0 `descriptor.md`).
static DESCRIPTOR: Object = Object {
    keys: &[
        ("mediaType", None),
        ("digest", None),
        ("size", None),
        ("urls", None),
        ("annotations", None),
        ("data", None),
        ("artifactType", None),
        ("platform", Some(&PLATFORM)),
    ],
};
/// Those of platforms (OCI image-spec v1.1.0 `image-index.md`, property `platform`).
static PLATFORM: Object = Object {
    keys: &[
        ("os", None),
        ("os.version", None),
        ("os.features", None),
        ("architecture", None),
        ("variant", None),
        ("features", None),
    ],
};

/// The fields of every manifest format that are looked at.
#[derive(Deserialize)]
struct RawManifest {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u64>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<RawLayer>>,
    manifests: Option<Vec<RawEntry>>,
    subject: Option<Descriptor>,
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
}

#[derive(Deserialize)]
struct RawLayer {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(default)]
    urls: Vec<String>,
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(flatten)]
    descriptor: Descriptor,
    platform: Option<RawPlatform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Manifest {
    /// Reads a manifest of any known format.
    ///
    /// Returns it with its media type: the one it names, otherwise the OCI one for its shape.
    pub fn parse(bytes: &[u8]) -> Result<(Self, String), ParseManifestError> {
        let raw: RawManifest = serde_json::from_slice(bytes)?;
        if let Some(Lookalike { known, found }) = json_keys::find_lookalike(bytes, &MANIFEST)? {
            let found = found.escape_debug().to_string();
            return Err(ParseManifestError::KeyCase { known, found });
        }
        if let Some(version) = raw.schema_version.filter(|version| *version != 2) {
            return Err(ParseManifestError::SchemaVersion(version));
        }
        let relation = Relation {
            subject: raw.subject,
            artifact_type: raw.artifact_type,
        };
        let manifest = match (raw.manifests, raw.config, raw.layers) {
            (Some(_), _, Some(_)) => return Err(ParseManifestError::Ambiguous),
            (Some(entries), _, None) => Self::Index {
                entries: entries.into_iter().map(IndexEntry::from).collect(),
                relation,
            },
            (None, Some(config), Some(layers)) => Self::Image {
                config,
                layers: layers.into_iter().map(Layer::from).collect(),
                relation,
            },
            (None, _, _) => return Err(ParseManifestError::Shape),
        };
        let media_type = match raw.media_type {
            Some(media_type) => {
                manifest.check_media_type(&media_type)?;
                media_type
            }
            None => manifest.default_media_type().to_owned(),
        };
        Ok((manifest, media_type))
    }

    /// Returns the manifests that this one points to.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        let entries: &[IndexEntry] = match self {
            Self::Image { .. } => &[],
            Self::Index { entries, .. } => entries,
        };
        entries.iter().map(|entry| &entry.descriptor)
    }

    /// Returns the blobs that this manifest points to: configuration, then layers, without foreign ones.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let config = match self {
            Self::Image { config, .. } => Some(config),
            Self::Index { .. } => None,
        };
        let layers = self.layers().iter().filter(|layer| !layer.is_foreign);
        config
            .into_iter()
            .chain(layers.map(|layer| &layer.descriptor))
    }

    /// Returns the foreign layers that this manifest points to: they may be there, and need not be.
    pub fn foreign_layers(&self) -> impl Iterator<Item = &Descriptor> {
        let layers = self.layers().iter().filter(|layer| layer.is_foreign);
        layers.map(|layer| &layer.descriptor)
    }

    fn layers(&self) -> &[Layer] {
        match self {
            Self::Image { layers, .. } => layers,
            Self::Index { .. } => &[],
        }
    }

    /// Returns the manifest that this one is about, if it is a referrer.
    pub const fn subject(&self) -> Option<&Descriptor> {
        self.relation().subject.as_ref()
    }

    /// Returns what kind of artifact it is: what it says itself, else the media type of its configuration (OCI
    /// distribution-spec v1.1.0, "Listing Referrers").
    pub fn artifact_type(&self) -> Option<&str> {
        let own = self.relation().artifact_type.as_deref();
        let own = own.filter(|text| !text.is_empty());
        match self {
            Self::Image { config, .. } => own.or(Some(&config.media_type)),
            Self::Index { .. } => own,
        }
    }

    const fn relation(&self) -> &Relation {
        match self {
            Self::Image { relation, .. } | Self::Index { relation, .. } => relation,
        }
    }

    const fn default_media_type(&self) -> &'static str {
        match self {
            Self::Image { .. } => MEDIA_TYPE_MANIFEST,
            Self::Index { .. } => MEDIA_TYPE_INDEX,
        }
    }

    fn check_media_type(&self, media_type: &str) -> Result<(), ParseManifestError> {
        let is_contradiction = match self {
            Self::Image { .. } => matches!(media_type, MEDIA_TYPE_INDEX | MEDIA_TYPE_DOCKER_LIST),
            Self::Index { .. } => {
                matches!(media_type, MEDIA_TYPE_MANIFEST | MEDIA_TYPE_DOCKER_MANIFEST)
            }
        };
        if is_contradiction {
            return Err(ParseManifestError::MediaType(media_type.to_owned()));
        }
        Ok(())
    }
}

impl From<RawLayer> for Layer {
    fn from(raw: RawLayer) -> Self {
        let media_type = raw.descriptor.media_type.as_str();
        let is_foreign = !raw.urls.is_empty() && MEDIA_TYPES_FOREIGN.contains(&media_type);
        Self {
            is_foreign,
            descriptor: raw.descriptor,
        }
    }
}

impl From<RawEntry> for IndexEntry {
    fn from(mut raw: RawEntry) -> Self {
        let name = raw
            .annotations
            .remove(ANNOTATION_IMAGE_NAME)
            .or_else(|| raw.annotations.remove(ANNOTATION_REF_NAME));
        let platform = raw.platform.and_then(|platform| {
            Platform::from_parts(
                &platform.os,
                &platform.architecture,
                platform.variant.as_deref(),
            )
            .ok()
        });
        Self {
            descriptor: raw.descriptor,
            platform,
            name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{EMPTY}","size":0}}"#)
    }

    #[test]
    fn image_lists_configuration_then_layers_without_foreign_ones() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{},
               {{"mediaType":"{foreign}","digest":"{EMPTY}","size":9,"urls":["http://x"]}},
               {{"mediaType":"{foreign}","digest":"{EMPTY}","size":9}},
               {{"mediaType":"m","digest":"{EMPTY}","size":9,"urls":["http://x"]}}]}}"#,
            descriptor("c"),
            descriptor("l"),
            foreign = MEDIA_TYPES_FOREIGN[3],
        );
        let (manifest, media_type) = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(media_type, MEDIA_TYPE_MANIFEST);
        let kinds: Vec<&str> = manifest
            .blobs()
            .map(|blob| blob.media_type.as_str())
            .collect();
        assert_eq!(kinds, ["c", "l", MEDIA_TYPES_FOREIGN[3], "m"]);
        assert_eq!(manifest.foreign_layers().count(), 1);
    }

    #[test]
    fn index_lists_its_manifests_with_platform_and_name() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MEDIA_TYPE_INDEX}","manifests":[
               {{"mediaType":"m","digest":"{EMPTY}","size":1,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}},
                 "annotations":{{"{ANNOTATION_REF_NAME}":"v1"}}}}]}}"#
        );
        let (manifest, media_type) = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(media_type, MEDIA_TYPE_INDEX);
        let Manifest::Index { entries, .. } = manifest else {
            panic!("expected an index");
        };
        assert_eq!(
            entries[0].platform.as_ref().unwrap().as_str(),
            "linux/arm/v7"
        );
        assert_eq!(entries[0].name.as_deref(), Some("v1"));
    }

    #[test]
    fn referrers_name_their_subject_and_what_they_are() {
        let config = descriptor("application/vnd.oci.empty.v1+json");
        let subject = descriptor(MEDIA_TYPE_MANIFEST);
        let parse = |rest: &str| Manifest::parse(format!("{{{rest}}}").as_bytes());
        let image = format!(r#""config":{config},"layers":[]"#);
        let (plain, _) = parse(&image).unwrap();
        assert_eq!(plain.subject(), None);
        assert_eq!(
            plain.artifact_type(),
            Some("application/vnd.oci.empty.v1+json")
        );
        let typed = format!(r#"{image},"subject":{subject},"artifactType":"text/spdx""#);
        let (typed, _) = parse(&typed).unwrap();
        assert_eq!(typed.subject().unwrap().digest.to_string(), EMPTY);
        assert_eq!(typed.artifact_type(), Some("text/spdx"));
        let index = format!(r#""manifests":[],"subject":{subject}"#);
        let (index, _) = parse(&index).unwrap();
        assert!(index.subject().is_some());
        assert_eq!(index.artifact_type(), None);
        let wrong = format!(r#"{image},"subject":{{"digest":"latest"}}"#);
        assert!(matches!(parse(&wrong), Err(ParseManifestError::Json(_))));
    }

    #[test]
    fn keys_that_come_twice_or_in_another_case_are_refused_wherever_they_mean_something() {
        let plain = descriptor("m");
        let image = format!(r#"{{"config":{plain},"layers":[{plain}],"subject":{plain}}}"#);
        let platform = r#""platform":{"os":"linux","architecture":"arm64"}"#;
        let entry = plain.replacen('{', &format!("{{{platform},"), 1);
        let index = format!(r#"{{"manifests":[{entry}],"annotations":{{"Digest":"x"}}}}"#);
        for text in [&image, &index] {
            Manifest::parse(text.as_bytes()).unwrap();
        }
        let keys = |text: &str| -> Vec<String> {
            let mut parts = text
                .split('"')
                .skip(1)
                .step_by(2)
                .zip(text.split('"').skip(2).step_by(2));
            let mut keys = Vec::new();
            for (name, rest) in &mut parts {
                if rest.starts_with(':') && name != "Digest" && name != "annotations" {
                    keys.push(format!("\"{name}\":"));
                }
            }
            keys
        };
        for text in [&image, &index] {
            for key in keys(text) {
                let (before, after) = text.split_once(&key).unwrap();
                let twice = format!("{before}{key}null,{key}{after}");
                let is_refused = Manifest::parse(twice.as_bytes()).is_err();
                assert!(is_refused, "{twice}");
                let upper = key.to_uppercase();
                let other = format!("{before}{upper}null,{key}{after}");
                assert!(
                    matches!(
                        Manifest::parse(other.as_bytes()),
                        Err(ParseManifestError::KeyCase { .. })
                    ),
                    "{other}"
                );
            }
        }
        let error = Manifest::parse(image.replace("subject", "Subject").as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected key `subject`, found `Subject`, which some readers take for it"
        );
    }

    #[test]
    fn documents_that_two_readers_understand_differently_are_refused() {
        let both = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}}"#,
            descriptor("c")
        );
        assert!(matches!(
            Manifest::parse(both.as_bytes()),
            Err(ParseManifestError::Ambiguous)
        ));
        let contradiction = format!(r#"{{"mediaType":"{MEDIA_TYPE_MANIFEST}","manifests":[]}}"#);
        assert!(matches!(
            Manifest::parse(contradiction.as_bytes()),
            Err(ParseManifestError::MediaType(_))
        ));
        assert!(matches!(
            Manifest::parse(br#"{"schemaVersion":1}"#),
            Err(ParseManifestError::SchemaVersion(1))
        ));
        assert!(matches!(
            Manifest::parse(b"{}"),
            Err(ParseManifestError::Shape)
        ));
        assert!(matches!(
            Manifest::parse(b"no"),
            Err(ParseManifestError::Json(_))
        ));
    }
}
