//! Goes on with workers that are being replaced (`supervision/rollout`) when one of them is in
//! another state: makes and removes the temporary worker, which other machines know, too.

use super::context::context;
use super::effect::Effect;
use super::hub::Engine;
use super::keys::{ServiceKey, WorkerKey};
use super::supervision::process_state::ProcessState;
use super::supervision::rollout::Next;
use super::supervision::workers::Standing;
use protocol::ServiceId;

/// The process of a worker is in another state.
pub(crate) fn on_turned(hub: &mut Engine, key: WorkerKey) {
    let Some(worker) = hub.supervision.get_worker(key) else { return };
    if worker.standing == Standing::Draining && worker.state == ProcessState::Down {
        hub.supervision.forget_worker(key, context!(hub));
    } else if hub.supervision.has_rollouts() {
        let service = worker.service;
        // Thousands may be stopped in one step: it is looked at once for all of them.
        if hub.supervision.rollout_turned(service) {
            hub.effects.push(Effect::Roll { service });
        }
    }
}

/// A host is lost: nothing can be started there.
pub(crate) fn on_host_gone(hub: &mut Engine) {
    for service in hub.supervision.rolling_services() {
        go_on(hub, service);
    }
}

/// `Timer::Rollout`: a worker may have been ready for long enough by now.
pub(crate) fn on_due(hub: &mut Engine, service: ServiceId) {
    if let Some(service) = hub.catalog.find_id(service) {
        go_on(hub, service);
    }
}

/// Goes on with what is under way for a service, if anything is.
pub(crate) fn go_on(hub: &mut Engine, service: ServiceKey) {
    while let Some(next) = hub.supervision.next_of_rollout(service, context!(hub)) {
        match next {
            Next::Add(like) => {
                if let Some(key) = hub.supervision.add_temporary(like, hub.now) {
                    let id = hub.supervision.worker(key).id;
                    hub.dispatch.add_worker(key, id, service);
                    hub.supervision.temporary_added(service, key, context!(hub));
                }
            }
            Next::Remove(key) => hub.supervision.forget_worker(key, context!(hub)),
            Next::Tell(outcome) => {
                let outcome = Box::new(outcome);
                hub.effects.push(Effect::Replaced { service, outcome });
            }
        }
    }
}
