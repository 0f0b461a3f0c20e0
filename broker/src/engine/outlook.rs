//! Whether a worker may come for the requests of a service: what `supervision` finds out means for
//! those that wait.

use super::context::context;
use super::hub::Engine;
use super::keys::ServiceKey;
use super::no_worker::NoWorker;
use super::work::Work;

/// A worker may come, or none can any more: `no_worker` says why. Those that wait fail then.
pub(crate) fn on_outlook(hub: &mut Engine, service: ServiceKey, no_worker: Option<NoWorker>) {
    // The service may be gone.
    if hub.catalog.get(service).is_some() {
        hub.dispatch.set_no_worker(service, no_worker, context!(hub));
        fail_waiting(hub, service);
    }
}

/// Fails what waits for a service for which no worker can come.
pub(crate) fn fail_waiting(hub: &mut Engine, service: ServiceKey) {
    let Some(no_worker) = hub.dispatch.no_worker(service) else { return };
    if hub.dispatch.is_awaited(service) {
        let error = no_worker.error(&hub.catalog[service].name, hub.now);
        let work = Work::FailWaiting { services: [service].into(), error };
        hub.works.begin(work, &mut hub.effects);
    }
}
