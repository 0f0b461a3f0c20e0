//! Plain structs for those who look at the engine from outside: scripts and the simulation. What
//! operators see is made in `read` and `show`.

use super::dispatch::seat::WorkerList;
use super::hub::Engine;
use super::keys::WorkerKey;
use super::supervision::workers::Worker;
use protocol::{HostName, ServiceName, WorkerId};

/// A worker as tests see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Its id, as operators and peers see it.
    pub id: WorkerId,
    /// Name of the service that it serves.
    pub service: ServiceName,
    /// Name of its host, which need not be configured if it started itself.
    pub host: HostName,
    /// The manual's list that it is in: `lazy`, `idle` or `busy`.
    pub list: &'static str,
    /// How far its process is, as the column `state` of `workers` says.
    pub state: &'static str,
}

impl Engine {
    /// All workers in the order of their ids.
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
