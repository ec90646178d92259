//! What a run does, image by image: for whoever watches it, and for whoever asks afterwards.
//!
//! [`Journal`] is told of every step while the run goes on, and can be looked at at any moment ([`Journal::sight`]).
//! [`ImageReport`]s are what it has in the end.
//!
//! A blob that several images of a repository wait for is written down for the first one of them, so that nothing is counted twice:
//! over all images, what is planned is what the run has planned, and what was sent is what it has sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::plan::{Found, Job, Plan};
use super::wanted::WantedImage;
use crate::base::Digest;
use crate::catalog::{Amount, ImageReport, ImageState, Problem, ReportRecord, RunRecord};
use crate::registry::Share;

/// The most images that the catalog keeps of a run: a row of half a megabyte. Chosen, not measured.
const IMAGES_KEPT: usize = 1000;

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Images that are to be put in place.
    pub images: u64,
    /// Those of them about which nothing more is to be done.
    pub images_done: u64,
    /// Bytes of blobs that were not known to be there.
    pub bytes: u64,
    /// Those of them that are there now.
    pub bytes_done: u64,
}

/// How a blob got to its repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It was sent.
    Sent {
        /// Bytes that went over the line.
        bytes: u64,
        /// Bytes that were there from an earlier upload.
        resumed_bytes: u64,
    },
    /// From another repository.
    Mounted,
    /// It was there.
    Skipped,
}

/// What is known of an image while the run goes on.
#[derive(Debug)]
struct Item {
    image: String,
    digest: Digest,
    state: ImageState,
    planned: Amount,
    sent: Amount,
    mounted: Amount,
    skipped: Amount,
    resumed: Amount,
    bytes: u64,
    share: Arc<Share>,
    begun_at: Option<Instant>,
    taken: Duration,
}

/// Follows runs, one after the other. A cheap clone.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    run: Mutex<Run>,
    images: AtomicU64,
    images_done: AtomicU64,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
}

#[derive(Debug, Default)]
struct Run {
    /// By index of the wanted images.
    items: Vec<Item>,
    /// For which image a blob is brought to a repository.
    owners: HashMap<Job, usize>,
}

impl Journal {
    /// Returns how far the run is.
    pub fn sight(&self) -> Sight {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Sight {
            images: get(&self.0.images),
            images_done: get(&self.0.images_done),
            bytes: get(&self.0.bytes),
            bytes_done: get(&self.0.bytes_done),
        }
    }

    /// Begins anew, with what was seen at the place of each wanted image; one question was asked for each.
    pub(super) fn begin(&self, images: &[WantedImage], found: &[Found]) {
        let item = |(image, found): (&WantedImage, &Found)| {
            let share = Arc::new(Share::default());
            share.add_request();
            Item {
                image: image.place.to_string(),
                digest: image.root.digest,
                state: match found {
                    Found::Image(there) if *there == image.root.digest => ImageState::InPlace,
                    Found::Image(_) | Found::Incomplete | Found::Nothing | Found::Unknown => {
                        ImageState::Waiting
                    }
                },
                planned: Amount::default(),
                sent: Amount::default(),
                mounted: Amount::default(),
                skipped: Amount::default(),
                resumed: Amount::default(),
                bytes: 0,
                share,
                begun_at: None,
                taken: Duration::ZERO,
            }
        };
        let items = images.iter().zip(found).map(item).collect();
        *self.run() = Run {
            items,
            owners: HashMap::new(),
        };
        for count in [
            &self.0.images,
            &self.0.images_done,
            &self.0.bytes,
            &self.0.bytes_done,
        ] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Notes what is to be done.
    pub(super) fn plan(&self, plan: &Plan) {
        let mut run = self.run();
        let Run { items, owners } = &mut *run;
        let mut bytes = 0;
        for image in &plan.images {
            for job in &image.jobs {
                let job = plan.jobs[*job as usize];
                if owners.contains_key(&job) {
                    continue;
                }
                owners.insert(job, image.index);
                let size_bytes = plan.content(job.blob).size_bytes;
                items[image.index].planned.add(size_bytes);
                bytes += size_bytes;
            }
        }
        let images = plan.images.len() as u64;
        self.0.images.store(images, Ordering::Relaxed);
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Notes that a blob is on its way to a repository, and returns what counts its requests.
    pub(super) fn begin_blob(&self, job: Job) -> Arc<Share> {
        let mut run = self.run();
        match run.owners.get(&job).copied() {
            Some(index) => run.items[index].begin(),
            // Of an image that the registry has refused: it counts for the run alone.
            None => Arc::default(),
        }
    }

    /// Notes that the manifests of an image are put, and returns what counts their requests.
    pub(super) fn begin_image(&self, index: usize) -> Arc<Share> {
        self.run().items[index].begin()
    }

    /// Notes that a blob of this size has got to a repository.
    pub(super) fn end_blob(&self, job: Job, size_bytes: u64, how: Option<How>) {
        let mut run = self.run();
        let Some(index) = run.owners.get(&job).copied() else {
            return;
        };
        let item = &mut run.items[index];
        item.end();
        let Some(how) = how else {
            return;
        };
        self.0.bytes_done.fetch_add(size_bytes, Ordering::Relaxed);
        match how {
            How::Sent {
                bytes,
                resumed_bytes,
            } => {
                item.sent.add(size_bytes);
                item.bytes += bytes;
                if resumed_bytes > 0 {
                    item.resumed.add(resumed_bytes);
                }
            }
            How::Mounted => item.mounted.add(size_bytes),
            How::Skipped => item.skipped.add(size_bytes),
        }
    }

    /// Notes that nothing more is to be done about an image.
    pub(super) fn end_image(&self, index: usize, state: ImageState) {
        let mut run = self.run();
        let item = &mut run.items[index];
        item.end();
        item.state = state;
        self.0.images_done.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns what was done, with the problems by index: first the images that failed, last those that were in place.
    pub(super) fn finish(&self, problems: &BTreeMap<usize, Problem>) -> Vec<ImageReport> {
        let mut run = self.run();
        let items = std::mem::take(&mut run.items);
        run.owners = HashMap::new();
        drop(run);
        let mut order: Vec<(ImageState, usize)> = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let state = if problems.contains_key(&index) {
                ImageState::Failed
            } else {
                item.state
            };
            order.push((state, index));
        }
        order.sort_unstable();
        let mut items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
        let report = |(state, index): (ImageState, usize)| {
            let item = items[index].take()?;
            Some(item.report(state, problems.get(&index).cloned()))
        };
        order.into_iter().filter_map(report).collect()
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.0.run.lock().expect("no holder of this lock panics")
    }
}

/// Returns what the catalog keeps of what a run did.
pub(super) fn kept(run: &RunRecord, images: &[ImageReport]) -> ReportRecord {
    let images_kept = &images[..images.len().min(IMAGES_KEPT)];
    ReportRecord {
        target: run.target.clone(),
        started_at: run.started_at,
        images: images_kept.to_vec(),
        images_left_out: (images.len() - images_kept.len()) as u64,
    }
}

impl Item {
    fn begin(&mut self) -> Arc<Share> {
        self.begun_at.get_or_insert_with(Instant::now);
        Arc::clone(&self.share)
    }

    fn end(&mut self) {
        if let Some(begun_at) = self.begun_at {
            self.taken = begun_at.elapsed();
        }
    }

    fn report(self, state: ImageState, problem: Option<Problem>) -> ImageReport {
        ImageReport {
            image: self.image,
            digest: self.digest,
            state,
            planned: self.planned,
            sent: self.sent,
            mounted: self.mounted,
            skipped: self.skipped,
            resumed: self.resumed,
            bytes: self.bytes,
            requests: self.share.requests(),
            retries: self.share.retries(),
            milliseconds: u64::try_from(self.taken.as_millis()).unwrap_or(u64::MAX),
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::planner::tests::{Known, digest, plan_with, state, tree, wanted};
    use super::*;
    use crate::base::Class;

    #[test]
    fn what_images_share_is_counted_once_and_what_failed_comes_first() {
        let there = || tree("there", &["base"]);
        let states = [
            state(
                wanted("a", "v1", "one"),
                tree("one", &["shared", "x"]),
                None,
            ),
            state(wanted("a", "v2", "two"), tree("two", &["shared"]), None),
            state(wanted("b", "v1", "there"), there(), Some("there")),
        ];
        let plan = plan_with(&states, Known::default());
        let images: Vec<WantedImage> = states.iter().map(|it| it.wanted.clone()).collect();
        let found: Vec<Found> = states.iter().map(|it| it.found).collect();
        let journal = Journal::default();
        journal.begin(&images, &found);
        journal.plan(&plan);
        let sight = |images_done, bytes_done| Sight {
            images: 2,
            images_done,
            bytes: 200,
            bytes_done,
        };
        assert_eq!(journal.sight(), sight(0, 0));
        for (at, job) in plan.jobs.iter().enumerate() {
            journal.begin_blob(*job).add_request();
            let how = if at == 0 {
                How::Mounted
            } else {
                How::Sent {
                    bytes: 70,
                    resumed_bytes: 30,
                }
            };
            journal.end_blob(*job, 100, Some(how));
        }
        journal.begin_image(0).add_request();
        journal.end_image(0, ImageState::Pushed);
        journal.end_image(1, ImageState::Failed);
        assert_eq!(journal.sight(), sight(2, 200));

        let problem = Problem {
            subject: "image a:v2".to_owned(),
            class: Class::Denied,
            message: "no".to_owned(),
            hint: None,
        };
        let problems = BTreeMap::from([(1, problem.clone())]);
        let report = journal.finish(&problems);
        let states: Vec<ImageState> = report.iter().map(|image| image.state).collect();
        assert_eq!(
            states,
            [ImageState::Failed, ImageState::Pushed, ImageState::InPlace]
        );
        let [failed, pushed, in_place] = &report[..] else {
            panic!("expected three images, found {report:?}");
        };
        assert_eq!(failed.problem, Some(problem));
        assert_eq!(failed.planned, Amount::default());
        let amount = |blobs, bytes| Amount { blobs, bytes };
        assert_eq!(pushed.planned, amount(2, 200));
        assert_eq!(pushed.sent, amount(1, 100));
        assert_eq!(pushed.mounted, amount(1, 100));
        assert_eq!(pushed.resumed, amount(1, 30));
        assert_eq!((pushed.bytes, pushed.requests), (70, 4));
        assert_eq!(in_place.digest, digest("there"));
        assert_eq!((in_place.requests, in_place.milliseconds), (1, 0));
        assert!(journal.finish(&problems).is_empty());
    }
}
