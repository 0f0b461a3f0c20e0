//! Workers that are any programs (`protocol=none`): such a program logs in nowhere and gets no
//! requests. To be up is all that it can be; it counts as ready when it was up for `stable_ms`.

use super::machine::Supervision;
use super::process_state::ProcessState;
use super::run::RunOrigin;
use super::workers::Worker;
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::FactKind;
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::timers::Timer;
use protocol::{Micros, RunId, ServiceSetting, Setting, Tick, WorkerId};

/// The exit statuses of a worker that ends in order, unless others are set (`success_exit`).
const SUCCESS: &[u8] = &[0];

/// The exit statuses with which a worker ends in order: its own, or those of its service.
pub(super) fn success_exit<'a>(worker: &'a Worker, catalog: &'a Catalog) -> &'a [u8] {
    let own = worker.own.success_exit.as_deref();
    own.or(catalog[worker.service].of_workers.success_exit.as_deref()).unwrap_or(SUCCESS)
}

impl Supervision {
    /// Gives a worker whose process was started or adopted this time to log in, and a program to be
    /// up.
    pub(super) fn wait_for_login(&mut self, key: WorkerKey, wait_ms: u64, cx: &mut Context<'_>) {
        let worker = &self.workers[key];
        let due = Timer::WorkerLogin(worker.id, worker.run.id);
        self.wait_for(key, wait_ms, due, cx);
    }

    /// What a worker has not done at the end of that time; `None` = it is a program, and up.
    pub(super) fn is_missing(&self, worker: &Worker, catalog: &Catalog) -> Option<&'static str> {
        if !catalog[worker.service].is_program() {
            return Some("did not log in");
        }
        (worker.state != ProcessState::Up).then_some("was not up")
    }

    /// The process of a worker is up: a program is ready after `stable_ms`.
    pub(super) fn program_is_up(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &self.workers[key];
        let service = &cx.catalog[worker.service];
        if service.is_program() {
            let stable_ms = service.settings.get(ServiceSetting::StableMs);
            let due = Timer::Stable(worker.id, worker.run.id);
            // No timer is due in the step that sets it.
            let at = cx.now.plus_millis(stable_ms).max(Tick(cx.now.0 + 1));
            cx.timers.add(at, due);
            cx.effects.push(Effect::Turned { worker: key });
        }
    }

    /// A host listed the process of a worker that is up. A program that an earlier broker started
    /// was up before.
    pub(super) fn program_is_listed(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        if !cx.catalog[worker.service].is_program() || worker.state != ProcessState::Up {
            return;
        }
        // It needs no login to show that it can be reached again.
        worker.run.is_unreachable = false;
        if worker.run.ready.is_some() {
            return;
        }
        if worker.run.origin == RunOrigin::Adopted {
            (worker.run.ready, worker.run.has_served) = (Some(cx.now), true);
            worker.why.clear();
            let what = format!("was running already, pid {}", worker.run.pid);
            cx.effects.push(Effect::Turned { worker: key });
            self.worker_fact(FactKind::WorkerAdopted, key, &what, cx);
        } else {
            self.program_is_up(key, cx);
        }
    }

    /// `Timer::Stable`: a program that is still up is ready.
    pub(crate) fn on_stable_due(&mut self, id: WorkerId, run: RunId, cx: &mut Context<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        let worker = &mut self.workers[key];
        if worker.state != ProcessState::Up
            || worker.run.ready.is_some()
            || !cx.catalog[worker.service].is_program()
        {
            return;
        }
        (worker.run.ready, worker.run.has_served) = (Some(cx.now), true);
        worker.why.clear();
        let up_ms = cx.now.since(worker.since).as_millis();
        cx.effects.push(Effect::Turned { worker: key });
        let what = format!("is ready: it has been up for {up_ms} ms");
        self.worker_fact(FactKind::WorkerReady, key, &what, cx);
    }

    /// Whether the end of a program counts for its backoff though it ended in order: it would be
    /// started again without a pause, and end as fast.
    pub(super) fn ends_too_fast(&self, key: WorkerKey, up: Micros, cx: &Context<'_>) -> bool {
        let is_program = cx.catalog[self.workers[key].service].is_program();
        is_program && up.as_millis() < cx.settings.get(Setting::RestartMinMs)
    }

    /// Why `protocol` of a service may not be changed now: one of its workers has a process, or may
    /// have one of an earlier broker.
    ///
    /// # Errors
    /// The text names the worker, and says what to do.
    pub(crate) fn may_change_protocol(
        &self,
        service: ServiceKey,
        catalog: &Catalog,
    ) -> Result<(), String> {
        let has_process =
            |worker: &Worker| worker.state.has_process() || worker.run.origin == RunOrigin::Awaited;
        match self.workers.of_service(service).find(|(_, worker)| has_process(worker)) {
            None => Ok(()),
            Some((_, worker)) => Err(format!(
                "worker {0} of service '{1}' runs, and protocol says what its program speaks; stop \
                 it first ('stop {1}')",
                worker.id, catalog[service].name
            )),
        }
    }
}
