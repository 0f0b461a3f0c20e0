//! Whether a worker may come that takes the requests of a service. A request waits for one that is
//! starting, restarting, returning or paused, or whose host is expected back; where none can come
//! it is refused at once, and this file says why.

use super::machine::Supervision;
use super::run::RunOrigin;
use super::service_outlook::Outlook;
use super::workers::Worker;
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::law::law;
use crate::engine::no_worker::NoWorker;
use crate::engine::quotas::LINE_BYTES_MAX;
use crate::engine::timers::Timer;
use protocol::{ServiceId, ServiceSetting, Setting, show};

impl Supervision {
    /// There is a service, or its settings changed.
    pub(crate) fn service_changed(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        self.limits_set(service, cx);
        let is_on = cx.catalog[service].settings.get(ServiceSetting::SelfStart) == 1;
        let entry = self.services.get_or_default(service);
        let was_on = std::mem::replace(&mut entry.takes_self_started, is_on);
        if !is_on {
            entry.awaited_until = None;
        } else if !was_on {
            self.await_self_started(service, cx);
        }
        self.demand_changed(service, cx);
        self.tell_outlook(service, cx);
    }

    /// A service is gone that had no workers.
    pub(crate) fn remove_service(&mut self, service: ServiceKey) {
        self.services.remove(service);
        self.demands.remove(service);
    }

    /// The broker begins to serve: workers that start themselves have time to come.
    pub(crate) fn await_all_self_started(&mut self, cx: &mut Context<'_>) {
        for service in self.services.iter().map(|(key, _)| key).collect::<Vec<_>>() {
            self.await_self_started(service, cx);
        }
    }

    /// A worker that starts itself is awaited for `return_ms`, if the service takes any.
    fn await_self_started(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        let Some(entry) = self.services.get_mut(service) else { return };
        if entry.takes_self_started {
            let until = cx.now.plus_millis(cx.settings.get(Setting::ReturnMs));
            // Those that come and go fast set no timer each.
            if entry.awaited_until.replace(until).is_none() {
                cx.timers.add(until, Timer::SelfStart(cx.catalog[service].id));
            }
        }
    }

    /// `Timer::SelfStart`: none came.
    pub(crate) fn on_self_start_due(&mut self, id: ServiceId, cx: &mut Context<'_>) {
        let Some(service) = cx.catalog.find_id(id) else { return };
        let Some(entry) = self.services.get_mut(service) else { return };
        match entry.awaited_until {
            Some(until) if until <= cx.now => {
                entry.awaited_until = None;
                self.tell_outlook(service, cx);
            }
            // One came and went after the timer was set.
            Some(until) => cx.timers.add(until, Timer::SelfStart(id)),
            None => {}
        }
    }

    /// Something changed that may decide whether a worker takes requests now or later.
    pub(super) fn review(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &self.workers[key];
        let outlook = self.outlook_of(worker);
        if worker.outlook == outlook {
            return;
        }
        let failure = worker.failed.as_ref().map(|why| show::brief(why, LINE_BYTES_MAX));
        let worker = &mut self.workers[key];
        let (id, service) = (worker.id, worker.service);
        let drained_host = (outlook == Outlook::Drained).then(|| worker.host.clone());
        let before = std::mem::replace(&mut worker.outlook, outlook);
        let entry = self.services.get_or_default(service);
        entry.change(before, outlook);
        if drained_host.is_some() {
            entry.drained_host = drained_host;
        }
        if let Some(why) = failure {
            entry.last_failure = Some((id, why));
        }
        self.tell_outlook(service, cx);
    }

    /// A worker is removed from the configuration.
    pub(super) fn forget_outlook(&mut self, worker: &Worker, cx: &mut Context<'_>) {
        let entry = self.services.get_or_default(worker.service);
        entry.change(worker.outlook, Outlook::Stopped);
        if worker.is_self_started {
            self.await_self_started(worker.service, cx);
        }
        self.tell_outlook(worker.service, cx);
    }

    fn outlook_of(&self, worker: &Worker) -> Outlook {
        let may_be_there = worker.is_self_started
            || worker.state.has_process()
            || worker.run.origin == RunOrigin::Awaited;
        let can_start = || self.hosts.named(&worker.host).is_some_and(|host| host.unfit.is_none());
        if worker.failed.is_some() {
            Outlook::Failed
        } else if !worker.is_wanted {
            Outlook::Stopped
        } else if self.waits_for_undrain(worker) {
            Outlook::Drained
        } else if may_be_there || can_start() {
            Outlook::MayServe
        } else {
            Outlook::NoHost
        }
    }

    /// Lets `dispatch` know whether a worker may come for a service, if that changed.
    pub(crate) fn tell_outlook(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        let no_worker = self.no_worker(service, cx.catalog);
        let Some(entry) = self.services.get_mut(service) else { return };
        if entry.no_worker != no_worker {
            entry.no_worker.clone_from(&no_worker);
            cx.effects.push(Effect::Outlook { service, no_worker });
        }
    }

    /// Requests of a worker that is gone, or takes no more, may wait again: if no other can come,
    /// they fail.
    pub(super) fn repeat_outlook(&self, service: ServiceKey, cx: &mut Context<'_>) {
        let no_worker = self.services.get(service).and_then(|entry| entry.no_worker.clone());
        if no_worker.is_some() {
            cx.effects.push(Effect::Outlook { service, no_worker });
        }
    }

    /// Why no worker can come that takes the requests of a service; `None` = one may.
    pub(crate) fn no_worker(&self, service: ServiceKey, catalog: &Catalog) -> Option<NoWorker> {
        let entry = self.services.get(service)?;
        let of = &catalog[service];
        let is_program = of.is_program();
        let may_come = of.is_paused || entry.serving > 0 || entry.awaited_until.is_some();
        if may_come && !is_program {
            return None;
        }
        let again = |(_, worker): (WorkerKey, &Worker)| worker.restart.not_before();
        let again_at = (of.is_on_demand() && entry.failed > 0)
            .then(|| self.workers.of_service(service).filter(|(_, w)| w.failed.is_some()))
            .and_then(|failed| failed.filter_map(again).min());
        let last_failure = entry.last_failure.clone().filter(|_| entry.failed > 0);
        Some(NoWorker {
            all: self.workers.count_of(service),
            failed: entry.failed,
            cannot_start: entry.cannot_start,
            drained: entry.drained,
            drained_host: entry.drained_host.clone().filter(|_| entry.drained > 0),
            last_failure,
            takes_self_started: entry.takes_self_started,
            again_at,
            is_program,
        })
    }

    /// Whether the counts are right, and `dispatch` was told what holds.
    pub(super) fn check_outlooks(&self) -> Result<(), String> {
        for (_, worker) in self.workers.by_id() {
            let outlook = self.outlook_of(worker);
            law!(
                worker.outlook == outlook,
                "law 6: the outlook of worker {} is {:?}, should be {outlook:?}",
                worker.id,
                worker.outlook
            );
        }
        for (service, entry) in self.services.iter() {
            let count = |outlook| {
                self.workers.of_service(service).filter(|(_, w)| w.outlook == outlook).count()
            };
            let no_start = (count(Outlook::NoHost), count(Outlook::Drained));
            let counts = (count(Outlook::MayServe), count(Outlook::Failed), no_start);
            let kept = (entry.cannot_start, entry.drained);
            law!(
                counts == (entry.serving, entry.failed, kept),
                "law 6: a service counts {entry:?}, has {counts:?}"
            );
        }
        Ok(())
    }
}
