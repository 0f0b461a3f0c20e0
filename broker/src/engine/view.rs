//! Plain structs for who looks at the engine from outside: scripts, the simulation, the reactor.
//! Not what operators see: `op_read` and `op_show` make that.

use super::dispatch::seat::WorkerList;
use super::hub::Engine;
use super::keys::WorkerKey;
use super::supervision::workers::Worker;
use protocol::ids::WorkerId;
use protocol::names::{HostName, ServiceName};

/// Where a worker stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Its number.
    pub id: WorkerId,
    /// Its service.
    pub service: ServiceName,
    /// Its host.
    pub host: HostName,
    /// The manual's list it is in: `lazy`, `idle` or `busy`.
    pub list: &'static str,
    /// How far its process is, as the column `state` of `workers` says it.
    pub state: &'static str,
}

impl Engine {
    /// All workers, by id.
    pub fn workers_view(&self) -> Vec<WorkerView> {
        let view = |(key, worker): (WorkerKey, &Worker)| WorkerView {
            id: worker.id,
            service: self.catalog[worker.service].name.clone(),
            host: worker.host.clone(),
            list: match self.dispatch.seat(key).list {
                WorkerList::Lazy => "lazy",
                WorkerList::Idle => "idle",
                WorkerList::Busy => "busy",
            },
            state: worker.state.word(),
        };
        self.supervision.workers().map(view).collect()
    }
}
