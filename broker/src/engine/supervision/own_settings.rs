//! Changes of the settings of workers' processes. They hold from the next start on: no process is
//! ended because of one.

use super::machine::Supervision;
use super::run::RunSettings;
use super::workers::Worker;
use crate::engine::catalog::Catalog;
use crate::engine::keys::{ServiceKey, WorkerKey};
use protocol::WorkerId;
use protocol::op::worker_settings::WorkerChange;
use protocol::process::WorkerSettings;

impl Supervision {
    /// Gives a worker settings of its own in place of those that it has.
    pub(crate) fn set_own(&mut self, key: WorkerKey, own: WorkerSettings, catalog: &Catalog) {
        let all = &catalog[self.workers[key].service].of_workers.process;
        let worker = &mut self.workers[key];
        let is_other = all.with(&worker.own.process) != all.with(&own.process);
        *worker.own = own;
        if is_other && worker.state.has_process() {
            worker.run.settings = RunSettings::Earlier;
        }
    }

    /// The settings of all workers of a service changed in this way: notes which processes have
    /// earlier ones.
    pub(crate) fn settings_changed(&mut self, service: ServiceKey, changes: &[WorkerChange]) {
        let of_process = |change: &&WorkerChange| change.setting().is_of_process();
        let changes: Vec<_> = changes.iter().filter(of_process).collect();
        let has_other = |worker: &Worker| {
            let is_own = |change: &&WorkerChange| change.is_set_in(&worker.own);
            worker.state.has_process() && !worker.is_self_started && !changes.iter().all(is_own)
        };
        let mine = self.workers.of_service(service).filter(|(_, worker)| has_other(worker));
        let keys: Vec<WorkerKey> = mine.map(|(key, _)| key).collect();
        for key in keys {
            self.workers[key].run.settings = RunSettings::Earlier;
        }
    }

    /// Those workers of a service whose processes have settings from before a change.
    pub(crate) fn with_earlier_settings(
        &self,
        service: ServiceKey,
    ) -> impl Iterator<Item = WorkerId> {
        let mine = self.workers.of_service(service);
        mine.filter(|(_, worker)| worker.has_earlier_settings()).map(|(_, worker)| worker.id)
    }
}

impl Worker {
    /// Whether its process runs with settings from before a change. Of a process that an earlier
    /// broker started, only changes since its adoption count.
    pub(crate) fn has_earlier_settings(&self) -> bool {
        self.run.settings == RunSettings::Earlier && self.state.has_process()
    }
}
