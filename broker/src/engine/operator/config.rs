//! Commands that make, change and delete services, workers and hosts, and `config events`.

use super::names;
use super::save::check_saved_size;
use crate::engine::context::context;
use crate::engine::counted::counted;
use crate::engine::dispatch::seat::WorkerList;
use crate::engine::hub::{Engine, Out};
use crate::engine::operator::cells::number;
use crate::engine::operator::cells::text;
use crate::engine::operator::result::OpResult;
use crate::engine::operator::result::fact_kinds;
use crate::engine::operator::result::refused;
use crate::engine::origin::Origin;
use crate::engine::supervision::workers::WorkerSpec;
use protocol::ids::{ServiceId, WorkerId};
use protocol::names::{HostName, ServiceName};
use protocol::op::reply::OpReply;
use protocol::settings::{ServiceSetting, Setting};

/// `config service`: makes a service, or changes the settings of one that exists.
pub(crate) fn config_service(
    hub: &mut Engine,
    origin: &Origin,
    (id, name): (Option<ServiceId>, ServiceName),
    settings: &[(ServiceSetting, u64)],
    out: Out<'_>,
) -> OpResult {
    let known = if name.is_op() {
        Some(names::plain_service(hub, &name)?)
    } else {
        hub.catalog.find(name.as_str())
    };
    let key = match known {
        Some(key) if id.is_some_and(|id| id != hub.catalog[key].id) => {
            return Err(refused(format!(
                "service '{name}' exists with id {}; leave the id out, or delete the service first",
                hub.catalog[key].id
            )));
        }
        Some(_) if settings.is_empty() => {
            return Err(refused(format!(
                "service '{name}' exists; 'config service {name} SETTING=VALUE' changes it"
            )));
        }
        Some(key) => key,
        None => {
            let key = hub.catalog.add(name.clone(), id, hub.now).map_err(refused)?;
            hub.dispatch.add_service(key);
            key
        }
    };
    let mut words = String::new();
    for &(setting, value) in settings {
        hub.catalog[key].settings.set(setting, value);
        words += &format!(" {}={value}", setting.row().name);
    }
    hub.changed(origin, format!("config service {name}{words}"), out);
    hub.dispatch.service_changed(key, context!(hub, out));
    let id = hub.catalog[key].id;
    let verb = if known.is_some() { "changed" } else { "configured" };
    let fields = vec![("service", text(&name)), ("service_id", number(id.0))];
    Ok(OpReply::line(verb, format!("{verb} service->id = {id}, service->name = {name}"), fields))
}

pub(crate) fn config_worker(
    hub: &mut Engine,
    origin: &Origin,
    id: Option<WorkerId>,
    (service, host): (ServiceName, HostName),
    (path, args): (String, Vec<String>),
    out: Out<'_>,
) -> OpResult {
    let key = names::plain_service(hub, &service)?;
    names::host_named(hub, &host)?;
    check_saved_size((&service, &host), &path, &args).map_err(refused)?;
    let words = format!("config worker {service} {host} {path}");
    let spec =
        WorkerSpec { service: key, host, path, args, is_self_started: false, since: hub.now };
    let worker = hub.supervision.add_worker(spec, id).map_err(refused)?;
    let id = hub.supervision.worker(worker).id;
    hub.dispatch.add_worker(worker, id, key);
    hub.changed(origin, format!("{words}: worker {id}"), out);
    let fields = vec![("worker", number(id.0)), ("service", text(&service))];
    Ok(OpReply::line(
        "configured",
        format!("configured worker->id = {id}, worker->name = {service}"),
        fields,
    ))
}

/// `clone`: makes a worker with the same configuration, a new id and counters at 0, lazy until
/// `start`.
pub(crate) fn clone_worker(
    hub: &mut Engine,
    origin: &Origin,
    id: WorkerId,
    out: Out<'_>,
) -> OpResult {
    let worker = hub.supervision.worker(names::worker_named(hub, id)?);
    if worker.is_self_started {
        return Err(refused(format!(
            "worker {id} started itself; it can't be cloned: start another process like it"
        )));
    }
    let spec = WorkerSpec {
        service: worker.service,
        host: worker.host.clone(),
        path: worker.path.clone(),
        args: worker.args.clone(),
        is_self_started: false,
        since: hub.now,
    };
    let service = spec.service;
    let key = hub.supervision.add_worker(spec, None).map_err(refused)?;
    let new = hub.supervision.worker(key).id;
    hub.dispatch.add_worker(key, new, service);
    hub.changed(origin, format!("clone {id}: worker {new}"), out);
    let fields = vec![("worker", number(new.0)), ("from", number(id.0))];
    Ok(OpReply::line("cloned", format!("cloned {new} from {id}"), fields))
}

pub(crate) fn delete_worker(
    hub: &mut Engine,
    origin: &Origin,
    id: WorkerId,
    out: Out<'_>,
) -> OpResult {
    let key = names::worker_named(hub, id)?;
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
    hub.changed(origin, format!("delete worker {id}"), out);
    hub.supervision.forget_worker(key, context!(hub, out));
    Ok(OpReply::line("deleted", format!("worker {id} deleted"), vec![("worker", number(id.0))]))
}

pub(crate) fn delete_service(
    hub: &mut Engine,
    origin: &Origin,
    name: &ServiceName,
    out: Out<'_>,
) -> OpResult {
    let key = names::plain_service(hub, name)?;
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
    hub.catalog.remove(key);
    hub.dispatch.remove_service(key);
    hub.changed(origin, format!("delete service {name}"), out);
    Ok(OpReply::line("deleted", format!("service {name} deleted"), vec![("service", text(name))]))
}

pub(crate) fn config_host(
    hub: &mut Engine,
    origin: &Origin,
    name: &HostName,
    address: &str,
    out: Out<'_>,
) -> OpResult {
    match hub.supervision.find_host(name) {
        Some(key) if hub.supervision.host(key).is_builtin => {
            return Err(refused(format!(
                "host '{name}' is built in; choose another name for {address}"
            )));
        }
        Some(key) if hub.supervision.host(key).address == address => {}
        Some(key) => hub.supervision.move_host(key, address.to_owned(), context!(hub, out)),
        None => hub.supervision.add_host(name, address.to_owned(), false, context!(hub, out)),
    }
    hub.changed(origin, format!("config host {name} {address}"), out);
    let fields = vec![("host", text(name)), ("address", text(address))];
    Ok(OpReply::line(
        "configured",
        format!("configured host->name = {name}, host->address = {address}"),
        fields,
    ))
}

pub(crate) fn delete_host(
    hub: &mut Engine,
    origin: &Origin,
    name: &HostName,
    out: Out<'_>,
) -> OpResult {
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
    hub.supervision.remove_host(key, context!(hub, out));
    hub.changed(origin, format!("delete host {name}"), out);
    Ok(OpReply::line("deleted", format!("host {name} deleted"), vec![("host", text(name))]))
}

/// `config events`: sets how many facts are kept, and of which kinds; the answer is the
/// manual's.
pub(crate) fn config_events(
    hub: &mut Engine,
    origin: &Origin,
    count: u64,
    kinds: &[String],
    out: Out<'_>,
) -> OpResult {
    let kinds = fact_kinds(kinds)?;
    hub.settings.set(Setting::EventsMax, count);
    hub.facts.recent_mut().configure(count as usize, kinds);
    hub.changed(origin, format!("config events {count}"), out);
    Ok(OpReply::line(
        "configured",
        format!("isdData.NumEvents={count}"),
        vec![("events_max", number(count))],
    ))
}
