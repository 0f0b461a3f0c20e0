//! The states of a worker's process: started, up, ready, lost, asked to end, ended, started again.
//! This file decides; execds run the processes. `dispatch` handles the requests of a worker that is
//! lost.

use super::machine::Supervision;
use super::process_state::{ProcessEvent, ProcessState};
use super::programs::success_exit;
use super::restart::Decision;
use super::run::{EndReport, ExpectedEnd};
use super::workers::{Worker, WorkerEnd};
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind, Values};
use crate::engine::had::Had;
use crate::engine::input::Close;
use crate::engine::keys::{HostKey, WorkerKey};
use crate::engine::quotas::Class;
use crate::engine::timers::Timer;
use protocol::bodies::{ExecExited, ExecOutput, Stream};
use protocol::{ExitCause, RunId, Setting, WorkerId};

/// Milliseconds that the connection of a worker may stay open after its process ended.
const TRAILING_MS: u64 = 1000;

impl Supervision {
    /// Whether a worker may be given requests.
    pub(crate) fn is_available(
        &self,
        key: WorkerKey,
        catalog: &Catalog,
        is_shutting_down: bool,
    ) -> bool {
        let worker = &self.workers[key];
        worker.state == ProcessState::Ready
            && !worker.is_paused
            && !catalog[worker.service].is_paused
            && !Self::must_end(worker)
            && !is_shutting_down
    }

    /// Whether a worker that is ready is to end: it is stopped, retires, or ends with its host.
    pub(crate) fn is_to_end(&self, key: WorkerKey) -> bool {
        Self::must_end(&self.workers[key])
    }

    /// The same of a worker that is at hand.
    #[inline]
    pub(crate) fn must_end(worker: &Worker) -> bool {
        !worker.is_wanted
            || matches!(worker.run.expected_end, ExpectedEnd::WithHost | ExpectedEnd::Retire)
    }

    /// Something changed that may decide whether a worker may be given requests.
    pub(crate) fn update_available(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let is_available = self.is_available(key, cx.catalog, cx.is_shutting_down);
        cx.effects.push(Effect::Available { worker: key, is_available });
        self.review(key, cx);
    }

    /// The ids in facts about a worker: its own, its service, its host.
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
        self.worker_fact_with(kind, key, (what, Values::default()), cx);
    }

    /// The same with durations and counts.
    fn worker_fact_with(
        &mut self,
        kind: FactKind,
        key: WorkerKey,
        (what, values): (&str, Values),
        cx: &mut Context<'_>,
    ) {
        let worker = &self.workers[key];
        let service = &cx.catalog[worker.service].name;
        let text = format!("worker {} of service '{service}' {what}", worker.id);
        let about = About { values, ..self.about_worker(key, cx.catalog) };
        cx.record(kind, about, text);
    }

    /// The worker with this id, if this is its present run.
    pub(crate) fn worker_of_run(&self, id: WorkerId, run: RunId) -> Option<WorkerKey> {
        self.workers.find(id).filter(|&key| self.workers[key].run.id == run)
    }

    /// Handles the report that a process ended.
    pub(crate) fn on_exited(&mut self, key: WorkerKey, exited: &ExecExited, cx: &mut Context<'_>) {
        if self.workers[key].state.has_process() {
            self.workers[key].run.end_report = EndReport::Exited;
            self.exited(key, exited, cx);
        }
    }

    fn exited(&mut self, key: WorkerKey, exited: &ExecExited, cx: &mut Context<'_>) {
        self.note_report(key, exited);
        let worker = &mut self.workers[key];
        worker.exit_cause = Some(exited.exit_cause);
        if !exited.tail.is_empty() {
            // The host has all of the last lines; some that it passed on may have been dropped.
            worker.tail.clear();
            exited.tail.iter().for_each(|line| worker.keep_line(line));
        }
        worker.run.pid = 0;
        if worker.is_linked() {
            // What it sent before its end is still to be read; the end of the connection follows.
            let (id, run) = (worker.id, worker.run.id);
            if worker.state == ProcessState::Ready {
                worker.enter(ProcessEvent::Lose, cx.now);
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
        let is_unreachable = how == Close::TimedOut || !self.is_reached(&self.workers[key].host);
        let worker = &mut self.workers[key];
        let service = worker.service;
        // What a process of an earlier start did says nothing about the present one.
        let is_of_run = worker.has_connection_of_run();
        worker.connection = None;
        worker.run.has_served |= is_of_run && had.has_answered;
        worker.run.was_busy |= is_of_run && had.is_busy;
        if worker.state == ProcessState::Ready {
            worker.enter(ProcessEvent::Lose, cx.now);
        }
        worker.run.is_unreachable |= is_unreachable && worker.state == ProcessState::Returning;
        cx.effects.push(Effect::Turned { worker: key });
        let (id, run) = (worker.id, worker.run.id);
        if worker.is_self_started {
            let is_announced =
                worker.run.expected_end == ExpectedEnd::Announced && worker.run.killed.is_none();
            let is_in_order = is_announced || worker.run.expected_end == ExpectedEnd::Stop;
            worker.last_end = WorkerEnd::of(is_in_order);
            if cx.may_cause(Class::SelfStarted, None) {
                let how = if is_announced { "ended as it had announced" } else { why };
                let what = format!("(started by itself) {how}");
                self.worker_fact(FactKind::WorkerEnded, key, &what, cx);
            }
            self.forget_worker(key, cx);
        } else if worker.run.has_exited() {
            self.ended(key, cx);
        } else if worker.state == ProcessState::Exiting {
            // Its socket was shut while it was busy, and it is not busy any more.
            self.wait_for_end(key, cx);
        } else if worker.state == ProcessState::Returning {
            let what =
                if had.is_busy { format!("{why} while it was busy") } else { why.to_owned() };
            self.note_loss(key, what, cx);
            let wait = self.return_wait_ms(key, had.work_ms, cx);
            self.wait_for(key, wait, Timer::Return(id, run), cx);
        }
        self.repeat_outlook(service, cx);
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
    pub(crate) fn remove_worker(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = self.workers.remove(key);
        self.forget_outlook(&worker, cx);
    }

    /// The process of a worker has ended and its connection is gone: decides by the cause whether,
    /// and when, it is started again.
    pub(crate) fn ended(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let exit_cause = self.workers[key].exit_cause;
        let how = self.how_it_ended(key);
        if self.is_ended_with_host(key) {
            self.ended_with_host(key, &how, cx);
        } else if self.workers[key].run.is_unreachable
            && !matches!(exit_cause, Some(ExitCause::Signal(_)))
        {
            self.ended_unreachable(key, &how, cx);
        } else {
            self.ended_so(key, how, cx);
        }
        cx.effects.push(Effect::Ended { worker: key });
    }

    /// Handles the end of a worker that could not be reached, perhaps because it found no broker:
    /// it is started again, and the end counts neither for its backoff nor as a failure.
    fn ended_unreachable(&mut self, key: WorkerKey, how: &str, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        worker.gone(cx.now);
        worker.last_end = WorkerEnd::Failed;
        worker.why = format!("unreachable: {how}");
        worker.restart.ended_unreachable(worker.is_wanted);
        self.update_available(key, cx);
        self.worker_fact(FactKind::WorkerEnded, key, &format!("ended, unreachable: {how}"), cx);
        self.launch(key, cx);
    }

    pub(crate) fn ended_so(&mut self, key: WorkerKey, how: String, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        let ready = worker.run.ready;
        let ran = cx.now.since(worker.run.started);
        let worked = Some(ran);
        let values = Values { worked, ..Values::default() };
        let was_stopping = worker.run.expected_end == ExpectedEnd::Stop
            || cx.is_shutting_down && is_exit_of_shutdown(worker.exit_cause);
        worker.gone(cx.now);
        let is_killed = worker.run.killed.is_some();
        let order = worker.run.order_of_end(worker.exit_cause, success_exit(worker, cx.catalog));
        let (has_served, is_loss) = (worker.run.has_served, worker.run.lost_a_request());
        let is_orderly = order.is_some() && has_served && !self.ends_too_fast(key, ran, cx);
        // That a request is lost is told as a death, and the start is as after an end in order:
        // many programs end so after a number of requests, and don't see that one is on its way.
        let order = order.filter(|_| !is_loss);
        let worker = &mut self.workers[key];
        worker.why.clone_from(&how);
        let is_wanted = worker.is_wanted;
        worker.last_end = WorkerEnd::of(!is_wanted || was_stopping || order.is_some());
        self.update_available(key, cx);
        if !is_wanted || was_stopping {
            let what = format!("ended: {how}");
            self.worker_fact_with(FactKind::WorkerEnded, key, (&what, values), cx);
            if is_wanted {
                self.launch(key, cx);
            }
            return;
        }
        let death = if order.is_none() { self.number_death(key, cx) } else { None };
        if let Some(order) = order {
            self.worker_fact(FactKind::WorkerEnded, key, &format!("ended {order}: {how}"), cx);
        } else if !is_killed {
            // When it was killed, that and the reason were recorded.
            let what = format!("ended unexpectedly: {how}{}", self.death_words(key, death));
            let values = Values { death, ..values };
            self.worker_fact_with(FactKind::WorkerDied, key, (&what, values), cx);
        }
        let restart = &mut self.workers[key].restart;
        let decision = if is_orderly {
            restart.ended_in_order()
        } else {
            restart.ended(cx.now, ready, cx.settings)
        };
        self.tell_death(key, (death, ran), (&how, &decision), cx);
        let id = self.workers[key].id;
        match decision {
            Decision::GiveUp(why) => {
                let cure = self.cure_of(key, cx);
                self.give_up(key, format!("{why} (last: {how})"), &cure, cx);
            }
            Decision::Now => self.launch(key, cx),
            // It is started when that is undrained, and nothing is planned until then.
            Decision::At(_) if self.is_drained(&self.workers[key].host) => {}
            Decision::At(at) => {
                self.workers[key].enter(ProcessEvent::Wait, cx.now);
                cx.timers.add(at, Timer::Restart(id, self.workers[key].run.id));
                let delay = at.since(cx.now);
                let what = format!("is started again in {} ms", delay.as_millis());
                let values = Values { delay: Some(delay), ..Values::default() };
                self.worker_fact_with(FactKind::WorkerRestart, key, (&what, values), cx);
            }
        }
    }

    /// `Timer::Restart`: the backoff is over, so the worker is started again.
    pub(crate) fn on_restart_due(&mut self, id: WorkerId, run: RunId, cx: &mut Context<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        if self.workers[key].state == ProcessState::Backoff {
            self.launch(key, cx);
        } else {
            self.try_again(key, cx);
        }
    }

    /// `Timer::WorkerLogin`: a worker that was started has not logged in, and is killed.
    pub(crate) fn on_worker_login_due(&mut self, id: WorkerId, run: RunId, cx: &mut Context<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        let worker = &self.workers[key];
        if !matches!(worker.state, ProcessState::Starting | ProcessState::Up)
            || cx.now < worker.run.wait_until
        {
            return;
        }
        let Some(missing) = self.is_missing(worker, cx.catalog) else { return };
        let ends_with_host = worker.run.expected_end == ExpectedEnd::WithHost;
        if self.is_reached(&worker.host) && !ends_with_host {
            let within =
                format!("within {} ms (worker_login_ms)", cx.settings.get(Setting::WorkerLoginMs));
            let what = format!("{missing} {within} and is killed");
            self.worker_fact(FactKind::WorkerKilled, key, &what, cx);
            self.note_killed(key, &format!("{missing} {within}"));
            self.exec_stop(key, 0, cx);
        } else {
            // It can't be killed now, nor can it reach the broker: its host will report what became
            // of it.
            self.look_later(key, Timer::WorkerLogin(id, run), cx);
        }
    }

    /// `Timer::Return`: ends the process of a worker that lost its connection and did not come
    /// back, or the connection of one whose process has ended.
    pub(crate) fn on_return_due(&mut self, id: WorkerId, run: RunId, cx: &mut Context<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        let worker = &self.workers[key];
        if cx.now < worker.run.wait_until {
            // It came back, and was lost again after that.
            return;
        }
        let ends_with_host = worker.run.expected_end == ExpectedEnd::WithHost;
        match worker.is_linked() {
            true if worker.run.has_exited() => {
                let (how, why) = (Close::Reset, "ended".to_owned());
                cx.effects.push(Effect::Disconnect { worker: key, how, why });
            }
            false
                if worker.state == ProcessState::Returning
                    && (ends_with_host || !self.is_reached(&worker.host)) =>
            {
                // The broker can't have it ended, or its host ends it anyway, and no other is
                // started in its place: its host will report what became of it.
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

    /// `Timer::Unlisted`: an execd did not list the process and did not report its end, so the
    /// process is taken for ended, for a cause that is not known.
    pub(crate) fn on_unlisted_due(&mut self, id: WorkerId, run: RunId, cx: &mut Context<'_>) {
        let Some(key) = self.worker_of_run(id, run) else { return };
        let worker = &mut self.workers[key];
        if worker.run.end_report == EndReport::Unlisted {
            worker.run.end_report = EndReport::Missing;
            let (worker, tail) = (id, Vec::new());
            let exited = ExecExited {
                worker,
                run,
                pid: 0,
                exit_cause: ExitCause::Unknown,
                cpu_ms: 0,
                rss_kib_max: 0,
                core: false,
                oom: false,
                tail,
            };
            self.exited(key, &exited, cx);
        }
    }

    /// The link to a host is gone: processes there go on, and starts wait. The end of a worker that
    /// was not ready is no crash then.
    pub(crate) fn host_gone(&mut self, host: HostKey, cx: &mut Context<'_>) {
        let here: Vec<WorkerKey> =
            self.workers.on_host(&self.hosts[host].name).map(|(key, _)| key).collect();
        let is_unfit = self.hosts[host].unfit.is_some();
        for key in here {
            let worker = &mut self.workers[key];
            worker.run.is_unreachable |= matches!(
                worker.state,
                ProcessState::Starting | ProcessState::Up | ProcessState::Returning
            );
            if is_unfit {
                self.review(key, cx);
            }
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
}

/// A signal that asks a process to end.
const SIGINT: i32 = 2;
/// A signal that asks a process to end.
const SIGTERM: i32 = 15;

/// Whether a worker that ended this way during the shutdown did what it was asked to do.
/// Whoever stops the broker may have sent TERM to its workers as well.
const fn is_exit_of_shutdown(exit_cause: Option<ExitCause>) -> bool {
    matches!(exit_cause, None | Some(ExitCause::Exit(0) | ExitCause::Signal(SIGTERM | SIGINT)))
}
