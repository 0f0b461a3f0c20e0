//! The lives of workers: started, up, ready, lost, asked to end, ended, started again. Policy only:
//! the processes are execd's. Requests of a worker that is lost are `dispatch`'s.

use super::action::Action;
use super::due::Due;
use super::fact::{About, FactKind};
use super::input::Close;
use super::restart::Verdict;
use super::workers::{Life, Place};
use super::{Engine, Out};
use protocol::bodies::{Child, Ending, ExecExited, ExecOutput, ExecStart, ExecStarted, ExecStop};
use protocol::frame::Frame;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::names::HostName;
use protocol::settings::Setting;

/// After a list of processes: how long a missed report of an end may take to follow.
const ABSENT_MS: u64 = 300;
/// A process is gone: how long its connection may take to follow.
const TRAILING_MS: u64 = 1000;

impl Engine {
    /// Facts about a worker name it, its service and its host.
    pub(crate) fn about_worker(&self, key: usize) -> About {
        let worker = &self.workers[key];
        About {
            worker: Some(worker.id),
            service: Some(self.registry[worker.service].name.clone()),
            host: Some(worker.host.clone()),
            ..About::default()
        }
    }

    pub(crate) fn worker_fact(&mut self, kind: FactKind, key: usize, what: &str, out: Out<'_>) {
        let worker = &self.workers[key];
        let service = &self.registry[worker.service].name;
        let text = format!("worker {} of service '{service}' {what}", worker.id);
        let about = self.about_worker(key);
        self.record(kind, about, text, out);
    }

    /// The worker of a report about this run, if it is the one that is known.
    pub(crate) fn worker_of_run(&self, id: WorkerId, run: RunId) -> Option<usize> {
        self.workers.find(id).filter(|&key| self.workers[key].run == run)
    }

    /// `start` of one worker: it is wanted, with a clean sheet.
    pub(crate) fn start_worker(&mut self, key: usize, out: Out<'_>) {
        let worker = &mut self.workers[key];
        worker.is_wanted = true;
        worker.failed = None;
        worker.restart.reset();
        worker.is_to_restart = false;
        match worker.life {
            Life::Down | Life::Pausing => self.launch(key, out),
            // It ends because it was stopped, and is started again when it has.
            Life::Asked | Life::Ending => {}
            Life::Starting | Life::Up | Life::Ready | Life::Returning => {
                self.settle(key);
                let service = self.workers[key].service;
                self.serve(service, out);
            }
        }
    }

    /// Starts the process of a worker that has none, if it may run and its host is up.
    pub(crate) fn launch(&mut self, key: usize, out: Out<'_>) {
        let worker = &self.workers[key];
        let service = &self.registry[worker.service];
        let may_run = worker.is_wanted
            && !worker.is_paused
            && !worker.is_guest
            && !service.is_paused
            && worker.failed.is_none()
            && !worker.life.has_process()
            && self.ending.is_none();
        let link = self.host_link(&worker.host).filter(|_| may_run);
        let (Some(link), id) = (link, worker.id) else {
            if worker.life == Life::Pausing {
                self.workers[key].life = Life::Down;
            }
            return;
        };
        self.next_run += 1;
        let run = RunId(self.next_run);
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
        };
        let what = format!("is started: {} (run {run})", worker.path);
        let worker = &mut self.workers[key];
        worker.run = run;
        worker.pid = 0;
        worker.life = Life::Starting;
        worker.started = self.now;
        worker.restarts += u64::from(std::mem::take(&mut worker.is_to_restart));
        (worker.was_ready, worker.is_stopping, worker.has_exited) = (false, false, false);
        worker.is_found = false;
        out.push(Action::Start { link, start: Box::new(start) });
        self.due
            .add(self.now.plus_millis(self.settings.get(Setting::BadgeMs)), Due::Badge(id, run));
        self.worker_fact(FactKind::WorkerStart, key, &what, out);
    }

    /// Where a worker on this host finds the broker: `argv[1]` and `argv[2]`.
    fn worker_address(&self, host: &HostName) -> (String, String) {
        let is_builtin = self.hosts.get(host).is_some_and(|host| host.is_builtin);
        match &self.listening.worker_unix {
            Some(unix) if is_builtin => (unix.clone(), "0".into()),
            Some(_) | None => {
                (self.listening.worker_host.clone(), self.listening.worker_port.to_string())
            }
        }
    }

    pub(crate) fn on_started(&mut self, started: &ExecStarted, out: Out<'_>) {
        let Some(key) = self.worker_of_run(started.worker, started.run) else { return };
        let worker = &mut self.workers[key];
        worker.pid = started.pid;
        match worker.life {
            Life::Starting => {
                worker.life = Life::Up;
                let what = format!("is up, pid {}", started.pid);
                self.worker_fact(FactKind::WorkerUp, key, &what, out);
            }
            // Its badge was quicker, or it is being ended already.
            Life::Up | Life::Ready | Life::Returning | Life::Asked | Life::Ending => {}
            Life::Down | Life::Pausing => {}
        }
    }

    pub(crate) fn on_exited(&mut self, exited: &ExecExited, out: Out<'_>) {
        let Some(key) = self.worker_of_run(exited.worker, exited.run) else { return };
        let worker = &mut self.workers[key];
        if !worker.life.has_process() {
            return;
        }
        worker.ending = Some(exited.ending);
        worker.tail.clone_from(&exited.tail);
        worker.pid = 0;
        worker.has_exited = true;
        if worker.link.is_some() {
            // What it sent before it ended is still to be read; the end of the connection follows.
            let (id, run) = (worker.id, worker.run);
            if worker.life == Life::Ready {
                worker.life = Life::Returning;
            }
            self.due.add(self.now.plus_millis(TRAILING_MS), Due::Return(id, run));
            self.settle(key);
        } else {
            self.ended(key, out);
        }
    }

    /// The connection of a worker is gone.
    pub(crate) fn worker_lost(&mut self, key: usize, how: Close, why: &str, out: Out<'_>) {
        if let Some(link) = self.workers[key].link.take() {
            let id = self.workers[key].id;
            self.on_status_lost(link, id, out);
        }
        let worker = &mut self.workers[key];
        if worker.life == Life::Ready {
            worker.life = Life::Returning;
        }
        let (id, run, life, is_guest) = (worker.id, worker.run, worker.life, worker.is_guest);
        let is_busy = worker.current.is_some();
        let has_exited = worker.has_exited;
        self.settle(key);
        self.lose_requests(key, how, why, out);
        if is_guest {
            self.worker_fact(
                FactKind::WorkerEnded,
                key,
                &format!("(started by itself) {why}"),
                out,
            );
            self.forget_worker(key, out);
        } else if has_exited {
            self.ended(key, out);
        } else if life == Life::Asked {
            // Its socket was shut while it was busy; it is not any more.
            self.wait_for_end(key);
        } else if life == Life::Returning {
            let what = if is_busy { format!("{why} while it was busy") } else { why.to_owned() };
            let is_news = self.ending.is_none();
            let kind = if is_news { FactKind::WorkerDied } else { FactKind::WorkerEnded };
            self.worker_fact(kind, key, &what, out);
            let wait = self.settings.get(Setting::ReturnMs);
            self.due.add(self.now.plus_millis(wait), Due::Return(id, run));
        }
    }

    /// Removes a lazy worker from the configuration.
    pub(crate) fn forget_worker(&mut self, key: usize, out: Out<'_>) {
        let worker = &self.workers[key];
        let service = worker.service;
        if worker.life.has_process() && !worker.is_guest {
            self.exec_stop(key, self.settings.get(Setting::StopTermMs), out);
        }
        self.set_roomy(key, false);
        self.registry[service].workers -= 1;
        self.workers.remove(key);
    }

    /// Process and connection of a worker are gone: start it again, later, or not.
    pub(crate) fn ended(&mut self, key: usize, out: Out<'_>) {
        let worker = &self.workers[key];
        let mut how = worker.ending.map_or_else(|| "its process is gone".into(), how_it_ended);
        if let Some(line) = worker.tail.last() {
            how += "; last line of stderr: ";
            how += line;
        }
        self.ended_so(key, how, out);
    }

    pub(crate) fn ended_so(&mut self, key: usize, how: String, out: Out<'_>) {
        let worker = &mut self.workers[key];
        let ready = worker.was_ready.then_some(worker.ready_since);
        let ending = worker.ending;
        let was_stopping = std::mem::take(&mut worker.is_stopping) || self.is_farewell(ending);
        let worker = &mut self.workers[key];
        worker.life = Life::Down;
        worker.pid = 0;
        worker.has_exited = false;
        let is_wanted = worker.is_wanted;
        self.settle(key);
        if !is_wanted || was_stopping {
            self.worker_fact(FactKind::WorkerEnded, key, &format!("ended: {how}"), out);
            if is_wanted {
                self.launch(key, out);
            }
            return;
        }
        self.worker_fact(FactKind::WorkerDied, key, &format!("ended unexpectedly: {how}"), out);
        self.workers[key].is_to_restart = true;
        let verdict = self.workers[key].restart.ended(self.now, ready, &self.settings);
        let id = self.workers[key].id;
        match verdict {
            Verdict::GiveUp(why) => self.give_up(key, format!("{why} (last: {how})"), out),
            Verdict::Now => self.launch(key, out),
            Verdict::At(at) => {
                self.workers[key].life = Life::Pausing;
                self.due.add(at, Due::Restart(id));
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

    /// `Due::Restart`: the pause before a restart is over.
    pub(crate) fn on_restart_due(&mut self, id: WorkerId, out: Out<'_>) {
        if let Some(key) = self.workers.find(id)
            && self.workers[key].life == Life::Pausing
        {
            self.launch(key, out);
        }
    }

    /// `Due::Badge`: a started worker did not show its badge.
    pub(crate) fn on_badge_due(&mut self, id: WorkerId, run: RunId, out: Out<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        if matches!(self.workers[key].life, Life::Starting | Life::Up) {
            let what = format!(
                "did not show its badge within {} ms (badge_ms) and is killed",
                self.settings.get(Setting::BadgeMs)
            );
            self.worker_fact(FactKind::WorkerKilled, key, &what, out);
            self.exec_stop(key, 0, out);
        }
    }

    /// `Due::Return`: a worker whose connection broke neither ended nor came back, or the other way
    /// round.
    pub(crate) fn on_return_due(&mut self, id: WorkerId, run: RunId, out: Out<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        let worker = &self.workers[key];
        match worker.link {
            Some(link) if worker.has_exited => {
                self.close_link(link, out);
                self.worker_lost(key, Close::Reset, "ended", out);
            }
            None if worker.life == Life::Returning => {
                let what = "lost its connection and did not come back; its process is ended";
                self.worker_fact(FactKind::WorkerKilled, key, what, out);
                self.exec_stop(key, self.settings.get(Setting::StopTermMs), out);
            }
            Some(_) | None => {}
        }
    }

    /// `Due::Absent`: execd did not list the process and no report of its end came.
    pub(crate) fn on_absent_due(&mut self, id: WorkerId, run: RunId, out: Out<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        if self.workers[key].life.has_process() {
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
            self.on_exited(&exited, out);
        }
    }

    /// The link to a host is gone: what runs there goes on, what should start waits.
    pub(crate) fn host_gone(&mut self, name: &HostName, out: Out<'_>) {
        if self.ending.is_some() {
            self.on_host_ended(name, out);
        }
    }

    /// A host says which processes it has: known ones are taken over, others ended, missing ones
    /// started.
    pub(crate) fn host_listed(
        &mut self,
        name: &HostName,
        link: LinkId,
        children: &[Child],
        out: Out<'_>,
    ) {
        for child in children {
            let key =
                self.workers.find(child.worker).filter(|&key| self.workers[key].host == *name);
            let is_known = key.is_some_and(|key| self.take_over(key, child, out));
            if !is_known {
                let grace_ms = self.settings.get(Setting::StopTermMs);
                let stop = ExecStop { worker: child.worker, run: child.run, grace_ms };
                out.push(Action::Send { link, frame: Frame::ExecStop(stop) });
            }
        }
        for key in self.workers.keys() {
            let worker = &self.workers[key];
            if worker.host != *name || worker.is_guest {
                continue;
            }
            let (id, run) = (worker.id, worker.run);
            let is_listed = children.iter().any(|child| child.worker == id && child.run == run);
            if worker.life.has_process() && !is_listed {
                self.due.add(self.now.plus_millis(ABSENT_MS), Due::Absent(id, run));
            } else if worker.life == Life::Down {
                self.launch(key, out);
            }
        }
    }

    /// Whether a listed process is the worker's: then it is adopted, or its end asked for again.
    fn take_over(&mut self, key: usize, child: &Child, out: Out<'_>) -> bool {
        let worker = &mut self.workers[key];
        let is_ours = match worker.life {
            Life::Down | Life::Pausing => worker.is_wanted && worker.failed.is_none(),
            Life::Starting
            | Life::Up
            | Life::Ready
            | Life::Returning
            | Life::Asked
            | Life::Ending => worker.run == child.run,
        };
        if !is_ours {
            return false;
        }
        worker.pid = child.pid;
        worker.run = child.run;
        let (id, run) = (worker.id, child.run);
        match worker.life {
            Life::Down | Life::Pausing | Life::Starting | Life::Up => {
                worker.is_found |= matches!(worker.life, Life::Down | Life::Pausing);
                worker.life = Life::Up;
                worker.started = self.now;
                let mut wait = self.settings.get(Setting::BadgeMs);
                if worker.is_found {
                    // It may be in the middle of a request for the broker before us.
                    wait = wait.max(self.settings.get(Setting::ReconnectMs));
                }
                self.due.add(self.now.plus_millis(wait), Due::Badge(id, run));
            }
            Life::Ending => self.exec_stop(key, self.settings.get(Setting::StopTermMs), out),
            Life::Returning => {
                let wait = self.settings.get(Setting::ReturnMs);
                self.due.add(self.now.plus_millis(wait), Due::Return(id, run));
            }
            Life::Ready | Life::Asked => {}
        }
        // A run after a restart of the broker must be higher than those before it.
        self.next_run = self.next_run.max(run.0);
        true
    }

    pub(crate) fn on_output(&mut self, output: &ExecOutput, out: Out<'_>) {
        let Some(key) = self.workers.find(output.worker) else { return };
        let dropped = if output.dropped > 0 {
            format!(" ({} lines before it were dropped)", output.dropped)
        } else {
            String::new()
        };
        let what = format!("{}: {}{dropped}", output.stream, output.line);
        self.worker_fact(FactKind::WorkerOutput, key, &what, out);
    }

    /// `ready` of one worker: undoes a pause, and starts it if it ended in the meantime.
    pub(crate) fn ready_worker(&mut self, key: usize, out: Out<'_>) {
        self.workers[key].is_paused = false;
        self.settle(key);
        if self.workers[key].place == Place::Lazy {
            self.launch(key, out);
        }
        let service = self.workers[key].service;
        self.serve(service, out);
    }
}

fn how_it_ended(ending: Ending) -> String {
    match ending {
        Ending::Exit(status) => format!("exit status {status}"),
        Ending::Signal(signal) => format!("signal {signal}"),
        Ending::Unknown => "nobody saw how".into(),
    }
}
