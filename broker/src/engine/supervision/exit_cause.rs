//! Why a worker's process ended, and what can be done about it: one cause for each end, in words.
//! `process` and `restart` decide what follows.

use super::machine::Supervision;
use super::process_state::ProcessState;
use super::run::{ExpectedEnd, is_fault};
use super::workers::Worker;
use crate::engine::context::Context;
use crate::engine::death::ProcessReport;
use crate::engine::fact::FactKind;
use crate::engine::input::Close;
use crate::engine::keys::WorkerKey;
use crate::engine::timers::Timer;
use protocol::{ExitCause, RunId, Setting, WorkerId, show};

/// Milliseconds that the report of an end may come after the end of the connection, so that the two
/// are one event.
const TOGETHER_MS: u64 = 300;
/// Most bytes of the last line of stderr in the fact about an end; the page of the worker has all
/// of it.
const LAST_LINE_MAX: usize = 512;
/// Most characters kept of the text of a refused login.
const REFUSED_MAX: usize = 200;

impl Supervision {
    /// Notes that a worker lost its connection. Usually its end follows at once, and the two are
    /// one fact; if not, the loss is recorded for itself.
    pub(super) fn note_loss(&mut self, key: WorkerKey, how: String, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        worker.why.clone_from(&how);
        worker.run.lost = Some(how);
        let due = Timer::Lost(worker.id, worker.run.id);
        cx.timers.add(cx.now.plus_millis(TOGETHER_MS), due);
    }

    /// `Timer::Lost`: records the loss of a connection, because the process did not end with it.
    pub(crate) fn on_lost_due(&mut self, id: WorkerId, run: RunId, cx: &mut Context<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        let worker = &self.workers[key];
        let is_expected = worker.run.expected_end == ExpectedEnd::WithHost || cx.is_shutting_down;
        if worker.state != ProcessState::Returning || worker.is_linked() || is_expected {
            return;
        }
        let how = worker.run.lost.as_deref().unwrap_or("lost its connection");
        let until = cx.timers.until(&Timer::Return(id, run)).unwrap_or(cx.now);
        let left = until.since(cx.now).as_millis();
        let what = format!("{how}; its process may come back within {left} ms");
        self.worker_fact(FactKind::WorkerLost, key, &what, cx);
    }

    /// Notes that the broker has a worker's process ended because of a fault. `why` goes on after
    /// "it".
    pub(crate) fn note_killed(&mut self, key: WorkerKey, why: &str) {
        let why = why.strip_suffix(" and is killed").unwrap_or(why).to_owned();
        let worker = &mut self.workers[key];
        worker.why = format!("killed by the broker: it {why}");
        worker.run.killed = Some(why);
    }

    /// Notes why a login was refused, if the program is the process of a worker: that is why the
    /// worker never became ready.
    pub(crate) fn note_refused(&mut self, pid: u32, text: &str) {
        // A process on another machine may have the same number, so only hosts of this machine
        // count.
        let is_it = |w: &Worker| {
            let is_here = self.hosts.named(&w.host).is_some_and(|host| host.is_builtin);
            w.run.pid == pid && !w.is_self_started && is_here
        };
        let key = self.workers.by_id().find(|(_, w)| is_it(w)).map(|(key, _)| key);
        if let Some(key) = key {
            let text = text.chars().take(REFUSED_MAX).collect();
            self.workers[key].run.login_refused = Some(text);
        }
    }

    /// The cause of a process's end: who ended it, or its exit status or signal, and its last line
    /// of stderr.
    pub(super) fn how_it_ended(&self, key: WorkerKey) -> String {
        let worker = &self.workers[key];
        let mut how = match (&worker.run.killed, worker.exit_cause) {
            (Some(why), _) => format!("killed by the broker: it {why}"),
            (None, Some(exit_cause)) => ended(exit_cause) + reported(worker.run.report),
            (None, None) => "its process is gone".to_owned(),
        };
        if let Some(line) = worker.tail.back().filter(|_| worker.run.tail_new > 0) {
            how += "; last line of stderr: ";
            how += &show::brief(line, LAST_LINE_MAX);
        }
        how
    }

    /// Whether the loss of a worker's connection is a death, of which its request may be the
    /// cause. It is not if the worker was asked to end and not killed for a fault, or is
    /// unreachable.
    pub(crate) fn is_death(&self, key: WorkerKey, how: Close) -> bool {
        let worker = &self.workers[key];
        let run = &worker.run;
        let is_by_itself = match worker.state {
            // Its process may have ended before its connection.
            ProcessState::Ready | ProcessState::Returning => true,
            ProcessState::Exiting | ProcessState::Terminating => {
                run.killed.is_some() || run.expected_end == ExpectedEnd::Announced
            }
            // Its login was found not to be valid.
            ProcessState::Down
            | ProcessState::Backoff
            | ProcessState::Starting
            | ProcessState::Up => false,
        };
        let is_expected = match run.expected_end {
            ExpectedEnd::No | ExpectedEnd::Retire => false,
            ExpectedEnd::Stop => true,
            ExpectedEnd::Announced if run.killed.is_some() => false,
            ExpectedEnd::Announced | ExpectedEnd::WithHost => {
                !(run.has_exited() && worker.exit_cause.is_some_and(is_fault))
            }
        };
        is_by_itself && !is_expected && !self.is_lost_with_machine(key, how)
    }

    /// Advice about a worker that ends too often; empty = there is none.
    pub(super) fn cure_of(&self, key: WorkerKey, cx: &Context<'_>) -> String {
        let worker = &self.workers[key];
        if let Some(refused) = &worker.run.login_refused {
            return format!(
                "; it connected to the broker and was refused: {refused}; docs/protocol.md shows \
                 what a worker says first"
            );
        }
        if cx.catalog[worker.service].is_program() {
            return String::new();
        }
        if worker.run.ready.is_none() {
            return hint_never_connected(worker, cx);
        }
        let is_killed = worker.run.killed.is_none();
        if is_killed && worker.run.report.is_some_and(|report| report.is_oom) {
            return "; 'death' shows how much memory it had; let it have more, or see \
                    recycle_memory"
                .to_owned();
        }
        if is_killed && worker.exit_cause == Some(ExitCause::Signal(9)) {
            return "; that signal was not the broker's: somebody said 'kill -9', or the kernel had \
                    no memory left (its log says 'Out of memory')"
                .to_owned();
        }
        String::new()
    }
}

/// What to look at if a worker's program never logged in.
fn hint_never_connected(worker: &Worker, cx: &Context<'_>) -> String {
    let path = &worker.path;
    let program = path.rsplit('/').next().unwrap_or(path);
    if program == "isdpipe" {
        return "; it never logged in: look whether its program is there and what 'isdpipe \
                --help' wants"
            .to_owned();
    }
    let service = &cx.catalog[worker.service].name;
    format!(
        "; it never logged in to the broker: if {program} is no isect program, let isdpipe run \
         it ('config worker {service} {} /path/isdpipe {path} …'); if it is, look whether it \
         reaches the worker port within {} ms (worker_login_ms)",
        worker.host,
        cx.settings.get(Setting::WorkerLoginMs)
    )
}

/// How a process ended, in words.
fn ended(exit_cause: ExitCause) -> String {
    match exit_cause {
        ExitCause::Exit(126) => "exit status 126: it could not execute its program".to_owned(),
        ExitCause::Exit(127) => "exit status 127: it did not find its program".to_owned(),
        ExitCause::Exit(status) => format!("exit status {status}"),
        ExitCause::Signal(signal) => format!("signal {signal}{}", signal_name(signal)),
        ExitCause::Unknown => "nobody saw how".into(),
    }
}

/// What else a host said of an end, after how it ended.
const fn reported(report: Option<ProcessReport>) -> &'static str {
    match report {
        Some(ProcessReport { is_oom: true, .. }) => {
            ", and the kernel killed a process for want of memory at that time"
        }
        Some(ProcessReport { has_core: true, .. }) => ", with a core file",
        Some(_) | None => "",
    }
}

/// The name of a signal that ends programs, and what it usually means; empty = not known.
pub(crate) const fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        5 => " (SIGTRAP)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        10 => " (SIGUSR1)",
        11 => " (SIGSEGV)",
        12 => " (SIGUSR2)",
        13 => " (SIGPIPE)",
        14 => " (SIGALRM)",
        15 => " (SIGTERM)",
        16 => " (SIGSTKFLT)",
        24 => " (SIGXCPU: its limit of processor time)",
        25 => " (SIGXFSZ: its limit of file size)",
        26 => " (SIGVTALRM)",
        27 => " (SIGPROF)",
        29 => " (SIGIO)",
        30 => " (SIGPWR)",
        31 => " (SIGSYS: a system call that is forbidden)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_that_ends_a_program_has_its_name() {
        // CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG and WINCH end no program.
        for signal in (1..=31).filter(|signal| ![17, 18, 19, 20, 21, 22, 23, 28].contains(signal)) {
            let text = ended(ExitCause::Signal(signal));
            assert!(text.starts_with(&format!("signal {signal} (SIG")), "{text}");
        }
    }
}
