//! Logins of workers: with the secret of their start, as workers that started themselves, or again
//! after the broker was away. Whether a secret is genuine was checked before
//! (`Input::WorkerLogin`).

use super::access::PendingLogin;
use super::action::Action;
use super::fact::FactKind;
use super::input::{Close, Start};
use super::keys::WorkerKey;
use super::links::End;
use super::quotas::Class;
use super::workers::{ProcessState, Worker, WorkerSpec};
use super::{Engine, Out};
use protocol::bodies::{ErrorBody, WorkerLogin, WorkerLoginOk};
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::ids::{LinkId, RunId};
use protocol::settings::{ServiceSetting, Setting};

/// How a worker came in.
#[derive(Debug)]
enum LoginOrigin {
    /// With the secret of this run.
    Issued(RunId),
    /// By itself; with the signature that answers the proof of its token, if it proved one.
    SelfStarted(Option<String>),
}

impl Engine {
    /// Handles the login of a worker, by its secret, its token, or neither.
    pub(crate) fn on_worker_login(
        &mut self,
        link: LinkId,
        login: WorkerLogin,
        proof: Option<Start>,
        out: Out<'_>,
    ) {
        if !self.is_new(link, &End::NewWorker, out) {
            return;
        }
        match (proof, login.token.clone()) {
            (Some(start), _) => match self.worker_of_login(&login, start) {
                Ok(key) => {
                    self.admit_worker(key, link, &login, LoginOrigin::Issued(start.run), out)
                }
                Err(text) => {
                    self.refuse_link(link, ErrorBody::new(ErrorCode::BadWorkerLogin, text), out);
                }
            },
            // It has a secret, so it did not start itself and may not come in that way.
            (None, _) if !login.secret.is_empty() => {
                let text = format!(
                    "the secret is none that this broker gives to worker {}; this process was \
                     started by another broker, or before the state directory changed, and is to \
                     end",
                    login.worker
                );
                self.refuse_link(link, ErrorBody::new(ErrorCode::BadWorkerLogin, text), out);
            }
            (None, Some(claim)) => self.challenge(link, claim, PendingLogin::worker(login), out),
            (None, None) => self.admit_self_started(link, &login, None, out),
        }
    }

    /// Admits a worker that started itself, if it may serve the service; otherwise refuses it.
    /// `signature` answers the proof of its token, if it proved one.
    pub(crate) fn admit_self_started(
        &mut self,
        link: LinkId,
        login: &WorkerLogin,
        signature: Option<String>,
        out: Out<'_>,
    ) {
        let Some(slot) = self.links.get(link) else { return };
        let checked = self
            .may_serve(&slot.peer, &login.service)
            .and_then(|()| self.check_self_started(login));
        match checked {
            Ok(key) => {
                self.admit_worker(key, link, login, LoginOrigin::SelfStarted(signature), out)
            }
            Err(error) => self.refuse_link(link, error, out),
        }
    }

    /// Adds a worker that started itself, if its service allows that (`selfstart`).
    fn check_self_started(&mut self, login: &WorkerLogin) -> Result<WorkerKey, ErrorBody> {
        let Some(service) = self.registry.find(login.service.as_str()) else {
            let text = self.unknown_service(login.service.as_str());
            return Err(ErrorBody::new(ErrorCode::UnknownService, text));
        };
        if login.service.is_op() {
            let text = "service 'op' is the broker's own and takes no workers";
            return Err(ErrorBody::new(ErrorCode::BadWorkerLogin, text));
        }
        let is_open = self.registry[service].settings.get(ServiceSetting::SelfStart) == 1;
        if !is_open {
            let text = format!(
                "this worker showed no secret, and service '{0}' takes no workers that start themselves ('config service {0} selfstart=1' allows it)",
                login.service
            );
            return Err(ErrorBody::new(ErrorCode::BadWorkerLogin, text));
        }
        let spec = WorkerSpec {
            service,
            host: login.host.clone(),
            path: String::new(),
            args: Vec::new(),
            is_self_started: true,
            since: self.now,
        };
        let added = self.workers.add(spec, None);
        let key = added.map_err(|text| ErrorBody::new(ErrorCode::BadWorkerLogin, text))?;
        self.registry[service].workers += 1;
        // Its coming counts as its `start`.
        self.workers[key].is_wanted = true;
        Ok(key)
    }

    /// Makes a worker ready: notes its connection, sends the reply to its login, records it, and
    /// gives it a request if one waits.
    fn admit_worker(
        &mut self,
        key: WorkerKey,
        link: LinkId,
        login: &WorkerLogin,
        entry: LoginOrigin,
        out: Out<'_>,
    ) {
        if let Some(old) = self.workers[key].link {
            // It came back before the loss of its old connection was noticed. Whatever its host
            // reports, it has not ended, and no other is to be started.
            self.workers[key].has_exited = false;
            self.close_link(old, out);
            self.worker_lost(key, Close::Reset, "came back on a new connection", out);
        }
        if let Some(slot) = self.links.get_mut(link) {
            slot.end = End::Worker(key);
        }
        let (now, silence_ms) = (self.now, self.silence_ms());
        let reconnect_ms = self.settings.get(Setting::ReconnectMs);
        self.links.announce(link, self.limits_to_announce());
        let worker = &mut self.workers[key];
        let is_adopted = matches!(
            worker.state,
            ProcessState::Down | ProcessState::Backoff | ProcessState::Returning
        ) || worker.was_ready
            || worker.is_of_earlier_broker;
        worker.link = Some(link);
        worker.announced = Some((reconnect_ms, silence_ms));
        worker.enter(ProcessState::Ready, now);
        worker.why.clear();
        (worker.lost, worker.login_refused) = (None, None);
        (worker.was_ready, worker.has_exited) = (true, false);
        (worker.is_unlisted, worker.is_unreachable) = (false, false);
        (worker.is_stopping, worker.is_closed_with_error) = (false, false);
        worker.ready_since = now;
        (worker.pid, worker.login_pid) = (login.hostpid, login.hostpid);
        let signature = match entry {
            LoginOrigin::Issued(run) => {
                worker.run = run;
                None
            }
            LoginOrigin::SelfStarted(signature) => signature,
        };
        let ok = WorkerLoginOk {
            worker: worker.id,
            body_bytes_max: self.settings.get(Setting::BodyBytesMax),
            heartbeat_ms: self.settings.get(Setting::HeartbeatMs),
            silence_ms,
            reconnect_ms,
            signature,
        };
        out.push(Action::Send { link, frame: Frame::WorkerLoginOk(ok) });
        let Worker { id, is_self_started, .. } = *worker;
        let service = worker.service;
        let name = &self.registry[service].name;
        let (kind, what) = match (is_self_started, is_adopted) {
            (true, _) => (FactKind::WorkerReady, "started itself and is ready"),
            (false, true) => (FactKind::WorkerAdopted, "was running already and is ready again"),
            (false, false) => (FactKind::WorkerReady, "is ready"),
        };
        let text = format!("worker {id} of service '{name}' {what}, pid {}", login.hostpid);
        // Workers that start themselves may come and go as often as they like.
        if !is_self_started || self.may_cause(Class::SelfStarted, Some(link)) {
            let about = self.about_worker(key);
            self.record(kind, about, text, out);
        }
        self.settle(key);
        self.serve(service, out);
    }
}
