//! The attached clients (the manual's priority list): login, logout, blocking, priority, moving to
//! another service. Not their requests: `transaction` has those.

use super::access::PendingLogin;
use super::fact::{About, FactKind};
use super::in_flight::InFlight;
use super::input::Peer;
use super::keys::{ClientKey, ServiceKey, Table, TransactionKey};
use super::links::End;
use super::quotas::Class;
use super::states::OperatorAct;
use super::transaction::Stage;
use super::{Engine, Out};
use protocol::bodies::{ErrorBody, Format, Login, LoginOk};
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{ClientId, LinkId};
use protocol::names::ServiceName;
use protocol::settings::{ServiceSetting, Setting};
use protocol::time::Tick;
use std::collections::{BTreeMap, BTreeSet};

/// What a client that watches wants to see.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The sequence of its `watch`.
    pub(crate) sequence: u32,
    /// Names of fact kinds; empty = all.
    pub(crate) kinds: Vec<FactKind>,
    /// Facts it did not get because it reads too slowly.
    pub(crate) skipped: u64,
}

/// An attached client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its number.
    pub(crate) id: ClientId,
    /// Its link.
    pub(crate) link: LinkId,
    /// Key of its service.
    pub(crate) service: ServiceKey,
    /// Its priority.
    pub(crate) priority: u8,
    /// What it said of itself.
    pub(crate) loghost: String,
    /// See `loghost`.
    pub(crate) hostpid: u32,
    /// See `loghost`.
    pub(crate) name: Option<String>,
    /// How `op` answers it.
    pub(crate) format: Format,
    /// It promised to answer pings.
    pub(crate) heartbeat: bool,
    /// Who it is, as the kernel says.
    pub(crate) peer: Peer,
    /// Its requests wait until it is unblocked.
    pub(crate) is_blocked: bool,
    /// Who blocked it, and when.
    pub(crate) block_act: Option<Box<OperatorAct>>,
    /// How many requests it may have under way, as announced at its login.
    pub(crate) requests_max: u64,
    /// Keys of its transactions that have no outcome yet, by sequence.
    pub(crate) in_flight: InFlight,
    /// Requests that ended before their last piece came, and when: further pieces are discarded up
    /// to the one with `more` = 0, and until then the sequence can't be used for anything else.
    pub(crate) discarded: BTreeMap<u32, Tick>,
    /// When it logged in.
    pub(crate) since: Tick,
    /// Requests accepted from it.
    pub(crate) requests: u64,
    /// Of those, answered by a worker.
    pub(crate) answered: u64,
    /// Of those, ended with an error.
    pub(crate) failed: u64,
    /// It streams facts.
    pub(crate) watch: Option<Watch>,
}

/// With so many requests whose further pieces are discarded a client begins no further one in
/// pieces: to forget one of them would mean to take its rest for a request.
const DISCARDED_MAX: usize = 1024;

impl Client {
    /// Further pieces of this request are discarded.
    pub(crate) fn discard_rest(&mut self, sequence: u32, now: Tick) {
        self.discarded.insert(sequence, now);
    }

    /// Whether a frame belongs to a request that ended before its last piece came. One that names a
    /// worker is of a conversation, if there is one.
    pub(crate) fn is_rest(&self, head: &Header) -> bool {
        !self.discarded.is_empty()
            && self.discarded.contains_key(&head.sequence)
            && (head.workerid == 0 || self.in_flight.get(head.sequence).is_none())
    }

    /// Whether it has as many requests whose further pieces are discarded as it may.
    pub(crate) fn discards_too_many(&self) -> bool {
        self.discarded.len() >= DISCARDED_MAX
    }
}

/// All attached clients.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    table: Table<ClientKey, Client>,
    ids: BTreeMap<ClientId, ClientKey>,
    /// The next id to give (`isdData.NextClientID`).
    pub(crate) next_id: u32,
    /// How many promised to answer pings.
    pub(crate) heartbeats: usize,
}

impl Clients {
    /// The key of an id.
    pub(crate) fn find(&self, id: ClientId) -> Option<ClientKey> {
        self.ids.get(&id).copied()
    }

    /// How many are attached (`isdData.PriList`).
    pub(crate) fn count(&self) -> usize {
        self.table.len()
    }

    /// All of them, by id.
    pub(crate) fn by_id(&self) -> impl Iterator<Item = (ClientKey, &Client)> {
        self.ids.values().map(|&key| (key, &self.table[key]))
    }

    /// Gives up room behind the last client.
    pub(crate) fn shrink(&mut self) {
        self.table.shrink_to_fit();
    }

    /// A client that may be gone.
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

    /// A client that is who it says it is: may it come in? `signature` answers its proof.
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
            service,
            priority: login.priority,
            loghost: login.loghost,
            hostpid: login.hostpid,
            name: login.name,
            format: login.format,
            heartbeat: login.heartbeat,
            peer,
            is_blocked: false,
            block_act: None,
            requests_max,
            in_flight: InFlight::default(),
            discarded: BTreeMap::new(),
            since: self.now,
            requests: 0,
            answered: 0,
            failed: 0,
            watch: None,
        };
        let text = introduction(&client, &login.service);
        self.clients.heartbeats += usize::from(client.heartbeat);
        let key = self.clients.table.insert(client);
        self.clients.ids.insert(id, key);
        self.registry[service].clients += 1;
        if let Some(slot) = self.links.get_mut(link) {
            slot.end = End::Client(key);
        }
        self.links.announce(link, self.limits_to_announce());
        let deadline_ms = self.registry[service].settings.get(ServiceSetting::DeadlineMs);
        let ok = LoginOk {
            client: id,
            body_bytes_max: self.settings.get(Setting::BodyBytesMax),
            requests_max,
            deadline_ms,
            heartbeat_ms: self.settings.get(Setting::HeartbeatMs),
            silence_ms: self.silence_ms(),
            version: self.listening.version.clone(),
            signature,
        };
        out.push(Action::Send { link, frame: Frame::LoginOk(ok) });
        let is_op = service == self.op_service;
        if is_op || self.may_cause(Class::Unlogged, Some(link)) {
            let about =
                About { client: Some(id), service: Some(login.service), ..About::default() };
            self.record(FactKind::ClientIn, about, text, out);
        }
    }

    /// The key of the service that a client may log in to, or why it may not.
    fn may_log_in(&self, peer: &Peer, login: &Login) -> Result<ServiceKey, ErrorBody> {
        // First of all: what services there are is nobody's business who may not ask them.
        self.may_ask(peer, &login.service)?;
        let name = login.service.as_str();
        let Some(service) = self.registry.find(name) else {
            return Err(ErrorBody::new(ErrorCode::UnknownService, self.unknown_service(name)));
        };
        let is_op = login.service.is_op();
        if self.is_rejecting && !is_op {
            let text = "the operator lets no new clients in for now ('reject off' ends it)";
            return Err(ErrorBody::new(ErrorCode::Rejecting, text));
        }
        Ok(service)
    }

    /// Text of the error for a name that no service has.
    pub(crate) fn unknown_service(&self, name: &str) -> String {
        let near = protocol::op::parse::nearest(name, self.registry.names());
        let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
        format!("service '{name}' is unknown; 'services' lists the names{hint}")
    }

    /// A client is gone: what waits is removed, what runs goes on without it.
    pub(crate) fn client_gone(&mut self, key: ClientKey, why: &str, out: Out<'_>) {
        let keys: Vec<TransactionKey> = self.clients[key].in_flight.keys().collect();
        for transaction in keys {
            self.client_left(transaction, out);
        }
        let client = self.clients.table.remove(key);
        self.clients.ids.remove(&client.id);
        self.clients.heartbeats -= usize::from(client.heartbeat);
        self.watchers -= usize::from(client.watch.is_some());
        let service = &mut self.registry[client.service];
        service.clients -= 1;
        let is_op = client.service == self.op_service;
        if !is_op && !self.may_cause(Class::Unlogged, None) {
            return;
        }
        let service = &self.registry[client.service];
        let about = About {
            client: Some(client.id),
            service: Some(service.name.clone()),
            ..About::default()
        };
        let text = format!("client {} ({}): {why}", client.id, client.loghost);
        self.record(FactKind::ClientOut, about, text, out);
    }

    /// `block`, `unblock`: its waiting requests leave the queue or come back to their places.
    pub(crate) fn set_blocked(&mut self, key: ClientKey, blocked: bool, out: Out<'_>) {
        if self.clients[key].is_blocked == blocked {
            return;
        }
        self.clients[key].is_blocked = blocked;
        let keys: Vec<TransactionKey> = self.clients[key].in_flight.keys().collect();
        let mut services = BTreeSet::new();
        for transaction in keys {
            let service = self.transactions[transaction].service;
            match (self.transactions[transaction].stage, blocked) {
                (Stage::Waiting, true) => {
                    self.registry[service].queue.remove(transaction, &mut self.transactions);
                    self.transactions[transaction].stage = Stage::Blocked;
                }
                (Stage::Blocked, false) => {
                    self.transactions[transaction].stage = Stage::Waiting;
                    self.registry[service].queue.add(transaction, &mut self.transactions);
                    services.insert(service);
                }
                (Stage::Waiting | Stage::Blocked | Stage::Held(_) | Stage::Bound(_), _) => {}
            }
        }
        for service in services {
            self.serve(service, out);
        }
    }

    /// `pri`: also for its waiting requests, but for those with a priority of their own.
    pub(crate) fn set_priority(&mut self, key: ClientKey, priority: u8) {
        self.clients[key].priority = priority;
        let keys: Vec<TransactionKey> = self.clients[key].in_flight.keys().collect();
        for transaction in keys {
            let Self { transactions, registry, .. } = self;
            if transactions[transaction].head.priority != 0 {
                continue;
            }
            let is_waiting = transactions[transaction].stage == Stage::Waiting;
            let service = transactions[transaction].service;
            if is_waiting {
                registry[service].queue.remove(transaction, transactions);
            }
            transactions[transaction].priority = priority;
            if is_waiting {
                registry[service].queue.add(transaction, transactions);
            }
        }
    }

    /// `service`: later requests go there, and those that wait; one that a worker has stays with
    /// it.
    pub(crate) fn move_client(&mut self, key: ClientKey, service: ServiceKey, out: Out<'_>) {
        let old = std::mem::replace(&mut self.clients[key].service, service);
        self.registry[old].clients -= 1;
        self.registry[service].clients += 1;
        let mut waiting: Vec<TransactionKey> = self.clients[key].in_flight.keys().collect();
        waiting.retain(|&transaction| {
            matches!(self.transactions[transaction].stage, Stage::Waiting | Stage::Blocked)
        });
        for transaction in waiting {
            if self.registry[service].is_stopped {
                let name = &self.registry[service].name;
                let text = format!("its client was moved to service '{name}', which is stopped");
                let error = ErrorBody::new(ErrorCode::ServiceStopped, text);
                self.fail(transaction, error, out);
            } else if self.transactions[transaction].stage == Stage::Waiting {
                let from = self.transactions[transaction].service;
                self.registry[from].queue.remove(transaction, &mut self.transactions);
                self.transactions[transaction].service = service;
                self.registry[service].queue.add(transaction, &mut self.transactions);
            } else {
                self.transactions[transaction].service = service;
            }
        }
        self.serve(service, out);
    }

    /// `delete client`.
    pub(crate) fn delete_client(&mut self, key: ClientKey, out: Out<'_>) {
        let text = "the operator deleted this client";
        self.send_away(key, &ErrorBody::new(ErrorCode::ClientDeleted, text), out);
    }

    /// Closes a client's connection for this reason. Each request that it has under way gets it as
    /// its outcome first, with the word whether it ran: the error of the connection can't say that
    /// of each.
    pub(crate) fn send_away(&mut self, key: ClientKey, error: &ErrorBody, out: Out<'_>) {
        let Client { link, ref in_flight, .. } = self.clients[key];
        for transaction in in_flight.keys().collect::<Vec<_>>() {
            let ran = match self.transactions[transaction].stage {
                Stage::Waiting | Stage::Blocked => Ran::No,
                Stage::Held(_) | Stage::Bound(_) => Ran::Maybe,
            };
            self.fail(transaction, ErrorBody { ran, ..error.clone() }, out);
        }
        self.refuse_link(link, error.clone(), out);
    }
}

/// How the fact of a new client names it.
fn introduction(client: &Client, service: &ServiceName) -> String {
    let Client { id, priority, hostpid, loghost, .. } = client;
    let mut text = format!(
        "client: priority={priority}, hostpid={hostpid}, id={id}, loghost={loghost}, \
         service={service}"
    );
    if let Some(token) = &client.peer.token {
        text += &format!(", token={token}");
    }
    text
}

/// A peer as named in errors and facts.
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

use super::action::Action;
