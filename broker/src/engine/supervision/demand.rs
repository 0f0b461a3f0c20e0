//! Services that are started on demand (`start=demand`): their workers run from the first request
//! or login on, until nothing was to be done for `idle_stop_ms`. Here is whether the workers of a
//! service are asked for; the hub (`engine/demand`) knows of requests and says when they are.

use super::demand_state::Demand;
use super::machine::Supervision;
use super::process_state::{ProcessEvent, ProcessState};
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::timers::Timer;
use protocol::{ServiceSetting, Tick, WorkerId};
use std::collections::VecDeque;

/// Least milliseconds between two looks at a service that is in use, however short `idle_stop_ms`
/// is.
const LOOK_MS_MIN: u64 = 100;

/// What a look at a service found in `dispatch`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    /// A request waits, or a worker has one.
    pub(crate) is_used: bool,
    /// When a worker last answered.
    pub(crate) last: Tick,
}

impl Supervision {
    /// Whether the workers of a service are down until they are asked for.
    pub(crate) fn is_down_until_asked(&self, service: ServiceKey) -> bool {
        self.demands.get(service) == Some(&Demand::Down)
    }

    /// A request waits for a service, or a client logs in to it: workers that are down until they
    /// are asked for are to start. Returns them.
    pub(crate) fn ask(&mut self, service: ServiceKey, cx: &mut Context<'_>) -> VecDeque<WorkerId> {
        let Some(demand) = self.demands.get_mut(service) else { return VecDeque::new() };
        match demand {
            Demand::Up { at, .. } => {
                *at = cx.now;
                VecDeque::new()
            }
            Demand::Down => {
                self.turn_up(service, cx);
                self.configured(service)
            }
        }
    }

    /// The configured workers of a service.
    fn configured(&self, service: ServiceKey) -> VecDeque<WorkerId> {
        let workers = self.workers.of_service(service).filter(|(_, w)| !w.is_self_started);
        workers.map(|(_, worker)| worker.id).collect()
    }

    fn any_of(&self, service: ServiceKey, holds: impl Fn(ProcessState) -> bool) -> bool {
        self.workers.of_service(service).any(|(_, worker)| holds(worker.state))
    }

    fn turn_up(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        self.demands.remove(service);
        self.demands.insert(service, Demand::Up { at: cx.now, look: None });
        self.look_after(service, cx.now, cx);
        cx.effects.push(Effect::Demand { service, is_down: false });
    }

    /// Has a service looked at when it was not used since a tick for `idle_stop_ms`.
    fn look_after(&mut self, service: ServiceKey, since: Tick, cx: &mut Context<'_>) {
        let of = &cx.catalog[service];
        let idle_stop_ms = of.settings.get(ServiceSetting::IdleStopMs);
        if let Some(Demand::Up { look, .. }) = self.demands.get_mut(service) {
            // No timer is due in the step that sets it.
            let soon = Tick(cx.now.0 + 1);
            let next = (idle_stop_ms > 0).then(|| since.plus_millis(idle_stop_ms).max(soon));
            *look = next;
            if let Some(next) = next {
                cx.timers.add(next, Timer::Demand(of.id));
            }
        }
    }

    /// Whether a service is to be looked at now (`Timer::Demand`).
    pub(crate) fn is_look_due(&self, service: ServiceKey, now: Tick) -> bool {
        match self.demands.get(service) {
            Some(Demand::Up { look: Some(look), .. }) => *look <= now,
            Some(Demand::Up { look: None, .. } | Demand::Down) | None => false,
        }
    }

    /// Looks whether a service is still used. If it is not, its workers end: they are returned.
    pub(crate) fn look_at_demand(
        &mut self,
        service: ServiceKey,
        found: Use,
        cx: &mut Context<'_>,
    ) -> VecDeque<WorkerId> {
        let idle_stop_ms = cx.catalog[service].settings.get(ServiceSetting::IdleStopMs);
        // One that is ended before it was ready would not count for its backoff.
        let starts = self.any_of(service, |state| state.is_starting());
        let Some(Demand::Up { at, .. }) = self.demands.get_mut(service) else {
            return VecDeque::new();
        };
        if found.is_used || starts {
            *at = cx.now;
            let wait_ms = LOOK_MS_MIN.saturating_sub(idle_stop_ms);
            self.look_after(service, cx.now.plus_millis(wait_ms), cx);
            return VecDeque::new();
        }
        let last = found.last.max(*at);
        if last.plus_millis(idle_stop_ms) > cx.now {
            self.look_after(service, last, cx);
            return VecDeque::new();
        }
        self.turn_down(service, cx);
        self.configured(service)
    }

    fn turn_down(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        self.demands[service] = Demand::Down;
        cx.effects.push(Effect::Demand { service, is_down: true });
    }

    /// A worker was given up. If none of its service is left, what waits fails, and whoever asks
    /// later has them started, once their time is over.
    pub(super) fn ask_anew(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        let is_any_left = self.services.get(service).is_some_and(|entry| entry.serving > 0);
        if !is_any_left && self.demands.get(service).is_some() {
            self.turn_down(service, cx);
        }
    }

    /// A worker of a service that nobody asks for ends. It may have been asked for since.
    pub(crate) fn rest(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &self.workers[key];
        if self.is_down_until_asked(worker.service) && !worker.is_self_started {
            self.retire(key, cx);
        }
    }

    /// A process of a worker runs that this broker did not start: its service is in use.
    pub(super) fn runs_already(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &self.workers[key];
        if self.is_down_until_asked(worker.service) && !worker.is_self_started {
            cx.effects.push(Effect::Asked { service: worker.service });
        }
    }

    /// A service is there, or its settings changed.
    pub(super) fn demand_changed(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        match (self.demands.get(service).copied(), cx.catalog[service].is_on_demand()) {
            (None, false) | (Some(Demand::Down), true) => {}
            (Some(_), false) => {
                self.demands.remove(service);
                cx.effects.push(Effect::Demand { service, is_down: false });
                cx.effects.push(Effect::Launch { workers: self.configured(service) });
            }
            (None, true) => self.begin_demand(service, cx),
            (Some(Demand::Up { at, .. }), true) => self.look_after(service, at, cx),
        }
    }

    /// A service is started on demand from now on. What runs of it ends when it is not used.
    fn begin_demand(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        if self.any_of(service, |state| state != ProcessState::Down) {
            self.turn_up(service, cx);
        } else {
            self.demands.insert(service, Demand::Down);
            cx.effects.push(Effect::Demand { service, is_down: true });
        }
        let keys: Vec<WorkerKey> = self.workers.of_service(service).map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.try_again(key, cx));
    }

    /// When a worker that is given up is tried again after all, because its service is started on
    /// demand: such a worker is slowed down, and never off for good.
    pub(super) fn try_later(&mut self, key: WorkerKey, cx: &mut Context<'_>) -> Option<Tick> {
        let worker = &mut self.workers[key];
        if !cx.catalog[worker.service].is_on_demand() {
            return None;
        }
        let at = worker.restart.gave_up(cx.now, cx.settings);
        cx.timers.add(at, Timer::Restart(worker.id, worker.run.id));
        Some(at)
    }

    /// The time is over for which a worker was given up.
    pub(super) fn try_again(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        let may = cx.catalog[worker.service].is_on_demand() && worker.state == ProcessState::Down;
        if may && worker.failed.take().is_some() {
            worker.since = cx.now;
            self.update_available(key, cx);
            self.launch(key, cx);
        }
    }

    /// Whether a worker that is to start has to wait first, because its last start ended too early
    /// or was put off, and its service is started on demand. It is started after that.
    pub(super) fn is_too_early(&mut self, key: WorkerKey, cx: &mut Context<'_>) -> bool {
        let worker = &mut self.workers[key];
        let Some(at) = worker.restart.not_before().filter(|&at| at > cx.now) else { return false };
        if !cx.catalog[worker.service].is_on_demand() {
            return false;
        }
        if worker.state == ProcessState::Down {
            worker.enter(ProcessEvent::Wait, cx.now);
        }
        cx.timers.add(at, Timer::Restart(worker.id, worker.run.id));
        true
    }
}
