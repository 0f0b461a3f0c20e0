//! The attached clients (the manual's priority list), as they introduced themselves. `dispatch` has
//! their requests.

use crate::engine::keys::{ClientKey, Table};
use crate::engine::operator_act::OperatorAct;
use protocol::ids::BUILTIN_IDS;
use protocol::{ClientId, Format, LinkId, Login, Tick, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

/// An attached client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Counted up from 0 at each login.
    pub(crate) id: ClientId,
    /// Its connection, from its login until it is gone.
    pub(crate) link: LinkId,
    /// Host name that it gave at its login; not checked.
    pub(crate) loghost: String,
    /// Process id that it gave at its login; not checked.
    pub(crate) hostpid: u32,
    /// Name of the program that it gave at its login; not checked. Independent of all else: it
    /// never changes.
    pub(crate) name: Option<String>,
    /// Form in which the answers of `op` are sent to it.
    pub(crate) format: Format,
    /// It promised at its login to answer pings, and can. Independent of all else: only a client
    /// that closes its side can't any more.
    pub(crate) heartbeat: bool,
    /// The last `block`: its tick and its origin. Valid while it is blocked (`Caller::is_blocked`).
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
    pub(super) next_id: u32,
    /// How many ids were given to clients of built-in services, which are counted from
    /// `BUILTIN_IDS` on.
    builtin_count: u32,
    /// How many of them promised to answer pings.
    pub(super) heartbeats: usize,
}

/// The links of the clients that show the secret of a worker's start, by the worker; one without
/// such clients has no entry.
#[derive(Debug, Default)]
pub(crate) struct StartClients(pub(super) BTreeMap<WorkerId, BTreeSet<LinkId>>);

impl Client {
    /// A client that logs in now; [`Clients::add`] gives it its id.
    pub(super) fn new(link: LinkId, login: Login, now: Tick) -> Self {
        Self {
            id: ClientId(0),
            link,
            loghost: login.loghost,
            hostpid: login.hostpid,
            name: login.name,
            format: login.format,
            heartbeat: login.heartbeat,
            block_act: None,
            since: now,
        }
    }
}

impl Clients {
    /// The id of the next client. After the last one the ids begin anew; those that are attached
    /// are passed over.
    pub(super) fn coming_id(&self, is_builtin: bool) -> ClientId {
        let first = if is_builtin { BUILTIN_IDS } else { 0 };
        let given = if is_builtin { self.builtin_count } else { self.next_id };
        let ids = (0..BUILTIN_IDS).map(|more| given.wrapping_add(more) % BUILTIN_IDS + first);
        // There are always fewer clients than ids, because each takes memory.
        ids.map(ClientId).find(|id| !self.ids.contains_key(id)).unwrap_or(ClientId(first))
    }

    /// Adds a client, with the next id; `is_builtin`: it is a built-in service.
    pub(super) fn add(&mut self, mut client: Client, is_builtin: bool) -> (ClientKey, ClientId) {
        let id = self.coming_id(is_builtin);
        let next = (id.0 % BUILTIN_IDS + 1) % BUILTIN_IDS;
        if is_builtin {
            self.builtin_count = next;
        } else {
            self.next_id = next;
        }
        self.heartbeats += usize::from(client.heartbeat);
        client.id = id;
        let key = self.table.insert(client);
        self.ids.insert(id, key);
        (key, id)
    }

    /// Removes a client.
    pub(super) fn remove(&mut self, key: ClientKey) -> Client {
        let client = self.table.remove(key);
        self.ids.remove(&client.id);
        self.heartbeats -= usize::from(client.heartbeat);
        client
    }

    /// A client can answer no pings from now on.
    pub(crate) fn forget_heartbeat(&mut self, key: ClientKey) {
        self.heartbeats -= usize::from(std::mem::take(&mut self.table[key].heartbeat));
    }

    /// The client with this id, if it is attached.
    pub(crate) fn find(&self, id: ClientId) -> Option<ClientKey> {
        self.ids.get(&id).copied()
    }

    /// Number of attached clients (`isdData.PriList`), without those that are built-in services.
    pub(crate) fn count(&self) -> usize {
        self.table.len() - self.ids.range(ClientId(BUILTIN_IDS)..).count()
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

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ServiceName;

    fn add(clients: &mut Clients, index: u32, is_builtin: bool) -> u32 {
        let link = LinkId { index, generation: 0 };
        let client = Client::new(link, Login::to(ServiceName::op()), Tick(0));
        clients.add(client, is_builtin).1.0
    }

    #[test]
    fn ids_begin_anew_after_the_last_one_and_pass_over_who_is_attached() {
        let mut clients = Clients::default();
        assert_eq!(add(&mut clients, 0, false), 0);
        clients.next_id = BUILTIN_IDS - 1;
        assert_eq!(add(&mut clients, 1, false), BUILTIN_IDS - 1);
        assert_eq!(add(&mut clients, 2, false), 1);
        assert_eq!((clients.next_id, clients.count()), (2, 3));
    }

    #[test]
    fn built_in_clients_have_ids_of_their_own_and_are_not_counted() {
        let mut clients = Clients::default();
        assert_eq!(add(&mut clients, 0, true), BUILTIN_IDS);
        assert_eq!((clients.next_id, clients.count()), (0, 0));
        clients.builtin_count = BUILTIN_IDS - 1;
        assert_eq!(add(&mut clients, 1, true), u32::MAX);
        assert_eq!(add(&mut clients, 2, true), BUILTIN_IDS + 1);
        assert_eq!((clients.next_id, clients.count()), (0, 0));
    }
}
