//! The attached clients (the manual's priority list): login, logout, blocking, priority, moving to
//! another service. Their requests are in `transaction`.

use super::access::PendingLogin;
use super::action::Action;
use super::context::context;
use super::fact::{About, FactKind};
use super::heartbeat::silence_ms;
use super::hub::{Engine, Out};
use super::input::Peer;
use super::keys::{ClientKey, ServiceKey, Table};
use super::links::End;
use super::operator_act::OperatorAct;
use super::quotas::Class;
use protocol::bodies::{ErrorBody, Format, Login, LoginOk};
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::ids::{ClientId, LinkId};
use protocol::names::ServiceName;
use protocol::settings::{ServiceSetting, Setting};
use protocol::time::Tick;
use std::collections::BTreeMap;

/// An attached client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Counted up from 0 at each login.
    pub(crate) id: ClientId,
    /// The new link.
    pub(crate) link: LinkId,
    /// Host name that it gave at its login; not checked.
    pub(crate) loghost: String,
    /// Process id that it gave at its login; not checked.
    pub(crate) hostpid: u32,
    /// Process id that it gave at its login; not checked.
    pub(crate) name: Option<String>,
    /// Form in which the answers of `op` are sent to it.
    pub(crate) format: Format,
    /// It promised at its login to answer pings.
    pub(crate) heartbeat: bool,
    /// The peer as the kernel reports it, and its token.
    pub(crate) peer: Peer,
    /// The last `block`: its tick and its origin.
    pub(crate) block_act: Option<Box<OperatorAct>>,
    /// When it logged in.
    pub(crate) since: Tick,
}

/// All attached clients, `op`'s included.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    table: Table<ClientKey, Client>,
    ids: BTreeMap<ClientId, ClientKey>,
    /// The id of the next client (`isdData.NextClientID`).
    pub(crate) next_id: u32,
    /// How many of them promised to answer pings.
    pub(crate) heartbeats: usize,
}

impl Clients {
    /// The client with this id, if it is attached.
    pub(crate) fn find(&self, id: ClientId) -> Option<ClientKey> {
        self.ids.get(&id).copied()
    }

    /// Number of attached clients (`isdData.PriList`).
    pub(crate) fn count(&self) -> usize {
        self.table.len()
    }

    /// All attached clients in the order of their ids.
    pub(crate) fn by_id(&self) -> impl Iterator<Item = (ClientKey, &Client)> {
        self.ids.values().map(|&key| (key, &self.table[key]))
    }

    /// Gives back the memory of the free slots at the end.
    pub(crate) fn shrink(&mut self) {
        self.table.shrink_to_fit();
    }

    /// The client with this key, which may be gone.
    pub(crate) fn get(&self, key: ClientKey) -> Option<&Client> {
        self.table.get(key)
    }
}

impl std::ops::Index<ClientKey> for Clients {
    type Output = Client;
    fn index(&self, key: ClientKey) -> &Client {
        &self.table[key]
    }
}

impl std::ops::IndexMut<ClientKey> for Clients {
    fn index_mut(&mut self, key: ClientKey) -> &mut Client {
        &mut self.table[key]
    }
}

impl Engine {
    pub(crate) fn on_login(&mut self, link: LinkId, login: Login, out: Out<'_>) {
        if !self.is_new(link, &End::NewClient, out) {
            return;
        }
        match login.token.clone() {
            Some(claim) => self.challenge(link, claim, PendingLogin::client(login), out),
            None => self.admit_client(link, login, None, out),
        }
    }

    /// Attaches a client if it may use the service that it names; otherwise refuses it. `signature`
    /// answers the proof of its token, if it proved one.
    pub(crate) fn admit_client(
        &mut self,
        link: LinkId,
        login: Login,
        signature: Option<String>,
        out: Out<'_>,
    ) {
        let Some(slot) = self.links.get(link) else { return };
        let peer = slot.peer.clone();
        let service = match self.may_log_in(&peer, &login) {
            Ok(service) => service,
            Err(error) => {
                self.refuse_link(link, error, out);
                return;
            }
        };
        let id = ClientId(self.clients.next_id);
        self.clients.next_id = self.clients.next_id.wrapping_add(1);
        let requests_max = self.settings.get(Setting::RequestsMax);
        let client = Client {
            id,
            link,
            loghost: login.loghost,
            hostpid: login.hostpid,
            name: login.name,
            format: login.format,
            heartbeat: login.heartbeat,
            peer,
            block_act: None,
            since: self.now,
        };
        let text = introduction(&client, login.priority, &login.service);
        self.clients.heartbeats += usize::from(client.heartbeat);
        let key = self.clients.table.insert(client);
        self.clients.ids.insert(id, key);
        self.dispatch.attach(key, (id, link), (service, login.priority), requests_max);
        if let Some(slot) = self.links.get_mut(link) {
            slot.end = End::Client(key);
        }
        self.links.announce(link, self.limits_to_announce());
        let deadline_ms = self.catalog[service].settings.get(ServiceSetting::DeadlineMs);
        let ok = LoginOk {
            client: id,
            body_bytes_max: self.settings.get(Setting::BodyBytesMax),
            requests_max,
            deadline_ms,
            heartbeat_ms: self.settings.get(Setting::HeartbeatMs),
            silence_ms: silence_ms(&self.settings),
            version: self.listening.version.clone(),
            signature,
        };
        out.push(Action::Send { link, frame: Frame::LoginOk(ok) });
        let is_op = service == self.catalog.op();
        if is_op || self.may_cause(Class::Unlogged, Some(link)) {
            let about =
                About { client: Some(id), service: Some(login.service), ..About::default() };
            self.record(FactKind::ClientIn, about, text, out);
        }
    }

    /// The service that a login names.
    ///
    /// # Errors
    /// The peer may not use it, it does not exist, or `reject` is on.
    fn may_log_in(&self, peer: &Peer, login: &Login) -> Result<ServiceKey, ErrorBody> {
        // Rights first: a peer without them is not told which services exist.
        self.may_ask(peer, &login.service)?;
        let name = login.service.as_str();
        let Some(service) = self.catalog.find(name) else {
            return Err(ErrorBody::new(ErrorCode::UnknownService, self.catalog.unknown(name)));
        };
        let is_op = login.service.is_op();
        if self.is_rejecting && !is_op {
            let text = "the operator lets no new clients in for now ('reject off' ends it)";
            return Err(ErrorBody::new(ErrorCode::Rejecting, text));
        }
        Ok(service)
    }

    /// Removes a client whose link is gone: its waiting requests are removed, those with a worker
    /// go on without it.
    pub(crate) fn client_gone(&mut self, key: ClientKey, why: &str, out: Out<'_>) {
        let service = self.dispatch.caller(key).service;
        self.dispatch.detach(key, context!(self, out));
        let client = self.clients.table.remove(key);
        self.clients.ids.remove(&client.id);
        self.clients.heartbeats -= usize::from(client.heartbeat);
        self.facts.unwatch(client.id);
        let is_op = service == self.catalog.op();
        if !is_op && !self.may_cause(Class::Unlogged, None) {
            return;
        }
        let service = &self.catalog[service];
        let about = About {
            client: Some(client.id),
            service: Some(service.name.clone()),
            ..About::default()
        };
        let text = format!("client {} ({}): {why}", client.id, client.loghost);
        self.record(FactKind::ClientOut, about, text, out);
    }

    /// Carries out `delete client`: closes its connection with an error.
    pub(crate) fn delete_client(&mut self, key: ClientKey, out: Out<'_>) {
        let text = "the operator deleted this client";
        self.send_away(key, &ErrorBody::new(ErrorCode::ClientDeleted, text), out);
    }

    /// Closes a client's connection with this error. Each request under way gets the error as its
    /// outcome first, with `ran` set for it alone: the error about the connection can't say that
    /// for each of them.
    pub(crate) fn send_away(&mut self, key: ClientKey, error: &ErrorBody, out: Out<'_>) {
        let link = self.clients[key].link;
        self.dispatch.fail_all(key, error, context!(self, out));
        self.refuse_link(link, error.clone(), out);
    }
}

/// The text of the fact about a new client.
fn introduction(client: &Client, priority: u8, service: &ServiceName) -> String {
    let Client { id, hostpid, loghost, .. } = client;
    let mut text = format!(
        "client: priority={priority}, hostpid={hostpid}, id={id}, loghost={loghost}, \
         service={service}"
    );
    if let Some(token) = &client.peer.token {
        text += &format!(", token={token}");
    }
    text
}

/// A peer as errors and facts name it: address, user id, token.
pub(crate) fn from(peer: &Peer) -> String {
    let mut text = peer.address.clone();
    if let Some(uid) = peer.uid {
        text += &format!(" uid {uid}");
    }
    if let Some(token) = &peer.token {
        text += &format!(" token {token}");
    }
    text
}
