//! The broker's orderly shutdown: no new requests, what runs may finish within `stop_ask_ms`,
//! workers are asked to end, hosts end what is left, then the process ends. `halt` does not wait
//! for what runs; `abort` skips everything.

use super::action::{Action, BrokerExit};
use super::due::Due;
use super::fact::{About, FactKind};
use super::keys::{HostKey, TransactionKey};
use super::transaction::Stage;
use super::workers::{ProcessState, WorkerList};
use super::{Engine, Out};
use protocol::bodies::{ErrorBody, ExecEnd, ExitCause};
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::settings::Setting;
use protocol::time::Tick;

/// How far the shutdown is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shutdown {
    status: u8,
    step: Step,
    /// When the time of this step is over.
    until: Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Busy workers may finish.
    Draining,
    /// Hosts end their processes; these have not said that they are done.
    Stopping(Vec<HostKey>),
    /// `Action::End` was given.
    Done,
}

/// The signals that ask a process to end.
const SIGINT: i32 = 2;
/// See `SIGINT`.
const SIGTERM: i32 = 15;

/// After KILL, how long a host may take to say so.
const MARGIN_MS: u64 = 1000;

impl Engine {
    /// TERM or INT: end in order with status 0. A second one ends at once, and still leaves nothing
    /// behind: hosts kill what they have.
    pub(crate) fn on_terminate(&mut self, signal: &str, out: Out<'_>) {
        if self.shutdown.is_some() {
            if !self.has_shut_down() {
                for link in self.hosts.by_name().filter_map(|(_, host)| host.state.link()) {
                    let end = ExecEnd { grace_ms: 0, keep: false };
                    out.push(Action::Send { link, frame: Frame::ExecEnd(end) });
                }
            }
            self.end_now(out);
        } else {
            self.begin_shutdown(0, &format!("signal {signal}"), true, out);
        }
    }

    /// Begins the shutdown.
    pub(crate) fn begin_shutdown(&mut self, status: u8, why: &str, may_finish: bool, out: Out<'_>) {
        self.record(
            FactKind::BrokerShutdown,
            About::default(),
            format!("the broker ends: {why}"),
            out,
        );
        let wait = if may_finish { self.settings.get(Setting::StopAskMs) } else { 0 };
        let until = self.now.plus_millis(wait);
        self.shutdown = Some(Shutdown { status, step: Step::Draining, until });
        let waiting: Vec<TransactionKey> = self
            .transactions
            .iter()
            .filter(|(_, t)| matches!(t.stage, Stage::Waiting | Stage::Blocked))
            .map(|(key, _)| key)
            .collect();
        for key in waiting {
            self.fail(
                key,
                ErrorBody::new(ErrorCode::ShuttingDown, "the broker is shutting down"),
                out,
            );
        }
        for key in self.workers.keys() {
            self.settle(key);
        }
        self.due.add(until, Due::End);
        if !may_finish {
            self.stop_all(out);
        }
    }

    /// After each step of a broker that shuts down: is its next step reached?
    pub(crate) fn check_shutdown(&mut self, out: Out<'_>) {
        let Some(shutdown) = &self.shutdown else { return };
        if shutdown.step == Step::Draining && self.workers.count(WorkerList::Busy) == 0 {
            self.stop_all(out);
        }
        if self.shutdown.as_ref().is_some_and(|d| d.step == Step::Stopping(Vec::new())) {
            self.end_now(out);
        }
    }

    /// `Due::End`: the time of a step is over.
    pub(crate) fn on_shutdown_due(&mut self, out: Out<'_>) {
        // The end of an earlier step may still be due.
        let shutdown = self.shutdown.as_ref().filter(|shutdown| shutdown.until <= self.now);
        match shutdown.map(|shutdown| &shutdown.step) {
            Some(Step::Draining) => self.stop_all(out),
            Some(Step::Stopping(_)) => self.end_now(out),
            Some(Step::Done) | None => {}
        }
    }

    /// Whether a worker that ended so while the broker shuts down did what it was asked to: whoever
    /// stops the broker may have sent TERM to its workers as well.
    pub(crate) fn is_exit_of_shutdown(&self, exit_cause: Option<ExitCause>) -> bool {
        self.shutdown.is_some()
            && matches!(
                exit_cause,
                None | Some(ExitCause::Exit(0) | ExitCause::Signal(SIGTERM | SIGINT))
            )
    }

    /// Requests that are still with workers fail, workers and hosts are asked to end.
    fn stop_all(&mut self, out: Out<'_>) {
        let running: Vec<TransactionKey> =
            self.transactions.iter().filter(|(_, t)| !t.is_ended).map(|(key, _)| key).collect();
        for key in running {
            let text = "the broker is shutting down and waits no longer for the worker";
            self.fail(
                key,
                ErrorBody { code: ErrorCode::ShuttingDown, ran: Ran::Maybe, text: text.into() },
                out,
            );
        }
        for key in self.workers.keys() {
            if self.workers[key].state == ProcessState::Ready {
                self.ask_to_end(key, out);
            }
            // Its host ends it, whatever it does now: that is no fault of its own.
            self.workers[key].is_stopping |= self.workers[key].state.has_process();
        }
        let grace_ms = self.settings.get(Setting::StopTermMs).min(5000);
        let mut waiting = Vec::new();
        for (key, host) in self.hosts.by_name() {
            if let Some(link) = host.state.link() {
                out.push(Action::Send {
                    link,
                    frame: Frame::ExecEnd(ExecEnd { grace_ms, keep: false }),
                });
                if host.is_builtin {
                    waiting.push(key);
                }
            }
        }
        let until = self.now.plus_millis(grace_ms + MARGIN_MS);
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.step = Step::Stopping(waiting);
            shutdown.until = until;
        }
        self.due.add(until, Due::End);
    }

    /// A host's link is gone while the broker ends: the built-in execd ends when its processes
    /// have.
    pub(crate) fn on_host_ended(&mut self, key: HostKey, out: Out<'_>) {
        if let Some(Shutdown { step: Step::Stopping(hosts), .. }) = &mut self.shutdown {
            hosts.retain(|&host| host != key);
        }
        self.check_shutdown(out);
    }

    fn end_now(&mut self, out: Out<'_>) {
        if let Some(shutdown) = &mut self.shutdown
            && shutdown.step != Step::Done
        {
            shutdown.step = Step::Done;
            out.push(Action::End(BrokerExit::Exit(shutdown.status)));
        }
    }

    /// Whether `Action::End` was given.
    pub fn has_shut_down(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| shutdown.step == Step::Done)
    }
}
