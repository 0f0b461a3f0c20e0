//! How far one worker is that is being replaced: the old process answers what it has and ends, the
//! new one starts under the same id, is ready, and stays so.

use super::machine::Supervision;
use super::process_state::ProcessState;
use super::workers::WorkerEnd;
use crate::engine::context::Context;
use crate::engine::keys::WorkerKey;
use crate::engine::timers::Timer;
use protocol::{RunId, ServiceSetting, Setting, Tick, WorkerId};

/// One worker that is being replaced.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) worker: WorkerId,
    /// The run of its old process; 0 = it has none.
    before: RunId,
    /// The run of the new process; `None` = it was not started yet, or its start was put off.
    new: Option<RunId>,
    /// When the old process had ended; `None` = it has not.
    since: Option<Tick>,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Found {
    /// It goes on.
    UnderWay,
    /// Its host has no room now; as the host said.
    PutOff(String),
    /// The new process is ready and stayed so.
    Done,
    /// It is not to be replaced any more: what became of it.
    Dropped(&'static str),
    /// The new process ended, or can't be started: goes on after the worker's name.
    Failed(String),
}

impl Step {
    pub(super) const fn new(worker: WorkerId, before: RunId) -> Self {
        Self { worker, before, new: None, since: None }
    }
}

impl Supervision {
    /// Why a worker is not replaced: what an operator did with it.
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

    /// Why nothing can be started in place of a worker.
    pub(super) fn not_linked(&self, key: WorkerKey) -> Option<String> {
        let host = &self.workers[key].host;
        let is_linked = self.start_link(host).is_some();
        (!is_linked).then(|| format!("can't be started: host {host} is not linked"))
    }

    /// Looks how far a worker is.
    pub(super) fn look_at(&self, step: &mut Step, cx: &mut Context<'_>) -> Found {
        let Some(key) = self.workers.find(step.worker) else { return Found::Dropped("deleted") };
        if let Some(why) = self.why_dropped(key) {
            return Found::Dropped(why);
        }
        if let Some(why) = self.not_linked(key) {
            return Found::Failed(why);
        }
        let worker = &self.workers[key];
        if worker.run.id == step.before && worker.state.has_process() {
            return Found::UnderWay;
        }
        let since = *step.since.get_or_insert(cx.now);
        let is_in_order = worker.last_end == WorkerEnd::InOrder;
        let died = || {
            let why = worker.failed.as_ref().unwrap_or(&worker.why);
            Found::Failed(format!("failed: {why}"))
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
                Some(_) => Found::Done,
                None => Found::UnderWay,
            };
        }
        match step.new {
            Some(new) if new != worker.run.id && !is_in_order => return died(),
            Some(new) if new != worker.run.id => return Found::Done,
            Some(_) => {}
            None => step.new = Some(worker.run.id),
        }
        self.is_stable(key, cx)
    }

    /// The new process runs: whether it is ready, for long enough.
    fn is_stable(&self, key: WorkerKey, cx: &mut Context<'_>) -> Found {
        let Some(ready) = self.serving_since(key, cx.catalog) else { return Found::UnderWay };
        let service = &cx.catalog[self.workers[key].service];
        let until = ready.plus_millis(service.settings.get(ServiceSetting::StableMs));
        if until <= cx.now {
            return Found::Done;
        }
        cx.timers.add(until, Timer::Rollout(service.id));
        Found::UnderWay
    }

    /// Its host has no room: how long that may take.
    fn put_off_until(&self, since: Tick, key: WorkerKey, cx: &mut Context<'_>) -> Found {
        let wait_ms = cx.settings.get(Setting::WorkerLoginMs);
        let (until, worker) = (since.plus_millis(wait_ms), &self.workers[key]);
        if until <= cx.now {
            let why = &worker.why;
            return Found::Failed(format!("was not started within {wait_ms} ms: {why}"));
        }
        cx.timers.add(until, Timer::Rollout(cx.catalog[worker.service].id));
        Found::PutOff(worker.why.clone())
    }

    /// Whether a worker that was begun is not ready yet, and may still become so.
    pub(super) fn is_missing(&self, step: &Step, cx: &mut Context<'_>) -> bool {
        let Some(key) = self.workers.find(step.worker) else { return false };
        let worker = &self.workers[key];
        let is_old = worker.run.id == step.before && worker.state.has_process();
        worker.is_wanted && (is_old || !matches!(self.is_stable(key, cx), Found::Done))
    }
}
