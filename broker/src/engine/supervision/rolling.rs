//! What comes next where workers of a service are being replaced: which one is begun, what a
//! failure means, when the temporary worker ends. `replaced` says how far one worker is.

use super::machine::Supervision;
use super::process_state::ProcessState;
use super::replaced::Progress;
use super::rollout::{Cause, Next, Phase, Plan, Rollout, Step};
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::counted::counted;
use crate::engine::fact::{About, FactKind};
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::timers::Timer;
use protocol::{RunId, Setting, Tick, WorkerId};

impl Supervision {
    /// What is under way for a service.
    pub(crate) fn rollout(&self, service: ServiceKey) -> Option<&Rollout> {
        self.rollouts.by_service.get(&service)
    }

    /// Whether anything is under way.
    pub(crate) fn has_rollouts(&self) -> bool {
        !self.rollouts.by_service.is_empty()
    }

    /// A worker of a service is in another state; whether that is to be looked at.
    pub(crate) fn rollout_turned(&mut self, service: ServiceKey) -> bool {
        let rollout = self.rollouts.by_service.get_mut(&service);
        rollout.is_some_and(|rollout| !std::mem::replace(&mut rollout.has_turned, true))
    }

    /// The services for which something is under way.
    pub(crate) fn rolling_services(&self) -> Vec<ServiceKey> {
        self.rollouts.by_service.keys().copied().collect()
    }

    /// Why no other restart of a service may begin.
    pub(crate) fn rollout_in_the_way(&self, service: ServiceKey) -> Option<String> {
        let rollout = self.rollout(service)?;
        let is_restart = matches!(rollout.cause, Cause::Restart(..));
        let is_in_the_way = match rollout.phase {
            Phase::Rolling => is_restart,
            Phase::Holding => false,
            Phase::Terminating => true,
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

    /// How many workers of a service may be given requests.
    pub(crate) fn ready_count(&self, service: ServiceKey, catalog: &Catalog) -> usize {
        let mine = self.workers.of_service(service);
        mine.filter(|&(key, _)| self.serving_since(key, catalog).is_some()).count()
    }

    /// Goes on with what is under way for a service; what the hub is to do before it goes on
    /// further.
    pub(crate) fn next_of_rollout(
        &mut self,
        service: ServiceKey,
        cx: &mut Context<'_>,
    ) -> Option<Next> {
        let mut rollout = self.rollouts.by_service.remove(&service)?;
        rollout.has_turned = false;
        let next = match rollout.phase {
            Phase::Rolling => self.roll(&mut rollout, service, cx),
            Phase::Holding | Phase::Terminating => None,
        };
        let next = next.or_else(|| self.hold(&mut rollout, cx)).or_else(|| {
            let is_over = rollout.phase == Phase::Terminating && rollout.temporary.is_none();
            (is_over && !rollout.is_told).then(|| {
                self.done_fact(&rollout, service, cx);
                rollout.tell(None)
            })
        });
        let is_over = rollout.phase == Phase::Terminating && rollout.temporary.is_none();
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
            rollout.phase = Phase::Terminating;
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
                Progress::UnderWay => rollout.steps.push(step),
                Progress::PutOff(said) if is_temporary => {
                    rollout.full = Some(said);
                    self.end_for_good(id, cx);
                }
                Progress::PutOff(_) => rollout.steps.push(step),
                Progress::Done => {
                    let what = if is_temporary {
                        "is temporary and stands in".to_owned()
                    } else {
                        rollout.done += 1;
                        format!("is replaced ({} of {})", rollout.done, rollout.all)
                    };
                    self.step_fact(id, &what, cx);
                }
                Progress::Dropped(why) => {
                    if !is_temporary {
                        rollout.drop_one(why);
                    }
                }
                Progress::Later(when) => {
                    if !is_temporary {
                        rollout.done_later(when);
                    }
                }
                Progress::Failed(why) => {
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
            if let Some(when) = self.starts_later(key) {
                rollout.left.pop_front();
                rollout.done_later(when);
                continue;
            }
            if let Some(why) = self.not_linked(key) {
                return Some((Some(id), why));
            }
            if self.serving_since(key, cx.catalog).is_some() {
                let ready = self.ready_count(service, cx.catalog);
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
            steps.retain(|step| self.is_step_open(step, cx));
            rollout.steps = steps;
            if rollout.steps.is_empty() {
                rollout.phase = Phase::Terminating;
            }
        }
        let id = rollout.temporary.filter(|_| rollout.phase == Phase::Terminating)?;
        let Some(key) = self.workers.find(id) else {
            rollout.temporary = None;
            return None;
        };
        if self.workers[key].is_wanted {
            self.end_for_good(id, cx);
        }
        if self.workers[key].state != ProcessState::Down {
            return None;
        }
        self.step_fact(id, "was temporary and has ended", cx);
        rollout.temporary = None;
        Some(Next::Remove(key))
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
}
