//! Clients log in and go: what that means for sessions and for requests.

use super::context::context;
use super::demand;
use super::hub::Engine;
use super::keys::ClientKey;
use super::sessions::connection::End;
use crate::engine::operator::script_workers::{ConnectionScript, ScriptWorkers};
use crate::engine::operator::why;
use crate::engine::sessions::pending::{LoginBody, PendingLogin};
use protocol::{ErrorBody, ErrorCode, LinkId, Login};

impl Engine {
    /// A client logs in: at once, or after it has proved the token that it names.
    pub(crate) fn on_login(&mut self, link: LinkId, login: Login) {
        if !self.sessions.is_new(link, End::NewClient, context!(self)) {
            return;
        }
        match login.token.clone() {
            Some(claim) => {
                let pending = PendingLogin::client(login);
                self.sessions.challenge(link, claim, pending, context!(self));
            }
            None => self.admit_client(link, login, None),
        }
    }

    /// A proof was checked: the login that waits for it is let in, or refused.
    pub(crate) fn on_proven(&mut self, link: LinkId, proven: Result<String, String>) {
        match self.sessions.on_proven(link, proven, context!(self)) {
            Some((LoginBody::Client(login), signature)) => {
                self.admit_client(link, login, Some(signature));
            }
            Some((LoginBody::Worker(login), signature)) => {
                self.admit_self_started(link, &login, Some(signature));
            }
            None => {}
        }
    }

    /// Lets a client in, or refuses it. `signature` answers the proof of its token.
    pub(crate) fn admit_client(&mut self, link: LinkId, login: Login, signature: Option<String>) {
        let workers = login.script.then(ScriptWorkers::default);
        let admitted = self.sessions.admit_client(link, login, signature, context!(self));
        if let Some(it) = admitted {
            let place = (it.service, it.priority);
            self.dispatch.attach(
                it.client,
                (it.id, link),
                place,
                (it.requests_max, it.has_heartbeat),
            );
            demand::on_login(self, it.service);
            if workers.is_some() {
                self.scripts.insert(it.id, ConnectionScript { workers, ..Default::default() });
            }
        }
    }

    /// Removes a client whose link is gone: its waiting requests are removed, those with a worker
    /// go on without it.
    pub(crate) fn client_gone(&mut self, key: ClientKey, why: &str) {
        let service = self.dispatch.caller(key).service;
        let client = self.sessions.client(key).id;
        self.scripts.remove(&client);
        self.works.forget(client);
        self.dispatch.detach(key, context!(self));
        why::name_traces(self);
        self.sessions.client_gone(key, (service, why), context!(self));
    }

    /// Carries out `delete client`: closes its connection with an error.
    pub(crate) fn delete_client(&mut self, key: ClientKey) {
        let text = "the operator deleted this client";
        self.send_away(key, &ErrorBody::new(ErrorCode::ClientDeleted, text));
    }

    /// Closes the connection of a peer with this error, with which a client's requests end, too.
    pub(crate) fn send_link_away(&mut self, link: LinkId, error: ErrorBody) {
        match self.sessions.end(link) {
            Some(End::Client(key)) => self.send_away(key, &error),
            Some(_) => self.refuse_link(link, error),
            None => {}
        }
    }

    /// Closes a client's connection with this error. Each request under way gets the error as its
    /// outcome first, with `ran` set for it alone: the error about the connection can't say that
    /// for each of them.
    pub(crate) fn send_away(&mut self, key: ClientKey, error: &ErrorBody) {
        let link = self.sessions.client(key).link;
        self.dispatch.fail_all(key, error, context!(self));
        self.refuse_link(link, error.clone());
    }
}
