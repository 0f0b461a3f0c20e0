//! How children end: one, all of a broker, or all. TERM to the group, the wait, KILL to the group.
//! `child` has the states in between.

use super::Engine;
use super::action::{Action, Signal};
use super::child::{ChildId, Event};
use protocol::bodies::{ExecSignal, ExecStop};
use protocol::{ErrorBody, ErrorCode, Frame, Header, LinkId, RunId, WorkerId};
use std::sync::Arc;

/// The highest signal number on Linux.
const SIGNAL_MAX: i32 = 64;

impl Engine {
    pub(super) fn stop(&mut self, from: (LinkId, &Arc<str>), stop: ExecStop) {
        if let Some(id) = self.find(from, stop.worker, stop.run) {
            self.happens(id, Event::Stop { grace_ms: stop.grace_ms });
        }
    }

    pub(super) fn signal(&mut self, from: (LinkId, &Arc<str>), signal: ExecSignal) {
        let Some(id) = self.find(from, signal.worker, signal.run) else { return };
        if !(1..=SIGNAL_MAX).contains(&signal.signal) {
            let text = format!("signal {} is no signal; 1 to {SIGNAL_MAX} are", signal.signal);
            let about = (signal.worker, signal.run);
            self.out.push(complaint(from.0, about, ErrorCode::Refused, text));
        } else if self.children.get(&id).is_some_and(|child| child.state.is_running()) {
            self.out.push(Action::Signal { child: id, signal: Signal::Process(signal.signal) });
        } else if self.children.get(&id).is_some_and(|child| child.state.has_process()) {
            let text = format!(
                "the program of worker {} run {} does not run yet; send signal {} again when it \
                 does",
                signal.worker, signal.run, signal.signal
            );
            let about = (signal.worker, signal.run);
            self.out.push(complaint(from.0, about, ErrorCode::Refused, text));
        }
    }

    /// The child of this broker, or an error text if there is none.
    fn find(
        &mut self,
        (link, broker): (LinkId, &Arc<str>),
        worker: WorkerId,
        run: RunId,
    ) -> Option<ChildId> {
        let found = self.runs.get(&(Arc::clone(broker), worker, run)).copied();
        if found.is_none() {
            let text =
                format!("worker {worker} run {run} has no process here; exec-list tells which are");
            self.out.push(complaint(link, (worker, run), ErrorCode::NotFound, text));
        }
        found
    }

    /// Handles `exec-end`: the broker shuts down.
    pub(super) fn end(&mut self, broker: &Arc<str>, grace_ms: u64) {
        if let Some(known) = self.brokers.get_mut(broker) {
            known.is_shutting_down = true;
            known.has_ended = true;
        }
        self.stop_all(Some(broker), grace_ms);
    }

    /// Tells each broker that execd is shutting down, before any report of its children. So the
    /// broker starts nothing more here, and knows why its children end.
    pub(super) fn announce_end(&mut self) {
        for link in self.brokers.values().filter_map(|broker| broker.link) {
            let text = "execd is shutting down; its processes end";
            let error = ErrorBody::new(ErrorCode::ShuttingDown, text);
            self.out.push(Action::Send {
                link,
                frame: Frame::Error { head: Header::default(), error },
            });
        }
    }

    /// Stops the children of one broker or of all, the youngest first.
    pub(super) fn stop_all(&mut self, broker: Option<&Arc<str>>, grace_ms: u64) {
        let is_meant = |name: &Arc<str>| broker.is_none_or(|broker| broker == name);
        let ids: Vec<ChildId> = self
            .children
            .iter()
            .rev()
            .filter(|(_, child)| is_meant(&child.broker))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.happens(id, Event::Stop { grace_ms });
        }
    }
}

fn complaint(
    link: LinkId,
    (worker, run): (WorkerId, RunId),
    code: ErrorCode,
    text: String,
) -> Action {
    let head = Header { workerid: worker.0, transaction: run.0, ..Header::default() };
    Action::Send { link, frame: Frame::Error { head, error: ErrorBody::new(code, text) } }
}
