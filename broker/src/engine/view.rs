//! Plain structs for those who look at the engine from outside: scripts and the simulation. What
//! operators see is made in `read` and `show`.

use super::dispatch::seat::WorkerList;
use super::hub::Engine;
use super::keys::WorkerKey;
use super::supervision::workers::Worker;
use bytes::Bytes;
use protocol::{HostName, ServiceName, TransactionId, WorkerId};

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
    /// An operator stopped it, or never started it: its process may only end.
    pub is_stopped: bool,
}

/// A death as tests see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeathView {
    /// The worker whose process it was.
    pub worker: WorkerId,
    /// The process; 0 = not known.
    pub pid: u32,
    /// The requests that it had, with the bytes that are kept of each.
    pub requests: Vec<(TransactionId, Bytes)>,
}

impl Engine {
    /// The death with this number, if it is kept.
    pub fn death_view(&self, id: u64) -> Option<DeathView> {
        let kept = self.black_box.find(id)?;
        let requests = kept.lost.kept.iter();
        Some(DeathView {
            worker: kept.death.worker,
            pid: kept.death.report.pid,
            requests: requests.map(|lost| (lost.transaction, lost.bytes.clone())).collect(),
        })
    }

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
            is_stopped: !worker.is_wanted,
        };
        self.supervision.workers().map(view).collect()
    }
}
