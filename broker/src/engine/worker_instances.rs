//! What the machine `instances` is told of workers, which `supervision` and `dispatch` know, and
//! what it can't say of groups without them.

use super::context::context;
use super::hub::Engine;
use super::instances::instance::Condition;
use super::instances::workers::WorkerInstance;
use super::keys::WorkerKey;
use super::start_logins;
use super::supervision::Supervision;
use super::supervision::process_state::ProcessState;
use super::supervision::workers::{Worker, WorkerEnd};
use protocol::ServiceName;
use protocol::instances::InstanceState;

/// Something of a worker changed that may be seen in its state.
pub(crate) fn on_turned(hub: &mut Engine, key: WorkerKey) {
    start_logins::on_turned(hub, key);
    let Some(worker) = hub.supervision.get_worker(key) else { return };
    let run = worker.run.id;
    // Most are ready, and are to stay so.
    let condition = if worker.state == ProcessState::Ready && !Supervision::must_end(worker) {
        Some(Condition::Alive(InstanceState::Running))
    } else {
        condition(hub, key)
    };
    // An operator may pause thousands at once, which changes nothing here.
    if !hub.instances.has_seen(key, (run, condition)) {
        review(hub, key, condition);
    }
}

/// How a worker is; `None` = it has no process. One that lost its connection is timed out until it
/// is back or ends.
pub(crate) fn condition(hub: &Engine, key: WorkerKey) -> Option<Condition> {
    let worker = hub.supervision.worker(key);
    let state = match worker.state {
        ProcessState::Down | ProcessState::Backoff => return None,
        // A program is up for good.
        ProcessState::Up if worker.run.ready.is_some() && is_program(hub, worker) => {
            InstanceState::Running
        }
        ProcessState::Starting | ProcessState::Up => InstanceState::Starting,
        ProcessState::Ready if hub.supervision.is_to_end(key) => InstanceState::Stopping,
        ProcessState::Ready => InstanceState::Running,
        // One that started itself is about to be forgotten.
        ProcessState::Returning if worker.is_self_started => return None,
        ProcessState::Returning if worker.run.has_exited() => InstanceState::Stopping,
        ProcessState::Returning => {
            return Some(Condition::TimedOut { state: InstanceState::Running });
        }
        ProcessState::Exiting | ProcessState::Terminating => InstanceState::Stopping,
    };
    Some(Condition::Alive(state))
}

fn is_program(hub: &Engine, worker: &Worker) -> bool {
    hub.catalog[worker.service].is_program()
}

/// A worker is about to be removed.
pub(crate) fn on_forget(hub: &mut Engine, key: WorkerKey) {
    start_logins::on_forget(hub, key);
    hub.instances.has_seen(key, (hub.supervision.worker(key).run.id, None));
    review(hub, key, None);
    let worker = hub.supervision.worker(key);
    if !worker.is_self_started {
        let service = hub.catalog[worker.service].name.clone();
        let id = worker.id;
        hub.instances.forget_worker(service, id, context!(hub));
    }
}

fn review(hub: &mut Engine, key: WorkerKey, condition: Option<Condition>) {
    let worker = hub.supervision.worker(key);
    let worker = WorkerInstance {
        id: worker.id,
        service: hub.catalog[worker.service].name.clone(),
        host: worker.host.clone(),
        run: worker.run.id,
        condition,
        is_failure: worker.last_end == WorkerEnd::Failed,
        checkpoint: hub.dispatch.seat(key).transactions,
    };
    hub.instances.review_worker(worker, context!(hub));
}

/// How many members a group expects: those that are named, and the workers of a service.
pub(crate) fn expected(hub: &Engine, group: &ServiceName, named: usize) -> usize {
    let service = hub.catalog.find(group.as_str()).filter(|&key| key != hub.catalog.op());
    named + service.map_or(0, |key| hub.supervision.count_of(key))
}

/// Publishes that a group has another state.
pub(crate) fn on_group_turned(
    hub: &mut Engine,
    (group, named): (&ServiceName, usize),
    topic: &str,
    mut lines: Vec<(&'static str, String)>,
) {
    lines.push(("expected", expected(hub, group, named).to_string()));
    hub.topics.publish_own(topic, &lines, None, context!(hub));
}
