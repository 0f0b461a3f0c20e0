//! The broker's orderly shutdown: no new requests; those with workers may finish within
//! `stop_ask_ms`; workers are asked to end; hosts end what is left; then the process ends. `halt`
//! does not wait for requests, and `abort` skips everything.

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
    /// Exit status of the process.
    status: u8,
    step: Step,
    /// When the present step is over at the latest.
    until: Tick,
}

/// The steps of the shutdown, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Busy workers may finish their requests.
    Draining,
    /// Hosts end their processes; these have not reported that they are done.
    Stopping(Vec<HostKey>),
    /// `Action::End` was given.
    Done,
}

/// A signal that asks a process to end.
const SIGINT: i32 = 2;
/// A signal that asks a process to end.
const SIGTERM: i32 = 15;

/// Milliseconds that a host may take, after KILL, to report that all have ended.
const MARGIN_MS: u64 = 1000;

impl Engine {
    /// TERM or INT: begins the shutdown, with status 0. A second one ends the broker at once; hosts
    /// still kill the processes that they have.
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

    /// Begins the shutdown: records it and fails the waiting requests. `may_finish`: requests that
    /// workers have may finish first.
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

    /// Takes the next step of the shutdown, if nothing is missing. Called after each input.
    pub(crate) fn check_shutdown(&mut self, out: Out<'_>) {
        let Some(shutdown) = &self.shutdown else { return };
        if shutdown.step == Step::Draining && self.workers.count(WorkerList::Busy) == 0 {
            self.stop_all(out);
        }
        if self.shutdown.as_ref().is_some_and(|d| d.step == Step::Stopping(Vec::new())) {
            self.end_now(out);
        }
    }

    /// `Due::End`: the time of the present step is over, so the next one is taken.
    pub(crate) fn on_shutdown_due(&mut self, out: Out<'_>) {
        // The timer may be that of an earlier step.
        let shutdown = self.shutdown.as_ref().filter(|shutdown| shutdown.until <= self.now);
        match shutdown.map(|shutdown| &shutdown.step) {
            Some(Step::Draining) => self.stop_all(out),
            Some(Step::Stopping(_)) => self.end_now(out),
            Some(Step::Done) | None => {}
        }
    }

    /// Whether a worker that ended this way during the shutdown did what it was asked to do.
    /// Whoever stops the broker may have sent TERM to its workers as well.
    pub(crate) fn is_exit_of_shutdown(&self, exit_cause: Option<ExitCause>) -> bool {
        self.shutdown.is_some()
            && matches!(
                exit_cause,
                None | Some(ExitCause::Exit(0) | ExitCause::Signal(SIGTERM | SIGINT))
            )
    }

    /// Fails the requests that workers still have, asks workers to end, and has hosts end all
    /// processes.
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
            // Its host ends it, whatever it does now, so its end is no fault of its own.
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

    /// The link to a host is gone during the shutdown: the built-in execd ends when its processes
    /// have ended.
    pub(crate) fn on_host_ended(&mut self, key: HostKey, out: Out<'_>) {
        if let Some(Shutdown { step: Step::Stopping(hosts), .. }) = &mut self.shutdown {
            hosts.retain(|&host| host != key);
        }
        self.check_shutdown(out);
    }

    /// Gives `Action::End`, once.
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
