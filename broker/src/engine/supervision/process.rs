//! The states of a worker's process: started, up, ready, lost, asked to end, ended, started again.
//! Policy only: the processes are execd's. Requests of a worker that is lost are `dispatch`'s.

use super::machine::Supervision;
use super::restart::Verdict;
use super::workers::ProcessState;
use crate::engine::action::Action;
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::dispatch::retry::Had;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind};
use crate::engine::input::Close;
use crate::engine::keys::{HostKey, WorkerKey};
use crate::engine::quotas::Class;
use crate::engine::said::Said;
use crate::engine::timers::Timer;
use protocol::bodies::{Ending, ExecExited, ExecOutput, ExecStart, ExecStarted, Stream};
use protocol::ids::{RunId, WorkerId};
use protocol::names::HostName;
use protocol::settings::Setting;

/// A process is gone: how long its connection may take to follow.
const TRAILING_MS: u64 = 1000;

impl Supervision {
    /// Facts about a worker name it, its service and its host.
    pub(crate) fn about_worker(&self, key: WorkerKey, catalog: &Catalog) -> About {
        let worker = &self.workers[key];
        About {
            worker: Some(worker.id),
            service: Some(catalog[worker.service].name.clone()),
            host: Some(worker.host.clone()),
            ..About::default()
        }
    }

    pub(crate) fn worker_fact(
        &mut self,
        kind: FactKind,
        key: WorkerKey,
        what: &str,
        cx: &mut Context<'_>,
    ) {
        let worker = &self.workers[key];
        let service = &cx.catalog[worker.service].name;
        let text = format!("worker {} of service '{service}' {what}", worker.id);
        let about = self.about_worker(key, cx.catalog);
        cx.record(kind, about, text);
    }

    /// The worker of a report about this run, if it is the one that is known.
    pub(crate) fn worker_of_run(&self, id: WorkerId, run: RunId) -> Option<WorkerKey> {
        self.workers.find(id).filter(|&key| self.workers[key].run == run)
    }

    /// `start` of one worker: it is wanted, with a clean sheet.
    pub(crate) fn start_worker(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        worker.is_wanted = true;
        worker.failed = None;
        if worker.state == ProcessState::Down || worker.state == ProcessState::Ready {
            worker.why.clear();
        }
        worker.restart.reset();
        worker.is_to_restart = false;
        match worker.state {
            ProcessState::Down | ProcessState::Backoff => self.launch(key, cx),
            // It ends because it was stopped, and is started again when it has.
            ProcessState::Asked | ProcessState::Ending => {}
            ProcessState::Starting
            | ProcessState::Up
            | ProcessState::Ready
            | ProcessState::Returning => {
                self.update_available(key, cx);
            }
        }
    }

    /// The saved configuration has it started: an earlier broker may have done so.
    pub(crate) fn await_earlier(&mut self, key: WorkerKey) {
        let worker = &mut self.workers[key];
        worker.is_awaited |= worker.state == ProcessState::Down;
    }

    /// `pause` of one worker.
    pub(crate) fn pause_worker(&mut self, key: WorkerKey, said: &Said) {
        let worker = &mut self.workers[key];
        worker.is_paused = true;
        worker.explain(said);
    }

    /// Begins the figures anew with zeros.
    pub(crate) fn reset(&mut self) {
        for key in self.workers.keys() {
            self.workers[key].restarts = 0;
        }
    }

    /// Starts the process of a worker that has none, if it may run and its host is up.
    pub(crate) fn launch(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &self.workers[key];
        let service = &cx.catalog[worker.service];
        let may_run = worker.is_wanted
            && !worker.is_paused
            && !worker.is_self_started
            && !service.is_paused
            && worker.failed.is_none()
            && !worker.state.has_process()
            && !cx.is_shutting_down;
        let link = self.start_link(&worker.host).filter(|_| may_run);
        let (Some(link), id) = (link, worker.id) else {
            if worker.state == ProcessState::Backoff {
                self.workers[key].enter(ProcessState::Down, cx.now);
            }
            return;
        };
        let Some(next) = self.next_run.checked_add(1) else {
            self.give_up(key, "there are no numbers for starts any more".into(), "", cx);
            return;
        };
        self.next_run = next;
        let run = RunId(next);
        let digest = self.digest(key, cx.catalog);
        let (worker, service) = (&self.workers[key], &cx.catalog[self.workers[key].service]);
        let (broker_host, broker_port) = self.worker_address(&worker.host, cx);
        let mut args = vec![broker_host, broker_port, id.to_string(), service.name.to_string()];
        args.extend(worker.args.iter().cloned());
        let start = ExecStart {
            worker: id,
            run,
            service: service.name.clone(),
            path: worker.path.clone(),
            args,
            secret: String::new(),
            digest,
        };
        let what = format!("is started: {} (run {run})", worker.path);
        let worker = &mut self.workers[key];
        worker.run = run;
        worker.announced = None;
        worker.pid = 0;
        worker.enter(ProcessState::Starting, cx.now);
        worker.begin_run();
        worker.started = cx.now;
        worker.restarts += u64::from(std::mem::take(&mut worker.is_to_restart));
        (worker.was_ready, worker.is_stopping, worker.has_exited) = (false, false, false);
        (worker.is_found, worker.is_awaited, worker.is_over) = (false, false, false);
        (worker.is_unlisted, worker.is_cut_off, worker.ends_with_host) = (false, false, false);
        cx.out.push(Action::Start { link, start: Box::new(start) });
        self.wait_for(
            key,
            cx.settings.get(Setting::WorkerLoginMs),
            Timer::WorkerLogin(id, run),
            cx,
        );
        self.worker_fact(FactKind::WorkerStart, key, &what, cx);
    }

    /// Where a worker on this host finds the broker: `argv[1]` and `argv[2]`.
    fn worker_address(&self, host: &HostName, cx: &Context<'_>) -> (String, String) {
        let is_builtin = self.hosts.named(host).is_some_and(|host| host.is_builtin);
        match &cx.listening.worker_unix {
            Some(unix) if is_builtin => (unix.clone(), "0".into()),
            Some(_) | None => {
                (cx.listening.worker_host.clone(), cx.listening.worker_port.to_string())
            }
        }
    }

    pub(crate) fn on_started(
        &mut self,
        key: WorkerKey,
        started: &ExecStarted,
        cx: &mut Context<'_>,
    ) {
        let worker = &mut self.workers[key];
        worker.is_unlisted = false;
        worker.pid = started.pid;
        match worker.state {
            ProcessState::Starting => {
                worker.enter(ProcessState::Up, cx.now);
                let what = format!("is up, pid {}", started.pid);
                self.worker_fact(FactKind::WorkerUp, key, &what, cx);
            }
            // Its login was quicker, or it is being ended already.
            ProcessState::Up
            | ProcessState::Ready
            | ProcessState::Returning
            | ProcessState::Asked
            | ProcessState::Ending => {}
            ProcessState::Down | ProcessState::Backoff => {}
        }
    }

    /// The host of a worker reports its end.
    pub(crate) fn on_exited(&mut self, key: WorkerKey, exited: &ExecExited, cx: &mut Context<'_>) {
        if self.workers[key].state.has_process() {
            self.workers[key].is_over = true;
            self.exited(key, exited, cx);
        }
    }

    fn exited(&mut self, key: WorkerKey, exited: &ExecExited, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        worker.ending = Some(exited.ending);
        if !exited.tail.is_empty() {
            // What its host has is whole; lines on their way may have been dropped.
            worker.tail.clear();
            exited.tail.iter().for_each(|line| worker.keep_line(line));
        }
        worker.pid = 0;
        worker.has_exited = true;
        if worker.is_linked {
            // What it sent before it ended is still to be read; the end of the connection follows.
            let (id, run) = (worker.id, worker.run);
            if worker.state == ProcessState::Ready {
                worker.enter(ProcessState::Returning, cx.now);
            }
            self.wait_for(key, TRAILING_MS, Timer::Return(id, run), cx);
            self.update_available(key, cx);
        } else {
            self.ended(key, cx);
        }
    }

    /// The connection of a worker is gone, and with it what it `had`.
    pub(crate) fn lost(
        &mut self,
        key: WorkerKey,
        (how, why): (Close, &str),
        had: Had,
        cx: &mut Context<'_>,
    ) {
        let is_cut_off = how == Close::TimedOut || !self.is_reached(&self.workers[key].host);
        let worker = &mut self.workers[key];
        worker.is_linked = false;
        if worker.state == ProcessState::Ready {
            worker.enter(ProcessState::Returning, cx.now);
        }
        worker.is_cut_off |= is_cut_off && worker.state == ProcessState::Returning;
        let (id, run) = (worker.id, worker.run);
        if worker.is_self_started {
            if cx.may_cause(Class::SelfStarted, None) {
                let what = format!("(started by itself) {why}");
                self.worker_fact(FactKind::WorkerEnded, key, &what, cx);
            }
            self.forget_worker(key, cx);
        } else if worker.has_exited {
            self.ended(key, cx);
        } else if worker.state == ProcessState::Asked {
            // Its socket was shut while it was busy; it is not any more.
            self.wait_for_end(key, cx);
        } else if worker.state == ProcessState::Returning {
            let what =
                if had.is_busy { format!("{why} while it was busy") } else { why.to_owned() };
            self.note_loss(key, what, cx);
            let wait = self.return_wait_ms(key, had.work_ms, cx);
            self.wait_for(key, wait, Timer::Return(id, run), cx);
        }
    }

    /// Ends what runs of a lazy worker that is to be removed from the configuration.
    pub(crate) fn forget_worker(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &self.workers[key];
        if worker.state.has_process() && !worker.is_self_started {
            self.exec_stop(key, cx.settings.get(Setting::StopTermMs), cx);
        }
        cx.effects.push(Effect::Forget { worker: key });
    }

    /// Removes a worker from the configuration; see [`forget_worker`](Self::forget_worker).
    pub(crate) fn remove_worker(&mut self, key: WorkerKey) {
        self.workers.remove(key);
    }

    /// Process and connection of a worker are gone: start it again, later, or not.
    pub(crate) fn ended(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let ending = self.workers[key].ending;
        let how = self.how_it_ended(key);
        if self.is_ended_with_host(key) {
            self.ended_with_host(key, &how, cx);
        } else if self.workers[key].is_cut_off && !matches!(ending, Some(Ending::Signal(_))) {
            self.ended_cut_off(key, &how, cx);
        } else {
            self.ended_so(key, how, cx);
        }
    }

    /// A worker that was cut off has ended, perhaps because it found no broker: it is started
    /// again, and that counts neither for its backoff nor for its failure.
    fn ended_cut_off(&mut self, key: WorkerKey, how: &str, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        worker.enter(ProcessState::Down, cx.now);
        worker.why = format!("cut off: {how}");
        worker.pid = 0;
        (worker.has_exited, worker.is_stopping) = (false, false);
        worker.is_to_restart = worker.is_wanted;
        self.update_available(key, cx);
        self.worker_fact(FactKind::WorkerEnded, key, &format!("ended, cut off: {how}"), cx);
        self.launch(key, cx);
    }

    pub(crate) fn ended_so(&mut self, key: WorkerKey, how: String, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        let ready = worker.was_ready.then_some(worker.ready_since);
        let ending = worker.ending;
        let was_stopping = std::mem::take(&mut worker.is_stopping)
            || cx.is_shutting_down && is_exit_of_shutdown(ending);
        let worker = &mut self.workers[key];
        worker.enter(ProcessState::Down, cx.now);
        worker.pid = 0;
        worker.has_exited = false;
        let is_killed = worker.killed.is_some();
        worker.why.clone_from(&how);
        let is_wanted = worker.is_wanted;
        self.update_available(key, cx);
        if !is_wanted || was_stopping {
            self.worker_fact(FactKind::WorkerEnded, key, &format!("ended: {how}"), cx);
            if is_wanted {
                self.launch(key, cx);
            }
            return;
        }
        if !is_killed {
            // That it was killed, and why, has been recorded.
            self.worker_fact(FactKind::WorkerDied, key, &format!("ended unexpectedly: {how}"), cx);
        }
        self.workers[key].is_to_restart = true;
        let verdict = self.workers[key].restart.ended(cx.now, ready, &cx.settings);
        let id = self.workers[key].id;
        match verdict {
            Verdict::GiveUp(why) => {
                let cure = self.cure_of(key, cx);
                self.give_up(key, format!("{why} (last: {how})"), &cure, cx);
            }
            Verdict::Now => self.launch(key, cx),
            Verdict::At(at) => {
                self.workers[key].enter(ProcessState::Backoff, cx.now);
                cx.timers.add(at, Timer::Restart(id, self.workers[key].run));
                let wait = at.since(cx.now).as_millis();
                self.worker_fact(
                    FactKind::WorkerRestart,
                    key,
                    &format!("is started again in {wait} ms"),
                    cx,
                );
            }
        }
    }

    /// `Timer::Restart`: the backoff before a restart is over.
    pub(crate) fn on_restart_due(&mut self, id: WorkerId, run: RunId, cx: &mut Context<'_>) {
        if let Some(key) = self.worker_of_run(id, run)
            && self.workers[key].state == ProcessState::Backoff
        {
            self.launch(key, cx);
        }
    }

    /// `Timer::WorkerLogin`: a started worker did not log in.
    pub(crate) fn on_worker_login_due(&mut self, id: WorkerId, run: RunId, cx: &mut Context<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        let worker = &self.workers[key];
        if !matches!(worker.state, ProcessState::Starting | ProcessState::Up)
            || cx.now < worker.wait_until
        {
            return;
        }
        if self.is_reached(&self.workers[key].host) && !self.workers[key].ends_with_host {
            let within =
                format!("within {} ms (worker_login_ms)", cx.settings.get(Setting::WorkerLoginMs));
            let what = format!("did not log in {within} and is killed");
            self.worker_fact(FactKind::WorkerKilled, key, &what, cx);
            self.note_killed(key, &format!("did not log in {within}"));
            self.exec_stop(key, 0, cx);
        } else {
            // It can't be killed now, nor can it reach us: its host says later what became of it.
            self.look_later(key, Timer::WorkerLogin(id, run), cx);
        }
    }

    /// `Timer::Return`: a worker whose connection broke neither ended nor came back, or the other way
    /// round.
    pub(crate) fn on_return_due(&mut self, id: WorkerId, run: RunId, cx: &mut Context<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        let worker = &self.workers[key];
        if cx.now < worker.wait_until {
            // It came back and was lost again since.
            return;
        }
        match worker.is_linked {
            true if worker.has_exited => {
                let (how, why) = (Close::Reset, "ended".to_owned());
                cx.effects.push(Effect::Disconnect { worker: key, how, why });
            }
            false
                if worker.state == ProcessState::Returning
                    && (worker.ends_with_host || !self.is_reached(&worker.host)) =>
            {
                // Nobody can end it, or its host does anyway, and nothing is started in its place:
                // its host says later what became of it.
                self.look_later(key, Timer::Return(id, run), cx);
            }
            false if worker.state == ProcessState::Returning => {
                let what = "lost its connection and did not come back; its process is ended";
                self.worker_fact(FactKind::WorkerKilled, key, what, cx);
                self.note_killed(key, "lost its connection and did not come back");
                self.exec_stop(key, cx.settings.get(Setting::StopTermMs), cx);
            }
            true | false => {}
        }
    }

    /// `Timer::Absent`: execd did not list the process and no report of its end came.
    pub(crate) fn on_absent_due(&mut self, id: WorkerId, run: RunId, cx: &mut Context<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        let is_unlisted = std::mem::take(&mut self.workers[key].is_unlisted);
        if is_unlisted && self.workers[key].state.has_process() {
            let (worker, tail) = (id, Vec::new());
            let exited = ExecExited {
                worker,
                run,
                pid: 0,
                ending: Ending::Unknown,
                cpu_ms: 0,
                rss_kib_max: 0,
                tail,
            };
            self.exited(key, &exited, cx);
        }
    }

    /// The link to a host is gone: what runs there goes on, what should start waits.
    pub(crate) fn host_gone(&mut self, host: HostKey, cx: &mut Context<'_>) {
        for key in self.workers.keys() {
            let worker = &mut self.workers[key];
            let is_on_its_way = matches!(
                worker.state,
                ProcessState::Starting | ProcessState::Up | ProcessState::Returning
            );
            worker.is_cut_off |= is_on_its_way && worker.host == self.hosts[host].name;
        }
        cx.effects.push(Effect::HostGone { host });
    }

    pub(crate) fn on_output(&mut self, key: WorkerKey, output: &ExecOutput, cx: &mut Context<'_>) {
        if output.stream == Stream::Stderr {
            self.workers[key].keep_line(&output.line);
        }
        let dropped = if output.dropped > 0 {
            format!(" ({} lines before it were dropped)", output.dropped)
        } else {
            String::new()
        };
        let what = format!("{}: {}{dropped}", output.stream, output.line);
        self.worker_fact(FactKind::WorkerOutput, key, &what, cx);
    }

    /// `ready` of one worker: undoes a pause, and starts it if it ended in the meantime.
    pub(crate) fn ready_worker(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.workers[key].is_paused) {
            self.workers[key].since = cx.now;
            self.workers[key].why.clear();
        }
        self.update_available(key, cx);
        self.launch(key, cx);
    }
}

/// The signals that ask a process to end.
const SIGINT: i32 = 2;
/// See `SIGINT`.
const SIGTERM: i32 = 15;

/// Whether a worker that ended so while the broker shuts down did what it was asked to: whoever
/// stops the broker may have sent TERM to its workers as well.
const fn is_exit_of_shutdown(ending: Option<Ending>) -> bool {
    matches!(ending, None | Some(Ending::Exit(0) | Ending::Signal(SIGTERM | SIGINT)))
}
