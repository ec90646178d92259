//! The package manifest: what a package is and which images belong to it.
//!
//! # Format
//!
//! ```yaml
//! kind: PackageManifest
//! metadata:
//!   name: redis-operator                # ours, optional
//! spec:
//!   type: operator                      # ours, optional: operator (or bundle), plugin, chart, images
//!   displayName: Redis                  # ours, optional
//!   version: v1.2.3
//!   artifact: registry.example/ops/redis-operator-bundle:v1.2.3
//!   catalogSource: platform             # ours, optional; this is the default
//!   platforms: [linux/amd64]            # ours, optional
//!   relatedImages:
//!   - registry.example/ops/redis-operator:v1.2.3
//!   expects:                            # ours, optional: what a delta builds on
//!   - digest: sha256:<64 hex>
//!     size: 29123456
//!   omitted:                            # ours, optional: what sparse indexes leave out
//!   - sha256:<64 hex>
//! ```
//!
//! Only `kind`, `spec.artifact`, `spec.relatedImages` and `spec.version` are known from violet; all but `kind` may be
//! absent or null. Unknown fields are tolerated, and ours are ignored where their shape is not ours: other tools may write
//! more, and mean something else. Where `expects` and `omitted` have our shape, every digest and size in them must be
//! right, because they decide what may be missing. YAML anchors are not tolerated, because they turn a small file into a
//! large one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Error;
use super::header::show;
use crate::base::{Digest, ImageReference, PackageKind, PackageName, Platform};

/// The catalog source of a package that names none.
pub const DEFAULT_CATALOG_SOURCE: &str = "platform";
/// The longest text that is shown to people, in bytes. They read a few words; chosen, not measured.
const TEXT_BYTES_MAX: usize = 1024;
/// What `kind` says.
const KIND: &str = "PackageManifest";

/// A package manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Name of the package.
    pub name: Option<PackageName>,
    /// Type of the package.
    pub kind: Option<PackageKind>,
    /// Name for people.
    pub display_name: Option<String>,
    /// Version of the package.
    pub version: Option<String>,
    /// The main image: operator bundle or chart.
    pub artifact: Option<ImageReference>,
    /// The catalog source under which the package is listed.
    pub catalog_source: String,
    /// What the package says it runs on.
    pub platforms: Vec<Platform>,
    /// All other images.
    pub related_images: Vec<ImageReference>,
    /// Blobs that the images need and that a delta package leaves out, because whoever gets it has them.
    pub expects: BTreeMap<Digest, u64>,
    /// Manifests that indexes name and that were left out on purpose.
    pub omitted: BTreeSet<Digest>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            name: None,
            kind: None,
            display_name: None,
            version: None,
            artifact: None,
            catalog_source: DEFAULT_CATALOG_SOURCE.to_owned(),
            platforms: Vec::new(),
            related_images: Vec::new(),
            expects: BTreeMap::new(),
            omitted: BTreeSet::new(),
        }
    }
}

/// The document, as it is read and written. Everything may be absent or null: that is how other writers say "none".
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Document {
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
    spec: Option<Spec>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// Fields of our own are taken as they come and used if they have our shape: in a package of another tool they may mean
/// something else.
#[derive(Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    catalog_source: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platforms: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    related_images: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expects: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<Value>,
}

/// Returns whether a text can be shown on a line of a terminal.
fn is_showable(text: &str) -> bool {
    text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

/// Returns a text that is there, not empty, and can be shown.
fn text_of(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) if !text.is_empty() && is_showable(&text) => Some(text),
        Some(_) | None => None,
    }
}

/// Returns the platforms, if the value is a list of such.
fn platforms_of(value: Option<Value>) -> Vec<Platform> {
    value
        .and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_default()
}

/// Returns the blobs that a delta builds on, if the value is a list of `{digest, size}`.
fn expects_of(value: Option<Value>) -> Result<BTreeMap<Digest, u64>, String> {
    let mut expects = BTreeMap::new();
    let items = list_of(value, |item| item.get("digest").is_some());
    for item in items {
        let digest = digest_of(&item["digest"])?;
        let size = item.get("size").unwrap_or(&Value::Null);
        let size_bytes = size.as_u64().ok_or_else(|| {
            format!(
                "expected the size in bytes of {digest}, found {}",
                shown(size)
            )
        })?;
        if expects.insert(digest, size_bytes).is_some() {
            return Err(format!(
                "expected each digest of `expects` once, found {digest} again"
            ));
        }
    }
    Ok(expects)
}

/// Returns the manifests that indexes name and that were left out, if the value is a list of texts.
fn omitted_of(value: Option<Value>) -> Result<BTreeSet<Digest>, String> {
    let items = list_of(value, Value::is_string);
    items.iter().map(digest_of).collect()
}

/// Returns the items of a list all of which have our shape; of anything else none.
fn list_of(value: Option<Value>, is_ours: impl Fn(&Value) -> bool) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) if items.iter().all(is_ours) => items,
        Some(_) | None => Vec::new(),
    }
}

fn digest_of(value: &Value) -> Result<Digest, String> {
    let digest = value.as_str().and_then(|text| text.parse().ok());
    digest.ok_or_else(|| {
        format!(
            "expected `sha256:` and 64 lowercase hex characters, found {}",
            shown(value)
        )
    })
}

/// Returns a value for a message.
fn shown(value: &Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    format!("`{}`", show(text.as_bytes()))
}

impl Manifest {
    /// Reads a package manifest. `entry` is its path in the archive, for error messages.
    pub fn parse(entry: &str, text: &[u8]) -> Result<Self, Error> {
        let document: Document = parse_document(entry, text)?;
        let invalid = |reason: String| Error::MetadataInvalid {
            entry: show(entry.as_bytes()),
            reason,
        };
        if document.kind.as_deref() != Some(KIND) {
            return Err(invalid(format!("expected kind `{KIND}`")));
        }
        let spec = document.spec.unwrap_or_default();
        if !spec.version.as_deref().is_none_or(is_showable) {
            return Err(invalid(format!(
                "expected a version of at most {TEXT_BYTES_MAX} bytes without control characters"
            )));
        }
        let name = document.metadata.and_then(|metadata| metadata.name);
        Ok(Self {
            name: parse_text(name, &invalid)?,
            kind: parse_text(text_of(spec.kind), &invalid)?,
            display_name: text_of(spec.display_name),
            version: spec.version.filter(|version| !version.is_empty()),
            artifact: parse_text(spec.artifact, &invalid)?,
            catalog_source: text_of(spec.catalog_source)
                .unwrap_or_else(|| DEFAULT_CATALOG_SOURCE.to_owned()),
            platforms: platforms_of(spec.platforms),
            related_images: spec
                .related_images
                .unwrap_or_default()
                .into_iter()
                .filter_map(|text| parse_text(Some(text), &invalid).transpose())
                .collect::<Result<_, _>>()?,
            expects: expects_of(spec.expects).map_err(&invalid)?,
            omitted: omitted_of(spec.omitted).map_err(&invalid)?,
        })
    }

    /// Returns the manifest as YAML; the same bytes for the same manifest. [`parse`](Self::parse) reads it back.
    pub fn encode(&self) -> String {
        let text = |text: &str| Value::String(text.to_owned());
        let related_images: Vec<String> = self
            .related_images
            .iter()
            .map(ImageReference::encode)
            .collect();
        let platforms: Vec<Value> = self.platforms.iter().map(|it| text(it.as_str())).collect();
        let catalog_source = (self.catalog_source != DEFAULT_CATALOG_SOURCE)
            .then(|| text(self.catalog_source.as_str()));
        let expects: Vec<Value> = self
            .expects
            .iter()
            .map(|(digest, size_bytes)| json!({"digest": digest, "size": size_bytes}))
            .collect();
        let omitted: Vec<Value> = self
            .omitted
            .iter()
            .map(|it| Value::String(it.to_string()))
            .collect();
        let document = Document {
            kind: Some(KIND.to_owned()),
            metadata: self.name.as_ref().map(|name| Metadata {
                name: Some(name.to_string()),
            }),
            spec: Some(Spec {
                kind: self.kind.map(|kind| text(kind.name())),
                display_name: self.display_name.as_deref().map(text),
                version: self.version.clone(),
                artifact: self.artifact.as_ref().map(ImageReference::encode),
                catalog_source,
                platforms: (!platforms.is_empty()).then_some(Value::Array(platforms)),
                related_images: (!related_images.is_empty()).then_some(related_images),
                expects: (!expects.is_empty()).then_some(Value::Array(expects)),
                omitted: (!omitted.is_empty()).then_some(Value::Array(omitted)),
            }),
        };
        // References are long, and nobody reads them better over two lines.
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        serde_saphyr::to_string_with_options(&document, options)
            .expect("a document of strings can be written as YAML")
    }

    /// Returns every image that the manifest names: the artifact, then the others.
    pub fn images(&self) -> impl Iterator<Item = &ImageReference> {
        self.artifact.iter().chain(&self.related_images)
    }
}

/// Parses a text that is there and not empty.
fn parse_text<T>(
    text: Option<String>,
    invalid: &impl Fn(String) -> Error,
) -> Result<Option<T>, Error>
where
    T: FromStr<Err: Display>,
{
    text.filter(|text| !text.is_empty())
        .map(|text| {
            text.parse()
                .map_err(|error| invalid(format!("{error}, found `{}`", show(text.as_bytes()))))
        })
        .transpose()
}

/// Returns whether `text` is YAML that calls itself a package manifest; fails if it is no YAML at all.
pub(super) fn is_package_manifest(entry: &str, text: &[u8]) -> Result<bool, Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Probe {
        kind: Option<String>,
    }
    let probe: Probe = parse_document(entry, text)?;
    Ok(probe.kind.as_deref() == Some(KIND))
}

/// Reads the documents of a file of Kubernetes resources. Empty documents are left out.
pub(super) fn parse_resources(entry: &str, text: &[u8]) -> Result<Vec<Value>, Error> {
    let documents: Vec<Value> = serde_saphyr::from_slice_multiple_with_options(text, options())
        .map_err(|error| yaml_error(entry, &error))?;
    let documents: Vec<_> = documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect();
    if documents
        .iter()
        .any(|document| document["kind"].as_str().is_none())
    {
        return Err(Error::MetadataInvalid {
            entry: show(entry.as_bytes()),
            reason: "expected `kind` in every document".to_owned(),
        });
    }
    Ok(documents)
}

pub(super) fn parse_document<T: DeserializeOwned>(entry: &str, text: &[u8]) -> Result<T, Error> {
    serde_saphyr::from_slice_with_options(text, options())
        .map_err(|error| yaml_error(entry, &error))
}

/// Strict enough for input from outside: no anchors, and the parser's own bounds on depth, nodes and documents.
pub(super) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_merge_keys: 0,
        },
        with_snippet: false,
    }
}

/// Keeps the parser's reason, on one line and bounded: it may quote the file.
fn yaml_error(entry: &str, error: &serde_saphyr::Error) -> Error {
    Error::MetadataInvalid {
        entry: show(entry.as_bytes()),
        reason: show(error.to_string().replace('\n', " ").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Manifest, Error> {
        Manifest::parse("manifest.yaml", text.as_bytes())
    }

    fn full() -> Manifest {
        Manifest {
            name: Some("redis-operator".parse().unwrap()),
            kind: Some(PackageKind::Operator),
            display_name: Some("Redis: the operator".to_owned()),
            version: Some("1.20".to_owned()),
            artifact: Some(
                "registry.example/ops/redis-operator-bundle:v1"
                    .parse()
                    .unwrap(),
            ),
            catalog_source: "custom".to_owned(),
            platforms: vec![
                "linux/amd64".parse().unwrap(),
                "linux/arm64".parse().unwrap(),
            ],
            related_images: vec![
                "registry.example/ops/redis:7".parse().unwrap(),
                "/3rdparty/exporter:v2".parse().unwrap(),
            ],
            ..Manifest::default()
        }
    }

    #[test]
    fn encoding_is_golden_and_round_trips() {
        let text = full().encode();
        insta::assert_snapshot!(text, @r#"
        kind: PackageManifest
        metadata:
          name: redis-operator
        spec:
          type: operator
          displayName: "Redis: the operator"
          version: "1.20"
          artifact: registry.example/ops/redis-operator-bundle:v1
          catalogSource: custom
          platforms:
          - linux/amd64
          - linux/arm64
          relatedImages:
          - registry.example/ops/redis:7
          - /3rdparty/exporter:v2
        "#);
        assert_eq!(parse(&text).unwrap(), full());
        assert_eq!(
            Manifest::default().encode(),
            "kind: PackageManifest\nspec: {}\n"
        );
    }

    #[test]
    fn what_may_be_missing_is_golden_and_round_trips() {
        let manifest = Manifest {
            expects: BTreeMap::from([(Digest::of(b"b"), 7), (Digest::of(b"a"), 8 << 30)]),
            omitted: BTreeSet::from([Digest::of(b"c")]),
            ..Manifest::default()
        };
        let text = manifest.encode();
        insta::assert_snapshot!(text, @r"
        kind: PackageManifest
        spec:
          expects:
          - digest: sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d
            size: 7
          - digest: sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
            size: 8589934592
          omitted:
          - sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6
        ");
        assert_eq!(parse(&text).unwrap(), manifest);
    }

    #[test]
    fn what_may_be_missing_is_read_to_the_letter() {
        let digest = Digest::of(b"a");
        let expects = |items: &str| {
            parse(&format!(
                "kind: PackageManifest\nspec: {{expects: {items}}}"
            ))
            .map(|manifest| manifest.expects.len())
        };
        assert_eq!(
            expects(&format!("[{{digest: '{digest}', size: 0}}]")).unwrap(),
            1
        );
        for not_ours in [
            "[]",
            "{a: b}",
            "[kubernetes]",
            "'>= 4.0'",
            "[{name: x, version: 1}]",
        ] {
            assert_eq!(expects(not_ours).unwrap(), 0, "input: {not_ours}");
        }
        for (wrong, reason) in [
            (format!("[{{digest: '{digest}'}}]"), "found `null`"),
            (format!("[{{digest: '{digest}', size: -1}}]"), "found `-1`"),
            (
                format!("[{{digest: '{digest}', size: 1.5}}]"),
                "found `1.5`",
            ),
            (
                format!("[{{digest: '{digest}', size: many}}]"),
                "found `many`",
            ),
            ("[{digest: 5, size: 1}]".to_owned(), "found `5`"),
            (
                format!("[{{digest: '{digest}', size: 1}}, {{digest: '{digest}', size: 1}}]"),
                "again",
            ),
        ] {
            let error = expects(&wrong).unwrap_err();
            assert_eq!(error.code(), "metadata-invalid", "input: {wrong}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn violets_manifest_is_read_and_unknown_fields_are_tolerated() {
        let manifest = parse(
            "apiVersion: x/v1\nkind: PackageManifest\nmetadata: {labels: {a: b}}\nspec:\n  type: bundle\n  \
             artifact: registry.example/a/b-bundle:v4.15.0\n  relatedImages:\n    - registry.example/library/busybox:latest\n  \
             version: 1.10\n  channels: [stable]\n",
        )
        .unwrap();
        assert_eq!(manifest.kind, Some(PackageKind::Operator));
        assert_eq!(manifest.version.as_deref(), Some("1.10"));
        assert_eq!(manifest.catalog_source, "platform");
        assert_eq!(manifest.images().count(), 2);
    }

    #[test]
    fn what_others_write_in_our_fields_is_ignored_and_null_means_none() {
        let manifest = parse(
            "kind: PackageManifest\nmetadata:\nspec:\n  type: {a: b}\n  displayName: {en: x, zh: y}\n  \
             platforms: linux/amd64,linux/arm64\n  catalogSource: \"a\\nb\"\n  expects: v4\n  omitted: {a: b}\n  relatedImages:\n  artifact: ''\n",
        );
        assert_eq!(manifest.unwrap(), Manifest::default());
        assert_eq!(
            parse("kind: PackageManifest\nspec:\n").unwrap(),
            Manifest::default()
        );
    }

    #[test]
    fn what_is_no_package_manifest_is_refused_with_a_reason_on_one_line() {
        for text in [
            "kind: Pod",
            "[]",
            "kind: PackageManifest\nspec: {artifact: 'UPPER CASE'}",
            "kind: PackageManifest\nspec: {type: unheard-of}",
            "kind: PackageManifest\nmetadata: {name: ../x}",
            "kind: PackageManifest\nspec: {version: \"v1\\e[2J\"}",
            "kind: PackageManifest\nspec: {relatedImages: [&a x, *a]}",
            "kind: PackageManifest\nkind: PackageManifest",
            "kind: PackageManifest\nspec: {expects: [{digest: 'sha256:00', size: 1}]}",
            "kind: PackageManifest\nspec: {expects: [{digest: 'sha512:00', size: 1}]}",
            "kind: PackageManifest\nspec: {omitted: [latest]}",
            "{",
            "a: b: c",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code(), "metadata-invalid", "input: {text}");
            assert!(!error.to_string().contains('\n'), "input: {text}");
        }
    }

    #[test]
    fn resources_are_documents_with_a_kind() {
        let documents =
            parse_resources("x", b"---\nkind: A\n---\n---\nkind: B\nspec: {n: 1}\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1]["spec"]["n"], 1);
        assert!(parse_resources("x", b"[1, 2]").is_err());
        assert!(parse_resources("x", b"name: x").is_err());
        assert!(parse_resources("x", b"").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in "[a-z:\\[\\]{}&*!|> \n'\"-]{0,80}") {
            let _ = parse(&text);
            let _ = parse_resources("x", text.as_bytes());
        }

        #[test]
        fn any_delta_round_trips(
            expects in proptest::collection::btree_map(any::<[u8; 32]>(), any::<u64>(), 0..5),
            omitted in proptest::collection::btree_set(any::<[u8; 32]>(), 0..5),
        ) {
            let manifest = Manifest {
                expects: expects.into_iter().map(|(bytes, size)| (Digest::from_bytes(bytes), size)).collect(),
                omitted: omitted.into_iter().map(Digest::from_bytes).collect(),
                ..Manifest::default()
            };
            prop_assert_eq!(parse(&manifest.encode()).unwrap(), manifest);
        }

        #[test]
        fn any_text_round_trips(display_name in "\\PC{1,20}", version in "\\PC{1,20}") {
            let manifest = Manifest {
                display_name: Some(display_name),
                version: Some(version),
                ..Manifest::default()
            };
            prop_assert_eq!(parse(&manifest.encode()).unwrap(), manifest);
        }
    }
}
