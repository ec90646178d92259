//! Tests of the flow: what a registry sees when steps end in any order, and when some of them fail.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::plan::{Found, Standing};
use super::super::planner::tests::{Known, State, digest, plan_with, state, states, tree, wanted};
use super::*;

/// How many steps are under way at one time.
const CONCURRENCY: usize = 3;

/// What happens to a step: chosen by a number, so that cases are small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Failed(Reach),
    /// Of an image: the registry lacks something of it.
    Refused,
}

/// A registry that is told of every step.
struct Registry<'p> {
    plan: &'p Plan,
    flow: Flow<'p>,
    held: BTreeSet<(ContentId, RepositoryId)>,
    running: Vec<Step>,
    sent: BTreeMap<ContentId, usize>,
    pushed: Vec<usize>,
    failed: Vec<usize>,
    /// What it was asked, in order.
    log: Vec<String>,
}

impl<'p> Registry<'p> {
    /// Begins to carry out a plan. What is in `held` is there.
    fn new(plan: &'p Plan, states: &[State]) -> Self {
        let (flow, failures) = Flow::new(plan, CONCURRENCY);
        let mut held = BTreeSet::new();
        for state in states.iter().filter(|state| state.found != Found::Nothing) {
            let blobs = state.tree.blobs.iter().map(|blob| blob.descriptor.digest);
            for digest in blobs {
                let ids = (0..plan.content_count()).map(content_id);
                let id = ids.clone().find(|id| plan.digest(*id) == digest);
                let repository = plan
                    .repositories
                    .iter()
                    .position(|it| *it == state.wanted.place.repository);
                if let (Some(id), Some(repository)) = (id, repository) {
                    held.insert((id, repository_id(repository)));
                }
            }
        }
        Self {
            plan,
            flow,
            held,
            running: Vec::new(),
            sent: BTreeMap::new(),
            pushed: Vec::new(),
            failed: failures.into_iter().map(|(at, _)| at).collect(),
            log: Vec::new(),
        }
    }

    /// Begins all that can be begun.
    fn begin(&mut self) {
        while self.running.len() < CONCURRENCY
            && let Some(step) = self.flow.next()
        {
            match &step {
                Step::Blob(job) => self.check_blob(job),
                Step::Image(image) => self.check_image(*image),
            }
            self.running.push(step);
        }
    }

    fn check_blob(&mut self, job: &BlobJob) {
        let Job { blob, repository } = job.what;
        // A repository may be asked again, for an image that was refused, while others mount the blob from there.
        let is_other = |step: &&Step| matches!(step, Step::Blob(it) if it.what.blob == blob && it.from.is_none());
        let others = self.running.iter().filter(is_other).count();
        if let Some(from) = job.from {
            assert!(self.held.contains(&(blob, from)), "mounted from nowhere");
        } else {
            assert_eq!(others, 0, "a blob on its way twice");
        }
        let verb = if job.from.is_some() { "mount" } else { "send" };
        let (digest, repository) = (self.plan.digest(blob), self.plan.repository(repository));
        let digest = digest.short();
        self.log.push(format!("{verb} {digest} {repository}"));
    }

    fn check_image(&mut self, image: ImageJob) {
        let step = &self.plan.images[image.at];
        for job in &step.jobs {
            let Job { blob, repository } = self.plan.jobs[*job as usize];
            assert!(
                self.held.contains(&(blob, repository)),
                "put before its blobs"
            );
        }
        let is_pushed = |index: &usize| {
            let pushed = self.pushed.iter();
            pushed
                .copied()
                .any(|at| self.plan.images[at].index == *index)
        };
        assert!(step.after.is_empty() || step.after.iter().any(is_pushed));
        self.log.push(format!("put {}", step.index));
    }

    /// Ends one of the steps under way.
    fn end(&mut self, which: usize, fate: Fate) {
        let step = self.running.remove(which % self.running.len());
        match (step, fate) {
            (Step::Blob(job), Fate::Done | Fate::Refused) => {
                if job.from.is_none() {
                    *self.sent.entry(job.what.blob).or_default() += 1;
                }
                self.held.insert((job.what.blob, job.what.repository));
                self.flow.arrived(&job);
            }
            (Step::Blob(job), Fate::Failed(reach)) => {
                let failures = self.flow.failed(&job, reach);
                self.failed.extend(failures.into_iter().map(|(at, _)| at));
            }
            (Step::Image(image), Fate::Refused) if !image.is_again => self.flow.refused(image),
            (Step::Image(image), Fate::Done) => {
                self.pushed.push(image.at);
                self.flow.in_place(image);
            }
            (Step::Image(image), Fate::Failed(_) | Fate::Refused) => {
                let failures = self.flow.not_in_place(image);
                self.failed.extend(failures.into_iter().map(|(at, _)| at));
            }
        }
    }

    /// Goes on to the end, in the order in which steps were begun.
    fn finish(&mut self) {
        self.begin();
        while !self.running.is_empty() {
            self.end(0, Fate::Done);
            self.begin();
        }
    }

    fn check_end(&self) {
        let mut ended: Vec<usize> = self.pushed.iter().chain(&self.failed).copied().collect();
        ended.sort_unstable();
        let all: Vec<usize> = (0..self.plan.images.len()).collect();
        assert_eq!(ended, all, "every image ends once: {:?}", self.log);
    }
}

fn content_id(at: usize) -> ContentId {
    ContentId(number(at))
}

fn repository_id(at: usize) -> RepositoryId {
    RepositoryId(number(at))
}

fn fates() -> impl Strategy<Value = Vec<(usize, Fate)>> {
    let fate = prop_oneof![
        6 => Just(Fate::Done),
        1 => Just(Fate::Failed(Reach::Repository)),
        1 => Just(Fate::Failed(Reach::Passing)),
        1 => Just(Fate::Failed(Reach::Blob)),
        1 => Just(Fate::Refused),
    ];
    proptest::collection::vec((0..CONCURRENCY, fate), 0..60)
}

proptest! {
    #[test]
    fn whatever_fails_and_in_whichever_order_every_image_ends_once(
        states in states(), fates in fates(),
    ) {
        let plan = plan_with(&states, Known::default());
        let mut registry = Registry::new(&plan, &states);
        registry.begin();
        for (which, fate) in fates {
            if !registry.running.is_empty() {
                registry.end(which, fate);
                registry.begin();
            }
        }
        registry.finish();
        registry.check_end();
    }

    #[test]
    fn without_failures_every_blob_is_sent_once_and_every_image_put(
        states in states(), order in proptest::collection::vec(0..CONCURRENCY, 0..60),
    ) {
        let plan = plan_with(&states, Known::default());
        let mut registry = Registry::new(&plan, &states);
        registry.begin();
        for which in order {
            if !registry.running.is_empty() {
                registry.end(which, Fate::Done);
                registry.begin();
            }
        }
        registry.finish();
        registry.check_end();
        let behind = states.iter().filter(|state| {
            let standing = Standing::new(&state.wanted, state.found, state.placed);
            standing == Standing::Behind { replaces: None }
        });
        // Every image can be put: what it is about comes before it or is there.
        prop_assert_eq!(registry.pushed.len(), behind.count());
        prop_assert!(registry.sent.values().all(|times| *times == 1));
    }
}

/// Three repositories that want the same blob, each with one of its own.
fn three() -> Vec<State> {
    ["a", "b", "c"]
        .map(|name| {
            let own = format!("own {name}");
            state(wanted(name, "v1", name), tree(name, &["base", &own]), None)
        })
        .into()
}

#[test]
fn an_image_is_put_as_soon_as_its_blobs_are_there() {
    let states = three();
    let plan = plan_with(&states, Known::default());
    let mut registry = Registry::new(&plan, &states);
    registry.finish();
    let base = digest("base").short();
    let put = registry.log.iter().position(|it| it.starts_with("put"));
    let last_send = registry.log.iter().rposition(|it| it.starts_with("send"));
    let of_base = registry.log.iter().filter(|it| it.contains(&base));
    let of_base: Vec<&String> = of_base.collect();
    let [first, mounts @ ..] = &of_base[..] else {
        panic!("{:?}", registry.log)
    };
    assert!(first.starts_with("send") && mounts.iter().all(|it| it.starts_with("mount")));
    assert_eq!(mounts.len(), 2);
    assert!(put < last_send.map(|at| at + 3), "{:?}", registry.log);
    registry.check_end();
}

#[test]
fn where_the_first_repository_does_not_get_a_blob_another_one_leads() {
    let states = three();
    let plan = plan_with(&states, Known::default());
    let mut registry = Registry::new(&plan, &states);
    registry.begin();
    registry.end(0, Fate::Failed(Reach::Repository));
    registry.finish();
    registry.check_end();
    assert_eq!((registry.pushed.len(), registry.failed.len()), (2, 1));
    let base = digest("base").short();
    let of_base: Vec<&str> = registry
        .log
        .iter()
        .filter(|it| it.contains(&base))
        .map(|it| it.split(' ').next().unwrap())
        .collect();
    assert_eq!(of_base, ["send", "send", "mount"]);
    let own = digest("own a").short();
    let others = registry.log.iter().filter(|it| it.contains(&own)).count();
    assert!(others <= 1, "what only the failed image wants is not begun");
}

#[test]
fn a_registry_that_does_not_answer_is_not_asked_for_each_repository() {
    let names: Vec<String> = (0..9).map(|number| format!("r{number}")).collect();
    let states: Vec<State> = names
        .iter()
        .map(|name| state(wanted(name, "v1", name), tree(name, &["base"]), None))
        .collect();
    let plan = plan_with(&states, Known::default());
    let mut registry = Registry::new(&plan, &states);
    for _ in 0..LEADERS_MAX {
        registry.begin();
        assert_eq!(registry.running.len(), 1);
        registry.end(0, Fate::Failed(Reach::Passing));
    }
    registry.begin();
    assert!(registry.running.is_empty());
    registry.check_end();
    assert_eq!(registry.failed.len(), 9);
}

#[test]
fn what_was_thought_to_be_there_and_is_not_is_asked_for_once_for_all_images() {
    let states: Vec<State> = ["v1", "v2"]
        .map(|tag| state(wanted("a", tag, tag), tree(tag, &["base"]), None))
        .into();
    let believed = Known([((digest("base"), "a".parse().unwrap()), true)].into());
    let plan = plan_with(&states, believed);
    assert!(plan.jobs.is_empty());
    let mut registry = Registry::new(&plan, &states);
    registry.begin();
    registry.end(0, Fate::Refused);
    registry.end(0, Fate::Refused);
    registry.finish();
    registry.check_end();
    let base = format!("send {} a", digest("base").short());
    assert_eq!(registry.log.iter().filter(|it| **it == base).count(), 1);
    assert_eq!(registry.pushed.len(), 2);
}

#[test]
fn mounts_leave_room_for_what_is_sent() {
    let names: Vec<String> = (0..20).map(|number| format!("r{number}")).collect();
    let mut states: Vec<State> = names
        .iter()
        .map(|name| state(wanted(name, "v1", name), tree(name, &["base"]), None))
        .collect();
    states.push(state(wanted("z", "v1", "z"), tree("z", &["large"]), None));
    states.push(state(wanted("z", "v2", "y"), tree("y", &["larger"]), None));
    let there = Known([((digest("base"), "elsewhere".parse().unwrap()), false)].into());
    let plan = plan_with(&states, there);
    let mut registry = Registry::new(&plan, &states);
    let elsewhere = plan.blobs[0].source.unwrap();
    registry.held.insert((plan.blobs[0].blob, elsewhere));
    registry.begin();
    let sends = registry.log.iter().filter(|it| it.starts_with("send"));
    assert_eq!(sends.count(), 2, "{:?}", registry.log);
    registry.finish();
    registry.check_end();
}
