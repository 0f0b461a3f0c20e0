//! The workers of a service are replaced by new processes, a few at a time: `restart`, and
//! recycling. A temporary worker is started first, so that as many new processes are ready as old
//! ones have stopped; the old ones keep their ids. Here is what is under way;
//! `rolling` decides what comes next.

use crate::engine::keys::{ServiceKey, WorkerKey};
use protocol::{RunId, Tick, WorkerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// All that is under way.
#[derive(Debug, Default)]
pub(crate) struct Rollouts {
    pub(super) by_service: BTreeMap<ServiceKey, Rollout>,
    /// Of each service whose `recycle_memory` is too low: the value that was told.
    pub(super) told_memory: BTreeMap<ServiceKey, u64>,
    /// Workers that were replaced because of their memory, until the new process has too much, too.
    pub(super) by_memory: BTreeSet<WorkerId>,
    /// `Timer::Recycle` is set: a service has a limit. Independent of the rest.
    pub(super) is_looking: bool,
}

/// Why workers are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// `restart`: its number, and who said it.
    Restart(u64, String),
    /// A limit of the service (`recycle`).
    Recycle,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Workers are replaced.
    Rolling,
    /// It failed; the temporary worker serves on until those that were begun are ready again.
    Holding,
    /// The temporary worker ends.
    Terminating,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Why.
    pub(crate) cause: Cause,
    /// The workers to replace, the first one first.
    pub(crate) workers: VecDeque<WorkerId>,
    /// So many of the service stay ready.
    pub(crate) min: usize,
    /// Most that are replaced at a time.
    pub(crate) batch: usize,
    /// The worker that a temporary one is to be like; `None` = there is none.
    pub(crate) like: Option<WorkerId>,
}

/// The workers of one service that are being replaced.
#[derive(Debug)]
pub(crate) struct Rollout {
    pub(super) cause: Cause,
    pub(super) phase: Phase,
    pub(super) min: usize,
    pub(super) batch: usize,
    /// Those that are not begun.
    pub(super) left: VecDeque<WorkerId>,
    /// Those that were begun; alone the temporary one, until it is ready.
    pub(super) steps: Vec<Step>,
    /// The temporary worker, from its start until it is removed.
    pub(super) temporary: Option<WorkerId>,
    /// The worker that it is to be like, until it is made. Valid in `Rolling`.
    pub(super) like: Option<WorkerId>,
    pub(super) all: usize,
    pub(super) done: usize,
    /// Since when none can be begun, because too few are ready. Valid in `Rolling`.
    pub(super) stuck: Option<Tick>,
    /// How many were left out meanwhile, by what an operator did with them.
    pub(super) dropped: BTreeMap<&'static str, usize>,
    /// How many of those that are done get their new process later, by when that is.
    pub(super) later: BTreeMap<&'static str, usize>,
    /// Why no temporary worker stood in, if one was to; as its host said.
    pub(super) full: Option<String>,
    /// A worker is in another state, and that was not looked at yet. Independent of the phase.
    pub(super) has_turned: bool,
    /// Its outcome was told. Independent of the phase: a failure is told before the end.
    pub(super) is_told: bool,
}

/// What the hub is to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Make a temporary worker like this one.
    Add(WorkerKey),
    /// Remove the temporary worker.
    Remove(WorkerKey),
    /// Tell what became of it.
    Tell(Outcome),
}

/// What became of it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Why it was begun.
    pub(crate) cause: Cause,
    /// How many workers were replaced.
    pub(crate) done: usize,
    /// How many were not.
    pub(crate) left: usize,
    /// Why it stopped; `None` = it did not.
    pub(crate) failure: Option<String>,
    /// Further remarks, a sentence each.
    pub(crate) notes: Vec<String>,
}

impl Rollout {
    pub(super) fn new(plan: Plan, temporary: Option<WorkerId>) -> Self {
        let like = plan.like.filter(|_| temporary.is_none());
        Self {
            cause: plan.cause,
            phase: Phase::Rolling,
            min: plan.min,
            batch: plan.batch,
            all: plan.workers.len(),
            left: plan.workers,
            steps: Vec::new(),
            temporary,
            like,
            done: 0,
            stuck: None,
            dropped: BTreeMap::new(),
            later: BTreeMap::new(),
            full: None,
            has_turned: false,
            is_told: false,
        }
    }

    /// Whether its first step is to make the temporary worker ready.
    pub(super) fn is_first(&self) -> bool {
        self.temporary.is_some_and(|id| self.steps.iter().any(|step| step.worker == id))
    }

    /// One of them is not replaced any more.
    pub(super) fn drop_one(&mut self, why: &'static str) {
        self.all -= 1;
        *self.dropped.entry(why).or_default() += 1;
    }

    /// One of them is done, because its next start is of the new program anyway.
    pub(super) fn done_later(&mut self, when: &'static str) {
        self.done += 1;
        *self.later.entry(when).or_default() += 1;
    }

    pub(super) fn tell(&mut self, failure: Option<String>) -> Next {
        self.is_told = true;
        let left = self.all - self.done;
        let full = self.full.iter();
        let mut notes: Vec<String> =
            full.map(|why| format!("no temporary worker stood in: {why}")).collect();
        notes.extend(self.dropped.iter().map(|(why, count)| format!("{count} {why} meanwhile")));
        let later = self.later.iter();
        notes.extend(later.map(|(when, count)| format!("{count} of them will start {when}")));
        let cause = self.cause.clone();
        Next::Tell(Outcome { cause, done: self.done, left, failure, notes })
    }

    /// How far it is, in words.
    pub(crate) fn words(&self) -> String {
        let what = match self.cause {
            Cause::Restart(..) => "restart",
            Cause::Recycle => "recycling",
        };
        let (done, all) = (self.done, self.all);
        let now: Vec<String> = self.steps.iter().map(|step| step.worker.to_string()).collect();
        let now = if now.is_empty() { String::new() } else { format!(", now {}", now.join(" ")) };
        let temporary = match self.temporary {
            Some(id) => format!(", temporary worker {id}"),
            None => String::new(),
        };
        match self.phase {
            Phase::Rolling => format!("{what}: {done} of {all} replaced{now}{temporary}"),
            Phase::Holding => format!("{what} failed: {done} of {all} replaced{now}{temporary}"),
            Phase::Terminating => format!("{what} ends: {done} of {all} replaced{temporary}"),
        }
    }
}

/// One worker that is being replaced.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) worker: WorkerId,
    /// The run of its old process; 0 = it has none.
    pub(super) before: RunId,
    /// The run of the new process; `None` = it was not started yet, or its start was put off.
    pub(super) new: Option<RunId>,
    /// When the old process had ended; `None` = it has not.
    pub(super) since: Option<Tick>,
}

impl Step {
    pub(super) const fn new(worker: WorkerId, before: RunId) -> Self {
        Self { worker, before, new: None, since: None }
    }
}
