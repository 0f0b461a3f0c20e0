//! A host whose execd shuts down in order and said so: nothing is started there and no request is
//! given to its workers until it is linked anew, and their ends are no crashes. It can
//! say this only of the workers that run there. Not a host that is lost: `absence`.

use super::hosts::HostState;
use super::machine::Supervision;
use super::workers::ProcessState;
use crate::engine::context::Context;
use crate::engine::fact::{About, FactKind};
use crate::engine::keys::{HostKey, WorkerKey};
use crate::engine::quotas::Class;
use protocol::bodies::Ending;
use protocol::ids::LinkId;
use protocol::names::HostName;

impl Supervision {
    /// The execd at this link says that it is shutting down. False if that is no news of an execd
    /// that serves the broker.
    pub(crate) fn on_host_shutdown(
        &mut self,
        link: LinkId,
        key: HostKey,
        cx: &mut Context<'_>,
    ) -> bool {
        let host = &mut self.hosts[key];
        let serves = match host.state {
            HostState::Listing(at) | HostState::Up(at) => at == link,
            HostState::Down | HostState::Dialing | HostState::Greeting(_) => false,
        };
        if !serves || std::mem::replace(&mut host.is_shutting_down, true) {
            return false;
        }
        host.why = "its execd is shutting down and ends its workers".into();
        let name = host.name.clone();
        let text = format!(
            "host {name} at {}: its execd is shutting down and ends its workers; nothing is \
             started there until it is back",
            host.address
        );
        if cx.may_cause(Class::Host, Some(link)) {
            let about = About { host: Some(name), ..About::default() };
            cx.record(FactKind::HostShutdown, about, text);
        }
        self.end_with_host(key, cx);
        true
    }

    /// The workers that run on a host end with it, except those that the broker has killed: that
    /// is their end already.
    pub(crate) fn end_with_host(&mut self, host: HostKey, cx: &mut Context<'_>) {
        for key in self.workers.keys() {
            let worker = &mut self.workers[key];
            let is_there = worker.host == self.hosts[host].name && !worker.is_self_started;
            let runs = is_there && worker.state.has_process();
            if runs && worker.killed.is_none() {
                worker.ends_with_host = true;
                self.update_available(key, cx);
            }
        }
    }

    /// Where programs of a host can be started now.
    pub(crate) fn start_link(&self, name: &HostName) -> Option<LinkId> {
        let host = self.hosts.named(name).filter(|host| !host.is_shutting_down)?;
        self.host_link(&host.name)
    }

    /// Whether the end of a worker is put down to the end of its host: however a program ends that
    /// is asked to, but not by a fault of its own.
    pub(crate) fn is_ended_with_host(&self, key: WorkerKey) -> bool {
        let worker = &self.workers[key];
        let is_asked = worker.is_stopping || !worker.is_wanted || worker.killed.is_some();
        worker.ends_with_host && !is_asked && !worker.ending.is_some_and(is_fault)
    }

    /// A worker has ended with its host: started again when that is back, and counted neither for
    /// its backoff nor as a restart.
    pub(crate) fn ended_with_host(&mut self, key: WorkerKey, how: &str, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        worker.enter(ProcessState::Down, cx.now);
        worker.why = format!("ended with its host, whose execd shut down: {how}");
        worker.pid = 0;
        (worker.has_exited, worker.ends_with_host) = (false, false);
        self.update_available(key, cx);
        let what = format!("ended with its host, whose execd is shutting down: {how}");
        self.worker_fact(FactKind::WorkerEnded, key, &what, cx);
        self.launch(key, cx);
    }
}

/// The signals that say that a program did wrong.
const fn is_fault(ending: Ending) -> bool {
    match ending {
        // ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ, SYS.
        Ending::Signal(signal) => matches!(signal, 4..=8 | 11 | 24 | 25 | 31),
        Ending::Exit(_) | Ending::Unknown => false,
    }
}
