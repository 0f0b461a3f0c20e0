//! `pause`, `ready`, `start` and `stop` of a worker, a service, or all: which workers are to run,
//! and to take requests.

use super::lines::{each, services_of, start_lines};
use super::names;
use super::states;
use crate::engine::context::context;
use crate::engine::hub::{Engine, Out};
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::operator::cells::number;
use crate::engine::operator::cells::text;
use crate::engine::operator::result::OpResult;
use crate::engine::operator::result::refused;
use crate::engine::origin::Origin;
use protocol::bodies::ErrorBody;
use protocol::errors::ErrorCode;
use protocol::op::parse::OpError;
use protocol::op::reply::{Block, OpReply};
use protocol::op::spec::Target;

/// The workers that a command is for, newest first, as the original broker listed them.
pub(crate) fn targets(hub: &Engine, target: &Target) -> Result<Vec<WorkerKey>, OpError> {
    let all = || hub.supervision.workers().rev();
    Ok(match target {
        Target::All => all().map(|(key, _)| key).collect(),
        Target::Service(name) => {
            let service = names::plain_service(hub, name)?;
            all().filter(|(_, w)| w.service == service).map(|(key, _)| key).collect()
        }
        Target::Worker(id) => vec![names::worker_named(hub, *id)?],
    })
}

/// The services that a command is for; none if it is for one worker.
fn target_services(hub: &Engine, target: &Target) -> Result<Vec<ServiceKey>, OpError> {
    Ok(match target {
        Target::All => {
            hub.catalog.keys().into_iter().filter(|&key| key != hub.catalog.op()).collect()
        }
        Target::Service(name) => vec![names::plain_service(hub, name)?],
        Target::Worker(_) => Vec::new(),
    })
}

/// The manual's line about one worker, as in `paused worker->id = 1, worker->name = echo`.
fn worker_line(hub: &Engine, verb: &'static str, key: WorkerKey) -> Block {
    let worker = hub.supervision.worker(key);
    let name = &hub.catalog[worker.service].name;
    Block::Line {
        name: verb,
        text: format!("{verb} worker->id = {}, worker->name = {name}", worker.id),
        fields: vec![("worker", number(worker.id.0)), ("service", text(name))],
    }
}

pub(crate) fn none_there(target: &Target) -> OpReply {
    let name = match target {
        Target::Service(name) => format!("service '{name}' has no workers"),
        Target::All | Target::Worker(_) => "there are no workers".to_owned(),
    };
    OpReply::line("note", name, vec![])
}

pub(crate) fn pause(hub: &mut Engine, origin: &Origin, target: &Target, out: Out<'_>) -> OpResult {
    let (keys, services) = (targets(hub, target)?, target_services(hub, target)?);
    let lines = match target {
        Target::Worker(id) => {
            let unpaused = services_of(hub, &keys, |w| !w.is_paused);
            unpaused.first().map(|_| format!("pause {id}")).into_iter().collect()
        }
        Target::All | Target::Service(_) => {
            each(hub, &services, "pause", |key| !hub.catalog[key].is_paused)
        }
    };
    hub.changed(origin, format!("pause {}", target_word(target)), lines, out);
    let said = states::said(hub, origin, &format!("'pause {}'", target_word(target)));
    for service in services {
        hub.catalog[service].is_paused = true;
        hub.catalog[service].pause_act = said.clone();
    }
    let mut blocks = Vec::new();
    for key in keys {
        if matches!(target, Target::Worker(_)) {
            hub.supervision.pause_worker(key, &said);
        }
        hub.supervision.update_available(key, context!(hub, out));
        blocks.push(worker_line(hub, "paused", key));
    }
    Ok(if blocks.is_empty() { none_there(target) } else { OpReply { blocks } })
}

pub(crate) fn ready(hub: &mut Engine, origin: &Origin, target: &Target, out: Out<'_>) -> OpResult {
    let (keys, services) = (targets(hub, target)?, target_services(hub, target)?);
    if let (Target::Worker(id), [key]) = (target, keys.as_slice()) {
        let service = &hub.catalog[hub.supervision.worker(*key).service];
        if service.is_paused {
            return Err(refused(format!(
                "worker {id} is of service '{0}', which is paused; 'ready {0}' readies it",
                service.name
            )));
        }
    }
    let paused = services_of(hub, &keys, |w| w.is_paused);
    let lines = match target {
        Target::Worker(id) => paused.first().map(|_| format!("ready {id}")).into_iter().collect(),
        Target::All | Target::Service(_) => {
            each(hub, &services, "ready", |key| hub.catalog[key].is_paused || paused.contains(&key))
        }
    };
    hub.changed(origin, format!("ready {}", target_word(target)), lines, out);
    let said = states::said(hub, origin, &format!("'ready {}'", target_word(target)));
    for service in services {
        hub.catalog[service].is_paused = false;
        hub.catalog[service].open_act = said.clone();
    }
    for &key in &keys {
        hub.supervision.ready_worker(key, context!(hub, out));
    }
    match target {
        Target::All | Target::Service(_) => Ok(OpReply::ok()),
        Target::Worker(_) => Ok(OpReply {
            blocks: keys.iter().map(|&key| worker_line(hub, "readied", key)).collect(),
        }),
    }
}

pub(crate) fn start(hub: &mut Engine, origin: &Origin, target: &Target, out: Out<'_>) -> OpResult {
    let (keys, mut services) = (targets(hub, target)?, target_services(hub, target)?);
    hub.supervision.all_startable(&keys).map_err(refused)?;
    let lines = match keys.first() {
        Some(&key) if matches!(target, Target::Worker(_)) => start_lines(hub, key),
        Some(_) | None => {
            let down = services_of(hub, &keys, |w| !w.is_wanted);
            each(hub, &services, "start", |key| hub.catalog[key].is_stopped || down.contains(&key))
        }
    };
    hub.changed(origin, format!("start {}", target_word(target)), lines, out);
    // A worker that is started serves its service, so that is not stopped any more.
    services.extend(keys.iter().map(|&key| hub.supervision.worker(key).service));
    let said = states::said(hub, origin, &format!("'start {}'", target_word(target)));
    for service in services {
        if std::mem::take(&mut hub.catalog[service].is_stopped) {
            hub.catalog[service].open_act = said.clone();
        }
    }
    // Oldest first, so that the worker that was configured first is ready first.
    for key in keys.into_iter().rev() {
        hub.supervision.start_worker(key, context!(hub, out));
        if *origin == Origin::State {
            hub.supervision.await_earlier(key);
        }
    }
    Ok(OpReply::ok())
}

pub(crate) fn stop(hub: &mut Engine, origin: &Origin, target: &Target, out: Out<'_>) -> OpResult {
    let (keys, services) = (targets(hub, target)?, target_services(hub, target)?);
    let wanted = services_of(hub, &keys, |w| w.is_wanted);
    let lines = match target {
        Target::Worker(id) => wanted.first().map(|_| format!("stop {id}")).into_iter().collect(),
        Target::All | Target::Service(_) => each(hub, &services, "stop", |key| {
            !hub.catalog[key].is_stopped || wanted.contains(&key)
        }),
    };
    hub.changed(origin, format!("stop {}", target_word(target)), lines, out);
    let said = states::said(hub, origin, &format!("'stop {}'", target_word(target)));
    for service in services {
        hub.catalog[service].is_stopped = true;
        hub.catalog[service].stop_act = said.clone();
        let name = &hub.catalog[service].name;
        let text = format!("service '{name}' was stopped while the request waited");
        let error = ErrorBody::new(ErrorCode::ServiceStopped, text);
        hub.dispatch.fail_waiting(Some(service), &error, context!(hub, out));
    }
    for key in keys {
        // A reply that nobody waits for any more need not be finished.
        let is_busy = hub.dispatch.current(key).is_some_and(|t| !t.stage.is_ended());
        hub.supervision.stop_worker(key, (is_busy, &said), context!(hub, out));
    }
    Ok(OpReply::ok())
}

pub(crate) fn target_word(target: &Target) -> String {
    match target {
        Target::All => "all".into(),
        Target::Service(name) => name.to_string(),
        Target::Worker(id) => id.to_string(),
    }
}
