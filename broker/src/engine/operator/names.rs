//! What the names and ids in a command mean, or the error that says what is wrong with them.

use crate::engine::hub::Engine;
use crate::engine::keys::{ClientKey, HostKey, ServiceKey, WorkerKey};
use crate::engine::operator::result::{not_found, refused};
use protocol::{ClientId, HostName, OpError, ServiceName, WorkerId};

/// The service with this name.
///
/// # Errors
/// There is none; the error suggests a similar name.
pub(crate) fn service_named(hub: &Engine, name: &ServiceName) -> Result<ServiceKey, OpError> {
    hub.catalog.find(name.as_str()).ok_or_else(|| not_found(hub.catalog.unknown(name.as_str())))
}

/// The service with this name, if it is not `op`.
///
/// # Errors
/// There is none, or it is `op`, whose requests the broker handles itself.
pub(crate) fn plain_service(hub: &Engine, name: &ServiceName) -> Result<ServiceKey, OpError> {
    if name.is_op() {
        return Err(refused("service 'op' is the broker's own; it has no workers and no settings"));
    }
    service_named(hub, name)
}

/// The service with this name, if operators configured it.
///
/// # Errors
/// There is none, or it is the broker's own, or built in.
pub(crate) fn configured_service(hub: &Engine, name: &ServiceName) -> Result<ServiceKey, OpError> {
    let key = plain_service(hub, name)?;
    if hub.catalog[key].id.is_builtin() {
        return Err(refused(format!(
            "service '{name}' is built in, and so are its workers; 'config service {name}' makes \
             one of your own, which then runs in its stead; 'isectd --with' says which are on"
        )));
    }
    Ok(key)
}

/// The client with this id.
///
/// # Errors
/// It is not attached.
pub(crate) fn client_named(hub: &Engine, id: ClientId) -> Result<ClientKey, OpError> {
    hub.sessions
        .find_client(id)
        .ok_or_else(|| not_found(format!("client {id} is not attached; 'clients' lists them")))
}

/// The worker with this id.
///
/// # Errors
/// It is not configured.
pub(crate) fn worker_named(hub: &Engine, id: WorkerId) -> Result<WorkerKey, OpError> {
    hub.supervision
        .find_worker(id)
        .ok_or_else(|| not_found(format!("worker {id} is not configured; 'workers' lists them")))
}

/// The worker with this id, if it is none of a built-in service.
///
/// # Errors
/// It is not configured.
pub(crate) fn configured_worker(hub: &Engine, id: WorkerId) -> Result<WorkerKey, OpError> {
    let key = worker_named(hub, id)?;
    configured_service(hub, &hub.catalog[hub.supervision.worker(key).service].name)?;
    if id.is_builtin() {
        // A service of its name is configured.
        return Err(refused(format!("worker {id} is built in; it can be stopped and started")));
    }
    Ok(key)
}

/// The host with this name.
///
/// # Errors
/// It is not configured; the error suggests a similar name.
pub(crate) fn host_named(hub: &Engine, name: &HostName) -> Result<HostKey, OpError> {
    hub.supervision.find_host(name).ok_or_else(|| {
        let names = hub.supervision.hosts().map(|(_, host)| host.name.as_str());
        let near = protocol::op::parse::nearest(name.as_str(), names);
        let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
        not_found(format!("host '{name}' is unknown; 'hosts' lists them, 'config host NAME ADDR:PORT' makes one{hint}"))
    })
}
