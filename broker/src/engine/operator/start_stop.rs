//! `pause`, `ready`, `start` and `stop` of a worker, a service, a host, or all: which workers are
//! to run, and to take requests.

use super::lines::{each, of_host, services_of, start_lines};
use super::states;
use super::targets::{for_each, none_there, target_services, target_word, targets, worker_line};
use crate::engine::context::context;
use crate::engine::hub::Engine;
use crate::engine::keys::WorkerKey;
use crate::engine::operator::result::{OpResult, refused};
use crate::engine::origin::Origin;
use crate::engine::supervision::workers::Worker;
use crate::engine::work::{Work, WorkerVerb};
use protocol::{ErrorBody, ErrorCode, OpReply, Target};

pub(crate) fn pause(hub: &mut Engine, origin: &Origin, target: &Target) -> OpResult {
    let (keys, services) = (targets(hub, target)?, target_services(hub, target)?);
    let lines = match target {
        Target::Worker(id) => {
            let unpaused = services_of(hub, &keys, |w| !w.is_paused);
            unpaused.first().map(|_| format!("pause {id}")).into_iter().collect()
        }
        Target::Host(name) => of_host(hub, &keys, ("pause", name), |w| !w.is_paused),
        Target::All | Target::Service(_) => {
            each(hub, &services, "pause", |key| !hub.catalog[key].is_paused)
        }
    };
    hub.changed(origin, format!("pause {}", target_word(target)), lines);
    let said = states::said(hub, origin, &format!("'pause {}'", target_word(target)));
    for service in services {
        hub.catalog[service].is_paused = true;
        hub.catalog[service].pause_act = said.clone();
        hub.supervision.tell_outlook(service, context!(hub));
    }
    // Nobody sees what a line of a script answers, and thousands of lines take long.
    let is_shown = hub.script_workers.is_none();
    let mut blocks = Vec::new();
    for &key in &keys {
        if matches!(target, Target::Worker(_) | Target::Host(_)) {
            hub.supervision.pause_worker(key, &said);
        }
        if is_shown {
            blocks.push(worker_line(hub, "paused", key));
        }
    }
    for_each(hub, &keys, (WorkerVerb::Pause, said));
    Ok(if blocks.is_empty() { none_there(target) } else { OpReply { blocks } })
}

pub(crate) fn ready(hub: &mut Engine, origin: &Origin, target: &Target) -> OpResult {
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
    let is_open = |&&key: &&_| !hub.catalog[hub.supervision.worker(key).service].is_paused;
    let open: Vec<WorkerKey> = keys.iter().filter(is_open).copied().collect();
    if let (Target::Host(name), true, false) = (target, open.is_empty(), keys.is_empty()) {
        return Err(refused(format!(
            "the services of all workers on host {name} are paused; 'ready SERVICE' readies one"
        )));
    }
    let paused = services_of(hub, &keys, |w| w.is_paused);
    let lines = match target {
        Target::Worker(id) => paused.first().map(|_| format!("ready {id}")).into_iter().collect(),
        Target::Host(name) => of_host(hub, &keys, ("ready", name), |w| w.is_paused),
        Target::All | Target::Service(_) => {
            each(hub, &services, "ready", |key| hub.catalog[key].is_paused || paused.contains(&key))
        }
    };
    hub.changed(origin, format!("ready {}", target_word(target)), lines);
    let said = states::said(hub, origin, &format!("'ready {}'", target_word(target)));
    for service in services {
        hub.catalog[service].is_paused = false;
        hub.catalog[service].open_act = said.clone();
        hub.supervision.tell_outlook(service, context!(hub));
    }
    for_each(hub, &keys, (WorkerVerb::Ready, said));
    match target {
        Target::All | Target::Service(_) => Ok(OpReply::ok()),
        Target::Host(_) if keys.is_empty() => Ok(none_there(target)),
        Target::Worker(_) | Target::Host(_) => Ok(OpReply {
            blocks: open.iter().map(|&key| worker_line(hub, "readied", key)).collect(),
        }),
    }
}

pub(crate) fn start(hub: &mut Engine, origin: &Origin, target: &Target) -> OpResult {
    let (keys, mut services) = (targets(hub, target)?, target_services(hub, target)?);
    hub.supervision.all_startable(&keys).map_err(refused)?;
    let is_down = |w: &Worker| !w.is_wanted || hub.catalog[w.service].is_stopped;
    let lines = match (target, keys.first()) {
        (Target::Worker(_), Some(&key)) => start_lines(hub, key),
        (Target::Host(name), _) => of_host(hub, &keys, ("start", name), is_down),
        (Target::All | Target::Service(_) | Target::Worker(_), _) => {
            let down = services_of(hub, &keys, |w| !w.is_wanted);
            each(hub, &services, "start", |key| hub.catalog[key].is_stopped || down.contains(&key))
        }
    };
    hub.changed(origin, format!("start {}", target_word(target)), lines);
    // A worker that is started serves its service, so that is not stopped any more.
    services.extend(keys.iter().map(|&key| hub.supervision.worker(key).service));
    let said = states::said(hub, origin, &format!("'start {}'", target_word(target)));
    for service in services {
        if std::mem::take(&mut hub.catalog[service].is_stopped) {
            hub.catalog[service].open_act = said.clone();
        }
    }
    // Oldest first, so that the worker that was configured first is ready first.
    let keys: Vec<WorkerKey> = keys.into_iter().rev().collect();
    let verb = WorkerVerb::Start { is_saved: *origin == Origin::State };
    for_each(hub, &keys, (verb, said));
    Ok(OpReply::ok())
}

pub(crate) fn stop(hub: &mut Engine, origin: &Origin, target: &Target) -> OpResult {
    let (keys, services) = (targets(hub, target)?, target_services(hub, target)?);
    let wanted = services_of(hub, &keys, |w| w.is_wanted);
    let lines = match target {
        Target::Worker(id) => wanted.first().map(|_| format!("stop {id}")).into_iter().collect(),
        Target::Host(name) => of_host(hub, &keys, ("stop", name), |w| w.is_wanted),
        Target::All | Target::Service(_) => each(hub, &services, "stop", |key| {
            !hub.catalog[key].is_stopped || wanted.contains(&key)
        }),
    };
    hub.changed(origin, format!("stop {}", target_word(target)), lines);
    let said = states::said(hub, origin, &format!("'stop {}'", target_word(target)));
    for service in services {
        hub.catalog[service].is_stopped = true;
        hub.catalog[service].stop_act = said.clone();
        if hub.dispatch.is_awaited(service) {
            let name = &hub.catalog[service].name;
            let text = format!("service '{name}' was stopped while the request waited");
            let error = ErrorBody::new(ErrorCode::ServiceStopped, text);
            hub.works
                .begin(Work::FailWaiting { services: [service].into(), error }, &mut hub.effects);
        }
    }
    for_each(hub, &keys, (WorkerVerb::Stop, said));
    Ok(OpReply::ok())
}
