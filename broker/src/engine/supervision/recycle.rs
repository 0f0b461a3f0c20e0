//! Which workers are to be replaced by new processes because of the limits of their service:
//! `recycle_requests`, `recycle_age_ms`, `recycle_memory`. A few of a service at a time; the others
//! go on past their limit meanwhile.

use super::machine::Supervision;
use super::process_state::ProcessState;
use super::rollout::{Cause, Plan};
use super::workers::Worker;
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::fact::FactKind;
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::timers::Timer;
use protocol::{ServiceSetting, ServiceSettings, Setting, Tick, WorkerId};
use std::collections::VecDeque;

/// Milliseconds of work within which a process that replaced a too big one shows, by being as big,
/// that the limit is too low, however many requests it had.
const AGAIN_MS: u64 = 10_000;
/// Milliseconds between two looks.
const LOOK_MS: u64 = 500;
/// A worker with too much memory that has answered fewer requests is not replaced: the new one
/// would soon be as big.
pub(crate) const REQUESTS_MIN: u64 = 20;
/// So many of a service may be replaced at a time: one of so many.
pub(crate) const SHARE: usize = 10;

/// Whether a service replaces its workers at all.
fn has_limits(settings: &ServiceSettings) -> bool {
    [ServiceSetting::RecycleRequests, ServiceSetting::RecycleAgeMs, ServiceSetting::RecycleMemory]
        .iter()
        .any(|&setting| settings.get(setting) > 0)
}

impl Supervision {
    /// The settings of a service changed.
    pub(super) fn limits_set(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        let settings = &cx.catalog[service].settings;
        let told = self.rollouts.told_memory.get(&service);
        if told.is_some_and(|&told| told != settings.get(ServiceSetting::RecycleMemory)) {
            self.rollouts.told_memory.remove(&service);
        }
        if has_limits(settings) {
            self.look_again(cx);
        }
    }

    fn look_again(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.rollouts.is_looking, true) {
            cx.timers.add(cx.now.plus_millis(LOOK_MS), Timer::Recycle);
        }
    }

    /// `Timer::Recycle`: the services whose workers are to be looked at now.
    pub(crate) fn begin_look(&mut self, cx: &mut Context<'_>) -> Vec<ServiceKey> {
        self.rollouts.is_looking = false;
        let keys = cx.catalog.keys();
        let limited: Vec<ServiceKey> =
            keys.into_iter().filter(|&key| has_limits(&cx.catalog[key].settings)).collect();
        if !limited.is_empty() {
            self.look_again(cx);
        }
        limited
    }

    /// Whether a service is to be looked at: none of its workers is being replaced.
    pub(crate) fn may_recycle(&self, service: ServiceKey, catalog: &Catalog) -> bool {
        self.rollout(service).is_none() && !catalog[service].is_paused
    }

    /// Why a worker is to be replaced; `requests` is how many its process was given.
    pub(crate) fn why_recycle(
        &self,
        key: WorkerKey,
        requests: u64,
        (catalog, now): (&Catalog, Tick),
    ) -> Option<String> {
        let worker = &self.workers[key];
        let settings = &catalog[worker.service].settings;
        let is_meant = worker.is_configured()
            && Self::is_past_start(worker, catalog)
            && self.why_dropped(key).is_none()
            && self.starts_later(key).is_none()
            && self.not_linked(key).is_none();
        let is_over = |setting, value| {
            let most = settings.get(setting);
            most > 0 && value >= most
        };
        let age_ms = now.since(worker.run.started).as_millis();
        if !is_meant {
            None
        } else if is_over(ServiceSetting::RecycleRequests, requests) {
            Some(format!("it was given {requests} requests (recycle_requests)"))
        } else if is_over(ServiceSetting::RecycleAgeMs, age_ms) {
            Some(format!("its process is {age_ms} ms old (recycle_age_ms)"))
        } else {
            let bytes = worker.run.memory?;
            let is_over = is_over(ServiceSetting::RecycleMemory, bytes);
            is_over.then(|| format!("it has {bytes} bytes of memory (recycle_memory)"))
        }
    }

    /// Whether a worker does its work: it logged in, or is a program and was up for `stable_ms`.
    fn is_past_start(worker: &Worker, catalog: &Catalog) -> bool {
        let is_program = catalog[worker.service].is_program();
        worker.state == ProcessState::Ready
            || is_program && worker.state == ProcessState::Up && worker.run.ready.is_some()
    }

    /// A host says that a worker has more memory than it may; `requests` is how many its process
    /// was given.
    pub(crate) fn on_memory(
        &mut self,
        key: WorkerKey,
        (bytes, requests): (u64, u64),
        cx: &mut Context<'_>,
    ) {
        let (service, ready) = (self.workers[key].service, self.workers[key].run.ready);
        let most = cx.catalog[service].settings.get(ServiceSetting::RecycleMemory);
        if most == 0 || bytes < most {
            return;
        }
        let ready_ms = ready.map_or(0, |since| cx.now.since(since).as_millis());
        // A program takes no requests, so its time has to show that it grew.
        let (has_grown, after) = if cx.catalog[service].is_program() {
            (ready_ms >= cx.settings.get(Setting::RestartQuietMs), format!("{ready_ms} ms of work"))
        } else {
            (requests >= REQUESTS_MIN, format!("{requests} requests"))
        };
        // The one before it was replaced for the same reason, and this one is as big at once.
        let is_again = self.rollouts.by_memory.remove(&self.workers[key].id) && ready_ms < AGAIN_MS;
        if has_grown && !is_again {
            self.workers[key].run.memory = Some(bytes);
        } else if self.rollouts.told_memory.insert(service, most) != Some(most) {
            let what = format!(
                "has {bytes} bytes of memory after {after}, and recycle_memory is \
                 {most}: it is not replaced, because a new one would soon be as big; raise \
                 recycle_memory"
            );
            self.worker_fact(FactKind::MemoryMaxTooLow, key, &what, cx);
        }
    }

    /// Begins to replace these workers of a service, of which more may be past their limit.
    pub(crate) fn begin_recycling(
        &mut self,
        service: ServiceKey,
        over: Vec<(WorkerId, String)>,
        cx: &mut Context<'_>,
    ) {
        let ready = self.ready_count(service, cx.catalog);
        let batch = (ready / SHARE).max(1);
        let mut workers = VecDeque::new();
        for (id, why) in over.into_iter().take(batch) {
            workers.push_back(id);
            if let Some(key) = self.workers.find(id) {
                if self.workers[key].run.memory.is_some() {
                    self.rollouts.by_memory.insert(id);
                }
                self.worker_fact(FactKind::WorkerRecycled, key, &format!("is recycled: {why}"), cx);
            }
        }
        // With a second one the others do the work meanwhile.
        let has_room = self.has_room_for_temporary(service, cx.catalog).is_none();
        let like = workers.front().copied().filter(|_| ready < 2 && has_room);
        let min = ready.saturating_sub(workers.len());
        let plan = Plan { cause: Cause::Recycle, workers, min, batch, like };
        self.begin_rollout(service, plan, cx);
    }

    /// Why a service can have no temporary worker; `None` = it can.
    pub(crate) fn has_room_for_temporary(
        &self,
        service: ServiceKey,
        catalog: &Catalog,
    ) -> Option<&'static str> {
        let settings = &catalog[service].settings;
        if catalog[service].id.is_builtin() {
            Some("the service is built in")
        } else if settings.get(ServiceSetting::Single) == 1 {
            Some("the service may have one worker (single)")
        } else if settings.get(ServiceSetting::Protocol) != 0 {
            Some("its programs are no workers (protocol)")
        } else {
            None
        }
    }
}
