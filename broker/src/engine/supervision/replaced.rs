//! How far one worker is that is being replaced: the old process answers what it has and ends, the
//! new one starts under the same id, is ready, and stays so.

use super::machine::Supervision;
use super::process_state::ProcessState;
use super::rollout::Step;
use super::workers::{Standing, WorkerEnd};
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::timers::Timer;
use protocol::{ServiceSetting, Setting, Tick, WorkerId};

/// How far it is.
#[derive(Debug)]
pub(super) enum Progress {
    /// It goes on.
    UnderWay,
    /// Its host has no room now; as the host said.
    PutOff(String),
    /// The new process is ready and stayed so.
    Done,
    /// It is not to be replaced any more: what became of it.
    Dropped(&'static str),
    /// It has no process any more, or soon has none, and its next start is of the new program: when
    /// that will be.
    Later(&'static str),
    /// The new process ended, or can't be started: goes on after the worker's name.
    Failed(String),
}

impl Supervision {
    /// Why a worker is not replaced, by what was done with it: it is to have no process.
    pub(super) fn why_dropped(&self, key: WorkerKey) -> Option<&'static str> {
        let worker = &self.workers[key];
        if !worker.is_wanted {
            Some("stopped")
        } else if worker.is_paused {
            Some("paused")
        } else {
            None
        }
    }

    /// When a worker is started next, if nothing is to be started now; goes on after "will start".
    pub(crate) fn starts_later(&self, key: WorkerKey) -> Option<&'static str> {
        let worker = &self.workers[key];
        if self.is_on_drained(worker) {
            Some("when their hosts are not drained any more")
        } else if self.is_down_until_asked(worker.service) {
            Some("when asked for (start=demand)")
        } else {
            None
        }
    }

    /// Why nothing can be started in place of a worker.
    pub(super) fn not_linked(&self, key: WorkerKey) -> Option<String> {
        let host = &self.workers[key].host;
        let is_linked = self.start_link(host).is_some();
        (!is_linked).then(|| format!("can't be started: host {host} is not linked"))
    }

    /// Looks how far a worker is.
    pub(super) fn look_at(&self, step: &mut Step, cx: &mut Context<'_>) -> Progress {
        let Some(key) = self.workers.find(step.worker) else { return Progress::Dropped("deleted") };
        if let Some(why) = self.why_dropped(key) {
            return Progress::Dropped(why);
        }
        if let Some(when) = self.starts_later(key) {
            // One that is given up may be why nobody asks for its service any more.
            let failed = self.workers[key].failed.as_ref().filter(|_| step.new.is_some());
            let failed = failed.map(|why| Progress::Failed(format!("failed: {why}")));
            return failed.unwrap_or(Progress::Later(when));
        }
        if let Some(why) = self.not_linked(key) {
            return Progress::Failed(why);
        }
        let worker = &self.workers[key];
        if worker.run.id == step.before && worker.state.has_process() {
            return Progress::UnderWay;
        }
        let since = *step.since.get_or_insert(cx.now);
        let is_in_order = worker.last_end == WorkerEnd::InOrder;
        let died = || {
            let why = worker.failed.as_ref().unwrap_or(&worker.why);
            Progress::Failed(format!("failed: {why}"))
        };
        if worker.failed.is_some() {
            return died();
        }
        if !worker.state.has_process() {
            return match step.new {
                Some(_) if !is_in_order => died(),
                _ if worker.state == ProcessState::Backoff => {
                    step.new = None;
                    self.put_off_until(since, key, cx)
                }
                // It ended in order, after it had answered requests.
                Some(_) => Progress::Done,
                None => Progress::UnderWay,
            };
        }
        match step.new {
            Some(new) if new != worker.run.id && !is_in_order => return died(),
            Some(new) if new != worker.run.id => return Progress::Done,
            Some(_) => {}
            None => step.new = Some(worker.run.id),
        }
        self.is_stable(key, cx)
    }

    /// The new process runs: whether it is ready, for long enough.
    fn is_stable(&self, key: WorkerKey, cx: &mut Context<'_>) -> Progress {
        let Some(ready) = self.serving_since(key, cx.catalog) else { return Progress::UnderWay };
        let service = &cx.catalog[self.workers[key].service];
        let until = ready.plus_millis(service.settings.get(ServiceSetting::StableMs));
        if until <= cx.now {
            return Progress::Done;
        }
        cx.timers.add(until, Timer::Rollout(service.id));
        Progress::UnderWay
    }

    /// Its host has no room: how long that may take.
    fn put_off_until(&self, since: Tick, key: WorkerKey, cx: &mut Context<'_>) -> Progress {
        let wait_ms = cx.settings.get(Setting::WorkerLoginMs);
        let (until, worker) = (since.plus_millis(wait_ms), &self.workers[key]);
        if until <= cx.now {
            let why = &worker.why;
            return Progress::Failed(format!("was not started within {wait_ms} ms: {why}"));
        }
        cx.timers.add(until, Timer::Rollout(cx.catalog[worker.service].id));
        Progress::PutOff(worker.why.clone())
    }

    /// Whether a worker that was begun is not ready yet, and may still become so.
    pub(super) fn is_step_open(&self, step: &Step, cx: &mut Context<'_>) -> bool {
        let Some(key) = self.workers.find(step.worker) else { return false };
        let worker = &self.workers[key];
        let is_old = worker.run.id == step.before && worker.state.has_process();
        worker.is_wanted
            && self.starts_later(key).is_none()
            && (is_old || !matches!(self.is_stable(key, cx), Progress::Done))
    }

    /// Why no temporary worker stands in, to be told in the answer.
    pub(crate) fn note_full(&mut self, service: ServiceKey, why: &str) {
        if let Some(rollout) = self.rollouts.by_service.get_mut(&service) {
            rollout.full = Some(why.to_owned());
        }
    }

    /// Whether a worker may be given requests.
    pub(crate) fn serves(&self, key: WorkerKey, catalog: &Catalog) -> bool {
        self.serving_since(key, catalog).is_some()
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

    /// A worker ends for good, after the requests that it has.
    pub(crate) fn end_for_good(&mut self, id: WorkerId, cx: &mut Context<'_>) {
        let Some(key) = self.workers.find(id) else { return };
        self.workers[key].is_wanted = false;
        self.retire(key, cx);
        self.update_available(key, cx);
    }

    /// `scale` takes a worker out of its service.
    pub(crate) fn take_out(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        self.workers[key].standing = Standing::Draining;
        self.end_for_good(self.workers[key].id, cx);
    }
}
