//! Reading a package: one pass for the content, then the question whether it is whole.
//!
//! The pass is in [`receive`](super::receive). What it leaves behind for each archive is assessed here, the inner ones
//! first:
//!
//! | the archive | is |
//! |---|---|
//! | has an OCI layout, a registry tree, a docker-archive or a package manifest | a package; charts inside of it are images of it |
//! | is a Helm chart | that chart; archives inside of it are its own affair |
//! | has packages and charts inside | nothing by itself; each of them is a package |
//! | has none of these | no package: an error of the file itself, and skipped inside of one |

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;

use super::archive::{Archive, Budget};
use super::chart_file::Chart;
use super::closure::{Closure, Found};
use super::delta;
use super::describe::{self, Error as DescribeError, Subject};
use super::docker_archive::Converter;
use super::header::show;
use super::identity::{self, Sources};
use super::images::{self, Image, MetadataFile, Root, RootName};
use super::inflate::{self, Opened};
use super::layout::Metadata;
use super::manifest::{self, Manifest};
use super::receive::{Inner, Level, Receiver, within};
use super::unpack_error::Outcome;
use super::{Error, Limits, Sink, UnpackError, referrers};
use crate::base::{Description, Digest, ImageReference, PackageKind, PackageName, Platform};

/// What a package holds. Independent of the order of its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The package manifest, if there is one.
    pub manifest: Option<Manifest>,
    /// What the manifest says; else plugin where there is a `ModulePlugin`, chart where the artifact is one, operator
    /// where there is any artifact, images otherwise.
    pub kind: PackageKind,
    /// What the manifest says; else the name of the `ModulePlugin`, else that of the operator's package or of the chart,
    /// else the last part of the artifact's repository without `-bundle`.
    pub name: Option<PackageName>,
    /// What the manifest says, else the main image.
    pub version: Option<String>,
    /// The main image: what the manifest says, else the only operator bundle or chart.
    pub artifact: Option<ImageReference>,
    /// All images, sorted by name.
    pub images: Vec<Image>,
    /// What the images run on, sorted; what the manifest says where there are no images.
    pub platforms: Vec<Platform>,
    /// Kubernetes documents, in the order of their files' paths, each once; then the `ModulePlugin` of the main chart, where
    /// there is no other.
    pub resources: Vec<serde_json::Value>,
    /// Every manifest, configuration and layer that the images need, with its size in bytes. What else the package
    /// brought belongs to no image.
    pub blobs: BTreeMap<Digest, u64>,
    /// Name for people: what the manifest says, else the `ModulePlugin`, else the main image.
    pub display_name: Option<String>,
    /// What its main image or chart says of itself.
    pub description: Option<Description>,
    /// Why the main image cannot be described, or what is missing from its description. No fault of the images.
    pub description_problem: Option<DescribeError>,
    /// Manifests that its indexes name and that were left out on purpose.
    pub omitted: BTreeSet<Digest>,
}

/// What a file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The package that the file is; none where it only carries others.
    pub package: Option<Contents>,
    /// Packages in files inside of the file, sorted by path.
    pub nested: Vec<Nested>,
}

/// A package that came inside of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nested {
    /// Path of the inner file in the archive; in an archive inside of it, with the path of that one in front.
    pub path: String,
    /// Digest of the inner file.
    pub digest: Digest,
    /// Size of the inner file.
    pub size_bytes: u64,
    /// What it holds.
    pub contents: Contents,
}

/// What a value of a document costs in memory beyond its text, which was counted when it was read: itself and, in an object,
/// the header of its key. `[0,0,0]` has sixteen times the size of its text.
const VALUE_BYTES: u64 = 64;

/// Reads a whole package: blobs go to `sink`, what it is comes back.
///
/// Inflating runs on a thread of its own; `input` is read to its end and dropped there. A failure may leave blobs in the
/// sink, of which nothing may be made.
pub fn unpack<R, S>(input: R, limits: &Limits, sink: &mut S) -> Outcome<Unpacked, S>
where
    R: Read + Send + 'static,
    S: Sink,
{
    let Opened {
        inflated,
        totals,
        capture,
    } = inflate::open(input, limits)?;
    let mut receiver = Receiver {
        limits,
        budget: Budget::new(limits),
        totals,
        sink,
        received: BTreeSet::new(),
    };
    let mut level = receiver.receive(Archive::new(inflated, limits), capture)?;
    delta::check_all(&level, receiver.sink)?;
    let mut assessor = Assessor {
        limits,
        budget: receiver.budget,
        sink: receiver.sink,
        received: receiver.received,
    };
    let mut carried = assessor.assess_inner(&mut level)?;
    if level.chart.is_none() {
        level.take_too_deep()?;
    }
    let package = if let Some(chart) = level.chart.take() {
        carried = Carried::default();
        Some(assessor.assess_chart(&chart)?)
    } else if level.must_be_package() || carried.is_empty() {
        Some(assessor.assess(level, &std::mem::take(&mut carried.charts))?)
    } else {
        None
    };
    let mut nested = carried.packages;
    for loose in carried.charts {
        nested.push(assessor.assess_loose(loose)?);
    }
    nested.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Unpacked { package, nested })
}

/// The second half: everything was received, what does it amount to?
struct Assessor<'a, S> {
    limits: &'a Limits,
    budget: Budget,
    sink: &'a mut S,
    received: BTreeSet<Digest>,
}

/// What a package is made of.
#[derive(Default)]
struct Parts {
    /// Blobs that came under their digest.
    received: BTreeSet<Digest>,
    /// Sorted by path.
    files: Vec<MetadataFile>,
    manifest: Option<Manifest>,
    roots: Vec<Root>,
}

/// What archives inside of an archive have brought.
#[derive(Default)]
struct Carried {
    packages: Vec<Nested>,
    /// Charts that are images of the archive around them, if that is a package.
    charts: Vec<LooseChart>,
}

/// A chart in a file inside of the file.
struct LooseChart {
    path: String,
    digest: Digest,
    size_bytes: u64,
    chart: Chart,
}

impl Carried {
    const fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.charts.is_empty()
    }

    /// Takes what came with the archive at `path`.
    fn add(&mut self, path: &str, other: Self) {
        self.packages
            .extend(other.packages.into_iter().map(|nested| Nested {
                path: format!("{path}/{}", nested.path),
                ..nested
            }));
        self.charts
            .extend(other.charts.into_iter().map(|loose| LooseChart {
                path: format!("{path}/{}", loose.path),
                ..loose
            }));
    }
}

impl<S: Sink> Assessor<'_, S> {
    /// Assesses the archives inside of an archive.
    fn assess_inner(&mut self, level: &mut Level) -> Outcome<Carried, S> {
        let mut carried = Carried::default();
        for inner in std::mem::take(&mut level.inner) {
            let path = inner.path.clone();
            let more = self.assess_one(inner);
            match more.map_err(|error| error.map_package(|error| within(&path, error)))? {
                One::Package(nested, others) => {
                    carried.packages.push(*nested);
                    carried.add(&path, others);
                }
                One::Chart(loose) => carried.charts.push(loose),
                One::Neither(others) => carried.add(&path, others),
            }
        }
        Ok(carried)
    }

    fn assess_one(&mut self, inner: Inner) -> Outcome<One, S> {
        let Inner {
            path,
            digest,
            size_bytes,
            mut level,
        } = inner;
        if let Some(chart) = level.chart.take() {
            level.take_flaw()?;
            return Ok(One::Chart(LooseChart {
                path,
                digest,
                size_bytes,
                chart,
            }));
        }
        level.take_too_deep()?;
        let mut carried = self.assess_inner(&mut level)?;
        if !level.has_own_content() {
            return Ok(One::Neither(carried));
        }
        level.take_flaw()?;
        let charts = std::mem::take(&mut carried.charts);
        let nested = Nested {
            path,
            digest,
            size_bytes,
            contents: self.assess(level, &charts)?,
        };
        Ok(One::Package(Box::new(nested), carried))
    }

    /// Assesses a chart as a package of its own.
    fn assess_chart(&mut self, chart: &Chart) -> Outcome<Contents, S> {
        let parts = Parts {
            manifest: Some(chart.implied_manifest()),
            roots: vec![chart.root(None)],
            ..Parts::default()
        };
        let mut contents = finish(parts, self.sink, self.limits, &mut self.budget)?;
        contents.manifest = None;
        Ok(contents)
    }

    fn assess_loose(&mut self, loose: LooseChart) -> Outcome<Nested, S> {
        Ok(Nested {
            contents: self.assess_chart(&loose.chart)?,
            path: loose.path,
            digest: loose.digest,
            size_bytes: loose.size_bytes,
        })
    }

    /// Assesses a package with the charts that lie in it.
    fn assess(&mut self, mut level: Level, charts: &[LooseChart]) -> Outcome<Contents, S> {
        level.files.sort_by(|one, other| one.path.cmp(&other.path));
        let manifest = find_manifest(&level.files)?;
        let mut converter = Converter {
            sink: &mut *self.sink,
            received: &mut self.received,
            limits: self.limits,
            budget: &mut self.budget,
        };
        let mut roots = images::list_roots(&level.files, manifest.as_ref())?;
        roots.extend(converter.convert(&level.files, &level.docker, manifest.as_ref())?);
        add_charts(&mut roots, charts, manifest.as_ref());
        let parts = Parts {
            received: level.blobs,
            files: level.files,
            manifest,
            roots,
        };
        finish(parts, self.sink, self.limits, &mut self.budget)
    }
}

/// What an archive inside of an archive is.
enum One {
    /// A package, and what it carries besides.
    Package(Box<Nested>, Carried),
    Chart(LooseChart),
    Neither(Carried),
}

/// Adds charts to the images of the package around them. One that is there as an image already is that image.
fn add_charts(roots: &mut Vec<Root>, charts: &[LooseChart], manifest: Option<&Manifest>) {
    for loose in charts {
        let root = loose.chart.root(manifest);
        let is_known = roots.iter().any(|known| match (&known.name, &root.name) {
            (RootName::Known(known), RootName::Known(name)) => {
                known.repository() == name.repository() && known.tag() == name.tag()
            }
            (RootName::Known(_) | RootName::Unknown | RootName::Revision, _) => false,
        });
        if !is_known {
            roots.push(root);
        }
    }
}

/// Follows the images of a package and says what it is.
fn finish<S: Sink>(
    parts: Parts,
    sink: &S,
    limits: &Limits,
    budget: &mut Budget,
) -> Outcome<Contents, S> {
    let Parts {
        received,
        files,
        manifest,
        roots,
    } = parts;
    let mut resources = read_resources(&files, limits, budget)?;
    check_supplement(manifest.as_ref(), &roots)?;
    check_count(&roots, limits)?;
    let closure = Closure::new(sink, limits, budget, manifest.as_ref());
    let (images, mut found) = referrers::follow_all(roots, closure)?;
    let has_images = !images.is_empty();
    let declared = manifest.as_ref().and_then(|manifest| manifest.kind);
    let subject = Subject {
        manifest: manifest.as_ref(),
        declared,
        resources: &resources,
        images: &images,
        blobs: &found.blobs,
    };
    let mut described = describe::describe(&subject, sink, limits)?;
    if identity::find_plugin(&resources).is_none() {
        resources.append(&mut described.plugins);
    }
    let sources = Sources {
        manifest: manifest.as_ref(),
        declared,
        resources: &resources,
        described: &described,
        found: &found,
    };
    let identity = sources.identify();
    if identity.kind == PackageKind::Supplement {
        found.blobs = list_received(&received, sink)?;
    } else if !has_images {
        check_light(received.len() as u64, manifest.as_ref(), identity.kind)?;
    } else if let Some(manifest) = &manifest {
        check_included(manifest, &images, &found)?;
    }
    let platforms = match &manifest {
        Some(manifest) if !has_images => manifest.platforms.iter().cloned().collect(),
        Some(_) | None => found.platforms,
    };
    Ok(Contents {
        kind: identity.kind,
        name: identity.name,
        version: identity.version,
        artifact: identity.artifact,
        display_name: identity.display_name,
        description: described.description,
        description_problem: described.problem,
        omitted: found.omitted,
        manifest,
        images,
        platforms: platforms.into_iter().collect(),
        resources,
        blobs: found.blobs,
    })
}

/// Returns the package manifest among `files`, which are sorted by path where the order of two matters. A `manifest.yaml` of another kind is some other file, but at the root it must be YAML.
pub(super) fn find_manifest(files: &[MetadataFile]) -> Result<Option<Manifest>, Error> {
    let mut first: Option<&MetadataFile> = None;
    for file in files
        .iter()
        .filter(|file| file.kind == Metadata::PackageManifest)
    {
        let is_manifest = match manifest::is_package_manifest(&file.path, &file.content) {
            Err(_) if file.path.contains('/') => false,
            outcome => outcome?,
        };
        match first {
            Some(first) if is_manifest => {
                return Err(Error::SeveralManifests {
                    first: show(first.path.as_bytes()),
                    second: show(file.path.as_bytes()),
                });
            }
            None if is_manifest => first = Some(file),
            Some(_) | None => {}
        }
    }
    first
        .map(|file| Manifest::parse(&file.path, &file.content))
        .transpose()
}

fn read_resources(
    files: &[MetadataFile],
    limits: &Limits,
    budget: &mut Budget,
) -> Result<Vec<serde_json::Value>, Error> {
    let mut resources = Vec::new();
    let mut seen = HashSet::new();
    for file in files.iter().filter(|file| file.kind == Metadata::Resources) {
        for document in manifest::parse_resources(&file.path, &file.content)? {
            budget.charge(count_values(&document) * VALUE_BYTES)?;
            // Keys are sorted, so equal documents have equal texts.
            if seen.insert(Digest::of(document.to_string().as_bytes())) {
                resources.push(document);
            }
            // Here and not at the end, because each document is compared with all before it.
            if resources.len() as u64 > limits.resources_max {
                return Err(Error::TooManyResources {
                    limit: limits.resources_max,
                });
            }
        }
    }
    Ok(resources)
}

/// Returns how many values a document consists of. The parser bounds how deep they nest.
fn count_values(value: &serde_json::Value) -> u64 {
    match value {
        serde_json::Value::Array(values) => 1 + values.iter().map(count_values).sum::<u64>(),
        serde_json::Value::Object(values) => 1 + values.values().map(count_values).sum::<u64>(),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => 1,
    }
}

/// Refuses more images than a package may have.
fn check_count(roots: &[Root], limits: &Limits) -> Result<(), Error> {
    let found = roots.len() as u64;
    let limit = limits.images_max;
    if found > limit {
        return Err(Error::TooManyImages { limit, found });
    }
    Ok(())
}

/// A supplement brings blobs that others wait for, and no images of its own.
fn check_supplement(manifest: Option<&Manifest>, roots: &[Root]) -> Result<(), Error> {
    let is_supplement = manifest.is_some_and(|it| it.kind == Some(PackageKind::Supplement));
    match roots.first() {
        Some(root) if is_supplement => Err(Error::SupplementImages {
            entry: root.entry.clone(),
            digest: root.target.digest(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Returns every blob that was received, which is what a supplement is there for.
fn list_received<S: Sink>(
    received: &BTreeSet<Digest>,
    sink: &S,
) -> Outcome<BTreeMap<Digest, u64>, S> {
    let mut blobs = BTreeMap::new();
    for digest in received {
        if let Some(size_bytes) = sink.find(digest).map_err(UnpackError::Sink)? {
            blobs.insert(*digest, size_bytes);
        }
    }
    if blobs.is_empty() {
        return Err(UnpackError::Package(Error::Empty));
    }
    Ok(blobs)
}

/// Accepts a package without images if it was meant to have none.
fn check_light(
    blob_count: u64,
    manifest: Option<&Manifest>,
    kind: PackageKind,
) -> Result<(), Error> {
    if blob_count > 0 {
        return Err(Error::Unindexed { count: blob_count });
    }
    match kind {
        PackageKind::Operator | PackageKind::Plugin | PackageKind::Chart if manifest.is_some() => {
            Ok(())
        }
        PackageKind::Operator
        | PackageKind::Plugin
        | PackageKind::Chart
        | PackageKind::Images
        | PackageKind::Supplement => Err(Error::Empty),
    }
}

/// Every image that the manifest names must be there: under the same repository and tag, or with the pinned digest. The
/// host plays no part: it is replaced on the way to a target.
fn check_included(manifest: &Manifest, images: &[Image], found: &Found) -> Result<(), Error> {
    let names: HashSet<_> = images
        .iter()
        .map(|image| (image.reference.repository(), image.reference.tag()))
        .collect();
    for wanted in manifest.images() {
        let is_included = match wanted.digest() {
            Some(digest) => found.manifests.contains(digest),
            None => names.contains(&(wanted.repository(), wanted.tag())),
        };
        if !is_included {
            return Err(Error::ImageNotIncluded {
                image: Box::new(wanted.clone()),
            });
        }
    }
    Ok(())
}
