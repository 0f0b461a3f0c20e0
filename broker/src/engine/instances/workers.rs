//! Workers: each is an instance of its service, from the start of its process to its end. How it
//! is, follows from its process; it sends no beats for itself.

use super::instance::{Condition, EndReason, Instance, InstanceName, Owner};
use super::machine::Instances;
use crate::engine::context::Context;
use crate::engine::keys::WorkerKey;
use protocol::instances::InstanceType;
use protocol::{HostName, Micros, RunId, ServiceName, WorkerId};

/// Stands in place of the machine in the names of workers, so that they are never those of
/// instances that programs announce.
const WORKERS: &str = "@";

/// A worker as it is now.
#[derive(Clone, Debug)]
pub(crate) struct WorkerInstance {
    pub(crate) id: WorkerId,
    pub(crate) service: ServiceName,
    pub(crate) host: HostName,
    pub(crate) run: RunId,
    /// How it is; `None` = it has no process.
    pub(crate) condition: Option<Condition>,
    /// Its last run ended, or ends now, because of a failure.
    pub(crate) is_failure: bool,
    /// Transactions that it has completed.
    pub(crate) checkpoint: u64,
}

impl Instances {
    /// The instance that a worker is; `None` = it has no process.
    pub(crate) fn worker(&self, id: WorkerId) -> Option<&Instance> {
        self.workers.get(&id).map(|&key| &self.table[key])
    }

    /// How many workers are instances.
    pub(crate) fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// Whether a worker was like this before, in this run; it is noted. `None` = it has no process.
    #[inline]
    pub(crate) fn has_seen(
        &mut self,
        worker: WorkerKey,
        (run, condition): (RunId, Option<Condition>),
    ) -> bool {
        let Some(condition) = condition else {
            return self.seen.remove(worker).is_none();
        };
        let now = (run, condition);
        match self.seen.get_mut(worker) {
            Some(seen) => std::mem::replace(seen, now) == now,
            None => {
                self.seen.insert(worker, now);
                false
            }
        }
    }

    /// Something of a worker changed.
    pub(crate) fn review_worker(&mut self, worker: WorkerInstance, cx: &mut Context<'_>) {
        let known = self.workers.get(&worker.id).copied();
        if let Some(key) = known {
            let instance = self.table.get_mut(key);
            instance.checkpoint = worker.checkpoint;
            let (was, is_same_run) = (instance.condition, instance.owner.is_run(worker.run));
            match worker.condition {
                Some(condition) if is_same_run => {
                    if condition != was {
                        self.turn(key, condition, false, cx);
                    }
                    return self.settle(cx);
                }
                Some(_) | None => {
                    let reason = match worker.is_failure {
                        true => EndReason::Failed,
                        false => EndReason::Withdrawn,
                    };
                    self.workers.remove(&worker.id);
                    self.end(key, reason, None, cx);
                }
            }
        }
        if let Some(condition) = worker.condition {
            self.begin_worker(worker, condition, cx);
        }
        self.settle(cx);
    }

    /// A worker is removed: that it failed is forgotten.
    pub(crate) fn forget_worker(
        &mut self,
        service: ServiceName,
        id: WorkerId,
        cx: &mut Context<'_>,
    ) {
        let name = InstanceName { name: service, machine: WORKERS.into(), id: id.0.into() };
        self.history.forget(&name, &mut self.groups);
        self.settle(cx);
    }

    fn begin_worker(&mut self, worker: WorkerInstance, condition: Condition, cx: &mut Context<'_>) {
        let now = self.clock.read(cx.now);
        let WorkerInstance { id, service, host, run, checkpoint, .. } = worker;
        let groups = vec![service.clone()];
        let name = InstanceName { name: service, machine: WORKERS.into(), id: id.0.into() };
        let key = self.add(
            Instance {
                name,
                owner: Owner::Worker { id, host, run },
                incarnation: 0,
                kind: InstanceType::Data,
                named_groups: groups,
                groups: Vec::new(),
                addresses: Vec::new(),
                meta: Vec::new(),
                state_names: Vec::new(),
                timeout: Micros(0),
                stalled: Micros(0),
                condition,
                is_stalled: false,
                text: String::new(),
                began: cx.now,
                since: cx.now,
                checkpoint,
                moved: now,
                heard: now,
                heard_at: cx.now,
                look: None,
            },
            None,
            cx,
        );
        self.workers.insert(id, key);
    }
}
