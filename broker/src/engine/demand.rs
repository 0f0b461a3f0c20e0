//! Services that are started on demand: what `dispatch` knows of their requests, for `supervision`,
//! which has their workers started and ended (`supervision/demand`).

use super::context::context;
use super::hub::Engine;
use super::keys::ServiceKey;
use super::operator_act::OperatorAct;
use super::supervision::demand::Use;
use super::work::{Work, WorkerVerb};
use protocol::{ServiceId, WorkerId};
use std::collections::VecDeque;

/// A request waits for a service whose workers are down until they are asked for.
pub(super) fn on_asked(hub: &mut Engine, service: ServiceKey) {
    // It may be gone by now.
    if hub.catalog.get(service).is_some() {
        let workers = hub.supervision.ask(service, context!(hub));
        each(hub, workers, WorkerVerb::Launch);
    }
}

/// A client logged in to a service: that asks for its workers, too.
pub(super) fn on_login(hub: &mut Engine, service: ServiceKey) {
    if hub.catalog[service].is_on_demand() && !hub.catalog[service].is_stopped {
        on_asked(hub, service);
    }
}

/// The workers of a service are down until they are asked for, or are not any more.
pub(super) fn on_turned(hub: &mut Engine, service: ServiceKey, is_down: bool) {
    if hub.catalog.get(service).is_some() {
        hub.dispatch.set_down_until_asked(service, is_down, context!(hub));
    }
}

/// `Timer::Demand`: looks whether a service is still used.
pub(super) fn on_due(hub: &mut Engine, id: ServiceId) {
    let Some(service) = hub.catalog.find_id(id) else { return };
    if hub.supervision.is_look_due(service, hub.now) {
        let queue = hub.dispatch.queue(service);
        let is_used = queue.waiting() > 0 || queue.busy > 0 || queue.parked > 0;
        let found = Use { is_used, last: queue.used };
        let workers = hub.supervision.look_at_demand(service, found, context!(hub));
        each(hub, workers, WorkerVerb::Rest);
    }
}

fn each(hub: &mut Engine, workers: VecDeque<WorkerId>, verb: WorkerVerb) {
    if !workers.is_empty() {
        let said = OperatorAct::default();
        hub.works.begin(Work::Workers { workers, verb, said }, &mut hub.effects);
    }
}
