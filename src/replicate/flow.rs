//! Which step of a plan comes next, while others are under way, succeed and fail. Pure.
//!
//! Start from [`Flow::new`]; ask for [`Flow::next`] until there is nothing more to begin, and say what became of each step.
//!
//! # States
//!
//! ```text
//! blob    unled ──its next job begins──► led ──arrived──► certain: all other jobs mount from there
//!           ▲                             │
//!           └────────── failed ───────────┘  the next repository leads
//!
//! image   waits for jobs ─► waits for one of what it is about ─► put ─► in place
//!           ▲                                                     │
//!           └────────── refused for what is missing, once ────────┘  all of it is asked for
//! ```
//!
//! # Invariants
//!
//! - At most one job of a blob is under way until one of them has arrived: its bytes are sent once, and a mount starts when
//!   its source is there.
//! - An image is put when all that it waits for has arrived, and at once then.
//! - A job that no image waits for any more is not begun.
//! - Every image ends in place or failed, each once.
//!
//! # Failure
//!
//! Where a blob cannot be brought to one repository, another one that wants it leads. What has nothing to do with the repository
//! ends all jobs of the blob, and so do [`LEADERS_MAX`] failures that may pass: a registry that does not answer is not asked
//! once for each repository.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use super::plan::{ContentId, ImageStep, Job, Plan, RepositoryId, number};

/// How many repositories are tried for a blob while failures are of the kind that may pass. Each try has been repeated by the client
/// already. Chosen, not measured.
const LEADERS_MAX: u8 = 3;

/// A step to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Bring a blob to a repository.
    Blob(BlobJob),
    /// Put the manifests of an image.
    Image(ImageJob),
}

/// A blob on its way to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlobJob {
    /// Number of the job.
    job: u32,
    /// What goes where.
    pub(super) what: Job,
    /// From where it is mounted. The repository itself is asked where that is unknown.
    pub(super) from: Option<RepositoryId>,
    is_leader: bool,
}

impl BlobJob {
    /// Returns whether it is counted as a request or two.
    const fn is_short(&self) -> bool {
        !self.is_leader || self.from.is_some()
    }
}

/// An image whose blobs are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ImageJob {
    /// Position in the plan.
    pub(super) at: usize,
    /// Whether all its manifests are put, whatever is known of them.
    pub(super) is_again: bool,
}

/// How far a failure of a blob reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It is about the repository.
    Repository,
    /// It may pass, for this repository and others.
    Passing,
    /// It is about the blob itself, or all comes to an end.
    Blob,
}

/// Why an image does not get to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A blob could not be brought: the reason is that of this step.
    Step,
    /// None of what it is about is in place.
    Subject,
}

/// Images that fail, by position in the plan, and why.
pub(super) type Failures = Vec<(usize, Cause)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Waiting,
    Begun,
    Arrived,
    Failed,
}

#[derive(Clone, Copy, Debug)]
struct BlobState {
    /// Where it may be, or surely is.
    source: Option<RepositoryId>,
    is_certain: bool,
    /// Whether a job leads that is ready or under way.
    is_led: bool,
    failures: u8,
    /// Where it stands in the order of the plan.
    rank: u32,
    /// The jobs of the plan that were not made ready yet.
    next: u32,
    end: u32,
}

#[derive(Debug)]
struct ImageState {
    progress: Progress,
    /// Jobs that it still waits for.
    missing: u32,
    /// How many of the images that it is about may still get in place. None where it need not wait for any.
    subjects: Option<u32>,
    is_refused: bool,
}

impl ImageState {
    /// Notes that an image which this one is about does not get in place. Returns whether it was the last one.
    const fn loses_subject(&mut self) -> bool {
        match &mut self.subjects {
            None => false,
            Some(subjects) => {
                *subjects -= 1;
                *subjects == 0
            }
        }
    }
}

/// A job that is ready: what goes first is smaller.
type Ready = Reverse<(u32, u32)>;

/// A plan that is being carried out.
#[derive(Debug)]
pub(super) struct Flow<'p> {
    plan: &'p Plan,
    blobs: Vec<BlobState>,
    jobs: Vec<Progress>,
    images: Vec<ImageState>,
    /// Which images wait for each job of the plan, see [`Self::waiting`].
    waiting: Vec<u32>,
    waiting_start: Vec<u32>,
    /// Jobs beyond those of the plan: of images that were refused. With the images that wait for each.
    more: Vec<(Job, Vec<u32>)>,
    more_of: HashMap<(ContentId, RepositoryId), u32>,
    /// Those of them that were not made ready yet.
    more_queued: HashMap<ContentId, Vec<u32>>,
    /// Images by what they are about, as an index of a wanted image.
    about: HashMap<usize, Vec<usize>>,
    to_put: VecDeque<usize>,
    /// Ready jobs that are a request or two: mounts and questions.
    short: BinaryHeap<Ready>,
    /// Ready jobs that send a blob.
    long: BinaryHeap<Ready>,
    short_running: usize,
    /// How many short steps run while long ones could.
    short_max: usize,
}

impl<'p> Flow<'p> {
    /// Begins to carry out `plan`, `concurrency` steps at a time. Returns, too, which images fail because of what they are about.
    pub(super) fn new(plan: &'p Plan, concurrency: usize) -> (Self, Failures) {
        let (waiting, waiting_start) = list_waiting(plan);
        let unknown = BlobState {
            source: None,
            is_certain: false,
            is_led: false,
            failures: 0,
            rank: 0,
            next: 0,
            end: 0,
        };
        let mut blobs = vec![unknown; plan.content_count()];
        for (rank, step) in plan.blobs.iter().enumerate() {
            blobs[step.blob.at()] = BlobState {
                source: step.source,
                rank: number(rank),
                next: step.jobs.start,
                end: step.jobs.end,
                ..unknown
            };
        }
        let image_of = |step: &ImageStep| ImageState {
            progress: Progress::Waiting,
            missing: number(step.jobs.len()),
            subjects: (!step.after.is_empty()).then(|| number(step.after.len())),
            is_refused: false,
        };
        let mut flow = Self {
            blobs,
            jobs: vec![Progress::Waiting; plan.jobs.len()],
            images: plan.images.iter().map(image_of).collect(),
            waiting,
            waiting_start,
            more: Vec::new(),
            more_of: HashMap::new(),
            more_queued: HashMap::new(),
            about: HashMap::new(),
            to_put: VecDeque::new(),
            short: BinaryHeap::new(),
            long: BinaryHeap::new(),
            short_running: 0,
            short_max: (concurrency / 2).max(1),
            plan,
        };
        let failures = flow.begin();
        (flow, failures)
    }

    /// Makes ready what waits for nothing.
    fn begin(&mut self) -> Failures {
        let planned: HashSet<usize> = self.plan.images.iter().map(|step| step.index).collect();
        let mut hopeless = Vec::new();
        for (at, step) in self.plan.images.iter().enumerate() {
            for subject in &step.after {
                if planned.contains(subject) {
                    self.about.entry(*subject).or_default().push(at);
                } else if self.images[at].loses_subject() {
                    hopeless.push((at, Cause::Subject));
                }
            }
        }
        let failures = self.fail(hopeless);
        for step in &self.plan.blobs {
            self.lead(step.blob);
        }
        for at in 0..self.images.len() {
            self.put_if_ready(at);
        }
        failures
    }

    /// Returns the next step to begin, if one is ready.
    pub(super) fn next(&mut self) -> Option<Step> {
        loop {
            // Short ones complete images; but they must not take all the room while the line is idle.
            let has_room = self.long.is_empty() || self.short_running < self.short_max;
            if has_room && let Some(at) = self.to_put.pop_front() {
                if self.images[at].progress == Progress::Begun {
                    self.short_running += 1;
                    let is_again = self.images[at].is_refused;
                    return Some(Step::Image(ImageJob { at, is_again }));
                }
                continue;
            }
            let from_short = has_room && !self.short.is_empty();
            let queue = if from_short {
                &mut self.short
            } else {
                &mut self.long
            };
            let Reverse((_, job)) = queue.pop()?;
            if let Some(step) = self.begin_job(job) {
                self.short_running += usize::from(step.is_short());
                return Some(Step::Blob(step));
            }
        }
    }

    /// Begins a job, unless nobody waits for it any more.
    fn begin_job(&mut self, job: u32) -> Option<BlobJob> {
        let what = self.job(job);
        let state = self.blobs[what.blob.at()];
        let is_leader = !state.is_certain;
        let is_wanted = |at: &u32| self.images[*at as usize].progress == Progress::Waiting;
        if !self.waiting(job).iter().any(is_wanted) {
            self.jobs[job as usize] = Progress::Failed;
            if is_leader {
                self.blobs[what.blob.at()].is_led = false;
                self.lead(what.blob);
            }
            return None;
        }
        self.jobs[job as usize] = Progress::Begun;
        Some(BlobJob {
            job,
            what,
            from: state.source.filter(|from| *from != what.repository),
            is_leader,
        })
    }

    /// Says that a blob has arrived.
    pub(super) fn arrived(&mut self, step: &BlobJob) {
        self.short_running -= usize::from(step.is_short());
        self.jobs[step.job as usize] = Progress::Arrived;
        let blob = &mut self.blobs[step.what.blob.at()];
        if !blob.is_certain {
            blob.is_certain = true;
            blob.source = Some(step.what.repository);
        }
        self.release(step.what.blob);
        for at in self.waiting(step.job).to_vec() {
            self.images[at as usize].missing -= 1;
            self.put_if_ready(at as usize);
        }
    }

    /// Says that a blob could not be brought. Returns the images that fail.
    pub(super) fn failed(&mut self, step: &BlobJob, reach: Reach) -> Failures {
        self.short_running -= usize::from(step.is_short());
        let mut lost = vec![step.job];
        let blob = &mut self.blobs[step.what.blob.at()];
        if step.is_leader {
            blob.is_led = false;
            blob.failures += u8::from(reach == Reach::Passing);
            if reach == Reach::Blob || blob.failures >= LEADERS_MAX {
                lost.extend(std::mem::replace(&mut blob.next, blob.end)..blob.end);
                lost.extend(
                    self.more_queued
                        .remove(&step.what.blob)
                        .into_iter()
                        .flatten(),
                );
            }
        }
        let mut images = Vec::new();
        for job in lost {
            self.jobs[job as usize] = Progress::Failed;
            let waiting = self.waiting(job).iter();
            images.extend(waiting.map(|at| (*at as usize, Cause::Step)));
        }
        let failures = self.fail(images);
        self.lead(step.what.blob);
        failures
    }

    /// Says that an image is in place.
    pub(super) fn in_place(&mut self, image: ImageJob) {
        self.short_running -= 1;
        self.images[image.at].progress = Progress::Arrived;
        let index = self.plan.images[image.at].index;
        for at in self.about.remove(&index).into_iter().flatten() {
            self.images[at].subjects = None;
            self.put_if_ready(at);
        }
    }

    /// Says that an image could not be put. Returns what fails with it, the image included.
    pub(super) fn not_in_place(&mut self, image: ImageJob) -> Failures {
        self.short_running -= 1;
        self.fail(vec![(image.at, Cause::Step)])
    }

    /// Says that the registry lacks something of an image that it was thought to hold. Everything of it is asked for, and it is put
    /// again then.
    pub(super) fn refused(&mut self, image: ImageJob) {
        self.short_running -= 1;
        let step = &self.plan.images[image.at];
        let state = &mut self.images[image.at];
        state.progress = Progress::Waiting;
        state.is_refused = true;
        for blob in self.plan.blobs_of(step) {
            let key = (*blob, step.repository);
            let job = *self.more_of.entry(key).or_insert_with(|| {
                let job = number(self.jobs.len());
                self.jobs.push(Progress::Waiting);
                let what = Job {
                    blob: *blob,
                    repository: step.repository,
                };
                self.more.push((what, Vec::new()));
                self.more_queued.entry(*blob).or_default().push(job);
                job
            });
            // One that has arrived or failed for another image is not repeated: the second refusal is the last one.
            if matches!(self.jobs[job as usize], Progress::Waiting | Progress::Begun) {
                let at = number(image.at);
                self.more[job as usize - self.plan.jobs.len()].1.push(at);
                self.images[image.at].missing += 1;
            }
            self.lead(*blob);
        }
        self.put_if_ready(image.at);
    }

    /// Makes the next job of a blob ready, or all of them where it surely is somewhere.
    fn lead(&mut self, blob: ContentId) {
        let state = &self.blobs[blob.at()];
        if state.is_certain {
            self.release(blob);
        } else if !state.is_led
            && let Some(job) = self.take_job(blob)
        {
            self.blobs[blob.at()].is_led = true;
            self.make_ready(job);
        }
    }

    /// Makes all jobs of a blob ready.
    fn release(&mut self, blob: ContentId) {
        while let Some(job) = self.take_job(blob) {
            self.make_ready(job);
        }
    }

    /// Takes a job that was not made ready yet.
    fn take_job(&mut self, blob: ContentId) -> Option<u32> {
        let state = &mut self.blobs[blob.at()];
        if state.next < state.end {
            state.next += 1;
            return Some(state.next - 1);
        }
        self.more_queued.get_mut(&blob)?.pop()
    }

    fn make_ready(&mut self, job: u32) {
        let state = &self.blobs[self.job(job).blob.at()];
        let ready = Reverse((state.rank, job));
        if state.source.is_some() {
            self.short.push(ready);
        } else {
            self.long.push(ready);
        }
    }

    /// Puts an image in the queue of those that can be put.
    fn put_if_ready(&mut self, at: usize) {
        let state = &mut self.images[at];
        if state.progress == Progress::Waiting && state.missing == 0 && state.subjects.is_none() {
            state.progress = Progress::Begun;
            self.to_put.push_back(at);
        }
    }

    /// Ends images, and those that are about nothing else. Returns all that were not at their ends before.
    fn fail(&mut self, mut images: Failures) -> Failures {
        let mut failures = Vec::new();
        while let Some((at, cause)) = images.pop() {
            let state = &mut self.images[at];
            if matches!(state.progress, Progress::Arrived | Progress::Failed) {
                continue;
            }
            state.progress = Progress::Failed;
            failures.push((at, cause));
            let index = self.plan.images[at].index;
            for at in self.about.remove(&index).into_iter().flatten() {
                if self.images[at].loses_subject() {
                    images.push((at, Cause::Subject));
                }
            }
        }
        failures
    }

    fn job(&self, job: u32) -> Job {
        let planned = self.plan.jobs.len();
        match (job as usize).checked_sub(planned) {
            None => self.plan.jobs[job as usize],
            Some(at) => self.more[at].0,
        }
    }

    /// Returns the images that wait for a job.
    fn waiting(&self, job: u32) -> &[u32] {
        let (at, planned) = (job as usize, self.plan.jobs.len());
        match at.checked_sub(planned) {
            None => {
                let (start, end) = (self.waiting_start[at], self.waiting_start[at + 1]);
                &self.waiting[start as usize..end as usize]
            }
            Some(at) => &self.more[at].1,
        }
    }
}

/// Returns the images that wait for each job of a plan, one job after the other, and where those of each begin.
fn list_waiting(plan: &Plan) -> (Vec<u32>, Vec<u32>) {
    let mut start = vec![0; plan.jobs.len() + 1];
    for job in plan.images.iter().flat_map(|step| &step.jobs) {
        start[*job as usize + 1] += 1;
    }
    for at in 1..start.len() {
        start[at] += start[at - 1];
    }
    let mut next = start.clone();
    let mut waiting = vec![0; *start.last().expect("it has one more than there are jobs") as usize];
    for (at, step) in plan.images.iter().enumerate() {
        for job in &step.jobs {
            let next = &mut next[*job as usize];
            waiting[*next as usize] = number(at);
            *next += 1;
        }
    }
    (waiting, start)
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
