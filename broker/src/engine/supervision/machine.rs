//! The machine `supervision`: decides what runs where, and when it is started again. It owns the
//! processes of the workers, and the hosts.

use super::demand_state::Demand;
use super::rollout::Rollouts;
use super::service_outlook::ServiceOutlook;
use super::workers::{Worker, WorkerSpec, Workers};
use crate::engine::catalog::Catalog;
use crate::engine::keys::{HostKey, ServiceKey, SideTable, WorkerKey};
use crate::engine::supervision::host::{Host, Hosts};
use protocol::{HostName, ServiceSetting, WorkerId};
use std::collections::BTreeSet;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Supervision {
    pub(super) workers: Workers,
    pub(super) hosts: Hosts,
    /// Of each service but `op`: whether a worker may come for its requests.
    pub(super) services: SideTable<ServiceKey, ServiceOutlook>,
    /// The services whose workers are being replaced, and how far that is.
    pub(super) rollouts: Rollouts,
    /// Of each service that is started on demand.
    pub(super) demands: SideTable<ServiceKey, Demand>,
    /// Hosts with a dial under way. The dial goes on when its host is deleted.
    pub(super) dials: BTreeSet<HostName>,
    /// The number of the last start.
    pub(super) next_run: u64,
    /// Starts up to this one were given by earlier brokers, if by any.
    pub(super) run_base: u64,
    /// The number of the last death (`deaths`).
    pub(super) deaths: u64,
    /// The broker ends, and so do the processes of its hosts, within this time in milliseconds.
    pub(super) shutdown_ms: Option<u64>,
}

/// What others may ask; nothing of it changes anything.
impl Supervision {
    /// No workers, no hosts; starts are numbered from `run_base` on.
    pub(crate) fn new(run_base: u64) -> Self {
        Self { next_run: run_base, run_base, ..Self::default() }
    }

    /// Configures a worker; it is down. See `WorkerSpec`.
    ///
    /// # Errors
    /// The id wanted is taken.
    pub(crate) fn add_worker(
        &mut self,
        spec: WorkerSpec,
        id: Option<WorkerId>,
    ) -> Result<WorkerKey, String> {
        self.workers.add(spec, id)
    }

    pub(crate) fn worker(&self, key: WorkerKey) -> &Worker {
        &self.workers[key]
    }

    /// The worker with this key, which may be gone.
    pub(crate) fn get_worker(&self, key: WorkerKey) -> Option<&Worker> {
        self.workers.get(key)
    }

    /// The key of a worker's id.
    pub(crate) fn find_worker(&self, id: WorkerId) -> Option<WorkerKey> {
        self.workers.find(id)
    }

    /// The workers of the built-in services, or all others, in the order of their ids.
    pub(crate) fn workers_by(
        &self,
        is_builtin: bool,
    ) -> impl DoubleEndedIterator<Item = (WorkerKey, &Worker)> {
        self.workers.by_id().filter(move |(_, worker)| worker.id.is_builtin() == is_builtin)
    }

    /// The roles that a worker's processes have as clients.
    pub(crate) fn set_rights(&mut self, key: WorkerKey, rights: Vec<String>) {
        self.workers[key].own.rights = Some(rights);
    }

    /// All workers in the order of their ids.
    pub(crate) fn workers(&self) -> impl DoubleEndedIterator<Item = (WorkerKey, &Worker)> {
        self.workers.by_id()
    }

    /// The keys of all workers, by id.
    pub(crate) fn worker_keys(&self) -> Vec<WorkerKey> {
        self.workers.keys()
    }

    /// How many workers are configured, those that started themselves among them.
    pub(crate) fn worker_count(&self) -> usize {
        self.workers.count()
    }

    /// How many workers a service has.
    pub(crate) fn count_of(&self, service: ServiceKey) -> usize {
        self.workers.count_of(service)
    }

    /// Whether a service may have one more worker.
    ///
    /// # Errors
    /// It may have one only (`single`), and has it.
    pub(crate) fn has_room(&self, service: ServiceKey, catalog: &Catalog) -> Result<(), String> {
        let of = &catalog[service];
        let first = self.workers.of_service(service).next();
        match first.filter(|_| of.settings.get(ServiceSetting::Single) == 1) {
            None => Ok(()),
            Some((_, worker)) => Err(format!(
                "service '{0}' may have one worker (single), and has worker {1}; delete that one \
                 first, or allow several ('config service {0} single=0')",
                of.name, worker.id
            )),
        }
    }

    /// The workers of a service in the order of their ids.
    pub(crate) fn workers_of(
        &self,
        service: ServiceKey,
    ) -> impl DoubleEndedIterator<Item = (WorkerKey, &Worker)> {
        self.workers.of_service(service)
    }

    /// The workers that are configured on a host, in the order of their ids, without those of
    /// built-in services.
    pub(crate) fn workers_on(&self, host: &HostName) -> impl Iterator<Item = (WorkerKey, &Worker)> {
        let here = self.workers.on_host(host);
        here.filter(|(_, worker)| !worker.is_self_started && !worker.id.is_builtin())
    }

    pub(crate) fn host(&self, key: HostKey) -> &Host {
        &self.hosts[key]
    }

    /// The host with this key, which may be gone.
    pub(crate) fn get_host(&self, key: HostKey) -> Option<&Host> {
        self.hosts.get(key)
    }

    /// The key of a host's name.
    pub(crate) fn find_host(&self, name: &HostName) -> Option<HostKey> {
        self.hosts.find(name)
    }

    /// The host that a worker names, if it is configured.
    pub(crate) fn host_named(&self, name: &HostName) -> Option<&Host> {
        self.hosts.named(name)
    }

    /// All hosts, by name.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (HostKey, &Host)> {
        self.hosts.by_name()
    }
}
