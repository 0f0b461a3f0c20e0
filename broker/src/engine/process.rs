//! The states of a worker's process: started, up, ready, lost, asked to end, ended, started again.
//! This file decides; execds run the processes. `dispatch` handles the requests of a worker that is
//! lost.

use super::action::Action;
use super::due::Due;
use super::fact::{About, FactKind};
use super::input::Close;
use super::keys::{HostKey, WorkerKey};
use super::quotas::Class;
use super::restart::Decision;
use super::workers::{ProcessState, WorkerList};
use super::{Engine, Out};
use protocol::bodies::{ExecExited, ExecOutput, ExecStart, ExecStarted, ExitCause, Stream};
use protocol::ids::{RunId, WorkerId};
use protocol::names::HostName;
use protocol::settings::Setting;

/// Milliseconds that the connection of a worker may stay open after its process ended.
const TRAILING_MS: u64 = 1000;

impl Engine {
    /// The ids in facts about a worker: its own, its service, its host.
    pub(crate) fn about_worker(&self, key: WorkerKey) -> About {
        let worker = &self.workers[key];
        About {
            worker: Some(worker.id),
            service: Some(self.registry[worker.service].name.clone()),
            host: Some(worker.host.clone()),
            ..About::default()
        }
    }

    /// Records a fact about a worker. `what` goes on after "worker 3 of service 'echo'".
    pub(crate) fn worker_fact(&mut self, kind: FactKind, key: WorkerKey, what: &str, out: Out<'_>) {
        let worker = &self.workers[key];
        let service = &self.registry[worker.service].name;
        let text = format!("worker {} of service '{service}' {what}", worker.id);
        let about = self.about_worker(key);
        self.record(kind, about, text, out);
    }

    /// The worker with this id, if this is its present run.
    pub(crate) fn worker_of_run(&self, id: WorkerId, run: RunId) -> Option<WorkerKey> {
        self.workers.find(id).filter(|&key| self.workers[key].run == run)
    }

    /// Carries out `start` of one worker: it is wanted from now on, and its earlier ends are
    /// forgotten.
    pub(crate) fn start_worker(&mut self, key: WorkerKey, out: Out<'_>) {
        let worker = &mut self.workers[key];
        worker.is_wanted = true;
        worker.failed = None;
        if worker.state == ProcessState::Down || worker.state == ProcessState::Ready {
            worker.why.clear();
        }
        worker.restart.reset();
        worker.is_to_restart = false;
        match worker.state {
            ProcessState::Down | ProcessState::Backoff => self.launch(key, out),
            // It is ending because it was stopped, and is started again when it has ended.
            ProcessState::Exiting | ProcessState::Terminating => {}
            ProcessState::Starting
            | ProcessState::Up
            | ProcessState::Ready
            | ProcessState::Returning => {
                self.settle(key);
                let service = self.workers[key].service;
                self.serve(service, out);
            }
        }
    }

    /// Starts the process of a worker that has none, if the worker may run and its host is up.
    /// Otherwise nothing happens: when that changes, this is called again.
    pub(crate) fn launch(&mut self, key: WorkerKey, out: Out<'_>) {
        let worker = &self.workers[key];
        let service = &self.registry[worker.service];
        let may_run = worker.is_wanted
            && !worker.is_paused
            && !worker.is_self_started
            && !service.is_paused
            && worker.failed.is_none()
            && !worker.state.has_process()
            && self.shutdown.is_none();
        let link = self.start_link(&worker.host).filter(|_| may_run);
        let (Some(link), id) = (link, worker.id) else {
            if worker.state == ProcessState::Backoff {
                self.workers[key].enter(ProcessState::Down, self.now);
            }
            return;
        };
        let Some(next) = self.next_run.checked_add(1) else {
            self.give_up(key, "there are no numbers for starts any more".into(), "", out);
            return;
        };
        self.next_run = next;
        let run = RunId(next);
        let digest = self.digest(key);
        let (worker, service) = (&self.workers[key], &self.registry[self.workers[key].service]);
        let (broker_host, broker_port) = self.worker_address(&worker.host);
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
        worker.enter(ProcessState::Starting, self.now);
        worker.begin_run();
        worker.started = self.now;
        worker.restarts += u64::from(std::mem::take(&mut worker.is_to_restart));
        (worker.was_ready, worker.is_stopping, worker.has_exited) = (false, false, false);
        (worker.is_of_earlier_broker, worker.is_awaited, worker.is_over) = (false, false, false);
        (worker.is_unlisted, worker.is_unreachable, worker.ends_with_host) = (false, false, false);
        out.push(Action::Start { link, start: Box::new(start) });
        self.wait_for(key, self.settings.get(Setting::WorkerLoginMs), Due::WorkerLogin(id, run));
        self.worker_fact(FactKind::WorkerStart, key, &what, out);
    }

    /// Where a worker on this host finds the broker: `argv[1]` and `argv[2]`.
    fn worker_address(&self, host: &HostName) -> (String, String) {
        let is_builtin = self.hosts.named(host).is_some_and(|host| host.is_builtin);
        match &self.listening.worker_unix {
            Some(unix) if is_builtin => (unix.clone(), "0".into()),
            Some(_) | None => {
                (self.listening.worker_host.clone(), self.listening.worker_port.to_string())
            }
        }
    }

    /// Handles the report that a process runs.
    pub(crate) fn on_started(&mut self, key: WorkerKey, started: &ExecStarted, out: Out<'_>) {
        let worker = &mut self.workers[key];
        worker.is_unlisted = false;
        worker.pid = started.pid;
        match worker.state {
            ProcessState::Starting => {
                worker.enter(ProcessState::Up, self.now);
                let what = format!("is up, pid {}", started.pid);
                self.worker_fact(FactKind::WorkerUp, key, &what, out);
            }
            // Its login came before the report, or it is being ended already.
            ProcessState::Up
            | ProcessState::Ready
            | ProcessState::Returning
            | ProcessState::Exiting
            | ProcessState::Terminating => {}
            ProcessState::Down | ProcessState::Backoff => {}
        }
    }

    /// Handles the report that a process ended.
    pub(crate) fn on_exited(&mut self, key: WorkerKey, exited: &ExecExited, out: Out<'_>) {
        if self.workers[key].state.has_process() {
            self.workers[key].is_over = true;
            self.exited(key, exited, out);
        }
    }

    /// A process has ended: if its connection is still open, the rest is read first, for a limited
    /// time.
    fn exited(&mut self, key: WorkerKey, exited: &ExecExited, out: Out<'_>) {
        let worker = &mut self.workers[key];
        worker.exit_cause = Some(exited.exit_cause);
        if !exited.tail.is_empty() {
            // The host has all of the last lines; some that it passed on may have been dropped.
            worker.tail.clear();
            exited.tail.iter().for_each(|line| worker.keep_line(line));
        }
        worker.pid = 0;
        worker.has_exited = true;
        if worker.link.is_some() {
            // What it sent before its end is still to be read; the end of the connection follows.
            let (id, run) = (worker.id, worker.run);
            if worker.state == ProcessState::Ready {
                worker.enter(ProcessState::Returning, self.now);
            }
            self.wait_for(key, TRAILING_MS, Due::Return(id, run));
            self.settle(key);
        } else {
            self.ended(key, out);
        }
    }

    /// Handles the end of a worker's connection: its requests are lost, and it has some time to
    /// come back or to end. One that started itself is forgotten.
    pub(crate) fn worker_lost(&mut self, key: WorkerKey, how: Close, why: &str, out: Out<'_>) {
        if let Some(link) = self.workers[key].link.take() {
            let id = self.workers[key].id;
            self.on_status_lost(link, id, out);
        }
        let wait = self.return_wait_ms(key);
        let is_unreachable = how == Close::TimedOut || !self.is_reached(&self.workers[key].host);
        let worker = &mut self.workers[key];
        if worker.state == ProcessState::Ready {
            worker.enter(ProcessState::Returning, self.now);
        }
        worker.is_unreachable |= is_unreachable && worker.state == ProcessState::Returning;
        let (id, run, state, is_self_started) =
            (worker.id, worker.run, worker.state, worker.is_self_started);
        let is_busy = worker.current.is_some();
        let has_exited = worker.has_exited;
        self.settle(key);
        self.lose_requests(key, how, why, out);
        if is_self_started {
            if self.may_cause(Class::SelfStarted, None) {
                let what = format!("(started by itself) {why}");
                self.worker_fact(FactKind::WorkerEnded, key, &what, out);
            }
            self.forget_worker(key, out);
        } else if has_exited {
            self.ended(key, out);
        } else if state == ProcessState::Exiting {
            // Its socket was shut while it was busy, and it is not busy any more.
            self.wait_for_end(key);
        } else if state == ProcessState::Returning {
            let what = if is_busy { format!("{why} while it was busy") } else { why.to_owned() };
            self.note_loss(key, what);
            self.wait_for(key, wait, Due::Return(id, run));
        }
    }

    /// Removes a lazy worker from the configuration, and has its process ended if there is one.
    pub(crate) fn forget_worker(&mut self, key: WorkerKey, out: Out<'_>) {
        let worker = &self.workers[key];
        let service = worker.service;
        if worker.state.has_process() && !worker.is_self_started {
            self.exec_stop(key, self.settings.get(Setting::StopTermMs), out);
        }
        self.set_has_room(key, false);
        self.registry[service].workers -= 1;
        self.workers.remove(key);
    }

    /// The process of a worker has ended and its connection is gone: decides by the cause whether,
    /// and when, it is started again.
    pub(crate) fn ended(&mut self, key: WorkerKey, out: Out<'_>) {
        let exit_cause = self.workers[key].exit_cause;
        let how = self.how_it_ended(key);
        if self.is_ended_with_host(key) {
            self.ended_with_host(key, &how, out);
        } else if self.workers[key].is_unreachable
            && !matches!(exit_cause, Some(ExitCause::Signal(_)))
        {
            self.ended_unreachable(key, &how, out);
        } else {
            self.ended_so(key, how, out);
        }
    }

    /// Handles the end of a worker that could not be reached, perhaps because it found no broker:
    /// it is started again, and the end counts neither for its backoff nor as a failure.
    fn ended_unreachable(&mut self, key: WorkerKey, how: &str, out: Out<'_>) {
        let worker = &mut self.workers[key];
        worker.enter(ProcessState::Down, self.now);
        worker.why = format!("unreachable: {how}");
        worker.pid = 0;
        (worker.has_exited, worker.is_stopping) = (false, false);
        worker.is_to_restart = worker.is_wanted;
        self.settle(key);
        self.worker_fact(FactKind::WorkerEnded, key, &format!("ended, unreachable: {how}"), out);
        self.launch(key, out);
    }

    /// Handles an end with the cause `how`. After a `stop`, that is all; otherwise `restart`
    /// decides when the worker is started again, or that it has failed.
    pub(crate) fn ended_so(&mut self, key: WorkerKey, how: String, out: Out<'_>) {
        let worker = &mut self.workers[key];
        let ready = worker.was_ready.then_some(worker.ready_since);
        let exit_cause = worker.exit_cause;
        let was_stopping =
            std::mem::take(&mut worker.is_stopping) || self.is_exit_of_shutdown(exit_cause);
        let worker = &mut self.workers[key];
        worker.enter(ProcessState::Down, self.now);
        worker.pid = 0;
        worker.has_exited = false;
        let is_killed = worker.killed.is_some();
        worker.why.clone_from(&how);
        let is_wanted = worker.is_wanted;
        self.settle(key);
        if !is_wanted || was_stopping {
            self.worker_fact(FactKind::WorkerEnded, key, &format!("ended: {how}"), out);
            if is_wanted {
                self.launch(key, out);
            }
            return;
        }
        if !is_killed {
            // When it was killed, that and the reason were recorded.
            self.worker_fact(FactKind::WorkerDied, key, &format!("ended unexpectedly: {how}"), out);
        }
        self.workers[key].is_to_restart = true;
        let verdict = self.workers[key].restart.ended(self.now, ready, &self.settings);
        let id = self.workers[key].id;
        match verdict {
            Decision::GiveUp(why) => {
                let cure = self.cure_of(key);
                self.give_up(key, format!("{why} (last: {how})"), &cure, out);
            }
            Decision::Now => self.launch(key, out),
            Decision::At(at) => {
                self.workers[key].enter(ProcessState::Backoff, self.now);
                self.due.add(at, Due::Restart(id, self.workers[key].run));
                let wait = at.since(self.now).as_millis();
                self.worker_fact(
                    FactKind::WorkerRestart,
                    key,
                    &format!("is started again in {wait} ms"),
                    out,
                );
            }
        }
    }

    /// `Due::Restart`: the backoff is over, so the worker is started again.
    pub(crate) fn on_restart_due(&mut self, id: WorkerId, run: RunId, out: Out<'_>) {
        if let Some(key) = self.worker_of_run(id, run)
            && self.workers[key].state == ProcessState::Backoff
        {
            self.launch(key, out);
        }
    }

    /// `Due::WorkerLogin`: a worker that was started has not logged in, and is killed.
    pub(crate) fn on_worker_login_due(&mut self, id: WorkerId, run: RunId, out: Out<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        let worker = &self.workers[key];
        if !matches!(worker.state, ProcessState::Starting | ProcessState::Up)
            || self.now < worker.wait_until
        {
            return;
        }
        if self.is_reached(&self.workers[key].host) && !self.workers[key].ends_with_host {
            let within = format!(
                "within {} ms (worker_login_ms)",
                self.settings.get(Setting::WorkerLoginMs)
            );
            let what = format!("did not log in {within} and is killed");
            self.worker_fact(FactKind::WorkerKilled, key, &what, out);
            self.note_killed(key, &format!("did not log in {within}"));
            self.exec_stop(key, 0, out);
        } else {
            // It can't be killed now, nor can it reach the broker: its host will report what became
            // of it.
            self.look_later(key, Due::WorkerLogin(id, run));
        }
    }

    /// `Due::Return`: ends the process of a worker that lost its connection and did not come back,
    /// or the connection of one whose process has ended.
    pub(crate) fn on_return_due(&mut self, id: WorkerId, run: RunId, out: Out<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        let worker = &self.workers[key];
        if self.now < worker.wait_until {
            // It came back, and was lost again after that.
            return;
        }
        match worker.link {
            Some(link) if worker.has_exited => {
                self.close_link(link, out);
                self.worker_lost(key, Close::Reset, "ended", out);
            }
            None if worker.state == ProcessState::Returning
                && (worker.ends_with_host || !self.is_reached(&worker.host)) =>
            {
                // The broker can't have it ended, or its host ends it anyway, and no other is
                // started in its place: its host will report what became of it.
                self.look_later(key, Due::Return(id, run));
            }
            None if worker.state == ProcessState::Returning => {
                let what = "lost its connection and did not come back; its process is ended";
                self.worker_fact(FactKind::WorkerKilled, key, what, out);
                self.note_killed(key, "lost its connection and did not come back");
                self.exec_stop(key, self.settings.get(Setting::StopTermMs), out);
            }
            Some(_) | None => {}
        }
    }

    /// `Due::Unlisted`: an execd did not list the process and did not report its end, so the
    /// process is taken for ended, for a cause that is not known.
    pub(crate) fn on_unlisted_due(&mut self, id: WorkerId, run: RunId, out: Out<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        let is_unlisted = std::mem::take(&mut self.workers[key].is_unlisted);
        if is_unlisted && self.workers[key].state.has_process() {
            let (worker, tail) = (id, Vec::new());
            let exited = ExecExited {
                worker,
                run,
                pid: 0,
                exit_cause: ExitCause::Unknown,
                cpu_ms: 0,
                rss_kib_max: 0,
                tail,
            };
            self.exited(key, &exited, out);
        }
    }

    /// The link to a host is gone: processes there go on, and starts wait. The end of a worker that
    /// was not ready is no crash then.
    pub(crate) fn host_gone(&mut self, host: HostKey, out: Out<'_>) {
        for key in self.workers.keys() {
            let worker = &mut self.workers[key];
            let is_on_its_way = matches!(
                worker.state,
                ProcessState::Starting | ProcessState::Up | ProcessState::Returning
            );
            worker.is_unreachable |= is_on_its_way && worker.host == self.hosts[host].name;
        }
        if self.shutdown.is_some() {
            self.on_host_ended(host, out);
        }
    }

    /// Records a line that a worker's process wrote, and keeps it if it is of stderr.
    pub(crate) fn on_output(&mut self, key: WorkerKey, output: &ExecOutput, out: Out<'_>) {
        if output.stream == Stream::Stderr {
            self.workers[key].keep_line(&output.line);
        }
        let dropped = if output.dropped > 0 {
            format!(" ({} lines before it were dropped)", output.dropped)
        } else {
            String::new()
        };
        let what = format!("{}: {}{dropped}", output.stream, output.line);
        self.worker_fact(FactKind::WorkerOutput, key, &what, out);
    }

    /// Carries out `ready` of one worker: it is no longer paused, and is started if it ended
    /// meanwhile.
    pub(crate) fn ready_worker(&mut self, key: WorkerKey, out: Out<'_>) {
        if std::mem::take(&mut self.workers[key].is_paused) {
            self.workers[key].since = self.now;
            self.workers[key].why.clear();
        }
        self.settle(key);
        if self.workers[key].list == WorkerList::Lazy {
            self.launch(key, out);
        }
        let service = self.workers[key].service;
        self.serve(service, out);
    }
}
