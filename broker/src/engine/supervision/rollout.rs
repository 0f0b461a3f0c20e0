//! The workers of a service are replaced by new processes, a few at a time: `restart`, and
//! recycling. A temporary worker is started first, so that as many new processes are ready as old
//! ones have stopped; the old ones keep their ids. Here is what is under way and what comes next;
//! `rollout_step` says how far one worker is.

use super::machine::Supervision;
use super::process_state::ProcessState;
use super::rollout_step::{Found, Step};
use super::workers::Standing;
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::counted::counted;
use crate::engine::fact::{About, FactKind};
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::law::law;
use crate::engine::timers::Timer;
use protocol::{RunId, ServiceSetting, Setting, Tick, WorkerId};
use std::collections::{BTreeMap, VecDeque};

/// All that is under way.
#[derive(Debug, Default)]
pub(crate) struct Rollouts {
    pub(super) by_service: BTreeMap<ServiceKey, Rollout>,
    /// Of each service whose `recycle_memory` is too low: the value that was told.
    pub(super) told_memory: BTreeMap<ServiceKey, u64>,
    /// `Timer::Recycle` is set. Independent of the rest: it is set as long as a service has a limit.
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
    Ending,
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
    /// Why no temporary worker stood in, if one was to; as its host said.
    pub(super) full: Option<String>,
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
    fn new(plan: Plan, temporary: Option<WorkerId>) -> Self {
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
            full: None,
            is_told: false,
        }
    }

    /// Whether its first step is to make the temporary worker ready.
    fn is_first(&self) -> bool {
        self.temporary.is_some_and(|id| self.steps.iter().any(|step| step.worker == id))
    }

    /// One of them is not replaced any more.
    fn drop_one(&mut self, why: &'static str) {
        self.all -= 1;
        *self.dropped.entry(why).or_default() += 1;
    }

    fn tell(&mut self, failure: Option<String>) -> Next {
        self.is_told = true;
        let left = self.all - self.done;
        let full = self.full.iter();
        let mut notes: Vec<String> =
            full.map(|why| format!("no temporary worker stood in: {why}")).collect();
        notes.extend(self.dropped.iter().map(|(why, count)| format!("{count} {why} meanwhile")));
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
            Phase::Ending => format!("{what} ends: {done} of {all} replaced{temporary}"),
        }
    }
}

impl Supervision {
    /// What is under way for a service.
    pub(crate) fn rollout(&self, service: ServiceKey) -> Option<&Rollout> {
        self.rollouts.by_service.get(&service)
    }

    /// Whether anything is under way.
    pub(crate) fn has_rollouts(&self) -> bool {
        !self.rollouts.by_service.is_empty()
    }

    /// Why no other restart of a service may begin.
    pub(crate) fn rollout_in_the_way(&self, service: ServiceKey) -> Option<String> {
        let rollout = self.rollout(service)?;
        let is_restart = matches!(rollout.cause, Cause::Restart(..));
        let is_in_the_way = match rollout.phase {
            Phase::Rolling => is_restart,
            Phase::Holding => false,
            Phase::Ending => true,
        };
        is_in_the_way.then(|| rollout.words())
    }

    /// Begins to replace workers. What was under way for the service, and is in nobody's way, ends
    /// with it; its temporary worker stands in for this one, too.
    pub(crate) fn begin_rollout(&mut self, service: ServiceKey, plan: Plan, cx: &mut Context<'_>) {
        let old = self.rollouts.by_service.remove(&service);
        if let Cause::Restart(_, who) = &plan.cause {
            let name = &cx.catalog[service].name;
            let count = counted(plan.workers.len(), "worker");
            let text = format!(
                "restart of service '{name}' begins: {count}, at least {} stay ready",
                plan.min
            );
            let about =
                About { service: Some(name.clone()), who: Some(who.clone()), ..About::default() };
            cx.record(FactKind::RestartBegun, about, text);
        }
        let mut rollout = Rollout::new(plan, old.and_then(|old| old.temporary));
        let temporary = rollout.temporary.and_then(|id| self.workers.find(id));
        // It has to show that the new process comes up.
        if let Some(key) = temporary.filter(|&key| self.serving_since(key, cx.catalog).is_none()) {
            rollout.steps.push(Step::new(self.workers[key].id, RunId(0)));
        }
        self.rollouts.by_service.insert(service, rollout);
    }

    /// Why no temporary worker stands in, to be told in the answer.
    pub(crate) fn note_full(&mut self, service: ServiceKey, why: &str) {
        if let Some(rollout) = self.rollouts.by_service.get_mut(&service) {
            rollout.full = Some(why.to_owned());
        }
    }

    /// Whether a worker may be given requests.
    pub(crate) fn serves(&self, key: WorkerKey, cx: &Context<'_>) -> bool {
        self.serving_since(key, cx.catalog).is_some()
    }

    /// How many workers of a service may be given requests.
    pub(crate) fn ready_count(&self, service: ServiceKey, cx: &Context<'_>) -> usize {
        let mine = self.workers.of_service(service);
        mine.filter(|&(key, _)| self.serving_since(key, cx.catalog).is_some()).count()
    }

    /// Since when a worker may be given requests; `None` = it may not.
    pub(super) fn serving_since(&self, key: WorkerKey, catalog: &Catalog) -> Option<Tick> {
        let worker = &self.workers[key];
        if catalog[worker.service].settings.get(ServiceSetting::Protocol) != 0 {
            // It is no worker, and never more than up.
            let is_up = matches!(worker.state, ProcessState::Up | ProcessState::Ready);
            return (is_up && worker.is_wanted).then_some(worker.since);
        }
        self.is_available(key, catalog, false).then_some(worker.run.ready).flatten()
    }

    /// Goes on with what is under way for a service; what the hub is to do before it goes on
    /// further.
    pub(crate) fn next_of_rollout(
        &mut self,
        service: ServiceKey,
        cx: &mut Context<'_>,
    ) -> Option<Next> {
        let mut rollout = self.rollouts.by_service.remove(&service)?;
        let next = match rollout.phase {
            Phase::Rolling => self.roll(&mut rollout, service, cx),
            Phase::Holding | Phase::Ending => None,
        };
        let next = next.or_else(|| self.hold(&mut rollout, cx)).or_else(|| {
            let is_over = rollout.phase == Phase::Ending && rollout.temporary.is_none();
            (is_over && !rollout.is_told).then(|| {
                self.done_fact(&rollout, service, cx);
                rollout.tell(None)
            })
        });
        let is_over = rollout.phase == Phase::Ending && rollout.temporary.is_none();
        if !(is_over && rollout.is_told) {
            self.rollouts.by_service.insert(service, rollout);
        }
        next
    }

    /// The temporary worker was made.
    pub(crate) fn temporary_added(
        &mut self,
        service: ServiceKey,
        key: WorkerKey,
        cx: &mut Context<'_>,
    ) {
        let id = self.workers[key].id;
        self.start_worker(key, cx);
        let Some(rollout) = self.rollouts.by_service.get_mut(&service) else { return };
        rollout.temporary = Some(id);
        rollout.steps.push(Step::new(id, RunId(0)));
    }

    /// Makes a worker like this one, which is temporary.
    pub(crate) fn add_temporary(&mut self, like: WorkerKey, now: Tick) -> Option<WorkerKey> {
        self.workers.add_temporary(like, now)
    }

    fn roll(
        &mut self,
        rollout: &mut Rollout,
        service: ServiceKey,
        cx: &mut Context<'_>,
    ) -> Option<Next> {
        if cx.is_shutting_down {
            return Some(self.fail(rollout, service, (None, "the broker ends".into()), cx));
        }
        if cx.catalog[service].is_paused {
            let why = "the service was paused".into();
            return Some(self.fail(rollout, service, (None, why), cx));
        }
        if let Some(like) = rollout.like.take()
            && let Some(key) = self.workers.find(like)
        {
            return Some(Next::Add(key));
        }
        if let Some(failure) = self.look_at_steps(rollout, cx) {
            return Some(self.fail(rollout, service, failure, cx));
        }
        if rollout.is_first() {
            return None;
        }
        if let Some(failure) = self.begin_steps(rollout, service, cx) {
            return Some(self.fail(rollout, service, failure, cx));
        }
        if rollout.left.is_empty() && rollout.steps.is_empty() {
            rollout.phase = Phase::Ending;
        }
        None
    }

    /// Looks how far those are that were begun. Returns which one failed, and why.
    fn look_at_steps(
        &mut self,
        rollout: &mut Rollout,
        cx: &mut Context<'_>,
    ) -> Option<(Option<WorkerId>, String)> {
        let mut failure = None;
        for mut step in std::mem::take(&mut rollout.steps) {
            let id = step.worker;
            let is_temporary = rollout.temporary == Some(id);
            match self.look_at(&mut step, cx) {
                Found::UnderWay => rollout.steps.push(step),
                Found::PutOff(said) if is_temporary => {
                    rollout.full = Some(said);
                    self.leave(id, cx);
                }
                Found::PutOff(_) => rollout.steps.push(step),
                Found::Done => {
                    let what = if is_temporary {
                        "is temporary and stands in".to_owned()
                    } else {
                        rollout.done += 1;
                        format!("is replaced ({} of {})", rollout.done, rollout.all)
                    };
                    self.step_fact(id, &what, cx);
                }
                Found::Dropped(why) => {
                    if !is_temporary {
                        rollout.drop_one(why);
                    }
                }
                Found::Failed(why) => {
                    failure.get_or_insert((Some(id), why));
                    rollout.steps.push(step);
                }
            }
        }
        failure
    }

    /// Begins to replace as many as may be. Returns which one failed, and why.
    fn begin_steps(
        &mut self,
        rollout: &mut Rollout,
        service: ServiceKey,
        cx: &mut Context<'_>,
    ) -> Option<(Option<WorkerId>, String)> {
        while let Some(&id) = rollout.left.front() {
            if rollout.steps.len() >= rollout.batch {
                break;
            }
            let key = self.workers.find(id);
            let why_not = key.map_or(Some("deleted"), |key| self.why_dropped(key));
            let Some(key) = key.filter(|_| why_not.is_none()) else {
                rollout.left.pop_front();
                rollout.drop_one(why_not.unwrap_or_default());
                continue;
            };
            if let Some(why) = self.not_linked(key) {
                return Some((Some(id), why));
            }
            if self.serving_since(key, cx.catalog).is_some() {
                let ready = self.ready_count(service, cx);
                if ready <= rollout.min {
                    return self.wait_for_ready(rollout, service, ready, cx);
                }
            }
            rollout.stuck = None;
            rollout.left.pop_front();
            rollout.steps.push(Step::new(id, self.workers[key].run.id));
            match self.workers[key].state {
                ProcessState::Down | ProcessState::Backoff => self.start_worker(key, cx),
                ProcessState::Starting
                | ProcessState::Up
                | ProcessState::Ready
                | ProcessState::Returning
                | ProcessState::Exiting
                | ProcessState::Terminating => self.retire(key, cx),
            }
        }
        None
    }

    /// Too few are ready for one more to be replaced.
    fn wait_for_ready(
        &self,
        rollout: &mut Rollout,
        service: ServiceKey,
        ready: usize,
        cx: &mut Context<'_>,
    ) -> Option<(Option<WorkerId>, String)> {
        if !rollout.steps.is_empty() {
            return None;
        }
        let wait_ms = cx.settings.get(Setting::WorkerLoginMs);
        let until = rollout.stuck.get_or_insert(cx.now).plus_millis(wait_ms);
        if until <= cx.now {
            let min = rollout.min;
            let why = format!(
                "{} and at least {min} must stay so, for {wait_ms} ms by now",
                if ready == 1 { "1 is ready,".to_owned() } else { format!("{ready} are ready,") }
            );
            return Some((None, why));
        }
        cx.timers.add(until, Timer::Rollout(cx.catalog[service].id));
        None
    }

    /// It stops here.
    fn fail(
        &self,
        rollout: &mut Rollout,
        service: ServiceKey,
        (worker, why): (Option<WorkerId>, String),
        cx: &mut Context<'_>,
    ) -> Next {
        rollout.phase = Phase::Holding;
        let is_first = rollout.is_first();
        let why = match worker {
            Some(id) if is_first => {
                format!("the temporary worker {id} {why}; no old one was touched")
            }
            Some(id) => format!("worker {id} {why}"),
            None => why,
        };
        let name = &cx.catalog[service].name;
        let what = match rollout.cause {
            Cause::Restart(..) => "restart",
            Cause::Recycle => "recycling",
        };
        let left = rollout.all - rollout.done;
        let text = format!(
            "{what} of service '{name}' stopped: {why}; {} of {} replaced, {left} left as they are",
            rollout.done, rollout.all
        );
        let about = match worker.and_then(|id| self.workers.find(id)) {
            Some(key) => self.about_worker(key, cx.catalog),
            None => About { service: Some(name.clone()), ..About::default() },
        };
        let who = match &rollout.cause {
            Cause::Restart(_, who) => Some(who.clone()),
            Cause::Recycle => None,
        };
        cx.record(FactKind::RestartFailed, About { who, ..about }, text);
        if is_first {
            rollout.steps.clear();
        }
        rollout.tell(Some(why))
    }

    /// After a failure: until those are ready that were begun; then the temporary worker ends.
    fn hold(&mut self, rollout: &mut Rollout, cx: &mut Context<'_>) -> Option<Next> {
        if rollout.phase == Phase::Holding {
            let mut steps = std::mem::take(&mut rollout.steps);
            steps.retain(|step| self.is_missing(step, cx));
            rollout.steps = steps;
            if rollout.steps.is_empty() {
                rollout.phase = Phase::Ending;
            }
        }
        let id = rollout.temporary.filter(|_| rollout.phase == Phase::Ending)?;
        let Some(key) = self.workers.find(id) else {
            rollout.temporary = None;
            return None;
        };
        if self.workers[key].is_wanted {
            self.leave(id, cx);
        }
        if self.workers[key].state != ProcessState::Down {
            return None;
        }
        self.step_fact(id, "was temporary and has ended", cx);
        rollout.temporary = None;
        Some(Next::Remove(key))
    }

    /// A worker ends for good, after the requests that it has.
    pub(crate) fn leave(&mut self, id: WorkerId, cx: &mut Context<'_>) {
        let Some(key) = self.workers.find(id) else { return };
        self.workers[key].is_wanted = false;
        self.retire(key, cx);
        self.update_available(key, cx);
    }

    /// `scale` takes a worker out of its service.
    pub(crate) fn take_out(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        self.workers[key].standing = Standing::Leaving;
        self.leave(self.workers[key].id, cx);
    }

    fn step_fact(&mut self, id: WorkerId, what: &str, cx: &mut Context<'_>) {
        if let Some(key) = self.workers.find(id) {
            self.worker_fact(FactKind::RestartStep, key, what, cx);
        }
    }

    fn done_fact(&self, rollout: &Rollout, service: ServiceKey, cx: &mut Context<'_>) {
        if let Cause::Restart(_, who) = &rollout.cause {
            let name = &cx.catalog[service].name;
            let count = counted(rollout.done, "worker");
            let text = format!("restart of service '{name}' has ended: {count} replaced");
            let about =
                About { service: Some(name.clone()), who: Some(who.clone()), ..About::default() };
            cx.record(FactKind::RestartDone, about, text);
        }
    }

    /// A temporary worker belongs to what is under way, one to each service; and no more are being
    /// replaced than may be.
    pub(super) fn check_rollouts(&self) -> Result<(), String> {
        for (_, worker) in self.workers.by_id() {
            let rollout = self.rollouts.by_service.get(&worker.service);
            law!(
                worker.standing != Standing::Temporary
                    || rollout.is_some_and(|rollout| rollout.temporary == Some(worker.id)),
                "law 6: worker {} is temporary and stands in for nobody",
                worker.id
            );
            law!(
                worker.standing != Standing::Leaving || worker.state != ProcessState::Down,
                "law 6: worker {} has left and is still there",
                worker.id
            );
        }
        for rollout in self.rollouts.by_service.values() {
            law!(
                rollout.steps.len() <= rollout.batch.max(1) && rollout.done <= rollout.all,
                "law 6: {} replaced at a time: {rollout:?}",
                rollout.steps.len()
            );
            law!(
                rollout.phase == Phase::Holding
                    || rollout.temporary.is_none()
                    || rollout.temporary.is_some_and(|id| self.workers.find(id).is_some()),
                "law 6: the temporary worker is gone: {rollout:?}"
            );
        }
        Ok(())
    }
}
