//! Has workers replaced by new processes that are past a limit of their service. How many requests
//! a worker was given, `dispatch` knows; the rest is `supervision`'s.

use super::context::context;
use super::hub::Engine;
use super::keys::WorkerKey;
use super::rollouts;

/// `Timer::Recycle`: looks at the workers of the services that have a limit.
pub(crate) fn on_due(hub: &mut Engine) {
    for service in hub.supervision.begin_look(context!(hub)) {
        let may = hub.supervision.may_recycle(service, &hub.catalog);
        if hub.shutdown.is_some() || !may {
            continue;
        }
        let mut over = Vec::new();
        let keys: Vec<WorkerKey> =
            hub.supervision.workers_of(service).map(|(key, _)| key).collect();
        for key in keys {
            let requests = hub.dispatch.seat(key).requests();
            if let Some(why) = hub.supervision.why_recycle(key, requests, (&hub.catalog, hub.now)) {
                over.push((requests, hub.supervision.worker(key).id, why));
            }
        }
        if over.is_empty() {
            continue;
        }
        // Those that are furthest past it come first, so that none waits for ever.
        over.sort_by_key(|(requests, id, _)| (std::cmp::Reverse(*requests), *id));
        let over = over.into_iter().map(|(_, id, why)| (id, why)).collect();
        hub.supervision.begin_recycling(service, over, context!(hub));
        rollouts::go_on(hub, service);
    }
}

/// A host says that a worker has more memory than it may.
pub(crate) fn on_memory(hub: &mut Engine, worker: WorkerKey, bytes: u64) {
    let requests = hub.dispatch.seat(worker).requests();
    hub.supervision.on_memory(worker, (bytes, requests), context!(hub));
}
