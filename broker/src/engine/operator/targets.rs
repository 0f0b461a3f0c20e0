//! The workers and services that a command is for, and what is done with each of them.

use super::names;
use crate::engine::context::context;
use crate::engine::hub::Engine;
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::operator::cells::{number, text};
use crate::engine::operator::result::refused;
use crate::engine::operator_act::OperatorAct;
use crate::engine::supervision::workers::Standing;
use crate::engine::work::{Work, WorkerVerb};
use protocol::{Block, OpError, OpReply, Target, WorkerId};

/// The workers that a command is for, newest first, as the original broker listed them.
pub(crate) fn targets(hub: &Engine, target: &Target) -> Result<Vec<WorkerKey>, OpError> {
    Ok(match target {
        Target::All => hub.supervision.workers_by(false).rev().map(|(key, _)| key).collect(),
        Target::Service(name) => {
            let service = names::plain_service(hub, name)?;
            hub.supervision.workers_of(service).rev().map(|(key, _)| key).collect()
        }
        Target::Worker(id) => vec![permanent_worker(hub, *id)?],
        Target::Host(name) => {
            names::host_named(hub, name)?;
            let here = hub.supervision.workers_on(name);
            let here = here.filter(|(_, worker)| worker.standing == Standing::Permanent);
            let mut keys: Vec<_> = here.map(|(key, _)| key).collect();
            keys.reverse();
            keys
        }
    })
}

/// The worker with this id, if it is there to stay.
pub(super) fn permanent_worker(hub: &Engine, id: WorkerId) -> Result<WorkerKey, OpError> {
    let key = names::worker_named(hub, id)?;
    let worker = hub.supervision.worker(key);
    let name = &hub.catalog[worker.service].name;
    match worker.standing {
        Standing::Permanent => Ok(key),
        Standing::Temporary => Err(refused(format!(
            "worker {id} is temporary: it stands in while workers of service '{name}' are \
             replaced, and ends by itself; 'service {name}' says how far that is"
        ))),
        Standing::Draining => Err(refused(format!(
            "worker {id} was taken out of service '{name}' ('scale'), and is removed when its \
             process has ended"
        ))),
    }
}

/// The services that a command is for; none if it is for one worker, or for those of a host.
pub(super) fn target_services(hub: &Engine, target: &Target) -> Result<Vec<ServiceKey>, OpError> {
    Ok(match target {
        Target::All => {
            hub.catalog.keys().into_iter().filter(|&key| key != hub.catalog.op()).collect()
        }
        Target::Service(name) => vec![names::plain_service(hub, name)?],
        Target::Worker(_) | Target::Host(_) => Vec::new(),
    })
}

/// The manual's line about one worker, as in `paused worker->id = 1, worker->name = echo`.
pub(super) fn worker_line(hub: &Engine, verb: &'static str, key: WorkerKey) -> Block {
    let worker = hub.supervision.worker(key);
    let name = hub.catalog[worker.service].name.as_str();
    let id = worker.id.0.to_string();
    Block::Line {
        name: verb,
        // They may be thousands, and formatting takes four times as long.
        text: [verb, " worker->id = ", id.as_str(), ", worker->name = ", name].concat(),
        fields: vec![("worker", number(worker.id.0)), ("service", text(name))],
    }
}

pub(crate) fn none_there(target: &Target) -> OpReply {
    let name = match target {
        Target::Service(name) => format!("service '{name}' has no workers"),
        Target::Host(name) => format!("host {name} has no workers"),
        Target::All | Target::Worker(_) => "there are no workers".to_owned(),
    };
    OpReply::line("note", name, vec![])
}

/// Begins to do it with each of these workers, in this order.
pub(super) fn for_each(
    hub: &mut Engine,
    keys: &[WorkerKey],
    (verb, said): (WorkerVerb, OperatorAct),
) {
    let workers = keys.iter().map(|&key| hub.supervision.worker(key).id).collect();
    hub.works.begin(Work::Workers { workers, verb, said }, &mut hub.effects);
}

/// Does it with one of them.
pub(crate) fn one_worker(hub: &mut Engine, key: WorkerKey, verb: WorkerVerb, said: &OperatorAct) {
    match verb {
        WorkerVerb::Pause => hub.supervision.update_available(key, context!(hub)),
        WorkerVerb::Ready => hub.supervision.ready_worker(key, context!(hub)),
        WorkerVerb::Launch => hub.supervision.launch(key, context!(hub)),
        // It ends, or does so soon.
        WorkerVerb::Start { .. } if hub.supervision.worker(key).standing != Standing::Permanent => {
        }
        WorkerVerb::Start { is_saved } => {
            hub.supervision.start_worker(key, context!(hub));
            if is_saved {
                hub.supervision.await_earlier(key);
            }
        }
        WorkerVerb::Stop => {
            // A reply that nobody waits for any more need not be finished.
            let is_busy = hub.dispatch.owes_answers(key);
            hub.supervision.stop_worker(key, (is_busy, said), context!(hub));
        }
        WorkerVerb::Retire => hub.supervision.retire(key, context!(hub)),
        WorkerVerb::Shut => hub.supervision.shut_worker(key, context!(hub)),
        WorkerVerb::Rest => hub.supervision.rest(key, context!(hub)),
    }
}

/// A target as it is written in a command.
pub(super) fn target_word(target: &Target) -> String {
    match target {
        Target::All => "all".into(),
        Target::Service(name) => name.to_string(),
        Target::Worker(id) => id.to_string(),
        Target::Host(name) => format!("host {name}"),
    }
}
