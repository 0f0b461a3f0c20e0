//! Hosts that an operator drains: nothing is started there, the workers end after the requests that
//! they have, and stay down until the host is undrained. It is stored, so that later brokers keep
//! to it. `host_shutdown` handles an execd that leaves by itself.

use super::machine::Supervision;
use super::process_state::{ProcessEvent, ProcessState};
use super::workers::{AtHaltKeep, Standing, Worker};
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::{HostKey, WorkerKey};
use protocol::HostName;

impl Supervision {
    /// Whether an operator drained a host: nothing is started there.
    pub(crate) fn is_drained(&self, host: &HostName) -> bool {
        self.hosts.named(host).is_some_and(|host| host.is_drained)
    }

    /// Whether nothing is started of a worker, because its host is drained. Built-in services
    /// belong to the broker, not to the host.
    pub(crate) fn is_on_drained(&self, worker: &Worker) -> bool {
        !worker.is_self_started && !worker.id.is_builtin() && self.is_drained(&worker.host)
    }

    /// Carries out `drain host` and `undrain host`: the workers there are ended, or started, part
    /// by part.
    pub(crate) fn set_drained(&mut self, key: HostKey, is_drained: bool, cx: &mut Context<'_>) {
        let host = &mut self.hosts[key];
        host.is_drained = is_drained;
        let mut keys = self.workers.keys_on(&self.hosts[key].name);
        keys.retain(|&key| !self.workers[key].id.is_builtin());
        for &key in &keys {
            if is_drained && self.workers[key].state == ProcessState::Backoff {
                self.workers[key].enter(ProcessEvent::Unplan, cx.now);
            }
            self.review(key, cx);
        }
        let workers = keys.iter().map(|&key| self.workers[key].id).collect();
        if is_drained {
            cx.effects.push(Effect::Retire { workers });
        } else {
            cx.effects.push(Effect::Launch { workers });
        }
    }

    /// Whether a worker has no process that serves, and gets none as long as its host is drained.
    pub(super) fn waits_for_undrain(&self, worker: &Worker) -> bool {
        let serves = match worker.state {
            ProcessState::Down | ProcessState::Backoff => false,
            ProcessState::Exiting | ProcessState::Terminating => false,
            ProcessState::Starting
            | ProcessState::Up
            | ProcessState::Ready
            | ProcessState::Returning => true,
        };
        !serves && self.is_on_drained(worker)
    }

    /// A worker logged in that is to end: its host was drained meanwhile, or it lost its connection
    /// before it was asked to, because it was busy when it was stopped, or was to retire.
    pub(super) fn retire_late(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &self.workers[key];
        let is_to_end = Self::must_end(worker) || self.is_on_drained(worker);
        if is_to_end && !worker.is_self_started {
            self.retire(key, cx);
        }
    }

    /// The workers that end with this broker, those without a process excepted.
    pub(crate) fn not_kept(&self) -> Vec<WorkerKey> {
        let is_one = |worker: &Worker| {
            let ends = match worker.standing {
                Standing::Permanent => worker.at_halt_keep == AtHaltKeep::Ends,
                // It is not stored, so the next broker does not know it.
                Standing::Temporary | Standing::Draining => true,
            };
            ends && worker.state.has_process()
        };
        self.workers.by_id().filter(|(_, worker)| is_one(worker)).map(|(key, _)| key).collect()
    }

    /// A worker is not left to the next broker.
    #[cfg(test)]
    pub(crate) fn keep_not(&mut self, key: WorkerKey) {
        self.workers[key].at_halt_keep = AtHaltKeep::Ends;
    }

    /// The broker ends and leaves its workers to the next one, except this one.
    pub(crate) fn end_with_broker(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        if self.workers[key].state == ProcessState::Ready {
            self.ask_to_end(key, cx);
        } else {
            self.retire(key, cx);
        }
    }
}
