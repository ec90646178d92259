//! The second half of reading: everything was received, what does it amount to?
//!
//! Archives inside of an archive come before it:
//!
//! | the archive | is |
//! |---|---|
//! | has an OCI layout, a registry tree, a docker-archive or a package manifest | a package; charts inside of it are images of it |
//! | is a Helm chart | that chart; archives inside of it are its own affair |
//! | has packages and charts inside | nothing by itself; each of them is a package |
//! | has none of these | no package: an error of the file itself, and skipped inside of one |

use std::collections::{BTreeSet, HashSet};

use super::archive::Budget;
use super::chart_file::Chart;
use super::contents::{Contents, Parts, finish};
use super::docker_archive::Converter;
use super::images::{self, Root, RootName};
use super::level::{Inner, Level};
use super::manifest::Manifest;
use super::receive::within;
use super::unpack::{Nested, Unpacked};
use super::unpack_error::Outcome;
use super::{Error, Limits, Sink};
use crate::base::Digest;

/// What is the same for everything that one file holds.
pub(super) struct Assessor<'a, S> {
    pub(super) limits: &'a Limits,
    pub(super) budget: Budget,
    pub(super) sink: &'a mut S,
    /// What the sink was given.
    pub(super) received: BTreeSet<Digest>,
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
    /// Returns what the file is, all of which was received.
    pub(super) fn assess_file(&mut self, mut level: Level) -> Outcome<Unpacked, S> {
        let mut carried = self.assess_inner(&mut level)?;
        if level.chart.is_none() {
            level.take_too_deep()?;
        }
        let package = if let Some(chart) = level.chart.take() {
            carried = Carried::default();
            Some(self.assess_chart(&chart)?)
        } else if level.must_be_package() || carried.is_empty() {
            Some(self.assess(level, &std::mem::take(&mut carried.charts))?)
        } else {
            None
        };
        let mut nested = carried.packages;
        for loose in carried.charts {
            nested.push(self.assess_loose(loose)?);
        }
        nested.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Unpacked { package, nested })
    }

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
        let manifest = level.take_manifest()?;
        let mut converter = Converter {
            sink: &mut *self.sink,
            received: &mut self.received,
            limits: self.limits,
            budget: &mut self.budget,
        };
        let mut roots = images::list_roots(&level.files, manifest.as_ref(), self.limits)?;
        converter.convert(&level.files, &level.docker, manifest.as_ref(), &mut roots)?;
        add_charts(&mut roots, charts, manifest.as_ref(), self.limits)?;
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
fn add_charts(
    roots: &mut Vec<Root>,
    charts: &[LooseChart],
    manifest: Option<&Manifest>,
    limits: &Limits,
) -> Result<(), Error> {
    let place = |root: &Root| match &root.name {
        RootName::Known(name) => Some((name.repository().clone(), name.tag().cloned())),
        RootName::Unknown | RootName::Revision => None,
    };
    // Not those that are added: of two different charts of one name none wins, they are refused with the images.
    let known: HashSet<_> = roots.iter().filter_map(place).collect();
    for loose in charts {
        let root = loose.chart.root(manifest);
        if place(&root).is_none_or(|place| !known.contains(&place)) {
            roots.push(root);
            images::check_count(roots, limits)?;
        }
    }
    Ok(())
}
