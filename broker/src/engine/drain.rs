//! How workers are drained and ended: the reply in progress is waited for, then they are asked to
//! end, shut for writing, sent TERM, sent KILL; killed when they are busy too long. What follows
//! when they have ended is in `process`.

use super::action::Action;
use super::context::context;
use super::hosts::HostState;
use super::hub::{Engine, Out};
use super::input::Close;
use super::keys::{HostKey, WorkerKey};
use super::timers::Timer;
use super::workers::ProcessState;
use protocol::bodies::ExecStop;
use protocol::frame::Frame;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::settings::Setting;

impl Engine {
    /// Has execd end a worker's process: TERM to its group, KILL after the grace time.
    pub(crate) fn exec_stop(&mut self, key: WorkerKey, grace_ms: u64, out: Out<'_>) {
        let worker = &mut self.workers[key];
        worker.enter(ProcessState::Ending, self.now);
        worker.killed_at = self.now.plus_millis(grace_ms);
        let stop = ExecStop { worker: worker.id, run: worker.run, grace_ms };
        let host = worker.host.clone();
        self.update_available(key, out);
        if let Some(link) = self.host_link(&host) {
            out.push(Action::Send { link, frame: Frame::ExecStop(stop) });
        }
    }

    /// A host says that it has no process of a worker that it was asked to end: nobody will report
    /// that it ended.
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
        if is_it && worker.state == ProcessState::Ending {
            worker.is_unlisted = true;
            let run = worker.run;
            self.on_absent_due(id, run, out);
        }
    }

    /// A worker that is being drained has nothing more to reply to, or only what nobody waits for
    /// any more (`is_overdue`): a stopped one is asked to end, one that was asked has its time.
    pub(crate) fn emptied(&mut self, key: WorkerKey, is_overdue: bool, out: Out<'_>) {
        let Some(worker) = self.workers.get(key) else { return };
        let is_stopped = worker.state == ProcessState::Ready && !worker.is_wanted;
        if is_stopped && !(is_overdue && worker.is_self_started) {
            self.ask_to_end(key, out);
        } else if !is_overdue {
            self.wait_for_end(key);
        }
    }

    /// `stop` of one worker: after the reply in progress it is asked to end; a second `stop` does
    /// not wait.
    pub(crate) fn stop_worker(&mut self, key: WorkerKey, out: Out<'_>) {
        let worker = &mut self.workers[key];
        let was_wanted = std::mem::replace(&mut worker.is_wanted, false);
        // What an earlier broker started is not wanted either, whatever is said later.
        worker.is_awaited &= self.dispatch.seat(key).link.is_some();
        // A reply that nobody waits for any more is not waited for.
        let is_busy = self.dispatch.current(key).is_some_and(|t| !t.stage.is_ended());
        self.update_available(key, out);
        match self.workers[key].state {
            ProcessState::Down => {}
            ProcessState::Backoff => self.workers[key].enter(ProcessState::Down, self.now),
            ProcessState::Ready if is_busy && was_wanted => {
                self.dispatch.drain(key, context!(self, out));
            }
            ProcessState::Ready => self.ask_to_end(key, out),
            ProcessState::Starting | ProcessState::Up | ProcessState::Returning => {
                self.workers[key].is_stopping = true;
                self.exec_stop(key, self.settings.get(Setting::StopTermMs), out);
            }
            ProcessState::Asked => {
                self.workers[key].is_stopping = true;
                if !(is_busy && was_wanted) {
                    self.wait_for_end(key);
                }
            }
            ProcessState::Ending => {}
        }
    }

    /// Asks a ready worker to end: an `end` frame, its socket shut for writing, TERM later.
    pub(crate) fn ask_to_end(&mut self, key: WorkerKey, out: Out<'_>) {
        self.workers[key].is_stopping = true;
        self.shut_worker(key, out);
        self.wait_for_end(key);
    }

    /// `shutdown` of a worker's socket: it takes no more, and ends, and is started again. TERM
    /// follows if it does not end; a busy one replies first.
    pub(crate) fn shut_worker(&mut self, key: WorkerKey, out: Out<'_>) {
        let Some(link) = self.dispatch.seat(key).link else { return };
        let worker = &mut self.workers[key];
        if worker.state == ProcessState::Ready {
            worker.enter(ProcessState::Asked, self.now);
        }
        self.update_available(key, out);
        out.push(Action::Send { link, frame: Frame::End });
        out.push(Action::ShutWrite { link });
        self.dispatch.drain(key, context!(self, out));
    }

    /// A worker that was asked to end has its time to do so.
    pub(crate) fn wait_for_end(&mut self, key: WorkerKey) {
        let worker = &self.workers[key];
        if worker.state == ProcessState::Asked {
            let wait = self.settings.get(Setting::StopAskMs);
            self.timers.add(self.now.plus_millis(wait), Timer::StopAsk(worker.id, worker.run));
        }
    }

    /// `Timer::StopAsk`: it did not end by itself.
    pub(crate) fn on_stop_ask_due(&mut self, id: WorkerId, run: RunId, out: Out<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        if self.workers[key].state != ProcessState::Asked {
            return;
        }
        if self.workers[key].is_self_started {
            // No execd has its process; all that can be ended is its connection.
            self.kill_worker(key, "did not end when it was asked to", out);
        } else {
            self.exec_stop(key, self.settings.get(Setting::StopTermMs), out);
        }
    }

    /// Ends a worker that does not do its duty: connection closed, process killed, requests lost.
    pub(crate) fn kill_worker(&mut self, key: WorkerKey, why: &str, out: Out<'_>) {
        if let Some(link) = self.dispatch.seat(key).link {
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
