//! A worker logs in: with the secret of its start, by itself, or again after it lost its
//! connection.

use super::machine::Supervision;
use super::process_state::{ProcessEvent, ProcessState};
use super::run::{EndReport, Reconnect, Run, RunOrigin};
use super::workers::{WorkerConnection, WorkerSpec};
use crate::engine::context::Context;
use crate::engine::fact::FactKind;
use crate::engine::keys::WorkerKey;
use crate::engine::quotas::Class;
use protocol::{ErrorBody, ErrorCode, LinkId, RunId, ServiceSetting, WorkerLogin};

/// A login that was let in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Where it came from.
    pub(crate) link: LinkId,
    /// Its connection comes from another machine.
    pub(crate) is_remote: bool,
    /// The start that its secret proves; `None` = it started itself.
    pub(crate) run: Option<RunId>,
    /// The process that logs in, as it says.
    pub(crate) pid: u32,
    /// `reconnect_ms` and `silence_ms` as they are announced to it.
    pub(crate) announced: (u64, u64),
}

impl Supervision {
    /// A login without a secret: may this worker start itself? It is configured then.
    ///
    /// # Errors
    /// There is no such service, or it takes no workers that start themselves.
    pub(crate) fn add_self_started(
        &mut self,
        login: &WorkerLogin,
        cx: &mut Context<'_>,
    ) -> Result<WorkerKey, ErrorBody> {
        let Some(service) = cx.catalog.find(login.service.as_str()) else {
            let text = cx.catalog.unknown(login.service.as_str());
            return Err(ErrorBody::new(ErrorCode::UnknownService, text));
        };
        if login.service.is_op() {
            let text = "service 'op' is the broker's own and takes no workers";
            return Err(ErrorBody::new(ErrorCode::BadWorkerLogin, text));
        }
        if cx.catalog[service].is_program() {
            let text = cx.catalog[service].program_text();
            return Err(ErrorBody::new(ErrorCode::BadWorkerLogin, text));
        }
        if cx.catalog[service].settings.get(ServiceSetting::SelfStart) != 1 {
            let text = format!(
                "this worker showed no secret, and service '{0}' takes no workers that start themselves ('config service {0} selfstart=1' allows it)",
                login.service
            );
            return Err(ErrorBody::new(ErrorCode::BadWorkerLogin, text));
        }
        self.has_room(service, cx.catalog)
            .map_err(|text| ErrorBody::new(ErrorCode::BadWorkerLogin, text))?;
        let spec = WorkerSpec {
            service,
            host: login.host.clone(),
            path: String::new(),
            args: Vec::new(),
            own: Box::default(),
            is_self_started: true,
            since: cx.now,
        };
        let added = self.workers.add(spec, None);
        let key = added.map_err(|text| ErrorBody::new(ErrorCode::BadWorkerLogin, text))?;
        // Its coming counts as its `start`.
        self.workers[key].is_wanted = true;
        Ok(key)
    }

    /// A worker comes back before the loss of its old connection was noticed: whatever its host
    /// thinks, it has not ended, and no other is to be started.
    pub(crate) fn came_back(&mut self, key: WorkerKey) {
        self.workers[key].run.end_report = EndReport::None;
    }

    /// A worker logged in.
    pub(crate) fn logged_in(&mut self, key: WorkerKey, entry: Entry, cx: &mut Context<'_>) {
        let worker = &mut self.workers[key];
        let is_adopted = matches!(
            worker.state,
            ProcessState::Down | ProcessState::Backoff | ProcessState::Returning
        ) || worker.run.ready.is_some()
            || worker.run.origin == RunOrigin::Adopted;
        if !worker.state.has_process() {
            let id = entry.run.unwrap_or_default();
            worker.run = Run::new(id, worker.run.origin, cx.now);
        }
        let (is_remote, pid, run) = (entry.is_remote, entry.pid, worker.run.id);
        worker.connection = Some(WorkerConnection { is_remote, pid, run });
        worker.enter(ProcessEvent::LogIn, cx.now);
        worker.why.clear();
        worker.run.logged_in(entry.pid, entry.announced, cx.now);
        let (kind, what) = match (worker.is_self_started, is_adopted) {
            (true, _) => (FactKind::WorkerReady, "started itself and is ready"),
            (false, true) => (FactKind::WorkerAdopted, "was running already and is ready again"),
            (false, false) => (FactKind::WorkerReady, "is ready"),
        };
        // Workers that start themselves may come and go as often as they like.
        if !worker.is_self_started || cx.may_cause(Class::SelfStarted, Some(entry.link)) {
            self.worker_fact(kind, key, &format!("{what}, pid {}", entry.pid), cx);
        }
        self.update_available(key, cx);
        self.retire_late(key, cx);
        self.runs_already(key, cx);
    }

    /// The connection of a worker is closed because it sent what it may not.
    pub(crate) fn refused(&mut self, key: WorkerKey) {
        self.workers[key].run.reconnect = Reconnect::Refused;
    }
}
