//! What refers to an image: signatures, attestations, bills of materials.
//!
//! There are two ways to attach a manifest to another one, its subject:
//!
//! | way | where it is found |
//! |---|---|
//! | cosign | tags of the same repository that name the subject: `sha256-<hex>.sig`, `.att`, `.sbom` |
//! | OCI | `subject` in the manifest that is attached; listed by the referrers API of the registry, or in the index under the tag `sha256-<hex>`, the *fallback tag*, or as an entry of an OCI layout |
//!
//! What is attached can be a subject itself (a signature of a bill of materials), so the search goes on from what it finds.
//! It looks at every manifest, not at every tag of the repository, because repositories with thousands of tags are common
//! and five requests for a manifest are few.
//!
//! # References
//!
//! OCI distribution-spec v1.1.0, "Listing Referrers", "Referrers Tag Schema"; cosign, `SIGNATURE_SPEC.md`, "Storage".

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Error;
use super::layout::Layout;
use super::remote::Remote;
use crate::base::oci::{Descriptor, MEDIA_TYPE_INDEX, Manifest};
use crate::base::{Class, Classified as _, Digest, ImageReference, Tag};

/// How the fallback tag and cosign's tags begin.
const TAG_PREFIX: &str = "sha256-";
/// How cosign's tags end.
const COSIGN_SUFFIXES: [&str; 3] = [".sig", ".att", ".sbom"];
/// How far the search goes: a signature of an attestation of an image is two away. Chosen, not measured.
pub(super) const LEVELS_MAX: usize = 5;
/// The most referrers of one image. Chosen, not measured: registries that scan daily have hundreds.
const REFERRERS_MAX: usize = 1000;

/// A manifest that refers to another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Referrer {
    /// It, by digest, with a tag if it has one.
    pub(super) image: ImageReference,
    /// What it refers to.
    pub(super) subject: Digest,
    /// The layout that it is in; none for a registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) layout: Option<PathBuf>,
}

/// What a search has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Referrers, none before what it refers to.
    pub(super) referrers: Vec<Referrer>,
    /// What is listed as a referrer and is not there.
    pub(super) absent: Vec<ImageReference>,
}

/// What a place has about one subject.
#[derive(Debug)]
pub(super) struct Linked {
    pub(super) subject: Digest,
    /// Under cosign's tags.
    pub(super) tagged: Vec<(Tag, Digest)>,
    /// Under the fallback tag.
    pub(super) fallback: Option<(Tag, Digest)>,
    /// By `subject`, as the place lists them.
    pub(super) listed: Vec<Digest>,
}

/// Where an image is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// In an OCI layout.
    Layout(&'a Layout),
    /// In a registry, in the repository of this image.
    Registry(&'a Remote, &'a ImageReference),
}

impl Place<'_> {
    /// Reads a manifest that must be there.
    pub(super) fn read_manifest(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        match self {
            Self::Layout(layout) => layout.read_manifest(digest),
            Self::Registry(remote, image) => remote.read_manifest(image, digest),
        }
    }

    /// Reads a manifest if it is there.
    fn find_manifest(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Layout(layout) if !layout.holds(digest) => Ok(None),
            Self::Layout(_) | Self::Registry(..) => match self.read_manifest(digest) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.class() == Class::Absent => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Returns whether a blob is there.
    pub(super) fn holds_blob(&self, digest: &Digest) -> Result<bool, Error> {
        match self {
            Self::Layout(layout) => Ok(layout.holds(digest)),
            Self::Registry(remote, image) => remote.holds_blob(image, digest),
        }
    }

    fn look_up(&self, subjects: &[Digest]) -> Result<Vec<Linked>, Error> {
        match self {
            Self::Layout(layout) => look_up_in_layout(layout, subjects),
            Self::Registry(remote, image) => remote.look_up(image, subjects),
        }
    }
}

fn look_up_in_layout(layout: &Layout, subjects: &[Digest]) -> Result<Vec<Linked>, Error> {
    let referrers = layout.referrers()?;
    let find = |tag: Tag| {
        let found = layout.find_tag(tag.as_str());
        found.map(|descriptor| (tag, descriptor.digest))
    };
    let look_up = |subject: &Digest| Linked {
        subject: *subject,
        tagged: cosign_tags(subject).into_iter().filter_map(find).collect(),
        fallback: find(fallback_tag(subject)),
        listed: referrers.get(subject).map_or_else(Vec::new, |listed| {
            listed.iter().map(|entry| entry.digest).collect()
        }),
    };
    Ok(subjects.iter().map(look_up).collect())
}

/// Finds what refers to `subjects`, which are manifests of `image`, and to what refers to them, and so on.
pub(super) fn search(
    place: Place<'_>,
    image: &ImageReference,
    subjects: BTreeSet<Digest>,
) -> Result<Found, Error> {
    let layout = match place {
        Place::Layout(layout) => Some(layout.path().to_owned()),
        Place::Registry(..) => None,
    };
    let mut search = Search {
        place,
        image,
        layout,
        found: Found::default(),
    };
    let mut level: Vec<Digest> = subjects.iter().copied().collect();
    let mut seen = subjects;
    for _ in 0..LEVELS_MAX {
        let mut next = Vec::new();
        for linked in place.look_up(&level)? {
            next.extend(search.take(linked)?);
        }
        next.retain(|digest| seen.insert(*digest));
        if next.is_empty() {
            return Ok(search.found);
        }
        level = next;
    }
    Err(Error::Referrers {
        image: Box::new(image.clone()),
        reason: format!("expected at most {LEVELS_MAX} levels, found more"),
    })
}

struct Search<'a> {
    place: Place<'a>,
    image: &'a ImageReference,
    layout: Option<PathBuf>,
    found: Found,
}

impl Search<'_> {
    /// Notes what refers to one subject. Returns the manifests that this brings.
    fn take(&mut self, linked: Linked) -> Result<Vec<Digest>, Error> {
        let mut manifests = Vec::new();
        for (tag, digest) in linked.tagged {
            if let Some(bytes) = self.read(&digest)? {
                manifests.push(digest);
                manifests.extend(children_of(&bytes));
                self.note(Some(tag), digest, linked.subject)?;
            }
        }
        let index = match &linked.fallback {
            Some((_, digest)) => self.place.find_manifest(digest)?,
            None => None,
        };
        let in_index: BTreeSet<Digest> =
            index.iter().flat_map(|bytes| children_of(bytes)).collect();
        let listed: BTreeSet<Digest> = linked.listed.into_iter().collect();
        let mut is_exact = !in_index.is_empty() && listed.is_subset(&in_index);
        for digest in &in_index | &listed {
            match self.read(&digest)? {
                Some(bytes) => {
                    manifests.push(digest);
                    manifests.extend(children_of(&bytes));
                    self.note(None, digest, linked.subject)?;
                }
                None => is_exact = false,
            }
        }
        if let Some((tag, digest)) = linked.fallback.filter(|_| is_exact) {
            self.note(Some(tag), digest, linked.subject)?;
        }
        Ok(manifests)
    }

    /// Reads a manifest that somebody says is there.
    fn read(&mut self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let bytes = self.place.find_manifest(digest)?;
        if bytes.is_none() {
            let image = sibling(self.image, None, *digest);
            self.found.absent.push(image);
        }
        Ok(bytes)
    }

    fn note(&mut self, tag: Option<Tag>, digest: Digest, subject: Digest) -> Result<(), Error> {
        if self.found.referrers.len() == REFERRERS_MAX {
            return Err(Error::Referrers {
                image: Box::new(self.image.clone()),
                reason: format!("expected at most {REFERRERS_MAX} of them, found more"),
            });
        }
        self.found.referrers.push(Referrer {
            image: sibling(self.image, tag, digest),
            subject,
            layout: self.layout.clone(),
        });
        Ok(())
    }
}

/// Returns a reference to the same repository.
pub(super) fn sibling(image: &ImageReference, tag: Option<Tag>, digest: Digest) -> ImageReference {
    ImageReference::new(
        image.registry().to_owned(),
        image.repository().clone(),
        tag,
        Some(digest),
    )
}

/// Returns the manifests of an index; none for anything else.
fn children_of(bytes: &[u8]) -> Vec<Digest> {
    Manifest::parse(bytes).map_or_else(
        |_| Vec::new(),
        |(manifest, _)| manifest.children().map(|child| child.digest).collect(),
    )
}

/// Returns the tag under which a registry without the referrers API keeps the index of what refers to `subject`.
pub(super) fn fallback_tag(subject: &Digest) -> Tag {
    tag(subject, "")
}

/// Returns the tags under which cosign keeps what belongs to `subject`.
pub(super) fn cosign_tags(subject: &Digest) -> [Tag; 3] {
    COSIGN_SUFFIXES.map(|suffix| tag(subject, suffix))
}

fn tag(subject: &Digest, suffix: &str) -> Tag {
    format!("{TAG_PREFIX}{}{suffix}", subject.hex())
        .parse()
        .expect("hex and a short suffix are a tag")
}

/// Returns what a name ending in one of these tags refers to.
pub(super) fn subject_of_tag(name: &str) -> Option<Digest> {
    let tag = name.rsplit_once(':').map_or(name, |(_, tag)| tag);
    let rest = tag.strip_prefix(TAG_PREFIX)?;
    let mut suffixes = COSIGN_SUFFIXES.iter();
    let hex = suffixes.find_map(|suffix| rest.strip_suffix(suffix));
    Digest::from_hex(hex.unwrap_or(rest)).ok()
}

/// What a manifest says of itself as a referrer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    artifact_type: Option<String>,
    config: Option<Config>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    media_type: String,
}

/// Returns what a manifest refers to.
pub(super) fn subject_of(bytes: &[u8]) -> Option<Digest> {
    let (manifest, _) = Manifest::parse(bytes).ok()?;
    manifest.subject().map(|subject| subject.digest)
}

/// The index under the fallback tag.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FallbackIndex<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<FallbackEntry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FallbackEntry<'a> {
    #[serde(flatten)]
    descriptor: &'a Descriptor,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
}

/// Makes the index for the fallback tag, as a client writes it that attaches these referrers to a registry without the
/// referrers API: the same bytes for the same referrers.
pub(super) fn fallback_index(referrers: &BTreeMap<Digest, (&Descriptor, &[u8])>) -> Vec<u8> {
    let entries = referrers.values().map(|(descriptor, bytes)| {
        let claim = serde_json::from_slice::<Claim>(bytes).ok();
        let (artifact_type, annotations) = claim.map_or((None, None), |claim| {
            let config = claim.config.map(|config| config.media_type);
            (claim.artifact_type.or(config), claim.annotations)
        });
        FallbackEntry {
            descriptor,
            artifact_type,
            annotations,
        }
    });
    let index = FallbackIndex {
        schema_version: 2,
        media_type: MEDIA_TYPE_INDEX,
        manifests: entries.collect(),
    };
    serde_json::to_vec(&index).expect("a document of strings and numbers can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_their_subject() {
        let subject = Digest::of(b"image");
        let hex = subject.hex();
        assert_eq!(fallback_tag(&subject).as_str(), format!("sha256-{hex}"));
        for tag in cosign_tags(&subject) {
            assert_eq!(subject_of_tag(tag.as_str()), Some(subject));
            let name = format!("registry.example:5000/a/b:{tag}");
            assert_eq!(subject_of_tag(&name), Some(subject));
        }
        assert_eq!(subject_of_tag(&format!("sha256-{hex}")), Some(subject));
        for other in ["v1", "sha256-1.sig", "registry.example:5000/a/b", ""] {
            assert_eq!(subject_of_tag(other), None, "input: {other:?}");
        }
        assert_eq!(subject_of_tag(&format!("sha256-{hex}.pub")), None);
    }

    #[test]
    fn the_made_fallback_index_says_what_the_referrers_say() {
        let (one, two) = (Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32]));
        let descriptor = |digest| Descriptor {
            media_type: "m".to_owned(),
            digest,
            size_bytes: 9,
        };
        let (first, second) = (descriptor(one), descriptor(two));
        let with_config = br#"{"config":{"mediaType":"c"},"annotations":{"k":"v"}}"#;
        let with_type = br#"{"artifactType":"t","config":{"mediaType":"c"}}"#;
        let index = fallback_index(&BTreeMap::from([
            (two, (&second, &with_config[..])),
            (one, (&first, &with_type[..])),
        ]));
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        assert_eq!(
            String::from_utf8(index).unwrap(),
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"m","digest":"sha256:{one}","size":9,"artifactType":"t"}},{{"mediaType":"m","digest":"sha256:{two}","size":9,"artifactType":"c","annotations":{{"k":"v"}}}}]}}"#
            )
        );
    }

    #[test]
    fn a_subject_is_read_where_there_is_one() {
        let subject = Digest::of(b"image");
        let text = format!(
            r#"{{"manifests":[],"subject":{{"mediaType":"m","digest":"{subject}","size":1}}}}"#
        );
        assert_eq!(subject_of(text.as_bytes()), Some(subject));
        for other in ["{}", "[]", r#"{"manifests":[],"subject":null}"#, "no"] {
            assert_eq!(subject_of(other.as_bytes()), None, "input: {other}");
        }
    }
}
