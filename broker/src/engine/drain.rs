//! Ends workers: a worker may finish its request, then it gets an `end` frame and its socket is
//! shut for writing, then its host sends TERM, then KILL. A worker that is busy for too long is
//! killed. `process` handles what follows when it has ended.

use super::action::Action;
use super::due::Due;
use super::fact::FactKind;
use super::hosts::HostState;
use super::input::Close;
use super::keys::{HostKey, WorkerKey};
use super::workers::ProcessState;
use super::{Engine, Out};
use protocol::bodies::ExecStop;
use protocol::frame::Frame;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::settings::{ServiceSetting, Setting};
use protocol::time::Tick;

impl Engine {
    /// Has execd end a worker's process: TERM to its process group, KILL after `grace_ms`.
    pub(crate) fn exec_stop(&mut self, key: WorkerKey, grace_ms: u64, out: Out<'_>) {
        let worker = &mut self.workers[key];
        worker.enter(ProcessState::Terminating, self.now);
        worker.kill_due = self.now.plus_millis(grace_ms);
        let stop = ExecStop { worker: worker.id, run: worker.run, grace_ms };
        let host = worker.host.clone();
        self.settle(key);
        if let Some(link) = self.host_link(&host) {
            out.push(Action::Send { link, frame: Frame::ExecStop(stop) });
        }
    }

    /// A host has no process of a worker that it was to end, so no report of its end will come: the
    /// process is taken for ended.
    pub(crate) fn on_nobody_to_stop(
        &mut self,
        link: LinkId,
        host: HostKey,
        (id, run): (WorkerId, RunId),
        out: Out<'_>,
    ) {
        let host = &self.hosts[host];
        let is_up = host.state == HostState::Up(link);
        let Some(key) = self.workers.find(id).filter(|_| is_up) else { return };
        let worker = &mut self.workers[key];
        let is_it = worker.host == host.name
            && !worker.is_self_started
            && (run.0 == 0 || run == worker.run);
        if is_it && worker.state == ProcessState::Terminating {
            worker.is_unlisted = true;
            let run = worker.run;
            self.on_unlisted_due(id, run, out);
        }
    }

    /// Whether a stopped worker is drained: it is ready and has no request.
    pub(crate) fn is_drained(&self, key: WorkerKey) -> bool {
        let worker = &self.workers[key];
        worker.current.is_none() && worker.state == ProcessState::Ready && !worker.is_wanted
    }

    /// Carries out `stop` of one worker: it is asked to end after the reply to its request; a
    /// second `stop` does not wait for the reply.
    pub(crate) fn stop_worker(&mut self, key: WorkerKey, out: Out<'_>) {
        let worker = &mut self.workers[key];
        let was_wanted = std::mem::replace(&mut worker.is_wanted, false);
        // A process that an earlier broker started is not wanted either, whatever is said later.
        worker.is_awaited &= worker.link.is_some();
        // A reply that nobody waits for any more need not be finished.
        let is_busy = worker.current.is_some_and(|at| !self.transactions[at].is_ended);
        self.settle(key);
        match self.workers[key].state {
            ProcessState::Down => {}
            ProcessState::Backoff => self.workers[key].enter(ProcessState::Down, self.now),
            ProcessState::Ready if is_busy && was_wanted => {}
            ProcessState::Ready => self.ask_to_end(key, out),
            ProcessState::Starting | ProcessState::Up | ProcessState::Returning => {
                self.workers[key].is_stopping = true;
                self.exec_stop(key, self.settings.get(Setting::StopTermMs), out);
            }
            ProcessState::Exiting => {
                self.workers[key].is_stopping = true;
                if !(is_busy && was_wanted) {
                    self.wait_for_end(key);
                }
            }
            ProcessState::Terminating => {}
        }
    }

    /// Asks a stopped worker to end although it has a request, because the deadline of that is
    /// over.
    pub(crate) fn drain_overdue(&mut self, key: WorkerKey, out: Out<'_>) {
        let worker = &self.workers[key];
        let is_over = worker.current.is_some_and(|at| self.transactions[at].is_ended);
        if is_over
            && worker.state == ProcessState::Ready
            && !worker.is_wanted
            && !worker.is_self_started
        {
            self.ask_to_end(key, out);
        }
    }

    /// Asks a ready worker to end: `end` frame, socket shut for writing, and TERM after
    /// `stop_ask_ms`.
    pub(crate) fn ask_to_end(&mut self, key: WorkerKey, out: Out<'_>) {
        self.workers[key].is_stopping = true;
        self.shut_worker(key, out);
        self.wait_for_end(key);
    }

    /// Carries out `shutdown` of a worker's socket: it gets no more frames, ends, and is started
    /// again. A busy worker replies first. TERM follows if it does not end.
    pub(crate) fn shut_worker(&mut self, key: WorkerKey, out: Out<'_>) {
        let worker = &mut self.workers[key];
        let Some(link) = worker.link else { return };
        if worker.state == ProcessState::Ready {
            worker.enter(ProcessState::Exiting, self.now);
        }
        let is_busy = worker.current.is_some();
        self.settle(key);
        out.push(Action::Send { link, frame: Frame::End });
        out.push(Action::ShutWrite { link });
        if !is_busy {
            self.wait_for_end(key);
        }
    }

    /// Gives a worker that was asked to end `stop_ask_ms` to do so.
    pub(crate) fn wait_for_end(&mut self, key: WorkerKey) {
        let worker = &self.workers[key];
        if worker.state == ProcessState::Exiting {
            let wait = self.settings.get(Setting::StopAskMs);
            self.due.add(self.now.plus_millis(wait), Due::StopAsk(worker.id, worker.run));
        }
    }

    /// `Due::StopAsk`: a worker that was asked to end has not, so execd ends it.
    pub(crate) fn on_stop_ask_due(&mut self, id: WorkerId, run: RunId, out: Out<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        if self.workers[key].state != ProcessState::Exiting {
            return;
        }
        if self.workers[key].is_self_started {
            // No execd has its process; the broker can only close its connection.
            self.kill_worker(key, "did not end when it was asked to", out);
        } else {
            self.exec_stop(key, self.settings.get(Setting::StopTermMs), out);
        }
    }

    /// The transaction that a worker works on, since when, and a remark for the text; as far as the
    /// broker knows. A transaction that `idle` took away comes before one that the worker got
    /// later, because it has one thread.
    fn at_work_on(&self, key: WorkerKey) -> Option<(u64, Tick, &'static str)> {
        let worker = &self.workers[key];
        let late_work = worker.late_work_since.zip(worker.taken_away.front());
        if let Some((since, &transaction)) = late_work {
            return Some((transaction, since, ", which 'idle' took away,"));
        }
        let transaction = &self.transactions[worker.current?];
        Some((transaction.id.0, transaction.dispatched.max(worker.late_reply_at), ""))
    }

    /// Sets `Due::Overlong` of a worker to this tick, unless it is set already.
    pub(crate) fn watch_overlong(&mut self, key: WorkerKey, at: Tick) {
        let worker = &mut self.workers[key];
        if !std::mem::replace(&mut worker.is_timed, true) {
            self.due.add(at, Due::Overlong(worker.id));
        }
    }

    /// `Due::Overlong`: kills a worker that is busy with one request for more than `kill_after_ms`,
    /// also if `idle` took the request away. A worker that hangs there would hang for ever, because
    /// it owes no sign of life until its late reply.
    pub(crate) fn on_overlong_due(&mut self, id: WorkerId, out: Out<'_>) {
        let Some(key) = self.workers.find(id) else { return };
        self.workers[key].is_timed = false;
        let service = &self.registry[self.workers[key].service];
        let limit_ms = service.settings.get(ServiceSetting::KillAfterMs);
        let work = self.at_work_on(key).filter(|_| limit_ms > 0);
        let Some((transaction, since, how)) = work else { return };
        let at = since.plus_millis(limit_ms);
        if at > self.now {
            self.watch_overlong(key, at);
            return;
        }
        let what = format!(
            "is busy with transaction {transaction}{how} for more than {limit_ms} ms \
             (kill_after_ms) and is killed"
        );
        self.worker_fact(FactKind::WorkerKilled, key, &what, out);
        self.kill_worker(key, "was killed because it was busy longer than kill_after_ms", out);
    }

    /// Ends a worker because of a fault: closes its connection, has its process killed, and loses
    /// its requests. `why` goes on after "worker 3".
    pub(crate) fn kill_worker(&mut self, key: WorkerKey, why: &str, out: Out<'_>) {
        if let Some(link) = self.workers[key].link {
            self.close_link(link, out);
        }
        let is_self_started = self.workers[key].is_self_started;
        self.note_killed(key, why);
        if !is_self_started && self.workers[key].state.has_process() {
            self.exec_stop(key, 0, out);
        }
        self.worker_lost(key, Close::Reset, why, out);
    }
}
