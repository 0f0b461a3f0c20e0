//! The broker's orderly shutdown: no new requests; those with workers may finish within
//! `stop_ask_ms`; workers are asked to end; hosts end what is left; then the process ends. `halt`
//! does not wait for requests, and `abort` skips everything.

use super::action::{Action, BrokerExit};
use super::context::context;
use super::fact::{About, FactKind};
use super::hub::{Engine, Out};
use super::keys::HostKey;
use super::timers::Timer;
use protocol::bodies::ErrorBody;
use protocol::errors::{ErrorCode, Ran};
use protocol::settings::Setting;
use protocol::time::Tick;

/// How far the shutdown is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shutdown {
    status: u8,
    step: Step,
    /// When the present step is over at the latest.
    until: Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Busy workers may finish their requests.
    Draining,
    /// Hosts end their processes; these have not reported that they are done.
    Stopping(Vec<HostKey>),
    /// `Action::End` was given.
    Done,
}

/// Milliseconds that a host may take, after KILL, to report that all have ended.
const MARGIN_MS: u64 = 1000;

impl Engine {
    /// TERM or INT: begins the shutdown, with status 0. A second one ends the broker at once; hosts
    /// still kill the processes that they have.
    pub(crate) fn on_terminate(&mut self, signal: &str, out: Out<'_>) {
        if self.shutdown.is_some() {
            if !self.has_shut_down() {
                self.supervision.end_hosts(0, context!(self, out));
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
        let error = ErrorBody::new(ErrorCode::ShuttingDown, "the broker is shutting down");
        self.dispatch.fail_waiting(None, &error, context!(self, out));
        for key in self.supervision.worker_keys() {
            self.supervision.update_available(key, context!(self, out));
        }
        self.timers.add(until, Timer::End);
        if !may_finish {
            self.stop_all(out);
        }
    }

    /// Takes the next step of the shutdown, if nothing is missing. Called after each input.
    pub(crate) fn check_shutdown(&mut self, out: Out<'_>) {
        let Some(shutdown) = &self.shutdown else { return };
        if shutdown.step == Step::Draining && self.dispatch.counts().1 == 0 {
            self.stop_all(out);
        }
        if self.shutdown.as_ref().is_some_and(|d| d.step == Step::Stopping(Vec::new())) {
            self.end_now(out);
        }
    }

    /// `Timer::End`: the time of the present step is over, so the next one is taken.
    pub(crate) fn on_shutdown_due(&mut self, out: Out<'_>) {
        // The timer may be that of an earlier step.
        let shutdown = self.shutdown.as_ref().filter(|shutdown| shutdown.until <= self.now);
        match shutdown.map(|shutdown| &shutdown.step) {
            Some(Step::Draining) => self.stop_all(out),
            Some(Step::Stopping(_)) => self.end_now(out),
            Some(Step::Done) | None => {}
        }
    }

    /// Fails the requests that workers still have, asks workers to end, and has hosts end all
    /// processes.
    fn stop_all(&mut self, out: Out<'_>) {
        let text = "the broker is shutting down and waits no longer for the worker".to_owned();
        let error = ErrorBody { code: ErrorCode::ShuttingDown, ran: Ran::Maybe, text };
        self.dispatch.fail_rest(&error, context!(self, out));
        let grace_ms = self.settings.get(Setting::StopTermMs).min(5000);
        self.supervision.ask_all_to_end(context!(self, out));
        // Workers hear of it before their hosts.
        self.settle(out);
        self.supervision.end_hosts(grace_ms, context!(self, out));
        let waiting = self.supervision.builtin_hosts();
        let until = self.now.plus_millis(grace_ms + MARGIN_MS);
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.step = Step::Stopping(waiting);
            shutdown.until = until;
        }
        self.timers.add(until, Timer::End);
    }

    /// The link to a host is gone during the shutdown: the built-in execd ends when its processes
    /// have ended.
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
