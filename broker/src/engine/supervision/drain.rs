//! Ends workers: a worker may finish its request, then it gets an `end` frame and its socket is
//! shut for writing, then its host sends TERM, then KILL. A worker that is busy for too long is
//! killed. `process` handles what follows when it has ended.

use super::machine::Supervision;
use super::process_state::{ProcessEvent, ProcessState};
use super::run::{ExpectedEnd, RunOrigin};
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::FactKind;
use crate::engine::input::Close;
use crate::engine::keys::{HostKey, WorkerKey};
use crate::engine::operator_act::OperatorAct;
use crate::engine::supervision::host::Host;
use crate::engine::supervision::host_state::HostState;
use crate::engine::timers::Timer;
use protocol::bodies::{ExecEnd, ExecStop};
use protocol::{Frame, LinkId, RunId, Setting, WorkerId};

impl Supervision {
    /// Has execd end a worker's process: TERM to its process group, KILL after `grace_ms`.
    pub(crate) fn exec_stop(&mut self, key: WorkerKey, grace_ms: u64, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        worker.enter(ProcessEvent::Terminate, cx.now);
        worker.run.kill_due = cx.now.plus_millis(grace_ms);
        let stop = ExecStop { worker: worker.id, run: worker.run.id, grace_ms };
        let host = worker.host.clone();
        self.update_available(key, cx);
        if let Some(link) = self.host_link(&host) {
            cx.out.push(Action::Send { link, frame: Frame::ExecStop(stop) });
        }
    }

    /// A host has no process of a worker that it was to end, so no report of its end will come: the
    /// process is taken for ended.
    pub(crate) fn on_nobody_to_stop(
        &mut self,
        link: LinkId,
        host: HostKey,
        (id, run): (WorkerId, RunId),
        cx: &mut Context<'_>,
    ) {
        let host = &self.hosts[host];
        let is_up = host.state == HostState::Up(link);
        let Some(key) = self.workers.find(id).filter(|_| is_up) else { return };
        let worker = &mut self.workers[key];
        let is_it = worker.host == host.name
            && !worker.is_self_started
            && (run.0 == 0 || run == worker.run.id);
        if is_it && worker.state == ProcessState::Terminating {
            worker.run.listed(false);
            let run = worker.run.id;
            self.on_unlisted_due(id, run, cx);
        }
    }

    /// A worker that is being drained has nothing more to reply to, or only what nobody waits for
    /// any more (`is_overdue`): a stopped one is asked to end, one that was asked has its time.
    pub(crate) fn emptied(&mut self, key: WorkerKey, is_overdue: bool, cx: &mut Context<'_>) {
        let Some(worker) = self.workers.get(key) else { return };
        let is_stopped = worker.state == ProcessState::Ready && !worker.is_wanted;
        if is_stopped && !(is_overdue && worker.is_self_started) {
            self.ask_to_end(key, cx);
        } else if !is_overdue {
            self.wait_for_end(key, cx);
        }
    }

    /// Carries out `stop` of one worker: it is asked to end after the reply to its request; a
    /// second `stop` does not wait for the reply.
    pub(crate) fn stop_worker(
        &mut self,
        key: WorkerKey,
        (is_busy, said): (bool, &OperatorAct),
        cx: &mut Context<'_>,
    ) {
        let worker = &mut self.workers[key];
        worker.explain(said);
        let was_wanted = std::mem::replace(&mut worker.is_wanted, false);
        // A process that an earlier broker started is not wanted either, whatever is said later.
        if worker.run.origin == RunOrigin::Awaited && !worker.is_linked() {
            worker.run.origin = RunOrigin::Own;
        }
        self.update_available(key, cx);
        match self.workers[key].state {
            ProcessState::Down => {}
            ProcessState::Backoff => self.workers[key].enter(ProcessEvent::Unplan, cx.now),
            ProcessState::Ready if is_busy && was_wanted => {
                cx.effects.push(Effect::Drain { worker: key });
            }
            ProcessState::Ready => self.ask_to_end(key, cx),
            ProcessState::Starting | ProcessState::Up | ProcessState::Returning => {
                self.workers[key].run.expected_end = ExpectedEnd::Stop;
                self.exec_stop(key, cx.settings.get(Setting::StopTermMs), cx);
            }
            ProcessState::Exiting => {
                self.workers[key].run.expected_end = ExpectedEnd::Stop;
                if !(is_busy && was_wanted) {
                    self.wait_for_end(key, cx);
                }
            }
            ProcessState::Terminating => {}
        }
    }

    /// Has the process of a worker end without a loss, whoever wants it: it gets no more requests,
    /// answers what it has, however long that takes, and ends. What follows is for
    /// [`launch`](Self::launch) to say: another process, if the worker may have one.
    pub(crate) fn retire(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        match self.workers[key].state {
            ProcessState::Down | ProcessState::Exiting | ProcessState::Terminating => {}
            ProcessState::Backoff => self.workers[key].enter(ProcessEvent::Unplan, cx.now),
            ProcessState::Ready => {
                self.workers[key].run.expected_end = ExpectedEnd::Stop;
                self.shut_worker(key, cx);
            }
            ProcessState::Starting | ProcessState::Up | ProcessState::Returning => {
                self.workers[key].run.expected_end = ExpectedEnd::Stop;
                self.exec_stop(key, cx.settings.get(Setting::StopTermMs), cx);
            }
        }
    }

    /// Asks a ready worker to end: `end` frame, socket shut for writing, and TERM after
    /// `stop_ask_ms`.
    pub(crate) fn ask_to_end(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        self.workers[key].run.expected_end = ExpectedEnd::Stop;
        self.shut_worker(key, cx);
        self.wait_for_end(key, cx);
    }

    /// Carries out `shutdown` of a worker's socket: it gets no more frames, ends, and is started
    /// again. A busy worker replies first. TERM follows if it does not end.
    pub(crate) fn shut_worker(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        if !worker.is_linked() {
            return;
        }
        if worker.state == ProcessState::Ready {
            worker.enter(ProcessEvent::AskToEnd, cx.now);
        }
        self.update_available(key, cx);
        // What it is told of its conversations comes before its side is shut.
        cx.effects.push(Effect::Drain { worker: key });
        cx.effects.push(Effect::AskToEnd { worker: key });
    }

    /// Gives a worker that was asked to end `stop_ask_ms` to do so.
    pub(super) fn wait_for_end(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &self.workers[key];
        if worker.state == ProcessState::Exiting {
            let wait = cx.settings.get(Setting::StopAskMs);
            cx.timers.add(cx.now.plus_millis(wait), Timer::StopAsk(worker.id, worker.run.id));
        }
    }

    /// `Timer::StopAsk`: a worker that was asked to end has not, so execd ends it.
    pub(crate) fn on_stop_ask_due(&mut self, id: WorkerId, run: RunId, cx: &mut Context<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        if self.workers[key].state != ProcessState::Exiting {
            return;
        }
        if self.workers[key].is_self_started {
            // No execd has its process; the broker can only close its connection.
            self.kill_worker(key, "did not end when it was asked to", cx);
        } else {
            self.exec_stop(key, cx.settings.get(Setting::StopTermMs), cx);
        }
    }

    /// A worker is busy for too long with one request; `what` goes on after its name.
    pub(crate) fn overlong(&mut self, key: WorkerKey, what: &str, cx: &mut Context<'_>) {
        self.worker_fact(FactKind::WorkerKilled, key, what, cx);
        self.kill_worker(key, "was killed because it was busy longer than kill_after_ms", cx);
    }

    /// Ends a worker because of a fault: closes its connection, has its process killed, and loses
    /// its requests. `why` goes on after "worker 3".
    pub(crate) fn kill_worker(&mut self, key: WorkerKey, why: &str, cx: &mut Context<'_>) {
        let is_self_started = self.workers[key].is_self_started;
        self.note_killed(key, why);
        if !is_self_started && self.workers[key].state.has_process() {
            self.exec_stop(key, 0, cx);
        }
        let (how, why) = (Close::Reset, why.to_owned());
        cx.effects.push(Effect::Disconnect { worker: key, how, why });
    }

    /// A worker takes no further request, and ends when it has answered those that it has. That is
    /// no crash, and another process is started at once. It is told to end, which also tells it
    /// that nothing more will come; TERM follows if it does not.
    pub(crate) fn logged_out(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        let service = worker.service;
        if worker.run.expected_end == ExpectedEnd::No {
            worker.run.expected_end = ExpectedEnd::Announced;
        }
        match worker.state {
            ProcessState::Ready => self.shut_worker(key, cx),
            // Its process has ended, or it was asked to end: its connection is read to its end.
            ProcessState::Returning | ProcessState::Exiting | ProcessState::Terminating => {}
            // A login that is about to be found not valid.
            ProcessState::Down
            | ProcessState::Backoff
            | ProcessState::Starting
            | ProcessState::Up => {}
        }
        self.repeat_outlook(service, cx);
    }

    /// The broker ends, and this worker with it.
    pub(crate) fn ask_one_to_end(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        if self.workers[key].state == ProcessState::Ready {
            self.ask_to_end(key, cx);
        }
        // Its host ends it, whatever it does now, so its end is no fault of its own.
        let worker = &mut self.workers[key];
        if worker.state.has_process() {
            worker.run.expected_end = ExpectedEnd::Stop;
        }
    }

    /// The built-in hosts that are linked: they end when their processes have.
    pub(crate) fn builtin_hosts(&self) -> Vec<HostKey> {
        let is_awaited = |host: &Host| {
            let is_there = host.state == HostState::Dialing || host.state.link().is_some();
            host.is_builtin && (is_there || host.handing != 0)
        };
        let hosts = self.hosts.by_name().filter(|(_, host)| is_awaited(host));
        hosts.map(|(key, _)| key).collect()
    }

    /// Every host that is linked ends the processes that it has for this broker. One that is still
    /// being dialled, or asks for a proof, is told so when it has welcomed the broker, if that has
    /// not ended by then.
    pub(crate) fn end_hosts(&mut self, grace_ms: u64, cx: &mut Context<'_>) {
        self.shutdown_ms = Some(grace_ms);
        for link in self.hosts.by_name().filter_map(|(_, host)| host.state.takes_frames()) {
            let end = ExecEnd { grace_ms, keep: false };
            cx.out.push(Action::Send { link, frame: Frame::ExecEnd(end) });
        }
    }
}
