//! The broker's orderly end: no new requests, what runs may finish for a moment, workers are asked
//! to end, hosts end what is left, then the process. `halt` skips the moment; `abort` skips
//! everything.

use super::action::{Action, Ending};
use super::due::Due;
use super::fact::{About, FactKind};
use super::transaction::Stage;
use super::workers::{ProcessState, WorkerList};
use super::{Engine, Out};
use protocol::bodies::{Ending as Ended, ErrorBody, ExecEnd};
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::names::HostName;
use protocol::settings::Setting;
use protocol::time::Tick;

/// How far the end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    status: u8,
    step: Step,
    /// When the time of this step is over.
    until: Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Busy workers may finish.
    Finishing,
    /// Hosts end their processes; these have not said that they are done.
    Leaving(Vec<HostName>),
    /// `Action::End` was given.
    Gone,
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
        if self.ending.is_some() {
            if !self.is_gone() {
                for link in self.hosts.values().filter_map(|host| host.state.link()) {
                    let end = ExecEnd { grace_ms: 0, keep: false };
                    out.push(Action::Send { link, frame: Frame::ExecEnd(end) });
                }
            }
            self.end_now(out);
        } else {
            self.depart(0, &format!("signal {signal}"), true, out);
        }
    }

    /// Begins the end.
    pub(crate) fn depart(&mut self, status: u8, why: &str, may_finish: bool, out: Out<'_>) {
        self.record(
            FactKind::BrokerEnding,
            About::default(),
            format!("the broker ends: {why}"),
            out,
        );
        let wait = if may_finish { self.settings.get(Setting::StopAskMs) } else { 0 };
        let until = self.now.plus_millis(wait);
        self.ending = Some(Departure { status, step: Step::Finishing, until });
        let waiting: Vec<usize> = self
            .transactions
            .iter()
            .filter(|(_, t)| matches!(t.stage, Stage::Waiting | Stage::Barred))
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
            self.leave(out);
        }
    }

    /// After each step of a broker that ends: is the next stage reached?
    pub(crate) fn check_departure(&mut self, out: Out<'_>) {
        let Some(departure) = &self.ending else { return };
        if departure.step == Step::Finishing && self.workers.count(WorkerList::Busy) == 0 {
            self.leave(out);
        }
        if self.ending.as_ref().is_some_and(|d| d.step == Step::Leaving(Vec::new())) {
            self.end_now(out);
        }
    }

    /// `Due::End`: the time of a stage is over.
    pub(crate) fn on_departure_due(&mut self, out: Out<'_>) {
        // The end of an earlier step may still be due.
        let departure = self.ending.as_ref().filter(|departure| departure.until <= self.now);
        match departure.map(|departure| &departure.step) {
            Some(Step::Finishing) => self.leave(out),
            Some(Step::Leaving(_)) => self.end_now(out),
            Some(Step::Gone) | None => {}
        }
    }

    /// Whether a worker that ended so while the broker ends did what it was told: whoever stops the
    /// broker may have sent TERM to its workers as well.
    pub(crate) fn is_farewell(&self, ending: Option<Ended>) -> bool {
        self.ending.is_some()
            && matches!(ending, None | Some(Ended::Exit(0) | Ended::Signal(SIGTERM | SIGINT)))
    }

    /// Requests that are still with workers fail, workers and hosts are asked to end.
    fn leave(&mut self, out: Out<'_>) {
        let running: Vec<usize> =
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
        for (name, host) in &self.hosts {
            if let Some(link) = host.state.link() {
                out.push(Action::Send {
                    link,
                    frame: Frame::ExecEnd(ExecEnd { grace_ms, keep: false }),
                });
                if host.is_builtin {
                    waiting.push(name.clone());
                }
            }
        }
        let until = self.now.plus_millis(grace_ms + MARGIN_MS);
        if let Some(departure) = &mut self.ending {
            departure.step = Step::Leaving(waiting);
            departure.until = until;
        }
        self.due.add(until, Due::End);
    }

    /// A host's link is gone while the broker ends: the built-in execd ends when its processes
    /// have.
    pub(crate) fn on_host_ended(&mut self, name: &HostName, out: Out<'_>) {
        if let Some(Departure { step: Step::Leaving(hosts), .. }) = &mut self.ending {
            hosts.retain(|host| host != name);
        }
        self.check_departure(out);
    }

    fn end_now(&mut self, out: Out<'_>) {
        if let Some(departure) = &mut self.ending
            && departure.step != Step::Gone
        {
            departure.step = Step::Gone;
            out.push(Action::End(Ending::Exit(departure.status)));
        }
    }

    /// Whether `Action::End` was given.
    pub fn is_gone(&self) -> bool {
        self.ending.as_ref().is_some_and(|departure| departure.step == Step::Gone)
    }
}
