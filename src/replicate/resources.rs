//! The Kubernetes resources of packages whose images are all in place.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::wanted::{Wanted, WantedPackage};
use super::{Error, Target, problem};
use crate::base::{Description, Digest, PackageKind, Repository, Tag};
use crate::catalog::{Catalog, PackageRecord, Problem, RunCounts};
use crate::platform::{
    self, Observed, OperatorInfo, Platform, Resource, Verdict, operator_resources, plugin_resource,
};

/// The most resources whose verdict is awaited at one time. Each is a watch on the platform. Chosen, not measured.
const VERDICTS_MAX: usize = 16;

/// A resource and the packages that want it.
#[derive(Clone, Debug)]
pub(super) struct WantedResource {
    pub(super) resource: Resource,
    pub(super) packages: Vec<Digest>,
}

/// The resources of some packages, in the order in which they must be applied.
#[derive(Clone, Debug, Default)]
pub(super) struct WantedResources {
    pub(super) list: Vec<WantedResource>,
    /// Packages whose resources cannot be made, with the reason.
    pub(super) problems: BTreeMap<Digest, Problem>,
}

impl WantedResources {
    /// Collects the resources of the packages that `is_complete` lets through.
    ///
    /// Where two packages bring the same object, the later one wins: an operator's `Artifact` is one for all its
    /// versions, and a plugin has one `ModulePlugin`.
    pub(super) async fn collect(
        target: &Target,
        platform: &Platform,
        catalog: &Catalog,
        wanted: &Wanted,
        is_complete: impl Fn(&WantedPackage) -> bool,
    ) -> Result<Self, Error> {
        let mut collected = Self::default();
        let packages: Vec<&WantedPackage> = wanted
            .packages
            .iter()
            .filter(|package| has_resources(package.kind) && is_complete(package))
            .collect();
        let has_operator = packages
            .iter()
            .any(|package| package.kind == PackageKind::Operator);
        let pull_registry = if has_operator {
            platform.pull_registry().await?
        } else {
            String::new()
        };
        for package in packages {
            // One at a time: records of operators have tens of kilobytes. One that was removed meanwhile wants nothing.
            let Some(record) = catalog.find_package(&package.digest)? else {
                continue;
            };
            match resources_of(target, &record, &pull_registry) {
                Ok(resources) => collected.add(&record, resources),
                Err(error) => {
                    let problem = problem(format!("package {}", record.name), &error);
                    collected.problems.insert(record.digest, problem);
                }
            }
        }
        Ok(collected)
    }

    fn add(&mut self, package: &PackageRecord, resources: Vec<Resource>) {
        for resource in resources {
            let is_same = |other: &&mut WantedResource| {
                let other = &other.resource;
                (&other.cluster, other.kind, &other.name)
                    == (&resource.cluster, resource.kind, &resource.name)
            };
            match self.list.iter_mut().find(is_same) {
                Some(known) => {
                    known.resource = resource;
                    known.packages.push(package.digest);
                }
                None => self.list.push(WantedResource {
                    resource,
                    packages: vec![package.digest],
                }),
            }
        }
    }
}

/// Returns whether packages of this kind bring resources.
const fn has_resources(kind: PackageKind) -> bool {
    match kind {
        PackageKind::Operator | PackageKind::Plugin => true,
        PackageKind::Chart | PackageKind::Images | PackageKind::Supplement => false,
    }
}

fn resources_of(
    target: &Target,
    package: &PackageRecord,
    pull_registry: &str,
) -> Result<Vec<Resource>, Error> {
    match package.kind {
        PackageKind::Operator => {
            let info = operator_info(target, package, pull_registry)?;
            Ok(operator_resources(&info, &target.clusters)?)
        }
        PackageKind::Plugin => {
            let documents = package.resources.iter();
            let plugins = documents.filter(|document| document["kind"] == "ModulePlugin");
            let resources: Result<Vec<Resource>, platform::Error> =
                plugins.map(plugin_resource).collect();
            let resources = resources?;
            if resources.is_empty() {
                return Err(Error::NoModulePlugin);
            }
            Ok(resources)
        }
        PackageKind::Chart | PackageKind::Images | PackageKind::Supplement => Ok(Vec::new()),
    }
}

fn operator_info(
    target: &Target,
    package: &PackageRecord,
    pull_registry: &str,
) -> Result<OperatorInfo, Error> {
    let (repository, tag) = bundle_of(package).ok_or(Error::NoArtifact)?;
    let name = &package.name;
    let summary = package.description.as_ref().and_then(Description::summary);
    Ok(OperatorInfo {
        name: name.clone(),
        display_name: package
            .display_name
            .clone()
            .unwrap_or_else(|| name.to_string()),
        description: summary.map_or_else(|| format!("{name} bundle image"), str::to_owned),
        registry: pull_registry.to_owned(),
        repository: repository.clone(),
        tag: tag.clone(),
        catalog_source: target.catalog_source.clone(),
        image_pull_secrets: target.image_pull_secrets.clone(),
    })
}

/// Returns repository and tag of the bundle image. One that the package names by its digest alone has the tag that it has
/// among the images, because that is the one that it gets on the target.
fn bundle_of(package: &PackageRecord) -> Option<(&Repository, &Tag)> {
    let artifact = package.artifact.as_ref()?;
    let repository = artifact.repository();
    let tag = artifact.tag().or_else(|| {
        let mut same = package.images.iter().filter(|image| {
            Some(&image.digest) == artifact.digest() && image.reference.repository() == repository
        });
        same.find_map(|image| image.reference.tag())
    });
    Some((repository, tag?))
}

/// Brings every resource in place, in order, then waits for what the platform says of all of them together. Returns the
/// problems by package.
pub(super) async fn apply(
    platform: &Platform,
    wanted: &WantedResources,
    verdict_timeout: Duration,
    counts: &mut RunCounts,
) -> BTreeMap<Digest, Problem> {
    let mut problems = wanted.problems.clone();
    counts.resources_wanted += wanted.list.len() as u64;
    let mut waiting = Vec::new();
    for wanted in &wanted.list {
        let mut packages = wanted.packages.iter();
        if packages.any(|package| problems.contains_key(package)) {
            continue;
        }
        match ensure(platform, &wanted.resource).await {
            Ok(Done::WasThere) => waiting.push((wanted, Duration::ZERO)),
            Ok(Done::Applied) => {
                counts.resources_applied += 1;
                tracing::info!(resource = %wanted.resource, "resource is applied");
                waiting.push((wanted, verdict_timeout));
            }
            Err(error) => fail(wanted, &error, counts, &mut problems),
        }
    }
    let waiting = &waiting;
    let verdicts = futures_util::stream::iter(0..waiting.len())
        .map(|at| async move {
            (
                at,
                accept(platform, &waiting[at].0.resource, waiting[at].1).await,
            )
        })
        .buffer_unordered(VERDICTS_MAX);
    futures_util::pin_mut!(verdicts);
    while let Some((at, verdict)) = verdicts.next().await {
        if let Err(error) = verdict {
            fail(waiting[at].0, &error, counts, &mut problems);
        }
    }
    problems
}

/// Notes for every package that wants a resource why it is not in place.
fn fail(
    wanted: &WantedResource,
    error: &Error,
    counts: &mut RunCounts,
    problems: &mut BTreeMap<Digest, Problem>,
) {
    counts.resources_failed += 1;
    for package in &wanted.packages {
        let subject = format!("resource {}", wanted.resource);
        problems.insert(*package, problem(subject, error));
    }
}

enum Done {
    WasThere,
    Applied,
}

/// Makes one resource what it should be.
async fn ensure(platform: &Platform, resource: &Resource) -> Result<Done, Error> {
    match platform.observe(resource).await? {
        Observed::Same => Ok(Done::WasThere),
        Observed::Absent | Observed::Different => {
            platform.apply(resource).await?;
            Ok(Done::Applied)
        }
    }
}

/// Waits for what the platform says of one resource.
async fn accept(platform: &Platform, resource: &Resource, timeout: Duration) -> Result<(), Error> {
    match platform.wait_verdict(resource, timeout).await? {
        Verdict::Accepted => Ok(()),
        Verdict::Failed { message } => Err(Error::ResourceFailed {
            resource: resource.to_string(),
            message,
        }),
        Verdict::Pending { last } => Err(Error::ResourcePending {
            resource: resource.to_string(),
            last,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the record of an operator package with this artifact and these images, by name.
    fn package(artifact: Option<&str>, images: &[&str]) -> PackageRecord {
        let digest = Digest::of(b"bundle");
        let images: Vec<_> = images
            .iter()
            .map(|name| {
                json!({"reference": name, "digest": digest, "media_type": "m", "size_bytes": 1, "content_bytes": 1})
            })
            .collect();
        serde_json::from_value(json!({
            "digest": Digest::of(b"file"), "file_name": "x.tgz", "size_bytes": 1, "name": "redis-operator",
            "version": null, "kind": "operator", "platforms": [], "artifact": artifact, "images": images,
            "resources": [], "display_name": "Redis", "blob_count": 1, "blob_bytes": 1,
            "provenance": {"by": "unchecked"}, "ready_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn a_bundle_named_by_digest_has_the_tag_that_it_has_among_the_images() {
        let digest = Digest::of(b"bundle");
        let pinned = format!("r.example/ops/bundle@{digest}");
        let both = format!("r.example/ops/bundle:v1@{digest}");
        let other = format!("r.example/ops/bundle@{}", Digest::of(b"other"));
        let tagged = ["r.example/ops/redis:7", "r.example/ops/bundle:v2"];
        for (artifact, images, tag) in [
            (Some("r.example/ops/bundle:v1"), &[][..], Some("v1")),
            (Some(both.as_str()), &tagged, Some("v1")),
            (Some(pinned.as_str()), &tagged, Some("v2")),
            (Some(pinned.as_str()), &tagged[..1], None),
            (Some(pinned.as_str()), &[pinned.as_str()], None),
            (Some(other.as_str()), &tagged, None),
            (None, &tagged, None),
        ] {
            let package = package(artifact, images);
            let found = bundle_of(&package);
            assert_eq!(
                found.map(|(_, tag)| tag.as_str()),
                tag,
                "{artifact:?} {images:?}"
            );
            assert!(found.is_none_or(|(repository, _)| repository.as_str() == "ops/bundle"));
        }
    }
}
