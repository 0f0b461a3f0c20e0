//! Logins of workers: with the secret of their start, as workers that started themselves, or again
//! after the broker was away. Whether a secret is genuine was checked before
//! (`Input::WorkerLogin`).

use super::action::Action;
use super::context::context;
use super::deaths;
use super::dispatch::seat::Announced;
use super::hub::Engine;
use super::input::Start;
use super::keys::WorkerKey;
use super::sessions::connection::End;
use super::sessions::pending::PendingLogin;
use super::silence_limits::silence_ms;
use super::supervision::logins::Entry;
use protocol::bodies::WorkerLoginOk;
use protocol::{ErrorBody, ErrorCode, Frame, LinkId, RunId, Setting, WorkerLogin};

impl Engine {
    pub(crate) fn on_worker_login(
        &mut self,
        link: LinkId,
        login: WorkerLogin,
        proof: Option<Start>,
    ) {
        if !self.sessions.is_new(link, End::NewWorker, context!(self)) {
            return;
        }
        match (proof, login.token.clone()) {
            (Some(start), _) => {
                match self.supervision.worker_of_login(&login, start, &self.catalog) {
                    Ok(key) => self.admit_worker(key, link, &login, (Some(start.run), None)),
                    Err(text) => {
                        self.refuse_link(link, ErrorBody::new(ErrorCode::BadWorkerLogin, text));
                    }
                }
            }
            // It has a secret, so it did not start itself and may not come in that way.
            (None, _) if !login.secret.is_empty() => {
                let text = format!(
                    "the secret is none that this broker gives to worker {}; this process was \
                     started by another broker, or before the state directory changed, and is to \
                     end",
                    login.worker
                );
                self.refuse_link(link, ErrorBody::new(ErrorCode::BadWorkerLogin, text));
            }
            (None, Some(claim)) => {
                let pending = PendingLogin::worker(login);
                self.sessions.challenge(link, claim, pending, context!(self));
            }
            (None, None) => self.admit_self_started(link, &login, None),
        }
    }

    /// Admits a worker that started itself, if it may serve the service; otherwise refuses it.
    /// `signature` answers the proof of its token, if it proved one.
    pub(crate) fn admit_self_started(
        &mut self,
        link: LinkId,
        login: &WorkerLogin,
        signature: Option<String>,
    ) {
        let Some(slot) = self.sessions.connection(link) else { return };
        let added = self
            .sessions
            .access()
            .may_serve(&slot.peer, &login.service)
            .and_then(|()| self.supervision.add_self_started(login, context!(self)));
        match added {
            Ok(key) => {
                let worker = self.supervision.worker(key);
                self.dispatch.add_worker(key, worker.id, worker.service);
                self.admit_worker(key, link, login, (None, signature));
            }
            Err(error) => self.refuse_link(link, error),
        }
    }

    /// Lets a worker in: `run` is the start that its secret proves, `signature` answers its proof.
    fn admit_worker(
        &mut self,
        key: WorkerKey,
        link: LinkId,
        login: &WorkerLogin,
        (run, signature): (Option<RunId>, Option<String>),
    ) {
        if self.dispatch.seat(key).link.is_some() {
            self.supervision.came_back(key);
            self.replace_link(key);
        }
        let Some(connection) = self.sessions.connection(link) else { return };
        let is_remote = connection.peer.is_remote;
        self.sessions.log_in(link, End::Worker(key), context!(self));
        let announced = Announced { concurrency: login.concurrency, hears_cancel: login.cancel };
        let concurrency = self.dispatch.open(key, link, announced, &self.catalog);
        let silence_ms = silence_ms(&self.settings);
        let reconnect_ms = self.settings.get(Setting::ReconnectMs);
        let ok = WorkerLoginOk {
            worker: self.dispatch.seat(key).id,
            body_bytes_max: self.settings.get(Setting::BodyBytesMax),
            heartbeat_ms: self.settings.get(Setting::HeartbeatMs),
            silence_ms,
            reconnect_ms,
            concurrency,
            signature,
        };
        self.out.push(Action::Send { link, frame: Frame::WorkerLoginOk(ok) });
        let announced = (reconnect_ms, silence_ms);
        let entry = Entry { link, is_remote, run, pid: login.hostpid, announced };
        deaths::settled(self, key);
        self.supervision.logged_in(key, entry, context!(self));
        let host = self.supervision.worker(key).host.clone();
        self.dispatch.name_process(key, login.hostpid, host);
    }
}
