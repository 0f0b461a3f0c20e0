//! Starts: what identifies one start of a worker, which reports, listed processes and logins are
//! valid for it, and what is done about a host's list: processes of valid starts are adopted,
//! others ended, missing ones started. A start is one run of one worker with one configuration; a
//! process of another start is never taken for the worker's (docs/decisions/0020). `process` asks
//! for starts.

use super::machine::Supervision;
use super::process_state::{ProcessEvent, ProcessState};
use super::run::{EndReport, ExpectedEnd, Run, RunOrigin};
use super::service_outlook::Outlook;
use crate::engine::action::Action;
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind};
use crate::engine::input::{Report, Start};
use crate::engine::keys::{HostKey, WorkerKey};
use crate::engine::quotas::Class;
use crate::engine::supervision::host_state::HostState;
use crate::engine::timers::Timer;
use protocol::bodies::{Child, ExecStop};
use protocol::{ErrorBody, ErrorCode, Frame, LinkId, RunId, Setting, WorkerId, WorkerLogin};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Milliseconds that a report of an end may take, after a list without this process.
const UNLISTED_MS: u64 = 300;
/// Most workers that are started with a list of their host; the others follow in later steps.
const LAUNCHED_AT_ONCE: usize = 96;
/// The number of invalid reports at which a connection is closed.
const REJECTED_REPORTS_MAX: u64 = 100;

/// The name of a report on the wire, and the start that it names, if any.
const fn about_start(report: &Report) -> (&'static str, Option<(WorkerId, RunId)>) {
    match report {
        Report::Welcome(..) => ("exec-welcome", None),
        Report::Listed(_) => ("exec-listed", None),
        Report::Started(body) => ("exec-started", Some((body.worker, body.run))),
        Report::Failed(body) => ("exec-failed", Some((body.worker, body.run))),
        Report::Exited(body) => ("exec-exited", Some((body.worker, body.run))),
        Report::Output(body) => ("exec-output", Some((body.worker, body.run))),
        Report::Memory(body) => ("exec-memory", Some((body.worker, body.run))),
        Report::Lines(_) => ("exec-lines", None),
    }
}

impl Supervision {
    /// The worker that a report is about, if the report is valid: the host is up (so that its token
    /// is proved, where one is required), the worker is configured on it, did not start itself, and
    /// has this run.
    pub(crate) fn worker_of_report(
        &mut self,
        link: LinkId,
        host: HostKey,
        report: &Report,
        cx: &mut Context<'_>,
    ) -> Option<WorkerKey> {
        let (what, start) = about_start(report);
        let state = self.hosts[host].state;
        let Some((id, run)) = start.filter(|_| state == HostState::Up(link)) else {
            // An execd may pass on output before it has listed its processes.
            let is_early = state == HostState::Listing(link) && matches!(report, Report::Output(_));
            if !is_early {
                let why = format!("{what}, which can't come now");
                self.reject_report(link, host, &why, cx);
            }
            return None;
        };
        // Reports about a deleted worker or an earlier run may still be on their way; they are no
        // fault of the host.
        let key = self.workers.find(id)?;
        let worker = &self.workers[key];
        if worker.is_self_started || worker.host != self.hosts[host].name {
            let why = format!("{what} of worker {id}, which does not run there");
            self.reject_report(link, host, &why, cx);
            return None;
        }
        (worker.run.id == run && run.0 > 0).then_some(key)
    }

    /// Counts an invalid report. The first one of a connection is recorded; after too many, the
    /// connection is closed.
    pub(crate) fn reject_report(
        &mut self,
        link: LinkId,
        host: HostKey,
        what: &str,
        cx: &mut Context<'_>,
    ) {
        let host = &mut self.hosts[host];
        let rejected = host.connection.rejected_reports.saturating_add(1);
        host.connection.rejected_reports = rejected;
        if rejected == 1 {
            let name = host.name.clone();
            if !cx.may_cause(Class::Host, Some(link)) {
                return;
            }
            let about = About { host: Some(name.clone()), ..About::default() };
            let text = format!(
                "host {name} sent {what}; it is ignored (more of this on the same connection is \
                 counted, not recorded)"
            );
            cx.record(FactKind::HostError, about, text);
        } else if rejected >= REJECTED_REPORTS_MAX {
            let why = format!("sent {REJECTED_REPORTS_MAX} reports that were not valid");
            cx.effects.push(Effect::DropLink { link, why });
        }
    }

    /// Digest of a worker's configuration: FNV-1a over service, host, path and arguments. A start
    /// with another digest is not of this configuration. It is never 0, which stands for "not
    /// known". Settings of the process are not part of it, so that a change of those ends none.
    pub(super) fn digest(&self, key: WorkerKey, catalog: &Catalog) -> u32 {
        let worker = &self.workers[key];
        let service = catalog[worker.service].name.as_str();
        let words = [service, worker.host.as_str(), worker.path.as_str()];
        let words = words.into_iter().chain(worker.args.iter().map(String::as_str));
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for word in words {
            for byte in word.bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        ((hash >> 32) as u32 ^ hash as u32).max(1)
    }

    /// Whether a start that an earlier broker gave may be this worker's: the saved configuration
    /// has it started, its host has not listed its processes yet, the configuration is the same,
    /// and the run is one of an earlier broker. A digest of 0 is not known and passes; a login
    /// always proves its digest.
    fn may_be_earlier(&self, key: WorkerKey, run: RunId, digest: u32, catalog: &Catalog) -> bool {
        let worker = &self.workers[key];
        worker.run.origin == RunOrigin::Awaited
            && worker.is_wanted
            && worker.failed.is_none()
            && (1..=self.run_base).contains(&run.0)
            && (digest == 0 || digest == self.digest(key, catalog))
    }

    /// The worker of a login whose secret is genuine, if its start may log in now.
    ///
    /// # Errors
    /// The text for the process says why it may not, and that it is to end.
    pub(crate) fn worker_of_login(
        &self,
        login: &WorkerLogin,
        start: Start,
        catalog: &Catalog,
    ) -> Result<WorkerKey, String> {
        const ADVICE: &str = "this process is to end; the broker starts another when one is due";
        let (id, run) = (login.worker, start.run);
        let Some(key) = self.workers.find(id).filter(|&key| !self.workers[key].is_self_started)
        else {
            return Err(format!("worker {id} is not configured any more; {ADVICE}"));
        };
        let worker = &self.workers[key];
        if catalog[worker.service].is_program() {
            return Err(format!("{}; {ADVICE}", catalog[worker.service].program_text()));
        }
        let service = &catalog[worker.service].name;
        if *service != login.service {
            return Err(format!(
                "worker {id} is of service '{service}', not of '{}'; {ADVICE}",
                login.service
            ));
        }
        if start.digest != self.digest(key, catalog) {
            return Err(format!(
                "run {run} was started for another configuration of worker {id} (service, host, \
                 path, arguments); {ADVICE}"
            ));
        }
        let is_expected = match worker.state {
            ProcessState::Starting
            | ProcessState::Up
            | ProcessState::Returning
            | ProcessState::Ready => {
                worker.run.id == run && worker.run.end_report != EndReport::Exited
            }
            ProcessState::Down | ProcessState::Backoff => {
                self.may_be_earlier(key, run, start.digest, catalog)
            }
            ProcessState::Exiting | ProcessState::Terminating => false,
        };
        if !is_expected {
            let word = worker.state.word();
            return Err(format!(
                "run {run} of worker {id} may not log in now: the worker is {word}; {ADVICE}"
            ));
        }
        if let Some(connection) = worker.connection
            && connection.pid != login.hostpid
        {
            return Err(format!(
                "run {run} of worker {id} is logged in as process {}, and this is process {}; \
                 {ADVICE}",
                connection.pid, login.hostpid
            ));
        }
        Ok(key)
    }

    /// Whether this start of a worker is its present one, and its process has not ended.
    pub(crate) fn is_present_run(&self, id: WorkerId, run: RunId) -> bool {
        self.workers.find(id).is_some_and(|key| {
            let worker = &self.workers[key];
            !worker.is_self_started
                && worker.state.has_process()
                && worker.run.id == run
                && !worker.run.has_exited()
        })
    }

    /// The worker whose start a client shows the secret of, if that start runs.
    ///
    /// # Errors
    /// The text for the client says why it does not.
    pub(crate) fn worker_of_secret(
        &self,
        id: WorkerId,
        start: Start,
        catalog: &Catalog,
    ) -> Result<WorkerKey, String> {
        let run = start.run;
        let Some(key) = self.workers.find(id).filter(|&key| !self.workers[key].is_self_started)
        else {
            return Err(format!("worker {id} is not configured any more"));
        };
        if start.digest != self.digest(key, catalog) {
            return Err(format!("run {run} was started for another configuration of worker {id}"));
        }
        if !self.is_present_run(id, run) {
            let word = self.workers[key].state.word();
            return Err(format!(
                "run {run} of worker {id} is not its present start, or its process has ended (the \
                 worker is {word}); the secret of the present start is in ISECT_WORKER_SECRET of \
                 its process"
            ));
        }
        Ok(key)
    }

    /// Why a host is a duplicate: it lists a process that another host was asked to start, so both
    /// are names of one execd. Ending that process would end the other host's worker.
    pub(super) fn duplicate_host(
        &self,
        host: HostKey,
        children: &[Child],
        catalog: &Catalog,
    ) -> Option<String> {
        let is_others = |child: &&Child| {
            self.workers.find(child.worker).is_some_and(|key| {
                let worker = &self.workers[key];
                worker.host != self.hosts[host].name
                    && !worker.is_self_started
                    && worker.state.has_process()
                    && worker.run.id == child.run
                    && child.digest == self.digest(key, catalog)
            })
        };
        let child = children.iter().find(is_others)?;
        let other = &self.workers[self.workers.find(child.worker)?].host;
        Some(format!(
            "it has the process of worker {}, which host {other} started: both are names of one \
             execd; remove one of them ('delete host')",
            child.worker
        ))
    }

    /// Compares the processes that a host listed with its workers: known ones are adopted, unknown
    /// ones ended, missing ones started.
    pub(crate) fn host_listed(
        &mut self,
        host: HostKey,
        link: LinkId,
        children: &[Child],
        cx: &mut Context<'_>,
    ) {
        let earlier = self.confirm_logins(host, children, cx);
        for child in children {
            let key = self.workers.find(child.worker).filter(|&key| {
                let worker = &self.workers[key];
                worker.host == self.hosts[host].name && !worker.is_self_started
            });
            let is_earlier = earlier.get(&child.worker) == Some(&child.run);
            let is_known = key.is_some_and(|key| self.take_over(key, child, is_earlier, cx));
            if !is_known {
                let grace_ms = cx.settings.get(Setting::StopTermMs);
                let stop = ExecStop { worker: child.worker, run: child.run, grace_ms };
                cx.out.push(Action::Send { link, frame: Frame::ExecStop(stop) });
            }
        }
        let listed: BTreeSet<(WorkerId, RunId)> =
            children.iter().map(|child| (child.worker, child.run)).collect();
        let (mut at_once, mut down) = (LAUNCHED_AT_ONCE, VecDeque::new());
        for key in self.workers.keys_on(&self.hosts[host].name) {
            let worker = &mut self.workers[key];
            if worker.run.origin == RunOrigin::Awaited {
                worker.run.origin = RunOrigin::Own;
            }
            if matches!(worker.outlook, Outlook::NoHost | Outlook::Drained) {
                self.review(key, cx);
            }
            let worker = &mut self.workers[key];
            let (id, run) = (worker.id, worker.run.id);
            if worker.state.has_process() {
                worker.run.listed(listed.contains(&(id, run)));
            }
            if worker.run.end_report == EndReport::Unlisted {
                cx.timers.add(cx.now.plus_millis(UNLISTED_MS), Timer::Unlisted(id, run));
            } else if worker.state == ProcessState::Down {
                if at_once > 0 {
                    at_once -= 1;
                    self.launch(key, cx);
                } else {
                    down.push_back(id);
                }
            }
        }
        if !down.is_empty() {
            cx.effects.push(Effect::Launch { workers: down });
        }
    }

    /// Whether a listed process is this worker's. If so, it is adopted, or asked to end once more.
    /// `is_earlier`: an earlier broker started it, and the worker waits for it.
    fn take_over(
        &mut self,
        key: WorkerKey,
        child: &Child,
        is_earlier: bool,
        cx: &mut Context<'_>,
    ) -> bool {
        let worker = &mut self.workers[key];
        let is_ours = match worker.state {
            ProcessState::Down | ProcessState::Backoff => is_earlier,
            ProcessState::Starting
            | ProcessState::Up
            | ProcessState::Ready
            | ProcessState::Returning
            | ProcessState::Exiting
            | ProcessState::Terminating => worker.run.id == child.run,
        };
        if !is_ours {
            return false;
        }
        let outlived = worker.run.expected_end == ExpectedEnd::WithHost;
        if outlived {
            let is_asked = worker.state == ProcessState::Exiting;
            worker.run.expected_end = if is_asked { ExpectedEnd::Stop } else { ExpectedEnd::No };
        }
        if !worker.state.has_process() {
            worker.run = Run::new(child.run, RunOrigin::Adopted, cx.now);
        } else if worker.run.origin == RunOrigin::Awaited {
            worker.run.origin = RunOrigin::Adopted;
        }
        worker.run.pid = child.pid;
        let (id, run) = (worker.id, child.run);
        match worker.state {
            ProcessState::Down
            | ProcessState::Backoff
            | ProcessState::Starting
            | ProcessState::Up => {
                worker.enter(ProcessEvent::Run, cx.now);
                cx.effects.push(Effect::Turned { worker: key });
                worker.run.started = cx.now;
                let mut wait = cx.settings.get(Setting::WorkerLoginMs);
                if worker.run.origin == RunOrigin::Adopted {
                    // It may be in the middle of a request of the broker before this one.
                    let reconnect = cx.settings.get(Setting::ReconnectMs);
                    wait = wait.max(reconnect).max(self.return_wait_ms(key, 0, cx));
                }
                self.wait_for_login(key, wait, cx);
                self.program_is_listed(key, cx);
                self.runs_already(key, cx);
            }
            ProcessState::Terminating => {
                self.exec_stop(key, cx.settings.get(Setting::StopTermMs), cx)
            }
            ProcessState::Returning => {
                let wait = self.return_wait_ms(key, 0, cx);
                self.wait_for(key, wait, Timer::Return(id, run), cx);
            }
            ProcessState::Ready | ProcessState::Exiting => {}
        }
        if outlived {
            // The execd that was ending it is gone, and the process runs on.
            self.update_available(key, cx);
        }
        true
    }

    /// Ends workers that logged in with a start of an earlier broker, if the list of their host
    /// does not have it. Returns the highest listed run of each worker that waits for its process.
    fn confirm_logins(
        &mut self,
        host: HostKey,
        children: &[Child],
        cx: &mut Context<'_>,
    ) -> BTreeMap<WorkerId, RunId> {
        let name = self.hosts[host].name.clone();
        let mut newest: BTreeMap<WorkerId, RunId> = BTreeMap::new();
        for child in children {
            let Some(key) = self.workers.find(child.worker) else { continue };
            if self.workers[key].host == name
                && self.may_be_earlier(key, child.run, child.digest, cx.catalog)
            {
                let run = newest.entry(child.worker).or_default();
                *run = (*run).max(child.run);
            }
        }
        let here: Vec<WorkerKey> = self.workers.on_host(&name).map(|(key, _)| key).collect();
        for key in here {
            let worker = &self.workers[key];
            let is_unconfirmed = worker.is_linked() && worker.run.origin == RunOrigin::Awaited;
            let (id, run) = (worker.id, worker.run.id);
            if !is_unconfirmed || newest.get(&id) == Some(&run) {
                continue;
            }
            let text = format!(
                "run {run} of worker {id} is none of the processes that host {name} has; this \
                 process is to end"
            );
            self.forget_start(key, cx);
            let error = ErrorBody::new(ErrorCode::BadWorkerLogin, text);
            cx.effects.push(Effect::RefuseWorker { worker: key, error });
        }
        newest
    }

    /// A worker was logged in with a start that is not valid: it has no process, as before that
    /// login.
    fn forget_start(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        worker.gone(cx.now);
        worker.run = Run::new(RunId(0), RunOrigin::Own, cx.now);
        self.update_available(key, cx);
    }
}
