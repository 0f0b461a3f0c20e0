//! Services for which no worker can come: their requests are refused instead of waiting for their
//! deadlines. `supervision` knows it.

use super::machine::Dispatch;
use super::service_queue::ServiceQueue;
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::ServiceKey;
use crate::engine::law::law;
use crate::engine::no_worker::NoWorker;
use protocol::{ErrorBody, ServiceName, Tick};

impl Dispatch {
    /// Why no worker can come for a service; `None` = one may.
    pub(crate) fn no_worker(&self, service: ServiceKey) -> Option<&NoWorker> {
        self.queues.get(service)?.no_worker.as_ref()
    }

    /// A worker may come for a service, or none can.
    pub(crate) fn set_no_worker(
        &mut self,
        service: ServiceKey,
        why: Option<NoWorker>,
        cx: &mut Context<'_>,
    ) {
        self.queues[service].no_worker = why;
        self.ask_if_waiting(service, cx);
    }

    /// The workers of a service are down until they are asked for (`is_down`), or are not any more:
    /// `Effect::Asked` says when a request waits for them.
    pub(crate) fn set_down_until_asked(
        &mut self,
        service: ServiceKey,
        is_down: bool,
        cx: &mut Context<'_>,
    ) {
        self.queues[service].is_down_until_asked = is_down;
        self.ask_if_waiting(service, cx);
    }

    /// Asks for the workers of a service if requests wait for them. Where none can come, the
    /// requests are about to fail.
    pub(super) fn ask_if_waiting(&self, service: ServiceKey, cx: &mut Context<'_>) {
        let entry = &self.queues[service];
        if entry.must_ask() {
            cx.effects.push(Effect::Asked { service });
        }
    }

    /// Nothing waits for a worker that can't come, except while long work is under way.
    pub(super) fn check_outlooks(&self, catalog: &Catalog) -> Result<(), String> {
        for (service, entry) in self.queues.iter() {
            law!(
                !entry.must_ask(),
                "law 5: {} wait for {}, whose workers nobody asks for",
                entry.waiting(),
                catalog[service].name
            );
            law!(
                entry.no_worker.is_none() || !self.is_awaited(service),
                "law 5: {} wait for {}, for which no worker can come",
                entry.queue.count(),
                catalog[service].name
            );
        }
        Ok(())
    }
}

impl ServiceQueue {
    /// Whether requests wait for workers that nobody asks for.
    fn must_ask(&self) -> bool {
        self.is_down_until_asked && self.waiting() > 0 && self.no_worker.is_none()
    }

    /// Whether a request may wait for a worker.
    ///
    /// # Errors
    /// None can come; the error for its client says why.
    pub(super) fn may_wait(&self, name: &ServiceName, now: Tick) -> Result<(), ErrorBody> {
        match &self.no_worker {
            None => Ok(()),
            Some(why) => Err(why.error(name, now)),
        }
    }
}
