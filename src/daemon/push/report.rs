//! What a push has done. The JSON form of these types is what `violetd push --json` prints.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::source::Taken;
use super::{Error, PlatformAccess};
use crate::base::{Chain, Class, Classified as _, Digest, PackageKind, PackageName, Timestamp};
use crate::catalog::{
    ImageReport, PackageRecord, Problem, Provenance, RunCounts, RunOutcome, RunRecord,
};
use crate::replicate::Brought;

/// What a push has done.
#[derive(Debug, Serialize)]
pub struct PushReport {
    /// The registry; none where no image was pushed.
    pub registry: Option<String>,
    /// The platform; none where no resource was published.
    pub platform: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// Whether everything is where it should be.
    pub state: State,
    /// What all runs together wanted and did.
    pub counts: RunCounts,
    /// What was pushed, in order.
    pub files: Vec<FileReport>,
    /// The runs: one for all layouts, and one for each package file.
    pub runs: Vec<RunReport>,
}

/// A run, with what it did for each image.
#[derive(Debug, Serialize)]
pub struct RunReport {
    /// Its record.
    #[serde(flatten)]
    pub run: RunRecord,
    /// How long it took.
    pub seconds: f64,
    /// First the images that failed, last those that were in place.
    pub images: Vec<ImageReport>,
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Everything is where it should be.
    Done,
    /// Something is not, and the problems say why.
    Incomplete,
    /// Nothing was pushed of it, and the problems say why.
    Failed,
}

/// What became of one path.
#[derive(Debug, Serialize)]
pub struct FileReport {
    /// The package file or the layout.
    pub path: PathBuf,
    /// How it ended.
    pub state: State,
    /// The stable code of why it was not taken in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The packages that it is or carries.
    pub packages: Vec<PackageReport>,
    /// Bytes that were written to the cache.
    pub cached_bytes: u64,
    /// What went wrong with it, or with the run that it was a part of.
    pub problems: Vec<Problem>,
}

/// A package that was pushed.
#[derive(Debug, Serialize)]
pub struct PackageReport {
    /// Digest of the file; of a layout, of what it holds.
    pub digest: Digest,
    /// Its name.
    pub name: PackageName,
    /// Its version.
    pub version: Option<String>,
    /// What it is for.
    pub kind: PackageKind,
    /// How many images it has.
    pub images: usize,
    /// What vouches for it.
    pub provenance: Provenance,
}

impl From<&PackageRecord> for PackageReport {
    fn from(record: &PackageRecord) -> Self {
        Self {
            digest: record.digest,
            name: record.name.clone(),
            version: record.version.clone(),
            kind: record.kind,
            images: record.images.len(),
            provenance: record.provenance.clone(),
        }
    }
}

impl PushReport {
    pub(super) fn new(
        registry: Option<String>,
        platform: Option<&PlatformAccess>,
        now: Timestamp,
    ) -> Self {
        Self {
            registry,
            platform: platform.map(ToString::to_string),
            started_at: now,
            finished_at: now,
            seconds: 0.0,
            state: State::Done,
            counts: RunCounts::default(),
            files: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Adds a run.
    pub(super) fn add(&mut self, brought: Brought) {
        let Brought { run, images, .. } = brought;
        self.counts.add(&run.counts);
        let taken = (run.finished_at - run.started_at).to_std();
        self.runs.push(RunReport {
            run,
            seconds: taken.unwrap_or_default().as_secs_f64(),
            images,
        });
    }

    /// Notes that nothing more comes.
    pub(super) fn finish(&mut self, now: Timestamp) {
        self.finished_at = now;
        let elapsed = (now - self.started_at).to_std().unwrap_or_default();
        self.seconds = elapsed.as_secs_f64();
        let all = |state| self.files.iter().all(|file| file.state == state);
        self.state = match (all(State::Done), all(State::Failed)) {
            (true, _) => State::Done,
            (false, true) => State::Failed,
            (false, false) => State::Incomplete,
        };
    }

    /// Returns the class of the first failure, in the order of the files; none where everything is done.
    pub fn failure(&self) -> Option<Class> {
        let failed = self.files.iter().find(|file| file.state != State::Done)?;
        let first = failed.problems.first();
        // A run without a problem that is not in sync waits for something that the next one will find.
        Some(first.map_or(Class::Transient, |problem| problem.class))
    }
}

impl FileReport {
    pub(super) fn new(path: &Path, taken: &Taken) -> Self {
        Self {
            path: path.to_owned(),
            state: State::Failed,
            code: None,
            packages: taken.records.iter().map(PackageReport::from).collect(),
            cached_bytes: taken.committed.new_bytes,
            problems: Vec::new(),
        }
    }

    /// Notes how the run ended that the file was a part of.
    pub(super) fn finish(&mut self, brought: &Brought) {
        let mut packages = self.packages.iter();
        if packages.all(|package| brought.in_sync.contains(&package.digest)) {
            self.state = State::Done;
            return;
        }
        let counts = &brought.run.counts;
        let is_nothing_there = counts.images_pushed + counts.images_in_sync == 0;
        self.state = match brought.run.outcome {
            RunOutcome::Failed if is_nothing_there => State::Failed,
            RunOutcome::Failed | RunOutcome::Incomplete | RunOutcome::InSync => State::Incomplete,
        };
        self.problems.clone_from(&brought.run.problems);
    }

    /// Notes why nothing was pushed.
    pub(super) fn fail(&mut self, error: &Error) {
        self.code = Some(error.code());
        self.problems.push(problem(&self.path, error));
    }
}

/// Returns what is to be said of a path that was not taken in.
pub(super) fn refused(path: &Path, error: &Error) -> FileReport {
    FileReport {
        path: path.to_owned(),
        state: State::Failed,
        code: Some(error.code()),
        packages: Vec::new(),
        cached_bytes: 0,
        problems: vec![problem(path, error)],
    }
}

fn problem(path: &Path, error: &Error) -> Problem {
    Problem {
        subject: path.display().to_string(),
        class: error.class(),
        message: Chain(error).to_string(),
        hint: error.hint(),
    }
}
