//! The attached clients (the manual's priority list): login, logout, blocking, priority, moving to
//! another service. Their requests are in `transaction`.

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

/// The `watch` of an operator: which facts are sent to it, and how.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Sequence of the command; each fact is a piece of its reply.
    pub(crate) sequence: u32,
    /// Kinds of facts that it wants; empty = all.
    pub(crate) kinds: Vec<FactKind>,
    /// Facts that it did not get because its link was congested; sent with the next one that it
    /// gets.
    pub(crate) skipped: u64,
}

/// An attached client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Counted up from 0 at each login.
    pub(crate) id: ClientId,
    /// Its connection, from its login until it is gone.
    pub(crate) link: LinkId,
    /// The service that its requests go to. The operator may change it (`service`).
    pub(crate) service: ServiceKey,
    /// Priority of its requests that have none of their own (0); lower is served first. The
    /// operator may change it (`pri`).
    pub(crate) priority: u8,
    /// Host name that it gave at its login; not checked.
    pub(crate) loghost: String,
    /// Process id that it gave at its login; not checked.
    pub(crate) hostpid: u32,
    /// Name of the program that it gave at its login; not checked.
    pub(crate) name: Option<String>,
    /// Form in which the answers of `op` are sent to it.
    pub(crate) format: Format,
    /// It promised at its login to answer pings.
    pub(crate) heartbeat: bool,
    /// The peer as the kernel reports it, and its token.
    pub(crate) peer: Peer,
    /// After `block`, until `unblock`: its requests wait in no queue.
    pub(crate) is_blocked: bool,
    /// The last `block`: its tick and its origin.
    pub(crate) block_act: Option<Box<OperatorAct>>,
    /// How many requests it may have under way, as announced at its login.
    pub(crate) requests_max: u64,
    /// Its transactions that have no outcome yet, by sequence.
    pub(crate) in_flight: InFlight,
    /// Sequences of requests that ended before their last piece came, and when they ended. Further
    /// pieces are discarded, and the sequence is in use until the piece with `more` = 0; that one
    /// is answered with an error, unless it comes in the turn of the end (docs/decisions/0022).
    pub(crate) discarded: BTreeMap<u32, Tick>,
    /// When it logged in.
    pub(crate) since: Tick,
    /// Requests accepted from it since its login or `reset`.
    pub(crate) requests: u64,
    /// Requests of it that a worker answered, counted from the same moment.
    pub(crate) answered: u64,
    /// Requests of it that ended with an error or were refused, counted from the same moment.
    pub(crate) failed: u64,
    /// Its `watch`, if it is an operator that has one.
    pub(crate) watch: Option<Watch>,
}

/// Most entries of `Client::discarded`. A client with so many may begin no further request in
/// pieces: if an entry were forgotten, the rest of its request would be taken for a new request.
const DISCARDED_MAX: usize = 1024;

impl Client {
    /// From now on, further pieces of this request are discarded.
    pub(crate) fn discard_rest(&mut self, sequence: u32, now: Tick) {
        self.discarded.insert(sequence, now);
    }

    /// Whether a frame belongs to a request that ended before its last piece came. A frame that
    /// names a worker belongs to a conversation of that sequence, if there is one.
    pub(crate) fn is_rest(&self, head: &Header) -> bool {
        !self.discarded.is_empty()
            && self.discarded.contains_key(&head.sequence)
            && (head.workerid == 0 || self.in_flight.get(head.sequence).is_none())
    }

    /// Whether `discarded` is full.
    pub(crate) fn discards_too_many(&self) -> bool {
        self.discarded.len() >= DISCARDED_MAX
    }
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
    /// Handles the login of a client: at once, or after the proof of its token.
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
        if is_op || self.may_cause(Class::LoggedInDebug, Some(link)) {
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

    /// The error text for a name that no service has, with the name that it may be a misspelling
    /// of.
    pub(crate) fn unknown_service(&self, name: &str) -> String {
        let near = protocol::op::parse::nearest(name, self.registry.names());
        let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
        format!("service '{name}' is unknown; 'services' lists the names{hint}")
    }

    /// Removes a client whose link is gone: its waiting requests are removed, those with a worker
    /// go on without it.
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
        if !is_op && !self.may_cause(Class::LoggedInDebug, None) {
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

    /// Carries out `block` and `unblock`: the client's waiting requests leave the queue, or return
    /// to their places in it.
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

    /// Carries out `pri`: the new priority also counts for waiting requests that have none of their
    /// own.
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

    /// Carries out `service`: later requests and those that wait go to the new service; one that a
    /// worker has stays there.
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

    /// Carries out `delete client`: closes its connection with an error.
    pub(crate) fn delete_client(&mut self, key: ClientKey, out: Out<'_>) {
        let text = "the operator deleted this client";
        self.send_away(key, &ErrorBody::new(ErrorCode::ClientDeleted, text), out);
    }

    /// Closes a client's connection with this error. Each request under way gets the error as its
    /// outcome first, with `ran` set for it alone: the error about the connection can't say that
    /// for each of them.
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

/// The text of the fact about a new client.
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

use super::action::Action;
