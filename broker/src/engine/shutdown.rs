//! The broker's orderly shutdown: no new requests, what runs may finish within `stop_ask_ms`,
//! workers are asked to end, hosts end what is left, then the process ends. `halt` does not wait
//! for what runs; `abort` skips everything.

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

/// After KILL, how long a host may take to say so.
const MARGIN_MS: u64 = 1000;

impl Engine {
    /// TERM or INT: end in order with status 0. A second one ends at once, and still leaves nothing
    /// behind: hosts kill what they have.
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

    /// After each step of a broker that shuts down: is its next step reached?
    pub(crate) fn check_shutdown(&mut self, out: Out<'_>) {
        let Some(shutdown) = &self.shutdown else { return };
        if shutdown.step == Step::Draining && self.dispatch.counts().1 == 0 {
            self.stop_all(out);
        }
        if self.shutdown.as_ref().is_some_and(|d| d.step == Step::Stopping(Vec::new())) {
            self.end_now(out);
        }
    }

    /// `Timer::End`: the time of a step is over.
    pub(crate) fn on_shutdown_due(&mut self, out: Out<'_>) {
        // The end of an earlier step may still be due.
        let shutdown = self.shutdown.as_ref().filter(|shutdown| shutdown.until <= self.now);
        match shutdown.map(|shutdown| &shutdown.step) {
            Some(Step::Draining) => self.stop_all(out),
            Some(Step::Stopping(_)) => self.end_now(out),
            Some(Step::Done) | None => {}
        }
    }

    /// Requests that are still with workers fail, workers and hosts are asked to end.
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
