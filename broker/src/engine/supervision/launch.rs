//! Starts workers: the operator's `start`, `pause` and `ready` of one worker, and what execd is
//! asked for. `process` has what follows.

use super::machine::Supervision;
use super::process_state::{ProcessEvent, ProcessState};
use super::run::{EndReport, Run, RunOrigin};
use super::workers::Worker;
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::FactKind;
use crate::engine::keys::WorkerKey;
use crate::engine::operator_act::OperatorAct;
use protocol::bodies::ExecStarted;
use protocol::limits::BUILTIN_ROLE;
use protocol::{ExecStart, HostName, RunId, ServiceSetting, Setting};

impl Supervision {
    /// Carries out `start` of one worker: it is wanted from now on, and its earlier ends are
    /// forgotten.
    pub(crate) fn start_worker(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        if !worker.is_wanted {
            // One that was to end is not stopping any more.
            cx.effects.push(Effect::Turned { worker: key });
        }
        worker.is_wanted = true;
        worker.failed = None;
        if worker.state == ProcessState::Down || worker.state == ProcessState::Ready {
            worker.why.clear();
        }
        worker.restart.reset();
        match worker.state {
            ProcessState::Down | ProcessState::Backoff => self.launch(key, cx),
            // It is ending because it was stopped, and is started again when it has ended.
            ProcessState::Exiting | ProcessState::Terminating => {}
            ProcessState::Starting
            | ProcessState::Up
            | ProcessState::Ready
            | ProcessState::Returning => self.update_available(key, cx),
        }
        self.review(key, cx);
    }

    /// The saved configuration has it started: an earlier broker may have done so.
    pub(crate) fn await_earlier(&mut self, key: WorkerKey) {
        let worker = &mut self.workers[key];
        if worker.state == ProcessState::Down {
            worker.run.origin = RunOrigin::Awaited;
        }
    }

    /// `pause` of one worker.
    pub(crate) fn pause_worker(&mut self, key: WorkerKey, said: &OperatorAct) {
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

    /// Starts the process of a worker that has none, if the worker may run and its host is up.
    /// Otherwise nothing happens: when that changes, this is called again.
    pub(crate) fn launch(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &self.workers[key];
        let service = &cx.catalog[worker.service];
        let may_run = worker.is_wanted
            && !worker.is_paused
            && !worker.is_self_started
            && !service.is_paused
            && !self.is_down_until_asked(worker.service)
            && worker.failed.is_none()
            && !self.is_on_drained(worker)
            && !worker.state.has_process()
            && !cx.is_shutting_down;
        let link = self.start_link(&worker.host).filter(|_| may_run);
        let (Some(link), id) = (link, worker.id) else {
            if worker.state == ProcessState::Backoff {
                self.workers[key].enter(ProcessEvent::Unplan, cx.now);
            }
            return;
        };
        if self.is_too_early(key, cx) {
            return;
        }
        let Some(next) = self.next_run.checked_add(1) else {
            if self.workers[key].state == ProcessState::Backoff {
                self.workers[key].enter(ProcessEvent::Unplan, cx.now);
            }
            self.give_up(key, "there are no numbers for starts any more".into(), "", cx);
            return;
        };
        self.next_run = next;
        let run = RunId(next);
        let digest = self.digest(key, cx.catalog);
        let (worker, service) = (&self.workers[key], &cx.catalog[self.workers[key].service]);
        let process = service.of_workers.process.with(&worker.own.process);
        let is_program = service.is_program();
        let args = self.arguments(worker, process.user.is_some(), cx);
        let start = ExecStart {
            worker: id,
            run,
            service: service.name.clone(),
            path: worker.path.clone(),
            args,
            secret: String::new(),
            digest,
            process: (!process.is_empty()).then(|| Box::new(process)),
            memory_max: service.settings.get(ServiceSetting::RecycleMemory),
            output_bytes: service.settings.get(ServiceSetting::OutputBytes),
            output_files: service.settings.get(ServiceSetting::OutputFiles) as u32,
        };
        let what = format!("is started: {} (run {run})", worker.path);
        let worker = &mut self.workers[key];
        worker.run = Run::new(run, RunOrigin::Own, cx.now);
        worker.enter(ProcessEvent::Start, cx.now);
        cx.effects.push(Effect::Turned { worker: key });
        worker.restarts += u64::from(worker.restart.started());
        cx.out.push(Action::Start { link, start: Box::new(start), has_secret: !is_program });
        self.wait_for_login(key, cx.settings.get(Setting::WorkerLoginMs), cx);
        self.worker_fact(FactKind::WorkerStart, key, &what, cx);
    }

    /// The arguments of a worker's program, from `argv[1]` on. A program that is no worker gets its
    /// own alone. A built-in service is a role of this program, and is told where clients log in,
    /// besides.
    fn arguments(&self, worker: &Worker, is_other_user: bool, cx: &Context<'_>) -> Vec<String> {
        let service = &cx.catalog[worker.service];
        let (host, port) = self.worker_address(&worker.host, is_other_user, cx);
        let (name, id) = (service.name.to_string(), worker.id.to_string());
        let mut args = Vec::new();
        if worker.id.is_builtin() {
            let client = cx.listening.builtin.client.clone();
            args.extend([BUILTIN_ROLE.to_owned(), name, host, port, id, client]);
        } else if !service.is_program() {
            args.extend([host, port, id, name]);
        }
        args.extend(worker.args.iter().cloned());
        args
    }

    /// Where a worker on this host finds the broker: `argv[1]` and `argv[2]`. The socket is the
    /// broker's own user's; one of another user can't open it. Another group opens it as well.
    fn worker_address(
        &self,
        host: &HostName,
        is_other_user: bool,
        cx: &Context<'_>,
    ) -> (String, String) {
        let is_builtin = self.hosts.named(host).is_some_and(|host| host.is_builtin);
        match &cx.listening.worker_unix {
            Some(unix) if is_builtin && !is_other_user => (unix.clone(), "0".into()),
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
        if worker.run.end_report == EndReport::Unlisted {
            worker.run.end_report = EndReport::None;
        }
        worker.run.pid = started.pid;
        match worker.state {
            ProcessState::Starting => {
                worker.enter(ProcessEvent::Run, cx.now);
                let what = format!("is up, pid {}", started.pid);
                self.worker_fact(FactKind::WorkerUp, key, &what, cx);
                self.program_is_up(key, cx);
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

    /// Carries out `ready` of one worker: it is no longer paused, and is started if it ended
    /// meanwhile.
    pub(crate) fn ready_worker(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.workers[key].is_paused) {
            self.workers[key].since = cx.now;
            self.workers[key].why.clear();
        }
        self.update_available(key, cx);
        self.launch(key, cx);
    }
}
