//! A host whose execd reports that it shuts down in order: nothing is started there, its workers
//! get no requests until it is linked again and end after those that they have, which its execd
//! waits for; their ends are no crashes. A host can report this
//! only of the workers that run on it. A host that is lost without a word is in `absence`.

use super::machine::Supervision;
use super::run::{ExpectedEnd, is_fault};
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind};
use crate::engine::keys::{HostKey, WorkerKey};
use crate::engine::quotas::Class;
use crate::engine::supervision::host_state::HostState;
use protocol::{HostName, LinkId};
use std::collections::VecDeque;

impl Supervision {
    /// Handles the report of an execd that it shuts down. Returns false if it is no news, or the
    /// execd does not serve this broker.
    pub(crate) fn on_host_shutdown(
        &mut self,
        link: LinkId,
        key: HostKey,
        cx: &mut Context<'_>,
    ) -> bool {
        let host = &mut self.hosts[key];
        let serves = matches!(host.state, HostState::Listing(at) | HostState::Up(at) if at == link);
        if !serves || std::mem::replace(&mut host.connection.is_shutting_down, true) {
            return false;
        }
        host.why = "its execd is shutting down, and its workers end when they have answered".into();
        let name = host.name.clone();
        let text = format!(
            "host {name} at {}: its execd is shutting down, and its workers end when they have \
             answered; nothing is started there until it is back",
            host.address
        );
        if cx.may_cause(Class::Host, Some(link)) {
            let about = About { host: Some(name), ..About::default() };
            cx.record(FactKind::HostShutdown, about, text);
        }
        self.end_with_host(key, cx);
        true
    }

    /// Marks the workers that run on a host, and has them end after the requests that they have:
    /// they end with it, except those that the broker has killed, whose end has a cause already.
    pub(crate) fn end_with_host(&mut self, host: HostKey, cx: &mut Context<'_>) {
        let mut workers = VecDeque::new();
        for key in self.workers.keys_on(&self.hosts[host].name) {
            let worker = &mut self.workers[key];
            if worker.state.has_process() && worker.run.killed.is_none() {
                if matches!(worker.run.expected_end, ExpectedEnd::No | ExpectedEnd::Retire) {
                    worker.run.expected_end = ExpectedEnd::WithHost;
                }
                workers.push_back(worker.id);
                self.update_available(key, cx);
            }
        }
        if !workers.is_empty() {
            cx.effects.push(Effect::Retire { workers });
        }
    }

    /// The link on which programs of a host can be started now.
    pub(crate) fn start_link(&self, name: &HostName) -> Option<LinkId> {
        let host = self.hosts.named(name).filter(|host| !host.connection.is_shutting_down)?;
        self.host_link(&host.name)
    }

    /// Whether the cause of a worker's end is the shutdown of its host: however a program ends that
    /// is asked to, except by a signal for a fault of its own.
    pub(crate) fn is_ended_with_host(&self, key: WorkerKey) -> bool {
        let worker = &self.workers[key];
        worker.run.expected_end == ExpectedEnd::WithHost
            && worker.is_wanted
            && worker.run.killed.is_none()
            && !worker.exit_cause.is_some_and(is_fault)
    }

    /// Handles such an end: the worker is started again when its host is back, and the end counts
    /// neither for its backoff nor as a restart.
    pub(crate) fn ended_with_host(&mut self, key: WorkerKey, how: &str, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        worker.gone(cx.now);
        worker.why = format!("ended with its host, whose execd shut down: {how}");
        self.update_available(key, cx);
        let what = format!("ended with its host, whose execd is shutting down: {how}");
        self.worker_fact(FactKind::WorkerEnded, key, &what, cx);
        self.launch(key, cx);
    }
}
