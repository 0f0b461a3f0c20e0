//! One run of a worker: what is known of one start of its process. A new run replaces the whole of
//! it, so nothing of an earlier process is taken for the present one's.

use crate::engine::death::ProcessReport;
use protocol::{ExitCause, RunId, Tick};

/// One start of a worker's process, and what became of it.
#[derive(Debug)]
pub(crate) struct Run {
    /// Its number; 0 = none, or the worker started itself. Independent of the state: it stays when
    /// the process has ended, until the next start.
    pub(crate) id: RunId,
    /// Which broker started the process.
    pub(super) origin: RunOrigin,
    /// When the start was asked for, or the process was adopted.
    pub(crate) started: Tick,
    /// Process id on its host; 0 = not known. Independent of the state: the end of a process may be
    /// reported while its connection is still read, and the start of one that is being ended may
    /// not be reported yet.
    pub(crate) pid: u32,
    /// When it last logged in, or was up for `stable_ms` as a program; `None` = neither.
    /// Independent of the state: it decides what follows when the process has ended.
    pub(crate) ready: Option<Tick>,
    /// Until when it may take to log in or to come back; once its process has ended, until when its
    /// connection is read. `Timer::StopAsk` limits how long one that was asked to end may take.
    /// Valid in `Starting`, `Up` and `Returning`, and when the process has ended before its
    /// connection.
    pub(super) wait_until: Tick,
    /// Whether, and for how long, it looks for its broker once its connection is lost.
    pub(super) reconnect: Reconnect,
    /// How its connection was lost; `None` = it was not, or the worker came back. Valid in
    /// `Returning`.
    pub(super) lost: Option<String>,
    /// Why a login of its process was refused; `None` = none was. Independent of the state: it is
    /// told when the worker is given up, after the end of its process.
    pub(super) login_refused: Option<String>,
    /// Whether its end is expected, apart from a fault.
    pub(super) expected_end: ExpectedEnd,
    /// Why the broker had its process ended because of a fault; `None` = it did not. Independent of
    /// `expected_end`: a worker that is stopped may be killed because it does not end.
    pub(super) killed: Option<String>,
    /// When execd is due to send KILL to its process, after it was asked to end it, also by a
    /// `stop`. Valid in `Terminating`.
    pub(crate) kill_due: Tick,
    /// As far as the broker could see, it could not be reached, like its machine: its end is no
    /// crash. Independent of the state and of what ends it: its host may be lost at any time, and
    /// that counts until the worker logs in again.
    pub(super) is_unreachable: bool,
    /// It answered a request, or is a program and was up for `stable_ms`. Independent of the state:
    /// it counts when the process ends, until the next start.
    pub(super) has_served: bool,
    /// Which settings its process has, those that hold or earlier ones.
    pub(super) settings: RunSettings,
    /// Whether its host said that it ended.
    pub(super) end_report: EndReport,
    /// What its host said of its end; `None` = nothing yet. Independent of the state: it stays
    /// until the next start.
    pub(super) report: Option<ProcessReport>,
    /// It had a request when its connection was lost, and has not come back. Independent of the
    /// state: it counts when the process ends.
    pub(super) was_busy: bool,
    /// Bytes that it has, more than `recycle_memory`, as its host said; `None` = it has fewer, or
    /// they do not count (`recycle`). Independent of the state: it holds until the next start.
    pub(crate) memory: Option<u64>,
    /// How many of the last lines of stderr are of this process.
    pub(super) tail_new: usize,
}

/// Which broker started a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunOrigin {
    /// This one, or nobody did; one that started itself, too.
    Own,
    /// The saved configuration has the worker started, and its host has not listed its processes
    /// yet. Until it does, a process that an earlier broker started may log in; the list confirms
    /// such a login, or ends it.
    Awaited,
    /// An earlier one; its host listed the process. Whether it was ready before is not known.
    Adopted,
}

/// What a process does when its connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reconnect {
    /// It has not logged in to this broker: it does what the settings say.
    AsSet,
    /// It looks for its broker for so long.
    Announced {
        /// `reconnect_ms`, as announced at its login.
        reconnect_ms: u64,
        /// `silence_ms`, as announced at its login.
        silence_ms: u64,
    },
    /// It does not come back: the broker closed its connection with an error, as for a frame that
    /// it may not send.
    Refused,
}

/// Whether the end of a process is expected: such an end is no crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpectedEnd {
    /// It is not.
    No,
    /// It logged out: it gets no more requests, ends by itself, and is started again.
    Announced,
    /// Its host shuts down; it gets no more requests, and ends when it has answered those that it
    /// has.
    WithHost,
    /// It gets no more requests, ends when it has answered those that it has, and another process
    /// may follow (`retire`).
    Retire,
    /// It is asked to end, because of a `stop`, the broker's shutdown or `Retire`, all of which it
    /// replaces; and `WithHost`, unless it ends with its host.
    Stop,
}

/// Which settings a process was started with (`own_settings`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunSettings {
    /// Those that hold.
    Present,
    /// Other ones: they changed after its start.
    Earlier,
}

/// What a host said of the end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndReport {
    /// Nothing.
    None,
    /// Its list does not have the process; `Timer::Unlisted` takes it for ended.
    Unlisted,
    /// The process was taken for ended. If its connection is still open, what it sent is still to
    /// be read; if it logs in again, it has not ended.
    Missing,
    /// The process ended (`exec-exited`), so no login with its secret is accepted any more. If its
    /// connection is still open, what it sent is still to be read.
    Exited,
}

impl Run {
    /// A run that begins now.
    pub(super) const fn new(id: RunId, origin: RunOrigin, now: Tick) -> Self {
        Self {
            id,
            origin,
            started: now,
            pid: 0,
            ready: None,
            wait_until: Tick(0),
            reconnect: Reconnect::AsSet,
            lost: None,
            login_refused: None,
            expected_end: ExpectedEnd::No,
            killed: None,
            kill_due: Tick(0),
            is_unreachable: false,
            has_served: false,
            settings: RunSettings::Present,
            end_report: EndReport::None,
            memory: None,
            report: None,
            was_busy: false,
            tail_new: 0,
        }
    }

    /// Its process logged in; `announced` are `reconnect_ms` and `silence_ms`. What was thought of
    /// its end does not hold.
    pub(super) fn logged_in(&mut self, pid: u32, announced: (u64, u64), now: Tick) {
        (self.pid, self.ready) = (pid, Some(now));
        let (reconnect_ms, silence_ms) = announced;
        self.reconnect = Reconnect::Announced { reconnect_ms, silence_ms };
        (self.lost, self.login_refused, self.is_unreachable) = (None, None, false);
        self.end_report = EndReport::None;
        (self.report, self.was_busy) = (None, false);
        match self.expected_end {
            ExpectedEnd::Stop | ExpectedEnd::Announced => self.expected_end = ExpectedEnd::No,
            ExpectedEnd::No | ExpectedEnd::WithHost | ExpectedEnd::Retire => {}
        }
    }

    /// How an end that is no crash came about, after "ended"; `None` = it is one. A worker that
    /// announced its end may end as it likes, except by a signal for a fault of its own; one that
    /// did not has to have answered a request (a program: to have been up for a while), and to end
    /// with a status of success.
    pub(super) fn order_of_end(
        &self,
        exit_cause: Option<ExitCause>,
        success: &[u8],
    ) -> Option<&'static str> {
        if self.killed.is_some() {
            return None;
        }
        let is_fault = exit_cause.is_some_and(is_fault);
        match self.expected_end {
            ExpectedEnd::Announced => (!is_fault).then_some("as it had announced"),
            ExpectedEnd::No | ExpectedEnd::WithHost | ExpectedEnd::Retire => {
                let is_in_order = exit_cause.is_some_and(|it| is_success(it, success));
                (is_in_order && self.has_served).then_some(match self.reconnect {
                    Reconnect::AsSet => "in order, after it had been up for a while",
                    Reconnect::Announced { .. } | Reconnect::Refused => {
                        "in order, after it had answered requests"
                    }
                })
            }
            ExpectedEnd::Stop => None,
        }
    }

    /// Whether a request was lost with its process. One that announced its end is no cause of what
    /// it leaves unanswered.
    pub(super) fn lost_a_request(&self) -> bool {
        self.was_busy && self.expected_end != ExpectedEnd::Announced
    }

    /// Whether its process has ended, as its host said.
    pub(crate) const fn has_exited(&self) -> bool {
        match self.end_report {
            EndReport::None | EndReport::Unlisted => false,
            EndReport::Missing | EndReport::Exited => true,
        }
    }

    /// A list of its host has it, or does not.
    pub(super) const fn listed(&mut self, is_listed: bool) {
        self.end_report = match (self.end_report, is_listed) {
            (EndReport::None | EndReport::Unlisted, true) => EndReport::None,
            (EndReport::None | EndReport::Unlisted, false) => EndReport::Unlisted,
            // It is listed after its end was reported: it may log in once more.
            (EndReport::Exited, true) | (EndReport::Missing, _) => EndReport::Missing,
            (EndReport::Exited, false) => EndReport::Exited,
        };
    }
}

/// Whether an exit status is one of success.
fn is_success(exit_cause: ExitCause, success: &[u8]) -> bool {
    match exit_cause {
        ExitCause::Exit(status) => success.iter().any(|&ok| i32::from(ok) == status),
        ExitCause::Signal(_) | ExitCause::Unknown => false,
    }
}

/// Whether an end is a signal that a program gets for a fault of its own.
pub(super) const fn is_fault(exit_cause: ExitCause) -> bool {
    match exit_cause {
        // ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ, SYS.
        ExitCause::Signal(signal) => matches!(signal, 4..=8 | 11 | 24 | 25 | 31),
        ExitCause::Exit(_) | ExitCause::Unknown => false,
    }
}
