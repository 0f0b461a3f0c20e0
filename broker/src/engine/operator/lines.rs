//! The lines of changes: commands that change the configuration as an operator's command did, with
//! the ids and names that it meant. `save` writes the whole configuration with the same ones.

use crate::engine::catalog::Service;
use crate::engine::hub::Engine;
use crate::engine::instances::groups::GroupConfig;
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::supervision::workers::Worker;
use protocol::op::parse::quote;
use protocol::op::spec::GroupMembers;
use protocol::op::spec::ServiceChange;
use protocol::op::worker_settings::WorkerChange;
use protocol::{HostName, OpRequest, ServiceName, WorkerId};
use std::collections::BTreeSet;

/// The line of a change, unless everything is as it says.
pub(crate) fn unless(is_same: bool, command: String) -> Vec<String> {
    if is_same { Vec::new() } else { vec![command] }
}

/// The services with a configured worker among these for which it `is_so`. Workers that started
/// themselves, and those of built-in services, are no part of the configuration.
pub(crate) fn services_of(
    hub: &Engine,
    keys: &[WorkerKey],
    is_so: impl Fn(&Worker) -> bool,
) -> BTreeSet<ServiceKey> {
    let workers = keys.iter().map(|&key| hub.supervision.worker(key));
    let configured = workers.filter(|w| w.is_configured() && !w.id.is_builtin());
    configured.filter(|w| is_so(w)).map(|w| w.service).collect()
}

/// The command for the workers of a host, if there is a configured one among these for which it
/// `is_so`.
pub(crate) fn of_host(
    hub: &Engine,
    keys: &[WorkerKey],
    (verb, host): (&str, &HostName),
    is_so: impl Fn(&Worker) -> bool,
) -> Vec<String> {
    unless(services_of(hub, keys, is_so).is_empty(), format!("{verb} host {host}"))
}

/// The command for each of these services for which it `is_so`.
pub(crate) fn each(
    hub: &Engine,
    services: &[ServiceKey],
    verb: &str,
    is_so: impl Fn(ServiceKey) -> bool,
) -> Vec<String> {
    let services = services.iter().filter(|key| !hub.catalog[**key].id.is_builtin());
    let services = services.filter(|key| is_so(**key));
    // They may be thousands, and formatting takes four times as long.
    services.map(|&key| [verb, " ", hub.catalog[key].name.as_str()].concat()).collect()
}

/// The commands that change the configuration as `start` of one worker does.
pub(crate) fn start_lines(hub: &Engine, key: WorkerKey) -> Vec<String> {
    let worker = hub.supervision.worker(key);
    let service = &hub.catalog[worker.service];
    if worker.id.is_builtin() {
        return Vec::new();
    }
    if !worker.is_self_started {
        let is_same = worker.is_wanted && !service.is_stopped;
        return if is_same { Vec::new() } else { vec![format!("start {}", worker.id)] };
    }
    if !service.is_stopped {
        return Vec::new();
    }
    // It opens its service, but the configured workers of the service stay as they are.
    let mut lines = vec![format!("start {}", service.name)];
    let others = hub.supervision.workers_of(worker.service);
    let others = others.filter(|(_, w)| w.is_configured() && !w.is_wanted);
    lines.extend(others.map(|(_, w)| format!("stop {}", w.id)));
    lines
}

/// The command that has as many facts kept, of the same kinds.
pub(crate) fn events_command(hub: &Engine) -> String {
    let recent = hub.facts.recent();
    let kinds: String = recent.kinds().iter().map(|kind| format!(" {}", kind.row().name)).collect();
    format!("config events {}{kinds}", recent.max())
}

/// The command that gives a service these settings, and makes it if it is not there.
pub(crate) fn service_command(service: &Service, changes: &[ServiceChange]) -> String {
    let mut out = format!("config service #{} {}", service.id, service.name);
    for change in changes {
        out += &format!(" {change:#}");
    }
    out
}

/// The command that gives a service that is there these settings of its workers; the values of
/// variables stand in it only if they are shown.
pub(crate) fn service_settings_command(
    name: &ServiceName,
    changes: &[WorkerChange],
    is_shown: bool,
) -> String {
    format!("config service {name}{}", settings_words(changes, is_shown))
}

/// The command that gives a worker that is there these settings of its own.
pub(crate) fn own_changes_command(
    id: WorkerId,
    changes: &[WorkerChange],
    is_shown: bool,
) -> String {
    format!("config worker #{id}{}", settings_words(changes, is_shown))
}

/// Settings as words of a command, a blank before each.
pub(crate) fn settings_words(changes: &[WorkerChange], is_shown: bool) -> String {
    let word = |change| if is_shown { format!(" {change:#}") } else { format!(" {change}") };
    changes.iter().map(word).collect()
}

/// The command that says of a group what is said of it.
pub(crate) fn group_command(name: &ServiceName, config: &GroupConfig) -> String {
    let members = GroupMembers { min: config.min, members: config.members.clone() };
    OpRequest::ConfigGroup { name: name.clone(), members }.to_string()
}

/// The command that makes a host, or moves it.
pub(crate) fn host_command(name: &HostName, address: &str) -> String {
    format!("config host {name} {}", quote(address))
}

/// The command that makes this worker again.
pub(crate) fn worker_line(hub: &Engine, worker: &Worker) -> String {
    let place = (&hub.catalog[worker.service].name, &worker.host);
    let own = settings_words(&worker.own.changes(), true);
    worker_command(worker.id, place, &own, &worker.path, &worker.args)
}

/// The same without the values of variables.
pub(crate) fn hidden_worker_line(hub: &Engine, worker: &Worker) -> String {
    let place = (&hub.catalog[worker.service].name, &worker.host);
    let own = settings_words(&worker.own.changes(), false);
    worker_command(worker.id, place, &own, &worker.path, &worker.args)
}

/// The command that makes a worker again; `own` are its settings as words. It may be longer than
/// the one that made it, because words are quoted in only one way.
pub(crate) fn worker_command(
    id: WorkerId,
    (service, host): (&ServiceName, &HostName),
    own: &str,
    path: &str,
    args: &[String],
) -> String {
    let mut out = format!("config worker #{id} {service} {host}{own} {}", quote(path));
    for arg in args {
        out.push(' ');
        out += &quote(arg);
    }
    out
}
