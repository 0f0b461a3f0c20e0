//! Commands that make, change and delete services, workers and hosts, and `config events`.

use super::lines::{
    events_command, host_command, service_command, service_settings_command, settings_words,
    unless, worker_line,
};
use super::save::check_saved_size;
use super::{names, service_kinds, targets, worker_settings};
use crate::engine::builtin_services;
use crate::engine::catalog::{Service, too_high};
use crate::engine::context::context;
use crate::engine::counted::counted;
use crate::engine::dispatch::seat::WorkerList;
use crate::engine::hub::Engine;
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::operator::cells::{number, text};
use crate::engine::operator::result::{OpResult, fact_kinds, refused};
use crate::engine::operator::script_workers::{ConnectionScript, ScriptWorkers};
use crate::engine::origin::Origin;
use crate::engine::supervision::workers::WorkerSpec;
use crate::engine::topic_frames::publish_facts;
use protocol::op::spec::{ServiceChange, WorkerConfig};
use protocol::process::WorkerSettings;
use protocol::{
    Block, ClientId, HostName, OpError, OpReply, ServiceId, ServiceName, ServiceSetting, Setting,
    WorkerId,
};
use std::collections::BTreeMap;

/// `config service`: makes a service, or changes the settings of one that exists.
pub(crate) fn config_service(
    hub: &mut Engine,
    origin: &Origin,
    (id, name): (Option<ServiceId>, ServiceName),
    settings: &[ServiceChange],
) -> OpResult {
    let known = if name.is_op() {
        Some(names::plain_service(hub, &name)?)
    } else {
        hub.catalog.configured(name.as_str())
    };
    let now = known.map(|key| hub.catalog[key].of_workers.clone()).unwrap_or_default();
    let of_workers = worker_settings::changed_of_service(&now, &name, settings)?;
    service_kinds::check(hub, (&name, known), settings)?;
    let key = match known {
        Some(key) if id.is_some_and(|id| id != hub.catalog[key].id) => {
            return Err(refused(format!(
                "service '{name}' exists with id {}; leave the id out, or delete the service first",
                hub.catalog[key].id
            )));
        }
        Some(key) => key,
        None => {
            let key = hub.catalog.add(name.clone(), id, hub.now).map_err(refused)?;
            hub.dispatch.add_service(key);
            builtin_services::on_configured(hub, &name);
            key
        }
    };
    let id = hub.catalog[key].id;
    let fields = vec![("service", text(&name)), ("service_id", number(id.0))];
    check_single(hub, key, settings)?;
    let service = &hub.catalog[key];
    let is_new = |change: &&ServiceChange| match change {
        ServiceChange::Number(setting, value) => service.settings.get(*setting) != *value,
        ServiceChange::Topic(pattern) => service.topic != *pattern,
        // They are stored all or none: one of them may be undone by another.
        ServiceChange::Worker(_) => of_workers != now,
    };
    let different: Vec<_> = settings.iter().filter(is_new).cloned().collect();
    if known.is_some() && different.is_empty() {
        hub.store.changed(Vec::new(), false);
        let text = format!("unchanged service->id = {id}, service->name = {name}");
        return Ok(OpReply::line("unchanged", text, fields));
    }
    let mut words = String::new();
    for change in settings {
        match change {
            ServiceChange::Number(setting, value) => {
                hub.catalog[key].settings.set(*setting, *value);
            }
            ServiceChange::Topic(pattern) => {
                hub.catalog[key].topic.clone_from(pattern);
                match pattern {
                    Some(pattern) => {
                        publish_facts(hub, pattern);
                        hub.topics.subscribe_service(key, pattern, hub.now);
                    }
                    None => hub.topics.unsubscribe_service(key, hub.now),
                }
            }
            ServiceChange::Worker(_) => {}
        }
        words += &format!(" {change}");
    }
    let lines = service_lines(&hub.catalog[key], &different);
    hub.supervision.settings_changed(key, &of_workers.changes_since(&now));
    hub.catalog[key].of_workers = of_workers;
    hub.changed(origin, format!("config service {name}{words}"), lines);
    hub.dispatch.service_changed(key, context!(hub));
    hub.supervision.service_changed(key, context!(hub));
    let verb = if known.is_some() { "changed" } else { "configured" };
    let said = format!("{verb} service->id = {id}, service->name = {name}");
    let mut reply = OpReply::line(verb, said, fields);
    reply.blocks.extend(worker_settings::earlier_of(hub, key, &different));
    Ok(reply)
}

/// The lines of a change: settings of the service, and those of its workers, which have a line of
/// their own, because both may be as long as a line may be.
fn service_lines(service: &Service, changes: &[ServiceChange]) -> Vec<String> {
    let of_workers = worker_settings::of_workers(changes);
    let is_other = |change: &&ServiceChange| !matches!(change, ServiceChange::Worker(_));
    let others: Vec<_> = changes.iter().filter(is_other).cloned().collect();
    let mut lines = vec![service_command(service, &others)];
    if !of_workers.is_empty() {
        lines.push(service_settings_command(&service.name, &of_workers, true));
    }
    lines
}

pub(crate) fn config_worker(
    hub: &mut Engine,
    origin: &Origin,
    id: Option<WorkerId>,
    config: WorkerConfig,
) -> OpResult {
    let (service, host, own, path, args) = match config {
        WorkerConfig::Whole { service, host, own, path, args } => (service, host, own, path, args),
        WorkerConfig::Change(changes) => {
            let id = id.ok_or_else(|| refused("the id of the worker is missing"))?;
            return worker_settings::change_worker(hub, origin, id, &changes);
        }
    };
    let key = names::configured_service(hub, &service)?;
    names::host_named(hub, &host)?;
    if let Some(id) = id.filter(|id| id.is_builtin()) {
        return Err(refused(too_high(id.0)));
    }
    let words = settings_words(&own, false);
    let words = format!("config worker {service} {host}{words} {path}");
    let own = worker_settings::changed(&WorkerSettings::default(), own.iter())?;
    check_saved_size((&service, &host), &own, &path, &args).map_err(refused)?;
    let own = Box::new(own);
    let spec =
        WorkerSpec { service: key, host, path, args, own, is_self_started: false, since: hub.now };
    let (verb, id) = if let Some(id) = same_worker(hub, origin, id, &spec) {
        hub.store.changed(Vec::new(), false);
        ("unchanged", id)
    } else {
        worker_settings::may_add(hub, origin, &spec, id)?;
        let (id, lines) = add_worker(hub, spec, id)?;
        hub.changed(origin, format!("{words}: worker {id}"), lines);
        ("configured", id)
    };
    name_worker(hub, origin, id);
    let fields = vec![("worker", number(id.0)), ("service", text(&service))];
    Ok(OpReply::line(verb, format!("{verb} worker->id = {id}, worker->name = {service}"), fields))
}

/// The configured worker that a `config worker` names and that is as it says. A command without an
/// id names one only in a script: each worker that was there before is meant once.
fn same_worker(
    hub: &mut Engine,
    origin: &Origin,
    id: Option<WorkerId>,
    spec: &WorkerSpec,
) -> Option<WorkerId> {
    let Engine { script_workers, scripts, supervision, .. } = hub;
    let Some(id) = id else {
        return workers_meant(script_workers, scripts, origin)?.take(spec, supervision);
    };
    let worker = supervision.worker(supervision.find_worker(id)?);
    spec.is_that_of(worker).then_some(id)
}

/// The workers that the script means which is being run, or the one that a connection is.
fn workers_meant<'a>(
    running: &'a mut Option<ScriptWorkers>,
    scripts: &'a mut BTreeMap<ClientId, ConnectionScript>,
    origin: &Origin,
) -> Option<&'a mut ScriptWorkers> {
    match origin {
        _ if running.is_some() => running.as_mut(),
        Origin::Operator { client, .. } => scripts.get_mut(client)?.workers.as_mut(),
        Origin::State | Origin::File(_) | Origin::Broker => None,
    }
}

/// A line of a script named this worker, or made it.
fn name_worker(hub: &mut Engine, origin: &Origin, id: WorkerId) {
    let meant = workers_meant(&mut hub.script_workers, &mut hub.scripts, origin);
    meant.into_iter().for_each(|meant| meant.name(id));
}

/// Refuses `single` for a service that has several workers.
fn check_single(
    hub: &Engine,
    service: ServiceKey,
    settings: &[ServiceChange],
) -> Result<(), OpError> {
    let count = hub.supervision.count_of(service);
    if count < 2 || !settings.contains(&ServiceChange::Number(ServiceSetting::Single, 1)) {
        return Ok(());
    }
    Err(refused(format!(
        "service '{}' has {count} workers, and with single it may have one; delete the others first \
         ('delete worker ID')",
        hub.catalog[service].name
    )))
}

/// Makes a worker; returns its id, and the line of the change.
fn add_worker(
    hub: &mut Engine,
    spec: WorkerSpec,
    id: Option<WorkerId>,
) -> Result<(WorkerId, Vec<String>), OpError> {
    let service = spec.service;
    hub.supervision.has_room(service, &hub.catalog).map_err(refused)?;
    let key = hub.supervision.add_worker(spec, id).map_err(refused)?;
    let worker = hub.supervision.worker(key);
    let (id, line) = (worker.id, worker_line(hub, worker));
    hub.dispatch.add_worker(key, id, service);
    hub.supervision.tell_outlook(service, context!(hub));
    Ok((id, vec![line]))
}

/// `clone`: makes a worker with the same configuration, a new id and counters at 0, lazy until
/// `start`; with a number so many.
pub(crate) fn clone_worker(
    hub: &mut Engine,
    origin: &Origin,
    id: WorkerId,
    count: Option<u64>,
) -> OpResult {
    let key = targets::permanent_worker(hub, id)?;
    names::configured_worker(hub, id)?;
    if hub.supervision.worker(key).is_self_started {
        return Err(refused(format!(
            "worker {id} started itself; it can't be cloned: start another process like it"
        )));
    }
    let settings = &hub.catalog[hub.supervision.worker(key).service].settings;
    if count.is_some_and(|count| count > 1) && settings.get(ServiceSetting::Single) == 1 {
        return Err(refused(format!("the service of worker {id} may have one worker (single)")));
    }
    let mut blocks = Vec::new();
    for _ in 0..count.unwrap_or(1) {
        let host = hub.supervision.worker(key).host.clone();
        let (new, lines) = add_like(hub, key, host)?;
        hub.changed(origin, format!("clone {id}: worker {new}"), lines);
        name_worker(hub, origin, new);
        blocks.push(Block::Line {
            name: if count.is_some() { "clones" } else { "cloned" },
            text: format!("cloned {new} from {id}"),
            fields: vec![("worker", number(new.0)), ("from", number(id.0))],
        });
    }
    Ok(OpReply { blocks })
}

/// Makes a worker like this one on a host; returns its id, and the lines of the change.
pub(crate) fn add_like(
    hub: &mut Engine,
    like: WorkerKey,
    host: HostName,
) -> Result<(WorkerId, Vec<String>), OpError> {
    let worker = hub.supervision.worker(like);
    let spec = WorkerSpec {
        service: worker.service,
        host,
        path: worker.path.clone(),
        args: worker.args.clone(),
        own: worker.own.clone(),
        is_self_started: false,
        since: hub.now,
    };
    add_worker(hub, spec, None)
}

pub(crate) fn delete_worker(hub: &mut Engine, origin: &Origin, id: WorkerId) -> OpResult {
    let key = targets::permanent_worker(hub, id)?;
    names::configured_worker(hub, id)?;
    let worker = hub.supervision.worker(key);
    let seat = hub.dispatch.seat(key);
    let list = match seat.list {
        WorkerList::Lazy => None,
        WorkerList::Idle => Some("idle"),
        WorkerList::Busy => Some("busy"),
    };
    if let Some(list) = list {
        return Err(refused(format!(
            "worker {id} is {list}; delete needs it lazy (stop {id}, then delete worker {id})"
        )));
    }
    if seat.link.is_some() || (worker.is_wanted && worker.state.has_process()) {
        return Err(refused(format!(
            "worker {id} is {}; delete needs its process ended (stop {id}, then delete worker {id})",
            worker.state.word()
        )));
    }
    let line = format!("delete worker {id}");
    if worker.is_self_started {
        hub.noted(origin, line);
    } else {
        hub.changed(origin, line.clone(), vec![line]);
    }
    hub.supervision.forget_worker(key, context!(hub));
    Ok(OpReply::line("deleted", format!("worker {id} deleted"), vec![("worker", number(id.0))]))
}

pub(crate) fn delete_service(hub: &mut Engine, origin: &Origin, name: &ServiceName) -> OpResult {
    let key = names::configured_service(hub, name)?;
    let (workers, clients) = (hub.supervision.count_of(key), hub.dispatch.queue(key).callers);
    if workers > 0 {
        return Err(refused(format!(
            "service '{name}' has {}; delete what it has first ('delete worker ID')",
            counted(workers, "worker")
        )));
    }
    if clients > 0 {
        return Err(refused(format!(
            "service '{name}' has {}; move or delete what it has first ('service CLIENT NAME', 'delete client ID')",
            counted(clients, "client")
        )));
    }
    if hub.dispatch.is_awaited(key) {
        return Err(refused(format!(
            "service '{name}' has requests under way; try again when they have ended"
        )));
    }
    hub.topics.unsubscribe_service(key, hub.now);
    hub.catalog.remove(key);
    hub.dispatch.remove_service(key);
    hub.supervision.remove_service(key);
    let line = format!("delete service {name}");
    hub.changed(origin, line.clone(), vec![line]);
    builtin_services::on_deleted(hub, name);
    Ok(OpReply::line("deleted", format!("service {name} deleted"), vec![("service", text(name))]))
}

pub(crate) fn config_host(
    hub: &mut Engine,
    origin: &Origin,
    name: &HostName,
    address: &str,
) -> OpResult {
    let mut lines = vec![host_command(name, address)];
    match hub.supervision.find_host(name) {
        Some(key) if hub.supervision.host(key).is_builtin => {
            return Err(refused(format!(
                "host '{name}' is built in; choose another name for {address}"
            )));
        }
        Some(key) if hub.supervision.host(key).address == address => lines.clear(),
        Some(key) => hub.supervision.move_host(key, address.to_owned(), context!(hub)),
        None => hub.supervision.add_host(name, address.to_owned(), false, context!(hub)),
    }
    hub.changed(origin, format!("config host {name} {address}"), lines);
    let fields = vec![("host", text(name)), ("address", text(address))];
    let text = format!("configured host->name = {name}, host->address = {address}");
    Ok(OpReply::line("configured", text, fields))
}

pub(crate) fn delete_host(hub: &mut Engine, origin: &Origin, name: &HostName) -> OpResult {
    let key = names::host_named(hub, name)?;
    if hub.supervision.host(key).is_builtin {
        return Err(refused(format!(
            "host '{name}' is built in and can't be deleted; a worker there is, with 'delete worker ID'"
        )));
    }
    let count = hub.supervision.workers_on(name).count();
    if count > 0 {
        return Err(refused(format!(
            "host '{name}' has {}; delete what it has first ('delete worker ID')",
            counted(count, "worker")
        )));
    }
    hub.supervision.remove_host(key, context!(hub));
    let line = format!("delete host {name}");
    hub.changed(origin, line.clone(), vec![line]);
    Ok(OpReply::line("deleted", format!("host {name} deleted"), vec![("host", text(name))]))
}

/// `config events`: sets how many facts are kept, and of which kinds; the answer is the
/// manual's.
pub(crate) fn config_events(
    hub: &mut Engine,
    origin: &Origin,
    count: u64,
    kinds: &[String],
) -> OpResult {
    let kinds = fact_kinds(kinds)?;
    let before = events_command(hub);
    hub.settings.set(Setting::EventsMax, count);
    hub.facts.recent_mut().configure(count as usize, kinds);
    let line = events_command(hub);
    let is_same = line == before && !hub.given.is_changed(Setting::EventsMax);
    hub.changed(origin, format!("config events {count}"), unless(is_same, line));
    let fields = vec![("events_max", number(count))];
    Ok(OpReply::line("configured", format!("isdData.NumEvents={count}"), fields))
}
