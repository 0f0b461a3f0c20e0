//! What the broker does with its built-in services: they become known when it begins to serve, run
//! from then on or on demand (`engine/demand`), and give way to a service of the same name. Their
//! ids begin at `BUILTIN_IDS`, and they stand in no list, count or file of what operators
//! configured.

use super::builtin::{BUILT_IN, BuiltIn};
use super::context::context;
use super::hub::Engine;
use super::keys::{ServiceKey, WorkerKey};
use super::operator_act::OperatorAct;
use super::origin::Origin;
use super::supervision::workers::WorkerSpec;
use super::work::{Work, WorkerVerb};
use protocol::ids::BUILTIN_IDS;
use protocol::{HostName, ServiceId, ServiceName, WorkerId};

/// The broker begins to serve: those that are on become known. Without the built-in execd nothing
/// could start them.
pub(crate) fn begin(hub: &mut Engine) {
    let program = hub.listening.builtin.clone();
    let Ok(host) = HostName::new("localhost") else { return };
    let is_there = hub.supervision.host_named(&host).is_some_and(|host| host.is_builtin);
    for (row, id) in BUILT_IN.iter().zip(BUILTIN_IDS..) {
        if is_there && program.names.contains(&row.name) {
            add(hub, row, id, (&host, &program.path));
        }
    }
}

fn add(hub: &mut Engine, row: &BuiltIn, id: u32, (host, path): (&HostName, &str)) {
    let Ok(name) = ServiceName::new(row.name) else { return };
    let service = hub.catalog.add_builtin(name.clone(), ServiceId(id), hub.now);
    for (setting, value) in row.settings {
        hub.catalog[service].settings.set(*setting, *value);
    }
    hub.dispatch.add_service(service);
    hub.dispatch.count_in_no_bucket(service);
    let spec = WorkerSpec {
        service,
        host: host.clone(),
        path: path.to_owned(),
        args: Vec::new(),
        own: Box::default(),
        is_self_started: false,
        since: hub.now,
    };
    if let Ok(worker) = hub.supervision.add_worker(spec, Some(WorkerId(id))) {
        hub.dispatch.add_worker(worker, WorkerId(id), service);
        let rights = row.rights.iter().map(|&role| role.to_owned()).collect();
        hub.supervision.set_rights(worker, rights);
    }
    hub.supervision.service_changed(service, context!(hub));
    if hub.catalog.find(row.name) != Some(service) {
        on_configured(hub, &name);
    } else {
        start(hub, service);
    }
}

/// Has its workers run, unless it is started on demand: then they wait for the first login.
fn start(hub: &mut Engine, service: ServiceKey) {
    for key in workers(hub, service) {
        let worker = hub.supervision.worker(key);
        // One that failed is an operator's to start.
        if !worker.is_wanted && worker.failed.is_none() {
            hub.supervision.start_worker(key, context!(hub));
        }
    }
}

fn workers(hub: &Engine, service: ServiceKey) -> Vec<WorkerKey> {
    hub.supervision.workers_of(service).map(|(key, _)| key).collect()
}

/// A service was configured. A built-in one of this name is off as long as it is there.
pub(crate) fn on_configured(hub: &mut Engine, name: &ServiceName) {
    let Some(service) = hub.catalog.builtin(name) else { return };
    let text =
        format!("the built-in service '{name}' is off: a service of this name is configured");
    let said = OperatorAct { at: hub.now, by: text.clone() };
    hub.catalog[service].is_stopped = true;
    hub.catalog[service].stop_act = said.clone();
    let ids = workers(hub, service).into_iter().map(|key| hub.supervision.worker(key).id);
    let workers = ids.collect();
    hub.works.begin(Work::Workers { workers, verb: WorkerVerb::Stop, said }, &mut hub.effects);
    hub.noted(&Origin::Broker, text);
}

/// A service was deleted. A built-in one of this name is on again.
pub(crate) fn on_deleted(hub: &mut Engine, name: &ServiceName) {
    let Some(service) = hub.catalog.builtin(name) else { return };
    let text = format!("the built-in service '{name}' is on again");
    hub.catalog[service].is_stopped = false;
    hub.catalog[service].open_act = OperatorAct { at: hub.now, by: text.clone() };
    start(hub, service);
    hub.noted(&Origin::Broker, text);
}
